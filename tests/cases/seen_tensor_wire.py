"""Tensors go through three filters of a graph (crop, normalize, embed), each behind a port that speaks messages of bytes.

Injected: ports copy. In cases named wire a message is a header joined to `tobytes()`, parts are joined, the receiver cuts, and copies
what it cut; each filter converts to float64 and back for safety. In cases named lists the last port's message has the tensor as a list
of numbers. The twin's message is the header and a view of the array: nothing is copied but what a filter writes.
"""

import json
import os
import struct
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy

import work

CASES = {
    "slow-wire-1": "slow wire 1",
    "slow-wire-4": "slow wire 4",
    "slow-lists-1": "slow lists 1",
    "fixed-wire-1": "fixed wire 1",
    "fixed-wire-4": "fixed wire 4",
    "fixed-lists-1": "fixed lists 1",
}
LABEL = ["host-copies"]
ALSO = {"slow": ["page-faults", "native-hot-spot"], "fixed": ["native-hot-spot"]}
WHERE = "send|receive|pack|unpack|tobytes|tolist|array|astype|join|numpy|port|Port|through"
NEEDS = "numpy"


class WirePort:
    def send(self, tensor):
        wide = tensor.astype(numpy.float64)  # for safety
        head = json.dumps({"shape": wide.shape, "type": "f8"}).encode()
        return b"".join([struct.pack("<I", len(head)), head, wide.tobytes()])

    def receive(self, message):
        (size,) = struct.unpack_from("<I", message)
        head, body = json.loads(message[4 : 4 + size]), message[4 + size :]
        tensor = numpy.frombuffer(body, dtype=head["type"]).reshape(head["shape"]).copy()
        return tensor.astype(numpy.float32)


class ListPort:
    def send(self, tensor):
        return {"shape": tensor.shape, "values": tensor.ravel().tolist()}

    def receive(self, message):
        return numpy.array(message["values"], dtype=numpy.float32).reshape(message["shape"])


class ViewPort:
    def send(self, tensor):
        return {"shape": tensor.shape, "type": "f4"}, memoryview(numpy.ascontiguousarray(tensor)).cast("B")

    def receive(self, message):
        head, body = message
        return numpy.frombuffer(body, dtype=head["type"]).reshape(head["shape"])


class Crop:
    def __call__(self, tensor):
        return tensor[: len(tensor) - 16]


class Normalize:
    def __init__(self):
        self.kept = None

    def __call__(self, tensor):
        if self.kept is None:
            self.kept = numpy.empty_like(tensor)
        numpy.subtract(tensor, tensor[0].mean(), out=self.kept)
        self.kept *= numpy.float32(0.7)
        return self.kept


class Embed:
    def __init__(self):
        self.weight = numpy.random.default_rng(2).standard_normal((256, 448), dtype=numpy.float32) / 16
        self.kept = None

    def __call__(self, tensor):
        if self.kept is None:
            self.kept = numpy.empty((len(tensor), 448), dtype=numpy.float32)
        return numpy.tanh(numpy.matmul(tensor, self.weight, out=self.kept), out=self.kept)


class Graph:
    def __init__(self, ports):
        self.stages = list(zip(ports, [Crop(), Normalize(), Embed()]))

    def through(self, tensor):
        for port, filter in self.stages:
            tensor = filter(port.receive(port.send(tensor)))
        return tensor.sum(axis=0)


def main():
    variant, kind, megabytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if variant == "fixed":
        ports = [ViewPort()] * 3
    else:
        ports = [WirePort()] * 3 if kind == "wire" else [ViewPort(), ViewPort(), ListPort()]
    graph = Graph(ports)
    tensor = numpy.random.default_rng(1).standard_normal((megabytes << 10, 256), dtype=numpy.float32)
    count = {"slow": {"wire": 400 // megabytes, "lists": 200}[kind], "fixed": 1000 // megabytes}[variant]
    work.run(lambda number: graph.through(tensor), count)


main()

"""A guard of turbines: a process has samples, a thread polls it over a bus, and the main thread judges what is known by now.

Injected: the bus has numbers as varints with zigzag deltas, which the reading thread decodes in Python, byte by byte; whenever the
judging thread comes back from native code it waits for the decoder to let go of the interpreter. The twin's bus has numbers of four
bytes, which `array` reads at once. Both rest as long between two polls; `breeze` and `storm` are how many samples come at once.
"""

import array
import hashlib
import multiprocessing
import socket
import struct
import sys
import threading
import time
import zlib

import work

CASES = {
    "slow-breeze": "slow breeze",
    "slow-storm": "slow storm",
    "fixed-breeze": "fixed breeze",
    "fixed-storm": "fixed storm",
}
LABEL = ["gil-contention"]
ALSO = {"slow": ["cpu-bound-python"], "fixed": ["native-hot-spot"]}
WHERE = "decode|varint|listen|Bus|judge|summary|layer"
MEASURE = "mean"
BURST = {"breeze": 24_000, "storm": 80_000}
PAUSE_S = 0.006
HEAD = struct.Struct("<I")


def varints(values):
    out, last = bytearray(), 0
    for value in values:
        delta = value - last
        last = value
        rest = delta << 1 if delta >= 0 else (-delta << 1) - 1
        while rest > 0x7F:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def turbines(link, compact, burst):
    """The sender: a burst of samples for each poll, until nobody listens."""
    values = [20_000 + number * 7919 % 4000 for number in range(burst)]
    body = varints(values) if compact else array.array("I", values).tobytes()
    try:
        while link.recv(1):
            link.sendall(HEAD.pack(len(body)) + body)
    except OSError:
        pass


class Bus:
    """Polls, and knows the latest."""

    def __init__(self, link, compact):
        self.link, self.compact = link, compact
        self.latest = [20_000] * 64
        self.bursts, self.done = 0, False

    def listen(self):
        stream = self.link.makefile("rb")
        while not self.done:
            self.link.sendall(b"?")
            body = stream.read(*HEAD.unpack(stream.read(HEAD.size)))
            self.latest = self.decode_varints(body) if self.compact else array.array("I", body)
            self.bursts += 1
            time.sleep(PAUSE_S)

    def decode_varints(self, body):
        values, last, rest, shift = [], 0, 0, 0
        for byte in body:
            rest |= (byte & 0x7F) << shift
            if byte & 0x80:
                shift += 7
                continue
            last += rest >> 1 if not rest & 1 else -((rest + 1) >> 1)
            values.append(last)
            rest = shift = 0
        return values


class Guard:
    """A model of two layers of native code, on the last samples."""

    def __init__(self, bus):
        self.bus = bus
        self.state = hashlib.shake_128(b"turbine").digest(60_000)
        self.alarms = 0

    def judge(self, number):
        summary = array.array("I", self.bus.latest[-64:]).tobytes()
        for layer in range(2):
            self.state = hashlib.shake_128(summary + zlib.compress(self.state[:36_000], 3) + b"%d" % layer).digest(360_000)
        self.alarms += self.state[0] < 3


def main():
    variant, kind = sys.argv[1:3]
    compact = variant == "slow"
    ours, theirs = socket.socketpair()
    sender = multiprocessing.get_context("fork").Process(target=turbines, args=(theirs, compact, BURST[kind]), daemon=True)
    sender.start()
    theirs.close()
    bus = Bus(ours, compact)
    listener = threading.Thread(target=bus.listen)
    listener.start()
    work.run(Guard(bus).judge, {"slow": {"breeze": 600, "storm": 400}[kind], "fixed": 1000}[variant])
    bus.done = True
    listener.join()
    sender.terminate()
    sender.join()


main()

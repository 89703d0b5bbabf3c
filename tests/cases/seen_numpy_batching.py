"""A class-based model of numpy matmuls, behind an endpoint that gets a list of items.

Injected: `predict` calls the model once for each item, a matrix by a vector. The twin stacks the items and calls it once. The
weights are read once for each item instead of once a request, and each call does little for what it costs.
"""

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one request at a time; the other processor is for its neighbours

import numpy

import work

CASES = {
    "slow-8": "slow 8",
    "slow-64": "slow 64",
    "fixed-8": "fixed 8",
    "fixed-64": "fixed 64",
}
LABEL = ["small-batches"]
ALSO = ["native-hot-spot", "cpu-bound-python"]
WHERE = "forward|predict|__call__|numpy|matmul"
NEEDS = "numpy"


class Dense:
    def __init__(self, rng, inputs, outputs, relu=True):
        self.weight = rng.standard_normal((inputs, outputs), dtype=numpy.float32) / inputs**0.5
        self.bias = numpy.zeros(outputs, dtype=numpy.float32)
        self.relu = relu

    def __call__(self, x):
        x = x @ self.weight + self.bias
        return numpy.maximum(x, 0) if self.relu else x


class Model:
    def __init__(self, width=384, depth=4):
        rng = numpy.random.default_rng(7)
        self.layers = [Dense(rng, width, width) for _ in range(depth)] + [Dense(rng, width, 10, relu=False)]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Endpoint:
    def __init__(self, model, batched):
        self.model, self.batched = model, batched

    def predict(self, items):
        if self.batched:
            logits = self.model.forward(numpy.stack(items))
            return logits.argmax(axis=1).tolist()
        return [int(self.model.forward(item[None, :])[0].argmax()) for item in items]


def main():
    variant, size = sys.argv[1], int(sys.argv[2])
    rng = numpy.random.default_rng(1)
    items = [rng.standard_normal(384, dtype=numpy.float32) for _ in range(size)]
    endpoint = Endpoint(Model(), batched=variant == "fixed")
    work.run(lambda number: endpoint.predict(items), {"slow": {8: 900, 64: 150}, "fixed": {8: 2500, 64: 900}}[variant][size])


main()

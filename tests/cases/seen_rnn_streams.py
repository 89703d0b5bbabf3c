"""A recurrent model of numpy for keystrokes of many typists: each has a state, and each key moves it on.

Injected: `advance` moves one typist's state at a time, so that all weights are read for each key. The twin gathers the states and keys
of a tick and moves them on in one go. In cases named beams a state has several continuations to rank, one call each; the twin ranks
them in one call.
"""

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy

import work

CASES = {
    "slow-typists-12": "slow typists 12",
    "slow-beams-10": "slow beams 10",
    "fixed-typists-12": "fixed typists 12",
    "fixed-beams-10": "fixed beams 10",
}
LABEL = ["small-batches"]
ALSO = {"slow": ["native-hot-spot"], "fixed": ["native-hot-spot"]}
WHERE = "advance|rank|tick|numpy|matmul|cell|Cell"
NEEDS = "numpy"
WIDTH, KEYS = 512, 96


class Cell:
    """A gated cell: two gates and a candidate."""

    def __init__(self, seed):
        random = numpy.random.default_rng(seed)
        self.embedding = random.standard_normal((KEYS, WIDTH), dtype=numpy.float32)
        self.inner = random.standard_normal((WIDTH, 3 * WIDTH), dtype=numpy.float32) / 24
        self.outer = random.standard_normal((WIDTH, 3 * WIDTH), dtype=numpy.float32) / 24

    def advance(self, states, keys):
        """Rows of states and their keys; new states."""
        seen = self.embedding[keys] @ self.inner
        kept = states @ self.outer
        gates = numpy.tanh(seen[:, : 2 * WIDTH] + kept[:, : 2 * WIDTH]) * 0.5 + 0.5
        update, reset = gates[:, :WIDTH], gates[:, WIDTH:]
        candidate = numpy.tanh(seen[:, 2 * WIDTH :] + reset * kept[:, 2 * WIDTH :])
        return update * states + (1 - update) * candidate


class OneByOne:
    def __init__(self, cell, typists):
        self.cell = cell
        self.states = [numpy.zeros((1, WIDTH), dtype=numpy.float32) for _ in range(typists)]

    def tick(self, keys):
        for typist, key in enumerate(keys):
            self.states[typist] = self.cell.advance(self.states[typist], numpy.array([key]))

    def rank(self, keys):
        return [float(self.cell.advance(self.states[0], numpy.array([key])).max()) for key in keys]


class Together:
    def __init__(self, cell, typists):
        self.cell = cell
        self.states = numpy.zeros((typists, WIDTH), dtype=numpy.float32)

    def tick(self, keys):
        self.states = self.cell.advance(self.states, numpy.array(keys))

    def rank(self, keys):
        states = numpy.repeat(self.states[:1], len(keys), axis=0)
        return self.cell.advance(states, numpy.array(keys)).max(axis=1).tolist()


def main():
    variant, kind, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    typists = size if kind == "typists" else 1
    keyboard = (OneByOne if variant == "slow" else Together)(Cell(5), typists)

    def step(number):
        keyboard.tick([(number * 31 + typist * 7) % KEYS for typist in range(typists)])
        if kind == "beams":
            keyboard.rank([(number + beam * 11) % KEYS for beam in range(size)])

    work.run(step, {"slow": {"typists": 800, "beams": 900}[kind], "fixed": 2600}[variant])


main()

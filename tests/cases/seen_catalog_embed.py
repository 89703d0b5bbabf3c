"""A batch job that embeds the products of a catalogue: rows of a token table are pooled, passed through five layers, quantised to eight
bits, and projected to the short codes that the search keeps.

Injected, in cases named codes: the projection multiplies matrices of int32, for which numpy has no BLAS but a plain loop:
native-hot-spot. The twin multiplies them as float32; all sums are whole numbers below 2**24, so that the codes are the same to the bit.

Injected, in cases named snapshot: since the table may be retrained while the job runs, each batch takes a copy of the whole table
and pools from that: host-copies. The twin gathers the batch's rows (a copy in itself), and compares the version before and after.

healthy-batch: codes with float32, no snapshot, larger batches.
"""

import os
import sys
import zlib
from dataclasses import dataclass

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # another job of ours has the other core

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-codes": "slow codes",
    "slow-snapshot": "slow snapshot",
    "fixed-codes": "fixed codes",
    "fixed-snapshot": "fixed snapshot",
    "healthy-batch": "healthy batch",
}
LABEL = {"slow-codes": ["native-hot-spot"], "slow-snapshot": ["host-copies"]}
ALSO = {
    "slow-codes": [],
    "slow-snapshot": ["native-hot-spot", "page-faults"],  # the copy is a native function, into memory that may be fresh
    "fixed": ["native-hot-spot"],  # the products of the layers are half of a step
    "healthy": ["native-hot-spot"],
}
WHERE = "project|Codes|snapshot|pinned|Table|copy|pool"
MEASURE = "mean"
WORDS, WIDTH, SHORT, TOKENS = 60_000, 128, 64, 6


class Table:
    """Vectors of tokens, that a trainer may write to; the version is raised when it does."""

    def __init__(self, words, seed=2):
        self.rows = np.random.default_rng(seed).standard_normal((words, WIDTH), dtype=np.float32)
        self.version = 1

    def pinned(self):
        """A state of the table that nobody writes to."""
        return self.rows.copy()

    def gather(self, tokens):
        while True:
            before = self.version
            rows = self.rows[tokens]
            if self.version == before:
                return rows


class Layers:
    def __init__(self, seed=4):
        draw = np.random.default_rng(seed)
        self.weights = draw.standard_normal((5, WIDTH, WIDTH), dtype=np.float32) / np.float32(WIDTH**0.5)

    def __call__(self, hidden):
        for weight in self.weights:
            hidden = np.tanh(hidden @ weight)
        return hidden


class Codes:
    """Eight bits for each dimension, then a projection with whole numbers."""

    def __init__(self, kind, seed=6):
        self.kind = kind
        self.matrix = np.random.default_rng(seed).integers(-127, 128, (WIDTH, SHORT)).astype(kind)

    @staticmethod
    def quantise(hidden):
        return np.rint(hidden * np.float32(127)).astype(np.int8)

    def project(self, levels):
        sums = levels.astype(self.kind) @ self.matrix
        return sums.astype(np.int32) >> 8


@dataclass
class Batch:
    first: int
    tokens: np.ndarray
    weights: np.ndarray


class Catalogue:
    def __init__(self, products, words, seed=8):
        draw = np.random.default_rng(seed)
        self.products = products
        self.tokens = draw.integers(0, words, (4 * products, TOKENS))
        self.weights = draw.random((4 * products, 1, TOKENS), dtype=np.float32)

    def batch(self, number):
        first = number % 4 * self.products
        part = slice(first, first + self.products)
        return Batch(first, self.tokens[part], self.weights[part])


class Job:
    def __init__(self, table, codes, snapshot):
        self.table, self.codes, self.snapshot = table, codes, snapshot
        self.layers, self.sums = Layers(), 0

    def pool(self, batch):
        rows = self.table.pinned()[batch.tokens] if self.snapshot else self.table.gather(batch.tokens)
        return (batch.weights @ rows)[:, 0] * np.float32(1 / TOKENS)

    def embed(self, batch):
        hidden = self.layers(self.pool(batch))
        return self.codes.project(self.codes.quantise(hidden))

    def store(self, batch, short, shelf):
        shelf[batch.first : batch.first + len(short)] = short
        self.sums = zlib.crc32(short, self.sums)


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    products = {"codes": 768, "snapshot": 768, "batch": 1200}[kind]
    job = Job(Table(WORDS), Codes(np.int32 if slow and kind == "codes" else np.float32), snapshot=slow and kind == "snapshot")
    catalogue = Catalogue(products, WORDS)
    shelf = np.zeros((4 * products, SHORT), np.int32)

    def step(number):
        batch = catalogue.batch(number)
        job.store(batch, job.embed(batch), shelf)

    work.run(step, {"slow-codes": 400, "fixed-codes": 800, "slow-snapshot": 350, "fixed-snapshot": 800, "healthy-batch": 450}[f"{variant}-{kind}"])


if __name__ == "__main__":
    main()

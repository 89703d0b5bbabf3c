"""A nightly job that turns blocks of embeddings into codes of a product quantiser, and stages vectors for an uploader in mapped memory.

Injected, in cases named rows: the encoder is called for each vector of a block, with a few calls of numpy for each subspace, where one
for all vectors of the block would do: small-batches. The twin encodes the block at once; the codes are the same.

Injected, in cases named arena: each block is staged in an arena that is mapped anew (`mmap`), so that each of its pages is touched for
the first time, and given back after it: page-faults. The twin maps one arena and writes all blocks into it. As many bytes are
written in both.

healthy-nightly: blocks are encoded at once and packed; nothing is staged.
"""

import mmap
import os
import sys
import zlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the job has one core

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-rows": "slow rows",
    "slow-arena": "slow arena",
    "fixed-rows": "fixed rows",
    "fixed-arena": "fixed arena",
    "healthy-nightly": "healthy nightly",
}
LABEL = {"slow-rows": ["small-batches"], "slow-arena": ["page-faults"]}
ALSO = {
    "slow-rows": ["cpu-bound-python"],
    "slow-arena": ["host-copies", "native-hot-spot"],
    "fixed-rows": ["native-hot-spot"],
    "fixed-arena": ["native-hot-spot", "host-copies"],
    "healthy": ["native-hot-spot"],
}
WHERE = "encode|nearest|stage|arena|Stage|write|fill"
MEASURE = "mean"
WIDTH, SPACES, CENTRES = 64, 8, 32
ARENA = 24 << 20


class Quantiser:
    def __init__(self, seed=5):
        draw = np.random.default_rng(seed)
        self.books = draw.standard_normal((SPACES, CENTRES, WIDTH // SPACES), dtype=np.float32)
        self.norms = (self.books**2).sum(axis=2)

    def nearest(self, space, part):
        """The centre for each row of this part: |c|^2 - 2 x.c is least."""
        return (self.norms[space] - 2 * (part @ self.books[space].T)).argmin(axis=-1)

    def encode(self, vectors):
        codes = np.empty((len(vectors), SPACES), np.uint8)
        parts = vectors.reshape(len(vectors), SPACES, -1)
        for space in range(SPACES):
            codes[:, space] = self.nearest(space, parts[:, space])
        return codes

    def encode_one(self, vector):
        parts = vector.reshape(SPACES, -1)
        return [self.nearest(space, parts[space]) for space in range(SPACES)]


class Source:
    """Blocks of embeddings, as a reader of the store would hand them out."""

    def __init__(self, rows, seed=11):
        self.blocks = list(np.random.default_rng(seed).standard_normal((3, rows, WIDTH), dtype=np.float32))

    def block(self, number):
        return self.blocks[number % len(self.blocks)]


class Stage:
    """Where the uploader finds a block: mapped memory, that a child can share."""

    def __init__(self, keep):
        self.kept = self.map() if keep else None

    @staticmethod
    def map():
        return np.frombuffer(mmap.mmap(-1, ARENA), np.float32)

    def write(self, block):
        arena = self.kept if self.kept is not None else self.map()
        view = arena[: block.size].reshape(block.shape)
        np.multiply(block, np.float32(0.125), out=view)
        return zlib.crc32(view[::512].tobytes())


class Build:
    def __init__(self, variant):
        self.variant, self.quantiser, self.sums = variant, Quantiser(), 0

    def encode_step(self, source):
        def step(number):
            block = source.block(number)
            if self.variant == "slow":
                codes = np.array([self.quantiser.encode_one(vector) for vector in block], np.uint8)
            else:
                codes = self.quantiser.encode(block)
            self.sums ^= zlib.crc32(zlib.compress(codes.tobytes(), 1))

        return step

    def stage_step(self, source):
        stage = Stage(keep=self.variant == "fixed")

        def step(number):
            self.sums ^= stage.write(source.block(number))

        return step


def main():
    variant, kind = sys.argv[1:3]
    build = Build(variant)
    if kind == "arena":
        work.run(build.stage_step(Source(ARENA // 4 // WIDTH)), {"slow": 150, "fixed": 950}[variant])
    elif kind == "nightly":
        work.run(build.encode_step(Source(2000)), 1000)
    else:
        work.run(build.encode_step(Source(600)), {"slow": 150, "fixed": 4500}[variant])


if __name__ == "__main__":
    main()

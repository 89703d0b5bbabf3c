"""An engine that compiles a kernel for each shape it meets: source text, made for the length, then `compile`, then a model in native code;
and adapters, small sets of weights that are read from a packed file.

Injected, in cases named shape: kernels are kept by exact length. Most requests are of eight lengths that were compiled at the start, but
about one of twelve has a length that was never seen, and takes the compiling on itself: most steps take a few ms, some ten times as
much. The twin pads a request to the next of the eight. In cases named adapter: after sixteen requests the adapter is taken as stale and
read and unpacked again within the request; the twin looks first whether the file is another one. The median of the steps is the same
in both: the mean tells them apart.

Case healthy-warm: requests of few lengths, all compiled, and a larger model.
"""

import os
import random
import struct
import sys
import tempfile
import zlib

import work

CASES = {
    "slow-shape": "slow shape",
    "slow-adapter": "slow adapter",
    "fixed-shape": "fixed shape",
    "fixed-adapter": "fixed adapter",
    "healthy-warm": "healthy warm",
}
LABEL = {"slow": ["step-jitter"]}
ALSO = {"slow": ["cpu-bound-python", "native-hot-spot", "preprocessing-bound"], "healthy": ["native-hot-spot"]}
WHERE = "compile|kernel|build|source|adapter|Adapter|load|unpack|weights|refresh"
MEASURE = "mean"
BUCKETS = [256, 512, 768, 1024, 1280, 1536, 1792, 2048]
RARE = 12  # one of so many has a length of its own
STALE = 16
ROWS, WIDTH = 6000, 32


def source(length):
    """The kernel for one length, unrolled."""
    lines = ["def kernel(x, scale):", "    total = 0.0"]
    for at in range(3000 + length // 16):
        lines.append(f"    total += x[{at % 64}] * scale + {at}.5 if total < 1e9 else -total * 0.{at + 1}")
    lines.append("    return total")
    return "\n".join(lines)


class Kernels:
    """Compiled kernels by length."""

    def __init__(self, exact):
        self.exact, self.built = exact, {}
        for length in BUCKETS:
            self.get(length)

    def shape(self, length):
        return length if self.exact else next(bucket for bucket in BUCKETS if bucket >= length)

    def get(self, length):
        shape = self.shape(length)
        kernel = self.built.get(shape)
        if kernel is None:
            kernel = self.built[shape] = self.build(shape)
        return kernel

    def build(self, shape):
        space = {}
        exec(compile(source(shape), f"<kernel {shape}>", "exec"), space)
        return space["kernel"]


class Adapter:
    """Rows of weights out of a packed file."""

    def __init__(self, path, look_first):
        self.path, self.look_first, self.uses, self.mark = path, look_first, 0, None
        self.refresh()

    def refresh(self):
        there = os.stat(self.path)
        mark = (there.st_mtime_ns, there.st_size)
        if not (self.look_first and mark == self.mark):
            self.load()
            self.mark = mark
        self.uses = 0

    def load(self):
        with open(self.path, "rb") as file:
            packed = zlib.decompress(file.read())
        rows = []
        for row in struct.iter_unpack(f"<{WIDTH}f", packed):
            most = max(map(abs, row)) or 1.0
            rows.append([round(value / most * 127) for value in row])
        self.rows = rows

    def weights(self):
        self.uses += 1
        if self.uses >= STALE:
            self.refresh()
        return self.rows


class Engine:
    def __init__(self, kernels, adapter, passes):
        self.kernels, self.adapter, self.passes = kernels, adapter, passes

    def infer(self, length):
        kernel = self.kernels.get(length)
        row = self.adapter.weights()[length % ROWS]
        score = kernel(row + row, 0.5)
        for _ in range(self.passes):
            answer = work.model()
        return answer, score


def lengths(rare):
    """Lengths of requests: of the common ones, and now and then one of its own."""
    rng = random.Random(21)
    own = [length for length in range(200, 2048) if length not in BUCKETS]
    rng.shuffle(own)
    while True:
        yield own.pop() if rare and rng.random() < 1 / RARE else rng.choice(BUCKETS)


def pack(path):
    rng = random.Random(1)
    values = [rng.gauss(0, 1) for _ in range(ROWS * WIDTH)]
    with open(path, "wb") as file:
        file.write(zlib.compress(struct.pack(f"<{len(values)}f", *values), 1))


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "adapter")
        pack(path)
        kernels = Kernels(exact=slow and kind == "shape")
        engine = Engine(kernels, Adapter(path, look_first=not (slow and kind == "adapter")), 3 if variant == "healthy" else 1)
        source_of = lengths(rare=kind == "shape")
        count = {"slow": {"shape": 330, "adapter": 400}, "fixed": {"shape": 700, "adapter": 700}, "healthy": {"warm": 250}}[variant][kind]
        work.run(lambda number: engine.infer(next(source_of)), count)


main()

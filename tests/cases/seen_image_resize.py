"""An image service: decode (zlib), resize, normalize, a small convolution by matmul.

Injected: the bilinear resize is two loops in Python over the elements of a numpy array. The twin does the same arithmetic with
arrays of indices. Elements of an array are read by numpy's own code, one by one: still it is the loop that is slow.
"""

import os
import sys
import zlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy

import work

CASES = {
    "slow-32": "slow 32",
    "slow-64": "slow 64",
    "fixed-32": "fixed 32",
    "fixed-64": "fixed 64",
}
LABEL = ["cpu-bound-python", "preprocessing-bound"]
ALSO = ["native-hot-spot"]
WHERE = "resize"
NEEDS = "numpy"
SOURCE = 400


def resize_loops(image, size):
    out = numpy.empty((size, size), dtype=numpy.float32)
    scale = (image.shape[0] - 1) / size
    for row in range(size):
        y, dy = divmod(row * scale, 1)
        y = int(y)
        for column in range(size):
            x, dx = divmod(column * scale, 1)
            x = int(x)
            above = float(image[y, x]) * (1 - dx) + float(image[y, x + 1]) * dx
            below = float(image[y + 1, x]) * (1 - dx) + float(image[y + 1, x + 1]) * dx
            out[row, column] = above * (1 - dy) + below * dy
    return out


def resize_arrays(image, size):
    at = numpy.arange(size) * ((image.shape[0] - 1) / size)
    low = at.astype(int)
    part = at - low
    rows = image[low] * (1 - part)[:, None] + image[low + 1] * part[:, None]
    return (rows[:, low] * (1 - part) + rows[:, low + 1] * part).astype(numpy.float32)


class Classifier:
    def __init__(self, size, resize):
        rng = numpy.random.default_rng(5)
        self.size, self.resize = size, resize
        self.filters = rng.standard_normal((25, 64), dtype=numpy.float32)
        self.head = rng.standard_normal((64, 100), dtype=numpy.float32)

    def features(self, image):
        patches = numpy.lib.stride_tricks.sliding_window_view(image, (5, 5)).reshape(-1, 25)
        return numpy.maximum(patches @ self.filters, 0).mean(axis=0)

    def __call__(self, packed):
        image = numpy.frombuffer(zlib.decompress(packed), dtype=numpy.uint8).reshape(SOURCE, SOURCE)
        small = self.resize(image, self.size)
        small = (small - small.mean()) / (small.std() + 1e-6)
        return int((self.features(small) @ self.head).argmax())


def main():
    variant, size = sys.argv[1], int(sys.argv[2])
    rng = numpy.random.default_rng(9)
    image = (numpy.add.outer(numpy.arange(SOURCE), numpy.arange(SOURCE)) % 200 + rng.integers(0, 9, (SOURCE, SOURCE))).astype(numpy.uint8)
    packed = zlib.compress(image.tobytes(), 6)
    classify = Classifier(size, resize_loops if variant == "slow" else resize_arrays)
    work.run(lambda number: classify(packed), {"slow": {32: 450, 64: 180}, "fixed": {32: 1000, 64: 700}}[variant][size])


main()

"""An inference worker that tells much about itself: each request is scored by a small network, logged in structured lines, and its
latency goes into a window from which exact percentiles are told with each answer, as the autoscaler wants them.

Injected, in cases named window: the window is sorted anew for each request: native-hot-spot (`sorted` of floats). The twin keeps the
window sorted besides, and inserts one and deletes one by bisection; the percentiles are the same.

Injected, in cases named rotate: the log's lines are kept as text and deflated when the log is rotated, in the request that has the
luck: step-jitter. The twin puts the lines through a compressor as they come, a bit in each request; the archives are the same.

healthy-plain: sorted window by bisection, lines to the compressor.
"""

import bisect
import collections
import logging
import math
import os
import sys
import zlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-window": "slow window",
    "slow-rotate": "slow rotate",
    "fixed-window": "fixed window",
    "fixed-rotate": "fixed rotate",
    "healthy-plain": "healthy plain",
}
LABEL = {"slow-window": ["native-hot-spot"], "slow-rotate": ["step-jitter"]}
ALSO = {
    "slow-window": [],
    "slow-rotate": ["native-hot-spot", "cpu-bound-python", "preprocessing-bound"],  # of zlib; of the log's lines
    "fixed": ["native-hot-spot", "cpu-bound-python", "preprocessing-bound"],  # the network's products, and zlib; logging is Python
    "healthy": ["native-hot-spot", "cpu-bound-python", "preprocessing-bound"],
}
WHERE = "percentile|tell|sorted|rotate|compress|archive|emit|roll"
MEASURE = "p99"
WIDTH, DEPTH, ROWS, WINDOW, ROTATE, SPANS = 192, 6, 150, 40_000, 50, 10


class SortingWindow:
    """The latest latencies, and their percentiles."""

    def __init__(self):
        draw = np.random.default_rng(1)
        self.latest = collections.deque(np.exp(draw.standard_normal(WINDOW)).tolist(), WINDOW)

    def add(self, value):
        self.latest.append(value)

    def percentiles(self):
        ordered = sorted(self.latest)
        return [ordered[int(share * WINDOW)] for share in (0.5, 0.9, 0.99)]


class OrderedWindow(SortingWindow):
    def __init__(self):
        super().__init__()
        self.ordered = sorted(self.latest)

    def add(self, value):
        del self.ordered[bisect.bisect_left(self.ordered, self.latest[0])]
        bisect.insort(self.ordered, value)
        self.latest.append(value)

    def percentiles(self):
        return [self.ordered[int(share * WINDOW)] for share in (0.5, 0.9, 0.99)]


class Archive(logging.Handler):
    """Holds the lines of the log till it is rotated; of the archives, the checksum is kept here, the rest goes to the store."""

    def __init__(self):
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
        self.lines, self.sums = [], []

    def emit(self, record):
        self.lines.append(self.format(record))

    def tick(self):
        """A request is done."""

    def rotate(self):
        text = "\n".join(self.lines) + "\n"
        self.archived(zlib.compress(text.encode(), 6))
        self.lines = []

    def archived(self, packed):
        self.sums.append((len(packed), zlib.crc32(packed)))


class StreamingArchive(Archive):
    def __init__(self):
        super().__init__()
        self.start()

    def start(self):
        self.compressor, self.parts = zlib.compressobj(6), []

    def tick(self):
        if self.lines:
            self.parts.append(self.compressor.compress(("\n".join(self.lines) + "\n").encode()))
            self.lines = []

    def rotate(self):
        self.tick()
        self.parts.append(self.compressor.flush())
        self.archived(b"".join(self.parts))
        self.start()


class Network:
    def __init__(self):
        draw = np.random.default_rng(7)
        self.layers = [draw.standard_normal((WIDTH, WIDTH), dtype=np.float32) / 12 for _ in range(DEPTH)]
        self.inputs = draw.standard_normal((16, ROWS, WIDTH), dtype=np.float32)

    def spans(self, number):
        """Goes through the layers, and tells of each what a trace would have."""
        rows = self.inputs[number % len(self.inputs)]
        for depth, layer in enumerate(self.layers):
            rows = np.tanh(rows @ layer)
            yield f"layer{depth}", float(rows[0, 0]), float(rows.std())


class Worker:
    def __init__(self, window, archive, chatty):
        self.window, self.archive, self.network, self.chatty = window, archive, Network(), chatty
        self.log = logging.getLogger("worker.infer")
        self.log.propagate = False
        self.log.setLevel(logging.INFO)
        self.log.addHandler(archive)
        self.told = 0.0

    def trace(self, number, name, score, spread):
        for at in range(SPANS if self.chatty else 1):
            key = zlib.crc32(b"%d.%d.%d" % (number, at, len(name)))
            self.log.info('{"span": "%s", "id": "%08x%08x", "score": %.12f, "spread": %.12f}', name, key, key * 31 & 0xFFFFFFFF,
                          score * (at + 1), spread / (at + 1))  # fmt: skip

    def handle(self, number):
        for name, score, spread in self.network.spans(number):
            self.trace(number, name, score, spread)
        self.window.add(math.exp(math.sin(number * 7.3) * 2))
        self.told += sum(self.window.percentiles())
        self.archive.tick()
        if number % ROTATE == ROTATE - 1:
            self.archive.rotate()


def main():
    variant, kind = sys.argv[1:3]
    slow = kind if variant == "slow" else ""
    worker = Worker(
        window=SortingWindow() if slow == "window" else OrderedWindow(),
        archive=Archive() if slow == "rotate" else StreamingArchive(),
        chatty=kind == "rotate",
    )
    work.run(worker.handle, {"slow window": 600, "fixed window": 2400, "healthy plain": 2400}.get(f"{variant} {kind}", 1700))


if __name__ == "__main__":
    main()

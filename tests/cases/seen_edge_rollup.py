"""A rollup service for telemetry of edge devices: frames arrive in windows, two ingest threads unpack them, and each window is told as
a 95th percentile for each series.

Injected, in cases named registry: an ingest thread takes the lock of the registry before it unpacks a frame (lzma, sha256, both without
the GIL) and holds it until the samples are in, so that the other thread stands before the lock meanwhile: lock-convoy. The twin
unpacks first, and takes the lock for the merge only. The same frames, the same samples.

Injected, in cases named history: the samples of closed windows are kept for ever, and the report of a window picks its samples out of
all that were ever seen of a series: memory-growth. The twin drops a window's samples once it is reported; the figures are the same.

healthy-steady: unpacks without the lock, drops what is reported, and each window has fewer samples than in history.
"""

import array
import hashlib
import itertools
import lzma
import queue
import random
import sys
import threading
import zlib
from dataclasses import dataclass, field

import work

NEEDS = ""
CASES = {
    "slow-registry": "slow registry",
    "slow-history": "slow history",
    "fixed-registry": "fixed registry",
    "fixed-history": "fixed history",
    "healthy-steady": "healthy steady",
}
LABEL = {"slow-registry": ["lock-convoy"], "slow-history": ["memory-growth"]}
ALSO = {
    "slow-registry": ["waiting", "native-hot-spot", "idle-no-work"],  # the main thread waits for the window; lzma is what is done under the lock
    "slow-history": ["cpu-bound-python", "preprocessing-bound", "native-hot-spot", "waiting", "gc-pressure", "idle-no-work", "page-faults"],
    "fixed-registry": ["native-hot-spot", "waiting", "idle-no-work"],  # lzma is most of the work
    "fixed-history": ["native-hot-spot", "waiting", "idle-no-work"],
    "healthy": ["native-hot-spot", "waiting", "idle-no-work"],
}
WHERE = "absorb|ingest|merge|report|since|close_window|Registry|Series|unpack"
MEASURE = "mean"
SERIES = [f"edge.{place}.{what}" for place in range(6) for what in ("cpu", "temp")]


@dataclass
class Frame:
    series: str
    packed: bytes
    digest: bytes


@dataclass
class Series:
    samples: list = field(default_factory=list)  # (window, value)
    last: float = 0.0

    def since(self, window):
        return [value for at, value in self.samples if at >= window]


class Registry:
    def __init__(self, keep, thin):
        self.lock = threading.Lock()
        self.series = {name: Series() for name in SERIES}
        self.keep, self.thin = keep, thin  # of so many samples, one is kept for the percentile

    def merge(self, frame, window, values):
        series = self.series[frame.series]
        series.last = values[-1]
        series.samples.extend(zip(itertools.repeat(window), values[:: self.thin]))

    def report(self, window):
        told = {}
        for name, series in self.series.items():
            values = sorted(series.since(window))
            told[name] = values[len(values) * 95 // 100]
            if not self.keep:
                series.samples.clear()
        return told


class Fleet:
    """Devices' frames, as they come from the wire; a window has one of each series."""

    def __init__(self, samples, seed=3):
        draw = random.Random(seed)
        self.frames = []
        for name in SERIES:
            levels = [draw.gauss(50, 9) for _ in range(samples // 3)]
            body = array.array("d", (levels[draw.randrange(len(levels))] for _ in range(samples))).tobytes()
            self.frames.append(Frame(name, lzma.compress(body, preset=0), hashlib.sha256(body).digest()))


class Rollup:
    def __init__(self, registry, locked_early, workers=2):
        self.registry, self.locked_early = registry, locked_early
        self.inbox = queue.Queue()
        self.damaged, self.sums = 0, 0
        self.threads = [threading.Thread(target=self.ingest, name=f"ingest-{at}", daemon=True) for at in range(workers)]
        for thread in self.threads:
            thread.start()

    def unpack(self, frame):
        body = lzma.decompress(frame.packed)
        if hashlib.sha256(body).digest() != frame.digest:
            self.damaged += 1
        values = array.array("d")
        values.frombytes(body)
        return values

    def absorb(self, window, frame):
        if self.locked_early:
            with self.registry.lock:
                self.registry.merge(frame, window, self.unpack(frame))
        else:
            values = self.unpack(frame)
            with self.registry.lock:
                self.registry.merge(frame, window, values)

    def ingest(self):
        while (item := self.inbox.get()) is not None:
            try:
                self.absorb(*item)
            finally:
                self.inbox.task_done()

    def close_window(self, window):
        told = self.registry.report(window)
        self.sums = zlib.crc32(repr(told).encode(), self.sums)

    def close(self):
        for _ in self.threads:
            self.inbox.put(None)
        for thread in self.threads:
            thread.join()


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    registry = Registry(keep=slow and kind == "history", thin=7 if kind == "history" else 32)
    rollup = Rollup(registry, locked_early=slow and kind == "registry")
    fleet = Fleet({"registry": 4000, "history": 4000, "steady": 2400}[kind])
    windows = iter(range(10**9))

    def step(number):
        window = next(windows)
        for frame in fleet.frames:
            rollup.inbox.put((window, frame))
        rollup.inbox.join()
        rollup.close_window(window)

    work.run(step, {"slow-registry": 180, "fixed-registry": 300, "slow-history": 150, "fixed-history": 350, "healthy-steady": 600}[f"{variant}-{kind}"])
    rollup.close()


if __name__ == "__main__":
    main()

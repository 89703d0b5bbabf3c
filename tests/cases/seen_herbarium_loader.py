"""Training input of a herbarium classifier: a loader of scanned sheets, with an index of what botanists wrote on each of them.

A step is a batch: the loader unpacks eight scans, cuts out the specimen, brings it to 48 x 48, normalises it, makes the targets
out of the determinations of the sheet (from an index that lives in memory for the whole run) and the model takes the batch.

Injected, in cases named resize: the specimen is brought to its size by a mean per row of the result and then a mean per column
of it, colour by colour, each a call of numpy from Python code in the loader's thread, which is the main thread: the model waits for some two
thousand small calls per batch: preprocessing-bound. The twin sums with `np.add.reduceat`, twice per image. The images are the same.

Injected, in cases named guard: someone once saw the loader run out of memory and put in a guard that calls `gc.collect()` once
the process is above a limit; it reads `ru_maxrss`, which never falls, so each batch pays for a full collection, which walks over
the whole index (some ninety thousand objects, all alive; there's nothing to free): gc-pressure. The twin has the same guard, but
freezes the index once it is loaded (`gc.freeze`), so that a collection only walks over what the loader has made since.

healthy-epoch: no guard, sums with reduceat, a smaller index.
"""

import gc
import hashlib
import resource
import sys
import time
import zlib

import numpy as np
import work

NEEDS = "numpy"
CASES = {
    "slow-resize": "slow resize",
    "slow-guard": "slow guard",
    "fixed-resize": "fixed resize",
    "fixed-guard": "fixed guard",
    "healthy-epoch": "healthy epoch",
}
LABEL = {"slow-resize": ["preprocessing-bound"], "slow-guard": ["gc-pressure"]}
ALSO = {
    "slow-resize": ["cpu-bound-python", "small-batches", "native-hot-spot"],  # the calls are small ones; the model
    "slow-guard": ["native-hot-spot"],
    "fixed": ["native-hot-spot"],
    "healthy": ["native-hot-spot"],
}
WHERE = "resize|shrink|edges|load_sheet|batches|check|collect|guard|Guard|mean|_mean"
MEASURE = "mean"
BATCH, SIDE = 8, 48
LIMIT_KB = 24_000
GENERA = "Carex Salix Rubus Hieracium Taraxacum Festuca Ranunculus Viola Galium Veronica Poa Juncus Rosa Allium".split()
RANKS = "species subsp. var. f.".split()


class Determination:
    """What one botanist thought that a sheet is, and when."""

    def __init__(self, genus, epithet, year, notes):
        self.genus, self.epithet, self.year, self.notes = genus, epithet, year, notes


class Sheet:
    def __init__(self, number):
        self.number = number
        self.box = (6 + number % 7, 9 + number % 5, 150 + number % 9, 118 + number % 8)  # top, left, bottom, right
        self.determinations = [
            Determination(
                GENERA[(number * 3 + at) % len(GENERA)],
                f"sp{number % 211 + at}",
                1880 + (number * 7 + at * 31) % 140,
                [{"rank": RANKS[(number + at) % 4], "page": number % 90}],
            )
            for at in range(2 + number % 2)
        ]

    def target(self):
        """The newest determination decides."""
        newest = max(self.determinations, key=lambda one: one.year)
        return GENERA.index(newest.genus)


class Archive:
    """The scans, packed. A few dozen stand in for the whole cabinet."""

    def __init__(self):
        rng = np.random.default_rng(9)
        self.scans = []
        for _ in range(24):
            coarse = rng.integers(90, 240, (20, 16, 3), dtype=np.uint8)
            scan = coarse.repeat(8, 0).repeat(8, 1) ^ rng.integers(0, 4, (160, 128, 3), dtype=np.uint8)
            self.scans.append(zlib.compress(scan.tobytes(), 1))

    def read(self, number):
        packed = self.scans[number % len(self.scans)]
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(160, 128, 3)


def edges(size):
    return [size * at // SIDE for at in range(SIDE + 1)]


def shrink_channel(channel, tops, lefts):
    rows = np.empty((SIDE, channel.shape[1]))
    for at in range(SIDE):
        rows[at] = channel[tops[at] : tops[at + 1]].mean(axis=0)
    small = np.empty((SIDE, SIDE))
    for at in range(SIDE):
        small[:, at] = rows[:, lefts[at] : lefts[at + 1]].mean(axis=1)
    return small


def resize_rows(image):
    """A box filter: rows first, then columns, of each colour."""
    tops, lefts = edges(image.shape[0]), edges(image.shape[1])
    return np.stack([shrink_channel(image[:, :, colour], tops, lefts) for colour in range(3)], axis=2).round(6)


def resize_sums(image):
    """The same filter as sums of spans."""
    tops, lefts = edges(image.shape[0]), edges(image.shape[1])
    rows = np.add.reduceat(image, tops[:-1], axis=0, dtype=np.float64)
    rows /= np.diff(tops)[:, None, None]
    small = np.add.reduceat(rows, lefts[:-1], axis=1)
    small /= np.diff(lefts)[None, :, None]
    return small.round(6)


class MemoryGuard:
    """Tidies up when the process has grown above its limit."""

    def __init__(self, limit_kb):
        self.limit_kb, self.calls = limit_kb, 0

    def check(self):
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > self.limit_kb:
            gc.collect()
            self.calls += 1


class Loader:
    def __init__(self, sheets, resize, guard=None, freeze=False):
        self.archive, self.resize, self.guard = Archive(), resize, guard
        self.index = {number: Sheet(number) for number in range(sheets)}
        self.order = sorted(self.index, key=lambda number: zlib.crc32(b"%d" % number))
        if freeze:
            gc.collect()
            gc.freeze()

    def load_sheet(self, number):
        sheet = self.index[number]
        top, left, bottom, right = sheet.box
        small = self.resize(self.archive.read(number)[top:bottom, left:right])
        small -= small.mean()
        small /= max(float(small.std()), 1e-3)
        return np.clip(small * 48 + 128, 0, 255).astype(np.uint8), sheet.target()

    def batches(self, count):
        for at in range(count):
            loaded = [self.load_sheet(self.order[(at * BATCH + nth) % len(self.order)]) for nth in range(BATCH)]
            yield np.stack([image for image, _ in loaded]), [target for _, target in loaded]
            if self.guard:
                self.guard.check()


def train(loader, count):
    seal, times, start = hashlib.sha256(), [], time.perf_counter()
    for images, targets in loader.batches(count):
        seal.update(images.tobytes() + bytes(targets))
        work.model(images.tobytes())
        now = time.perf_counter()
        times.append(now - start)
        start = now
    print(seal.hexdigest()[:16], loader.guard and loader.guard.calls, file=sys.stderr)
    work.tell(times[2:])


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    if kind == "resize":
        train(Loader(4_000, resize_rows if slow else resize_sums), 140)
    elif kind == "guard":
        train(Loader(8_000, resize_sums, MemoryGuard(LIMIT_KB), freeze=not slow), 140)
    else:
        train(Loader(4_000, resize_sums), 240)


if __name__ == "__main__":
    main()

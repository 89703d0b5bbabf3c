"""Prepares photos of a catalogue for an embedder, and prints contact sheets of their thumbnails.

A thread unpacks the scans, equalises their levels, and shrinks them; the main thread takes them from a queue and embeds them. Contact
sheets are laid out by the main thread alone, from thumbnails.

Injected, in cases named levels: the share of pixels below each level is found by `np.unique`, which sorts all pixels of the scan, with their
places: native-hot-spot (in the loader's thread, so the main thread waits for its queue). The twin counts the pixels of each level,
and looks the shares up: they are the same.

Injected, in cases named sheet: a sheet grows by one thumbnail at a time through `np.concatenate`, which copies all that is there already:
host-copies. The twin has one array for the sheet, and each thumbnail is written to its place: the sheet has the same bytes.

healthy-embed: scans are only scaled, and no sheet is printed.
"""

import os
import queue
import sys
import threading
import time
import zlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-levels": "slow levels",
    "slow-sheet": "slow sheet",
    "fixed-levels": "fixed levels",
    "fixed-sheet": "fixed sheet",
    "healthy-embed": "healthy embed",
}
LABEL = {"slow-levels": ["native-hot-spot"], "slow-sheet": ["host-copies"]}
ALSO = {
    "slow-levels": ["waiting", "preprocessing-bound", "idle-no-work", "host-copies"],
    "slow-sheet": ["page-faults", "native-hot-spot"],  # each of the arrays is new memory
    "fixed-levels": ["native-hot-spot", "waiting", "idle-no-work"],
    "fixed-sheet": ["native-hot-spot"],
    "healthy": ["native-hot-spot", "waiting", "idle-no-work"],
}
WHERE = "level|sort|unique|by_order|equalise|share|sheet|Sheet|add|concatenate|paste"
MEASURE = "mean"
SIDE, THUMB, THUMBS = 512, 64, 72


class Scans:
    """Scans of 12 bits, packed as the scanner's spool has them."""

    def __init__(self, count=6, seed=3):
        draw = np.random.default_rng(seed)
        slope = np.linspace(300, 3500, SIDE)[:, None] + np.linspace(0, 200, SIDE)[None]
        self.packed = []
        for _ in range(count):
            noise = np.repeat(draw.normal(0, 90, (SIDE // 8, SIDE)), 8, axis=0)
            scan = np.clip(slope + noise, 0, 4095).astype(np.uint16)
            self.packed.append(zlib.compress(scan.tobytes(), 1))

    def read(self, number):
        return np.frombuffer(zlib.decompress(self.packed[number % len(self.packed)]), np.uint16).reshape(SIDE, SIDE)


class Levels:
    """Equalises a scan: each level becomes the share of the scan's pixels that are at most as light."""

    def __init__(self, counted):
        self.share = self.by_count if counted else self.by_order

    def by_order(self, scan):
        _, place, counts = np.unique(scan, return_inverse=True, return_counts=True)
        return np.cumsum(counts)[place]

    def by_count(self, scan):
        return np.cumsum(np.bincount(scan.ravel(), minlength=4096))[scan]

    def equalise(self, scan):
        return (self.share(scan).reshape(scan.shape) / scan.size).astype(np.float32)


class Loader(threading.Thread):
    """Holds two prepared scans ready for the embedder."""

    def __init__(self, scans, levels, count):
        super().__init__(name="loader", daemon=True)
        self.scans, self.levels, self.count, self.ready = scans, levels, count, queue.Queue(2)

    def prepare(self, number):
        scan = self.scans.read(number)[:, ::2]
        light = self.levels.equalise(scan) if self.levels else scan.astype(np.float32) / 4095
        return light.reshape(SIDE // 4, 4, SIDE // 4, 2).mean(axis=(1, 3))

    def run(self):
        for number in range(self.count):
            self.ready.put(self.prepare(number))


class Embedder:
    def __init__(self, seed=8):
        draw = np.random.default_rng(seed)
        widths = (SIDE // 4, 1200, 900, 900, 96)
        self.layers = [draw.standard_normal(shape, dtype=np.float32) / 30 for shape in zip(widths, widths[1:])]

    def embed(self, image):
        for layer in self.layers:
            image = np.maximum(image @ layer, 0)
        return image.mean(axis=0)


class Sheet:
    """A strip of thumbnails, one below the other, with a line of grey between."""

    def __init__(self, whole):
        self.rule = np.full((2, THUMB, 3), 128, np.uint8)
        self.body = np.empty((THUMBS * (THUMB + 2), THUMB, 3), np.uint8) if whole else None

    def add(self, strip, thumb):
        return np.concatenate([strip, thumb, self.rule])

    def paste(self, at, thumb):
        top = at * (THUMB + 2)
        self.body[top : top + THUMB] = thumb
        self.body[top + THUMB : top + THUMB + 2] = self.rule

    def lay(self, thumbs):
        if self.body is not None:
            for at, thumb in enumerate(thumbs):
                self.paste(at, thumb)
            return self.body
        strip = np.empty((0, THUMB, 3), np.uint8)
        for thumb in thumbs:
            strip = self.add(strip, thumb)
        return strip


def print_sheets(variant, count):
    draw, sheet = np.random.default_rng(4), Sheet(whole=variant == "fixed")
    thumbs = [draw.integers(0, 255, (THUMB, THUMB, 3), np.uint8) for _ in range(THUMBS)]

    def step(number):
        turn = number % THUMBS
        body = sheet.lay(thumbs[turn:] + thumbs[:turn])
        proof = zlib.compress(body[::3, ::4].tobytes(), 1)
        return zlib.crc32(body, zlib.crc32(proof))

    work.run(step, count)


def main():
    variant, kind = sys.argv[1:3]
    if kind == "sheet":
        print_sheets(variant, {"slow": 450, "fixed": 1300}[variant])
        return
    levels = Levels(counted=variant == "fixed") if kind == "levels" else None
    count = {"slow": 250, "fixed": 520, "healthy": 450}[variant]
    loader, embedder, check, times = Loader(Scans(), levels, count), Embedder(), 0, []
    loader.start()
    for _ in range(count):
        start = time.perf_counter()
        check ^= zlib.crc32(embedder.embed(loader.ready.get()))
        times.append(time.perf_counter() - start)
    work.tell(times[2:])


if __name__ == "__main__":
    main()

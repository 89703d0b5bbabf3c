"""Post-processing of OCR for scanned ledgers: a worker thread takes pages from the scanner's queue; a page is either strips of grey pixels
that are put together and packed, or the words that the recogniser found, as JSON, that are corrected and sent on.

Injected, in cases named strips: the page grows by `np.concatenate` with each strip that comes, so that all that was there is copied
again and again: host-copies. The twin has the page's room from the start and writes each strip to its place; the pages are equal.

Injected, in cases named words: the words of a page refer to their page and it to them, so that a guard has the cyclic garbage collector
come after each page; it walks the corrector's lexicon each time, which are some hundred thousand live objects: gc-pressure. The twin
freezes the lexicon (`gc.freeze`) once it is loaded; the guard's collections then see no more than the page, and free the same.

healthy-index: the worker packs pages that the scanner has put together already; no strips and no words.
"""

import gc
import json
import queue
import random
import sys
import threading
import time
import zlib

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-strips": "slow strips", "slow-words": "slow words",
    "fixed-strips": "fixed strips", "fixed-words": "fixed words",
    "healthy-index": "healthy index",
}
LABEL = {"slow-strips": ["host-copies"], "slow-words": ["gc-pressure"]}
ALSO = {
    "slow-strips": ["page-faults", "waiting", "native-hot-spot", "small-batches"],  # new arrays are new memory; main waits for the worker
    "slow-words": ["waiting"],  # main waits for the worker
    "fixed-strips": ["waiting", "native-hot-spot", "host-copies"],  # each strip is still copied once
    "fixed-words": ["waiting", "preprocessing-bound"],  # the JSON is decoded before the model in both
    "healthy": ["waiting"],
}
WHERE = "stitch|concatenate|append|Sheet|read_words|settle|collect"
MEASURE = "mean"
WIDTH, STRIP, STRIPS = 1200, 12, 96
ENTRIES, WORDS = 40_000, 700


class Entry:
    """A word that ledgers have, and what it is taken for."""

    __slots__ = ("word", "near", "seen")

    def __init__(self, word, near):
        self.word, self.near, self.seen = word, near, [0, 0]


class Lexicon:
    def __init__(self):
        self.entries = {f"w{at:05d}": Entry(f"w{at:05d}", [f"w{at * 7 % ENTRIES:05d}", f"w{at * 11 % ENTRIES:05d}"]) for at in range(ENTRIES)}

    def correct(self, word):
        entry = self.entries.get(word["t"])
        return entry.near[0] if entry and word["c"] < 3 else word["t"]


class Scanner:
    """What comes from the scanning room: a few pages, over and over."""

    def __init__(self, kind):
        draw = np.random.default_rng(4)
        self.pages = [(draw.integers(0, 40, (STRIPS * STRIP, WIDTH)) // 13 * 80).astype(np.uint8) for _ in range(2)] if kind == "strips" else []
        chance = random.Random(9)
        self.texts = []
        for page in range(3 if kind == "words" else 0):
            words = [
                {"t": f"w{chance.randrange(ENTRIES * 2):05d}", "c": chance.randrange(10), "box": [page, at % 50, at // 50, 9]}
                for at in range(WORDS)
            ]
            self.texts.append(json.dumps(words))

    def strips(self, number):
        page = self.pages[number % len(self.pages)]
        for at in range(0, len(page), STRIP):
            yield page[at : at + STRIP]


class GrownSheet:
    def __init__(self):
        self.pixels = np.empty((0, WIDTH), np.uint8)

    def append(self, strip):
        self.pixels = np.concatenate([self.pixels, strip])


class RoomySheet:
    def __init__(self, room):
        self.pixels, self.rows = room, 0

    def append(self, strip):
        self.pixels[self.rows : self.rows + len(strip)] = strip
        self.rows += len(strip)


class Page:
    def __init__(self, text):
        self.words = json.loads(text)
        for word in self.words:
            word["page"] = self


class Press:
    """The worker thread: takes the number of a page, and has it done."""

    def __init__(self, scanner, kind, slow):
        self.scanner, self.kind, self.slow, self.freed = scanner, kind, slow, 0
        self.room = np.empty((STRIPS * STRIP, WIDTH), np.uint8)
        self.lexicon = Lexicon() if kind == "words" else None
        if kind == "words" and not slow:
            gc.collect()
            gc.freeze()
        self.inbox, self.outbox = queue.Queue(), queue.Queue()
        self.thread = threading.Thread(target=self.work, name="press", daemon=True)
        self.thread.start()

    def stitch(self, number):
        sheet = GrownSheet() if self.slow else RoomySheet(self.room)
        for strip in self.scanner.strips(number):
            sheet.append(strip)
        return work.model(sheet.pixels[::8, ::5].tobytes())

    def settle(self):
        """Keeps the worker's memory flat: pages and words are cycles."""
        self.freed += gc.collect()

    def read_words(self, number):
        page = Page(self.scanner.texts[number % 3])
        lines = " ".join([self.lexicon.correct(word) for word in page.words])
        del page
        self.settle()
        return work.model((lines * 7).encode()[:60_000])

    def index(self, number):
        return work.model(work.BATCH[number % 7 :])

    def press(self, number):
        make = {"strips": self.stitch, "words": self.read_words, "index": self.index}[self.kind]
        start = time.perf_counter()
        key = make(number)
        return key, time.perf_counter() - start

    def work(self):
        while (number := self.inbox.get()) is not None:
            self.outbox.put(self.press(number))

    def close(self):
        self.inbox.put(None)
        self.thread.join()


def main():
    variant, kind = sys.argv[1:3]
    press = Press(Scanner(kind), kind, variant == "slow")
    counts = {"slow-strips": 400, "fixed-strips": 900, "slow-words": 250, "fixed-words": 500, "healthy-index": 650}
    count = counts[f"{variant}-{kind}"]
    for number in range(4):  # the scanner is a few pages ahead
        press.inbox.put(number)
    times, seal = [], 0
    for number in range(count):
        key, took = press.outbox.get()
        seal ^= zlib.crc32(key.encode())
        times.append(took)
        if number + 4 < count:
            press.inbox.put(number + 4)
    press.close()
    work.tell(times[3:])


if __name__ == "__main__":
    main()

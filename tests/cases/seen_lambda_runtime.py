"""A function that tells languages apart, as clouds run them: the runtime starts it, hands it some events over a socket, and ends it.

Injected, in cases named filter: it builds a Bloom filter of all words of each language, in Python, before the first event; the
twin looks words up by bisection, as they are sorted. In cases named warmup: it calls the model many hundreds of times before it says that
it is ready, "to be warm"; the twin calls it twice. Events are the same in both, and a run is told by how long it took.
"""

import bisect
import hashlib
import json
import os
import socket
import sys
import tempfile
import threading
import time
import zlib

import work

CASES = {
    "slow-filter": "slow filter",
    "slow-warmup": "slow warmup",
    "fixed-filter": "fixed filter",
    "fixed-warmup": "fixed warmup",
}
LABEL = ["startup-dominates"]
ALSO = {
    "slow-filter": ["cpu-bound-python", "preprocessing-bound"],
    "slow-warmup": ["native-hot-spot"],
    "fixed": ["native-hot-spot"],
}
WHERE = ""  # where a start is said to be is up to who says it
MEASURE = "wall"
EVENTS = 1100
LANGUAGES, WORDS, SLOTS = "abcdef", 420_000, 1 << 20


LETTERS = str.maketrans("0123456789", "abcdefghij")


def word(number):
    return str(100_000_000_000 + number * 3_373_331).translate(LETTERS)


def write_lexicon(path, words):
    """What the deployment brings along: words in their order, each with the letter of its language."""
    lines = "\n".join([f"{100_000_000_000 + number * 3_373_331} {number % 6}" for number in range(words)])
    with open(path, "w") as file:
        file.write(lines.translate(LETTERS))


class Filters:
    """A Bloom filter for each language."""

    def __init__(self, lexicon):
        self.filters = {letter: bytearray(SLOTS) for letter in LANGUAGES}
        with open(lexicon) as file:
            for line in file:
                found, language = line.split()
                self.add(found, self.filters[language])

    def slots(self, found):
        for seed in (5381, 271_828, 52_711):
            slot = seed
            for letter in found.encode():
                slot = (slot * 33 ^ letter) & SLOTS - 1
            yield slot

    def add(self, found, filter):
        for slot in self.slots(found):
            filter[slot] = 1

    def language(self, found):
        slots = list(self.slots(found))
        return next((language for language, filter in self.filters.items() if all(filter[slot] for slot in slots)), None)


class SortedWords:
    """Lines in their order, as they are in the file."""

    def __init__(self, lexicon):
        with open(lexicon) as file:
            self.lines = file.read().split("\n")

    def language(self, found):
        at = bisect.bisect_left(self.lines, found + " ")
        line = self.lines[at] if at < len(self.lines) else ""
        return line[len(found) + 1 :] if line.startswith(found + " ") else None


def model(text):
    """Three layers, native."""
    state = hashlib.shake_128(text.encode()).digest(120_000)
    for _ in range(2):
        state = hashlib.shake_128(zlib.compress(state[:12_000], 4)).digest(90_000)
    return state[0]


def runtime(link, times):
    """The cloud's side: waits until the function is ready, then one event at a time."""
    stream = link.makefile("rwb")
    stream.readline()
    for number in range(EVENTS):
        text = " ".join(word((number * 13 + at) * 6 % 600 + number % 6) for at in range(20))
        start = time.perf_counter()
        stream.write(json.dumps({"id": number, "text": text}).encode() + b"\n")
        stream.flush()
        stream.readline()
        times.append(time.perf_counter() - start)
    link.shutdown(socket.SHUT_RDWR)


def function(link, lexicon, variant, kind):
    words = (Filters if variant == "slow" and kind == "filter" else SortedWords)(lexicon)
    for number in range(1600 if variant == "slow" and kind == "warmup" else 2):
        model(f"warm {number}")
    stream = link.makefile("rwb")
    stream.write(b"ready\n")
    stream.flush()
    for line in stream:
        event = json.loads(line)
        votes = [language for found in event["text"].split() if (language := words.language(found)) is not None]
        language = max(set(votes), key=votes.count, default=None)
        stream.write(json.dumps({"id": event["id"], "language": language, "sure": model(event["text"])}).encode() + b"\n")
        stream.flush()


def main():
    variant, kind = sys.argv[1:3]
    times = []
    with tempfile.TemporaryDirectory() as folder:
        lexicon = os.path.join(folder, "lexicon")
        write_lexicon(lexicon, WORDS if kind == "filter" else 3000)
        ours, theirs = socket.socketpair()
        cloud = threading.Thread(target=runtime, args=(theirs, times))
        cloud.start()
        function(ours, lexicon, variant, kind)
        cloud.join()
    work.tell(times)


main()

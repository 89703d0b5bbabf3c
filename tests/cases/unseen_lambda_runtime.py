"""A function that tells languages apart, as clouds run them: the runtime starts it, hands it some events over a socket, and ends it.

Injected, in cases named trie: it builds a trie of all words of its languages, in Python, before the first event; the twin keeps the
sorted words in one file and looks them up by bisection. In cases named warmup: it calls the model hundreds of times before it says that
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
    "slow-trie": "slow trie",
    "slow-warmup": "slow warmup",
    "fixed-trie": "fixed trie",
    "fixed-warmup": "fixed warmup",
}
LABEL = ["startup-dominates"]
ALSO = {
    "slow-trie": ["cpu-bound-python", "preprocessing-bound", "memory-growth"],
    "slow-warmup": ["native-hot-spot"],
    "fixed": ["native-hot-spot"],
}
WHERE = ""  # where a start is said to be is up to who says it
MEASURE = "wall"
EVENTS = 350
LANGUAGES, WORDS = 6, 30_000


def word(language, number):
    digest = zlib.crc32(b"%d of %d" % (number, language))
    return "".join("aeioulnrst"[int(digit)] for digit in str(digest))


class Trie:
    """Nodes are dictionaries by letter; the languages of a word are under the empty one."""

    def __init__(self, lexicon):
        self.root = {}
        with open(lexicon) as file:
            for line in file:
                found, language = line.split()
                node = self.root
                for letter in found:
                    node = node.setdefault(letter, {})
                node[""] = int(language)

    def language(self, found):
        node = self.root
        for letter in found:
            node = node.get(letter)
            if node is None:
                return None
        return node.get("")


class SortedWords:
    """Lines in their order, as they are in the file."""

    def __init__(self, lexicon):
        with open(lexicon) as file:
            self.lines = file.read().split("\n")

    def language(self, found):
        at = bisect.bisect_left(self.lines, found + " ")
        line = self.lines[at] if at < len(self.lines) else ""
        return int(line[len(found) :]) if line.startswith(found + " ") else None


def model(text):
    """Three layers, native."""
    state = hashlib.shake_128(text.encode()).digest(120_000)
    for _ in range(2):
        state = hashlib.shake_128(zlib.compress(state[:12_000], 4)).digest(90_000)
    return state[0]


def write_lexicon(path):
    """What the deployment brings along."""
    words = WORDS if "trie" in sys.argv else 500
    lines = sorted(f"{word(language, number)} {language}" for language in range(LANGUAGES) for number in range(words))
    with open(path, "w") as file:
        file.write("\n".join(lines))


def runtime(link, times):
    """The cloud's side: waits until the function is ready, then one event at a time."""
    stream = link.makefile("rwb")
    stream.readline()
    for number in range(EVENTS):
        text = " ".join(word(number % LANGUAGES, (number * 13 + at) % 500) for at in range(20))
        start = time.perf_counter()
        stream.write(json.dumps({"id": number, "text": text}).encode() + b"\n")
        stream.flush()
        stream.readline()
        times.append(time.perf_counter() - start)
    link.shutdown(socket.SHUT_RDWR)


def function(link, lexicon, variant, kind):
    words = (Trie if variant == "slow" and kind == "trie" else SortedWords)(lexicon)
    for number in range(1100 if variant == "slow" and kind == "warmup" else 2):
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
    if sys.argv[1] == "deploy":
        write_lexicon(sys.argv[3])
        return
    variant, kind = sys.argv[1:3]
    times = []
    with tempfile.TemporaryDirectory() as folder:
        lexicon = os.path.join(folder, "lexicon")
        write_lexicon(lexicon)
        ours, theirs = socket.socketpair()
        cloud = threading.Thread(target=runtime, args=(theirs, times))
        cloud.start()
        function(ours, lexicon, variant, kind)
        cloud.join()
    work.tell(times)


main()

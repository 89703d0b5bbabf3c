"""A search service for help articles: postings of terms are kept in a cache, packed, and read from the index when they are not there.

A question has some terms; for each of them the postings are fetched, scores are summed, and the best articles are re-ranked by a model.

Injected, in cases named guard: four threads answer at once, and one that misses waits for the store (simulated: a sleep), reads, and packs
the postings while it holds the cache's lock, so that those that would hit wait as well: lock-convoy. The twin holds the lock to look
up and to put only.

Injected, in cases named sweep: one thread answers; the cache, once it is full, is swept in the middle of an answer: all entries are put
in order of use, the older half goes, and the others are packed anew: step-jitter (one answer in some twenty). The twin lets go of
the one that was unused for longest at each put. Answers do not depend on what is cached.

healthy-desk: one thread, and a cache that holds all terms.
"""

import bz2
import hashlib
import struct
import sys
import threading
import time
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import work

NEEDS = ""
CASES = {
    "slow-guard": "slow guard",
    "slow-sweep": "slow sweep",
    "fixed-guard": "fixed guard",
    "fixed-sweep": "fixed sweep",
    "healthy-desk": "healthy desk",
}
LABEL = {"slow-guard": ["lock-convoy"], "slow-sweep": ["step-jitter"]}
ALSO = {
    "slow-guard": ["native-hot-spot", "step-jitter", "waiting", "blocking-io"],
    "slow-sweep": ["native-hot-spot", "cpu-bound-python"],
    "fixed-guard": ["native-hot-spot", "cpu-bound-python", "gil-contention", "waiting", "blocking-io", "idle-no-work", "step-jitter"],
    "fixed-sweep": ["native-hot-spot", "cpu-bound-python"],
    "healthy": ["native-hot-spot", "cpu-bound-python"],
}
WHERE = "fetch|sweep|pack|Cache|acquire|__enter__"
MEASURE = "p99"
ARTICLES = 20_000


class Index:
    """Postings by term, in segments that are packed well, as on disk."""

    def __init__(self, size, away=0.0, segments=30):
        self.away = away  # how long the store takes until it sends a segment
        self.segments = [bz2.compress(self.write(at, size)) for at in range(segments)]

    @staticmethod
    def write(at, size):
        draw = hashlib.shake_128(f"segment {at}".encode()).digest(size)
        return b"".join(struct.pack("<HB", int.from_bytes(draw[i : i + 2], "big") % ARTICLES, draw[i] % 60) for i in range(0, size, 2))

    def load(self, term):
        if self.away:
            time.sleep(self.away)
        body = bz2.decompress(self.segments[term % len(self.segments)])
        start = term * 37 % 2000 * 3
        return body[start : start + 7000 * 3]


class Cache:
    """Postings that were asked for lately, packed."""

    def __init__(self, index, room, held, sweeps):
        self.index, self.room, self.sweeps = index, room, sweeps
        self.fetch = self.fetch_held if held else self.fetch_free
        self.lock, self.entries, self.used, self.clock = threading.Lock(), OrderedDict(), {}, 0

    def pack(self, postings):
        return zlib.compress(postings, 6)

    def fetch_held(self, term):
        with self.lock:
            packed = self.get(term)
            if packed is None:
                packed = self.pack(self.index.load(term))
                self.put(term, packed)
        return zlib.decompress(packed)

    def fetch_free(self, term):
        with self.lock:
            packed = self.get(term)
        if packed is None:
            packed = self.pack(self.index.load(term))
            with self.lock:
                self.put(term, packed)
        return zlib.decompress(packed)

    def get(self, term):
        packed = self.entries.get(term)
        if packed is not None:
            self.entries.move_to_end(term)
            self.clock += 1
            self.used[term] = self.clock
        return packed

    def put(self, term, packed):
        self.entries[term] = packed
        self.clock += 1
        self.used[term] = self.clock
        if len(self.entries) > self.room:
            if self.sweeps:
                self.sweep()
            else:
                old, _ = self.entries.popitem(last=False)
                del self.used[old]

    def sweep(self):
        order = sorted(self.entries, key=self.used.__getitem__)
        fresh = order[len(order) // 2 :]
        self.entries = OrderedDict((term, self.pack(zlib.decompress(self.entries[term]))) for term in fresh)
        self.used = {term: self.used[term] for term in fresh}


class Desk:
    def __init__(self, cache, iterations, rare, known):
        self.cache, self.iterations, self.known = cache, iterations, known
        self.rare = rare  # in so many of ten questions there is a rare term

    def terms(self, question):
        """Some terms are asked for often, others once in a while."""
        draw = hashlib.sha256(f"question {question}".encode()).digest()
        usual = [draw[at] % 24 for at in range(3)]
        return usual + [24 + int.from_bytes(draw[8:10], "big") % (self.known - 24)] * (draw[3] % 10 < self.rare)

    def score(self, terms):
        scores = {}
        for term in terms:
            postings = self.cache.fetch(term)
            for article, weight in struct.iter_unpack("<HB", postings[:240]):
                scores[article] = scores.get(article, 0) + weight
        return sorted(scores, key=scores.get, reverse=True)[:40]

    def answer(self, question):
        best = self.score(self.terms(question))
        text = struct.pack(f"<{len(best)}H", *best) * 60
        key = hashlib.pbkdf2_hmac("sha256", zlib.compress(text, 6), b"rank", self.iterations)
        return best[key[0] % len(best)]


def crowd(desk, threads, questions):
    """Threads that answer at once: the time of each answer counts."""
    times, start = [], threading.Barrier(threads)

    def serve(first):
        start.wait()
        for question in range(first, questions, threads):
            began = time.perf_counter()
            desk.answer(question)
            times.append(time.perf_counter() - began)

    with ThreadPoolExecutor(threads, "answer") as pool:
        list(pool.map(serve, range(threads)))
    work.tell(times)


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    if kind == "guard":
        cache = Cache(Index(18_000, away=0.004), 60, held=slow, sweeps=False)
        crowd(Desk(cache, 200, 5, 900), 4, 1200 if slow else 2500)
        return
    cache = Cache(Index(18_000), 100 if kind == "desk" else 40, held=False, sweeps=slow)
    desk = Desk(cache, 4500, 10, 100 if kind == "desk" else 900)
    for term in range(100) if kind == "desk" else ():
        cache.fetch(term)
    work.run(desk.answer, {"slow": 800, "fixed": 900, "healthy": 1300}[variant], warm=60)


if __name__ == "__main__":
    main()

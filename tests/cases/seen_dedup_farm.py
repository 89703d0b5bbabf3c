"""A backup service takes files in: it fingerprints their parts, and packs the parts that are new.

Injected: a pool with many times more workers than there are processors, for work that is native and lets go of the interpreter: the
workers take the processors from each other, so that each file takes many times longer, and no more files are done in a second. The
twin has a worker for each processor. A step is a file, from when a worker takes it to when it is stored.
"""

import concurrent.futures
import hashlib
import os
import sys
import threading
import time
import zlib

import work

CASES = {
    "slow-6": "slow 6",
    "slow-12": "slow 12",
    "fixed-6": "fixed 6",
    "fixed-12": "fixed 12",
}
LABEL = {"slow": ["thread-oversubscription"]}
ALSO = {"slow": ["native-hot-spot", "gil-contention"], "fixed": ["native-hot-spot"]}
WHERE = ""  # the pool, or what its workers run: both would be right
MEASURE = "mean"
PART = 100_000


class Chunks:
    """What is stored, by fingerprint."""

    def __init__(self):
        self.lock = threading.Lock()
        self.known = {}
        self.saved = 0

    def missing(self, prints):
        with self.lock:
            return [at for at, fingerprint in enumerate(prints) if fingerprint not in self.known]

    def store(self, packed):
        with self.lock:
            for fingerprint, size in packed:
                self.known[fingerprint] = size
                self.saved += size


class Backup:
    def __init__(self):
        self.chunks = Chunks()
        self.texts = [self.part(b"%d" % at) for at in range(7)]

    def part(self, salt):
        return hashlib.shake_128(salt).digest(PART // 2).hex().encode()

    def file(self, number):
        """Files whose first part is new, and whose others were seen before, mostly."""
        return [b"%d" % number + self.texts[number % 7], *self.texts[1:]]

    def take_in(self, number):
        start = time.perf_counter()
        parts = self.file(number)
        prints = [hashlib.sha3_256(part).digest() for part in parts]
        new = self.chunks.missing(prints)
        packed = [(prints[at], len(zlib.compress(parts[at], 1))) for at in new]
        self.chunks.store(packed)
        return time.perf_counter() - start


def workers(variant, asked):
    return asked if variant == "slow" else min(2, len(os.sched_getaffinity(0)))


def main():
    variant, asked = sys.argv[1], int(sys.argv[2])
    backup = Backup()
    with concurrent.futures.ThreadPoolExecutor(workers(variant, asked), thread_name_prefix="intake") as pool:
        times = list(pool.map(backup.take_in, range(2000)))
    work.tell(times[asked:])


main()

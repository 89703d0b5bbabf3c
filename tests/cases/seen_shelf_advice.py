"""A recommender that keeps a state for each user: a request unpacks the user's state, scores shelves by what the user had, adds an event
and packs the state again.

Injected, in cases named heavy: the profile of a user is counted from the whole history at each request; one request of 20 is from
a user with a very long history, and takes many times as long: step-jitter. The twin counts an event when it is added, so that the
profile is at hand. The advice is the same.

Injected, in cases named refresh: what is bought together is counted by a thread of this process, in Python, while requests are served:
gil-contention. The twin has it counted by a child process, with the same orders and the same sums.

healthy-shop: light users, running profiles, no refresh.
"""

import hashlib
import heapq
import multiprocessing
import queue
import random
import sys
import threading
import zlib
from array import array
from collections import Counter
from dataclasses import dataclass, field

import work

NEEDS = ""
CASES = {
    "slow-heavy": "slow heavy",
    "slow-refresh": "slow refresh",
    "fixed-heavy": "fixed heavy",
    "fixed-refresh": "fixed refresh",
    "healthy-shop": "healthy shop",
}
LABEL = {"slow-heavy": ["step-jitter"], "slow-refresh": ["gil-contention"]}
ALSO = {
    "slow-heavy": ["cpu-bound-python", "preprocessing-bound", "native-hot-spot"],
    "slow-refresh": ["cpu-bound-python", "native-hot-spot", "preprocessing-bound", "idle-no-work"],
    "fixed-heavy": ["native-hot-spot", "cpu-bound-python"],  # packing of the state, then the scores
    "fixed-refresh": ["native-hot-spot", "cpu-bound-python", "preprocessing-bound", "idle-no-work", "waiting", "blocking-io"],  # the child counts, and waits for orders
    "healthy": ["native-hot-spot", "cpu-bound-python"],
}
WHERE = "profile|count|fold|refresh|Refresher|History|pairs"
MEASURE = "p99"


@dataclass
class User:
    name: str
    history: array = field(default_factory=lambda: array("H"))
    running: dict = field(default_factory=dict)
    packed: bytes = b""

    def add(self, shelf):
        self.history.append(shelf)
        self.running[shelf] = self.running.get(shelf, 0) + 1

    def load(self, shelves):
        self.history.extend(shelves)
        self.running = dict(Counter(shelves))

    def profile(self):
        """How often the user had each shelf."""
        counts = {}
        for shelf in self.history:
            counts[shelf] = counts.get(shelf, 0) + 1
        return counts


class Pairs:
    """What is bought together: baskets in, counts of pairs out."""

    def __init__(self):
        self.counts = {}

    def fold(self, seed, baskets):
        at = seed + 1
        for _ in range(baskets):
            at = (at * 1103515245 + 12345) & 0x7FFFFFFF
            left, right = at >> 8 & 127, at >> 16 & 127
            key = (left, right) if left < right else (right, left)
            self.counts[key] = self.counts.get(key, 0) + 1


def refresh(orders, baskets):
    pairs = Pairs()
    while (seed := orders.get()) is not None:
        pairs.fold(seed, baskets)


class Refresher:
    def __init__(self, apart, baskets):
        if apart:
            context = multiprocessing.get_context("spawn")
            self.orders = context.SimpleQueue()
            self.runner = context.Process(target=refresh, args=(self.orders, baskets), daemon=True)
        else:
            self.orders = queue.SimpleQueue()
            self.runner = threading.Thread(target=refresh, args=(self.orders, baskets), name="refresh", daemon=True)
        self.runner.start()

    def close(self):
        self.orders.put(None)
        self.runner.join()


class Shop:
    def __init__(self, users, heavy, running, extras, shelves, seed=31):
        draw = random.Random(seed)
        self.running = running
        self.likes = [[draw.random() for _ in range(12)] for _ in range(shelves)]
        self.users = []
        for number in range(users):
            user = User(f"u{number}")
            user.load(draw.choices(range(shelves), k=heavy if heavy and number % 20 == 19 else 150))
            user.packed = zlib.compress(bytes(draw.choices(b"abcdefgh:;{}0123", k=extras)), 1)
            self.users.append(user)

    def score(self, counts):
        scores = []
        for shelf, likes in enumerate(self.likes):
            own = counts.get(shelf, 0)
            scores.append((sum(likes[:4]) * own - likes[4] * (own > 9) + likes[shelf % 12], shelf))
        return heapq.nlargest(10, scores)

    def advise(self, user, number):
        extras = zlib.decompress(user.packed)
        mark = hashlib.sha256(extras).digest()
        best = self.score(user.running if self.running else user.profile())
        user.add(best[number % 10][1])
        user.packed = zlib.compress(extras[32:] + mark, 1)
        return best

    def request(self, number):
        user = self.users[number % len(self.users)]
        return self.advise(user, number)


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    extras = {"heavy": 50_000, "refresh": 60_000, "shop": 40_000}[kind]
    shelves = {"heavy": 300, "refresh": 5000, "shop": 400}[kind]
    shop = Shop(100, 100_000 if kind == "heavy" else 0, not (slow and kind == "heavy"), extras, shelves)
    refresher = Refresher(not slow, 8_500) if kind == "refresh" else None

    def step(number):
        if refresher:
            refresher.orders.put(number)
        shop.request(number)

    work.run(step, {"slow-heavy": 1000, "fixed-heavy": 2000, "slow-refresh": 400, "fixed-refresh": 700, "healthy-shop": 1500}[f"{variant}-{kind}"])
    if refresher:
        refresher.close()


if __name__ == "__main__":
    main()

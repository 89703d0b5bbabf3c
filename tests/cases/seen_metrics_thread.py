"""A scorer of card payments in one serving thread, with a monitor of latency and drift in a thread of its own.

Injected: the monitor computes quantiles and drift anew, in Python, from the whole window of what was scored. Whenever the serving
thread comes back from native code it waits for the monitor to let go of the interpreter. The twin counts into buckets while it
serves, and its monitor only reads them. `light` and `heavy` are how long the monitor rests between two reports.
"""

import bisect
import collections
import hashlib
import json
import sys
import threading
import zlib

import work

CASES = {
    "slow-light": "slow light",
    "slow-heavy": "slow heavy",
    "fixed-light": "fixed light",
    "fixed-heavy": "fixed heavy",
}
LABEL = ["gil-contention"]
ALSO = {"slow": ["cpu-bound-python"], "fixed": ["native-hot-spot"]}
WHERE = "report|quantile|drift|buckets|Monitor|score|features|handle"
MEASURE = "mean"
REST_S = {"light": 0.018, "heavy": 0.004}
EDGES = [edge / 20 for edge in range(1, 20)]


class WindowMonitor:
    """Keeps what was scored, and looks through all of it for each report."""

    def __init__(self):
        self.window = collections.deque(((at * 37 % 100) / 100 for at in range(20_000)), maxlen=20_000)

    def observe(self, score):
        self.window.append(score)

    def buckets(self, values):
        counts = [0] * (len(EDGES) + 1)
        for value in values:
            slot = 0
            for edge in EDGES:
                if value < edge:
                    break
                slot += 1
            counts[slot] += 1
        return counts

    def quantile(self, values, share):
        best, target = 0.0, share * len(values)
        for edge in EDGES:
            if sum(1 for value in values if value < edge) <= target:
                best = edge
        return best

    def report(self):
        values = list(self.window)
        half = len(values) // 2
        old, new = self.buckets(values[:half]), self.buckets(values[half:])
        drift = sum(abs(a - b) for a, b in zip(old, new)) / max(1, half)
        return {"p50": self.quantile(values, 0.5), "p99": self.quantile(values, 0.99), "drift": drift}


class CountingMonitor:
    """Counts while it observes; halves the counts once in a while, so that they follow."""

    def __init__(self):
        self.counts, self.before = [0] * (len(EDGES) + 1), [0] * (len(EDGES) + 1)
        self.seen = 0

    def observe(self, score):
        self.counts[bisect.bisect_right(EDGES, score)] += 1
        self.seen += 1
        if self.seen % 3000 == 0:
            self.before, self.counts = self.counts, [0] * (len(EDGES) + 1)

    def report(self):
        total = sum(self.counts) or 1
        drift = sum(abs(a - b) for a, b in zip(self.counts, self.before)) / total
        return {"p50": self.counts[len(EDGES) // 2] / total, "drift": drift}


class Scorer:
    def __init__(self, monitor):
        self.monitor = monitor
        self.profile = hashlib.shake_128(b"profile").digest(20_000)

    def features(self, payment):
        text = json.dumps(payment, sort_keys=True).encode()
        return zlib.compress(self.profile[: 6000 + len(text)] + text, 1)

    def score(self, packed):
        for layer in (b"layer 1", b"layer 2", b"layer 3", b"layer 4"):
            packed = hashlib.pbkdf2_hmac("sha256", packed, layer, 750)
        return packed[0] / 256

    def handle(self, number):
        payment = {"card": number * 7919 % 10_007, "amount": number % 430 / 10, "shop": f"shop{number % 91}", "country": "DE"}
        score = self.score(self.features(payment))
        self.monitor.observe(score)
        return {"payment": number, "fraud": score > 0.93}


def watch(monitor, rest, done):
    while not done.wait(rest):
        monitor.report()


def main():
    variant, rest = sys.argv[1], sys.argv[2]
    monitor = WindowMonitor() if variant == "slow" else CountingMonitor()
    scorer, done = Scorer(monitor), threading.Event()
    watcher = threading.Thread(target=watch, args=(monitor, REST_S[rest], done), name="monitor")
    watcher.start()
    work.run(scorer.handle, {"slow": {"light": 1700, "heavy": 1100}[rest], "fixed": 2800}[variant])
    done.set()
    watcher.join()


main()

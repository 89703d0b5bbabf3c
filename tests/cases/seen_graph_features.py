"""A job that scores accounts on a graph of payments: a mean over the neighbours of each account, a small layer, the best twenty.

Injected, in cases named refresh: while questions are answered on the main thread, the tables of all regions are made anew in
the background, by a thread per region, all at once: eight threads run numpy without the GIL on two processors, and each step of
the main thread gets a small part of one: thread-oversubscription. The twin's refresh has one thread that makes one region after
the other; the tables and the answers are the same.

Injected, in cases named order: the edges of the day are brought into the order of their targets for each question by `argsort`
(stable), though they do not change between questions: native-hot-spot. The twin has sorted them when they were loaded; the sums
are the same.

healthy-scores: edges in order, no refresh.
"""

import os
import sys
import threading
import zlib

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the job brings its own threads

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-refresh": "slow refresh",
    "slow-order": "slow order",
    "fixed-refresh": "fixed refresh",
    "fixed-order": "fixed order",
    "healthy-scores": "healthy scores",
}
LABEL = {"slow-refresh": ["thread-oversubscription"], "slow-order": ["native-hot-spot"]}
ALSO = {
    "slow-refresh": ["native-hot-spot", "gil-contention", "waiting"],  # the join at the end; the GIL after each call
    "slow-order": [],
    "fixed-refresh": ["native-hot-spot", "waiting"],  # the hop, the regions; the join at the end
    "fixed-order": ["native-hot-spot"],
    "healthy": ["native-hot-spot"],
}
WHERE = "refresh|Refresh|region|table|smooth|order|argsort|Edges|sort|start"
MEASURE = "mean"
NODES, WIDTH, EDGES = 2000, 16, 30_000
REGIONS = 8


class Edges:
    """Payments of a day; CSR once they are in the order of their targets."""

    def __init__(self, seed=3):
        draw = np.random.default_rng(seed)
        self.source = draw.integers(0, NODES, EDGES, dtype=np.int32)
        self.target = np.concatenate([np.arange(NODES), draw.integers(0, NODES, EDGES - NODES)]).astype(np.int32)
        draw.shuffle(self.target)
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(self.target, minlength=NODES))[:-1]])
        self.degree = np.bincount(self.target, minlength=NODES).astype(np.float32)[:, None]
        self.kept = None

    def order(self):
        """The sources, by target."""
        return self.source[np.argsort(self.target, kind="mergesort")]

    def keep(self):
        self.kept = self.order()

    def neighbours(self):
        return self.order() if self.kept is None else self.kept


class Features:
    def __init__(self, edges, seed=7):
        draw = np.random.default_rng(seed)
        self.edges = edges
        self.accounts = draw.standard_normal((NODES, WIDTH), dtype=np.float32)
        self.layer = draw.standard_normal((2 * WIDTH, WIDTH), dtype=np.float32) / 8
        self.sums = 0

    def hop(self, values, neighbours):
        """The mean over the neighbours, and the layer on it and the account's own."""
        mean = np.add.reduceat(values[neighbours], self.edges.starts, axis=0) / self.edges.degree
        return np.tanh(np.concatenate([values, mean], axis=1) @ self.layer)

    def answer(self, number):
        neighbours = self.edges.neighbours()
        values = self.accounts * np.float32(1 + number % 7)
        values = self.hop(values, neighbours)
        best = np.argpartition(values[:, number % WIDTH], -20)[-20:]
        self.sums ^= zlib.crc32(np.sort(best).tobytes())


class Refresh:
    """The tables of regions, made anew from their histories."""

    def __init__(self, at_once, rounds, seed=13):
        self.histories = np.random.default_rng(seed).standard_normal((REGIONS, 320, 320), dtype=np.float32)
        self.rounds, self.tables = rounds, [None] * REGIONS
        plans = [[region] for region in range(REGIONS)] if at_once else [list(range(REGIONS))]
        self.threads = [
            threading.Thread(target=self.regions, args=(plan,), name=f"refresh-{at}") for at, plan in enumerate(plans)
        ]

    def smooth(self, table, history):
        """One step of a power iteration over the history of a region."""
        table = history @ table
        table /= np.abs(table).max()
        return table

    def regions(self, plan):
        for region in plan:
            history = self.histories[region]
            table = np.eye(len(history), dtype=np.float32)
            for _ in range(self.rounds):
                table = self.smooth(table, history)
            self.tables[region] = table

    def start(self):
        for thread in self.threads:
            thread.start()

    def finish(self):
        for thread in self.threads:
            thread.join()
        return zlib.crc32(np.array([np.round(table[:4, :4], 3).sum() for table in self.tables]).tobytes())


def main():
    variant, kind = sys.argv[1:3]
    slow, edges = variant == "slow", Edges()
    if not (slow and kind == "order"):
        edges.keep()
    features = Features(edges)
    if kind == "refresh":
        refresh = Refresh(at_once=slow, rounds=800)
        refresh.start()
        work.run(features.answer, 550)
        print(refresh.finish(), features.sums, file=sys.stderr)
        return
    work.run(features.answer, {"slow-order": 1000, "fixed-order": 2200}.get(f"{variant}-{kind}", 2200))
    print(features.sums, file=sys.stderr)


if __name__ == "__main__":
    main()

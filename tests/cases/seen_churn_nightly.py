"""A nightly CLI that scores all customers for churn: two worker processes take chunks of customers, read what is known of them from an SQLite
file, bring it to features, and score the chunk with a native model.

Injected, in cases named points: a worker asks for each customer with a few statements of its own, where the chunk could be read with one
each: small-batches, in the worker. The twin reads a chunk's customers with one statement for each table; the features are equal.

Injected, in cases named drift: a worker fits the reference distribution of its drift check anew with each 20th chunk, sorting a history
of values in Python, so that this chunk takes many times as long: step-jitter. The twin fits the reference once, before the first
chunk; the history is the same all night, and so is the reference.

healthy-replay: features of chunks that were kept are scored by the CLI itself.
"""

import multiprocessing
import os
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing

import work

NEEDS = ""
CASES = {
    "slow-points": "slow points",
    "slow-drift": "slow drift",
    "fixed-points": "fixed points",
    "fixed-drift": "fixed drift",
    "healthy-replay": "healthy replay",
}
LABEL = {"slow-points": ["small-batches"], "slow-drift": ["step-jitter"]}
ALSO = {
    "slow-points": ["waiting", "blocking-io", "cpu-bound-python", "preprocessing-bound", "native-hot-spot"],  # main waits for its workers
    "slow-drift": ["waiting", "blocking-io", "cpu-bound-python", "preprocessing-bound"],  # the fit is Python of the worker's own
    "fixed": ["waiting", "blocking-io"],
    "healthy": [],
}
WHERE = "customer|row|points|execute|read|fit|Reference|quantile|spread|drift|check"
MEASURE = "mean"
CUSTOMERS, CHUNK, WORKERS, REFIT = 6000, 200, 2, 20
TABLES = {"account": "plan, months", "usage": "calls, minutes, days", "billing": "paid, owed, late"}


def make_database(path):
    draw = random.Random(12)
    with closing(sqlite3.connect(path)) as base, base:
        for table, columns in TABLES.items():
            base.execute(f"CREATE TABLE {table} (customer INTEGER PRIMARY KEY, {columns})")
            width = columns.count(",") + 1
            rows = [(at, *[draw.randrange(500) for _ in range(width)]) for at in range(CUSTOMERS)]
            base.executemany(f"INSERT INTO {table} VALUES (?{', ?' * width})", rows)


class Reader:
    def __init__(self, path, points):
        self.base, self.points = sqlite3.connect(f"file:{path}?mode=ro", uri=True), points

    def customer(self, number):
        row = ()
        for table, columns in TABLES.items():
            row += self.base.execute(f"SELECT {columns} FROM {table} WHERE customer = ?", (number,)).fetchone()
        return row

    def read(self, first):
        if self.points:
            return [self.customer(number) for number in range(first, first + CHUNK)]
        parts = [
            self.base.execute(f"SELECT {columns} FROM {table} WHERE customer >= ? AND customer < ? ORDER BY customer", (first, first + CHUNK))
            for table, columns in TABLES.items()
        ]
        return [account + usage + billing for account, usage, billing in zip(*parts)]


class Reference:
    """What usage was like in the last months, as quantiles."""

    def __init__(self, size=250_000):
        draw = random.Random(2)
        self.history = [draw.randrange(500_000) for _ in range(size)]
        self.bounds = None

    def spread(self, value):
        """Minutes are kept by their logarithm, near enough, and a rest."""
        whole = value.bit_length()
        return whole * 1000 + (value * 1000 >> whole)

    def fit(self):
        values = sorted(self.spread(value) for value in self.history)
        self.bounds = [values[len(values) * at // 20] for at in range(1, 20)]

    def drift(self, rows):
        seen = sum(self.spread(row[3] + 1) > self.bounds[9] for row in rows)
        return abs(2 * seen - len(rows))


class Scorer:
    def __init__(self, path, points, refit):
        self.reader, self.refit, self.done = Reader(path, points), refit, 0
        self.reference = Reference()
        self.reference.fit()

    def check(self, rows):
        if self.refit and self.done % REFIT == REFIT - 1:
            self.reference.fit()
        self.done += 1
        return self.reference.drift(rows)

    def score(self, chunk):
        start = time.perf_counter()
        rows = self.reader.read(chunk * CHUNK % CUSTOMERS)
        drift = self.check(rows)
        text = ";".join([",".join(map(str, row)) for row in rows])
        key = work.model((text * 10)[:40_000].encode())
        return key, drift, time.perf_counter() - start


SCORER = None


def start_worker(*told):
    global SCORER
    SCORER = Scorer(*told)


def score(chunk):
    return SCORER.score(chunk)


def nightly(path, points, refit, chunks):
    context = multiprocessing.get_context("spawn")
    with context.Pool(WORKERS, start_worker, (path, points, refit)) as pool:
        times, drifted = [], 0
        for _, drift, took in pool.imap_unordered(score, range(chunks)):
            drifted += drift > CHUNK // 2
            times.append(took)
        pool.close()
        pool.join()
    work.tell(times[2 * WORKERS :])


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "customers.db")
        make_database(path)
        if kind == "replay":
            scorer = Scorer(path, False, False)
            work.run(lambda number: scorer.score(number), 600)
            return
        chunks = {"slow-points": 550, "fixed-points": 950, "slow-drift": 500, "fixed-drift": 950}[f"{variant}-{kind}"]
        nightly(path, slow and kind == "points", slow and kind == "drift", chunks)


if __name__ == "__main__":
    main()

"""Forecasts of what many small shelves will sell: a worker process fits blocks of series, and the main process answers buyers' questions.

Each series has a trend, a week's shape and a promotion: its coefficients are least squares with a ridge, by the normal equations. A
buyer's question is answered by simulation of paths, natively; a backfill makes the nightly bands by threads of the same process.

Injected, in cases named fit: the worker solves each series of a block on its own, by some small calls of numpy, where one stack of all
of them would do: small-batches (in the child; the main process waits for it). The twin solves the stack; coefficients are the same.

Injected, in cases named backfill: the backfill has eight threads that simulate at once, on two processors, so that a buyer's question
gets a small share of them: thread-oversubscription. The twin has one thread, which makes the same bands one after another.

healthy-ask: buyers' questions only.
"""

import multiprocessing
import os
import queue
import sys
import threading
import zlib
from dataclasses import dataclass

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # set by the chart: blocks are small

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-fit": "slow fit",
    "slow-backfill": "slow backfill",
    "fixed-fit": "fixed fit",
    "fixed-backfill": "fixed backfill",
    "healthy-ask": "healthy ask",
}
LABEL = {"slow-fit": ["small-batches"], "slow-backfill": ["thread-oversubscription"]}
ALSO = {
    "slow-fit": ["cpu-bound-python", "waiting", "blocking-io", "preprocessing-bound"],
    "slow-backfill": ["gil-contention", "native-hot-spot"],  # a thread that was put off may have the GIL
    "fixed-fit": ["waiting", "blocking-io", "native-hot-spot", "idle-no-work"],  # the main process waits for the worker in any case
    "fixed-backfill": ["native-hot-spot"],
    "healthy": ["native-hot-spot"],
}
WHERE = "fit|solve|one_by_one|work_off|bands|Backfill|serve"
MEASURE = "mean"
DAYS, SHELVES, TERMS = 84, 220, 9
PATHS, AHEAD = 700, 28


@dataclass
class Block:
    number: int
    history: np.ndarray  # shelves x days
    promoted: np.ndarray  # shelves x days, 0 or 1


class Store:
    """Sales by day, as the warehouse's extract has them."""

    def __init__(self, seed=19):
        draw = np.random.default_rng(seed)
        week = 1 + 0.4 * np.sin(np.arange(DAYS) * 2 * np.pi / 7)
        self.sales = [draw.poisson(9 * week, (SHELVES, DAYS)).astype(float) for _ in range(4)]
        self.promoted = [(draw.random((SHELVES, DAYS)) < 0.1).astype(float) for _ in range(4)]

    def block(self, number):
        return Block(number, self.sales[number % 4], self.promoted[number % 4])


class Fitter:
    RIDGE = 0.5 * np.eye(TERMS)

    def __init__(self, stacked):
        self.fit = self.stacked if stacked else self.one_by_one
        day = np.arange(DAYS)
        self.known = np.vstack([day / DAYS] + [(day % 7 == at).astype(float) for at in range(7)])

    def solve(self, history, promoted):
        """The coefficients of one shelf, and what it will sell next week."""
        terms = np.vstack([self.known, promoted])
        found = np.linalg.solve(terms @ terms.T + self.RIDGE, terms @ history)
        rest = history - found @ terms
        return found, float(np.sqrt(np.mean(rest * rest)))

    def one_by_one(self, block):
        fits = [self.solve(history, promoted) for history, promoted in zip(block.history, block.promoted)]
        return np.array([found for found, _ in fits]), np.array([spread for _, spread in fits])

    def stacked(self, block):
        terms = np.empty((len(block.history), TERMS, DAYS))
        terms[:, :-1], terms[:, -1] = self.known, block.promoted
        found = np.linalg.solve(terms @ terms.transpose(0, 2, 1) + self.RIDGE, terms @ block.history[:, :, None])
        rest = block.history - (found.transpose(0, 2, 1) @ terms)[:, 0]
        return found[:, :, 0], np.sqrt((rest * rest).mean(axis=1))


def work_off(link, stacked):
    """The worker: it has the store's extract too, and is told numbers of blocks."""
    store, fitter = Store(), Fitter(stacked)
    link.send("ready")
    while (number := link.recv()) is not None:
        block = store.block(number)
        found, spread = fitter.fit(block)
        report = zlib.compress(block.history, 1) + np.round(found, 3).astype(np.float32).tobytes()
        link.send((number, len(report), spread.sum()))


class Simulator:
    def __init__(self):
        self.paths = np.empty((PATHS, AHEAD, 4))

    def bands(self, seed, level):
        """What will be sold in each week, in the low, the middle and the high tenth of paths."""
        np.random.default_rng(seed).standard_normal(out=self.paths)
        self.paths *= 0.2
        np.exp(self.paths, out=self.paths)
        self.paths *= level
        weeks = self.paths.reshape(PATHS, AHEAD // 7, 7, 4).sum(axis=2)
        weeks.sort(axis=0)
        return weeks[[PATHS // 10, PATHS // 2, -PATHS // 10]]


class Backfill:
    """Bands of all shelves for the night's report."""

    def __init__(self, threads, shelves):
        self.todo, self.made = queue.SimpleQueue(), {}
        for shelf in range(shelves):
            self.todo.put(shelf)
        self.threads = [threading.Thread(target=self.serve, name=f"backfill-{at}") for at in range(threads)]
        for thread in self.threads:
            thread.start()

    def serve(self):
        simulator = Simulator()
        while True:
            try:
                shelf = self.todo.get_nowait()
            except queue.Empty:
                return
            self.made[shelf] = simulator.bands(shelf, 4.0 + shelf % 9)

    def close(self):
        for thread in self.threads:
            thread.join()


def fit(variant):
    context = multiprocessing.get_context("spawn")
    link, far = context.Pipe()
    worker = context.Process(target=work_off, args=(far, variant == "fixed"), daemon=True)
    worker.start()
    link.recv()

    def step(number):
        link.send(number)
        return link.recv()

    work.run(step, {"slow": 350, "fixed": 1000}[variant])
    link.send(None)
    worker.join()


def main():
    variant, kind = sys.argv[1:3]
    if kind == "fit":
        fit(variant)
        return
    buyer = Simulator()
    backfill = Backfill(8 if variant == "slow" else 1, 1500) if kind == "backfill" else None
    count = {"slow": 80, "fixed": 700, "healthy": 1000}[variant]
    work.run(lambda number: [buyer.bands(number, 3.0 + number % 7 + at) for at in range(2)], count)
    if backfill is not None:
        backfill.close()


if __name__ == "__main__":
    main()

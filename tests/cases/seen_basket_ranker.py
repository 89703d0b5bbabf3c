"""Ranks what to offer beside a shopping basket: a pool of threads takes requests, looks the shopper's features up in a cache in front of
a feature store (a server in a child process), and scores the offers with a native model.

Injected, in cases named cache: the cache holds its lock while it asks the store for a shopper that it does not have, so that the other
threads, which want other shoppers, queue for the lock: lock-convoy. The twin holds the lock to look and to put only, and asks the
store in between; it asks it as often.

Injected, in cases named tally: a thread of its own counts which offers were shown, in a loop of Python that has the GIL nearly all of
the time, and the rankers wait for it after each native call: gil-contention. The twin's thread counts the same offers at the same
moments with one call of numpy, and comes to the same counts.

healthy-single: one thread ranks baskets whose features came with the request.
"""

import collections
import multiprocessing
import queue
import socket
import socketserver
import sys
import threading
import time

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-cache": "slow cache", "slow-tally": "slow tally",
    "fixed-cache": "fixed cache", "fixed-tally": "fixed tally",
    "healthy-single": "healthy single",
}
LABEL = {"slow-cache": ["lock-convoy"], "slow-tally": ["gil-contention"]}
ALSO = {
    "slow-cache": ["blocking-io", "waiting", "idle-no-work"],  # who has the lock waits for the store
    "slow-tally": ["cpu-bound-python", "waiting", "idle-no-work"],
    "fixed-cache": ["blocking-io", "waiting", "idle-no-work", "thread-oversubscription"],  # five threads ask the store, and share two cores
    "fixed-tally": ["waiting", "idle-no-work"],  # the counting thread waits for its next turn
    "healthy": [],
}
WHERE = "features|Cache|fetch|acquire|__enter__|lock|count|tally|Tally"
MEASURE = "mean"
SHOPPERS, KEPT, STORE_S = 5000, 300, 0.006
OFFERS, SHOWN, TURN_S = 2000, 400_000, 0.018
OFFERED = work.BATCH[:15_000]


class StoreHandler(socketserver.StreamRequestHandler):
    """One connection to the store: a line asks for a shopper, and 256 bytes come back."""

    def handle(self):
        for line in self.rfile:
            time.sleep(STORE_S)
            self.wfile.write(line.strip().rjust(256, b"."))


def store(link):
    class Store(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Store(("127.0.0.1", 0), StoreHandler) as server:
        link.send(server.server_address[1])
        server.serve_forever()


class StoreClient:
    """Each thread has its own connection."""

    def __init__(self, port):
        self.port, self.local = port, threading.local()

    def fetch(self, shopper):
        if not hasattr(self.local, "file"):
            self.local.file = socket.create_connection(("127.0.0.1", self.port)).makefile("rwb")
        self.local.file.write(b"%d\n" % shopper)
        self.local.file.flush()
        return self.local.file.read(256)


class FeatureCache:
    def __init__(self, client, whole):
        self.client, self.whole = client, whole
        self.lock, self.kept, self.missed = threading.Lock(), collections.OrderedDict(), 0

    def put(self, shopper, row):
        self.missed += 1
        self.kept[shopper] = row
        if len(self.kept) > KEPT:
            self.kept.popitem(last=False)

    def features(self, shopper):
        if self.whole:
            with self.lock:
                if shopper not in self.kept:
                    self.put(shopper, self.client.fetch(shopper))
                return self.kept[shopper]
        with self.lock:
            row = self.kept.get(shopper)
        if row is None:
            row = self.client.fetch(shopper)
            with self.lock:
                self.put(shopper, row)
        return row


class Tally:
    """Counts which offers were shown; the marketing desk reads it."""

    def __init__(self, plain):
        self.plain, self.counts, self.stopped = plain, [0] * OFFERS, threading.Event()
        self.log = np.random.default_rng(8).zipf(1.3, SHOWN) % OFFERS
        self.events = self.log.tolist()
        self.thread = threading.Thread(target=self.keep, name="tally", daemon=True)

    def count(self):
        if self.plain:
            counts = [0] * OFFERS
            for offer in self.events:
                counts[offer] += 1
        else:
            counts = np.bincount(self.log, minlength=OFFERS).tolist()
        self.counts = counts

    def keep(self):
        turn = time.monotonic()
        while not self.stopped.is_set():
            self.count()
            turn = max(turn + TURN_S, time.monotonic())
            self.stopped.wait(turn - time.monotonic())


class Ranker:
    def __init__(self, threads, features):
        self.features, self.inbox, self.times, self.keys = features, queue.SimpleQueue(), [], []
        self.threads = [threading.Thread(target=self.serve, name=f"ranker-{at}") for at in range(threads)]

    def rank(self, shopper):
        return work.model(OFFERED + self.features(shopper))

    def serve(self):
        while (shopper := self.inbox.get()) is not None:
            start = time.perf_counter()
            self.keys.append(self.rank(shopper))
            self.times.append(time.perf_counter() - start)

    def run(self, requests):
        for number in range(requests):
            self.inbox.put(number * 37 % SHOPPERS)
        for _ in self.threads:
            self.inbox.put(None)
        for done in (threading.Thread.start, threading.Thread.join):
            list(map(done, self.threads))
        work.tell(self.times)


def main():
    variant, kind = sys.argv[1:3]
    given = (b"%d" % SHOPPERS).rjust(256, b".")
    if kind == "single":
        work.run(Ranker(1, lambda shopper: given).rank, 1000)
    elif kind == "tally":
        tally = Tally(plain=variant == "slow")
        tally.thread.start()
        Ranker(1, lambda shopper: given).run({"slow": 250, "fixed": 1000}[variant])
        tally.stopped.set()
        tally.thread.join()
    else:
        context = multiprocessing.get_context("spawn")
        link, far = context.Pipe()
        server = context.Process(target=store, args=(far,), daemon=True)
        server.start()
        cache = FeatureCache(StoreClient(link.recv()), whole=variant == "slow")
        Ranker(5, cache.features).run({"slow": 450, "fixed": 1200}[variant])
        server.terminate()


if __name__ == "__main__":
    main()

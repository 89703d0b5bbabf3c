"""A pool of threads that answers scoring requests, with a shared cache of profiles, a board of statistics and an access log that is sealed.

Injected, in cases named seal: the log's handler seals a line in `emit`, which `logging` calls with the handler's lock held, so that the
threads wait for each other, though the sealing is native and gives the GIL back: lock-convoy. The twin seals in a filter of the
handler, that is called before the lock is taken. The lines are the same.

Injected, in cases named board: a thread of its own builds the board anew each 15 ms, out of all records, in Python. While it does, the
threads that return from native code wait for the GIL, for each of their calls: gil-contention. The twin adds a record to the board when
it comes, which has the same sums, and the thread has but to copy them.

healthy-pool: the board is added to; nothing is sealed.
"""

import json
import logging
import queue
import random
import sys
import tempfile
import threading
import time
import zlib
from collections import OrderedDict
from dataclasses import dataclass

import work

NEEDS = ""
CASES = {
    "slow-seal": "slow seal",
    "fixed-seal": "fixed seal",
    "slow-board": "slow board",
    "fixed-board": "fixed board",
    "healthy-pool": "healthy pool",
}
LABEL = {"slow-seal": ["lock-convoy"], "slow-board": ["gil-contention"]}
ALSO = {
    "slow-seal": ["native-hot-spot", "waiting", "blocking-io", "thread-oversubscription"],
    "slow-board": ["cpu-bound-python", "preprocessing-bound", "waiting", "idle-no-work", "native-hot-spot", "thread-oversubscription"],
    "fixed-seal": ["native-hot-spot", "waiting", "thread-oversubscription"],  # three threads, and perhaps two processors
    "fixed-board": ["native-hot-spot", "waiting", "idle-no-work"],  # of the thread of the board
    "healthy": ["native-hot-spot", "waiting", "idle-no-work"],
}
WHERE = "seal|emit|handle|acquire|info|_log|callHandlers|rebuild|fold|refresh|Board|bucket"
MEASURE = "mean"
ROUTES = ("/score", "/score/batch", "/profile", "/similar")


@dataclass
class Request:
    number: int
    user: int
    route: str


@dataclass
class Record:
    route: str
    status: int
    size: int

    def bucket(self):
        return self.size.bit_length()


class SealedHandler(logging.FileHandler):
    def __init__(self, path, early):
        super().__init__(path)
        self.early = early
        self.addFilter(self.seal if early else lambda record: True)

    def seal(self, record):
        record.seal = work.model()
        return True

    def emit(self, record):
        self.early or self.seal(record)
        record.msg = f"{record.msg} seal={record.seal}"
        super().emit(record)


class Cache:
    def __init__(self, store, room=120):
        self.store, self.room, self.lock, self.kept = store, room, threading.Lock(), OrderedDict()

    def get(self, user):
        with self.lock:
            if user in self.kept:
                self.kept.move_to_end(user)
                return self.kept[user]
        profile = json.loads(zlib.decompress(self.store[user % len(self.store)]))
        with self.lock:
            self.kept[user] = profile
            if len(self.kept) > self.room:
                self.kept.popitem(last=False)
        return profile


class Board:
    """Counts and sizes of what was answered, for each route. It starts with the records of the last hours."""

    def __init__(self, again, history=17_000):
        self.again, self.lock, self.table, self.shown = again, threading.Lock(), {}, {}
        self.records = [Record(ROUTES[at * 7 % 4], 200 if at % 50 else 503, at * 31 % 9000) for at in range(history)]
        self.rebuild()

    @staticmethod
    def fold(table, record):
        row = table.setdefault((record.route, record.status), {"count": 0, "bytes": 0, "sizes": {}})
        row["count"] += 1
        row["bytes"] += record.size
        bucket = record.bucket()
        row["sizes"][bucket] = row["sizes"].get(bucket, 0) + 1

    def rebuild(self):
        table = {}
        for record in self.records:
            self.fold(table, record)
        self.table = table

    def add(self, record):
        with self.lock:
            self.records.append(record)
            if not self.again:
                self.fold(self.table, record)

    def refresh(self, over):
        while not over.wait(0.015):
            if self.again:
                self.rebuild()
            self.shown = {key: (row["count"], row["bytes"]) for key, row in list(self.table.items())}


class Pool:
    def __init__(self, threads, cache, board, log, scores):
        self.cache, self.board, self.log, self.scores = cache, board, log, scores
        self.requests, self.times, self.over = queue.Queue(), [], threading.Event()
        self.threads = [threading.Thread(target=self.serve, name=f"serve-{at}") for at in range(threads)]

    def handle(self, request):
        profile = self.cache.get(request.user)
        key = work.model() if self.scores else zlib.compress(work.BATCH, 1)[:32].hex()
        answer = json.dumps({"user": request.user, "key": key, "of": sum(profile["weights"])})
        self.board.add(Record(request.route, 200, len(answer)))
        self.log.info("%s user=%d size=%d", request.route, request.user, len(answer))

    def serve(self):
        while (request := self.requests.get()) is not None:
            start = time.perf_counter()
            self.handle(request)
            self.times.append(time.perf_counter() - start)

    def run(self, count):
        draw = random.Random(12)
        for number in range(count):
            self.requests.put(Request(number, int(draw.paretovariate(0.9)) % 500, ROUTES[number % 4]))
        keeper = threading.Thread(target=self.board.refresh, args=(self.over,), name="board")
        keeper.start()
        for thread in self.threads:
            self.requests.put(None)
            thread.start()
        for thread in self.threads:
            thread.join()
        self.over.set()
        keeper.join()


def main():
    variant, kind = sys.argv[1:3]
    log, sealed = logging.getLogger("access"), kind == "seal"
    log.setLevel(logging.INFO)
    store = [zlib.compress(json.dumps({"weights": [user * at % 83 for at in range(200)]}).encode()) for user in range(500)]
    with tempfile.NamedTemporaryFile("r", suffix=".log") as file:
        log.addHandler(SealedHandler(file.name, variant != "slow") if sealed else logging.FileHandler(file.name))
        board = Board(again=variant == "slow" and kind == "board", history=17_000 if kind == "board" else 500)
        pool = Pool(3 if sealed else 2, Cache(store), board, log, scores=not sealed)
        pool.run({"slow-seal": 640, "slow-board": 460}.get(f"{variant}-{kind}", 1100))
        work.tell(pool.times)


if __name__ == "__main__":
    main()

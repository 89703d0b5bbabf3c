"""A micro-batching worker: threads that serve requests fetch an item's block from a file of packed shards, pool it into a vector and
put it on a queue; a worker thread takes what is on the queue, at most eight, scores it in one go, and resolves their futures.

Injected, in cases named handle: the serving threads share one file object, and a lock is held over seek, read and also over the
unpacking of the block, so that they do it one after the other: lock-convoy. The twin reads with `os.pread` and unpacks without
the lock (zlib releases the GIL); the blocks are the same.

Injected, in cases named trickle: a recorded trace is replayed at the pace of its night hours, when the service does nothing for most
of the time: idle-no-work. The twin gets the same requests of the trace one right after the other.

healthy-pair: two threads, without the lock.
"""

import os
import queue
import sys
import tempfile
import threading
import time
import zlib
from concurrent.futures import Future, ThreadPoolExecutor

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-handle": "slow handle",
    "slow-trickle": "slow trickle",
    "fixed-handle": "fixed handle",
    "fixed-trickle": "fixed trickle",
    "healthy-pair": "healthy pair",
}
LABEL = {"slow-handle": ["lock-convoy"], "slow-trickle": ["idle-no-work"]}
ALSO = {
    "slow-handle": ["native-hot-spot", "waiting"],  # of zlib, under the lock; for the batch worker
    "slow-trickle": ["waiting", "native-hot-spot"],
    "fixed-handle": ["native-hot-spot", "waiting", "thread-oversubscription", "page-faults", "idle-no-work"],
    "fixed-trickle": ["native-hot-spot", "waiting", "page-faults", "idle-no-work"],  # of the worker, while a block is unpacked
    "healthy": ["native-hot-spot", "waiting", "page-faults", "idle-no-work"],
}
WHERE = "block|fetch|acquire|__enter__|read|replay|serve|take|get|arrive"
MEASURE = "mean"
WIDTH, ROWS, BLOCKS, MOST = 64, 2800, 10, 8
THREADS = {"handle": 4, "pair": 2}
NIGHT_S = 0.0075  # between two requests of the trace


def write_shards(path):
    """Blocks of 16-bit embeddings, packed; tells where each is."""
    places, draw = [], np.random.default_rng(2)
    with open(path, "wb") as file:
        for _ in range(BLOCKS):
            packed = zlib.compress((draw.standard_normal((ROWS, WIDTH)) * 40).astype(np.int16).tobytes(), 1)
            places.append((file.tell(), len(packed)))
            file.write(packed)
    return places


class SharedShards:
    """The file object has one position, so that there is a lock."""

    def __init__(self, path, places):
        self.file, self.places, self.lock, self.read = open(path, "rb"), places, threading.Lock(), 0

    def block(self, item):
        start, size = self.places[item % len(self.places)]
        with self.lock:
            self.file.seek(start)
            packed = self.file.read(size)
            self.read += size
            return np.frombuffer(zlib.decompress(packed), np.int16)


class PlacedShards(SharedShards):
    def block(self, item):
        start, size = self.places[item % len(self.places)]
        packed = os.pread(self.file.fileno(), size, start)
        with self.lock:
            self.read += size
        return np.frombuffer(zlib.decompress(packed), np.int16)


class Batcher:
    def __init__(self):
        draw = np.random.default_rng(4)
        self.layers = [draw.standard_normal((WIDTH, WIDTH), dtype=np.float32) / 8 for _ in range(3)]
        self.queue = queue.Queue()
        self.thread = threading.Thread(target=self.work, name="batcher", daemon=True)
        self.thread.start()

    def submit(self, vector):
        future = Future()
        self.queue.put((vector, future))
        return future

    def take(self):
        """Waits for the first, and has what else is there."""
        taken = [self.queue.get()]
        while len(taken) < MOST and not self.queue.empty():
            taken.append(self.queue.get())
        return taken

    def work(self):
        while True:
            taken = self.take()
            rows = np.stack([vector for vector, _ in taken])
            for layer in self.layers:
                rows = np.tanh(rows @ layer)
            for (_, future), score in zip(taken, rows.sum(axis=1)):
                future.set_result(float(score))


class Service:
    def __init__(self, shards):
        self.shards, self.batcher = shards, Batcher()

    def serve(self, item):
        block = self.shards.block(item).reshape(ROWS, WIDTH)
        vector = block.mean(axis=0, dtype=np.float32)
        return round(self.batcher.submit(vector).result(), 3)


def load(service, first, count, times):
    """A thread that serves one request after the other."""
    for number in range(count):
        start = time.perf_counter()
        service.serve(first + number * 3)
        times.append(time.perf_counter() - start)


def replay(arrivals, count, gap):
    """Puts the requests of the trace where the service gets them."""
    due = time.perf_counter()
    for number in range(count):
        due += gap
        if gap and (rest := due - time.perf_counter()) > 0:
            time.sleep(rest)
        arrivals.put(number * 3)
    arrivals.put(None)


def serve_trace(service, count, gap):
    arrivals, times = queue.Queue(64), []
    threading.Thread(target=replay, args=(arrivals, count, gap), name="replay", daemon=True).start()
    start = time.perf_counter()
    while (item := arrivals.get()) is not None:
        service.serve(item)
        now = time.perf_counter()
        times.append(now - start)
        start = now
    return times


def main():
    variant, kind = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "shards.bin")
        places = write_shards(path)
        service = Service((SharedShards if (variant, kind) == ("slow", "handle") else PlacedShards)(path, places))
        if kind == "trickle":
            times = serve_trace(service, {"slow": 500, "fixed": 1600}[variant], NIGHT_S if variant == "slow" else 0)
        else:
            times, count = [], {"handle": 520, "pair": 1400}[kind]
            with ThreadPoolExecutor(THREADS[kind], "serve") as pool:
                for at in range(THREADS[kind]):
                    pool.submit(load, service, at, count, times)
    work.tell(times)


if __name__ == "__main__":
    main()

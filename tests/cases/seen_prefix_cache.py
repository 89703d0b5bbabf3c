"""A server of threads that share a cache of prefixes: an OrderedDict, least recently used out first, behind one lock. What is not in it
lies in a block store, a process of its own, which takes its time for each block; each thread has its own connection to it.

Injected, in cases named fetch: at a miss the block is fetched while the lock is held, so all other threads queue for it, those whose
prefix is there as well. The twin puts a future in the table, lets the lock go and fetches then. In cases named evict: a miss is
computed without the lock, but what falls out is written back to the store under it; the twin takes it out under the lock and writes
after. The store is as slow in the twins: it is the queue at the lock that goes.

Case healthy-hot: two threads, all prefixes there, a model in native code that runs beside the other's.
"""

import asyncio
import collections
import concurrent.futures
import hashlib
import os
import queue
import random
import socket
import subprocess
import sys
import tempfile
import threading

CASES = {
    "slow-fetch": "slow fetch",
    "slow-evict": "slow evict",
    "fixed-fetch": "fixed fetch",
    "fixed-evict": "fixed evict",
    "healthy-hot": "healthy hot",
}
LABEL = {"slow": ["lock-convoy"]}
ALSO = {"slow": ["blocking-io", "waiting"], "fixed": ["blocking-io", "waiting"], "healthy": ["native-hot-spot", "too-few-cpus"]}
WHERE = "Cache|cache|lookup|insert|acquire|lock|fetch|evict|spill|request|readline|readinto|call"
MEASURE = "mean"
DELAY_MS = 3
ROUND = 12
ROOM = 24
KEYS = 120


def store(path):
    """The block store: a line in, after a while a line out."""

    async def answer(reader, writer):
        while line := await reader.readline():
            await asyncio.sleep(DELAY_MS / 1e3)
            writer.write(hashlib.shake_128(line[:12]).hexdigest(600).encode() + b"\n")
        writer.close()

    async def serve():
        server = await asyncio.start_unix_server(answer, path)
        print("ready", flush=True)
        async with server:
            await server.serve_forever()

    asyncio.run(serve())


class Store:
    def __init__(self, path):
        self.path, self.local = path, threading.local()

    def call(self, line):
        if not hasattr(self.local, "file"):
            self.local.link = socket.socket(socket.AF_UNIX)
            self.local.link.connect(self.path)
            self.local.file = self.local.link.makefile("rwb")
        self.local.file.write(line.encode() + b"\n")
        self.local.file.flush()
        return self.local.file.readline()

    def fetch(self, key):
        return self.call(f"get {key}")

    def spill(self, key, block):
        return self.call(f"put {key} {block[:64].hex()}")


def compute(key):
    """A block from nothing."""
    return hashlib.pbkdf2_hmac("sha256", str(key).encode(), b"prefill", 300, 600)


class FetchCache:
    """What is not there is fetched."""

    def __init__(self, store):
        self.store, self.lock, self.blocks = store, threading.Lock(), collections.OrderedDict()

    def lookup(self, key):
        with self.lock:
            block = self.blocks.get(key)
            if block is None:
                block = self.blocks[key] = self.store.fetch(key)
                if len(self.blocks) > ROOM:
                    self.blocks.popitem(last=False)
            else:
                self.blocks.move_to_end(key)
        return block


class FutureFetchCache(FetchCache):
    """The same; a future stands for what is being fetched."""

    def lookup(self, key):
        mine = False
        with self.lock:
            block = self.blocks.get(key)
            if block is None:
                mine = True
                block = self.blocks[key] = concurrent.futures.Future()
                if len(self.blocks) > ROOM:
                    self.blocks.popitem(last=False)
            else:
                self.blocks.move_to_end(key)
        if mine:
            block.set_result(self.store.fetch(key))
        return block.result()


class SpillCache(FetchCache):
    """What is not there is computed, what falls out is written back."""

    def lookup(self, key):
        with self.lock:
            block = self.blocks.get(key)
            if block is not None:
                self.blocks.move_to_end(key)
                return block
        block = compute(key)
        self.insert(key, block)
        return block

    def insert(self, key, block):
        with self.lock:
            self.blocks[key] = block
            while len(self.blocks) > ROOM:
                self.store.spill(*self.blocks.popitem(last=False))


class LateSpillCache(SpillCache):
    def insert(self, key, block):
        out = []
        with self.lock:
            self.blocks[key] = block
            while len(self.blocks) > ROOM:
                out.append(self.blocks.popitem(last=False))
        for pair in out:
            self.store.spill(*pair)


class Pool:
    def __init__(self, cache, threads, rounds):
        self.cache, self.rounds = cache, rounds
        self.todo, self.done = queue.Queue(), queue.Queue()
        for _ in range(threads):
            threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        while True:
            self.done.put(self.request(self.todo.get()))

    def request(self, key):
        block = self.cache.lookup(key)
        return hashlib.pbkdf2_hmac("sha256", block, b"decode", self.rounds)

    def step(self, keys):
        for key in keys:
            self.todo.put(key)
        return [self.done.get() for _ in keys]


def main():
    variant, kind = sys.argv[1:3]
    if variant == "store":
        return store(kind)
    import work

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "store")
        peer = subprocess.Popen([sys.executable, "-E", os.path.abspath(__file__), "store", path], stdout=subprocess.PIPE)
        peer.stdout.readline()
        slow = variant == "slow"
        if kind == "evict":
            cache = (SpillCache if slow else LateSpillCache)(Store(path))
        else:
            cache = (FetchCache if slow else FutureFetchCache)(Store(path))
        hot = kind == "hot"
        pool = Pool(cache, 2 if hot else 6, 6000 if hot else 500)
        rng, keys = random.Random(4), range(12 if hot else KEYS)
        weights = [1 / (rank + 4) for rank in keys]
        count = {"slow": {"fetch": 130, "evict": 110}, "fixed": {"fetch": 400, "evict": 220}, "healthy": {"hot": 260}}[variant][kind]
        work.run(lambda number: pool.step(rng.choices(keys, weights, k=ROUND)), count)
        peer.terminate()
        peer.wait()


main()

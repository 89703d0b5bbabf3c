"""A model server that gives work to executors of `concurrent.futures`: a request is ranked by shards in a pool of processes, or by the
serving thread itself, while a pool of threads renews the signatures of the catalogue besides.

Injected, in cases named renew: the pool that renews has three threads for each processor, all of them in native code that releases the
GIL, so that the serving thread often waits till it gets a processor: thread-oversubscription. The twin's pool has one thread, so that
the serving thread has a processor. Both answer the same requests with the same rankings; to renew is done at best effort in both,
round and round, what was touched last first.

Injected, in cases named shards: the server submits a shard and waits for its result before it submits the next, so that one process
of two idles: waiting. The twin submits all, then gathers; shards, order and ranking are the same.

healthy-alone: the serving thread alone, no executor.
"""

import collections
import hashlib
import itertools
import multiprocessing
import random
import sys
import zlib
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import work

NEEDS = ""
CASES = {
    "slow-renew": "slow renew",
    "slow-shards": "slow shards",
    "fixed-renew": "fixed renew",
    "fixed-shards": "fixed shards",
    "healthy-alone": "healthy alone",
}
LABEL = {"slow-renew": ["thread-oversubscription"], "slow-shards": ["waiting"]}
ALSO = {
    "slow-renew": ["native-hot-spot", "step-jitter"],
    "slow-shards": ["native-hot-spot", "idle-no-work"],  # in the processes
    "fixed-renew": ["native-hot-spot"],  # pbkdf2, of the serving thread and of the one that renews
    "fixed-shards": ["native-hot-spot", "idle-no-work", "waiting"],  # the server has nothing to do while both processes rank
    "healthy": ["native-hot-spot"],
}
WHERE = "signature|renew|rank|gather|result|submit|forward|pbkdf2|handle"
MEASURE = "median"
PROCESSORS = 2
SHARDS, ITEMS, ROUNDS, SIGN_ROUNDS = 4, 1200, 4400, 18000


class Catalogue:
    """Items by shard; a shard is text of its items' descriptions."""

    def __init__(self, seed=12):
        draw = random.Random(seed)
        word = lambda: "".join(draw.choices("abcdefghijklmnop", k=draw.randrange(3, 9)))
        vocabulary = [word() for _ in range(900)]
        self.items = [" ".join(draw.choices(vocabulary, k=14)) for _ in range(ITEMS)]
        self.shards = ["\n".join(self.items[at::SHARDS]).encode() for at in range(SHARDS)]

    def signature(self, item):
        text = self.items[item % ITEMS].encode()
        return hashlib.pbkdf2_hmac("sha256", text, b"catalogue", SIGN_ROUNDS)[:8].hex()


class Model:
    def __init__(self):
        self.catalogue = Catalogue()

    def forward(self, query, shard):
        """The best items of a shard: layers of native code, then a few draws by the last one's key."""
        text = self.catalogue.shards[shard]
        packed = zlib.compress(query + text[:14_000], 3)
        key = hashlib.pbkdf2_hmac("sha256", query, packed[:64], ROUNDS)
        key = hashlib.blake2b(text * 12, key=key).digest()
        places = memoryview(hashlib.shake_128(key).digest(48)).cast("H")
        return sorted(((place / 65536, place * SHARDS % ITEMS + shard) for place in places), reverse=True)[:8]


MODEL = None  # of this process


def load():
    global MODEL
    MODEL = Model()


def rank_shard(query, shard):
    return MODEL.forward(query, shard)


def merged(lists):
    return [item for _, item in sorted((pair for some in lists for pair in some), reverse=True)[:10]]


class Renewal:
    """Signatures of the catalogue's items, made anew besides the requests, as long as the server is up."""

    def __init__(self, threads):
        self.pool, self.catalogue = ThreadPoolExecutor(threads, "renew"), Catalogue()
        self.touched, self.rest, self.signatures, self.closed = collections.deque(maxlen=20), itertools.count(), {}, False
        for _ in range(threads):
            self.pool.submit(self.renew)

    def renew(self):
        while not self.closed:
            try:
                item = self.touched.pop()
            except IndexError:
                item = next(self.rest) % ITEMS
            self.signatures[item] = self.catalogue.signature(item)

    def close(self):
        self.closed = True
        self.pool.shutdown(wait=True)


class Server:
    def __init__(self, pool=None, one_by_one=False, renewal=None):
        self.pool, self.one_by_one, self.renewal = pool, one_by_one, renewal
        self.told = 0
        load()

    def gather(self, query):
        if self.pool is None:
            return [rank_shard(query, shard) for shard in range(SHARDS)]
        if self.one_by_one:
            return [self.pool.submit(rank_shard, query, shard).result() for shard in range(SHARDS)]
        futures = [self.pool.submit(rank_shard, query, shard) for shard in range(SHARDS)]
        return [future.result() for future in futures]

    def handle(self, number):
        ranked = merged(self.gather(b"query %d" % number))
        self.told = zlib.crc32(repr(ranked).encode(), self.told)
        if self.renewal:
            self.renewal.touched.extend(ranked[:5])


def main():
    variant, kind = sys.argv[1:3]
    if kind == "shards":
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(PROCESSORS, context, initializer=load) as pool:
            server = Server(pool, one_by_one=variant == "slow")
            work.run(server.handle, {"slow": 400, "fixed": 700}[variant], warm=4)
    elif kind == "renew":
        renewal = Renewal(3 * PROCESSORS if variant == "slow" else 1)
        work.run(Server(renewal=renewal).handle, {"slow": 180, "fixed": 360}[variant])
        renewal.close()
    else:
        work.run(Server().handle, 500)


if __name__ == "__main__":
    main()

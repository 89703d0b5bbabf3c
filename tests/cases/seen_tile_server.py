"""A server of map tiles: a pool of threads takes requests; a tile's features are fetched, labels placed (the model), the tile encoded.

Injected, in cases named encode: each worker encodes the geometries of its tile (differences, zigzag, varints) in Python, for each request
anew. The workers' encoding takes longer than their share of the model, which is native and would run on all processors, so that all wait
for the interpreter lock that one of them holds: gil-contention. The twin encodes each road once, when it is loaded, and puts the bytes
together. The tiles are the same.

Injected, in cases named style: the cache of tile sources takes one lock around a look-up, and the fetch of what is missing (a store that
answers after 11 ms, then unpacking) is inside it: the workers stand in line for the lock: lock-convoy. The twin holds the cache's lock for
the dictionary only, and while it fetches a lock of the key's own. The tiles are the same.

healthy-tiles: roads encoded when loaded, locks of the keys, more hits.
"""

import hashlib
import sys
import threading
import time
import zlib
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor

import work

NEEDS = ""
CASES = {
    "slow-encode": "slow encode",
    "slow-style": "slow style",
    "fixed-encode": "fixed encode",
    "fixed-style": "fixed style",
    "healthy-tiles": "healthy tiles",
}
LABEL = {"slow-encode": ["gil-contention"], "slow-style": ["lock-convoy"]}
ALSO = {
    "slow-encode": ["cpu-bound-python", "preprocessing-bound", "waiting", "native-hot-spot"],  # what holds the lock is Python code
    "slow-style": ["waiting", "blocking-io", "native-hot-spot"],  # the store; the main thread waits for answers
    "fixed": ["waiting", "native-hot-spot", "idle-no-work", "blocking-io"],  # the model, the store, the main thread
    "healthy": ["waiting", "native-hot-spot", "idle-no-work", "blocking-io"],
}
WHERE = "encode|varint|zigzag|geometry|RoadEncoder|features|source|fetch|WideCache|__enter__|acquire"
MEASURE = "mean"
THREADS = 4
STORE_S = 0.011
ROADS, ROADS_PER_TILE, POINTS = 400, 200, 75


def zigzag(number):
    return number << 1 if number >= 0 else (-number << 1) - 1


def varint(number, out):
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)


def encode(points):
    """A line as the tile format wants it: differences to the point before."""
    out, last_x, last_y = bytearray(), 0, 0
    varint(len(points) << 3 | 2, out)
    for x, y in points:
        varint(zigzag(x - last_x), out)
        varint(zigzag(y - last_y), out)
        last_x, last_y = x, y
    return bytes(out)


class RoadEncoder:
    def __init__(self, roads):
        self.roads = roads

    def geometry(self, road):
        return encode(self.roads[road])


class LoadedEncoder(RoadEncoder):
    def __init__(self, roads):
        super().__init__(roads)
        self.encoded = [encode(road) for road in roads]

    def geometry(self, road):
        return self.encoded[road]


class Store:
    """Stands in for the object store with the tile sources."""

    def __init__(self):
        attributes = b"".join(b'{"class":"primary","surface":"asphalt","lanes":%d}' % (number % 5) for number in range(6000))
        self.packed = zlib.compress(attributes)

    def fetch(self, key):
        time.sleep(STORE_S)
        return zlib.crc32(zlib.decompress(self.packed), key)


class WideCache:
    def __init__(self, store, room=256):
        self.store, self.room, self.known, self.lock = store, room, OrderedDict(), threading.Lock()

    def source(self, key):
        with self.lock:
            if key not in self.known:
                self.put(key, self.store.fetch(key))
            return self.known[key]

    def put(self, key, value):
        self.known[key] = value
        if len(self.known) > self.room:
            self.known.popitem(last=False)


class KeyedCache(WideCache):
    def __init__(self, store, room=256):
        super().__init__(store, room)
        self.locks = {}

    def source(self, key):
        with self.lock:
            if key in self.known:
                return self.known[key]
            own = self.locks.setdefault(key, threading.Lock())
        with own:
            with self.lock:
                if key in self.known:
                    return self.known[key]
            value = self.store.fetch(key)
            with self.lock:
                self.put(key, value)
                self.locks.pop(key, None)
            return value


def roads():
    """What is loaded at the start."""
    for road in range(ROADS):
        yield [(road * 37 % 4096 + point * (road % 13 - 6) * 9, road * 91 % 4096 + point * point % 211) for point in range(POINTS)]


class TileServer:
    def __init__(self, encoder, cache, per_tile, hits):
        self.encoder, self.cache, self.per_tile, self.hits = encoder(list(roads())), cache, per_tile, hits
        self.pool = ThreadPoolExecutor(THREADS, "tiles")

    def features(self, key):
        return b"".join(self.encoder.geometry((key * 7 + at) % ROADS) for at in range(self.per_tile))

    def tile(self, number):
        """Runs in a worker: the answer to a request."""
        key = number % 16 if number % 10 < self.hits else 100 + number
        source = self.cache.source(key) if self.cache else key
        labels = work.model()
        body = self.features(key)
        return hashlib.sha256(b"%d %s %s" % (source, labels.encode(), body)).digest()

    def serve(self, count):
        """Answers in the order of the requests, with a few under way."""
        seal, pending, times, start = hashlib.sha256(), deque(), [], time.perf_counter()
        for number in range(count + THREADS + 2):
            if number < count:
                pending.append(self.pool.submit(self.tile, number))
            if number < THREADS + 2:
                continue
            seal.update(pending.popleft().result())
            now = time.perf_counter()
            times.append(now - start)
            start = now
        self.pool.shutdown()
        print(seal.hexdigest()[:16], file=sys.stderr)
        work.tell(times[4:])


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    if kind == "encode":
        TileServer(RoadEncoder if slow else LoadedEncoder, None, per_tile=ROADS_PER_TILE, hits=0).serve(400 if slow else 760)
    elif kind == "style":
        TileServer(LoadedEncoder, (WideCache if slow else KeyedCache)(Store()), ROADS_PER_TILE, hits=0).serve(300 if slow else 600)
    else:
        TileServer(LoadedEncoder, KeyedCache(Store()), ROADS_PER_TILE, hits=6).serve(900)


if __name__ == "__main__":
    main()

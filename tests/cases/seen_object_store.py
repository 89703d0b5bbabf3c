"""A batch job over objects of a store, which another process serves over TCP with some latency: each is fetched, then embedded.

Injected, in cases named serial: an object is fetched when the one before was embedded, and the job waits for the store each time. The
twin has four threads fetch the objects ahead. In cases named ranges: an object is read in eight ranges, one question each; the twin
asks for all of it. The healthy case reads the objects from files that were fetched before.
"""

import asyncio
import bz2
import collections
import concurrent.futures
import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import threading

import work

CASES = {
    "slow-serial": "slow serial",
    "slow-ranges": "slow ranges",
    "fixed-serial": "fixed serial",
    "fixed-ranges": "fixed ranges",
    "healthy": "healthy files",
}
LABEL = {"slow": ["blocking-io"]}
ALSO = {
    "slow": ["waiting"],
    "fixed-serial": ["native-hot-spot", "waiting", "blocking-io"],  # its threads wait for the store, which is as slow as before
    "fixed-ranges": ["native-hot-spot", "waiting", "blocking-io"],  # it still waits once an object
    "healthy": ["native-hot-spot"],
}
WHERE = "fetch|read|recv|get|range|Store"
MEASURE = "mean"
SIZE = 48_000
DELAY_S = {"serial": 0.008, "ranges": 0.001}


def content(key):
    return hashlib.shake_128(key.encode()).digest(SIZE // 2).hex().encode()


async def store(delay):
    """The store: a line with key, offset and length in; after the latency, the bytes."""

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                key, offset, length = line.split()
                await asyncio.sleep(delay)
                writer.write(content(key.decode())[int(offset) : int(offset) + int(length)])

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Store:
    """A client, with a connection for each thread."""

    def __init__(self, port, parts):
        self.port, self.parts = port, parts
        self.local = threading.local()

    def range(self, key, offset, length):
        if not hasattr(self.local, "link"):
            self.local.link = socket.create_connection(("127.0.0.1", self.port))
            self.local.stream = self.local.link.makefile("rb")
        self.local.link.sendall(f"{key} {offset} {length}\n".encode())
        return self.local.stream.read(length)

    def get(self, key):
        length = SIZE // self.parts
        return b"".join(self.range(key, part * length, length) for part in range(self.parts))


class Files:
    def __init__(self, folder, keys):
        self.folder = folder
        for key in keys:
            with open(os.path.join(folder, key), "wb") as file:
                file.write(content(key))

    def get(self, key):
        with open(os.path.join(self.folder, key), "rb") as file:
            return file.read()


def ahead(get, keys, threads=4):
    """Gets the objects in their order; so many are on their way."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        coming = collections.deque()
        for key in keys:
            coming.append(pool.submit(get, key))
            if len(coming) > threads * 2:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def embed(body):
    packed = bz2.compress(body[:9000])
    return hashlib.pbkdf2_hmac("sha256", packed, b"embed", 3000)


def job(objects, count):
    objects = iter(objects)
    work.run(lambda number: embed(next(objects)), count)


def main():
    variant, kind = sys.argv[1:3]
    count = {"slow": {"serial": 230, "ranges": 170}, "fixed": {"serial": 1000, "ranges": 800}, "healthy": {"files": 1500}}[variant][kind]
    keys = [f"object-{number:05}" for number in range(count + 2)]
    if variant == "healthy":
        with tempfile.TemporaryDirectory() as folder:
            files = Files(folder, keys)
            job(map(files.get, keys), count)
        return
    child = subprocess.Popen([sys.executable, "-E", __file__, "store", str(DELAY_S[kind])], stdout=subprocess.PIPE)
    client = Store(int(child.stdout.readline()), 8 if variant == "slow" and kind == "ranges" else 1)
    serial = variant == "slow" or kind == "ranges"
    job(map(client.get, keys) if serial else ahead(client.get, keys), count)
    child.terminate()
    child.wait()


if __name__ == "__main__":
    if sys.argv[1] == "store":
        asyncio.run(store(float(sys.argv[2])))
    else:
        main()

"""Workers of a queue judge comments: each one asks a server of reputations over a connection, tokenizes, and scores.

Injected, in cases named connection: there is one connection, and its lock is held for the whole question and answer, so that eight
workers ask one after the other. The twin checks one of eight connections out. In cases named tokenizer: one tokenizer with buffers
of its own, whose lock is held while it packs and hashes (native code that lets go of the interpreter). The twin has one for each thread.
"""

import asyncio
import contextlib
import hashlib
import queue
import socket
import subprocess
import sys
import threading
import time
import zlib

import work

CASES = {
    "slow-connection": "slow connection",
    "slow-tokenizer": "slow tokenizer",
    "fixed-connection": "fixed connection",
    "fixed-tokenizer": "fixed tokenizer",
}
LABEL = ["lock-convoy"]
ALSO = {"slow": ["waiting", "blocking-io"], "fixed": ["waiting", "blocking-io", "native-hot-spot"]}
WHERE = "ask|checkout|encode|tokens|acquire|lock|__enter__|reputation"
MEASURE = "mean"
WORKERS = {"connection": 8, "tokenizer": 2}
DELAY_S = {"connection": 0.003, "tokenizer": 0.0}


async def reputations(delay):
    """The server: a line in, after a while a line out."""

    async def serve(reader, writer):
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                await asyncio.sleep(delay)
                writer.write(b"%d\n" % (sum(line) % 100))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Connection:
    def __init__(self, port):
        self.link = socket.create_connection(("127.0.0.1", port))
        self.lines = self.link.makefile("rb")

    def ask(self, author):
        self.link.sendall(b"author %d\n" % author)
        return int(self.lines.readline())


class OneConnection:
    def __init__(self, port):
        self.lock, self.connection = threading.Lock(), Connection(port)

    @contextlib.contextmanager
    def checkout(self):
        with self.lock:
            yield self.connection


class ConnectionPool:
    def __init__(self, port, size):
        self.idle = queue.LifoQueue()
        for _ in range(size):
            self.idle.put(Connection(port))

    @contextlib.contextmanager
    def checkout(self):
        connection = self.idle.get()
        try:
            yield connection
        finally:
            self.idle.put(connection)


class Tokenizer:
    def __init__(self, rounds):
        self.lock, self.rounds = threading.Lock(), rounds
        self.vocabulary = hashlib.shake_128(b"vocabulary").digest(40_000)

    def encode(self, text):
        with self.lock:
            packed = zlib.compress(text.encode() + self.vocabulary, 1)
            return hashlib.pbkdf2_hmac("sha256", packed, b"merges", self.rounds)


class OwnTokenizers(threading.local):
    def __init__(self, rounds):
        self.encode = Tokenizer(rounds).encode


def main():
    variant, kind = sys.argv[1], sys.argv[2]
    if variant == "server":
        return asyncio.run(reputations(float(kind)))
    words = [sys.executable, "-E", __file__, "server", str(DELAY_S[kind])]
    peer = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    port = int(peer.stdout.readline())
    shared_link, shared_tokenizer = (variant == "slow" and kind == name for name in ("connection", "tokenizer"))
    pool = OneConnection(port) if shared_link else ConnectionPool(port, WORKERS[kind])
    rounds = {"connection": 100, "tokenizer": 6000}[kind]
    tokenizer = Tokenizer(rounds) if shared_tokenizer else OwnTokenizers(rounds)
    comments, times = queue.SimpleQueue(), []

    def judge(number):
        with pool.checkout() as connection:
            reputation = connection.ask(number % 500)
        tokens = tokenizer.encode(f"comment {number} " * 40)
        return hashlib.pbkdf2_hmac("sha256", tokens, b"%d" % reputation, 200)

    def worker():
        while (number := comments.get()) is not None:
            start = time.perf_counter()
            judge(number)
            times.append(time.perf_counter() - start)

    count = {"slow": {"connection": 700, "tokenizer": 1100}, "fixed": {"connection": 3500, "tokenizer": 1700}}[variant][kind]
    for number in range(count):
        comments.put(number)
    threads = [threading.Thread(target=worker) for _ in range(WORKERS[kind])]
    for _ in threads:
        comments.put(None)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    peer.terminate()
    peer.wait()
    work.tell(times)


main()

"""A thread pool behind a cache: embeddings are fetched from a service where the cache does not have them.

Injected: `get` holds the cache's one lock while it fetches, so that hits wait for the misses of others, and misses for each other.
The twin takes the lock to look and to store, and fetches without it. The service is as slow in both.
"""

import hashlib
import random
import re
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler

import work

CASES = {
    "slow-20": "slow 20",
    "slow-60": "slow 60",
    "fixed-20": "fixed 20",
    "fixed-60": "fixed 60",
}
LABEL = ["lock-convoy"]
ALSO = {"slow": ["blocking-io", "waiting"], "fixed": ["blocking-io", "waiting"]}  # the service is as slow as before
WHERE = "get|fetch|lock|acquire|__enter__"
MEASURE = "mean"
THREADS, DELAY_S = 6, 0.006
WORD = re.compile(r"[a-z]+\d*")


class Service(BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(DELAY_S)
        body = hashlib.sha256(self.path.encode()).hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


class Pool(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 50
    daemon_threads = True


class Cache:
    """Embeddings by word; a word in so many percent is new."""

    def __init__(self, port, held):
        self.port, self.held = port, held
        self.lock = threading.Lock()
        self.known = {}
        self.hits = 0

    def fetch(self, word):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{word}") as answer:
            return bytes.fromhex(answer.read().decode())

    def get(self, word):
        return self.get_held(word) if self.held else self.get_free(word)

    def get_held(self, word):
        with self.lock:
            if word in self.known:
                self.hits += 1
                return self.known[word]
            self.known[word] = self.fetch(word)
            return self.known[word]

    def get_free(self, word):
        with self.lock:
            if word in self.known:
                self.hits += 1
                return self.known[word]
        found = self.fetch(word)
        with self.lock:
            self.known[word] = found
        return found


def main():
    variant, misses = sys.argv[1], int(sys.argv[2])
    if variant == "service":
        with Pool(("127.0.0.1", 0), Service) as server:
            print(server.server_address[1], flush=True)
            return server.serve_forever()
    peer = subprocess.Popen([sys.executable, "-E", __file__, "service", "0"], stdout=subprocess.PIPE, text=True)
    cache = Cache(int(peer.stdout.readline()), held=variant == "slow")
    chance = random.Random(4)
    texts = [
        " ".join(f"new{number}" if chance.randrange(100) < misses and not at else f"old{chance.randrange(20)}" for at in range(8))
        for number in range(1500)
    ]
    for number in range(20):
        cache.known[f"old{number}"] = b"old" * 11

    def answer(text):
        start = time.perf_counter()
        vectors = [cache.get(word) for word in WORD.findall(text)]
        hashlib.pbkdf2_hmac("sha256", b"".join(vectors), b"model", 1500)
        return time.perf_counter() - start

    cache.fetch("warm")
    with ThreadPoolExecutor(THREADS) as pool:
        count = {"slow": {20: 700, 60: 350}, "fixed": {20: 1500, 60: 1000}}[variant][misses]
        work.tell(list(pool.map(answer, texts[:count])))
    peer.terminate()
    peer.wait()


main()

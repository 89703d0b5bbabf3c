"""A gateway in front of models: six workers check a caller's token, count the quota, call the model and write an access log.

Who a token belongs to is asked of the identity service, a server on localhost here, that takes 5 ms to answer; the answer holds
for one request only (tokens are for one use).

Injected, in cases named token: a worker asks the identity service while it holds the lock of the table of quotas, so that all
others wait for this lock, though the lock's purpose is the count only: lock-convoy. The twin asks before it takes the lock;
counts, answers and log lines are the same.

Injected, in cases named journal: each line of the access log is signed and then copied to the archive (a service that takes 4
ms, a sleep stands in for it). The handler does both in `emit`, that `logging` calls with the handler's lock held: lock-convoy
as well, but of a lock that is the library's own. The twin's handler holds the lock for signature and count, and copies the line
after it; lines and seal are the same.

healthy-serve: asked outside of the lock, no journal.
"""

import hashlib
import hmac
import logging
import queue
import socket
import socketserver
import sys
import threading
import time

import work

NEEDS = ""
CASES = {
    "slow-token": "slow token",
    "slow-journal": "slow journal",
    "fixed-token": "fixed token",
    "fixed-journal": "fixed journal",
    "healthy-serve": "healthy serve",
}
LABEL = {"slow-token": ["lock-convoy"], "slow-journal": ["lock-convoy"]}
ALSO = {
    "slow-token": ["blocking-io", "waiting", "idle-no-work"],  # the holder waits for the identity service; main waits for the workers
    "slow-journal": ["blocking-io", "waiting", "idle-no-work"],
    "fixed": ["blocking-io", "waiting", "idle-no-work", "native-hot-spot"],  # the round trip is still there, without the lock; the model
    "healthy": ["blocking-io", "waiting", "idle-no-work", "native-hot-spot"],
}
WHERE = "admit|Quotas|introspect|acquire|__enter__|handle|emit|Journal|journal|archive|sign|info|callHandlers"
MEASURE = "mean"
WORKERS = 6
IDENTITY_S, ARCHIVE_S = 0.005, 0.004


class Identity(socketserver.StreamRequestHandler):
    """The identity service: a line with a token in, a line with the caller out."""

    def handle(self):
        for token in self.rfile:
            time.sleep(IDENTITY_S)
            self.wfile.write(f"caller-{int(token) % 17}\n".encode())


class Client:
    """A worker's connection to the identity service."""

    def __init__(self, address):
        self.stream = socket.create_connection(address).makefile("rwb")

    def introspect(self, token):
        self.stream.write(f"{token}\n".encode())
        self.stream.flush()
        return self.stream.readline().decode().strip()


class Quotas:
    def __init__(self, inside):
        self.lock, self.inside, self.used = threading.Lock(), inside, {}

    def count(self, caller):
        self.used[caller] = self.used.get(caller, 0) + 1
        return caller

    def admit(self, client, token):
        if self.inside:
            with self.lock:
                return self.count(client.introspect(token))
        caller = client.introspect(token)
        with self.lock:
            return self.count(caller)


class Journal(logging.Handler):
    """The access log: each line is signed, and copied to the archive."""

    def __init__(self, inside):
        super().__init__()
        self.inside, self.key = inside, b"journal"
        self.lines, self.seal = 0, 0

    def sign(self, line):
        self.seal ^= int.from_bytes(hmac.digest(self.key, line, "sha256")[:4])
        self.lines += 1

    def archive(self, line):
        """The archive acknowledges after a while."""
        time.sleep(ARCHIVE_S)

    def emit(self, record):
        line = self.format(record).encode()
        self.sign(line)
        self.archive(line)

    def handle(self, record):
        if self.inside:
            return super().handle(record)
        line = self.format(record).encode()
        with self.lock:
            self.sign(line)
        self.archive(line)
        return True


class Gateway:
    def __init__(self, address, inside, journal):
        self.address, self.quotas = address, Quotas(inside)
        self.log = logging.getLogger("access")
        self.log.setLevel(logging.INFO)
        self.log.addHandler(journal)
        self.requests, self.times = queue.SimpleQueue(), []

    def model(self, caller, token):
        return hashlib.pbkdf2_hmac("sha256", caller.encode(), str(token).encode(), 2500).hex()

    def serve(self, client, token):
        caller = self.quotas.admit(client, token)
        answer = self.model(caller, token)
        self.log.info("%s %s %s", caller, token, answer[:12])

    def work(self):
        client = Client(self.address)
        while (token := self.requests.get()) is not None:
            start = time.perf_counter()
            self.serve(client, token)
            self.times.append(time.perf_counter() - start)

    def run(self, count):
        for token in range(count):
            self.requests.put(token)
        threads = [threading.Thread(target=self.work, name=f"worker-{at}") for at in range(WORKERS)]
        for thread in threads:
            self.requests.put(None)
            thread.start()
        for thread in threads:
            thread.join()


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Identity)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="identity", daemon=True).start()
    journal = Journal(inside=slow)
    handler = journal if kind == "journal" else logging.NullHandler()
    gateway = Gateway(server.server_address, slow and kind == "token", handler)
    counts = {"slow-token": 500, "slow-journal": 550, "fixed-token": 2300, "fixed-journal": 1500, "healthy-serve": 2800}
    gateway.run(counts[f"{variant}-{kind}"])
    print(sum(gateway.quotas.used.values()), journal.lines, f"{journal.seal:08x}", file=sys.stderr)
    work.tell(gateway.times)


if __name__ == "__main__":
    main()

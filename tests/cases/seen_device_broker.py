"""Threads of a server share what is scarce: small accelerators behind processes of their own, and a journal of answers.

Injected, in cases named devices: the broker's lock is held from when a device is picked until it has answered, so that one of six
works at a time. The twin takes a device out of a queue and puts it back. In cases named journal: the journal packs a record (native
code that lets go of the interpreter) while it holds its lock; the twin packs before, and only appends with the lock held.
"""

import bz2
import contextlib
import hashlib
import itertools
import multiprocessing
import queue
import sys
import threading
import time

import work

CASES = {
    "slow-devices": "slow devices",
    "slow-journal": "slow journal",
    "fixed-devices": "fixed devices",
    "fixed-journal": "fixed journal",
}
LABEL = ["lock-convoy"]
ALSO = {
    "slow-devices": ["waiting", "blocking-io"],
    "slow-journal": ["waiting", "native-hot-spot"],
    "fixed-devices": ["waiting", "blocking-io"],  # a device is as slow as before
    "fixed-journal": ["native-hot-spot"],
}
WHERE = "broker|Broker|run|journal|Journal|append|lock|acquire|__enter__|recv|pack"
MEASURE = "mean"
DEVICES, DEVICE_S = 6, 0.004


def device(link):
    """A process that drives an accelerator: a batch in, and after a while an answer."""
    with contextlib.suppress(EOFError):
        while True:
            batch = link.recv()
            time.sleep(DEVICE_S)
            link.send(hashlib.sha256(batch).hexdigest())


class LockedBroker:
    def __init__(self, links):
        self.links = itertools.cycle(links)
        self.lock = threading.Lock()

    def run(self, batch):
        with self.lock:
            link = next(self.links)
            link.send(batch)
            return link.recv()


class LeasingBroker:
    def __init__(self, links):
        self.idle = queue.SimpleQueue()
        for link in links:
            self.idle.put(link)

    def run(self, batch):
        link = self.idle.get()
        try:
            link.send(batch)
            return link.recv()
        finally:
            self.idle.put(link)


class Journal:
    def __init__(self, early):
        self.early = early
        self.lock = threading.Lock()
        self.size, self.records = 0, []

    def pack(self, record):
        return bz2.compress(record, 9)

    def append(self, record):
        packed = self.pack(record) if self.early else None
        with self.lock:
            packed = packed or self.pack(record)
            self.records.append((self.size, len(packed)))
            self.size += len(packed)


def serve(handle, threads, count):
    """So many threads take requests off one counter; the times of all."""
    numbers, times = iter(range(count)), []

    def worker():
        for number in numbers:
            start = time.perf_counter()
            handle(number)
            times.append(time.perf_counter() - start)

    workers = [threading.Thread(target=worker) for _ in range(threads)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    work.tell(times)


def main():
    variant, kind = sys.argv[1:3]
    if kind == "journal":
        journal = Journal(early=variant == "fixed")

        def answer(number):
            score = hashlib.pbkdf2_hmac("sha256", b"%d" % number, b"score", 500)
            journal.append(hashlib.shake_128(score).digest(12_000).hex().encode())

        serve(answer, 2, {"slow": 1400, "fixed": 2400}[variant])
        return
    context = multiprocessing.get_context("fork")
    links = []
    for _ in range(DEVICES):
        ours, theirs = context.Pipe()
        context.Process(target=device, args=(theirs,), daemon=True).start()
        links.append(ours)
    broker = LockedBroker(links) if variant == "slow" else LeasingBroker(links)

    def ask(number):
        batch = hashlib.pbkdf2_hmac("sha256", b"%d" % number, b"tokens", 600)
        broker.run(batch * 20)

    serve(ask, 6, {"slow": 550, "fixed": 3300}[variant])


main()

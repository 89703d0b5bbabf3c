"""A desk that scores card payments by rules: a pool of threads takes the payments of a batch, the main thread gathers the verdicts.

For each payment the rules are asked with a digest of its device, then a model (native).

Injected, in cases named rings: rings of accounts that pay each other are looked for by a thread of the same process, in Python, without
pause, so that each of the pool's threads waits for the GIL after each of its native calls: gil-contention. The twin has a process
of its own for it, which tells the size of the largest ring through a pipe.

Injected, in cases named velocity: the payments of the past are kept for ever, with what was sent along, and the main thread, which counts
those of the last minute for each payment of the batch, walks over all of them: memory-growth (steps become slower). The twin
drops what has left the window before it counts: as many are counted.

healthy-score: rules need no history, rings are not looked for.
"""

import hashlib
import multiprocessing
import sys
import threading
import zlib
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import work

NEEDS = ""
CASES = {
    "slow-rings": "slow rings",
    "slow-velocity": "slow velocity",
    "fixed-rings": "fixed rings",
    "fixed-velocity": "fixed velocity",
    "healthy-score": "healthy score",
}
LABEL = {"slow-rings": ["gil-contention"], "slow-velocity": ["memory-growth"]}
ALSO = {
    "slow-rings": ["waiting", "cpu-bound-python", "native-hot-spot"],  # the main thread waits for the pool
    "slow-velocity": ["cpu-bound-python", "preprocessing-bound", "waiting", "gil-contention", "page-faults", "native-hot-spot"],
    "fixed-rings": ["waiting", "cpu-bound-python", "native-hot-spot"],  # the Python is that of the process for rings
    "fixed-velocity": ["waiting", "native-hot-spot"],
    "healthy": ["waiting", "native-hot-spot"],
}
WHERE = "ring|Ring|root|join|look|watch|recent|History"
MEASURE = "mean"
WINDOW, ACCOUNTS = 60, 3000


@dataclass(slots=True)
class Payment:
    number: int
    account: int
    cents: int
    sent: bytes  # what the terminal sent along


class Terminal:
    """Payments as they arrive, one each second."""

    def __init__(self):
        self.blob = hashlib.shake_128(b"terminal").digest(9_000)
        self.sent = 0

    def batch(self, size):
        self.sent += size
        return [self.payment(at) for at in range(self.sent - size, self.sent)]

    def payment(self, at):
        draw = zlib.crc32(at.to_bytes(4, "big"))
        return Payment(at, draw % ACCOUNTS, draw >> 12 & 0xFFFF, self.blob[at % 97 :])


class Rings:
    """Which accounts are linked by payments: union-find over the graph of a day."""

    def __init__(self):
        self.parents, self.largest, self.passes = [], 0, 0

    def root(self, account):
        while self.parents[account] != account:
            self.parents[account] = account = self.parents[self.parents[account]]
        return account

    def join(self, day):
        self.parents = list(range(ACCOUNTS))
        for at in range(0, ACCOUNTS * 2):
            payer, payee = at * 7919 % ACCOUNTS, (at * at + day * 31) % ACCOUNTS
            self.parents[self.root(payer)] = self.root(payee)

    def look(self):
        sizes = defaultdict(int)
        self.join(self.passes)
        for account in range(ACCOUNTS):
            sizes[self.root(account)] += 1
        self.largest = max(sizes.values())
        self.passes += 1

    def watch(self, ended):
        while not ended.is_set():
            self.look()


def watch_rings(ended, link):
    rings = Rings()
    rings.watch(ended)
    link.send(rings.largest)


class History:
    """The payments that were made."""

    def __init__(self, drops):
        self.payments, self.drops = deque(), drops

    def recent(self, payment):
        """How many were there in the window, of an amount near to this one?"""
        since = payment.number - WINDOW
        if self.drops:
            while self.payments and self.payments[0].number < since:
                self.payments.popleft()
        near = 0
        for past in self.payments:
            if past.number >= since and abs(past.cents - payment.cents) < 5000:
                near += 1
        self.payments.append(payment)
        return near


class Desk:
    def __init__(self, depth, velocity, drops):
        self.depth = depth
        self.history = History(drops) if velocity else None
        self.pool = ThreadPoolExecutor(2, "rules")
        self.flagged = 0

    def rules(self, payment, device, near):
        points = 3 if payment.cents % 100 == 0 else 0
        points += 2 if payment.cents > 60_000 else 0
        points += device[0] & 1
        return points + (near > 3)

    def score(self, payment, near):
        device = hashlib.sha256(payment.sent[:64]).digest()
        points = self.rules(payment, device, near)
        risk = hashlib.pbkdf2_hmac("sha256", payment.sent[:900], device, self.depth)[0]
        return points * 20 + risk > 220

    def part(self, asked):
        return sum(self.score(payment, near) for payment, near in asked)

    def settle(self, batch):
        near = [self.history.recent(payment) for payment in batch] if self.history else [0] * len(batch)
        asked = list(zip(batch, near))
        self.flagged += sum(self.pool.map(self.part, (asked[::2], asked[1::2])))


def main():
    variant, kind = sys.argv[1:3]
    desk, terminal = Desk(9000 if kind == "rings" else 450, kind == "velocity", variant == "fixed"), Terminal()
    sys.setswitchinterval(0.002)  # the rings stall the rules less than with 5 ms
    ended = process = None
    if kind == "rings" and variant == "slow":
        ended = threading.Event()
        threading.Thread(target=Rings().watch, args=(ended,), name="rings", daemon=True).start()
    elif kind == "rings":
        context = multiprocessing.get_context("spawn")
        ended, (link, far) = context.Event(), context.Pipe()
        process = context.Process(target=watch_rings, args=(ended, far), daemon=True)
        process.start()
    size = 2 if kind == "rings" else 16
    count = {"slow-rings": 300, "fixed-rings": 650, "slow-velocity": 750, "fixed-velocity": 1000, "healthy-score": 1000}
    work.run(lambda number: desk.settle(terminal.batch(size)), count[f"{variant}-{kind}"])
    if ended is not None:
        ended.set()
    if process is not None:
        link.recv()
        process.join()


if __name__ == "__main__":
    main()

"""Workers queue up for one lock.

Injected: each worker holds the lock while it asks a slow store (a sleep stands for it), so that they do so one after the other.
Right, because a worker stands in the queue for that share of a step; the twin asks without the lock, and all of them overlap.
"""

import hashlib
import threading
import time

import work

CASES = {
    "slow-0.3": "slow --strength 0.3",
    "slow-0.45": "slow --strength 0.45",
    "slow-0.75": "slow --strength 0.75",
    "fixed-0.45": "fixed --strength 0.45",
    "fixed-0.75": "fixed --strength 0.75",
}
LABEL = ["lock-convoy"]
ALSO = {"slow": ["blocking-io", "waiting"], "fixed": ["waiting"]}  # the store is as slow as before
WHERE = "look_up|lock|acquire"
MEASURE = "mean"  # who gets the lock is chance

variant, strength = work.variant()
WORKERS, ASK_S, ROUNDS = {0.3: (3, 0.6e-3, 500), 0.45: (3, 1.1e-3, 300), 0.75: (6, 3e-3, 70)}[strength]
lock = threading.Lock()
times = []


def ask():
    time.sleep(ASK_S)


def look_up():
    if variant == "slow":
        with lock:
            ask()
    else:
        ask()


def infer():
    return hashlib.pbkdf2_hmac("sha256", b"row", b"layer", 2600)


def worker():
    for _ in range(ROUNDS):
        start = time.perf_counter()
        look_up()
        infer()
        times.append(time.perf_counter() - start)


threads = [threading.Thread(target=worker) for _ in range(WORKERS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
work.tell(times)

"""Four workers queue up for one lock.

Injected: each worker holds the lock while it asks a slow store (a sleep stands for it), so that they do so one after the other.
Right, because the model's work is small beside the time in the queue; the twin asks without the lock, and all four overlap.
"""

import threading
import time

import work

CASES = {
    "slow-0.4": "slow --strength 0.4",
    "slow-0.6": "slow --strength 0.6",
    "slow-0.85": "slow --strength 0.85",
    "fixed-0.6": "fixed --strength 0.6",
}
LABEL = ["lock-convoy"]
ALSO = ["blocking-io", "waiting"]
WHERE = "look_up|lock|acquire"

variant, strength = work.variant()
WORKERS, ROUNDS = 4, 60
ASK_S = {0.4: 3.0e-3, 0.6: 5.0e-3, 0.85: 10e-3}[strength]
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


def worker():
    for _ in range(ROUNDS):
        start = time.perf_counter()
        look_up()
        work.model()
        times.append(time.perf_counter() - start)


threads = [threading.Thread(target=worker) for _ in range(WORKERS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
work.tell(times)

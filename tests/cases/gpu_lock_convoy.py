"""Workers share one lock around the device.

Injected: each worker holds the lock from its first launch until its answer is there. Right, because the others stand in the
queue; the twin gives each worker a stream of its own and no lock, and their kernels overlap.
"""

import hashlib
import threading
import time

import device
import work

CASES = {
    "slow-0.45": "slow --strength 0.45",
    "slow-0.75": "slow --strength 0.75",
    "fixed-0.45": "fixed --strength 0.45",
    "fixed-0.75": "fixed --strength 0.75",
}
LABEL = ["lock-convoy"]
ALSO = ["sync-stall"]
WHERE = "infer|lock|acquire"
MEASURE = "mean"  # who gets the lock is chance
NEEDS = "gpu"

variant, strength = work.variant()
WORKERS, KERNEL_US, ROUNDS = {0.45: (3, 150, 250), 0.75: (5, 400, 50)}[strength]
gpu = device.Device(KERNEL_US)
lock = threading.Lock()
times = []


def compute(stream):
    gpu.layers(10, stream)
    gpu.wait(stream)


def infer(stream):
    if variant == "slow":
        with lock:
            compute(stream)
    else:
        compute(stream)


def sample():
    return hashlib.pbkdf2_hmac("sha256", b"logits", b"seed", 3000)


def worker():
    gpu.enter()
    stream = 0 if variant == "slow" else gpu.stream()
    for _ in range(ROUNDS):
        start = time.perf_counter()
        infer(stream)
        sample()
        times.append(time.perf_counter() - start)


threads = [threading.Thread(target=worker) for _ in range(WORKERS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
work.tell(times)

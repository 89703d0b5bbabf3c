"""Four workers share one lock around the device.

Injected: each worker holds the lock from its first launch until its answer is there. Right, because three of four stand in the
queue; the twin gives each worker a stream of its own and no lock, and their kernels overlap.
"""

import threading
import time

import device
import work

CASES = {
    "slow-0.5": "slow --strength 0.5",
    "slow-0.8": "slow --strength 0.8",
    "fixed-0.5": "fixed --strength 0.5",
    "fixed-0.8": "fixed --strength 0.8",
}
LABEL = ["lock-convoy"]
ALSO = ["sync-stall"]
WHERE = "infer|lock|acquire"
NEEDS = "gpu"

variant, strength = work.variant()
WORKERS, ROUNDS = 4, 60
gpu = device.Device({0.5: 300, 0.8: 600}[strength])
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


def worker():
    gpu.enter()
    stream = 0 if variant == "slow" else gpu.stream()
    for _ in range(ROUNDS):
        start = time.perf_counter()
        infer(stream)
        work.model(work.BATCH[:6000])
        times.append(time.perf_counter() - start)


threads = [threading.Thread(target=worker) for _ in range(WORKERS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
work.tell(times)

"""More threads want a processor than there are.

Injected: a pool of native workers that spins between rounds, as those of BLAS and OpenMP do, four for each processor. Right,
because the thread that answers is ready to run and has no processor most of the time; the twin has one worker less than
processors, and the same rounds. Spinning is a checksum over a large buffer, which releases the GIL.
"""

import os
import threading
import zlib

import work

CASES = {
    "slow-0.5": "slow --strength 0.5",
    "slow-0.75": "slow --strength 0.75",
    "fixed": "fixed",
}
LABEL = ["thread-oversubscription"]
ALSO = ["native-hot-spot", "gil-contention"]
WHERE = "request"

variant, strength = work.variant()
CPUS = len(os.sched_getaffinity(0))
WORKERS = max(1, CPUS - 1) if variant != "slow" else CPUS * (2 if strength < 0.6 else 4)
SPIN = bytes(48 << 20)
stop = threading.Event()


def spin():
    while not stop.is_set():
        zlib.crc32(SPIN)


def step(number):
    for _ in range(4):
        work.model()


workers = [threading.Thread(target=spin) for _ in range(WORKERS)]
for worker in workers:
    worker.start()
work.run(step, {0.5: 25, 0.75: 12}[strength] if variant == "slow" else 40)
stop.set()
for worker in workers:
    worker.join()

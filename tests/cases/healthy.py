"""Programs with nothing to find: what takes the time is the work itself, or it is spread evenly.

balanced: a little Python, four kinds of native code, no one with a third of the time. decoder: all time is in the model, one call
for each token. threads: as many workers as processors, native code that releases the GIL. server: asyncio that awaits what is
slow, eight requests at a time. stages: generators, one after the other. batches: 32 items a call.
"""

import asyncio
import hashlib
import os
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import work

CASES = {
    "healthy-balanced": "healthy balanced",
    "healthy-decoder": "healthy decoder",
    "healthy-threads": "healthy threads",
    "healthy-server": "healthy server",
    "healthy-stages": "healthy stages",
    "healthy-batches": "healthy batches",
}
LABEL = []

kind = sys.argv[2]


def shape(count):
    return sum(at * at % 7 for at in range(count))


def balanced(number):
    shape(8000)
    work.model()
    return str(sorted(work.BATCH[:9000]))


def decoder(number):
    return hashlib.scrypt(b"token %d" % number, salt=b"weights", n=1024, r=8, p=1)


pool = ThreadPoolExecutor(len(os.sched_getaffinity(0))) if kind == "threads" else None


def threads(number):
    return list(pool.map(lambda _: work.model(), range(4)))


def load(count):
    for at in range(count):
        yield work.BATCH[at * 100 : at * 100 + 40_000]


def pack(texts):
    for text in texts:
        yield zlib.compress(text, 2), text


def infer(items):
    for packed, text in items:
        yield work.model(text), len(packed)


def stages(number):
    return list(infer(pack(load(4))))


def batches(number):
    return [work.model(work.BATCH * 2) for _ in range(2)]


async def serve():
    async def handle():
        await asyncio.sleep(0.004)  # a store that is asked
        work.model()
        await asyncio.sleep(0)

    times = []
    for _ in range(45):
        start = time.perf_counter()
        await asyncio.gather(*(handle() for _ in range(8)))
        times.append(time.perf_counter() - start)
    work.tell(times)


if kind == "server":
    asyncio.run(serve())
else:
    steps = {"balanced": 220, "decoder": 600, "threads": 150, "stages": 80, "batches": 150}
    work.run({"balanced": balanced, "decoder": decoder, "threads": threads, "stages": stages, "batches": batches}[kind], steps[kind])

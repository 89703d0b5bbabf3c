"""A callback of an event loop computes for long, and short requests wait for it.

Injected: `digest`, 150 ms and more of native code within a coroutine, while others have half a millisecond to do. Right, because
the loop stands for that long though it is busy; the twin leaves the same work to a thread, which it may, as the code releases the
GIL. The step is a short request.
"""

import asyncio
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import work

CASES = {
    "slow-0.5": "slow --strength 0.5",
    "slow-0.9": "slow --strength 0.9",
    "fixed": "fixed --strength 0.5",
}
LABEL = ["slow-callback"]
ALSO = ["native-hot-spot"]
WHERE = "digest|report|pbkdf2"
MEASURE = None  # what it costs the short requests depends on how many come

variant, strength = work.variant()
LONG_MS = 160 if strength < 0.8 else 300
times = []


def digest():
    return hashlib.pbkdf2_hmac("sha256", b"report", b"salt", LONG_MS * 4000)


async def report(pool):
    if variant == "slow":
        return digest()
    return await asyncio.get_running_loop().run_in_executor(pool, digest)


async def reports(pool):
    for _ in range(8):
        await report(pool)
        await asyncio.sleep(LONG_MS / 1e3 * (1 - strength) / strength)


async def requests(done):
    while not done.done():
        start = time.perf_counter()
        await asyncio.sleep(0.002)
        work.model()
        times.append(time.perf_counter() - start)


async def main():
    with ThreadPoolExecutor(1) as pool:
        done = asyncio.ensure_future(reports(pool))
        await asyncio.gather(done, requests(done))


asyncio.run(main())
work.tell(times)

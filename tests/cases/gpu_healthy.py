"""Programs with a GPU and nothing to find: the device is busy, with kernels of many sorts.

decoder: 40 kernels a step, launched while earlier ones run. graphs: the same from graphs. streams: copies on a stream of their own,
hidden behind kernels. asyncio: eight requests at a time, each awaited in a thread.
"""

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import device
import work

CASES = {
    "healthy-decoder": "healthy decoder",
    "healthy-graphs": "healthy graphs",
    "healthy-streams": "healthy streams",
    "healthy-asyncio": "healthy asyncio",
}
LABEL = []
NEEDS = "gpu"

kind = sys.argv[2]
gpu = device.Device({"decoder": 120, "graphs": 30, "streams": 150, "asyncio": 150}[kind])
graphs = [gpu.graph(number, 32) for number in range(5)]
side = gpu.stream()


def decoder(number):
    gpu.layers(40)
    gpu.wait()


def graph(number):
    for one in graphs:
        gpu.replay(one)
    gpu.copy_out(64)
    gpu.wait()


def streams(number):
    gpu.copy_in(20 << 20, side)
    gpu.layers(30)
    gpu.wait()
    gpu.wait(side)


def infer():
    gpu.enter()
    gpu.layers(10)
    gpu.wait()


async def serve():
    loop = asyncio.get_running_loop()
    times = []
    with ThreadPoolExecutor(2) as pool:
        for _ in range(100):
            start = time.perf_counter()
            await asyncio.gather(*(loop.run_in_executor(pool, infer) for _ in range(8)))
            times.append(time.perf_counter() - start)
    work.tell(times)


if kind == "asyncio":
    asyncio.run(serve())
else:
    work.run({"decoder": decoder, "graphs": graph, "streams": streams}[kind], 280)

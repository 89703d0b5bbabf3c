"""Annotates with the nvtx package in every way it has, and writes what the trace must say.

    nvtx_ranges.py OUT.json
"""

import asyncio
import json
import sys
import threading
import time

import nvtx

counts = {}
times = []


def count(name, by=1):
    counts[name] = counts.get(name, 0) + by


def spin(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@nvtx.annotate("decorated", color="blue", domain="engine", category="step")
def decorated():
    spin(0.0002)


@nvtx.annotate()
def named_by_itself():
    return 1


def nested():
    for _ in range(20):
        with nvtx.annotate("outer größe 🦀", color="green"):
            with nvtx.annotate("inner", payload=7):
                spin(0.0001)
        count("outer größe 🦀")
        count("inner")


def measured():
    for _ in range(20):
        before = time.monotonic_ns()
        nvtx.push_range("measured")
        begun = time.monotonic_ns()
        spin(0.0002)
        end = time.monotonic_ns()
        nvtx.pop_range()
        times.append([before, begun, end, time.monotonic_ns()])
        count("measured")


def threads():
    def work(n):
        for _ in range(100):
            nvtx.push_range(f"worker {n}", domain="threads")
            nvtx.push_range("inside", domain="threads")
            nvtx.pop_range(domain="threads")
            nvtx.pop_range(domain="threads")

    workers = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for n in range(3):
        count(f"worker {n}", 100)
    count("inside", 300)

    ranges = [nvtx.start_range("across threads", color="red") for _ in range(10)]
    ender = threading.Thread(target=lambda: [nvtx.end_range(one) for one in ranges])
    ender.start()
    ender.join()
    count("across threads", 10)


async def request(n):
    handle = nvtx.start_range(f"request {n}", domain="requests")
    for _ in range(3):
        with nvtx.annotate("step"):
            spin(0.0001)
        await asyncio.sleep(0)
    nvtx.end_range(handle)


async def requests():
    await asyncio.gather(*(request(n) for n in range(4)))
    for n in range(4):
        count(f"request {n}")
    count("step", 12)


def main():
    for _ in range(10):
        decorated()
        named_by_itself()
    count("decorated", 10)
    count("named_by_itself", 10)
    nested()
    measured()
    threads()
    asyncio.run(requests())
    for n in range(5):
        nvtx.mark("a mark", color="yellow", domain="engine", payload=n + 0.5)
    with open(sys.argv[1], "w") as out:
        json.dump({"counts": counts, "times": times}, out)


main()

"""An asyncio service for couriers over a Unix socket: many short questions (how long until I am there) and a few long ones (plan my way).

Injected: the plan, a search over a grid in Python, is computed in the coroutine, and the short questions of the other couriers wait
until it is done. The twin plans in a process of its own. The plans are computed in Python in both, and as long: what differs is how
long the short questions take, and they are the steps that are told.
"""

import asyncio
import concurrent.futures
import heapq
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time

import work

CASES = {
    "slow-60": "slow 60",
    "slow-100": "slow 100",
    "fixed-60": "fixed 60",
    "fixed-100": "fixed 100",
}
LABEL = ["slow-callback"]
ALSO = {"slow": ["cpu-bound-python", "blocking-io", "preprocessing-bound"], "fixed": ["waiting", "cpu-bound-python", "idle-no-work"]}
WHERE = "plan|search|neighbours|serve|answer"
MEASURE = "mean"
COURIERS, SHORT = 4, 24  # so many short questions before each long one


class City:
    def __init__(self, side):
        self.side = side
        self.cost = [[1 + (x * 31 + y * 17 + x * y) % 9 for x in range(side)] for y in range(side)]

    def neighbours(self, x, y):
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            if 0 <= x + dx < self.side and 0 <= y + dy < self.side:
                yield x + dx, y + dy

    def search(self, start, goal):
        best, queue, known = {start: 0}, [(0, start)], set()
        while queue:
            length, place = heapq.heappop(queue)
            if place == goal:
                return length
            if place in known:
                continue
            known.add(place)
            for x, y in self.neighbours(*place):
                reached = length + self.cost[y][x]
                if reached < best.get((x, y), 1 << 30):
                    best[x, y] = reached
                    heapq.heappush(queue, (reached, (x, y)))
        return None


CITY = None  # of this process


def open_city(side):
    global CITY
    CITY = City(side)


def plan(stops):
    """The length of a way over all of the stops, in their order."""
    return sum(CITY.search(tuple(here), tuple(there)) for here, there in zip(stops, stops[1:]))


def arrival(courier, x, y):
    return {"courier": courier, "minutes": abs(x - y) * 1.7 + x % 3}


async def serve(reader, writer, pool):
    try:
        while line := await reader.readline():
            question = json.loads(line)
            if "stops" not in question:
                answer = arrival(**question)
            elif pool:
                answer = {"length": await asyncio.get_running_loop().run_in_executor(pool, plan, question["stops"])}
            else:
                answer = {"length": plan(question["stops"])}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def couriers(path, rounds, side):
    times = []

    async def one(courier):
        reader, writer = await asyncio.open_unix_connection(path)
        for number in range(rounds * (SHORT + 1)):
            long = number % (SHORT + 1) == SHORT
            corner = (number * 7 + courier) % side
            stops = [[0, 0], [side - 1, corner], [corner, side // 2]]
            question = {"stops": stops} if long else {"courier": courier, "x": corner, "y": number % 50}
            await asyncio.sleep(0.002)
            start = time.perf_counter()
            writer.write(json.dumps(question).encode() + b"\n")
            await reader.readline()
            if not long:
                times.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(one(courier) for courier in range(COURIERS)))
    print(json.dumps(times))


async def main(variant, side):
    pool = None
    if variant == "fixed":
        pool = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), open_city, (side,))
        await asyncio.get_running_loop().run_in_executor(pool, plan, [[0, 0], [1, 1]])
    open_city(side)
    rounds = {"slow": {60: 20, 100: 10}, "fixed": {60: 22, 100: 12}}[variant][side]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "planner")
        server = await asyncio.start_unix_server(lambda reader, writer: serve(reader, writer, pool), path)
        words = [sys.executable, "-E", __file__, "couriers", path, str(rounds), str(side)]
        child = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
        told = json.loads((await child.communicate())[0])
        server.close()
    if pool:
        pool.shutdown()
    work.tell(told)


if __name__ == "__main__":
    if sys.argv[1] == "couriers":
        asyncio.run(couriers(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        asyncio.run(main(sys.argv[1], int(sys.argv[2])))

"""Calls of every kind, in numbers that the test knows."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
import time

from inferscope import mark_event, recording, scope


def plain(n):
    return n if n < 2 else plain(n - 1) + plain(n - 2)


def items(n):
    for i in range(n):
        yield i


def fails():
    raise ValueError("expected")


def catches():
    try:
        fails()
    except ValueError:
        return True


def in_thread():
    plain(5)


def in_fork():
    return plain(3)


def in_spawn():
    return plain(4)


async def step():
    await asyncio.sleep(0.001)


async def request(number):
    async with scope("request", number=number):
        for _ in range(3):
            await step()


async def serve():
    await asyncio.gather(*[request(number) for number in range(4)])


@scope("decorated")
def decorated():
    return 5


def main():
    assert recording()
    assert plain(10) == 55
    assert list(items(5)) == [0, 1, 2, 3, 4]
    assert catches() and catches()
    threads = [threading.Thread(target=in_thread, name="worker-%d" % i) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(serve())
    time.sleep(0.002)
    assert sorted([3, 1, 2], key=lambda value: value) == [1, 2, 3]
    with scope("outer", model="tiny", layers=2):
        mark_event("first_token", {"request": 7})
    assert decorated() == 5
    pid = os.fork()
    if pid == 0:
        in_fork()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    child = multiprocessing.get_context("spawn").Process(target=in_spawn)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert subprocess.call([sys.executable, "-c", "def in_child(): pass\nin_child()"]) == 0


if __name__ == "__main__":
    main()

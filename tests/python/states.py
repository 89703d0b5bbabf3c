"""Programs that know for how long each of their threads was in each state; they print it as JSON, in ns.

    states.py NAME SECONDS

Each measures its own waits: CLOCK_MONOTONIC around them, the thread's CPU clock, and the kernel's word on how long the
thread was ready to run and had no processor.
"""

import asyncio
import hashlib
import json
import os
import socket
import sys
import threading
import time

clock, cpu = time.perf_counter_ns, time.thread_time_ns
truth = []


def runnable():
    with open(f"/proc/self/task/{threading.get_native_id()}/schedstat") as file:
        return int(file.read().split()[1])


def thread(body, *arguments):
    """Runs `body` in a thread; it returns the time in each state."""

    def whole():
        before = runnable()
        times = body(*arguments)
        times["runnable"] = runnable() - before
        truth.append({"tid": threading.get_native_id(), **times})

    new = threading.Thread(target=whole)
    new.start()
    return new


def count(turns):
    total = 0
    for turn in range(turns):
        total += turn * turn
    return total


def compute(end):
    """Bytecode until `end`: what it did not run, it waited for the GIL or for a processor."""
    start, used, ready = clock(), cpu(), runnable()
    while clock() < end:
        count(1000)
    return {"gil": clock() - start - (cpu() - used) - (runnable() - ready)}


def gil(seconds):
    end = clock() + int(seconds * 1e9)
    return [thread(compute, end) for _ in range(4)]


def hold(lock, end):
    held = asleep = 0
    while clock() < end:
        with lock:
            start = clock()
            time.sleep(0.015)
            asleep += clock() - start
        start = clock()
        time.sleep(0.005)
        asleep += clock() - start
    return {"sleep": asleep}


def queue_up(lock, end):
    waited = 0
    while clock() < end:
        start = clock()
        with lock:
            waited += clock() - start
            count(2000)
    return {"lock": waited}


def lock(seconds):
    end, one = clock() + int(seconds * 1e9), threading.Lock()
    return [thread(hold, one, end)] + [thread(queue_up, one, end) for _ in range(3)]


def answer(connection):
    """The other side: answers each byte after the time that it stands for, in ms."""
    with connection:
        while byte := connection.recv(1):
            time.sleep(byte[0] / 1000)
            connection.sendall(byte)


def peer():
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        answer(theirs)
        os._exit(0)
    theirs.close()
    return ours


def loop(seconds):
    """An event loop whose one task reads a socket as if there were nobody else, and sleeps as it should in between."""
    ours = peer()

    async def task(end, times):
        while clock() < end:
            start = clock()
            ours.sendall(b"\x0c")
            ours.recv(1)
            times["read"] += clock() - start
            await asyncio.sleep(0.008)
            count(20_000)

    def body():
        times = {"read": 0, "poll": 0}
        here = asyncio.new_event_loop()
        select = here._selector.select

        def timed(timeout=None):
            start = clock()
            try:
                return select(timeout)
            finally:
                times["poll"] += clock() - start

        here._selector.select = timed
        here.run_until_complete(task(clock() + int(seconds * 1e9), times))
        here.close()
        ours.close()
        return {"io": times["read"] + times["poll"]}

    return [thread(body)]


def mixed(seconds):
    """One thread that sleeps, reads, waits for a lock and computes in turn."""
    ours, one, end = peer(), threading.Lock(), clock() + int(seconds * 1e9)

    def body():
        times = {"sleep": 0, "io": 0, "lock": 0}
        while clock() < end:
            start = clock()
            time.sleep(0.004)
            times["sleep"] += clock() - start
            start = clock()
            ours.sendall(b"\x07")
            ours.recv(1)
            times["io"] += clock() - start
            start = clock()
            with one:
                times["lock"] += clock() - start
            count(20_000)
        ours.close()
        return times

    return [thread(hold, one, end), thread(body)]


def crowd(seconds):
    """Twice as many threads as processors, in native code without the GIL."""
    end, data = clock() + int(seconds * 1e9), bytes(8 << 20)

    def body():
        while clock() < end:
            hashlib.sha256(data)
        return {}

    return [thread(body) for _ in range(2 * len(os.sched_getaffinity(0)))]


def sleep(seconds):
    def body():
        start = clock()
        time.sleep(seconds)
        return {"sleep": clock() - start}

    return [thread(body)]


for one in globals()[sys.argv[1]](float(sys.argv[2])):
    one.join()
print(json.dumps(truth))

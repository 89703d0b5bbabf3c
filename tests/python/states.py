"""Programs that know for how long each of their threads was in each state; they print it as JSON, in ns.

    states.py NAME SECONDS

Each measures its own waits: CLOCK_MONOTONIC around them, less the time in which the thread ran, or was ready to and had
no processor, as the kernel says.
"""

import asyncio
import ctypes
import hashlib
import json
import os
import socket
import sys
import threading
import time

clock, cpu = time.perf_counter_ns, time.thread_time_ns
truth = []


here = threading.local()
# unlike os.pread it keeps the GIL
pread = ctypes.PyDLL(None).pread


def runnable():
    if not hasattr(here, "file"):
        here.file = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        here.text = ctypes.create_string_buffer(100)
    here.text[pread(here.file, here.text, 99, 0)] = b"\0"
    return int(here.text.value.split()[1])


def elsewhere():
    """The clock, less the time in which the thread ran or was ready to: all of one moment."""
    while True:
        before, now, after = runnable(), clock() - cpu(), runnable()
        if before == after:
            return now - after


class Timer:
    """Adds the time of a wait to those of one state. Of a sleep we know how long it was; what came after it, before the
    thread went on, was the wait for the GIL."""

    def __init__(self, times, state, slept=None):
        self.times, self.state, self.slept = times, state, slept

    def add(self, state, ns):
        self.times[state] = self.times.get(state, 0) + ns

    def __enter__(self):
        self.start = elsewhere()

    def __exit__(self, *_):
        ns = elsewhere() - self.start
        if self.slept is not None:
            asleep = min(int(self.slept * 1e9), ns)
            self.add("gil", ns - asleep)
            ns = asleep
        self.add(self.state, ns)


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
    times = {}
    with Timer(times, "gil"):
        while clock() < end:
            count(1000)
    return times


def gil(seconds):
    end = clock() + int(seconds * 1e9)
    return [thread(compute, end) for _ in range(4)]


def doze(times, seconds):
    with Timer(times, "sleep", seconds):
        time.sleep(seconds)


def hold(lock, end):
    times = {}
    while clock() < end:
        with lock:
            doze(times, 0.015)
        doze(times, 0.005)
    return times


def queue_up(lock, end):
    times = {}
    while clock() < end:
        waits = Timer(times, "lock")
        waits.__enter__()
        with lock:
            waits.__exit__()
            count(2000)
    return times


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
            with Timer(times, "io"):
                ours.sendall(b"\x0c")
                ours.recv(1)
            await asyncio.sleep(0.008)
            count(20_000)

    def body():
        times = {}
        loop = asyncio.new_event_loop()
        select = loop._selector.select

        def timed(timeout=None):
            with Timer(times, "io"):
                return select(timeout)

        loop._selector.select = timed
        loop.run_until_complete(task(clock() + int(seconds * 1e9), times))
        loop.close()
        ours.close()
        return times

    return [thread(body)]


def mixed(seconds):
    """One thread that sleeps, reads, waits for a lock and computes in turn."""
    ours, one, end = peer(), threading.Lock(), clock() + int(seconds * 1e9)

    def body():
        times = {}
        while clock() < end:
            doze(times, 0.004)
            with Timer(times, "io"):
                ours.sendall(b"\x07")
                ours.recv(1)
            waits = Timer(times, "lock")
            waits.__enter__()
            with one:
                waits.__exit__()
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
        times = {}
        doze(times, seconds)
        return times

    return [thread(body)]


# A sleep is as long as was asked, not 50 us longer (PR_SET_TIMERSLACK); threads inherit it.
ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)
for one in globals()[sys.argv[1]](float(sys.argv[2])):
    one.join()
print(json.dumps(truth))

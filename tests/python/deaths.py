"""Works until it dies, and counts where its death cannot reach: two words of a file per thread, its id and its calls.

    deaths.py HOW FILE CALLS

The last word of the file is set when it has done what it was told and is about to go on to its end.
"""

import mmap
import os
import signal
import sys
import threading

HOW, PATH, CALLS = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(PATH, "r+b") as file:
    mapping = mmap.mmap(file.fileno(), 0)  # shared: what is stored is in the file, whatever becomes of us
WORDS = memoryview(mapping).cast("Q")
EVER = 1 << 62


def work():
    pass


def loop(slot, calls):
    WORDS[2 * slot] = threading.get_native_id()
    for n in range(1, calls + 1):
        work()
        WORDS[2 * slot + 1] = n


def start(slot, calls, daemon=False):
    thread = threading.Thread(target=loop, args=(slot, calls), daemon=daemon)
    thread.start()
    return thread


def working(slot):
    while not WORDS[2 * slot + 1]:
        pass


def runs():
    other = start(1, CALLS)
    loop(0, CALLS)
    other.join()


def killed():  # by someone else
    start(1, EVER)
    loop(0, EVER)


def waits():  # for a line, in the middle
    loop(0, CALLS)
    WORDS[-1] = 1
    sys.stdin.readline()
    loop(1, CALLS)


def leaves():
    start(1, EVER)
    loop(0, CALLS)
    os._exit(3)


def aborts():
    start(1, EVER)
    loop(0, CALLS)
    os.abort()


def crashes():
    import ctypes

    start(1, EVER)
    loop(0, CALLS)
    ctypes.memset(8, 0, 1)


def exhausts():  # its address space, and then goes on
    import resource

    start(1, CALLS)
    working(1)
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])  # with the other thread's stack and heap
    limit = pages * mmap.PAGESIZE + (64 << 20)
    loop(0, CALLS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for slot, size in enumerate((1 << 20, 1 << 12), 2):
        spare = mmap.mmap(-1, 8 << 20)  # for Python itself, which needs some to go on
        held = []
        try:
            while True:
                held.append(bytearray(size))
        except MemoryError:
            spare.close()
            loop(slot, CALLS)  # little is left
            held.clear()
    loop(4, CALLS)


def forks():
    loop(0, CALLS)
    children = []
    for slot in (1, 2, 3):
        pid = os.fork()
        if pid == 0:
            loop(slot, CALLS)
            if slot == 1:
                os._exit(0)
            if slot == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            sys.exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    loop(4, CALLS)


def daemons():  # a thread that never ends
    start(1, EVER, daemon=True)
    working(1)
    loop(0, CALLS)


def shuts_down():  # with threads that are still at it
    import atexit

    atexit.register(loop, 3, CALLS)
    start(1, EVER, daemon=True)
    working(1)
    start(2, 2 * CALLS)
    loop(0, CALLS)


ways = {
    function.__name__: function
    for function in (runs, killed, waits, leaves, aborts, crashes, exhausts, forks, daemons, shuts_down)
}
ways[HOW]()
WORDS[-1] = 2

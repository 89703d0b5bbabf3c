"""Marks on several threads, each counted where it is made: marks.py FILE THREADS MARKS [FILL]

A line on standard input begins it: each thread makes MARKS of them. Another line, and each makes a tenth more.
FILL is a file that is made longer before that, until there is no more room.
"""

import gc
import mmap
import sys
import threading

from inferscope import mark_event

PATH, THREADS, MARKS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(PATH, "r+b") as file:
    mapping = mmap.mmap(file.fileno(), 0)
WORDS = memoryview(mapping).cast("Q")
GO_ON = threading.Event()
gc.disable()  # a collection is a record too


def marks(slot):
    WORDS[2 * slot] = threading.get_native_id()
    for n in range(MARKS):
        mark_event("mark")
        WORDS[2 * slot + 1] = n + 1
    GO_ON.wait()
    for n in range(MARKS, MARKS + MARKS // 10):
        mark_event("mark")
        WORDS[2 * slot + 1] = n + 1


WORDS[-1] = 1
sys.stdin.readline()
if len(sys.argv) > 4:
    with open(sys.argv[4], "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
threads = [threading.Thread(target=marks, args=(slot,)) for slot in range(THREADS)]
for thread in threads:
    thread.start()
sys.stdin.readline()
GO_ON.set()
for thread in threads:
    thread.join()

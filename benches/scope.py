"""What scope() and mark_event() take, in ns: run by scripts/bench-scope under isc-record, with the module `empty`."""

import json
import statistics
import sys
import time

from empty import Empty
from inferscope import mark_event, pause, resume, scope

LOOPS = 2000
ROUNDS = 201


def nothing(clock=time.thread_time_ns):
    start = clock()
    for _ in range(LOOPS):
        pass
    return clock() - start


def empty(clock=time.thread_time_ns):
    start = clock()
    for _ in range(LOOPS):
        with Empty("name"):
            pass
    return clock() - start


def scopes(clock=time.thread_time_ns):
    start = clock()
    for _ in range(LOOPS):
        with scope("name"):
            pass
    return clock() - start


def reused(clock=time.thread_time_ns):
    one = scope("name")
    start = clock()
    for _ in range(LOOPS):
        with one:
            pass
    return clock() - start


def marks(clock=time.thread_time_ns):
    start = clock()
    for _ in range(LOOPS):
        mark_event("name")
    return clock() - start


def main():
    switches = {"idle": pause, "recording": resume}
    parts = [nothing, empty, scopes, reused, marks]
    times = {(state, part.__name__): [] for state in switches for part in parts}
    for _ in range(ROUNDS):
        for state, switch in switches.items():
            switch()
            for part in parts:
                times[state, part.__name__].append(part() / LOOPS)
    taken = {" ".join(key): statistics.median(values) for key, values in times.items()}
    with open(sys.argv[1], "w") as out:
        json.dump(taken, out)


if __name__ == "__main__":
    main()

"""A service that answers questions from a graph of entities, which it holds in memory, with links both ways.

Injected, in cases named guard: after each question a guard of memory looks whether the process is over its budget, and collects
garbage if so; as the graph alone is over it, it collects every time, and nothing comes of it. The twin's guard compares with what was
there after the graph was loaded. In cases named janitor: a thread of its own collects every few milliseconds, "so that requests
need not"; while it does, nothing else runs. The twin's janitor only looks at the counts, and the graph is frozen.
"""

import collections
import gc
import hashlib
import os
import sys
import threading
import time

import work

CASES = {
    "slow-guard": "slow guard",
    "slow-janitor": "slow janitor",
    "fixed-guard": "fixed guard",
    "fixed-janitor": "fixed janitor",
}
LABEL = ["gc-pressure"]
ALSO = {"slow-janitor": ["gil-contention"], "fixed": ["native-hot-spot"]}  # who collects in a thread holds the interpreter
WHERE = "collect|guard|Guard|check|question|janitor|Janitor|sweep"
MEASURE = "mean"
ENTITIES = {"guard": 20_000, "janitor": 16_000}
PAGE = os.sysconf("SC_PAGE_SIZE")


class Entity:
    def __init__(self, name):
        self.name = name
        self.links, self.back = [], []
        self.facts = {"kind": name[:2], "aliases": [name.upper()]}


class Hit:
    __slots__ = ("entity", "path", "scores")

    def __init__(self, entity, path, scores):
        self.entity, self.path, self.scores = entity, path, scores


def load(count):
    graph = [Entity(f"e{number}") for number in range(count)]
    for number, entity in enumerate(graph):
        for far in (1, 17, 331):
            other = graph[(number * 31 + far) % count]
            entity.links.append(other)
            other.back.append(entity)
    return graph


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


class Guard:
    """Keeps the process within its budget of memory."""

    def __init__(self, budget):
        self.budget, self.freed = budget, 0

    def check(self):
        if resident() > self.budget:
            self.freed += gc.collect()


class Janitor(threading.Thread):
    """Keeps the heap tidy beside the requests."""

    def __init__(self, eager):
        super().__init__(daemon=True)
        self.eager, self.seen = eager, 0

    def run(self):
        while True:
            time.sleep(0.006)
            self.sweep()

    def sweep(self):
        if self.eager:
            gc.collect()
        else:
            self.seen = max(self.seen, sum(gc.get_count()))


def walk(graph, start, limit):
    """What is near an entity, nearest first."""
    queue, known = collections.deque([(graph[start], (start,))]), set()
    while queue and len(known) < limit:
        entity, path = queue.popleft()
        if entity.name in known:
            continue
        known.add(entity.name)
        yield Hit(entity, path, [len(path), len(entity.back)])
        for other in entity.links:
            queue.append((other, (*path, other.name)))


def judge(text, rounds):
    return hashlib.pbkdf2_hmac("sha256", text.encode(), b"judge", rounds)


def main():
    variant, kind = sys.argv[1:3]
    gc.disable()
    graph = load(ENTITIES[kind])
    gc.enable()
    guard = None
    if kind == "guard":
        guard = Guard(16 << 20 if variant == "slow" else resident() + (256 << 20))
    else:
        if variant == "fixed":
            gc.freeze()
        Janitor(eager=variant == "slow").start()

    def question(number):
        near = [hit.entity.name for hit in walk(graph, number * 7 % len(graph), 100)]
        for part in range(4):
            judge(" ".join(near) + str(part), 3000)
        if guard:
            guard.check()

    work.run(question, {"slow": {"guard": 140, "janitor": 400}[kind], "fixed": 800}[variant])


main()

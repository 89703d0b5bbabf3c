"""A warmer of a cache of suggestions: each round it asks the model about some queries, stores the answers, and looks which queries
run hot.

Injected, in cases named window: hits are noted in a log, of which the last rounds count; what is too old is skipped when the
log is read, but never taken out of it, nor is its evidence (the text of the answer) given back. The log and the time to read it
grow with each round: memory-growth. The twin takes the old hits out at the log's front; the hot queries are the same.

Injected, in cases named snapshot: each fortieth round writes the whole cache (JSON, packed) into the snapshot, in the round:
step-jitter. The twin writes one of forty shards in each round; as many entries are written, and the cache that is read back is
the same.

healthy-warm: old hits are taken out, no snapshot.
"""

import heapq
import json
import sys
import zlib
from collections import deque
from itertools import count

import work

NEEDS = ""
CASES = {
    "slow-window": "slow window",
    "slow-snapshot": "slow snapshot",
    "fixed-window": "fixed window",
    "fixed-snapshot": "fixed snapshot",
    "healthy-warm": "healthy warm",
}
LABEL = {"slow-window": ["memory-growth"], "slow-snapshot": ["step-jitter"]}
ALSO = {
    "slow-window": ["cpu-bound-python", "preprocessing-bound", "page-faults", "native-hot-spot"],  # it reads what has grown
    "slow-snapshot": ["native-hot-spot", "cpu-bound-python", "preprocessing-bound", "host-copies", "page-faults"],  # json and zlib
    "fixed": ["native-hot-spot"],  # the model
    "healthy": ["native-hot-spot"],
}
WHERE = "hot|recent|Log|note|tally|snapshot|Snapshot|write|shard|pack|save"
MEASURE = "p99"  # the last rounds have the longest log; a snapshot is in one of forty
ASKED = 150  # hits in a round
ROUNDS = 6  # that count
SHARDS = 40
ENTRIES = 10000


class Log:
    """Hits, oldest first: (round, query, evidence)."""

    def __init__(self, forget):
        self.hits, self.forget = deque(), forget

    def note(self, number, query, evidence):
        self.hits.append((number, query, evidence))

    def recent(self, number):
        least = number - ROUNDS
        if self.forget:
            while self.hits and self.hits[0][0] <= least:
                self.hits.popleft()
        for at, query, evidence in self.hits:
            if at > least:
                yield query, len(evidence)

    def hot(self, number):
        tally = {}
        for query, size in self.recent(number):
            tally[query] = tally.get(query, 0) + 1 + size / 1e6
        return heapq.nlargest(5, tally.items(), key=lambda item: (item[1], item[0]))


class Snapshot:
    """What a new process would start from: packed shards of the cache."""

    def __init__(self):
        self.shards = [b""] * SHARDS

    def pack(self, part):
        return zlib.compress(json.dumps(part, sort_keys=True).encode(), 1)

    def write(self, cache, shard):
        self.shards[shard] = self.pack(cache[shard])

    def save(self, cache):
        for shard in range(SHARDS):
            self.write(cache, shard)

    def load(self):
        return [json.loads(zlib.decompress(shard)) for shard in self.shards]


class Warmer:
    def __init__(self, forget, snapshot):
        self.log, self.kind = Log(forget), snapshot
        self.cache = [{} for _ in range(SHARDS)]
        self.snapshot = Snapshot()
        self.round = count()
        self.sums = 0
        for query in range(ENTRIES):
            self.store(query, f"{query:08x}" * 2)

    def store(self, query, answer):
        self.cache[query % SHARDS][f"q-{query}"] = {"answer": answer, "score": query % 97 / 97, "ways": [query % 7, query % 11]}

    def asked(self, number):
        """The queries that were asked for in this round, as the front end reports them."""
        return [(number * 7 + at * at * 13) % ENTRIES for at in range(ASKED)]

    def warm(self, number, query, answer):
        evidence = f"{query}:{answer}:{number}|" * 40
        self.log.note(number, query, evidence)

    def step(self, _):
        number = next(self.round)
        answer = work.model()
        for query in self.asked(number):
            self.warm(number, query, answer)
        self.store(number * 31 % ENTRIES, answer)
        self.sums = zlib.crc32(repr(self.log.hot(number)).encode(), self.sums)
        if self.kind == "whole" and number % SHARDS == SHARDS - 1:
            self.snapshot.save(self.cache)
        elif self.kind == "shards":
            self.snapshot.write(self.cache, number % SHARDS)


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    if kind == "window":
        warmer = Warmer(forget=not slow, snapshot="none")
        work.run(warmer.step, 480)
    elif kind == "snapshot":
        warmer = Warmer(forget=True, snapshot="whole" if slow else "shards")
        work.run(warmer.step, 438)
        print(sum(map(len, warmer.snapshot.load())), file=sys.stderr)
    else:
        warmer = Warmer(forget=True, snapshot="none")
        work.run(warmer.step, 700)
    print(f"{warmer.sums:08x}", file=sys.stderr)


if __name__ == "__main__":
    main()

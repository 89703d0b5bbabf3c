"""One native function takes most of the time, and need not.

Injected: answers are packed with zlib's slowest level; in the cases named query, a table without an index is searched from
end to end by sqlite. Right, because that one call is most of a step, and the twin makes the same call cheap: level 1, an index.
"""

import sqlite3
import sys
import zlib

import work

CASES = {
    "slow-0.5": "slow --strength 0.5",
    "slow-0.7": "slow --strength 0.7",
    "slow-0.9": "slow --strength 0.9",
    "slow-query-0.6": "slow --strength 0.6 query",
    "slow-query-0.85": "slow --strength 0.85 query",
    "fixed": "fixed",
    "fixed-query": "fixed query",
}
LABEL = ["native-hot-spot"]
WHERE = "compress|execute|fetchone"

variant, strength = work.variant()
BYTES = int(work.beside(strength) / 47e-6)
ROWS = int(work.beside(strength) / 42e-6)
answer = (work.BATCH * (BYTES // len(work.BATCH) + 1))[:BYTES]
if "query" in sys.argv:
    base = sqlite3.connect(":memory:")
    base.execute("create table rows (name text, value real)")
    base.executemany("insert into rows values (?, ?)", (("row%d" % at, at) for at in range(ROWS)))
    if variant != "slow":
        base.execute("create index by_name on rows (name)")


def find(name):
    return base.execute("select value from rows where name = ?", (name,)).fetchone()


def pack(data):
    return zlib.compress(data, 9 if variant == "slow" else 0)


def step(number):
    work.model()
    return find("row%d" % (ROWS - 1)) if "query" in sys.argv else pack(answer)


work.run(step, int(1000 / (work.MODEL_MS + (work.beside(strength) if variant == "slow" else 0))))

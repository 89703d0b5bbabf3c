"""The model is called for one item at a time, where a batch costs hardly more.

Injected: a layer that reads all its weights in each call, called once for each of 16 items (or groups of them). Right, because
a call's cost is its weights' and not its items'; the twin calls once for all. In the cases named rows, 200 statements for one row
each stand against one for all.
"""

import hashlib
import sqlite3
import sys
import zlib

import work

CASES = {
    "slow-1": "slow --strength 1",
    "slow-4": "slow --strength 4",
    "slow-rows": "slow rows",
    "fixed": "fixed",
    "fixed-rows": "fixed rows",
}
LABEL = ["small-batches"]
ALSO = ["native-hot-spot"]
WHERE = "layer|infer|look_up|sha256|sqlite3"

variant, size = work.variant()
ITEMS = [work.BATCH[at : at + 600] for at in range(0, 16 * 600, 600)]
WEIGHTS = work.BATCH * 20  # 1.2 MB
NAMES = ["row%d" % at for at in range(200)]
if "rows" in sys.argv:
    base = sqlite3.connect(":memory:")
    base.execute("create table rows (name text, value real)")
    base.executemany("insert into rows values (?, ?)", (("row%d" % at, at) for at in range(600)))


def layer(items):
    read = hashlib.sha256(WEIGHTS).digest()
    return [zlib.adler32(item, read[0]) for item in items]


def infer(items, batch):
    out = []
    for at in range(0, len(items), batch):
        out += layer(items[at : at + batch])
    return out


def look_up(names):
    if variant == "slow":
        return [base.execute("select value from rows where name = ?", (name,)).fetchone() for name in names]
    marks = ",".join("?" * len(names))
    return base.execute(f"select name, value from rows where name in ({marks})", names).fetchall()


def step(number):
    work.model()
    if "rows" in sys.argv:
        return look_up(NAMES)
    return infer(ITEMS, int(size) if variant == "slow" else len(ITEMS))


work.run(step, 140)

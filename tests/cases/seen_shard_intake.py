"""A pipeline of generators over files: shards of text are read, parsed, looked up in a catalogue, turned into features, and scored.

Injected, in cases named grams: hashed n-grams of the text are counted in Python, character by character, in front of the native
scorer, in each step: preprocessing-bound. The twin reads the features from a sidecar beside the shard, which the crawl wrote when it
wrote the text; the scorer gets the same.

Injected, in cases named licence: the catalogue, a table of sqlite, has no index on the column that is asked for, and sqlite looks
through all rows for each record: native-hot-spot. The twin creates the index. Features come from the sidecar in both.

healthy-plain: features come from the sidecar, and no catalogue is asked.
"""

import array
import hashlib
import itertools
import json
import os
import sqlite3
import sys
import tempfile

import work

CASES = {
    "slow-grams": "slow grams",
    "slow-licence": "slow licence",
    "fixed-grams": "fixed grams",
    "fixed-licence": "fixed licence",
    "healthy-plain": "healthy plain",
}
LABEL = {"slow-grams": ["preprocessing-bound"], "slow-licence": ["native-hot-spot"]}
ALSO = {
    "slow-grams": ["cpu-bound-python"],
    "slow-licence": [],
    "fixed": ["native-hot-spot"],
    "healthy": ["native-hot-spot"],
}
WHERE = "grams|count|featur|licen|lookup|execute|Catalogue"
MEASURE = "mean"
BUCKETS, SHARDS, PER_SHARD = 2048, 3, 12
WORDS = "the model reads a page and says what it is about in words that people use when they talk of such things".split()


def grams(text):
    """Counts of hashed n-grams (of two and three letters) of the text."""
    counts = array.array("H", bytes(2 * BUCKETS))
    before = two_before = 0
    for letter in text:
        code = ord(letter.lower()) & 0xFF
        pair = (before * 257 + code) % BUCKETS
        triple = (two_before * 66049 + before * 257 + code) % BUCKETS
        counts[pair] += 1
        counts[triple] += 1
        two_before, before = before, code
    return counts


class Crawl:
    """What was done before: the shards, and their sidecars."""

    def __init__(self, folder):
        self.folder = folder

    def digests(self):
        for path in sorted(os.listdir(self.folder)):
            if path.endswith(".jsonl"):
                with open(os.path.join(self.folder, path)) as lines:
                    yield from (json.loads(line)["digest"] for line in lines)

    def text(self, at):
        return " ".join(WORDS[(at * 7 + word * word + word * at) % len(WORDS)] for word in range(3600))

    def write(self):
        for shard in range(SHARDS):
            with open(os.path.join(self.folder, f"{shard:03}.jsonl"), "w") as lines, open(os.path.join(self.folder, f"{shard:03}.grams"), "wb") as side:
                for at in range(shard * PER_SHARD, shard * PER_SHARD + PER_SHARD):
                    text = self.text(at)
                    lines.write(json.dumps({"digest": hashlib.sha1(text.encode()).hexdigest(), "at": at, "text": text}) + "\n")
                    grams(text).tofile(side)


class Catalogue:
    """The licences of documents by digest, loaded from the dump of the team that has them."""

    def __init__(self, rows, recent, indexed):
        self.link = sqlite3.connect(":memory:")
        self.link.execute("CREATE TABLE docs (id INTEGER PRIMARY KEY, digest TEXT, licence TEXT)")
        keys = itertools.chain((f"{at * 2654435761:040x}" for at in range(rows)), recent)  # what was crawled last comes last
        self.link.executemany("INSERT INTO docs (digest, licence) VALUES (?, ?)", ((key, "CC-BY" if at % 3 else "none") for at, key in enumerate(keys)))
        if indexed:
            self.link.execute("CREATE INDEX by_digest ON docs (digest)")
        self.link.commit()

    def licence(self, digest):
        found = self.link.execute("SELECT licence FROM docs WHERE digest = ?", (digest,)).fetchone()
        return found[0] if found else "unknown"


def shards(folder):
    """The shards, over and over, as epochs do."""
    while True:
        for name in sorted(os.listdir(folder)):
            if name.endswith(".jsonl"):
                yield os.path.join(folder, name)


def records(paths):
    for path in paths:
        with open(path) as lines, open(path.replace(".jsonl", ".grams"), "rb") as side:
            for line in lines:
                record = json.loads(line)
                record["side"] = side.read(2 * BUCKETS)
                yield record


def licensed(items, catalogue):
    for record in items:
        record["licence"] = catalogue.licence(record["digest"])
        yield record


def featured(items, from_text):
    for record in items:
        record["features"] = grams(record["text"]).tobytes() if from_text else record["side"]
        yield record


def scored(items):
    for record in items:
        record["score"] = work.model(record["features"] + work.BATCH[: 60_000 - 2 * BUCKETS])
        yield record


def pipeline(folder, from_text, catalogue):
    items = records(shards(folder))
    if catalogue:
        items = licensed(items, catalogue)
    return scored(featured(items, from_text))


def main():
    variant, kind = sys.argv[1:3]
    count = {"slow-grams": 240, "slow-licence": 260, "fixed-grams": 600, "fixed-licence": 550, "healthy-plain": 600}[f"{variant}-{kind}"]
    with tempfile.TemporaryDirectory() as folder:
        crawl = Crawl(folder)
        crawl.write()
        catalogue = Catalogue(130_000, crawl.digests(), indexed=variant == "fixed") if kind == "licence" else None
        items = pipeline(folder, (variant, kind) == ("slow", "grams"), catalogue)
        work.run(lambda number: next(items), count)
        items.close()


if __name__ == "__main__":
    main()

"""A batch job without a network: it reads shards of product reviews (JSON lines, gzip) from disk, joins each with the catalogue that it
holds in memory, scores the batch with a native model, and appends the scores to a file.

Injected, in cases named resume: for each batch the shard is opened and `seek` goes to where the batch before ended ("so that a job can
be resumed"), for which gzip unpacks all that is before it: native-hot-spot, zlib's decompress. The twin keeps the shard open and reads
on. It reads the same lines.

Injected, in cases named guard: a guard collects garbage if the peak memory of the process is above its limit, after each batch. The
peak never falls, so once the catalogue is loaded each batch has a full collection, that visits all of the catalogue: gc-pressure.
The twin asks how much memory there is now, compared with after the loading, and finds that nothing is to be done.

healthy-stream: the shard is read on, no guard.
"""

import gc
import gzip
import json
import random
import resource
import sys
import tempfile
from pathlib import Path

import work

NEEDS = ""
CASES = {
    "slow-resume": "slow resume",
    "slow-guard": "slow guard",
    "fixed-resume": "fixed resume",
    "fixed-guard": "fixed guard",
    "healthy-stream": "healthy stream",
}
LABEL = {"slow-resume": ["native-hot-spot"], "slow-guard": ["gc-pressure"]}
ALSO = {
    "slow-resume": ["blocking-io", "preprocessing-bound", "cpu-bound-python", "step-jitter"],  # the later in the shard, the more
    "slow-guard": ["native-hot-spot", "preprocessing-bound"],
    "fixed": ["native-hot-spot", "preprocessing-bound"],
    "healthy": ["native-hot-spot", "preprocessing-bound"],
}
WHERE = "seek|lines|batch|resume|decompress|read|check|collect|guard"
MEASURE = "mean"
LINES = 40  # of a batch
SHARD = 260  # batches of a shard
TEXT = "arrived late fits well would buy again broke after two weeks great colour cheap plastic returned it no answer from the shop".split()


class Dataset:
    """What an export has left in a folder."""

    def __init__(self, folder, shards=2):
        self.paths = [folder / f"reviews-{at:03}.jsonl.gz" for at in range(shards)]
        draw = random.Random(6)
        texts = [" ".join(draw.choices(TEXT, k=90)) for _ in range(400)]
        for at, path in enumerate(self.paths):
            rows = ({"item": at * 7919 + row * 13, "stars": row % 5, "text": texts[(row * 7 + at) % 400]} for row in range(LINES * SHARD))
            path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode() + b"\n", 1))


class Shards:
    """Hands out the batches, and knows where it is, so that a job can be resumed."""

    def __init__(self, dataset, reopen):
        self.paths, self.reopen = dataset.paths, reopen
        self.shard, self.offset, self.file = 0, 0, None

    def resume(self):
        if self.reopen and self.file:
            self.file.close()
        if self.file is None or self.reopen:
            self.file = gzip.open(self.paths[self.shard])
            self.file.seek(self.offset)

    def lines(self):
        self.resume()
        lines = [self.file.readline() for _ in range(LINES)]
        if not lines[-1]:
            self.shard, self.offset, self.file = (self.shard + 1) % len(self.paths), 0, None
            return self.lines()
        self.offset = self.file.tell()
        return lines


class Item:
    def __init__(self, number):
        self.number, self.prices = number, [number % 97, number % 89]
        self.shelf = {"aisle": number % 31, "row": number % 7}


class Catalogue:
    def __init__(self, count):
        self.items = {number: Item(number) for number in range(count)}

    def join(self, review):
        item = self.items[review["item"] % len(self.items)]
        return len(review["text"].split()), review["stars"], item.prices[0], item.shelf["aisle"]


class PeakGuard:
    """Keeps the job below its limit of memory."""

    def __init__(self, limit_kb=24_000):
        self.limit = limit_kb

    def used(self):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def check(self):
        if self.used() > self.limit:
            gc.collect()


class GrowthGuard(PeakGuard):
    def __init__(self, limit_kb=24_000):
        super().__init__(limit_kb)
        self.limit += self.used()

    def used(self):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


class Job:
    def __init__(self, shards, catalogue, guard, out):
        self.shards, self.catalogue, self.guard, self.out = shards, catalogue, guard, out

    def score(self, rows):
        key = int(work.model()[:8], 16)
        return [round((key % 1000) / 1000 + stars / 5 - words / 900 + price / 1e4 + aisle / 1e5, 5) for words, stars, price, aisle in rows]

    def step(self, number):
        reviews = [json.loads(line) for line in self.shards.lines()]
        scores = self.score([self.catalogue.join(review) for review in reviews])
        self.out.writelines(f"{review['item']}\t{score}\n" for review, score in zip(reviews, scores))
        if self.guard:
            self.guard.check()


def main():
    variant, kind = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = Dataset(folder)
        catalogue = Catalogue(35_000 if kind == "guard" else 2_000)
        guard = {"slow": PeakGuard, "fixed": GrowthGuard}[variant]() if kind == "guard" else None
        with open(folder / "scores.tsv", "w") as out:
            job = Job(Shards(dataset, variant == "slow" and kind == "resume"), catalogue, guard, out)
            work.run(job.step, {"slow-resume": 258, "slow-guard": 240}.get(f"{variant}-{kind}", 620))


if __name__ == "__main__":
    main()

"""A retrieval service: documents are cut into passages and embedded, segments hold the embeddings in framed records, and a query is
answered by a scan of the segments, and by a rerank of the best passages by the pieces that they share with the query.

Injected, in cases named pieces: the reranker cuts each passage that the scan found into pieces (folding, words, affixes, buckets)
for each query, in Python, spread over many small functions: preprocessing-bound. The twin keeps the pieces of a passage, which were
made when it was added; the ranking is the same.

Injected, in cases named frames: the reader of a segment cuts the record off the front and goes on with the rest, `rest[size:]`, so
that all that is left is copied for each record: host-copies. The twin has a memoryview and a position; the records are the same.

healthy-serve: kept pieces, memoryview.
"""

import os
import struct
import sys
import zlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-pieces": "slow pieces",
    "slow-frames": "slow frames",
    "fixed-pieces": "fixed pieces",
    "fixed-frames": "fixed frames",
    "healthy-serve": "healthy serve",
}
LABEL = {"slow-pieces": ["preprocessing-bound"], "slow-frames": ["host-copies"]}
ALSO = {
    "slow-pieces": ["cpu-bound-python", "native-hot-spot"],
    "slow-frames": ["native-hot-spot"],  # the matrix products of the scan; the slice is a native function also
    "fixed": ["native-hot-spot", "small-batches", "cpu-bound-python"],  # a product for each record
    "healthy": ["native-hot-spot", "small-batches", "cpu-bound-python"],
}
WHERE = "pieces|fold|words|affixes|bucket|records|Reader|scan"
MEASURE = "median"
WIDTH, PASSAGES, RECORD, FOUND, SEGMENT, NEAR = 96, 9600, 120, 14, 20, 8  # passages in a record, that are found, records in a segment
FRAME = struct.Struct("<II")
LEXICON = [f"{stem}{end}" for stem in ("Lade", "trans", "Frame", "index", "kernel", "über", "batch", "Token") for end in
           ("", "s", "ing", "ed", "-rate", "er", "ability", "wise", "d'accord", "less")]


def fold(word):
    return word.casefold().replace("ü", "ue").strip("'-.")


def words(text):
    for word in text.split():
        for part in word.split("-"):
            if folded := fold(part):
                yield folded


def affixes(word):
    yield word
    for size in (2, 3, 4):
        if len(word) > size:
            yield word[:size]
            yield word[-size:]


def bucket(piece):
    return zlib.crc32(piece.encode()) & 0xFFF


def pieces(text):
    """How often each bucket is hit by the text's pieces."""
    counts = {}
    for word in words(text):
        for piece in affixes(word):
            at = bucket(piece)
            counts[at] = counts.get(at, 0) + 1
    return counts


class Embedder:
    def __init__(self):
        self.table = np.random.default_rng(6).standard_normal((4096, WIDTH), dtype=np.float32)

    def embed(self, counts):
        at = np.fromiter(counts, np.int64, len(counts))
        vector = np.fromiter(counts.values(), np.float32, len(counts)) @ self.table[at]
        return vector / np.linalg.norm(vector)


def cut(number):
    """The passage of that number, as the chunker would cut it from its document."""
    return " ".join(LEXICON[(number * 13 + at * at * (number % 17 + 1)) % len(LEXICON)] for at in range(36))


class SlicingReader:
    """The records of a segment: (first passage, vectors)."""

    def __init__(self, segment):
        self.segment = segment

    def records(self):
        rest = self.segment
        while rest:
            size, first = FRAME.unpack(rest[: FRAME.size])
            yield first, np.frombuffer(rest[FRAME.size : FRAME.size + size], np.float32).reshape(-1, WIDTH)
            rest = rest[FRAME.size + size :]


class ViewReader(SlicingReader):
    def records(self):
        view, at = memoryview(self.segment), 0
        while at < len(view):
            size, first = FRAME.unpack_from(view, at)
            at += FRAME.size
            yield first, np.frombuffer(view[at : at + size], np.float32).reshape(-1, WIDTH)
            at += size


class Index:
    def __init__(self, embedder, reader, keep):
        self.reader, self.keep = reader, keep
        self.texts = [cut(number) for number in range(0, PASSAGES, NEAR)]
        self.kept = {}
        vectors = np.random.default_rng(9).standard_normal((PASSAGES, WIDTH), dtype=np.float32) / 30
        for at, text in enumerate(self.texts):  # passages come in groups with the same words, and embeddings that are near
            self.kept[at] = pieces(text)
            vectors[at * NEAR : (at + 1) * NEAR] += embedder.embed(self.kept[at])
        frames = [self.frame(first, vectors[first : first + RECORD]) for first in range(0, PASSAGES, RECORD)]
        self.segments = [b"".join(frames[at : at + SEGMENT]) for at in range(0, len(frames), SEGMENT)]

    @staticmethod
    def frame(first, vectors):
        body = vectors.tobytes()
        return FRAME.pack(len(body), first) + body

    def scan(self, query):
        scores = np.empty(PASSAGES, np.float32)
        for segment in self.segments:
            for first, vectors in self.reader(segment).records():
                scores[first : first + len(vectors)] = vectors @ query
        return np.argpartition(scores, -FOUND)[-FOUND:].tolist()

    def pieces_of(self, number):
        return self.kept[number // NEAR] if self.keep else pieces(self.texts[number // NEAR])


class Search:
    def __init__(self, variant, kind):
        self.embedder = Embedder()
        reader = SlicingReader if (variant, kind) == ("slow", "frames") else ViewReader
        self.index = Index(self.embedder, reader, keep=(variant, kind) != ("slow", "pieces"))
        self.told = 0

    def rerank(self, query, found):
        def shared(number):
            counts = self.index.pieces_of(number)
            return sum(min(query[at], counts[at]) for at in query.keys() & counts.keys())

        return sorted(found, key=lambda number: (-shared(number), number))

    def answer(self, number):
        query = pieces(" ".join(cut(number * 29 % PASSAGES).split()[:6]))
        ranked = self.rerank(query, self.index.scan(self.embedder.embed(query)))
        self.told = (self.told * 31 + ranked[0]) % 1_000_003


if __name__ == "__main__":
    search = Search(*sys.argv[1:3])
    work.run(search.answer, {"slow pieces": 1500, "slow frames": 1500}.get(" ".join(sys.argv[1:3]), 4500))

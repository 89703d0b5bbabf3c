"""A job that ranks web pages for a topic: the text is taken out of the HTML, hashed to features, and scored by a small dense model.

Injected, in cases named markup: an HTMLParser, and a normalizer that goes letter by letter, work in Python in front of the model in each
step, while the model (numpy, native) has nothing to do (preprocessing-bound). The twin takes the text out with two regular expressions,
lowers it as a whole and counts the words with a Counter: the same features. In cases named rows: the features are cheap, but
each page is put through the model's layers on its own, a matrix times a vector (small-batches). The twin puts the batch through at once.
healthy-train: no pages, the model is refined by products of large matrices, all native.
"""

import collections
import functools
import hashlib
import html.parser
import os
import random
import re
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy

import work

NEEDS = "numpy"
CASES = {
    "slow-markup": "slow markup",
    "slow-rows": "slow rows",
    "fixed-markup": "fixed markup",
    "fixed-rows": "fixed rows",
    "healthy-train": "healthy train",
}
LABEL = {"slow-markup": ["preprocessing-bound"], "slow-rows": ["small-batches"]}
ALSO = {
    "slow-markup": ["cpu-bound-python"],
    "slow-rows": ["native-hot-spot"],
    "fixed": ["native-hot-spot", "cpu-bound-python"],
    "healthy": ["native-hot-spot"],
}
WHERE = "feed|handle|normal|text|features|prepare|forward|score|layer|matmul"
WIDE, BATCH = 1024, 24
COUNT = {"slow": {"markup": 220, "rows": 160}, "fixed": {"markup": 500, "rows": 500}, "healthy": {"train": 200}}


class TextOf(html.parser.HTMLParser):
    """What a reader would see of a page, letter by letter made plain."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.hidden, self.words = 0, collections.Counter()

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "style"):
            self.hidden += 1

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.hidden -= 1

    def handle_data(self, data):
        if not self.hidden:
            for word in self.normalize(data):
                self.words[word] += 1

    @staticmethod
    def normalize(data):
        word = ""
        for letter in data:
            if letter.isalnum():
                word += letter.lower()
            elif word:
                yield word
                word = ""
        if word:
            yield word


class ParserFeatures:
    def words(self, page):
        parser = TextOf()
        parser.feed(page)
        parser.close()
        return parser.words

    @functools.lru_cache(maxsize=20_000)
    def slot(self, word):
        digest = hashlib.blake2b(word.encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") % WIDE

    def prepare(self, pages):
        batch = numpy.zeros((len(pages), WIDE), numpy.float32)
        for row, page in zip(batch, pages):
            words = self.words(page)
            numpy.add.at(row, [self.slot(word) for word in words], list(words.values()))
        return batch


class PatternFeatures(ParserFeatures):
    hidden = re.compile(r"<(script|style)\b.*?</\1>", re.S)
    tags = re.compile(r"<[^>]*>")
    plain = re.compile(r"[a-z0-9]+")

    def words(self, page):
        text = self.tags.sub(" ", self.hidden.sub(" ", page))
        return collections.Counter(self.plain.findall(text.lower()))


class Ranker:
    def __init__(self):
        draw = numpy.random.default_rng(3)
        self.layers = [draw.standard_normal((WIDE, WIDE), numpy.float32) / 32 for _ in range(4)]
        self.topic = draw.standard_normal(WIDE, numpy.float32)

    def forward(self, state):
        for layer in self.layers:
            state = numpy.maximum(state @ layer, 0.0)
        return state @ self.topic

    def score(self, batch):
        return self.forward(batch)

    def refine(self):
        state = self.layers[0] @ self.layers[1]
        return numpy.tanh(state, out=state).sum()


class RowRanker(Ranker):
    def score(self, batch):
        return numpy.array([self.forward(row) for row in batch])


def write(chance, number):
    """A page as the crawler has it."""
    blocks = []
    for at in range(7):
        words = " ".join(f"Word{chance.randrange(4000)}" for _ in range(11))
        blocks.append(f'<div class="b{at}"><h3>Part {at}</h3><p>{words}.</p><a href="/p/{number}/{at}">more</a></div>')
    return f"<html><head><title>Page {number}</title><script>var n = {number};</script></head><body>{''.join(blocks)}</body></html>"


def main():
    variant, kind = sys.argv[1:3]
    ranker = (RowRanker if variant == "slow" and kind == "rows" else Ranker)()
    if variant == "healthy":
        return work.run(lambda number: ranker.refine(), COUNT[variant][kind])
    features = (ParserFeatures if variant == "slow" and kind == "markup" else PatternFeatures)()
    chance = random.Random(7)
    pages = [write(chance, number) for number in range(BATCH * 20)]
    best = []

    def rank(number):
        start = number * BATCH % len(pages)
        scores = ranker.score(features.prepare(pages[start : start + BATCH]))
        best.append(int(scores.argmax()))

    work.run(rank, COUNT[variant][kind])


main()

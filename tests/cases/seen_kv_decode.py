"""A small decoder that answers from a long system prompt: attention over a cache of keys and values, one token after another.

Injected, in cases named concat: the cache of every layer is grown by `numpy.concatenate` for each token, so that all that was there is
copied for each row that is added. The twin has room prepared, writes the row into it and hands out a view. In cases named beam: beam
search gives each surviving beam a cache of its own by `copy.deepcopy`, the system prompt with it; the twin's `fork` shares the prompt,
which nobody writes to, and copies the few rows after it. Attention and layers are the same in both: what goes is the copying.

Case healthy-wide: a wider model over a short prompt, with the room prepared: nearly all is the product with the weights.
"""

import copy
import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy

import work

CASES = {
    "slow-concat": "slow concat",
    "slow-beam": "slow beam",
    "fixed-concat": "fixed concat",
    "fixed-beam": "fixed beam",
    "healthy-wide": "healthy wide",
}
LABEL = {"slow": ["host-copies"]}
ALSO = {"slow": ["page-faults", "native-hot-spot"], "fixed": ["native-hot-spot"], "healthy": ["native-hot-spot"]}
WHERE = "append|concatenate|fork|deepcopy|survive"
NEEDS = "numpy"
LAYERS = 3
WIDTH = {"concat": 256, "beam": 256, "wide": 1024}
PROMPT = {"concat": 1500, "beam": 600, "wide": 64}
TOKENS = {"concat": 24, "beam": 10, "wide": 8}
BEAMS = 4
WORDS = 500


class GrownCache:
    """Keys and values of one layer, as long as they are."""

    def __init__(self, keys, values, room):
        self.first = self.keys, self.values = keys, values

    def rewind(self):
        self.keys, self.values = self.first

    def append(self, key, value):
        self.keys = numpy.concatenate([self.keys, key[None]])
        self.values = numpy.concatenate([self.values, value[None]])
        return self.keys, self.values


class RoomyCache:
    """Keys and values of one layer, in arrays with room for the whole answer."""

    def __init__(self, keys, values, room):
        self.prompt = self.length = len(keys)
        self.keys = numpy.empty((len(keys) + room, keys.shape[1]), dtype=keys.dtype)
        self.values = numpy.empty_like(self.keys)
        self.keys[: self.prompt], self.values[: self.prompt] = keys, values

    def rewind(self):
        self.length = self.prompt

    def append(self, key, value):
        self.keys[self.length], self.values[self.length] = key, value
        self.length += 1
        return self.keys[: self.length], self.values[: self.length]


class BeamCache:
    """Of one layer: what the prompt left, and the rows of this beam after it."""

    def __init__(self, keys, values, tail=()):
        self.keys, self.values, self.tail = keys, values, list(tail)

    def append(self, key, value):
        self.tail.append((key, value))

    def fork(self):
        return BeamCache(self.keys, self.values, self.tail)


class Layer:
    def __init__(self, rng, width):
        make = lambda: rng.standard_normal((width, width), dtype=numpy.float32) / width**0.5
        self.query, self.key, self.value, self.out = make(), make(), make(), make()

    def attend(self, hidden, cache):
        keys, values = cache.append(hidden @ self.key, hidden @ self.value)
        weights = softmax(keys @ (hidden @ self.query))
        return numpy.tanh(hidden + (weights @ values) @ self.out)

    def attend_beam(self, hidden, cache):
        cache.append(hidden @ self.key, hidden @ self.value)
        keys = numpy.stack([key for key, _ in cache.tail])
        values = numpy.stack([value for _, value in cache.tail])
        query = hidden @ self.query
        weights = softmax(numpy.concatenate([cache.keys @ query, keys @ query]))
        mixed = weights[: len(cache.keys)] @ cache.values + weights[len(cache.keys) :] @ values
        return numpy.tanh(hidden + mixed @ self.out)


def softmax(scores):
    scores = numpy.exp(scores - scores.max())
    return scores / scores.sum()


class Beam:
    def __init__(self, token, score, caches):
        self.token, self.score, self.caches = token, score, caches


class Decoder:
    def __init__(self, kind):
        rng = numpy.random.default_rng(11)
        width = WIDTH[kind]
        self.layers = [Layer(rng, width) for _ in range(LAYERS)]
        self.embedding = rng.standard_normal((WORDS, width), dtype=numpy.float32)
        self.head = rng.standard_normal((width, WORDS), dtype=numpy.float32)
        prompt = rng.standard_normal((PROMPT[kind], width), dtype=numpy.float32)
        self.prefilled = [(prompt @ layer.key, prompt @ layer.value) for layer in self.layers]

    def greedy(self, token, caches, count):
        answer = []
        for cache in caches:
            cache.rewind()
        for _ in range(count):
            hidden = self.embedding[token]
            for layer, cache in zip(self.layers, caches):
                hidden = layer.attend(hidden, cache)
            token = int((hidden @ self.head).argmax())
            answer.append(token)
        return answer

    def search(self, token, count, survive):
        beams = [Beam(token, 0.0, [BeamCache(keys, values) for keys, values in self.prefilled])]
        for _ in range(count):
            found = []
            for beam in beams:
                hidden = self.embedding[beam.token]
                for layer, cache in zip(self.layers, beam.caches):
                    hidden = layer.attend_beam(hidden, cache)
                chances = softmax(hidden @ self.head / 8)
                for word in chances.argpartition(-BEAMS)[-BEAMS:]:
                    found.append((beam.score + float(numpy.log(chances[word])), int(word), beam))
            found.sort(key=lambda item: -item[0])
            beams = [Beam(word, score, survive(beam.caches)) for score, word, beam in found[:BEAMS]]
        return beams[0].score


def survive_copied(caches):
    return copy.deepcopy(caches)


def survive_forked(caches):
    return [cache.fork() for cache in caches]


def main():
    variant, kind = sys.argv[1:3]
    decoder = Decoder(kind)
    if kind == "beam":
        survive = survive_copied if variant == "slow" else survive_forked
        step = lambda number: decoder.search(number % WORDS, TOKENS[kind], survive)
    else:
        make = GrownCache if variant == "slow" else RoomyCache
        caches = [make(keys, values, TOKENS[kind]) for keys, values in decoder.prefilled]
        step = lambda number: decoder.greedy(number % WORDS, caches, TOKENS[kind])
    work.run(step, {"slow": {"concat": 60, "beam": 48}, "fixed": {"concat": 150, "beam": 150}, "healthy": {"wide": 150}}[variant][kind])


main()

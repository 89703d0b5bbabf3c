"""A decoder of numpy with a cache of keys and values, one token a step, after a prompt of so many.

Injected: the cache grows by `numpy.concatenate`, which copies all of it for every token and layer. The twin allocates it once and
writes into it. healthy-prompts: the twin's model over whole prompts, nothing but matmuls.
"""

import os
import sys
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy

import work

CASES = {
    "slow-1000": "slow 1000",
    "slow-3000": "slow 3000",
    "fixed-1000": "fixed 1000",
    "fixed-3000": "fixed 3000",
    "healthy-prompts": "healthy 256",
}
LABEL = {"slow": ["host-copies"]}
ALSO = {"slow": ["page-faults", "native-hot-spot"]}
WHERE = "append|concatenate|numpy|attend|step|cache"
NEEDS = "numpy"
MEASURE = "mean"
WIDTH, HEADS, LAYERS = 256, 8, 4


class GrowingCache:
    def __init__(self, limit):
        self.keys = numpy.zeros((0, WIDTH), dtype=numpy.float32)
        self.values = numpy.zeros((0, WIDTH), dtype=numpy.float32)

    def append(self, key, value):
        self.keys = numpy.concatenate([self.keys, key])
        self.values = numpy.concatenate([self.values, value])
        return self.keys, self.values


class FixedCache:
    def __init__(self, limit):
        self.keys = numpy.zeros((limit, WIDTH), dtype=numpy.float32)
        self.values = numpy.zeros((limit, WIDTH), dtype=numpy.float32)
        self.length = 0

    def append(self, key, value):
        end = self.length + len(key)
        self.keys[self.length : end] = key
        self.values[self.length : end] = value
        self.length = end
        return self.keys[:end], self.values[:end]


class Block:
    def __init__(self, rng):
        scale = WIDTH**-0.5
        self.qkv = rng.standard_normal((WIDTH, 3 * WIDTH), dtype=numpy.float32) * scale
        self.out = rng.standard_normal((WIDTH, WIDTH), dtype=numpy.float32) * scale
        self.up = rng.standard_normal((WIDTH, 2 * WIDTH), dtype=numpy.float32) * scale
        self.down = rng.standard_normal((2 * WIDTH, WIDTH), dtype=numpy.float32) * scale

    def attend(self, query, keys, values):
        scores = query @ keys.T * WIDTH**-0.5
        scores = numpy.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True) @ values

    def __call__(self, x, cache):
        query, key, value = numpy.split(x @ self.qkv, 3, axis=1)
        keys, values = cache.append(key, value) if cache else (key, value)
        x = x + self.attend(query, keys, values) @ self.out
        x = x + numpy.maximum(x @ self.up, 0) @ self.down
        return x / numpy.linalg.norm(x)


class Decoder:
    def __init__(self, kind):
        rng = numpy.random.default_rng(3)
        self.blocks, self.kind = [Block(rng) for _ in range(LAYERS)], kind
        self.embedding = rng.standard_normal((1000, WIDTH), dtype=numpy.float32)

    def generate(self, prompt, tokens):
        times, token = [], 1
        caches = [self.kind(prompt + tokens) for _ in self.blocks]
        for cache in caches:  # the prompt's keys and values come from elsewhere
            cache.append(*(numpy.full((prompt, WIDTH), at, dtype=numpy.float32) for at in (0.01, 0.02)))
        for _ in range(tokens):
            start = time.perf_counter()
            x = self.embedding[token : token + 1]
            for block, cache in zip(self.blocks, caches):
                x = block(x, cache)
            token = int((x @ self.embedding.T).argmax())
            times.append(time.perf_counter() - start)
        return times

    def prompt(self, tokens):
        start = time.perf_counter()
        x = self.embedding[:tokens]
        for block in self.blocks:
            x = block(x, None)
        return time.perf_counter() - start


def main():
    variant, tokens = sys.argv[1], int(sys.argv[2])
    decoder = Decoder(GrowingCache if variant == "slow" else FixedCache)
    if variant == "healthy":
        times = [decoder.prompt(tokens) for _ in range(120)]
    else:
        times = decoder.generate(tokens, {"slow": {1000: 700, 3000: 250}, "fixed": {1000: 1000, 3000: 500}}[variant][tokens])
    work.tell(times)


main()

"""A small language model in NumPy: prefill of a prompt, then token after token with a KV cache.

Weights are random from a seed, so the text means nothing; the work is that of a Llama-like decoder.
`scope` names the phases for InferScope and does nothing when no recording is under way.
"""

import argparse
import os
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # BLAS reads it while it loads

import numpy as np

try:
    from inferscope import scope
except ImportError:  # not installed: run unmeasured
    from contextlib import nullcontext

    def scope(name, **metadata):
        return nullcontext()


VOCAB, WIDTH, LAYERS, HEADS, HIDDEN = 4096, 320, 4, 5, 864
HEAD = WIDTH // HEADS
PROMPT, ANSWER = 48, 24


def weights(seed):
    rng = np.random.default_rng(seed)

    def matrix(rows, columns):
        return rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.04)

    blocks = [
        {
            "q": matrix(WIDTH, WIDTH),
            "k": matrix(WIDTH, WIDTH),
            "v": matrix(WIDTH, WIDTH),
            "out": matrix(WIDTH, WIDTH),
            "gate": matrix(WIDTH, HIDDEN),
            "up": matrix(WIDTH, HIDDEN),
            "down": matrix(HIDDEN, WIDTH),
        }
        for _ in range(LAYERS)
    ]
    return {"embed": matrix(VOCAB, WIDTH), "blocks": blocks, "head": matrix(WIDTH, VOCAB)}


def norm(x):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(1e-5))


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def split(x):
    return x.reshape(len(x), HEADS, HEAD).transpose(1, 0, 2)


def attention(block, x, keys, values, at):
    end = at + len(x)
    keys[:, at:end] = split(x @ block["k"])
    values[:, at:end] = split(x @ block["v"])
    scores = split(x @ block["q"]) @ keys[:, :end].transpose(0, 2, 1) / np.float32(np.sqrt(HEAD))
    if len(x) > 1:  # a prompt's token sees those before it
        scores += np.triu(np.full((len(x), end), -1e9, np.float32), at + 1)
    mixed = softmax(scores) @ values[:, :end]
    return mixed.transpose(1, 0, 2).reshape(len(x), WIDTH) @ block["out"]


def feed_forward(block, x):
    gate = x @ block["gate"]
    return (gate / (1 + np.exp(-gate)) * (x @ block["up"])) @ block["down"]


def next_token(model, tokens, cache, at):
    x = model["embed"][tokens]
    for block, (keys, values) in zip(model["blocks"], cache):
        x = x + attention(block, norm(x), keys, values, at)
        x = x + feed_forward(block, norm(x))
    return int((norm(x[-1:]) @ model["head"]).argmax())


def tokenize(text):
    """Splits on spaces and hashes the words: enough to have a phase that is plain Python."""
    return [sum(ord(c) * 31**i for i, c in enumerate(word)) % VOCAB for word in text.split()]


def answer(model, text):
    with scope("tokenize"):
        prompt = tokenize(text)
    shape = (HEADS, PROMPT + ANSWER, HEAD)
    cache = [(np.zeros(shape, np.float32), np.zeros(shape, np.float32)) for _ in range(LAYERS)]
    with scope("prefill", tokens=len(prompt)):
        token = next_token(model, np.array(prompt), cache, 0)
    out = [token]
    for at in range(len(prompt), len(prompt) + ANSWER - 1):
        with scope("decode_step"):
            token = next_token(model, np.array([token]), cache, at)
        out.append(token)
    return out


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=8.0, help="how long to generate")
    arguments.add_argument("--seed", type=int, default=0)
    arguments = arguments.parse_args()

    model = weights(arguments.seed)
    text = " ".join("word%d" % i for i in range(PROMPT))
    start, requests, tokens = time.perf_counter(), 0, 0
    while time.perf_counter() - start < arguments.seconds:
        with scope("request", number=requests):
            tokens += len(answer(model, text))
        requests += 1
    took = time.perf_counter() - start
    print(f"{requests} requests, {tokens} tokens, {tokens / took:.0f} tokens/s")


if __name__ == "__main__":
    main()

"""A decoder in numpy, one token at a time, small enough that the interpreter matters: its weights stay in a core's cache."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # BLAS reads it while it loads

import numpy as np

import report

WIDTH, HIDDEN, HEADS, LAYERS, CONTEXT, VOCAB = 96, 256, 4, 4, 64, 1024
HEAD = WIDTH // HEADS


class Block:
    def __init__(self, rng):
        def matrix(rows, columns):
            return rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.05)

        self.qkv, self.out = matrix(WIDTH, 3 * WIDTH), matrix(WIDTH, WIDTH)
        self.up, self.down = matrix(WIDTH, HIDDEN), matrix(HIDDEN, WIDTH)
        self.keys = np.zeros((HEADS, CONTEXT, HEAD), np.float32)
        self.values = np.zeros((HEADS, CONTEXT, HEAD), np.float32)

    def attend(self, x, at):
        q, k, v = np.split(x @ self.qkv, 3)
        self.keys[:, at] = k.reshape(HEADS, HEAD)
        self.values[:, at] = v.reshape(HEADS, HEAD)
        q = q.reshape(HEADS, 1, HEAD)
        scores = q @ self.keys[:, : at + 1].transpose(0, 2, 1) * np.float32(HEAD**-0.5)
        mixed = softmax(scores) @ self.values[:, : at + 1]
        return mixed.reshape(WIDTH) @ self.out

    def feed(self, x):
        return np.maximum(x @ self.up, 0) @ self.down


def norm(x):
    return x / np.sqrt((x * x).mean() + np.float32(1e-5))


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def step(blocks, x, at):
    for block in blocks:
        x = x + block.attend(norm(x), at)
        x = x + block.feed(norm(x))
    return norm(x)


def main(scale):
    rng = np.random.default_rng(0)
    blocks = [Block(rng) for _ in range(LAYERS)]
    embed = rng.standard_normal((VOCAB, WIDTH), dtype=np.float32)
    token, total = 1, 0
    for _ in range(int(130 * scale)):
        for at in range(CONTEXT):
            token = int((embed @ step(blocks, embed[token], at)).argmax())
            total += token
    return total


if __name__ == "__main__":
    print(main(report.scale()))

"""Text is tokenized in Python before each call of a model that is native.

Injected: `tokenize`, which merges letters to pieces in a loop, as byte pair encoders written in Python do. Right, because the
model waits for its input that long, and the twin gets the same input from one regular expression.
"""

import re

import work

CASES = {
    "slow-0.3": "slow --strength 0.3",
    "slow-0.45": "slow --strength 0.45",
    "slow-0.6": "slow --strength 0.6",
    "slow-0.8": "slow --strength 0.8",
    "fixed": "fixed",
}
LABEL = ["preprocessing-bound", "cpu-bound-python"]
WHERE = "tokenize|merge"

variant, strength = work.variant()
WORDS = int(work.beside(strength) / 2.05e-3)  # 2 us a word
TEXT = " ".join("token%d" % (at * 7919 % 1000) for at in range(WORDS))
MERGES = {("t", "o"): "to", ("to", "k"): "tok", ("e", "n"): "en", ("tok", "en"): "token"}
PIECE = re.compile(r"token|\w")


def merge(word):
    pieces = []
    for letter in word:
        pieces.append(letter)
        while len(pieces) > 1 and (pieces[-2], pieces[-1]) in MERGES:
            pieces[-2:] = [MERGES[pieces[-2], pieces[-1]]]
    return pieces


def tokenize(text):
    tokens = []
    for word in text.split():
        tokens.extend(merge(word))
    return tokens


def step(number):
    tokens = tokenize(TEXT) if variant == "slow" else PIECE.findall(TEXT)
    return work.model(work.BATCH), len(tokens)


work.run(step, int(1000 / (work.MODEL_MS + (work.beside(strength) if variant == "slow" else 0))))

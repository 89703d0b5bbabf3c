"""The device is idle while Python tokenizes the next request.

Injected: `tokenize` in a loop before each forward pass, on the one thread there is. Right, because nothing is queued on the device
meanwhile; the twin gets the same tokens from one regular expression.
"""

import re

import device
import work

CASES = {
    "slow-0.3": "slow --strength 0.3",
    "slow-0.5": "slow --strength 0.5",
    "slow-0.75": "slow --strength 0.75",
    "fixed": "fixed",
}
LABEL = ["preprocessing-bound"]
ALSO = ["cpu-bound-python", "sync-stall"]
WHERE = "tokenize|merge"
NEEDS = "gpu"

variant, strength = work.variant()
COMPUTE_MS = 4.0
gpu = device.Device(COMPUTE_MS * 1e3 / 20)
WORDS = int(COMPUTE_MS * strength / (1 - strength) / 2.05e-3)
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
    tokens = tokenize(TEXT) if variant == "slow" else PIECE.findall(TEXT[:1000])
    gpu.copy_in(2 * len(tokens))
    gpu.layers(20)
    gpu.wait()


work.run(step, int(1000 / (COMPUTE_MS / (1 - strength) if variant == "slow" else COMPUTE_MS + 0.3)))

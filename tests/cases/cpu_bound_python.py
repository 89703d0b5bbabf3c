"""The work itself is a loop in Python.

Injected: a checksum over the answer, byte by byte in the interpreter (`checksum`), or one small function call for each token
(`score`, in the cases named calls). Right, because the interpreter runs for most of a step, and the twin has the same sums
from one native call.
"""

import sys
import zlib

import work

CASES = {
    "slow-0.6": "slow --strength 0.6",
    "slow-0.8": "slow --strength 0.8",
    "slow-0.95": "slow --strength 0.95",
    "slow-calls-0.7": "slow --strength 0.7 calls",
    "slow-calls-0.9": "slow --strength 0.9 calls",
    "fixed": "fixed",
    "fixed-calls": "fixed calls",
}
LABEL = ["cpu-bound-python"]
WHERE = "checksum|score|rank"

variant, strength = work.variant()
BYTES = int(work.beside(strength) / 65e-6)  # 65 ns a byte
TOKENS = int(work.beside(strength) / 42e-6)
answer = (work.BATCH * (BYTES // len(work.BATCH) + 1))[:BYTES]
logits = [(token * 7919) % 1000 / 1000 for token in range(TOKENS)]


def checksum(data):
    low, high = 1, 0
    for byte in data:
        low = (low + byte) % 65521
        high = (high + low) % 65521
    return high << 16 | low


def score(logit, before):
    return logit if logit > before else before


def rank(values):
    best = 0.0
    for value in values:
        best = score(value, best)
    return best


def step(number):
    work.model()
    if "calls" in sys.argv:
        return rank(logits) if variant == "slow" else max(logits)
    return checksum(answer) if variant == "slow" else zlib.adler32(answer)


work.run(step, int(1000 / (work.MODEL_MS + (work.beside(strength) if variant == "slow" else 0))))

"""Every tenth step takes a multiple of the others.

Injected: every tenth request writes a checkpoint (`checkpoint`, native) or (cases named index) sorts its index anew, in Python.
Right, because the other steps are alike and the tenth is always the slow one; the twin leaves that work to the end. A step's
mean is measured, as the median does not see it.
"""

import hashlib
import sys

import work

CASES = {
    "slow-0.3": "slow --strength 0.3",
    "slow-0.5": "slow --strength 0.5",
    "slow-index-0.3": "slow --strength 0.3 index",
    "slow-index-0.5": "slow --strength 0.5 index",
    "fixed": "fixed",
}
LABEL = ["step-jitter"]
ALSO = ["native-hot-spot", "cpu-bound-python"]
WHERE = "checkpoint|reorder"
MEASURE = "mean"

variant, strength = work.variant()
TENTH_MS = 10 * work.beside(strength)
KEYS = [at * 7919 % 10_007 for at in range(int(TENTH_MS / 48e-6 / 13))]


def checkpoint():
    return hashlib.pbkdf2_hmac("sha1", b"state", b"salt", int(TENTH_MS * 4200))


def reorder(keys):
    width = len(keys)
    for shift in range(13):  # a pass of a radix sort for each bit
        zeros, ones = [], []
        for key in keys:
            (ones if key >> shift & 1 else zeros).append(key)
        keys = zeros + ones
    return keys


def step(number):
    work.model()
    if variant == "slow" and number % 10 == 9:
        return reorder(KEYS) if "index" in sys.argv else checkpoint()


work.run(step, int(1200 / (work.MODEL_MS + (work.beside(strength) if variant == "slow" else 0))) // 10 * 10)

"""Memory that grows with each request and is never given back.

Injected: every answer is kept in a list, or (cases named cache) in a dictionary by a key that never comes again. Right, because
the resident size rises from the first request to the last; the twin keeps the last eight. It is no slower for now, so there is no
gain to measure.
"""

import collections
import os
import sys

import work

CASES = {
    "slow-0.3": "slow --strength 0.3",
    "slow-0.8": "slow --strength 0.8",
    "slow-cache-0.5": "slow --strength 0.5 cache",
    "fixed": "fixed --strength 0.5",
}
LABEL = ["memory-growth"]
WHERE = "keep"
MEASURE = None

variant, strength = work.variant()
BYTES = int(3 * strength * (1 << 20))  # a request
kept = [] if variant == "slow" else collections.deque(maxlen=8)
cache = {}


def keep(number, answer):
    if "cache" in sys.argv:
        cache[f"request {number} of {os.getpid()}"] = answer
    else:
        kept.append(answer)


def step(number):
    work.model()
    keep(len(kept) + len(cache), os.urandom(64) * (BYTES // 64))


work.run(step, 300)

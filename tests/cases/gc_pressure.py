"""The garbage collector walks the whole heap again and again.

Injected: a heap of small objects that live on, and a full collection after each request, as servers do that fear for their
memory; in the cases named churn, a request makes so many objects that the collector comes by itself. Right, because the
collector takes that share of a step and frees nothing that counting did not; the twin freezes the heap and collects no more.
"""

import gc
import sys

import work

CASES = {
    "slow-0.3": "slow --strength 0.3",
    "slow-0.6": "slow --strength 0.6",
    "slow-0.85": "slow --strength 0.85",
    "slow-churn-0.4": "slow --strength 0.4 churn",
    "slow-churn-0.6": "slow --strength 0.6 churn",
    "fixed-0.6": "fixed --strength 0.6",
    "fixed-churn-0.4": "fixed --strength 0.4 churn",
}
LABEL = ["gc-pressure"]
WHERE = "collect"
MEASURE = "mean"  # the collector comes every few steps

variant, strength = work.variant()
CHURN = "churn" in sys.argv
OBJECTS = int(work.beside(strength) / 107e-6)
heap = [{"row": [at]} for at in range(OBJECTS)]
if variant != "slow":
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
elif CHURN:
    gc.set_threshold(700, 2, 2)


def rows(count):
    return [[at] for at in range(count)]


def step(number):
    work.model()
    if CHURN:
        return len(rows(9000 if strength < 0.5 else 25_000))
    if variant == "slow":
        gc.collect()
    return number


work.run(step, int(1000 / (work.MODEL_MS + (work.beside(strength) if variant == "slow" or CHURN else 0))))

"""The garbage collector runs between the steps of a decoder, and the device waits.

Injected: a heap of small objects, and a full collection after each step. Right, because nothing is queued on the device meanwhile
and the collector frees nothing that counting did not; the twin freezes the heap and leaves it alone.
"""

import gc

import device
import work

CASES = {
    "slow-0.4": "slow --strength 0.4",
    "slow-0.7": "slow --strength 0.7",
    "fixed": "fixed --strength 0.4",
}
LABEL = ["gc-pressure"]
ALSO = ["sync-stall"]
WHERE = "collect"
NEEDS = "gpu"

variant, strength = work.variant()
COMPUTE_MS = 4.0
gpu = device.Device(COMPUTE_MS * 1e3 / 20)
heap = [{"row": [at]} for at in range(int(COMPUTE_MS * strength / (1 - strength) / 107e-6))]
if variant != "slow":
    gc.freeze()


def step(number):
    gpu.layers(20)
    gpu.wait()
    if variant == "slow":
        gc.collect()


work.run(step, int(1000 / (COMPUTE_MS / (1 - strength) if variant == "slow" else COMPUTE_MS)))

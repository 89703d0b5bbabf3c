"""Large copies to the device that computing waits for.

Injected: each step copies its input from pageable memory and waits until it is there, then computes. Right, because the device's
kernels cannot start for that share of the step; the twin copies the next input on a stream of its own meanwhile. In the cases named
weights, weights that do not fit go back and forth in each step: the twin keeps them on the device.
"""

import sys

import device
import work

CASES = {
    "slow-0.3": "slow --strength 0.3",
    "slow-0.48": "slow --strength 0.48",
    "slow-weights-0.6": "slow --strength 0.6 weights",
    "slow-weights-0.85": "slow --strength 0.85 weights",
    "fixed-0.48": "fixed --strength 0.48",
    "fixed-weights-0.6": "fixed --strength 0.6 weights",
}
LABEL = ["blocking-copy", "pageable-copy", "transfer-bound"]
ALSO = ["sync-stall"]
WHERE = "load|Memcpy|copy|offload"
NEEDS = "gpu"

variant, strength = work.variant()
COMPUTE_MS = 3.0
SIZE = int(COMPUTE_MS * strength / (1 - strength) * 25e6)
gpu = device.Device(COMPUTE_MS * 1e3 / 15)
side = gpu.stream()


def load(size, stream=0):
    gpu.copy_in(size, stream)


def offload():
    load(SIZE // 2)
    gpu.layers(8)
    gpu.copy_out(SIZE // 2)
    gpu.layers(7)
    gpu.wait()


def step(number):
    if "weights" in sys.argv:
        if variant == "slow":
            return offload()
        gpu.layers(15)
        return gpu.wait()
    if variant == "slow":
        load(SIZE)
        gpu.wait()
        gpu.layers(15)
        gpu.wait()
    else:
        load(SIZE, side)
        gpu.layers(15)
        gpu.wait()
        gpu.wait(side)


work.run(step, int(1000 / (COMPUTE_MS / (1 - strength) if variant == "slow" else COMPUTE_MS + 0.5)))

"""The host waits for each kernel before it prepares the next.

Injected: a synchronization after each of 20 kernels (as `.item()` and prints of losses do), and some Python to prepare the next.
Right, because host and device take turns; the twin waits once a step, and the preparation hides behind the kernels.
"""

import device
import work

CASES = {
    "slow-0.3": "slow --strength 0.3",
    "slow-0.45": "slow --strength 0.45",
    "fixed-0.3": "fixed --strength 0.3",
    "fixed-0.45": "fixed --strength 0.45",
}
LABEL = ["sync-stall"]
ALSO = ["launch-bound", "blocking-copy"]
WHERE = "check|wait|forward|Synchronize"
NEEDS = "gpu"

variant, strength = work.variant()
HOST_US = 200 * strength / (1 - strength) - 20
gpu = device.Device(200)


def prepare(number):
    total = 0
    for at in range(int(HOST_US / 0.048)):
        total += at ^ number
    return total


def check():
    gpu.copy_out(64)
    gpu.wait()


def forward():
    for number in range(20):
        prepare(number)
        gpu.launch(number)
        if variant == "slow":
            check()


def step(number):
    forward()
    check()


work.run(step, 220)

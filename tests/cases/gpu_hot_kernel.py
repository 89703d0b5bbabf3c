"""One kernel has most of the device's time.

Injected: an attention kernel that reads its cache from end to end, several times as long as all others together. Right, because the
device is busy throughout and that kernel has more than 60 % of it; the twin has the same kernel at the speed of the others.
"""

import device
import work

CASES = {
    "slow-0.7": "slow --strength 0.7",
    "slow-0.85": "slow --strength 0.85",
    "fixed": "fixed",
}
LABEL = ["one-kernel-hot-spot"]
WHERE = "flash_fwd_kernel"
NEEDS = "gpu"

variant, strength = work.variant()
OTHERS_MS = 1.6
SHORT_US = OTHERS_MS * 1e3 / 16
LONG_US = OTHERS_MS * 1e3 * strength / (1 - strength) / 4 if variant == "slow" else SHORT_US
gpu = device.Device(SHORT_US)


def forward():
    for number in range(20):
        if number % 5 == 1:
            gpu.launch(number, us=LONG_US)
        else:
            gpu.launch(number)


def step(number):
    forward()
    gpu.copy_out(64)
    gpu.wait()


work.run(step, int(1000 / (OTHERS_MS / (1 - strength) if variant == "slow" else 2.0)))

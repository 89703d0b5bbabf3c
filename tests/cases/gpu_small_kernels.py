"""Thousands of kernels of two or three microseconds.

Injected: 300 launches in a row for work that fits into ten kernels, with hardly any Python between them. Right, because a launch
takes longer than its kernel, so that the device is idle most of the time however fast the host is; the twin has fused them.
"""

import device
import work

CASES = {
    "slow-0.5": "slow --strength 0.5",
    "slow-0.8": "slow --strength 0.8",
    "fixed": "fixed --strength 0.5",
}
LABEL = ["small-kernels", "launch-bound"]
WHERE = "forward|launch|"
NEEDS = "gpu"

variant, strength = work.variant()
KERNEL_US = 2.6 * (1 - strength)
gpu = device.Device(KERNEL_US)


def forward():
    for number in range(300):
        gpu.launch(number)


def fused():
    for number in range(10):
        gpu.launch(number, us=30 * KERNEL_US)


def step(number):
    if variant == "slow":
        forward()
    else:
        fused()
    gpu.copy_out(64)
    gpu.wait()


work.run(step, 700)

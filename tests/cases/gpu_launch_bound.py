"""Kernels are shorter than the Python between their launches.

Injected: `dispatch`, the bookkeeping of an eager framework before each of 120 launches. Right, because the stream is empty at each
launch: the device waits for the host for that share of a step. The twin replays the same kernels from captured graphs. Strength
is the device's idle share.
"""

import sys

import device
import work

CASES = {
    "slow-0.4": "slow --strength 0.4",
    "slow-0.6": "slow --strength 0.6",
    "slow-0.8": "slow --strength 0.8",
    "fixed": "fixed --strength 0.6",
}
LABEL = ["launch-bound", "small-kernels"]
ALSO = ["cpu-bound-python"]
WHERE = "dispatch|forward|launch"
NEEDS = "gpu"

variant, strength = work.variant()
LAUNCH_US = 15
gpu = device.Device(LAUNCH_US * (1 - strength))
graphs = [gpu.graph(number, 24) for number in range(5)]
shapes = {"tokens": 1, "heads": 32, "width": 128}


def dispatch(number):
    strides = []
    for axis, size in shapes.items():
        strides.append((axis, size * 2 + number % 3))
    key = tuple(sorted(strides))
    return {"key": key, "grid": max(size for _, size in key), "type": "half" if number % 2 else "float"}


def forward():
    for number in range(120):
        plan = dispatch(number)
        for _ in range(60):
            plan = {**plan, "block": 128}
        gpu.launch(number)


def step(number):
    if variant == "slow":
        forward()
    else:
        for graph in graphs:
            gpu.replay(graph)
    gpu.copy_out(64)
    gpu.wait()


work.run(step, 350)

"""A decoder reads each prompt from a slow peer, and the device waits.

Injected: a child process that answers late, read from in each step. Right, because neither host nor device has anything to do
until the answer is there; the twin asks some steps ahead.
"""

import os
import socket
import sys
import threading
import time

import device
import work

CASES = {
    "slow-0.4": "slow --strength 0.4",
    "slow-0.7": "slow --strength 0.7",
    "fixed": "fixed --strength 0.7",
}
LABEL = ["blocking-io"]
ALSO = ["waiting"]
WHERE = "receive|recv|read"
NEEDS = "gpu"

variant, strength = work.variant()
COMPUTE_MS = 4.0
LATE_S = COMPUTE_MS * strength / (1 - strength) / 1e3
pairs = [socket.socketpair() for _ in range(1 if variant == "slow" else 5)]


def answer(end):
    while end.recv(1):
        time.sleep(LATE_S)
        end.sendall(b"x" * 64)


child = os.fork()
if child == 0:
    for near, _ in pairs:
        near.close()
    threads = [threading.Thread(target=answer, args=(far,)) for _, far in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit()
for _, far in pairs:
    far.close()
gpu = device.Device(COMPUTE_MS * 1e3 / 20)
turns = 0


def receive(end):
    return end.recv(64)


def step(number):
    global turns
    end = pairs[turns % len(pairs)][0]
    turns += 1
    if variant == "slow":
        end.sendall(b"?")
        receive(end)
    else:
        receive(end)
        end.sendall(b"?")
    gpu.copy_in(4096)
    gpu.layers(20)
    gpu.wait()


if variant != "slow":
    for near, _ in pairs:
        near.sendall(b"?")
work.run(step, int(1000 / (COMPUTE_MS / (1 - strength) if variant == "slow" else COMPUTE_MS)))
for near, _ in pairs:
    if variant != "slow":
        receive(near)
    near.close()
os.waitpid(child, 0)

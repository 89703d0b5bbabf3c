"""Each request reads from a slow peer and waits for it.

Injected: a child process that answers late, over a socket or (cases named pipe) a pipe. Right, because the thread that answers
stands in the read for the rest of a step; the twin asks for the next answers before it computes, over as many connections as it
takes, so that all of it overlaps.
"""

import os
import socket
import sys
import threading
import time

import work

CASES = {
    "slow-0.4": "slow --strength 0.4",
    "slow-0.6": "slow --strength 0.6",
    "slow-0.8": "slow --strength 0.8",
    "slow-pipe-0.45": "slow --strength 0.45 pipe",
    "slow-pipe-0.65": "slow --strength 0.65 pipe",
    "fixed-0.6": "fixed --strength 0.6",
    "fixed-pipe-0.45": "fixed --strength 0.45 pipe",
}
LABEL = ["blocking-io"]
ALSO = ["waiting"]
WHERE = "receive|recv|read"

variant, strength = work.variant()
PIPE = "pipe" in sys.argv
LATE_S = work.beside(strength) / 1e3
DEPTH = 1 if variant == "slow" else 3 + int(work.beside(strength) / work.MODEL_MS)


def channel():
    """Two ends, each of a descriptor to read from and one to write to."""
    if PIPE:
        (near, far_out), (far, near_out) = os.pipe(), os.pipe()
        return (near, near_out), (far, far_out)
    near, far = socket.socketpair()
    return (near, near), (far, far)


def answer(read, write):
    while os.read(read, 1) if PIPE else read.recv(1):
        time.sleep(LATE_S)
        os.write(write, b"x" * 64) if PIPE else write.sendall(b"x" * 64)


def receive(end):
    return os.read(end[0], 64) if PIPE else end[0].recv(64)


def send(end, data):
    return os.write(end[1], data) if PIPE else end[1].sendall(data)


def close(end):
    for side in {*end}:
        os.close(side) if PIPE else side.close()


ends = [channel() for _ in range(DEPTH)]
child = os.fork()
if child == 0:
    for near, _ in ends:
        close(near)
    threads = [threading.Thread(target=answer, args=far) for _, far in ends]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit()
for _, far in ends:
    close(far)
ends = [near for near, _ in ends]


turns = 0


def step(number):
    global turns
    end = ends[turns % DEPTH]
    turns += 1
    if variant == "slow":
        send(end, b"?")
        row = receive(end)
    else:  # it was asked some steps ago
        row = receive(end)
        send(end, b"?")
    work.model()
    return row


if variant != "slow":
    for end in ends:
        send(end, b"?")
work.run(step, int(1000 / (work.MODEL_MS + (work.beside(strength) if variant == "slow" else 0))))
for end in ends:
    if variant != "slow":
        receive(end)
    close(end)
os.waitpid(child, 0)

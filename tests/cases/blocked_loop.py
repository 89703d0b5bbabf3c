"""A callback of an event loop waits, and with it all requests.

Injected: `time.sleep` in a coroutine, or (cases named socket) a blocking read from a late peer. Right, because eight requests
that could wait together wait one after the other; the twin awaits the same.
"""

import asyncio
import socket
import sys
import threading
import time

import work

CASES = {
    "slow-0.3": "slow --strength 0.3",
    "slow-0.6": "slow --strength 0.6",
    "slow-0.85": "slow --strength 0.85",
    "slow-socket-0.5": "slow --strength 0.5 socket",
    "slow-socket-0.75": "slow --strength 0.75 socket",
    "fixed-0.6": "fixed --strength 0.6",
    "fixed-socket-0.5": "fixed --strength 0.5 socket",
}
LABEL = ["blocking-io"]
ALSO = ["blocking-io", "waiting", "slow-callback"]
WHERE = "fetch|sleep|recv"

variant, strength = work.variant()
REQUESTS = 8
LATE_S = work.beside(strength) / 1e3


def peer(end):
    while end.recv(1):
        time.sleep(LATE_S)
        end.sendall(b"x")


async def fetch(end, turn):
    if variant == "slow":
        if end:
            end.sendall(b"?")
            return end.recv(1)
        time.sleep(LATE_S)
    elif end:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(end, b"?")
        return await loop.sock_recv(end, 1)
    else:
        await asyncio.sleep(LATE_S)


async def handle(end, turn):
    await fetch(end, turn)
    work.model()


async def main():
    ends = [None] * REQUESTS
    if "socket" in sys.argv:
        pairs = [socket.socketpair() for _ in range(REQUESTS)]
        for mine, theirs in pairs:
            mine.setblocking(variant == "slow")
            threading.Thread(target=peer, args=(theirs,)).start()
        ends = [mine for mine, _ in pairs]
    times = []
    for turn in range(max(8, int(1000 / (work.MODEL_MS + work.beside(strength)) / REQUESTS))):
        start = time.perf_counter()
        await asyncio.gather(*(handle(end, turn) for end in ends))
        times.append(time.perf_counter() - start)
    for end in ends:
        if end:
            end.close()
    work.tell(times)


asyncio.run(main())

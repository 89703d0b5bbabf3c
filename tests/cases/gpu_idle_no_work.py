"""A server with a GPU that waits for requests: nothing to make faster.

A child sends a request every 25 ms, which takes 4 ms on the device. The device is idle most of the time, and so is the host, for
want of work: no finding of warning or more is right.
"""

import asyncio
import socket
import subprocess
import sys
import time

import work

CASES = {
    "healthy-socket": "healthy socket",
    "healthy-asyncio": "healthy asyncio",
}
LABEL = []
ALSO = ["idle-no-work"]
NEEDS = "gpu"

variant, strength = work.variant()
kind = sys.argv[2]
REQUESTS, EVERY_S = 60, 0.025
times = []

if variant == "client":
    for _ in range(REQUESTS):
        time.sleep(EVERY_S)
        with socket.create_connection(("127.0.0.1", int(kind))) as end:
            end.sendall(b"?")
            end.recv(64)
    sys.exit()

import device

gpu = device.Device(200)


def answer():
    start = time.perf_counter()
    gpu.copy_in(4096)
    gpu.layers(20)
    gpu.wait()
    times.append(time.perf_counter() - start)
    return b"!"


def serve(listener):
    for _ in range(REQUESTS):
        end, _ = listener.accept()
        with end:
            end.recv(1)
            end.sendall(answer())


async def serve_asyncio(listener):
    done = asyncio.Event()

    async def handle(reader, writer):
        await reader.readexactly(1)
        writer.write(answer())
        await writer.drain()
        writer.close()
        if len(times) == REQUESTS:
            done.set()

    async with await asyncio.start_server(handle, sock=listener):
        await done.wait()


listener = socket.create_server(("127.0.0.1", 0))
client = subprocess.Popen([sys.executable, __file__, "client", str(listener.getsockname()[1])])
if kind == "asyncio":
    asyncio.run(serve_asyncio(listener))
else:
    serve(listener)
client.wait()
work.tell(times)

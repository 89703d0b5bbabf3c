"""Servers that wait for requests: nothing to make faster.

A child sends a request every 25 ms, and one takes about 5 ms to answer. The wait is for work, so no finding of warning or more is
right: a server of sockets, one of asyncio, a worker behind a queue, a process that polls.
"""

import asyncio
import queue
import select
import socket
import subprocess
import sys
import threading
import time

import work

CASES = {
    "healthy-socket": "healthy socket",
    "healthy-asyncio": "healthy asyncio",
    "healthy-queue": "healthy queue",
    "healthy-select": "healthy select",
}
LABEL = []
ALSO = ["idle-no-work"]

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


def answer():
    start = time.perf_counter()
    work.model()
    times.append(time.perf_counter() - start)
    return b"!"


def serve_socket(listener):
    for _ in range(REQUESTS):
        end, _ = listener.accept()
        with end:
            end.recv(1)
            end.sendall(answer())


def serve_select(listener):
    for _ in range(REQUESTS):
        select.select([listener], [], [])
        end, _ = listener.accept()
        with end:
            end.recv(1)
            end.sendall(answer())


def serve_queue(listener):
    waiting = queue.Queue()

    def worker():
        while end := waiting.get():
            with end:
                end.recv(1)
                end.sendall(answer())

    thread = threading.Thread(target=worker)
    thread.start()
    for _ in range(REQUESTS):
        waiting.put(listener.accept()[0])
    waiting.put(None)
    thread.join()


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
port = str(listener.getsockname()[1])
client = subprocess.Popen([sys.executable, __file__, "client", port])
if kind == "asyncio":
    asyncio.run(serve_asyncio(listener))
else:
    {"socket": serve_socket, "select": serve_select, "queue": serve_queue}[kind](listener)
client.wait()
work.tell(times)

"""An asyncio pipeline: readers, two queues, workers that enrich each item from a profile service, a writer.

Injected: the client of the profile service is an ordinary one, of blocking sockets, called within the coroutine: while it waits,
no other coroutine runs. The twin speaks the same protocol by asyncio's streams, one connection for each worker.
"""

import asyncio
import hashlib
import json
import socket
import subprocess
import sys
import time

import work

CASES = {
    "slow-2ms": "slow 2",
    "slow-8ms": "slow 8",
    "fixed-2ms": "fixed 2",
    "fixed-8ms": "fixed 8",
}
LABEL = ["blocking-io"]
ALSO = {"slow": ["blocking-io", "waiting", "slow-callback"], "fixed": ["waiting"]}  # the service is as slow as before
WHERE = "profile|enrich|recv|readline|readinto"
MEASURE = "mean"
WORKERS = 6


def service(delay_ms):
    """The profile service, a process of its own: one line in, after a while one line out."""

    async def answer(reader, writer):
        while line := await reader.readline():
            await asyncio.sleep(delay_ms / 1e3)
            writer.write(json.dumps({"user": line.decode().strip(), "segments": list(range(20))}).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def serve():
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await server.serve_forever()

    asyncio.run(serve())


class BlockingClient:
    def __init__(self, port):
        self.link = socket.create_connection(("127.0.0.1", port))
        self.file = self.link.makefile("rwb")

    async def profile(self, user):
        self.file.write(user.encode() + b"\n")
        self.file.flush()
        return json.loads(self.file.readline())


class AsyncClient:
    def __init__(self, port):
        self.port, self.reader = port, None

    async def profile(self, user):
        if not self.reader:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(user.encode() + b"\n")
        await self.writer.drain()
        return json.loads(await self.reader.readline())


async def produce(queue, count):
    for number in range(count):
        await queue.put(f"user{number}")
    for _ in range(WORKERS):
        await queue.put(None)


async def enrich(client, queue, done):
    while (user := await queue.get()) is not None:
        profile = await client.profile(user)
        key = hashlib.pbkdf2_hmac("sha256", user.encode(), b"salt", 600)
        await done.put((user, key.hex(), sum(profile["segments"])))


async def write(done, count):
    times, start = [], time.perf_counter()
    for number in range(1, count + 1):
        await done.get()
        if number % WORKERS == 0:
            times.append(time.perf_counter() - start)
            start = time.perf_counter()
    return times


async def pipeline(kind, port, count):
    queue, done = asyncio.Queue(2 * WORKERS), asyncio.Queue(2 * WORKERS)
    stages = [enrich(kind(port), queue, done) for _ in range(WORKERS)]
    *_, times = await asyncio.gather(produce(queue, count), *stages, write(done, count))
    return times


def main():
    variant, delay = sys.argv[1], int(sys.argv[2])
    if variant == "service":
        return service(delay)
    peer = subprocess.Popen([sys.executable, "-E", __file__, "service", str(delay)], stdout=subprocess.PIPE, text=True)
    port = int(peer.stdout.readline())
    count = 6 * {"slow": {2: 100, 8: 40}, "fixed": {2: 300, 8: 180}}[variant][delay]
    work.tell(asyncio.run(pipeline(BlockingClient if variant == "slow" else AsyncClient, port, count)))
    peer.terminate()
    peer.wait()


main()

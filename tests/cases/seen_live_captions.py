"""Live captions: an asyncio server takes chunks of telephone speech (mu-law) from several callers, brings them to one level, has the
acoustic model run in a pool of two threads, asks a punctuation service for the text, and answers with a caption.

Injected, in cases named punctuate: the punctuation service is asked with a plain socket, `sendall` and `recv`, in the coroutine, so
that the event loop stands still while the service thinks, and no other caller is heard: blocking-io, in a slow callback. The twin asks
by a stream of asyncio; the service has to do as much, and answers the same.

Injected, in cases named levels: chunks are decoded and levelled sample by sample in Python, in the coroutine, which holds up the loop
(and the GIL): slow-callback. The twin looks the samples up with numpy; the levels are equal.

healthy-replay: a recorded call is captioned without a server, chunk by chunk.
The callers and the punctuation service are in a child process, as they would be elsewhere.
"""

import asyncio
import multiprocessing
import random
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-punctuate": "slow punctuate", "slow-levels": "slow levels",
    "fixed-punctuate": "fixed punctuate", "fixed-levels": "fixed levels",
    "healthy-replay": "healthy replay",
}
LABEL = {"slow-punctuate": ["blocking-io", "slow-callback"], "slow-levels": ["slow-callback", "preprocessing-bound"]}
ALSO = {
    "slow-punctuate": ["waiting", "idle-no-work"],  # the pool's threads have nothing while the loop stands
    "slow-levels": ["cpu-bound-python", "gil-contention", "waiting", "idle-no-work"],
    "fixed": ["waiting", "idle-no-work", "thread-oversubscription"],  # the loop waits for model and callers; callers share the two cores
    "healthy": [],
}
WHERE = "punctuate|ask|recv|sendall|caption|level|expand|python_level|hear"
MEASURE = "mean"
CALLERS, SAMPLES, THINK_S = 6, 26_000, 0.007
HEAD = struct.Struct("!dI")


def expansion():
    """What each byte of mu-law stands for."""
    sizes = [(((code & 15) << 3) + 132 << (code >> 4 & 7)) - 132 for code in range(255, -1, -1)]
    return [size if at & 128 else -size for at, size in enumerate(sizes)]


class Levels:
    """Decodes a chunk and tells its level; the recogniser wants 16 bit samples of about the same loudness."""

    def __init__(self, plain):
        self.plain, self.table = plain, expansion()
        self.wide = np.array(self.table, np.int64)

    def python_level(self, chunk):
        energy, samples = 0, []
        for code in chunk:
            samples.append(self.table[code])
            energy += samples[-1] * samples[-1]
        gain = 4000 * 256 // max(1, int((energy // len(chunk)) ** 0.5))
        return struct.pack(f"<{len(samples)}i", *[value * gain >> 8 for value in samples])

    def level(self, chunk):
        if self.plain:
            return self.python_level(chunk)
        samples = self.wide[np.frombuffer(chunk, np.uint8)]
        energy = int(samples @ samples)
        gain = 4000 * 256 // max(1, int((energy // len(chunk)) ** 0.5))
        return (samples * gain >> 8).astype("<i4").tobytes()


class Captioner:
    def __init__(self, levels):
        self.levels, self.pool = levels, ThreadPoolExecutor(2, "acoustic")

    async def caption(self, chunk):
        samples = self.levels.level(chunk)[:60_000]
        return await asyncio.get_running_loop().run_in_executor(self.pool, work.model, samples)


class Punctuation:
    """A client of the punctuation service, one connection for each caller."""

    async def connect(self, port, plain):
        self.plain = plain
        if plain:
            self.socket = socket.create_connection(("127.0.0.1", port))
        else:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    def close(self):
        (self.socket if self.plain else self.writer).close()

    async def ask(self, text):
        line = text.encode() + b"\n"
        if self.plain:
            self.socket.sendall(line)
            return self.socket.recv(4096)
        self.writer.write(line)
        return await self.reader.readline()


class Server:
    def __init__(self, captioner, plain):
        self.captioner, self.plain, self.times = captioner, plain, []

    async def hear(self, reader, writer):
        port = int(await reader.readline())
        punctuation = await Punctuation().connect(port, self.plain) if port else None
        while True:
            try:
                sent, size = HEAD.unpack(await reader.readexactly(HEAD.size))
            except asyncio.IncompleteReadError:
                break
            text = await self.captioner.caption(await reader.readexactly(size))
            said = await punctuation.ask(text) if punctuation else text.encode() + b"\n"
            self.times.append(time.perf_counter() - sent)
            writer.write(said)
        for used in filter(None, (punctuation, writer)):
            used.close()


async def think(reader, writer):
    """The punctuation service."""
    while line := await reader.readline():
        await asyncio.sleep(THINK_S)
        writer.write(line.strip() + b".\n")
    writer.close()


async def call(port, ask, chunks, number):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(f"{ask}\n".encode())
    speech = [random.Random(number * 1000 + at).randbytes(SAMPLES) for at in range(5)]
    for at in range(chunks):
        writer.write(HEAD.pack(time.perf_counter(), SAMPLES) + speech[at % 5])
        await reader.readline()
    writer.close()


def elsewhere(port, punctuated, chunks):
    async def world():
        service = await asyncio.start_server(think, "127.0.0.1", 0)
        ask = service.sockets[0].getsockname()[1] if punctuated else 0
        await asyncio.gather(*[call(port, ask, chunks, number) for number in range(CALLERS)])
        await asyncio.sleep(0.1)  # the server hangs up

    asyncio.run(world())


async def serve(captioner, plain, punctuated, chunks):
    server = Server(captioner, plain)
    listening = await asyncio.start_server(server.hear, "127.0.0.1", 0, limit=1 << 20)
    port = listening.sockets[0].getsockname()[1]
    world = multiprocessing.get_context("spawn").Process(target=elsewhere, args=(port, punctuated, chunks), daemon=True)
    world.start()
    await asyncio.get_running_loop().run_in_executor(None, world.join)
    listening.close()
    work.tell(server.times[CALLERS:])


def main():
    variant, kind = sys.argv[1:3]
    captioner = Captioner(Levels(plain=variant == "slow" and kind == "levels"))
    if kind == "replay":
        chunks = [random.Random(at).randbytes(SAMPLES) for at in range(5)]
        work.run(lambda number: work.model(captioner.levels.level(chunks[number % 5])[:60_000]), 600)
        return
    chunks = {"slow-punctuate": 60, "slow-levels": 70, "fixed-punctuate": 170, "fixed-levels": 165}[f"{variant}-{kind}"]
    asyncio.run(serve(captioner, variant == "slow", kind == "punctuate", chunks))


if __name__ == "__main__":
    main()

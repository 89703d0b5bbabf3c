"""A gateway that streams tokens: clients hold a connection each and send prompts, an engine decodes one token for each stream in a
round, and the gateway writes them as they come. All of it is asyncio, but for the engine, which is native and has a thread.

Injected, in cases named seal: at the end of a stream its transcript is sealed for the audit (deflated and put through pbkdf2), in the
handler itself, so that no other stream gets its tokens meanwhile: slow-callback. The twin awaits the same seal in an executor; what
seals is native code that releases the GIL.

Injected, in cases named intake: prompts are split into ids by merges in Python, in a thread, "so that the loop is free"; the loop and
the engine's thread need the GIL for moments only, but wait for it each time: gil-contention. The twin splits them in a process. Both
split the prompt of the next turn while this turn's tokens are streamed, and the ids are the same.

healthy-relay: clients send ids, and nothing is sealed.
"""

import asyncio
import hashlib
import json
import multiprocessing
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import work

NEEDS = ""
CASES = {
    "slow-seal": "slow seal",
    "slow-intake": "slow intake",
    "fixed-seal": "fixed seal",
    "fixed-intake": "fixed intake",
    "healthy-relay": "healthy relay",
}
LABEL = {"slow-seal": ["slow-callback"], "slow-intake": ["gil-contention"]}
ALSO = {
    "slow-seal": ["native-hot-spot", "step-jitter", "waiting"],  # pbkdf2, of engine and seal; some rounds have a seal; for the engine
    "slow-intake": ["native-hot-spot", "cpu-bound-python", "preprocessing-bound", "step-jitter", "waiting"],
    "fixed-seal": ["native-hot-spot", "waiting"],
    "fixed-intake": ["native-hot-spot", "waiting", "cpu-bound-python", "idle-no-work"],  # of the process that splits
    "healthy": ["native-hot-spot", "waiting"],  # the loop waits for the engine
}
WHERE = "seal|close|serve|split|merge|pairs|intake"
MEASURE = "p99"
CLIENTS, TURN, PROMPT = 3, 20, 2900  # streams at once, tokens in a turn, words of a prompt
LAYERS, LAYER_ROUNDS, SEAL_ROUNDS = 12, 1070, 48_000
WORDS = [hashlib.sha256(b"%d" % at).hexdigest()[: 3 + at % 6] for at in range(4096)]


def pairs(symbols):
    return {(left, right) for left, right in zip(symbols, symbols[1:])}


def merge(symbols, pair):
    made, at = [], 0
    while at < len(symbols):
        joined = at + 1 < len(symbols) and symbols[at] == pair[0] and symbols[at + 1] == pair[1]
        made.append(symbols[at] + symbols[at + 1] if joined else symbols[at])
        at += 2 if joined else 1
    return made


def split(prompt):
    """The ids of a prompt: in each word, the pair of least rank is merged till three symbols are left."""
    ids = []
    for word in prompt.split():
        symbols = list(word)
        while len(symbols) > 3:
            symbols = merge(symbols, min(pairs(symbols)))
        ids.extend(zlib.crc32(symbol.encode()) % len(WORDS) for symbol in symbols)
    return ids


def seal(transcript):
    packed = zlib.compress(transcript.encode(), 6)
    return hashlib.pbkdf2_hmac("sha256", packed, b"audit", SEAL_ROUNDS).hex()


class Stream:
    def __init__(self, ids):
        self.last, self.left, self.queue, self.text = sum(ids), TURN, asyncio.Queue(), []


class Engine:
    def decode(self, lasts):
        key = repr(lasts).encode()
        for layer in range(LAYERS):
            key = hashlib.pbkdf2_hmac("sha256", key, b"%d" % layer, LAYER_ROUNDS)
        return [(last * 31 + 7) % len(WORDS) for last in lasts]


class Gateway:
    def __init__(self, splitter, sealer):  # executors; None if prompts are ids; "inline", or None if there are no seals
        self.splitter, self.sealer = splitter, sealer
        self.engine, self.thread = Engine(), ThreadPoolExecutor(1, "engine")
        self.streams, self.arrived = [], asyncio.Event()

    async def rounds(self):
        loop = asyncio.get_running_loop()
        while True:
            await self.arrived.wait()
            batch = list(self.streams)
            tokens = await loop.run_in_executor(self.thread, self.engine.decode, [stream.last for stream in batch])
            for stream, token in zip(batch, tokens):
                stream.last, stream.left = token, stream.left - 1
                stream.queue.put_nowait(token)
            self.streams = [stream for stream in self.streams if stream.left]
            if not self.streams:
                self.arrived.clear()

    async def intake(self, reader, ready):
        """Reads the prompts of a connection, and has each split before its turn comes."""
        loop = asyncio.get_running_loop()
        while line := await reader.readline():
            prompt = json.loads(line)["prompt"]
            await ready.put(await loop.run_in_executor(self.splitter, split, prompt) if self.splitter else prompt)
        await ready.put(None)

    async def serve(self, reader, writer):
        ready = asyncio.Queue(1)
        intake = asyncio.create_task(self.intake(reader, ready))
        while (ids := await ready.get()) is not None:
            stream = Stream(ids)
            self.streams.append(stream)
            self.arrived.set()
            for _ in range(TURN):
                word = WORDS[await stream.queue.get()]
                stream.text.append(word)
                writer.write(word.encode() + b"\n")
                await writer.drain()
            writer.write(b"end %s\n" % (await self.close(stream)).encode())
        await intake
        writer.close()

    async def close(self, stream):
        transcript = " ".join(stream.text)
        if self.sealer in (None, "inline"):
            return seal(transcript) if self.sealer else "unsealed"
        return await asyncio.get_running_loop().run_in_executor(self.sealer, seal, transcript)


async def client(port, number, turns, texts, times):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    text = WORDS[number * 97 :] + WORDS
    prompt = lambda turn: " ".join(text[turn * 31 : turn * 31 + PROMPT]) if texts else [number, turn]
    ask = lambda turn: writer.write(json.dumps({"prompt": prompt(turn)}).encode() + b"\n")
    await asyncio.sleep(number * 0.04)  # clients do not come at once
    ask(0)
    for turn in range(turns):
        if turn + 1 < turns:
            ask(turn + 1)
        start = None
        while not (await reader.readline()).startswith(b"end"):
            now = time.perf_counter()
            if start is not None:
                times.append(now - start)
            start = now
    writer.close()


async def go(variant, kind, turns):
    context = multiprocessing.get_context("spawn")
    splitter = None if kind != "intake" else ThreadPoolExecutor(1) if variant == "slow" else ProcessPoolExecutor(1, context)
    sealer = None if kind != "seal" else "inline" if variant == "slow" else ThreadPoolExecutor(1)
    if splitter:
        await asyncio.get_running_loop().run_in_executor(splitter, split, "warm up")
    gateway, times = Gateway(splitter, sealer), []
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    rounds = asyncio.create_task(gateway.rounds())
    await asyncio.gather(*(client(port, number, turns, kind == "intake", times) for number in range(CLIENTS)))
    rounds.cancel()
    server.close()
    await server.wait_closed()
    if splitter:
        splitter.shutdown()
    work.tell(times)


if __name__ == "__main__":
    asyncio.run(go(*sys.argv[1:3], turns={"seal": 30, "intake": 30, "relay": 40}[sys.argv[2]]))

"""A server that streams tokens of JSON answers to its clients, each a coroutine on localhost, from an engine that decodes all streams at once.

The engine is a thread of its own; the loop awaits its step, and writes a line to each client. The sampler may only take tokens
that the grammar of the answer allows (structured output). A step of the measure is one token, as a client sees it: the time
since its last one.

Injected, in cases named grammar: before each call of the model, the engine walks all of the vocabulary in Python for each stream,
to see what the state of its grammar allows: preprocessing-bound (in the engine's thread). The twin keeps the mask of each
state, of which there are few: the tokens taken are the same.

Injected, in cases named receipt: when a stream ends, a callback on the loop has its receipt signed by a device (simulated: a sleep), which a
thread talks to, and it blocks for the result of that thread's future, so no other stream is served meanwhile: slow-callback. The twin
lets the future call back when it is done, and the loop goes on. As many receipts are signed.

healthy-plain: masks are kept, receipts are a digest only, with no device.
"""

import asyncio
import hashlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import work

NEEDS = ""
CASES = {
    "slow-grammar": "slow grammar",
    "slow-receipt": "slow receipt",
    "fixed-grammar": "fixed grammar",
    "fixed-receipt": "fixed receipt",
    "healthy-plain": "healthy plain",
}
LABEL = {"slow-grammar": ["preprocessing-bound"], "slow-receipt": ["slow-callback"]}
ALSO = {
    "slow-grammar": ["cpu-bound-python", "waiting"],  # the loop waits for the engine
    "slow-receipt": ["waiting", "blocking-io", "native-hot-spot"],  # the loop waits for the thread of the ledger
    "fixed-grammar": ["native-hot-spot", "waiting", "idle-no-work"],
    "fixed-receipt": ["native-hot-spot", "waiting", "idle-no-work"],
    "healthy": ["native-hot-spot", "waiting", "idle-no-work"],
}
WHERE = "allow|mask|Grammar|accepts|settle|sign"
MEASURE = "mean"
STREAMS, VOCABULARY = 8, 2600


class Grammar:
    """What may follow in an answer: after a name a colon, after a colon a value, and so on."""

    FOLLOWS = {"open": '"', "name": ":", "colon": '"0123456789[', "value": ',}]"', "comma": '"', "list": '"0123456789]'}

    def __init__(self, vocabulary, keep):
        self.vocabulary, self.kept = vocabulary, {} if keep else None

    def accepts(self, state, depth, text):
        if text[0] not in self.FOLLOWS[state]:
            return False
        return text.count("}") + text.count("]") <= depth

    def mask(self, state, depth):
        return [at for at, text in enumerate(self.vocabulary) if self.accepts(state, depth, text)]

    def allowed(self, state, depth):
        if self.kept is None:
            return self.mask(state, depth)
        found = self.kept.get((state, depth))
        if found is None:
            found = self.kept[state, depth] = self.mask(state, depth)
        return found


class Stream:
    STATES = tuple(Grammar.FOLLOWS)

    def __init__(self, prompt, limit, writer):
        self.seed, self.limit, self.writer = int.from_bytes(hashlib.sha256(prompt).digest()[:4], "big"), limit, writer
        self.tokens, self.state, self.depth = [], "open", 1

    def take(self, choices, noise):
        token = choices[(self.seed + noise) % len(choices)]
        self.tokens.append(token)
        self.state = self.STATES[(token + len(self.tokens)) % len(self.STATES)]
        self.depth = 1 + (self.depth + token) % 3
        return token


class Engine:
    def __init__(self, keep):
        signs = '":,}]0123456789[ab'
        self.vocabulary = [signs[at % len(signs)] + f"{at * 7919 % 1000:03}" + "]}"[: at % 3] for at in range(VOCABULARY)]
        self.grammar = Grammar(self.vocabulary, keep)

    def decode(self, streams):
        """One token for each stream."""
        masks = [self.grammar.allowed(stream.state, stream.depth) for stream in streams]
        noise = int(work.model()[:4], 16)
        return [(stream, stream.take(choices, noise)) for stream, choices in zip(streams, masks)]


class Server:
    def __init__(self, variant, kind):
        self.engine, self.active = Engine(keep=(variant, kind) != ("slow", "grammar")), []
        self.threads = ThreadPoolExecutor(1, "engine")
        self.ledger, self.blocks = ThreadPoolExecutor(1, "ledger"), variant == "slow"
        self.device_s, self.arrived = 0.012 if kind == "receipt" else 0, asyncio.Event()

    async def serve(self, reader, writer):
        while line := await reader.readline():
            prompt, limit = line.split()
            self.active.append(Stream(prompt, int(limit), writer))
            self.arrived.set()

    async def pump(self):
        loop = asyncio.get_running_loop()
        while True:
            if not self.active:
                self.arrived.clear()
                await self.arrived.wait()
            taken = await loop.run_in_executor(self.threads, self.engine.decode, list(self.active))
            for stream, token in taken:
                stream.writer.write(self.engine.vocabulary[token].encode() + b"\n")
                if len(stream.tokens) == stream.limit:
                    self.active.remove(stream)
                    loop.call_soon(self.settle, loop, stream)

    def settle(self, loop, stream):
        """The stream has ended: its receipt is the last line."""
        signed = self.ledger.submit(self.sign, stream)
        if self.blocks:
            stream.writer.write(signed.result())
        else:
            asyncio.wrap_future(signed, loop=loop).add_done_callback(lambda done: stream.writer.write(done.result()))

    def sign(self, stream):
        if self.device_s:
            time.sleep(self.device_s)
        return b"end " + hashlib.sha256(" ".join(map(str, stream.tokens)).encode()).hexdigest().encode() + b"\n"


async def client(number, port, answers, times):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for answer in range(answers):
        writer.write(f"prompt-{number}-{answer} {17 + (number * 5 + answer * 3) % 14}\n".encode())
        last = None
        while not (await reader.readline()).startswith(b"end"):
            now = time.perf_counter()
            if last is not None:
                times.append(now - last)
            last = now
    writer.close()


async def main():
    variant, kind = sys.argv[1:3]
    server = Server(variant, kind)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    pump, times = asyncio.create_task(server.pump()), []
    answers = 14 if variant == "slow" else 24
    await asyncio.gather(*(client(number, port, answers, times) for number in range(STREAMS)))
    pump.cancel()
    listener.close()
    work.tell(times)


if __name__ == "__main__":
    asyncio.run(main())

"""A gateway on asyncio: the model runs in an executor of one thread, what comes of it is worked on in the coroutine and streamed to the
caller piece by piece. The callers are four connections of another process.

Injected, in cases named vote: of six candidates the one nearest to all others is chosen, by an edit distance of two loops, in the
coroutine: some ms in one callback, in which no other connection gets anything. The twin has the same distances by Myers' bit vectors.
In cases named stream: for each piece the whole answer so far is detokenized again and what is new is cut off its end; `drain` does not
give the loop back as long as the buffer is not full, so all the pieces are one callback. The twin detokenizes the new tokens.

Case healthy-batch: the requests that are there go to a larger model as one batch; the callbacks are short.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

CASES = {
    "slow-vote": "slow vote",
    "slow-stream": "slow stream",
    "fixed-vote": "fixed vote",
    "fixed-stream": "fixed stream",
    "healthy-batch": "healthy batch",
}
LABEL = {"slow": ["slow-callback"]}
ALSO = {
    "slow": ["cpu-bound-python", "blocking-io", "gil-contention"],
    "fixed": ["waiting", "native-hot-spot"],
    "healthy": ["waiting", "native-hot-spot"],
}
WHERE = "vote|distance|detokenize|pieces|answer|handle"
MEASURE = "mean"
CALLERS = 4
CANDIDATES = 6
LENGTH = 36  # of a candidate
TOKENS = 340
CHUNK = 4
ALPHABET = "abcdefgh ijklmno"


def plain_distance(one, other):
    row = list(range(len(other) + 1))
    for at, left in enumerate(one, 1):
        corner, row[0] = row[0], at
        for to, right in enumerate(other, 1):
            corner, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, corner + (left != right))
    return row[-1]


def bit_distance(one, other):
    masks = {}
    for at, letter in enumerate(one):
        masks[letter] = masks.get(letter, 0) | 1 << at
    full, last = (1 << len(one)) - 1, 1 << len(one) - 1
    plus, minus, score = full, 0, len(one)
    for letter in other:
        equal = masks.get(letter, 0)
        vertical = equal | minus
        horizontal = (((equal & plus) + plus) ^ plus) | equal
        up = minus | ~(horizontal | plus) & full
        down = plus & horizontal
        score += bool(up & last) - bool(down & last)
        up, down = (up << 1 | 1) & full, down << 1 & full
        plus, minus = down | ~(vertical | up) & full, up & vertical
    return score


class Voter:
    """Of many answers the one that is nearest to the others."""

    def __init__(self, distance):
        self.distance = distance

    def vote(self, texts):
        costs = [0] * len(texts)
        for at, one in enumerate(texts):
            for to in range(at):
                far = self.distance(one, texts[to])
                costs[at] += far
                costs[to] += far
        return texts[costs.index(min(costs))]

    def pieces(self, answer):
        text = self.vote(answer["texts"])
        for at in range(0, len(text), 16):
            yield text[at : at + 16]


class Detokenizer:
    def __init__(self):
        rng = random.Random(2)
        self.words = [("\u0120" if rng.random() < 0.6 else "") + "".join(rng.choices("etaoins", k=rng.randint(1, 5))) for _ in range(900)]

    def detokenize(self, tokens):
        text = ""
        for token in tokens:
            word = self.words[token]
            text += " " + word[1:] if word.startswith("\u0120") else word
        return text


class WholeStreamer(Detokenizer):
    def pieces(self, answer):
        tokens, sent = answer["tokens"], 0
        for end in range(CHUNK, len(tokens) + 1, CHUNK):
            text = self.detokenize(tokens[:end])
            yield text[sent:]
            sent = len(text)


class PieceStreamer(Detokenizer):
    def pieces(self, answer):
        tokens = answer["tokens"]
        for end in range(CHUNK, len(tokens) + 1, CHUNK):
            yield self.detokenize(tokens[end - CHUNK : end])


class Model:
    """What the executor runs: native code, and then the tokens that are ready made."""

    def __init__(self, passes):
        import work

        self.forward, self.passes = work.model, passes
        rng = random.Random(6)
        self.answers = []
        for _ in range(8):
            base = rng.choices(ALPHABET, k=LENGTH)
            texts = ["".join(rng.choice(ALPHABET) if rng.random() < 0.2 else letter for letter in base) for _ in range(CANDIDATES)]
            self.answers.append({"texts": texts, "tokens": rng.choices(range(900), k=TOKENS)})

    def generate(self, numbers):
        for _ in range(self.passes):
            self.forward()
        return [self.answers[number % len(self.answers)] for number in numbers]


class Gateway:
    def __init__(self, model, after, together):
        self.model, self.after = model, after
        self.pool, self.together = ThreadPoolExecutor(1), together
        self.asked, self.times, self.served, self.start = [], [], 0, None

    async def answer(self, number):
        loop = asyncio.get_running_loop()
        if self.together == 1:
            return (await loop.run_in_executor(self.pool, self.model.generate, [number]))[0]
        mine = loop.create_future()
        self.asked.append((number, mine))
        if len(self.asked) == self.together:
            batch, self.asked = self.asked, []
            answers = await loop.run_in_executor(self.pool, self.model.generate, [number for number, _ in batch])
            for (_, future), found in zip(batch, answers):
                future.set_result(found)
        return await mine

    async def handle(self, reader, writer):
        while line := await reader.readline():
            answer = await self.answer(json.loads(line)["number"])
            for piece in self.after.pieces(answer):
                writer.write(json.dumps({"delta": piece}).encode() + b"\n")
                await writer.drain()
            writer.write(b"\n")
            await writer.drain()
            self.count()
        writer.close()

    def count(self):
        self.served += 1
        if self.served % CALLERS == 0:
            now = time.perf_counter()
            if self.start:
                self.times.append(now - self.start)
            self.start = now


async def callers(path, count):
    async def call():
        reader, writer = await asyncio.open_unix_connection(path)
        for number in range(count):
            writer.write(b'{"number": %d}\n' % number)
            while (await reader.readline()) != b"\n":
                pass
        writer.close()

    await asyncio.gather(*[call() for _ in range(CALLERS)])


async def serve(gateway, path, count):
    server = await asyncio.start_unix_server(gateway.handle, path)
    peer = await asyncio.create_subprocess_exec(sys.executable, "-E", os.path.abspath(__file__), "callers", path, str(count))
    await peer.wait()
    server.close()
    return gateway.times[2:]


def main():
    variant, kind = sys.argv[1:3]
    if variant == "callers":
        return asyncio.run(callers(kind, int(sys.argv[3])))
    import work

    slow = variant == "slow"
    if kind == "vote":
        after = Voter(plain_distance if slow else bit_distance)
    else:
        after = WholeStreamer() if slow else PieceStreamer()
    healthy = variant == "healthy"
    gateway = Gateway(Model(4 if healthy else 1), after, CALLERS if healthy else 1)
    count = {"slow": {"vote": 100, "stream": 90}, "fixed": {"vote": 170, "stream": 170}, "healthy": {"batch": 150}}[variant][kind]
    with tempfile.TemporaryDirectory() as folder:
        work.tell(asyncio.run(serve(gateway, os.path.join(folder, "gateway"), count)))


main()

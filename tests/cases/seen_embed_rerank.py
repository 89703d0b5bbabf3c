"""An embedding and rerank service: asyncio, HTTP/1.1 with keep-alive, a word piece tokenizer, a native encoder in a pool of threads.
Its clients are threads of a child process, that asks over localhost and tells how long the answers to /embed took.

Injected, in cases named pieces: the tokenizer looks for the longest known piece of every word of every request anew, in Python, in
the worker thread, before the encoder has anything to do: preprocessing-bound. The twin remembers the ids of a word that it has split
before (texts are made of few distinct words), so that the ids, and the vectors made of them, are the same.

Injected, in cases named rerank: the coroutine that answers /rerank scores its documents right there, in the event loop's thread, so
that answers to /embed that are ready, and requests that came in, wait for it: slow-callback. The twin awaits the same scores from
the pool of threads. The reranking client asks as often in both, and the share of its requests is about the same.

healthy-service: words are remembered, only /embed is asked for.
"""

import asyncio
import functools
import hashlib
import http.client
import json
import multiprocessing
import random
import re
import sys
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import work

NEEDS = ""
CASES = {
    "slow-pieces": "slow pieces",
    "slow-rerank": "slow rerank",
    "fixed-pieces": "fixed pieces",
    "fixed-rerank": "fixed rerank",
    "healthy-service": "healthy service",
}
LABEL = {"slow-pieces": ["preprocessing-bound"], "slow-rerank": ["slow-callback"]}
ALSO = {  # the loop waits for requests and for the pool, the clients for answers; the encoder is native
    "slow-pieces": ["cpu-bound-python", "idle-no-work", "waiting", "blocking-io"],
    "slow-rerank": ["native-hot-spot", "idle-no-work", "waiting", "blocking-io"],
    "fixed": ["native-hot-spot", "idle-no-work", "waiting", "blocking-io"],
    "healthy": ["native-hot-spot", "idle-no-work", "waiting", "blocking-io"],
}
WHERE = "pieces|ids_of|encode|longest|normal|rerank|score|route|answer"
MEASURE = "mean"
SYLLABLES = [first + second for first in "bcdfgklmnprstv" for second in "aeiou"]
WORD = re.compile(r"\w+|[^\w\s]")


def lexicon(count, seed):
    draw = random.Random(seed)
    return ["".join(draw.choices(SYLLABLES, k=draw.randint(2, 5))) for _ in range(count)]


class Tokenizer:
    def __init__(self, remember):
        known = SYLLABLES + [part for word in lexicon(900, 2) for part in (word, "##" + word[2:])]
        known += ["##" + part for part in SYLLABLES] + list("abcdefghijklmnopqrstuvwxyz,.!?")
        self.ids = {piece: number for number, piece in enumerate(dict.fromkeys(known))}
        self.ids_of = functools.lru_cache(20_000)(self.pieces) if remember else self.pieces

    @staticmethod
    def normal(word):
        parts = unicodedata.normalize("NFKD", word.lower())
        return "".join(sign for sign in parts if not unicodedata.combining(sign))

    def longest(self, word, start):
        for end in range(len(word), start, -1):
            piece = word[start:end] if start == 0 else "##" + word[start:end]
            if piece in self.ids:
                return self.ids[piece], end
        return 0, len(word)

    def pieces(self, word):
        word, found, start = self.normal(word), [], 0
        while start < len(word):
            number, start = self.longest(word, start)
            found.append(number)
        return tuple(found)

    def encode(self, text):
        ids = []
        for word in WORD.findall(text):
            ids.extend(self.ids_of(word))
        return ids


class Engine:
    def __init__(self, remember):
        self.tokenizer = Tokenizer(remember)

    def embed(self, texts):
        ids = [self.tokenizer.encode(text) for text in texts]
        key = work.model()
        return [[one / 255 for one in hashlib.sha256(f"{key}{row[:512]}".encode()).digest()[:8]] for row in ids]

    def score(self, query, documents):
        """How well each document answers the query, the best first: the cross encoder sees each pair."""
        return sorted(documents, key=lambda text: int(work.model()[:6], 16) ^ len(query + text), reverse=True)


class Service:
    def __init__(self, engine, inline):
        self.engine, self.inline, self.pool = engine, inline, ThreadPoolExecutor(2, "engine")

    def offload(self, call, *given):
        return asyncio.get_running_loop().run_in_executor(self.pool, call, *given)

    async def rerank(self, asked):
        if self.inline:
            return {"order": self.engine.score(asked["query"], asked["documents"])}
        return {"order": await self.offload(self.engine.score, asked["query"], asked["documents"])}

    async def route(self, path, asked):
        if path == "/rerank":
            return await self.rerank(asked)
        return {"vectors": await self.offload(self.engine.embed, asked["texts"])}

    async def answer(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                size = int(re.search(r"(?i)content-length: *(\d+)", head)[1])
                told = json.dumps(await self.route(head.split()[1], json.loads(await reader.readexactly(size)))).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(told) + told)
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()


def ask(link, path, asked):
    link.request("POST", path, json.dumps(asked))
    return json.loads(link.getresponse().read())


def keep_reranking(port, over):
    link, documents = http.client.HTTPConnection("127.0.0.1", port), lexicon(3, 9)
    while not over.is_set():
        ask(link, "/rerank", {"query": "bade", "documents": documents})
        time.sleep(0.006)


def clients(port, kind, count):
    """The child process: asks for embeddings one after the other, and besides, in another thread, for rankings."""
    over, words, draw = threading.Event(), lexicon(1500, 4), random.Random(3)
    ranking = threading.Thread(target=keep_reranking, args=(port, over))
    texts = [[" ".join(draw.choices(words, k=130)) + "." for _ in range(8)] for _ in range(20)]
    if kind == "rerank":
        ranking.start()
        texts = [[some[0][:200]] for some in texts]
    link = http.client.HTTPConnection("127.0.0.1", port)
    work.run(lambda number: ask(link, "/embed", {"texts": texts[number % len(texts)]}), count, warm=20)
    over.set()
    if kind == "rerank":
        ranking.join()


async def serve(variant, kind, count):
    slow = variant == "slow"
    service = Service(Engine(remember=not (slow and kind == "pieces")), inline=slow and kind == "rerank")
    server = await asyncio.start_server(service.answer, "127.0.0.1", 0)
    port, over = server.sockets[0].getsockname()[1], asyncio.Event()
    child = multiprocessing.get_context("spawn").Process(target=clients, args=(port, kind, count))
    child.start()
    asyncio.get_running_loop().add_reader(child.sentinel, over.set)
    await over.wait()
    asyncio.get_running_loop().remove_reader(child.sentinel)
    child.join()
    await asyncio.sleep(0.02)  # for the last connections to be closed
    server.close()


def main():
    asyncio.run(serve(*sys.argv[1:3], count=260 if sys.argv[1] == "slow" else 560))


if __name__ == "__main__":
    main()

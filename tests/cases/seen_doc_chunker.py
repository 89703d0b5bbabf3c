"""The ingest of a document search: a reader thread, a chunker thread and an embedder (main), with queues between them.

Injected, in cases named window: chunks are windows of sentences that overlap, and the chunker works out each sentence anew for
each window in which it stands (its tokens, their shapes, scripts, weights, whether it is a heading...): Python code over half a
dozen of small functions, none of which is much by itself, in the chunker thread, for which the embedder waits: preprocessing-
bound. The twin works out each sentence once per document and builds the windows of these; the chunks are the same.

Injected, in cases named upsert: the embedder hands the vectors to a thread of uploaders and waits for its answer
(`Future.result`), which is there once the vector store (a sleep stands in for it) has acknowledged, 9 ms later; nothing else
needs it: waiting. The twin keeps up to eight uploads under way and looks at the oldest answer when there are more. Documents,
chunks, vectors and acknowledgements are the same.

healthy-ingest: sentences once, uploads under way, short documents.
"""

import hashlib
import queue
import sys
import threading
import time
import unicodedata
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import work

NEEDS = ""
CASES = {
    "slow-window": "slow window",
    "slow-upsert": "slow upsert",
    "fixed-window": "fixed window",
    "fixed-upsert": "fixed upsert",
    "healthy-ingest": "healthy ingest",
}
LABEL = {"slow-window": ["preprocessing-bound", "cpu-bound-python"], "slow-upsert": ["waiting"]}
ALSO = {
    "slow-window": ["preprocessing-bound", "cpu-bound-python", "waiting"],  # the embedder waits for the chunker
    "slow-upsert": ["blocking-io", "native-hot-spot"],  # the uploader's store; the model
    "fixed": ["native-hot-spot", "waiting", "idle-no-work", "blocking-io"],  # the model; other threads wait for room and for answers
    "healthy": ["native-hot-spot", "waiting", "idle-no-work", "blocking-io"],
}
WHERE = (
    "fold|letters|shape|weight|heading|digits|Sentence|analyse|window|chunk|Chunker"
    "|result|upsert|upload|settle|acknowledge|wait|get"
)
MEASURE = "mean"
LATENCY_S = 0.009
SPAN = 12  # sentences to a window; the next begins one later
STOP = frozenset("the of and to in a is that for it as was with be by on not he his but at are this have".split())
WORDS = "the model of Serving and Tokens in batch-size a 2024 cache is Großraum that été 17.5 ms for it Queue was λ-calculus slow".split()


class Sentence(NamedTuple):
    words: tuple
    shapes: str
    scripts: int
    weight: float
    heading: bool


def fold(word):
    return unicodedata.normalize("NFKC", word).casefold()


def letters(word):
    return sum(1 for sign in word if sign.isalpha())


def digits(word):
    return any(sign.isdigit() for sign in word)


def shape(word):
    if digits(word):
        return "d"
    return "X" if word[:1].isupper() else "x" if letters(word) == len(word) else "-"


def weight(word):
    return 0.1 if word in STOP else 1.0 + letters(word) / 16


def heading(shapes):
    return shapes.count("X") * 2 > len(shapes)


def analyse(text):
    raw = text.split()
    words = tuple(fold(word) for word in raw)
    shapes = "".join(shape(word) for word in raw)
    scripts = 0
    for word in words:
        scripts |= 1 << (ord(word[0]) >> 7 & 7)
    return Sentence(words, shapes, scripts, sum(weight(word) for word in words), heading(shapes))


class Chunker(threading.Thread):
    def __init__(self, inbox, outbox, anew):
        super().__init__(name="chunker", daemon=True)
        self.inbox, self.outbox, self.anew = inbox, outbox, anew

    def windows(self, texts):
        known = None if self.anew else [analyse(text) for text in texts]
        for start in range(len(texts) - SPAN + 1):
            yield known[start : start + SPAN] if known else [analyse(text) for text in texts[start : start + SPAN]]

    def chunk(self, sentences):
        body = " ".join(" ".join(sentence.words) for sentence in sentences)
        marks = "".join(sentence.shapes[0] for sentence in sentences)
        return f"{marks}|{sum(sentence.weight for sentence in sentences):.2f}|{body}"

    def run(self):
        while (texts := self.inbox.get()) is not None:
            self.outbox.put([self.chunk(sentences) for sentences in self.windows(texts)])
        self.outbox.put(None)


def upload(vector):
    """Runs in an uploader: the vector store answers after a while."""
    time.sleep(LATENCY_S)
    return f"{vector}:{zlib.crc32(vector.encode()):08x}".encode()


class Ingest:
    def __init__(self, anew, ahead, sentences):
        self.texts, self.chunks = queue.Queue(4), queue.Queue(4)
        self.chunker = Chunker(self.texts, self.chunks, anew)
        self.ahead, self.sentences = ahead, sentences
        self.uploaders, self.pending = ThreadPoolExecutor(8, "uploader"), deque()
        self.seal, self.acks = hashlib.sha256(), hashlib.sha256()

    def read(self, count):
        """The reader thread: documents, as they come from a crawl."""
        for number in range(count):
            step = 1 + number % 5
            self.texts.put([" ".join(WORDS[(at * step + word) % len(WORDS)] for word in range(9)) for at in range(self.sentences)])
        self.texts.put(None)

    def embed(self, chunks):
        self.seal.update("\n".join(chunks).encode())
        return work.model()

    def upsert(self, vector):
        self.pending.append(self.uploaders.submit(upload, vector))
        self.settle(self.ahead)

    def settle(self, most):
        while len(self.pending) > most:
            self.acks.update(self.pending.popleft().result())

    def run(self, count):
        threading.Thread(target=self.read, args=(count,), name="reader", daemon=True).start()
        self.chunker.start()
        times, start = [], time.perf_counter()
        while (chunks := self.chunks.get()) is not None:
            self.upsert(self.embed(chunks))
            now = time.perf_counter()
            times.append(now - start)
            start = now
        self.settle(0)
        print(self.seal.hexdigest()[:16], self.acks.hexdigest()[:16], file=sys.stderr)
        work.tell(times[2:])


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    if kind == "window":
        Ingest(anew=slow, ahead=8, sentences=44).run(200 if slow else 500)
    elif kind == "upsert":
        Ingest(anew=False, ahead=0 if slow else 8, sentences=18).run(200 if slow else 600)
    else:
        Ingest(anew=False, ahead=8, sentences=18).run(700)


if __name__ == "__main__":
    main()

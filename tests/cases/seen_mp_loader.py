"""Producer and consumer by multiprocessing: a loader process fills a queue, the parent takes batches and infers.

Injected: the loader merges the pairs of each word's letters anew, in Python, and is slower than the model, which waits for it. The
twin's loader remembers the pieces of words it has seen. What is slow is the loader's Python; that the parent waits is true too.
"""

import hashlib
import multiprocessing
import re
import sys
import time

import work

CASES = {
    "slow-140": "slow 140",
    "slow-240": "slow 240",
    "fixed-140": "fixed 140",
    "fixed-240": "fixed 240",
}
LABEL = ["cpu-bound-python", "preprocessing-bound"]
ALSO = ["waiting", "blocking-io"]
MEASURE = "mean"
WHERE = "merge|loader|encode"
MERGES = {pair: rank for rank, pair in enumerate(["w1", "w2", "w3", "12", "23", "45", "w12", "w23"])}
WORD = re.compile(r"\w+")


def merge(word):
    pieces = list(word)
    while len(pieces) > 1:
        ranked = [(MERGES.get(pieces[at] + pieces[at + 1], 1000), at) for at in range(len(pieces) - 1)]
        rank, at = min(ranked)
        if rank == 1000:
            break
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return [hash(piece) & 0xFFFF for piece in pieces]


def encode_anew(text):
    return [token for word in WORD.findall(text) for token in merge(word)]


def encode_known(text, known={}):
    tokens = []
    for word in WORD.findall(text):
        if word not in known:
            known[word] = merge(word)
        tokens += known[word]
    return tokens


def loader(queue, count, words, encode):
    text = " ".join(f"w{at * 31 % 600}" for at in range(words))
    for _ in range(count):
        queue.put([encode(text) for _ in range(8)])
    queue.put(None)


class Model:
    def __init__(self):
        self.weights = hashlib.shake_128(b"weights").digest(1 << 16)

    def forward(self, batch):
        state = b""
        for tokens in batch:
            state = hashlib.pbkdf2_hmac("sha256", self.weights[: len(tokens)], state or b"0", 700)
        return state


def main():
    variant, words = sys.argv[1], int(sys.argv[2])
    context = multiprocessing.get_context("fork")
    queue = context.Queue(4)
    count = {"slow": {140: 300, 240: 130}[words], "fixed": 600}[variant]
    process = context.Process(target=loader, args=(queue, count, words, encode_anew if variant == "slow" else encode_known))
    process.start()
    model, times, start = Model(), [], time.perf_counter()
    while (batch := queue.get()) is not None:
        model.forward(batch)
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
    process.join()
    work.tell(times[5:])


if __name__ == "__main__":
    main()

"""A decode loop like that of an inference engine: slots of running sequences, paged keys and values, top-k sampling, detokenisation of
bytes that may be half a character, and a ledger of candidates for those who asked for log probabilities.

Injected, in cases named blocks: each time that a sequence ends (in one of ten steps), the pages in use are moved to the front of the
pool, one after the other, layer for layer, so that free ones are together: step-jitter. The twin has a free list and moves none: where
a page lies does not matter, as it is read by its number.

Injected, in cases named ledger: candidates that were shipped stay in the ledger, with distributions, and each step looks through all for
those not shipped, so that steps become slower and the process larger: memory-growth. The twin drops them; the same is shipped.

healthy-decode: a free list, no ledger.
"""

import codecs
import os
import sys
import zlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # rows are few

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-blocks": "slow blocks",
    "fixed-blocks": "fixed blocks",
    "slow-ledger": "slow ledger",
    "fixed-ledger": "fixed ledger",
    "healthy-decode": "healthy decode",
}
LABEL = {"slow-blocks": ["step-jitter"], "slow-ledger": ["memory-growth"]}
ALSO = {
    "slow-blocks": ["host-copies", "small-batches", "cpu-bound-python", "native-hot-spot", "preprocessing-bound"],
    "slow-ledger": ["cpu-bound-python", "preprocessing-bound", "gc-pressure", "native-hot-spot", "host-copies", "small-batches"],
    # pages are gathered, slots are looped over, sampling takes a quarter
    "fixed": ["native-hot-spot", "cpu-bound-python", "small-batches", "host-copies", "preprocessing-bound"],
    "healthy": ["native-hot-spot", "cpu-bound-python", "small-batches", "host-copies", "preprocessing-bound"],
}
WHERE = "defragment|release|move|compact|admit|pending|ship|record|unshipped|Ledger|Entry"
MEASURE = "p99"
SLOTS, LAYERS, WIDTH, PAGE, VOCABULARY, POOL, PROMPT, LIFE = 6, 2, 64, 16, 4000, 420, 900, 60


class Pages:
    """Keys and values of all sequences: pages of a pool, that a sequence refers to by number."""

    def __init__(self, moving):
        draw = np.random.default_rng(1)
        self.keys, self.values = draw.standard_normal((2, LAYERS, POOL, PAGE, WIDTH), dtype=np.float32)
        self.prompt, self.seen = self.keys[0, : -(-PROMPT // PAGE)].copy(), np.zeros((2, 80, PAGE, WIDTH), np.float32)
        self.free, self.moving = list(range(POOL - 1, -1, -1)), moving

    def prefill(self, sequence):
        sequence.table = [self.free.pop() for _ in range(-(-PROMPT // PAGE))]
        for store in (self.keys, self.values):
            store[:, sequence.table] = self.prompt * np.float32(sequence.seed / 40)

    def append(self, layer, sequences, hidden):
        for sequence in sequences:
            if sequence.length // PAGE == len(sequence.table):
                sequence.table.append(self.free.pop())
        at = [sequence.table[-1] for sequence in sequences], [sequence.length % PAGE for sequence in sequences]
        self.keys[layer, *at], self.values[layer, *at] = hidden, -hidden

    def gather(self, layer, sequence):
        for store, out in zip((self.keys, self.values), self.seen):
            np.take(store[layer], sequence.table, axis=0, out=out[: len(sequence.table)], mode="clip")
            yield out.reshape(-1, WIDTH)[: sequence.length]

    def release(self, sequence, running):
        self.free.extend(sequence.table)
        if self.moving:
            self.defragment(running)

    def defragment(self, running):
        tables = [(sequence, at) for sequence in running for at in range(len(sequence.table))]
        for store in (self.keys, self.values):
            for layer in range(LAYERS):
                old = store[layer].copy()
                for place, (sequence, at) in enumerate(tables):
                    store[layer, place] = old[sequence.table[at]]
        for place, (sequence, at) in enumerate(tables):
            sequence.table[at] = place
        self.free = list(range(POOL - 1, len(tables) - 1, -1))


class Sequence:
    def __init__(self, number, age=0):
        self.seed, self.table, self.length, self.left, self.token = number % 37 + 1, [], PROMPT, LIFE - age, number % VOCABULARY
        self.decoder, self.text = codecs.getincrementaldecoder("utf-8")("replace"), ""


class Entry:
    """A candidate, with the distribution that it was drawn from."""

    __slots__ = ("token", "chance", "nearby", "shipped")

    def __init__(self, token, chance, nearby):
        self.token, self.chance, self.nearby, self.shipped = token, chance, nearby, False

    def unshipped(self):
        return not self.shipped


class Ledger:
    def __init__(self, keep):
        self.keep, self.entries, self.sum = keep, [], 0

    def record(self, tokens, chances):
        for token in tokens:
            self.entries.append(Entry(int(token), float(chances[token]), chances[:160].copy()))

    def ship(self):
        pending = [entry for entry in self.entries if entry.unshipped()]
        for entry in pending:
            self.sum = zlib.crc32(b"%d:%d" % (entry.token, int(entry.chance * 1e6)), self.sum)
            entry.shipped = True
        if not self.keep:
            self.entries.clear()


class Decoder:
    def __init__(self, pages, ledger):
        draw = np.random.default_rng(4)
        self.pages, self.ledger, self.draw = pages, ledger, np.random.default_rng(7)
        self.embedding = draw.standard_normal((VOCABULARY, WIDTH), dtype=np.float32)
        self.mix = draw.standard_normal((LAYERS, WIDTH, WIDTH), dtype=np.float32) / 8
        self.bytes = ["é".encode()[:1], "é".encode()[1:]] + [bytes([at % 94 + 33]) for at in range(VOCABULARY - 2)]
        self.count, self.running = 0, []
        for age in range(0, LIFE, LIFE // SLOTS):
            self.admit(age)

    def admit(self, age=0):
        self.count += 1
        self.running.append(Sequence(self.count, age))
        self.pages.prefill(self.running[-1])

    def attend(self, layer, hidden, sequence):
        keys, values = self.pages.gather(layer, sequence)
        weights = keys @ hidden / 8
        weights = np.exp(weights - weights.max())
        return weights @ values / weights.sum()

    def forward(self):
        hidden = self.embedding[[sequence.token for sequence in self.running]]
        for layer in range(LAYERS):
            self.pages.append(layer, self.running, hidden)
            seen = np.stack([self.attend(layer, row, sequence) for row, sequence in zip(hidden, self.running)])
            hidden = np.tanh(hidden + seen @ self.mix[layer])
        return hidden @ self.embedding.T / 6

    def sample(self, logits, top=8):
        best = np.argpartition(logits, -top)[-top:]
        chances = np.exp(logits - logits[best].max())
        chances /= chances.sum()
        return best, chances, best[self.draw.choice(top, p=chances[best] / chances[best].sum(dtype=np.float64))]

    def step(self, number):
        for sequence, logits in zip(list(self.running), self.forward()):
            best, chances, sequence.token = self.sample(logits)
            sequence.text += sequence.decoder.decode(self.bytes[sequence.token])
            sequence.left, sequence.length = sequence.left - 1, sequence.length + 1
            if self.ledger:
                self.ledger.record(best, chances)
            if not sequence.left:
                self.running.remove(sequence)
                self.pages.release(sequence, self.running)
                self.admit()
        if self.ledger:
            self.ledger.ship()


def main():
    variant, kind = sys.argv[1:3]
    decoder = Decoder(Pages(moving=variant == "slow" and kind == "blocks"), Ledger(keep=variant == "slow") if kind == "ledger" else None)
    work.run(decoder.step, {"slow-ledger": 1300, "slow-blocks": 1300}.get(f"{variant}-{kind}", 2200), warm=20)


if __name__ == "__main__":
    main()

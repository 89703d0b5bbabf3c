"""A model server on a unix socket, one request after another; its client is a process of its own that keeps a few requests in flight.
Each prompt is cut into tokens by byte pair encoding in Python before the model, native code, gets it.

Injected, in cases named merges: every word of every prompt goes through the loop of merges again. The twin remembers what became of a
word, as the tokenizer of GPT-2 does. In cases named chat: words are remembered, but at each turn the whole conversation is rendered and
encoded again, with the offsets of each token; the twin keeps the tokens of the turns before and encodes the new turn only. The model
waits behind Python, the one processor that both need is busy with Python: both ids are right.

Case healthy-short: short prompts, words remembered, a larger model.
"""

import itertools
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time

CASES = {
    "slow-merges": "slow merges",
    "slow-chat": "slow chat",
    "fixed-merges": "fixed merges",
    "fixed-chat": "fixed chat",
    "healthy-short": "healthy short",
}
LABEL = {"slow": ["preprocessing-bound", "cpu-bound-python"]}
ALSO = {"slow": [], "fixed": [], "healthy": ["native-hot-spot"]}
WHERE = "bpe|merge|encode|pairs|render|prompt|prepare"
WINDOW = 4
WORDS = {"merges": 180, "chat": 320, "short": 30}
TURNS = 14
SPLIT = re.compile(r"<\|\w+\|>| ?\w+|[^\s\w]+|\s+")


def vocabulary():
    rng = random.Random(3)
    parts = [a + b for a in "bdfklmnprst" for b in ("a", "e", "i", "o", "u", "an", "er", "ion")]
    return ["".join(rng.choices(parts, k=rng.randint(3, 6))) for _ in range(1500)]


def texts(kind, count):
    """What the users write: few words often, many words seldom."""
    rng, words = random.Random(8), vocabulary()
    weights = [1 / (rank + 5) for rank in range(len(words))]
    return [" ".join(rng.choices(words, weights, k=WORDS[kind])) + "?" for _ in range(count)]


def learn(words, count):
    """The merges, most frequent pair first."""
    spelled, ranks = [list(" " + word) for word in words], {}
    for rank in range(count):
        seen = {}
        for symbols in spelled:
            for pair in zip(symbols, symbols[1:]):
                seen[pair] = seen.get(pair, 0) + 1
        best = max(seen, key=lambda pair: (seen[pair], pair))
        ranks[best] = rank
        spelled = [merge(symbols, best) for symbols in spelled]
    return ranks


def merge(symbols, pair):
    first, second = pair
    out, at = [], 0
    while at < len(symbols):
        if at + 1 < len(symbols) and symbols[at] == first and symbols[at + 1] == second:
            out.append(first + second)
            at += 2
        else:
            out.append(symbols[at])
            at += 1
    return out


class Tokenizer:
    def __init__(self, remember):
        self.ranks = learn(vocabulary()[:250], 120)
        self.known = {} if remember else None
        self.ids = {}

    def bpe(self, word):
        symbols = list(word)
        while len(symbols) > 1:
            pairs = set(zip(symbols, symbols[1:]))
            best = min(pairs, key=lambda pair: self.ranks.get(pair, 1 << 30))
            if best not in self.ranks:
                break
            symbols = merge(symbols, best)
        return symbols

    def pieces(self, word):
        if self.known is None:
            return self.bpe(word)
        found = self.known.get(word)
        if found is None:
            found = self.known[word] = self.bpe(word)
        return found

    def encode(self, text, base=0):
        tokens = []
        for match in SPLIT.finditer(text):
            start = base + match.start()
            for piece in self.pieces(match.group()):
                tokens.append((self.ids.setdefault(piece, len(self.ids)), start, start + len(piece)))
                start += len(piece)
        return tokens


def render(turns):
    return "".join(f"<|user|>\n{text}<|end|>\n" for text in turns)


class Chat:
    """A conversation, encoded from its start at every turn."""

    def __init__(self, tokenizer):
        self.tokenizer, self.turns = tokenizer, []

    def prompt(self, text):
        if len(self.turns) == TURNS:
            self.turns.clear()
        self.turns.append(text)
        return self.tokenizer.encode(render(self.turns))


class KeptChat(Chat):
    """The same conversation; what was encoded stays."""

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        self.tokens, self.length = [], 0

    def prompt(self, text):
        if len(self.turns) == TURNS:
            self.turns.clear()
            self.tokens, self.length = [], 0
        self.turns.append(text)
        piece = render([text])
        self.tokens += self.tokenizer.encode(piece, self.length)
        self.length += len(piece)
        return self.tokens


class Server:
    def __init__(self, variant, kind):
        import work

        self.model, self.passes = work.model, 3 if variant == "healthy" else 1
        self.tokenizer = Tokenizer(remember=not (variant == "slow" and kind == "merges"))
        chat = Chat if variant == "slow" else KeptChat
        self.chats = [chat(self.tokenizer) for _ in range(3)] if kind == "chat" else None

    def prepare(self, request):
        if self.chats:
            return self.chats[request["chat"] % len(self.chats)].prompt(request["text"])
        return self.tokenizer.encode(request["text"])

    def answer(self, line):
        tokens = self.prepare(json.loads(line))
        for _ in range(self.passes):
            text = self.model()
        return json.dumps({"text": text, "tokens": len(tokens)}).encode() + b"\n"

    def serve(self, listener):
        times = []
        link, _ = listener.accept()
        with link, link.makefile("rb") as lines:
            start = time.perf_counter()
            for line in lines:
                link.sendall(self.answer(line))
                now = time.perf_counter()
                times.append(now - start)
                start = now
        return times[WINDOW:]


def client(path, kind, count):
    link = socket.socket(socket.AF_UNIX)
    link.connect(path)
    source = itertools.cycle(texts(kind, 40))
    lines = link.makefile("rb")
    for number in range(count + WINDOW):
        if number >= WINDOW:
            lines.readline()
        if number < count:
            link.sendall(json.dumps({"chat": number, "text": next(source)}).encode() + b"\n")
    link.close()
    lines.close()


def main():
    variant, kind = sys.argv[1:3]
    if variant == "client":
        return client(sys.argv[3], kind, int(sys.argv[4]))
    import work

    count = {"slow": {"merges": 300, "chat": 320}, "fixed": {"merges": 700, "chat": 700}, "healthy": {"short": 260}}[variant][kind]
    server = Server(variant, kind)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = os.path.join(folder, "model")
        listener.bind(path)
        listener.listen(1)
        peer = subprocess.Popen([sys.executable, "-E", os.path.abspath(__file__), "client", kind, path, str(count)])
        work.tell(server.serve(listener))
        peer.wait()


main()

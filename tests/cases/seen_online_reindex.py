"""A service that learns as it answers: it searches an index of answers, and puts what it learns into it.

Injected, in cases named reindex: what was learnt waits in a list, and each 50th request builds the whole index anew; the twin adds
each answer to the index at once. In cases named checkpoint: each 40th request writes all of the state, packed and synced, to the disk;
the twin appends each answer to a journal, and syncs that each 40th request. One request in so many is long: the mean tells it.
"""

import collections
import hashlib
import json
import os
import pickle
import sys
import tempfile
import zlib

import work

CASES = {
    "slow-reindex": "slow reindex",
    "slow-checkpoint": "slow checkpoint",
    "fixed-reindex": "fixed reindex",
    "fixed-checkpoint": "fixed checkpoint",
}
LABEL = {"slow": ["step-jitter"]}
ALSO = {
    "slow-reindex": ["cpu-bound-python", "preprocessing-bound"],
    "slow-checkpoint": ["blocking-io", "native-hot-spot", "waiting"],
    "fixed-checkpoint": ["step-jitter", "blocking-io", "waiting", "native-hot-spot"],  # it still syncs in each 40th step
    "fixed": ["native-hot-spot"],
}
WHERE = "build|index|checkpoint|save|dump|compress|sync|learn"
MEASURE = "mean"
EVERY = {"reindex": 50, "checkpoint": 40}


class Index:
    def __init__(self):
        self.answers, self.waiting = [], []
        self.words = {}

    def build(self):
        """The index of all answers, anew."""
        self.answers += self.waiting
        self.waiting = []
        words = collections.defaultdict(list)
        for number, answer in enumerate(self.answers):
            for word in answer.split():
                words[word].append(number)
        self.words = dict(words)

    def add(self, answer):
        for word in answer.split():
            self.words.setdefault(word, []).append(len(self.answers))
        self.answers.append(answer)

    def search(self, question):
        votes = collections.Counter()
        for word in question.split():
            votes.update(self.words.get(word, ())[-30:])
        return votes.most_common(1)[0][0] if votes else 0


class Journal:
    def __init__(self, folder):
        self.file = open(os.path.join(folder, "journal.jsonl"), "w")

    def learnt(self, answer):
        self.file.write(json.dumps({"answer": answer}) + "\n")

    def sync(self):
        self.file.flush()
        os.fsync(self.file.fileno())


class Service:
    def __init__(self, kind, slow, folder):
        self.kind, self.slow, self.folder, self.asked = kind, slow, folder, 0
        self.index, self.journal = Index(), Journal(folder)
        self.index.waiting = [self.text(number) for number in range(8000)]
        self.index.build()

    def text(self, number):
        return " ".join(f"term{(number * step + step) % 900}" for step in range(1, 16)) + f" n{number}"

    def checkpoint(self):
        path = os.path.join(self.folder, "state")
        with open(path + ".new", "wb") as file:
            file.write(zlib.compress(pickle.dumps((self.index.answers, self.index.words)), 2))
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)

    def learn(self, answer):
        if self.slow and self.kind == "reindex":
            self.index.waiting.append(answer)
        else:
            self.index.add(answer)
        if not self.slow and self.kind == "checkpoint":
            self.journal.learnt(answer)

    def tend(self):
        """Once in so many requests."""
        if self.kind == "reindex":
            if self.slow:
                self.index.build()
        elif self.slow:
            self.checkpoint()
        else:
            self.journal.sync()

    def answer(self, number):
        question = self.text(number * 7)
        best = self.index.answers[self.index.search(question)]
        state = hashlib.pbkdf2_hmac("sha256", best.encode(), b"rank", 1200)
        self.learn(f"{question} {state[:4].hex()}")
        self.asked += 1
        if self.asked % EVERY[self.kind] == 0:
            self.tend()


def main():
    variant, kind = sys.argv[1], sys.argv[2]
    with tempfile.TemporaryDirectory() as folder:
        service = Service(kind, variant == "slow", folder)
        work.run(service.answer, {"slow": {"reindex": 2800, "checkpoint": 1500}[kind], "fixed": 4500}[variant])


main()

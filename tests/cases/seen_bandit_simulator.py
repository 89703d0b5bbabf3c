"""An online learner: a linear bandit picks offers for visitors of a simulated shop, learns from what they do, and looks ahead with
trees of possible visits. Its state grows as it meets new offers.

Injected, in cases named journal: what happened is kept in a journal to judge the latest of it (drift within the last hundred
visits); the entries that are too old are left out of the judgement, but never of the journal, so that memory grows and the filter
takes longer with each step: memory-growth. The twin's journal drops them (a deque); what is judged is the same.

Injected, in cases named episode: the nodes of a look-ahead refer to their parents, thus are garbage in cycles, and the episode calls
`gc.collect()` at its end, to hold memory low; this goes through all of the learner's state each time: gc-pressure. The twin
cuts the parents off at the end of an episode, so that nodes are freed by their count, and does not collect. Same trees, same picks.

healthy-learn: journal as a deque, no look-ahead.
"""

import collections
import gc
import os
import random
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-journal": "slow journal",
    "slow-episode": "slow episode",
    "fixed-journal": "fixed journal",
    "fixed-episode": "fixed episode",
    "healthy-learn": "healthy learn",
}
LABEL = {"slow-journal": ["memory-growth"], "slow-episode": ["gc-pressure"]}
ALSO = {
    "slow-journal": ["cpu-bound-python", "preprocessing-bound", "native-hot-spot", "page-faults"],  # the filter; what is new is touched
    "slow-episode": ["cpu-bound-python", "preprocessing-bound", "native-hot-spot"],  # trees in Python; the collector is native
    "fixed-journal": ["native-hot-spot", "cpu-bound-python", "preprocessing-bound"],
    "fixed-episode": ["native-hot-spot", "cpu-bound-python", "preprocessing-bound"],
    "healthy": ["native-hot-spot", "cpu-bound-python", "preprocessing-bound"],
}
WHERE = "recent|Journal|keep|drift|Episode|__exit__|collect|look_ahead|listcomp"
MEASURE = "mean"
WIDTH, OFFERS, VISITS, LATEST = 128, 8000, 8, 100


class Offer:
    """An arm, with the counts of its outcomes by hour."""

    __slots__ = ("name", "place", "hours", "tags")

    def __init__(self, name, place):
        self.name, self.place, self.hours, self.tags = name, place, {"shown": 0, "taken": [name]}, [place % 7, [name]]


class Entry:
    __slots__ = ("visit", "offer", "reward", "beside")

    def __init__(self, visit, offer, reward, beside):
        """`beside`: features of what was shown beside the offer."""
        self.visit, self.offer, self.reward, self.beside = visit, offer, reward, beside


class Journal:
    def __init__(self):
        self.entries = []

    def keep(self, entry):
        self.entries.append(entry)

    def recent(self, visit):
        return [entry for entry in self.entries if visit - entry.visit < LATEST]


class RollingJournal(Journal):
    def __init__(self):
        self.entries = collections.deque()

    def recent(self, visit):
        while self.entries and visit - self.entries[0].visit >= LATEST:
            self.entries.popleft()
        return list(self.entries)


class Node:
    def __init__(self, parent, offer, value):
        self.parent, self.offer, self.value, self.children = parent, offer, value, []


class Episode:
    """What is imagined of the visits of one session: trees, gone after it."""

    def __init__(self, collecting):
        self.collecting, self.nodes = collecting, []

    def __enter__(self):
        return self

    def add(self, parent, offer, value):
        node = Node(parent, offer, value)
        if parent is not None:
            parent.children.append(node)
        self.nodes.append(node)
        return node

    def __exit__(self, *error):
        if self.collecting:
            self.nodes.clear()
            gc.collect()
        else:
            for node in self.nodes:
                node.parent = None
            self.nodes.clear()


class Learner:
    def __init__(self, journal, collecting=None):
        self.journal, self.collecting = journal, collecting
        self.weights, self.spread = np.zeros(WIDTH), np.eye(WIDTH)
        self.offers = {place: Offer(f"offer-{place}", place) for place in range(OFFERS)}
        self.draw, self.features = random.Random(4), np.random.default_rng(3).standard_normal((512, WIDTH)) / 8
        self.told = 0.0

    def pick(self, visit):
        shown = self.features[(visit * 11 + np.arange(48)) % len(self.features)]
        bonus = np.sqrt(np.einsum("ij,jk,ik->i", shown, self.spread, shown, optimize=True))
        best = int(np.argmax(shown @ self.weights + 0.3 * bonus))
        return shown[best], shown, (visit * 48 + best) % OFFERS

    def learn(self, features, reward):
        """Sherman-Morrison, and a step to the reward."""
        along = self.spread @ features
        self.spread -= np.outer(along, along) / (1 + features @ along)
        self.weights += (self.spread @ features) * (reward - features @ self.weights)

    def drift(self, visit):
        entries = self.journal.recent(visit)
        rewards = np.array([entry.reward for entry in entries])
        return float(rewards.mean() - np.median(rewards))

    def look_ahead(self, episode, visit, value):
        """The best value of a tree of 85 picks, four at a time."""
        layer = [episode.add(None, visit % OFFERS, value)]
        for depth in range(3):
            grow = lambda node, at: episode.add(node, (node.offer * 4 + at) % OFFERS, node.value * 0.9 + at / (depth + 3))
            layer = [grow(node, at) for node in layer for at in range(4)]
        best = max(layer, key=lambda node: node.value)
        while best.parent.parent is not None:
            best = best.parent
        return best.value

    def session(self, number):
        with Episode(self.collecting) as episode:
            for visit in range(number * VISITS, (number + 1) * VISITS):
                self.visit(visit, episode)

    def visit(self, visit, episode):
        features, shown, place = self.pick(visit)
        offer = self.offers[place]
        offer.hours["shown"] += 1
        reward = float(features[:8].sum() + self.draw.gauss(0, 0.2))
        self.learn(features, reward)
        if self.collecting is None:
            self.journal.keep(Entry(visit, offer, reward, shown[:8].copy()))
            self.told += self.drift(visit)
        else:
            self.told += self.look_ahead(episode, place, reward)


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    learner = Learner(Journal() if slow else RollingJournal(), collecting=slow if kind == "episode" else None)
    work.run(learner.session, {"journal": 1200, "episode": 600 if slow else 1000, "learn": 1500}[kind])


if __name__ == "__main__":
    main()

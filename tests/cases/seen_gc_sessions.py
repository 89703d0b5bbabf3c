"""A beam search over dataclasses that know their parents and children, in a service that holds many sessions.

Injected: every request drops a tree of nodes that refer to each other, and `gc.collect()` is called after each request to keep
memory down (as many services do). The heap of sessions is looked through each time. The twin freezes the sessions after loading
and lets nodes know only their parents, so that reference counts free them, and does not call the collector.
"""

import gc
import hashlib
import sys
from dataclasses import dataclass, field

import work

CASES = {
    "slow-4000": "slow 4000",
    "slow-20000": "slow 20000",
    "fixed-4000": "fixed 4000",
    "fixed-20000": "fixed 20000",
}
LABEL = ["gc-pressure"]
WHERE = "collect|handle"
ALSO = []


@dataclass
class Turn:
    role: str
    words: list


@dataclass
class Session:
    user: str
    turns: list = field(default_factory=list)
    labels: dict = field(default_factory=dict)


@dataclass
class Node:
    token: int
    score: float
    parent: "Node | None" = None
    children: list = field(default_factory=list)


class Service:
    def __init__(self, sessions, tidy):
        self.tidy = tidy
        self.sessions = {
            f"user{at}": Session(f"user{at}", [Turn("user", [f"w{at}", "b"]), Turn("bot", ["c", [at]])], {"n": [at]}) for at in range(sessions)
        }
        if tidy:
            gc.collect()
            gc.freeze()

    def search(self, start):
        root = Node(start, 0.0)
        beam = [root]
        for depth in range(6):
            grown = []
            for node in beam:
                for branch in range(4):
                    child = Node(node.token * 31 + branch & 1023, node.score + branch * 0.3, node)
                    if not self.tidy:
                        node.children.append(child)
                    grown.append(child)
            grown.sort(key=lambda node: -node.score)
            beam = grown[:6]
        return beam[0]

    def handle(self, number):
        best = self.search(number)
        hashlib.pbkdf2_hmac("sha256", b"%d" % best.token, b"model", 9000)
        if not self.tidy:
            gc.collect()


def main():
    variant, sessions = sys.argv[1], int(sys.argv[2])
    service = Service(sessions, tidy=variant == "fixed")
    work.run(service.handle, {"slow": {4000: 180, 20000: 60}[sessions], "fixed": 350}[variant])


main()

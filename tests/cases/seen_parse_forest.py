"""A reader of contracts: clauses are parsed into trees whose nodes know their parents, then each clause is judged by a model.

Injected, in cases named sweep: a decorator on each stage collects garbage when the stage is done, "to give the memory back"; each
time the precedents, which stay, are looked through. In cases named cycles: a low threshold of the collector, for the same reason,
and trees of cycles, which only the collector frees. The twins freeze the precedents, leave the thresholds alone, and break the tree
when it was judged.
"""

import functools
import gc
import hashlib
import re
import sys

import work

CASES = {
    "slow-sweep": "slow sweep",
    "slow-cycles": "slow cycles",
    "fixed-sweep": "fixed sweep",
    "fixed-cycles": "fixed cycles",
}
LABEL = ["gc-pressure"]
ALSO = {"slow": ["cpu-bound-python", "preprocessing-bound"], "fixed": ["cpu-bound-python", "preprocessing-bound"]}  # the parser is Python
WHERE = "collect|tidy|stage|parse|judge|Node|node|review"
TOKEN = re.compile(r"[()]|[a-z]+\d*")
PRECEDENTS = {"sweep": 4500, "cycles": 2500}
CLAUSES = {"sweep": 14, "cycles": 120}


class Node:
    def __init__(self, word, parent):
        self.word, self.parent = word, parent
        self.children = []
        self.spans = [len(word), 0]
        if parent is not None:
            parent.children.append(self)

    def release(self):
        for child in self.children:
            child.parent = None
            child.release()
        self.children = []


def stage(tidy):
    """Marks a stage of the review; an untidy one collects garbage when it is done."""

    def decorate(function):
        @functools.wraps(function)
        def staged(*words):
            try:
                return function(*words)
            finally:
                gc.collect()

        return staged if not tidy else function

    return decorate


def parse(text):
    root = node = Node("contract", None)
    for token in TOKEN.findall(text):
        if token == "(":
            node = Node("group", node)
        elif token == ")":
            node.spans[1] = len(node.children)
            node = node.parent
        else:
            Node(token, node)
    return root


def facts(node, depth=0):
    found = depth * len(node.word)
    for child in node.children:
        found += facts(child, depth + 1)
    return found


class Review:
    def __init__(self, kind, tidy):
        self.tidy = tidy
        self.precedents = {
            f"case {at}": {"parties": [f"p{at}", f"q{at}"], "holds": [(at, [at % 7, at % 11])], "cites": {at - 1: ["a"], at - 2: ["b"]}}
            for at in range(PRECEDENTS[kind])
        }
        sweeping = stage(tidy or kind != "sweep")
        self.parse, self.judge = sweeping(parse), sweeping(self.judge)
        if tidy:
            gc.collect()
            gc.freeze()
        elif kind == "cycles":
            gc.set_threshold(60, 3, 3)

    def judge(self, root):
        known = self.precedents[f"case {facts(root) % len(self.precedents)}"]
        return hashlib.pbkdf2_hmac("sha256", repr(known).encode(), b"judge", 4000)

    def review(self, text):
        root = self.parse(text)
        answer = self.judge(root)
        if self.tidy:
            root.release()
        return answer


def contract(number, clauses):
    clause = "(clause{at} party{number} (shall pay{at} (within days{days}) unless (waived by law))) and"
    return " ".join(clause.format(at=at, number=number, days=at % 30) for at in range(clauses))


def main():
    variant, kind = sys.argv[1], sys.argv[2]
    review = Review(kind, tidy=variant == "fixed")
    texts = [contract(number, CLAUSES[kind]) for number in range(20)]
    count = {"slow": {"sweep": 400, "cycles": 600}, "fixed": {"sweep": 2000, "cycles": 1000}}[variant][kind]
    work.run(lambda number: review.review(texts[number % 20]), count)


main()

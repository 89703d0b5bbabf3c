"""A pipeline that makes features for each hour of a shop's events, with a child process for the part that needs the catalogue.

Injected, in cases named forks: a child is forked for each hour, as it has the catalogue of the parent at no cost; but it counts up
references of the items that it looks at, so that each page of the catalogue is copied in each child: page-faults. The twin forks
one child that stays, and has its own pages after the first hour. The same function makes the features.

Injected, in cases named lockstep: the parent reads an hour, hands it to the child, and waits for the features before it reads the next
one, so that always one of the two waits: waiting. The twin hands over an hour before it takes the features of the hour before.
As many hours are read and made in both, with the same sums.

healthy-inline: no child; the parent reads and makes the features of hours one after the other.
"""

import hashlib
import json
import multiprocessing
import random
import sys
import zlib
from operator import attrgetter

import work

NEEDS = ""
CASES = {
    "slow-forks": "slow forks",
    "slow-lockstep": "slow lockstep",
    "fixed-forks": "fixed forks",
    "fixed-lockstep": "fixed lockstep",
    "healthy-inline": "healthy inline",
}
LABEL = {"slow-forks": ["page-faults"], "slow-lockstep": ["waiting"]}
ALSO = {
    "slow-forks": ["waiting", "cpu-bound-python", "preprocessing-bound", "blocking-io", "native-hot-spot"],  # for the child, which walks
    "slow-lockstep": ["blocking-io", "native-hot-spot", "cpu-bound-python", "preprocessing-bound", "idle-no-work"],
    "fixed": ["waiting", "blocking-io", "idle-no-work", "cpu-bound-python", "preprocessing-bound", "native-hot-spot"],
    "healthy": ["native-hot-spot", "cpu-bound-python", "preprocessing-bound"],
}
WHERE = "shelf|weigh|walk|fork|Process|start|once|serve|recv|take|exchange|lockstep"
MEASURE = "mean"
FORK = multiprocessing.get_context("fork")


class Item:
    __slots__ = ("code", "shelf", "price", "weight")

    def __init__(self, code, draw):
        self.code, self.shelf = code, code * 7919 % 64
        self.price, self.weight = 1000 + int(draw.random() * 900_000), draw.random()


class Catalogue:
    def __init__(self, size, seed=21):
        draw = random.Random(seed)
        self.items = [Item(code, draw) for code in range(size)]

    def weigh(self, hour):
        """Features of an hour from the whole catalogue: what its shelves cost."""
        prices = list(map(attrgetter("price"), self.items))
        shelves = list(map(attrgetter("shelf"), self.items))
        first = hour % 64
        return {"all": sum(prices), "shelf": sum(price for price, shelf in zip(prices[first::16], shelves[first::16]) if shelf == first)}


class Hours:
    """Events as they lie in the store, an hour in each blob."""

    def __init__(self, events, seed=22):
        draw = random.Random(seed)
        self.blobs = []
        for _ in range(6):
            hour = [{"user": draw.randrange(9000), "item": draw.randrange(50_000), "kind": draw.choice(["view", "cart", "buy"])} for _ in range(events)]
            self.blobs.append(zlib.compress(json.dumps(hour).encode(), 6))

    def read(self, number):
        """The events' text, checked, without the spaces; each part is native."""
        text = zlib.decompress(self.blobs[number % len(self.blobs)])
        mark = hashlib.blake2b(text * 4).digest()
        return zlib.compress(text.replace(b": ", b":").replace(b", ", b",") + mark.hex().encode(), 1)


def features(packed):
    """Counts of users and kinds, and a mark of each large user."""
    text = zlib.decompress(packed)
    events = json.loads(text[:-128])
    kinds, users = {}, {}
    for event in events:
        kinds[event["kind"]] = kinds.get(event["kind"], 0) + 1
        users[event["user"]] = users.get(event["user"], 0) + 1
    return {"kinds": kinds, "users": len(users), "mark": hashlib.sha256(text).hexdigest()}


def once(catalogue, hour, link):
    link.send(catalogue.weigh(hour))
    link.close()


def serve(make, link):
    while (hour := link.recv()) is not None:
        link.send(make(hour))


class Child:
    """A child that stays, with at most `depth` hours in its hands."""

    def __init__(self, make, depth):
        self.link, far = FORK.Pipe()
        self.process = FORK.Process(target=serve, args=(make, far), daemon=True)
        self.process.start()
        self.depth, self.open = depth, 0

    def exchange(self, hour):
        self.link.send(hour)
        self.open += 1
        return self.link_take() if self.open >= self.depth else None

    def link_take(self):
        self.open -= 1
        return self.link.recv()

    def close(self):
        while self.open:
            self.link_take()
        self.link.send(None)
        self.process.join()


class ForkEach:
    def __init__(self, catalogue):
        self.catalogue = catalogue

    def exchange(self, hour):
        near, far = FORK.Pipe()
        process = FORK.Process(target=once, args=(self.catalogue, hour, far))
        process.start()
        far.close()
        made = near.recv()
        process.join()
        return made

    def close(self):
        pass


def main():
    variant, kind = sys.argv[1:3]
    slow, sums = variant == "slow", 0
    if kind == "forks":
        catalogue = Catalogue(300_000)
        child = ForkEach(catalogue) if slow else Child(catalogue.weigh, depth=1)
        step = child.exchange
    else:
        hours = Hours(4000 if kind == "lockstep" else 3000)
        child = Child(features, depth=1 if slow else 2) if kind == "lockstep" else None
        step = (lambda number: child.exchange(hours.read(number))) if child else (lambda number: features(hours.read(number)))
    work.run(step, {"slow-forks": 38, "fixed-forks": 90, "slow-lockstep": 350, "fixed-lockstep": 600, "healthy-inline": 500}[f"{variant}-{kind}"])
    if child:
        child.close()


if __name__ == "__main__":
    main()

"""A job that takes suppliers' price feeds (XML, minidom), brings a catalogue up to date, and writes a CSV of what changed.

Injected, in cases named collect: a context manager that is to keep the memory low calls `gc.collect()` after each feed, which goes
through all of the catalogue's objects (gc-pressure). The twin freezes the catalogue and unlinks the document, so that its cycles need no
collector. In cases named shelves: each 20th feed builds the index of shelves (by category, by price) anew from the whole
catalogue, though the feeds touched some hundred products; the other steps do not know of it, so few steps are many times as long as the
rest (step-jitter). The twin puts each changed product to its place with `bisect`. The measure is the mean.
"""

import bisect
import contextlib
import csv
import dataclasses
import gc
import io
import random
import sys
import xml.dom.minidom

import work

CASES = {
    "slow-collect": "slow collect",
    "slow-shelves": "slow shelves",
    "fixed-collect": "fixed collect",
    "fixed-shelves": "fixed shelves",
}
LABEL = {"slow-collect": ["gc-pressure"], "slow-shelves": ["step-jitter"]}
ALSO = {
    "slow-collect": ["cpu-bound-python", "native-hot-spot"],
    "slow-shelves": ["cpu-bound-python", "native-hot-spot"],  # the rebuild is Python, and sorts
    "fixed": ["cpu-bound-python", "gc-pressure"],  # minidom is Python, and makes many objects
}
WHERE = "collect|bounded|rebuild|build|shelves|tidy"
MEASURE = "mean"
PRODUCTS, ITEMS, EVERY = 60_000, 40, 20
COUNT = {"slow": {"collect": 160, "shelves": 900}, "fixed": {"collect": 1900, "shelves": 1900}}


@dataclasses.dataclass
class Product:
    number: int
    category: str
    price: float
    tags: list = dataclasses.field(default_factory=list)
    stock: dict = dataclasses.field(default_factory=dict)


class Shelves:
    """Each category's products by price."""

    def __init__(self, catalogue):
        self.catalogue, self.waiting = catalogue, 0
        self.build()

    def build(self):
        shelves = {}
        for product in self.catalogue.values():
            shelves.setdefault(product.category, []).append((product.price, product.number))
        for shelf in shelves.values():
            shelf.sort()
        self.shelves = shelves

    def moved(self, product, before):
        pass

    def tidy(self):
        self.waiting += 1
        if self.waiting == EVERY:
            self.waiting = 0
            self.build()

    def cheapest(self, category):
        return self.shelves[category][:3]


class SortedShelves(Shelves):
    def moved(self, product, before):
        shelf = self.shelves[product.category]
        at = bisect.bisect_left(shelf, (before, product.number))
        del shelf[at]
        bisect.insort(shelf, (product.price, product.number))

    def tidy(self):
        pass


def supplier(chance, number):
    """A feed as it comes from outside."""
    items = "".join(
        f'<item sku="{chance.randrange(PRODUCTS)}"><price currency="EUR">{chance.uniform(1, 900):.2f}</price>'
        f"<stock><place>w{number % 5}</place><left>{chance.randrange(90)}</left></stock></item>"
        for _ in range(ITEMS)
    )
    return f'<?xml version="1.0"?><feed supplier="s{number % 40}">{items}</feed>'


class Ledger:
    def __init__(self, catalogue, shelves, bounded):
        self.catalogue, self.shelves, self.bounded = catalogue, shelves, bounded

    def items(self, document):
        for item in document.getElementsByTagName("item"):
            price = item.getElementsByTagName("price")[0].firstChild.data
            place = item.getElementsByTagName("place")[0].firstChild.data
            left = item.getElementsByTagName("left")[0].firstChild.data
            yield int(item.getAttribute("sku")), float(price), place, int(left)

    def take(self, feed):
        out = io.StringIO()
        rows = csv.writer(out)
        with self.bounded(), contextlib.closing(Document(feed)) as document:
            for number, price, place, left in self.items(document.tree):
                product = self.catalogue[number]
                before, product.price = product.price, price
                product.stock[place] = left
                self.shelves.moved(product, before)
                rows.writerow([number, f"{before:.2f}", f"{price:.2f}", self.shelves.cheapest(product.category)[0][1]])
        self.shelves.tidy()
        return out.getvalue()


class Document:
    unlinks = True

    def __init__(self, text):
        self.tree = xml.dom.minidom.parseString(text)

    def close(self):
        if self.unlinks:
            self.tree.unlink()


@contextlib.contextmanager
def bounded():
    """Nothing of a feed is to stay behind."""
    try:
        yield
    finally:
        gc.collect()


def stock():
    chance = random.Random(6)
    catalogue = {}
    for number in range(PRODUCTS):
        tags = [f"t{chance.randrange(50)}" for _ in range(2)]
        catalogue[number] = Product(number, f"k{number % 60}", round(chance.uniform(1, 900), 2), tags, {"w0": number % 13})
    return catalogue


def main():
    variant, kind = sys.argv[1:3]
    collects = variant == "slow" and kind == "collect"
    catalogue = stock()
    shelves = (Shelves if variant == "slow" and kind == "shelves" else SortedShelves)(catalogue)
    Document.unlinks = not collects
    if not collects:
        gc.collect()
        gc.freeze()
    ledger = Ledger(catalogue, shelves, bounded if collects else contextlib.nullcontext)
    chance = random.Random(5)
    feeds = [supplier(chance, number) for number in range(150)]
    work.run(lambda number: ledger.take(feeds[number % len(feeds)]), COUNT[variant][kind])


main()

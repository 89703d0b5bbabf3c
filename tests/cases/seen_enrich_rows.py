"""A nightly job that enriches purchases with what sqlite knows of the customers, scores them, and stores the scores.

Injected: one SELECT and one INSERT for each purchase (N+1). The twin asks for 200 customers in one SELECT and stores with
`executemany`, as much data in few calls. The base is in memory, so that there is no disk in it: what is lost is the cost of each call.
healthy-report: a report over the same base, of a few statements that do all of their work in sqlite.
"""

import hashlib
import random
import sqlite3
import sys

import work

CASES = {
    "slow-narrow": "slow narrow",
    "slow-wide": "slow wide",
    "fixed-narrow": "fixed narrow",
    "fixed-wide": "fixed wide",
    "healthy-report": "healthy wide",
}
LABEL = {"slow": ["small-batches"]}
ALSO = {
    "slow": ["cpu-bound-python", "native-hot-spot", "preprocessing-bound"],
    "fixed": ["native-hot-spot", "cpu-bound-python", "preprocessing-bound"],
    "healthy": ["native-hot-spot"],
}
WHERE = "customer|store|execute|enrich|fetch"
CUSTOMERS, CHUNK = 4000, 200


def base(features):
    link = sqlite3.connect(":memory:")
    columns = ", ".join(f"f{at} REAL" for at in range(features))
    link.execute(f"CREATE TABLE customers (id INTEGER PRIMARY KEY, region TEXT, {columns})")
    link.execute("CREATE TABLE scores (purchase INTEGER, customer INTEGER, score INTEGER)")
    chance = random.Random(8)
    rows = [(at, f"r{at % 40}", *(chance.random() for _ in range(features))) for at in range(CUSTOMERS)]
    link.executemany(f"INSERT INTO customers VALUES ({', '.join('?' * (features + 2))})", rows)
    return link


class RowEnricher:
    def __init__(self, link):
        self.link = link

    def customer(self, number):
        return self.link.execute("SELECT * FROM customers WHERE id = ?", (number,)).fetchone()

    def store(self, purchase, customer, score):
        self.link.execute("INSERT INTO scores VALUES (?, ?, ?)", (purchase, customer, score))

    def enrich(self, purchases, score):
        for purchase, customer in purchases:
            self.store(purchase, customer, score(self.customer(customer)))


class ChunkEnricher(RowEnricher):
    def enrich(self, purchases, score):
        wanted = sorted({customer for _, customer in purchases})
        marks = ",".join("?" * len(wanted))
        known = {row[0]: row for row in self.link.execute(f"SELECT * FROM customers WHERE id IN ({marks})", wanted)}
        scored = [(purchase, customer, score(known[customer])) for purchase, customer in purchases]
        self.link.executemany("INSERT INTO scores VALUES (?, ?, ?)", scored)


class Model:
    def __init__(self):
        self.known = 0

    def score(self, row):
        self.known ^= hash(row[2:5])
        return self.known & 1023

    def seal(self):
        return hashlib.pbkdf2_hmac("sha256", b"%d" % self.known, b"chunk", 250)


def report(link):
    query = "SELECT region, count(*), sum(f0 * f1), max(f2) FROM customers GROUP BY region ORDER BY 3 DESC"
    pairs = "SELECT count(*) FROM customers a JOIN customers b ON a.region = b.region AND a.f0 < b.f0 WHERE a.id < 300"
    return link.execute(query).fetchall(), link.execute(pairs).fetchone()


def main():
    variant, shape = sys.argv[1], sys.argv[2]
    link = base({"narrow": 4, "wide": 24}[shape])
    model = Model()
    enricher = (RowEnricher if variant == "slow" else ChunkEnricher)(link)
    chance = random.Random(3)
    purchases = [(at, chance.randrange(CUSTOMERS // 8)) for at in range(60_000)]

    def chunk(number):
        start = number * CHUNK % len(purchases)
        enricher.enrich(purchases[start : start + CHUNK], model.score)
        model.seal()
        if number % 100 == 99:
            link.execute("DELETE FROM scores")

    if variant == "healthy":
        work.run(lambda number: report(link), 450)
    else:
        work.run(chunk, {"slow": {"narrow": 2400, "wide": 1400}[shape], "fixed": {"narrow": 5000, "wide": 2600}[shape]}[variant])


main()

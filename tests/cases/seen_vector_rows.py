"""A retriever that another process asks over a connection of `multiprocessing`: passages in sqlite, their embeddings beside them, a filter
by tenant and document; the best are read by a model in native code.

Injected, in cases named json: embeddings are stored as JSON, and for each candidate a few hundred floats are read by `json.loads`: all
of it within the one native scanner. The twin stores the bytes of an array. In cases named scan: the table of what a user may see has
no index on what it is asked by, so each query has sqlite read the whole of it, one statement of some ms; the twin has the index.

Case healthy-blob: bytes and index, and a larger model behind.
"""

import array
import json
import math
import operator
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Client, Listener

CASES = {
    "slow-json": "slow json",
    "slow-scan": "slow scan",
    "fixed-json": "fixed json",
    "fixed-scan": "fixed scan",
    "healthy-blob": "healthy blob",
}
LABEL = {"slow": ["native-hot-spot"]}
ALSO = {"slow": ["preprocessing-bound"], "fixed": ["native-hot-spot"], "healthy": ["native-hot-spot"]}
WHERE = "loads|decode|raw_decode|unpack|embedding|execute|allowed|fetch"
PASSAGES = 500
WIDTH = 384
GRANTS = {"json": 2000, "scan": 100_000, "blob": 2000}
DOCUMENTS = 50
CANDIDATES = {"json": 40, "scan": 8, "blob": 8}


class JsonRows:
    def pack(self, vector):
        return json.dumps(vector)

    def unpack(self, row):
        return json.loads(row)


class BlobRows:
    def pack(self, vector):
        return array.array("d", vector).tobytes()

    def unpack(self, row):
        vector = array.array("d")
        vector.frombytes(row)
        return vector


class Retriever:
    def __init__(self, rows, kind, indexed):
        rng = random.Random(12)
        self.rows, self.candidates = rows, CANDIDATES[kind]
        self.base = sqlite3.connect(":memory:")
        self.base.execute("create table passage (id integer primary key, document integer, text text, embedding)")
        self.base.execute("create table grants (tenant text, document integer, role text)")
        for number in range(PASSAGES):
            vector = [rng.gauss(0, 1) for _ in range(WIDTH)]
            text = f"passage {number} " * 8
            self.base.execute("insert into passage values (?, ?, ?, ?)", (number, number % DOCUMENTS, text, rows.pack(vector)))
        self.base.executemany(
            "insert into grants values (?, ?, ?)",
            ((f"tenant-{number * 7 % 997:04}", number % DOCUMENTS, "reader") for number in range(GRANTS[kind])),
        )
        if indexed:
            self.base.execute("create index by_tenant on grants (tenant, document)")
        self.base.commit()

    def allowed(self, tenant):
        found = self.base.execute("select distinct document from grants where tenant = ? and role = 'reader'", (tenant,))
        return {document for (document,) in found}

    def fetch(self, start):
        ids = [(start + 13 * at) % PASSAGES for at in range(self.candidates)]
        marks = ",".join("?" * len(ids))
        return self.base.execute(f"select id, document, text, embedding from passage where id in ({marks})", ids).fetchall()

    def search(self, tenant, query, start):
        allowed, scored = self.allowed(tenant), []
        size = math.sqrt(sum(map(operator.mul, query, query)))
        for number, document, text, row in self.fetch(start):
            embedding = self.rows.unpack(row)
            score = sum(map(operator.mul, query, embedding)) / size
            scored.append((score + (document in allowed), number, text))
        scored.sort(reverse=True)
        return scored[:4]


def ask(path, count):
    """The process that asks; always one question ahead."""
    rng = random.Random(5)
    query = array.array("d", [rng.gauss(0, 1) for _ in range(WIDTH)])
    with Client(path, "AF_UNIX") as link:
        for number in range(count + 1):
            if number < count:
                link.send((f"tenant-{number % 997:04}", query.tobytes(), number * 17 % PASSAGES))
            if number:
                link.recv()


def serve(listener, retriever, model, filling, passes):
    times = []
    with listener.accept() as link:
        start = time.perf_counter()
        while True:
            try:
                tenant, packed, first = link.recv()
            except EOFError:
                return times[2:]
            query = array.array("d")
            query.frombytes(packed)
            best = retriever.search(tenant, query, first)
            text = " ".join(text for _, _, text in best).encode()
            for _ in range(passes):
                answer = model(filling + text)
            link.send({"answer": answer, "passages": [number for _, number, _ in best]})
            now = time.perf_counter()
            times.append(now - start)
            start = now


def main():
    variant, kind = sys.argv[1:3]
    if variant == "ask":
        return ask(kind, int(sys.argv[3]))
    import work

    slow = variant == "slow"
    retriever = Retriever(JsonRows() if slow and kind == "json" else BlobRows(), kind, indexed=not (slow and kind == "scan"))
    count = {"slow": {"json": 300, "scan": 300}, "fixed": {"json": 600, "scan": 700}, "healthy": {"blob": 270}}[variant][kind]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "retriever")
        with Listener(path, "AF_UNIX") as listener:
            peer = subprocess.Popen([sys.executable, "-E", os.path.abspath(__file__), "ask", path, str(count)])
            work.tell(serve(listener, retriever, work.model, work.BATCH, 3 if variant == "healthy" else 1))
        peer.wait()


main()

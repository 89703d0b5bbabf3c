"""A scorer over a feature store: it looks up the features of a request's candidates in SQLite and the profile of its user at the
profile service (another process, over TCP), and ranks the candidates with a small network.

Injected, in cases named rows: the features are selected by a statement for each candidate: small-batches. The twin selects all
candidates of the request in one statement; the vectors, their order and the ranking are the same.

Injected, in cases named profile: the service is asked in each request, though profiles are made anew each night only, and the
scorer waits for its answer on the socket: blocking-io. The twin holds the profiles that it has asked for; users come again and again.

healthy-local: features in one statement, profiles from the store.
"""

import json
import multiprocessing
import os
import socket
import sqlite3
import sys
import tempfile
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-rows": "slow rows",
    "slow-profile": "slow profile",
    "fixed-rows": "fixed rows",
    "fixed-profile": "fixed profile",
    "healthy-local": "healthy local",
}
LABEL = {"slow-rows": ["small-batches"], "slow-profile": ["blocking-io"]}
ALSO = {
    "slow-rows": ["cpu-bound-python", "native-hot-spot", "preprocessing-bound"],  # the network's products; statements from Python
    "slow-profile": ["waiting", "idle-no-work", "native-hot-spot"],  # the service sleeps and waits for requests
    "fixed": ["native-hot-spot", "idle-no-work"],
    "healthy": ["native-hot-spot"],
}
WHERE = "vector|features|execute|fetch|ask|profile|readline|recv"
MEASURE = "median"
WIDTH, HIDDEN, ITEMS, USERS, CANDIDATES = 48, 128, 6000, 60, 180
SERVICE_S = 0.0012  # what the profile service takes


def profile_of(user):
    return np.random.default_rng(user).standard_normal(WIDTH).round(4).astype(np.float32)


def profile_service(ready):
    """The process of another team: answers a user's name with its profile, after a look into their store."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ready.send(server.getsockname()[1])
        connection, _ = server.accept()
        with connection, connection.makefile("rw") as lines:
            for line in lines:
                time.sleep(SERVICE_S)
                print(json.dumps([round(float(value), 4) for value in profile_of(int(line))]), file=lines, flush=True)


class Profiles:
    """The client of the profile service."""

    def __init__(self, keep):
        context = multiprocessing.get_context("spawn")
        near, far = context.Pipe()
        self.process = context.Process(target=profile_service, args=(far,), daemon=True)
        self.process.start()
        self.connection = socket.create_connection(("127.0.0.1", near.recv()))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lines = self.connection.makefile("rw")
        self.kept = {} if keep else None

    def ask(self, user):
        print(user, file=self.lines, flush=True)
        return np.array(json.loads(self.lines.readline()), np.float32)

    def profile(self, user):
        if self.kept is None:
            return self.ask(user)
        if user not in self.kept:
            self.kept[user] = self.ask(user)
        return self.kept[user]

    def close(self):
        self.lines.close()
        self.connection.close()
        self.process.join()


class LocalProfiles:
    def __init__(self):
        self.made = [profile_of(user) for user in range(USERS)]

    def profile(self, user):
        return self.made[user]

    def close(self):
        pass


class Store:
    def __init__(self, path):
        self.db = sqlite3.connect(path)
        self.db.execute("CREATE TABLE features (item INTEGER PRIMARY KEY, vector BLOB, seen REAL) WITHOUT ROWID")
        draw = np.random.default_rng(3)
        rows = ((item, draw.standard_normal(WIDTH, dtype=np.float32).tobytes(), item / 7) for item in range(ITEMS))
        self.db.executemany("INSERT INTO features VALUES (?, ?, ?)", rows)
        self.db.commit()

    def vector(self, item):
        return self.db.execute("SELECT vector FROM features WHERE item = ?", (item,)).fetchone()[0]

    def features_each(self, items):
        return [self.vector(item) for item in items]

    def features(self, items):
        asked = "SELECT item, vector FROM features WHERE item IN (SELECT value FROM json_each(?))"
        found = dict(self.db.execute(asked, (json.dumps(items),)))
        return [found[item] for item in items]


class Network:
    def __init__(self):
        draw = np.random.default_rng(8)
        self.first = draw.standard_normal((2 * WIDTH, HIDDEN), dtype=np.float32) / 8
        self.second = draw.standard_normal((HIDDEN, HIDDEN), dtype=np.float32) / 12
        self.last = draw.standard_normal(HIDDEN, dtype=np.float32)

    def rank(self, profile, rows):
        inputs = np.concatenate([rows, np.broadcast_to(profile, rows.shape)], axis=1)
        hidden = np.maximum(inputs @ self.first, 0)
        hidden = np.tanh(hidden @ self.second)
        return np.argsort(-(hidden @ self.last), kind="stable")


class Scorer:
    def __init__(self, store, profiles, each):
        self.store, self.profiles, self.network, self.each = store, profiles, Network(), each
        self.told = 0

    def candidates(self, number):
        return [(number * 131 + at * 37) % ITEMS for at in range(CANDIDATES)]

    def handle(self, number):
        items = self.candidates(number)
        profile = self.profiles.profile(number * 7 % USERS)
        found = self.store.features_each(items) if self.each else self.store.features(items)
        rows = np.frombuffer(b"".join(found), np.float32).reshape(len(items), WIDTH)
        order = self.network.rank(profile, rows)
        self.told = (self.told * 31 + items[order[0]]) % 1_000_003
        return [items[at] for at in order[:10]]


def main():
    variant, kind = sys.argv[1:3]
    profiles = Profiles(keep=variant == "fixed") if kind == "profile" else LocalProfiles()
    with tempfile.TemporaryDirectory() as folder:
        scorer = Scorer(Store(os.path.join(folder, "features.db")), profiles, each=(variant, kind) == ("slow", "rows"))
        counts = {"slow-rows": 2600, "fixed-rows": 5500, "slow-profile": 1400, "fixed-profile": 6000, "healthy-local": 6000}
        work.run(scorer.handle, counts[f"{variant}-{kind}"])
    profiles.close()


if __name__ == "__main__":
    main()

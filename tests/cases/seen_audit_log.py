"""A scoring loop that writes an audit log with `logging`, and must not lose a line.

Injected: the handler flushes and syncs the file to the disk for each record. The twin collects the records and syncs once in 200
requests, as databases do with a group of commits. Cases named sqlite: the same with a feature store behind sqlite, which commits
each request's event, or one transaction for 200.
"""

import hashlib
import logging
import os
import sqlite3
import sys
import tempfile

import work

CASES = {
    "slow-log-1": "slow log 1",
    "slow-log-3": "slow log 3",
    "slow-sqlite-1": "slow sqlite 1",
    "fixed-log-3": "fixed log 3",
    "fixed-sqlite-1": "fixed sqlite 1",
}
LABEL = ["blocking-io"]
ALSO = {"slow": ["waiting"], "fixed": ["step-jitter"]}  # the twin syncs in each 200th step, which is long
WHERE = "emit|sync|flush|commit|record|execute|write"
MEASURE = "mean"


class SyncedHandler(logging.FileHandler):
    def __init__(self, path, group):
        super().__init__(path)
        self.group, self.count = group, 0

    def emit(self, record):
        super().emit(record)
        self.count += 1
        if self.count % self.group == 0:
            self.flush()
            os.fsync(self.stream.fileno())


class LogAudit:
    def __init__(self, folder, lines, group):
        self.lines = lines
        self.log = logging.getLogger("audit")
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        handler = SyncedHandler(os.path.join(folder, "audit.log"), group)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.log.addHandler(handler)

    def record(self, user, score):
        for line in range(self.lines):
            self.log.info("user=%s part=%d score=%s", user, line, score)

    def features(self, user):
        return b"%d" % user


class SqliteAudit:
    def __init__(self, folder, group):
        self.base = sqlite3.connect(os.path.join(folder, "features.db"))
        self.base.execute("CREATE TABLE features (user INTEGER PRIMARY KEY, data BLOB)")
        self.base.execute("CREATE TABLE events (user INTEGER, score TEXT)")
        self.base.executemany("INSERT INTO features VALUES (?, ?)", ((at, hashlib.sha512(b"%d" % at).digest()) for at in range(2000)))
        self.base.commit()
        self.group, self.count = group, 0

    def record(self, user, score):
        self.base.execute("INSERT INTO events VALUES (?, ?)", (user, score))
        self.count += 1
        if self.count % self.group == 0:
            self.base.commit()

    def features(self, user):
        return self.base.execute("SELECT data FROM features WHERE user = ?", (user % 2000,)).fetchone()[0]


def main():
    variant, kind, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        if kind == "log":
            audit = LogAudit(folder, size, 1 if variant == "slow" else 200 * size)
        else:
            audit = SqliteAudit(folder, 1 if variant == "slow" else 200)

        def request(number):
            score = hashlib.pbkdf2_hmac("sha256", audit.features(number), b"weights", 1500)
            audit.record(number, score.hex())

        work.run(request, {"slow": {"log": 1600 // size, "sqlite": 500}[kind], "fixed": 2500}[variant])


main()

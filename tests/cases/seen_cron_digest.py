"""A job of cron: it takes the messages of the last hour out of a spool (sqlite), guesses their topics with a lexicon and a native model,
and writes the topics and the counts of the senders back.

Injected, in cases named lexicons: the job loads the lexicons of all fourteen languages, and warms the model up for each, before it takes
the first message, though the messages are in one language: startup-dominates. The twin loads a language when the first message in it
comes. The topics are the same.

Injected, in cases named rows: the counts are read, and the topics and counts are written, by a statement for each message, each of which
is a transaction: small-batches. The twin has one statement for all messages of a chunk. The tables are the same after it.

healthy-digest: one language, statements for chunks, and a model that is asked more often.
"""

import argparse
import collections
import contextlib
import hashlib
import sqlite3
import tempfile
from pathlib import Path

import work

NEEDS = ""
CASES = {
    "slow-lexicons": "slow lexicons",
    "slow-rows": "slow rows",
    "fixed-lexicons": "fixed lexicons",
    "fixed-rows": "fixed rows",
    "healthy-digest": "healthy digest",
}
LABEL = {"slow-lexicons": ["startup-dominates"], "slow-rows": ["small-batches"]}
ALSO = {
    "slow-lexicons": ["cpu-bound-python", "preprocessing-bound", "gc-pressure", "native-hot-spot"],
    "slow-rows": ["native-hot-spot", "blocking-io", "cpu-bound-python"],  # sqlite's execute, that writes to the journal
    "fixed": ["native-hot-spot", "preprocessing-bound", "cpu-bound-python"],
    "healthy": ["native-hot-spot", "preprocessing-bound", "cpu-bound-python"],
}
WHERE = "load|build|warm|Lexicon|open_all|insert|stem|record|count|note|execute|rows|store"
MEASURE = "wall"
LANGUAGES = "bg cs da de en es fi fr hu it nl pl pt sv".split()
TOPICS = ("billing", "delivery", "fault", "praise", "spam")
CHUNK = 400


class Lexicon:
    """Stems of a language and their topics, as a tree of letters."""

    def __init__(self, language, stems=5_500):
        self.language, self.root = language, {}
        self.load(stems)
        self.warm_up()

    def load(self, stems):
        raw = hashlib.shake_128(self.language.encode()).digest(stems * 8)
        for at in range(stems):
            part = raw[at * 8 : at * 8 + 8]
            self.insert("".join(chr(97 + sign % 26) for sign in part[: 4 + part[7] % 4]), part[7] % len(TOPICS))

    def insert(self, stem, topic):
        node = self.root
        for letter in stem:
            node = node.setdefault(letter, {})
        node[""] = topic

    def warm_up(self):
        for _ in range(20):
            work.model()

    def topic(self, word):
        node, found = self.root, None
        for letter in word:
            node = node.get(letter)
            if node is None:
                return found
            found = node.get("", found)
        return found


class Lexicons:
    def __init__(self, eager):
        self.loaded = {}
        if eager:
            self.open_all()

    def open_all(self):
        for language in LANGUAGES:
            self.of(language)

    def of(self, language):
        if language not in self.loaded:
            self.loaded[language] = Lexicon(language)
        return self.loaded[language]


class Spool:
    """The messages, and what is known of their senders."""

    def __init__(self, path, one_by_one):
        self.base = sqlite3.connect(path, isolation_level=None)
        self.base.execute("pragma synchronous=off")
        self.one_by_one = one_by_one

    def fill(self, count):
        self.base.execute("create table message (id integer primary key, sender text, language text, body text, topic text)")
        self.base.execute("create table sender (name text primary key, seen integer, topic text)")
        signs = [hashlib.sha256(b"%d" % at).hexdigest().translate(LETTERS) for at in range(500)]
        bodies = [" ".join(some[at : at + 8] for at in range(0, 40, 8)) for some in signs]
        rows = ((at, f"sender-{at * 31 % 1700}", "de", bodies[at % 500]) for at in range(count))
        with self.transaction():
            self.base.executemany("insert into message values (?, ?, ?, ?, null)", rows)

    @contextlib.contextmanager
    def transaction(self):
        self.base.execute("begin")
        yield
        self.base.execute("commit")

    def chunk(self, number):
        query = "select id, sender, language, body from message where id >= ? order by id limit ?"
        return self.base.execute(query, (number * CHUNK, CHUNK)).fetchall()

    def record(self, found):
        """Notes the topics that were found for messages: pairs of (id, sender), topic."""
        if self.one_by_one:
            for (number, sender), topic in found:
                self.store_row(number, sender, topic)
            return
        with self.transaction():
            self.base.executemany("update message set topic = ? where id = ?", ((topic, number) for (number, _), topic in found))
            seen = collections.Counter(sender for (_, sender), _ in found)
            last = {sender: topic for (_, sender), topic in found}
            self.base.executemany(
                "insert into sender values (?, ?, ?) on conflict (name) do update set seen = seen + excluded.seen, topic = excluded.topic",
                ((sender, count, last[sender]) for sender, count in seen.items()),
            )

    def store_row(self, number, sender, topic):
        self.base.execute("update message set topic = ? where id = ?", (topic, number))
        row = self.base.execute("select seen from sender where name = ?", (sender,)).fetchone()
        self.base.execute("insert or replace into sender values (?, ?, ?)", (sender, (row[0] if row else 0) + 1, topic))


class Digest:
    def __init__(self, spool, lexicons, depth):
        self.spool, self.lexicons, self.depth = spool, lexicons, depth

    def topics(self, messages):
        key = int("".join(work.model() for _ in range(self.depth))[:4], 16)
        for number, sender, language, body in messages:
            lexicon = self.lexicons.of(language)
            votes = [topic for word in body.split() if (topic := lexicon.topic(word)) is not None]
            yield (number, sender), TOPICS[(max(votes) if votes else key + number) % len(TOPICS)]

    def step(self, number):
        self.spool.record(list(self.topics(self.spool.chunk(number))))


LETTERS = str.maketrans("0123456789", "ghijklmnop")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("variant")
    parser.add_argument("kind")
    parser.add_argument("--chunks", type=int, default=45)
    asked = parser.parse_args()
    slow = asked.variant == "slow"
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "spool.db", slow and asked.kind == "rows")
        spool.fill(asked.chunks * CHUNK)
        lexicons = Lexicons(eager=slow and asked.kind == "lexicons")
        digest = Digest(spool, lexicons, depth=10 if asked.variant == "healthy" else 8)
        work.run(digest.step, asked.chunks, warm=0)


if __name__ == "__main__":
    main()

"""An indexer of product manuals: pages of extracted text are tidied, cut into chunks that overlap, and their terms written to sqlite.

Injected, in cases named terms: each term of each chunk is three statements (insert unless known, select its id, insert the posting):
small-batches. The twin writes a document's new terms with one `executemany`, reads their ids with one statement, and writes the
postings with one more. The rows of both tables are the same.

Injected, in cases named tidy: blanks at the ends of lines are stripped by the regex ` +$`, which tries each blank of the wide gaps
between columns anew and so takes the square of a gap's width: native-hot-spot. The twin uses `rstrip` on each line; the text is the same.

healthy-reader: pages of prose without columns, `rstrip`, statements for whole documents.
"""

import json
import random
import re
import sqlite3
import sys
import tempfile
from collections import Counter
from pathlib import Path

import work

NEEDS = ""
CASES = {
    "slow-terms": "slow terms",
    "slow-tidy": "slow tidy",
    "fixed-terms": "fixed terms",
    "fixed-tidy": "fixed tidy",
    "healthy-reader": "healthy reader",
}
LABEL = {"slow-terms": ["small-batches"], "slow-tidy": ["native-hot-spot"]}
ALSO = {
    "slow-terms": ["cpu-bound-python", "native-hot-spot", "preprocessing-bound", "blocking-io"],
    "slow-tidy": ["preprocessing-bound"],
    "fixed": ["native-hot-spot", "cpu-bound-python", "preprocessing-bound"],  # sqlite's insert is the largest, then counting of terms
    "healthy": ["native-hot-spot", "cpu-bound-python", "preprocessing-bound"],
}
WHERE = "tidy|strip|post|term|Index|sub|execute"
MEASURE = "mean"
TRAILING = re.compile(r" +$", re.M)
TERM = re.compile(r"[a-z]{3,}")
SCHEMA = """
CREATE TABLE chunk (id INTEGER PRIMARY KEY, manual INTEGER, start INTEGER);
CREATE TABLE term (id INTEGER PRIMARY KEY, word TEXT UNIQUE);
CREATE TABLE posting (term INTEGER, chunk INTEGER, count INTEGER);
"""


class Manuals:
    """Text as the extractor gives it: tables keep their columns by blanks."""

    def __init__(self, pages, lines, gaps, words=3000, seed=12):
        draw = random.Random(seed)
        syllables = ["ba", "cor", "del", "fin", "gra", "hel", "is", "jun", "kel", "lo", "mar", "nor"]
        self.words = ["".join(draw.choices(syllables, k=draw.randint(2, 4))) for _ in range(words)]
        self.pages = [self.page(draw, lines, gaps) for _ in range(pages)]

    def page(self, draw, lines, gaps):
        made = []
        for number in range(lines):
            left, right = (" ".join(draw.choices(self.words, k=5)) for _ in range(2))
            made.append(left + " " * (draw.randint(*gaps) if number % 2 else 1) + right + " " * draw.randint(0, 3))
        return "\n".join(made)

    def page_of(self, number):
        return self.pages[number % len(self.pages)]


class Chunker:
    def __init__(self, regex, size=900, overlap=120):
        self.regex, self.size, self.overlap = regex, size, overlap

    def tidy(self, text):
        if self.regex:
            return TRAILING.sub("", text)
        return "\n".join(line.rstrip(" ") for line in text.split("\n"))

    def chunks(self, text):
        text = self.tidy(text)
        start = 0
        while start < len(text):
            end = min(len(text), start + self.size)
            if end < len(text):
                end = text.rfind(" ", start, end) + 1 or end
            yield start, text[start:end]
            if end == len(text):
                return
            start = max(start + 1, end - self.overlap)


class Index:
    def __init__(self, path, singly):
        self.base = sqlite3.connect(path)
        self.base.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;" + SCHEMA)
        self.singly, self.written = singly, 0

    def add_chunk(self, manual, start):
        return self.base.execute("INSERT INTO chunk (manual, start) VALUES (?, ?)", (manual, start)).lastrowid

    def post_singly(self, counted):
        for chunk, terms in counted:
            for word, count in terms.items():
                self.base.execute("INSERT OR IGNORE INTO term (word) VALUES (?)", (word,))
                (term,) = self.base.execute("SELECT id FROM term WHERE word = ?", (word,)).fetchone()
                self.base.execute("INSERT INTO posting VALUES (?, ?, ?)", (term, chunk, count))

    def post(self, counted):
        words = list(dict.fromkeys(word for _, terms in counted for word in terms))
        known = self.ids(words)
        if missing := [word for word in words if word not in known]:
            self.base.executemany("INSERT INTO term (word) VALUES (?)", [(word,) for word in missing])
            known |= self.ids(missing)
        rows = [(known[word], chunk, count) for chunk, terms in counted for word, count in terms.items()]
        self.base.executemany("INSERT INTO posting VALUES (?, ?, ?)", rows)

    def ids(self, words):
        return dict(self.base.execute("SELECT word, id FROM term WHERE word IN (SELECT value FROM json_each(?))", (json.dumps(words),)))

    def write(self, manual, chunks):
        counted = [(self.add_chunk(manual, start), Counter(TERM.findall(text))) for start, text in chunks]
        (self.post_singly if self.singly else self.post)(counted)
        self.written += 1
        if self.written % 16 == 0:
            self.base.commit()

    def close(self):
        self.base.commit()
        self.base.close()


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    pages, lines, gaps = {"terms": (40, 80, (1, 4)), "tidy": (40, 60, (110, 230)), "reader": (40, 100, (1, 2))}[kind]
    manuals = Manuals(pages, lines, gaps)
    chunker = Chunker(regex=slow and kind == "tidy")
    count = {"slow-terms": 500, "fixed-terms": 1000, "slow-tidy": 700, "fixed-tidy": 1400, "healthy-reader": 900}[f"{variant}-{kind}"]
    with tempfile.TemporaryDirectory() as folder:
        index = Index(Path(folder) / "index.db", singly=slow and kind == "terms")
        work.run(lambda number: index.write(number, chunker.chunks(manuals.page_of(number))), count)
        index.close()


if __name__ == "__main__":
    main()

"""The answering desk of a help centre: a worker process builds the context of each question from passages of HTML and asks the model;
the desk itself links the words of the answer to the passages that it was built from.

Injected, in cases named markup: the worker keeps the passages as they were crawled, and `html.parser` takes the text out of the same
passages again for each question, deep in the library, in the child process: preprocessing-bound. The twin takes the text out once, when
a passage is admitted to the shelf. The contexts are the same, letter by letter.

Injected, in cases named links: the desk stems each word of the answer and of its passages, with a stemmer of many small functions, each
time that it sees the word: preprocessing-bound in the main process, spread over the stemmer's rules. The twin remembers the stem of a
word, and the links are the same.

healthy-inline: no worker and no links; contexts of clean passages are built before the model, in the process that asks.
"""

import collections
import functools
import multiprocessing
import random
import sys
import zlib
from html.parser import HTMLParser

import work

NEEDS = ""
CASES = {
    "slow-markup": "slow markup", "slow-links": "slow links",
    "fixed-markup": "fixed markup", "fixed-links": "fixed links",
    "healthy-inline": "healthy inline",
}
LABEL = {"slow-markup": ["preprocessing-bound", "cpu-bound-python"], "slow-links": ["preprocessing-bound", "cpu-bound-python"]}
ALSO = {
    "slow-markup": ["waiting", "blocking-io", "native-hot-spot"],  # the desk waits for its worker; the parser searches with regexes
    "slow-links": ["waiting", "blocking-io", "idle-no-work"],  # desk and worker take turns
    "fixed": ["waiting", "blocking-io", "idle-no-work"],
    "healthy": [],
}
WHERE = "Text|handle_|feed|goahead|parse_|clean|build|strip_|stem|measure|vowel|link|Stemmer"
MEASURE = "median"
PASSAGES, TOP, LINKED, BUDGET = 120, 18, 15, 20_000
SYLLABLES = "ka ren ti mo sel da ver lo ning pre su tor ble ing ed ation es ly".split()


class Text(HTMLParser):
    """The text of a page, without what is not said in it."""

    SILENT = {"script", "style"}

    def __init__(self):
        super().__init__()
        self.said, self.silent = [], 0

    def handle_starttag(self, tag, _):
        self.silent += tag in self.SILENT

    def handle_endtag(self, tag):
        self.silent -= tag in self.SILENT

    def handle_data(self, data):
        if not self.silent and data.strip():
            self.said.append(data.strip())

    @classmethod
    def clean(cls, markup):
        parser = cls()
        parser.feed(markup)
        return " ".join(parser.said)


def crawl(seed=3):
    """Passages as a crawler would leave them."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(2, 4))) for _ in range(900)]
    line = '<p class="c{}">{} <a href="/h/{}">{}</a> &amp; more</p>\n'
    for number in range(PASSAGES):
        body = "".join(line.format(at, " ".join(draw.choices(words, k=9)), at, draw.choice(words)) for at in range(9))
        yield f'<div id="p{number}"><style>p {{ margin: 0 }}</style><h2>{draw.choice(words)}</h2>{body}</div>'


class Shelf:
    def __init__(self, clean):
        self.cleaned = clean
        self.passages = [Text.clean(markup) if clean else markup for markup in crawl()]

    def text(self, number):
        passage = self.passages[number]
        return passage if self.cleaned else Text.clean(passage)

    def build(self, question):
        first, parts, room = zlib.crc32(question.encode()) % PASSAGES, [], BUDGET  # the index is somebody else's
        numbers = [(first + 7 * at) % PASSAGES for at in range(TOP)]
        for number in numbers:
            parts.append(self.text(number)[:room])
            room -= len(parts[-1])
        return numbers, question + "\n" + "\n".join(parts)


Answer = collections.namedtuple("Answer", "key passages text")


def answer(shelf, question):
    numbers, context = shelf.build(question)
    return Answer(work.model((context * 4).encode()[:60_000]), numbers, context[-1500:])


def serve(link, clean):
    shelf = Shelf(clean)
    link.send("ready")
    while question := link.recv():
        link.send(answer(shelf, question))


class Stemmer:
    """The first steps of Porter's stemmer, near enough."""

    def __init__(self, remember):
        self.stem = functools.lru_cache(20_000)(self.strip) if remember else self.strip

    def vowel(self, word, at):
        return word[at] in "aeiou" or (word[at] == "y" and at > 0 and word[at - 1] not in "aeiou")

    def measure(self, word):
        kinds = [self.vowel(word, at) for at in range(len(word))]
        return sum(before and not after for before, after in zip(kinds, kinds[1:]))

    def strip_plural(self, word):
        for end, new in (("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")):
            if word.endswith(end):
                return word[: -len(end)] + new
        return word

    def strip_long(self, word):
        for end, new in (("eed", "ee"), ("ing", ""), ("ed", ""), ("ation", "ate"), ("ably", "able"), ("ly", "")):
            if word.endswith(end) and self.measure(word[: -len(end)]) > 0:
                return word[: -len(end)] + new
        return word

    def strip(self, word):
        return self.strip_long(self.strip_plural(word.lower()))


class Desk:
    def __init__(self, stemmer, clean):
        context = multiprocessing.get_context("spawn")
        self.link, far = context.Pipe()
        self.stemmer, self.shelf, self.linked = stemmer, Shelf(True) if stemmer else None, 0
        self.worker = context.Process(target=serve, args=(far, clean), daemon=True)
        self.worker.start()
        self.link.recv()

    def link_words(self, given):
        """How many words of the answer each passage has too."""
        stems = {self.stemmer.stem(word) for word in given.text.split()}
        return [sum(self.stemmer.stem(word) in stems for word in self.shelf.text(number).split()) for number in given.passages[:LINKED]]

    def step(self, number):
        self.link.send(f"how do I undo step {number * 31 % 997}?")
        given = self.link.recv()
        if self.stemmer:
            self.linked += sum(self.link_words(given))

    def close(self):
        self.link.send(None)
        self.worker.join()


def main():
    variant, kind = sys.argv[1:3]
    if kind == "inline":
        shelf = Shelf(True)
        work.run(lambda number: answer(shelf, f"how do I undo step {number * 31 % 997}?"), 600)
        return
    stemmer = Stemmer(remember=variant == "fixed") if kind == "links" else None
    desk = Desk(stemmer, variant == "fixed" or kind == "links")
    work.run(desk.step, {"slow": 300, "fixed": 600}[variant])
    desk.close()


if __name__ == "__main__":
    main()

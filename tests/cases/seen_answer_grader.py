"""A command of an evaluation suite: it starts, grades a few answers of a model against references, and ends.

Injected, in cases named packs: before it grades 20 answers in one language, it compiles the normalisation rules of all languages that
it knows, and that takes longer than the grading: startup-dominates. The twin compiles those of the language that is asked for. A
step's time is the command's time from its first line to its end, over the answers: a user waits for all of it.

Injected, in cases named overlap: the longest common subsequence of answer and reference is found in the textbook's table, in Python,
cell by cell: cpu-bound-python. The twin finds the same number with rows as bits of one integer, a few operations for each word of an
answer. No model is asked in these cases; the compiled rules are of one language in both.

healthy-judge: one language's rules, rows as bits, and a native judge for each answer.
"""

import time

BEGIN = time.perf_counter()

import re
import sys
from dataclasses import dataclass

import work

CASES = {
    "slow-packs": "slow packs",
    "slow-overlap": "slow overlap",
    "fixed-packs": "fixed packs",
    "fixed-overlap": "fixed overlap",
    "healthy-judge": "healthy judge",
}
LABEL = {"slow-packs": ["startup-dominates"], "slow-overlap": ["cpu-bound-python"]}
ALSO = {
    "slow-packs": ["cpu-bound-python", "native-hot-spot"],
    "slow-overlap": [],
    "fixed-packs": ["native-hot-spot"],
    "fixed-overlap": ["cpu-bound-python", "native-hot-spot"],
    "healthy": ["native-hot-spot"],
}
WHERE = "Rules|Pack|load|compile|table|overlap|common|lcs"
MEASURE = "mean"
LANGUAGES = [f"{first}{second}" for first in "abcdefghijklmnop" for second in "aeiloprstuvy"]
ENDINGS = ("ing", "ed", "s", "ly", "ness", "ment", "able", "ful", "less", "ward", "wise", "ish")


class Pack:
    """The rules of one language: patterns and what is put in their place."""

    def __init__(self, language):
        self.rules = [(re.compile(pattern, re.IGNORECASE), put) for pattern, put in self.source(language)]

    @staticmethod
    def source(language):
        yield rf"[^\w\s']|_{language}_", " "
        for at, ending in enumerate(ENDINGS):
            stem = "|".join(f"{language}{letter}{vowel}{at}\\w{{1,3}}" for letter in "bdfglmnprstv" for vowel in "aeiou")
            yield rf"\b(?:{stem})(?:{ending}|{ending[::-1]}{language})?\b(?!-{at}\d+)", rf"{ending}"
            yield rf"(?<=\b{language})(?:{at}|[{language}x-z]{{2,4}})(?P<rest>\w*?{ending})\b", r"\g<rest>"

    def apply(self, text):
        for rule, put in self.rules:
            text = rule.sub(put, text)
        return text.lower().split()


class Normaliser:
    def __init__(self, eager):
        self.packs = {}
        if eager:
            self.load(LANGUAGES)

    def load(self, languages):
        for language in languages:
            self.packs[language] = Pack(language)

    def words(self, language, text):
        if language not in self.packs:
            self.load([language])
        return self.packs[language].apply(text)


def common_table(left, right):
    """Length of the longest common subsequence: a row for each word of the left."""
    row = [0] * (len(right) + 1)
    for word in left:
        above = 0
        for at, other in enumerate(right, 1):
            kept = row[at]
            if word == other:
                row[at] = above + 1
            elif row[at - 1] > kept:
                row[at] = row[at - 1]
            above = kept
    return row[-1]


def common_bits(left, right):
    """The same, with a row as the bits of an integer."""
    places = {}
    for at, word in enumerate(right):
        places[word] = places.get(word, 0) | 1 << at
    full = (1 << len(right)) - 1
    row = full
    for word in left:
        met = row & places.get(word, 0)
        row = (row + met | row - met) & full
    return len(right) - bin(row).count("1")


@dataclass
class Case:
    language: str
    answer: str
    reference: str


def cases(count, length):
    """The answers that are to be graded, as they came in a file of the suite."""
    for number in range(count):
        said = [f"w{(at * 13 + number * at // 3) % 61}" for at in range(length)]
        meant = [f"w{(at * 13 + number * at // 4) % 61}" for at in range(length - 20)]
        yield Case("de", " ".join(said), " ".join(meant))


class Grader:
    def __init__(self, normaliser, common, judgements):
        self.normaliser, self.common, self.judgements = normaliser, common, judgements

    def overlap(self, case):
        said = self.normaliser.words(case.language, case.answer)
        meant = self.normaliser.words(case.language, case.reference)
        common = self.common(said, meant)
        precision, recall = common / len(said), common / len(meant)
        return 2 * precision * recall / (precision + recall) if common else 0.0

    def judge(self, case):
        return [work.model() for _ in range(self.judgements)]

    def grade(self, case):
        return self.overlap(case), self.judge(case)


def main():
    variant, kind = sys.argv[1:3]
    if kind == "packs":
        grader = Grader(Normaliser(eager=variant == "slow"), common_bits, 16)
        answers = list(cases(20, 60))
        for case in answers:
            grader.grade(case)
        work.tell([(time.perf_counter() - BEGIN) / len(answers)] * len(answers))
        return
    common = common_table if (variant, kind) == ("slow", "overlap") else common_bits
    grader = Grader(Normaliser(eager=False), common, 3 if kind == "judge" else 0)
    count = {"slow-overlap": 50, "fixed-overlap": 550, "healthy-judge": 190}[f"{variant}-{kind}"]
    coming = cases(count + 2, 900 if kind == "overlap" else 300)
    work.run(lambda number: grader.grade(next(coming)), count)


if __name__ == "__main__":
    main()

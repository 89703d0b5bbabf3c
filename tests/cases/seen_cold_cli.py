"""A command that classifies the few tickets of a shift: it comes up, does its work in a second or two, and ends.

Injected: it gets ready for everything there could be. In cases named lexicon it spreads every word of the lexicon over all of its
forms before the first ticket; the twin spreads the words that it meets. In cases named plugins it compiles and loads all plugins of a
folder; the twin those that tickets ask for. The tickets are the same, and what they need; a run is told by how long it took.
"""

import hashlib
import importlib.util
import os
import re
import sys
import tempfile

import work

CASES = {
    "slow-lexicon-25": "slow lexicon 25",
    "slow-lexicon-40": "slow lexicon 40",
    "slow-plugins-900": "slow plugins 900",
    "fixed-lexicon-25": "fixed lexicon 25",
    "fixed-lexicon-40": "fixed lexicon 40",
    "fixed-plugins-900": "fixed plugins 900",
}
LABEL = ["startup-dominates"]
ALSO = {"slow": ["cpu-bound-python", "preprocessing-bound", "memory-growth"], "fixed": ["native-hot-spot"]}
WHERE = ""  # where a start is said to be is up to who says it
MEASURE = "wall"
TICKETS = 1200
WORD = re.compile(r"[a-z]+")
ENDINGS = ["", "s", "ed", "ing", "er", "ers", "est", "ly", "ness", "able"]


def forms(word):
    """All forms of a word, with the weight that each has in the classes."""
    found = {}
    for prefix in ("", "re", "un", "over", "mis"):
        for ending in ENDINGS:
            form = prefix + word + ending
            weight = 0
            for letter in form:
                weight = (weight * 33 + ord(letter)) & 0xFFFF
            found[form] = weight
    return found


class Lexicon:
    def __init__(self, thousands, eager):
        syllables = ["ba", "ce", "di", "fo", "gu", "ha", "ki", "lo", "mu", "ne"]
        self.words = [
            "".join(syllables[number // 10**digit % 10] for digit in range(5)) + "x" * (number % 3) for number in range(thousands * 1000)
        ]
        self.known = {}
        if eager:
            for word in self.words:
                self.known.update(forms(word))

    def weight(self, number, text):
        word = self.words[number * 977 % len(self.words)]
        if word not in self.known:
            self.known.update(forms(word))
        return sum(self.known.get(part, 0) for part in WORD.findall(text + " " + word))


PLUGIN = '''
"""Plugin {number}: rules for one kind of tickets."""
RULES = {{}}

def rule(name):
    def add(function):
        RULES[name] = function
        return function
    return add
'''
RULE = '''
@rule("rule {at}")
def rule_{at}(text, weight=0, *, low={at}, high={at} + 100):
    """Whether the text is of kind {at}."""
    if len(text) > low and (weight & 3 or text.startswith("t{at}")):
        return {{"kind": "k{at}", "weight": (weight + low) % high, "words": [word for word in text.split() if word != "x{at}"][:3]}}
    return None
'''


class Plugins:
    def __init__(self, folder, count, eager):
        self.folder, self.loaded = folder, {}
        rules = "".join(RULE.format(at=at) for at in range(40))
        for number in range(count):
            with open(os.path.join(folder, f"plugin{number}.py"), "w") as file:
                file.write(PLUGIN.format(number=number) + rules)
        if eager:
            for number in range(count):
                self.load(number)

    def load(self, number):
        spec = importlib.util.spec_from_file_location(f"plugin{number}", os.path.join(self.folder, f"plugin{number}.py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.loaded[number] = module.RULES
        return module.RULES

    def weight(self, number, text):
        rules = self.loaded.get(number % 5) or self.load(number % 5)
        return sum(found["weight"] for name in ("rule 1", "rule 7") if (found := rules[name](text, number)))


def main():
    variant, kind, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory() as folder:
        eager = variant == "slow"
        source = Lexicon(size, eager) if kind == "lexicon" else Plugins(folder, size, eager)

        def ticket(number):
            text = f"ticket {number} the printer of floor {number % 9} does not answer " * 4
            weight = source.weight(number, text)
            return hashlib.pbkdf2_hmac("sha256", b"%d" % weight, b"model", 5000)

        work.run(ticket, TICKETS)


main()

"""A virtual screening: plates of candidate molecules are featurised and go to an affinity model, a plate to a call.

Injected, in cases named fingerprint: the fingerprint of each molecule of the combinatorial library (a scaffold with two substituents) is
worked out atom by atom: tokens, bonds, paths of up to three atoms, each hashed, of its fragments and of the joints between them. It is
Python code over small functions, for which the model waits: preprocessing-bound. The twin uses that the library has a few dozen fragments
and joints: the paths of each are found once (a cache). The fingerprints are the same.

Injected, in cases named plate: the lab's plate reader sends its readings as XML, and the program builds a DOM of them (xml.dom.minidom) and
asks it for the elements by name, well by well, before the model gets the numbers: preprocessing-bound. The twin parses with the C parser of
xml.etree and reads the wells in one pass. The readings are the same.

healthy-screen: fragments once, plates by ElementTree.
"""

import hashlib
import sys
import zlib
from functools import lru_cache
from xml.dom import minidom
from xml.etree import ElementTree

import work

NEEDS = ""
CASES = {
    "slow-fingerprint": "slow fingerprint",
    "slow-plate": "slow plate",
    "fixed-fingerprint": "fixed fingerprint",
    "fixed-plate": "fixed plate",
    "healthy-screen": "healthy screen",
}
LABEL = {"slow-fingerprint": ["preprocessing-bound"], "slow-plate": ["preprocessing-bound"]}
ALSO = {
    "slow-fingerprint": ["cpu-bound-python", "native-hot-spot"],  # half of the time is the interpreter's, half the model's
    "slow-plate": ["cpu-bound-python", "native-hot-spot", "gc-pressure"],  # a DOM is thousands of nodes in cycles
    "fixed": ["native-hot-spot", "preprocessing-bound"],  # the model; what is left of the work before it
    "healthy": ["native-hot-spot", "preprocessing-bound"],
}
WHERE = (
    "tokens|bonds|paths|bit|fingerprint|spell|Fingerprinter|featurise|path_bits"
    "|wells|DomPlate|parse|start_element|end_element|character_data|getElementsByTagName|text_of|reading|minidom|expatbuilder"
)
MEASURE = "mean"
SCAFFOLDS = "C1CCNCC1 c1ccncc1 C1CCOCC1 c1ccc2occc2c1 C1CNCCN1 c1cnc2ccccc2c1 C1CCSCC1 c1ccsc1".split()
GROUPS = "C CC CO OC C(=O)N S(=O)(=O)C Cl Br C#N CC(C)C OCC NC(=O)C C(F)(F)F CCN(C)C c1ccccc1 C(=O)OC".split()
BITS = 1024
PER_CALL = 48  # molecules to a call of the model
WELLS = 384


def tokens(smiles):
    """Atoms, bonds, rings and branches of a SMILES string."""
    at = 0
    while at < len(smiles):
        sign = smiles[at : at + 2] if smiles[at : at + 2] in ("Cl", "Br") else smiles[at]
        yield sign
        at += len(sign)


def bonds(smiles):
    """The atoms, and for each the atoms that it is bound to, with the order of the bond."""
    atoms, bound, branch, rings = [], [], [], {}
    last, order = None, "-"
    for sign in tokens(smiles):
        if sign in "=#":
            order = sign
        elif sign == "(":
            branch.append(last)
        elif sign == ")":
            last = branch.pop()
        elif sign.isdigit():
            if sign in rings:
                other = rings.pop(sign)
                bound[last].append((other, "-"))
                bound[other].append((last, "-"))
            else:
                rings[sign] = last
        else:
            atoms.append(sign)
            bound.append([])
            if last is not None:
                bound[last].append((len(atoms) - 1, order))
                bound[-1].append((last, order))
            last, order = len(atoms) - 1, "-"
    return atoms, bound


def paths(atoms, bound, start, depth=3):
    """The paths of up to so many atoms that begin at this one, as text."""
    todo = [(atoms[start], (start,))]
    while todo:
        text, seen = todo.pop()
        yield text
        if len(seen) < depth:
            for other, order in bound[seen[-1]]:
                if other not in seen:
                    todo.append((text + order + atoms[other], (*seen, other)))


def bit(text):
    back = text[::-1]
    return 1 << zlib.crc32(min(text, back).encode()) % BITS


def path_bits(smiles):
    atoms, bound = bonds(smiles)
    found = 0
    for start in range(len(atoms)):
        for text in paths(atoms, bound, start):
            found |= bit(text)
    return found


class Fingerprinter:
    """The fingerprint of a molecule: of its fragments and of the joints between them."""

    def __init__(self, bits):
        self.bits = bits

    def fingerprint(self, left, scaffold, right):
        parts = (left, scaffold, right, joint(left, scaffold), joint(scaffold, right))
        found = 0
        for part in parts:
            found |= self.bits(part)
        return found.to_bytes(BITS // 8, "little")


def joint(one, other):
    """The two atoms at which two fragments are bound."""
    return [sign for sign in tokens(one) if sign.isalpha()][-1] + next(tokens(other))


def library(number):
    """The molecules of a call, as they come when the library is enumerated."""
    for at in range(number * PER_CALL, (number + 1) * PER_CALL):
        left, rest = at % len(GROUPS), at // len(GROUPS)
        yield GROUPS[left], SCAFFOLDS[rest % len(SCAFFOLDS)], GROUPS[(rest // len(SCAFFOLDS) + 3 * left) % len(GROUPS)]


def export(number):
    """What the plate reader writes."""
    lines = ['<?xml version="1.0"?>', f'<plate barcode="P{number:05d}" protocol="FP-485/520">']
    for well in range(WELLS):
        name = f"{'ABCDEFGHIJKLMNOP'[well // 24]}{well % 24 + 1}"
        signal, blank = 20000 + (well * 7919 + number * 131) % 9973, 300 + (well * 31 + number) % 97
        lines.append(f'  <well name="{name}" blank="{blank}"><signal unit="RFU">{signal}</signal></well>')
    return "\n".join([*lines, "</plate>"])


class DomPlate:
    def text_of(self, element, name):
        return "".join(node.data for node in element.getElementsByTagName(name)[0].childNodes)

    def reading(self, well):
        return well.getAttribute("name"), int(self.text_of(well, "signal")) - int(well.getAttribute("blank"))

    def wells(self, text):
        plate = minidom.parseString(text)
        return [self.reading(well) for well in plate.getElementsByTagName("well")]


class TreePlate:
    def wells(self, text):
        plate = ElementTree.fromstring(text)
        return [(well.get("name"), int(well[0].text) - int(well.get("blank"))) for well in plate]


class Screen:
    def __init__(self, bits, plate=None):
        self.fingerprinter, self.plate = Fingerprinter(bits), plate
        self.exports = [export(number) for number in range(16)]
        self.seal = hashlib.sha256()

    def featurise(self, number):
        return b"".join(self.fingerprinter.fingerprint(*molecule) for molecule in library(number))

    def step(self, number):
        features = self.featurise(number)
        if self.plate:
            wells = self.plate.wells(self.exports[number % len(self.exports)])
            features += b"".join(value.to_bytes(4, "little", signed=True) for _, value in wells)
        self.seal.update(features)
        self.seal.update(work.model().encode())


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    cached = lru_cache(maxsize=4096)(path_bits)
    if kind == "fingerprint":
        screen = Screen(path_bits if slow else cached)
    elif kind == "plate":
        screen = Screen(cached, DomPlate() if slow else TreePlate())
    else:
        screen = Screen(cached, TreePlate())
    work.run(screen.step, 220 if slow else 460, warm=20)
    print(screen.seal.hexdigest()[:16], file=sys.stderr)


if __name__ == "__main__":
    main()

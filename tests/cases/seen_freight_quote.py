"""The quotes of a freight exchange, online: a shipper asks, a price and a mark of the model go back at once.

A step is one quote: what the shipper has written is rid of addresses and telephone numbers, the cheapest carriers of the lane
are looked up on the rate card, the model takes the text and the price is worked out. With each request the exchange also brings a
new rate of some carrier for a block of lanes, for the rate card.

Injected, in cases named note: the pattern of mail addresses begins with `[\\w.+-]+@`; shippers paste references of their own
systems into the note (a thousand signs or so without a blank), and at each sign of such a one the engine runs to its end, to
find no `@`: one call of `sub` takes half of the step: native-hot-spot. The twin's pattern may only begin where a word begins
(a lookbehind), so that each sign is looked at once. The notes that come out are the same.

Injected, in cases named card: new rates are gathered, and with every twentieth request the card is made anew (prices of all
carriers on all lanes, sorted), in the course of that request, which takes as long as fifteen or twenty others: step-jitter. The
median is as good as the twin's; the mean is not. The twin enters each rate as it comes, in the few lanes that it is for (`bisect`),
so that all steps are alike. The card is the same after every twentieth request.

healthy-quotes: the lookbehind, rates entered as they come.
"""

import bisect
import hashlib
import re
import sys
import zlib

import work

NEEDS = ""
CASES = {
    "slow-note": "slow note",
    "slow-card": "slow card",
    "fixed-note": "fixed note",
    "fixed-card": "fixed card",
    "healthy-quotes": "healthy quotes",
}
LABEL = {"slow-note": ["native-hot-spot"], "slow-card": ["step-jitter"]}
ALSO = {
    "slow-note": [],
    "slow-card": ["cpu-bound-python", "native-hot-spot"],  # what the long steps do; the model
    "fixed": ["native-hot-spot"],  # the model
    "healthy": ["native-hot-spot"],
}
WHERE = "redact|sub|search|rebuild|price|enter|close|RateCard|tick|sort"
MEASURE = "mean"
LANES, CARRIERS, BLOCK = 640, 150, 8
CLOSE = 20  # rates that are gathered
PLAIN_MAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
BOUND_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.-]+")
PHONE = re.compile(r"\+\d{2}[ -]?\d{3}[ -]?\d{4,7}")
PHRASES = (
    "two pallets of machine parts, tail lift needed; call +49 171 5550123 before",
    "please quote incl. customs, mails to dock.2@harbour-north.example only",
    "frozen goods, -18 degrees throughout, driver has to wait",
    "collect after 14:00, ask for J. Moreau, j.moreau+dock@transports.example",
)


def shipper_note(number, signs):
    """What a shipper writes, with the reference of the shipper's system in it."""
    reference = hashlib.shake_128(b"ref%d" % (number % 12)).hexdigest(signs // 2)
    return f"{PHRASES[number % 4]}\nour ref. {reference}\n{PHRASES[(number + 1) % 4]}"


class Carrier:
    def __init__(self, number):
        self.number, self.rates = number, [90 + (number * 7 + block * 3) % 60 for block in range(LANES // BLOCK)]
        self.surcharge = 4 + number % 5

    def price(self, lane):
        distance = 80 + lane * 13 % 900
        toll = distance // 50 * (3 if lane % 4 else 5)
        return self.rates[lane // BLOCK] * distance // 10 + toll + self.surcharge * (1 + lane % 3)


class RateCard:
    """For each lane, the carriers by price."""

    def __init__(self, at_once):
        self.at_once, self.pending = at_once, []
        self.carriers = [Carrier(number) for number in range(CARRIERS)]
        self.lanes = []
        self.rebuild()

    def rebuild(self):
        lanes = []
        for lane in range(LANES):
            prices = [(carrier.price(lane), carrier.number) for carrier in self.carriers]
            prices.sort()
            lanes.append(prices)
        self.lanes = lanes

    def tick(self, number, block, rate):
        """A new rate of a carrier for a block of lanes."""
        if self.at_once:
            self.enter(self.carriers[number], block, rate)
            return
        self.pending.append((number, block, rate))
        if len(self.pending) == CLOSE:
            for number, block, rate in self.pending:
                self.carriers[number].rates[block] = rate
            self.pending.clear()
            self.rebuild()

    def enter(self, carrier, block, rate):
        lanes = range(block * BLOCK, (block + 1) * BLOCK)
        for lane in lanes:
            prices = self.lanes[lane]
            del prices[bisect.bisect_left(prices, (carrier.price(lane), carrier.number))]
        carrier.rates[block] = rate
        for lane in lanes:
            bisect.insort(self.lanes[lane], (carrier.price(lane), carrier.number))

    def cheapest(self, lane):
        return self.lanes[lane][:5]


class Quotes:
    def __init__(self, mail, at_once, signs):
        self.mail, self.signs = mail, signs
        self.card = RateCard(at_once)
        self.seal = 0

    def redact(self, note):
        return PHONE.sub("<phone>", self.mail.sub("<mail>", note))

    def quote(self, number):
        self.card.tick(number * 17 % CARRIERS, number * 11 % (LANES // BLOCK), 90 + number * 23 % 70)
        note = self.redact(shipper_note(number, self.signs))
        lane = number * 29 % LANES
        offers = self.card.cheapest(lane)
        mark = int(work.model()[:4], 16)
        price = offers[0][0] * (1000 + mark % 40 + note.count(" ") % 5) // 1000
        self.seal = zlib.crc32(note.encode(), self.seal)
        return price, [carrier for _, carrier in offers]


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    if kind == "note":
        quotes = Quotes(PLAIN_MAIL if slow else BOUND_MAIL, True, 1000)
        count = 318
    elif kind == "card":
        quotes = Quotes(BOUND_MAIL, not slow, 240)
        count = 318
    else:
        quotes = Quotes(BOUND_MAIL, True, 600)
        count = 398
    work.run(quotes.quote, count)
    print(f"{quotes.seal:08x} {zlib.crc32(repr(quotes.card.lanes).encode()):08x}", file=sys.stderr)


if __name__ == "__main__":
    main()

"""A nightly job of an electricity utility: audits a file of smart meters' readings, from the command line.

A step is a meter: its readings of a day are parsed, each reading is judged by two small networks (odd or not), the model takes the
meter's profile, the tariff's formula prices the day and a line is added to the report. The clock of the job starts with the program: the first step
has the start in it, and the mean of the steps is what the job takes per meter.

Injected, in cases named judge: the networks judge one reading per call (normalise, two layers, a squashing; numpy), 288 per
meter and network, where they take any number of rows: small-batches. The twin judges the day in one call. The verdicts are the same.

Injected, in cases named tariffs: at the start the job compiles what all the suppliers of the country have registered (for each a
pattern of the serial numbers and formulas of the price) before it looks at the first meter, though the file has meters
of a dozen suppliers: half of the job's time is its start: startup-dominates. The twin compiles a tariff when the first meter asks for
it. The report is the same.

healthy-night: the day in one call, tariffs when asked for.
"""

import time

BEGUN = time.perf_counter()

import functools
import os
import re
import sys
import zlib

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import work

NEEDS = "numpy"
CASES = {
    "slow-judge": "slow judge",
    "slow-tariffs": "slow tariffs",
    "fixed-judge": "fixed judge",
    "fixed-tariffs": "fixed tariffs",
    "healthy-night": "healthy night",
}
LABEL = {"slow-judge": ["small-batches"], "slow-tariffs": ["startup-dominates"]}
ALSO = {
    "slow-judge": ["cpu-bound-python", "native-hot-spot"],  # the overhead of the calls; the model
    "slow-tariffs": ["cpu-bound-python", "native-hot-spot"],  # `re` and `compile` are what starts; the model
    "fixed": ["native-hot-spot", "startup-dominates"],  # a short job
    "healthy": ["native-hot-spot", "startup-dominates"],
}
WHERE = "judge|normalise|verdicts|odd|compile|_compile|parse|_parse|_parse_sub|_optimize|Tariff|tariff|register|load_all|__init__"
MEASURE = "mean"
READINGS = 288  # five minutes each
FEATURES = 12
SUPPLIERS = 760
AREAS = "NO SO WE EA MI CE HI LO".split()


def register(number):
    """What a supplier has registered; stands in for a file of it."""
    area = AREAS[number % len(AREAS)]
    makers = "|".join(f"{chr(65 + (number + at) % 26)}{chr(65 + at * 5 % 26)}{number % 7 + at}" for at in range(14))
    serial = rf"^(?:{makers})-(?P<area>{area}|XX)(?P<year>(?:19|20)\d\d)[-/](?P<unit>[0-9A-F]{{4,8}})(?:\.(?:{makers}))?(?P<check>[0-9X])?$"
    base = 11 + number % 9
    formulas = [
        f"(kwh * {base + at} + max(0, kwh - {at * 3}) * {number % 5 + 1}) * (1.19 if {at} < 17 else 1.07) + peak * {at % 4}"
        for at in range(24)
    ]
    return serial, formulas


class Tariff:
    def __init__(self, number):
        serial, formulas = register(number)
        self.serial = re.compile(serial)
        self.hours = [compile(formula, f"<tariff {number}>", "eval") for formula in formulas]

    def price(self, hours, peak):
        return sum(eval(code, {"max": max}, {"kwh": kwh, "peak": peak}) for code, kwh in zip(self.hours, hours))


class AllTariffs:
    """The register, ready for any meter."""

    def __init__(self):
        self.tariffs = self.load_all()

    def load_all(self):
        return {number: Tariff(number) for number in range(SUPPLIERS)}

    def of(self, supplier):
        return self.tariffs[supplier]


class AskedTariffs:
    @functools.cache
    def of(self, supplier):
        return Tariff(supplier)


class Judge:
    """A small network that knows odd readings. Takes one row per reading."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.first = rng.normal(0, 0.4, (FEATURES, 32))
        self.second = rng.normal(0, 0.4, (32, 2))
        self.mean, self.spread = rng.normal(2, 0.1, FEATURES), rng.uniform(0.5, 2, FEATURES)

    def normalise(self, rows):
        return np.clip((rows - self.mean) / self.spread, -4, 4)

    def odd(self, rows):
        hidden = np.tanh(self.normalise(np.atleast_2d(rows)) @ self.first)
        out = hidden @ self.second
        return out[:, 1] > out[:, 0] + 0.25


def night(count):
    """The file: a line per meter, of its supplier, serial number and readings in Wh."""
    days = [",".join(str(60 + (day * 37 + at * at * 11 + at * 5) % 410) for at in range(READINGS)) for day in range(16)]
    for number in range(count):
        supplier = number * 29 % 12 * 31
        area, maker = AREAS[supplier % len(AREAS)], f"{chr(65 + supplier % 26)}A{supplier % 7}"
        yield f"{supplier};{maker}-{area}20{number % 20:02d}-{number:05X};{days[number % 16]}"


class Audit:
    def __init__(self, tariffs, single):
        self.tariffs, self.single, self.judges, self.report = tariffs, single, [Judge(4), Judge(5)], []

    def features(self, readings):
        day = np.array(readings, np.float64) / 100
        return np.stack([np.roll(day, lag) for lag in range(FEATURES)], axis=1)

    def verdicts(self, rows):
        if not self.single:
            return sum(int(judge.odd(rows).sum()) for judge in self.judges)
        count = 0
        for judge in self.judges:
            for row in rows:
                if judge.odd(row)[0]:
                    count += 1
        return count

    def meter(self, line):
        supplier, serial, readings = line.split(";")
        readings = [int(reading) for reading in readings.split(",")]
        tariff = self.tariffs.of(int(supplier))
        known = tariff.serial.match(serial)
        odd = self.verdicts(self.features(readings))
        mark = work.model()
        hours = [sum(readings[at * 12 : at * 12 + 12]) / 1000 for at in range(24)]
        price = tariff.price(hours, max(hours))
        self.report.append(f"{serial} {known['year'] if known else '-'} {odd} {price:.2f} {mark}")

    def run(self, count):
        times, start = [], BEGUN
        for line in night(count):
            self.meter(line)
            now = time.perf_counter()
            times.append(now - start)
            start = now
        print(f"{zlib.crc32(chr(10).join(self.report).encode()):08x}", file=sys.stderr)
        work.tell(times)


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    if kind == "judge":
        Audit(AskedTariffs(), single=slow).run(220)
    elif kind == "tariffs":
        Audit(AllTariffs() if slow else AskedTariffs(), single=False).run(240)
    else:
        Audit(AskedTariffs(), single=False).run(420)


if __name__ == "__main__":
    main()

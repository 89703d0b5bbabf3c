"""A search for anomalies among sensors: how far each reading is from the usual, and which readings are the farthest.

Injected, in cases named sort: all distances are sorted for the ten farthest; the twin parts them (`argpartition`). In cases named
inverse: the covariance, which changes once a day, is inverted for each batch; the twin inverted it when it loaded. One native function
does most of the work, and it does not have to. healthy-distance: the twin with ten times the readings; what it does has to be done.
"""

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy

import work

CASES = {
    "slow-sort": "slow sort",
    "slow-inverse-300": "slow inverse 300",
    "slow-inverse-500": "slow inverse 500",
    "fixed-sort": "fixed sort",
    "fixed-inverse-300": "fixed inverse 300",
    "fixed-inverse-500": "fixed inverse 500",
    "healthy-distance": "healthy inverse 300",
}
LABEL = {"slow": ["native-hot-spot"]}
ALSO = {"fixed": ["native-hot-spot"], "healthy": ["native-hot-spot"]}
WHERE = "sort|inv|top|farthest|usual"
NEEDS = "numpy"
KEEP = 10


class Usual:
    """What is usual: the mean, and the covariance of the sensors."""

    def __init__(self, sensors, rng, once, rows):
        sample = rng.standard_normal((sensors * 4, sensors)) + rng.standard_normal((sensors * 4, 1))
        self.mean, self.covariance = sample.mean(axis=0), numpy.cov(sample.T)
        self.known = self.invert() if once else None
        self.apart, self.weighed, self.found = numpy.empty((rows, sensors)), numpy.empty((rows, sensors)), numpy.empty(rows)

    def invert(self):
        return numpy.linalg.inv(self.covariance)

    def distances(self, readings):
        inverse = self.invert() if self.known is None else self.known
        apart = numpy.subtract(readings, self.mean, out=self.apart[: len(readings)])
        weighed = numpy.matmul(apart, inverse, out=self.weighed[: len(readings)])
        return numpy.einsum("ij,ij->i", weighed, apart, out=self.found[: len(readings)])


class Watch:
    def __init__(self, usual, part):
        self.usual, self.part = usual, part
        self.alarms = []

    def top_sorted(self, distances):
        return numpy.argsort(-distances, kind="stable")[:KEEP]

    def top_parted(self, distances):
        best = numpy.argpartition(distances, -KEEP)[-KEEP:]
        return best[numpy.argsort(-distances[best])]

    def batch(self, readings):
        distances = self.usual.distances(readings)
        farthest = (self.top_parted if self.part else self.top_sorted)(distances)
        self.alarms = [(int(at), round(float(distances[at]), 3)) for at in farthest]
        return self.alarms


def main():
    variant, kind = sys.argv[1], sys.argv[2]
    rng = numpy.random.default_rng(11)
    sensors = 4 if kind == "sort" else int(sys.argv[3])
    rows = 60_000 if kind == "sort" else 2500 if variant == "healthy" else 250
    usual = Usual(sensors, rng, once=kind == "sort" or variant != "slow", rows=rows)
    watch = Watch(usual, part=kind != "sort" or variant != "slow")
    batches = [rng.standard_normal((rows, sensors)) for _ in range(4)]
    counts = {"slow": {4: 320, 300: 400, 500: 140}, "fixed": {4: 1600, 300: 2000, 500: 900}, "healthy": {300: 220}}
    work.run(lambda number: watch.batch(batches[number % 4]), counts[variant][sensors])


main()

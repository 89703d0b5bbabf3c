"""Long recordings, of numpy: the window, the power and the scale of a spectrogram of some minutes, then its loudest bands.

Injected: the expressions are written as in the paper, and every operator gets new memory of tens of MB from the system, page by page,
and gives it back. The twin does the same operations in the same order into arrays that it keeps (`out=`).
"""

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy

import work

CASES = {
    "slow-40mb": "slow 40",
    "slow-90mb": "slow 90",
    "fixed-40mb": "fixed 40",
    "fixed-90mb": "fixed 90",
}
LABEL = ["page-faults"]
ALSO = {"slow": ["host-copies", "native-hot-spot"], "fixed": ["native-hot-spot"]}
WHERE = "scale|numpy|spectr|process|loud"
NEEDS = "numpy"
BANDS = 512


class Spectrogram:
    """As in the paper."""

    def __init__(self, frames):
        self.window = numpy.hanning(BANDS).astype(numpy.float32)
        self.noise = numpy.full(BANDS, 0.01, dtype=numpy.float32)

    def scale(self, recording):
        windowed = recording * self.window
        power = windowed * windowed
        quiet = power - self.noise
        kept = numpy.maximum(quiet, 0)
        scaled = kept / (kept.max() + 1)
        return scaled + scaled * scaled * numpy.float32(0.5)


class KeptSpectrogram(Spectrogram):
    """The same into arrays that are kept."""

    def __init__(self, frames):
        super().__init__(frames)
        self.one = numpy.empty((frames, BANDS), dtype=numpy.float32)
        self.two = numpy.empty((frames, BANDS), dtype=numpy.float32)

    def scale(self, recording):
        windowed = numpy.multiply(recording, self.window, out=self.one)
        power = numpy.multiply(windowed, windowed, out=windowed)
        quiet = numpy.subtract(power, self.noise, out=power)
        kept = numpy.maximum(quiet, 0, out=quiet)
        scaled = numpy.divide(kept, kept.max() + 1, out=kept)
        bent = numpy.multiply(scaled, scaled, out=self.two)
        bent *= numpy.float32(0.5)
        bent += scaled
        return bent


class Listener:
    def __init__(self, spectrogram):
        self.spectrogram = spectrogram
        self.history = []

    def loudest(self, recording):
        bands = self.spectrogram.scale(recording).sum(axis=0)
        best = numpy.argpartition(bands, -8)[-8:]
        return sorted(int(band) for band in best)

    def process(self, recordings, number):
        recording = recordings[number % len(recordings)]
        self.history = self.history[-20:] + [self.loudest(recording)]


def main():
    variant, megabytes = sys.argv[1], int(sys.argv[2])
    frames = megabytes * 1_000_000 // (4 * BANDS)
    rng = numpy.random.default_rng(3)
    recordings = [rng.standard_normal((frames, BANDS), dtype=numpy.float32) for _ in range(2)]
    listener = Listener((Spectrogram if variant == "slow" else KeptSpectrogram)(frames))
    work.run(lambda number: listener.process(recordings, number), {"slow": {40: 40, 90: 14}, "fixed": {40: 80, 90: 35}}[variant][megabytes])


main()

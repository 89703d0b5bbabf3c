"""A detector on video, of numpy: frames come one by one, a window of the last ones is judged, and what was found is cut out.

Injected, in cases named window: for each frame the window is made anew of its last frames and the new one, and copied again to have
the channels first. The twin writes the frame, channels first, into a ring that is there twice, so that the window is a view of it. In
cases named crops: each box is cut out of a copy of the whole frame with a margin around; the twin cuts a view, and fills in what
reaches over the edge.
"""

import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy

import work

CASES = {
    "slow-window": "slow window",
    "slow-crops": "slow crops",
    "fixed-window": "fixed window",
    "fixed-crops": "fixed crops",
}
LABEL = ["host-copies"]
ALSO = {"slow": ["page-faults", "native-hot-spot"], "fixed": ["native-hot-spot"]}
WHERE = "push|window|Window|crop|pad|cut|concatenate|copy|contiguous|numpy"
NEEDS = "numpy"
HIGH, WIDE, FRAMES, MARGIN = 120, 160, 16, 24


class CopyingWindow:
    def __init__(self):
        self.frames = numpy.zeros((FRAMES, HIGH, WIDE, 3), dtype=numpy.float32)

    def push(self, frame):
        self.frames = numpy.concatenate([self.frames[1:], frame[None].astype(numpy.float32)])
        return numpy.ascontiguousarray(self.frames.transpose(0, 3, 1, 2))


class RingWindow:
    """Each frame is written to two places, so that any window lies in one piece."""

    def __init__(self):
        self.ring = numpy.zeros((2 * FRAMES, 3, HIGH, WIDE), dtype=numpy.float32)
        self.at = 0

    def push(self, frame):
        self.ring[self.at] = frame.transpose(2, 0, 1)
        self.ring[self.at + FRAMES] = self.ring[self.at]
        self.at = (self.at + 1) % FRAMES
        return self.ring[self.at : self.at + FRAMES]


class Detector:
    """Looks at the window through a few strips of weights."""

    def __init__(self):
        self.weight = numpy.random.default_rng(3).standard_normal((WIDE, 64), dtype=numpy.float32) / 12

    def __call__(self, window):
        strips = window[:, :, ::16].reshape(-1, WIDE)
        return numpy.tanh(strips @ self.weight).max(axis=0)


def margin(frame):
    return numpy.pad(frame, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="constant")


class Cutter:
    """Parts of a frame, which may reach over its edge; places are told with the margin."""

    def __init__(self):
        self.weight = numpy.random.default_rng(4).standard_normal((48 * 3, 1024), dtype=numpy.float32) / 12

    def crop(self, frame, top, left):
        padded = numpy.pad(frame, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="constant")
        return padded[top : top + 48, left : left + 48]

    def judge(self, frame, boxes):
        return [float((self.crop(frame, top, left).reshape(48, -1) @ self.weight).max()) for top, left in boxes]


class ThriftyCutter(Cutter):
    def crop(self, frame, top, left):
        top, left = top - MARGIN, left - MARGIN
        inside = frame[max(top, 0) : top + 48, max(left, 0) : left + 48]
        if inside.shape[:2] == (48, 48):
            return inside
        part = numpy.zeros((48, 48, 3), dtype=frame.dtype)
        down, right = max(-top, 0), max(-left, 0)
        part[down : down + inside.shape[0], right : right + inside.shape[1]] = inside
        return part


def main():
    variant, kind = sys.argv[1:3]
    random = numpy.random.default_rng(1)
    if kind == "window":
        frames = random.integers(0, 255, (8, HIGH, WIDE, 3), dtype=numpy.uint8)
        window, detector = (CopyingWindow if variant == "slow" else RingWindow)(), Detector()
        work.run(lambda number: detector(window.push(frames[number % 8])), {"slow": 2500, "fixed": 10_000}[variant])
        return
    frames = random.standard_normal((4, 2 * HIGH, 2 * WIDE, 3), dtype=numpy.float32)
    cutter = Cutter() if variant == "slow" else ThriftyCutter()
    boxes = [(number * 37 % (2 * HIGH), number * 53 % (2 * WIDE)) for number in range(8)]
    work.run(lambda number: cutter.judge(frames[number % 4], boxes), {"slow": 900, "fixed": 2200}[variant])


main()

"""The perception loop of a yard vehicle: lidar sweeps come from the driver's buffers, a window of the last twelve is kept, and
what has moved in a region of interest goes to a model; or the sweep is rasterised and the model gets the density of each point.

Injected, in cases named window: the window of the last twelve sweeps (4 MB each) is kept in order of time, so that each new sweep
shifts the eleven that stay (`buf[:-n] = buf[n:]`), and the detector is handed a snapshot of the whole window, "because the driver may
write meanwhile", of which it reads a few thousand columns. About 90 MB are copied per sweep, into buffers that exist: host-copies.
The twin writes the sweep over the oldest one, remembers where the newest is, and reads the region from the window itself.

Injected, in cases named raster: the occupancy grid (7000 x 7000 bytes) is made anew by `np.zeros` for each sweep, though a sweep
marks a few thousand cells that are spread over all of it: the kernel maps, clears and unmaps 49 MB per sweep: page-faults. The twin
keeps one grid and clears the cells that it has marked. Regions, densities and model outputs are the same.

healthy-sweep: a window written in turn and a kept grid, both.
"""

import hashlib
import sys

import numpy as np
import work

NEEDS = "numpy"
CASES = {
    "slow-window": "slow window",
    "slow-raster": "slow raster",
    "fixed-window": "fixed window",
    "fixed-raster": "fixed raster",
    "healthy-sweep": "healthy sweep",
}
LABEL = {"slow-window": ["host-copies"], "slow-raster": ["page-faults"]}
ALSO = {
    "slow-window": ["native-hot-spot", "preprocessing-bound"],  # one assignment is a native call; it is before the model
    "slow-raster": ["native-hot-spot", "preprocessing-bound"],
    "fixed": ["native-hot-spot"],  # the model
    "healthy": ["native-hot-spot"],
}
WHERE = "push|recent|ShiftedWindow|rasterise|density|FreshRaster|zeros"
MEASURE = "mean"
BEAMS, COLUMNS, KEEP = 128, 16384, 12  # a sweep is 128 x 16384 readings of two bytes
SIDE = 7000
POINTS = 6000


class Driver:
    """Stands in for the vendor's driver: its buffers, filled in turn by the network card."""

    def __init__(self, seed=7, slots=3):
        rng = np.random.default_rng(seed)
        base = rng.integers(400, 9000, (BEAMS, COLUMNS), np.uint16)
        self.slots = [np.ascontiguousarray(np.roll(base, 37 * slot, axis=1)) for slot in range(slots)]
        self.points = [rng.integers(2, SIDE - 2, (2, POINTS)) for _ in range(slots)]

    def sweep(self, number):
        return self.slots[number % len(self.slots)]

    def cells(self, number):
        """Where the strongest returns of the sweep fall in the grid, moved with the vehicle."""
        x, y = self.points[number % len(self.points)]
        return (x + number) % (SIDE - 4) * SIDE + y


class ShiftedWindow:
    """The last sweeps, oldest first."""

    def __init__(self):
        self.size = BEAMS * COLUMNS
        self.buffer = np.ones(self.size * KEEP, np.uint16)
        self.snapshot = np.ones_like(self.buffer)

    def push(self, sweep):
        self.buffer[: -self.size] = self.buffer[self.size :]
        self.buffer[-self.size :] = sweep.reshape(-1)

    def recent(self, region):
        self.snapshot[:] = self.buffer
        return self.snapshot.reshape(KEEP, BEAMS, COLUMNS)[:, region[0], region[1]]


class TurningWindow:
    """The last sweeps, each written over the oldest."""

    def __init__(self):
        self.buffer = np.ones((KEEP, BEAMS, COLUMNS), np.uint16)
        self.at = 0

    def push(self, sweep):
        self.buffer[self.at] = sweep
        self.at = (self.at + 1) % KEEP

    def recent(self, region):
        picked = self.buffer[:, region[0], region[1]]
        return np.concatenate((picked[self.at :], picked[: self.at]))


class FreshRaster:
    def density(self, cells):
        grid = np.zeros(SIDE * SIDE, np.uint8)
        return self.neighbours(self.rasterise(grid, cells), cells)

    def rasterise(self, grid, cells):
        grid[cells] = 1
        return grid

    def neighbours(self, grid, cells):
        return grid[cells - 1] + grid[cells + 1] + grid[cells - SIDE] + grid[cells + SIDE]


class KeptRaster(FreshRaster):
    def __init__(self):
        self.grid = np.zeros(SIDE * SIDE, np.uint8)
        self.grid.fill(0)

    def density(self, cells):
        found = self.neighbours(self.rasterise(self.grid, cells), cells)
        self.grid[cells] = 0
        return found


class Perception:
    def __init__(self, window=None, raster=None):
        self.driver, self.window, self.raster = Driver(), window, raster
        self.seal = hashlib.sha256()

    def region(self, number):
        left = 512 + number * 64 % 8192
        return slice(40, 72), slice(left, left + 512, 4)

    def moved(self, number):
        """What the newest sweep sees against the ones before it."""
        self.window.push(self.driver.sweep(number))
        recent = self.window.recent(self.region(number)).astype(np.int32)
        return recent[-1] - recent[:-1].sum(axis=0) // (KEEP - 1)

    def step(self, number):
        if self.window:
            self.seal.update(self.moved(number).tobytes())
        if self.raster:
            self.seal.update(self.raster.density(self.driver.cells(number)).tobytes())
        self.seal.update(work.model().encode())


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    if kind == "window":
        loop = Perception(window=ShiftedWindow() if slow else TurningWindow())
    elif kind == "raster":
        loop = Perception(raster=FreshRaster() if slow else KeptRaster())
    else:
        loop = Perception(TurningWindow(), KeptRaster())
    work.run(loop.step, 180 if slow else 360, warm=KEEP)
    print(loop.seal.hexdigest()[:16], file=sys.stderr)


if __name__ == "__main__":
    main()

"""Training-like loop: a child process draws, crops and normalises images, the parent collates and runs the model on them.

Injected, in cases named samples: the child sends a batch as a list of samples, each with its array, over a pipe: they are pickled, written
in pieces of 64 KB, read, unpickled and stacked: host-copies. The twin's child writes the batch into a slot of memory that both have
mapped (made before the fork), and sends the number of the slot.

Injected, in cases named lockstep: the parent asks for a batch when it needs it, and the child does nothing until then, so that the two
work by turns: waiting. The twin asks for the batch after next before it works on the one that it has; it is the same batch.

healthy-ring: slots and prefetch, and a model that is deeper.
"""

import collections
import mmap
import multiprocessing
import os
import sys
from dataclasses import dataclass

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one core is the child's

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-samples": "slow samples",
    "slow-lockstep": "slow lockstep",
    "fixed-samples": "fixed samples",
    "fixed-lockstep": "fixed lockstep",
    "healthy-ring": "healthy ring",
}
LABEL = {"slow-samples": ["host-copies"], "slow-lockstep": ["waiting"]}
ALSO = {
    "slow-samples": ["blocking-io", "waiting", "page-faults", "native-hot-spot"],  # the pipe, and arrays made anew for each batch
    "slow-lockstep": ["blocking-io", "native-hot-spot", "idle-no-work", "preprocessing-bound"],
    "fixed": ["blocking-io", "waiting", "idle-no-work", "native-hot-spot"],  # of the child, who is done before the parent
    "healthy": ["blocking-io", "waiting", "idle-no-work", "native-hot-spot"],
}
WHERE = "send|recv|receive|take|dump|loads|collate|stack|ask|fetch|next|__iter__|deliver|batches|serve"
MEASURE = "mean"
SIDE, SAMPLES, SLOTS = 64, 80, 4
SHAPE = (SAMPLES, SIDE, SIDE, 3)


@dataclass
class Sample:
    number: int
    label: int
    image: np.ndarray


class Images:
    """The data set, and what is done to an image before the model sees it. Lives in the child."""

    def __init__(self, count=160, seed=3):
        draw = np.random.default_rng(seed)
        self.raw = draw.integers(0, 255, (count, SIDE + 8, SIDE + 8, 3), np.uint8)
        self.scale = np.float32(1 / 255)

    def sample(self, number, out=None):
        raw, shift = self.raw[number % len(self.raw)], number * 5 % 8
        crop = raw[shift : shift + SIDE, shift : shift + SIDE]
        if number & 1:
            crop = crop[:, ::-1]
        return np.multiply(crop, self.scale, out=out, dtype=np.float32)

    def polish(self, images, rounds):
        """Photometric noise: more rounds of it are more work for the child."""
        for turn in range(rounds):
            np.subtract(images, np.float32(0.01 * turn), out=images)
            np.abs(images, out=images)


class Ring:
    """Slots of memory that are mapped in both processes."""

    def __init__(self):
        self.slots = np.frombuffer(mmap.mmap(-1, SLOTS * 4 * int(np.prod(SHAPE))), np.float32).reshape(SLOTS, *SHAPE)
        self.slots[:] = 0


def serve(link, ring, rounds):
    """The child: delivers what it is asked for, one batch after the other."""
    images, own = Images(), np.empty(SHAPE, np.float32)
    link.send("ready")
    while (asked := link.recv()) is not None:
        batch = ring.slots[asked % SLOTS] if ring else own
        for at in range(SAMPLES):
            images.sample(asked * SAMPLES + at, out=batch[at])
        images.polish(batch, rounds)
        deliver(link, asked, batch, ring)


def deliver(link, asked, batch, ring):
    if ring:
        link.send(asked % SLOTS)
    else:
        link.send([Sample(asked * SAMPLES + at, at % 10, image) for at, image in enumerate(batch)])


class Loader:
    """Iterates over batches; `ahead` of them are under way while the caller works on one."""

    def __init__(self, ring, ahead, rounds):
        self.ring, self.ahead = ring, ahead
        context = multiprocessing.get_context("fork")
        self.link, far = context.Pipe()
        self.child = context.Process(target=serve, args=(far, ring, rounds), daemon=True)
        self.child.start()
        self.link.recv()
        self.under_way = collections.deque()

    def ask(self, number):
        self.link.send(number)
        self.under_way.append(number)

    def collate(self, samples):
        return np.stack([sample.image for sample in samples])

    def receive(self):
        got = self.link.recv()
        self.under_way.popleft()
        return self.ring.slots[got] if self.ring else self.collate(got)

    def batches(self):
        number = 0
        while True:
            while len(self.under_way) < max(1, self.ahead):
                self.ask(number)
                number += 1
            batch = self.receive()
            if self.ahead:
                self.ask(number)
                number += 1
            yield batch

    def close(self):
        for _ in range(len(self.under_way)):
            self.link.recv()
        self.link.send(None)
        self.child.join()


class Model:
    def __init__(self, layers, width=48):
        draw = np.random.default_rng(8)
        self.inner = draw.standard_normal((SIDE * SIDE * 3, width), dtype=np.float32) / 100
        self.layers, self.seen = layers, 0.0

    def train(self, batch):
        hidden = np.maximum(batch.reshape(len(batch), -1) @ self.inner, 0)
        self.seen += float(hidden.mean())
        for _ in range(self.layers):
            work.model()


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    ring = None if slow and kind == "samples" else Ring()
    loader = Loader(ring, 0 if slow and kind == "lockstep" else 1, rounds=4 if kind == "lockstep" else 1)
    model, batches = Model(layers=2 if kind == "ring" else 1), loader.batches()
    work.run(lambda number: model.train(next(batches)), {"slow": 220, "fixed": 480, "healthy": 320}[variant])
    loader.close()


if __name__ == "__main__":
    main()

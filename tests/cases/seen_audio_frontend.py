"""The front end of a speech model: clips come from a store, are cleaned (offset, pre-emphasis, loudness) and become log-mel features.

Injected, in cases named clean: recordings of minutes are cleaned by expressions, each of which makes an array of 35 MB, that the C library
maps anew and gives back, so that each of its pages is touched for the first time: page-faults. The twin has two arrays and writes
into them. It computes the same.

Injected, in cases named store: the clip is asked for over a connection to the store (a child process, that takes 8 ms for one, as a
disk would) when it is needed, and the front end waits for the socket: blocking-io. The twin has four connections, each with a
thread, that fetch the clips that come next. They are the same clips.

healthy-local: clips are in memory, and features are made of them.
"""

import itertools
import multiprocessing
import os
import queue
import socket
import socketserver
import sys
import threading
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")  # huge pages made the containers go over their limit

import numpy as np

import work

NEEDS = "numpy"
CASES = {
    "slow-clean": "slow clean",
    "fixed-clean": "fixed clean",
    "slow-store": "slow store",
    "fixed-store": "fixed store",
    "healthy-local": "healthy local",
}
LABEL = {"slow-clean": ["page-faults"], "slow-store": ["blocking-io"]}
ALSO = {
    "slow-clean": ["host-copies", "native-hot-spot"],
    "slow-store": ["waiting", "idle-no-work", "native-hot-spot"],  # of the store
    "fixed-clean": ["host-copies", "native-hot-spot"],
    "fixed-store": ["waiting", "blocking-io", "idle-no-work", "native-hot-spot", "host-copies"],  # of the fetching threads
    "healthy": ["native-hot-spot"],
}
WHERE = "clean|offset|emphasis|loudness|fetch|get|recv|clip|Remote"
MEASURE = "mean"
RATE, CLIP, RECORDING = 16_000, 16_000 * 10, 4_400_000
FRAME, HOP, BANDS = 400, 160, 40


class Features:
    """Log-mel energies of a clip."""

    def __init__(self):
        centres = np.linspace(0, 257, BANDS + 2)
        bins = np.arange(257)
        rise = (bins[:, None] - centres[:-2]) / np.diff(centres)[:-1]
        fall = (centres[2:] - bins[:, None]) / np.diff(centres)[1:]
        self.mel = np.maximum(0, np.minimum(rise, fall))
        self.window, self.seen = np.hanning(FRAME), 0.0

    def frames(self, samples):
        return np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]

    def extract(self, clip):
        samples = np.frombuffer(clip, np.int16) / 32768
        energies = []
        for part in np.array_split(self.frames(samples), 30):  # parts that fit into the cache
            spectrum = np.abs(np.fft.rfft(part * self.window, 512)) ** 2
            energies.append(np.log(spectrum @ self.mel + 1e-6))
        features = np.concatenate(energies)
        features -= features.mean(axis=0)
        self.seen += float(np.abs(features).sum())


class Cleaner:
    def offset(self, sound):
        sound -= sound[::64].mean()
        return sound

    def emphasis(self, sound):
        louder = sound * 0.97
        sound[1:] -= louder[:-1]
        return sound

    def loudness(self, sound):
        sound = sound * (0.1 / np.abs(sound[::16]).mean())
        return np.clip(sound, -1, 1, out=sound)

    def clean(self, recording):
        return self.loudness(self.emphasis(self.offset(recording / 32768.0)))


class SavingCleaner(Cleaner):
    """The same, in arrays that are used again."""

    def __init__(self, length):
        self.one, self.other = np.zeros(length), np.zeros(length)

    def emphasis(self, sound):
        np.multiply(sound, 0.97, out=self.other)
        sound[1:] -= self.other[:-1]
        return sound

    def loudness(self, sound):
        np.multiply(sound, 0.1 / np.abs(sound[::16]).mean(), out=sound)
        return np.clip(sound, -1, 1, out=sound)

    def clean(self, recording):
        return self.loudness(self.emphasis(self.offset(np.divide(recording, 32768.0, out=self.one))))


def sounds(count, length, seed=2):
    draw = np.random.default_rng(seed)
    return [draw.integers(-9000, 9000, length, np.int16) for _ in range(count)]


class Store(socketserver.StreamRequestHandler):
    clips = [clip.tobytes() for clip in sounds(4, CLIP)]

    def handle(self):
        while line := self.rfile.readline():
            time.sleep(0.008)
            self.wfile.write(self.clips[int(line) % len(self.clips)])


def keep_store(link):
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Store)
    server.daemon_threads = True
    link.send(server.server_address)
    server.serve_forever()


class Remote:
    """A connection to the store. Three clips of it may be in use."""

    def __init__(self, address):
        self.socket, self.rooms = socket.create_connection(address), itertools.cycle([bytearray(2 * CLIP) for _ in range(3)])

    def clip(self, number):
        self.socket.sendall(b"%d\n" % number)
        clip = next(self.rooms)
        self.socket.recv_into(clip, len(clip), socket.MSG_WAITALL)
        return clip


class Prefetch:
    def __init__(self, address, lanes=4):
        self.lanes = [queue.Queue(1) for _ in range(lanes)]
        for at, lane in enumerate(self.lanes):
            threading.Thread(target=self.fetch, args=(Remote(address), at, lane), daemon=True).start()

    def fetch(self, remote, number, lane):
        while True:
            lane.put(remote.clip(number))
            number += len(self.lanes)

    def clip(self, number):
        return self.lanes[number % len(self.lanes)].get()


def main():
    variant, kind = sys.argv[1:3]
    if kind == "clean":
        recordings, cleaner = sounds(2, RECORDING), Cleaner() if variant == "slow" else SavingCleaner(RECORDING)
        work.run(lambda number: cleaner.clean(recordings[number % 2]), {"slow": 34, "fixed": 100}[variant])
    elif kind == "local":
        features = Features()
        work.run(lambda number: features.extract(Store.clips[number % 4]), 500)
    else:
        link, far = multiprocessing.Pipe()
        child = multiprocessing.get_context("spawn").Process(target=keep_store, args=(far,), daemon=True)
        child.start()
        features, source = Features(), (Remote if variant == "slow" else Prefetch)(link.recv())
        work.run(lambda number: features.extract(source.clip(number)), {"slow": 200, "fixed": 520}[variant], warm=0)
        child.terminate()


if __name__ == "__main__":
    main()

"""A picker of earthquakes: worker threads take windows of seismometers' traces and tell where the waves arrive.

A window is corrected with the response of its station (from the network's metadata service, kept for the stations of late),
turned into features by a projection (numpy, a product of matrices), the model takes them (once for each phase to be picked, P or P and S), and the picks are entered. A step is
the time between two windows done, by whichever worker.

Injected, in cases named response: the cache of responses has one lock for all, and holds it while it fetches what it has not got
(the metadata service answers after 16 ms; a sleep stands in for it); there are more stations than it keeps, so most windows
fetch, and the four workers stand in line at the lock, those too whose station is at hand or is another one: lock-convoy. The twin
holds the lock to look up and to enter, and fetches under a lock of the station. Fetches and picks are the same.

Injected, in cases named project: six workers were set "because they wait anyway" (they don't, in this configuration, whose
responses come along with the traces), on two processors, and numpy's BLAS has its own pool, of as many threads as the
processors, that turn round while they wait for the others: thread-oversubscription. The twin has as many workers as processors
and one thread in BLAS. Picks are the same.

healthy-night: a lock per station, one thread in BLAS, a cache that holds all the stations.
"""

import os
import sys

PROCESSORS = len(os.sched_getaffinity(0))
os.environ["OPENBLAS_NUM_THREADS"] = str(max(2, PROCESSORS)) if sys.argv[1:3] == ["slow", "project"] else "1"

import queue
import threading
import time
import zlib
from collections import OrderedDict

import numpy as np
import work

NEEDS = "numpy"
CASES = {
    "slow-response": "slow response",
    "slow-project": "slow project",
    "fixed-response": "fixed response",
    "fixed-project": "fixed project",
    "healthy-night": "healthy night",
}
LABEL = {"slow-response": ["lock-convoy"], "slow-project": ["thread-oversubscription"]}
ALSO = {
    "slow-response": ["waiting", "blocking-io", "native-hot-spot"],  # what is done with the lock held; the model
    "slow-project": ["native-hot-spot", "gil-contention"],  # the product and the model are native code
    "fixed": ["native-hot-spot", "waiting", "blocking-io", "idle-no-work"],  # the model; the metadata service
    "healthy": ["native-hot-spot", "waiting", "idle-no-work"],
}
WHERE = "response|Responses|fetch|of|acquire|__enter__|project|picks|Picker|worker|matmul|window"
MEASURE = "mean"
FETCH_S = 0.016
STATIONS, NEAR = 90, 8  # every third window is of a station near by
LENGTH, BANDS = 256, 256


def fetch(station):
    """Asks the metadata service for the response of a station."""
    time.sleep(FETCH_S)
    return make_response(station)


def make_response(station):
    return 1 + np.cos(np.arange(LENGTH, dtype=np.float32) * (station % 11 + 1) / LENGTH) / 4


class Responses:
    """The responses of the stations seen of late; one lock for all."""

    def __init__(self, keep):
        self.keep, self.known, self.lock = keep, OrderedDict(), threading.Lock()

    def enter(self, station, response):
        self.known[station] = response
        if len(self.known) > self.keep:
            self.known.popitem(last=False)

    def of(self, station):
        with self.lock:
            if station not in self.known:
                self.enter(station, fetch(station))
            self.known.move_to_end(station)
            return self.known[station]


class StationResponses(Responses):
    """The same, with a lock per station for the fetch."""

    def __init__(self, keep):
        super().__init__(keep)
        self.stations = [threading.Lock() for _ in range(STATIONS)]

    def look(self, station):
        with self.lock:
            if station in self.known:
                self.known.move_to_end(station)
                return self.known[station]

    def of(self, station):
        response = self.look(station)
        if response is not None:
            return response
        with self.stations[station]:
            response = self.look(station)
            if response is None:
                response = fetch(station)
                with self.lock:
                    self.enter(station, response)
        return response


class NoFetch:
    """The configuration of files that bring their responses."""

    def __init__(self):
        self.known = [make_response(station) for station in range(STATIONS)]

    def of(self, station):
        return self.known[station]


class Picker:
    def __init__(self, responses, workers, phases):
        self.responses, self.workers, self.phases = responses, workers, phases
        rng = np.random.default_rng(7)
        self.traces = [rng.normal(0, 1, (BANDS, LENGTH)).astype(np.float32) for _ in range(6)]
        self.basis = rng.normal(0, 0.06, (LENGTH, LENGTH)).astype(np.float32)
        self.todo, self.done = queue.Queue(), queue.Queue()

    def project(self, trace):
        return trace @ self.basis

    def picks(self, station, number):
        trace = self.traces[number % len(self.traces)] * self.responses.of(station)
        features = self.project(trace)
        energy = np.abs(features).sum(axis=1)
        for _ in self.phases:
            work.model()
        return int(energy.argmax()) * 1000 + station

    def worker(self):
        while (window := self.todo.get()) is not None:
            self.done.put(self.picks(*window))

    def run(self, count):
        for number in range(count):
            station = NEAR + number * 37 % (STATIONS - NEAR) if number % 3 else number // 3 % NEAR
            self.todo.put((station, number))
        threads = [threading.Thread(target=self.worker, name=f"picker-{at}") for at in range(self.workers)]
        start = time.perf_counter()
        for thread in threads:
            self.todo.put(None)
            thread.start()
        times, seal = [], 0
        for _ in range(count):
            seal += zlib.crc32(b"%d" % self.done.get())
            now = time.perf_counter()
            times.append(now - start)
            start = now
        for thread in threads:
            thread.join()
        print(f"{seal:x}", file=sys.stderr)
        work.tell(times[8:])


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    if kind == "response":
        Picker((Responses if slow else StationResponses)(40), 4, "P").run(360)
    elif kind == "project":
        Picker(NoFetch(), 6 if slow else PROCESSORS, "PS").run(270)
    else:
        Picker(StationResponses(STATIONS), 4, "P").run(700)


if __name__ == "__main__":
    main()

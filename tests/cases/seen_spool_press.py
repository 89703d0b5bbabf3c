"""A dispatcher of print jobs: it typesets a page, gives it to a press (a child process, one for each lane), and files the receipt.

A press reads a line with a job, writes a receipt into the spool folder, and says so on its output.

Injected, in cases named poll: one lane; the dispatcher looks for the receipt's file each 20 ms, though the press is ready after one or
two, so that most of the time is slept away (waiting). The twin reads the press's line. In cases named seat: six lanes, each with a
thread and a press of its own; a seat of the licence is counted under a lock, and the lock is held until the press is ready, so that the
lanes go one after the other (lock-convoy). The twin holds the lock only to count. In cases named spawn: one lane; a checker of pages is
started as a program of its own for each page (waiting: for a child process). The twin keeps the checker running and asks it by its pipe.
"""

import contextlib
import hashlib
import json
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
import zlib

CASES = {
    "slow-poll": "slow poll",
    "slow-seat": "slow seat",
    "slow-spawn": "slow spawn",
    "fixed-poll": "fixed poll",
    "fixed-seat": "fixed seat",
    "fixed-spawn": "fixed spawn",
}
LABEL = {"slow-poll": ["waiting"], "slow-seat": ["lock-convoy"], "slow-spawn": ["waiting"]}
ALSO = {
    "slow-poll": ["blocking-io", "idle-no-work"],
    "slow-seat": ["waiting", "blocking-io"],
    "slow-spawn": ["blocking-io"],
    "fixed": ["waiting", "blocking-io", "native-hot-spot"],  # the press still takes its time
}
WHERE = "sleep|exists|ready|receipt|seat|acquire|lock|__enter__|check|spawn|child|communicate"
MEASURE = "mean"
LANES = {"poll": 1, "seat": 6, "spawn": 1}
PRESS_S = {"poll": 0.001, "seat": 0.004, "spawn": 0.0005}
COUNT = {"slow": {"poll": 150, "seat": 650, "spawn": 55}, "fixed": {"poll": 1200, "seat": 1800, "spawn": 1300}}
POLL_S = 0.02


def press(folder, delay):
    """The child: a job's line in; a receipt in the spool; a line out."""
    for line in sys.stdin:
        job = json.loads(line)
        time.sleep(delay)  # the machine moves
        path = pathlib.Path(folder, f"{job['name']}.receipt")
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"job": job["name"], "seal": zlib.crc32(job["page"].encode())}))
        part.rename(path)
        print(job["name"], flush=True)


def checker():
    """The other child: a page's line in, how many of its letters are rare out; until there are no more lines."""
    for line in sys.stdin:
        print(sum(line.count(letter) for letter in "eaf"), flush=True)


def child(*words):
    command = [sys.executable, "-E", "-S", __file__, *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Press:
    """A press whose receipt is waited for by a look into the spool."""

    def __init__(self, spool, delay):
        self.spool, self.process = spool, child("press", spool, delay)

    def hand(self, name, page):
        self.process.stdin.write(json.dumps({"name": name, "page": page}) + "\n")
        self.process.stdin.flush()

    def ready(self, path):
        while not path.exists():
            time.sleep(POLL_S)
        self.process.stdout.readline()

    def receipt(self, name, page):
        path = self.spool / f"{name}.receipt"
        self.hand(name, page)
        self.ready(path)
        receipt = json.loads(path.read_text())
        path.unlink()
        return receipt["seal"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class TellingPress(Press):
    def ready(self, path):
        self.process.stdout.readline()


class Seats:
    """How many seats of the licence are in use, and the most there were."""

    def __init__(self):
        self.lock, self.used, self.most = threading.Lock(), 0, 0

    def count(self, change):
        self.used += change
        self.most = max(self.most, self.used)

    @contextlib.contextmanager
    def seat(self):
        with self.lock:
            self.count(1)
            yield
            self.count(-1)


class CountedSeats(Seats):
    @contextlib.contextmanager
    def seat(self):
        with self.lock:
            self.count(1)
        yield
        with self.lock:
            self.count(-1)


class SpawnedChecker:
    def check(self, page):
        process = child("check")
        out, _ = process.communicate(page + "\n")
        return int(out)

    def close(self):
        pass


class KeptChecker:
    def __init__(self):
        self.process = child("check")

    def check(self, page):
        self.process.stdin.write(page + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class NoChecker:
    def check(self, page):
        return 0

    def close(self):
        pass


class Lane:
    def __init__(self, number, press, seats, checker):
        self.number, self.press, self.seats, self.checker = number, press, seats, checker
        self.filed = {}

    def typeset(self, job):
        rows = hashlib.shake_128(b"page %d" % job).hexdigest(3000)
        return zlib.compress(rows.encode(), 9).hex()[:2000] + hashlib.pbkdf2_hmac("sha256", rows.encode(), b"ink", 5000).hex()

    def dispatch(self, job):
        page = self.typeset(job)
        rare = self.checker.check(page)
        with self.seats.seat():
            seal = self.press.receipt(f"job{job}", page)
        self.filed[job % 500] = seal, rare


def work_off(lane, jobs, times):
    while (job := jobs.get()) is not None:
        start = time.perf_counter()
        lane.dispatch(job)
        times.append(time.perf_counter() - start)


def main():
    import work

    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    presses = Press if slow and kind == "poll" else TellingPress
    seats = (Seats if slow and kind == "seat" else CountedSeats)()
    checkers = {"spawn": SpawnedChecker if slow else KeptChecker}.get(kind, NoChecker)
    with tempfile.TemporaryDirectory() as folder:
        spool = pathlib.Path(folder)
        lanes = [Lane(number, presses(spool, PRESS_S[kind]), seats, checkers()) for number in range(LANES[kind])]
        if len(lanes) == 1:
            work.run(lanes[0].dispatch, COUNT[variant][kind])
        else:
            jobs, times = queue.SimpleQueue(), []
            for job in [*range(COUNT[variant][kind]), *[None] * len(lanes)]:
                jobs.put(job)
            threads = [threading.Thread(target=work_off, args=(lane, jobs, times)) for lane in lanes]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            work.tell(times)
        for lane in lanes:
            lane.press.close()
            lane.checker.close()


if sys.argv[1] == "press":
    press(sys.argv[2], float(sys.argv[3]))
elif sys.argv[1] == "check":
    checker()
else:
    main()

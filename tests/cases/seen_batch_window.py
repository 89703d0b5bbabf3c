"""A batching server in one process: threads of sessions hand their prompts to a scheduler behind a condition variable, which puts them
together and calls the model, native code, once for all of them.

Injected, in cases named window: the scheduler waits until a batch of 16 is full or 12 ms are over; there are four sessions, each of
which waits for its answer, so the batch is never full and the window always runs out. The twin knows how many sessions are open and
goes when all of them have asked. In cases named poll: the scheduler does it right, but a session looks for its answer every 16 ms, as
clients of a job queue do; the twin is woken. Nothing computes meanwhile and no lock is held: the program waits, for a time.

Case healthy-full: eight sessions, a batch of eight, a larger model: it is nearly always in the model.
"""

import itertools
import sys
import threading
import time

import work

CASES = {
    "slow-window": "slow window",
    "slow-poll": "slow poll",
    "fixed-window": "fixed window",
    "fixed-poll": "fixed poll",
    "healthy-full": "healthy full",
}
LABEL = {"slow": ["waiting"]}
ALSO = {"slow": [], "fixed": ["native-hot-spot"], "healthy": ["native-hot-spot"]}
WHERE = "gather|collect|loop|wait|answer|sleep|poll|ask"
MAX_BATCH = {"window": 16, "poll": 16, "full": 8}
SESSIONS = {"window": 4, "poll": 4, "full": 8}
PASSES = {"window": 1, "poll": 1, "full": 3}
WINDOW_S = 0.012
POLL_S = 0.016


class Job:
    def __init__(self, number, prompt):
        self.number, self.prompt, self.answer, self.ready = number, prompt, None, threading.Event()


class Results:
    """Answers by the number of the job, for sessions that look after them."""

    def __init__(self, polled):
        self.polled, self.found = polled, {}

    def put(self, job, answer):
        if self.polled:
            self.found[job.number] = answer
        else:
            job.answer = answer
            job.ready.set()

    def wait(self, job):
        if not self.polled:
            job.ready.wait()
            return job.answer
        while job.number not in self.found:
            time.sleep(POLL_S)
        return self.found.pop(job.number)


class Scheduler(threading.Thread):
    def __init__(self, results, max_batch, passes, aware):
        super().__init__(daemon=True, name="scheduler")
        self.results, self.max_batch, self.passes, self.aware = results, max_batch, passes, aware
        self.condition, self.queue, self.sessions = threading.Condition(), [], 0
        self.numbers = itertools.count()

    def enter(self):
        with self.condition:
            self.sessions += 1

    def ask(self, prompt):
        job = Job(next(self.numbers), prompt)
        with self.condition:
            self.queue.append(job)
            self.condition.notify()
        return self.results.wait(job)

    def target(self):
        return min(self.max_batch, self.sessions) if self.aware else self.max_batch

    def gather(self):
        with self.condition:
            while not self.queue:
                self.condition.wait()
            end = time.monotonic() + WINDOW_S
            while len(self.queue) < self.target():
                left = end - time.monotonic()
                if left <= 0:
                    break
                self.condition.wait(left)
            batch, self.queue = self.queue[: self.max_batch], self.queue[self.max_batch :]
        return batch

    def run(self):
        while True:
            batch = self.gather()
            packed = b"\0".join(job.prompt for job in batch)
            for _ in range(self.passes):
                answer = work.model(work.BATCH + packed)
            for job in batch:
                self.results.put(job, answer[job.number % 8 :])


class Session:
    """A user: asks, reads, asks again."""

    def __init__(self, scheduler, name):
        self.scheduler, self.name, self.said = scheduler, name, ""
        scheduler.enter()

    def turn(self, number):
        prompt = f"{self.name} turn {number}: {self.said}".encode()
        self.said = self.scheduler.ask(prompt)

    def forever(self):
        for number in itertools.count():
            self.turn(number)


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    results = Results(polled=slow and kind == "poll")
    scheduler = Scheduler(results, MAX_BATCH[kind], PASSES[kind], aware=not (slow and kind == "window"))
    sessions = [Session(scheduler, f"user {number}") for number in range(SESSIONS[kind])]
    scheduler.start()
    for session in sessions[1:]:
        threading.Thread(target=session.forever, daemon=True).start()
    count = {"slow": {"window": 200, "poll": 220}, "fixed": {"window": 750, "poll": 750}, "healthy": {"full": 280}}[variant][kind]
    work.run(sessions[0].turn, count)


main()

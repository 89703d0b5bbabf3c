"""A dispatcher for scanned forms: it hands pages to two worker processes over pipes, each of which reads the fields with a native model.

Injected, in cases named template: a job refers to its form's template (a lexicon of each field), so that `Connection.send` pickles all
of the template with each page, and the worker unpickles it: host-copies. The twin's job has the template's name, and the workers hold
the templates since they were started.

Injected, in cases named poll: the dispatcher looks each 25 ms whether the worker is done, and sleeps in between, though the worker
needs a few ms only: waiting. The twin blocks in `recv`, and has the answer once it is there.

healthy-inline: no workers; the dispatcher reads the pages itself, as many do on one processor.
"""

import multiprocessing
import sys
import time
from dataclasses import dataclass, field

import work

CASES = {
    "slow-template": "slow template",
    "slow-poll": "slow poll",
    "fixed-template": "fixed template",
    "fixed-poll": "fixed poll",
    "healthy-inline": "healthy inline",
}
LABEL = {"slow-template": ["host-copies"], "slow-poll": ["waiting"]}
ALSO = {
    "slow-template": ["waiting", "native-hot-spot", "blocking-io"],  # the pickler is a native function; the pipe is full now and then
    "slow-poll": ["blocking-io"],
    "fixed": ["waiting", "blocking-io", "idle-no-work"],  # of the workers, who read the pages
    "healthy": ["native-hot-spot"],
}
WHERE = "send|hand|dump|Job|collect|settle|sleep|poll"
MEASURE = "mean"
POLL_S = 0.025


@dataclass
class Template:
    name: str
    lexicon: dict = field(default_factory=dict)  # field -> {word: (place, weight)}

    def narrow(self, page):
        words = self.lexicon[f"field-{page % len(self.lexicon)}"]
        return len(words) + page % 5


@dataclass
class Job:
    page: int
    image: bytes
    template: object  # a Template, or the name of one


@dataclass
class Reading:
    page: int
    text: str
    candidates: int


def templates():
    """The forms that are known here, made as a configuration would be read."""
    made = {}
    for form in ("claim", "invoice"):
        lexicon = {
            f"field-{at}": {f"{form}-{at}-{word}": (word % 90, word / 7, f"w{word}") for word in range(600)} for at in range(30)
        }
        made[form] = Template(form, lexicon)
    return made


class Reader:
    """What reads a page, in the worker."""

    def __init__(self):
        self.known = templates()

    def read(self, job):
        template = self.known[job.template] if isinstance(job.template, str) else job.template
        return Reading(job.page, work.model(job.image), template.narrow(job.page))


def serve(link):
    reader = Reader()
    link.send("ready")
    while (job := link.recv()) is not None:
        link.send(reader.read(job))


class Worker:
    def __init__(self, context):
        self.link, far = context.Pipe()
        self.process = context.Process(target=serve, args=(far,), daemon=True)
        self.process.start()
        self.link.recv()
        self.busy = False

    def hand(self, job):
        self.link.send(job)
        self.busy = True

    def settle(self, polling):
        """The reading of the page that the worker has."""
        while polling and not self.link.poll():
            time.sleep(POLL_S)
        self.busy = False
        return self.link.recv()

    def close(self):
        self.link.send(None)
        self.process.join()


class Dispatcher:
    def __init__(self, workers, whole, polling):
        self.workers, self.whole, self.polling = workers, whole, polling
        self.known, self.image = templates(), bytes(work.BATCH)
        self.read = 0

    def job(self, number):
        form = "claim" if number % 3 else "invoice"
        return Job(number, self.image, self.known[form] if self.whole else form)

    def step(self, number):
        worker = self.workers[number % len(self.workers)]
        if worker.busy:
            self.read += worker.settle(self.polling).candidates
        worker.hand(self.job(number))

    def close(self):
        for worker in self.workers:
            if worker.busy:
                worker.settle(False)
            worker.close()


def main():
    variant, kind = sys.argv[1:3]
    if kind == "inline":
        reader, image = Reader(), bytes(work.BATCH)
        work.run(lambda number: reader.read(Job(number, image, "claim")), 700)
        return
    context = multiprocessing.get_context("spawn")
    workers = [Worker(context) for _ in range(1 if kind == "poll" else 2)]
    slow = variant == "slow"
    dispatcher = Dispatcher(workers, whole=slow and kind == "template", polling=slow and kind == "poll")
    work.run(dispatcher.step, {"slow-template": 150, "slow-poll": 110, "fixed-template": 550, "fixed-poll": 600}[f"{variant}-{kind}"])
    dispatcher.close()


if __name__ == "__main__":
    main()

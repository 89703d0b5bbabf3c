"""An engine of asyncio with continuous batching: requests come to a queue, a loop decodes for all that are there.

Injected: the loop waits for each step and then writes answers out (`detokenize`, in Python) before it launches the next: the
device waits for that Python. The twin launches a step first and writes the answers of the one before while the device computes: the
same Python, hidden. healthy-threads: the twin's loop in a thread, which asyncio's side talks to by a queue.
"""

import asyncio
import queue
import sys
import threading
import time

import device
import work

CASES = {
    "slow-32": "slow 32",
    "slow-56": "slow 56",
    "fixed-32": "fixed 32",
    "healthy-threads": "healthy 32",
}
LABEL = {"slow": ["preprocessing-bound", "sync-stall", "cpu-bound-python"]}
ALSO = {"slow": ["blocking-copy"]}
WHERE = "detokenize|deliver|merge"
NEEDS = "gpu"
PIECES = {number: f"tok{number}" for number in range(1000)}


class Engine:
    def __init__(self, requests):
        self.gpu = device.Device(80)
        self.texts = {number: "text7 " * 170 for number in range(requests)}

    def launch(self, number):
        for layer in range(40):
            self.gpu.launch(layer + number)
        self.gpu.copy_out(8 * len(self.texts))

    def wait(self):
        self.gpu.wait()

    def detokenize(self, request, number):
        text = self.texts[request][-1000:]
        for letter in PIECES[number * 7 % 1000]:
            text += letter
        clean = ""
        for letter in text:
            clean += " " if letter == "7" else letter
        self.texts[request] = clean
        return clean[-8:]

    def deliver(self, number):
        return [self.detokenize(request, number) for request in self.texts]


async def in_turns(engine, steps, out):
    times = []
    for number in range(steps):
        start = time.perf_counter()
        engine.launch(number)
        engine.wait()
        for answer in engine.deliver(number):
            out.put_nowait(answer)
        await asyncio.sleep(0)
        times.append(time.perf_counter() - start)
    return times


async def ahead(engine, steps, out):
    """The answers of a step are written while the next one runs."""
    times = []
    for number in range(steps):
        start = time.perf_counter()
        engine.launch(number)
        for answer in engine.deliver(number - 1) if number else ():
            out.put_nowait(answer)
        await asyncio.sleep(0)
        engine.wait()
        times.append(time.perf_counter() - start)
    return times


async def serve(decode, engine, steps):
    out = asyncio.Queue()

    async def reader():
        while await out.get():
            pass

    task = asyncio.create_task(reader())
    times = await decode(engine, steps, out)
    out.put_nowait("")
    await task
    return times


async def serve_thread(engine, steps):
    answers, times = queue.Queue(), []

    def loop():
        engine.gpu.enter()
        for number in range(steps):
            start = time.perf_counter()
            engine.launch(number)
            if number:
                answers.put(engine.deliver(number - 1))
            engine.wait()
            times.append(time.perf_counter() - start)
        answers.put(None)

    thread = threading.Thread(target=loop)
    thread.start()
    while await asyncio.to_thread(answers.get):
        pass
    thread.join()
    return times


def main():
    variant, requests = sys.argv[1], int(sys.argv[2])
    engine = Engine(requests)
    steps = {"slow": {32: 220, 56: 180}[requests], "fixed": 320, "healthy": 320}[variant]
    if variant == "healthy":
        times = asyncio.run(serve_thread(engine, steps))
    else:
        times = asyncio.run(serve(in_turns if variant == "slow" else ahead, engine, steps))
    work.tell(times)


main()

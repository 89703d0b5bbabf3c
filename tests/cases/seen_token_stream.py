"""A chat server of asyncio before an engine in a thread of its own, which answers all turns that wait in one go.

Injected, in cases named future: a turn's coroutine asks for the future's `result()`, which blocks until the engine has answered, so
that no other turn gets to the engine. The twin awaits the future. In cases named retry: the quota refuses some turns for a while, and
the decorator that tries again sleeps with `time.sleep`; the twin's with `asyncio.sleep`. The healthy case has few talkers who think.
"""

import asyncio
import concurrent.futures
import functools
import hashlib
import queue
import sys
import threading
import time

import work

CASES = {
    "slow-future": "slow future",
    "slow-retry": "slow retry",
    "fixed-future": "fixed future",
    "fixed-retry": "fixed retry",
    "healthy": "healthy future",
}
LABEL = {"slow": ["blocking-io"]}
ALSO = {"slow": ["waiting", "slow-callback"], "fixed": ["waiting"], "healthy": ["idle-no-work", "waiting"]}  # the engine takes as long
WHERE = "result|ask|turn|sleep|retry|again|wait"
MEASURE = "mean"
TALKERS = {"future": 8, "retry": 6}
ENGINE_S, REFUSED_S = 0.005, 0.018


class Refused(Exception):
    pass


class Engine:
    """A thread that takes all that waits, has the device compute, and hands out answers."""

    def __init__(self):
        self.waiting = queue.SimpleQueue()
        threading.Thread(target=self.loop, daemon=True).start()

    def submit(self, prompt):
        future = concurrent.futures.Future()
        self.waiting.put((prompt, future))
        return future

    def loop(self):
        while True:
            batch = [self.waiting.get()]
            while not self.waiting.empty():
                batch.append(self.waiting.get())
            time.sleep(ENGINE_S)  # the device
            for prompt, future in batch:
                future.set_result(hashlib.sha256(prompt).hexdigest())


def again(pause):
    """Calls a coroutine function again after a pause when it was refused; a pause may be one to await."""

    def decorate(function):
        @functools.wraps(function)
        async def retry(*words):
            while True:
                try:
                    return await function(*words)
                except Refused:
                    paused = pause(REFUSED_S)
                    if paused is not None:
                        await paused

        return retry

    return decorate


class Chat:
    def __init__(self, variant, kind):
        self.engine = Engine()
        self.waits = variant == "slow" and kind == "future"
        self.quota = kind == "retry"
        self.asked = 0
        self.ask = again(time.sleep if variant == "slow" else asyncio.sleep)(self.ask_once)

    async def ask_once(self, prompt):
        self.asked += 1
        if self.quota and self.asked % 4 == 0:
            raise Refused
        future = self.engine.submit(prompt)
        if self.waits:
            return future.result()
        return await asyncio.wrap_future(future)

    async def turn(self, history, text):
        prompt = hashlib.pbkdf2_hmac("sha256", text, b"template", 500)
        answer = await self.ask(prompt + b"".join(history[-4:]))
        history.append(answer.encode())
        await asyncio.sleep(0)
        return answer


async def main():
    variant, kind = sys.argv[1:3]
    chat, times = Chat(variant, kind), []
    talkers = 3 if variant == "healthy" else TALKERS[kind]
    turns = {"slow": {"future": 60, "retry": 80}[kind], "fixed": {"future": 300, "retry": 240}[kind], "healthy": 70}[variant]

    async def talk(talker):
        history = []
        for number in range(turns):
            if variant == "healthy":
                await asyncio.sleep(0.025 + (number * 7 + talker) % 5 / 500)
            start = time.perf_counter()
            await chat.turn(history, b"turn %d of %d" % (number, talker))
            times.append(time.perf_counter() - start)

    await asyncio.gather(*(talk(talker) for talker in range(talkers)))
    work.tell(times)


asyncio.run(main())

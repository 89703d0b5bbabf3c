"""Threads and asyncio: four threads that work, and a loop of 50 tasks that wait for each other."""

import asyncio
import threading

import report


def score(text):
    total = 0
    for letter in text:
        total = mix(total, ord(letter))
    return total


def mix(total, code):
    return (total * 31 + code) & 0xFFFF


def worker(results, rounds):
    for i in range(rounds):
        results.append(score("request %d of this thread" % i))


async def handle(queue, done):
    while True:
        item = await queue.get()
        if item is None:
            return
        await asyncio.sleep(0)
        done.append(await respond(item))


async def respond(item):
    return score("item %d" % item)


async def serve(requests):
    queue, done = asyncio.Queue(20), []
    handlers = [asyncio.ensure_future(handle(queue, done)) for _ in range(50)]
    for item in range(requests):
        await queue.put(item)
    for _ in handlers:
        await queue.put(None)
    await asyncio.gather(*handlers)
    return sum(done)


def main(scale):
    results = []
    rounds = int(150000 * scale)
    threads = [threading.Thread(target=worker, args=(results, rounds // 4)) for _ in range(4)]
    for thread in threads:
        thread.start()
    total = asyncio.run(serve(int(300000 * scale)))
    for thread in threads:
        thread.join()
    return total + sum(results)


if __name__ == "__main__":
    print(main(report.scale()))

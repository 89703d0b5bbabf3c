"""A hub that fans messages out to the members of a room, over frames like those of websockets; its clients live in a child process.

Injected, in cases named roster: who joins gets the roster of the room, which the hub builds from its members (a dict for each, then one
json.dumps) within the reader's callback, while the messages to all others stand still: slow-callback. The twin keeps each member's
piece of JSON from when the member was known, and joins the pieces; the bytes on the wire are the same.

Injected, in cases named deflate: each member's sender task compresses the message for itself, though all have the same settings:
native-hot-spot, spread over the tasks. The twin compresses at the publication and all tasks write the same frame.

healthy-chat: small messages, compressed once; joins that get pieces.

A step is from when the publisher sent the message until the last member has acknowledged it.
"""

import asyncio
import json
import multiprocessing
import struct
import sys
import time
import zlib

import work

NEEDS = ""
CASES = {
    "slow-roster": "slow roster",
    "slow-deflate": "slow deflate",
    "fixed-roster": "fixed roster",
    "fixed-deflate": "fixed deflate",
    "healthy-chat": "healthy chat",
}
LABEL = {"slow-roster": ["slow-callback"], "slow-deflate": ["native-hot-spot"]}
ALSO = {
    "slow-roster": ["step-jitter", "cpu-bound-python", "preprocessing-bound", "native-hot-spot", "waiting", "blocking-io", "idle-no-work"],
    "slow-deflate": ["slow-callback", "waiting", "blocking-io", "idle-no-work"],  # 16 sender tasks are ready in the same turn of the loop
    "fixed": ["waiting", "blocking-io", "idle-no-work", "cpu-bound-python", "small-batches"],  # for the acknowledgements; small writes
    "healthy": ["waiting", "blocking-io", "idle-no-work", "cpu-bound-python", "small-batches"],
}
WHERE = "roster|describe|greet|deflate|sender|pack|encode"
MEASURE = "mean"
HEAD = struct.Struct("!cI")
MEMBERS = 16
SIZES = {"roster": 300, "deflate": 9000, "chat": 2000}


async def receive(reader):
    kind, size = HEAD.unpack(await reader.readexactly(HEAD.size))
    return kind, await reader.readexactly(size)


def pack(kind, body):
    return HEAD.pack(kind, len(body)) + body


def deflate(body):
    return zlib.compress(body, 6)


def describe(number):
    return {"id": number, "name": f"guest {number}", "since": 1_700_000_000 + number * 7, "roles": ["reader"] * (number % 3), "away": number % 11 == 0}


class Room:
    """Who is in it: many, most of whom are on other hubs."""

    def __init__(self, size, pieces):
        self.known = list(range(size))
        self.pieces = [json.dumps(describe(number)) for number in self.known] if pieces else None

    def roster(self):
        if self.pieces is not None:
            return f"[{', '.join(self.pieces)}]".encode()
        return json.dumps([describe(number) for number in self.known]).encode()


class Hub:
    def __init__(self, room, once):
        self.room, self.once = room, once
        self.outboxes, self.senders, self.times = [], [], []
        self.here, self.open, self.done = 0, 0, asyncio.Event()
        self.stamp, self.publisher = 0.0, None

    async def sender(self, outbox, writer):
        while (body := await outbox.get()) is not None:
            writer.write(pack(b"m", body if self.once else deflate(body)))
            await writer.drain()

    def publish(self, body, writer):
        self.stamp, self.publisher, self.open = struct.unpack_from("!d", body)[0], writer, len(self.outboxes)
        message = deflate(body[8:]) if self.once else body[8:]
        for outbox in self.outboxes:
            outbox.put_nowait(message)

    def acknowledged(self):
        self.open -= 1
        if not self.open:
            self.times.append(time.perf_counter() - self.stamp)
            self.publisher.write(pack(b"d", b""))

    def greet(self, writer):
        writer.write(pack(b"r", self.room.roster()))

    async def connected(self, reader, writer):
        self.here += 1
        try:
            while True:
                kind, body = await receive(reader)
                if kind == b"a":
                    self.acknowledged()
                elif kind == b"p":
                    self.publish(body, writer)
                elif kind == b"j":
                    self.greet(writer)
                elif kind == b"s":
                    self.outboxes.append(outbox := asyncio.Queue())
                    self.senders.append(asyncio.create_task(self.sender(outbox, writer)))
                    writer.write(pack(b"o", b""))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
        self.here -= 1
        if not self.here:
            self.done.set()


async def member(reader, writer):
    while True:
        await receive(reader)
        writer.write(pack(b"a", b""))


async def clients(port, kind, count):
    async def enter():
        return await asyncio.open_connection("127.0.0.1", port)

    members = []
    for _ in range(MEMBERS):
        reader, writer = await enter()
        writer.write(pack(b"s", b""))
        await receive(reader)
        members.append(asyncio.create_task(member(reader, writer)))
    (reader, writer), (door, knock) = await enter(), await enter()
    words = " ".join(f"word{number * number % 977}" for number in range(SIZES[kind])).encode()[: SIZES[kind]]
    for number in range(count):
        joins = kind != "deflate" and number % 4 == 0
        if joins:
            knock.write(pack(b"j", b""))
        writer.write(pack(b"p", struct.pack("!d", time.perf_counter()) + b"%d " % number + words))
        await receive(reader)
        if joins:
            await receive(door)


def visit(port, kind, count):
    asyncio.run(clients(port, kind, count))


async def serve(variant, kind):
    slow = variant == "slow"
    hub = Hub(Room({"roster": 4000, "deflate": 10, "chat": 100}[kind], not (slow and kind == "roster")), not (slow and kind == "deflate"))
    server = await asyncio.start_server(hub.connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    count = {"slow-roster": 600, "fixed-roster": 1600, "slow-deflate": 500, "fixed-deflate": 1700, "healthy-chat": 1700}[f"{variant}-{kind}"]
    guests = multiprocessing.get_context("spawn").Process(target=visit, args=(port, kind, count), daemon=True)
    guests.start()
    await hub.done.wait()
    for outbox in hub.outboxes:
        outbox.put_nowait(None)
    await asyncio.gather(*hub.senders, return_exceptions=True)
    server.close()
    guests.join()
    work.tell(hub.times[2:])


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:3]))

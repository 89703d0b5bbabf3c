"""The departure boards of a tram network: an asyncio service with a model of delays, and a thread that takes vehicles' positions.

Six displays (in the same loop; each has its connection) ask for the board of a stop, one request after the other; the service
answers with the next departures at it and what the model says of them. A step is the time between two answers.

Injected, in cases named rebuild: with each position that comes in, the feed's thread works out anew when each tram is at each
stop and sorts each stop's board, in Python, although only one tram has moved. The service and the model, in the loop's thread,
are kept from the interpreter's lock: gil-contention. The twin moves the one tram's entries (`bisect`). Boards and answers at the
end are the same.

Injected, in cases named operator: the handler asks the operator for the notices of the line (another service, which answers
after 7 ms) with a plain socket: `sendall` and `recv` in a coroutine, so that the loop stands still meanwhile: blocking-io. The
twin asks over streams, so that the displays' requests overlap. Requests and answers are the same.

healthy-boards: entries moved, streams.
"""

import asyncio
import bisect
import json
import queue
import socket
import sys
import threading
import time
import zlib

import work

NEEDS = ""
CASES = {
    "slow-rebuild": "slow rebuild",
    "slow-operator": "slow operator",
    "fixed-rebuild": "fixed rebuild",
    "fixed-operator": "fixed operator",
    "healthy-boards": "healthy boards",
}
LABEL = {"slow-rebuild": ["gil-contention"], "slow-operator": ["blocking-io"]}
ALSO = {
    "slow-rebuild": ["cpu-bound-python", "native-hot-spot", "waiting"],  # the rebuild is Python code; the model; idle threads
    "slow-operator": ["waiting", "native-hot-spot"],
    "fixed": ["native-hot-spot", "waiting", "idle-no-work", "blocking-io"],  # the model; the operator's threads
    "healthy": ["native-hot-spot", "waiting", "idle-no-work", "blocking-io"],
}
WHERE = "rebuild|expected|arrivals|hold|moved|Feed|ask|notices|sendall|recv|Operator|readline|run"
MEASURE = "mean"
DISPLAYS = 6
TRAMS, STOPS, CALLS = 270, 60, 18
NOTICE_S = 0.007


class Tram:
    def __init__(self, number):
        self.number, self.line = number, 1 + number % 9
        self.delay = 0
        first = number * 7 % STOPS
        self.calls = [((first + at * (1 + number % 3)) % STOPS, number * 40 + at * 95) for at in range(CALLS)]

    def hold(self, nth):
        """Seconds that it stands at a stop: longer where it is late, and at every fourth stop a driver may catch up."""
        late = min(self.delay, 240)
        return 12 + late // 30 + (6 if nth % 4 == 3 else 0)

    def expected(self):
        delay, arrivals = self.delay, []
        for nth, (stop, planned) in enumerate(self.calls):
            arrivals.append((stop, planned + delay))
            delay = max(0, delay + self.hold(nth) - 20)
        return arrivals


class Boards:
    def __init__(self):
        self.trams = [Tram(number) for number in range(TRAMS)]
        self.stops = []
        self.rebuild()

    def rebuild(self):
        stops = [[] for _ in range(STOPS)]
        for tram in self.trams:
            for stop, at in tram.expected():
                stops[stop].append((at, tram.line, tram.number))
        for stop in stops:
            stop.sort()
        self.stops = stops

    def moved(self, tram, delay):
        for stop, at in tram.expected():
            self.stops[stop].remove((at, tram.line, tram.number))
        tram.delay = delay
        for stop, at in tram.expected():
            bisect.insort(self.stops[stop], (at, tram.line, tram.number))

    def at(self, stop):
        return [{"line": line, "tram": number, "at": at} for at, line, number in self.stops[stop][:8]]


class Feed(threading.Thread):
    """Takes the positions. The boards are its own to change."""

    def __init__(self, boards, whole):
        super().__init__(name="feed", daemon=True)
        self.boards, self.whole, self.inbox = boards, whole, queue.Queue()

    def run(self):
        while (position := self.inbox.get()) is not None:
            number, delay = position
            tram = self.boards.trams[number]
            if self.whole:
                tram.delay = delay
                self.boards.rebuild()
            else:
                self.boards.moved(tram, delay)


class Operator:
    """The other service: answers with the notices of a line, after a while."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.accept, name="operator", daemon=True).start()

    def accept(self):
        while True:
            peer, _ = self.server.accept()
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.answer, args=(peer,), name="operator", daemon=True).start()

    def answer(self, peer):
        while line := peer.recv(100):
            time.sleep(NOTICE_S)
            peer.sendall(b'{"line": %d, "notice": "works at stop %d"}\n' % (int(line), int(line) * 3))


class PlainNotices:
    def __init__(self, port):
        self.peer = socket.create_connection(("127.0.0.1", port))
        self.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def ask(self, line):
        self.peer.sendall(b"%d\n" % line)
        return json.loads(self.peer.recv(1000))


class StreamNotices:
    """A pool of connections, as large as there are displays."""

    def __init__(self, port):
        self.port, self.idle = port, []

    async def ask(self, line):
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"%d\n" % line)
        answer = json.loads(await reader.readline())
        self.idle.append((reader, writer))
        return answer


class Service:
    def __init__(self, boards, notices=None):
        self.boards, self.notices = boards, notices

    async def handle(self, reader, writer):
        while line := await reader.readline():
            asked = json.loads(line)
            rows = self.boards.at(asked["stop"])
            notice = await self.notices.ask(rows[0]["line"]) if self.notices else None
            mark = work.model()
            writer.write(json.dumps({"seq": asked["seq"], "rows": rows, "notice": notice, "mark": mark}).encode() + b"\n")
            await writer.drain()
        writer.close()


class Load:
    """The displays. With each request, a position comes in at the feed."""

    def __init__(self, port, count, feed=None):
        self.port, self.left, self.feed = port, iter(range(count)), feed
        self.seal, self.times, self.start = 0, [], time.perf_counter()

    async def display(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for seq in self.left:
            if self.feed:
                self.feed.inbox.put((seq * 11 % TRAMS, seq * 37 % 400))
            writer.write(json.dumps({"stop": seq * 13 % STOPS, "seq": seq}).encode() + b"\n")
            answer = json.loads(await reader.readline())
            self.seal += zlib.crc32(json.dumps([answer["seq"], answer["notice"], answer["mark"]]).encode())
            now = time.perf_counter()
            self.times.append(now - self.start)
            self.start = now
        writer.close()


async def serve(count, whole=False, plain=False, feeds=True, notices=True):
    boards = Boards()
    feed = Feed(boards, whole) if feeds else None
    if feed:
        feed.start()
    operator = Operator() if notices else None
    asked = (PlainNotices if plain else StreamNotices)(operator.port) if operator else None
    server = await asyncio.start_server(Service(boards, asked).handle, "127.0.0.1", 0)
    load = Load(server.sockets[0].getsockname()[1], count, feed)
    await asyncio.gather(*(load.display() for _ in range(DISPLAYS)))
    if feed:
        feed.inbox.put(None)
        feed.join()
    print(f"{load.seal:x} {zlib.crc32(repr(boards.stops).encode()):08x}", file=sys.stderr)
    work.tell(load.times[DISPLAYS:])


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    if kind == "rebuild":
        asyncio.run(serve(270, whole=slow, notices=False))
    elif kind == "operator":
        asyncio.run(serve(270, plain=slow, feeds=False))
    else:
        asyncio.run(serve(360))


if __name__ == "__main__":
    main()

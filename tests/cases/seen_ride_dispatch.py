"""The back end of a scooter rental: an asyncio server takes the rides of a dock (a request has those that began and ended since the
last one), tells them the prices of the zones, has a demand model look at the tracks, and answers with the fares.

Injected, in cases named listener: each ride listens on the zone bus and is never taken off it when it has ended. So every ride that there
has ever been stays, with its track buffer, the process grows by about a quarter of a megabyte per request, and each price is told to
all of them, of which nearly all are closed: requests take longer and longer: memory-growth. The twin unsubscribes at the end of the ride.

Injected, in cases named fare: the fare comes from a tariff service (a process of its own beside the server, which answers after 5 ms) over
a blocking socket, inside the coroutine: the event loop stands still while it waits, and with it the other requests under way:
blocking-io. The twin asks over asyncio streams, a connection to each of the four workers. The answers are the same.

healthy-dispatch: rides are unsubscribed, fares asked for over streams.
"""

import asyncio
import hashlib
import json
import socket
import socketserver
import subprocess
import sys
import time
from array import array

import work

NEEDS = ""
CASES = {
    "slow-listener": "slow listener",
    "slow-fare": "slow fare",
    "fixed-listener": "fixed listener",
    "fixed-fare": "fixed fare",
    "healthy-dispatch": "healthy dispatch",
}
LABEL = {"slow-listener": ["memory-growth"], "slow-fare": ["blocking-io"]}
ALSO = {
    "slow-listener": ["cpu-bound-python", "preprocessing-bound", "native-hot-spot", "gc-pressure"],  # telling the dead is Python code
    "slow-fare": ["waiting", "native-hot-spot"],  # the service is waited for; the model
    "fixed": ["native-hot-spot", "waiting", "idle-no-work"],  # the model
    "healthy": ["native-hot-spot", "waiting", "idle-no-work"],
}
WHERE = "publish|subscribe|zone_changed|begin|Ride|ZoneBus|tariff|ask|quote|BlockingTariff|recv|readline|send"
MEASURE = "mean"
WORKERS = 4
RIDES = 4  # per request
TRACK = 8192  # positions in a ride's buffer
ZONES = 96
ANSWER_S = 0.005


class ZoneBus:
    def __init__(self):
        self.listeners = []

    def subscribe(self, listener):
        self.listeners.append(listener)

    def unsubscribe(self, listener):
        self.listeners.remove(listener)

    def publish(self, zone, surge):
        for listener in self.listeners:
            listener(zone, surge)


class Ride:
    """A ride under way: the zone that it is in, what a minute costs, and its track."""

    def __init__(self, number, zone):
        self.number, self.zone, self.surge, self.closed = number, zone, 100, False
        self.track, self.length = array("d", bytes(8 * TRACK)), 0

    def zone_changed(self, zone, surge):
        if self.closed or zone != self.zone:
            return
        self.surge = surge

    def move(self, positions):
        for position in positions:
            self.track[self.length] = position
            self.length += 1

    def close(self):
        self.closed = True
        return {"ride": self.number, "zone": self.zone, "surge": self.surge, "points": self.length}


class BlockingTariff:
    """Asks the tariff service as the old, threaded server did."""

    def __init__(self, port):
        self.line = socket.create_connection(("127.0.0.1", port))
        self.line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = self.line.makefile("rb")

    async def quote(self, ride):
        self.line.sendall(json.dumps(ride).encode() + b"\n")
        return json.loads(self.answers.readline())


class StreamTariff:
    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def quote(self, ride):
        if not self.reader:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(json.dumps(ride).encode() + b"\n")
        return json.loads(await self.reader.readline())


class FlatTariff:
    """For the docks whose contract has one price."""

    async def quote(self, ride):
        return {"cents": 100 + ride["points"] * ride["surge"] // 100}


class Dispatch:
    def __init__(self, keep, tariffs):
        self.bus, self.keep, self.tariffs = ZoneBus(), keep, tariffs
        self.fares, self.times = {}, []

    def begin(self, number, rides):
        begun = []
        for at in range(rides):
            ride = Ride(number * rides + at, (number + at * 5) % ZONES)
            self.bus.subscribe(ride.zone_changed)
            begun.append(ride)
        return begun

    def end(self, rides):
        closed = []
        for ride in rides:
            closed.append(ride.close())
            if not self.keep:
                self.bus.unsubscribe(ride.zone_changed)
        return closed

    async def handle(self, number, tariff):
        """A request: the rides of a dock, from the first position to the fare."""
        rides = self.begin(number, RIDES)
        for ride in rides:
            ride.move(52.5 + (number * 17 + point) % 991 / 1e4 for point in range(40))
        for zone in range(ZONES):  # a round of prices goes with each request
            self.bus.publish(zone, 100 + (number + zone) % 7 * 15)
        closed = self.end(rides)
        demand = work.model()
        answer = await tariff.quote({"zone": closed[0]["zone"], "surge": closed[0]["surge"], "points": sum(ride["points"] for ride in closed)})
        self.fares[number % 64] = json.dumps([closed, answer, demand])
        return self.fares[number % 64]

    async def worker(self, requests, tariff, seal):
        for number in requests:
            text = await self.handle(number, tariff)
            seal[number] = hashlib.sha256(text.encode()).digest()
            self.times.append(time.perf_counter())

    async def serve(self, count):
        """So many requests, shared among the workers as they are free."""
        requests, seal = iter(range(count)), {}
        await asyncio.gather(*(self.worker(requests, tariff, seal) for tariff in self.tariffs))
        print(hashlib.sha256(b"".join(seal[number] for number in range(count))).hexdigest()[:16], file=sys.stderr)
        work.tell([later - earlier for earlier, later in zip(self.times[8:], self.times[9:])])


class TariffService(socketserver.StreamRequestHandler):
    """The service beside the server, in a process of its own."""

    disable_nagle_algorithm = True

    def handle(self):
        for line in self.rfile:
            ride = json.loads(line)
            time.sleep(ANSWER_S)
            answer = {"cents": 100 + ride["points"] * ride["surge"] // 100 + ride["zone"]}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


def serve_tariffs():
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), TariffService)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


def main():
    variant, kind = sys.argv[1:3]
    if variant == "tariffs":
        return serve_tariffs()
    slow = variant == "slow"
    if kind == "listener":
        asyncio.run(Dispatch(slow, [FlatTariff()]).serve(460))
        return
    service = subprocess.Popen([sys.executable, __file__, "tariffs", "-"], stdout=subprocess.PIPE, text=True)
    try:
        port = int(service.stdout.readline())
        kept = slow and kind == "fare"
        tariffs = [BlockingTariff(port) if kept else StreamTariff(port) for _ in range(WORKERS)]
        asyncio.run(Dispatch(False, tariffs).serve(280 if kept else 480))
    finally:
        service.kill()
        service.wait()


if __name__ == "__main__":
    main()

"""A threaded TCP service (`socketserver`, a thread for each connection) that books the tokens which inference workers have used.

Injected, in cases named standby: the ledger numbers an entry and sends it to the standby, another process that acknowledges after
3 ms, all under the one lock of the ledger. Six connections' threads queue for that lock, and each waits for all those before it:
lock-convoy. The twin holds the lock for the number only and replicates after it, on a connection of the thread; the standby orders by
number. The standby is as slow as before.

Injected, in cases named trends: a thread of the service computes decayed usage trends of all tenants in Python, again and again, and
holds the GIL, which the threads of the requests want after each read: gil-contention. The twin computes the trends in a process of its
own, which sends a table now and then.

healthy-quiet: the twin without standby or trends, with two workers who book something each 30 ms.
"""

import itertools
import json
import math
import os
import socket
import socketserver
import subprocess
import sys
import threading
import time

CASES = {
    "slow-standby": "slow standby",
    "slow-trends": "slow trends",
    "fixed-standby": "fixed standby",
    "fixed-trends": "fixed trends",
    "healthy-quiet": "healthy quiet",
}
LABEL = {"slow-standby": ["lock-convoy"], "slow-trends": ["gil-contention"]}
ALSO = {
    "slow-standby": ["blocking-io", "waiting"],
    "slow-trends": ["cpu-bound-python"],
    "fixed": ["waiting", "blocking-io", "idle-no-work"],
    "healthy": ["idle-no-work", "waiting"],
}
WHERE = "append|replicate|Ledger|refresh|decay|Trends|handle|watch|table"
MEASURE = "mean"
STANDBY_S = 0.003


class Standby(socketserver.ThreadingTCPServer):
    """The standby's side: an entry in, an acknowledgement out, after the latency."""

    daemon_threads = True

    class Link(socketserver.StreamRequestHandler):
        def handle(self):
            while self.rfile.readline():
                time.sleep(STANDBY_S)
                self.wfile.write(b"ack\n")


class Replica:
    """The service's connections to the standby: one for each thread."""

    def __init__(self, port):
        self.port, self.local = port, threading.local()

    def replicate(self, entry):
        if not hasattr(self.local, "stream"):
            self.local.link = socket.create_connection(("127.0.0.1", self.port))
            self.local.stream = self.local.link.makefile("rwb")
        self.local.stream.write(json.dumps(entry).encode() + b"\n")
        self.local.stream.flush()
        return self.local.stream.readline() == b"ack\n"


class Ledger:
    def __init__(self, replica, strict):
        self.replica, self.strict = replica, strict
        self.lock = threading.Lock()
        self.number, self.used = 0, {}

    def book(self, tenant, tokens):
        self.number += 1
        self.used[tenant] = self.used.get(tenant, 0) + tokens
        return {"number": self.number, "tenant": tenant, "tokens": tokens}

    def append(self, tenant, tokens):
        with self.lock:
            entry = self.book(tenant, tokens)
            if self.replica and self.strict:
                self.replica.replicate(entry)
        if self.replica and not self.strict:
            self.replica.replicate(entry)
        return entry["number"]


class Trends:
    """Decayed usage of each tenant, over hours."""

    def __init__(self, tenants=400, hours=48):
        self.history = {f"tenant-{at}": [(at * hour) % 97 for hour in range(hours)] for at in range(tenants)}
        self.table, self.over = {}, False

    def decay(self, hours):
        level, swing = 0.0, 0.0
        for used in hours:
            swing = 0.9 * swing + 0.1 * abs(used - level)
            level = 0.8 * level + 0.2 * used
        return level + math.sqrt(swing)

    def refresh(self):
        self.table = {tenant: self.decay(hours) for tenant, hours in self.history.items()}

    def refresh_on(self):
        while not self.over:
            self.refresh()

    def watch(self, stream):
        for line in stream:
            self.table = json.loads(line)


def trends_process():
    trends, parent = Trends(), os.getppid()
    for turn in itertools.count():
        trends.refresh()
        if turn % 300 == 0:
            print(json.dumps(trends.table), flush=True)
            if os.getppid() != parent:
                return


class Desk(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, ledger, trends):
        self.ledger, self.trends = ledger, trends
        super().__init__(("127.0.0.1", 0), Booking)


class Booking(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            request = json.loads(line)
            number = self.server.ledger.append(request["tenant"], request["tokens"])
            trend = self.server.trends.table.get(request["tenant"], 0.0)
            self.wfile.write(json.dumps({"number": number, "trend": trend}).encode() + b"\n")


def workers(port, count, links, think):
    """The inference workers: each books, waits for the answer, and generates some more."""
    times = []

    def one(who):
        with socket.create_connection(("127.0.0.1", port)) as link:
            stream = link.makefile("rwb")
            for number in range(count):
                time.sleep(think)
                start = time.perf_counter()
                stream.write(json.dumps({"tenant": f"tenant-{(number * 7 + who) % 400}", "tokens": number % 90}).encode() + b"\n")
                stream.flush()
                stream.readline()
                times.append(time.perf_counter() - start)

    threads = [threading.Thread(target=one, args=(who,)) for who in range(links)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(times))


def again(*words):
    return subprocess.Popen([sys.executable, "-E", __file__, *map(str, words)], stdout=subprocess.PIPE)


def main(variant, kind):
    import work

    peers, replica, trends = [], None, Trends()
    if kind == "standby":
        peers.append(again("standby"))
        replica = Replica(int(peers[-1].stdout.readline()))
    elif kind == "trends" and variant == "fixed":
        peers.append(again("trends"))
        threading.Thread(target=trends.watch, args=(peers[-1].stdout,), daemon=True).start()
    elif kind == "trends":
        threading.Thread(target=trends.refresh_on, name="trends", daemon=True).start()
    desk = Desk(Ledger(replica, strict=variant == "slow"), trends)
    threading.Thread(target=desk.serve_forever, daemon=True).start()
    count, links, think = {
        "slow-standby": (130, 6, 0.002),
        "fixed-standby": (400, 6, 0.002),
        "slow-trends": (190, 4, 0.002),
        "fixed-trends": (800, 4, 0.002),
        "healthy-quiet": (90, 2, 0.03),
    }[f"{variant}-{kind}"]
    told = json.loads(again("workers", desk.server_address[1], count, links, think).communicate()[0])
    trends.over = True
    desk.shutdown()
    for peer in peers:
        peer.terminate()
        peer.wait()
    work.tell(told)


if __name__ == "__main__":
    if sys.argv[1] == "standby":
        with Standby(("127.0.0.1", 0), Standby.Link) as standby:
            print(standby.server_address[1], flush=True)
            standby.serve_forever()
    elif sys.argv[1] == "trends":
        trends_process()
    elif sys.argv[1] == "workers":
        workers(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    else:
        main(sys.argv[1], sys.argv[2])

"""A service of feature flags in front of models: a threaded http.server decides for a user which flags are on.

The clients are a process of their own (http.client, connections kept). Times are what the clients see.

Injected, in cases named overlay: for each request the policy, a tree of some hundred dicts, is copied by `copy.deepcopy` to lay the
tenant's overrides over it, though they change three leaves (host-copies). The twin lays them over with a ChainMap and copies nothing.
In cases named census: a daemon thread counts the exposures of all events kept, again and again, in Python, and holds the GIL each time
a request thread wants it back after reading or writing its socket (gil-contention). The twin counts each event when it is recorded, and
its thread only publishes the counters now and then. healthy-evening: few requests, with pauses between them.
"""

import collections
import copy
import hashlib
import http.client
import http.server
import json
import random
import subprocess
import sys
import threading
import time

CASES = {
    "slow-overlay": "slow overlay",
    "slow-census": "slow census",
    "fixed-overlay": "fixed overlay",
    "fixed-census": "fixed census",
    "healthy-evening": "healthy evening",
}
LABEL = {"slow-overlay": ["host-copies"], "slow-census": ["gil-contention"]}
ALSO = {
    "slow-overlay": ["cpu-bound-python", "gil-contention"],  # deepcopy is written in Python, and two requests may copy at a time
    "slow-census": ["cpu-bound-python"],
    "fixed": ["cpu-bound-python", "gil-contention", "idle-no-work", "waiting"],
    "healthy": ["idle-no-work", "waiting"],
}
WHERE = "overlay|deepcopy|census|count|recount|tally"
MEASURE = "mean"
CLIENTS = {"overlay": 2, "census": 1, "evening": 2}
COUNT = {
    "slow": {"overlay": 450, "census": 500},
    "fixed": {"overlay": 4000, "census": 5000},
    "healthy": {"evening": 180},
}
FLAGS, EVENTS = 220, 40_000


def clients(port, kind, count):
    """The load: threads that ask one question after the other."""
    times, pause = [], 0.02 if kind == "evening" else 0.0

    def ask(client):
        link = http.client.HTTPConnection("127.0.0.1", port)
        chance = random.Random(client)
        for number in range(count):
            user = {"id": chance.randrange(10_000), "plan": chance.choice(["free", "team", "firm"]), "country": f"c{number % 30}"}
            time.sleep(pause * chance.uniform(0.5, 1.5))
            start = time.perf_counter()
            link.request("POST", f"/decide/tenant{number % 25}", json.dumps(user).encode())
            answer = json.loads(link.getresponse().read())
            assert len(answer["on"]) < FLAGS
            if number > 3:
                times.append(time.perf_counter() - start)
        link.close()

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(CLIENTS[kind])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps([round(one, 6) for one in times]), flush=True)


def policy():
    chance = random.Random(12)
    flags = {}
    for at in range(FLAGS):
        rules = [{"plans": ["team", "firm"], "countries": [f"c{at % 30}", f"c{at % 7}"], "share": chance.random()} for _ in range(2)]
        flags[f"flag{at}"] = {"enabled": at % 5 > 0, "salt": f"s{at}", "rules": rules, "owner": {"team": f"t{at % 9}", "page": True}}
    return flags


class Gate:
    """Decides on the flags of one surface."""

    def __init__(self, flags):
        self.flags = flags
        self.overrides = {f"tenant{at}": {f"flag{at * 3 + k}": {"enabled": k == 1} for k in range(3)} for at in range(25)}

    def overlay(self, tenant):
        raise NotImplementedError

    def decide(self, tenant, user):
        flags = self.overlay(tenant)
        digest = hashlib.blake2b(b"%d" % user["id"]).digest()
        on = []
        for at in range(digest[0] % 8, FLAGS, 8):
            flag = flags[f"flag{at}"]
            if flag["enabled"] and any(self.matches(rule, user, digest[at % 60]) for rule in flag["rules"]):
                on.append(at)
        return on

    @staticmethod
    def matches(rule, user, chance):
        return user["plan"] in rule["plans"] or user["country"] in rule["countries"] or chance < rule["share"] * 255


class CopyingGate(Gate):
    def overlay(self, tenant):
        flags = copy.deepcopy(self.flags)
        for name, change in self.overrides[tenant].items():
            flags[name].update(change)
        return flags


class LayeredGate(Gate):
    def overlay(self, tenant):
        changed = {name: {**self.flags[name], **change} for name, change in self.overrides[tenant].items()}
        return collections.ChainMap(changed, self.flags)


class Census:
    """Counts who was exposed to what, over the events kept; the dashboard reads `published`."""

    def __init__(self):
        chance = random.Random(2)
        self.events = collections.deque(maxlen=EVENTS)
        self.published, self.stopping = {}, threading.Event()
        for _ in range(EVENTS):
            self.record(f"tenant{chance.randrange(25)}", [chance.randrange(FLAGS)])

    def start(self):
        threading.Thread(target=self.keep, name="census", daemon=True).start()

    def record(self, tenant, on):
        self.events.append((tenant, len(on), on[0] if on else -1))

    def recount(self):
        tally = {}
        for tenant, size, first in list(self.events):
            seen, most = tally.get((tenant, first), (0, 0))
            tally[tenant, first] = seen + 1, max(most, size)
        self.published = tally

    def keep(self):
        while not self.stopping.wait(0.001):
            self.recount()


class RunningCensus(Census):
    def __init__(self):
        self.tally = {}
        super().__init__()

    def record(self, tenant, on):
        super().record(tenant, on)
        key = tenant, on[0] if on else -1
        seen, most = self.tally.get(key, (0, 0))
        self.tally[key] = seen + 1, max(most, len(on))

    def keep(self):
        while not self.stopping.wait(0.25):
            self.published = dict(self.tally)


def handler(gate, census):
    class Decide(http.server.BaseHTTPRequestHandler):
        protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

        def do_POST(self):
            user = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            tenant = self.path.rpartition("/")[2]
            on = gate.decide(tenant, user)
            if census:
                census.record(tenant, on)
            body = json.dumps({"user": user["id"], "on": on}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    return Decide


def main():
    import work

    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    gate = (CopyingGate if slow and kind == "overlay" else LayeredGate)(policy())
    census = (Census if slow else RunningCensus)() if kind == "census" else None
    if census:
        census.start()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(gate, census))
    server.daemon_threads = True
    words = [sys.executable, "-E", __file__, "clients", str(server.server_address[1]), kind, str(COUNT[variant][kind])]
    load = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    times = json.loads(load.stdout.readline())
    load.wait()
    if census:
        census.stopping.set()
    server.shutdown()
    work.tell(times)


if sys.argv[1] == "clients":
    clients(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
else:
    main()

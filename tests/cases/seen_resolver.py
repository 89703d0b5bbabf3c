"""A router of requests to models: a name server (UDP) says where a model's replicas are, a store (TCP) has the tenant's limits.

Injected, in cases named names: each request resolves the names of its replicas, one after the other, though they hold for minutes; the
twin keeps an answer for as long as it holds. In cases named keys: each limit of the tenant is asked of the store by a GET of its own,
and waited for; the twin asks for all of them by one MGET. Store and name server are a process of their own, and as slow in both.
"""

import hashlib
import json
import selectors
import socket
import subprocess
import sys
import time

import work

CASES = {
    "slow-names-2": "slow names 2",
    "slow-names-4": "slow names 4",
    "slow-keys-3": "slow keys 3",
    "fixed-names-2": "fixed names 2",
    "fixed-names-4": "fixed names 4",
    "fixed-keys-3": "fixed keys 3",
}
LABEL = ["blocking-io"]
ALSO = {
    "slow": ["waiting"],
    "slow-keys-3": ["waiting", "small-batches"],
    "fixed": ["native-hot-spot"],
    "fixed-keys-3": ["blocking-io", "waiting", "native-hot-spot"],  # it still asks once a request
}
WHERE = "resolve|lookup|get|limits|recv|readline|replicas"
MEASURE = "mean"
NAME_S, KEY_S = 0.0012, 0.0008


def peer():
    """Both servers, one question at a time."""
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("127.0.0.1", 0))
    keys = socket.create_server(("127.0.0.1", 0))
    print(json.dumps([names.getsockname()[1], keys.getsockname()[1]]), flush=True)
    ready = selectors.DefaultSelector()
    ready.register(names, selectors.EVENT_READ)
    link, _ = keys.accept()
    ready.register(link, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is names:
                question, asker = names.recvfrom(512)
                time.sleep(NAME_S)
                digest = hashlib.md5(question).digest()
                names.sendto(json.dumps({"address": list(digest[:4]), "holds": 300}).encode(), asker)
            else:
                line = link.recv(4096)
                if not line:
                    return
                time.sleep(KEY_S)
                link.sendall(json.dumps({word: len(word) * 7 for word in line.decode().split()[1:]}).encode() + b"\n")


class Resolver:
    def __init__(self, port):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", port))
        self.socket.settimeout(5)

    def lookup(self, name):
        self.socket.send(name.encode())
        return json.loads(self.socket.recv(512))

    def resolve(self, name):
        return self.lookup(name)["address"]


class RememberingResolver(Resolver):
    def __init__(self, port):
        super().__init__(port)
        self.known = {}

    def resolve(self, name):
        address, until = self.known.get(name, (None, 0.0))
        now = time.monotonic()
        if until < now:
            found = self.lookup(name)
            address, until = found["address"], now + found["holds"]
            self.known[name] = address, until
        return address


class Store:
    def __init__(self, port):
        self.link = socket.create_connection(("127.0.0.1", port))
        self.lines = self.link.makefile("r")

    def get(self, *keys):
        self.link.sendall(f"{'MGET' if len(keys) > 1 else 'GET'} {' '.join(keys)}\n".encode())
        return json.loads(self.lines.readline())

    def limits_one_by_one(self, tenant, names):
        found = {}
        for name in names:
            found |= self.get(f"{tenant}:{name}")
        return found

    def limits_at_once(self, tenant, names):
        return self.get(*(f"{tenant}:{name}" for name in names))


class Router:
    def __init__(self, resolver, limits, replicas, names):
        self.resolver, self.limits, self.replicas, self.names = resolver, limits, replicas, names

    def route(self, number):
        model = f"model{number % 12}"
        places = [self.resolver.resolve(f"{replica}.{model}.cluster.local") for replica in range(self.replicas)]
        allowed = self.limits(f"tenant{number % 40}", self.names) if self.names else {}
        token = hashlib.pbkdf2_hmac("sha256", json.dumps([places, allowed]).encode(), b"signature", 4000)
        return places[token[0] % len(places)], token


def main():
    variant, kind, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    servers = subprocess.Popen([sys.executable, "-E", __file__, "peer"], stdout=subprocess.PIPE, text=True)
    name_port, key_port = json.loads(servers.stdout.readline())
    store = Store(key_port)
    slow = variant == "slow"
    resolver = (Resolver if slow and kind == "names" else RememberingResolver)(name_port)
    limits = store.limits_one_by_one if slow else store.limits_at_once
    router = Router(resolver, limits, size if kind == "names" else 1, [f"limit{at}" for at in range(size)] if kind == "keys" else [])
    count = {"slow": {2: 900, 3: 800, 4: 550}, "fixed": {2: 3000, 3: 1500, 4: 3000}}[variant][size]
    work.run(router.route, count, warm=15)
    store.link.shutdown(socket.SHUT_RDWR)
    servers.wait()


if sys.argv[1] == "peer":
    peer()
else:
    main()

"""An asyncio router before a fleet of model replicas: it charges the tenant's quota, picks a replica on a hash ring, and relays the prompt.

The fleet and the quota daemon are a process of their own (answers after 3 ms and 5 ms); the clients are another one.

Injected, in cases named ring: a health tick on the loop (`call_later`) builds the whole ring anew in Python each time, more than ten
ms in one callback, whether or not a replica came or went. All requests in flight stand behind it. The twin's tick compares the set of
replicas and builds nothing, for none changed. This is a callback that computes: slow-callback.

Injected, in cases named quota: the quota's client is a library for threads; the coroutine submits the charge to the library's pool and
calls `.result()` on the future, so the loop stands still, with nothing to compute, until the daemon has answered: blocked-loop. The
twin awaits the same future. The daemon is as slow as before.

healthy-night: the router as in the twins, with two clients who think for 40 ms between two prompts.
"""

import asyncio
import bisect
import concurrent.futures
import json
import socket
import subprocess
import sys
import threading
import time

CASES = {
    "slow-ring": "slow ring",
    "slow-quota": "slow quota",
    "fixed-ring": "fixed ring",
    "fixed-quota": "fixed quota",
    "healthy-night": "healthy quota",
}
LABEL = {"slow-ring": ["slow-callback"], "slow-quota": ["blocking-io"]}
ALSO = {
    "slow-ring": ["cpu-bound-python", "blocking-io", "step-jitter", "waiting"],
    "slow-quota": ["blocking-io", "waiting", "slow-callback"],
    "fixed": ["waiting", "idle-no-work"],
    "healthy": ["waiting", "idle-no-work"],
}
WHERE = "tick|rebuild|build|point|charge|allow|result|serve|relay"
MEASURE = "mean"
MODEL_S, QUOTA_S, TICK_S = 0.003, 0.005, 0.02


async def fleet():
    """The replicas and the quota daemon: a line in, a line out, after the latency of its kind."""

    async def serve(reader, writer):
        try:
            while line := await reader.readline():
                await asyncio.sleep(QUOTA_S if line.startswith(b"Q") else MODEL_S)
                writer.write(b"ok " + line)
        except ConnectionError:
            pass

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Ring:
    """Consistent hashing over the replicas."""

    VNODES = 150

    def __init__(self, replicas):
        self.rebuild(replicas)

    @staticmethod
    def point(text):
        value = 2166136261
        for letter in text.encode():
            value = (value ^ letter) * 16777619 & 0xFFFFFFFF
        return value

    def rebuild(self, replicas):
        points = []
        for replica in replicas:
            for vnode in range(self.VNODES):
                points.append((self.point(f"{replica}#{vnode}"), replica))
        points.sort()
        self.members = frozenset(replicas)
        self.keys = [key for key, _ in points]
        self.owners = [owner for _, owner in points]

    def pick(self, tenant):
        return self.owners[bisect.bisect(self.keys, self.point(tenant)) % len(self.owners)]


class Health:
    """Keeps the ring in step with the replicas that are alive."""

    def __init__(self, ring, replicas, eager):
        self.ring, self.replicas, self.eager = ring, replicas, eager
        self.loop = asyncio.get_running_loop()
        self.next = self.loop.call_later(TICK_S, self.tick)

    def tick(self):
        alive = [replica for replica in self.replicas if not replica.endswith("-dead")]
        if self.eager or self.ring.members != frozenset(alive):
            self.ring.rebuild(alive)
        self.next = self.loop.call_later(TICK_S, self.tick)


class QuotaSdk:
    """The vendor's client of the quota daemon: a pool of threads, each with a connection."""

    def __init__(self, port):
        self.port, self.local = port, threading.local()
        self.pool = concurrent.futures.ThreadPoolExecutor(8, "quota")

    def _ask(self, tenant):
        if not hasattr(self.local, "stream"):
            self.local.link = socket.create_connection(("127.0.0.1", self.port))
            self.local.stream = self.local.link.makefile("rwb")
        self.local.stream.write(b"Q %s\n" % tenant.encode())
        self.local.stream.flush()
        return self.local.stream.readline().startswith(b"ok")

    def charge(self, tenant):
        return self.pool.submit(self._ask, tenant)


class Router:
    def __init__(self, port, ring, quota, careless):
        self.port, self.ring, self.quota, self.careless = port, ring, quota, careless

    async def allow(self, tenant):
        if self.quota is None:
            return True
        charged = self.quota.charge(tenant)
        if self.careless:
            return charged.result(timeout=2)
        return await asyncio.wrap_future(charged)

    async def serve(self, reader, writer):
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while line := await reader.readline():
                request = json.loads(line)
                if not await self.allow(request["tenant"]):
                    writer.write(b'{"error": "quota"}\n')
                    continue
                replica = self.ring.pick(request["tenant"])
                downstream.write(b"M %s %s\n" % (replica.encode(), request["prompt"].encode()))
                answer = await upstream.readline()
                writer.write(json.dumps({"replica": replica, "text": answer.decode().strip()}).encode() + b"\n")
        except ConnectionError:
            pass
        writer.close()
        downstream.close()


async def clients(port, count, links, think):
    times = []

    async def one(who):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(count):
            await asyncio.sleep(think)
            start = time.perf_counter()
            writer.write(json.dumps({"tenant": f"t{number * 7 + who}", "prompt": "tell me more"}).encode() + b"\n")
            await reader.readline()
            times.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(one(who) for who in range(links)))
    print(json.dumps(times))


async def main(variant, kind):
    import work

    peer = subprocess.Popen([sys.executable, "-E", __file__, "fleet"], stdout=subprocess.PIPE)
    port = int(peer.stdout.readline())
    replicas = [f"gpu-{number:02}" for number in range(64)]
    ring = Ring(replicas)
    health = Health(ring, replicas, eager=(variant, kind) == ("slow", "ring"))
    quota = QuotaSdk(port) if kind == "quota" else None
    router = Router(port, ring, quota, careless=variant == "slow")
    server = await asyncio.start_server(router.serve, "127.0.0.1", 0)
    count, links, think = {
        "slow-ring": (190, 6, 0.002),
        "fixed-ring": (380, 6, 0.002),
        "slow-quota": (60, 8, 0.002),
        "fixed-quota": (230, 8, 0.002),
        "healthy-quota": (60, 2, 0.04),
    }[f"{variant}-{kind}"]
    words = [sys.executable, "-E", __file__, "clients", *map(str, (server.sockets[0].getsockname()[1], count, links, think))]
    child = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
    told = json.loads((await child.communicate())[0])
    health.next.cancel()
    server.close()
    peer.terminate()
    peer.wait()
    work.tell(told)


if __name__ == "__main__":
    if sys.argv[1] == "fleet":
        asyncio.run(fleet())
    elif sys.argv[1] == "clients":
        asyncio.run(clients(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
    else:
        asyncio.run(main(sys.argv[1], sys.argv[2]))

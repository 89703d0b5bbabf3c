"""An asyncio gateway before a model: for each request it gets the user's features from a store in another process.

Injected, in cases named http: the coroutine asks the store with `http.client`, which blocks the loop until the answer is there, and
with it all other requests. In cases named backoff: the store is asked by asyncio, but when it is busy (each third time) the coroutine
waits with `time.sleep` before it asks again. The twins wait with asyncio: the store is as slow, and as busy, as before.
healthy-idle: the twin with one client that thinks 30 ms between two requests.
"""

import asyncio
import hashlib
import http.client
import json
import subprocess
import sys
import time

import work

CASES = {
    "slow-http": "slow http",
    "slow-backoff": "slow backoff",
    "fixed-http": "fixed http",
    "fixed-backoff": "fixed backoff",
    "healthy-idle": "healthy http",
}
LABEL = {"slow": ["blocking-io"]}
ALSO = {
    "slow": ["blocking-io", "waiting", "slow-callback"],
    "fixed": ["waiting", "native-hot-spot"],
    "healthy": ["idle-no-work", "waiting"],
}
WHERE = "ask|features|getresponse|sleep|handle|serve|recv|read"
MEASURE = "mean"
STORE_S, BACKOFF_S = 0.004, 0.012


async def store():
    """The store: an answer after 4 ms, or 503 at once for each third request where the path says so."""
    asked = 0

    async def serve(reader, writer):
        nonlocal asked
        while head := await reader.readuntil(b"\r\n\r\n"):
            asked += 1
            if b"/busy/" in head and asked % 3 == 0:
                status, body = b"503 Busy", b"{}"
            else:
                await asyncio.sleep(STORE_S)
                status, body = b"200 OK", json.dumps({"user": [asked, asked * 2, asked % 7]}).encode()
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    await serve_at_port(serve, lambda port: print(port, flush=True), asyncio.Event())


async def serve_at_port(handler, ready, done):
    async def quiet(reader, writer):
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(quiet, "127.0.0.1", 0)
    ready(server.sockets[0].getsockname()[1])
    await done.wait()
    server.close()


class BlockingStore:
    def __init__(self, port):
        self.link = http.client.HTTPConnection("127.0.0.1", port)

    async def ask(self, path):
        self.link.request("GET", path)
        answer = self.link.getresponse()
        return answer.status, answer.read()


class AsyncStore:
    def __init__(self, port):
        self.port, self.idle = port, []

    async def ask(self, path):
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: store\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
        self.idle.append((reader, writer))
        return int(head.split()[1]), body


class Gateway:
    def __init__(self, store, prefix, patient):
        self.store, self.prefix, self.patient = store, prefix, patient

    async def features(self, user):
        while True:
            status, body = await self.store.ask(f"{self.prefix}/{user}")
            if status == 200:
                return json.loads(body)["user"]
            if self.patient:
                await asyncio.sleep(BACKOFF_S)
            else:
                time.sleep(BACKOFF_S)

    async def serve(self, reader, writer):
        while line := await reader.readline():
            user = json.loads(line)["user"]
            known = await self.features(user)
            score = hashlib.pbkdf2_hmac("sha256", b"%d" % len(known), b"model", 500)
            writer.write(json.dumps({"user": user, "score": score[0]}).encode() + b"\n")


async def clients(port, count, links, think):
    times = []

    async def one(offset):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(count):
            await asyncio.sleep(think)
            start = time.perf_counter()
            writer.write(b'{"user": %d}\n' % (number * 13 + offset))
            await reader.readline()
            times.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(one(offset) for offset in range(links)))
    print(json.dumps(times))


async def main(variant, kind):
    peer = subprocess.Popen([sys.executable, "-E", __file__, "store"], stdout=subprocess.PIPE, text=True)
    port = int(peer.stdout.readline())
    chosen = BlockingStore(port) if (variant, kind) == ("slow", "http") else AsyncStore(port)
    gateway = Gateway(chosen, "/busy" if kind == "backoff" else "/user", patient=variant != "slow")
    done, result = asyncio.Event(), []

    async def drive(port):
        count, links, think = {"slow": (70, 8, 0), "fixed": (300, 8, 0), "healthy": (80, 1, 0.03)}[variant]
        words = [sys.executable, "-E", __file__, "clients", *map(str, (port, count, links, think))]
        child = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
        result.extend(json.loads((await child.communicate())[0]))
        done.set()

    tasks = []
    await serve_at_port(gateway.serve, lambda port: tasks.append(asyncio.create_task(drive(port))), done)
    peer.terminate()
    peer.wait()
    work.tell(result)


if sys.argv[1] == "store":
    asyncio.run(store())
elif sys.argv[1] == "clients":
    asyncio.run(clients(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
else:
    asyncio.run(main(sys.argv[1], sys.argv[2]))

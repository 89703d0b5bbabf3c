"""A renderer of map tiles behind a framed protocol on a raw socket: the front end asks for all the tiles of a view at once.

The front end is a process of its own; it sends a burst of requests (struct frames), and takes the tiles as they come. A step is
one tile in work: from the start of its rendering, which takes buffers and a thread, to its answer; the wait for a turn is not
part of it. Rendering is native code that lets go of the interpreter (zlib and a hash), so that threads do run side by side, on as
many processors as there are.

Injected, in cases named burst: each request gets a thread of its own, so that sixteen threads compute on two processors, and each
one is in work for as long as all of them (thread-oversubscription). In cases named nested: a thread for each request again, and
in each one a pool of its own for the layers of the tile. The twin has one pool, of as many threads as there are processors, which
renders tile after tile, layers one after the other: as much work in all, each tile in work for as long as it needs. healthy-pan:
two tiles now and then, by the twin's pool.
"""

import concurrent.futures
import hashlib
import os
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib

CASES = {
    "slow-burst": "slow burst",
    "slow-nested": "slow nested",
    "fixed-burst": "fixed burst",
    "fixed-nested": "fixed nested",
    "healthy-pan": "healthy pan",
}
LABEL = {"slow": ["thread-oversubscription"]}
ALSO = {
    "slow": ["too-few-cpus", "native-hot-spot", "waiting"],
    "fixed": ["too-few-cpus", "native-hot-spot", "waiting"],  # a burst is more work than two processors have done at once
    "healthy": ["idle-no-work", "waiting", "native-hot-spot"],
}
WHERE = "render|layer|stack|submit|dispatch"
MEASURE = "mean"
FRAME = struct.Struct("!IHH")
TILES = {"burst": 16, "nested": 12, "pan": 2}
LAYERS = 4
BURSTS = {"slow": {"burst": 30, "nested": 48}, "fixed": {"burst": 30, "nested": 48}, "healthy": {"pan": 65}}


def read(link, size):
    parts = []
    while size:
        part = link.recv(min(size, 65536))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def front_end(port, kind, bursts):
    with socket.create_connection(("127.0.0.1", port)) as link:
        for number in range(bursts):
            if kind == "pan":
                time.sleep(0.045)
            link.sendall(b"".join(FRAME.pack(number * 64 + at, number % 19, at) for at in range(TILES[kind])))
            for _ in range(TILES[kind]):
                _, _, size = FRAME.unpack(read(link, FRAME.size))
                read(link, size)


class Painter:
    """What a layer is made of; the same for each way to share the work out."""

    def __init__(self):
        self.terrain = hashlib.shake_128(b"terrain").digest(48_000).hex().encode()

    def layer(self, column, row, depth):
        raster = memoryview(self.terrain)[column * 64 : column * 64 + 48_000]
        packed = zlib.compress(raster, 6)
        return hashlib.pbkdf2_hmac("sha256", packed[:64], b"%d/%d" % (row, depth), 3000)

    def stack(self, layers):
        return zlib.compress(b"".join(layers) * 4)


class ThreadEach:
    def __init__(self, painter):
        self.painter, self.times = painter, []

    def layers(self, column, row):
        return [self.painter.layer(column, row, depth) for depth in range(LAYERS)]

    def render(self, column, row, done):
        start = time.perf_counter()
        done(self.painter.stack(self.layers(column, row)))
        self.times.append(time.perf_counter() - start)

    def submit(self, column, row, done):
        threading.Thread(target=self.render, args=(column, row, done)).start()

    def close(self):
        pass


class Nested(ThreadEach):
    def layers(self, column, row):
        with concurrent.futures.ThreadPoolExecutor(LAYERS, thread_name_prefix="layer") as pool:
            return list(pool.map(lambda depth: self.painter.layer(column, row, depth), range(LAYERS)))


class Pooled(ThreadEach):
    def __init__(self, painter):
        super().__init__(painter)
        self.pool = concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="render")

    def submit(self, column, row, done):
        self.pool.submit(self.render, column, row, done)

    def close(self):
        self.pool.shutdown()


class Server:
    def __init__(self, renderer):
        self.renderer = renderer
        self.door = socket.create_server(("127.0.0.1", 0))
        self.ready = selectors.DefaultSelector()
        self.ready.register(self.door, selectors.EVENT_READ, self.greet)
        self.guests = None

    def greet(self, door):
        link, _ = door.accept()
        self.guests = (self.guests or 0) + 1
        sending, rest = threading.Lock(), bytearray()
        self.ready.register(link, selectors.EVENT_READ, lambda link: self.dispatch(link, sending, rest))

    def dispatch(self, link, sending, rest):
        got = link.recv(4096)
        if not got:
            self.ready.unregister(link)
            link.close()
            self.guests -= 1
            return
        rest += got
        whole = len(rest) // FRAME.size * FRAME.size
        for ticket, column, row in FRAME.iter_unpack(bytes(rest[:whole])):
            self.renderer.submit(column, row, lambda tile, ticket=ticket: self.answer(link, sending, ticket, tile))
        del rest[:whole]

    @staticmethod
    def answer(link, sending, ticket, tile):
        with sending:
            link.sendall(FRAME.pack(ticket, 0, len(tile)) + tile)

    def serve(self):
        while self.guests != 0:
            for key, _ in self.ready.select():
                key.data(key.fileobj)


def main():
    import work

    variant, kind = sys.argv[1:3]
    renderer = {"burst": ThreadEach, "nested": Nested}[kind] if variant == "slow" else Pooled
    server = Server(renderer(Painter()))
    words = [sys.executable, "-E", __file__, "front", str(server.door.getsockname()[1]), kind, str(BURSTS[variant][kind])]
    view = subprocess.Popen(words)
    server.serve()
    view.wait()
    server.renderer.close()
    work.tell(server.renderer.times)


if sys.argv[1] == "front":
    front_end(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
else:
    main()

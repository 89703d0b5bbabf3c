"""Event loops, for 0.6 s each: one that waits for work, or one that a callback holds up.

    loops.py blocks|idles|selects|serves|keeps
"""

import asyncio
import selectors
import socket
import socketserver
import subprocess
import sys
import threading
import time


async def serve(blocks):
    for _ in range(60):
        if blocks:
            time.sleep(0.01)
        else:
            await asyncio.sleep(0.01)


def select():
    """A loop of the program's own, as of a small server: nobody comes."""
    listener, selector = socket.create_server(("127.0.0.1", 0)), selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        for _ in selector.select(0.1):
            listener.accept()


def handle():
    server = socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler)
    threading.Timer(0.6, server.shutdown).start()
    server.serve_forever(0.05)


# Isolated, so that it is not recorded.
CLIENT = """
import socket, sys, time
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as peer:
    for _ in range(20):
        time.sleep(0.03)
        peer.sendall(b"?")
        peer.recv(1)
"""


def keep():
    """One client keeps its connection open and asks now and then: who reads from it waits for the next request."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = str(listener.getsockname()[1])
    client = subprocess.Popen([sys.executable, "-I", "-c", CLIENT, port])
    peer, _ = listener.accept()
    with peer:
        while True:
            asked = peer.recv(1)
            if not asked:
                break
            peer.sendall(asked)
    client.wait()


what = sys.argv[1]
if what == "selects":
    select()
elif what == "serves":
    handle()
elif what == "keeps":
    keep()
else:
    asyncio.run(serve(what == "blocks"))

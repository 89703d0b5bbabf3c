"""Event loops, for 0.6 s each: one that waits for work, or one that a callback holds up.

    loops.py blocks|idles|selects|serves
"""

import asyncio
import selectors
import socket
import socketserver
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


what = sys.argv[1]
if what == "selects":
    select()
elif what == "serves":
    handle()
else:
    asyncio.run(serve(what == "blocks"))

"""An HTTP service that ranks documents: http.server, a thread for each of four keep-alive clients.

Injected: the handler scores every candidate in Python. Four handlers want the one interpreter at once, so a request is
scoring, of its own and of the others. The twin keeps the same scores in a table that is filled when the service starts; what is left is
http.server itself, which is Python of four threads, too.
healthy-idle: the twin with one client that thinks 20 ms between two requests.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import work

CASES = {
    "slow-300": "slow 300",
    "slow-1500": "slow 1500",
    "fixed-300": "fixed 300",
    "fixed-1500": "fixed 1500",
    "healthy-idle": "healthy 300",
}
LABEL = {"slow": ["gil-contention", "cpu-bound-python"]}
ALSO = {"slow": ["preprocessing-bound"], "fixed": ["cpu-bound-python", "gil-contention"], "healthy": ["idle-no-work"]}
WHERE = "score|rank|do_POST"


class Ranker:
    def __init__(self, candidates, table):
        self.documents = [[(doc * 31 + term * 17) % 97 for term in range(12)] for doc in range(candidates)]
        self.known = [self.rank(query) for query in range(20)] if table else None

    def score(self, document, query):
        total = 0.0
        for term in document:
            if (term + query) % 3:
                total += 1.0 / (1 + term)
        return total

    def rank(self, query):
        scored = [(self.score(document, query), number) for number, document in enumerate(self.documents)]
        scored.sort(reverse=True)
        return scored[:10]

    def top(self, query):
        return self.known[query] if self.known else self.rank(query)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"top": self.server.ranker.top(body["query"] % 20)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words):
        pass


def client(port, count, think, clients):
    """In a process of its own: what the requests took, as JSON."""
    times = []

    def ask(offset):
        link = http.client.HTTPConnection("127.0.0.1", port)
        for number in range(count):
            time.sleep(think)
            start = time.perf_counter()
            link.request("POST", "/rank", json.dumps({"query": number * 7 + offset}))
            link.getresponse().read()
            times.append(time.perf_counter() - start)
        link.close()

    threads = [threading.Thread(target=ask, args=(offset,)) for offset in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(times))


def main():
    variant, size = sys.argv[1], int(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.ranker = Ranker(size, table=variant != "slow")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    count = 60 if variant == "healthy" else {300: 600, 1500: 170}[size] if variant == "slow" else 1200
    think, clients = (0.02, 1) if variant == "healthy" else (0, 4)
    words = ["client", server.server_address[1], count, think, clients]
    told = subprocess.run([sys.executable, "-E", __file__, *map(str, words)], stdout=subprocess.PIPE, check=True).stdout
    server.shutdown()
    work.tell(json.loads(told))


if __name__ == "__main__":
    if sys.argv[1] == "client":
        client(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
    else:
        main()

"""A document service that calls a command-line tool for each document, as wrappers of converters do.

Injected: `subprocess.run` of gzip (or, in cases named sort, a pipeline by a shell) for each document; the service waits until the
child is done. The twin calls the same compression in its own process, and sorts in it. The wait is for a child process: of the ids
there are, `waiting` says it best, and `blocking-io` where it is the child's pipe that is waited for.
"""

import gzip
import hashlib
import subprocess
import sys

import work

CASES = {
    "slow-gzip": "slow gzip",
    "slow-sort": "slow sort",
    "fixed-gzip": "fixed gzip",
    "fixed-sort": "fixed sort",
}
LABEL = ["waiting", "blocking-io"]
WHERE = "convert|run|communicate|wait|select|poll|read"
ALSO = []


class Converter:
    def __init__(self, tool, inside):
        self.convert = getattr(self, f"{tool}_{'inside' if inside else 'child'}")

    def gzip_child(self, text):
        return subprocess.run(["gzip", "-6", "-c"], input=text, stdout=subprocess.PIPE, check=True).stdout

    def gzip_inside(self, text):
        return gzip.compress(text, 6)

    def sort_child(self, text):
        return subprocess.run("sort | uniq -c | sort -rn | head -20", shell=True, input=text, stdout=subprocess.PIPE, check=True).stdout

    def sort_inside(self, text):
        counts = {}
        for line in text.split(b"\n"):
            counts[line] = counts.get(line, 0) + 1
        best = sorted(counts.items(), key=lambda pair: -pair[1])[:20]
        return b"".join(b"%7d %s\n" % (count, line) for line, count in best)


def main():
    variant, tool = sys.argv[1], sys.argv[2]
    text = b"\n".join(b"line %d of the document" % (at * at % 300) for at in range(1500))
    converter = Converter(tool, inside=variant == "fixed")

    def request(number):
        document = converter.convert(text)
        return hashlib.pbkdf2_hmac("sha256", document, b"model", 5000)

    work.run(request, {"slow": 220, "fixed": 800}[variant])


main()

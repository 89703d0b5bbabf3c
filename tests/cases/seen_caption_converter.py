"""A tool that converts captions of films: a shell script (`sed` in it) rewrites the cues of each file, a model times them, and a
packager process builds the parcel for the player.

Injected, in cases named linger: the script closes its output and then reports its metrics (a `sleep` of 20 ms stands in for
it), and `subprocess.run` waits until the script has ended, though all of its output is there long before: waiting, for a child
process. The twin reads the output to its end, goes on with it, and reaps the child some files later. Both start the same script
for each file; the output is the same.

Injected, in cases named pack: the packager, a process of its own, writes the digest of the font pack into each parcel and
hashes all of the pack for it (8 MB): native-hot-spot, in the child, for which the tool waits. The twin's packager has hashed
the pack once; the parcels are the same.

healthy-inline: no script, a packager that has the digest.
"""

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import zlib
from collections import deque

import work

NEEDS = ""
CASES = {
    "slow-linger": "slow linger",
    "slow-pack": "slow pack",
    "fixed-linger": "fixed linger",
    "fixed-pack": "fixed pack",
    "healthy-inline": "healthy inline",
}
LABEL = {"slow-linger": ["waiting"], "slow-pack": ["native-hot-spot"]}
ALSO = {
    "slow-linger": ["blocking-io"],  # the pipe, until the script has written
    "slow-pack": ["waiting", "blocking-io"],  # the tool, for the packager's answer
    "fixed": ["waiting", "blocking-io", "native-hot-spot", "idle-no-work"],  # sed's start, the packager between parcels; the model
    "healthy": ["native-hot-spot", "waiting", "blocking-io", "idle-no-work"],
}
WHERE = "run|communicate|wait|rewrite|convert|fonts|digest|sha256|parcel|Packager|pack"
MEASURE = "mean"
SCRIPT = """
sed -e 's/<i>//g' -e 's/-->/=>/' -e 's/^- //'
exec >&-
sleep 0.02
"""
FONTS = 8 << 20


def captions(number):
    """A file of captions as they come from the studio."""
    cues = [f"{at}\n00:{at:02}:{number % 60:02},000 --> 00:{at:02}:59,000\n- <i>line {at * number % 97}" for at in range(50)]
    return "\n\n".join(cues).encode()


class Script:
    """The shell script, once for each file."""

    def __init__(self, till_end):
        self.till_end, self.ended = till_end, deque()
        handle, self.path = tempfile.mkstemp(".sh")
        with os.fdopen(handle, "w") as file:
            file.write(SCRIPT)

    def rewrite(self, text):
        command = ["/bin/sh", self.path]
        if self.till_end:
            return subprocess.run(command, input=text, stdout=subprocess.PIPE, check=True).stdout
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdin.write(text)
        child.stdin.close()
        with child.stdout as output:
            made = output.read()
        self.ended.append(child)
        self.reap(12)
        return made

    def reap(self, most):
        while len(self.ended) > most:
            if self.ended.popleft().wait():
                raise RuntimeError("the script failed")

    def close(self):
        self.reap(0)
        os.unlink(self.path)


class Fonts:
    """The font pack that a player needs for these captions."""

    def __init__(self, anew):
        self.pack, self.anew = hashlib.shake_128(b"fonts").digest(FONTS // 64) * 64, anew
        self.kept = None if anew else self.hash()

    def hash(self):
        return hashlib.sha256(self.pack).hexdigest()

    def digest(self):
        return self.hash() if self.anew else self.kept


def parcel(fonts, number, cues):
    head = {"file": number, "fonts": fonts.digest(), "size": len(cues)}
    return json.dumps(head).encode() + b"\n" + zlib.compress(cues, 6)


def serve(link, anew):
    """The packager's process."""
    fonts = Fonts(anew)
    link.send_bytes(b"ready")
    while cues := link.recv_bytes():
        number, _, cues = cues.partition(b"\n")
        link.send_bytes(parcel(fonts, int(number), cues))


class Packager:
    def __init__(self, anew):
        context = multiprocessing.get_context("spawn")
        self.link, far = context.Pipe()
        self.process = context.Process(target=serve, args=(far, anew), name="packager", daemon=True)
        self.process.start()
        self.link.recv_bytes()

    def pack(self, number, cues):
        self.link.send_bytes(b"%d\n%s" % (number, cues))
        return self.link.recv_bytes()

    def close(self):
        self.link.send_bytes(b"")
        self.process.join()


class Converter:
    def __init__(self, script, packager):
        self.script, self.packager, self.sums = script, packager, 0

    def convert(self, number):
        text = captions(number)
        cues = self.script.rewrite(text) if self.script else text.replace(b"-->", b"=>").replace(b"<i>", b"")
        work.model()
        made = self.packager.pack(number, cues) if self.packager else zlib.compress(cues, 6)
        self.sums = zlib.crc32(made, self.sums)

    def close(self):
        for part in (self.script, self.packager):
            if part:
                part.close()
        print(f"{self.sums:08x}", file=sys.stderr)


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    script = Script(till_end=slow) if kind == "linger" else None
    packager = None if kind == "linger" else Packager(anew=slow and kind == "pack")
    converter = Converter(script, packager)
    counts = {"slow-linger": 110, "slow-pack": 280, "fixed-linger": 300, "fixed-pack": 600, "healthy-inline": 700}
    work.run(converter.convert, counts[f"{variant}-{kind}"])
    converter.close()


if __name__ == "__main__":
    main()

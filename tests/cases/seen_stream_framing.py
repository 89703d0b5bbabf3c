"""A generator pipeline over a stream of frames: chunks, frames, decoded records, answers.

Injected: `frames` keeps what it has not used yet in a `bytes` and cuts each frame off its front, so that every frame copies all
that is behind it. The twin moves an offset over a memoryview of the chunk. healthy-etl: the twin's stages with csv, json and zlib,
none with most of the time.
"""

import csv
import hashlib
import io
import json
import struct
import sys
import time
import zlib

import work

CASES = {
    "slow-256": "slow 256",
    "slow-1024": "slow 1024",
    "fixed-256": "fixed 256",
    "fixed-1024": "fixed 1024",
    "healthy-etl": "healthy 256",
}
LABEL = {"slow": ["host-copies"]}
ALSO = {"slow": ["page-faults", "native-hot-spot"]}
WHERE = "frames|bytes"
FRAME = 1500


def chunks(kilobytes, count):
    body = b"".join(struct.pack("<I", FRAME) + bytes([at % 251]) * FRAME for at in range(kilobytes * 1024 // (FRAME + 4)))
    for _ in range(count):
        yield body


def frames_cut(source):
    rest = b""
    for chunk in source:
        rest += chunk
        while len(rest) >= 4:
            (size,) = struct.unpack("<I", rest[:4])
            if len(rest) < 4 + size:
                break
            yield rest[4 : 4 + size]
            rest = rest[4 + size :]
        yield None


def frames_view(source):
    for chunk in source:
        view, at = memoryview(chunk), 0
        while len(view) - at >= 4:
            (size,) = struct.unpack_from("<I", view, at)
            yield view[at + 4 : at + 4 + size]
            at += 4 + size
        yield None


def answers(frames):
    """One answer a chunk, of all of its frames."""
    state = hashlib.blake2b()
    for frame in frames:
        if frame is None:
            yield state.hexdigest()
            state = hashlib.blake2b()
        else:
            state.update(frame)
            state.update(hashlib.sha256(frame).digest())


def table(count):
    rows = [[f"user{at}", at * 1.5, f"text {at % 17} of {at}", at % 3] for at in range(400)]
    for _ in range(count):
        page = io.StringIO()
        csv.writer(page).writerows(rows)
        yield page.getvalue()


def records(pages):
    for page in pages:
        yield [{"user": user, "value": value, "text": text} for user, value, text, kind in csv.reader(io.StringIO(page)) if kind != "2"]


def packed(batches):
    for batch in batches:
        text = json.dumps(batch).encode()
        yield hashlib.sha3_256(zlib.compress(text, 1) + text).hexdigest()


def main():
    variant, kilobytes = sys.argv[1], int(sys.argv[2])
    count = {"slow": {256: 900, 1024: 80}[kilobytes], "fixed": {256: 1800, 1024: 450}[kilobytes], "healthy": 1500}[variant]
    if variant == "healthy":
        stages = packed(records(table(count)))
    else:
        stages = answers((frames_cut if variant == "slow" else frames_view)(chunks(kilobytes, count)))
    times, start = [], time.perf_counter()
    for _ in stages:
        times.append(time.perf_counter() - start)
        start = time.perf_counter()
    work.tell(times)


main()

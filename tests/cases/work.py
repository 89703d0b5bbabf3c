"""What the cases share: the command line, a model in native code, and steps whose time is told.

A case is run as `FAMILY.py slow --strength 0.6`, or `fixed`, or `healthy`. It prints one line of JSON: how long its steps
took. The strength is the share of a slow step's time that the bottleneck takes, about: the work is counted, not timed, so
that it is the same in every run.
"""

import bz2
import hashlib
import json
import sys
import time
import zlib

MODEL_MS = 4.0  # about what `model` takes on a processor of 2023
BATCH = hashlib.shake_128(b"batch").digest(30_000).hex().encode()


def variant():
    """Which variant is asked for, and how strong."""
    words = sys.argv[1:]
    strength = float(words[words.index("--strength") + 1]) if "--strength" in words else 0.5
    return words[0], strength


def beside(strength):
    """How many ms beside one call of the model are this share of both."""
    return MODEL_MS * strength / (1 - strength)


def model(batch=BATCH):
    """Four layers of native code that release the GIL, of about a quarter of the time each."""
    packed = zlib.compress(batch, 1)
    packed = bz2.compress(packed[:6500])
    key = hashlib.pbkdf2_hmac("sha256", packed, b"layer", 4000)
    return hashlib.shake_128(batch * 9 + key).hexdigest(16)


def run(step, count, warm=2):
    """Takes so many steps, then tells how long they took."""
    for number in range(warm):
        step(number)
    times = []
    for number in range(count):
        start = time.perf_counter()
        step(number)
        times.append(time.perf_counter() - start)
    tell(times)


def tell(times):
    """Prints the line: median, mean and 99th percentile of the steps, in ms."""
    times = sorted(times)
    pick = lambda share: times[min(len(times) - 1, int(share * len(times)))] * 1e3
    told = {"steps": len(times), "median": pick(0.5), "mean": sum(times) / len(times) * 1e3, "p99": pick(0.99)}
    print(json.dumps({key: round(value, 4) for key, value in told.items()}))

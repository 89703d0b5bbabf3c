"""A nightly job over readings of meters: a pool of processes unpacks frames, checks them and has a model look for thefts.

Injected, in cases named crc: the check of a frame is computed bit by bit in Python; the twin's is the one of `binascii`. In cases named
bits: the fields of a frame are cut out of a text of its bits; the twin shifts one whole number. The healthy case has frames that
were checked when they came, of fields that `struct` knows. A chunk of frames is a step, and processes tell how long each took.
"""

import binascii
import hashlib
import multiprocessing
import struct
import sys
import time
import zlib

import work

CASES = {
    "slow-crc": "slow crc",
    "slow-bits": "slow bits",
    "fixed-crc": "fixed crc",
    "fixed-bits": "fixed bits",
    "healthy": "healthy plain",
}
LABEL = {"slow": ["cpu-bound-python", "preprocessing-bound"]}
ALSO = {"fixed": ["native-hot-spot"], "healthy": ["native-hot-spot"]}
WHERE = "crc|check|bits|fields|unpack"
FRAME, FRAMES = 32, 100
WIDTHS = [12, 20, 7, 9, 16, 32, 24, 8, 11, 13, 40, 32]  # of the fields, in bits


def frame(meter, number):
    body = hashlib.blake2b(b"%d of %d" % (number, meter), digest_size=FRAME - 2).digest()
    return body + struct.pack(">H", binascii.crc_hqx(body, 0xFFFF))


def crc_by_bits(body):
    crc = 0xFFFF
    for byte in body:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def check(frame, crc):
    return crc(frame[:-2]) == int.from_bytes(frame[-2:], "big")


def fields_of_text(frame):
    bits = "".join(format(byte, "08b") for byte in frame)
    found, at = [], 0
    for width in WIDTHS:
        value = 0
        for bit in bits[at : at + width]:
            value = value * 2 + (bit == "1")
        found.append(value)
        at += width
    return found


SHIFTS = [(8 * FRAME - sum(WIDTHS[: at + 1]), (1 << width) - 1) for at, width in enumerate(WIDTHS)]


def fields_of_number(frame):
    whole = int.from_bytes(frame, "big")
    return [whole >> shift & mask for shift, mask in SHIFTS]


def fields_of_struct(frame):
    return struct.unpack_from(">7I", frame)


def unpack(kind, slow, raw):
    """The readings of a chunk."""
    readings = []
    for at in range(0, len(raw), FRAME):
        part = raw[at : at + FRAME]
        if kind == "crc" and not check(part, crc_by_bits if slow else lambda body: binascii.crc_hqx(body, 0xFFFF)):
            continue
        if kind == "bits":
            readings.append((fields_of_text if slow else fields_of_number)(part))
        else:
            readings.append(fields_of_struct(part))
    return readings


def thefts(readings):
    """The model, native."""
    state = b"".join(struct.pack("<Q", sum(reading)) for reading in readings) + b"meter"
    for layer in range(3):
        state = hashlib.shake_128(zlib.compress(state, 6)).digest(40_000)
        state = hashlib.pbkdf2_hmac("sha256", state, b"%d" % layer, 1500) + state[:4000]
    return state[0] < 9


def chunk(job):
    kind, slow, raw = job
    start = time.perf_counter()
    found = thefts(unpack(kind, slow, raw))
    return found, time.perf_counter() - start


def main():
    variant, kind = sys.argv[1:3]
    count = {"slow": {"crc": 900, "bits": 900}, "fixed": {"crc": 2400, "bits": 2400}, "healthy": {"plain": 2400}}[variant][kind]
    raws = [b"".join(frame(meter, number) for number in range(FRAMES)) for meter in range(40)]
    jobs = ((kind, variant == "slow", raws[number % 40]) for number in range(count))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        times = [took for _, took in pool.imap(chunk, jobs, chunksize=8)]
        pool.close()
        pool.join()
    work.tell(times)


if __name__ == "__main__":
    main()

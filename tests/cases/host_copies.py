"""Large buffers are copied from one Python object to the next.

Injected: a request's tensor is cut into slices of bytes and joined again, some times over, as code does that parses messages
with slices. Right, because the copies take that share of the step and give nothing; the twin passes views of one buffer.
"""

import zlib

import work

CASES = {
    "slow-0.4": "slow --strength 0.4",
    "slow-0.6": "slow --strength 0.6",
    "slow-0.8": "slow --strength 0.8",
    "fixed": "fixed",
}
LABEL = ["host-copies"]
ALSO = ["native-hot-spot", "page-faults"]
WHERE = "cut|join|bytes"

variant, strength = work.variant()
TENSOR = bytearray(work.BATCH * 30)  # 1.8 MB
bytearray(30 << 20)  # the allocator has seen larger, and keeps blocks of this size
ROUNDS = max(1, round(work.beside(strength) / 0.6))
PART = len(TENSOR) // 4


def cut(data):
    return [bytes(data[at : at + PART]) for at in range(0, len(data), PART)]


def join(parts):
    return b"".join(parts)


def step(number):
    if variant == "slow":
        data = TENSOR
        for _ in range(ROUNDS):
            data = join(cut(data))
    else:
        data = memoryview(TENSOR)
        for _ in range(ROUNDS):
            data = data[0 : len(data)]
    return work.model(), zlib.crc32(data[:4096])


work.run(step, int(1000 / (work.MODEL_MS + (work.beside(strength) if variant == "slow" else 0))))

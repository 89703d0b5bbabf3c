"""Each request takes fresh memory from the system and touches all of it.

Injected: a mapping made anew for each request and written once in each page (`fresh`), or (cases named bytearray) a zeroed
buffer too large for the allocator to keep. Right, because the kernel hands over page after page for that share of the step; the
twin writes to the same pages of a mapping that it keeps.
"""

import mmap
import sys

import work

CASES = {
    "slow-0.4": "slow --strength 0.4",
    "slow-0.6": "slow --strength 0.6",
    "slow-0.8": "slow --strength 0.8",
    "slow-bytearray-0.8": "slow --strength 0.8 bytearray",
    "fixed": "fixed --strength 0.6",
    "fixed-bytearray-0.8": "fixed --strength 0.8 bytearray",
}
LABEL = ["page-faults"]
ALSO = ["native-hot-spot", "host-copies"]
WHERE = "fresh|touch|mmap|bytearray|step"

variant, strength = work.variant()
PAGE = mmap.PAGESIZE
PAGES = max(int(work.beside(strength) / 1.8e-3), 9000 if "bytearray" in sys.argv else 0)
MARKS = b"x" * PAGES


def fresh():
    if "bytearray" in sys.argv:
        return bytearray(PAGES * PAGE)
    return mmap.mmap(-1, PAGES * PAGE)


kept = fresh()


def touch(memory):
    memory[::PAGE] = MARKS


def step(number):
    memory = fresh() if variant == "slow" else kept
    touch(memory)
    if memory is not kept and "bytearray" not in sys.argv:
        memory.close()
    return work.model()


work.run(step, int(1000 / (work.MODEL_MS + (work.beside(strength) if variant == "slow" else 0.5))))

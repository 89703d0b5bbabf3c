"""A server of one model's weights to several tenants: a shard file is mapped, a tenant's deltas are laid over it, blocks are decoded.

Injected, in cases named remap: for each request the shard is mapped anew, copy on write, and the tenant's deltas are written to it, so
that the kernel copies each page touched once more (page-faults). The twin keeps a tenant's mapping, and writes the deltas to pages that
are there. In cases named arena: the arena for decoded blocks is a new anonymous mapping for each request, all of its pages zeroed and
given by a fault, then given back; the twin keeps its arena. In cases named memo: decoded blocks are remembered without bound under a
key that has the request's trace id in it, so that no one is ever found again and all stay (memory-growth); the twin's key is what the
block depends on, and its memo is bounded.
"""

import collections
import hashlib
import mmap
import pathlib
import random
import sys
import tempfile
import zlib

import work

CASES = {
    "slow-remap": "slow remap",
    "slow-arena": "slow arena",
    "slow-memo": "slow memo",
    "fixed-remap": "fixed remap",
    "fixed-arena": "fixed arena",
    "fixed-memo": "fixed memo",
}
LABEL = {"slow-remap": ["page-faults"], "slow-arena": ["page-faults"], "slow-memo": ["memory-growth"]}
ALSO = {
    "slow-remap": ["native-hot-spot", "host-copies"],
    "slow-arena": ["native-hot-spot", "host-copies"],
    "slow-memo": ["native-hot-spot", "page-faults", "host-copies"],  # it decodes each time, to memory not touched before
    "fixed": ["native-hot-spot", "host-copies", "cpu-bound-python"],
}
WHERE = "open|mmap|view|lay|release|arena|fill|decode|memo"
PAGE, TENANTS = mmap.PAGESIZE, 3
SHARD = 16 << 20
COUNT = {
    "slow": {"remap": 330, "arena": 900, "memo": 1400},
    "fixed": {"remap": 6000, "arena": 5000, "memo": 6000},
}


def write_shard(folder):
    """The file: random at the start of each page, nothing else."""
    path = pathlib.Path(folder, "shard.bin")
    page = hashlib.shake_128(b"weights").digest(512)
    with path.open("wb") as out:
        for at in range(SHARD // PAGE):
            out.write((at.to_bytes(4, "big") + page).ljust(PAGE, b"\0"))
    return path


class Overlays:
    """The shard as a tenant sees it."""

    def __init__(self, path):
        self.path = path
        chance = random.Random(9)
        self.deltas = [chance.randbytes(SHARD // PAGE) for _ in range(TENANTS)]

    def open(self):
        with self.path.open("rb") as shard:
            return mmap.mmap(shard.fileno(), 0, access=mmap.ACCESS_COPY)

    def view(self, tenant):
        return self.open()

    def release(self, view):
        view.close()

    def lay(self, view, tenant):
        view[7::PAGE] = self.deltas[tenant]

    def serve(self, number):
        tenant = number % TENANTS
        view = self.view(tenant)
        self.lay(view, tenant)
        start = number * 8192 % (SHARD // 2)
        seal = hashlib.sha256(view[start : start + 600_000]).digest()
        self.release(view)
        return seal


class KeptOverlays(Overlays):
    def __init__(self, path):
        super().__init__(path)
        self.views = {}

    def view(self, tenant):
        if tenant not in self.views:
            self.views[tenant] = self.open()
        return self.views[tenant]

    def release(self, view):
        pass


class Gatherer:
    """Gathers the blocks of a request side by side."""

    blocks, size = 24, 256 << 10

    def __init__(self):
        self.source = hashlib.shake_128(b"blocks").digest(self.size + 4096)

    def arena(self):
        return mmap.mmap(-1, self.blocks * self.size)

    def release(self, arena):
        arena.close()

    def fill(self, arena, number):
        source = memoryview(self.source)
        for block in range(self.blocks):
            at = (number + block) * 64 % 4096
            arena[block * self.size : (block + 1) * self.size] = source[at : at + self.size]

    def serve(self, number):
        arena = self.arena()
        self.fill(arena, number)
        seal = hashlib.sha256(arena[:400_000]).digest()
        self.release(arena)
        return seal


class KeptArena(Gatherer):
    def __init__(self):
        super().__init__()
        self.kept = super().arena()

    def arena(self):
        return self.kept

    def release(self, arena):
        pass


class Blocks:
    """Decoded blocks of the codebook."""

    def __init__(self):
        raw = hashlib.shake_128(b"codebook").digest(60_000)
        self.packed = [zlib.compress(raw[at:].hex().encode() * 2) for at in range(40)]
        self.memo = collections.OrderedDict()

    def key(self, trace, block):
        return trace, block

    def bound(self):
        pass

    def decode(self, trace, block):
        key = self.key(trace, block)
        found = self.memo.get(key)
        if found is None:
            found = self.memo[key] = zlib.decompress(self.packed[block])
            self.bound()
        return found

    def serve(self, number):
        trace = hashlib.md5(b"%d" % number).hexdigest()
        decoded = self.decode(trace, number * 7 % 40)
        return hashlib.sha256(memoryview(decoded)[: 200_000]).digest(), hashlib.pbkdf2_hmac("sha256", b"sign", trace.encode(), 1000)


class BoundedBlocks(Blocks):
    def key(self, trace, block):
        return block

    def bound(self):
        if len(self.memo) > 64:
            self.memo.popitem(last=False)


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    with tempfile.TemporaryDirectory() as folder:
        if kind == "remap":
            server = (Overlays if slow else KeptOverlays)(write_shard(folder))
        elif kind == "arena":
            server = (Gatherer if slow else KeptArena)()
        else:
            server = (Blocks if slow else BoundedBlocks)()
        work.run(server.serve, COUNT[variant][kind])


main()

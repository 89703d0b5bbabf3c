"""Stages that hand large objects to each other through a store, as workflow engines do.

Injected: each stage pickles the whole table and the next one unpickles it, though both are in one process. The twin hands the
object itself on, and the store gets nothing. Pickling is native code.
"""

import hashlib
import pickle
import sys
import time

import work

CASES = {
    "slow-3000": "slow 3000",
    "slow-12000": "slow 12000",
    "fixed-3000": "fixed 3000",
    "fixed-12000": "fixed 12000",
}
LABEL = ["native-hot-spot"]
ALSO = ["host-copies", "page-faults"]
WHERE = "pickle|dump|load|save"


class Store:
    """Keeps what stages return."""

    def __init__(self, share):
        self.share = share
        self.blobs = {}

    def save(self, name, value):
        if self.share:
            return value
        self.blobs[name] = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)

    def load(self, name, value):
        if self.share:
            return value
        return pickle.loads(self.blobs[name])


class Flow:
    def __init__(self, store, rows):
        self.store = store
        self.table = {f"row-{at}": (at * 0.37, f"label {at % 50} of {at}", at * at) for at in range(rows)}

    def clean(self, table):
        self.key = hashlib.pbkdf2_hmac("sha256", b"clean", b"%d" % len(table), 3000)
        return table

    def embed(self, table):
        self.key = hashlib.pbkdf2_hmac("sha256", self.key, b"%d" % len(table), 3000)
        return table

    def predict(self, table):
        self.key = hashlib.pbkdf2_hmac("sha256", self.key, b"%d" % len(table), 3000)
        return table

    def run(self):
        value = self.table
        for stage in (self.clean, self.embed, self.predict):
            value = stage(value)
            value = self.store.load(stage.__name__, self.store.save(stage.__name__, value))
        return value


def main():
    variant, rows = sys.argv[1], int(sys.argv[2])
    flow = Flow(Store(share=variant == "fixed"), rows)
    times = []
    for _ in range({"slow": {3000: 150, 12000: 45}[rows], "fixed": 500}[variant]):
        start = time.perf_counter()
        flow.run()
        times.append(time.perf_counter() - start)
    work.tell(times[2:])


main()

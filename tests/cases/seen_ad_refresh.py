"""A predictor of clicks on ads: it keeps the features of users, follows a file with the model of the hour, and answers one by one.

Injected, in cases named evict: when the cache of features is full, the few least worth are found by sorting all, and thrown out, which
takes as long as many answers; the twin's cache throws out the oldest one for each new one. In cases named reload: each 60th request
unpacks and checks the model's file, changed or not; the twin looks at the file's time first. One request in so many is long.
"""

import collections
import hashlib
import os
import struct
import sys
import tempfile
import zlib

import work

CASES = {
    "slow-evict": "slow evict",
    "slow-reload": "slow reload",
    "fixed-evict": "fixed evict",
    "fixed-reload": "fixed reload",
}
LABEL = ["step-jitter"]
ALSO = {
    "slow-evict": ["cpu-bound-python", "preprocessing-bound"],
    "slow-reload": ["native-hot-spot"],
    "fixed": ["native-hot-spot"],
}
WHERE = "evict|worth|sort|reload|refresh|load|unpack|check|decompress|get"
MEASURE = "mean"
USERS, EVERY = 80_000, 60


def features(user):
    return struct.unpack("<16H", hashlib.blake2s(b"user %d" % user).digest())


class Entry:
    __slots__ = ("features", "used", "last")

    def __init__(self, found, now):
        self.features, self.used, self.last = found, 1, now


class RankedCache:
    """Throws out a share of its entries, the least worth, when it is full."""

    def __init__(self, size):
        self.entries, self.size, self.now = {}, size, 0

    def worth(self, user):
        entry = self.entries[user]
        age = self.now - entry.last
        return entry.used / (1.0 + age) + sum(entry.features[:4]) * 1e-9

    def evict(self):
        ranked = sorted(self.entries, key=self.worth)
        for user in ranked[: self.size // 250]:
            del self.entries[user]

    def get(self, user):
        self.now += 1
        entry = self.entries.get(user)
        if entry is None:
            if len(self.entries) >= self.size:
                self.evict()
            entry = self.entries[user] = Entry(features(user), self.now)
        entry.used += 1
        entry.last = self.now
        return entry.features


class RecentCache:
    def __init__(self, size):
        self.entries, self.size = collections.OrderedDict(), size

    def get(self, user):
        if user in self.entries:
            self.entries.move_to_end(user)
            return self.entries[user]
        if len(self.entries) >= self.size:
            self.entries.popitem(last=False)
        found = self.entries[user] = features(user)
        return found


class Model:
    """The model of the hour, which another program writes."""

    def __init__(self, path, careful):
        self.path, self.careful = path, careful
        self.time = None
        self.weights = b""
        self.reload()

    def refresh(self):
        if not self.careful or os.stat(self.path).st_mtime_ns != self.time:
            self.reload()

    def reload(self):
        self.time = os.stat(self.path).st_mtime_ns
        with open(self.path, "rb") as file:
            packed = file.read()
        self.weights = zlib.decompress(packed)
        self.check()

    def check(self):
        for _ in range(3):  # as many digests as the format has
            self.digest = hashlib.sha512(self.weights).digest()

    def predict(self, found):
        row = struct.pack("<16H", *found) + self.weights[found[0] : found[0] + 3000]
        return hashlib.pbkdf2_hmac("sha256", row, self.digest, 3500)[0] / 255


def main():
    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "hour.model")
        with open(path, "wb") as file:
            file.write(zlib.compress(hashlib.shake_128(b"hour").digest(14_000_000 if kind == "reload" else 100_000), 1))
        model = Model(path, careful=not slow)
        cache = (RankedCache if slow and kind == "evict" else RecentCache)(USERS)
        if kind == "evict":
            for user in range(USERS):
                cache.get(user)

        def request(number):
            users = [USERS + number * 5 + ad if ad < 4 else number % 50 for ad in range(6)] if kind == "evict" else [number % 900]
            found = [cache.get(user) for user in users]
            if number % EVERY == EVERY - 1:
                model.refresh()
            return model.predict(found[-1])

        work.run(request, {"slow": 1300, "fixed": 2600}[variant])


main()

"""A chat service that remembers what it said, so that it does not say it twice, and keeps the rendered pages of conversations.

Injected: both grow without a bound, and the list of what was said is looked through for each answer, so that the service gets bigger
and slower with each request. The twin keeps the last 200 of both. `long` and `short`: the pages.
"""

import collections
import hashlib
import sys
import zlib

import work

CASES = {
    "slow-short": "slow short",
    "slow-long": "slow long",
    "fixed-short": "fixed short",
    "fixed-long": "fixed long",
}
LABEL = ["memory-growth"]
ALSO = {"slow": ["native-hot-spot", "cpu-bound-python", "page-faults", "step-jitter"], "fixed": ["native-hot-spot"]}
WHERE = "render|remember|said|keep|reply|answer"
MEASURE = "mean"
PAGE = {"short": 30_000, "long": 120_000}


class Said:
    """What was said, by its words; the most alike one is looked for."""

    def __init__(self, limit):
        self.sets = collections.deque(maxlen=limit)

    def remember(self, words):
        alike = max((len(words & other) for other in self.sets), default=0)
        self.sets.append(words)
        return alike


class Pages:
    def __init__(self, limit):
        self.limit, self.pages = limit, collections.OrderedDict()

    def keep(self, key, page):
        self.pages[key] = page
        if self.limit and len(self.pages) > self.limit:
            self.pages.popitem(last=False)


class Chat:
    def __init__(self, size, limit):
        self.size = size
        self.said, self.pages = Said(limit), Pages(limit)
        self.template = hashlib.shake_128(b"page").digest(2000).hex()

    def generate(self, prompt):
        state = hashlib.pbkdf2_hmac("sha256", prompt.encode(), b"decoder", 1000)
        return " ".join(f"w{byte % 97}" for byte in state[:12])

    def render(self, prompt, answer):
        body = f"<p>{prompt}</p><p>{answer}</p>{self.template}"
        return (body * (self.size // len(body) + 1))[: self.size]

    def reply(self, number):
        prompt = f"user {number % 50} asks {number}"
        for attempt in range(3):
            answer = self.generate(f"{prompt} {attempt}")
            if self.said.remember(frozenset(answer.split())) < 12:
                break
        page = self.render(prompt, answer)
        self.pages.keep((number, attempt), page)
        return zlib.adler32(page.encode())


def main():
    variant, size = sys.argv[1], sys.argv[2]
    chat = Chat(PAGE[size], limit=None if variant == "slow" else 200)
    work.run(chat.reply, {"slow": {"short": 3600, "long": 3000}[size], "fixed": {"short": 6000, "long": 5000}[size]}[variant])


main()

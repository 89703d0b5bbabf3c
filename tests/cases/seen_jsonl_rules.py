"""A batch job over JSON lines: redact, fingerprint, write again. A chunk of 20 lines is a step.

Injected: the rules of redaction are built into patterns for each line, with the line's user in them, so that `re` compiles them
anew (in Python) instead of finding them in its cache. The twin compiles one pattern a rule and compares the user afterwards.
"""

import gzip
import hashlib
import io
import json
import re
import sys
import time

import work

CASES = {
    "slow-1": "slow 1",
    "slow-4": "slow 4",
    "fixed-1": "fixed 1",
    "fixed-4": "fixed 4",
}
LABEL = ["cpu-bound-python"]
ALSO = {"slow": ["preprocessing-bound"], "fixed": ["native-hot-spot"]}  # the twin's patterns are most of its work
WHERE = "pars|compil|redact|optimize"

RULES = [r"(?P<mail>{}@[a-z]+\.(?:com|org))", r"\b(?:id|ref)[-:]{}\b", r"{}(?:'s)? (?:phone|card) \d{{3,}}", r"<{}:[^>]+>"]
GENERAL = [re.compile(rule.format(r"(?P<user>user\d+)")) for rule in RULES]
BODY = " ".join(hashlib.md5(b"%d" % at).hexdigest()[:7] for at in range(250))


def lines(count):
    for number in range(count):
        user = f"user{number % 5000}"
        text = f"{user}@example.com wrote: {BODY} id-{user} and {user}'s phone 555123 <{user}:x> user1@example.org"
        yield json.dumps({"user": user, "text": text, "at": number})


def redact_compiling(text, user, rules):
    for rule in RULES[:rules]:
        text = re.compile(rule.format(re.escape(user))).sub("[redacted]", text)
    return text


def redact(text, user, rules):
    for pattern in GENERAL[:rules]:
        text = pattern.sub(lambda found: "[redacted]" if found["user"] == user else found[0], text)
    return text


def job(source, sink, rules, redactor):
    times = []
    start = time.perf_counter()
    for number, line in enumerate(source, 1):
        record = json.loads(line)
        record["text"] = redactor(record["text"], record["user"], rules)
        record["print"] = hashlib.sha256(record["text"].encode()).hexdigest()
        sink.write(json.dumps(record).encode() + b"\n")
        if number % 20 == 0:
            times.append(time.perf_counter() - start)
            start = time.perf_counter()
    return times


def main():
    variant, rules = sys.argv[1], int(sys.argv[2])
    source = lines({"slow": {1: 8000, 4: 2800}[rules], "fixed": {1: 20_000, 4: 10_000}[rules]}[variant])
    with gzip.open(io.BytesIO(), "wb", compresslevel=6) as sink:
        times = job(source, sink, rules, redact_compiling if variant == "slow" else redact)
    work.tell(times[3:])


main()

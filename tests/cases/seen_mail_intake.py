"""An LMTP-like intake of mail in asyncio: takes messages of several senders, judges, seals, and answers with a verdict.

The senders are a process of their own, over real connections; so is the judge (a spamd-like service that needs some ms, and can answer
many at a time). Times are what the senders see.

Injected, in cases named verdict: the coroutine asks the judge over a plain socket, `sendall` and `recv`, so that the loop stands still
until the answer is there, and no other message moves (blocked-loop). The twin awaits streams, a few connections to the same judge. In
cases named seal: the domain's sealing key is derived with PBKDF2 for each message, in the coroutine, which holds the loop for as long
as it computes (slow-callback); the twin remembers the key of a domain. In cases named bayes: the local score goes through all of the
vocabulary for each message, in Python, in the coroutine (slow-callback); the twin looks up only the words the message has.
"""

import asyncio
import email
import email.policy
import functools
import hashlib
import hmac
import json
import math
import random
import re
import socket
import sys
import time

CASES = {
    "slow-verdict": "slow verdict",
    "slow-seal": "slow seal",
    "slow-bayes": "slow bayes",
    "fixed-verdict": "fixed verdict",
    "fixed-seal": "fixed seal",
    "fixed-bayes": "fixed bayes",
}
LABEL = {"slow-verdict": ["blocking-io"], "slow-seal": ["slow-callback"], "slow-bayes": ["slow-callback"]}
ALSO = {
    "slow-verdict": ["blocking-io", "waiting", "slow-callback"],
    "slow-seal": ["native-hot-spot"],
    "slow-bayes": ["cpu-bound-python"],
    "fixed": ["cpu-bound-python", "waiting"],  # it parses MIME in Python; the judge takes as long
}
WHERE = "verdict|recv|key|seal|pbkdf2|score|interesting|accept"
MEASURE = "mean"
SENDERS = 5
JUDGE_S = 0.004
ROUNDS = 40_000
VOCABULARY = 30_000
COUNT = {
    "slow": {"verdict": 130, "seal": 55, "bayes": 190},
    "fixed": {"verdict": 500, "seal": 1500, "bayes": 1500},
}


async def judge():
    """The peer: a line of a digest in, after a while a line of a verdict out."""

    async def serve(reader, writer):
        while line := await reader.readline():
            await asyncio.sleep(JUDGE_S)
            writer.write(b"spam\n" if line[0] in b"01" else b"ham\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def compose(chance, sender, number):
    words = " ".join(f"word{int(chance.paretovariate(0.6)) % VOCABULARY}" for _ in range(300))
    return (
        f"From: s{number}@domain{number % 9}.example\r\nTo: desk{sender}@example.org\r\nSubject: order {number}\r\n"
        f"Message-ID: <{sender}.{number}@example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{words}\r\n"
    ).encode()


async def senders(port, count):
    """The clients: each sends one message after the other, and tells what it waited for."""
    times = []

    async def send(sender):
        chance = random.Random(sender)
        drafts = [compose(chance, sender, number) for number in range(60)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in range(count):
            message = drafts[number % len(drafts)]
            start = time.perf_counter()
            writer.write(b"DATA %d\n" % len(message) + message)
            answer = await reader.readline()
            assert answer.startswith(b"250 "), answer
            if number > 3:
                times.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(send(sender) for sender in range(SENDERS)))
    print(json.dumps([round(one, 6) for one in times]), flush=True)


class Judge:
    """Asks the judge over a connection that is kept."""

    def __init__(self, port):
        self.link = socket.create_connection(("127.0.0.1", port))

    async def verdict(self, digest):
        self.link.sendall(digest.encode() + b"\n")
        return self.link.recv(64).strip().decode()


class StreamJudge:
    def __init__(self, port):
        self.port, self.idle = port, []

    async def verdict(self, digest):
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(digest.encode() + b"\n")
        answer = await reader.readline()
        self.idle.append((reader, writer))
        return answer.strip().decode()


class NoJudge:
    async def verdict(self, digest):
        return "unknown"


class Sealer:
    def key(self, domain):
        return hashlib.pbkdf2_hmac("sha256", domain.encode(), b"intake", ROUNDS)

    def seal(self, domain, body):
        return hmac.new(self.key(domain), body, "sha256").hexdigest()


class KeyringSealer(Sealer):
    @functools.lru_cache(maxsize=64)
    def key(self, domain):
        return super().key(domain)


class Bayes:
    words = re.compile(r"[a-z0-9]+")

    def __init__(self):
        chance = random.Random(4)
        self.spamicity = {f"word{at}": chance.uniform(0.02, 0.98) for at in range(VOCABULARY)}

    def interesting(self, seen):
        ranked = []
        for word, chance in self.spamicity.items():
            if word in seen:
                ranked.append((abs(chance - 0.5) * seen[word], chance))
            else:
                ranked.append((0.0, 0.5))
        ranked.sort(reverse=True)
        return ranked[:15]

    def score(self, text):
        seen = {}
        for word in self.words.findall(text):
            seen[word] = seen.get(word, 0) + 1
        found = [chance for weight, chance in self.interesting(seen) if weight]
        return 1 / (1 + math.exp(sum(math.log(1 - chance) - math.log(chance) for chance in found)))


class LookupBayes(Bayes):
    def interesting(self, seen):
        known = ((self.spamicity[word], count) for word, count in seen.items() if word in self.spamicity)
        return sorted(((abs(chance - 0.5) * count, chance) for chance, count in known), reverse=True)[:15]


class Intake:
    def __init__(self, judge, sealer, bayes):
        self.judge, self.sealer, self.bayes = judge, sealer, bayes
        self.taken = 0

    async def accept(self, raw):
        message = email.message_from_bytes(raw, policy=email.policy.compat32)
        body = message.get_payload()
        domain = message["From"].partition("@")[2]
        score = self.bayes.score(body)
        verdict = await self.judge.verdict(hashlib.sha1(raw).hexdigest())
        seal = self.sealer.seal(domain, body.encode())
        self.taken += 1
        return f"250 {message['Message-ID']} {verdict} {score:.3f} {seal[:16]}\n"

    async def serve(self, reader, writer):
        while line := await reader.readline():
            raw = await reader.readexactly(int(line.split()[1]))
            writer.write((await self.accept(raw)).encode())
        writer.close()


async def start(*words):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-E", __file__, *map(str, words), stdout=asyncio.subprocess.PIPE, limit=1 << 22
    )


async def main():
    import work

    variant, kind = sys.argv[1:3]
    slow = variant == "slow"
    peer, chosen = None, NoJudge()
    if kind == "verdict":
        peer = await start("judge")
        chosen = (Judge if slow else StreamJudge)(int(await peer.stdout.readline()))
    sealer = Sealer() if slow and kind == "seal" else KeyringSealer()
    bayes = Bayes() if slow and kind == "bayes" else LookupBayes()
    intake = Intake(chosen, sealer, bayes)
    server = await asyncio.start_server(intake.serve, "127.0.0.1", 0)
    clients = await start("senders", server.sockets[0].getsockname()[1], COUNT[variant][kind])
    times = json.loads(await clients.stdout.readline())
    await clients.wait()
    server.close()
    if peer:
        peer.kill()
        await peer.wait()
    work.tell(times)


if sys.argv[1] == "judge":
    asyncio.run(judge())
elif sys.argv[1] == "senders":
    asyncio.run(senders(int(sys.argv[2]), int(sys.argv[3])))
else:
    asyncio.run(main())

"""A command that renders the configuration of a fleet: a file for each service and environment, from templates.

Facts of an environment (its hosts, its limits) are told by a tool of its own, run as a child process. Secrets are told by an agent that
is asked over a unix socket, and takes its time. A step of the measure is one file.

Injected, in cases named facts: the tool for facts is run for each file, and waited for: waiting (for a child process). The twin runs it
once for each environment, and keeps what was told.

Injected, in cases named secrets: the press asks the agent for the secrets of a file when it renders it, and its path waits in `recv`:
blocking-io. The twin asks for those of the next file before it renders this one, so the answer is there when needed. As many
questions are asked, and the files are the same.

healthy-render: facts are kept, and no secrets are asked for.
"""

import gzip
import hashlib
import json
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import work

NEEDS = ""
CASES = {
    "slow-facts": "slow facts",
    "slow-secrets": "slow secrets",
    "fixed-facts": "fixed facts",
    "fixed-secrets": "fixed secrets",
    "healthy-render": "healthy render",
}
LABEL = {"slow-facts": ["waiting"], "slow-secrets": ["blocking-io"]}
ALSO = {
    "slow-facts": ["blocking-io", "startup-dominates", "cpu-bound-python"],  # the pipe of the child; the child's own start
    "slow-secrets": ["waiting", "cpu-bound-python", "idle-no-work"],  # the agent is a child process, that sleeps
    "fixed-facts": ["cpu-bound-python", "native-hot-spot"],
    "fixed-secrets": ["cpu-bound-python", "native-hot-spot", "idle-no-work"],
    "healthy": ["cpu-bound-python", "native-hot-spot"],
}
WHERE = "facts|Facts|tell|communicate|wait|secrets|Agent|recv|readline|readinto|run$"
MEASURE = "mean"
ENVIRONMENTS = ("dev", "qa", "stage", "live-eu", "live-us")
SERVICES = tuple(f"svc-{name}" for name in ("auth", "bill", "cart", "dept", "edge", "feed", "geo", "hook", "item"))
TOOL = """
import json, sys
name = sys.argv[1]
hosts = {f"host{at}": f"10.{len(name)}.{at // 200}.{at % 200}" for at in range(120)}
print(json.dumps({"environment": name, "replicas": len(name) + 1, "hosts": hosts}))
"""
AGENT = """
import hashlib, json, socket, sys, time
link = socket.socket(fileno=int(sys.argv[1]))
for line in link.makefile("rb"):
    time.sleep(0.0055)  # its vault is not here
    names = json.loads(line)
    link.sendall(json.dumps({name: hashlib.sha256(name.encode()).hexdigest() for name in names}).encode() + b"\\n")
"""
TEMPLATES = {
    "main": "# {{service}} in {{environment}}\n{% include hosts %}{% include secrets %}{% if live %}alarm = on\n{% end %}",
    "hosts": "{% each hosts %}upstream {{key}} { server {{value}}:8080; weight {{weight}}; }\n{% end %}",
    "secrets": "{% each secrets %}secret.{{key}} = {{value}}\n{% end %}",
}


class Engine:
    """Templates: cut into parts once, then filled."""

    CUT = re.compile(r"\{\{(\w+)\}\}|\{% (\w+) ?(\w*) %\}")

    def __init__(self, sources):
        self.parts = {name: self.parse(source) for name, source in sources.items()}

    def parse(self, source):
        stack, at = [[]], 0
        for found in self.CUT.finditer(source):
            name, word, about = found.groups()
            stack[-1].append(("text", source[at : found.start()], None))
            at = found.end()
            if word == "end":
                inner = stack.pop()
                stack[-1][-1] = (*stack[-1][-1][:2], inner)
            else:
                stack[-1].append((word or "name", about or name, None))
                if word in ("each", "if"):
                    stack.append([])
        stack[-1].append(("text", source[at:], None))
        return stack[0]

    def fill(self, parts, scope, out):
        for kind, value, inner in parts:
            if kind == "text":
                out.append(value)
            elif kind == "name":
                out.append(str(scope[value]))
            elif kind == "include":
                self.fill(self.parts[value], scope, out)
            elif kind == "each":
                for key, each in scope[value].items():
                    self.fill(inner, {"key": key, "value": each, "weight": len(key) * 3}, out)
            elif scope[value]:
                self.fill(inner, scope, out)

    def render(self, scope):
        out = []
        self.fill(self.parts["main"], scope, out)
        return "".join(out)


class Facts:
    def __init__(self, keep):
        self.kept = {name: self.tell(name) for name in ENVIRONMENTS} if keep else {}

    def tell(self, environment):
        told = subprocess.run([sys.executable, "-S", "-E", "-c", TOOL, environment], stdout=subprocess.PIPE, check=True)
        return json.loads(told.stdout)


class Agent:
    """The far end that knows the secrets."""

    def __init__(self):
        self.link, far = socket.socketpair()
        self.process = subprocess.Popen([sys.executable, "-S", "-E", "-c", AGENT, str(far.fileno())], pass_fds=[far.fileno()])
        far.close()
        self.lines = self.link.makefile("rb")

    def ask(self, service, environment):
        self.link.sendall(json.dumps([f"{environment}/{service}/{at}" for at in range(24)]).encode() + b"\n")

    def close(self):
        self.link.shutdown(socket.SHUT_RDWR)
        self.process.wait()


class Press:
    def __init__(self, folder, facts, agent, ahead):
        self.engine, self.folder, self.facts = Engine(TEMPLATES), folder, facts
        self.agent, self.ahead, self.asked = agent, ahead, None

    def job(self, number):
        return SERVICES[number % len(SERVICES)], ENVIRONMENTS[number % len(ENVIRONMENTS)]

    def secrets(self, number):
        if self.agent is None:
            return {}
        if self.asked != number:
            self.agent.ask(*self.job(number))
        told = json.loads(self.agent.lines.readline())
        if self.ahead:
            self.asked = number + 1
            self.agent.ask(*self.job(self.asked))
        return told

    def press(self, number):
        service, environment = self.job(number)
        facts = self.facts.kept.get(environment) or self.facts.tell(environment)
        scope = {**facts, "live": environment.startswith("live"), "secrets": self.secrets(number)}
        body = "".join(self.engine.render({**scope, "service": f"{service}-{shard}"}) for shard in range(56)).encode()
        (self.folder / f"{environment}-{service}.conf.gz").write_bytes(gzip.compress(body, 4, mtime=0))
        return hashlib.sha256(body).hexdigest()


def main():
    variant, kind = sys.argv[1:3]
    count = {"slow-facts": 110, "slow-secrets": 170, "fixed-facts": 350, "fixed-secrets": 280, "healthy-render": 350}
    agent = Agent() if kind == "secrets" else None
    with tempfile.TemporaryDirectory(prefix="press-") as folder:
        press = Press(Path(folder), Facts(keep=(variant, kind) != ("slow", "facts")), agent, ahead=variant == "fixed")
        numbers = iter(range(10_000))  # the same order in the warm-up and after it
        work.run(lambda _: press.press(next(numbers)), count[f"{variant}-{kind}"])
    if agent is not None:
        agent.close()


if __name__ == "__main__":
    main()

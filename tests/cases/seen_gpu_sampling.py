"""A decoder whose next token is sampled on the host: logits come back in each step, Python picks, the token goes in again.

Injected: `sample` computes a softmax with temperature and top-k over a list of logits, in Python, while the device has nothing to
do, for the next step needs the token. The twin samples with two kernels on the device and copies one token back.
Right is what says that the device waits for that Python: it waits for preparation (`preprocessing-bound`), host and device take
turns (`sync-stall`), or the interpreter is the bottleneck.
"""

import math
import random
import sys
import time

import device
import work

CASES = {
    "slow-8000": "slow 8000",
    "slow-32000": "slow 32000",
    "fixed-8000": "fixed 8000",
}
LABEL = ["preprocessing-bound", "sync-stall", "cpu-bound-python"]
ALSO = ["blocking-copy", "pageable-copy"]
WHERE = "sample|softmax|top_k"
NEEDS = "gpu"


class Sampler:
    def __init__(self, vocabulary):
        chance = random.Random(2)
        self.random = chance
        self.logits = [chance.gauss(0, 3) for _ in range(vocabulary)]

    def sample(self, temperature=0.8, keep=40):
        scaled = [logit / temperature for logit in self.logits]
        top = sorted(range(len(scaled)), key=scaled.__getitem__, reverse=True)[:keep]
        best = scaled[top[0]]
        weights = [math.exp(scaled[at] - best) for at in top]
        return self.random.choices(top, weights)[0]


class Engine:
    def __init__(self, vocabulary, on_host):
        self.gpu = device.Device(60)
        self.vocabulary, self.on_host = vocabulary, on_host
        self.sampler = Sampler(vocabulary)

    def forward(self, token):
        self.gpu.copy_in(8)
        for layer in range(48):
            self.gpu.launch(layer)

    def decode(self, token):
        self.forward(token)
        if self.on_host:
            self.gpu.copy_out(4 * self.vocabulary)
            self.gpu.wait()
            return self.sampler.sample()
        self.gpu.launch(4, us=20)
        self.gpu.launch(3, us=10)
        self.gpu.copy_out(8)
        self.gpu.wait()
        return token + 1 & 1023


def main():
    variant, vocabulary = sys.argv[1], int(sys.argv[2])
    engine, token, times = Engine(vocabulary, variant == "slow"), 0, []
    for _ in range({"slow": {8000: 220, 32000: 90}[vocabulary], "fixed": 380}[variant]):
        start = time.perf_counter()
        token = engine.decode(token)
        times.append(time.perf_counter() - start)
    work.tell(times)


main()

"""A decoder that keeps its cache of keys and values in the host's memory, and moves it for each step.

Injected: before the layers the cache is copied to the device, and after them back. The twin leaves the cache on the device and
copies the step's token only.
"""

import sys

import device
import work

CASES = {
    "slow-20": "slow 20",
    "slow-80": "slow 80",
    "fixed-80": "fixed 80",
}
LABEL = ["transfer-bound", "blocking-copy", "pageable-copy"]
ALSO = ["sync-stall"]
WHERE = "load|save|restore|offload|Memcpy|copy"
NEEDS = "gpu"


class HostCache:
    """Pages of the cache, in memory of the host."""

    def __init__(self, gpu, megabytes, pages=8):
        self.gpu, self.page, self.pages = gpu, (megabytes << 20) // pages, pages

    def restore(self):
        for _ in range(self.pages):
            self.gpu.copy_in(self.page)

    def offload(self):
        for _ in range(self.pages):
            self.gpu.copy_out(self.page)


class DeviceCache:
    def restore(self):
        pass

    def offload(self):
        pass


class Decoder:
    def __init__(self, gpu, cache):
        self.gpu, self.cache = gpu, cache

    def step(self, number):
        self.cache.restore()
        for layer in range(32):
            self.gpu.launch(layer)
        self.cache.offload()
        self.gpu.copy_out(8)
        self.gpu.wait()


def main():
    variant, megabytes = sys.argv[1], int(sys.argv[2])
    gpu = device.Device(100)
    decoder = Decoder(gpu, HostCache(gpu, megabytes) if variant == "slow" else DeviceCache())
    work.run(decoder.step, {"slow": {20: 240, 80: 120}[megabytes], "fixed": 320}[variant])


main()

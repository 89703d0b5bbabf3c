"""A decode loop of a transformer with random weights on a GPU, for scripts/check-gpu.sh; prints what it measured as JSON.

Usage: gpu_decode.py eager|graph STEPS [profile]. With `profile`, torch.profiler counts and sums the same steps' kernels.
"""

import json
import sys
import time

import torch


class Block(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attend = torch.nn.MultiheadAttention(width, 8, batch_first=True)
        self.norms = torch.nn.ModuleList([torch.nn.LayerNorm(width) for _ in range(2)])
        self.expand, self.shrink = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x):
        y = self.norms[0](x)
        x = x + self.attend(y, y, y, need_weights=False)[0]
        return x + self.shrink(torch.nn.functional.gelu(self.expand(self.norms[1](x))))


def main(mode, steps, profile):
    torch.manual_seed(1)
    model = torch.nn.Sequential(*[Block(512) for _ in range(12)]).cuda().half().eval()
    x = torch.randn(4, 64, 512, device="cuda", dtype=torch.half)
    with torch.inference_mode():
        for _ in range(5):
            model(x)
        step = lambda: model(x)
        if mode == "graph":
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                model(x)
            step = graph.replay
        torch.cuda.synchronize()

        def loop():
            started = time.perf_counter()
            for _ in range(steps):
                with torch.cuda.nvtx.range("step"):
                    step()
            torch.cuda.synchronize()
            return time.perf_counter() - started

        told = {"seconds": loop()}
        if profile:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
                loop()
            kernels = [e for e in seen.events() if e.device_type == torch.autograd.DeviceType.CUDA]
            kernels = [e for e in kernels if not e.name.startswith(("Memcpy", "Memset"))]
            told["kernels"] = len(kernels)
            told["kernel_us"] = sum(e.time_range.elapsed_us() for e in kernels)
    print(json.dumps(told))


main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["profile"])

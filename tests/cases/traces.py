"""Traces of real GPUs by torch.profiler, as they are or with time inserted where the host does something else.

Injected: a gap where each step's work begins, all that follows being later by as much, in a function `collate` (cases named function) or with
nothing recorded in it (silent). Right, because the host comes that much later and the device has nothing queued. Steps are repeated
first, in the cases named often, so that the gap comes before each of several. As they are: the forward passes and decoders whose
device is busy are healthy, captures of graphs say nothing of a device, a stall of the host between two marks is no bottleneck; the
data loader without workers, and the small BERT, are known to wait for input and launches.

`traces.py CASE... TRACES FILE` writes the trace and prints the gain that leaving the gap out would have, where it is known.
"""

import copy
import gzip
import json
import sys

CASES = {
    "healthy-qwen-h100": "tl_h100_qwen05b",
    "healthy-qwen-mi300": "tl_mi300_qwen05b",
    "healthy-qwen-often": "tl_h100_qwen05b often",
    "healthy-vllm": "tl_vllm_decode_full",
    "healthy-vllm-often": "tl_vllm_decode_full often",
    "healthy-capture-vllm": "tl_vllm_decode_full_capture",
    "healthy-capture-sglang": "tl_mi300x_sglang_decode_capture_bs32",
    "healthy-sglang": "tl_mi300x_sglang_decode",
    "slow-loader": "kineto_v100_resnet50_workers0 gain 1.37",
    "slow-owlv2": "tl_h100_owlv2",
    "slow-bert-h100": "tl_h100_bert_small",
    "slow-bert-mi300": "tl_mi300_bert_small",
    "slow-qwen-once": "tl_h100_qwen05b function 20",
    "slow-qwen-once-silent": "tl_h100_qwen05b silent 20",
    "slow-qwen-often": "tl_h100_qwen05b often function 20",
    "slow-qwen-often-silent": "tl_h100_qwen05b often silent 20",
    "slow-qwen-mi300-often": "tl_mi300_qwen05b often function 40",
    "slow-qwen-mi300-once-silent": "tl_mi300_qwen05b silent 30",
}
LABEL = {
    "slow-loader": ["preprocessing-bound"],
    "slow-owlv2": ["preprocessing-bound"],
    "slow-bert-h100": ["launch-bound"],
    "slow-bert-mi300": ["launch-bound"],
    "slow-qwen-once": ["preprocessing-bound"],
    "slow-qwen-once-silent": ["preprocessing-bound", "host-bound"],
    "slow-qwen-often": ["preprocessing-bound"],
    "slow-qwen-often-silent": ["preprocessing-bound", "host-bound"],
    "slow-qwen-mi300-often": ["preprocessing-bound"],
    "slow-qwen-mi300-once-silent": ["preprocessing-bound", "host-bound"],
}
ALSO = {
    "slow-bert-h100": ["small-kernels", "small-batches"],
    "slow-bert-mi300": ["small-kernels", "small-batches"],
    "healthy-sglang": ["step-jitter"],
    "slow-qwen-once": ["sync-stall"],
    "slow-qwen-once-silent": ["sync-stall"],
    "slow-qwen-often": ["sync-stall"],
    "slow-qwen-often-silent": ["sync-stall"],
    "slow-qwen-mi300-often": ["sync-stall"],
    "slow-qwen-mi300-once-silent": ["sync-stall"],
}
NEEDS = "traces"

DEVICE = {"kernel", "gpu_memcpy", "gpu_memset", "gpu_user_annotation"}
IDS = ("correlation", "External id", "Python id", "Python parent id", "Ev Idx")
STEPS = ("ProfilerStep#", "execute_")
TURNS, APART = 6, 10_000_000  # copies of a step, and of its ids


def correlation(event):
    return event.get("args", {}).get("correlation")


def spans(events):
    return [event for event in events if event.get("ph") == "X" and event.get("cat") != "Trace"]


def later(event, turn, by):
    """A copy of an event, some us later, with ids of its own."""
    event = copy.deepcopy(event)
    event["ts"] = event["ts"] + by
    arguments = event.get("args", {})
    for key in IDS:
        if isinstance(arguments.get(key), int):
            arguments[key] += turn * APART
    if isinstance(event.get("id"), int) and event.get("cat") in ("ac2g", "async_cpu_to_gpu"):
        event["id"] += turn * APART
    if event.get("name", "").startswith("ProfilerStep#"):
        event["name"] = "ProfilerStep#%d" % (int(event["name"][13:]) + turn)
    return event


def period(events):
    """How long a step keeps the host, or the device, whichever is longer; us."""
    longest = 0
    for device in (True, False):
        side = [event for event in spans(events) if (event.get("cat") in DEVICE) == device]
        longest = max(longest, max(event["ts"] + event["dur"] for event in side) - min(event["ts"] for event in side))
    return longest


def often(events):
    timed = [event for event in events if "ts" in event and event.get("cat") != "Trace"]
    rest = [event for event in events if "ts" not in event]
    each = period(events) + 20
    return rest + [later(event, turn, turn * each) for turn in range(TURNS) for event in timed]


def begins(events, mark):
    """When a step's own work begins: with its first operator. Before it the host waits for the device's earlier work."""
    return min(event["ts"] for event in spans(events) if event.get("cat") == "cpu_op" and event["ts"] >= mark["ts"]) - 1


def insert(events, at, gap):
    """Time at that moment: what the host begins from then on, and the device's work of it, comes later by the gap."""
    launched = {correlation(event): event["ts"] for event in spans(events) if event.get("cat") not in DEVICE and correlation(event)}
    for event in events:
        if "ts" not in event or event.get("cat") == "Trace":
            continue
        key = correlation(event) if event.get("ph") == "X" else event.get("id")
        began = launched.get(key, event["ts"]) if event.get("cat") in DEVICE or event.get("ph") in "sf" else event["ts"]
        if began >= at:
            event["ts"] += gap
        elif event.get("ph") == "X" and event.get("cat") not in DEVICE and event["ts"] + event["dur"] > at:
            event["dur"] += gap


def main(words, folder, file):
    with gzip.open(f"{folder}/{words[0]}.json.gz") as packed:
        trace = json.load(packed)
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    told = {}
    for event in events:
        for key in {"ts", "dur"} & event.keys():
            event[key] = float(event[key])
    each = period(events) if len(words) > 1 and "gain" not in words else 0
    if "often" in words:
        events = often(events)
    for how in {"function", "silent"} & set(words):
        gap = float(words[words.index(how) + 1]) * 1e3
        told["gain"] = (each + gap) / each
        marks = [event for event in spans(events) if event["name"].startswith(STEPS) and event.get("cat") == "user_annotation"]
        added = []
        for mark in sorted(marks, key=lambda event: -event["ts"]):
            at = begins(events, mark)
            insert(events + added, at, gap)
            if how == "function":
                name = "app.py(41): collate"
                own = {"ph": "X", "cat": "python_function", "name": name, "pid": mark["pid"], "tid": mark["tid"]}
                added.append({**own, "ts": at + 5, "dur": gap - 10, "args": {}})
        events = events + added
    if "gain" in words:
        told["gain"] = float(words[words.index("gain") + 1])
    with open(file, "w") as out:
        json.dump({**(trace if isinstance(trace, dict) else {}), "traceEvents": events}, out)
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1:-2], *sys.argv[-2:])

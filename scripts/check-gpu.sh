#!/usr/bin/env bash
# What only a GPU can answer, in one run of under ten minutes: does CUPTI take our clock, does a kernel ever start before
# its launch, what does recording cost an eager loop and one of CUDA graphs, and do counts and times agree with
# torch.profiler's. Needs an NVIDIA GPU; PYTHON=python3 with torch, or a venv with torch is made.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --workspace --locked
bin=${CARGO_TARGET_DIR:-target}/release
said=$("$bin/isc-record" --check)
echo "$said"
if grep -q '^Driver *none' <<<"$said"; then
    echo "no GPU here: nothing was checked"
    exit 0
fi
python=${PYTHON:-python3}
if ! "$python" -c 'import torch; torch.zeros(1).cuda()' 2>/dev/null; then
    python=$(scripts/venv.sh "$python" gpu torch numpy)
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for mode in eager graph; do
    "$python" tests/python/gpu_decode.py $mode 200 profile >"$work/$mode.profiler.json"
    for round in 1 2 3 4 5; do
        "$python" tests/python/gpu_decode.py $mode 200 >>"$work/$mode.bare"
        "$bin/isc-record" -o "$work/$mode.parquet" -- "$python" tests/python/gpu_decode.py $mode 200 >>"$work/$mode.recorded"
    done
    "$bin/isc-merge" "$work/$mode.parquet" -o "$work/$mode.timeline.parquet"
    "$bin/isc-analyze" "$work/$mode.timeline.parquet" --json >"$work/$mode.json"
    "$bin/isc-convert" "$work/$mode.timeline.parquet" -o "$work/$mode.csv"
    "$python" - "$work" $mode <<'P'
import csv, json, statistics, sys

work, mode = sys.argv[1:]
seconds = lambda name: statistics.median(json.loads(line)["seconds"] for line in open(f"{work}/{mode}.{name}"))
bare, recorded = seconds("bare"), seconds("recorded")
rows = list(csv.DictReader(open(f"{work}/{mode}.csv")))
steps = [row for row in rows if row["kind"] == "nvtx" and row["name"] == "step"]
first = int(steps[0]["start_ns"])
kernels = [row for row in rows if row["kind"] == "kernel" and int(row["start_ns"]) >= first]
early = [row for row in kernels if row["cause"] and int(row["start_ns"]) < int(rows[int(row["cause"])]["start_ns"])]
theirs = json.load(open(f"{work}/{mode}.profiler.json"))
ours_us = sum(int(row["dur_ns"]) for row in kernels) / 1e3
gpu = next(json.loads(row["args"])["gpu"] for row in rows if row["kind"] == "process" and "\"gpu\"" in row["args"])
print(f"{mode}: {recorded / bare:.3f} of the bare loop's time; clock {gpu['clock']}; dropped {gpu['dropped']}, untimed {gpu['untimed']}")
print(f"{mode}: {len(kernels)} kernels, torch.profiler {theirs['kernels']}; {ours_us:.0f} us, {theirs['kernel_us']:.0f} us")
print(f"{mode}: {len(early)} kernels before their launch")
bad = len(kernels) != theirs["kernels"] or abs(ours_us / theirs["kernel_us"] - 1) > 0.005 or early
sys.exit(1 if bad else 0)
P
done

#!/usr/bin/env bash
# Builds InferScope, records one LLM inference program (NumPy only) and shows what limits it:
# the diagnosis on the terminal, and report.html.
#
#   scripts/demo.sh [SECONDS]     how long the program generates, 8 s if not said
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup
seconds=${1:-8}

echo "building (a few minutes the first time)" >&2
cargo build --release --workspace --locked

venv=target/venvs/demo
if ! "$venv/bin/python" -c 'import numpy' 2>/dev/null; then
    echo "installing numpy into $venv" >&2
    rm -rf "$venv"
    if ! "$PYTHON" -m venv "$venv" 2>/dev/null; then
        # Debian's python3 comes without ensurepip.
        version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        [ "$(id -u)" = 0 ] && apt-get install -y -qq "python$version-venv" >&2
        rm -rf "$venv"
        "$PYTHON" -m venv "$venv"
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'numpy>=1.24'
fi

bin=target/release
mkdir -p target/demo
"$bin/isc-record" --python "$venv/bin/python" -o target/demo/trace.parquet -- \
    examples/llm_decode.py --seconds "$seconds"
"$bin/isc-merge" target/demo/trace.parquet -o target/demo/merged.parquet
"$bin/isc-analyze" target/demo/merged.parquet -o target/demo/analysis.json
"$bin/isc-report" target/demo/analysis.json --trace target/demo/merged.parquet -o report.html
"$bin/isc-analyze" target/demo/merged.parquet
echo "the same, with flame graph and tables: report.html"

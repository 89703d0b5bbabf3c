#!/usr/bin/env bash
# Runs all tests on instrumented binaries and prints how many lines of src/ and crates/*/src ran,
# per file; fails below COVERAGE_MIN percent. The commands that tests start count too, also inside a
# recorded Python. rustc writes the counts; `cov` of the crate llvm_profparser reads them, because
# LLVM's own reader has to be as new as rustc's LLVM, and no distribution has that.
#
#   scripts/coverage.sh             all tests
#   scripts/coverage.sh --test cli  any arguments of cargo test
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup
root=$PWD
target=$root/target/coverage
cov=$root/target/tools/bin/cov
if [ ! -x "$cov" ]; then
    cargo install --quiet --locked --root target/tools --target-dir target/tools/build \
        llvm_profparser@0.15.0 2>&1 | grep -v 'to your PATH' || true
    [ -x "$cov" ] || { echo "coverage.sh: cannot install llvm_profparser" >&2; exit 2; }
fi

rm -rf "$target/profiles"
mkdir -p "$target/profiles"
export CARGO_TARGET_DIR=$target
export RUSTC_WORKSPACE_WRAPPER=$root/scripts/rustc-cov
# One file per binary (%m), into which its processes add their counts.
export LLVM_PROFILE_FILE=$target/profiles/%m.profraw

# Of libraries for C cargo keeps one file, however they were built: an uninstrumented one would stay.
rm -f "$target"/release/{,deps/}lib{inferscope_probe,_inferscope}.so
# What tests start or load (the commands, the probe, the Python module) before the tests.
cargo build --release --workspace --locked
status=0
cargo test --release --workspace --locked --no-fail-fast "$@" 2>&1 | tee "$target/tests.log" || status=$?
sed -n 's/^test result: .* \([0-9][0-9]*\) passed.*/\1/p' "$target/tests.log" |
    awk '{ n += $1 } END { print n + 0 }' >"$target/passed"
if [ "$status" -ne 0 ]; then
    grep -E '^test .*FAILED|^test result: FAILED' "$target/tests.log" >&2 || true
    exit "$status"
fi
# Which files that were: the folder keeps those of earlier builds.
{
    cargo build --release --workspace --locked --message-format json
    cargo test --release --workspace --locked --no-run --message-format json
} >"$target/built.json" 2>/dev/null
python3 scripts/coverage.py "$cov" "$target" "${COVERAGE_MIN:-80}"

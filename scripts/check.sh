#!/usr/bin/env bash
# Checks everything: format, lints, the spool's orderings under loom, and all tests, run once, with
# the line coverage they reach. Needs Rust and Python 3; scripts/setup gets the rest.
#
#   COVERAGE_MIN=80   least line coverage, in percent
#   PYTHON=python3    the Python whose programs are recorded in tests
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup

say() { printf '\n== %s (%ds)\n' "$*" "$SECONDS"; }

if cargo fmt --version >/dev/null 2>&1; then
    say "format"
    cargo fmt --all --check
fi
if cargo clippy --version >/dev/null 2>&1; then
    say "lints"
    # In the tests' target folder: clippy then finds the build scripts there.
    cargo clippy --target-dir target/coverage --release --workspace --all-targets --locked -- -D warnings
fi
say "the spool's orderings, every interleaving that loom can find"
RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}" \
    cargo test --target-dir target/loom --release --locked -p inferscope-spool --lib
say "tests that measure, on what is shipped"
# Of libraries for C cargo keeps one file, however they were built.
rm -f target/coverage/release/{,deps/}lib{inferscope_probe,_inferscope}.so
cargo build --target-dir target/coverage --release --workspace --locked
cargo test --target-dir target/coverage --release --locked --no-fail-fast \
    --test budget --test samples --test states --test workloads
say "tests, and the lines they reach"
scripts/coverage.sh
say "done"
printf 'test result: ok. %s passed; 0 failed\n' "$(cat target/coverage/passed)"

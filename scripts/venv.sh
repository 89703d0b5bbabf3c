#!/bin/sh
# Makes (once) a virtual environment under target/venvs and prints its python.
#   scripts/venv.sh PYTHON NAME [PACKAGE...]
# A second call with the same PYTHON, NAME and packages only prints. Everything but the path goes to stderr.
set -eu

if [ $# -lt 2 ]; then
    echo "usage: scripts/venv.sh PYTHON NAME [PACKAGE...]" >&2
    exit 2
fi
python=$1
name=$2
shift 2

root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$root/target/venvs"
dir=$root/target/venvs/$name
want="$("$python" -c 'import sys; print(sys.executable, sys.version)') $*"

# Tests run in parallel: one of them makes the environment, the others wait for it.
exec 9>"$dir.lock"
if command -v flock >/dev/null 2>&1; then
    flock 9
fi
if [ ! -f "$dir/made-of" ] || [ "$(cat "$dir/made-of")" != "$want" ]; then
    rm -rf "$dir"
    "$python" -m venv "$dir" >&2
    if [ $# -gt 0 ]; then
        "$dir/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2
    fi
    printf '%s\n' "$want" >"$dir/made-of"
fi
printf '%s\n' "$dir/bin/python"

"""Adds up the line counts that instrumented binaries left: python3 coverage.py COV TARGET MINIMUM.

A line of src/ or crates/*/src counts when the compiler put a counter on it; what follows
`#[cfg(test)]` at the start of a line does not, nor does a tests.rs, since they test.
"""

import glob
import json
import os
import subprocess
import sys


def objects(built):
    """Instrumented executables and libraries of the last build, from what cargo says of it."""
    with open(built, encoding="utf-8") as lines:
        messages = [json.loads(line) for line in lines if line.startswith("{")]
    for message in messages:
        for path in message.get("filenames", []):
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    content = file.read()
                # Linked and instrumented: macro libraries of dependencies are not.
                if content[:4] == b"\x7fELF" and b"__llvm_covmap" in content:
                    yield path


def distinct(paths):
    """Hard links of one file once."""
    seen = set()
    for path in paths:
        stat = os.stat(path)
        if (stat.st_dev, stat.st_ino) not in seen:
            seen.add((stat.st_dev, stat.st_ino))
            yield path


def covered(command, root):
    """{file: {line: hits}} from what `cov show` prints."""
    files, lines = {}, None
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    for line in printed.decode("utf-8", "replace").splitlines():
        number, bar, rest = line.partition("|")
        if not bar or not number.strip().isdigit():
            if line.startswith("/"):
                path = os.path.relpath(line, root)
                ours = path.startswith("src/") or (path.startswith("crates/") and "/src/" in path)
                ours = ours and not path.endswith("tests.rs")
                lines = files.setdefault(path, {}) if ours else None
            continue
        hits = rest.partition("|")[0].strip()
        if lines is not None and hits:
            at = int(number)
            lines[at] = max(lines.get(at, 0), int(hits))
    return files


def tests_from(path):
    """First line of the tests at the file's foot, or past the end."""
    with open(path, encoding="utf-8") as file:
        for at, line in enumerate(file, 1):
            if line.startswith("#[cfg(test)]") or line.startswith("#[cfg(all(test"):
                return at
    return sys.maxsize


def main():
    cov, target, minimum = sys.argv[1], sys.argv[2], float(sys.argv[3])
    root = os.getcwd()
    command = [cov, "show"]
    for profile in sorted(glob.glob(os.path.join(target, "profiles", "*.profraw"))):
        if os.path.getsize(profile):
            command += ["--instr-profile", profile]
    for path in distinct(objects(os.path.join(target, "built.json"))):
        command += ["--object", path]
    total = ran = 0
    for path, lines in sorted(covered(command, root).items()):
        end = tests_from(path)
        counted = [hits for at, hits in lines.items() if at < end]
        if counted:
            hit = sum(1 for hits in counted if hits)
            total, ran = total + len(counted), ran + hit
            print(f"{100 * hit / len(counted):6.1f} %  {hit:5} of {len(counted):5}  {path}")
    share = 100 * ran / total if total else 0.0
    print(f"{share:6.1f} %  {ran:5} of {total:5}  lines of Rust in src/ and crates/")
    if share < minimum:
        sys.exit(f"coverage.sh: {share:.1f} % is below the gate of {minimum:g} %")


main()

//! Time by line, with programs that know how often a line runs and where the time goes.

mod common;

use common::{libraries, pythons};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// `work` spends nine tenths of its CPU time in line 12 and the rest in line 14; `untouched` is not asked for.
const PROGRAM: &str = r#"import time

def spin(seconds):
    total, until = 0, time.thread_time() + seconds
    while time.thread_time() < until:
        total += 1
    return total

def work(rounds):
    for _ in range(rounds):
        # the line below
        spin(0.009)
        # the one after that
        spin(0.001)

def untouched():
    return spin(0.001)

def deep(n):
    if n:
        deep(n - 1)
    return n

def items(n):
    for i in range(n):
        yield i

def tight(rounds):
    total = 0
    for n in range(rounds):
        total += n
    return total

class Model:
    def forward(self):
        raise KeyError

work(20)
untouched()
deep(9)
assert list(items(7)) == list(range(7))
for _ in range(3):
    try:
        Model().forward()
    except KeyError:
        pass
tight(300000)
"#;

fn run(folder: &Path, python: &Path, args: &[&str]) -> (Value, String) {
    libraries();
    let path = folder.join("app.py");
    std::fs::write(&path, PROGRAM).unwrap();
    let mut command = common::recorder();
    for name in ["VIRTUAL_ENV", "PYTHONPATH", "INFERSCOPE_PYTHON"] {
        command.env_remove(name);
    }
    let output = command
        .args(["-o", "t.parquet", "--python"])
        .arg(python)
        .args(args)
        .arg(&path)
        .current_dir(folder)
        .env("TMPDIR", folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let merge = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
        .args(["t.parquet", "-o", "m.parquet"])
        .current_dir(folder)
        .status();
    assert!(merge.unwrap().success());
    let analyzed = Command::new(env!("CARGO_BIN_EXE_isc-analyze"))
        .args(["--json", "m.parquet"])
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (serde_json::from_slice(&analyzed.stdout).unwrap(), said)
}

fn line(analysis: &Value, number: u64) -> (i64, f64) {
    let all = analysis["lines"].as_array().unwrap();
    let found = all.iter().find(|line| line["line"] == number);
    let found = found.unwrap_or_else(|| panic!("no line {number} in {all:?}"));
    (
        found["hits"].as_i64().unwrap(),
        found["share"].as_f64().unwrap(),
    )
}

#[test]
fn lines_have_their_counts_and_their_time() {
    let folder = tempfile::tempdir().unwrap();
    for (python, version) in pythons() {
        let args = [
            "--exact", "--lines", "app:work", "--lines", "deep", "--lines", "items", "--lines",
            "Model",
        ];
        let (a, said) = run(folder.path(), python, &args);
        if *version < (3, 12) {
            assert!(
                said.contains("--lines needs Python 3.12"),
                "{version:?}: {said}"
            );
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(a["lines"].as_array().unwrap().is_empty());
            let all = a["functions"].as_array().unwrap();
            assert!(all.iter().any(|f| f["name"] == "work"), "{version:?}");
            continue;
        }
        let (hits, share) = line(&a, 12);
        assert_eq!(hits, 20, "{version:?}");
        assert!((0.8..0.95).contains(&share), "{version:?}: {share}");
        assert_eq!(line(&a, 14).0, 20, "{version:?}");
        assert_eq!(
            (line(&a, 20).0, line(&a, 21).0, line(&a, 22).0),
            (10, 9, 10)
        );
        assert_eq!((line(&a, 25).0, line(&a, 26).0), (8, 7), "{version:?}");
        assert_eq!(line(&a, 36).0, 3, "{version:?}");
        let all = a["lines"].as_array().unwrap();
        let functions = ["work", "deep", "items", "Model.forward", "Model"];
        for line in all {
            let function = line["function"].as_str().unwrap();
            assert!(functions.contains(&function), "{version:?}: {line}");
            assert_eq!(line["estimated"], false, "{version:?}: {line}");
        }
        // a line that calls is as long as what it calls
        let total = |of: &str| {
            let f = a["functions"].as_array().unwrap();
            let f = f.iter().find(|f| f["name"] == of).unwrap();
            f["total_ns"].as_i64().unwrap()
        };
        let own: i64 = (all.iter())
            .filter(|line| line["function"] == "work")
            .map(|line| line["time_ns"].as_i64().unwrap())
            .sum();
        assert!(
            own <= total("work") && own * 10 >= total("work") * 9,
            "{version:?}"
        );
    }
}

#[test]
fn lines_are_within_the_budget_and_estimated() {
    let folder = tempfile::tempdir().unwrap();
    for (python, version) in pythons().iter().filter(|(_, v)| *v >= (3, 12)) {
        let (a, _) = run(
            folder.path(),
            python,
            &["--budget", "3%", "--lines", "tight"],
        );
        let all = a["lines"].as_array().unwrap();
        let tight: Vec<_> = all.iter().filter(|l| l["function"] == "tight").collect();
        assert!(
            tight.iter().any(|l| l["estimated"] == true),
            "{version:?}: {all:?}"
        );
        // both lines of the loop run equally often, and hardly any event was kept
        assert!(
            line(&a, 31).0 > 0 && line(&a, 30).0 > 0,
            "{version:?}: {all:?}"
        );
    }
}

#[test]
fn a_name_that_nothing_has_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for (python, version) in pythons().iter().filter(|(_, v)| *v >= (3, 12)) {
        let (a, said) = run(folder.path(), python, &["--lines", "app:wrok"]);
        assert!(said.contains("--lines app:wrok"), "{version:?}: {said}");
        assert!(a["lines"].as_array().unwrap().is_empty());
    }
}

#[test]
fn a_forked_child_counts_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forks.py");
    let text = "import os\ndef f():\n    return 1\nf()\npid = os.fork()\nif pid == 0:\n    f()\n    f()\n    raise SystemExit\nos.waitpid(pid, 0)\n";
    for (python, version) in pythons().iter().filter(|(_, v)| *v >= (3, 12)) {
        libraries();
        std::fs::write(&path, text).unwrap();
        let output = common::recorder()
            .args(["--exact", "--lines", "forks.py:f", "-o", "-", "--python"])
            .args([python, &path])
            .env("TMPDIR", folder.path())
            .output()
            .unwrap();
        std::fs::write(folder.path().join("t.arrow"), &output.stdout).unwrap();
        let merge = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
            .args(["t.arrow", "-o", "m.parquet"])
            .current_dir(folder.path())
            .status();
        assert!(merge.unwrap().success(), "{version:?}");
        let analyzed = Command::new(env!("CARGO_BIN_EXE_isc-analyze"))
            .args(["--json", "m.parquet"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let a: Value = serde_json::from_slice(&analyzed.stdout).unwrap();
        assert_eq!(line(&a, 3).0, 3, "{version:?}");
    }
}

//! `--last`: the end of a run is kept, what was before is not, and the window can be had while the program runs.

mod common;

use common::{libraries, pythons};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs for longer than its window; `late` is called in its last moments. `waits` is until a window is written.
const PROGRAM: &str = r#"
import os, signal, sys, time
from inferscope import scope

def early():
    return 1

def late():
    return 2

def until(done):
    end = time.monotonic() + 60
    while not done():
        if time.monotonic() > end:
            sys.exit("nothing happened")
        time.sleep(0.005)

def old(seconds):
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end)

def main(what):
    for _ in range(100):
        early()
    old(2.0)
    for _ in range(100):
        late()
    if what == "trigger":
        with scope("request"):
            time.sleep(0.03)
        until(lambda: os.path.exists("run-1.parquet"))
    elif what == "signal":
        os.kill(os.getppid(), signal.SIGUSR2)
        until(lambda: os.path.exists("run-1.parquet"))
    elif what == "killed":
        os.kill(os.getppid(), signal.SIGKILL)
        for _ in range(50):
            late()

main(sys.argv[1])
"#;

fn record(folder: &Path, python: &Path, flags: &[&str], what: &str) -> Output {
    libraries();
    std::fs::write(folder.join("app.py"), PROGRAM).unwrap();
    common::recorder()
        .args(["--exact", "-o", "run.parquet", "--last", "1s", "--python"])
        .arg(python)
        .args(flags)
        .args(["app.py", what])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn analysis(folder: &Path, trace: &str) -> Value {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {said}");
        output.stdout
    };
    run(
        env!("CARGO_BIN_EXE_isc-merge"),
        &[trace, "-o", "merged.parquet"],
    );
    let json = run(
        env!("CARGO_BIN_EXE_isc-analyze"),
        &["merged.parquet", "--json"],
    );
    serde_json::from_slice(&json).unwrap()
}

fn calls(analysis: &Value, name: &str) -> u64 {
    let all = analysis["functions"].as_array().unwrap();
    let found = all.iter().find(|f| f["name"] == name);
    found.map_or(0, |f| f["calls"].as_u64().unwrap())
}

/// The window has what happened in it and nothing else, and is about as long as asked.
fn holds(analysis: &Value, late: u64) {
    assert_eq!(calls(analysis, "late"), late);
    assert_eq!(calls(analysis, "early"), 0, "that was before");
    assert_eq!(calls(analysis, "main"), 1, "it was open all the time");
    let span_ms = analysis["span_ns"].as_i64().unwrap() / 1_000_000;
    assert!((900..30_000).contains(&span_ms), "{span_ms}");
    let cpu_ns = analysis["facts"]["cpu.ns"].as_i64().unwrap();
    assert!(cpu_ns <= 2 * analysis["span_ns"].as_i64().unwrap());
    let caveats = analysis["caveats"].to_string();
    assert!(caveats.contains("the last 1 s"), "{caveats}");
}

#[test]
fn the_end_of_a_run_is_kept() {
    for (python, version) in pythons() {
        let folder = tempfile::tempdir().unwrap();
        let output = record(folder.path(), python, &[], "");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{version:?}: {said}");
        holds(&analysis(folder.path(), "run.parquet"), 100);
    }
}

#[test]
fn a_trigger_and_a_signal_write_the_window_while_the_program_runs() {
    let (python, _) = pythons().last().unwrap();
    for (what, flags) in [
        ("trigger", &["--trigger", "scope:request > 20ms"][..]),
        ("signal", &[]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = record(folder.path(), python, flags, what);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("run-1.parquet: "), "{said}");
        for trace in ["run-1.parquet", "run.parquet"] {
            holds(&analysis(folder.path(), trace), 100);
        }
        assert!(!folder.path().join("run-2.parquet").exists());
    }
}

#[test]
fn a_dead_recorders_window_is_recovered() {
    let (python, _) = pythons().last().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let spool = tempfile::tempdir().unwrap();
    libraries();
    std::fs::write(folder.path().join("app.py"), PROGRAM).unwrap();
    let mut recorder = common::recorder()
        .args(["--exact", "-o", "run.parquet", "--last", "1s", "--python"])
        .arg(python)
        .args(["app.py", "killed"])
        .current_dir(folder.path())
        .env("TMPDIR", spool.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    recorder.wait().unwrap();
    // the program's end closes the pipe
    let mut said = String::new();
    std::io::Read::read_to_string(recorder.stderr.as_mut().unwrap(), &mut said).unwrap();
    let pid = recorder.id().to_string();
    let shared = std::fs::read_dir(common::shared()).unwrap().flatten();
    let here = std::fs::read_dir(spool.path()).unwrap().flatten();
    let dir = shared
        .chain(here)
        .map(|entry| entry.path())
        .find(|dir| {
            let locked_by = std::fs::read_to_string(dir.join("recorder.lock"));
            locked_by.is_ok_and(|text| text == pid)
        })
        .unwrap();
    let recovered = common::recorder()
        .arg("--recover")
        .arg(&dir)
        .args(["-o", "run.parquet"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&recovered.stderr);
    assert!(recovered.status.success(), "{said}");
    let analysis = analysis(folder.path(), "run.parquet");
    assert_eq!(calls(&analysis, "late"), 150);
    assert_eq!(calls(&analysis, "early"), 0);
    assert_eq!(calls(&analysis, "main"), 1);
}

#[test]
fn a_window_that_cannot_be_is_told_before_the_program_starts() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, wanted) in [
        (&["--trigger", "scope:a > 1s"][..], "--last"),
        (&["--last", "5s", "--trigger", "a"], "scope:request > 500ms"),
        (
            &["-o", "-", "--last", "5s", "--trigger", "scope:a > 1s"],
            "-o run.parquet",
        ),
        (&["--last", "soon"], "no time"),
    ] {
        let output = common::recorder()
            .args(flags)
            .args(["--", "touch", "started"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.contains(wanted), "{said}");
        assert!(!folder.path().join("started").exists());
    }
}

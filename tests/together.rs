//! Two profilers' files of one run on one timeline: what happened at once stands at one place.

mod common;

use common::{libraries, pythons, recorder, rows};
use inferscope::cli::Source;
use inferscope::trace::{Kind, Reader};
use std::path::Path;
use std::process::Command;

/// Writes what torch.profiler would, of operators that this program runs in a function of its own.
const PROGRAM: &str = r#"
import json, os, threading, time

BASE = time.time_ns() // 1_000_000_000 * 1_000_000_000 - 86_400_000_000_000
ops = []

def microseconds(ns):
    return float("%d.%03d" % (ns // 1000, ns % 1000))

def operator(at):
    start = time.time_ns()
    until = time.perf_counter_ns() + 300_000
    while time.perf_counter_ns() < until:
        pass
    ops.append((start, time.time_ns()))

for at in range(100):
    operator(at)
    time.sleep(0.002)
tid = threading.get_native_id()
events = [
    {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": os.getpid(), "tid": tid,
     "ts": microseconds(start - BASE), "dur": microseconds(end - start), "args": {"External id": at}}
    for at, (start, end) in enumerate(ops)
]
json.dump({"schemaVersion": 1, "baseTimeNanoseconds": BASE, "traceEvents": events}, open("kineto.json", "w"))
"#;

fn merge(folder: &Path, margin: &str) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isc-merge"));
    command.args(["run.parquet", "kineto.json", "-o", "t.parquet"]);
    command.args(["--sync-error-margin", margin]);
    command.current_dir(folder).output().unwrap()
}

#[test]
fn a_kineto_file_and_a_recording_of_one_run_lie_on_one_clock_within_the_stated_bound() {
    libraries();
    for (python, version) in pythons() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::write(folder.join("app.py"), PROGRAM).unwrap();
        let mut command = recorder();
        command.args(["--exact", "-o", "run.parquet", "--"]);
        let recorded = command.arg(python).arg("app.py").current_dir(folder);
        let output = recorded.output().unwrap();
        assert!(output.status.success(), "{version:?}: {output:?}");

        let tight = merge(folder, "1ns");
        let said = String::from_utf8_lossy(&tight.stderr);
        assert_eq!(tight.status.code(), Some(2), "{said}");
        assert!(
            said.contains("--sync-error-margin") && said.lines().count() <= 2,
            "{said}"
        );
        assert!(!folder.join("t.parquet").exists());
        let wide = merge(folder, "1ms");
        assert!(wide.status.success(), "{wide:?}");

        let path = folder.join("t.parquet");
        let reader = Reader::open(&Source::from(path.as_path())).unwrap();
        let clocks = &reader.provenance().clocks;
        assert!(clocks.len() >= 2, "{clocks:?}");
        let bound_ns: i64 = clocks.iter().map(|c| c.error_ns + c.host_error_ns).sum();
        assert!(bound_ns < 1_000_000, "{clocks:?}");

        let (events, names) = rows(&path);
        let spans = |kind, name: &str| -> Vec<(i64, i64, u32)> {
            let rows = events.iter().filter(|e| e.kind == kind);
            let rows = rows.filter(|e| names.text(e.name) == name);
            rows.map(|e| (e.start_ns, e.end_ns(), e.pid)).collect()
        };
        let (calls, ops) = (spans(Kind::Python, "operator"), spans(Kind::Op, "aten::mm"));
        assert_eq!((calls.len(), ops.len()), (100, 100), "{version:?}");
        for (call, op) in calls.iter().zip(&ops) {
            assert_eq!(call.2, op.2, "one process has one pid");
            let inside = op.0 >= call.0 - bound_ns && op.1 <= call.1 + bound_ns;
            assert!(inside, "{version:?}: {op:?} in {call:?}, to {bound_ns} ns");
        }

        let mut analyze = Command::new(env!("CARGO_BIN_EXE_isc-analyze"));
        let output = analyze.arg(&path).arg("--json").output().unwrap();
        let analysis: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(analysis["facts"]["clock.error_ns"], bound_ns, "{version:?}");
        let told = analysis["clocks"].as_array().unwrap();
        assert_eq!(told.len(), clocks.len());
        let text = Command::new(env!("CARGO_BIN_EXE_isc-analyze"))
            .arg(&path)
            .output();
        let text = String::from_utf8(text.unwrap().stdout).unwrap();
        assert!(text.contains("clocks to ±"), "{text}");
    }
}

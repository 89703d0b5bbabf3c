//! isc-record and the pipe behind it, with real programs.

mod common;

use common::{libraries, pythons, repository, rows};
use inferscope::trace::{Event, Kind};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// `work` runs 25 times on the main thread and 25 times on another, in a scope each.
const STEPS: &str = r#"
import sys, threading
from inferscope import mark_event, scope

def work(n):
    return sum(range(n))

def steps(name):
    for n in range(25):
        with scope(name, n=n):
            work(n)
    mark_event("done", {"by": name})

def main():
    other = threading.Thread(target=steps, args=("other",), name="other")
    other.start()
    steps("main")
    other.join()
    print("out of the program")

main()
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
"#;

/// Says where its spool is, waits for a line, and then works 100 times.
const WAITS: &str = r#"
import os, sys

def work():
    pass

for _ in range(100):
    work()
print(os.environ["INFERSCOPE_SPOOL"], os.getpid(), flush=True)
sys.stdin.readline()
for _ in range(100):
    work()
print("ended", flush=True)
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        libraries();
        Place(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.at(name), text).unwrap();
        self.at(name)
    }

    /// isc-record with these arguments, in this folder and with nothing of the tester's own settings.
    fn record(&self, args: &[&str]) -> Command {
        let mut command = common::recorder();
        command.args(args).current_dir(self.0.path());
        command.env("TMPDIR", self.0.path());
        command.env("INFERSCOPE_BUDGET", "none"); // these tests count calls
        for name in ["VIRTUAL_ENV", "PYTHONPATH", "INFERSCOPE_PYTHON"] {
            command.env_remove(name);
        }
        command
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn status(output: &Output) -> i32 {
    output
        .status
        .code()
        .unwrap_or_else(|| panic!("signal {:?}", output.status.signal()))
}

fn count(path: &Path, kind: Kind, name: &str) -> usize {
    let (events, names) = rows(path);
    let named = |event: &&Event| event.kind == kind && names.text(event.name) == name;
    events.iter().filter(named).count()
}

/// The args of each process row.
fn processes(path: &Path) -> Vec<(String, Value)> {
    let (events, names) = rows(path);
    let rows = events.iter().filter(|event| event.kind == Kind::Process);
    rows.map(|event| {
        let args = serde_json::from_str(names.text(event.args.unwrap())).unwrap();
        (names.text(event.name).to_owned(), args)
    })
    .collect()
}

#[test]
fn the_pipe_gives_exact_counts_in_every_python() {
    let place = Place::new();
    let app = place.file("steps.py", STEPS);
    for (python, version) in pythons() {
        let mut record = place
            .record(&["--python", python.to_str().unwrap()])
            .arg(&app)
            .arg("3")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut merge = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
            .stdin(record.stdout.take().unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let analyze = Command::new(env!("CARGO_BIN_EXE_isc-analyze"))
            .arg("--json")
            .stdin(merge.stdout.take().unwrap())
            .output()
            .unwrap();
        let recorded = record.wait_with_output().unwrap();
        assert_eq!(status(&recorded), 3, "{version:?}");
        assert_eq!(
            text(&recorded.stderr),
            "out of the program\n",
            "{version:?}"
        );
        assert!(merge.wait().unwrap().success());
        assert!(analyze.status.success());
        let analysis: Value = serde_json::from_slice(&analyze.stdout).unwrap();
        let functions = analysis["functions"].as_array().unwrap();
        let work = functions
            .iter()
            .find(|f| f["name"] == "work" && f["kind"] == "python")
            .unwrap();
        assert_eq!(work["calls"], 50, "{version:?}");
        let steps = analysis["steps"].as_array().unwrap();
        for name in ["main", "other"] {
            let step = steps
                .iter()
                .find(|s| s["scope"] == name && s["kind"] == "scope")
                .unwrap();
            assert_eq!(step["count"], 25, "{version:?}");
        }
        let threads = analysis["threads"].as_array().unwrap();
        let named = |name: &str| threads.iter().any(|thread| thread["name"] == name);
        assert!(named("other") && !named("inferscope"), "{threads:?}");
        assert_eq!(analysis["recording"]["lost"], 0);
    }
}

#[test]
fn a_file_is_written_and_the_program_keeps_its_output_and_status() {
    let place = Place::new();
    place.file("steps.py", STEPS);
    let output = place
        .record(&["-o", "run.parquet", "steps.py", "7"])
        .output()
        .unwrap();
    assert_eq!(status(&output), 7);
    assert_eq!(text(&output.stdout), "out of the program\n");
    assert_eq!(text(&output.stderr), "");
    let run = place.at("run.parquet");
    assert_eq!(count(&run, Kind::Python, "work"), 50);
    assert_eq!(count(&run, Kind::Mark, "done"), 2);
    // `python3` may be a shell script (pyenv's), whose own children are processes too
    let processes = processes(&run);
    let covered: Vec<_> = processes
        .iter()
        .filter(|(_, args)| args["covered"] == true)
        .collect();
    assert_eq!(covered.len(), 1, "{processes:?}");
    assert_eq!(covered[0].0, "steps.py");
    assert_eq!(covered[0].1["exit"], 7);
    let left: Vec<_> = fs::read_dir(place.0.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 2, "nothing else stays: {left:?}");
}

#[test]
fn modules_and_commands_run_with_their_own_options() {
    let place = Place::new();
    place.file("tool.py", "import sys\nprint(sys.argv[1:])\n");
    let output = place
        .record(&["-o", "m.arrow", "-m", "tool", "-o", "--help", "--", "x"])
        .output()
        .unwrap();
    assert_eq!(status(&output), 0, "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "['-o', '--help', '--', 'x']\n");
    assert!(count(&place.at("m.arrow"), Kind::Python, "<module>") > 0);
    let output = place
        .record(&["-o", "c.arrow", "sh", "-c", "python3 tool.py -v; exit 4"])
        .output()
        .unwrap();
    assert_eq!(status(&output), 4);
    assert_eq!(text(&output.stdout), "['-v']\n");
    let processes = processes(&place.at("c.arrow"));
    let covered: Vec<_> = processes
        .iter()
        .filter(|(_, args)| args["covered"] == true)
        .collect();
    assert_eq!(covered.len(), 1, "{processes:?}");
}

#[test]
fn only_what_is_asked_for_is_recorded() {
    let place = Place::new();
    place.file("steps.py", STEPS);
    let kept = |args: &[&str]| {
        let mut all = vec!["-o", "run.parquet"];
        all.extend(args);
        all.push("steps.py");
        let output = place.record(&all).output().unwrap();
        assert_eq!(status(&output), 0, "{}", text(&output.stderr));
        let run = place.at("run.parquet");
        (
            count(&run, Kind::Python, "work"),
            count(&run, Kind::Python, "Thread.start"),
        )
    };
    assert_eq!(kept(&["--include", "steps.py"]), (50, 0));
    assert_eq!(kept(&["--exclude", "steps.py"]).0, 0);
    let (begun, _) = kept(&["--start-on", "main"]);
    assert!((25..=50).contains(&begun), "{begun}: none before the scope");
    assert_eq!(kept(&["--delay", "1h"]), (0, 0));
}

#[test]
fn faults_are_ours_and_errors_are_the_program_s() {
    let place = Place::new();
    place.file("raises.py", "raise SystemExit('its own words')\n");
    place.file("data", "no program\n");
    place.file("dies.py", "import os\nos.kill(os.getpid(), 9)\n");
    for (args, code, words) in [
        (
            &["-o", "x.parquet", "missing.py"][..],
            127,
            "missing.py: no such script",
        ),
        (
            &["-o", "x.parquet", "no-such-command-here"],
            127,
            "no such command",
        ),
        (&["-o", "x.parquet", "./data"], 126, "not executable"),
        (
            &["-o", "x.parquet", "--python", "/no/python", "raises.py"],
            127,
            "/no/python",
        ),
        (&["-o", "x.parquet", "raises.py"], 1, "its own words"),
        (&["-o", "x.parquet", "dies.py"], 137, ""),
        (
            &["-o", "no/such/folder.parquet", "raises.py"],
            125,
            "no/such/folder.parquet",
        ),
        (&["-o", "run.csv", "raises.py"], 125, "run.csv"),
        (
            &["-o", "x.parquet", "--ring", "many", "raises.py"],
            125,
            "many",
        ),
        (&["--recover", "/no/such/run"], 125, "/no/such/run"),
        (&["--no-such-option", "raises.py"], 125, "--no-such-option"),
        (&[], 125, "PROGRAM"),
    ] {
        let output = place.record(args).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(status(&output), code, "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    assert!(!place.at("run.csv").exists());
}

#[test]
fn what_was_recorded_before_a_kill_is_there() {
    let place = Place::new();
    let dies =
        "import os\ndef work(): pass\nfor _ in range(5000): work()\nos.kill(os.getpid(), 9)\n";
    place.file("dies.py", dies);
    let output = place
        .record(&["-o", "run.parquet", "dies.py"])
        .output()
        .unwrap();
    assert_eq!(status(&output), 137);
    assert_eq!(count(&place.at("run.parquet"), Kind::Python, "work"), 5000);
}

#[test]
fn a_reader_that_is_gone_stops_nothing_and_the_run_is_recovered() {
    let place = Place::new();
    let marker = place.at("marker");
    let many = format!(
        "def work(): pass\nfor _ in range(300_000): work()\nopen({marker:?}, 'w').close()\n"
    );
    place.file("many.py", &many);
    let mut record = place
        .record(&["many.py"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 16];
    let mut pipe = record.stdout.take().unwrap();
    pipe.read_exact(&mut first).unwrap();
    drop(pipe);
    let output = record.wait_with_output().unwrap();
    assert_eq!(status(&output), 0);
    assert!(marker.exists(), "the program ran to its end");
    let said = text(&output.stderr);
    let dir = said
        .split_whitespace()
        .skip_while(|word| *word != "--recover")
        .nth(1)
        .unwrap_or_else(|| panic!("{said}"));
    let recovered = place
        .record(&["-o", "run.parquet", "--recover", dir])
        .output()
        .unwrap();
    assert_eq!(status(&recovered), 0, "{}", text(&recovered.stderr));
    assert_eq!(
        count(&place.at("run.parquet"), Kind::Python, "work"),
        300_000
    );
    assert!(!Path::new(dir).exists());
}

/// A recorded [`WAITS`] that has printed its first line: its run's directory and its pid.
fn waiting(
    place: &Place,
    args: &[&str],
) -> (Child, BufReader<std::process::ChildStdout>, String, i32) {
    place.file("waits.py", WAITS);
    let mut record = place
        .record(args)
        .arg("waits.py")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(record.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let (dir, pid) = line.trim().split_once(' ').unwrap();
    (record, lines, dir.to_owned(), pid.parse().unwrap())
}

#[test]
fn a_recorder_that_is_killed_loses_nothing() {
    let place = Place::new();
    let (mut record, mut lines, dir, _) = waiting(&place, &["-o", "run.parquet"]);
    let busy = place
        .record(&["-o", "r.parquet", "--recover", &dir])
        .output()
        .unwrap();
    assert_eq!(status(&busy), 125);
    assert!(text(&busy.stderr).contains("still at work"));
    record.kill().unwrap();
    let mut stdin = record.stdin.take().unwrap();
    record.wait().unwrap();
    stdin.write_all(b"\n").unwrap();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "ended\n", "the program does not notice");
    assert!(
        !place.at("run.parquet").exists(),
        "nothing half-written under the name"
    );
    place.file("steps.py", STEPS);
    let next = place
        .record(&["-o", "next.parquet", "steps.py"])
        .output()
        .unwrap();
    assert!(
        text(&next.stderr).contains(&dir),
        "the next run tells of it"
    );
    let recovered = place
        .record(&["-o", "r.parquet", "--recover", &dir])
        .output()
        .unwrap();
    assert_eq!(status(&recovered), 0, "{}", text(&recovered.stderr));
    assert_eq!(count(&place.at("r.parquet"), Kind::Python, "work"), 200);
    let merged = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
        .args(["r.parquet", "-o", "t.parquet"])
        .current_dir(place.0.path())
        .status()
        .unwrap();
    assert!(merged.success());
}

#[test]
fn signals_reach_the_program() {
    let place = Place::new();
    let (mut record, _lines, _, pid) = waiting(&place, &["-o", "run.parquet"]);
    let _stdin = record.stdin.take(); // open, so that it goes on waiting
    inferscope_spool::sys::kill(record.id(), signal_hook::consts::SIGTERM).unwrap();
    let output = record.wait_with_output().unwrap();
    assert_eq!(status(&output), 128 + 15);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(count(&place.at("run.parquet"), Kind::Python, "work"), 100);
}

#[test]
fn ctrl_c_on_a_terminal_prints_the_page() {
    let place = Place::new();
    let app = place.file(
        "serves.py",
        "def work(): pass\nprint('ready', flush=True)\nwhile True:\n    work()\n",
    );
    let folder = Path::new(env!("CARGO_BIN_EXE_isc-record"))
        .parent()
        .unwrap();
    let output = Command::new("python3")
        .arg(repository("tests/python/terminal.py"))
        .arg(format!(
            "isc-record {} | isc-merge | isc-analyze",
            app.display()
        ))
        .env(
            "PATH",
            format!("{}:{}", folder.display(), std::env::var("PATH").unwrap()),
        )
        .env("TMPDIR", place.0.path())
        .output()
        .unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", text(&output.stderr));
    assert!(
        shown.contains("Functions by own time") && shown.contains("work"),
        "{shown}"
    );
    assert!(
        shown.contains("KeyboardInterrupt"),
        "the program got it too: {shown}"
    );
}

#[test]
fn what_cannot_be_covered_is_told() {
    let place = Place::new();
    place.file(
        "hello.c",
        "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 5; }\n",
    );
    let built = Command::new("cc")
        .args(["hello.c", "-o", "hello"])
        .current_dir(place.0.path())
        .status()
        .unwrap();
    assert!(built.success());
    let output = place
        .record(&["-o", "run.parquet", "./hello"])
        .output()
        .unwrap();
    assert_eq!(
        (status(&output), text(&output.stdout)),
        (5, "hello\n".into())
    );
    assert!(text(&output.stderr).contains("no Python was recorded"));
    assert_eq!(processes(&place.at("run.parquet"))[0].1["covered"], false);

    place.file(
        "parent.py",
        "import subprocess, sys\nfor flags, env in ((['-I'], None), ([], {})):\n    \
         subprocess.run([sys.executable, *flags, '-c', 'import time; time.sleep(0.4)'], env=env, check=True)\n",
    );
    let output = place
        .record(&["-o", "run.parquet", "parent.py"])
        .output()
        .unwrap();
    assert_eq!(status(&output), 0, "{}", text(&output.stderr));
    let processes = processes(&place.at("run.parquet"));
    let reasons: Vec<&str> = processes
        .iter()
        .filter_map(|(_, args)| args["reason"].as_str())
        .filter(|reason| !reason.contains("not a Python program"))
        .collect();
    assert_eq!(reasons.len(), 2, "{processes:?}");
    assert!(
        reasons[0].contains("-I") && reasons[1].contains("environment"),
        "{reasons:?}"
    );
}

#[test]
fn a_small_spill_limit_loses_records_and_counts_them() {
    let place = Place::new();
    place.file(
        "many.py",
        "def work(): pass\nfor _ in range(300_000): work()\n",
    );
    let args = [
        "--exact",
        "-o",
        "run.parquet",
        "--ring",
        "256KiB",
        "--spill-limit",
        "0",
        "many.py",
    ];
    let output = place.record(&args).output().unwrap();
    assert_eq!(status(&output), 0);
    let (events, names) = rows(&place.at("run.parquet"));
    let lost: f64 = events
        .iter()
        .filter(|e| e.kind == Kind::Lost)
        .filter_map(|e| e.value)
        .sum();
    let work = events
        .iter()
        .filter(|e| names.text(e.name) == "work")
        .count();
    if lost > 0.0 {
        assert!(
            text(&output.stderr).contains("lost"),
            "{}",
            text(&output.stderr)
        );
        // a begin and an end for each call; what was lost is one of them or both
        assert!(2.0 * work as f64 + lost >= 600_000.0, "{work} {lost}");
    } else {
        assert_eq!(work, 300_000, "the drain kept up");
    }
}

//! Stacks sampled from outside, of a program that is started and of one that runs already, with programs that know
//! their own CPU time.
#![cfg(feature = "sampling")]

mod common;

use common::{libraries, pythons};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// `hot` takes seven parts of the CPU time, `cold` three: by turns, 14 and 6 ms, until so much CPU time is used.
const BUSY: &str = r#"
import sys, time

def spin(until):
    total = 0
    while time.thread_time() < until:
        for n in range(500):
            total += n * n
    return total

def hot(until):
    spin(until)

def cold(until):
    spin(until)

def turns(count):
    for _ in range(count):
        now = time.thread_time()
        hot(now + 0.014)
        cold(now + 0.020)
"#;

/// Works for every line that it reads, on its main thread, `until` a file is there or for so many turns; another waits.
const SERVER: &str = r#"
import os, threading
stop = threading.Event()
waiter = threading.Thread(target=stop.wait, name="waiter")
waiter.start()
print("ready", flush=True)
for line in sys.stdin:
    if line == "until\n":
        while not os.path.exists("stop"):
            turns(1)
    else:
        turns(int(line))
    print("done", flush=True)
stop.set()
waiter.join()
print("ended", flush=True)
"#;

fn record(folder: &Path) -> Command {
    libraries();
    let mut command = common::recorder();
    command.current_dir(folder).env("TMPDIR", folder);
    for name in ["VIRTUAL_ENV", "PYTHONPATH", "INFERSCOPE_PYTHON"] {
        command.env_remove(name);
    }
    command
}

fn analysis(folder: &Path, trace: &str) -> Value {
    let merged = folder.join("merged.parquet");
    let merge = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
        .args([trace, "-o"])
        .arg(&merged)
        .current_dir(folder)
        .status();
    assert!(merge.unwrap().success());
    let output = Command::new(env!("CARGO_BIN_EXE_isc-analyze"))
        .arg("--json")
        .arg(&merged)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn function<'a>(analysis: &'a Value, name: &str) -> &'a Value {
    let all = analysis["functions"].as_array().unwrap();
    let found = all.iter().find(|f| f["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {all:?}"))
}

/// The share of `hot` in what both functions have, as far as they were seen.
fn hot_share(analysis: &Value) -> f64 {
    let total = |name: &str| function(analysis, name)["total_ns"].as_f64().unwrap();
    total("hot") / (total("hot") + total("cold"))
}

fn caveats(analysis: &Value) -> String {
    analysis["caveats"].to_string()
}

struct Server {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Server {
    fn start(python: &Path, folder: &Path) -> Server {
        let path = folder.join("server.py");
        std::fs::write(&path, format!("{BUSY}{SERVER}")).unwrap();
        let mut child = Command::new(python)
            .arg(&path)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut server = Server { child, said };
        assert_eq!(server.line(), "ready\n");
        server
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line
    }

    fn work(&mut self, turns: u32) {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{turns}").unwrap();
        assert_eq!(self.line(), "done\n");
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert_eq!(self.line(), "ended\n");
        assert!(self.child.wait().unwrap().success());
    }
}

/// isc-record --attach, once it says that it records.
fn attach(folder: &Path, server: &Server, args: &[&str]) -> (Child, String) {
    let mut recorder = record(folder)
        .arg("--attach")
        .arg(server.child.id().to_string())
        .args(args)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(recorder.stderr.take().unwrap());
    while !said.contains("Ctrl-C ends that") {
        let read = stderr.read_line(&mut said).unwrap();
        assert!(read > 0, "{said}");
    }
    recorder.stderr = None;
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    (recorder, said)
}

#[test]
fn samples_see_who_takes_the_time_in_every_python() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("busy.py");
    std::fs::write(&path, format!("{BUSY}turns(120)\n")).unwrap();
    for (python, version) in pythons() {
        let output = record(folder.path())
            .args(["--sample", "200", "-o", "t.parquet", "--python"])
            .args([python, &path])
            .output()
            .unwrap();
        assert!(output.status.success(), "{version:?}: {output:?}");
        let a = analysis(folder.path(), "t.parquet");
        let share = hot_share(&a);
        assert!((0.6..0.8).contains(&share), "{version:?}: {share}");
        let hot = function(&a, "hot");
        assert!(hot["calls_error"].is_null() && hot["error_ns"].as_i64() > Some(0));
        assert!(
            caveats(&a).contains("sampled at 200 Hz"),
            "{version:?}: {}",
            caveats(&a)
        );
        assert_eq!(a["verdict"]["class"], "cpu-bound", "{version:?}");
        let own = a["processes"].as_array().unwrap();
        assert_eq!(own[0]["covered"], true, "{version:?}");
        assert!(
            own[0]["python"]
                .as_str()
                .unwrap()
                .starts_with(&format!("{}.{}.", version.0, version.1))
        );
        assert_eq!(own[0]["name"], "busy.py");
    }
}

#[test]
fn a_running_program_is_recorded_until_a_signal_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for (python, version) in pythons() {
        let mut server = Server::start(python, folder.path());
        server.work(1);
        let (mut recorder, said) = attach(
            folder.path(),
            &server,
            &["--sample", "200", "-o", "t.parquet"],
        );
        server.work(120);
        inferscope_spool::sys::kill(recorder.id(), 2).unwrap();
        assert!(recorder.wait().unwrap().success(), "{version:?}: {said}");
        server.work(1);
        let a = analysis(folder.path(), "t.parquet");
        let share = hot_share(&a);
        assert!((0.6..0.8).contains(&share), "{version:?}: {share}");
        let waiter = a["threads"].as_array().unwrap().iter();
        let mut waiter = waiter.filter(|thread| thread["name"] == "waiter");
        assert!(waiter.next().is_some(), "{version:?}: {}", a["threads"]);
        let span = a["span_ns"].as_i64().unwrap();
        let process = &a["processes"][0];
        assert!(
            process["dur_ns"].as_i64().unwrap() <= span
                && process["cpu_ns"].as_i64().unwrap() <= 2 * span
        );
        server.end();
    }
}

#[test]
fn a_python_that_can_be_asked_is_traced_and_an_older_one_is_sampled() {
    let folder = tempfile::tempdir().unwrap();
    for (python, version) in pythons() {
        let mut server = Server::start(python, folder.path());
        // reading a line, its main thread runs no Python, and so could not start the probe
        let stdin = server.child.stdin.as_mut().unwrap();
        writeln!(stdin, "until").unwrap();
        let (mut recorder, said) = attach(folder.path(), &server, &["--exact", "-o", "t.parquet"]);
        std::fs::write(folder.path().join("stop"), "").unwrap();
        assert_eq!(server.line(), "done\n");
        std::fs::remove_file(folder.path().join("stop")).unwrap();
        server.work(5);
        inferscope_spool::sys::kill(recorder.id(), 2).unwrap();
        assert!(recorder.wait().unwrap().success(), "{version:?}: {said}");
        server.work(1);
        let a = analysis(folder.path(), "t.parquet");
        let hot = function(&a, "hot");
        if *version >= (3, 14) {
            assert_eq!(hot["calls_error"], 0, "{said}");
            assert!(hot["calls"].as_i64().unwrap() >= 5, "{hot}");
        } else {
            assert!(said.contains("older than 3.14"), "{version:?}: {said}");
            assert!(hot["calls_error"].is_null(), "{version:?}");
        }
        server.end();
    }
    if pythons().iter().all(|(_, version)| *version < (3, 14)) {
        eprintln!("skipped: tracing a running program, no Python 3.14 here");
    }
}

#[test]
fn the_programs_end_ends_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let (python, version) = &pythons()[0];
    let server = Server::start(python, folder.path());
    let (mut recorder, said) = attach(
        folder.path(),
        &server,
        &["--sample", "100", "-o", "t.parquet"],
    );
    server.end();
    assert!(recorder.wait().unwrap().success(), "{version:?}: {said}");
    analysis(folder.path(), "t.parquet");
}

#[test]
fn what_cannot_be_attached_to_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut cat = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    for (pid, why) in [(cat.id(), "is no Python"), (gone.id(), "no such process")] {
        let output = record(folder.path())
            .args(["-o", "t.parquet", "--attach", &pid.to_string()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(said.contains(why) && said.lines().count() == 1, "{said}");
        assert!(!folder.path().join("t.parquet").exists());
    }
    drop(cat.stdin.take());
    cat.wait().unwrap();
    let output = record(folder.path())
        .args(["--sample", "2000", "x.py"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("from 1 to 1000"));
}

#[test]
fn a_program_that_imports_inferscope_runs_while_it_is_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scopes.py");
    let text =
        "import inferscope\nwith inferscope.scope('s'):\n    print(inferscope.recording())\n";
    std::fs::write(&path, text).unwrap();
    let (python, _) = &pythons()[0];
    let output = record(folder.path())
        .args(["-o", "t.parquet", "--python"])
        .env("INFERSCOPE_SAMPLE", "99.5 Hz")
        .args([python, &path])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "False\n",
        "{output:?}"
    );
}

/// Calls of a function, at least.
fn calls(analysis: &Value, name: &str) -> u64 {
    let all = analysis["functions"].as_array().unwrap();
    let found = all.iter().find(|f| f["name"] == name);
    found.map_or(0, |f| f["calls"].as_u64().unwrap())
}

#[test]
fn what_samples_cannot_do_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (python, version) = &pythons()[0];
    let server = Server::start(python, folder.path());
    let pid = server.child.id().to_string();
    let attach = ["--attach", pid.as_str()];
    let start = ["--", "touch", "started"];
    let scope = ["--last", "5s", "--trigger", "scope:a > 1s"];
    let cases: [(&[&str], &[&str], &str); 9] = [
        (&attach, &["--sample", "100", "--exact"], "--exact"),
        (
            &attach,
            &["--sample", "100", "--start-on", "a"],
            "--start-on",
        ),
        (&attach, &["--recover", "x"], "--recover"),
        (&attach, &["--list"], "--list"),
        (&attach, &["x.py"], "PROGRAM"),
        (&["--sample", "100"], &start, "samples see no scopes"),
        (
            &["--sample", "100"],
            &[&scope[..], &start].concat(),
            "would never fire",
        ),
        (
            &attach,
            &[&["--sample", "100"], &scope[..]].concat(),
            "would never fire",
        ),
        (
            &attach,
            &[&scope[..], &["-o", "-"]].concat(),
            "the output is a pipe",
        ),
    ];
    for (first, then, why) in cases {
        let mut command = record(folder.path());
        if !then.contains(&"-o") {
            command.args(["-o", "t.parquet"]);
        }
        if why.contains("no scopes") {
            command.env("INFERSCOPE_START_ON", "request"); // clap knows only of the flag
        }
        let output = command.args(first).args(then).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{then:?}: {said}");
        assert!(said.contains(why), "{then:?}: {said}");
        assert!(
            said.lines().next().unwrap().contains(why),
            "{then:?}: {said}"
        );
        assert!(!folder.path().join("started").exists());
        assert!(!folder.path().join("t.parquet").exists());
    }
    if *version < (3, 14) {
        let output = record(folder.path())
            .args(attach)
            .args(["-o", "t.parquet", "--start-on", "a"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{said}");
        assert!(
            said.contains("older than 3.14, so stacks are sampled"),
            "{said}"
        );
    }
    server.end();
}

#[test]
fn a_window_of_samples_has_what_is_open_and_a_dead_recorders_samples_are_recovered() {
    let folder = tempfile::tempdir().unwrap();
    let (python, _) = pythons().last().unwrap();
    let mut server = Server::start(python, folder.path());
    let args = ["--sample", "200", "--last", "60s", "-o", "t.parquet"];
    let triggered = [&args[..], &["--trigger", "python:hot > 1ms"]].concat();
    let (mut recorder, _) = attach(folder.path(), &server, &triggered);
    let window = folder.path().join("t-1.parquet");
    while !window.exists() {
        server.work(5); // until the trigger has fired
    }
    let open = analysis(folder.path(), "t-1.parquet");
    assert_eq!(calls(&open, "<module>"), 1, "it goes on: {open}");
    assert!(
        caveats(&open).contains("sampled at 200 Hz"),
        "{}",
        caveats(&open)
    );
    inferscope_spool::sys::kill(recorder.id(), 9).unwrap();
    recorder.wait().unwrap();
    let pid = recorder.id().to_string();
    let shared = std::fs::read_dir(common::shared()).unwrap().flatten();
    let here = std::fs::read_dir(folder.path()).unwrap().flatten();
    let mut dirs = shared.chain(here).map(|entry| entry.path());
    let dir = dirs.find(|dir| {
        let locked_by = std::fs::read_to_string(dir.join("recorder.lock"));
        locked_by.is_ok_and(|text| text == pid)
    });
    let recovered = record(folder.path())
        .args(["-o", "r.parquet", "--recover"])
        .arg(dir.unwrap())
        .output()
        .unwrap();
    assert!(recovered.status.success(), "{recovered:?}");
    let a = analysis(folder.path(), "r.parquet");
    assert!(calls(&a, "hot") >= 1, "{a}");
    for part in ["sampled at 200 Hz", "the recorder died"] {
        assert!(caveats(&a).contains(part), "{}", caveats(&a));
    }
    assert!(a["span_ns"].as_i64() > Some(0));
    server.end();
}

#[test]
fn a_reader_that_is_gone_ends_the_recording_and_not_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let (python, _) = &pythons()[0];
    let mut server = Server::start(python, folder.path());
    let mut recorder = record(folder.path())
        .args(["--sample", "100", "-o", "-", "--attach"])
        .arg(server.child.id().to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(recorder.stdout.take());
    let output = recorder.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the reader of the trace is gone"), "{said}");
    let dir = said.split("--recover ").nth(1).unwrap();
    let dir = dir.split(' ').next().unwrap();
    let cleaned = record(folder.path()).arg(format!("--clean={dir}")).status();
    assert!(cleaned.unwrap().success());
    server.work(1);
    server.end();
}

#[test]
fn ctrl_c_ends_the_whole_pipe_with_its_page_and_not_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let (python, _) = &pythons()[0];
    let mut server = Server::start(python, folder.path());
    let pid = server.child.id();
    libraries();
    let [record, merge, analyze] = [
        env!("CARGO_BIN_EXE_isc-record"),
        env!("CARGO_BIN_EXE_isc-merge"),
        env!("CARGO_BIN_EXE_isc-analyze"),
    ];
    let mut pipe = Command::new("sh")
        .args([
            "-c",
            &format!("'{record}' --sample 200 --attach {pid} | '{merge}' | '{analyze}'"),
        ])
        .current_dir(folder.path())
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(pipe.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("Ctrl-C ends that") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    server.work(20);
    let group = format!("-{}", pipe.id());
    let sent = Command::new("kill").args(["-INT", "--", &group]).status();
    assert!(sent.unwrap().success());
    let output = pipe.wait_with_output().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    let page = String::from_utf8_lossy(&output.stdout);
    for part in [
        "Functions by own time, estimated",
        "spin server.py",
        "± (95 %)",
    ] {
        assert!(page.contains(part), "{page}{said}");
    }
    server.work(1);
    server.end();
}

#[test]
fn a_process_of_another_user_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let me = Command::new("id").arg("-u").output().unwrap();
    let (python, _) = &pythons()[0];
    let can_change = me.stdout == b"0\n"
        && Command::new("setpriv")
            .args(["--reuid=65534", "--clear-groups"])
            .arg(env!("CARGO_BIN_EXE_isc-record"))
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success());
    if !can_change {
        eprintln!("skipped: only root can be somebody else");
        return;
    }
    libraries();
    let server = Server::start(python, folder.path());
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups"])
        .arg(env!("CARGO_BIN_EXE_isc-record"))
        .args(["-o", "t.parquet", "--attach"])
        .arg(server.child.id().to_string())
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(
        said.contains("it belongs to another user") && said.contains("sudo"),
        "{said}"
    );
    server.end();
}

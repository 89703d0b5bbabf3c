//! Traces that are no traces, or not whole: one clear line from the real isc-merge and status 2, never a
//! panic and never a file that looks whole.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use inferscope::analyze::{self, Rules};
use inferscope::cli::{Sink, Source};
use inferscope::error::Error;
use inferscope::report;
use inferscope::trace::{Event, Kind, Names, Provenance, Reader, Step, Writer};

fn trace(path: &Path, version: u32) {
    let mut provenance = Provenance::raw(Step::new("test", vec![], vec![]));
    provenance.version = version;
    let mut names = Names::default();
    let mut writer = Writer::create(&Sink::from(path), &provenance).unwrap();
    for i in 0..400 {
        let name = names.sym(&format!("function_{}", i % 50));
        let mut event = Event::new(Kind::Python, name, i * 10, 0, 7, 7);
        event.dur_ns = Some(i % 17);
        writer.push(&event, &names).unwrap();
    }
    writer.finish().unwrap();
}

/// Reads to the verified end.
fn read(path: &Path) -> Result<usize, Error> {
    let mut reader = Reader::open(&Source::from(path))?;
    let (mut names, mut events) = (Names::default(), Vec::new());
    while reader.next_batch(&mut names, &mut events)? {}
    Ok(events.len())
}

fn merge(folder: &Path, input: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isc-merge"))
        .args([input, "-o", "out.parquet"])
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn a_trace_cut_anywhere_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["whole.arrow", "whole.parquet"] {
        let whole = folder.path().join(name);
        trace(&whole, 1);
        assert_eq!(read(&whole).unwrap(), 400);
        let bytes = fs::read(&whole).unwrap();
        let part = folder.path().join("part");
        // Every byte of the last 4 KiB, and cuts spread over the rest.
        let near = bytes.len().saturating_sub(4096)..bytes.len();
        for length in near.chain((0..bytes.len()).step_by(97)) {
            fs::write(&part, &bytes[..length]).unwrap();
            let error = read(&part).expect_err(&format!("{name} of {length} bytes"));
            let text = error.to_string();
            assert!(text.starts_with(&part.display().to_string()), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }
}

/// A timeline and its analysis.
fn analysed(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    trace(&folder.join("raw.arrow"), 1);
    assert!(merge(folder, "raw.arrow").status.success());
    let analyze = command("isc-analyze", folder, &["out.parquet", "-o", "a.json"]);
    assert!(analyze.status.success());
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    (read("out.parquet"), read("a.json"))
}

fn command(name: &str, folder: &Path, arguments: &[&str]) -> Output {
    let program = match name {
        "isc-analyze" => env!("CARGO_BIN_EXE_isc-analyze"),
        _ => env!("CARGO_BIN_EXE_isc-report"),
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn analyze_and_report_take_nothing_that_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (timeline, analysis) = analysed(folder.path());
    let part = folder.path().join("part");
    let source = Source::from(part.as_path());
    let one_line = |error: Error, length: usize| {
        let text = error.to_string();
        assert!(
            text.starts_with(&part.display().to_string()),
            "{length}: {text}"
        );
        assert_eq!(text.lines().count(), 1, "{length}: {text}");
    };
    let whole: serde_json::Value = serde_json::from_slice(&analysis).unwrap();
    for length in timeline.len().saturating_sub(4096)..timeline.len() {
        fs::write(&part, &timeline[..length]).unwrap();
        let analysed = Reader::open(&source).and_then(|r| analyze::run(r, &Rules::default()));
        one_line(analysed.err().unwrap(), length);
        one_line(report::calls(&source, &whole).err().unwrap(), length);
    }
    let end = analysis.trim_ascii_end().len();
    for length in end.saturating_sub(4096)..end {
        fs::write(&part, &analysis[..length]).unwrap();
        one_line(report::read(&source).err().unwrap(), length);
    }
    // and the commands, which leave nothing behind
    fs::write(&part, &timeline[..timeline.len() - 9]).unwrap();
    fs::write(folder.path().join("part.json"), &analysis[..end - 9]).unwrap();
    for (name, arguments) in [
        ("isc-analyze", &["part", "-o", "new.json"][..]),
        ("isc-report", &["part.json", "-o", "new.html"]),
        (
            "isc-report",
            &["a.json", "--trace", "part", "-o", "new.html"],
        ),
    ] {
        let out = command(name, folder.path(), arguments);
        let stderr = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{name}: {stderr}");
        assert!(stderr.starts_with(&format!("{name}: part")), "{stderr}");
        let new = |name: &str| folder.path().join(name).exists();
        assert!(!new("new.json") && !new("new.html"), "{name} left a file");
    }
}

#[test]
fn changed_bytes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["whole.arrow", "whole.parquet"] {
        let whole = folder.path().join(name);
        trace(&whole, 1);
        let bytes = fs::read(&whole).unwrap();
        let bad = folder.path().join("bad");
        for at in (0..bytes.len()).step_by(13) {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            fs::write(&bad, changed).unwrap();
            // A changed number of a column may go unnoticed; what matters is that we come back.
            let _ = read(&bad);
        }
    }
}

#[test]
fn bad_input_gives_one_clear_line_and_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("empty.parquet"), b"").unwrap();
    fs::write(at("image.parquet"), b"\x89PNG\r\n\x1a\n0000").unwrap();
    fs::create_dir(at("folder.parquet")).unwrap();
    trace(&at("newer.parquet"), 2);
    trace(&at("newer.arrow"), 2);
    trace(&at("older.arrow"), 0);
    for (name, message) in [
        ("empty.parquet", "empty.parquet: empty, not a trace"),
        ("image.parquet", "image.parquet: a PNG image, not a trace"),
        ("folder.parquet", "folder.parquet: a directory, not a trace"),
        (
            "none.parquet",
            "none.parquet: cannot open: no such file or directory",
        ),
        (
            "newer.parquet",
            "newer.parquet: trace format 2, this build reads up to 1",
        ),
        (
            "newer.arrow",
            "newer.arrow: trace format 2, this build reads up to 1",
        ),
        (
            "older.arrow",
            "older.arrow: trace format 0, this build reads from 1",
        ),
    ] {
        let out = merge(folder.path(), name);
        let stderr = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{name}: {stderr}");
        assert_eq!(
            stderr.lines().next(),
            Some(&*format!("isc-merge: {message}"))
        );
        assert!(!at("out.parquet").exists(), "{name} left a file");
    }
}

#[test]
fn the_same_trace_twice_is_named() {
    let folder = tempfile::tempdir().unwrap();
    trace(&folder.path().join("a.arrow"), 1);
    let out = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
        .args(["a.arrow", "a.arrow", "-o", "out.parquet"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(
        stderr.starts_with("isc-merge: a.arrow: the same trace comes in twice"),
        "{stderr}"
    );
}

#[test]
fn a_pipe_carries_both_forms_and_gives_the_same_bytes_each_time() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.arrow", "a.parquet"] {
        let path = folder.path().join(name);
        trace(&path, 1);
        let bytes = fs::read(&path).unwrap();
        let piped = || {
            let mut child = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(&bytes).unwrap();
            let out = child.wait_with_output().unwrap();
            assert!(out.status.success());
            out.stdout
        };
        let once = piped();
        assert!(once == piped(), "{name}");
        let merged = folder.path().join("merged");
        fs::write(&merged, once).unwrap();
        assert_eq!(read(&merged).unwrap(), 400);
    }
}

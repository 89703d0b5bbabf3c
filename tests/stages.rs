//! inferscope's words, with stand-ins for the commands beside it: which are run, with what, and what status comes back.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Writes its name and arguments to `log`, makes its `-o` file, and ends with the status in `status-NAME`.
const STAND_IN: &str = r#"#!/bin/sh
here=$(dirname "$0"); name=$(basename "$0")
echo "$name $*" | sed "s#[^ ]*/inferscope-[^ /]*/#TMP/#g" >>"$here/log"
status=0; [ -e "$here/status-$name" ] && status=$(cat "$here/status-$name")
[ -e "$here/no-output" ] && exit "$status"
while [ $# -gt 0 ]; do
    [ "$1" = -o ] && echo made >"$2"
    [ "$1" = -- ] && break
    shift
done
echo "page of $name"
exit "$status"
"#;

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("stand-in"), STAND_IN).unwrap();
    // Copied by another process: a test that forks while this one writes would hold the file open, and a
    // file that is open for writing cannot be run.
    let copies = r#"cp "$0" inferscope; for name in record merge analyze report; do
        cp stand-in "isc-$name" && chmod +x "isc-$name"; done"#;
    let copied = Command::new("sh")
        .args(["-c", copies, env!("CARGO_BIN_EXE_inferscope")])
        .current_dir(folder.path())
        .status();
    assert!(copied.unwrap().success());
    folder
}

fn inferscope(folder: &Path, arguments: &[&str]) -> (Output, Vec<String>) {
    let out = Command::new(folder.join("inferscope"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    (out, log.lines().map(str::to_owned).collect())
}

#[test]
fn run_goes_through_all_stages_and_returns_the_programs_status() {
    let folder = folder();
    std::fs::write(folder.path().join("status-isc-record"), "7").unwrap();
    let words = [
        "run",
        "--ring",
        "4MiB",
        "--exclude",
        "tests",
        "--no-wrap",
        "app.py",
        "-x",
    ];
    let (out, log) = inferscope(
        folder.path(),
        &[&words[..], &["--report", "r.html"]].concat(),
    );
    assert_eq!(out.status.code(), Some(7), "{out:?}");
    assert_eq!(
        log,
        [
            "isc-record --ring 4MiB --exclude tests --no-wrap -o TMP/raw.parquet -- app.py -x",
            "isc-merge TMP/raw.parquet -o TMP/merged.parquet",
            "isc-analyze TMP/merged.parquet",
            "isc-analyze TMP/merged.parquet -o TMP/analysis.json",
            "isc-report TMP/analysis.json --trace TMP/merged.parquet -o r.html",
        ]
    );
    assert!(folder.path().join("r.html").exists());
}

#[test]
fn the_trace_can_be_kept_and_what_follows_dashes_is_the_programs() {
    let folder = folder();
    let words = [
        "run",
        "-o",
        "t.parquet",
        "--",
        "app.py",
        "--report",
        "r.html",
    ];
    let (out, log) = inferscope(folder.path(), &words);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    assert_eq!(
        log[0],
        "isc-record -o TMP/raw.parquet -- app.py --report r.html"
    );
    assert_eq!(log.len(), 3);
    assert!(folder.path().join("t.parquet").exists());
}

#[test]
fn a_program_that_cannot_be_recorded_ends_with_the_recorders_status() {
    let folder = folder();
    std::fs::write(folder.path().join("status-isc-record"), "127").unwrap();
    std::fs::write(folder.path().join("no-output"), "").unwrap();
    let (out, log) = inferscope(folder.path(), &["run", "no-such.py"]);
    assert_eq!((out.status.code(), log.len()), (Some(127), 1));
}

#[test]
fn a_stage_that_fails_is_a_fault_but_hides_no_status_of_the_program() {
    let folder = folder();
    std::fs::write(folder.path().join("status-isc-merge"), "2").unwrap();
    let (out, _) = inferscope(folder.path(), &["run", "app.py"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("isc-merge: did not finish"), "{said}");
    std::fs::write(folder.path().join("status-isc-record"), "3").unwrap();
    let (out, _) = inferscope(folder.path(), &["run", "app.py"]);
    assert_eq!(out.status.code(), Some(3));
}

#[test]
fn what_cannot_be_done_is_said_before_the_program_starts() {
    let folder = folder();
    for (words, message) in [
        (&["run"][..], "no program to run"),
        (
            &["run", "--report", "r.doc", "app.py"],
            "does not say which format",
        ),
        (
            &["analyze", "missing.parquet"],
            "missing.parquet: cannot open",
        ),
        (
            &["analyze", "missing.parquet", "-o", "x.doc"],
            "does not say which format",
        ),
        (&["analyse"], "unrecognized subcommand"),
    ] {
        let (out, log) = inferscope(folder.path(), words);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains(message), "{said}");
        assert!(log.is_empty());
    }
    std::fs::remove_file(folder.path().join("isc-record")).unwrap();
    let (out, _) = inferscope(folder.path(), &["run", "app.py"]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("isc-record: not found beside"));
}

#[test]
fn config_show_prints_values_and_where_they_came_from() {
    let folder = folder();
    std::fs::write(
        folder.path().join(".inferscope.yaml"),
        "record:\n  ring: 2MiB\n",
    )
    .unwrap();
    let out = Command::new(folder.path().join("inferscope"))
        .args(["config", "show"])
        .env("INFERSCOPE_MEMORY", "1GiB")
        .current_dir(&folder)
        .output()
        .unwrap();
    let shown = String::from_utf8(out.stdout).unwrap();
    let line = |key: &str| {
        let found = shown.lines().find(|line| line.starts_with(key)).unwrap();
        found
            .split_whitespace()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(line("record.ring")[0], "2MiB");
    assert!(
        line("record.ring")[1].ends_with(".inferscope.yaml:2"),
        "{shown}"
    );
    assert_eq!(line("merge.memory"), ["1GiB", "INFERSCOPE_MEMORY"]);
    assert_eq!(line("record.wrap"), ["true", "default"]);
}

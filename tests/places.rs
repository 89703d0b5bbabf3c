//! Where output cannot go and input cannot come from: a full disk, a folder that is read-only, a terminal.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::{libraries, repository};

/// Runs a shell command in namespaces of its own, where it may mount. `None`: not on this machine.
fn mounted(options: &str, folder: &Path, command: &str) -> Option<Output> {
    let mount = |then: &str| {
        // Also shared memory of its own: the run of a recorder that fails is kept there.
        let script = format!(
            "mkdir -p there && mount -t tmpfs none /dev/shm && mount -t tmpfs -o {options} none there && {then}"
        );
        let mut unshare = Command::new("unshare");
        unshare
            .args(["-rm", "sh", "-c", &script])
            .current_dir(folder);
        unshare.output()
    };
    if !mount("true").is_ok_and(|out| out.status.success()) {
        eprintln!("skipped: nothing can be mounted here, so no disk with {options}");
        return None;
    }
    Some(mount(command).unwrap())
}

const COMMANDS: [(&str, &str); 6] = [
    ("isc-record", "-o there/x.parquet app.py"),
    ("isc-merge", "raw.parquet -o there/x.parquet"),
    ("isc-analyze", "t.parquet -o there/x.json"),
    ("isc-report", "a.json --trace t.parquet -o there/x.html"),
    ("isc-convert", "t.parquet -o there/x.parquet"),
    ("isc-convert", "t.parquet -o there/x.json.gz"),
];

fn program(name: &str) -> String {
    let folder = Path::new(env!("CARGO_BIN_EXE_isc-record"))
        .parent()
        .unwrap();
    folder.join(name).display().to_string()
}

/// A folder with a program, its trace, timeline and analysis; the trace is larger than the disks below.
fn folder() -> tempfile::TempDir {
    libraries();
    let folder = tempfile::tempdir().unwrap();
    let app = "def f(): pass\nfor _ in range(60000): f()\nfor n in range(2000): exec(f'def g{n}(): pass\\ng{n}()')\n";
    fs::write(folder.path().join("app.py"), app).unwrap();
    for (name, arguments) in [
        ("isc-record", "-o raw.parquet app.py"),
        ("isc-merge", "raw.parquet -o t.parquet"),
        ("isc-analyze", "t.parquet -o a.json"),
    ] {
        let mut command = Command::new(program(name));
        command
            .args(arguments.split(' '))
            .current_dir(folder.path());
        let out = command.output().unwrap();
        assert!(out.status.success(), "{name}: {out:?}");
    }
    folder
}

/// One line of error that names the file, the status that DESIGN gives it, and nothing left in the folder.
fn refused(name: &str, out: &Output, told: &str) {
    let stderr = String::from_utf8_lossy(&out.stderr);
    let status = if name == "isc-record" { 125 } else { 2 };
    assert_eq!(out.status.code(), Some(status), "{name}: {stderr}");
    let line = |line: &&str| line.starts_with(name) && line.contains("there");
    let first = stderr.lines().find(line);
    let first = first.unwrap_or_else(|| panic!("{name}: {stderr}"));
    assert!(first.contains(told), "{first}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    let left = String::from_utf8_lossy(&out.stdout);
    assert_eq!(left.trim(), "left:", "{name} left a file");
}

#[test]
fn a_full_disk_is_told_and_nothing_half_written_stays() {
    let folder = folder();
    for (name, arguments) in COMMANDS {
        let command = format!(
            "{} {arguments}; status=$?; echo left: $(ls -A there); exit $status",
            program(name)
        );
        let Some(out) = mounted("size=8k", folder.path(), &command) else {
            return;
        };
        refused(name, &out, "no space left on device");
    }
}

#[test]
fn a_read_only_folder_is_told() {
    let folder = folder();
    for (name, arguments) in COMMANDS {
        let command = format!(
            "{} {arguments}; status=$?; echo left: $(ls -A there); exit $status",
            program(name)
        );
        let Some(out) = mounted("ro", folder.path(), &command) else {
            return;
        };
        refused(name, &out, "read-only file system");
    }
}

#[test]
fn a_pipe_to_a_full_device_is_told() {
    let folder = folder();
    for (name, arguments) in [
        ("isc-merge", "raw.parquet"),
        ("isc-analyze", "t.parquet"),
        ("isc-report", "a.json --format html"),
        ("isc-diff", "t.parquet t.parquet --json"),
        ("isc-convert", "t.parquet"),
        ("isc-convert", "t.parquet --format perfetto"),
    ] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let mut command = Command::new(program(name));
        command
            .args(arguments.split(' '))
            .current_dir(folder.path());
        let out = command.stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{name}: {stderr}");
        assert!(stderr.starts_with(&format!("{name}: ")), "{stderr}");
        assert!(stderr.contains("no space left on device"), "{stderr}");
    }
}

#[test]
fn a_terminal_is_no_input() {
    for name in ["isc-merge", "isc-analyze", "isc-report", "isc-convert"] {
        let out = Command::new("python3")
            .arg(repository("tests/python/terminal.py"))
            .arg(format!(
                "{}; echo status $? ready; read line",
                program(name)
            ))
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&out.stdout);
        assert!(shown.contains(&format!("{name}: ")), "{shown}");
        assert!(shown.contains("status 2"), "{shown}");
        assert!(shown.contains("terminal"), "{shown}");
    }
}

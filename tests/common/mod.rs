//! What tests of the probe and of the commands share.
#![allow(dead_code)] // each test uses some of it

use inferscope::cli::Source;
use inferscope::trace::{Event, Names, Reader};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The two libraries, built as this test is: `cargo test` alone does not make them.
pub fn libraries() -> &'static (PathBuf, PathBuf) {
    static BUILT: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile_dir = test.ancestors().nth(2).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        // the whole workspace, since packages built alone have other features, and so would be built again
        cargo.args([
            "build",
            "--locked",
            "--workspace",
            "--lib",
            "--bin",
            "cuda-app",
            "--bin",
            "rocm-app",
        ]);
        cargo.arg("--target-dir").arg(profile_dir.parent().unwrap());
        match profile_dir.file_name().unwrap().to_str().unwrap() {
            "debug" => {}
            profile => {
                cargo.args(["--profile", profile]);
            }
        }
        let output = cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        (
            profile_dir.join("libinferscope_probe.so"),
            profile_dir.join("lib_inferscope.so"),
        )
    })
}

/// Interpreters that can be recorded, and their version (3.9 to 3.14).
pub fn pythons() -> &'static [(PathBuf, (u32, u32))] {
    static FOUND: OnceLock<Vec<(PathBuf, (u32, u32))>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut paths = vec![PathBuf::from("python3")];
        let root = std::env::var_os("PYENV_ROOT")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv")));
        if let Some(versions) = root.and_then(|root| fs::read_dir(root.join("versions")).ok()) {
            paths.extend(versions.flatten().map(|entry| entry.path().join("bin/python3")));
        }
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for path in paths {
            let ask = "import sys; print(sys.implementation.name, *sys.version_info[:2], sys.abiflags + '.', sys.executable)";
            let Ok(output) = Command::new(&path).args(["-I", "-c", ask]).output() else { continue };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let words: Vec<&str> = text.split_whitespace().collect();
            let ["cpython", major, minor, flags, executable] = words[..] else {
                eprintln!("skipped: {} is not a CPython 3", path.display());
                continue;
            };
            let version = (major.parse().unwrap(), minor.parse().unwrap());
            let real = fs::canonicalize(executable).unwrap_or_else(|_| executable.into());
            if !((3, 9)..=(3, 14)).contains(&version) || flags.contains('t') {
                eprintln!("skipped: {} (Python {major}.{minor}{flags})", path.display());
            } else if seen.insert(real) {
                found.push((executable.into(), version));
            }
        }
        assert!(!found.is_empty(), "no CPython 3.9 to 3.14 here");
        found
    })
}

/// Whether what is measured here is built to count its own lines, which makes a recorded call several times as dear: what
/// the budget then leaves says nothing of what is shipped. scripts/check.sh runs these tests on the other build as well.
pub fn instrumented(test: &str) -> bool {
    let counts = std::env::var_os("LLVM_PROFILE_FILE").is_some();
    if counts {
        eprintln!("skipped: {test}: instrumented for coverage");
    }
    counts
}

thread_local! {
    static SHARED: tempfile::TempDir = tempfile::tempdir_in("/dev/shm").unwrap();
}

/// A folder of this test alone, in the place of /dev/shm: it must not be told of runs that other tests cut short.
pub fn shared() -> PathBuf {
    SHARED.with(|folder| folder.path().to_owned())
}

/// isc-record.
pub fn recorder() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isc-record"));
    command.env("INFERSCOPE_SHARED", shared());
    command
}

pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every row of a trace.
pub fn rows(path: &Path) -> (Vec<Event>, Names) {
    let mut reader = Reader::open(&Source::from(path)).unwrap();
    let (mut events, mut names) = (Vec::new(), Names::default());
    while reader.next_batch(&mut names, &mut events).unwrap() {}
    (events, names)
}

//! numpy with its pointers wrapped gives the same results, types, exceptions and reference counts as without.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The probe beside the test's own build, built if it is not there yet.
fn probe() -> PathBuf {
    let exe = std::env::current_exe().expect("a test has a path");
    let profile = exe.parent().and_then(Path::parent).expect("target/PROFILE");
    let mut build = Command::new(env!("CARGO"));
    build
        .current_dir(root())
        .args(["build", "--locked", "--quiet", "-p", "inferscope-probe"]);
    build
        .arg("--target-dir")
        .arg(profile.parent().expect("target"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo runs").success());
    profile.join("libinferscope_probe.so")
}

/// Every CPython 3.9+ on this machine, newest of each minor version: by name on the path, or of pyenv.
fn pythons() -> Vec<(String, PathBuf)> {
    let pyenv = std::env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".pyenv")));
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    let mut candidates: Vec<PathBuf> = pyenv
        .and_then(|root| root.join("versions").read_dir().ok())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/python"))
        .collect();
    candidates.sort();
    candidates.extend((9..=14).map(|minor| PathBuf::from(format!("python3.{minor}"))));
    candidates.push("python3".into());
    for python in candidates {
        let ask = "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])";
        let Ok(answer) = Command::new(&python)
            .args(["-c", ask])
            .stderr(Stdio::null())
            .output()
        else {
            continue;
        };
        let version = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
        let minor = version
            .strip_prefix("3.")
            .and_then(|m| m.parse::<u32>().ok());
        if minor.is_some_and(|minor| (11..=14).contains(&minor))
            && found.iter().all(|(known, _)| *known != version)
        {
            found.push((version, python));
        }
    }
    found
}

fn cases(python: &Path, args: &[&Path]) -> (String, String) {
    let output = Command::new(python)
        .arg(root().join("tests/python/wraps_cases.py"))
        .args(args)
        .env("PYTHONHASHSEED", "0")
        .output()
        .expect("python runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}\n{told}", output.status);
    (String::from_utf8_lossy(&output.stdout).into_owned(), told)
}

#[test]
fn results_are_the_same_with_and_without_the_wraps() {
    let probe = probe();
    let pythons = pythons();
    assert!(!pythons.is_empty(), "no Python 3.11 to 3.14 here");
    for (version, python) in pythons {
        let numpy = if version == "3.11" { "2.4.6" } else { "2.5.5" };
        let made = Command::new(root().join("scripts/venv.sh"))
            .arg(&python)
            .arg(format!("numpy-{version}"))
            .arg(format!("numpy=={numpy}"))
            .output()
            .expect("scripts/venv.sh runs");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let python = PathBuf::from(String::from_utf8_lossy(&made.stdout).trim());
        let run = tempfile::tempdir().expect("a folder for the run");
        let (without, _) = cases(&python, &[]);
        let (with, told) = cases(&python, &[&probe, run.path()]);
        assert!(without.lines().count() > 1000, "{version}");
        for (plain, wrapped) in without.lines().zip(with.lines()) {
            assert_eq!(plain, wrapped, "Python {version}\n{told}");
        }
        assert_eq!(without.lines().count(), with.lines().count());
    }
}

//! numpy with its pointers wrapped gives the same results, types, exceptions and reference counts as without.

mod common;

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

/// The Python of a virtual environment with numpy.
fn with_numpy(version: &str, python: &Path) -> PathBuf {
    let numpy = if version == "3.11" { "2.4.6" } else { "2.5.5" };
    let made = Command::new(root().join("scripts/venv.sh"))
        .arg(python)
        .arg(format!("numpy-{version}"))
        .arg(format!("numpy=={numpy}"))
        .output()
        .expect("scripts/venv.sh runs");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    PathBuf::from(String::from_utf8_lossy(&made.stdout).trim())
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
        let python = with_numpy(&version, &python);
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

/// Products whose sizes are known: two of matrices, one with its own transpose, one with a vector; each compared with what
/// numpy computes without BLAS.
const PRODUCTS: &str = "
import numpy as np, threading
def products():
    a, b = np.random.rand(64, 128), np.random.rand(128, 32)
    v = np.random.rand(128)
    for kind in (np.float32, np.float64, np.complex64, np.complex128):
        x, y, z = a.astype(kind), b.astype(kind), v.astype(kind)
        assert np.allclose(x @ y, np.einsum('ij,jk->ik', x, y), rtol=1e-3)
        assert np.allclose(np.dot(x, x.T), np.einsum('ij,kj->ik', x, x), rtol=1e-3)
        assert np.allclose(x @ z, np.einsum('ij,j->i', x, z), rtol=1e-3)
products()
other = threading.Thread(target=products)
other.start()
other.join()
";

#[test]
fn calls_of_blas_have_their_sizes() {
    for (version, python) in pythons() {
        let python = with_numpy(&version, &python);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("app.py"), PRODUCTS).expect("written");
        let trace = folder.path().join("t.parquet");
        common::libraries();
        let run = |flags: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_isc-record"))
                .args([
                    "--exact",
                    "--python",
                    python.to_str().expect("a path"),
                    "-o",
                ])
                .arg(&trace)
                .args(flags)
                .arg("app.py")
                .current_dir(folder.path())
                .output()
                .expect("isc-record runs");
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{version}: {told}");
            let (rows, names) = common::rows(&trace);
            let text = |at: Option<_>| at.map_or("", |at| names.text(at)).to_owned();
            let mut found: Vec<(String, String)> = rows
                .iter()
                .filter(|row| names.text(row.name).starts_with("cblas_"))
                .map(|row| (names.text(row.name).to_owned(), text(row.args)))
                .collect();
            found.sort();
            found
        };
        assert_eq!(run(&[]), [], "{version}: only on request");
        let mut wanted = Vec::new();
        for kind in ["s", "d", "c", "z"] {
            for (name, sizes) in [
                ("gemm", r#"{"m":64,"n":32,"k":128}"#),
                ("syrk", r#"{"n":64,"k":128}"#),
                // numpy hands the transposed matrix over, by columns
                ("gemv", r#"{"m":128,"n":64}"#),
            ] {
                let call = (format!("cblas_{kind}{name}"), sizes.to_owned());
                wanted.extend([call.clone(), call]); // on both threads
            }
        }
        wanted.sort();
        assert_eq!(run(&["--blas"]), wanted, "{version}");
    }
}

#[test]
fn blas_where_numpy_is_left_alone_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_isc-record"))
        .args(["--blas", "-o", "never.parquet", "app.py"])
        .env("INFERSCOPE_WRAP", "no")
        .output()
        .expect("isc-record runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{told}");
    assert!(told.contains("blas: wrap is off"), "{told}");
}

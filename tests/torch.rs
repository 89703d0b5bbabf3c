//! The methods and operators of torch's tensors as native spans, through a package of the same shape: torch itself is
//! gigabytes.

mod common;

use common::{libraries, pythons, rows};
use inferscope::trace::Kind;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

const ROUNDS: u64 = 300;

/// How often each is called in a round, but for a bound method that was looked up before: only CALL tells of that.
const TRUTH: [(&str, u64); 6] = [
    ("Tensor.__add__", 2),
    ("Tensor.relu", 2),
    ("Tensor.dot", 1),
    ("Tensor.sum", 1),
    ("Tensor.item", 2),
    ("Tensor.fail", 1),
];

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

/// Builds the package for a Python; false, and a word, where its headers are not here.
fn build(python: &Path, folder: &Path) -> bool {
    let ask = "import sysconfig; print(sysconfig.get_path('include'))";
    let include = run(Command::new(python).args(["-c", ask])).stdout;
    let include = String::from_utf8(include).unwrap();
    if !Path::new(include.trim()).join("Python.h").exists() {
        eprintln!("skipped: {} has no Python.h", python.display());
        return false;
    }
    let package = folder.join("torch");
    std::fs::create_dir(&package).unwrap();
    let text = "from torch._C import TensorBase\n\n\nclass Tensor(TensorBase):\n    pass\n";
    std::fs::write(package.join("__init__.py"), text).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/torch.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O2", "-I", include.trim(), "-o"]);
    run(cc.arg(package.join("_C.so")).arg(source));
    true
}

#[test]
fn every_operation_on_a_tensor_is_a_span_and_none_is_changed() {
    libraries();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/torch_program.py");
    for (python, version) in pythons() {
        let folder = tempfile::tempdir().unwrap();
        if !build(python, folder.path()) {
            continue;
        }
        let with_path = |command: &mut Command| {
            command.env("PYTHONPATH", folder.path());
            run(command.arg(&program).arg(ROUNDS.to_string())).stdout
        };
        let plain = with_path(&mut Command::new(python));
        let trace = folder.path().join("raw.parquet");
        let mut record = common::recorder();
        // Without a budget, the profile function of 3.11 and before sees methods before any pointer does.
        record.args(["--budget", "100%", "-o"]).arg(&trace);
        let recorded = with_path(record.arg("--python").arg(python));
        assert_eq!(
            String::from_utf8_lossy(&recorded),
            String::from_utf8_lossy(&plain),
            "{version:?}"
        );
        let (rows, names) = rows(&trace);
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.kind == Kind::Native) {
            let name = names.text(row.name);
            if name.starts_with("Tensor.") {
                *seen.entry(name).or_default() += 1;
                let file = row.file.map_or("", |file| names.text(file));
                assert!(file.ends_with("torch/_C.so"), "{file}");
            }
        }
        let truth = TRUTH.map(|(name, per_round)| (name, per_round * ROUNDS));
        assert_eq!(seen, BTreeMap::from(truth), "{version:?}");
    }
}

//! What a run leaves that was cut short: whose it is, what is listed and removed, and what it does to a recovery when
//! it is damaged or made to mislead.

mod common;

use common::libraries;
use inferscope::cli::Sink;
use inferscope::record;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = r#"
import os, sys
from inferscope import mark_event, scope

def work(n):
    return n

for n in range(3000):
    with scope("step", n=n):
        work(n)
mark_event("done", {"by": "größe"})
print(os.environ["INFERSCOPE_SPOOL"], os.getpid(), flush=True)
sys.stdin.readline()
"#;

/// A folder in which a recorder and its program were killed: what `TMPDIR` is, and the run's directory.
fn cut_short() -> (tempfile::TempDir, PathBuf) {
    libraries();
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("app.py"), PROGRAM).unwrap();
    let mut child = isc_record(home.path())
        .args(["--exact", "-o", "run.parquet", "app.py"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let (dir, pid) = line.trim().split_once(' ').unwrap();
    let stdin = child.stdin.take();
    child.kill().unwrap();
    child.wait().unwrap();
    inferscope_spool::sys::kill(pid.parse().unwrap(), 9).unwrap();
    drop(stdin);
    let mut rest = String::new();
    lines.read_line(&mut rest).unwrap(); // its end
    (home, dir.into())
}

fn isc_record(home: &Path) -> Command {
    let mut command = common::recorder();
    command.current_dir(home).env("TMPDIR", home);
    for name in ["VIRTUAL_ENV", "PYTHONPATH", "INFERSCOPE_PYTHON"] {
        command.env_remove(name);
    }
    command
}

fn run(home: &Path, args: &[&str]) -> Output {
    isc_record(home).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The spill directory of a run.
fn spill_of(dir: &Path) -> PathBuf {
    let settings = fs::read(dir.join("settings.json")).unwrap();
    let settings: serde_json::Value = serde_json::from_slice(&settings).unwrap();
    settings["spill"].as_str().unwrap().into()
}

fn everything_in(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => all.extend(everything_in(&entry.path())),
            false => all.push(entry.path()),
        }
    }
    all
}

#[test]
fn what_is_left_is_this_user_s_alone_is_listed_and_cleaned() {
    let (home, dir) = cut_short();
    let spill = spill_of(&dir);
    for path in [everything_in(&dir), everything_in(&spill)].concat() {
        let facts = fs::symlink_metadata(&path).unwrap();
        if !facts.is_symlink() {
            let mode = facts.permissions().mode() & 0o777;
            let wanted = if facts.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, wanted, "{}", path.display());
        }
    }
    let listed = text(&run(home.path(), &["--list"]).stdout);
    let line = listed
        .lines()
        .find(|line| line.starts_with(dir.to_str().unwrap()));
    assert!(line.unwrap().contains("app"), "{listed}");
    let clean = |dir: &Path| run(home.path(), &[&format!("--clean={}", dir.display())]);
    assert_eq!(clean(home.path()).status.code(), Some(125), "not a run's");
    let cleaned = clean(&dir);
    assert!(cleaned.status.success(), "{}", text(&cleaned.stderr));
    let said = text(&cleaned.stdout);
    assert!(
        said.contains(dir.to_str().unwrap()) && said.contains("1 removed"),
        "{said}"
    );
    assert!(!dir.exists() && !spill.exists());
    assert!(!text(&run(home.path(), &["--list"]).stdout).contains(dir.to_str().unwrap()));
}

#[test]
fn all_that_is_stale_is_cleaned_and_nothing_else() {
    let (home, dir) = cut_short();
    let mount = "mount -t tmpfs tmpfs /dev/shm";
    let tried = Command::new("unshare")
        .args(["-rm", "sh", "-c", mount])
        .output();
    if !tried.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no mount namespaces here, and shared memory has runs of others");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let stale = copy(&dir, place.path());
    // a restart empties shared memory: what is on disk is nobody's then
    let orphan = place.path().join("inferscope-orphan");
    let other = place.path().join("inferscope-other");
    for dir in [&orphan, &other] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("file"), "content").unwrap();
    }
    fs::write(orphan.join("run"), "/dev/shm/inferscope-no-such-run").unwrap();
    let script = format!("{mount} && exec \"$@\"");
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-c", &script, "sh"])
        .args([env!("CARGO_BIN_EXE_isc-record"), "--clean"])
        .env("TMPDIR", place.path())
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(said.contains("2 removed"), "{said}");
    assert!(!stale.exists() && !orphan.exists() && other.exists());
    run(home.path(), &[&format!("--clean={}", dir.display())]);
}

#[test]
fn a_run_that_is_not_what_it_says_is_refused_and_nothing_is_removed() {
    let (home, dir) = cut_short();
    let link = home.path().join("inferscope-link");
    symlink(&dir, &link).unwrap();
    let precious = home.path().join("inferscope-precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "kept").unwrap();
    let settings = fs::read_to_string(dir.join("settings.json")).unwrap();
    let misled = settings.replace(spill_of(&dir).to_str().unwrap(), precious.to_str().unwrap());
    let recover = |dir: &Path| {
        run(
            home.path(),
            &["-o", "r.arrow", "--recover", dir.to_str().unwrap()],
        )
    };
    let refused = |dir: &Path| {
        let output = recover(dir);
        assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
        assert!(!text(&output.stderr).contains("panicked"));
    };
    refused(&link);
    for content in [&misled[..], "{}", "[", "\u{0}"] {
        fs::write(dir.join("settings.json"), content).unwrap();
        refused(&dir);
        run(home.path(), &[&format!("--clean={}", dir.display())]);
        assert!(dir.exists() && precious.join("file").exists());
    }
    fs::write(dir.join("settings.json"), settings).unwrap();
    let recovered = recover(&dir);
    assert!(recovered.status.success(), "{}", text(&recovered.stderr));
    assert!(!dir.exists() && link.is_symlink());
}

/// Copies a run, without what the program loads.
fn copy(dir: &Path, to: &Path) -> PathBuf {
    let (run, spill) = (to.join("inferscope-run"), to.join("inferscope-spill"));
    for (from, to) in [(dir, &run), (&spill_of(dir), &spill)] {
        for path in everything_in(from) {
            let place = to.join(path.strip_prefix(from).unwrap());
            match fs::symlink_metadata(&path).unwrap() {
                facts if facts.is_dir() => fs::create_dir(place).unwrap(),
                facts if facts.is_file() => drop(fs::copy(path, place).unwrap()),
                _ => {}
            }
        }
    }
    let mut settings: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("settings.json")).unwrap()).unwrap();
    settings["spill"] = spill.to_str().unwrap().into();
    fs::write(run.join("settings.json"), settings.to_string()).unwrap();
    fs::write(spill.join("run"), run.to_str().unwrap()).unwrap();
    run
}

#[test]
fn a_damaged_run_costs_rows_and_no_recovery() {
    let (_home, dir) = cut_short();
    let spill = spill_of(&dir);
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |limit: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % limit as u64) as usize
    };
    for round in 0..60 {
        let home = tempfile::tempdir().unwrap();
        let run = copy(&dir, home.path());
        let mut files = everything_in(&home.path().join("inferscope-spill"));
        files.extend(everything_in(&run));
        files.retain(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            path.is_file() && (name.ends_with("seg") || ["journal", "process"].contains(&name))
        });
        for _ in 0..1 + round % 8 {
            let path = &files[random(files.len())];
            let mut bytes = fs::read(path).unwrap();
            match random(8) {
                0 => bytes.truncate(random(bytes.len() + 1)),
                1..=4 if bytes.len() > 512 => bytes[random(512)] ^= 1 << random(8),
                _ if !bytes.is_empty() => {
                    let at = random(bytes.len());
                    bytes[at] = random(256) as u8;
                }
                _ => {}
            }
            fs::write(path, bytes).unwrap();
        }
        let output = home.path().join("run.arrow");
        // an error is an answer too: a journal that is none, for one
        if record::recover(&run, Some(&Sink::from(output.as_path()))).is_ok() {
            assert!(output.exists() && !run.exists());
        }
    }
    for path in [dir, spill] {
        fs::remove_dir_all(path).unwrap();
    }
}

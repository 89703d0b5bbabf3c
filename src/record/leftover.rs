//! What runs that were cut short have left: listed, and removed.

use std::fs;
use std::path::{Path, PathBuf};

use inferscope_spool::Reader;

use super::folder::{self, Folder};
use super::pump;
use crate::error::{Error, Result};

/// Prints a line for each run that can be recovered.
pub fn list() {
    for dir in folder::stale() {
        let (bytes, living) = (size(&dir), living(&dir));
        let (name, spilled) = Folder::open(&dir).map_or((String::new(), 0), |folder| {
            (folder.settings.name.clone(), size(&folder.settings.spill))
        });
        let running = match living {
            0 => String::new(),
            1 => ", its program still runs".to_owned(),
            n => format!(", {n} of its processes still run"),
        };
        println!(
            "{}  {name}, {}{running}",
            dir.display(),
            mib(bytes + spilled)
        );
    }
}

/// Removes what runs left whose recorder is gone and of whose processes none runs, and says what that was. `only`: the
/// run's directory, or that of its spill files, that is meant; else all.
///
/// # Errors
/// What cannot be removed; `only` is nothing that could be.
pub fn clean(only: Option<&Path>) -> Result<()> {
    let is_meant = |dir: &PathBuf| only.is_none_or(|only| same(dir, only));
    let runs: Vec<_> = folder::stale().into_iter().filter(is_meant).collect();
    let orphans: Vec<_> = folder::orphans().into_iter().filter(is_meant).collect();
    if let (Some(only), true, true) = (only, runs.is_empty(), orphans.is_empty()) {
        return Err(Error::invalid(
            only,
            "it is not left of a run that was cut short",
        ));
    }
    let (mut removed, mut bytes) = (0, 0);
    for dir in runs {
        let Ok(mut folder) = Folder::open(&dir) else {
            // someone recovers it right now, or it is not whole: nothing that is surely ours to remove
            eprintln!("isc-record: {} is kept: it cannot be opened", dir.display());
            continue;
        };
        let living = living(&dir);
        if living > 0 {
            let dir = dir.display();
            eprintln!("isc-record: {dir} is kept: {living} of its processes still run");
            continue;
        }
        let size = size(&dir) + size(&folder.settings.spill);
        folder.keep(false);
        drop(folder);
        if fs::symlink_metadata(&dir).is_ok() {
            let why = std::io::ErrorKind::PermissionDenied.into();
            return Err(Error::io("remove", &dir)(why));
        }
        println!("removed {}, {}", dir.display(), mib(size));
        (removed, bytes) = (removed + 1, bytes + size);
    }
    for spill in orphans {
        let size = size(&spill);
        fs::remove_dir_all(&spill).map_err(Error::io("remove", &spill))?;
        println!("removed {}, {}", spill.display(), mib(size));
        (removed, bytes) = (removed + 1, bytes + size);
    }
    println!("{removed} removed, {}", mib(bytes));
    Ok(())
}

fn same(one: &Path, other: &Path) -> bool {
    let real = fs::canonicalize(one).ok();
    real.is_some() && real == fs::canonicalize(other).ok()
}

/// How many processes of the run in `dir` still run.
fn living(dir: &Path) -> usize {
    let processes = Reader::open(dir, dir).and_then(|mut reader| reader.list());
    let processes = processes.unwrap_or_default().into_iter();
    processes
        .filter(|&(pid, start)| pump::lives(pid, start))
        .count()
}

/// Bytes of the files in a directory and below it, links not followed.
fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(facts) if facts.is_dir() => size(&entry.path()),
            Ok(facts) => facts.len(),
            Err(_) => 0,
        })
        .sum()
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

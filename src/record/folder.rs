//! The directory of a run: made, filled with what the program loads, locked while it is recorded.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use inferscope_spool::sys;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// `settings.json`, as the probe reads it; see formats/spool-v1.md.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Resident bytes of segments per process.
    pub ring_bytes: u64,
    /// Where segments go when the ring is full, and our journal.
    pub spill: PathBuf,
    /// Bytes of spill files per process.
    pub spill_limit_bytes: u64,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    /// Share of CPU time that recording may cost; 0: no limit.
    pub budget: f64,
    pub wrap: bool,
    pub sample: bool,
    pub native: bool,
    /// The program runs already: frames may be open.
    #[serde(default)]
    pub attached: bool,
    /// Modules, paths and functions whose lines are measured.
    #[serde(default)]
    pub lines: Vec<String>,
    pub start_on: Option<String>,
    pub delay_ms: u64,
    pub duration_ms: Option<u64>,
    /// Name of the program, for the file that a recovery writes.
    pub name: String,
}

/// Shared memory is used if at least this much of it is free: a ring for each of four processes.
const LEAST_FREE: u64 = 4 * (8 << 20);
const SHARED_MEMORY: &str = "/dev/shm";
const PREFIX: &str = "inferscope-";
const LOCK: &str = "recorder.lock";

/// Files for the program's Python, embedded so that a command that was copied somewhere still has them.
const PYTHON_FILES: [(&str, &str); 4] = [
    (
        "sitecustomize.py",
        include_str!("../../python/bootstrap/sitecustomize.py"),
    ),
    (
        "inferscope/__init__.py",
        include_str!("../../python/inferscope/__init__.py"),
    ),
    (
        "inferscope/_bootstrap.py",
        include_str!("../../python/inferscope/_bootstrap.py"),
    ),
    (
        "inferscope/py.typed",
        include_str!("../../python/inferscope/py.typed"),
    ),
];

/// A run's directory and its spill directory. Both are removed when it is dropped, unless kept.
#[derive(Debug)]
pub struct Folder {
    pub dir: PathBuf,
    pub settings: Settings,
    lock: Option<File>,
    keep: bool,
}

impl Folder {
    /// Makes the directories, in shared memory and below `spill_dir`.
    ///
    /// # Errors
    /// No place to make them in; no probe to be found.
    pub fn create(mut settings: Settings, spill_dir: &Path) -> Result<Folder> {
        let (probe, module) = libraries()?;
        let shared = Path::new(SHARED_MEMORY);
        let room = sys::free_bytes(shared).is_ok_and(|free| free >= LEAST_FREE);
        let made = if room {
            make(shared)
        } else {
            Err(io::ErrorKind::StorageFull.into())
        };
        let temporary = std::env::temp_dir();
        let dir = made
            .or_else(|_| make(&temporary))
            .map_err(Error::io("create a folder in", &temporary))?;
        settings.spill = dir.clone(); // nothing else to remove if the next step fails
        let mut folder = Folder {
            dir,
            settings,
            lock: None,
            keep: false,
        };
        let spill = make(spill_dir).map_err(Error::io("create a folder in", spill_dir))?;
        // the program may change its folder
        folder.settings.spill = fs::canonicalize(&spill).unwrap_or(spill);
        folder
            .fill(&probe, &module)
            .map_err(Error::io("write in", &folder.dir))?;
        Ok(folder)
    }

    /// Opens the directory of a run whose recorder is gone.
    ///
    /// # Errors
    /// No such directory, or not a run's; a recorder that still works on it.
    pub fn open(dir: &Path) -> Result<Folder> {
        let path = dir.join("settings.json");
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let settings: Settings = serde_json::from_str(&text)
            .map_err(|error| Error::invalid(&path, error.to_string()))?;
        let lock = File::options()
            .write(true)
            .open(dir.join(LOCK))
            .map_err(Error::io("open", &dir.join(LOCK)))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            return Err(Error::Invalid {
                path: dir.to_owned(),
                what: "isc-record is still at work on it".into(),
                hint: Some("wait until it has ended".into()),
            });
        }
        Ok(Folder {
            dir: dir.to_owned(),
            settings,
            lock: Some(lock),
            keep: true,
        })
    }

    /// Leaves the directories, or removes them when this is dropped.
    pub fn keep(&mut self, keep: bool) {
        self.keep = keep;
    }

    /// Where the Python files are.
    pub fn python(&self) -> PathBuf {
        self.dir.join("python")
    }

    /// Where the journal is.
    pub fn journal(&self) -> PathBuf {
        self.settings.spill.join("journal")
    }

    /// What bootstraps said of processes that they could not cover: pid and reason.
    pub fn uncovered(&self) -> Vec<(u32, String)> {
        #[derive(Deserialize)]
        struct Uncovered {
            pid: u32,
            reason: String,
        }
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut all: Vec<_> = entries
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with("uncovered-")
            })
            .filter_map(|entry| fs::read(entry.path()).ok())
            .filter_map(|text| serde_json::from_slice::<Uncovered>(&text).ok())
            .map(|said| (said.pid, said.reason))
            .collect();
        all.sort();
        all
    }

    fn fill(&mut self, probe: &Path, module: &Path) -> io::Result<()> {
        let mut lock = File::create(self.dir.join(LOCK))?;
        lock.try_lock()?;
        write!(lock, "{}", std::process::id())?;
        self.lock = Some(lock);
        for (name, text) in PYTHON_FILES {
            let path = self.python().join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, text)?;
        }
        // links: shared memory is often mounted without the right to execute
        symlink(probe, self.dir.join("libinferscope_probe.so"))?;
        symlink(module, self.python().join("inferscope/_inferscope.abi3.so"))?;
        let settings = serde_json::to_vec_pretty(&self.settings)?;
        fs::write(self.dir.join("settings.json"), settings)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // what cannot be removed is listed by the next run
            let _ = fs::remove_dir_all(&self.settings.spill);
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn make(parent: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(parent)?;
    Ok(tempfile::Builder::new()
        .prefix(PREFIX)
        .rand_bytes(8)
        .tempdir_in(parent)?
        .keep())
}

/// Directories of runs of ours whose recorder is gone without having finished.
pub fn stale() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for parent in [PathBuf::from(SHARED_MEMORY), std::env::temp_dir()] {
        for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
            if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
                continue;
            }
            // another user's lock cannot be opened for writing, so only ours are found
            let lock = File::options().write(true).open(entry.path().join(LOCK));
            let Ok(lock) = lock else { continue };
            let own = entry.metadata().ok().zip(fs::metadata("/proc/self").ok());
            if own.is_some_and(|(entry, own)| entry.uid() == own.uid()) && lock.try_lock().is_ok() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The probe and the Python module: as `INFERSCOPE_PROBE` says, beside the executable, or installed.
///
/// # Errors
/// They are in none of these places.
pub fn libraries() -> Result<(PathBuf, PathBuf)> {
    let own = std::env::current_exe().and_then(fs::canonicalize);
    let beside = own.ok().and_then(|own| own.parent().map(Path::to_owned));
    find(
        std::env::var_os("INFERSCOPE_PROBE").map(PathBuf::from),
        beside,
    )
}

fn find(asked: Option<PathBuf>, beside: Option<PathBuf>) -> Result<(PathBuf, PathBuf)> {
    let probe = "libinferscope_probe.so";
    let mut folders = Vec::new();
    if let Some(asked) = &asked {
        folders.push(match asked.is_dir() {
            true => asked.clone(),
            false => asked.parent().map(Path::to_owned).unwrap_or_default(),
        });
    } else if let Some(beside) = &beside {
        folders.push(beside.clone());
        for installed in ["../lib/inferscope", "../lib"] {
            folders.push(beside.join(installed));
        }
    }
    for folder in &folders {
        let exact = asked.clone().filter(|asked| asked.is_file());
        let probe = exact.unwrap_or_else(|| folder.join(probe));
        let module = ["_inferscope.abi3.so", "lib_inferscope.so"]
            .map(|name| folder.join(name))
            .into_iter()
            .find(|path| path.is_file());
        if let (true, Some(module)) = (probe.is_file(), module) {
            // absolute: the links to them lie elsewhere
            let absolute =
                |path: PathBuf| fs::canonicalize(&path).map_err(Error::io("open", &path));
            return Ok((absolute(probe)?, absolute(module)?));
        }
    }
    Err(Error::Invalid {
        path: folders.into_iter().next().unwrap_or_default(),
        what: format!("no {probe} and _inferscope.abi3.so there"),
        hint: Some("cargo build --release --workspace, or INFERSCOPE_PROBE=FOLDER".into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_beside_and_installed_and_where_asked() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let bin = root.join("bin");
        let lib = root.join("lib/inferscope");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&lib).unwrap();
        let error = find(None, Some(bin.clone())).unwrap_err();
        assert!(
            error.hint().unwrap().contains("INFERSCOPE_PROBE"),
            "{error}"
        );
        for name in ["libinferscope_probe.so", "_inferscope.abi3.so"] {
            fs::write(lib.join(name), "").unwrap();
        }
        let installed = find(None, Some(bin.clone())).unwrap();
        assert_eq!(installed.0, lib.join("libinferscope_probe.so"));
        assert_eq!(find(Some(installed.0.clone()), None).unwrap(), installed);
        assert_eq!(find(Some(lib.clone()), None).unwrap(), installed);
        assert!(find(Some(bin.clone()), Some(lib)).is_err());
        for name in ["libinferscope_probe.so", "lib_inferscope.so"] {
            fs::write(bin.join(name), "").unwrap();
        }
        let beside = find(None, Some(bin.clone())).unwrap();
        assert_eq!(beside.1, bin.join("lib_inferscope.so"));
    }
}

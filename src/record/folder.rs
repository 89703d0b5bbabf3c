//! The directory of a run: made, filled with what the program loads, locked while it is recorded.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use inferscope_spool::sys;
use serde::{Deserialize, Serialize};

use super::gpu::Gpu;
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
    #[serde(default)]
    pub blas: bool,
    pub sample: bool,
    pub native: bool,
    #[serde(flatten)]
    pub gpu: Gpu,
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
/// In a spill directory: the path of its run's directory.
const RUN: &str = "run";

/// Files for the program's Python, embedded so that a command that was copied somewhere still has them.
const PYTHON_FILES: [(&str, &str); 5] = [
    (
        "sitecustomize.py",
        include_str!("../../python/bootstrap/sitecustomize.py"),
    ),
    (
        "inferscope/__init__.py",
        include_str!("../../python/inferscope/__init__.py"),
    ),
    (
        "inferscope/_plain.py",
        include_str!("../../python/inferscope/_plain.py"),
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
        let shared = shared_memory();
        let room = sys::free_bytes(&shared).is_ok_and(|free| free >= LEAST_FREE);
        let made = if room {
            make(&shared)
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
    /// No such directory, not a run's, or another user's; a recorder that still works on it.
    pub fn open(dir: &Path) -> Result<Folder> {
        let foreign = || Error::invalid(dir, "it is not a directory of this user's own");
        if dir.exists() && !sys::is_own_dir(dir) {
            return Err(foreign());
        }
        let path = dir.join("settings.json");
        let text = read_own(&path).map_err(Error::io("read", &path))?;
        let settings: Settings = serde_json::from_slice(&text)
            .map_err(|error| Error::invalid(&path, error.to_string()))?;
        // this directory will be removed: it must be one that we made, whoever wrote the settings
        let is_ours = is_named(&settings.spill) && points_back(&settings.spill, dir);
        if fs::symlink_metadata(&settings.spill).is_ok() && !is_ours {
            let spill = settings.spill.display();
            let what = format!("{spill} is not the spill directory of this run");
            return Err(Error::invalid(&path, what));
        }
        let path = dir.join(LOCK);
        let lock = sys::open_own(&path, true).map_err(Error::io("open", &path))?;
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

    /// Where the journal is, and where once it could not be written any more.
    pub fn journals(&self) -> [PathBuf; 2] {
        ["journal", "journal.cut"].map(|name| self.settings.spill.join(name))
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
            .filter_map(|entry| read_own(&entry.path()).ok())
            .filter_map(|text| serde_json::from_slice::<Uncovered>(&text).ok())
            .map(|said| (said.pid, said.reason))
            .collect();
        all.sort();
        all
    }

    /// The probe, where the program loads it.
    pub fn probe(&self) -> PathBuf {
        self.dir.join("libinferscope_probe.so")
    }

    fn fill(&mut self, probe: &Path, module: &Path) -> io::Result<()> {
        // under its name it is locked from the first moment: whoever can lock it may recover the run, or remove it
        let unnamed = self.dir.join("recorder.new");
        let mut lock = create(&unnamed)?;
        lock.try_lock()?;
        write!(lock, "{}", std::process::id())?;
        fs::rename(unnamed, self.dir.join(LOCK))?;
        self.lock = Some(lock);
        let run = fs::canonicalize(&self.dir)?;
        write(&self.settings.spill.join(RUN), run.as_os_str().as_bytes())?;
        for (name, text) in PYTHON_FILES {
            let path = self.python().join(name);
            if let Some(parent) = path.parent() {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(parent)?;
            }
            write(&path, text.as_bytes())?;
        }
        // links: shared memory is often mounted without the right to execute
        symlink(probe, self.probe())?;
        symlink(module, self.python().join("inferscope/_inferscope.abi3.so"))?;
        let settings = serde_json::to_vec_pretty(&self.settings)?;
        write(&self.dir.join("settings.json"), &settings)
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

/// A new file that only this user may read; never through a link.
fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o600).open(path)
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    create(path)?.write_all(content)
}

/// Longest file of a run's directory that is read whole, in bytes.
const MOST_BYTES: u64 = 1 << 20;

fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = sys::open_own(path, false)?;
    file.take(MOST_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

fn make(parent: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(parent)?;
    Ok(tempfile::Builder::new()
        .prefix(PREFIX)
        .rand_bytes(8)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)?
        .keep())
}

/// Whether this is called as we call directories.
fn is_named(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    path.is_absolute() && name.as_bytes().starts_with(PREFIX.as_bytes())
}

/// The run that a spill directory of this user's belongs to.
fn run_of(spill: &Path) -> Option<PathBuf> {
    let path = sys::is_own_dir(spill).then(|| read_own(&spill.join(RUN)));
    Some(std::ffi::OsString::from_vec(path?.ok()?).into())
}

fn points_back(spill: &Path, dir: &Path) -> bool {
    let run = run_of(spill).and_then(|run| fs::canonicalize(run).ok());
    run.is_some() && run == fs::canonicalize(dir).ok()
}

/// Directories of runs of ours whose recorder is gone without having finished.
pub fn stale() -> Vec<PathBuf> {
    let unlocked = |dir: &PathBuf| {
        let lock = sys::open_own(&dir.join(LOCK), true);
        lock.is_ok_and(|lock| lock.try_lock().is_ok())
    };
    candidates().into_iter().filter(unlocked).collect()
}

/// Spill directories of ours whose run's directory is gone: after a restart of the machine, shared memory is empty.
pub fn orphans() -> Vec<PathBuf> {
    let gone = |spill: &PathBuf| {
        run_of(spill).is_some_and(|run| is_named(&run) && fs::symlink_metadata(run).is_err())
    };
    candidates().into_iter().filter(gone).collect()
}

/// Where runs are kept in memory; `INFERSCOPE_SHARED` names another folder, so that tests do not see each other's.
pub fn shared_memory() -> PathBuf {
    std::env::var_os("INFERSCOPE_SHARED").map_or_else(|| SHARED_MEMORY.into(), PathBuf::from)
}

/// Directories that are called as ours and are this user's.
fn candidates() -> Vec<PathBuf> {
    let parents = [shared_memory(), std::env::temp_dir()];
    let entries = parents.iter().flat_map(fs::read_dir).flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut all: Vec<_> = paths
        .filter(|path| is_named(path) && sys::is_own_dir(path))
        .collect();
    all.sort();
    all.dedup();
    all
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

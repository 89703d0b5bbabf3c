//! A CUDA driver, CUPTI and NVML without a GPU, so that GPU recording can be tested on any machine.
//!
//! One library is all three: [`install`] links it as `libcuda.so.1`, `libcupti.so.12` (or `.13`) and
//! `libnvidia-ml.so.1` into a directory for `LD_LIBRARY_PATH`. The loader knows a library by its inode, so the three
//! names are one mapping with one state. Its GPU is a model ([`gpu`]) whose every start and end is known, and
//! [`truth`] tells it. It never panics across the border, and computes nothing.
//!
//! The environment, all names with the prefix `ISC_DOUBLE_`, read once; a switch is on if set and not `0`:
//!
//! | knob | default | meaning |
//! | --- | --- | --- |
//! | `VERSION` | 120901 | CUDA: 110800, 120100, 120400, 120800, 120901, 130001, 130100, 130300, 130400, 130500 |
//! | `ABSENT` | | comma list of `cupti*` that fail with 27 NOT_SUPPORTED |
//! | `FAIL_ENABLE` | | comma list of kinds that cannot be enabled, `KIND` or `KIND:CODE`; code 14 NOT_COMPATIBLE |
//! | `SUBSCRIBER_BUSY` | off | `cuptiSubscribe` fails with 39 |
//! | `BUFFER_BYTES` | all | most bytes of each buffer that are used |
//! | `DROP_EVERY` | never | every so many records, one is dropped and counted |
//! | `ZERO_EVERY` | never | every so many records, one has times 0 |
//! | `NULL_NAME_EVERY` | never | every so many kernel records, one has no name |
//! | `UNKNOWN_EVERY` | never | after every so many records comes one of a kind that no CUPTI has |
//! | `SKEW_PPM` | 0 | rate error that CUPTI's conversion leaves in device times, from the first call on |
//! | `OFFSET_NS` | 0 | constant error in device times |
//! | `KERNEL_NS` | 5000 | how long a kernel runs; `isc_next_kernel_ns` sets one launch |
//! | `LATENCY_NS` | 2000 | from the end of a launch to the earliest start of its work |
//! | `LAZY_NS` | 0 | how long the first launch of a function takes more, with an OVERHEAD record |
//! | `LATE` | off | device records come only with a forced flush; `exit`: only after the program's exit handlers |
//! | `FORCED_ZERO` | off | a forced flush gives unfinished work with times 0, else with the times it will have |
//! | `TIMESTAMP_REFUSED` | off | `cuptiActivityRegisterTimestampCallback` fails with 7 |
//! | `DEVICES` | 1 | number of devices |
//! | `NO_DRIVER` | off | `cuInit` fails with 100, CUPTI with 15 (from 13.0 on 999), NVML with 9 |
//! | `STOLEN_AFTER` | never | after so many launches another tool registers its callbacks: buffers go nowhere |
//! | `THROTTLE` | 0 | NVML's reasons for low clocks, a decimal mask |
//! | `TRUTH` | | file to which the truth is appended, one JSON line an event |
//!
//! Modules stand in the order of use: [`layout`] and [`settings`] are data, [`gpu`] decides what happens, [`activity`]
//! carries it to the collector, and the three libraries at the end are the border.

pub mod layout;
pub mod settings;
pub mod clock;
pub mod names;
pub mod event;
pub mod record;
pub mod truth;
pub mod enabled;
pub mod activity;
pub mod gpu;
pub mod call;
pub mod cuda;
pub mod launch;
pub mod cupti;
pub mod subscribe;
pub mod nvml;

use std::ffi::{CStr, CString, c_void};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, Once};

/// Links the double into `dir` under the names of all three libraries, as the default version has them.
///
/// # Errors
/// A link cannot be made. One of that name that is there already is replaced.
pub fn install(dir: &Path, cdylib: &Path) -> io::Result<()> {
    install_version(dir, cdylib, settings::DEFAULT_VERSION)
}

/// Like [`install`], with CUPTI under the name that CUDA `version` (`ISC_DOUBLE_VERSION`) gives it.
///
/// # Errors
/// A link cannot be made.
pub fn install_version(dir: &Path, cdylib: &Path, version: u32) -> io::Result<()> {
    let cdylib = cdylib.canonicalize()?;
    let cupti = match version / 10_000 {
        0..=11 => "libcupti.so.11.8".to_owned(),
        major => format!("libcupti.so.{major}"),
    };
    for name in ["libcuda.so.1", "libnvidia-ml.so.1", &cupti] {
        let link = dir.join(name);
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::os::unix::fs::symlink(&cdylib, &link)?,
        }
    }
    Ok(())
}

/// The double as cargo built it for the test, benchmark or program that runs now.
///
/// # Errors
/// It is neither in the folder of the running program nor in the one above.
pub fn cdylib() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folders = program.ancestors().skip(1).take(2);
    let mut files = folders.map(|folder| folder.join("libinferscope_doubles.so"));
    let missing = || io::Error::new(io::ErrorKind::NotFound, "cargo has not built the double");
    files.find(|file| file.is_file()).ok_or_else(missing)
}

static BEGAN_NS: AtomicU64 = AtomicU64::new(0);

/// When the double was first called, CLOCK_MONOTONIC in ns.
fn began_ns() -> u64 {
    BEGAN_NS.load(SeqCst)
}

/// First call, whichever it is. The exit handler comes before those of whoever is loaded next, so it runs after them.
fn begin() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        BEGAN_NS.store(clock::monotonic_ns(), SeqCst);
        // SAFETY: functions of this library, which is never unloaded before exit.
        unsafe {
            libc::atexit(at_exit);
            libc::pthread_atfork(None, None, Some(in_fork));
        }
    });
}

extern "C" fn at_exit() {
    if !is_forked() {
        activity::end();
    }
}

/// Whether this process is a fork of one that used the double: its driver is lost, as the real one's is.
fn is_forked() -> bool {
    FORKED.load(SeqCst)
}

static FORKED: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn in_fork() {
    FORKED.store(true, SeqCst);
}

/// Locks; what a panic left is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A symbol that this very library exports.
fn own_symbol(name: &str) -> Option<*mut c_void> {
    let name = CString::new(name).ok()?;
    // SAFETY: an address of this library; the library is open, so opening it again only counts.
    let library = unsafe {
        let mut about: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(cuda::cuInit as *const c_void, &mut about) == 0 {
            return None;
        }
        libc::dlopen(
            CStr::from_ptr(about.dli_fname).as_ptr(),
            libc::RTLD_NOW | libc::RTLD_NOLOAD,
        )
    };
    if library.is_null() {
        return None;
    }
    // SAFETY: a library just opened, a name that ends in NUL.
    let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
    (!symbol.is_null()).then_some(symbol)
}

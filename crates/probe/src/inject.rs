//! The doors that other libraries open: NVTX, the CUDA driver and ROCm load this library by a path in the environment.
//!
//! They come in any program, before or without Python, on any thread, and perhaps while others hold locks.

use crate::hot;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;

/// Where isc-record says which run this program belongs to.
const RUN: &str = "INFERSCOPE_SPOOL";

/// Runs `body`; a panic, which would be a fault of ours, ends here and not in the program.
pub fn guard<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

/// Records this process into the run that the environment names, unless that has begun. Whether it is recorded.
pub fn begin() -> bool {
    stay();
    static ONCE: Mutex<()> = Mutex::new(());
    let _one_at_a_time = hot::locked(&ONCE);
    if hot::run().is_none() {
        let Some(dir) = std::env::var_os(RUN).map(PathBuf::from) else {
            return false;
        };
        if !dir.is_dir() {
            return false; // the recorder is gone
        }
        if let Err(why) = hot::start(&dir, &name(), None) {
            eprintln!("inferscope: this process is not recorded: {why}");
            return false;
        }
    }
    hot::run().is_some()
}

/// Keeps this library in the process when whoever loaded it lets go: its threads and handlers run on.
fn stay() {
    // SAFETY: `found` is a place for the answer, whose name stays while the library does; the handle is not closed.
    unsafe {
        let mut found: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(stay as *const libc::c_void, &mut found) != 0 && !found.dli_fname.is_null()
        {
            let how = libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
            libc::dlopen(found.dli_fname, how);
        }
    }
}

/// The program's base name.
fn name() -> String {
    let line = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let first = line.split(|&byte| byte == 0).next().unwrap_or_default();
    let base = first
        .rsplit(|&byte| byte == b'/')
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(base).into_owned()
}

//! A test double: HIP, rocprofiler-register and rocprofiler-sdk in one library, with GPUs that run nothing and know
//! when.
//!
//! [`install`] puts it under its names into a folder for `LD_LIBRARY_PATH`. Its first HIP call does what HIP's does: it
//! loads the libraries of `ROCP_TOOL_LIBRARIES`, calls their `rocprofiler_configure`, and then what that returned.
//! Records are laid out as the headers of the version it pretends to be have them; the structures are written from
//! those headers, not from the probe's offsets. The truth, a JSON line an event, has the same times on CLOCK_MONOTONIC.
//!
//! | `ISC_DOUBLE_` | default | what |
//! | --- | --- | --- |
//! | `VERSION` | 10000 | 500: records of 0.5.0; 10000: of 1.0.0, with ancestors, and kinds with other numbers |
//! | `DEVICES` | 2 | GPUs; 0: none, and no HIP device |
//! | `KERNEL_NS` | 5000 | how long a kernel runs |
//! | `LATENCY_NS` | 2000 | from the end of a launch to the kernel's start on an idle queue |
//! | `OFFSET_NS` | 7 × 10^12 | of the SDK's clock to CLOCK_MONOTONIC, as if the system had slept that long |
//! | `DROP_EVERY` | 0 | every so manieth record is dropped, and counted |
//! | `ZERO_EVERY` | 0 | every so manieth piece of device work has no times |
//! | `UNKNOWN_EVERY` | 0 | after so many records comes one of a kind that nobody knows |
//! | `LONG_QUEUES` | 0 | 1: queues' handles are as long as addresses |
//! | `REFUSE` | | refused, with commas: names of kinds, CODE_OBJECT, CONTEXT, BUFFER, START, AGENTS, TIMESTAMP |
//! | `TRUTH` | | file for the truth |

mod agents;
mod exports;
mod gpu;
mod hip;
mod layout;
mod sdk;
mod settings;
mod truth;

use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

/// Names that the double has: what a program loads, and what a tool looks for.
pub const NAMES: [&str; 3] = [
    "libamdhip64.so.6",
    "librocprofiler-register.so.0",
    "librocprofiler-sdk.so.1",
];

/// Links the double into a folder under its names.
///
/// # Errors
/// The folder cannot be written to, or there is no such library.
pub fn install(dir: &Path, cdylib: &Path) -> io::Result<()> {
    let cdylib = cdylib.canonicalize()?;
    for name in NAMES {
        std::os::unix::fs::symlink(&cdylib, dir.join(name))?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// CLOCK_MONOTONIC, in ns.
fn monotonic_ns() -> u64 {
    let mut at = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `at` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut at) };
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

fn tid() -> u64 {
    // SAFETY: takes nothing, returns a number.
    unsafe { libc::syscall(libc::SYS_gettid) as u64 }
}

//! What is recorded of devices: the doors that are opened to the program's driver, and why there is nothing.

use std::ffi::CStr;
use std::process::Command;

use inferscope_spool::sys;
use serde::{Deserialize, Serialize};

use super::drain::Seen;
use super::folder::Folder;

/// Where CUDA's driver looks for a library to load; nsys, ncu and other profilers set it too.
const CUDA: &str = "CUDA_INJECTION64_PATH";
/// Where rocprofiler-sdk looks for tools, with colons between; each must be loadable, or older versions end the
/// program.
const ROCM: &str = "ROCP_TOOL_LIBRARIES";
/// What a program's HIP finds its tools with, and what then calls them.
pub const ROCM_LIBRARIES: [&CStr; 2] =
    [c"librocprofiler-register.so.0", c"librocprofiler-sdk.so.1"];

/// Part of `settings.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// Whether devices are recorded.
    pub gpu: bool,
    /// Whether Python is.
    pub python: bool,
    /// Every call of CUDA's driver and runtime.
    pub cuda_api_all: bool,
    /// A CUDA graph is one row, not one for each of its nodes.
    pub cuda_graph_whole: bool,
    /// Memory that is taken and given back on devices.
    pub cuda_memory: bool,
}

impl Default for Gpu {
    fn default() -> Gpu {
        Gpu {
            gpu: true,
            python: true,
            cuda_api_all: false,
            cuda_graph_whole: false,
            cuda_memory: false,
        }
    }
}

impl Gpu {
    /// Opens the doors to a program that is about to start.
    pub fn open(&self, command: &mut Command, folder: &Folder) {
        if self.gpu && self.taken().is_none() {
            command.env(CUDA, folder.probe());
        }
        if self.gpu && has_rocm() {
            let mut tools = std::env::var_os(ROCM).unwrap_or_default();
            if !tools.is_empty() {
                tools.push(":"); // other tools may record beside us
            }
            tools.push(folder.probe());
            command.env(ROCM, tools);
        }
    }

    /// The library of another profiler that CUDA's driver is to load.
    pub fn taken(&self) -> Option<String> {
        let set = std::env::var(CUDA).ok()?;
        (!set.is_empty() && set != "none").then_some(set)
    }

    /// Why a run has no rows of devices, for people; `None` if it has, or none were wanted, or it was said before, or the
    /// machine has no devices: that is in the trace and in `--check`, and nothing to hear of at each run.
    pub fn absence(&self, seen: &Seen) -> Option<String> {
        if !self.gpu || *seen != Seen::Nothing {
            return None;
        }
        Some(match (self.taken(), sys::loads(c"libcuda.so.1"), has_rocm()) {
            (Some(other), ..) => format!("another profiler has the device ({CUDA}={other})"),
            (None, false, false) => return None,
            (None, true, _) => {
                "the program did not get to a device (cuInit was not called, or failed)".into()
            }
            (None, false, true) => {
                "the program did not get to a device (it did not use HIP, or HIP found no rocprofiler-sdk)".into()
            }
        })
    }
}

/// Why this machine has no devices that could be recorded.
pub fn none_here() -> Option<&'static str> {
    let some = sys::loads(c"libcuda.so.1") || has_rocm();
    (!some).then_some(
        "no NVIDIA driver here (no libcuda.so.1), and no ROCm (no librocprofiler-register.so.0)",
    )
}

/// Whether HIP could find its tools.
fn has_rocm() -> bool {
    ROCM_LIBRARIES.iter().any(|name| sys::loads(name))
}

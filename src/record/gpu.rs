//! What is recorded of devices: the doors that are opened to the program's driver, and why there is nothing.

use std::process::Command;

use inferscope_spool::sys;
use serde::{Deserialize, Serialize};

use super::drain::Seen;
use super::folder::Folder;

/// Where CUDA's driver looks for a library to load; nsys, ncu and other profilers set it too.
const CUDA: &str = "CUDA_INJECTION64_PATH";

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
    }

    /// The library of another profiler that CUDA's driver is to load.
    pub fn taken(&self) -> Option<String> {
        let set = std::env::var(CUDA).ok()?;
        (!set.is_empty() && set != "none").then_some(set)
    }

    /// Why a run has no rows of devices, for people; `None` if it has, or none were wanted, or it was said before.
    pub fn absence(&self, seen: &Seen) -> Option<String> {
        if !self.gpu || *seen != Seen::Nothing {
            return None;
        }
        Some(match self.taken() {
            Some(other) => format!("another profiler has the device ({CUDA}={other})"),
            None if !sys::loads(c"libcuda.so.1") => {
                "no NVIDIA driver here (no libcuda.so.1)".into()
            }
            None => "the program did not get to a device (cuInit was not called, or failed)".into(),
        })
    }
}

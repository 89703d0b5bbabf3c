//! `isc-record --check`: what can be recorded here, and why not the rest.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use inferscope_spool::sys;

use super::Gpu;
use super::folder::{libraries, shared_memory};
use super::gpu::ROCM_LIBRARIES;
use super::launch::Surroundings;
use crate::error::Result;

/// What a Python says of itself: its kind, version, build flags, and where its packages are.
const ASK: &str = "import sys, site
name = getattr(getattr(sys, 'implementation', None), 'name', 'cpython')
print(name)
print('%d.%d.%d' % sys.version_info[:3])
print(getattr(sys, 'abiflags', ''))
paths = [path for path in sys.path if path.endswith(('site-packages', 'dist-packages'))]
print(':'.join(paths))";

/// Prints a line for each source.
///
/// # Errors
/// No probe is to be found.
pub fn check(around: &Surroundings, gpu: &Gpu, spill: &Path) -> Result<()> {
    let (probe, _) = libraries()?;
    let (python, sites) = python(around);
    say("Python", &python);
    let driver = fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let driver = match (sys::loads(c"libcuda.so.1"), driver.lines().next()) {
        (true, Some(line)) => line.replace("NVRM version:", "").trim().to_owned(),
        (true, None) => "libcuda.so.1".into(),
        (false, _) => "none (no libcuda.so.1): no CUDA data".into(),
    };
    say("Driver", &driver);
    let cupti = match gpu.taken() {
        Some(other) => format!("another profiler has the device: CUDA_INJECTION64_PATH={other}"),
        None => sys::check_cupti(&probe, &sites).unwrap_or_else(|why| why),
    };
    say("CUPTI", &cupti);
    say(
        "NVTX",
        "ranges and marks of any program, with or without a GPU",
    );
    let missing = ROCM_LIBRARIES.iter().find(|name| !sys::loads(name));
    let rocm = match missing {
        None => "HIP calls, kernels and copies, by rocprofiler-sdk".into(),
        Some(name) => format!("none (no {})", name.to_string_lossy()),
    };
    say("ROCm", &rocm);
    say("Stacks", stacks());
    let room = |path: &Path| {
        let free = sys::free_bytes(path).unwrap_or(0) as f64 / 1e9;
        format!("{} ({free:.1} GB free)", path.display())
    };
    let spool = format!("{}, then {}", room(&shared_memory()), room(spill));
    say("Spool", &spool);
    say("Probe", &probe.display().to_string());
    Ok(())
}

/// Which programs' memory may be read (ptrace(2), "Ptrace access mode checking").
fn stacks() -> &'static str {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    match scope.trim() {
        "" | "0" => "--sample, and --attach to programs of the same user",
        "1" => "--sample; --attach as root only (kernel.yama.ptrace_scope is 1)",
        "2" => "--sample and --attach as root only (kernel.yama.ptrace_scope is 2)",
        _ => "neither --sample nor --attach (kernel.yama.ptrace_scope is 3)",
    }
}

fn say(what: &str, text: &str) {
    let _ = writeln!(std::io::stdout(), "{what:<8} {text}"); // a reader that has seen enough is gone
}

/// What of the Python that a script would get is recorded, and where its packages are.
fn python(around: &Surroundings) -> (String, String) {
    let path = match around.any_python() {
        Ok(path) => path,
        Err(_) => return ("none on PATH; --python PATH".into(), String::new()),
    };
    let asked = Command::new(&path)
        .args(["-c", ASK])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let said = asked.map(|asked| String::from_utf8_lossy(&asked.stdout).into_owned());
    let said = said.unwrap_or_default();
    let mut lines = said.lines();
    let mut line = || lines.next().unwrap_or_default();
    let (name, version, flags, sites) = (line(), line(), line(), line());
    let minor = version
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse().ok())
        .unwrap_or(0u32);
    let how = match (name, flags.contains('t'), minor) {
        ("", ..) => "it does not run".into(),
        ("cpython", false, 12..) => "calls, by sys.monitoring".into(),
        ("cpython", false, 9..) if version.starts_with("3.") => {
            "calls, by the hook for frames, or by a profile function with --exact".into()
        }
        ("cpython", true, _) => "not recorded: a free-threaded build".into(),
        ("cpython", ..) => "not recorded: older than 3.9".into(),
        (other, ..) => format!("not recorded: {other} is not CPython"),
    };
    (
        format!("{version} ({}): {how}", path.display()),
        sites.to_owned(),
    )
}

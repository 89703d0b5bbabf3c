//! Which libcupti to use: the program's own copy first, since two copies in one process are in each other's way.

use crate::loaded;
use std::collections::BTreeSet;
use std::ffi::{CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path the user names; a bad one is an error, and nothing else is tried.
const ASKED: &str = "ISC_CUPTI_PATH";
/// Where toolkits are, in the order they are looked at.
const HOMES: [&str; 2] = ["CUDA_HOME", "CUDA_PATH"];
const SYSTEM: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
/// Names in the loader's own folders.
const NAMES: [&str; 4] = [
    "libcupti.so.13",
    "libcupti.so.12",
    "libcupti.so.11.8",
    "libcupti.so",
];

/// A libcupti that is in the process now, for good.
pub struct Found {
    pub library: *mut c_void,
    pub path: String,
}

/// Finds it. `driver` is what `cuDriverGetVersion` says, such as 12080; 0: not known. `sites` are folders of Python's
/// packages, beside those that something is loaded from.
///
/// # Errors
/// In words, why there is none.
pub fn cupti(driver: u32, sites: &[&str]) -> Result<Found, String> {
    if let Some(asked) = std::env::var_os(ASKED).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(asked);
        return open(&path, 0)
            .ok_or_else(|| format!("{ASKED}: {} cannot be loaded: {}", path.display(), why()));
    }
    let files = loaded::files();
    let named = |file: &&String, name: &str| {
        let base = Path::new(file.as_str()).file_name();
        base.is_some_and(|base| base.as_bytes().starts_with(name.as_bytes()))
    };
    if let Some(mapped) = files.iter().find(|file| named(file, "libcupti.so")) {
        return open(Path::new(mapped), libc::RTLD_NOLOAD)
            .ok_or_else(|| format!("{mapped} is loaded and cannot be opened: {}", why()));
    }
    let runtime = files.iter().find(|file| named(file, "libcudart.so"));
    let wanted = runtime.and_then(|file| major(Path::new(file)));
    let fits = |path: &PathBuf| match (major(path), wanted) {
        (Some(own), Some(wanted)) => own == wanted,
        (Some(own), None) => driver == 0 || own <= driver / 1000,
        (None, _) => true,
    };
    let mut all: Vec<PathBuf> = folders(&files, runtime.map(Path::new), sites)
        .iter()
        .flat_map(|folder| in_folder(folder))
        .collect();
    all.extend(NAMES.map(PathBuf::from));
    all.iter()
        .filter(|path| fits(path))
        .find_map(|path| open(path, 0))
        .ok_or_else(|| {
            "no libcupti: install the wheel nvidia-cuda-cupti, or set CUDA_HOME or ISC_CUPTI_PATH"
                .into()
        })
}

/// Folders to look into, the likeliest first.
fn folders(files: &[String], runtime: Option<&Path>, sites: &[&str]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    if let Some(lib) = runtime.and_then(Path::parent) {
        all.push(lib.to_owned()); // nvidia/cu13/lib, targets/*/lib
        all.push(lib.join("../../cuda_cupti/lib")); // beside nvidia/cuda_runtime/lib
        all.push(lib.join("../extras/CUPTI/lib64"));
    }
    let mut sites: BTreeSet<String> = sites.iter().map(|site| format!("{site}/")).collect();
    for file in files {
        for part in ["/site-packages/", "/dist-packages/"] {
            if let Some((before, _)) = file.split_once(part) {
                sites.insert(format!("{before}{part}"));
            }
        }
    }
    for site in &sites {
        for lib in [
            "nvidia/cuda_cupti/lib",
            "nvidia/cu13/lib",
            "nvidia/cu12/lib",
        ] {
            all.push(Path::new(site).join(lib));
        }
    }
    let homes = HOMES.iter().filter_map(std::env::var_os).map(PathBuf::from);
    for home in homes.chain(installed()) {
        for lib in ["extras/CUPTI/lib64", "lib64", "lib"] {
            all.push(home.join(lib));
        }
        let targets = std::fs::read_dir(home.join("targets"));
        all.extend(
            targets
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.path().join("lib")),
        );
    }
    all.extend(SYSTEM.map(PathBuf::from));
    all
}

/// `/usr/local/cuda`, then `/usr/local/cuda-13.0` and its like, newest first.
fn installed() -> Vec<PathBuf> {
    let all = std::fs::read_dir("/usr/local")
        .into_iter()
        .flatten()
        .flatten();
    let mut all: Vec<PathBuf> = all
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_bytes().starts_with(b"cuda"))
        })
        .collect();
    all.sort();
    if !all.is_empty() {
        all[1..].reverse();
    }
    all
}

fn in_folder(folder: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = all
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|n| n.as_bytes().starts_with(b"libcupti.so"))
        })
        .collect();
    all.sort();
    all.reverse();
    all
}

/// 12 of `libcupti.so.12` and of `libcudart.so.12.4.127`; `None` of `libcupti.so` and of `libcupti.so.2024.1.1`.
fn major(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    let number = name.split_once(".so.")?.1.split('.').next()?.parse().ok()?;
    (number < 1000).then_some(number)
}

fn open(path: &Path, flags: i32) -> Option<Found> {
    let name = CString::new(path.as_os_str().as_bytes()).ok()?;
    let flags = libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_NODELETE | flags;
    // SAFETY: a C string. NVIDIA's library of that name may be loaded by anyone; it stays (NODELETE).
    let library = unsafe { libc::dlopen(name.as_ptr(), flags) };
    (!library.is_null()).then(|| Found {
        library,
        path: match path.is_absolute() {
            true => None,
            false => loaded::library(symbol(library)).map(|library| library.file),
        }
        .unwrap_or_else(|| path.to_string_lossy().into_owned()),
    })
}

fn symbol(library: *mut c_void) -> *const c_void {
    // SAFETY: a handle of dlopen, a C string.
    unsafe { libc::dlsym(library, c"cuptiGetVersion".as_ptr()) }
}

/// What the loader said last.
fn why() -> String {
    // SAFETY: null or a C string that is copied at once.
    unsafe {
        let at = libc::dlerror();
        match at.is_null() {
            true => "no reason was given".into(),
            false => std::ffi::CStr::from_ptr(at).to_string_lossy().into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majors_are_those_of_sonames() {
        for (name, found) in [
            ("libcupti.so.12", Some(12)),
            ("/x/libcupti.so.11.8", Some(11)),
            ("libcupti.so.2024.1.1", None),
            ("libcupti.so", None),
            ("libcudart.so.13", Some(13)),
        ] {
            assert_eq!(major(Path::new(name)), found, "{name}");
        }
    }

    #[test]
    fn wheels_and_toolkits_are_found_from_what_is_mapped() {
        let files = ["/v/lib/python3.12/site-packages/torch/lib/libtorch.so".to_owned()];
        let runtime = Path::new("/v/x/nvidia/cuda_runtime/lib/libcudart.so.12");
        let all = folders(&files, Some(runtime), &["/w"]);
        let has = |path: &str| all.contains(&PathBuf::from(path));
        assert_eq!(all[0], Path::new("/v/x/nvidia/cuda_runtime/lib"));
        assert!(has("/v/x/nvidia/cuda_runtime/lib/../../cuda_cupti/lib"));
        assert!(has("/v/lib/python3.12/site-packages/nvidia/cuda_cupti/lib"));
        assert!(has("/v/lib/python3.12/site-packages/nvidia/cu13/lib"));
        assert!(has("/w/nvidia/cu13/lib"));
    }
}

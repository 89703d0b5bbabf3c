//! Which library an address lies in.
//!
//! `dladdr` also looks for the nearest symbol, through all of a library's: 20 to 50 µs each time, and it is asked once
//! for each native function that is met. So the loader's list is read once, and again when an address is in none.

use std::ffi::{CStr, c_int, c_void};
use std::sync::Mutex;

/// A loaded shared library.
#[derive(Clone, Debug, PartialEq)]
pub struct Library {
    /// Where its lowest segment begins, as `dladdr` has it.
    pub base: usize,
    pub file: String,
}

struct Loaded {
    segments: Vec<std::ops::Range<usize>>,
    library: Library,
}

static LOADED: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());

/// Segments begin at pages.
const PAGE: usize = 4096;

/// The library that an address lies in; `None` on the heap.
pub fn library(at: *const c_void) -> Option<Library> {
    let mut loaded = LOADED
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let find = |all: &[Loaded]| {
        let holds = |one: &&Loaded| {
            one.segments
                .iter()
                .any(|range| range.contains(&(at as usize)))
        };
        all.iter().find(holds).map(|one| one.library.clone())
    };
    if at.is_null() {
        return None;
    }
    find(&loaded).or_else(|| {
        *loaded = read();
        find(&loaded)
    })
}

/// The files of all loaded libraries.
pub fn files() -> Vec<String> {
    read().into_iter().map(|one| one.library.file).collect()
}

fn read() -> Vec<Loaded> {
    unsafe extern "C" fn add(
        info: *mut libc::dl_phdr_info,
        _: libc::size_t,
        all: *mut c_void,
    ) -> c_int {
        // SAFETY: the loader passes its own description, valid over the call, and our vector.
        unsafe {
            let (info, all) = (&*info, &mut *all.cast::<Vec<Loaded>>());
            let mut segments = Vec::new();
            for at in 0..usize::from(info.dlpi_phnum) {
                let header = &*info.dlpi_phdr.add(at);
                if header.p_type == libc::PT_LOAD {
                    let start = info.dlpi_addr as usize + header.p_vaddr as usize;
                    segments.push(start..start + header.p_memsz as usize);
                }
            }
            let base = segments.iter().map(|range| range.start).min().unwrap_or(0);
            let name = match info.dlpi_name.is_null() {
                true => c"",
                false => CStr::from_ptr(info.dlpi_name),
            };
            // The program itself has no name here.
            let file = match name.is_empty() {
                true => "/proc/self/exe".into(),
                false => name.to_string_lossy().into_owned(),
            };
            let base = base & !(PAGE - 1);
            all.push(Loaded {
                segments,
                library: Library { base, file },
            });
        }
        0
    }
    let mut all: Vec<Loaded> = Vec::new();
    // SAFETY: `add` is called before this returns, with the vector it expects.
    unsafe { libc::dl_iterate_phdr(Some(add), std::ptr::from_mut(&mut all).cast()) };
    for one in &mut all {
        if one.library.file == "/proc/self/exe" {
            let exe = std::env::current_exe().unwrap_or_default();
            one.library.file = exe.to_string_lossy().into_owned();
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_data_are_in_a_library_and_the_heap_is_not() {
        static DATA: [u8; 4] = [1; 4];
        let own = library(library as *const c_void).unwrap();
        assert_eq!(library(DATA.as_ptr().cast()), Some(own.clone()));
        assert!(library(libc::getpid as *const c_void).is_some_and(|libc| libc != own));
        let heap = Box::new(0u8);
        assert_eq!(library(std::ptr::from_ref(&*heap).cast()), None);
        assert_eq!(library(std::ptr::null()), None);
    }

    #[test]
    fn a_base_is_where_dladdr_says() {
        let at = libc::getpid as *const c_void;
        let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
        // SAFETY: dladdr takes any address; on success it has filled in `info`.
        let base = unsafe {
            assert_ne!(libc::dladdr(at, info.as_mut_ptr()), 0);
            info.assume_init().dli_fbase as usize
        };
        assert_eq!(library(at).map(|library| library.base), Some(base));
    }
}

//! Where CPython keeps a type's function pointers, and whether one may be replaced.
//!
//! Offsets in bytes from cpython/object.h on 64-bit systems, the same in 3.9 to 3.14 with a GIL.

use crate::py::PyObject;
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::AtomicPtr;

pub const TP_NAME: usize = 24;
pub const TP_BASICSIZE: usize = 32;
pub const TP_VECTORCALL_OFFSET: usize = 56;
pub const TP_AS_NUMBER: usize = 96;
pub const TP_AS_MAPPING: usize = 112;
pub const TP_FLAGS: usize = 168;
pub const TP_RICHCOMPARE: usize = 200;

/// `Py_TPFLAGS_HEAPTYPE` of object.h.
pub const HEAP_TYPE: usize = 1 << 9;
/// `Py_TPFLAGS_HAVE_VECTORCALL` of object.h.
pub const HAVE_VECTORCALL: usize = 1 << 11;

/// A word of an object.
///
/// # Safety
/// `at` points to an object of at least `offset + 8` bytes.
#[inline(always)]
pub unsafe fn word(at: *const c_void, offset: usize) -> usize {
    // SAFETY: as the caller promises; such words are aligned.
    unsafe { at.byte_add(offset).cast::<usize>().read() }
}

/// The place of a function pointer. Replaced under the GIL, read by the interpreter under it.
///
/// # Safety
/// `at` points to an object that is never freed, of at least `offset + 8` bytes.
pub unsafe fn place(at: *const c_void, offset: usize) -> &'static AtomicPtr<c_void> {
    // SAFETY: as the caller promises; a pointer and an AtomicPtr look the same.
    unsafe { AtomicPtr::from_ptr(at.byte_add(offset).cast_mut().cast()) }
}

/// The type's `tp_name`.
///
/// # Safety
/// `of` is a type object.
pub unsafe fn type_name(of: *mut PyObject) -> String {
    // SAFETY: a type's name is a C string.
    unsafe {
        let name = word(of.cast(), TP_NAME) as *const c_char;
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

pub use crate::loaded::{Library, library};

/// The path as the trace shows it: what follows site-packages/, dist-packages/ or lib-dynload/.
pub fn shortened(file: &str) -> &str {
    ["/site-packages/", "/dist-packages/", "/lib-dynload/"]
        .iter()
        .find_map(|folder| file.rfind(folder).map(|at| &file[at + folder.len()..]))
        .or_else(|| file.rfind("/numpy/").map(|at| &file[at + 1..]))
        .unwrap_or(file)
}

/// The address ranges of this process that can be written to, as /proc/self/maps has them.
pub struct Writable(Vec<std::ops::Range<usize>>);

impl Writable {
    pub fn read() -> Writable {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let range = |line: &str| {
            let mut parts = line.split_ascii_whitespace();
            let (start, end) = parts.next()?.split_once('-')?;
            if parts.next()?.as_bytes().get(1) != Some(&b'w') {
                return None;
            }
            Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
        };
        Writable(maps.lines().filter_map(range).collect())
    }

    pub fn holds(&self, at: *const c_void) -> bool {
        self.0.iter().any(|range| range.contains(&(at as usize)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cut_after_the_packages_folder() {
        for (file, short) in [
            (
                "/v/lib/python3.12/site-packages/numpy/_core/_multiarray_umath.so",
                "numpy/_core/_multiarray_umath.so",
            ),
            ("/usr/lib/python3/dist-packages/numpy/a.so", "numpy/a.so"),
            ("/src/numpy/build/numpy/a.so", "numpy/a.so"),
            ("/lib/libm.so.6", "/lib/libm.so.6"),
        ] {
            assert_eq!(shortened(file), short);
        }
    }

    #[test]
    fn code_is_in_a_library_and_only_data_is_writable() {
        static DATA: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
        use std::sync::atomic::Ordering::Relaxed;
        let code = library as *const c_void;
        assert!(library(code).is_some());
        DATA.store(std::ptr::null_mut(), Relaxed);
        let writable = Writable::read();
        assert!(writable.holds((&raw const DATA).cast()));
        assert!(!writable.holds(code));
    }
}

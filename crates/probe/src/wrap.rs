//! numpy's operators, ufuncs and dispatchers, wrapped where they live.
//!
//! No Python event tells of `x @ w`, and of `numpy.exp(x)` only CALL does. So the function pointers themselves are
//! replaced: the slots of `numpy.ndarray`, and each ufunc's and dispatcher's own vectorcall pointer. A
//! trampoline calls the original and records a `native` span. Results, types, exceptions and reference counts are
//! the original's.
//!
//! A span is recorded only if it took [`gate::OUTERMOST_NS`] (outermost wrap of the thread) or
//! [`gate::NESTED_NS`] (inside another one); what is shorter stays in its caller. The ufunc that an operator runs
//! itself is part of the operator's span.
//!
//! Only pointers into numpy's own library are replaced, never those into the interpreter: a heap type's `slot_nb_*`
//! checks that it is still in its slot. Nothing is ever put back, and this library is never unloaded. The methods
//! of arrays (`sum`, `reshape`) are seen by call events instead.

mod calls;
mod elide;
mod gate;
mod layout;
mod slots;

use crate::hot;
use crate::py::{self, Py, PyObject};
use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static DONE: AtomicBool = AtomicBool::new(false);

/// Wraps what `module_name` brought into the process: "numpy" everything, "numpy.fft" and the like only
/// that module's functions. If numpy is laid out in an unknown way, nothing is touched and a note says so.
///
/// # Safety
/// A Python interpreter is in the process and this thread holds its GIL.
pub unsafe fn install(module_name: &str) {
    let Some(py) = py::get() else { return };
    // SAFETY: the GIL is held. With an exception under way nothing can be looked up without disturbing it.
    if !unsafe { (py.PyErr_Occurred)() }.is_null() {
        return;
    }
    // SAFETY: the GIL is held.
    let done = unsafe {
        if module_name == "numpy" {
            if DONE.swap(true, Relaxed) {
                return;
            }
            numpy(py)
        } else if module_name.starts_with("numpy.") && DONE.load(Relaxed) {
            match CString::new(module_name) {
                Ok(name) => calls::more(py, &name).map(|_| ()),
                Err(_) => return,
            }
        } else {
            return;
        }
    };
    if let Err(why) = done {
        hot::note(&format!("{module_name} is not wrapped: {why}"));
    }
}

/// # Safety
/// The GIL is held and no exception is set.
unsafe fn numpy(py: &Py) -> Result<(), String> {
    // SAFETY: as the caller promises.
    unsafe {
        let module = py.module(c"numpy");
        if module.is_null() {
            return Err("it is not imported".into());
        }
        slots::install(py, module)?;
        calls::install(py, module)
    }
}

/// Whether calls of `callable` are already recorded by a wrap, so that a call event would count them twice.
/// `callable` is a live object or null.
#[inline]
pub fn wrapped(callable: *mut PyObject) -> bool {
    calls::wrapped(callable)
}

/// C API: records this process into the run folder `dir`, with numpy, which must be imported, wrapped and nothing
/// else traced. Returns how many pointers are replaced, or -1 if the spool could not be made.
///
/// # Safety
/// `dir` is a C string; a Python interpreter is in the process and this thread holds its GIL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inferscope_wrap(dir: *const c_char) -> c_int {
    // SAFETY: the caller passes a C string.
    let dir = unsafe { CStr::from_ptr(dir) };
    let dir = Path::new(std::ffi::OsStr::from_bytes(dir.to_bytes()));
    if hot::start(dir, "python", None).is_err() {
        return -1;
    }
    // SAFETY: as the caller promises.
    unsafe { install("numpy") };
    c_int::try_from(slots::count() + calls::count()).unwrap_or(c_int::MAX)
}

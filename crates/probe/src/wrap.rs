//! numpy's operators, ufuncs and dispatchers, and the methods of torch's tensors, wrapped where they live.
//!
//! No Python event tells of `x @ w`, and of `numpy.exp(x)` only CALL does. So the function pointers themselves are
//! replaced: the slots of `numpy.ndarray`, and the own vectorcall pointer of each ufunc, dispatcher and method of
//! `torch.Tensor`, through which its operators go too. A trampoline calls the original and records a `native` span.
//! Results, types, exceptions and reference counts are the original's.
//!
//! A span is recorded only if it took [`gate::OUTERMOST_NS`] (outermost wrap of the thread) or
//! [`gate::NESTED_NS`] (inside another one); what is shorter stays in its caller. The ufunc that an operator runs
//! itself is part of the operator's span.
//!
//! Of slots, only pointers into numpy's own library are replaced, never those into the interpreter: a heap type's
//! `slot_nb_*` checks that it is still in its slot. Nothing is ever put back, and this library is never unloaded. The methods
//! of arrays (`sum`, `reshape`) are seen by call events instead: specialised instructions call them past any pointer, but
//! not those of a type that Python code has derived from, as it has from torch's.

mod blas;
mod calls;
mod elide;
mod gate;
mod layout;
mod slots;

use crate::hot;
use crate::py::{self, PyObject};
use std::ffi::{CStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static DONE: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];

/// A module whose functions are wrapped once its own body has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    Numpy,
    Torch,
}

/// All of them.
pub const MODULES: [Module; 2] = [Module::Numpy, Module::Torch];

impl Module {
    /// The module's name.
    pub fn name(self) -> &'static CStr {
        match self {
            Module::Numpy => c"numpy",
            Module::Torch => c"torch",
        }
    }

    /// Whose body the code of this file is.
    pub fn of_body(file: &str) -> Option<Module> {
        match file.strip_suffix("/__init__.py")?.rsplit('/').next()? {
            "numpy" => Some(Module::Numpy),
            "torch" => Some(Module::Torch),
            _ => None,
        }
    }

    /// Whether [`Module::install`] was called.
    pub fn is_done(self) -> bool {
        DONE[self as usize].load(Relaxed)
    }

    /// Wraps the module's functions, the first time. If it is laid out in an unknown way, nothing is touched and a note
    /// says so.
    ///
    /// # Safety
    /// A Python interpreter is in the process and this thread holds its GIL.
    pub unsafe fn install(self) {
        let Some(py) = py::get() else { return };
        // SAFETY: the GIL is held. With an exception under way nothing can be looked up without disturbing it.
        if !unsafe { (py.PyErr_Occurred)() }.is_null() || DONE[self as usize].swap(true, Relaxed) {
            return;
        }
        // SAFETY: the GIL is held, and no exception is set.
        let done = unsafe {
            let module = py.module(self.name());
            match self {
                _ if module.is_null() => Err("it is not imported".into()),
                Module::Numpy => {
                    slots::install(py, module).and_then(|()| calls::install(py, module))
                }
                Module::Torch => calls::install_methods(py, module),
            }
        };
        let blas = hot::run().is_some_and(|run| run.settings.blas);
        if self == Module::Numpy
            && blas
            && let Err(why) = blas::install()
        {
            hot::note(&format!("calls of BLAS are not recorded: {why}"));
        }
        if let Err(why) = done {
            let name = self.name().to_string_lossy();
            hot::note(&format!("{name} is not wrapped: {why}"));
        }
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
    unsafe { Module::Numpy.install() };
    c_int::try_from(slots::count() + calls::count()).unwrap_or(c_int::MAX)
}

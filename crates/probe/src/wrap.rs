//! numpy's slots, ufuncs and dispatchers, wrapped where they live.

use crate::py::PyObject;

/// Wraps what `module_name` brought into the process. The GIL is held.
///
/// # Safety
/// A Python interpreter is in the process and this thread holds its GIL.
pub unsafe fn install(_module_name: &str) {}

/// Whether calls of `callable` are already recorded by a wrap, so that a call event would count them twice.
#[inline]
pub fn wrapped(_callable: *mut PyObject) -> bool {
    false
}

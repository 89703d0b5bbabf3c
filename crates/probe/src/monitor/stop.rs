//! The end of monitoring in a program that goes on.

use super::{DISCOVERY, TRACING, state};
use crate::py::{Owned, PyObject};
use std::ffi::CStr;

unsafe extern "C" fn on_over(_: *mut PyObject, _: *const *mut PyObject, _: isize) -> *mut PyObject {
    let Some(state) = state() else {
        return std::ptr::null_mut();
    };
    // SAFETY: called by the interpreter with the GIL held; DISABLE is live.
    unsafe { (state.py.Py_IncRef)(state.disable) };
    state.disable
}

/// Ends it: from now on each place that still tells of an event is switched off when it next does.
///
/// # Safety
/// The GIL is held.
pub unsafe fn stop() {
    let Some(state) = state() else { return };
    let py = state.py;
    // SAFETY: as the caller promises; what cannot be had leaves the callbacks, which record nothing any more.
    unsafe {
        let Some(monitoring) = py.attr(py.module(c"sys"), c"monitoring") else {
            return;
        };
        let attr = |name: &CStr| py.attr(monitoring.get(), name);
        let (Some(events), Some(set_events), Some(register), Some(over)) = (
            attr(c"events"),
            attr(c"set_events"),
            attr(c"register_callback"),
            py.function(c"inferscope_over", on_over, std::ptr::null_mut()),
        ) else {
            return;
        };
        let number = |value: i64| Owned::new(py, (py.PyLong_FromLong)(value));
        let call = |function: &Owned, args: [*mut PyObject; 3]| {
            let end = std::ptr::null_mut::<PyObject>();
            drop(Owned::new(
                py,
                (py.PyObject_CallFunctionObjArgs)(function.get(), args[0], args[1], args[2], end),
            ));
        };
        let Some(none) = number(0) else { return };
        for tool in [DISCOVERY, TRACING] {
            let Some(tool) = number(tool) else { continue };
            call(&set_events, [tool.get(), none.get(), std::ptr::null_mut()]);
            for (on, new) in [
                (c"PY_START", over.get()),
                (c"PY_RESUME", over.get()),
                (c"PY_RETURN", over.get()),
                (c"PY_YIELD", over.get()),
                (c"LINE", over.get()),
                (c"CALL", over.get()),
                (c"PY_THROW", py.none),
                (c"PY_UNWIND", py.none),
                (c"C_RETURN", py.none),
                (c"C_RAISE", py.none),
            ] {
                let event = py.attr(events.get(), on);
                if let Some(event) = event {
                    call(&register, [tool.get(), event.get(), new]);
                }
            }
        }
    }
}

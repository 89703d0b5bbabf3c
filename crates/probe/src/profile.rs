//! CPython 3.9 to 3.11: the profile function of each thread.
//!
//! A thread's profile function is one pointer. When the program sets its own (cProfile does), ours is gone from that
//! thread and does not come back; [`seen`] is how the end of the run finds out.

use crate::code::{self, Code};
use crate::hot;
use crate::py::{self, Owned, Py, PyObject};
use crate::python::{self, BY_EXCEPTION};
use inferscope_spool::record::{RESUMED, SUSPENDED};
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

/// `what` of a profile function (pystate.h).
const CALL: c_int = 0;
const RETURN: c_int = 3;
const C_CALL: c_int = 4;
const C_EXCEPTION: c_int = 5;
const C_RETURN: c_int = 6;

/// Instructions after which a frame is suspended (opcode.h of 3.9 to 3.11; 3.11 has no YIELD_FROM).
const YIELD_VALUE: u8 = 86;
const YIELD_FROM: u8 = 72;
/// Where 3.11 tells of a frame that goes on; its argument is 0 at a first start (opcode.h of 3.11).
const RESUME: u8 = 151;

type Function = unsafe extern "C" fn(*mut PyObject, *mut PyObject, c_int, *mut PyObject) -> c_int;

static START_THREAD: AtomicPtr<PyObject> = AtomicPtr::new(std::ptr::null_mut());
static FRAME_LASTI: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// Events seen, to tell whether the function is still set.
static SEEN: AtomicU64 = AtomicU64::new(0);

/// Sets our function on all threads there are, and sees to it that new ones get it.
///
/// # Errors
/// In words, what the interpreter lacks.
///
/// # Safety
/// The GIL is held.
pub unsafe fn start(py: &'static Py) -> Result<(), String> {
    if hot::run().is_some_and(|run| !run.settings.lines.is_empty()) {
        hot::warn("--lines needs Python 3.12: lines are not measured, all else is recorded");
    }
    FRAME_LASTI.store(py::sym(c"PyFrame_GetLasti"), Relaxed); // 3.11
    let set = py::sym(c"_PyEval_SetProfile");
    // SAFETY: the GIL is held; `_PyEval_SetProfile` takes any thread's state (ceval.c).
    unsafe {
        adopt_new_threads(py);
        if set.is_null() {
            return set_here()
                .then_some(())
                .ok_or_else(|| "no PyEval_SetProfile".into());
        }
        let set: unsafe extern "C" fn(*mut c_void, Function, *mut PyObject) -> c_int =
            std::mem::transmute(set);
        let mut thread =
            (py.PyInterpreterState_ThreadHead)((py.PyThreadState_GetInterpreter)((py
                .PyThreadState_Get)(
            )));
        while !thread.is_null() {
            if set(thread, on_event, std::ptr::null_mut()) != 0 {
                (py.PyErr_Clear)();
            }
            thread = (py.PyThreadState_Next)(thread);
        }
    }
    Ok(())
}

/// Sets our function on this thread. The GIL is held.
unsafe fn set_here() -> bool {
    let set = py::sym(c"PyEval_SetProfile");
    if set.is_null() {
        return false;
    }
    // SAFETY: CPython's function of that name. No object goes with it, so `sys.getprofile()` stays None.
    unsafe {
        let set: unsafe extern "C" fn(Function, *mut PyObject) = std::mem::transmute(set);
        set(on_event, std::ptr::null_mut());
    }
    true
}

/// How many events came: two readings around a Python call tell whether our function is still set.
pub fn seen() -> u64 {
    if crate::slices::begun() {
        SEEN.fetch_add(1, Relaxed); // it is not set, and nobody can take it away
    }
    SEEN.load(Relaxed)
}

/// `_thread.start_new_thread` with a first step of our own: the new thread sets our function on itself. The program's
/// `threading.setprofile` comes after that and wins, as it would without us.
unsafe fn adopt_new_threads(py: &Py) {
    // SAFETY: the GIL is held.
    unsafe {
        let Some(module) = Owned::new(py, (py.PyImport_ImportModule)(c"_thread".as_ptr())) else {
            return;
        };
        let Some(original) = py.attr(module.get(), c"start_new_thread") else {
            return;
        };
        START_THREAD.store(original.into_raw(), Relaxed);
        let Some(ours) = py.function(c"start_new_thread", start_thread, std::ptr::null_mut())
        else {
            return;
        };
        let replace = |module: *mut PyObject, name: &CStr| {
            if !module.is_null()
                && (py.PyObject_SetAttrString)(module, name.as_ptr(), ours.get()) != 0
            {
                (py.PyErr_Clear)();
            }
        };
        replace(module.get(), c"start_new_thread");
        replace(module.get(), c"start_new");
        replace(py.module(c"threading"), c"_start_new_thread");
    }
}

/// (function, args[, kwargs]): starts `run_thread` bound to the function instead.
unsafe extern "C" fn start_thread(
    _: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
) -> *mut PyObject {
    let Some(py) = py::get() else {
        return std::ptr::null_mut();
    };
    let original = START_THREAD.load(Relaxed);
    // SAFETY: called by the interpreter with `count` live arguments and the GIL held; whatever is wrong with them is
    // said by the original function.
    unsafe {
        let function = if count >= 1 {
            *args
        } else {
            std::ptr::null_mut()
        };
        let Some(list) = Owned::new(py, (py.PyTuple_New)(count)) else {
            return std::ptr::null_mut();
        };
        for at in 0..count {
            let arg = *args.offset(at);
            let arg = if at == 0 && (*function).ob_type != py.type_type && is_callable(function) {
                bind(function).map_or_else(
                    || {
                        (py.Py_IncRef)(arg);
                        arg
                    },
                    Owned::into_raw,
                )
            } else {
                (py.Py_IncRef)(arg);
                arg
            };
            (py.PyTuple_SetItem)(list.get(), at, arg);
        }
        (py.PyObject_Call)(original, list.get(), std::ptr::null_mut())
    }
}

unsafe fn is_callable(of: *mut PyObject) -> bool {
    let at = py::sym(c"PyCallable_Check");
    if at.is_null() {
        return false;
    }
    // SAFETY: CPython's function of that name, on a live object.
    unsafe {
        let check: unsafe extern "C" fn(*mut PyObject) -> c_int = std::mem::transmute(at);
        check(of) != 0
    }
}

/// `METH_VARARGS | METH_KEYWORDS` of methodobject.h.
const METH_VARARGS_KEYWORDS: c_int = 3;

/// The definition of `run_thread`, shared by all threads' bound functions.
struct Definition(py::PyMethodDef);
// SAFETY: never written to; its pointers are to static data.
unsafe impl Sync for Definition {}
static RUN_THREAD: Definition = Definition(py::PyMethodDef {
    ml_name: c"run".as_ptr(),
    ml_meth: run_thread as *mut c_void,
    ml_flags: METH_VARARGS_KEYWORDS,
    ml_doc: std::ptr::null(),
});

unsafe fn bind(function: *mut PyObject) -> Option<Owned> {
    let py = py::get()?;
    // SAFETY: the definition is static and the GIL held.
    unsafe {
        let definition = (&raw const RUN_THREAD.0).cast_mut();
        Owned::new(
            py,
            (py.PyCFunction_NewEx)(definition, function, std::ptr::null_mut()),
        )
    }
}

/// First in a new thread: `this` is the function that the program wants run.
unsafe extern "C" fn run_thread(
    this: *mut PyObject,
    args: *mut PyObject,
    named: *mut PyObject,
) -> *mut PyObject {
    let Some(py) = py::get() else {
        return std::ptr::null_mut();
    };
    // SAFETY: called by the interpreter with the GIL held.
    unsafe {
        set_here();
        (py.PyObject_Call)(this, args, named)
    }
}

/// The offset of the instruction a frame executed last; below 0 before its first.
unsafe fn last_instruction(py: &Py, frame: *mut PyObject) -> i64 {
    let at = FRAME_LASTI.load(Relaxed);
    // SAFETY: a live frame, the GIL held.
    unsafe {
        if at.is_null() {
            return py.attr_int(frame, c"f_lasti").unwrap_or(-1);
        }
        let get: unsafe extern "C" fn(*mut PyObject) -> c_int = std::mem::transmute(at);
        i64::from(get(frame))
    }
}

/// Whether a frame that is begun was suspended before.
unsafe fn was_suspended(py: &Py, known: *const Code, frame: *mut PyObject) -> bool {
    // SAFETY: as in `at_yield`.
    unsafe {
        if py.version >= (3, 11)
            && let Ok(at) = usize::try_from(last_instruction(py, frame))
            && let bytes = &(*known).bytes
            && bytes.get(at) == Some(&RESUME)
        {
            return bytes.get(at + 1).is_some_and(|&from| from & 3 != 0);
        }
        at_yield(py, known, frame)
    }
}

/// Whether the frame stands at a suspension: it is about to be suspended, or was.
unsafe fn at_yield(py: &Py, known: *const Code, frame: *mut PyObject) -> bool {
    // SAFETY: `known` is valid and no call below frees it; a live frame.
    unsafe {
        let Ok(at) = usize::try_from(last_instruction(py, frame)) else {
            return false;
        };
        let bytes = &(*known).bytes;
        let opcode = |at: usize| bytes.get(at).copied();
        // Before 3.11 a `yield from` steps back before it suspends, to be run again.
        opcode(at) == Some(YIELD_VALUE)
            || py.version < (3, 11)
                && (opcode(at) == Some(YIELD_FROM) || opcode(at + 2) == Some(YIELD_FROM))
    }
}

/// The profile function: never fails, or it would raise into the program.
unsafe extern "C" fn on_event(
    _: *mut PyObject,
    frame: *mut PyObject,
    what: c_int,
    arg: *mut PyObject,
) -> c_int {
    let time = hot::now();
    let Some(py) = py::get() else { return 0 };
    SEEN.store(SEEN.load(Relaxed).wrapping_add(1), Relaxed); // under the GIL
    // SAFETY: called by the interpreter with a live frame and the GIL held.
    unsafe {
        match what {
            CALL | RETURN => {
                let code = (py.PyFrame_GetCode)(frame);
                let mut known = code::get(code);
                if known.is_null() {
                    let globals = py.attr(frame, c"f_globals");
                    known = code::learn(
                        py,
                        code,
                        globals.as_ref().map_or(std::ptr::null_mut(), Owned::get),
                    );
                }
                (py.Py_DecRef)(code); // the frame holds it
                if let Some(module) = (*known).brings.filter(|_| what == RETURN) {
                    python::is_here(module);
                }
                if !(*known).wanted {
                    return 0;
                }
                if what == CALL {
                    let resumed = (*known).suspends && was_suspended(py, known, frame);
                    python::begin(py, known, if resumed { RESUMED } else { 0 });
                } else {
                    let flags = if arg.is_null() {
                        BY_EXCEPTION
                    } else if (*known).suspends && at_yield(py, known, frame) {
                        SUSPENDED
                    } else {
                        0
                    };
                    python::end(known, flags, time);
                }
            }
            C_CALL if hot::run().is_some_and(|run| run.settings.native) => {
                let code = (py.PyFrame_GetCode)(frame);
                let known = code::get(code);
                (py.Py_DecRef)(code); // the frame holds it
                if !known.is_null() && (*known).wanted {
                    python::call(depth(), frame as usize, 0);
                }
            }
            C_RETURN | C_EXCEPTION if !arg.is_null() => {
                if let Some((start, reentered)) = python::returned(depth(), frame as usize, 0) {
                    python::native(py, arg, start, time, reentered, &mut ((0, 0), 0));
                }
            }
            _ => {}
        }
    }
    0
}

/// Where the machine stack is. In 3.11 Python calls share one evaluation loop, but a native call that is pending keeps
/// its loop from making another.
#[inline(always)]
fn depth() -> usize {
    let here = 0u8;
    std::ptr::addr_of!(here) as usize
}

//! CPython 3.12 and later: `sys.monitoring`.
//!
//! Two tools. Discovery sees each code object's first call, turns the events on in it, and is disabled there for
//! good. Tracing has events in those code objects only. `restart_events` is never called (it re-arms everything),
//! and C_RETURN and C_RAISE never answer DISABLE (that raises into the program).

use crate::code;
use crate::hot;
use crate::name;
use crate::py::{FastCall, Owned, Py, PyObject};
use crate::python::{self, BY_EXCEPTION};
use crate::wrap;
use inferscope_spool::record::{RESUMED, SUSPENDED};
use std::ffi::{CStr, c_long};
use std::sync::atomic::{AtomicPtr, Ordering::Acquire, Ordering::Release};

/// Tool numbers that no tool of Python's own has (0 debugger, 1 coverage, 2 profiler, 5 optimizer).
const DISCOVERY: c_long = 3;
const TRACING: c_long = 4;

struct State {
    py: &'static Py,
    disable: *mut PyObject,
    set_local_events: *mut PyObject,
    tracing: *mut PyObject,
    /// The events of a recorded code object, and of one of which only the return matters.
    all: *mut PyObject,
    only_return: *mut PyObject,
    native: bool,
}

static STATE: AtomicPtr<State> = AtomicPtr::new(std::ptr::null_mut());

#[inline(always)]
fn state() -> Option<&'static State> {
    // SAFETY: null, or a State that is never freed.
    unsafe { STATE.load(Acquire).as_ref() }
}

/// Takes the two tools and begins.
///
/// # Errors
/// In words, which step the interpreter refused.
///
/// # Safety
/// The GIL is held.
pub unsafe fn start(py: &'static Py) -> Result<(), String> {
    let refused = |what: &str| format!("sys.monitoring refused: {what}");
    // SAFETY: the GIL is held, for all calls below.
    unsafe {
        let monitoring = py
            .attr(py.module(c"sys"), c"monitoring")
            .ok_or_else(|| refused("no such module"))?;
        let attr = |name: &CStr| {
            py.attr(monitoring.get(), name)
                .ok_or_else(|| refused(&name.to_string_lossy()))
        };
        let events = attr(c"events")?;
        let event = |name: &CStr| py.attr_int(events.get(), name).unwrap_or(0);
        let number = |value: i64| {
            Owned::new(py, (py.PyLong_FromLong)(value)).ok_or_else(|| refused("a number"))
        };
        let end = std::ptr::null_mut::<PyObject>();

        let (use_tool_id, register, set_events) = (
            attr(c"use_tool_id")?,
            attr(c"register_callback")?,
            attr(c"set_events")?,
        );
        let name = Owned::new(
            py,
            (py.PyUnicode_FromStringAndSize)(c"inferscope".as_ptr(), 10),
        )
        .ok_or_else(|| refused("a name"))?;
        for tool in [DISCOVERY, TRACING] {
            let tool = number(tool)?;
            Owned::new(
                py,
                (py.PyObject_CallFunctionObjArgs)(use_tool_id.get(), tool.get(), name.get(), end),
            )
            .ok_or_else(|| refused("tools 3 and 4 are in use"))?;
        }

        let native = hot::run().is_some_and(|run| run.settings.native);
        let frames =
            event(c"PY_START") | event(c"PY_RESUME") | event(c"PY_RETURN") | event(c"PY_YIELD");
        let calls = if native { event(c"CALL") } else { 0 };
        let state = State {
            py,
            disable: attr(c"DISABLE")?.into_raw(),
            set_local_events: attr(c"set_local_events")?.into_raw(),
            tracing: number(TRACING)?.into_raw(),
            all: number(frames | calls)?.into_raw(),
            only_return: number(event(c"PY_RETURN"))?.into_raw(),
            native,
        };
        STATE.store(Box::into_raw(Box::new(state)), Release);

        let callbacks: [(c_long, &CStr, &'static CStr, FastCall); 11] = [
            (DISCOVERY, c"PY_START", c"inferscope_found", found_start),
            (
                DISCOVERY,
                c"PY_RESUME",
                c"inferscope_found_resume",
                found_resume,
            ),
            (TRACING, c"PY_START", c"inferscope_start", on_start),
            (TRACING, c"PY_RESUME", c"inferscope_resume", on_resume),
            (TRACING, c"PY_THROW", c"inferscope_throw", on_resume),
            (TRACING, c"PY_RETURN", c"inferscope_return", on_return),
            (TRACING, c"PY_YIELD", c"inferscope_yield", on_yield),
            (TRACING, c"PY_UNWIND", c"inferscope_unwind", on_unwind),
            (TRACING, c"CALL", c"inferscope_call", on_call),
            (TRACING, c"C_RETURN", c"inferscope_c_return", on_c_return),
            (TRACING, c"C_RAISE", c"inferscope_c_raise", on_c_return),
        ];
        for (tool, on, name, function) in callbacks {
            let function = py
                .function(name, function, std::ptr::null_mut())
                .ok_or_else(|| refused("a function"))?;
            let (tool, on) = (number(tool)?, number(event(on))?);
            Owned::new(
                py,
                (py.PyObject_CallFunctionObjArgs)(
                    register.get(),
                    tool.get(),
                    on.get(),
                    function.get(),
                    end,
                ),
            )
            .ok_or_else(|| refused("a callback"))?;
        }
        for (tool, on) in [
            (TRACING, event(c"PY_UNWIND") | event(c"PY_THROW")),
            (DISCOVERY, event(c"PY_START") | event(c"PY_RESUME")),
        ] {
            let (tool, on) = (number(tool)?, number(on)?);
            Owned::new(
                py,
                (py.PyObject_CallFunctionObjArgs)(set_events.get(), tool.get(), on.get(), end),
            )
            .ok_or_else(|| refused("events"))?;
        }
    }
    Ok(())
}

/// A code object runs for the first time since we look: turns its events on and records this beginning, whose own
/// event has passed.
#[cold]
unsafe fn found(state: &State, code: *mut PyObject, flags: u32) -> *mut PyObject {
    let py = state.py;
    // SAFETY: called by the interpreter with a live code object and the GIL held.
    unsafe {
        if code::get(code).is_null() {
            let known = code::learn(py, code, (py.PyEval_GetGlobals)());
            let (wanted, numpy) = ((*known).wanted, (*known).numpy);
            if wanted || numpy {
                let events = if wanted { state.all } else { state.only_return };
                let end = std::ptr::null_mut::<PyObject>();
                let set = (py.PyObject_CallFunctionObjArgs)(
                    state.set_local_events,
                    state.tracing,
                    code,
                    events,
                    end,
                );
                drop(Owned::new(py, set));
            }
            if wanted {
                python::begin(py, known, flags);
            }
        }
        (py.Py_IncRef)(state.disable);
    }
    state.disable
}

/// The code object's record if its frames are recorded; null if not.
#[inline(always)]
unsafe fn wanted(code: *mut PyObject) -> *mut code::Code {
    // SAFETY: a live code object, the GIL held.
    unsafe {
        let known = code::get(code);
        if known.is_null() || !(*known).wanted {
            std::ptr::null_mut()
        } else {
            known
        }
    }
}

macro_rules! callback {
    ($name:ident($state:ident, $args:ident) $body:block) => {
        unsafe extern "C" fn $name(
            _: *mut PyObject,
            $args: *const *mut PyObject,
            _: isize,
        ) -> *mut PyObject {
            let Some($state) = state() else {
                return std::ptr::null_mut();
            };
            // SAFETY: called by the interpreter with the GIL held and the event's arguments: the code object, then
            // (PY_START, PY_RESUME, PY_RETURN, PY_YIELD, CALL, C_RETURN, C_RAISE) the offset, then what is passed.
            unsafe { $body }
        }
    };
}

callback!(found_start(state, args) { found(state, *args, 0) });

callback!(found_resume(state, args) { found(state, *args, RESUMED) });

callback!(on_start(state, args) {
    let known = wanted(*args);
    if !known.is_null() {
        python::begin(state.py, known, 0);
    }
    state.py.none
});

callback!(on_resume(state, args) {
    let known = wanted(*args);
    if !known.is_null() {
        python::begin(state.py, known, RESUMED);
    }
    state.py.none
});

callback!(on_return(state, args) {
    let time = hot::now();
    let known = code::get(*args);
    if !known.is_null() {
        if (*known).numpy {
            python::numpy_is_here();
        }
        if (*known).wanted {
            python::end(known, 0, time);
        }
    }
    state.py.none
});

callback!(on_yield(state, args) {
    let time = hot::now();
    let known = wanted(*args);
    if !known.is_null() {
        python::end(known, SUSPENDED, time);
    }
    state.py.none
});

callback!(on_unwind(state, args) {
    let time = hot::now();
    let known = wanted(*args);
    if !known.is_null() {
        python::end(known, BY_EXCEPTION, time);
    }
    state.py.none
});

/// Where the machine stack is: the same for all callbacks that one evaluation loop makes, but for a few words.
#[inline(always)]
fn stack() -> usize {
    let here = 0u8;
    std::ptr::addr_of!(here) as usize
}

callback!(on_call(state, args) {
    let py = state.py;
    let callable = *args.add(2);
    let kind = (*callable).ob_type;
    let python = kind == py.function_type
        || kind == py.method_type && name::method_is_python(py, callable);
    if python || !state.native || wrap::wrapped(callable) {
        (py.Py_IncRef)(state.disable);
        return state.disable;
    }
    let known = code::get(*args);
    if known.is_null() {
        return py.none;
    }
    let offset = (py.PyLong_AsLong)(*args.add(1));
    if (*known).site(offset).is_some_and(|site| site.is_idle()) {
        (py.Py_IncRef)(state.disable);
        return state.disable;
    }
    python::call(stack(), *args as usize, offset);
    py.none
});

callback!(on_c_return(state, args) {
    let time = hot::now();
    let (py, callable) = (state.py, *args.add(2));
    let offset = (py.PyLong_AsLong)(*args.add(1));
    if let Some((start, reentered)) = python::returned(stack(), *args as usize, offset) {
        let known = code::get(*args);
        if known.is_null() {
            return py.none;
        }
        let mut cached = (*known).site(offset).map_or(((0, 0), 0), |site| (site.key, site.id));
        let ticks = python::native(py, callable, start, time, reentered, &mut cached);
        if let Some(site) = (*known).site(offset) {
            site.saw(ticks);
            (site.key, site.id) = cached;
        }
    }
    py.none
});

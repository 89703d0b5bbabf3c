//! CPython 3.12 and later: `sys.monitoring`.
//!
//! Two tools. Discovery sees each code object's first call, turns the events on in it, and is disabled there for
//! good. Tracing has events in those code objects only. `restart_events` is never called (it re-arms everything),
//! and C_RETURN and C_RAISE never answer DISABLE (that raises into the program).

use crate::again;
use crate::code::{self, Code};
use crate::depth;
use crate::frames::stack;
use crate::governor;
use crate::hot;
use crate::lines::{self, Lines};
use crate::name;
use crate::py::{self, Owned, Py, PyObject, VectorCall};
use crate::python::{self, BY_EXCEPTION};
use crate::wrap;
use inferscope_spool::record::{RESUMED, SUSPENDED};
use std::ffi::{CStr, c_long};
use std::sync::atomic::{
    AtomicPtr, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

mod stop;

pub use stop::stop;

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
    nothing: *mut PyObject,
    frames: *mut PyObject,
    /// The same with those of lines.
    all_lines: *mut PyObject,
    frames_lines: *mut PyObject,
    native: bool,
    plain: name::Plain,
    /// Gives an event its callback, or takes it away.
    register: *mut PyObject,
    unwind: *mut PyObject,
    on_unwind: *mut PyObject,
    /// Sets the events of all code: those of [`TRACING`] with the end of frames by exceptions, and without.
    set_events: *mut PyObject,
    everywhere: *mut PyObject,
    deaf: *mut PyObject,
}

/// Code objects that were met.
static MET: AtomicUsize = AtomicUsize::new(0);

/// How many code objects were met so far.
pub fn met() -> usize {
    MET.load(Relaxed)
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
        let calibration = calibration(py);
        let state = State {
            py,
            disable: attr(c"DISABLE")?.into_raw(),
            set_local_events: attr(c"set_local_events")?.into_raw(),
            tracing: number(TRACING)?.into_raw(),
            all: number(frames | calls)?.into_raw(),
            only_return: number(event(c"PY_RETURN"))?.into_raw(),
            nothing: number(0)?.into_raw(),
            frames: number(frames)?.into_raw(),
            all_lines: number(frames | calls | event(c"LINE"))?.into_raw(),
            frames_lines: number(frames | event(c"LINE"))?.into_raw(),
            native,
            plain: calibration
                .as_ref()
                .map_or_else(name::Plain::default, |found| found.plain(py)),
            register: attr(c"register_callback")?.into_raw(),
            unwind: number(event(c"PY_UNWIND"))?.into_raw(),
            on_unwind: py
                .callback(on_unwind)
                .ok_or_else(|| refused("a function"))?
                .into_raw(),
            set_events: attr(c"set_events")?.into_raw(),
            everywhere: number(event(c"PY_UNWIND") | event(c"PY_THROW"))?.into_raw(),
            deaf: number(event(c"PY_THROW"))?.into_raw(),
        };
        STATE.store(Box::into_raw(Box::new(state)), Release);
        governor::start(hot::run().map_or(0.0, |run| run.settings.budget), toggle);
        if let Some(calibration) = calibration.as_ref().filter(|_| governor::governs()) {
            depth::find(py, calibration);
        }

        watch_unwinds(true);
        let callbacks: [(c_long, &CStr, VectorCall); 11] = [
            (DISCOVERY, c"PY_START", found_start),
            (DISCOVERY, c"PY_RESUME", found_resume),
            (TRACING, c"PY_START", on_start),
            (TRACING, c"PY_RESUME", on_resume),
            (TRACING, c"PY_THROW", on_resume),
            (TRACING, c"PY_RETURN", on_return),
            (TRACING, c"PY_YIELD", on_yield),
            (TRACING, c"LINE", on_line),
            (TRACING, c"CALL", on_call),
            (TRACING, c"C_RETURN", on_c_return),
            (TRACING, c"C_RAISE", on_c_return),
        ];
        for (tool, on, function) in callbacks {
            let function = py.callback(function).ok_or_else(|| refused("a function"))?;
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
        if let Some(calibration) = calibration.filter(|_| hot::on()) {
            calibration.set_cost(py);
        }
    }
    Ok(())
}

/// Sets whether exceptions that leave frames are told to us. Without a callback the event costs each such frame 9 ns or
/// more, not 70; it cannot be switched for single functions, and to switch it for all, see [`hear_unwinds`], looks through
/// every function's instructions.
///
/// # Safety
/// The GIL is held and no exception is set.
pub unsafe fn watch_unwinds(watch: bool) {
    let Some(state) = state() else { return };
    let end = std::ptr::null_mut::<PyObject>();
    let callback = match watch {
        true => state.on_unwind,
        false => state.py.none,
    };
    // SAFETY: as the caller promises.
    unsafe {
        let done = (state.py.PyObject_CallFunctionObjArgs)(
            state.register,
            state.tracing,
            state.unwind,
            callback,
            end,
        );
        drop(Owned::new(state.py, done));
    }
}

/// Sets whether frames that exceptions leave have an event at all. Each code object's instructions are looked through
/// when it runs next.
///
/// # Safety
/// The GIL is held and no exception is set.
pub unsafe fn hear_unwinds(hear: bool) {
    let Some(state) = state() else { return };
    let end = std::ptr::null_mut::<PyObject>();
    let events = if hear { state.everywhere } else { state.deaf };
    // SAFETY: as the caller promises.
    unsafe {
        let done =
            (state.py.PyObject_CallFunctionObjArgs)(state.set_events, state.tracing, events, end);
        drop(Owned::new(state.py, done));
    }
}

/// A function that does nothing and one that calls it, and how long that takes when nobody looks; a class with an
/// `__init__`. Beside them a generator that stops twice, a function that drains it, and one that calls what it is given,
/// at once and through another.
pub struct Calibration {
    pub namespace: Owned,
    /// Of [`LOOPS`] calls, in ticks.
    pub bare: u64,
}

/// Calls in one round of calibration, and rounds: the shortest counts. 0.1 ms in all.
pub const LOOPS: u64 = 200;
const ROUNDS: usize = 7;

/// The shortest of a few runs of the calling function, in ticks.
///
/// # Safety
/// The GIL is held; `namespace` is a calibration's.
pub unsafe fn round(py: &Py, namespace: &Owned) -> u64 {
    // SAFETY: the GIL is held; the namespace holds what `calibration` put there.
    unsafe {
        let run = (py.PyDict_GetItemString)(namespace.get(), c"run".as_ptr());
        let mut best = u64::MAX;
        for _ in 0..ROUNDS {
            let from = hot::now();
            let end = std::ptr::null_mut::<PyObject>();
            drop(Owned::new(py, (py.PyObject_CallFunctionObjArgs)(run, end)));
            best = best.min(hot::now().saturating_sub(from));
        }
        best
    }
}

/// Before events are on.
///
/// # Safety
/// The GIL is held.
pub unsafe fn calibration(py: &Py) -> Option<Calibration> {
    let at = py::sym(c"PyRun_String");
    if at.is_null() {
        return None;
    }
    let text = format!(
        "def empty(): pass\ndef run():\n for _ in range({LOOPS}): empty()\nclass Plain:\n __init__ = empty\n\
         def twice():\n yield 1\n yield 2\ndef drain():\n for _ in twice(): pass\n\
         def once(f): f()\ndef again(f): once(f)\n"
    );
    let text = std::ffi::CString::new(text).ok()?;
    // SAFETY: the GIL is held; the function and `Py_file_input` are as in pythonrun.h and compile.h.
    unsafe {
        const FILE_INPUT: std::ffi::c_int = 257;
        let run: unsafe extern "C" fn(
            *const std::ffi::c_char,
            std::ffi::c_int,
            *mut PyObject,
            *mut PyObject,
        ) -> *mut PyObject = std::mem::transmute(at);
        let namespace = Owned::new(py, (py.PyDict_New)())?;
        let builtins = py.module(c"builtins");
        (py.PyDict_SetItemString)(namespace.get(), c"__builtins__".as_ptr(), builtins);
        Owned::new(
            py,
            run(text.as_ptr(), FILE_INPUT, namespace.get(), namespace.get()),
        )?;
        let bare = round(py, &namespace);
        Some(Calibration { namespace, bare })
    }
}

impl Calibration {
    unsafe fn plain(&self, py: &Py) -> name::Plain {
        // SAFETY: the GIL is held; the namespace holds what `calibration` put there.
        unsafe {
            let class = (py.PyDict_GetItemString)(self.namespace.get(), c"Plain".as_ptr());
            name::Plain::of(class)
        }
    }

    /// Once events are on: the same with events, recorded under an id that no reader shows.
    unsafe fn set_cost(&self, py: &Py) {
        // SAFETY: the GIL is held; the namespace holds two functions.
        unsafe {
            for (name, wanted) in [(c"empty", true), (c"run", false)] {
                let function = (py.PyDict_GetItemString)(self.namespace.get(), name.as_ptr());
                let Some(code) = py.attr(function, c"__code__") else {
                    return;
                };
                let known = code::own(py, code.get(), wanted);
                toggle(code.get(), known, wanted);
            }
            let with = round(py, &self.namespace);
            governor::set_cost(with.saturating_sub(self.bare) / LOOPS);
        }
    }
}

/// Sets the events of one code object. Those that were not among them before are on at all places, whatever was switched
/// off there.
///
/// # Safety
/// `code` is a live code object, `events` one of the state's numbers, and the GIL is held.
unsafe fn set_local(state: &State, code: *mut PyObject, events: *mut PyObject) {
    let end = std::ptr::null_mut::<PyObject>();
    // SAFETY: as the caller promises.
    unsafe {
        let set = (state.py.PyObject_CallFunctionObjArgs)(
            state.set_local_events,
            state.tracing,
            code,
            events,
            end,
        );
        drop(Owned::new(state.py, set));
    }
}

/// Switches a code object's events, for the governor. In a burst its calls of native functions are not seen: each of
/// its call sites would have to be switched off again first, which costs more than the burst. When it has calmed down they
/// are.
unsafe fn toggle(code: *mut PyObject, known: *mut Code, on: bool) {
    let Some(state) = state() else { return };
    // SAFETY: a live code object and its record, the GIL held.
    unsafe {
        if let Some(lines) = (*known).lines.filter(|_| !on) {
            lines.interrupt();
        }
        let with_lines = (*known).lines.is_some_and(Lines::are_on);
        let events = match (on, (*known).phase.calm) {
            (true, false) if with_lines => state.frames_lines,
            (true, false) => state.frames,
            (true, true) if with_lines => state.all_lines,
            (true, true) => state.all,
            (false, _) if (*known).brings.is_some() => state.only_return,
            (false, _) => state.nothing,
        };
        set_local(state, code, events);
    }
}

/// Sets a code object's events after its lines were switched on or off.
///
/// # Safety
/// `code` is a live code object and the GIL is held.
pub unsafe fn set_events(code: *mut PyObject) {
    let Some(state) = state() else { return };
    // SAFETY: as the caller promises.
    unsafe {
        let known = code::get(code);
        if known.is_null() || (*known).phase.off {
            return; // they follow when it is recorded again
        }
        if (*known).phase.listed {
            return toggle(code, known, true);
        }
        let on = (*known).lines.is_some_and(Lines::are_on);
        let events = if on { state.all_lines } else { state.all };
        set_local(state, code, events);
    }
}

/// Arms the call sites of a recorded code object again, those too that were switched off; how many of them had shown
/// something. `None` if its calls are not seen.
///
/// # Safety
/// `code` is a live code object, `known` its record, and the GIL is held.
pub unsafe fn arm_calls(code: *mut PyObject, known: *mut Code) -> Option<usize> {
    let state = state().filter(|state| state.native)?;
    // SAFETY: as the caller promises.
    unsafe {
        let phase = (*known).phase;
        if !(*known).wanted || phase.off || phase.listed && !phase.calm {
            return None;
        }
        let (without, with) = match (*known).lines.is_some_and(Lines::are_on) {
            true => (state.frames_lines, state.all_lines),
            false => (state.frames, state.all),
        };
        for events in [without, with] {
            set_local(state, code, events);
        }
        Some((*known).look_again())
    }
}

/// Learns what a code object is and turns its events on.
unsafe fn meet(state: &State, code: *mut PyObject, globals: *mut PyObject) -> *mut Code {
    let py = state.py;
    // SAFETY: a live code object, null or live globals, and the GIL held.
    unsafe {
        let known = code::learn(py, code, globals);
        MET.fetch_add(1, Relaxed);
        let wanted = (*known).wanted;
        if wanted || (*known).brings.is_some() {
            // In a budget, the native calls of what runs once are not worth their events.
            let frames = (*known).once && governor::governs();
            let events = match (wanted, (*known).lines) {
                (true, Some(_)) => state.all_lines,
                (true, None) if frames => state.frames,
                (true, None) => state.all,
                (false, _) => state.only_return,
            };
            set_local(state, code, events);
        }
        known
    }
}

/// Meets the code of a frame that was open before we looked.
///
/// # Safety
/// `frame` is a live frame, `code` its code object, and the GIL is held.
pub unsafe fn adopt(frame: *mut PyObject, code: *mut PyObject) {
    let Some(state) = state() else { return };
    // SAFETY: as the caller promises.
    unsafe {
        if code::get(code).is_null() {
            let globals = state.py.attr(frame, c"f_globals");
            let globals = globals.as_ref().map_or(std::ptr::null_mut(), Owned::get);
            meet(state, code, globals);
        }
    }
}

/// A code object runs for the first time since we look: turns its events on and records this beginning, whose own
/// event has passed.
#[cold]
unsafe fn found(state: &State, code: *mut PyObject, flags: u32) -> *mut PyObject {
    let py = state.py;
    // SAFETY: called by the interpreter with a live code object and the GIL held.
    unsafe {
        if code::get(code).is_null() {
            let known = meet(state, code, (py.PyEval_GetGlobals)());
            if (*known).wanted {
                let time = python::begin(py, known, flags);
                begin_lines(known, time);
                governor::spend(known, time, flags == 0);
            }
        }
        (py.Py_IncRef)(state.disable);
    }
    state.disable
}

/// The code object's record if its frames are recorded now; null if not.
#[inline(always)]
unsafe fn wanted(code: *mut PyObject) -> *mut code::Code {
    // SAFETY: a live code object, the GIL held.
    unsafe {
        let known = code::get(code);
        if known.is_null() || !(*known).wanted || (*known).phase.off {
            std::ptr::null_mut()
        } else {
            known
        }
    }
}

/// A frame begins or goes on, if its lines are measured.
#[inline(always)]
unsafe fn begin_lines(known: *mut Code, time: u64) {
    // SAFETY: the callers' `known` is valid.
    if let Some(lines) = unsafe { (*known).lines } {
        lines::begin(lines, time);
    }
}

/// A frame ends or is suspended, if its lines are measured.
#[inline(always)]
unsafe fn end_lines(known: *mut Code, time: u64) {
    // SAFETY: the callers' `known` is valid.
    if let Some(lines) = unsafe { (*known).lines } {
        lines::end(lines, time);
    }
}

macro_rules! callback {
    ($name:ident($state:ident, $args:ident) $body:block) => {
        unsafe extern "C" fn $name(
            _: *mut PyObject,
            $args: *const *mut PyObject,
            _: usize,
            _: *mut PyObject,
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
    if !known.is_null() && !governor::shed(*args, known, toggle) {
        let time = python::begin(state.py, known, 0);
        begin_lines(known, time);
        governor::spend(known, time, true);
    }
    state.py.none
});

callback!(on_resume(state, args) {
    let known = wanted(*args);
    if !known.is_null() && !governor::shed(*args, known, toggle) {
        let time = python::begin(state.py, known, RESUMED);
        begin_lines(known, time);
        governor::spend(known, time, false);
    }
    state.py.none
});

callback!(on_return(state, args) {
    let time = hot::now();
    let known = code::get(*args);
    if !known.is_null() {
        if let Some(module) = (*known).brings {
            python::is_here(module);
        }
        if (*known).wanted {
            end_lines(known, time);
            python::end(known, 0, time);
        }
    }
    state.py.none
});

callback!(on_yield(state, args) {
    let time = hot::now();
    let known = wanted(*args);
    if !known.is_null() {
        end_lines(known, time);
        python::end(known, SUSPENDED, time);
    }
    state.py.none
});

callback!(on_unwind(state, args) {
    governor::charge_unwind(watch_unwinds);
    let known = wanted(*args);
    if !known.is_null() {
        let time = hot::now();
        (*known).raises = true;
        end_lines(known, time);
        python::end(known, BY_EXCEPTION, time);
    }
    state.py.none
});

callback!(on_line(state, args) {
    let time = hot::now();
    let known = code::get(*args);
    if !known.is_null()
        && let Some(lines) = (*known).lines.filter(|lines| lines.are_on())
    {
        let line = u32::try_from((state.py.PyLong_AsLong)(*args.add(1))).unwrap_or(0);
        lines::at(state.py, *args, lines, line, time, set_events);
    }
    state.py.none
});

callback!(on_call(state, args) {
    let py = state.py;
    let callable = *args.add(2);
    if !state.native || is_python(state, callable) || wrap::wrapped(callable) {
        (py.Py_IncRef)(state.disable);
        return state.disable;
    }
    let offset = py.small_int(*args.add(1));
    if governor::governs() {
        let known = code::get(*args);
        if known.is_null() {
            return py.none;
        }
        let rich = governor::charge_native();
        if (*known).site(offset).is_some_and(|site| site.is_idle(rich)) {
            again::dropped(*args, known);
            (py.Py_IncRef)(state.disable);
            return state.disable;
        }
    }
    python::call(stack(), *args as usize, offset);
    py.none
});

/// Whether a call is none of a native function that matters: the frames of what is called tell all (a Python function, or
/// a class with nothing but a Python `__init__`), or it is ours.
#[inline(always)]
unsafe fn is_python(state: &State, callable: *mut PyObject) -> bool {
    let py = state.py;
    // SAFETY: a live object, and the GIL is held.
    unsafe {
        let kind = (*callable).ob_type;
        kind == py.function_type
            || kind == py.method_type && name::method_is_python(py, callable)
            || kind == py.type_type && name::class_is_python(callable, state.plain)
            || name::is_hidden(py, callable)
    }
}

callback!(on_c_return(state, args) {
    let time = hot::now();
    let (py, callable) = (state.py, *args.add(2));
    let offset = py.small_int(*args.add(1));
    if let Some((start, reentered)) = python::returned(stack(), *args as usize, offset) {
        let known = code::get(*args);
        if known.is_null() {
            return py.none;
        }
        let before = (*known).site(offset).map_or(((0, 0), 0), |site| (site.key, site.id));
        let mut cached = before;
        let ticks = python::native(py, callable, start, time, reentered, &mut cached);
        if (governor::governs() || cached != before)
            && let Some(site) = (*known).site(offset)
        {
            site.saw(ticks);
            (site.key, site.id) = cached;
        }
    }
    py.none
});

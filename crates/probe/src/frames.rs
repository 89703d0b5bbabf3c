//! CPython 3.9 to 3.11 under a budget: the interpreter's own hook for frames (PEP 523).
//!
//! A profile function makes each call four to five times slower, and on 3.11 every instruction too. This hook stands
//! where the interpreter evaluates a frame, so it costs a few ns more than what is recorded, and nothing when it is
//! taken out; [`slices`] decides when that is. A frame that was begun under the hook ends under it, so every span is
//! whole, whatever became of the hook meanwhile. Calls of native functions are not seen.
//!
//! The hook is one pointer in the interpreter. Where another tool has it (torch.compile), it is left alone; a tool that
//! took it while ours was in comes back to ours, which then only passes on.
//!
//! Taken out only here, with the GIL held: the interpreter tests the pointer and then reads it again.

use crate::code;
use crate::governor;
use crate::hot;
use crate::monitor::{self, Calibration};
use crate::py::{self, Owned, Py, PyObject};
use crate::python::{self, BY_EXCEPTION};
use crate::slices::{self, Place};
use inferscope_spool::record::{RESUMED, SUSPENDED};
use std::ffi::{c_int, c_void};
use std::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, AtomicUsize, Ordering::Relaxed,
};

/// `_PyFrameEvalFunction` of pystate.h. The frame is a PyFrameObject, from 3.11 on a _PyInterpreterFrame.
type Eval = unsafe extern "C" fn(*mut c_void, *mut PyObject, c_int) -> *mut PyObject;
type Set = unsafe extern "C" fn(*mut c_void, Eval);
type Get = unsafe extern "C" fn(*mut c_void) -> *mut c_void;
type Fetch = unsafe extern "C" fn(*mut *mut PyObject, *mut *mut PyObject, *mut *mut PyObject);
type Restore = unsafe extern "C" fn(*mut PyObject, *mut PyObject, *mut PyObject);

static INTERPRETER: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static DEFAULT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static SET: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static GET: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static FETCH: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static RESTORE: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
/// Minor version of the interpreter.
static MINOR: AtomicU32 = AtomicU32::new(0);
/// Frames' offset of their globals.
static GLOBALS: AtomicUsize = AtomicUsize::new(0);
/// 3.11: code objects' offset of their instructions.
static INSTRUCTIONS: AtomicIsize = AtomicIsize::new(0);

/// Where frames keep what is needed, in bytes: frameobject.h of 3.9 and 3.10, pycore_frame.h of 3.11. Checked at the
/// start, with frames whose answers are known.
const CODE: usize = 32;
const GLOBALS_3_11: usize = 8;
const GLOBALS_BEFORE: usize = 48;
/// `f_lasti`, an int.
const LAST_3_9: usize = 104;
const LAST_3_10: usize = 96;
/// 3.9: `f_stacktop`, null but in a frame that is suspended.
const STACK_TOP_3_9: usize = 72;
/// 3.10: `f_state`, and 3.11: the generator's `gi_frame_state`, in front of its frame: -1 if suspended.
const STATE_3_10: isize = 108;
const STATE_3_11: isize = -5;
/// 3.11: `prev_instr`.
const PREVIOUS_3_11: usize = 56;
/// 3.11: the instruction that makes a generator of a call (opcode.h).
const RETURN_GENERATOR: u8 = 75;

/// Bodies of modules that run, in all threads: another thread that runs meanwhile is taken to import too.
static IMPORTING: AtomicU32 = AtomicU32::new(0);

/// Puts the hook in, if frames are laid out as we know them.
///
/// # Errors
/// In words, what is not as it should be.
///
/// # Safety
/// The GIL is held.
pub unsafe fn start(py: &'static Py, budget: f64) -> Result<(), String> {
    let find = |name: &std::ffi::CStr, at: &AtomicPtr<c_void>| {
        let found = py::sym(name);
        at.store(found, Relaxed);
        !found.is_null()
    };
    let all = find(c"_PyEval_EvalFrameDefault", &DEFAULT)
        && find(c"_PyInterpreterState_SetEvalFrameFunc", &SET)
        && find(c"_PyInterpreterState_GetEvalFrameFunc", &GET)
        && find(c"PyErr_Fetch", &FETCH)
        && find(c"PyErr_Restore", &RESTORE);
    if !all {
        return Err("this Python has no hook for frames".into());
    }
    let three_eleven = py.version == (3, 11);
    GLOBALS.store(
        if three_eleven {
            GLOBALS_3_11
        } else {
            GLOBALS_BEFORE
        },
        Relaxed,
    );
    MINOR.store(py.version.1, Relaxed);
    // SAFETY: the GIL is held.
    unsafe {
        INTERPRETER.store(
            (py.PyThreadState_GetInterpreter)((py.PyThreadState_Get)()),
            Relaxed,
        );
        if current() != DEFAULT.load(Relaxed) {
            return Err("another tool has the hook for frames".into());
        }
        let calibration = monitor::calibration(py).ok_or("it cannot be measured")?;
        check(py, &calibration)?;
        governor::start_of_slices(budget);
        slices::start(DEFAULT.load(Relaxed) as usize);
        put(eval);
        measure(py, &calibration);
    }
    Ok(())
}

/// The function that the interpreter evaluates frames with.
fn current() -> *mut c_void {
    let get = GET.load(Relaxed);
    // SAFETY: CPython's function of that name, which reads one word of an interpreter that never ends before us.
    unsafe { std::mem::transmute::<*mut c_void, Get>(get)(INTERPRETER.load(Relaxed)) }
}

fn put(function: Eval) {
    let set = SET.load(Relaxed);
    // SAFETY: CPython's function of that name, which stores one word.
    unsafe { std::mem::transmute::<*mut c_void, Set>(set)(INTERPRETER.load(Relaxed), function) }
}

fn default() -> Eval {
    // SAFETY: found by `start`, CPython's function of that name.
    unsafe { std::mem::transmute::<*mut c_void, Eval>(DEFAULT.load(Relaxed)) }
}

/// Puts the hook in; false if another tool has its place. Any thread may, in a signal handler too.
pub fn arm() -> bool {
    let found = current();
    if found == DEFAULT.load(Relaxed) {
        put(eval);
        return true;
    }
    found == eval as *mut c_void
}

/// Takes the hook out. With the GIL held, and not from a signal handler.
pub fn disarm() {
    if current() == eval as *mut c_void {
        put(default());
    }
}

/// A word of a frame.
#[inline(always)]
unsafe fn word(of: *mut PyObject, offset: usize) -> *mut PyObject {
    // SAFETY: a live frame, which is larger.
    unsafe { of.byte_add(offset).cast::<*mut PyObject>().read() }
}

/// Where a frame of a generator or coroutine is before it is evaluated.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// 3.11: the call that makes it.
    Made,
    First,
    Resumed,
}

unsafe fn stage(frame: *mut PyObject, code: *mut PyObject) -> Stage {
    // SAFETY: a live frame of that code, laid out as `check` saw it.
    unsafe {
        let last = match MINOR.load(Relaxed) {
            9 => frame.byte_add(LAST_3_9).cast::<c_int>().read(),
            10 => frame.byte_add(LAST_3_10).cast::<c_int>().read(),
            _ => {
                let at = word(frame, PREVIOUS_3_11).cast::<u8>().cast_const();
                let first = code
                    .byte_offset(INSTRUCTIONS.load(Relaxed))
                    .cast::<u8>()
                    .cast_const();
                return if at < first {
                    Stage::Made
                } else if *at == RETURN_GENERATOR {
                    Stage::First
                } else {
                    Stage::Resumed
                };
            }
        };
        if last < 0 {
            Stage::First
        } else {
            Stage::Resumed
        }
    }
}

/// Whether a frame of a generator or coroutine that was evaluated is suspended now.
unsafe fn is_suspended(frame: *mut PyObject) -> bool {
    // SAFETY: whoever resumed the frame keeps it until after the hook; laid out as `check` saw it.
    unsafe {
        match MINOR.load(Relaxed) {
            9 => !word(frame, STACK_TOP_3_9).is_null(),
            10 => frame.byte_offset(STATE_3_10).cast::<i8>().read() == -1,
            _ => frame.byte_offset(STATE_3_11).cast::<i8>().read() == -1,
        }
    }
}

/// Where the machine stack is: the same for all that one evaluation loop calls, but for a few words.
#[inline(always)]
pub fn stack() -> usize {
    let here = 0u8;
    std::ptr::addr_of!(here) as usize
}

/// The hook.
unsafe extern "C" fn eval(
    state: *mut c_void,
    frame: *mut PyObject,
    throwing: c_int,
) -> *mut PyObject {
    let at = hot::thread();
    // SAFETY: called by the interpreter with the GIL held, a live frame, and, if `throwing`, an exception set.
    unsafe {
        if at.is_null() {
            return default()(state, frame, throwing);
        }
        if slices::is_resting() {
            return passing(state, frame, throwing, at);
        }
        let time = hot::now();
        match slices::records(at, time, stack(), throwing == 0) {
            true => recorded(state, frame, throwing, time, slices::now()),
            false if slices::is_thin() => passing(state, frame, throwing, at),
            false => default()(state, frame, throwing),
        }
    }
}

/// Evaluates a frame that is recorded only if it is a coroutine's, or a function's that is seldom called.
#[inline(always)]
unsafe fn passing(
    state: *mut c_void,
    frame: *mut PyObject,
    throwing: c_int,
    at: *mut hot::Thread,
) -> *mut PyObject {
    // SAFETY: as in `eval`; as in `recorded`.
    unsafe {
        let code = word(frame, CODE);
        let mut known = code::get(code);
        if known.is_null()
            && throwing == 0
            && let Some(py) = py::get()
        {
            known = code::learn(py, code, word(frame, GLOBALS.load(Relaxed)));
        }
        if !known.is_null()
            && (*known).wanted
            && ((*known).coroutine || !(*known).heat.is_hot())
            && hot::on()
        {
            let time = hot::now();
            slices::seldom(at, time);
            return recorded(state, frame, throwing, time, Place::Between);
        }
        slices::pass(at, stack());
        default()(state, frame, throwing)
    }
}

/// Evaluates a frame between two records.
#[inline(always)]
unsafe fn recorded(
    state: *mut c_void,
    frame: *mut PyObject,
    throwing: c_int,
    time: u64,
    place: Place,
) -> *mut PyObject {
    // SAFETY: as in `eval`. The frame, which its caller keeps, keeps the code, and that keeps what is known of it.
    unsafe {
        let Some(py) = py::get() else {
            return default()(state, frame, throwing);
        };
        let code = word(frame, CODE);
        let mut known = code::get(code);
        if known.is_null() && throwing == 0 {
            known = code::learn(py, code, word(frame, GLOBALS.load(Relaxed)));
        }
        if known.is_null() || !(*known).wanted {
            let result = default()(state, frame, throwing);
            if !known.is_null() && !result.is_null() {
                brought(known);
            }
            return result;
        }
        let suspends = (*known).suspends;
        if (*known).coroutine {
            slices::coroutine();
        }
        let mut resumed = false;
        if suspends {
            match stage(frame, code) {
                Stage::Made => return default()(state, frame, throwing),
                found => resumed = found == Stage::Resumed,
            }
        }
        let flags = if resumed { RESUMED } else { 0 };
        if throwing == 0 {
            python::begin(py, known, flags);
        } else {
            begin_throwing(py, known, flags);
        }
        let imports = (*known).once;
        if imports {
            IMPORTING.fetch_add(1, Relaxed);
        }
        let importing = IMPORTING.load(Relaxed) > 0;
        let own = hot::now().saturating_sub(time);
        slices::spend(known, own, time, importing, place);
        let trial = match place {
            Place::Slice => {
                slices::note(known, code, !resumed);
                slices::trial(known)
            }
            Place::Whole | Place::Between => None,
        };
        let begun = if trial.is_some() { hot::now() } else { 0 };
        let result = default()(state, frame, throwing);
        let end = hot::now();
        if imports && IMPORTING.fetch_sub(1, Relaxed) == 1 {
            slices::after_import(end);
        }
        if let Some(trial) = trial {
            slices::tried(known, trial, end.saturating_sub(begun));
        }
        let flags = if result.is_null() {
            BY_EXCEPTION
        } else if suspends && is_suspended(frame) {
            SUSPENDED
        } else {
            0
        };
        python::end(known, flags, end);
        if !result.is_null() {
            brought(known);
        }
        result
    }
}

/// A frame of `known` has returned.
#[inline(always)]
unsafe fn brought(known: *mut code::Code) {
    // SAFETY: as in `eval`.
    unsafe {
        if let Some(module) = (*known).brings {
            python::is_here(module);
        }
    }
}

/// The same as [`python::begin`] while an exception is on its way into the frame.
#[cold]
unsafe fn begin_throwing(py: &Py, known: *mut code::Code, flags: u32) {
    // SAFETY: as in `eval`; CPython's functions of these names, which give and take the references.
    unsafe {
        let fetch: Fetch = std::mem::transmute(FETCH.load(Relaxed));
        let restore: Restore = std::mem::transmute(RESTORE.load(Relaxed));
        let mut error = [std::ptr::null_mut::<PyObject>(); 3];
        let [kind, value, trace] = &mut error;
        fetch(kind, value, trace);
        python::begin(py, known, flags);
        restore(error[0], error[1], error[2]);
    }
}

/// What `check` expects and has found.
static EXPECTED: AtomicPtr<PyObject> = AtomicPtr::new(std::ptr::null_mut());
static NAMESPACE: AtomicPtr<PyObject> = AtomicPtr::new(std::ptr::null_mut());
static IS_KNOWN: AtomicBool = AtomicBool::new(false);
/// One digit a stage that a generator went through.
static STAGES: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn look(
    state: *mut c_void,
    frame: *mut PyObject,
    throwing: c_int,
) -> *mut PyObject {
    // SAFETY: called by the interpreter; a frame is larger than what is read of it here, whatever its layout.
    unsafe {
        let code = word(frame, CODE);
        let expected = EXPECTED.load(Relaxed);
        if code != expected || word(frame, GLOBALS.load(Relaxed)) != NAMESPACE.load(Relaxed) {
            return default()(state, frame, throwing);
        }
        if !IS_KNOWN.load(Relaxed) && MINOR.load(Relaxed) >= 11 {
            // A new frame stands one unit, two bytes, in front of its first instruction.
            let at = word(frame, PREVIOUS_3_11) as isize + 2 - code as isize;
            // A code object is 200 bytes and what it does.
            if !(16..400).contains(&at) {
                return default()(state, frame, throwing);
            }
            INSTRUCTIONS.store(at, Relaxed);
        }
        let found = stage(frame, code);
        let result = default()(state, frame, throwing);
        let digit = match (found, is_suspended_if_resumable(found, frame)) {
            (Stage::Made, _) => 0,
            (Stage::First, false) => 1,
            (Stage::First, true) => 2,
            (Stage::Resumed, true) => 3,
            (Stage::Resumed, false) => 4,
        };
        if digit > 0 {
            STAGES.store(STAGES.load(Relaxed) * 10 + digit, Relaxed);
        }
        IS_KNOWN.store(true, Relaxed);
        result
    }
}

unsafe fn is_suspended_if_resumable(found: Stage, frame: *mut PyObject) -> bool {
    // SAFETY: as in `is_suspended`; a frame that only made a generator is gone.
    found != Stage::Made && unsafe { is_suspended(frame) }
}

/// Runs a generator that stops twice, and looks at its frame.
unsafe fn check(py: &Py, calibration: &Calibration) -> Result<(), String> {
    let unknown = || "its frames are laid out in an unknown way".to_owned();
    // SAFETY: the GIL is held; the namespace holds what `monitor::calibration` put there.
    unsafe {
        let namespace = calibration.namespace.get();
        let item = |name: &std::ffi::CStr| (py.PyDict_GetItemString)(namespace, name.as_ptr());
        let code = py.attr(item(c"twice"), c"__code__").ok_or_else(unknown)?;
        EXPECTED.store(code.get(), Relaxed);
        NAMESPACE.store(namespace, Relaxed);
        put(look);
        let end = std::ptr::null_mut::<PyObject>();
        drop(Owned::new(
            py,
            (py.PyObject_CallFunctionObjArgs)(item(c"drain"), end),
        ));
        put(default());
        // Begun and suspended, resumed and suspended, resumed and over.
        if IS_KNOWN.load(Relaxed) && STAGES.load(Relaxed) == 234 {
            Ok(())
        } else {
            Err(unknown())
        }
    }
}

/// Finds what a call costs beyond what the hook itself sees.
unsafe fn measure(py: &Py, calibration: &Calibration) {
    // SAFETY: the GIL is held; the namespace holds two functions.
    unsafe {
        for (name, wanted) in [(c"empty", true), (c"run", false)] {
            let function = (py.PyDict_GetItemString)(calibration.namespace.get(), name.as_ptr());
            let Some(code) = py.attr(function, c"__code__") else {
                return;
            };
            code::own(py, code.get(), wanted);
        }
        let (with, own) = slices::own_time(|| monitor::round(py, &calibration.namespace));
        let all = with.saturating_sub(calibration.bare) / monitor::LOOPS;
        slices::set_cost(all, own);
    }
}

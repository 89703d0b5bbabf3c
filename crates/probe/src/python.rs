//! What the two Python doors share: frames and calls as records, threads' names, the garbage collector, forks.

use crate::code::{self, Code, Pending};
use crate::governor;
use crate::hot::{self, Thread};
use crate::py::{self, FastCall, Owned, Py, PyObject};
use crate::wrap::{self, Module};
use crate::{depth, frames, gil, monitor, name, profile, task};
use inferscope_spool::record::{RAISED, RESUMED, Record, SpanKind, deep};
use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Looks for a thread's name, at its first Python calls, before the system's name is taken.
const NAME_TRIES: u32 = 64;

/// Begins recording the interpreter in this process.
///
/// # Errors
/// In words, what is missing.
///
/// # Safety
/// The GIL is held and [`hot::start`] has succeeded.
pub unsafe fn start(py: &'static Py) -> Result<(), String> {
    code::reserve();
    for (at, id) in GENERATIONS.iter().enumerate() {
        id.store(hot::define(&format!("gen{at}"), "", 0), Relaxed);
    }
    // SAFETY: as the caller promises, for all calls below.
    unsafe {
        gil::find(py);
        watch_forks(py);
        watch_end(py);
        if hot::run().is_some_and(|run| !run.settings.python) {
            return Ok(());
        }
        watch_collector(py);
        let budget = hot::run().map_or(0.0, |run| run.settings.budget);
        if py.version >= (3, 12) {
            monitor::start(py)?
        } else if budget == 0.0 {
            profile::start(py)?
        } else if let Err(why) = frames::start(py, budget) {
            hot::note(&format!(
                "no budget: {why}; every call is recorded, at whatever cost"
            ));
            profile::start(py)?
        }
        for module in wrap::MODULES {
            if !py.module(module.name()).is_null() {
                is_here(module);
            }
        }
        if hot::run().is_some_and(|run| run.settings.attached) {
            tell_open_frames(py, true);
        }
    }
    Ok(())
}

/// Looks no more, for good: the recorder is gone. For the helper, which has no GIL.
pub fn stop() {
    unsafe extern "C" fn on_stop(_: *mut c_void) -> c_int {
        // SAFETY: a pending call runs with the GIL held.
        unsafe { monitor::stop() };
        0
    }
    if py::get().is_some_and(|py| py.version >= (3, 12)) {
        pending(on_stop);
    }
}

/// A frame of `known` begins, or goes on after a suspension. Returns when, 0 if nothing was recorded.
///
/// # Safety
/// `known` is valid and the GIL is held.
#[inline(always)]
pub unsafe fn begin(py: &Py, known: *mut Code, flags: u32) -> u64 {
    let at = hot::thread();
    if at.is_null() {
        return 0;
    }
    let mut flow = 0;
    // SAFETY: valid as the caller promises, and this thread's own state; each access ends before the next call.
    let (id, depth) = unsafe {
        let depth = depth::get(py);
        (*at).starts = (*at).starts.wrapping_add(1);
        if (*known).coroutine {
            flow = begin_coroutine(py, known, at, flags, depth);
        }
        if !(*at).named && (*at).name_tries < NAME_TRIES {
            find_name(py, at);
        }
        ((*known).id, depth)
    };
    if !hot::on() {
        return 0;
    }
    let time = hot::now();
    hot::write(&Record::Begin {
        time,
        id,
        flags: flags | governor::loose() | deep(depth),
        flow,
    });
    time
}

#[cold]
unsafe fn begin_coroutine(
    py: &Py,
    known: *mut Code,
    at: *mut Thread,
    flags: u32,
    depth: u32,
) -> u64 {
    // SAFETY: as in `begin`; asking for the task may run code that records, so no reference is held over it.
    unsafe {
        if depth != 0 && depth <= (*at).outermost {
            (*at).coroutines = 0; // exceptions left them, unseen
        }
        (*at).coroutines += 1;
        if (*at).coroutines > 1 {
            return 0;
        }
        (*at).outermost = depth;
        (*known).outermost = true;
        let flow = task::enter(py, flags & RESUMED != 0);
        (*at).flow = flow;
        flow
    }
}

/// A frame of `known` ends or is suspended, at `time`.
///
/// # Safety
/// `known` is valid and the GIL is held.
#[inline(always)]
pub unsafe fn end(known: *const Code, flags: u32, time: u64) {
    // SAFETY: valid as the caller promises.
    let (id, coroutine) = unsafe { ((*known).id, (*known).coroutine) };
    if coroutine {
        // SAFETY: the GIL is held.
        end_coroutine(py::get().map_or(0, |py| unsafe { depth::get(py) }));
    }
    if hot::on() {
        hot::write(&Record::End { time, id, flags });
    }
}

#[cold]
fn end_coroutine(depth: u32) {
    let at = hot::thread();
    if at.is_null() {
        return;
    }
    // SAFETY: this thread's own state, and nothing called here records.
    let thread = unsafe { &mut *at };
    thread.coroutines = match depth > thread.outermost || depth == 0 {
        true => thread.coroutines.saturating_sub(1),
        false => 0,
    };
    if thread.coroutines == 0 {
        thread.flow = 0;
    }
}

/// Notes that a native call begins.
#[inline]
pub fn call(stack: usize, code: usize, offset: i64) {
    let at = hot::thread();
    if at.is_null() {
        return;
    }
    // SAFETY: this thread's own state, and nothing called here records.
    let thread = unsafe { &mut *at };
    // What was called from as deep or deeper has ended without telling.
    while thread
        .pending
        .last()
        .is_some_and(|last| last.stack <= stack)
    {
        thread.pending.pop();
    }
    let pending = Pending {
        stack,
        code,
        offset,
        start: 0,
        starts: thread.starts,
    };
    thread.pending.push(pending);
    if let Some(last) = thread.pending.last_mut() {
        last.start = hot::now();
    }
}

/// How far apart two callbacks' stacks are at most when one evaluation loop makes them, in bytes: a loop within a
/// native call within a loop is over 500 further down.
const SAME_STACK: usize = 256;

/// Takes the native call that ended off the list: its start, and whether Python frames began meanwhile.
#[inline]
pub fn returned(stack: usize, code: usize, offset: i64) -> Option<(u64, bool)> {
    let at = hot::thread();
    if at.is_null() {
        return None;
    }
    // SAFETY: this thread's own state, and nothing called here records.
    let thread = unsafe { &mut *at };
    while let Some(&last) = thread.pending.last() {
        let same = last.stack.abs_diff(stack) <= SAME_STACK;
        if same && last.code == code && last.offset == offset {
            thread.pending.pop();
            return Some((last.start, thread.starts != last.starts));
        }
        if last.stack > stack || same {
            return None; // a call from further out; this one was not noted
        }
        thread.pending.pop();
    }
    None
}

/// Records a native call that is worth it: with a budget, one of a µs or more. Returns the ticks that count for its
/// call site.
///
/// # Safety
/// `callable` is live and the GIL is held.
pub unsafe fn native(
    py: &Py,
    callable: *mut PyObject,
    start: u64,
    end: u64,
    reentered: bool,
    cached: &mut ((usize, usize), u32),
) -> u64 {
    let dur = end.saturating_sub(start);
    // SAFETY: as the caller promises.
    unsafe {
        if name::is_hidden(py, callable) {
            return 0;
        }
        if reentered && name::may_be_python(py, callable) {
            return 0; // a class's __init__, an object's __call__: the Python frames say what happened
        }
        if (dur >= hot::micro() || !governor::governs()) && hot::on() {
            let key = name::key(py, callable);
            if cached.0 != key {
                *cached = (key, name::id(py, callable, key));
            }
            if cached.1 == 0 {
                return 0;
            }
            hot::native(start, dur, cached.1);
        }
    }
    dur
}

/// The module's own body has run: its functions are there.
///
/// # Safety
/// The GIL is held.
pub unsafe fn is_here(module: Module) {
    if hot::run().is_some_and(|run| run.settings.wrap) {
        // SAFETY: as the caller promises.
        unsafe { module.install() };
    }
}

/// Looks whether modules whose functions are wrapped have been imported meanwhile: for a door that does not see every
/// return.
///
/// # Safety
/// The GIL is held and no exception is set.
pub unsafe fn look_for_modules(py: &Py) {
    for wrapped in wrap::MODULES.into_iter().filter(|one| !one.is_done()) {
        // SAFETY: as the caller promises.
        unsafe {
            let module = py.module(wrapped.name());
            if !module.is_null()
                && let Some(spec) = py.attr(module, c"__spec__")
                && py.attr_int(spec.get(), c"_initializing") == Some(0)
            {
                is_here(wrapped);
            }
        }
    }
}

/// Says where the thread's state is, and names it if threading knows it by now, without making a Thread object for it.
#[cold]
unsafe fn find_name(py: &Py, at: *mut Thread) {
    // SAFETY: the GIL is held; no reference to the thread's state is kept over a call into Python.
    unsafe {
        if (*at).name_tries == 0 {
            gil::tell_thread(py);
        }
        if libc::gettid() == libc::getpid() {
            hot::name_thread("MainThread");
            return;
        }
        (*at).name_tries += 1;
        let threading = py.module(c"threading");
        if threading.is_null() {
            return;
        }
        let found = (|| {
            let active = py.attr(threading, c"_active")?;
            let ident = Owned::new(
                py,
                (py.PyLong_FromUnsignedLong)((py.PyThread_get_thread_ident)()),
            )?;
            let thread = (py.PyDict_GetItemWithError)(active.get(), ident.get());
            if thread.is_null() {
                (py.PyErr_Clear)();
                return None;
            }
            py.attr_text(thread, c"_name")
        })();
        if let Some(name) = found {
            hot::name_thread(&name);
        }
    }
}

static GENERATIONS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

unsafe fn watch_collector(py: &Py) {
    // SAFETY: the GIL is held.
    unsafe {
        let module = Owned::new(py, (py.PyImport_ImportModule)(c"gc".as_ptr()));
        let Some(callbacks) = module.and_then(|module| py.attr(module.get(), c"callbacks")) else {
            return;
        };
        if let Some(ours) = py.function(c"inferscope_gc", on_collector, std::ptr::null_mut())
            && (py.PyList_Append)(callbacks.get(), ours.get()) != 0
        {
            (py.PyErr_Clear)();
        }
    }
}

/// `gc.callbacks` entry: (phase, info).
unsafe extern "C" fn on_collector(
    _: *mut PyObject,
    args: *const *mut PyObject,
    count: isize,
) -> *mut PyObject {
    let Some(py) = py::get() else {
        return std::ptr::null_mut();
    };
    let at = hot::thread();
    // SAFETY: called by the interpreter with `count` live arguments and the GIL held.
    unsafe {
        if count == 2 && !at.is_null() {
            let stop = py.text(*args).is_some_and(|phase| phase == "stop");
            if !stop {
                (*at).gc_start = hot::now();
            } else if (*at).gc_start != 0 {
                let start = std::mem::take(&mut (*at).gc_start);
                let dur = hot::now().saturating_sub(start);
                let number = |key: &CStr| {
                    let found = (py.PyDict_GetItemString)(*args.add(1), key.as_ptr());
                    if found.is_null() {
                        0
                    } else {
                        (py.PyLong_AsLong)(found).max(0) as u64
                    }
                };
                let generation = number(c"generation").min(2) as usize;
                if hot::on() {
                    let id = GENERATIONS[generation].load(Relaxed);
                    hot::span(SpanKind::Gc, start, dur, id, number(c"collected"));
                }
            }
        }
        py.new_none()
    }
}

/// Lets the helper end before a fork: Python warns of forks in programs with more than one thread.
unsafe fn watch_forks(py: &Py) {
    unsafe extern "C" fn before(
        _: *mut PyObject,
        _: *const *mut PyObject,
        _: isize,
    ) -> *mut PyObject {
        hot::stop_helper();
        // SAFETY: called by the interpreter with the GIL held.
        py::get().map_or(std::ptr::null_mut(), |py| unsafe { py.new_none() })
    }
    unsafe extern "C" fn after(
        _: *mut PyObject,
        _: *const *mut PyObject,
        _: isize,
    ) -> *mut PyObject {
        hot::start_helper_soon();
        // SAFETY: called by the interpreter with the GIL held.
        py::get().map_or(std::ptr::null_mut(), |py| unsafe { py.new_none() })
    }
    // SAFETY: the GIL is held.
    unsafe {
        let module = py.module(c"posix");
        if module.is_null() {
            return;
        }
        let hook = |key: &CStr, name: &'static CStr, function: FastCall| {
            let register = py.attr(module, c"register_at_fork")?;
            let function = py.function(name, function, std::ptr::null_mut())?;
            let (none, named) = (
                Owned::new(py, (py.PyTuple_New)(0))?,
                Owned::new(py, (py.PyDict_New)())?,
            );
            (py.PyDict_SetItemString)(named.get(), key.as_ptr(), function.get());
            Owned::new(
                py,
                (py.PyObject_Call)(register.get(), none.get(), named.get()),
            )
        };
        hook(c"before", c"inferscope_before_fork", before);
        hook(c"after_in_parent", c"inferscope_after_fork", after);
    }
}

/// Learns of the interpreter's end before it begins.
unsafe fn watch_end(py: &Py) {
    unsafe extern "C" fn over(
        _: *mut PyObject,
        _: *const *mut PyObject,
        _: isize,
    ) -> *mut PyObject {
        governor::over();
        // SAFETY: called by the interpreter with the GIL held.
        py::get().map_or(std::ptr::null_mut(), |py| unsafe { py.new_none() })
    }
    // SAFETY: the GIL is held; `atexit` is built in.
    unsafe {
        let Some(atexit) = Owned::new(py, (py.PyImport_ImportModule)(c"atexit".as_ptr())) else {
            return;
        };
        if let Some(register) = py.attr(atexit.get(), c"register")
            && let Some(function) = py.function(c"inferscope_over", over, std::ptr::null_mut())
        {
            let end = std::ptr::null_mut::<PyObject>();
            drop(Owned::new(
                py,
                (py.PyObject_CallFunctionObjArgs)(register.get(), function.get(), end),
            ));
        }
    }
}

/// Writes the beginnings of the frames that are open on this thread now: for a recording that begins late. Called `from_script`, those
/// of the script that had us start are left out: up to its module's.
///
/// # Safety
/// The GIL is held.
pub unsafe fn tell_open_frames(py: &Py, from_script: bool) {
    // SAFETY: as the caller promises.
    let ids = unsafe {
        let get = py.attr(py.module(c"sys"), c"_getframe");
        let mut frame = get.and_then(|get| {
            Owned::new(
                py,
                (py.PyObject_CallFunctionObjArgs)(get.get(), std::ptr::null_mut::<PyObject>()),
            )
        });
        let mut ids = Vec::new();
        let mut ours = from_script;
        while let Some(this) = frame {
            if let Some(found) = Owned::new(py, (py.PyFrame_GetCode)(this.get())) {
                if !ours && hot::run().is_some_and(|run| run.settings.attached) {
                    monitor::adopt(this.get(), found.get());
                }
                let name = py.attr_text(found.get(), c"co_name");
                ours &= name.is_some_and(|name| name != "<module>");
                let known = code::get(found.get());
                if !known.is_null() && (*known).wanted {
                    ids.push((*known).id);
                }
            }
            frame = py
                .attr(this.get(), c"f_back")
                .filter(|back| back.get() != py.none);
        }
        ids
    };
    let time = hot::now();
    for &id in ids.iter().rev() {
        hot::write(&Record::Begin {
            time,
            id,
            flags: 0,
            flow: 0,
        });
    }
}

/// Asks the main thread to tell its open frames when it next runs Python; for the helper, which has no GIL.
pub fn ask_for_open_frames() {
    unsafe extern "C" fn tell(_: *mut c_void) -> c_int {
        if let Some(py) = py::get() {
            // SAFETY: a pending call runs with the GIL held.
            unsafe { tell_open_frames(py, false) };
        }
        0
    }
    pending(tell);
}

/// Has the main thread call this when it next runs Python.
fn pending(call: unsafe extern "C" fn(*mut c_void) -> c_int) {
    let at = py::sym(c"Py_AddPendingCall");
    if !at.is_null() {
        // SAFETY: CPython's function of that name; it may be called from any thread, without the GIL.
        unsafe {
            let add: unsafe extern "C" fn(
                unsafe extern "C" fn(*mut c_void) -> c_int,
                *mut c_void,
            ) -> c_int = std::mem::transmute(at);
            add(call, std::ptr::null_mut());
        }
    }
}

/// The flags of an end that an exception made.
pub const BY_EXCEPTION: u32 = RAISED;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_calls_pair_by_their_stack() {
        call(5000, 1, 10);
        call(3000, 2, 20); // within the first
        assert_eq!(returned(3000, 2, 22), None, "another call of the same loop");
        assert!(returned(3010, 2, 20).is_some_and(|(_, reentered)| !reentered));
        call(3000, 3, 30); // never returns: its loop was left by an exception we were not told of
        assert!(returned(4990, 1, 10).is_some());
        assert_eq!(returned(5000, 1, 10), None);
        call(5000, 1, 10);
        call(5000, 1, 12); // the same loop goes on, so the first has ended
        assert!(returned(5000, 1, 12).is_some());
        assert_eq!(returned(5000, 1, 10), None);
    }
}

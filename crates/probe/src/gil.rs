//! Where the interpreter's GIL is, and where it says who has it: for the recorder, which sees from outside at which
//! address a thread waits, and looks up there whose turn it is.
//!
//! No private layout is used. The GIL lies in `_PyRuntime` (CPython 3.9 to 3.14; that of a subinterpreter with a GIL of
//! its own does not, and is taken for a lock), whose size the symbol table has. The word in it that names the holder
//! is found by trying: two threads take turns, and one word alone always points to the state of the one that had the
//! GIL last.

use crate::hot;
use crate::py::{self, Py};
use inferscope_spool::record::Record;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;

/// Start, end and holder's word as [`Record::Gil`] has them; the start is 0 until they are known.
static GIL: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// What the recorder needs to know; `None` before [`find`].
pub fn record() -> Option<Record<'static>> {
    let [start, end, holder] = [0, 1, 2].map(|at| GIL[at].load(Relaxed));
    (start != 0).then_some(Record::Gil { start, end, holder })
}

/// Writes where this thread's state is.
///
/// # Safety
/// The GIL is held.
pub unsafe fn tell_thread(py: &Py) {
    hot::write_process(&Record::State {
        // SAFETY: no arguments, cannot fail.
        tid: unsafe { libc::gettid() } as u64,
        // SAFETY: the GIL is held.
        address: unsafe { (py.PyThreadState_Get)() } as u64,
    });
}

/// Finds the GIL and writes where it is. Gives it away for a moment.
///
/// # Safety
/// The GIL is held.
pub unsafe fn find(py: &'static Py) {
    let Some((start, end)) = py::extent(c"_PyRuntime") else {
        hot::note("threads that wait for the GIL are not told from others: _PyRuntime has no size");
        return;
    };
    // SAFETY: as the caller promises; the range is that of one object of the interpreter.
    let holder = unsafe { holder(py, start, end) };
    if holder.is_none() {
        hot::note("who holds the GIL is not known: its place was not found");
    }
    for (place, value) in GIL.iter().zip([start, end, holder.unwrap_or(0)]) {
        place.store(value, Relaxed);
    }
    if let Some(record) = record() {
        hot::write_process(&record);
    }
}

/// The functions of the C API that give the GIL away and take it.
struct Turns {
    save: unsafe extern "C" fn() -> *mut c_void,
    restore: unsafe extern "C" fn(*mut c_void),
    ensure: unsafe extern "C" fn() -> c_int,
    release: unsafe extern "C" fn(c_int),
}

impl Turns {
    fn find() -> Option<Turns> {
        let known = |name| Some(py::sym(name)).filter(|at| !at.is_null());
        // SAFETY: CPython's functions of these names; PyGILState_STATE is an enum, an int.
        unsafe {
            Some(Turns {
                save: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *mut c_void>(
                    known(c"PyEval_SaveThread")?,
                ),
                restore: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(
                    known(c"PyEval_RestoreThread")?,
                ),
                ensure: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(known(
                    c"PyGILState_Ensure",
                )?),
                release: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int)>(known(
                    c"PyGILState_Release",
                )?),
            })
        }
    }
}

/// The words at `places` that hold `value` now.
///
/// # Safety
/// The addresses are those of aligned, mapped memory.
unsafe fn holding(places: impl Iterator<Item = u64>, value: u64) -> Vec<u64> {
    // SAFETY: as the caller promises; volatile, since other threads write there.
    places
        .filter(|&at| unsafe { std::ptr::read_volatile(at as *const u64) } == value)
        .collect()
}

/// The address of the word that points to the state of the thread which has, or had last, the GIL.
///
/// # Safety
/// The GIL is held; `start` to `end` is mapped.
unsafe fn holder(py: &'static Py, start: u64, end: u64) -> Option<u64> {
    let turns = Turns::find()?;
    // SAFETY: as the caller promises; each thread takes the GIL with its own state, and gives it away before it waits
    // for the other.
    unsafe {
        let mine = (py.PyThreadState_Get)() as u64;
        let words = (start.next_multiple_of(8)..end & !7).step_by(8);
        let first = holding(words, mine);
        let (found, to_me) = mpsc::channel();
        let (go, to_other) = mpsc::channel::<()>();
        let other = move || {
            let Some(turns) = Turns::find() else { return };
            let held = (turns.ensure)();
            let theirs = (py.PyThreadState_Get)() as u64;
            let second = holding(first.into_iter(), theirs);
            let state = (turns.save)();
            // Nobody has the GIL now: a word that says who had it last still does.
            let _ = found.send(holding(second.into_iter(), theirs));
            let _ = to_other.recv();
            (turns.restore)(state);
            (turns.release)(held);
        };
        let state = (turns.save)();
        let helper = hot::quietly(|| {
            std::thread::Builder::new()
                .name("inferscope".into())
                .stack_size(256 << 10)
                .spawn(other)
        });
        let left = to_me.recv().unwrap_or_default();
        (turns.restore)(state);
        let left = holding(left.into_iter(), mine);
        let state = (turns.save)();
        drop(go);
        if let Ok(helper) = helper {
            let _ = helper.join();
        }
        (turns.restore)(state);
        left.first().copied().filter(|_| left.len() == 1)
    }
}

//! The interpreter is asked for bursts, from outside: by the helper, which has no GIL.

use super::{OFF, RAN, TOGGLE, WINDOW_US, read_cpu, rearm};
use crate::again;
use crate::clock;
use crate::hot;
use crate::lines;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Mutex, OnceLock};

/// The interpreter has been asked for bursts.
static ASKED: AtomicBool = AtomicBool::new(false);
/// The CPU time of the thread that ran then, in ns, read once the interpreter knew ([`NOT_YET`] until then), and that
/// thread.
static ASKED_CPU: AtomicU64 = AtomicU64::new(NOT_YET);
static ASKED_OF: AtomicU64 = AtomicU64::new(0);
const NOT_YET: u64 = u64::MAX;

/// Asks for bursts if functions are off: from outside, at times by chance, since what the program does when an event
/// comes, or when it goes to sleep, is not what it does all the time. For the helper, which has no GIL.
pub fn wake(version: (u32, u32), asking: &mut Asking) {
    unsafe extern "C" fn on_wake(_: *mut c_void) -> c_int {
        ASKED.store(false, Relaxed);
        let thread = hot::thread();
        if let Some(toggle) = TOGGLE.get().filter(|_| !thread.is_null()) {
            // SAFETY: a pending call runs with the GIL held.
            unsafe {
                read_cpu(thread);
                let lead = match ASKED_CPU.swap(NOT_YET, Relaxed) {
                    NOT_YET => 0,
                    _ if (*thread).tid != ASKED_OF.load(Relaxed) => 0,
                    asked_ns => {
                        let asked = asked_ns * hot::micro() / 1000;
                        (*thread).cpu.counted().saturating_sub(asked)
                    }
                };
                rearm(thread, *toggle, lead);
            }
        }
        0
    }
    let none_off = OFF.load(Relaxed) == 0 && !lines::wait() && !again::is_due();
    if none_off || ASKED.load(Relaxed) || !asking.is_time() {
        return;
    }
    let Ok(_asking) = ASKING.lock() else { return };
    if OVER.load(Acquire) {
        return;
    }
    ASKED.store(true, Relaxed);
    ASKED_CPU.store(NOT_YET, Relaxed);
    // SAFETY: `on_wake` is a pending call's function, and the interpreter has not begun to end.
    let added = unsafe { Door::of(version).ask(on_wake) };
    if !added {
        ASKED.store(false, Relaxed);
        return;
    }
    // Not before: functions that begin until the interpreter knows are not in the burst, and neither is that time. If it
    // was called meanwhile, this is later than that.
    ASKED_CPU.store(clock::thread_ns(ASKED_OF.load(Relaxed)), Relaxed);
}

type Main = unsafe extern "C" fn() -> *mut c_void;
type AddAny = unsafe extern "C" fn(*mut c_void, Pending, *mut c_void, c_int) -> c_int;
type Add = unsafe extern "C" fn(Pending, *mut c_void) -> c_int;
type Pending = unsafe extern "C" fn(*mut c_void) -> c_int;

/// How the interpreter is asked to call something; looked up once, since that takes as long as all else a wake-up does.
#[derive(Clone, Copy)]
enum Door {
    /// Any thread will do, in the interpreter of this state.
    Any(AddAny, Main),
    Plain(Add),
    Shut,
}

impl Door {
    /// CPython's functions of these names; both may be called from any thread, without the GIL. The public one waits for the
    /// main thread, which may sleep while others run (and 3.12's wakes it only when it calls itself: ceval_gil.c,
    /// COMPUTE_EVAL_BREAKER); the other, told that any thread will do, wakes whichever runs. 3.13 and 3.14 have it as 3.12
    /// does (pycore_ceval.h).
    fn of(version: (u32, u32)) -> Door {
        static DOOR: OnceLock<Door> = OnceLock::new();
        *DOOR.get_or_init(|| {
            let [any_thread, main, plain] = [
                c"_PyEval_AddPendingCall",
                c"PyInterpreterState_Main",
                c"Py_AddPendingCall",
            ]
            .map(crate::py::sym);
            // SAFETY: CPython's functions of these names, with the signatures of its headers.
            unsafe {
                if version >= (3, 12) && !any_thread.is_null() && !main.is_null() {
                    Door::Any(
                        std::mem::transmute::<*mut c_void, AddAny>(any_thread),
                        std::mem::transmute::<*mut c_void, Main>(main),
                    )
                } else if !plain.is_null() {
                    Door::Plain(std::mem::transmute::<*mut c_void, Add>(plain))
                } else {
                    Door::Shut
                }
            }
        })
    }

    /// Whether `function` will be called.
    ///
    /// # Safety
    /// It may be called with a null pointer and the GIL held; the interpreter has not begun to end.
    unsafe fn ask(self, function: Pending) -> bool {
        let none = std::ptr::null_mut();
        // SAFETY: as the caller promises.
        unsafe {
            match self {
                Door::Any(add, main) => add(main(), function, none, 0) == 0,
                Door::Plain(add) => add(function, none) == 0,
                Door::Shut => false,
            }
        }
    }
}

/// When bursts are asked for.
#[derive(Default)]
pub struct Asking {
    /// Of the process, in ns, when they last were.
    cpu_ns: u64,
    /// Looks since then that found the thread asleep.
    asleep: u32,
}

/// Looks that may find the thread asleep before another one is taken to run.
const MOST_ASLEEP: u32 = 4;

impl Asking {
    /// Whether the thread that ran last runs now, or waits for a processor; else, after a few looks, whether any does.
    fn is_time(&mut self) -> bool {
        let cpu_ns = clock::system_ns(libc::CLOCK_PROCESS_CPUTIME_ID);
        let worked = cpu_ns.saturating_sub(self.cpu_ns) > 1000 * WINDOW_US;
        if !worked {
            return false;
        }
        let tid = RAN.load(Relaxed);
        let runs = runs(tid);
        self.asleep += 1;
        if !runs && self.asleep <= MOST_ASLEEP {
            return false;
        }
        *self = Asking { cpu_ns, asleep: 0 };
        let of = if runs { tid } else { 0 };
        ASKED_OF.store(of, Relaxed);
        true
    }
}

/// Whether the thread runs now, or waits for a processor.
fn runs(tid: u64) -> bool {
    if tid == 0 {
        return false; // of none yet; the system takes it for the calling thread
    }
    // Between two readings of its clock it has used some of the time, if it has a processor. That is ten times faster to
    // know than what the system says of it.
    let before_ns = clock::thread_ns(tid);
    if clock::thread_ns(tid) > before_ns {
        return true;
    }
    let stat = std::fs::read(format!("/proc/self/task/{tid}/stat")).unwrap_or_default();
    // The state is behind the name in brackets, which may have any bytes in it (proc(5)).
    let state = stat.iter().rposition(|&byte| byte == b')');
    state.and_then(|at| stat.get(at + 2)) == Some(&b'R')
}

/// Held while the interpreter is asked for something without its GIL.
static ASKING: Mutex<()> = Mutex::new(());
/// The interpreter begins to end. Afterwards there is nothing to be asked: 3.12 reads a null pointer then.
static OVER: AtomicBool = AtomicBool::new(false);

/// The interpreter begins to end: no [`wake`] is under way when this returns, and none comes after.
pub fn over() {
    OVER.store(true, Release);
    // In the child of a fork that Python knows nothing of, nobody may be left to let go of it.
    for _ in 0..10_000 {
        if ASKING.try_lock().is_ok() {
            return;
        }
        std::thread::yield_now();
    }
}

/// In a forked child: who was asked is not here.
pub(super) fn forked() {
    ASKED.store(false, Relaxed);
}

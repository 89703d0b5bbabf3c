//! What the Python module calls: one table of functions, so that module and probe may be of different builds.

use crate::cuda;
use crate::governor;
use crate::hot;
use crate::inject::guard;
use crate::py;
use crate::python;
use crate::rocm;
use crate::task;
use inferscope_spool::record::{RAISED, Record, UNSEEN};
use std::ffi::{CStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Version of [`Api`]: a module refuses any other.
pub const VERSION: u32 = 3;

/// The table. Texts are UTF-8, given by address and length in bytes; an empty `metadata` is none, else a JSON object.
/// All are called with the GIL held.
#[repr(C)]
pub struct Api {
    pub version: u32,
    /// Records the interpreter into the run of `dir`; `name` is the program's. 1: recording; 0: not, and why is said.
    pub start: unsafe extern "C" fn(dir: *const c_char, name: *const c_char) -> i32,
    /// 1 while records are kept.
    pub active: extern "C" fn() -> i32,
    /// Opens a scope: its handle, 0 while nothing is kept.
    pub scope_enter: unsafe extern "C" fn(
        name: *const u8,
        len: usize,
        metadata: *const u8,
        metadata_len: usize,
    ) -> u64,
    /// Closes it; `raised` is not 0 if an exception did.
    pub scope_exit: extern "C" fn(handle: u64, raised: i32),
    pub mark:
        unsafe extern "C" fn(name: *const u8, len: usize, metadata: *const u8, metadata_len: usize),
    pub pause: extern "C" fn(),
    pub resume: extern "C" fn(),
    /// Python events seen by the profile function of CPython 3.9 to 3.11; grows by itself where there is none.
    pub seen: extern "C" fn() -> u64,
    /// Tells the trace something a person should know.
    pub note: unsafe extern "C" fn(text: *const u8, len: usize),
    /// Whether records are kept now, and whether a scope is waited for that starts it.
    pub on: *const AtomicBool,
    pub awaits: *const AtomicBool,
    /// The id of a scope's or mark's name.
    pub text_id: unsafe extern "C" fn(name: *const u8, len: usize) -> u32,
    /// `scope_enter` and `mark` without metadata, while records are kept.
    pub scope_begin: extern "C" fn(id: u32) -> u64,
    pub mark_id: extern "C" fn(id: u32),
    /// Calls of the functions whose definitions lie from `from` to `to`, and of the class, are ours: not recorded.
    pub hide: unsafe extern "C" fn(from: *const c_void, to: *const c_void, class: *const c_void),
    /// The process ends without its exit handlers: has devices' libraries give back what they have.
    pub last: extern "C" fn(),
}

// SAFETY: functions, and flags that are atomic.
unsafe impl Sync for Api {}

static API: Api = Api {
    version: VERSION,
    start,
    active,
    scope_enter,
    scope_exit,
    mark,
    pause,
    resume,
    seen,
    note,
    on: hot::on_flag(),
    awaits: hot::awaits_flag(),
    text_id,
    scope_begin,
    mark_id,
    hide,
    last,
};

/// The table of this build.
#[unsafe(no_mangle)]
pub extern "C" fn isc_api() -> *const Api {
    &raw const API
}

static NEXT_HANDLE: AtomicU64 = AtomicU64::new(1);

unsafe extern "C" fn text_id(name: *const u8, len: usize) -> u32 {
    // SAFETY: the module passes what it owns.
    guard(0, || hot::text_id(&unsafe { text(name, len) }))
}

extern "C" fn scope_begin(id: u32) -> u64 {
    // With the GIL held, a load and a store do for an increment.
    let handle = NEXT_HANDLE.load(Relaxed);
    NEXT_HANDLE.store(handle + 1, Relaxed);
    let flow = flow();
    let time = hot::now();
    hot::write(&Record::ScopeBegin {
        time,
        id,
        handle,
        flow,
    });
    handle
}

extern "C" fn mark_id(id: u32) {
    let flow = flow();
    let time = hot::now();
    hot::write(&Record::Mark { time, id, flow });
}

unsafe extern "C" fn hide(from: *const c_void, to: *const c_void, class: *const c_void) {
    crate::name::hide(from as usize..to as usize, class as usize);
}

extern "C" fn last() {
    guard((), || {
        cuda::last();
        rocm::last();
    });
}

/// The text at an address.
///
/// # Safety
/// `at` is null or `len` readable bytes.
unsafe fn text<'a>(at: *const u8, len: usize) -> std::borrow::Cow<'a, str> {
    if at.is_null() || len == 0 {
        return "".into();
    }
    // SAFETY: as the caller promises.
    String::from_utf8_lossy(unsafe { std::slice::from_raw_parts(at, len) })
}

/// Python is recorded, or cannot be; another door may have begun the recording before.
static STARTED: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn start(dir: *const c_char, name: *const c_char) -> i32 {
    guard(0, || {
        // SAFETY: the module passes C strings.
        let (dir, name) = unsafe { (CStr::from_ptr(dir), CStr::from_ptr(name).to_string_lossy()) };
        let dir = Path::new(std::ffi::OsStr::from_bytes(dir.to_bytes()));
        if STARTED.swap(true, Relaxed) {
            return 1; // a second interpreter of this process, or a second call
        }
        let Some(py) = py::get() else {
            eprintln!("inferscope: this process is not recorded: its Python is not one we know");
            STARTED.store(false, Relaxed);
            return 0;
        };
        let version = py.full_version();
        // SAFETY: called by the module with the GIL held.
        let started =
            hot::start(dir, &name, version.as_deref()).and_then(|()| unsafe { python::start(py) });
        match started {
            Ok(()) => 1,
            Err(why) => {
                hot::warn(&format!("Python calls are not recorded: {why}"));
                STARTED.store(false, Relaxed);
                0
            }
        }
    })
}

extern "C" fn active() -> i32 {
    i32::from(hot::on())
}

/// The flow of this thread's current task.
#[inline(always)]
fn flow() -> u64 {
    let at = hot::thread();
    if at.is_null() {
        return 0;
    }
    // SAFETY: this thread's own state; the read ends here.
    match unsafe { (*at).flow } {
        0 if governor::misses_tasks() => unseen(),
        flow => flow,
    }
}

/// What stands for the flow of a task whose coroutine the budget has shed.
#[cold]
fn unseen() -> u64 {
    // SAFETY: scopes and marks come with the GIL held.
    match py::get().is_some_and(|py| unsafe { task::runs(py) }) {
        true => UNSEEN,
        false => 0,
    }
}

unsafe extern "C" fn scope_enter(
    name: *const u8,
    len: usize,
    metadata: *const u8,
    metadata_len: usize,
) -> u64 {
    guard(0, || {
        // SAFETY: the module passes what it owns.
        let (name, metadata) = unsafe { (text(name, len), text(metadata, metadata_len)) };
        if !hot::on() {
            let awaited =
                hot::run().is_some_and(|run| run.settings.start_on.as_deref() == Some(&*name));
            if !awaited || hot::begun() {
                return 0;
            }
            hot::switch(true);
            if let Some(py) = py::get() {
                // SAFETY: the GIL is held.
                unsafe { python::tell_open_frames(py, false) };
            }
        }
        let handle = NEXT_HANDLE.load(Relaxed);
        NEXT_HANDLE.store(handle + 1, Relaxed);
        let id = hot::text_id(&name);
        hot::write_with(
            &metadata,
            &Record::ScopeBegin {
                time: hot::now(),
                id,
                handle,
                flow: flow(),
            },
        );
        handle
    })
}

extern "C" fn scope_exit(handle: u64, raised: i32) {
    if handle != 0 && hot::run().is_some() {
        let flags = if raised != 0 { RAISED } else { 0 };
        hot::write(&Record::ScopeEnd {
            time: hot::now(),
            id: 0,
            flags,
            handle,
        });
    }
}

unsafe extern "C" fn mark(name: *const u8, len: usize, metadata: *const u8, metadata_len: usize) {
    guard((), || {
        if hot::on() {
            let time = hot::now();
            // SAFETY: the module passes what it owns.
            let (name, metadata) = unsafe { (text(name, len), text(metadata, metadata_len)) };
            hot::write_with(
                &metadata,
                &Record::Mark {
                    time,
                    id: hot::text_id(&name),
                    flow: flow(),
                },
            );
        }
    });
}

extern "C" fn pause() {
    guard((), || hot::switch(false));
}

extern "C" fn resume() {
    guard((), || {
        if !hot::over() {
            hot::switch(true);
        }
    });
}

extern "C" fn seen() -> u64 {
    crate::profile::seen()
}

unsafe extern "C" fn note(at: *const u8, len: usize) {
    // SAFETY: the module passes what it owns.
    guard((), || hot::note(&unsafe { text(at, len) }));
}

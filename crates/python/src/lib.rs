//! `inferscope._inferscope`: hands the interpreter over to the probe, which is a library of its own.
//!
//! The probe has the tracing; this has Python's types and error handling, and the one `dlopen`.

use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

mod scope;

/// The probe's table of functions; `crates/probe/src/api.rs` says what each does.
#[repr(C)]
struct Api {
    version: u32,
    start: unsafe extern "C" fn(*const c_char, *const c_char) -> i32,
    active: extern "C" fn() -> i32,
    scope_enter: unsafe extern "C" fn(*const u8, usize, *const u8, usize) -> u64,
    scope_exit: extern "C" fn(u64, i32),
    mark: unsafe extern "C" fn(*const u8, usize, *const u8, usize),
    pause: extern "C" fn(),
    resume: extern "C" fn(),
    seen: extern "C" fn() -> u64,
    note: unsafe extern "C" fn(*const u8, usize),
    on: *const AtomicBool,
    awaits: *const AtomicBool,
    text_id: unsafe extern "C" fn(*const u8, usize) -> u32,
    scope_begin: extern "C" fn(u32) -> u64,
    mark_id: extern "C" fn(u32),
    hide: unsafe extern "C" fn(*const c_void, *const c_void, *const c_void),
    last: extern "C" fn(),
}

// SAFETY: functions, and flags that are atomic.
unsafe impl Sync for Api {}
// SAFETY: as above.
unsafe impl Send for Api {}

/// The table's version that this build knows.
const VERSION: u32 = 3;

static API: OnceLock<&'static Api> = OnceLock::new();

fn open(path: &str) -> PyResult<&'static Api> {
    if let Some(api) = API.get() {
        return Ok(api);
    }
    let c_path = CString::new(path)?;
    // SAFETY: a C string. Its functions stay in the process for ever (NODELETE): callbacks point to them.
    let library = unsafe {
        libc::dlopen(
            c_path.as_ptr(),
            libc::RTLD_NOW | libc::RTLD_GLOBAL | libc::RTLD_NODELETE,
        )
    };
    if library.is_null() {
        // SAFETY: after a failed dlopen, dlerror returns a C string, which is copied at once.
        let why = unsafe { CStr::from_ptr(libc::dlerror()) }
            .to_string_lossy()
            .into_owned();
        return Err(PyOSError::new_err(why));
    }
    // SAFETY: `library` is the handle just opened.
    let found = unsafe { libc::dlsym(library, c"isc_api".as_ptr()) };
    if found.is_null() {
        return Err(PyOSError::new_err(format!("{path} is no InferScope probe")));
    }
    // SAFETY: the probe's `isc_api` has this signature in every version; its table is static, and starts with the
    // version, which is checked before anything after it is read.
    let api = unsafe {
        let get: extern "C" fn() -> *const Api =
            std::mem::transmute::<*mut c_void, extern "C" fn() -> *const Api>(found);
        let at = get();
        let version = at.cast::<u32>().read();
        if version != VERSION {
            let text = format!("{path} is of another version ({version}, not {VERSION})");
            return Err(PyRuntimeError::new_err(text));
        }
        &*at
    };
    Ok(API.get_or_init(|| api))
}

/// Records this interpreter into the run in `run_dir`, with the probe found there.
#[pyfunction]
fn start(run_dir: &str, name: &str) -> PyResult<bool> {
    let api = open(&format!("{run_dir}/libinferscope_probe.so"))?;
    let (dir, name) = (CString::new(run_dir)?, CString::new(name)?);
    scope::hide(api);
    // SAFETY: C strings, and the GIL is held.
    Ok(unsafe { (api.start)(dir.as_ptr(), name.as_ptr()) } != 0)
}

/// Whether records are kept now.
#[pyfunction]
fn active() -> bool {
    API.get().is_some_and(|api| (api.active)() != 0)
}

/// Takes the Python functions for what is rare in scopes and marks.
#[pyfunction]
fn helpers(
    text: &Bound<'_, PyAny>,
    decorate: &Bound<'_, PyAny>,
    enter: &Bound<'_, PyAny>,
    leave: &Bound<'_, PyAny>,
) {
    scope::help([text, decorate, enter, leave].map(|helper| helper.as_ptr()));
}

/// Stops keeping records in this process.
#[pyfunction]
fn pause() {
    if let Some(api) = API.get() {
        (api.pause)();
    }
}

/// Goes on keeping records.
#[pyfunction]
fn resume() {
    if let Some(api) = API.get() {
        (api.resume)();
    }
}

/// How many events the profile function of CPython 3.9 to 3.11 has seen.
#[pyfunction]
fn seen() -> u64 {
    API.get().map_or(0, |api| (api.seen)())
}

/// `os._exit`, after what devices' libraries still have was taken: no exit handler of theirs or ours runs any more.
#[pyfunction]
#[pyo3(name = "_exit", signature = (status))]
fn leave(status: i32) {
    if let Some(api) = API.get() {
        (api.last)();
    }
    // SAFETY: a number; it does not return.
    unsafe { libc::_exit(status) }
}

/// Tells the trace something that a person should know.
#[pyfunction]
fn note(text: &str) {
    if let Some(api) = API.get() {
        // SAFETY: a text by address and length, alive over the call.
        unsafe { (api.note)(text.as_ptr(), text.len()) };
    }
}

#[pymodule]
fn _inferscope(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(start, module)?)?;
    module.add_function(wrap_pyfunction!(active, module)?)?;
    let (class, mark) = scope::make();
    // SAFETY: new references or null, and the GIL is held.
    unsafe {
        module.add("scope", Bound::from_owned_ptr_or_err(module.py(), class)?)?;
        module.add(
            "mark_event",
            Bound::from_owned_ptr_or_err(module.py(), mark)?,
        )?;
    }
    module.add_function(wrap_pyfunction!(helpers, module)?)?;
    module.add_function(wrap_pyfunction!(pause, module)?)?;
    module.add_function(wrap_pyfunction!(resume, module)?)?;
    module.add_function(wrap_pyfunction!(seen, module)?)?;
    module.add_function(wrap_pyfunction!(note, module)?)?;
    module.add_function(wrap_pyfunction!(leave, module)?)?;
    Ok(())
}

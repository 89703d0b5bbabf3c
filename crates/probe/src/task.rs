//! Which asyncio task runs: a number for each, shared by all its segments.

use crate::py::{Py, PyObject};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

static NEXT: AtomicU64 = AtomicU64::new(1);
/// Numbers of tasks by address. An entry stays after its task: an exception thrown into a coroutine ends the inner
/// frames first, each by itself, so that the end of an outermost frame does not tell the end of the task. Addresses
/// are used again, which keeps this as small as the most tasks there were at one time.
static FLOWS: Mutex<Option<HashMap<usize, u64>>> = Mutex::new(None);
/// `_asyncio._get_running_loop`, and either `_asyncio.current_task` (3.12+) or the dict `_asyncio._current_tasks`.
static RUNNING: AtomicPtr<PyObject> = AtomicPtr::new(std::ptr::null_mut());
static CURRENT: AtomicPtr<PyObject> = AtomicPtr::new(std::ptr::null_mut());

/// The address of the current task; 0 outside of asyncio.
unsafe fn current(py: &Py) -> usize {
    // SAFETY: the GIL is held (see `enter`); what the statics hold is owned for ever.
    unsafe {
        if RUNNING.load(Relaxed).is_null() {
            let module = py.module(c"_asyncio");
            if module.is_null() {
                return 0;
            }
            let Some(running) = py.attr(module, c"_get_running_loop") else {
                return 0;
            };
            let name = if py.version >= (3, 12) {
                c"current_task"
            } else {
                c"_current_tasks"
            };
            let Some(current) = py.attr(module, name) else {
                return 0;
            };
            CURRENT.store(current.into_raw(), Relaxed);
            RUNNING.store(running.into_raw(), Relaxed);
        }
        let end = std::ptr::null_mut::<PyObject>();
        let running = (py.PyObject_CallFunctionObjArgs)(RUNNING.load(Relaxed), end);
        if running.is_null() {
            (py.PyErr_Clear)();
            return 0;
        }
        let mut task = std::ptr::null_mut();
        if running != py.none {
            if py.version >= (3, 12) {
                task = (py.PyObject_CallFunctionObjArgs)(CURRENT.load(Relaxed), running, end);
                if task.is_null() {
                    (py.PyErr_Clear)();
                } else {
                    (py.Py_DecRef)(task); // asyncio holds it; only the address is used
                }
            } else {
                task = (py.PyDict_GetItemWithError)(CURRENT.load(Relaxed), running);
                if task.is_null() {
                    (py.PyErr_Clear)();
                }
            }
        }
        (py.Py_DecRef)(running);
        if task == py.none { 0 } else { task as usize }
    }
}

fn flows<T>(then: impl FnOnce(&mut HashMap<usize, u64>) -> T) -> T {
    let mut flows = FLOWS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    then(flows.get_or_insert_default())
}

/// Whether this thread runs a task now.
///
/// # Safety
/// The GIL is held.
pub unsafe fn runs(py: &Py) -> bool {
    // SAFETY: as the caller promises.
    unsafe { current(py) != 0 }
}

/// The number of the task whose outermost coroutine begins (`resumed` false) or goes on; 0 outside of tasks.
///
/// # Safety
/// The GIL is held.
pub unsafe fn enter(py: &Py, resumed: bool) -> u64 {
    // SAFETY: as the caller promises.
    let task = unsafe { current(py) };
    if task == 0 {
        return 0;
    }
    flows(|flows| {
        if resumed && let Some(&flow) = flows.get(&task) {
            return flow;
        }
        // A beginning gets a new number even where an old one is known: that task is gone, its address reused.
        let flow = NEXT.fetch_add(1, Relaxed);
        flows.insert(task, flow);
        flow
    })
}

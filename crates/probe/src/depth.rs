//! How many Python frames are open on a thread, as the interpreter counts them for its recursion limit: CPython 3.12 and
//! later.
//!
//! A frame that an exception left without an event is told by it: the next one that begins as deep shows that it is gone.
//! The count is a pair of ints in the thread's state, what is left of the limit and the limit. Where they are is found
//! by trying: of all pairs of which the second is the limit, one shows one frame more in a function, and two in a
//! function that calls it.

use crate::monitor::Calibration;
use crate::py::{self, Owned, Py, PyObject};
use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

/// Bytes from the head of a thread's state to the pair; 0 = not known.
static OFFSET: AtomicUsize = AtomicUsize::new(0);

/// Pairs that are tried: those in the first bytes of the state, less than the structure has in any version.
const PAIRS: usize = 32;
/// The frames that each of them shows, in the three tries.
static SHOWN: [[AtomicU32; PAIRS]; 3] = [const { [const { AtomicU32::new(0) }; PAIRS] }; 3];
static TRY: AtomicUsize = AtomicUsize::new(0);

/// What a pair `at` ints into the thread's state shows.
///
/// # Safety
/// The GIL is held, and the pair lies in the state.
#[inline(always)]
unsafe fn frames(py: &Py, offset: usize) -> u32 {
    // SAFETY: as the caller promises; the thread's own state, which no other thread writes while we have the GIL.
    unsafe {
        let state = (py.PyThreadState_Get)().cast::<u8>().cast_const();
        let pair = state.add(offset).cast::<c_int>();
        (*pair.add(1)).wrapping_sub(*pair) as u32
    }
}

/// Python frames open on this thread now; 0 if that is not known.
///
/// # Safety
/// The GIL is held.
#[inline(always)]
pub unsafe fn get(py: &Py) -> u32 {
    match OFFSET.load(Relaxed) {
        0 => 0,
        // SAFETY: `find` saw that this is where the count is.
        offset => unsafe { frames(py, offset) },
    }
}

/// Whether [`get`] knows.
pub fn is_known() -> bool {
    OFFSET.load(Relaxed) != 0
}

unsafe extern "C" fn look(_: *mut PyObject, _: *const *mut PyObject, _: isize) -> *mut PyObject {
    let Some(py) = py::get() else {
        return std::ptr::null_mut();
    };
    if let Some(shown) = SHOWN.get(TRY.fetch_add(1, Relaxed)) {
        for (at, place) in shown.iter().enumerate() {
            // SAFETY: called by the interpreter with the GIL held; the first words of a state that is larger.
            place.store(unsafe { frames(py, 4 * at) }, Relaxed);
        }
    }
    // SAFETY: as above.
    unsafe { py.new_none() }
}

/// Looks for the count.
///
/// # Safety
/// The GIL is held, and the namespace of `calibration` has `once` and `again`, which call what they are given.
pub unsafe fn find(py: &Py, calibration: &Calibration) {
    // SAFETY: as the caller promises.
    let limit = unsafe {
        let get = py.attr(py.module(c"sys"), c"getrecursionlimit");
        let end = std::ptr::null_mut::<PyObject>();
        let limit = get
            .and_then(|get| Owned::new(py, (py.PyObject_CallFunctionObjArgs)(get.get(), end)))
            .map_or(0, |limit| (py.PyLong_AsLong)(limit.get()));
        let Some(look) = py.function(c"inferscope_depth", look, std::ptr::null_mut()) else {
            return;
        };
        TRY.store(0, Relaxed);
        drop(Owned::new(
            py,
            (py.PyObject_CallFunctionObjArgs)(look.get(), end),
        ));
        for name in [c"once", c"again"] {
            let calls = (py.PyDict_GetItemString)(calibration.namespace.get(), name.as_ptr());
            if calls.is_null() {
                return;
            }
            drop(Owned::new(
                py,
                (py.PyObject_CallFunctionObjArgs)(calls, look.get(), end),
            ));
        }
        limit
    };
    if TRY.load(Relaxed) != 3 {
        return;
    }
    let shown = |attempt: usize, at: usize| i64::from(SHOWN[attempt][at].load(Relaxed));
    let mut found = (0..PAIRS).filter(|&at| {
        let before = shown(0, at);
        (0..limit).contains(&before) && (1..3).all(|more| shown(more, at) == before + more as i64)
    });
    if let (Some(at), None) = (found.next(), found.next()) {
        OFFSET.store(4 * at, Relaxed);
    }
}

//! What is known of a code object, and of the calls made in it: kept in the code's own extra slot, so it dies with it.

use crate::again;
use crate::governor::Phase;
use crate::heat::Heat;
use crate::hot;
use crate::lines::{self, Lines};
use crate::py::{self, Owned, Py, PyObject};
use crate::slices::Shown;
use crate::wrap::Module;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::{Mutex, OnceLock};

/// Flags of a code object (code.h).
const CO_OPTIMIZED: i64 = 0x1;
const CO_GENERATOR: i64 = 0x20;
const CO_COROUTINE: i64 = 0x80;
const CO_ITERABLE_COROUTINE: i64 = 0x100;
const CO_ASYNC_GENERATOR: i64 = 0x200;

/// Calls of native functions looked at before a call site may be dropped. Source: native_time, N = 16 costs least.
const LOOKS: u32 = 16;
/// A dropped site's mean duration is below this many µs: an event pair costs 60-80 ns, 3 % of it.
const KEEP_US: u64 = 3;
/// The same when the budget is spent.
const KEEP_POOR_US: u64 = 12;
/// Looks that a dropped site gets when it is looked at again.
pub const LOOKS_AGAIN: u32 = 2;

/// A native call that has not returned.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// Address in the machine stack of the evaluation that made the call.
    pub stack: usize,
    /// The code object, as an address.
    pub code: usize,
    /// Byte offset of the call in it.
    pub offset: i64,
    /// Ticks since the base.
    pub start: u64,
    /// [`crate::hot::Thread::starts`] at the call.
    pub starts: u32,
}

/// Where in a code object native functions are called from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Site {
    looks: u32,
    ticks: u64,
    /// What was called last, and the id of its name.
    pub key: (usize, usize),
    pub id: u32,
}

impl Site {
    /// Counts a call of so many ticks; one that came back into Python counts as none.
    pub fn saw(&mut self, ticks: u64) {
        self.looks = self.looks.saturating_add(1);
        self.ticks = self.ticks.saturating_add(ticks);
    }

    /// Whether calls from here have shown to be too short to be worth an event.
    /// When the budget is spent (`rich` is false), more is too short.
    pub fn is_idle(&self, rich: bool) -> bool {
        let keep_us = if rich { KEEP_US } else { KEEP_POOR_US };
        self.looks >= LOOKS && self.ticks < keep_us * hot::micro() * u64::from(self.looks)
    }

    /// Gives a site that had its looks a few more. What it has shown counts as the others of [`LOOKS`].
    fn look_again(&mut self) {
        if self.looks >= LOOKS {
            let kept = LOOKS - LOOKS_AGAIN;
            self.ticks = self.ticks / u64::from(self.looks) * u64::from(kept);
            self.looks = kept;
        }
    }
}

/// What is known of one code object.
#[derive(Default)]
pub struct Code {
    /// Its name's id in the trace.
    pub id: u32,
    /// Its frames are recorded.
    pub wanted: bool,
    /// `async def`: its outermost frame on a thread marks a task's segment.
    pub coroutine: bool,
    /// It was the outermost one.
    pub outermost: bool,
    /// It imports a module: its frames tell what of a program's time is imports, and they are few.
    pub imports: bool,
    /// Its frames may be suspended.
    pub suspends: bool,
    /// An exception has left one of its frames.
    pub raises: bool,
    /// The body of a module or class, but not of the program's own module: it runs once.
    pub once: bool,
    /// The body of a module: when it returns, the module's functions are there to be wrapped.
    pub brings: Option<Module>,
    /// Its lines are measured.
    pub lines: Option<&'static Lines>,
    /// Whether it is recorded now, by the budget.
    pub phase: Phase,
    /// What slices of time have shown of it, and how often it is called, before 3.12.
    pub shown: Shown,
    pub heat: Heat,
    /// Its instructions, where the profile door needs them to tell a suspension from a return.
    pub bytes: Vec<u8>,
    /// How often its dropped call sites were looked at again.
    pub looks: again::Looks,
    /// By instruction: 1 + the index in `sites`; 0 = none yet.
    places: Vec<u32>,
    sites: Vec<Site>,
}

impl Code {
    /// The call site at a byte offset.
    pub fn site(&mut self, offset: i64) -> Option<&mut Site> {
        let place = usize::try_from(offset / 2)
            .ok()
            .filter(|&place| place < 1 << 22)?;
        if place >= self.places.len() {
            self.places.resize(place + 1, 0);
        }
        if self.places[place] == 0 {
            self.sites.push(Site::default());
            self.places[place] = self.sites.len() as u32;
        }
        self.sites.get_mut(self.places[place] as usize - 1)
    }

    /// Its events are on again for all its call sites: those that are too short get another chance. How many there are.
    pub fn look_again(&mut self) -> usize {
        self.sites.iter_mut().for_each(Site::look_again);
        self.sites.len()
    }
}

type Get = unsafe extern "C" fn(*mut PyObject, isize, *mut *mut c_void) -> c_int;
type Set = unsafe extern "C" fn(*mut PyObject, isize, *mut c_void) -> c_int;

/// The interpreter's slot on code objects, under the names it has had.
struct Slot {
    index: isize,
    get: Get,
    set: Set,
}

static SLOT: OnceLock<Option<Slot>> = OnceLock::new();

/// In place of the slot where the interpreter has none left: codes by address, each kept alive.
static MAP: Mutex<Option<HashMap<usize, usize>>> = Mutex::new(None);

/// Reserves the slot. The GIL is held.
pub fn reserve() {
    SLOT.get_or_init(|| {
        let either = |new, old| {
            Some(py::sym(new))
                .filter(|at| !at.is_null())
                .or_else(|| Some(py::sym(old)).filter(|at| !at.is_null()))
        };
        let request = either(
            c"PyUnstable_Eval_RequestCodeExtraIndex",
            c"_PyEval_RequestCodeExtraIndex",
        )?;
        let get = either(c"PyUnstable_Code_GetExtra", c"_PyCode_GetExtra")?;
        let set = either(c"PyUnstable_Code_SetExtra", c"_PyCode_SetExtra")?;
        // SAFETY: CPython's functions of these names, with the signatures of its headers; the GIL is held.
        unsafe {
            let request: unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void)) -> isize =
                std::mem::transmute(request);
            let index = request(free);
            (index >= 0).then(|| Slot {
                index,
                get: std::mem::transmute::<*mut c_void, Get>(get),
                set: std::mem::transmute::<*mut c_void, Set>(set),
            })
        }
    });
}

unsafe extern "C" fn free(extra: *mut c_void) {
    if !extra.is_null() {
        // SAFETY: only `set` puts pointers there, from a Box, and the code that held it is gone.
        let known = unsafe { Box::from_raw(extra.cast::<Code>()) };
        // SAFETY: a code object is freed with the GIL held.
        unsafe { again::forget(&known) };
        if known.id != 0 {
            hot::undefine(known.id);
        }
    }
}

/// What is known of `code`; null if nothing yet.
///
/// # Safety
/// `code` is a live code object and the GIL is held. A reference made from the result ends before anything is
/// called that may record.
#[inline(always)]
pub unsafe fn get(code: *mut PyObject) -> *mut Code {
    let mut extra = std::ptr::null_mut();
    match SLOT.get() {
        Some(Some(slot)) => {
            // SAFETY: as the caller promises; the slot is ours.
            unsafe { (slot.get)(code, slot.index, &mut extra) };
        }
        _ => extra = from_map(code),
    }
    extra.cast()
}

#[cold]
fn from_map(code: *mut PyObject) -> *mut c_void {
    let map = MAP.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    map.as_ref()
        .and_then(|map| map.get(&(code as usize)))
        .map_or(std::ptr::null_mut(), |&at| at as *mut c_void)
}

/// Hangs `known` on `code`, for as long as it lives.
unsafe fn set(py: &Py, code: *mut PyObject, known: Box<Code>) -> *mut Code {
    let at = Box::into_raw(known);
    if let Some(Some(slot)) = SLOT.get() {
        // SAFETY: `code` is live, the GIL held; on success the slot owns the pointer, see `free`.
        if unsafe { (slot.set)(code, slot.index, at.cast()) } == 0 {
            return at;
        }
        // SAFETY: the GIL is held.
        unsafe { (py.PyErr_Clear)() };
    }
    // SAFETY: the code is kept for ever, so that its address means no other.
    unsafe { (py.Py_IncRef)(code) };
    let mut map = MAP.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    map.get_or_insert_default()
        .insert(code as usize, at as usize);
    at
}

/// The names of what a code object is asked for.
#[derive(Clone, Copy)]
struct Words {
    name: *mut PyObject,
    file: *mut PyObject,
    line: *mut PyObject,
    flags: *mut PyObject,
}

// SAFETY: strs that are kept for ever, used with the GIL held.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// # Safety
    /// The GIL is held.
    unsafe fn get(py: &Py) -> Words {
        static WORDS: OnceLock<Words> = OnceLock::new();
        let name = match py.version >= (3, 11) {
            true => c"co_qualname",
            false => c"co_name",
        };
        // SAFETY: as the caller promises.
        *WORDS.get_or_init(|| unsafe {
            Words {
                name: py.word(name),
                file: py.word(c"co_filename"),
                line: py.word(c"co_firstlineno"),
                flags: py.word(c"co_flags"),
            }
        })
    }
}

/// Learns what `code` is; `globals` are those of one of its frames (its module's name is there).
///
/// # Safety
/// `code` is a live code object, `globals` null or a live dict, and the GIL is held.
pub unsafe fn learn(py: &Py, code: *mut PyObject, globals: *mut PyObject) -> *mut Code {
    // SAFETY: as the caller promises, for all calls below.
    unsafe {
        let words = Words::get(py);
        let name = py.text_by(code, words.name).unwrap_or_else(|| "?".into());
        let file = py.text_by(code, words.file).unwrap_or_default();
        let line = py.int_by(code, words.line).unwrap_or(0);
        let flags = py.int_by(code, words.flags).unwrap_or(0);
        let module = if globals.is_null() {
            None
        } else {
            let found = (py.PyDict_GetItemString)(globals, c"__name__".as_ptr());
            if found.is_null() {
                None
            } else {
                py.text(found)
            }
        };
        let module = module.unwrap_or_default();
        let run = hot::run().filter(|run| {
            let rest = file.strip_prefix(&*run.dir.to_string_lossy());
            !rest.is_some_and(|rest| rest.starts_with('/')) // it is ours
        });
        let by_line = run
            .filter(|run| py.version >= (3, 12) && !run.settings.lines.is_empty())
            .filter(|run| run.settings.measures_lines(&module, &file, &name))
            .and_then(|_| lines::measure(&name, &file, u32::try_from(line).unwrap_or(0)));
        let wanted = by_line.is_some() || run.is_some_and(|run| run.settings.wants(&module, &file));
        let suspends =
            flags & (CO_GENERATOR | CO_COROUTINE | CO_ITERABLE_COROUTINE | CO_ASYNC_GENERATOR) != 0;
        let bytes = if suspends && py.version < (3, 12) {
            instructions(py, code)
        } else {
            Vec::new()
        };
        let known = Code {
            id: if wanted {
                hot::define(&name, &file, u32::try_from(line).unwrap_or(0))
            } else {
                0
            },
            wanted,
            once: flags & CO_OPTIMIZED == 0 && module != "__main__",
            coroutine: wanted && flags & CO_COROUTINE != 0,
            lines: by_line,
            suspends,
            imports: &*name == "_find_and_load" && file.starts_with("<frozen importlib"),
            brings: Module::of_body(&file).filter(|_| name == "<module>"),
            bytes,
            ..Code::default()
        };
        set(py, code, Box::new(known))
    }
}

/// Takes `code` for the probe's own: recorded, if so wanted, under the id 0.
///
/// # Safety
/// `code` is a live code object and the GIL is held.
pub unsafe fn own(py: &Py, code: *mut PyObject, wanted: bool) -> *mut Code {
    let known = Code {
        wanted,
        ..Code::default()
    };
    // SAFETY: as the caller promises.
    unsafe { set(py, code, Box::new(known)) }
}

unsafe fn instructions(py: &Py, code: *mut PyObject) -> Vec<u8> {
    // SAFETY: `code` is live and the GIL held; the bytes are copied while we own a reference.
    unsafe {
        let Some(found): Option<Owned> = py.attr(code, c"co_code") else {
            return Vec::new();
        };
        let (at, len) = (
            (py.PyBytes_AsString)(found.get()),
            (py.PyBytes_Size)(found.get()),
        );
        if at.is_null() || len < 0 {
            (py.PyErr_Clear)();
            return Vec::new();
        }
        std::slice::from_raw_parts(at.cast::<u8>(), len as usize).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_of_short_calls_is_idle_after_enough_looks() {
        let mut code = Code::default();
        assert!(code.site(-2).is_none());
        for _ in 0..LOOKS {
            assert!(!code.site(10).unwrap().is_idle(true));
            code.site(10).unwrap().saw(10);
            code.site(12).unwrap().saw(KEEP_US * hot::micro());
        }
        assert!(code.site(10).unwrap().is_idle(true));
        assert!(!code.site(12).unwrap().is_idle(true) && code.site(12).unwrap().is_idle(false));
        // looked at again, it is kept if its calls have become long
        for (ticks, idle) in [(10, true), (100 * KEEP_US * hot::micro(), false)] {
            assert_eq!(code.look_again(), 2);
            for _ in 0..LOOKS_AGAIN {
                assert!(!code.site(10).unwrap().is_idle(true));
                code.site(10).unwrap().saw(ticks);
            }
            assert_eq!(code.site(10).unwrap().is_idle(true), idle);
        }
    }
}

//! Call sites that were dropped are looked at again: what a program calls at its start need not be what it calls later,
//! and what is too short to be recorded while the budget is spent may be worth it when it is not.
//!
//! A code object whose sites were dropped is armed anew after a while; each of those sites then has two calls to show that
//! it is worth its events. The while doubles each time (native_time: looking again and again costs more than it finds).
//!
//! All state here is read and written with the GIL held, but for when the next look is due.

use crate::clock;
use crate::code::Code;
use crate::held::Held;
use crate::py::PyObject;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// CPU time of the process until the first look, in ns, and how often that doubles at most. By the system's clock: the
/// governor's stands still while no event comes.
const FIRST_NS: u64 = 500_000_000;
const DOUBLES: u8 = 6;

/// When the next look is due, in ns of CPU time; `u64::MAX`: no site was dropped.
static DUE: AtomicU64 = AtomicU64::new(u64::MAX);

/// This is a forked child, and the list has its parent's times.
static ANEW: AtomicBool = AtomicBool::new(false);

/// What is known of a code object's looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Looks {
    /// It is in the list.
    listed: bool,
    times: u8,
}

/// When, and at which code object and its record, as addresses.
type Entry = Reverse<(u64, usize, usize)>;

static LIST: Held<BinaryHeap<Entry>> = Held::new(BinaryHeap::new());

/// # Safety
/// As [`Held::get`].
unsafe fn list() -> &'static mut BinaryHeap<Entry> {
    // SAFETY: as the caller promises.
    unsafe { LIST.get() }
}

fn note_next(list: &BinaryHeap<Entry>) {
    let next = list.peek().map_or(u64::MAX, |Reverse((due, ..))| *due);
    DUE.store(next, Relaxed);
}

fn cpu_ns() -> u64 {
    clock::system_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// A call site of `code` has been dropped.
///
/// # Safety
/// `known` is the record of the live `code`, and the GIL is held.
#[cold]
pub unsafe fn dropped(code: *mut PyObject, known: *mut Code) {
    // SAFETY: as the caller promises.
    let looks = unsafe { &mut (*known).looks };
    if looks.listed {
        return;
    }
    looks.listed = true;
    let due = cpu_ns() + (FIRST_NS << looks.times);
    looks.times = (looks.times + 1).min(DOUBLES);
    // SAFETY: as the caller promises.
    let list = unsafe {
        begin_anew();
        list()
    };
    list.push(Reverse((due, code as usize, known as usize)));
    note_next(list);
}

/// Whether a look is due; for anybody.
pub fn is_due() -> bool {
    let due = DUE.load(Relaxed);
    due != u64::MAX && due <= cpu_ns()
}

/// The code object that is due.
///
/// # Safety
/// The GIL is held.
pub unsafe fn next() -> Option<(*mut PyObject, *mut Code)> {
    if !is_due() {
        return None;
    }
    // SAFETY: as the caller promises; a record that is freed is not in the list, see `forget`.
    unsafe {
        begin_anew();
        let Reverse((_, code, known)) = list().pop()?;
        note_next(list());
        let known = known as *mut Code;
        (*known).looks.listed = false;
        Some((code as *mut PyObject, known))
    }
}

/// In a forked child, whose CPU time begins anew: what was due in the parent's is due soon. Nothing else is touched here,
/// since the child of a fork without the GIL may have found the list half changed; such a child runs no Python.
pub fn forked() {
    if DUE.load(Relaxed) != u64::MAX {
        ANEW.store(true, Relaxed);
        DUE.store(FIRST_NS, Relaxed);
    }
}

/// Brings the list into the time of a forked child.
///
/// # Safety
/// As [`list`].
unsafe fn begin_anew() {
    if ANEW.swap(false, Relaxed) {
        // SAFETY: as the caller promises.
        let list = unsafe { list() };
        let anew = |Reverse((_, code, known)): Entry| Reverse((FIRST_NS, code, known));
        *list = std::mem::take(list).into_iter().map(anew).collect();
    }
}

/// The record is freed.
///
/// # Safety
/// `known` is valid and the GIL is held.
pub unsafe fn forget(known: &Code) {
    if known.looks.listed {
        // SAFETY: as the caller promises.
        let list = unsafe {
            begin_anew();
            list()
        };
        list.retain(|Reverse((_, _, other))| *other != std::ptr::from_ref(known) as usize);
        note_next(list);
    }
}

/// Nothing is looked at any more. When the process ends: code objects that are freed then have little to do.
///
/// # Safety
/// As in [`crate::governor::finish`].
pub unsafe fn finish() {
    // SAFETY: as the caller promises.
    unsafe { list() }.clear();
    DUE.store(u64::MAX, Relaxed);
}

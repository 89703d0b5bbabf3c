//! Time by line, in the functions that the user names (`--lines`); CPython 3.12 and later.
//!
//! The next event of a frame ends the line that its last one began: calls that the line makes are in its time. Sums by
//! line are all that is kept; the helper writes what was added to them once a second. A line's event costs as much as
//! a call, so the budget switches the lines of a function off when it is spent, and on again when there is some: then
//! the sums are a sample, and say so. What an event costs (52 ns on 3.12 and 3.13) stays in its line's time: it is known
//! to about 10 ns, and a short line takes no longer.
//!
//! Sums change with the GIL held, and are read without.

use crate::governor;
use crate::hot;
use crate::json::quote;
use crate::py::{Py, PyObject};
use inferscope_spool::record::Record;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};

/// Functions that are measured; what would be one more is not, and a note says so.
const MOST: usize = 4096;
/// Lines that are told apart in one function.
const CHUNK: usize = 64;
const CHUNKS: usize = 64;
/// Of one thread, frames whose lines are measured.
const MOST_OPEN: usize = 4096;

/// Sums of one line, since the start and as far as they were written.
#[derive(Default)]
struct Line {
    hits: AtomicU64,
    ticks: AtomicU64,
    told_hits: AtomicU64,
    told_ticks: AtomicU64,
    id: AtomicU32,
}

type Chunk = [Line; CHUNK];

/// The lines of one code object. Never freed: threads and the helper look at it at any time.
pub struct Lines {
    next: AtomicPtr<Lines>,
    /// The code object; kept alive from when the lines are switched off for the first time.
    code: AtomicPtr<PyObject>,
    name: String,
    file: String,
    first: u32,
    chunks: [AtomicPtr<Chunk>; CHUNKS],
    /// Switched off, as the budget is spent.
    off: AtomicBool,
    /// It has been.
    shed: AtomicBool,
    /// How often; what was open before is not continued after.
    epoch: AtomicU32,
}

/// A frame of a measured function, and its line that runs; see [`hot::Thread::lines`].
#[derive(Clone, Copy)]
pub struct Open {
    lines: &'static Lines,
    epoch: u32,
    /// `None`: no line of it has begun since we look.
    line: Option<u32>,
    since: u64,
}

static HEAD: AtomicPtr<Lines> = AtomicPtr::new(std::ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Functions whose lines are off.
static OFF: AtomicUsize = AtomicUsize::new(0);
/// Somebody writes the sums.
static TELLING: AtomicBool = AtomicBool::new(false);

/// Switches the line events of a code object. The GIL is held.
pub type Switch = unsafe fn(*mut PyObject);

/// Begins to keep sums for a code object; `None` if there are too many.
pub fn measure(name: &str, file: &str, first: u32) -> Option<&'static Lines> {
    match COUNT.fetch_add(1, Relaxed) {
        MOST => {
            hot::note(&format!(
                "--lines: the lines of more than {MOST} functions are not measured"
            ));
            return None;
        }
        count if count > MOST => return None,
        _ => {}
    }
    let lines: &'static mut Lines = Box::leak(Box::new(Lines {
        next: AtomicPtr::new(HEAD.load(Relaxed)),
        code: AtomicPtr::new(std::ptr::null_mut()),
        name: name.to_owned(),
        file: file.to_owned(),
        first,
        chunks: [const { AtomicPtr::new(std::ptr::null_mut()) }; CHUNKS],
        off: AtomicBool::new(false),
        shed: AtomicBool::new(false),
        epoch: AtomicU32::new(0),
    }));
    HEAD.store(lines, Release); // with the GIL held, so nobody else does
    Some(lines)
}

fn all() -> impl Iterator<Item = &'static Lines> {
    let deref = |at: &AtomicPtr<Lines>| {
        // SAFETY: null, or a Lines that is never freed and was whole when it was stored.
        unsafe { at.load(Acquire).as_ref() }
    };
    std::iter::successors(deref(&HEAD), move |lines| deref(&lines.next))
}

impl Lines {
    /// Whether line events are on.
    pub fn are_on(&self) -> bool {
        !self.off.load(Relaxed)
    }

    /// Its events go off: what is open now is not continued.
    pub fn interrupt(&self) {
        self.shed.store(true, Relaxed);
        let epoch = self.epoch.load(Relaxed);
        self.epoch.store(epoch.wrapping_add(1), Relaxed);
    }

    fn add(&self, line: u32, ticks: u64) {
        let Some(at) = line.checked_sub(self.first) else {
            return;
        };
        let at = (at as usize).min(CHUNK * CHUNKS - 1);
        let place = &self.chunks[at / CHUNK];
        if place.load(Relaxed).is_null() {
            let chunk: Chunk = std::array::from_fn(|_| Line::default());
            place.store(Box::into_raw(Box::new(chunk)), Release);
        }
        // SAFETY: made above or before, and never freed.
        let line = unsafe { &(&*place.load(Relaxed))[at % CHUNK] };
        let more = |sum: &AtomicU64, by| sum.store(sum.load(Relaxed) + by, Relaxed);
        more(&line.hits, 1);
        more(&line.ticks, ticks);
    }

    /// The frame's line that runs ends.
    fn close(&self, open: Open, time: u64) {
        if let Some(line) = open.line.filter(|_| hot::on()) {
            self.add(line, time.saturating_sub(open.since));
        }
    }
}

/// The open frames of this thread.
fn open() -> Option<&'static mut Vec<Open>> {
    let at = hot::thread();
    // SAFETY: this thread's own state; callers use the list before they call anything that records.
    (!at.is_null()).then(|| unsafe { &mut (*at).lines })
}

/// Frames whose events were off may have ended without telling; one that has not comes back with its next line.
fn forget_interrupted(stack: &mut Vec<Open>) {
    while stack
        .last()
        .is_some_and(|open| open.epoch != open.lines.epoch.load(Relaxed))
    {
        stack.pop();
    }
}

fn is(open: &Open, lines: &'static Lines) -> bool {
    std::ptr::eq(open.lines, lines)
}

/// A frame begins or goes on.
pub fn begin(lines: &'static Lines, time: u64) {
    let Some(stack) = open() else { return };
    forget_interrupted(stack);
    if stack.len() >= MOST_OPEN {
        return;
    }
    stack.push(Open {
        lines,
        epoch: lines.epoch.load(Relaxed),
        line: None,
        since: time,
    });
}

/// The innermost frame of the function ends or is suspended.
pub fn end(lines: &'static Lines, time: u64) {
    let Some(stack) = open() else { return };
    let Some(at) = stack.iter().rposition(|open| is(open, lines)) else {
        return;
    };
    let ended = stack[at];
    stack.truncate(at); // what is above it has ended without telling
    if ended.epoch == lines.epoch.load(Relaxed) {
        lines.close(ended, time);
    }
}

/// A line begins. The GIL is held; `code` is the live code object of `lines`.
///
/// # Safety
/// As said.
pub unsafe fn at(
    py: &Py,
    code: *mut PyObject,
    lines: &'static Lines,
    line: u32,
    time: u64,
    switch: Switch,
) {
    let Some(stack) = open() else { return };
    let epoch = lines.epoch.load(Relaxed);
    let new = Open {
        lines,
        epoch,
        line: Some(line),
        since: time,
    };
    forget_interrupted(stack);
    match stack.iter().rposition(|open| is(open, lines)) {
        Some(at) => {
            stack.truncate(at + 1);
            let before = std::mem::replace(&mut stack[at], new);
            if before.epoch == epoch {
                lines.close(before, time); // else nothing is known of what it did meanwhile
            }
        }
        None if stack.len() < MOST_OPEN => stack.push(new),
        None => {}
    }
    if governor::charge_line(time) {
        return;
    }
    if lines.off.swap(true, Relaxed) {
        return;
    }
    lines.interrupt();
    OFF.fetch_add(1, Relaxed);
    // SAFETY: as the caller promises; the reference is kept for good.
    unsafe {
        if lines.code.swap(code, Relaxed).is_null() {
            (py.Py_IncRef)(code);
        }
        switch(code);
    }
}

/// Whether the lines of any function are measured.
pub fn any() -> bool {
    COUNT.load(Relaxed) > 0
}

/// Whether lines are off, and a window is wanted that may switch them on.
pub fn wait() -> bool {
    OFF.load(Relaxed) != 0
}

/// Switches lines on again. The GIL is held.
///
/// # Safety
/// As said.
pub unsafe fn rearm(switch: Switch) {
    if !wait() {
        return;
    }
    for lines in all().filter(|lines| lines.off.swap(false, Relaxed)) {
        OFF.fetch_sub(1, Relaxed);
        let code = lines.code.load(Relaxed);
        if !code.is_null() {
            // SAFETY: kept alive by our reference.
            unsafe { switch(code) };
        }
    }
}

/// Writes what was added since the last time, in ns. For the helper, and for the end.
pub fn tell() {
    if TELLING.swap(true, Acquire) {
        return;
    }
    let per_ns = hot::micro() as f64 / 1000.0;
    for lines in all() {
        for (chunk, place) in lines.chunks.iter().enumerate() {
            // SAFETY: null, or never freed.
            let Some(found) = (unsafe { place.load(Acquire).as_ref() }) else {
                continue;
            };
            for (at, line) in found.iter().enumerate() {
                let (hits, ticks) = (line.hits.load(Relaxed), line.ticks.load(Relaxed));
                let more_hits = hits - line.told_hits.swap(hits, Relaxed);
                let more_ticks = ticks.saturating_sub(line.told_ticks.swap(ticks, Relaxed));
                if more_hits == 0 {
                    continue;
                }
                if line.id.load(Relaxed) == 0 {
                    let number = lines.first + (chunk * CHUNK + at) as u32;
                    let id = hot::define("line.time_ns", &lines.file, number);
                    line.id.store(id, Relaxed);
                }
                let shed = match lines.shed.load(Relaxed) {
                    true => ",\"shed\":true",
                    false => "",
                };
                let metadata = format!(
                    "{{\"function\":{},\"hits\":{more_hits}{shed}}}",
                    quote(&lines.name)
                );
                hot::write_process_with(
                    &metadata,
                    &Record::Counter {
                        time: hot::now(),
                        id: line.id.load(Relaxed),
                        value: more_ticks as f64 / per_ns,
                    },
                );
            }
        }
    }
    TELLING.store(false, Release);
}

/// In a forked child: what its parent counted is the parent's.
pub fn forked(thread: &mut hot::Thread) {
    thread.lines.clear();
    TELLING.store(false, Relaxed);
    for lines in all() {
        for place in &lines.chunks {
            // SAFETY: null, or never freed.
            let Some(found) = (unsafe { place.load(Acquire).as_ref() }) else {
                continue;
            };
            for line in found {
                line.told_hits.store(line.hits.load(Relaxed), Relaxed);
                line.told_ticks.store(line.ticks.load(Relaxed), Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_to_the_line_that_ran_and_not_over_an_interruption() {
        hot::switch_for_test();
        let lines = measure("f", "a.py", 10).unwrap();
        let sum = |line: u32| {
            let at = (line - 10) as usize;
            let chunk = lines.chunks[at / CHUNK].load(Relaxed);
            // SAFETY: null, or never freed.
            let chunk = unsafe { chunk.as_ref() };
            chunk.map_or((0, 0), |chunk| {
                let line = &chunk[at % CHUNK];
                (line.hits.load(Relaxed), line.ticks.load(Relaxed))
            })
        };
        let step = |line, time| {
            let stack = open().unwrap();
            let new = Open {
                lines,
                epoch: lines.epoch.load(Relaxed),
                line: Some(line),
                since: time,
            };
            let at = stack.len() - 1;
            let before = std::mem::replace(&mut stack[at], new);
            lines.close(before, time);
        };
        begin(lines, 100);
        step(11, 110);
        begin(lines, 115); // it calls itself
        step(11, 120);
        end(lines, 125);
        step(90, 140);
        end(lines, 150);
        assert_eq!((sum(11), sum(90)), ((2, 5 + 30), (1, 10)));
        begin(lines, 200);
        step(11, 210);
        lines.epoch.fetch_add(1, Relaxed);
        end(lines, 300);
        assert_eq!(sum(11), (2, 35), "off for a while, so nothing is known");
        assert!(open().unwrap().is_empty());
    }
}

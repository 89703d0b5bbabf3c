//! The budget before CPython 3.12, where no function can be switched by itself: slices of time.
//!
//! As long as it fits the budget, everything is recorded. When tokens run out, frames pass the hook in [`frames`] but for
//! those of functions that are seldom called, see [`heat`]; where too many pass, the hook is taken out. Then each
//! tick of a thread's CPU clock (every 5 ms of its own time) brings a slice in which all is recorded; its length was fixed
//! before, by what tokens and the slices so far allow. So slices are spread evenly over the CPU time of all threads, and
//! the mean of their rates of calls stands for the time between them; how they differ says how wrong that may be.
//!
//! What recording costs is taken out of a slice's time. Of each call's part, the hook's beginning is measured; the rest
//! (the hook's end, and what the interpreter does otherwise under it) depends on the program. So every few slices
//! serve for [`trials`]: a coin decides for each call whether the calls below it are recorded, and how much longer it
//! takes if they are is the cost of those calls.
//!
//! All is done with the GIL held, but for [`arm`], which runs in a signal handler.

mod trials; // what a call costs

use crate::clock::{self, toss};
use crate::code::Code;
use crate::cpu;
use crate::frames;
use crate::governor::{self, Part};
use crate::heat;
use crate::held::Held;
use crate::hot::{self, Thread};
use crate::py::{self, PyObject};
use crate::python;
use inferscope_spool::record::Record;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use trials::{Cost, Sums};

pub use trials::{trial, tried};

/// What is recorded: everything, nothing, or one thread's calls until a moment.
const WHOLE: u32 = 0;
const OFF: u32 = 1;
const SLICE: u32 = 2;
/// Functions that are seldom called, and coroutines: they say which request a thread works for, and so does no sample. The
/// hook stays in, and all other frames pass through it, as long as they are few enough.
const THIN: u32 = 3;
/// What a frame that passes costs, in ns: 12.5 in a program of small functions (benches/workloads/calls.py, 20 million
/// frames), more in colder caches. Beside the hook, 3.11 no longer calls Python from Python without a C call.
const PASS_NS: f64 = 18.0;
/// What passing may cost, as a part of what everything may: for seldom calls, and for coroutines. Looked at after so
/// many frames, over so much CPU time.
const PASSES_SHARE: [f64; 2] = [0.4, 1.5];
const PASSES: u32 = 1024;
const PASSES_US: u64 = 100_000;
/// Frames pass again where slices show that it would take this part of that.
const PASS_AGAIN: f64 = 0.7;
/// What seldom calls may cost, as a part of what slices may, looked at over so much CPU time at least: the rest is for
/// slices.
const SELDOM_SHARE: f64 = 0.5;
const SELDOM_US: u64 = 20_000;

/// A slice's length, at least and at most.
const SLICE_US: (u64, u64) = (20, 5_000);
/// The hook is in for so long before: the signal and the first calls take up to 40 µs more than they do later.
const WARM_US: u64 = 60;
/// Ticks of all threads from one slice to the next, at least and at most, by chance: threads may take turns.
const EVERY_TICKS: (u32, u32) = (3, 5);
/// Without a tick for so much CPU time of the process, none is waited for: each thread ends before its first one.
const LATE_NS: u64 = 40_000_000;
/// Of the tokens that are there, in percent, for one slice.
const FOR_SLICE: f64 = 0.8;
/// A slice that costs this many times what it was to cost is over at once.
const TOO_DEAR: f64 = 5.0;
/// What is written of each function covers this much.
const ROW_US: u64 = 1_000_000;
/// Slices that a row needs, if it is not the last.
const ROW_SLICES: u32 = 64;
/// One call's part in the hook is at most this long; more was another program's time.
const MOST_OWN_US: u64 = 5;
/// How much more a call costs than in the calibration's loop, beyond the hook, until trials have told, and how far off
/// that may be: measured, 1.2 to 2.2 times.
const COLD: f64 = 1.6;
const COST_ERROR: f64 = 0.4;
/// The same once they have, beside their own error: a slice begins cold.
const TRIED_ERROR: f64 = 0.05;
/// How far off all counts of a run may be together, beside that: the program's CPU time without what recording cost is
/// known no better. Measured with scripts/bench-estimates: means of 8 runs are off by up to 3 %.
const WORK_ERROR: f64 = 0.03;
/// Everything is recorded again when that would take this part of the budget, as the slices show it.
const BACK: f64 = 0.7;
/// Slices to look at before that, at first and at most: it doubles each time it did not last.
const BACK_AFTER: (u32, u32) = (16, 1024);
/// An owner that was not seen for so long after its slice has ended gives way to another thread.
const PATIENCE_US: u64 = 20_000;

/// In place of a thread: the first that comes.
const ANY: u64 = u64::MAX;

static BEGUN: AtomicBool = AtomicBool::new(false);
static MODE: AtomicU32 = AtomicU32::new(WHOLE);
/// The thread whose slice this is, or [`ANY`], and the slice: its start and end; a moment before it or early in it, and
/// the thread's CPU clock then.
static OWNER: AtomicU64 = AtomicU64::new(ANY);
static SINCE: AtomicU64 = AtomicU64::new(0);
static UNTIL: AtomicU64 = AtomicU64::new(0);
static READ: AtomicU64 = AtomicU64::new(0);
static READ_CPU: AtomicU64 = AtomicU64::new(0);
/// The slice has begun, after its [`WARM_US`]; the CPU time that these took, in ns.
static WARM: AtomicBool = AtomicBool::new(false);
static WARMED: AtomicU64 = AtomicU64::new(0);
/// Ticks until the next slice.
static TICKS: AtomicU32 = AtomicU32::new(0);
/// How long the next slice is to be.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// A slice is being begun.
static ARMING: AtomicBool = AtomicBool::new(false);
/// Threads that were seen to run Python, by number.
static PYTHON: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];
/// The interpreter's code.
static CODE: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
/// What recording has cost in this slice, in ticks, and what it may.
static OWN: AtomicI64 = AtomicI64::new(0);
static MOST: AtomicI64 = AtomicI64::new(i64::MAX);
/// Calls in this slice.
static CALLS: AtomicU64 = AtomicU64::new(0);
/// What a call costs beyond what the hook sees, in ticks.
static REST: AtomicI64 = AtomicI64::new(0);
/// How many imports may still be followed by a recording of everything.
static GRANTS: AtomicU32 = AtomicU32::new(16);
/// What is recorded between slices: [`OFF`] or [`THIN`].
static BETWEEN: AtomicU32 = AtomicU32::new(OFF);
/// A coroutine was recorded; and frames have passed at too high a rate.
static COROUTINES: AtomicBool = AtomicBool::new(false);
static CROWDED: AtomicBool = AtomicBool::new(false);
/// Frames that passed since `PASSED_AT`, in [`governor::work`].
static PASSED: AtomicU32 = AtomicU32::new(0);
static PASSED_AT: AtomicU64 = AtomicU64::new(0);
/// What seldom calls have cost since `SELDOM_AT`, likewise.
static SELDOM: AtomicI64 = AtomicI64::new(0);
static SELDOM_AT: AtomicU64 = AtomicU64::new(0);
/// Numbers slices, to tell one from the next.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// What slices have shown of one code object.
#[derive(Debug, Default)]
pub struct Shown {
    /// The last slice it was called in, and calls there.
    slice: u32,
    calls: u32,
    /// Calls in all slices of this stretch; the sum of its rates (calls per tick) in them, and of their squares.
    seen: u32,
    rates: f64,
    squares: f64,
    listed: bool,
    /// Calls below its last call.
    below: u32,
    /// Trials with the calls below recorded, and without.
    trials: [Sums; 2],
}

/// Since recording everything ended, or since rows were last written.
#[derive(Default)]
struct Stretch {
    since: u64,
    /// [`governor::work`] then.
    work: u64,
    /// From when on the hook was out between slices, likewise.
    out: Option<u64>,
    slices: u32,
    /// CPU time in the slices without what recording cost, that cost, and the part of it that is [`REST`], in ticks.
    on: f64,
    own: f64,
    rest: f64,
    /// CPU time in which calls were recorded that no slice counts: before slices began, and in those for trials.
    beside: f64,
    /// What slices cost of late: ticks per tick.
    dear: f64,
    /// Slices since everything was recorded last, how many there must be before it may be again, and when it was.
    looked: u32,
    back_after: u32,
    whole_since: u64,
    /// What trials have shown so far; calls of all slices, and what the hook saw of their cost.
    cost: Cost,
    calls: f64,
    seen: f64,
    /// Codes called in this slice.
    touched: Vec<*mut Code>,
    /// Codes called in this stretch, with a reference each.
    listed: Vec<(*mut PyObject, *mut Code)>,
}

static STRETCH: Held<Option<Stretch>> = Held::new(None);

/// # Safety
/// As [`Held::get`].
unsafe fn stretch() -> &'static mut Stretch {
    // SAFETY: as the caller promises.
    unsafe { STRETCH.get() }.get_or_insert_default()
}

/// Begins; `code` is an address in the interpreter's code.
pub fn start(code: usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut ranges = maps.lines().filter_map(|line| {
        let (from, to) = line.split_once(' ')?.0.split_once('-')?;
        Some((
            usize::from_str_radix(from, 16).ok()?,
            usize::from_str_radix(to, 16).ok()?,
        ))
    });
    if let Some((from, to)) = ranges.rfind(|&(from, to)| (from..to).contains(&code)) {
        CODE[0].store(from, Relaxed);
        CODE[1].store(to, Relaxed);
    }
    heat::lower();
    BEGUN.store(true, Relaxed);
}

/// Whether this process keeps its budget by slices.
pub fn begun() -> bool {
    BEGUN.load(Relaxed)
}

/// Runs the calibration, and how much of its time one call spent in the hook, in ticks.
pub fn own_time(run: impl FnOnce() -> u64) -> (u64, u64) {
    let (own, calls) = (OWN.load(Relaxed), CALLS.load(Relaxed));
    let took = run();
    let calls = CALLS.load(Relaxed).wrapping_sub(calls).max(1);
    (took, (OWN.load(Relaxed) - own).max(0) as u64 / calls)
}

/// A call costs `all` ticks, of which the hook sees `own`.
pub fn set_cost(all: u64, own: u64) {
    let rest = (all.saturating_sub(own) as f64 * COLD) as u64;
    let rest = rest.clamp(hot::micro() / 200, hot::micro() / 4);
    REST.store(rest as i64, Relaxed);
    governor::tell_cost(all.max(rest) as f64);
}

/// Whether a frame that begins now is to be recorded. `calm`: no exception is set.
///
/// # Safety
/// The GIL is held and `at` is this thread's state.
#[inline(always)]
pub unsafe fn records(at: *mut Thread, time: u64, stack: usize, calm: bool) -> bool {
    // SAFETY: as the caller promises.
    unsafe {
        match MODE.load(Acquire) {
            WHOLE => {
                governor::tokens() >= 0 && time < (*at).window_end && stack > (*at).halfway
                    || goes_on(at, time, stack)
            }
            SLICE => {
                OWNER.load(Relaxed) == (*at).tid
                    && time < UNTIL.load(Relaxed)
                    && stack > (*at).halfway
                    && OWN.load(Relaxed) < MOST.load(Relaxed)
                    && (WARM.load(Relaxed) || time < SINCE.load(Relaxed))
                    || in_slice(at, time, stack, calm)
            }
            THIN => false,
            _ => {
                frames::disarm();
                false
            }
        }
    }
}

/// What is done once for a thread.
unsafe fn know(at: *mut Thread) {
    // SAFETY: as in `records`; nothing here records.
    unsafe {
        if (*at).halfway == 0 {
            (*at).halfway = halfway();
        }
        if (*at).tid == 0 {
            (*at).tid = libc::gettid() as u64;
        }
        PYTHON[(*at).tid as usize % PYTHON.len()].store((*at).tid, Relaxed);
    }
}

/// The address at which this thread's stack is half used. Under the hook a call takes some of it, on 3.11 where without
/// it takes none: programs that recurse deeply there are left alone.
fn halfway() -> usize {
    // SAFETY: the attributes are initialised by the first call, which tells whether it did, and destroyed by the last.
    unsafe {
        let mut attributes = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &mut attributes) != 0 {
            return 1;
        }
        let (mut low, mut size) = (std::ptr::null_mut(), 0);
        libc::pthread_attr_getstack(&attributes, &mut low, &mut size);
        libc::pthread_attr_destroy(&mut attributes);
        (low as usize + size / 2).max(1)
    }
}

/// While everything is recorded: reads the clock and looks whether it still fits.
#[cold]
#[inline(never)]
unsafe fn goes_on(at: *mut Thread, time: u64, stack: usize) -> bool {
    // SAFETY: as in `records`.
    unsafe {
        know(at);
        governor::read_cpu(at);
        (*at).window_end = time + governor::window_ticks();
        if governor::tokens() >= 0 && stack > (*at).halfway || !hot::on() {
            return true;
        }
        let stretch = stretch();
        let lasted = time.saturating_sub(stretch.whole_since) > ROW_US * hot::micro();
        stretch.back_after = match stretch.back_after {
            0 => BACK_AFTER.0,
            _ if lasted => BACK_AFTER.0,
            before => (2 * before).min(BACK_AFTER.1),
        };
        (stretch.since, stretch.work) = (time, governor::work());
        (stretch.slices, stretch.looked) = (0, 0);
        (stretch.on, stretch.own, stretch.rest, stretch.beside) = (0.0, 0.0, 0.0, 0.0);
        match !CROWDED.load(Relaxed) && stack > (*at).halfway {
            true => thin_out(),
            false => take_out(),
        }
    }
    rest();
    false
}

/// Between slices frames pass from now on, but for seldom ones.
unsafe fn thin_out() {
    governor::spend_on(Part::Thin);
    CROWDED.store(false, Relaxed);
    BETWEEN.store(THIN, Relaxed);
    PASSED.store(0, Relaxed);
    PASSED_AT.store(governor::work(), Relaxed);
    SELDOM.store(0, Relaxed);
    SELDOM_AT.store(governor::work(), Relaxed);
    // SAFETY: the GIL is held, as in `records`.
    unsafe { stretch().out = None };
}

/// Between slices the hook is out from now on.
unsafe fn take_out() {
    governor::spend_on(Part::Slices);
    BETWEEN.store(OFF, Relaxed);
    // SAFETY: as above.
    unsafe { stretch().out = Some(governor::work()) };
}

/// A seldom call is about to be recorded between slices: looks from time to time what such calls cost.
///
/// # Safety
/// The GIL is held and `at` is this thread's state.
#[inline(always)]
pub unsafe fn seldom(at: *mut Thread, time: u64) {
    // SAFETY: as the caller promises.
    unsafe {
        if time >= (*at).window_end {
            look_at_seldom(at, time);
        }
    }
}

#[cold]
#[inline(never)]
unsafe fn look_at_seldom(at: *mut Thread, time: u64) {
    // SAFETY: as in `seldom`.
    unsafe {
        know(at);
        governor::read_cpu(at);
        (*at).window_end = time + governor::window_ticks();
        let work = governor::work();
        let ran = work.saturating_sub(SELDOM_AT.load(Relaxed));
        // what the bar was last raised for shows only then
        if ran < (SELDOM_US * hot::micro()).max(2 * heat::bar()) {
            return;
        }
        SELDOM_AT.store(work, Relaxed);
        let cost = SELDOM.swap(0, Relaxed) as f64;
        if cost > governor::share() * SELDOM_SHARE * ran as f64 && !heat::raise() {
            CROWDED.store(true, Relaxed);
            take_out();
            if is_resting() {
                rest();
            }
        }
    }
}

/// Between two slices.
fn rest() {
    let between = BETWEEN.load(Relaxed);
    MODE.store(between, Release);
    if between == OFF {
        frames::disarm();
    }
}

/// Whether coroutines and seldom calls are recorded wherever other frames are not.
#[inline(always)]
pub fn is_thin() -> bool {
    BETWEEN.load(Relaxed) == THIN
}

/// Whether nothing else is recorded just now.
#[inline(always)]
pub fn is_resting() -> bool {
    MODE.load(Acquire) == THIN
}

/// A coroutine's frame is recorded.
#[inline(always)]
pub fn coroutine() {
    if !COROUTINES.load(Relaxed) {
        COROUTINES.store(true, Relaxed);
        CROWDED.store(false, Relaxed); // more may pass for its sake
    }
}

/// Where a frame is recorded: while everything is, in a slice, or between slices.
#[derive(Clone, Copy, PartialEq)]
pub enum Place {
    Whole,
    Slice,
    Between,
}

/// Where a frame is recorded that [`records`] wants.
#[inline(always)]
pub fn now() -> Place {
    match MODE.load(Relaxed) {
        SLICE => Place::Slice,
        _ => Place::Whole,
    }
}

/// What passing may cost, as a share of CPU time.
fn may_pass() -> f64 {
    governor::share_of_whole() * PASSES_SHARE[usize::from(COROUTINES.load(Relaxed))]
}

/// A frame passes the hook.
///
/// # Safety
/// The GIL is held and `at` is this thread's state.
#[inline(always)]
pub unsafe fn pass(at: *mut Thread, stack: usize) {
    let passed = PASSED.load(Relaxed) + 1;
    PASSED.store(passed, Relaxed);
    // SAFETY: as the caller promises.
    if passed.is_multiple_of(PASSES) || stack < unsafe { (*at).halfway } {
        // SAFETY: as the caller promises.
        unsafe { passes(at, stack, passed) };
    }
}

#[cold]
#[inline(never)]
unsafe fn passes(at: *mut Thread, stack: usize, passed: u32) {
    // SAFETY: as in `pass`.
    unsafe {
        know(at);
        governor::read_cpu(at);
        let work = governor::work();
        let ran = work.saturating_sub(PASSED_AT.load(Relaxed));
        let micro = hot::micro();
        let cost = f64::from(passed) * PASS_NS * micro as f64 / 1000.0;
        let deep = stack < (*at).halfway;
        let least = PASSES_US * micro;
        let crowded = cost > may_pass() * ran.max(least) as f64;
        if ran < least && !deep && !crowded {
            return;
        }
        PASSED.store(0, Relaxed);
        PASSED_AT.store(work, Relaxed);
        if deep || crowded {
            CROWDED.store(true, Relaxed);
            take_out();
            if is_resting() {
                rest();
            }
        }
    }
}

/// The outermost import has ended: what it was too dear for is over, so everything is recorded again, a few times.
pub fn after_import(time: u64) {
    let grants = GRANTS.load(Relaxed);
    let resting = matches!(MODE.load(Acquire), OFF | THIN);
    if grants == 0 || !resting || !hot::on() || !frames::arm() {
        return;
    }
    GRANTS.store(grants - 1, Relaxed);
    governor::grant();
    // SAFETY: with the GIL held, after a frame; nothing here records.
    unsafe { take_all(time) };
}

/// Everything is recorded from now on; the hook is in.
unsafe fn take_all(time: u64) {
    // SAFETY: as in `records`.
    unsafe { stretch().whole_since = time };
    CROWDED.store(false, Relaxed);
    heat::lower();
    governor::spend_on(Part::Whole);
    MODE.store(WHOLE, Release);
}

/// Begins a slice of the thread that this signal interrupts. In a signal handler: stores words, and no more.
pub fn arm(tid: u64, time: u64, ip: u64) {
    let mode = MODE.load(Acquire);
    if mode == WHOLE {
        return;
    }
    let known = PYTHON[tid as usize % PYTHON.len()].load(Relaxed) == tid;
    if TICKS.load(Relaxed) > 1 {
        TICKS.fetch_sub(1, Relaxed); // two threads at once may make it one less: a slice comes a tick early
        return;
    }
    if known || (CODE[0].load(Relaxed)..CODE[1].load(Relaxed)).contains(&(ip as usize)) {
        begin(tid, time);
    }
}

/// The same without a signal: of the thread that next begins a frame. From the helper, every few ms.
pub fn arm_any() {
    let time = hot::now();
    let due = SINCE.load(Relaxed) + governor::window_ticks();
    if matches!(MODE.load(Acquire), OFF | THIN) && time >= due && hot::on() {
        begin(ANY, time);
    }
}

/// When slices were last seen to begin.
#[derive(Debug, Default)]
pub struct Late {
    number: u32,
    /// CPU time of the process then, in ns.
    cpu_ns: u64,
}

impl Late {
    /// [`arm_any`] if no signal has begun a slice for long.
    pub fn look(&mut self) {
        if !matches!(MODE.load(Acquire), OFF | THIN) {
            return;
        }
        let (number, cpu_ns) = (
            NUMBER.load(Relaxed),
            clock::system_ns(libc::CLOCK_PROCESS_CPUTIME_ID),
        );
        if number != self.number {
            (self.number, self.cpu_ns) = (number, cpu_ns);
        } else if cpu_ns.saturating_sub(self.cpu_ns) >= LATE_NS {
            self.cpu_ns = cpu_ns;
            arm_any();
        }
    }
}

fn begin(tid: u64, time: u64) {
    if ARMING.swap(true, Acquire) {
        return;
    }
    let patient = UNTIL.load(Relaxed) + PATIENCE_US * hot::micro();
    let free = match MODE.load(Acquire) {
        OFF | THIN => true,
        SLICE => time > patient,
        _ => false,
    };
    if free && frames::arm() {
        let (least, most) = EVERY_TICKS;
        TICKS.store(least + (toss() >> 32) as u32 % (most + 1 - least), Relaxed);
        OWNER.store(tid, Relaxed);
        place(time);
        MODE.store(SLICE, Release);
    }
    ARMING.store(false, Release);
}

/// The slice of this thread begins soon after `time`.
fn place(time: u64) {
    let since = time + WARM_US * hot::micro();
    SINCE.store(since, Relaxed);
    UNTIL.store(since + NEXT.load(Relaxed), Relaxed);
    WARM.store(false, Relaxed);
    READ.store(time, Relaxed);
    READ_CPU.store(clock::system_ns(libc::CLOCK_THREAD_CPUTIME_ID), Relaxed);
}

/// A frame begins in a slice that is another thread's, or not begun, or over.
#[cold]
#[inline(never)]
unsafe fn in_slice(at: *mut Thread, time: u64, stack: usize, calm: bool) -> bool {
    // SAFETY: as in `records`.
    unsafe {
        know(at);
        if OWNER.load(Relaxed) == ANY {
            OWNER.store((*at).tid, Relaxed);
            place(time);
        }
        let own = OWNER.load(Relaxed) == (*at).tid;
        let over = time >= UNTIL.load(Relaxed);
        if own && !over && time >= SINCE.load(Relaxed) && !WARM.swap(true, Relaxed) {
            OWN.store(0, Relaxed);
            CALLS.store(0, Relaxed);
            trials::begin();
            READ.store(time, Relaxed);
            let cpu = clock::system_ns(libc::CLOCK_THREAD_CPUTIME_ID);
            WARMED.store(cpu.saturating_sub(READ_CPU.swap(cpu, Relaxed)), Relaxed);
            governor::read_cpu(at); // so that its time is known if it ends before the slice does
        }
        if own && stack > (*at).halfway && !over && OWN.load(Relaxed) < MOST.load(Relaxed) {
            return true;
        }
        if (own || over) && calm {
            if own && !over {
                UNTIL.store(time, Relaxed); // too deep, or too dear
            }
            rest();
            end(at, time);
        }
        false
    }
}

/// Takes what a recorded frame's beginning cost, `own` of it in the hook.
///
/// # Safety
/// The GIL is held and `known` is valid.
#[inline(always)]
pub unsafe fn spend(known: *mut Code, own: u64, time: u64, importing: bool, place: Place) {
    let own = own.min(MOST_OWN_US * hot::micro()) as i64 + REST.load(Relaxed);
    match importing {
        true => governor::charge_import(own),
        false => governor::charge(own),
    }
    if place == Place::Between {
        SELDOM.store(SELDOM.load(Relaxed).wrapping_add(own), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { heat::count(known, time, work_now) };
        return;
    }
    OWN.store(OWN.load(Relaxed).wrapping_add(own), Relaxed);
    CALLS.store(CALLS.load(Relaxed).wrapping_add(1), Relaxed);
    if place == Place::Whole {
        // SAFETY: as the caller promises; its frames pass when others do.
        unsafe { heat::count(known, time, || 0) };
    }
}

/// [`governor::work`], with this thread's clock read.
fn work_now() -> u64 {
    let at = hot::thread();
    if !at.is_null() {
        // SAFETY: this thread's own state, with the GIL held as in `spend`.
        unsafe { governor::read_cpu(at) };
    }
    governor::work()
}

/// Notes a frame that was recorded in a slice.
///
/// # Safety
/// The GIL is held; `known` is the record of `code`, which is live.
#[inline(always)]
pub unsafe fn note(known: *mut Code, code: *mut PyObject, new_call: bool) {
    if !new_call || !WARM.load(Relaxed) {
        return;
    }
    let slice = NUMBER.load(Relaxed);
    // SAFETY: as the caller promises; nothing here records.
    unsafe {
        let shown = &mut (*known).shown;
        if shown.slice != slice || shown.calls == 0 {
            (shown.slice, shown.calls) = (slice, 0);
            first_in_slice(known, code);
        }
        (*known).shown.calls += 1;
    }
}

#[cold]
unsafe fn first_in_slice(known: *mut Code, code: *mut PyObject) {
    // SAFETY: as in `note`.
    unsafe {
        let stretch = stretch();
        stretch.touched.push(known);
        if !std::mem::replace(&mut (*known).shown.listed, true) {
            if let Some(py) = py::get() {
                (py.Py_IncRef)(code);
            }
            stretch.listed.push((code, known));
        }
    }
}

/// The slice is over: what it showed, and how long the next one is to be.
unsafe fn end(at: *mut Thread, time: u64) {
    let micro = hot::micro();
    let (since, until) = (SINCE.load(Relaxed), UNTIL.load(Relaxed));
    // SAFETY: as in `records`.
    let used = unsafe { cpu::of(OWNER.load(Relaxed)) };
    let used = used.saturating_sub(READ_CPU.load(Relaxed) * micro / 1000);
    let whole = time.saturating_sub(READ.load(Relaxed)).max(1);
    let part = until.min(time).saturating_sub(since);
    let (own, calls) = (OWN.swap(0, Relaxed) as f64, CALLS.swap(0, Relaxed) as f64);
    let (own, calls) = if WARM.load(Relaxed) {
        (own, calls)
    } else {
        (0.0, 0.0)
    };
    let rest = calls * REST.load(Relaxed) as f64;
    let ran = governor::ran(used.min(whole), part, whole, calls as u64) as f64;
    let on = ran - own;
    let for_trials = trials::are_in(NUMBER.fetch_add(1, Relaxed));
    // SAFETY: as in `records`; no reference is held over what may record.
    unsafe {
        let stretch = stretch();
        let long = part >= SLICE_US.0 * micro && on > 0.0;
        let counts = long && !for_trials;
        for known in stretch.touched.drain(..) {
            let shown = &mut (*known).shown;
            let calls = std::mem::take(&mut shown.calls);
            if counts {
                let rate = f64::from(calls) / on;
                shown.seen = shown.seen.saturating_add(calls);
                shown.rates += rate;
                shown.squares += rate * rate;
            }
        }
        if WARM.load(Relaxed) {
            stretch.beside += (WARMED.load(Relaxed) * micro / 1000) as f64;
        }
        if long && for_trials {
            stretch.beside += (on - trials::muted() as f64).max(0.0);
        }
        if counts {
            stretch.slices += 1;
            stretch.looked += 1;
            stretch.on += on;
            stretch.own += own;
            stretch.rest += rest;
            stretch.calls += calls;
            stretch.seen += own - rest;
            let dear = own / ran;
            stretch.dear = match stretch.dear {
                0.0 => dear,
                before => before + (dear - before) / 8.0,
            };
        }
        governor::read_cpu(at);
        let dear = stretch.dear.max(1e-3);
        let plan = governor::tokens().max(0) as f64 * FOR_SLICE;
        let length = (plan / dear).min((SLICE_US.1 * micro) as f64) as u64;
        NEXT.store(
            if length < SLICE_US.0 * micro {
                0
            } else {
                length
            },
            Relaxed,
        );
        MOST.store((plan * TOO_DEAR) as i64, Relaxed);
        if let Some(py) = py::get() {
            python::look_for_modules(py);
        }
        let fits = stretch.own < governor::share_of_whole() * BACK * (stretch.own + stretch.on);
        let back = stretch.looked >= stretch.back_after && fits && governor::tokens() > 0;
        let full = stretch.slices >= ROW_SLICES && time - stretch.since >= ROW_US * micro;
        let passing = stretch.calls / stretch.on.max(1.0) * PASS_NS * micro as f64 / 1000.0;
        let again = stretch.out.is_some() && passing < may_pass() * PASS_AGAIN;
        if back || full {
            write_rows(time);
        }
        if back && frames::arm() {
            take_all(time);
        } else if full && again && frames::arm() {
            thin_out();
            MODE.store(THIN, Release);
        }
    }
}

/// Writes what the slices since the last rows say of each function.
unsafe fn write_rows(time: u64) {
    let micro = hot::micro() as f64;
    // SAFETY: as in `records`; giving up a code may run the program's code, so no reference is held then.
    unsafe {
        let (slices, on, believed) = (f64::from(stretch().slices), stretch().on, stretch().rest);
        let (rest, error) = rest_of_a_call(stretch());
        let stretch = stretch();
        let seen = stretch.seen / stretch.calls.max(1.0);
        let listed = std::mem::take(&mut stretch.listed);
        // The slices' time was reckoned with the cost that was known then.
        let calls = believed / REST.load(Relaxed).max(1) as f64;
        if calls > 0.0 {
            governor::tell_cost(rest + seen);
        }
        REST.store(rest as i64, Relaxed);
        let on = (on - (calls * rest - believed)).max(on / 4.0);
        let more = stretch.on / on.max(1.0);
        let wrong = error * calls / on.max(1.0);
        governor::read_unseen();
        let work = governor::work();
        let ran = work.saturating_sub(stretch.work);
        let off = (ran as f64 - on - stretch.beside).max(0.0);
        let dur = time.saturating_sub(stretch.since) as f64 / micro;
        let number = stretch.slices;
        let out = stretch.out.map(|out| out.max(stretch.work));
        stretch.out = out.map(|_| work);
        (stretch.since, stretch.work, stretch.slices) = (time, work, 0);
        (stretch.on, stretch.own, stretch.rest) = (0.0, 0.0, 0.0);
        (stretch.calls, stretch.seen, stretch.beside) = (0.0, 0.0, 0.0);
        let row = heat::next_row();
        for (code, known) in listed {
            let shown = std::mem::take(&mut (*known).shown);
            (*known).shown.below = shown.below;
            let passed = (*known).heat.passed_from(row);
            // from when on it was seen in slices only
            let unseen = passed.into_iter().chain(out).min();
            let mean = shown.rates / slices.max(1.0);
            if heat::is_rate_hot(mean) && !(*known).coroutine {
                (*known).heat.pass_from(work);
            }
            if let Some(unseen) = unseen
                && number > 0
                && shown.seen > 0
            {
                let part = work.saturating_sub(unseen) as f64 / ran.max(1) as f64;
                let off = off * part.min(1.0);
                let squares = (shown.squares - shown.rates * mean).max(0.0);
                let deviation = (squares / (slices - 1.0).max(1.0) / slices).sqrt();
                let calls = mean * more * off;
                hot::write_process(&Record::Slices {
                    time,
                    dur_us: dur as u32,
                    id: (*known).id,
                    slices: number,
                    seen: shown.seen,
                    calls,
                    chance: match number {
                        1 => calls as f32, // one slice says nothing of how slices differ
                        _ => (deviation * more * off) as f32,
                    },
                    bias: (calls * wrong.hypot(WORK_ERROR)) as f32,
                    on_us: (on / micro) as u32,
                    off_us: (off / micro) as u32,
                });
            }
            if let Some(py) = py::get() {
                (py.Py_DecRef)(code);
            }
        }
    }
}

/// What a call costs beyond what the hook sees, in ticks, as trials have shown so far, and how far off that may be.
unsafe fn rest_of_a_call(stretch: &mut Stretch) -> (f64, f64) {
    for (_, known) in &stretch.listed {
        // SAFETY: as in `write_rows`: a listed code lives.
        stretch.cost.add(unsafe { &(**known).shown.trials });
    }
    let before = REST.load(Relaxed) as f64;
    let seen = stretch.seen / stretch.calls.max(1.0);
    match stretch.cost.of_a_call() {
        Some((cost, error)) => {
            let rest = (cost - seen).max(1.0);
            (rest, error + TRIED_ERROR * cost)
        }
        None => (before, before * COST_ERROR),
    }
}

/// Writes what is left. When the process ends, on the only thread that still runs Python or after it: references to
/// codes are kept, since there may be no interpreter any more.
pub fn finish() {
    BETWEEN.store(OFF, Relaxed);
    if !begun() || MODE.swap(OFF, Relaxed) == WHOLE {
        return;
    }
    let at = hot::thread();
    // SAFETY: nobody else touches what is here any more.
    unsafe {
        if !at.is_null() {
            governor::read_all(at);
        }
        if let Some(py) = py::get() {
            for (code, _) in &stretch().listed {
                (py.Py_IncRef)(*code);
            }
        }
        write_rows(hot::now());
    }
}

/// In a forked child: what the slices have shown so far is the parent's to tell.
pub fn forked(thread: &mut Thread) {
    thread.tid = 0;
    if !begun() {
        return;
    }
    ARMING.store(false, Relaxed);
    // SAFETY: the child's only thread.
    unsafe {
        let stretch = stretch();
        stretch.touched.clear();
        for (_, known) in &stretch.listed {
            (**known).shown = Shown {
                listed: true,
                ..Shown::default()
            };
        }
        (stretch.since, stretch.work) = (hot::now(), governor::work());
        (stretch.slices, stretch.on, stretch.own, stretch.rest) = (0, 0.0, 0.0, 0.0);
        stretch.beside = 0.0;
    }
    if MODE.load(Relaxed) == SLICE {
        MODE.store(BETWEEN.load(Relaxed), Relaxed); // an OFF hook takes itself out at the next frame
    }
}

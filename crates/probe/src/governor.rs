//! The budget: which functions are recorded, so that recording costs no more than the user allows.
//!
//! Tokens are ticks of CPU time. Each thread earns a share of the CPU time it uses, read once per [`WINDOW_US`]; each call
//! that is recorded costs [`PAIR_NS`]. When none are left, the functions that fire are shed: their events go off, which
//! costs the program nothing any more. What is earned beyond that goes into bursts: a shed function is recorded for a
//! while, round robin, and tells how often it ran meanwhile. From bursts and the CPU time between them, whoever
//! reads the trace estimates what was not seen, and how wrong that may be.
//!
//! In thread CPU time, not in wall time: on a machine with other work a budget of wall time triples.
//!
//! All state here is read and written with the GIL held.

use crate::again;
use crate::code::{self, Code};
use crate::cpu;
use crate::depth;
use crate::held::Held;
use crate::hot;
use crate::lines;
use crate::monitor;
use crate::py::PyObject;
use inferscope_spool::record::{LOOSE, Record};
use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};

mod wake;

pub use wake::{Asking, over, wake};

/// Between two readings of a thread's CPU clock.
const WINDOW_US: u64 = 5_000;
/// What a recorded call costs, both ends, in ns: at least and at most what [`set_cost`] believes, and without it.
const PAIR_NS: [u64; 3] = [20, 400, 55];
/// Of what the user allows, in percent: in a program whose code does not fit the caches a call costs up to twice what
/// the calibration found; and 3.12 runs every code object that was ever looked at without its fused instructions, which
/// costs call-heavy programs about 1 %, recorded or not (scripts/bench-overhead).
const TARGET: u64 = 30;
/// The same before 3.12 while everything is recorded, which costs what trials find and no more.
const TARGET_OF_WHOLE: u64 = 80;
/// The same in slices while seldom calls are recorded between them: half for each. Letting the others pass is not in it.
const TARGET_OF_THIN: u64 = 60;
/// Of what is left over, in percent, for bursts.
const FOR_BURSTS: i64 = 70;
/// Between two looks for what threads used that were never heard of.
const UNSEEN_US: u64 = 1_000_000;
/// What may be spent before the first window is over: a program that is done in a moment is recorded whole.
const START_US: u64 = 2000;
/// Beside that, what may be spent on imports before 3.12: a program would otherwise be out of its budget when it begins.
const IMPORTS_US: u64 = 15_000;
/// No more is saved than so many windows' worth: an idle minute is no licence for a slow second.
const SAVED: i64 = 6;
/// Of that, windows' worth that wrapped operators leave to frames before 3.12: a function whose frames are all there has
/// exact counts, and samples stand in for wraps, but nothing for frames.
const RESERVED: i64 = 2;
/// Calls in one window below which a function is never shed: a program has few that are that rare and many.
const RARE: u32 = 10;
/// What it costs to be told of a frame that an exception leaves, in ns, recorded or not.
const UNWIND_NS: u64 = 60;
/// Of what is earned, in percent, for that: while more is spent, nobody tells us, and functions that raise have no bursts.
const FOR_UNWINDS: i64 = 25;
/// What is spent on it at a stretch.
const UNWINDS_US: u64 = 500;
/// When that lasts for less CPU time than this, the event costs a program that raises so much more than a few per mille
/// even while nobody listens: it is switched off for all code …
const SWAMPED_US: u64 = 100_000;
/// … for at least this much CPU time, and this much for each function that was met: all their instructions are looked
/// through when events are switched for all, in 0.3 to 18 µs, and that must not cost much. Not before the program has
/// used as much: functions that raise have no bursts meanwhile, and one that is soon over would have none at all.
const DEAF_US: u64 = 1_000_000;
const DEAF_EACH_US: u64 = 3000;
/// Calls in one window below which an outermost coroutine is never shed: no server has so many requests.
const BUSY: u32 = 200;
/// The shortest and longest burst.
const BURST_US: (u64, u64) = (200, WINDOW_US);
/// Calls are counted so long after a function was switched on: its instructions are specialised anew, and caches fill.
const WARM_US: u64 = 60;
/// Switching one function takes 0.2 to 18 µs by its length; what took longer was another thread's or program's time.
const MOST_TOGGLE_US: u64 = 20;
/// More functions than this wait for bursts, and so many have one at once.
const FEW: usize = 16;
const AT_ONCE: i64 = 32;
/// Of the budget: what costs less than this at its highest rate of late is recorded until the budget is overdrawn again,
/// its native calls too.
const CALM: f64 = 0.05;
/// How long that is: for good.
const FOR_GOOD: u64 = u64::MAX / 4;
/// How much of a function's highest rate is left after each burst: bursts of equal length stand for all phases of
/// a program alike, and a function that calmed down gets longer ones in time.
const CALMS: f64 = 0.95;

/// Ticks that may be spent; negative when more was spent.
static TOKENS: AtomicI64 = AtomicI64::new(i64::MAX);
/// The share of CPU time that may be spent, in 2^-32; 0 = all, nothing is ever shed.
static SHARE: AtomicU64 = AtomicU64::new(0);
/// [`PAIR_NS`] in ticks.
static PAIR: AtomicI64 = AtomicI64::new(0);
/// CPU time of all threads so far, in ticks, as far as it was read.
static POOL: AtomicU64 = AtomicU64::new(0);
/// All tokens that were ever given: those that are not left were spent.
static GIVEN: AtomicI64 = AtomicI64::new(0);
/// The thread that last ran a window.
static RAN: AtomicU64 = AtomicU64::new(0);
/// Functions that are not recorded now.
static OFF: AtomicUsize = AtomicUsize::new(0);

/// A function that was shed at least once.
struct Shed {
    /// A reference of ours, kept for good: the list is walked after the interpreter's end.
    code: *mut PyObject,
    known: *mut Code,
}

static SHED: Held<VecDeque<Shed>> = Held::new(VecDeque::new());

/// # Safety
/// As [`Held::get`].
unsafe fn list() -> &'static mut VecDeque<Shed> {
    // SAFETY: as the caller promises.
    unsafe { SHED.get() }
}

/// What is known of a function's recording.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// Not recorded now.
    pub off: bool,
    /// To be shed at its next call.
    due: bool,
    /// Calls since the phase began; in the upper half, calls and resumptions.
    count: u64,
    /// Calls in this window, and the window.
    recent: u32,
    window: u32,
    /// When the burst ends; `u64::MAX` if it was never shed. While it is warming, when it begins.
    until: u64,
    /// How long the burst is to be, until it begins; 0 then.
    warming: u64,
    /// When it was last switched on, and [`work`] then. 0 before the first time.
    on_since: u64,
    pool: u64,
    /// When the burst began, and [`work`] then.
    since: u64,
    begun: u64,
    /// CPU time just before that in which it was surely not called: from when the burst was asked for to when it could be
    /// given.
    lead: u64,
    /// [`work`] when it was found to be over, and when that was.
    over: u64,
    over_at: u64,
    /// Most calls and resumptions per tick of late.
    peak: f32,
    /// It is no burst: see [`CALM`].
    pub calm: bool,
    /// It is in the list: it was shed at least once.
    pub listed: bool,
}

/// One event in [`Phase::count`].
const EVENT: u64 = 1 << 32;

impl Phase {
    fn calls(&self) -> u32 {
        self.count as u32
    }

    fn events(&self) -> u64 {
        self.count >> 32
    }
}

impl Default for Phase {
    fn default() -> Phase {
        Phase {
            off: false,
            due: false,
            count: 0,
            recent: 0,
            window: 0,
            until: u64::MAX,
            warming: 0,
            on_since: 0,
            pool: 0,
            since: 0,
            begun: 0,
            lead: 0,
            over: 0,
            over_at: 0,
            peak: 0.0,
            calm: false,
            listed: false,
        }
    }
}

/// The share while everything is recorded, before 3.12; as [`SHARE`].
static WHOLE: AtomicU64 = AtomicU64::new(0);
/// Tokens for imports.
static IMPORTS: AtomicI64 = AtomicI64::new(0);
/// Below so many tokens no wrapped call is timed.
static RESERVE: AtomicI64 = AtomicI64::new(0);
/// Tokens for being told of unwound frames; whether we are.
static FOR_TELLING: AtomicI64 = AtomicI64::new(0);
static TELLS: AtomicBool = AtomicBool::new(true);
/// [`POOL`] when we began to be told; whether that was soon too much; until when there are no events, 0: there are.
static TELLS_SINCE: AtomicU64 = AtomicU64::new(0);
static SWAMPED: AtomicBool = AtomicBool::new(false);
static DEAF_UNTIL: AtomicU64 = AtomicU64::new(0);
/// [`LOOSE`] once some were not told.
static UNTOLD: AtomicU32 = AtomicU32::new(0);
/// An outermost coroutine has been shed.
static MISSES_TASKS: AtomicBool = AtomicBool::new(false);
/// When [`read_unseen`] is due.
static UNSEEN_AT: AtomicU64 = AtomicU64::new(0);
/// Counts windows, to tell one from the next.
static WINDOWS: AtomicU64 = AtomicU64::new(0);

/// Sets the budget, a share of CPU time, 0 for none; `toggle` switches single functions, from 3.12 on.
pub fn start(budget: f64, toggle: Toggle) {
    let _ = TOGGLE.set(toggle);
    fill(budget, TARGET, START_US);
}

/// Sets the budget where single functions are not switched.
pub fn start_of_slices(budget: f64) {
    fill(budget, TARGET_OF_WHOLE, START_US);
    WHOLE.store(SHARE.load(Relaxed), Relaxed);
    IMPORTS.store((IMPORTS_US * hot::micro()) as i64, Relaxed);
    RESERVE.store(RESERVED * earned(window_ticks()), Relaxed);
}

fn fill(budget: f64, target: u64, start_us: u64) {
    let share = (budget.clamp(0.0, 1.0) * target as f64 / 100.0 * 4_294_967_296.0) as u64;
    SHARE.store(share, Relaxed);
    PAIR.store((PAIR_NS[2] * hot::micro() / 1000) as i64, Relaxed);
    if share > 0 {
        let tokens = (start_us * hot::micro()) as i64;
        TOKENS.store(tokens, Relaxed);
        GIVEN.store(tokens, Relaxed);
        FOR_TELLING.store(2 * unwinds_ticks(), Relaxed);
    }
}

fn unwinds_ticks() -> i64 {
    (UNWINDS_US * hot::micro()) as i64
}

/// Sets what a recorded call was found to cost, in ticks, and tells the trace: estimates depend on it. In a program's
/// own loops it costs about a quarter more than in the calibration's, whose branches are all foreseen.
pub fn set_cost(ticks: u64) {
    let [least, most, _] = PAIR_NS.map(|ns| ns * hot::micro() / 1000);
    let ticks = (ticks + ticks / 4).clamp(least, most);
    PAIR.store(ticks as i64, Relaxed);
    tell_cost(ticks as f64);
}

/// Tells the trace what a recorded call costs, in ticks.
pub fn tell_cost(ticks: f64) {
    hot::write_process(&Record::Counter {
        time: hot::now(),
        id: hot::text_id("probe.call_ns"),
        value: ticks * 1000.0 / hot::micro() as f64,
    });
}

fn earned(cpu: u64) -> i64 {
    ((u128::from(cpu) * u128::from(SHARE.load(Relaxed))) >> 32) as i64
}

/// Tokens that are left, in ticks.
#[inline(always)]
pub fn tokens() -> i64 {
    TOKENS.load(Relaxed)
}

/// The share of CPU time that may be spent now.
pub fn share() -> f64 {
    SHARE.load(Relaxed) as f64 / 4_294_967_296.0
}

/// The share of CPU time that may be spent while everything is recorded, before 3.12.
pub fn share_of_whole() -> f64 {
    WHOLE.load(Relaxed) as f64 / 4_294_967_296.0
}

/// What is recorded before 3.12.
#[derive(Clone, Copy)]
pub enum Part {
    Whole,
    /// Slices, and seldom calls between them.
    Thin,
    /// Slices: to put the hook in and out for them costs what nobody charges.
    Slices,
}

/// What is recorded from now on, before 3.12.
pub fn spend_on(part: Part) {
    let target = match part {
        Part::Whole => TARGET_OF_WHOLE,
        Part::Thin => TARGET_OF_THIN,
        Part::Slices => TARGET,
    };
    let share = u128::from(WHOLE.load(Relaxed)) * u128::from(target);
    SHARE.store((share / u128::from(TARGET_OF_WHOLE)) as u64, Relaxed);
}

/// Between two readings of a thread's CPU clock, in ticks.
pub fn window_ticks() -> u64 {
    WINDOW_US * hot::micro()
}

/// Tokens for a new beginning, if there are fewer.
pub fn grant() {
    let most = (START_US * hot::micro()) as i64;
    let given = (most - TOKENS.load(Relaxed)).max(0);
    TOKENS.fetch_add(given, Relaxed);
    GIVEN.fetch_add(given, Relaxed);
}

/// Whether there is a budget; without one everything is recorded.
#[inline(always)]
pub fn governs() -> bool {
    SHARE.load(Relaxed) != 0
}

/// Takes tokens for work that was done.
#[inline(always)]
pub fn charge(ticks: i64) {
    TOKENS.store(TOKENS.load(Relaxed).saturating_sub(ticks), Relaxed);
}

/// The same while something is imported.
pub fn charge_import(ticks: i64) {
    match IMPORTS.load(Relaxed) {
        left if left > 0 => IMPORTS.store(left - ticks, Relaxed),
        _ => charge(ticks),
    }
}

/// Takes the tokens of a native call's two events; whether there were some left.
#[inline(always)]
pub fn charge_native() -> bool {
    // One pair of events costs about as much in a loop, and three times that in cold caches (native_time).
    charge(2 * PAIR.load(Relaxed));
    !is_empty()
}

/// Takes the tokens of a line's event, which costs about as much as a call's two, and does the window's work when it is
/// time; whether there were some left.
#[inline(always)]
pub fn charge_line(time: u64) -> bool {
    charge(PAIR.load(Relaxed));
    let thread = hot::thread();
    // SAFETY: null, or this thread's own state; the read ends here.
    let due = !thread.is_null() && time >= unsafe { (*thread).window_end };
    if due && governs() {
        // SAFETY: a line's event comes with the GIL held.
        unsafe { window(thread, time) };
    }
    !is_empty()
}

/// Whether all tokens are spent.
#[inline(always)]
pub fn is_empty() -> bool {
    TOKENS.load(Relaxed) < 0
}

/// Whether there are no tokens for wrapped calls.
#[inline(always)]
pub fn is_short() -> bool {
    TOKENS.load(Relaxed) < RESERVE.load(Relaxed)
}

/// An exception leaves a frame, and we were told. `watch` says whether that is to go on.
///
/// # Safety
/// The GIL is held and no exception is set.
#[inline(always)]
pub unsafe fn charge_unwind(watch: unsafe fn(bool)) {
    let left = FOR_TELLING.load(Relaxed) - (UNWIND_NS * hot::micro() / 1000) as i64;
    FOR_TELLING.store(left, Relaxed);
    if left < 0 && governs() && depth::is_known() {
        // SAFETY: as the caller promises.
        unsafe { tell_no_unwinds(watch) };
    }
}

/// Ends of frames may be missing from now on: those of functions that raise are not in bursts any more.
#[cold]
unsafe fn tell_no_unwinds(watch: unsafe fn(bool)) {
    let thread = hot::thread();
    if thread.is_null() || lines::any() || !TELLS.swap(false, Relaxed) {
        return;
    }
    UNTOLD.store(LOOSE, Relaxed);
    // SAFETY: as the caller promises; the list is used over no call that may record.
    unsafe {
        watch(false);
        read_all(thread);
        let told = POOL.load(Relaxed).saturating_sub(TELLS_SINCE.load(Relaxed));
        let grown = POOL.load(Relaxed) >= DEAF_US * hot::micro();
        SWAMPED.store(grown && told < SWAMPED_US * hot::micro(), Relaxed);
        let (time, work) = (hot::now(), work());
        for Shed { known, .. } in list().iter() {
            let phase = &mut (**known).phase;
            if phase.off || phase.due || !(**known).raises {
                continue;
            }
            if std::mem::take(&mut phase.warming) > 0 {
                (phase.since, phase.begun, phase.count, phase.lead) = (time, work, 0, 0);
            }
            (phase.until, phase.due) = (time.min(phase.until), true);
            (phase.over, phase.over_at) = (work, time);
        }
    }
}

/// Has frames told that exceptions leave, if there are tokens for it, or ends that for a good while.
///
/// # Safety
/// The GIL is held and no exception is set.
unsafe fn listen() {
    if TELLS.load(Relaxed) {
        return;
    }
    let (pool, until) = (POOL.load(Relaxed), DEAF_UNTIL.load(Relaxed));
    // SAFETY: as the caller promises.
    unsafe {
        if SWAMPED.swap(false, Relaxed) && until == 0 {
            let each_us = DEAF_EACH_US * monitor::met() as u64;
            DEAF_UNTIL.store(pool + DEAF_US.max(each_us) * hot::micro(), Relaxed);
            monitor::hear_unwinds(false);
        } else if FOR_TELLING.load(Relaxed) >= unwinds_ticks() && pool >= until {
            if DEAF_UNTIL.swap(0, Relaxed) != 0 {
                monitor::hear_unwinds(true);
            }
            TELLS.store(true, Relaxed);
            TELLS_SINCE.store(pool, Relaxed);
            monitor::watch_unwinds(true);
        }
    }
}

/// Flags of frames that begin now.
#[inline(always)]
pub fn loose() -> u32 {
    UNTOLD.load(Relaxed)
}

/// Takes the tokens of one wrapped call: a wrap costs 50 to 130 ns in cold caches (native_time).
#[inline(always)]
pub fn charge_wrap() {
    charge(PAIR.load(Relaxed));
}

/// The same without the GIL: tokens that another thread is given at that moment are not lost, but this call's may be.
#[inline(always)]
pub fn charge_unlocked() {
    TOKENS.fetch_sub(PAIR.load(Relaxed), Relaxed);
}

/// A call of `known` was recorded at `time`: takes its tokens and, when it is time, does the window's work.
///
/// # Safety
/// `known` and `thread` are valid and the GIL is held.
#[inline(always)]
pub unsafe fn spend(known: *mut Code, time: u64, new_call: bool) {
    let thread = hot::thread();
    if thread.is_null() {
        return;
    }
    let left = TOKENS.load(Relaxed).saturating_sub(PAIR.load(Relaxed));
    TOKENS.store(left, Relaxed);
    // SAFETY: this thread's own state, and `known` as the caller promises; the references end here.
    let (phase, window_end) = unsafe { (&mut (*known).phase, (*thread).window_end) };
    phase.count += EVENT | u64::from(new_call);
    if left < 0 || time >= phase.until || time >= window_end {
        // SAFETY: as the caller promises.
        unsafe { check(known, thread, time, new_call) };
    }
}

/// Switches a code object's events on or off. The GIL is held.
pub type Toggle = unsafe fn(*mut PyObject, *mut Code, bool);

#[cold]
#[inline(never)]
unsafe fn check(known: *mut Code, thread: *mut hot::Thread, time: u64, new_call: bool) {
    if !governs() {
        // SAFETY: as the caller promises.
        unsafe { (*thread).window_end = u64::MAX };
        TOKENS.store(i64::MAX, Relaxed);
        return;
    }
    // SAFETY: as the caller promises; no reference is held over a call that may record.
    unsafe {
        if time >= (*thread).window_end {
            window(thread, time);
        }
        let left = TOKENS.load(Relaxed);
        let phase = &mut (*known).phase;
        let window = WINDOWS.load(Relaxed) as u32;
        if phase.window != window {
            (phase.window, phase.recent) = (window, 0);
        }
        phase.recent += 1;
        if (*known).imports || (*known).coroutine && !may_shed(known, left) {
            return;
        }
        if time >= phase.until && phase.warming > 0 {
            begin_burst(known, thread, time, new_call);
        } else if time >= phase.until {
            if !phase.due {
                phase.count -= EVENT | u64::from(new_call); // after the burst
                phase.due = true;
                read_all(thread);
                ((*known).phase.over, (*known).phase.over_at) = (work(), time);
            }
        } else if left < 0 && phase.recent > RARE && !phase.due && phase.warming == 0 {
            phase.until = time;
            phase.due = true;
            read_all(thread);
            ((*known).phase.over, (*known).phase.over_at) = (work(), time);
        }
    }
}

/// Whether a coroutine may be shed, with `left` tokens. The frames of an outermost one say which task a thread runs: it is
/// shed when nothing else helps.
///
/// # Safety
/// `known` is valid and the GIL is held.
unsafe fn may_shed(known: *mut Code, left: i64) -> bool {
    // SAFETY: as the caller promises.
    let (outermost, recent) = unsafe { ((*known).outermost, (*known).phase.recent) };
    let helps = recent > BUSY && left < -SAVED * earned(window_ticks());
    let may = depth::is_known() && (!outermost || helps);
    if may && outermost {
        MISSES_TASKS.store(true, Relaxed);
    }
    may
}

/// Whether frames that say which task a thread runs have been shed.
#[inline(always)]
pub fn misses_tasks() -> bool {
    MISSES_TASKS.load(Relaxed)
}

/// A function that was switched on a while ago is called: its burst has begun meanwhile.
unsafe fn begin_burst(known: *mut Code, thread: *mut hot::Thread, time: u64, new_call: bool) {
    // SAFETY: as in `check`.
    unsafe {
        read_all(thread);
        let phase = &mut (*known).phase;
        // What it ran since then is the burst's; before the call that tells, nothing is known of when it ran.
        let ran = work().saturating_sub(phase.pool);
        phase.since = phase.until;
        phase.begun = work() - time.saturating_sub(phase.since).min(ran);
        phase.until = phase.since + std::mem::take(&mut phase.warming);
        phase.count = EVENT | u64::from(new_call);
        if time >= phase.until {
            // It slept through its burst.
            phase.count = 0;
            phase.due = true;
            (phase.over, phase.over_at) = (work(), time);
        }
    }
}

/// A window of this thread ends, and the next one begins.
unsafe fn window(thread: *mut hot::Thread, time: u64) {
    // SAFETY: as the caller promises.
    unsafe {
        read_cpu(thread);
        (*thread).window_end = time + window_ticks();
    }
    WINDOWS.fetch_add(1, Relaxed);
    if time >= UNSEEN_AT.load(Relaxed) {
        UNSEEN_AT.store(time + UNSEEN_US * hot::micro(), Relaxed);
        read_unseen();
    }
}

/// Adds what threads used that have ended without a word. Takes some 20 µs.
pub fn read_unseen() {
    earn(cpu::of_unseen());
}

/// Adds what the thread has used since it was last asked, what threads used that have ended, and their tokens.
///
/// # Safety
/// `thread` is this thread's own state and the GIL is held.
pub unsafe fn read_cpu(thread: *mut hot::Thread) {
    // SAFETY: as the caller promises; the references end here.
    let used = unsafe {
        let tid = (*thread).tid;
        RAN.store(tid, Relaxed);
        (*thread).cpu.read(tid)
    };
    earn(used + cpu::of_ended());
}

/// The same for this thread and the others that ran of late: what they used before a burst would else be found in it, and
/// what they used in it after it.
///
/// # Safety
/// As [`read_cpu`].
pub unsafe fn read_all(thread: *mut hot::Thread) {
    // SAFETY: as the caller promises.
    unsafe {
        let from = hot::now();
        let used = cpu::of_others((*thread).tid);
        if used > 0 {
            earn(used);
            let most = MOST_TOGGLE_US * hot::micro();
            charge(hot::now().saturating_sub(from).min(most) as i64);
        }
        read_cpu(thread);
    }
}

/// Adds CPU time that threads have used, and its tokens.
fn earn(used: u64) {
    POOL.fetch_add(used, Relaxed);
    let most = SAVED * earned(window_ticks());
    let left = TOKENS.load(Relaxed);
    let given = earned(used).min(most.saturating_sub(left)).max(0);
    let telling = FOR_TELLING.load(Relaxed);
    let told = match telling < unwinds_ticks() {
        true => given * FOR_UNWINDS / 100,
        false => 0,
    };
    FOR_TELLING.store(telling + told, Relaxed);
    TOKENS.store(left + given - told, Relaxed);
    GIVEN.fetch_add(given, Relaxed);
}

/// CPU time that the program used for itself, in ticks: without what recording cost.
pub fn work() -> u64 {
    let spent = GIVEN.load(Relaxed).saturating_sub(TOKENS.load(Relaxed));
    POOL.load(Relaxed).saturating_sub(spent.max(0) as u64)
}

/// Gives bursts to shed functions, those that wait longest first, as far as tokens reach. For `lead` ticks of CPU time
/// until now no Python code can have begun.
unsafe fn rearm(thread: *mut hot::Thread, toggle: Toggle, lead: u64) {
    let mut spare = TOKENS.load(Relaxed) * FOR_BURSTS / 100;
    // SAFETY: as `spend`'s caller promises; the list is not used over the call of `toggle`, which may record.
    unsafe {
        listen();
        let tells = TELLS.load(Relaxed);
        let mut waiting = OFF.load(Relaxed);
        let many = waiting > FEW;
        for _ in 0..list().len() {
            if spare <= 0 || waiting == 0 {
                break;
            }
            let Some(Shed { code, known }) = list().pop_front() else {
                break;
            };
            list().push_back(Shed { code, known });
            if !(*known).phase.off || !tells && (*known).raises {
                continue;
            }
            let phase = &mut (*known).phase;
            let rate = f64::from(phase.peak).max(1e-9);
            // All that is left for one: when many are recorded at once, most of a burst is our own cost, and what a
            // function does without us must be told from too little. But of many most are not called any more, which costs
            // nothing, and the others should not wait for long.
            let plan = if many { spare / AT_ONCE } else { spare };
            let ticks = (plan as f64 / (rate * PAIR.load(Relaxed) as f64)) as u64;
            let burst = ticks.clamp(BURST_US.0 * hot::micro(), BURST_US.1 * hot::micro());
            phase.calm = rate * PAIR.load(Relaxed) as f64 <= CALM * share();
            let from = hot::now();
            (phase.off, phase.due, phase.count, phase.recent) = (false, false, 0, 0);
            if phase.calm {
                (*known).look_again(); // at its native calls
            }
            toggle(code, known, true);
            let phase = &mut (*known).phase;
            phase.on_since = hot::now();
            phase.until = phase.on_since + WARM_US * hot::micro();
            phase.warming = if phase.calm { FOR_GOOD } else { burst };
            OFF.fetch_sub(1, Relaxed);
            waiting -= 1;
            let took = phase
                .on_since
                .saturating_sub(from)
                .min(MOST_TOGGLE_US * hot::micro()) as i64;
            charge(took);
            read_all(thread);
            // What was done before it could be switched on is part of its burst: bursts begin at times by chance, and not
            // just after the program's longest native calls.
            let phase = &mut (*known).phase;
            (phase.pool, phase.lead) = (work().saturating_sub(lead), lead);
            spare -= took + ((burst as f64 * rate) as i64).saturating_mul(PAIR.load(Relaxed));
        }
        let most = MOST_TOGGLE_US * hot::micro();
        if spare > 0 && lines::wait() {
            let from = hot::now();
            lines::rearm(crate::monitor::set_events);
            charge(hot::now().saturating_sub(from).min(most) as i64);
        }
        while spare > 0
            && let Some((code, known)) = again::next()
        {
            let from = hot::now();
            let sites = monitor::arm_calls(code, known).unwrap_or(0);
            let took = hot::now().saturating_sub(from).min(most) as i64;
            charge(took);
            // each has an event more than it shows, and is made fast anew after that
            let looks = 2 * PAIR.load(Relaxed) * (1 + i64::from(code::LOOKS_AGAIN));
            spare -= took + looks.saturating_mul(sites as i64);
        }
    }
}

/// Sheds `known` if that is due: whether it is off now, so that this call is not recorded.
///
/// # Safety
/// `code` is live, `known` its record, and the GIL is held.
#[inline(always)]
pub unsafe fn shed(code: *mut PyObject, known: *mut Code, toggle: Toggle) -> bool {
    // SAFETY: as the caller promises.
    unsafe { (*known).phase.due && shed_now(code, known, toggle) }
}

#[cold]
#[inline(never)]
unsafe fn shed_now(code: *mut PyObject, known: *mut Code, toggle: Toggle) -> bool {
    let from = hot::now();
    let (Some(py), thread) = (crate::py::get(), hot::thread()) else {
        return false;
    };
    if thread.is_null() {
        return false;
    }
    // SAFETY: as the caller promises; no reference is held over a call that may record.
    unsafe {
        read_cpu(thread);
        hot::write_process(&burst(known, from));
        let phase = &mut (*known).phase;
        (phase.off, phase.due) = (true, false);
        OFF.fetch_add(1, Relaxed);
        if !phase.listed {
            phase.listed = true;
            (py.Py_IncRef)(code);
            list().push_back(Shed { code, known });
        }
        toggle(code, known, false);
    }
    charge(
        hot::now()
            .saturating_sub(from)
            .min(MOST_TOGGLE_US * hot::micro()) as i64,
    );
    true
}

/// CPU time in the first `part` of a `whole` stretch of time in which `used` was used, and which ended with the first
/// call after that part and `calls` in it; all in ticks.
///
/// As long as the thread ran all the time, that is the part. If not, nobody knows when it did: but after the part not
/// for longer than from one call to the next, half of that on average.
pub fn ran(used: u64, part: u64, whole: u64, calls: u64) -> u64 {
    if used >= whole - whole / 16 || part >= whole {
        return (u128::from(used) * u128::from(part) / u128::from(whole.max(1))) as u64;
    }
    let calls = u128::from(calls);
    let shortened = (u128::from(used) * (2 * calls + 1) / (2 * calls + 2)) as u64;
    shortened.min(part)
}

/// What the phase that ends `now` has shown.
unsafe fn burst(known: *mut Code, now: u64) -> Record<'static> {
    let pool = work();
    // SAFETY: as `spend`'s caller promises.
    let (id, phase) = unsafe { ((*known).id, &mut (*known).phase) };
    if phase.on_since == 0 {
        // Before it was shed for the first time it was recorded whole. That is no measure of a rate: the phase ended
        // because the function was busy.
        let window = (WINDOW_US * hot::micro()) as f32;
        phase.peak = phase.recent as f32 / window;
        return Record::Throttle {
            time: now,
            id,
            calls: 0,
            since: now,
            burst: 0,
            pools: [pool, pool],
        };
    }
    // It was found to be over at the next call.
    let whole = phase.over_at.saturating_sub(phase.since).max(1);
    let part = phase.until.min(phase.over_at).saturating_sub(phase.since);
    let used = phase.over.saturating_sub(phase.begun);
    let on = ran(used, part, whole, phase.events()) + phase.lead;
    let rate = phase.events() as f32 / part.max(1) as f32; // in wall time: that is what a burst's length is
    phase.peak = rate.max(phase.peak * CALMS as f32);
    Record::Throttle {
        time: now,
        id,
        calls: phase.calls(),
        since: phase.on_since,
        burst: on,
        pools: [phase.pool, pool],
    }
}

/// How events are switched, for [`wake`].
static TOGGLE: OnceLock<Toggle> = OnceLock::new();

/// Tells of each function that was shed how the process left it. Called when the process ends, on the only thread that
/// still runs Python or after it.
pub fn finish() {
    let (now, thread) = (hot::now(), hot::thread());
    // SAFETY: nobody else touches the list any more; its codes and their records are kept by our references.
    unsafe {
        again::finish();
        if list().is_empty() {
            return;
        }
        if !thread.is_null() {
            read_all(thread);
        }
        read_unseen();
        let pool = work();
        for Shed { known, .. } in list().drain(..) {
            let id = (*known).id;
            let record = match (*known).phase.off {
                false => {
                    let phase = &mut (*known).phase;
                    if phase.warming > 0 && now >= phase.until && !thread.is_null() {
                        begin_burst(known, thread, now, false); // and nobody has called it since
                        (*known).phase.count = 0;
                    } else if phase.warming > 0 {
                        (phase.count, phase.lead) = (0, 0); // its burst has not begun
                        (phase.since, phase.begun) = (now, work());
                    }
                    (phase.until, phase.over, phase.over_at) = (now, work(), now);
                    burst(known, now)
                }
                true => Record::Throttle {
                    time: now,
                    id,
                    calls: 0,
                    since: now,
                    burst: 0,
                    pools: [pool, pool],
                },
            };
            hot::write_process(&record);
        }
        OFF.store(0, Relaxed);
    }
}

/// In a forked child: tokens, times and functions stay, the thread's CPU clock begins anew.
pub fn forked(thread: &mut hot::Thread) {
    thread.cpu.forked();
    again::forked();
    thread.window_end = 0;
    wake::forked();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_in_which_the_thread_did_not_run_all_the_time_is_as_long_as_it_did() {
        assert_eq!(ran(1000, 900, 1000, 9), 900);
        // Two of five in the part, then away until the first call after it.
        assert_eq!(ran(2000, 5000, 10_000, 99), 1990);
        assert_eq!(ran(3000, 50, 10_000, 0), 50);
        assert_eq!(ran(40, 50, 50, 3), 40);
    }
}

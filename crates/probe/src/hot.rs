//! The path every event takes: a thread's own chain, and no lock, wait or system call on it.
//!
//! What happens once (a process, a thread) is below, off the path; names and the helper thread have files of their
//! own. A forked child forgets its parent's spool at once and opens one of its own at its first event.

mod helper;
mod names;

use crate::clock::{self, Calibration};
use crate::gil;
use crate::governor;
use crate::json::quote;
use crate::lines;
use crate::sample;
use crate::settings::Settings;
use crate::slices;
use inferscope_spool::record::{Record, SpanKind, Text};
use inferscope_spool::sys::Folder;
use inferscope_spool::{Pool, Producer};
use std::cell::UnsafeCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;

pub use crate::clock::{micro, now};
pub use helper::{over, quietly, start_helper, start_helper_soon, stop_helper};
pub use names::{MOST_TEXTS, define, keep_text, tell, text_id, text_id_below, undefine};

/// What this run is, the same in a process and its forked children.
pub struct Run {
    pub dir: PathBuf,
    pub settings: Settings,
    pub calibration: Calibration,
    /// The program's base name.
    name: String,
    /// The interpreter's version; `None` in a program without one.
    python: Option<String>,
}

/// What belongs to one process id.
struct Process {
    pool: Pool,
    /// The run's directory.
    folder: std::io::Result<Folder>,
    helper: Mutex<Option<JoinHandle<()>>>,
    /// Set, and the helper woken, to end it.
    stop: AtomicBool,
}

static RUN: OnceLock<Run> = OnceLock::new();
static PROCESS: AtomicPtr<Process> = AtomicPtr::new(std::ptr::null_mut());
static ON: AtomicBool = AtomicBool::new(false);
/// Recording has been switched on once; until then `delay` and `start_on` hold it back.
static BEGUN: AtomicBool = AtomicBool::new(false);
/// A scope is waited for that switches recording on.
static AWAITS: AtomicBool = AtomicBool::new(false);
/// No spool could be opened in this process.
static FAILED: AtomicBool = AtomicBool::new(false);
/// The helper runs, so that a record need not start it.
static HELPED: AtomicBool = AtomicBool::new(false);
/// See [`hours`].
static HOURS: Mutex<Vec<(u64, bool)>> = Mutex::new(Vec::new());
static FORKED_FROM: AtomicU32 = AtomicU32::new(0);
/// Held while a process's spool is opened.
static OPENING: Mutex<()> = Mutex::new(());

/// A thread's chain and what the doors keep per thread.
pub struct Thread {
    producer: Option<Producer>,
    /// As the system numbers it; 0 until it is asked.
    pub tid: u64,
    /// Where its machine stack is half used; see `frames`.
    pub halfway: usize,
    /// Its name is written.
    pub named: bool,
    /// How often its name was asked for in vain.
    pub name_tries: u32,
    /// Calls of native functions that have not returned, outermost first.
    pub pending: Vec<crate::code::Pending>,
    /// Python frames begun so far, modulo 2^32: tells whether a native call came back into Python.
    pub starts: u32,
    /// Coroutine frames open now, and how deep the outermost is; see `depth`.
    pub coroutines: u32,
    pub outermost: u32,
    /// When the garbage collector began; 0 when it does not run.
    pub gc_start: u64,
    /// CPU time it has used, and when that is to be read again; see `governor`.
    pub cpu: crate::cpu::Meter,
    pub window_end: u64,
    /// It has a sample to come.
    timer: Option<crate::sample::Timer>,
    /// Frames whose lines are measured, outermost first.
    pub lines: Vec<crate::lines::Open>,
    /// A scope, mark or Python frame of this thread belongs to this task; 0 outside of tasks.
    pub flow: u64,
    pub nvtx: crate::nvtx::Own,
}

struct Local(UnsafeCell<Thread>);

impl Drop for Local {
    fn drop(&mut self) {
        own::set(std::ptr::null_mut());
        let thread = self.0.get_mut();
        if thread.producer.is_some() && !thread.named {
            let name = system_name();
            push(
                &Text::Thread {
                    tid: thread.tid,
                    name: &name,
                }
                .encode(),
                thread,
            );
        }
        if let Some(producer) = thread.producer.take() {
            producer.close();
        }
    }
}

thread_local! {
    static THREAD: Local = const {
        Local(UnsafeCell::new(Thread {
            producer: None,
            tid: 0,
            halfway: 0,
            named: false,
            name_tries: 0,
            pending: Vec::new(),
            starts: 0,
            coroutines: 0,
            outermost: 0,
            gc_start: 0,
            cpu: crate::cpu::Meter::NEW,
            window_end: 0,
            timer: None,
            lines: Vec::new(),
            flow: 0,
            nvtx: crate::nvtx::Own::NEW,
        }))
    };
}

/// This thread's state; null once the thread has taken down its locals.
///
/// The pointer is valid until then. A reference made from it must end before anything is called that may record
/// (any call into Python): that would make a second one.
#[inline(always)]
pub fn thread() -> *mut Thread {
    let at = own::get();
    if at.is_null() { find_thread() } else { at }
}

#[cold]
#[inline(never)]
fn find_thread() -> *mut Thread {
    let at = THREAD.try_with(|local| local.0.get());
    let at = at.unwrap_or(std::ptr::null_mut());
    own::set(at);
    at
}

/// Where [`THREAD`] is: one load, and not the call and the checks that a library's thread-local takes.
#[cfg(target_arch = "x86_64")]
mod own {
    use super::Thread;
    use std::arch::{asm, global_asm};

    // A word in the static part of thread-local storage ("initial-exec", Drepper, "ELF Handling For Thread-Local
    // Storage", 4.3.6): this library never leaves the process.
    global_asm!(
        ".pushsection .tbss.isc_thread,\"awT\",@nobits",
        ".globl isc_thread",
        ".hidden isc_thread",
        ".type isc_thread, @object",
        ".size isc_thread, 8",
        ".p2align 3",
        "isc_thread: .zero 8",
        ".popsection",
    );

    #[inline(always)]
    pub fn get() -> *mut Thread {
        let at: *mut Thread;
        // SAFETY: reads this thread's word, which is zero before anything was stored.
        unsafe {
            asm!(
                "mov {at}, qword ptr [rip + isc_thread@GOTTPOFF]",
                "mov {at}, qword ptr fs:[{at}]",
                at = out(reg) at,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        at
    }

    pub fn set(to: *mut Thread) {
        // SAFETY: stores to this thread's word.
        unsafe {
            asm!(
                "mov {at}, qword ptr [rip + isc_thread@GOTTPOFF]",
                "mov qword ptr fs:[{at}], {to}",
                at = out(reg) _,
                to = in(reg) to,
                options(nostack, preserves_flags)
            );
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod own {
    use super::Thread;
    use std::cell::Cell;

    thread_local! {
        static AT: Cell<*mut Thread> = const { Cell::new(std::ptr::null_mut()) };
    }

    #[inline(always)]
    pub fn get() -> *mut Thread {
        AT.get()
    }

    pub fn set(to: *mut Thread) {
        AT.set(to);
    }
}

/// Whether records are kept now: not before `delay` or `start_on`, not while paused, not after `duration`.
#[inline(always)]
pub fn on() -> bool {
    ON.load(Relaxed)
}

/// Where [`on`] is kept, and whether a scope is waited for; for [`crate::api`].
pub const fn on_flag() -> *const AtomicBool {
    &raw const ON
}

pub const fn awaits_flag() -> *const AtomicBool {
    &raw const AWAITS
}

#[inline(always)]
fn push(words: &[u64], thread: &mut Thread) -> bool {
    if !HELPED.load(Relaxed) {
        helper::stir();
    }
    match &mut thread.producer {
        Some(producer) => producer.push(words),
        None => open_chain(thread) && thread.producer.as_mut().is_some_and(|p| p.push(words)),
    }
}

/// Writes one record to this thread's chain.
#[inline(always)]
pub fn write(record: &Record) -> bool {
    let (Some(words), at) = (record.words(), thread()) else {
        return false;
    };
    // SAFETY: this thread's own state, not null; `push` calls nothing that records.
    !at.is_null() && push(words.as_slice(), unsafe { &mut *at })
}

/// Writes JSON metadata and the record it belongs to, or just the record if the text is empty.
pub fn write_with(metadata: &str, record: &Record) -> bool {
    match record.words() {
        Some(words) => write_words(metadata, words.as_slice()),
        None => false,
    }
}

/// Writes the words of whole records, side by side, behind the text that belongs to them unless that is empty.
#[inline(always)]
pub fn write_words(text: &str, words: &[u64]) -> bool {
    let at = thread();
    if at.is_null() {
        return false;
    }
    // SAFETY: this thread's own state, not null; nothing below records through another reference.
    let thread = unsafe { &mut *at };
    if text.is_empty() {
        return push(words, thread);
    }
    push_behind(text, words, thread)
}

#[inline(never)]
fn push_behind(text: &str, words: &[u64], thread: &mut Thread) -> bool {
    if thread.producer.is_none() && !open_chain(thread) {
        return false;
    }
    if !HELPED.load(Relaxed) {
        helper::stir();
    }
    let text = Text::Metadata(text).encode();
    thread
        .producer
        .as_mut()
        .is_some_and(|p| p.push_pair(&text, words))
}

/// Writes one record to the process's own chain: for what is of no thread, or of one that is not this.
pub fn write_process(record: &Record) {
    if let (Some(words), Some(process)) = (record.words(), current()) {
        process.pool.push_names(words.as_slice());
    }
}

/// Writes JSON metadata and the record it belongs to, both to the process's own chain.
pub fn write_process_with(metadata: &str, record: &Record) {
    if let (Some(words), Some(process)) = (record.words(), current()) {
        let text = Text::Metadata(metadata).encode();
        process.pool.push_names_pair(&text, words.as_slice());
    }
}

/// What devices' rows with this id have in common; once, before their records.
pub fn shape(id: u32, json: &str) {
    if let Some(process) = current() {
        process.pool.push_names(&Text::Shape { id, json }.encode());
    }
}

/// Facts of a device, or of what records them; each replaces those that were told under its name.
pub fn facts(name: &str, json: &str) {
    if let Some(process) = current() {
        process
            .pool
            .push_names(&Text::Facts { name, json }.encode());
    }
}

/// A chain of this process that is no thread's; see [`inferscope_spool::record::DEVICES`].
pub fn chain(tid: u64) -> Option<Producer> {
    Some(current()?.pool.producer(tid))
}

/// Writes one record to such a chain.
#[inline(always)]
pub fn push_to(chain: &mut Producer, words: &[u64]) -> bool {
    if !HELPED.load(Relaxed) {
        helper::stir();
    }
    chain.push(words)
}

/// When recording was switched, in ns of CLOCK_MONOTONIC since the process's base, and to what: for what is told later.
pub fn hours(to: &mut Vec<(u64, bool)>) {
    let all = locked(&HOURS);
    if all.len() != to.len() {
        to.clone_from(&all);
    }
}

/// Counts records of the process that could not be written.
pub fn lost(records: u64) {
    if let Some(process) = current().filter(|_| records > 0) {
        process.pool.lose(records);
    }
}

/// A native call that took `dur` ticks from `start`, named by [`define`].
#[inline]
pub fn native(start: u64, dur: u64, id: u32) {
    span(SpanKind::Native, start, dur, id, 0);
}

/// The same with JSON metadata.
pub fn native_with(metadata: &str, start: u64, dur: u64, id: u32) {
    write_with(
        metadata,
        &Record::Span {
            time: start,
            id,
            kind: SpanKind::Native,
            dur,
            extra: 0,
        },
    );
}

/// A finished span; see [`SpanKind`] for `extra`.
#[inline]
pub fn span(kind: SpanKind, start: u64, dur: u64, id: u32, extra: u64) {
    write(&Record::Span {
        time: start,
        id,
        kind,
        dur,
        extra,
    });
}

/// Locks; what a panic left is as good as any.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Tells the trace something that a person should know.
pub fn note(text: &str) {
    if let Some(process) = current() {
        process.pool.push_names(&Text::Note(text).encode());
    }
    if RUN.get().is_some_and(|run| run.settings.verbose) {
        eprintln!("inferscope: {text}");
    }
}

/// Tells the trace and, in one line on stderr, the person in front of it.
pub fn warn(text: &str) {
    note(text);
    if !RUN.get().is_some_and(|run| run.settings.verbose) {
        eprintln!("inferscope: {text}");
    }
}

/// What this run is; `None` before [`start`].
pub fn run() -> Option<&'static Run> {
    RUN.get()
}

fn current() -> Option<&'static Process> {
    // SAFETY: null, or a Process that is never freed; the Acquire pairs with the Release of whoever made it.
    unsafe { PROCESS.load(Acquire).as_ref() }
}

/// Starts recording this process into the run of `dir`. Once: later calls say whether the first one worked.
///
/// # Errors
/// In words, why no spool could be made.
pub fn start(dir: &Path, name: &str, python: Option<&str>) -> Result<(), String> {
    if RUN.get().is_some() {
        return if FAILED.load(Relaxed) {
            Err("the spool could not be made".into())
        } else {
            Ok(())
        };
    }
    let _ = RUN.set(Run {
        dir: dir.to_owned(),
        settings: Settings::read(dir),
        calibration: clock::calibrate(),
        name: name.to_owned(),
        python: python.map(str::to_owned),
    });
    let Some(run) = RUN.get() else {
        return Err("started twice at once".into());
    };
    open(run)?;
    // SAFETY: functions of this library, which is never unloaded; registering has no other effect.
    unsafe {
        libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child));
        libc::atexit(at_exit);
    }
    AWAITS.store(run.settings.start_on.is_some(), Relaxed);
    if run.settings.delay_ms == 0 && run.settings.start_on.is_none() {
        switch(true);
    }
    Ok(())
}

/// Opens this process's spool if that has not been tried; another thread may be at it.
fn open(run: &'static Run) -> Result<&'static Process, String> {
    let _one_at_a_time = locked(&OPENING);
    if let Some(process) = current() {
        return Ok(process);
    }
    if FAILED.load(Relaxed) {
        return Err("the spool could not be made".into());
    }
    let settings = inferscope_spool::Settings {
        dir: run.dir.clone(),
        spill: run.settings.spill.clone(),
        ring_bytes: run.settings.ring_bytes,
        spill_limit_bytes: run.settings.spill_limit_bytes,
    };
    let (pid, start_ticks) = identity(&run.dir);
    let pool = Pool::create(&settings, pid, start_ticks).map_err(|error| {
        FAILED.store(true, Relaxed);
        ON.store(false, Relaxed);
        format!(
            "this process is not recorded: no spool in {}: {error}",
            run.dir.display()
        )
    })?;
    pool.push_names(&Text::Process(&about(run, pid, start_ticks)).encode());
    names::tell_again(&pool);
    if let Some(words) = gil::record().and_then(|record| record.words()) {
        pool.push_names(words.as_slice());
    }
    let process: &'static Process = Box::leak(Box::new(Process {
        pool,
        folder: Folder::open(&run.dir),
        helper: Mutex::new(None),
        stop: AtomicBool::new(false),
    }));
    write_clock(process);
    PROCESS.store(std::ptr::from_ref(process).cast_mut(), Release);
    start_helper();
    Ok(process)
}

/// Process id and start time, in clock ticks since boot as `/proc/PID/stat` has it (field 22 of proc(5)). A process
/// that has executed a new program keeps both, so a number that is in use is passed over.
fn identity(dir: &Path) -> (u32, u64) {
    let pid = std::process::id();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let start = after_name
        .split(' ')
        .nth(19)
        .and_then(|field| field.parse().ok());
    let mut start: u64 = start.unwrap_or_else(clock::raw);
    while dir.join(format!("{pid}-{start}")).exists() {
        start += 1;
    }
    (pid, start)
}

/// The process's facts as JSON: pids, the clock's base and rate, names.
fn about(run: &Run, pid: u32, start_ticks: u64) -> String {
    let found = &run.calibration;
    let forked_from = match FORKED_FROM.load(Relaxed) {
        0 => "null".to_owned(),
        parent => parent.to_string(),
    };
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!(
        "{{\"pid\":{pid},\"ppid\":{},\"start_ticks\":{start_ticks},\"base_ticks\":{},\"ns_per_tick\":{:.12},\"clock\":\"{}\",\
         \"base_monotonic_ns\":{},\"name\":{},\"python\":{},\"host\":{},\"forked_from\":{forked_from}}}",
        std::os::unix::process::parent_id(),
        found.base_ticks,
        found.ns_per_tick,
        if found.tsc { "tsc" } else { "monotonic" },
        found.base_monotonic_ns,
        quote(&run.name),
        run.python
            .as_deref()
            .map_or_else(|| "null".to_owned(), quote),
        quote(host.trim()),
    )
}

/// Gives the thread its chain: at its first record, and in a forked child at the first one there.
#[cold]
#[inline(never)]
fn open_chain(thread: &mut Thread) -> bool {
    let Some(run) = RUN.get() else { return false };
    let process = match current() {
        Some(process) => process,
        None if FAILED.load(Relaxed) => return false,
        None => match open(run) {
            Ok(process) => process,
            Err(why) => {
                warn(&why);
                return false;
            }
        },
    };
    // SAFETY: no arguments, cannot fail.
    thread.tid = unsafe { libc::gettid() } as u64;
    thread.named = false;
    thread.name_tries = 0;
    thread.producer = Some(process.pool.producer(thread.tid));
    thread.timer = crate::sample::begin(thread.tid);
    true
}

/// Writes the name of this thread to its chain.
pub fn name_thread(name: &str) {
    let at = thread();
    if at.is_null() {
        return;
    }
    // SAFETY: this thread's own state; `push` calls nothing that records through another reference.
    let thread = unsafe { &mut *at };
    if thread.producer.is_some() || open_chain(thread) {
        thread.named = true;
        let words = Text::Thread {
            tid: thread.tid,
            name,
        }
        .encode();
        push(&words, thread);
    }
}

/// The name the system has for this thread.
fn system_name() -> String {
    let mut name = [0u8; 16]; // TASK_COMM_LEN of the kernel, the zero included
    // SAFETY: the buffer is as long as it says.
    unsafe { libc::pthread_getname_np(libc::pthread_self(), name.as_mut_ptr().cast(), name.len()) };
    let len = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..len]).into_owned()
}

/// Switches recording in the whole process, and writes that it did.
pub fn switch(to: bool) {
    let Some(process) = current() else { return };
    if FAILED.load(Relaxed) || ON.swap(to, Relaxed) == to {
        return;
    }
    let first = !BEGUN.swap(true, Relaxed);
    let base_ns = RUN.get().map_or(0, |run| run.calibration.base_monotonic_ns);
    let since = match first && to && now_is_start() {
        true => 0,
        false => clock::system_ns(libc::CLOCK_MONOTONIC).saturating_sub(base_ns),
    };
    locked(&HOURS).push((since, to));
    AWAITS.store(false, Relaxed);
    if !(first && to && now_is_start()) {
        let record = Record::Switch {
            time: now(),
            on: to,
        };
        if let Some(words) = record.words() {
            process.pool.push_names(words.as_slice());
        }
    }
}

/// Whether recording begins with the process, so that no switch need be told.
fn now_is_start() -> bool {
    RUN.get()
        .is_some_and(|run| run.settings.delay_ms == 0 && run.settings.start_on.is_none())
}

/// Whether recording has been on at all.
pub fn begun() -> bool {
    BEGUN.load(Relaxed)
}

fn write_clock(process: &Process) {
    let Some(run) = RUN.get() else { return };
    let read = clock::read(run.calibration.ns_per_tick);
    let record = Record::Clock {
        ticks: read.ticks,
        monotonic_ns: read.monotonic_ns,
        realtime_ns: read.realtime_ns,
        boottime_ns: read.boottime_ns,
        error_ns: read.error_ns,
    };
    if let Some(words) = record.words() {
        process.pool.push_names(words.as_slice());
    }
}

/// Switches on without a spool.
#[cfg(test)]
pub fn switch_for_test() {
    ON.store(true, Relaxed);
}

type Held = (
    MutexGuard<'static, ()>,
    MutexGuard<'static, Option<names::Names>>,
    MutexGuard<'static, Vec<(u64, bool)>>,
);

// The locks are taken for the fork, so that the child does not find one held by a thread it does not have. The
// guards are parked here between the handlers, which run on the forking thread.
thread_local! {
    static PARKED: UnsafeCell<Option<Held>> = const { UnsafeCell::new(None) };
}

extern "C" fn before_fork() {
    let guards = (locked(&OPENING), names::hold(), locked(&HOURS));
    // SAFETY: only this thread's fork handlers touch the cell, one after the other.
    let _ = PARKED.try_with(|parked| unsafe { *parked.get() = Some(guards) });
}

extern "C" fn after_fork() {
    // SAFETY: as in `before_fork`.
    let _ = PARKED.try_with(|parked| unsafe { *parked.get() = None });
}

extern "C" fn in_child() {
    PROCESS.store(std::ptr::null_mut(), Release);
    helper::forked();
    sample::forget();
    // SAFETY: no arguments, cannot fail.
    FORKED_FROM.store(unsafe { libc::getppid() } as u32, Relaxed);
    let at = thread();
    if !at.is_null() {
        // SAFETY: this thread's own state; the parent's chain must not be closed from here, so it is forgotten.
        let thread = unsafe { &mut *at };
        std::mem::forget(thread.producer.take());
        std::mem::forget(thread.timer.take()); // timers stay with the parent
        thread.pending.clear();
        thread.gc_start = 0;
        governor::forked(thread);
        slices::forked(thread);
        lines::forked(thread);
    }
    after_fork();
}

extern "C" fn at_exit() {
    if let Some(process) = current() {
        governor::finish();
        slices::finish();
        lines::tell();
        write_clock(process);
        write_process(&Record::Exit { time: now() });
    }
}

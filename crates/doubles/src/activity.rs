//! Activity records on their way to the collector: work under way, buffers, losses.
//!
//! Calls are put into a buffer on the caller's thread, device work on the worker's or a flusher's once it has
//! finished. Full buffers are handed over by the worker, all of them by a flush, and never two at a time.

use crate::clock;
use crate::enabled::is_enabled;
use crate::event::Event;
use crate::layout::{self, kind};
use crate::lock;
use crate::record;
use crate::settings::{self, Late, Settings};
use crate::truth::{self, Outcome};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, Once};
use std::time::Duration;

/// `CUpti_BuffersCallbackRequestFunc`: buffer, its size in bytes, most records (0: as many as fit).
pub type Request = unsafe extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
/// `CUpti_BuffersCallbackCompleteFunc`: context, stream, buffer, its size, bytes of it that are records.
pub type Completed = unsafe extern "C" fn(*mut libc::c_void, u32, *mut u8, usize, usize);

/// The worker rests at least this long between rounds.
const REST: Duration = Duration::from_millis(1);
/// And this long when there is nothing to wait for.
const IDLE: Duration = Duration::from_millis(200);

/// Which of the two open buffers.
#[derive(Clone, Copy)]
pub enum Side {
    Host,
    Device,
}

/// The collector's memory, while records are put into it.
struct Buffer {
    at: *mut u8,
    bytes: usize,
    /// Bytes that may be used: what the settings leave of `bytes`.
    usable: usize,
    most: usize,
    used: usize,
    completed: Completed,
    held: usize,
    /// The events, if the truth is wanted.
    events: Vec<Event>,
}

// SAFETY: the memory is the double's alone from the request until it is handed back.
unsafe impl Send for Buffer {}

impl Buffer {
    fn has_room(&self, bytes: usize) -> bool {
        self.used + bytes <= self.usable && (self.most == 0 || self.held < self.most)
    }

    fn append(&mut self, event: Event, length: usize) {
        // SAFETY: `has_room` says that the bytes lie inside the buffer, which is ours until handed back.
        let to = unsafe { std::slice::from_raw_parts_mut(self.at.add(self.used), length) };
        record::write(&event, settings::get().version, to);
        self.used += length;
        self.held += 1;
        if truth::wanted() {
            self.events.push(event);
        }
    }

    fn lose(self, outcome: Outcome) {
        self.events
            .into_iter()
            .for_each(|event| truth::note(event, outcome));
    }
}

static CALLBACKS: Mutex<Option<(Request, Completed)>> = Mutex::new(None);
static STOLEN: AtomicBool = AtomicBool::new(false);
static OPEN: [Mutex<Option<Buffer>>; 2] = [Mutex::new(None), Mutex::new(None)];
static FULL: Mutex<VecDeque<Buffer>> = Mutex::new(VecDeque::new());
/// Held while buffers are handed over.
static DELIVERY: Mutex<()> = Mutex::new(());
/// Work under way, by its end and the order in which it was submitted.
static PENDING: Mutex<BTreeMap<(u64, u64), Event>> = Mutex::new(BTreeMap::new());
/// Held while finished work is put into buffers, so that it goes in by its end.
static COLLECT: Mutex<()> = Mutex::new(());
static SUBMITTED: AtomicU64 = AtomicU64::new(0);
static RECORDS: AtomicU64 = AtomicU64::new(0);
static KERNELS: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);
static ENDED: AtomicBool = AtomicBool::new(false);
static CALLED: Mutex<bool> = Mutex::new(false);
static WAKE: Condvar = Condvar::new();
/// `CUPTI_ACTIVITY_ATTR_ZEROED_OUT_ACTIVITY_BUFFER`: buffers come zeroed.
pub static ZEROED: AtomicBool = AtomicBool::new(false);

/// Sets who gives and takes buffers.
pub fn register(request: Request, completed: Completed) {
    *lock(&CALLBACKS) = Some((request, completed));
    STOLEN.store(false, SeqCst);
    start_worker();
}

/// Another tool registers its own callbacks: what is in our buffers, and what comes, goes nowhere.
pub fn steal() {
    STOLEN.store(true, SeqCst);
    for open in &OPEN {
        if let Some(buffer) = lock(open).take() {
            buffer.lose(Outcome::Stolen);
        }
    }
    for buffer in std::mem::take(&mut *lock(&FULL)) {
        buffer.lose(Outcome::Stolen);
    }
}

/// Records dropped since the last question.
pub fn take_dropped() -> usize {
    DROPPED.swap(0, SeqCst)
}

/// Device work, whose end may lie ahead.
pub fn submit(event: Event) {
    if !is_enabled(event.kind) {
        return truth::note(event, Outcome::Disabled);
    }
    let key = (event.end_ns, SUBMITTED.fetch_add(1, SeqCst));
    let mut pending = lock(&PENDING);
    let first = pending.is_empty();
    pending.insert(key, event);
    drop(pending);
    if first {
        start_worker();
        call_worker();
    }
}

/// One record, of something that has happened: the settings have their way with it, then it goes into a buffer.
pub fn put(side: Side, mut event: Event) {
    let settings = settings::get();
    let n = RECORDS.fetch_add(1, SeqCst) + 1;
    event.zeroed |= Settings::nth(settings.zero_every, n);
    if event.is_kernel() {
        let kernel = KERNELS.fetch_add(1, SeqCst) + 1;
        event.nameless = Settings::nth(settings.null_name_every, kernel);
    }
    if event.is_device_work() {
        event.report();
    } else if event.zeroed {
        (event.cupti_start, event.cupti_end) = (0, 0);
    }
    if Settings::nth(settings.drop_every, n) {
        DROPPED.fetch_add(1, SeqCst);
        truth::note(event, Outcome::Dropped);
    } else {
        place(side, event);
    }
    if Settings::nth(settings.unknown_every, n) {
        place(
            side,
            Event {
                kind: kind::UNHEARD_OF,
                ..Event::default()
            },
        );
    }
}

/// Puts a record into the open buffer, or a new one; without one it is dropped.
fn place(side: Side, event: Event) {
    let Some(length) = layout::bytes(settings::get().version, event.kind) else {
        return;
    };
    let mut open = lock(&OPEN[side as usize]);
    if STOLEN.load(SeqCst) {
        return truth::note(event, Outcome::Stolen);
    }
    if let Some(buffer) = open.take_if(|buffer| !buffer.has_room(length)) {
        lock(&FULL).push_back(buffer);
        call_worker();
    }
    if open.is_none() {
        *open = request(length);
    }
    match &mut *open {
        Some(buffer) => buffer.append(event, length),
        None => {
            DROPPED.fetch_add(1, SeqCst);
            truth::note(event, Outcome::Dropped);
        }
    }
}

/// A buffer from the collector with room for `length` bytes. One that is too small goes back as it came.
fn request(length: usize) -> Option<Buffer> {
    let (request, completed) = (*lock(&CALLBACKS))?;
    let (mut at, mut bytes, mut most) = (std::ptr::null_mut(), 0, 0);
    // SAFETY: the collector registered it for this; the three point to ours.
    unsafe { request(&mut at, &mut bytes, &mut most) };
    if at.is_null() {
        return None;
    }
    let usable = if at.addr() % 8 == 0 {
        bytes.min(settings::get().buffer_bytes)
    } else {
        0
    };
    let buffer = Buffer {
        at,
        bytes,
        usable,
        most,
        used: 0,
        completed,
        held: 0,
        events: Vec::new(),
    };
    if usable < length {
        lock(&FULL).push_back(buffer);
        call_worker();
        return None;
    }
    if !ZEROED.load(SeqCst) {
        // SAFETY: the collector gave `bytes` bytes at `at`.
        unsafe { at.write_bytes(0, bytes) };
    }
    Some(buffer)
}

/// Puts work that has ended by `until_ns` into buffers, earliest end first.
fn collect(until_ns: u64) {
    let _one_at_a_time = lock(&COLLECT);
    loop {
        let mut pending = lock(&PENDING);
        let Some(first) = pending
            .first_entry()
            .filter(|first| first.key().0 <= until_ns)
        else {
            return;
        };
        let mut event = first.remove();
        drop(pending);
        event.zeroed = settings::get().forced_zero && event.end_ns > clock::monotonic_ns();
        put(Side::Device, event);
    }
}

/// Hands full buffers over. Returns when no other thread is in the middle of it either.
fn deliver() {
    let _one_at_a_time = lock(&DELIVERY);
    loop {
        let Some(buffer) = lock(&FULL).pop_front() else {
            return;
        };
        // SAFETY: what the collector registered, with the buffer that it gave; `used` bytes of it are records.
        unsafe {
            (buffer.completed)(
                std::ptr::null_mut(),
                0,
                buffer.at,
                buffer.bytes,
                buffer.used,
            )
        };
        buffer.lose(Outcome::Delivered);
    }
}

/// Closes the open buffers that hold anything.
fn close() {
    for open in &OPEN {
        if let Some(buffer) = lock(open).take_if(|buffer| buffer.held > 0) {
            lock(&FULL).push_back(buffer);
        }
    }
}

/// `cuptiActivityFlushAll`: what has finished, or everything if forced.
pub fn flush(forced: bool) {
    match (settings::get().late, forced) {
        (Late::No, false) => collect(clock::monotonic_ns()),
        (Late::No | Late::Forced, true) => collect(u64::MAX),
        _ => {}
    }
    close();
    deliver();
    truth::write();
}

/// After the program's own exit handlers: the last late records, then what never got out.
pub fn end() {
    if settings::get().late == Late::Exit {
        collect(u64::MAX);
        close();
        deliver();
    }
    ENDED.store(true, SeqCst);
    let (_no_collection, _no_delivery) = (lock(&COLLECT), lock(&DELIVERY)); // the worker has finished its round
    for event in std::mem::take(&mut *lock(&PENDING)).into_values() {
        truth::note(event, Outcome::Pending);
    }
    close();
    for buffer in std::mem::take(&mut *lock(&FULL)) {
        buffer.lose(Outcome::Pending);
    }
    truth::write();
}

fn call_worker() {
    *lock(&CALLED) = true;
    WAKE.notify_one();
}

/// Starts the worker, once. It takes none of the program's signals.
fn start_worker() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: both sets are ours; the mask is put back below.
        let before = unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            before
        };
        let _ = std::thread::Builder::new()
            .name("cupti-double".into())
            .spawn(work);
        // SAFETY: the mask read above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    });
}

/// The worker: waits for the next end or a call, collects, hands over.
fn work() {
    while !ENDED.load(SeqCst) {
        let next_ns = lock(&PENDING).keys().next().map(|key| key.0);
        let wait = next_ns.map_or(IDLE, |end_ns| {
            Duration::from_nanos(end_ns.saturating_sub(clock::monotonic_ns())).clamp(REST, IDLE)
        });
        let mut called = lock(&CALLED);
        if !*called {
            let waited = WAKE.wait_timeout(called, wait);
            called = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        *called = false;
        drop(called);
        if settings::get().late == Late::No && !ENDED.load(SeqCst) {
            collect(clock::monotonic_ns());
        }
        deliver();
    }
}

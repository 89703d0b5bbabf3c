//! Time: CLOCK_MONOTONIC inside, and the clock of the registered timestamp callback in the records.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering::SeqCst};

/// `CUpti_TimestampCallbackFunc`.
pub type Callback = unsafe extern "C" fn() -> u64;

static CALLBACK: AtomicPtr<libc::c_void> = AtomicPtr::new(std::ptr::null_mut());
/// Whether the callback was seen to be CLOCK_MONOTONIC itself.
static SAME: AtomicBool = AtomicBool::new(false);
/// The first reading since the callback was registered: one end of the interpolation.
static FIRST: Mutex<Option<Reading>> = Mutex::new(None);

/// One instant on both clocks, in ns of the one and units of the other.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub monotonic_ns: u64,
    pub cupti: u64,
}

/// CLOCK_MONOTONIC, in ns.
pub fn monotonic_ns() -> u64 {
    system_ns(libc::CLOCK_MONOTONIC)
}

/// A clock of the system, in ns.
fn system_ns(clock: libc::clockid_t) -> u64 {
    let mut at = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `at` is a valid timespec to write to.
    unsafe { libc::clock_gettime(clock, &mut at) };
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

/// The clock of the records now: the callback's, else CLOCK_REALTIME.
pub fn cupti_now() -> u64 {
    let callback = CALLBACK.load(SeqCst);
    if callback.is_null() {
        return system_ns(libc::CLOCK_REALTIME);
    }
    // SAFETY: only `register` stores here, and what it stores is a `Callback`.
    unsafe { std::mem::transmute::<*mut libc::c_void, Callback>(callback)() }
}

/// Both clocks now. A callback inside its bracket is taken to be CLOCK_MONOTONIC, and then both are one number.
pub fn read() -> Reading {
    let before = monotonic_ns();
    let cupti = cupti_now();
    let after = monotonic_ns();
    let same = (before..=after).contains(&cupti);
    Reading {
        monotonic_ns: if same {
            cupti
        } else {
            before + (after - before) / 2
        },
        cupti,
    }
}

/// A reading between two of CLOCK_MONOTONIC that are near: the best of a few, as any may be interrupted.
fn read_well() -> Reading {
    const NEAR_NS: u64 = 1_000;
    const TRIES: u32 = 20;
    let mut best = (u64::MAX, read());
    for _ in 0..TRIES {
        let before = monotonic_ns();
        let reading = read();
        let width = monotonic_ns() - before;
        if width < best.0 {
            best = (width, reading);
        }
        if width < NEAR_NS {
            break;
        }
    }
    best.1
}

/// Replaces the clock of the records; none is CLOCK_REALTIME again.
pub fn register(callback: Option<Callback>) {
    CALLBACK.store(
        callback.map_or(std::ptr::null_mut(), |callback| {
            callback as *mut libc::c_void
        }),
        SeqCst,
    );
    let same = |_| {
        let reading = read();
        reading.monotonic_ns == reading.cupti
    };
    SAME.store((0..3).all(same), SeqCst);
    *crate::lock(&FIRST) = Some(read_well());
}

/// An instant of CLOCK_MONOTONIC on the clock of the records, on the line through the first reading and one taken now.
pub fn to_cupti(monotonic_ns: u64) -> u64 {
    if SAME.load(SeqCst) {
        return monotonic_ns;
    }
    let now = read_well();
    let first = *crate::lock(&FIRST).get_or_insert(now);
    let apart = now.monotonic_ns.saturating_sub(first.monotonic_ns);
    let rate = match apart {
        0 => 1.0,
        apart => now.cupti.wrapping_sub(first.cupti) as f64 / apart as f64,
    };
    let since = monotonic_ns.wrapping_sub(first.monotonic_ns) as i64;
    first
        .cupti
        .wrapping_add_signed((since as f64 * rate) as i64)
}

//! The collector's own side: its clocks, its buffers, and what it was told.

use crate::calls::Cupti;
use crate::decode::Record;
use inferscope_doubles::layout::{self, kind};
use std::ffi::{CStr, c_char, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Of each buffer, in bytes.
const BUFFER: usize = 64 << 10;
/// Where the counting of [`ticks`] begins.
pub const TICK_ORIGIN: i64 = 12_345;

static RECORDS: Mutex<Vec<Record>> = Mutex::new(Vec::new());
static TOLD: Mutex<Vec<(u32, u32)>> = Mutex::new(Vec::new());
static HELD: AtomicUsize = AtomicUsize::new(0);
static REQUESTS: AtomicUsize = AtomicUsize::new(0);
static REFUSE: AtomicUsize = AtomicUsize::new(0);

/// Has no buffer every so many times.
pub fn refuse_every(times: usize) {
    REFUSE.store(times, SeqCst);
}

/// Buffers that are out.
pub fn held() -> usize {
    HELD.load(SeqCst)
}

/// Whether no buffer was asked for yet.
pub fn is_new() -> bool {
    REQUESTS.load(SeqCst) == 0
}

/// What has come since the last question.
pub fn take() -> Vec<Record> {
    std::mem::take(&mut RECORDS.lock().unwrap())
}

/// Domain and callback id of what the subscriber was told, in order.
pub fn told() -> Vec<(u32, u32)> {
    TOLD.lock().unwrap().clone()
}

fn system_ns(clock: libc::clockid_t) -> u64 {
    let mut at = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `at` is a valid timespec to write to.
    unsafe { libc::clock_gettime(clock, &mut at) };
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

pub extern "C" fn monotonic() -> u64 {
    system_ns(libc::CLOCK_MONOTONIC)
}

/// From CLOCK_MONOTONIC to CLOCK_REALTIME, in ns: the narrowest of many readings.
pub fn apart_ns() -> i64 {
    let readings = (0..1000).map(|_| {
        let (before, at, after) = (monotonic(), system_ns(libc::CLOCK_REALTIME), monotonic());
        (after - before, at as i64 - before as i64)
    });
    readings.min().map_or(0, |(_, apart_ns)| apart_ns)
}

pub extern "C" fn ticks() -> u64 {
    monotonic() * 3 + TICK_ORIGIN as u64
}

/// What the double calls, as its registration says.
///
/// # Safety
/// The arguments are CUPTI's.
pub unsafe extern "C" fn request(buffer: *mut *mut u8, bytes: *mut usize, most: *mut usize) {
    let refuse = REFUSE.load(SeqCst);
    let refused = refuse != 0 && REQUESTS.fetch_add(1, SeqCst) % refuse == refuse - 1;
    let memory = vec![0u64; if refused { 0 } else { BUFFER / 8 }].into_boxed_slice();
    // SAFETY: CUPTI passes three pointers to write to.
    unsafe {
        *most = 0;
        *bytes = 8 * memory.len();
        *buffer = std::ptr::null_mut();
        if !refused {
            HELD.fetch_add(1, SeqCst);
            *buffer = Box::into_raw(memory).cast();
        }
    }
}

/// What the double calls, as its registration says.
///
/// # Safety
/// The arguments are CUPTI's.
pub unsafe extern "C" fn completed(
    _: *mut c_void,
    _: u32,
    buffer: *mut u8,
    bytes: usize,
    valid: usize,
) {
    let cupti = Cupti::load();
    let mut starts = Vec::new();
    let mut record = std::ptr::null_mut();
    // SAFETY: the buffer as it came.
    while unsafe { (cupti.next)(buffer, valid, &mut record) } == 0 {
        starts.push(record.addr() - buffer.addr());
    }
    starts.push(valid);
    // SAFETY: the first `valid` bytes of it are records.
    let all = unsafe { std::slice::from_raw_parts(buffer, valid) }.to_vec();
    let memory = std::ptr::slice_from_raw_parts_mut(buffer.cast::<u64>(), bytes / 8);
    // SAFETY: `bytes` bytes that `request` allocated, as u64.
    drop(unsafe { Box::from_raw(memory) });
    HELD.fetch_sub(1, SeqCst);
    let decoded = starts.windows(2).map(|pair| {
        let bytes = all[pair[0]..pair[1]].to_vec();
        let kind = u32::from_ne_bytes(bytes[..4].try_into().unwrap());
        Record {
            kind,
            name: name(kind, &bytes),
            bytes,
        }
    });
    RECORDS.lock().unwrap().extend(decoded);
}

/// The name in a kernel record.
fn name(of: u32, bytes: &[u8]) -> Option<String> {
    if of != kind::CONCURRENT_KERNEL {
        return None;
    }
    let at = layout::kernel::NAME;
    let pointer = usize::from_ne_bytes(bytes[at..at + 8].try_into().unwrap()) as *const c_char;
    if pointer.is_null() {
        return None;
    }
    // SAFETY: not null, so it is a text that CUPTI keeps at least until the callback returns.
    let name = unsafe { CStr::from_ptr(pointer) };
    Some(name.to_string_lossy().into_owned())
}

/// What the double calls, as its registration says.
///
/// # Safety
/// The arguments are CUPTI's.
pub unsafe extern "C" fn heard(_: *mut c_void, domain: u32, cbid: u32, _: *const c_void) {
    TOLD.lock().unwrap().push((domain, cbid));
}

//! CUDA devices: what ran on them, through CUPTI's activity records.
//!
//! The driver loads this library from `cuInit` (`CUDA_INJECTION64_PATH`) and calls [`InitializeInjection`]. Then CUPTI
//! asks for memory, on any thread, and gives it back full of records, on a thread of its own; a thread of ours has it give
//! back every second, so that a program that is killed loses no more than that. What is wrong with CUPTI costs the
//! device's rows, is said once, and never the program.

pub mod activity;
mod buffers;
pub mod calls;
mod find;
pub mod layout;
pub mod shapes;
pub mod table;

use crate::clock::system_ns;
use crate::device::{Ticker, beside, missing, object};
use crate::hot::{self, locked};
use crate::inject::{self, guard};
use crate::json::quote;
use activity::Decoder;
use layout::kind;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use table::Cupti;

/// Before version 27, of CUDA 12.9, CUPTI may crash where it gets no buffer (kineto's kCuptiBufferRejectionMinVersion).
const TAKES_NONE: u32 = 27;
/// `CUPTI_ACTIVITY_ATTR_ZEROED_OUT_ACTIVITY_BUFFER`: buffers are zeroed, so CUPTI need not do that on the program's time.
const ZEROED: u32 = 5;

/// A library in use.
struct Device {
    cupti: Cupti,
    path: String,
    version: u32,
    driver: u32,
    pid: u32,
    /// CUPTI's times are ours; else they are read beside ours.
    own_clock: bool,
    /// Kinds that it would not record, and why.
    refused: Vec<(u32, String)>,
}

static DEVICE: OnceLock<Device> = OnceLock::new();
static VERSION: AtomicU32 = AtomicU32::new(0);
static DECODER: Mutex<Option<Decoder>> = Mutex::new(None);
/// Half the width of the bracket of the last reading of CUPTI's clock, in ns.
static CLOCK_ERROR: AtomicU64 = AtomicU64::new(0);
/// The program is at its end: what comes now is the last.
static ENDED: AtomicBool = AtomicBool::new(false);
static FLUSHES: Ticker = Ticker::new();

/// The door that the CUDA driver opens, from `cuInit`.
#[unsafe(no_mangle)]
pub extern "C" fn InitializeInjection() -> c_int {
    static ONCE: AtomicBool = AtomicBool::new(false);
    guard((), || {
        let wanted = inject::begin() && hot::run().is_some_and(|run| run.settings.gpu);
        if wanted && !ONCE.swap(true, Relaxed) {
            begin();
        }
    });
    1
}

fn begin() {
    let driver = driver();
    let device = find::cupti(driver, &[]).and_then(|found| {
        // SAFETY: a libcupti, which stays.
        let cupti = unsafe { Cupti::of(found.library) };
        start(cupti, found.path, driver)
    });
    match device {
        Ok(device) => {
            let _ = DEVICE.set(device);
            tell();
            // SAFETY: a function of this library, which is never unloaded.
            unsafe { libc::atexit(at_exit) };
            FLUSHES.start("inferscope-gpu", || flush(false));
        }
        Err(why) => {
            hot::facts("gpu", &format!("{{\"reason\":{}}}", quote(&why)));
            hot::warn(&format!("no GPU data: {why}"));
        }
    }
}

/// For `isc-record --check`: what would be used here, or why nothing would, as a line of text that is cut to `len` bytes
/// with its end. `sites`: folders of Python's packages, with colons between.
///
/// # Safety
/// `sites` is a C string, `out` has room for `len` bytes, of which there is at least one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isc_check_cupti(sites: *const c_char, out: *mut c_char, len: usize) {
    // SAFETY: as the caller promises.
    let sites = unsafe { CStr::from_ptr(sites) }.to_string_lossy();
    let sites: Vec<&str> = sites.split(':').filter(|site| !site.is_empty()).collect();
    let text = guard(String::new(), || {
        // SAFETY: a C string; a driver's library is made to be loaded.
        unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
        match find::cupti(driver(), &sites) {
            Err(why) => why,
            Ok(found) => {
                // SAFETY: a libcupti, which stays.
                let cupti = unsafe { Cupti::of(found.library) };
                let mut version = 0;
                let ask = cupti.cuptiGetVersion;
                // SAFETY: CUPTI's function of that name stores a number.
                match ask.map(|ask| unsafe { ask(&mut version) }) {
                    Some(0) => format!("{}, API version {version}", found.path),
                    Some(result) => format!("{}: {}", found.path, cupti.words(result)),
                    None => format!("{} is no libcupti that is known here", found.path),
                }
            }
        }
    });
    let bytes = &text.as_bytes()[..text.len().min(len.saturating_sub(1))];
    // SAFETY: as the caller promises; one byte is left for the end.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast(), bytes.len());
        *out.add(bytes.len()) = 0;
    }
}

/// The driver's version, such as 12080; 0 if it does not say.
fn driver() -> u32 {
    let mut version: c_int = 0;
    // SAFETY: C strings; `cuDriverGetVersion` takes the address of an int, at any time (cuda.h).
    unsafe {
        let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        let at = libc::dlsym(library, c"cuDriverGetVersion".as_ptr());
        if !library.is_null() && !at.is_null() {
            let ask: unsafe extern "C" fn(*mut c_int) -> u32 =
                std::mem::transmute::<*mut c_void, _>(at);
            ask(&mut version);
        }
    }
    version.max(0) as u32
}

/// All that must come before a context is made, in the order that CUPTI wants.
fn start(cupti: Cupti, path: String, driver: u32) -> Result<Device, String> {
    let fault = |what: &str, result: u32| {
        let hint = match result {
            39 => ": another profiler (nsys, ncu, cuda-gdb) has the device",
            35 => ": the driver allows profiling for administrators only",
            _ => "",
        };
        format!("{what} of {path}: {}{hint}", cupti.words(result))
    };
    let (Some(version), Some(register), Some(enable)) = (
        cupti.cuptiGetVersion,
        cupti.cuptiActivityRegisterCallbacks,
        cupti.cuptiActivityEnable,
    ) else {
        return Err(format!("{path} is no libcupti that is known here"));
    };
    let mut number = 0;
    // SAFETY: CUPTI's function of that name, as are all below; each gets what cupti_activity.h says.
    let result = unsafe { version(&mut number) };
    if result != 0 {
        return Err(fault("the version", result));
    }
    VERSION.store(number, Relaxed);
    if let Some(by_gettid) = cupti.cuptiSetThreadIdType {
        // SAFETY: as above. If it is refused, calls are on threads that nobody knows, and on the timeline nevertheless.
        unsafe { by_gettid(1) };
    }
    let asked = cupti.cuptiActivityRegisterTimestampCallback;
    // SAFETY: as above; the function is ours and stays.
    let own_clock = asked.is_some_and(|ask| unsafe { ask(now) } == 0) && is_ours(&cupti);
    if let Some(set) = cupti.cuptiActivitySetAttribute {
        for mut size in [size_of::<u8>(), size_of::<usize>()] {
            let mut yes = 1u64;
            // SAFETY: as above; the value is at least as long as it is said to be.
            if unsafe { set(ZEROED, &mut size, (&raw mut yes).cast()) } == 0 {
                break;
            }
        }
    }
    let settings = hot::run().map(|run| &run.settings);
    let all = settings.is_some_and(|settings| settings.cuda_api_all);
    *locked(&DECODER) = Some(Decoder::new(all));
    // SAFETY: as above; both functions are ours and stay.
    let result = unsafe { register(requested, completed) };
    if result != 0 {
        return Err(fault("the callbacks", result));
    }
    let mut kinds = vec![
        kind::DEVICE,
        kind::CONTEXT,
        kind::STREAM,
        kind::CONCURRENT_KERNEL,
        kind::MEMCPY,
        kind::MEMSET,
        kind::MEMCPY_PEER,
        kind::SYNCHRONIZATION,
        kind::OVERHEAD,
    ];
    kinds.extend(
        settings
            .filter(|s| s.cuda_graph_whole)
            .map(|_| kind::GRAPH_TRACE),
    );
    kinds.extend(settings.filter(|s| s.cuda_memory).map(|_| kind::MEMORY));
    kinds.extend([kind::RUNTIME, kind::DRIVER]);
    let mut refused = Vec::new();
    for kind in kinds {
        let result = match kind {
            kind::RUNTIME | kind::DRIVER => calls::enable(&cupti, kind, all).err().unwrap_or(0),
            // SAFETY: as above.
            _ => unsafe { enable(kind) },
        };
        match result {
            0 => {}
            result if kind == kind::CONCURRENT_KERNEL => return Err(fault("kernels", result)),
            result => refused.push((kind, cupti.words(result))),
        }
    }
    for (kind, why) in &refused {
        let word = kind::word(*kind).unwrap_or("records");
        hot::note(&format!("CUPTI does not record {word}: {why}"));
    }
    let device = Device {
        cupti,
        path,
        version: number,
        driver,
        pid: std::process::id(),
        own_clock,
        refused,
    };
    read_clock(&device);
    Ok(device)
}

/// CLOCK_MONOTONIC, for CUPTI: its records are then on that clock, and need no conversion.
unsafe extern "C" fn now() -> u64 {
    system_ns(libc::CLOCK_MONOTONIC)
}

/// Whether CUPTI's clock is the one it was given.
fn is_ours(cupti: &Cupti) -> bool {
    let Some(read) = cupti.cuptiGetTimestamp else {
        return true; // nothing says otherwise
    };
    let before = system_ns(libc::CLOCK_MONOTONIC);
    let mut time = 0;
    // SAFETY: CUPTI's function of that name stores a number.
    let result = unsafe { read(&mut time) };
    result == 0 && (before..=system_ns(libc::CLOCK_MONOTONIC)).contains(&time)
}

/// Reads CUPTI's clock beside ours, where it is another.
fn read_clock(device: &Device) {
    let base_ns = hot::run().map_or(0, |run| run.calibration.base_monotonic_ns);
    let (mut offset, mut error) = (0, 0);
    if !device.own_clock
        && let Some(read) = device.cupti.cuptiGetTimestamp
    {
        (offset, error) = beside(|| {
            let mut time = 0;
            // SAFETY: as in `is_ours`.
            (unsafe { read(&mut time) } == 0).then_some(time)
        });
    }
    CLOCK_ERROR.store(error, Relaxed);
    if let Some(decoder) = &mut *locked(&DECODER) {
        decoder.offset = offset.wrapping_sub_unsigned(base_ns);
    }
}

/// CUPTI wants a buffer, on any thread.
unsafe extern "C" fn requested(buffer: *mut *mut u8, size: *mut usize, records: *mut usize) {
    let found = buffers::take(VERSION.load(Relaxed) < TAKES_NONE);
    // SAFETY: CUPTI passes three places to write to. No limit on records but the buffer's length.
    unsafe {
        *buffer = found.unwrap_or(std::ptr::null_mut());
        *size = if found.is_some() { buffers::BYTES } else { 0 };
        *records = 0;
    }
}

/// CUPTI gives a buffer back, on its own thread or in a call of ours to flush.
unsafe extern "C" fn completed(
    context: *mut c_void,
    stream: u32,
    buffer: *mut u8,
    _size: usize,
    valid: usize,
) {
    if buffer.is_null() {
        return;
    }
    guard((), || {
        let Some(device) = DEVICE
            .get()
            .filter(|device| device.pid == std::process::id())
        else {
            return;
        };
        if let Some(decoder) = &mut *locked(&DECODER) {
            // SAFETY: CUPTI is done with the buffer, of which `valid` bytes are records.
            unsafe { decoder.buffer(&device.cupti, buffer, valid.min(buffers::BYTES)) };
            if ENDED.load(Relaxed) {
                decoder.settle(true);
            }
        }
        // Not with the lock held: CUPTI has one of its own around both.
        dropped(device, context, stream);
    });
    // SAFETY: it is from `requested`, and nobody has it any more.
    unsafe { buffers::give(buffer, valid) };
}

/// Asks CUPTI what it dropped since it was last asked.
fn dropped(device: &Device, context: *mut c_void, stream: u32) {
    let mut records = 0;
    if let Some(ask) = device.cupti.cuptiActivityGetNumDroppedRecords
        // SAFETY: CUPTI's function of that name; a null context asks for all.
        && unsafe { ask(context, stream, &mut records) } == 0
        && records > 0
    {
        if let Some(decoder) = &mut *locked(&DECODER) {
            decoder.counts.dropped += records as u64;
        }
        missing("device records that CUPTI dropped", records as u64);
    }
}

/// Writes what has been found out since the last time.
fn tell() {
    static UNTIMED: AtomicU64 = AtomicU64::new(0);
    static SAID: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    let Some(device) = DEVICE.get() else { return };
    let (facts, untimed, unknown) = {
        let guard = locked(&DECODER);
        let Some(decoder) = &*guard else { return };
        let counts = &decoder.counts;
        let named = |kind: &u32| kind::word(*kind).map_or_else(|| kind.to_string(), str::to_owned);
        let records = (0u32..)
            .zip(counts.records)
            .filter(|(_, records)| *records > 0);
        let records = object(records.map(|(kind, n)| (named(&kind), n.to_string())));
        let unknown = object(
            counts
                .unknown
                .iter()
                .map(|(k, n)| (named(k), n.to_string())),
        );
        let refused = device.refused.iter().map(|(k, why)| (named(k), quote(why)));
        let facts = format!(
            "{{\"interface\":\"cupti\",\"path\":{},\"version\":{},\"driver\":{},\"clock\":\"{}\",\"clock_error_ns\":{},\
             \"refused\":{},\"records\":{records},\"dropped\":{},\"untimed\":{},\"unknown\":{unknown},\"damaged\":{}}}",
            quote(&device.path),
            device.version,
            device.driver,
            if device.own_clock {
                "monotonic"
            } else {
                "read"
            },
            CLOCK_ERROR.load(Relaxed),
            object(refused),
            counts.dropped,
            counts.untimed,
            counts.damaged,
        );
        let unknown: Vec<u32> = counts.unknown.keys().copied().collect();
        (facts, counts.untimed, unknown)
    };
    hot::facts("gpu", &facts);
    let before = UNTIMED.swap(untimed, Relaxed);
    missing(
        "device records without a time",
        untimed.saturating_sub(before),
    );
    let mut said = locked(&SAID);
    for kind in unknown {
        if !said.contains(&kind) {
            said.push(kind);
            hot::note(&format!(
                "CUPTI's records of kind {kind} are not known here, and left out"
            ));
        }
    }
}

/// Has CUPTI give back what it has, `all` of it or what is complete.
pub fn flush(all: bool) {
    let Some(device) = DEVICE
        .get()
        .filter(|device| device.pid == std::process::id())
    else {
        return;
    };
    read_clock(device);
    if let Some(flush) = device.cupti.cuptiActivityFlushAll {
        // SAFETY: CUPTI's function of that name, which calls `completed`; no lock of ours is held.
        unsafe { flush(all.into()) };
    }
    dropped(device, std::ptr::null_mut(), 0);
    if let Some(decoder) = &mut *locked(&DECODER) {
        decoder.settle(all);
    }
    tell();
}

extern "C" fn at_exit() {
    guard((), last);
}

/// The program is at its end.
pub fn last() {
    FLUSHES.stop();
    flush(true);
    ENDED.store(true, Relaxed);
}

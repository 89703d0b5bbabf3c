//! As `libcupti.so.N`: the activity API of one global collector; [`crate::subscribe`] has the rest.
//!
//! Deliberately absent: the `_v2` set of CUPTI 13.2, metrics, events and sampling.

use crate::activity::{self, Completed, Request};
use crate::call;
use crate::clock;
use crate::enabled;
use crate::layout::{self, kind};
use crate::lock;
use crate::names::{self, result::*};
use crate::settings;
use crate::{begin, is_forked};
use std::ffi::{c_char, c_void};
use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;

/// The first CUDA version with single calls to enable.
const SINGLE_CALLS: u32 = 120500;
/// The first with the lengths of records.
const STRUCT_SIZES: u32 = 130200;
/// `CUPTI_ACTIVITY_ATTR_ZEROED_OUT_ACTIVITY_BUFFER`.
const ZEROED_OUT: u32 = 5;

/// Attributes as set, by number: their bytes.
static ATTRIBUTES: Mutex<Vec<(u32, Vec<u8>)>> = Mutex::new(Vec::new());

/// The code that a function fails with as the settings have it.
pub fn refused(name: &str) -> Option<u32> {
    begin();
    if is_forked() {
        return Some(NOT_INITIALIZED);
    }
    let settings = settings::get();
    if settings.absent.iter().any(|absent| absent == name) {
        return Some(NOT_SUPPORTED);
    }
    // As seen of the real library without a driver: before 13.5 a few functions work.
    const WITHOUT: [&str; 4] = [
        "cuptiGetVersion",
        "cuptiGetTimestamp",
        "cuptiActivityRegisterCallbacks",
        "cuptiFinalize",
    ];
    let works = !settings.no_driver || settings.version < 130500 && WITHOUT.contains(&name);
    (!works).then_some(if settings.version < 130000 {
        NOT_INITIALIZED
    } else {
        UNKNOWN
    })
}

/// Returns early if the function, named as it is, is to fail.
macro_rules! unless_refused {
    ($name:literal) => {
        if let Some(code) = $crate::cupti::refused($name) {
            return code;
        }
    };
}

pub(crate) use unless_refused;

/// Writes an out parameter, or says that there is none.
///
/// # Safety
/// `to` is null or may be written to.
pub unsafe fn give<T>(to: *mut T, value: T) -> u32 {
    if to.is_null() {
        return INVALID_PARAMETER;
    }
    // SAFETY: not null, so the caller's promise holds.
    unsafe { to.write(value) };
    SUCCESS
}

/// # Safety
/// The pointer is null or may be written to; so in all functions below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiGetVersion(version: *mut u32) -> u32 {
    unless_refused!("cuptiGetVersion");
    // SAFETY: the caller's promise.
    unsafe { give(version, settings::get().cupti_version()) }
}

/// # Safety
/// See [`cuptiGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiGetResultString(code: u32, text: *mut *const c_char) -> u32 {
    match names::result_text(code) {
        // SAFETY: the caller's promise.
        Some(said) => unsafe { give(text, said.as_ptr()) },
        None => INVALID_PARAMETER,
    }
}

/// # Safety
/// See [`cuptiGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiGetTimestamp(timestamp: *mut u64) -> u32 {
    unless_refused!("cuptiGetTimestamp");
    // SAFETY: the caller's promise.
    unsafe { give(timestamp, clock::cupti_now()) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuptiSetThreadIdType(what: u32) -> u32 {
    unless_refused!("cuptiSetThreadIdType");
    if what > 1 {
        return INVALID_PARAMETER;
    }
    call::SYSTEM_TIDS.store(what == 1, SeqCst);
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuptiActivityRegisterCallbacks(
    request: Option<Request>,
    completed: Option<Completed>,
) -> u32 {
    unless_refused!("cuptiActivityRegisterCallbacks");
    let (Some(request), Some(completed)) = (request, completed) else {
        return INVALID_PARAMETER;
    };
    activity::register(request, completed);
    SUCCESS
}

/// Refused once a kind is enabled from 13.5 on, whose library has a message that says so.
#[unsafe(no_mangle)]
pub extern "C" fn cuptiActivityRegisterTimestampCallback(callback: Option<clock::Callback>) -> u32 {
    unless_refused!("cuptiActivityRegisterTimestampCallback");
    let settings = settings::get();
    if settings.timestamp_refused || settings.version >= 130500 && enabled::any_enabled() {
        return INVALID_OPERATION;
    }
    clock::register(callback);
    SUCCESS
}

fn enable(kind: u32, on: bool) -> u32 {
    if kind == 0 || kind > kind::LAST {
        return INVALID_KIND;
    }
    let fails = settings::get()
        .fail_enable
        .iter()
        .find(|(fails, _)| *fails == kind);
    if let (true, Some(&(_, code))) = (on, fails) {
        return code;
    }
    enabled::enable(kind, on);
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuptiActivityEnable(kind: u32) -> u32 {
    unless_refused!("cuptiActivityEnable");
    enable(kind, true)
}

/// Enables a kind, and records what there is of it already: devices, contexts or streams.
#[unsafe(no_mangle)]
pub extern "C" fn cuptiActivityEnableAndDump(kind: u32) -> u32 {
    unless_refused!("cuptiActivityEnableAndDump");
    let code = enable(kind, true);
    if code == SUCCESS {
        call::dump(kind);
    }
    code
}

/// Length of a record of a kind, as this version has it: `version` is 0. Came with 13.2.
///
/// # Safety
/// See [`cuptiGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiActivityGetStructSize(
    kind: u32,
    _version: u32,
    bytes: *mut usize,
) -> u32 {
    unless_refused!("cuptiActivityGetStructSize");
    let version = settings::get().version;
    match layout::bytes(version, kind) {
        _ if version < STRUCT_SIZES => NOT_SUPPORTED, // the symbol is not there yet
        // SAFETY: the caller's promise.
        Some(length) => unsafe { give(bytes, length) },
        None => INVALID_KIND,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuptiActivityDisable(kind: u32) -> u32 {
    unless_refused!("cuptiActivityDisable");
    enable(kind, false)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuptiActivityEnableRuntimeApi(cbid: u32, on: u8) -> u32 {
    unless_refused!("cuptiActivityEnableRuntimeApi");
    single(kind::RUNTIME, &enabled::RUNTIME_CALLS, cbid, on)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuptiActivityEnableDriverApi(cbid: u32, on: u8) -> u32 {
    unless_refused!("cuptiActivityEnableDriverApi");
    single(kind::DRIVER, &enabled::DRIVER_CALLS, cbid, on)
}

fn single(kind: u32, calls: &enabled::Flags, cbid: u32, on: u8) -> u32 {
    let settings = settings::get();
    if settings.version < SINGLE_CALLS {
        return NOT_SUPPORTED; // the symbol is not there yet
    }
    if let Some(&(_, code)) = settings
        .fail_enable
        .iter()
        .find(|(fails, _)| *fails == kind)
    {
        return code;
    }
    if calls.set(cbid, on != 0) {
        SUCCESS
    } else {
        INVALID_PARAMETER
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuptiActivityFlushAll(flag: u32) -> u32 {
    unless_refused!("cuptiActivityFlushAll");
    activity::flush(flag & 1 != 0);
    SUCCESS
}

/// Full buffers are handed over at once here, so there is nothing for a period to do.
#[unsafe(no_mangle)]
pub extern "C" fn cuptiActivityFlushPeriod(_ms: u32) -> u32 {
    unless_refused!("cuptiActivityFlushPeriod");
    SUCCESS
}

/// # Safety
/// `buffer` holds `valid` bytes of records as they were handed over; `*record` is null or one of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiActivityGetNextRecord(
    buffer: *mut u8,
    valid: usize,
    record: *mut *mut u8,
) -> u32 {
    unless_refused!("cuptiActivityGetNextRecord");
    if buffer.is_null() || record.is_null() {
        return INVALID_PARAMETER;
    }
    // SAFETY: not null, so the caller's promise holds.
    let last = unsafe { *record };
    let mut at = 0;
    let length = |at: usize| {
        // SAFETY: `at` leaves a whole record, which begins with its kind, before `valid`.
        layout::bytes(settings::get().version, unsafe {
            buffer.add(at).cast::<u32>().read_unaligned()
        })
    };
    if !last.is_null() {
        at = last.addr().wrapping_sub(buffer.addr());
        if at + 8 > valid {
            return INVALID_PARAMETER;
        }
        let Some(length) = length(at) else {
            return INVALID_KIND;
        };
        at += length;
    }
    if at + 8 > valid {
        return MAX_LIMIT_REACHED;
    }
    match length(at) {
        None => INVALID_KIND,
        Some(length) if at + length > valid => MAX_LIMIT_REACHED,
        // SAFETY: a whole record lies there.
        Some(_) => unsafe { give(record, buffer.add(at)) },
    }
}

/// # Safety
/// See [`cuptiGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiActivityGetNumDroppedRecords(
    _context: *mut c_void,
    _stream: u32,
    dropped: *mut usize,
) -> u32 {
    unless_refused!("cuptiActivityGetNumDroppedRecords");
    if dropped.is_null() {
        return INVALID_PARAMETER;
    }
    // SAFETY: not null, so the caller's promise holds.
    unsafe { give(dropped, activity::take_dropped()) }
}

/// # Safety
/// `value` is null or holds `*bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiActivitySetAttribute(
    attribute: u32,
    bytes: *mut usize,
    value: *mut c_void,
) -> u32 {
    unless_refused!("cuptiActivitySetAttribute");
    if bytes.is_null() || value.is_null() {
        return INVALID_PARAMETER;
    }
    // SAFETY: neither is null, so the caller's promise holds.
    let value = unsafe { std::slice::from_raw_parts(value.cast::<u8>(), *bytes) }.to_vec();
    if attribute == ZEROED_OUT {
        activity::ZEROED.store(value.first().is_some_and(|&first| first != 0), SeqCst);
    }
    let mut attributes = lock(&ATTRIBUTES);
    attributes.retain(|(set, _)| *set != attribute);
    attributes.push((attribute, value));
    SUCCESS
}

/// What was set; what was not is all zero.
///
/// # Safety
/// `value` is null or has room for `*bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiActivityGetAttribute(
    attribute: u32,
    bytes: *mut usize,
    value: *mut c_void,
) -> u32 {
    unless_refused!("cuptiActivityGetAttribute");
    if bytes.is_null() || value.is_null() {
        return INVALID_PARAMETER;
    }
    // SAFETY: neither is null, so the caller's promise holds.
    let to = unsafe { std::slice::from_raw_parts_mut(value.cast::<u8>(), *bytes) };
    to.fill(0);
    let attributes = lock(&ATTRIBUTES);
    let Some((_, set)) = attributes.iter().find(|(set, _)| *set == attribute) else {
        return SUCCESS;
    };
    if set.len() > to.len() {
        return PARAMETER_SIZE_NOT_SUFFICIENT;
    }
    to[..set.len()].copy_from_slice(set);
    SUCCESS
}

/// Everything off; what is in buffers stays there.
#[unsafe(no_mangle)]
pub extern "C" fn cuptiFinalize() -> u32 {
    unless_refused!("cuptiFinalize");
    (1..=kind::LAST).for_each(|kind| enabled::enable(kind, false));
    call::SUBSCRIBED.iter().for_each(|flags| flags.all(false));
    *lock(&call::SUBSCRIBER) = None;
    SUCCESS
}

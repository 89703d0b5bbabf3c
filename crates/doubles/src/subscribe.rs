//! As `libcupti.so.N`: subscriptions to calls and resources, the names and ids of things, and external ids.

use crate::call::{self, Callback, Subscriber};
use crate::cupti::{give, unless_refused};
use crate::gpu;
use crate::lock;
use crate::names::{self, result::*};
use crate::settings;
use std::ffi::{c_char, c_void};

/// The handle of the one subscriber.
const SUBSCRIBER: usize = 0x5ab5_c21b;

/// # Safety
/// `user` is the callback's own; see [`crate::cupti::cuptiGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiSubscribe(
    subscriber: *mut usize,
    callback: Option<Callback>,
    user: *mut c_void,
) -> u32 {
    unless_refused!("cuptiSubscribe");
    let Some(callback) = callback else {
        return INVALID_PARAMETER;
    };
    let mut current = lock(&call::SUBSCRIBER);
    if settings::get().subscriber_busy || current.is_some() {
        return MULTIPLE_SUBSCRIBERS;
    }
    *current = Some(Subscriber {
        callback,
        user: user as usize,
    });
    // SAFETY: the caller's promise.
    unsafe { give(subscriber, SUBSCRIBER) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuptiUnsubscribe(subscriber: usize) -> u32 {
    unless_refused!("cuptiUnsubscribe");
    if subscriber != SUBSCRIBER {
        return INVALID_PARAMETER;
    }
    call::SUBSCRIBED.iter().for_each(|flags| flags.all(false));
    *lock(&call::SUBSCRIBER) = None;
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuptiEnableCallback(on: u32, subscriber: usize, domain: u32, cbid: u32) -> u32 {
    unless_refused!("cuptiEnableCallback");
    let flags = call::SUBSCRIBED.get(domain as usize);
    match (subscriber == SUBSCRIBER, flags) {
        (true, Some(flags)) if flags.set(cbid, on != 0) => SUCCESS,
        _ => INVALID_PARAMETER,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuptiEnableDomain(on: u32, subscriber: usize, domain: u32) -> u32 {
    unless_refused!("cuptiEnableDomain");
    let flags = call::SUBSCRIBED.get(domain as usize);
    let (true, Some(flags)) = (subscriber == SUBSCRIBER, flags) else {
        return INVALID_PARAMETER;
    };
    flags.all(on != 0);
    SUCCESS
}

/// # Safety
/// See [`crate::cupti::cuptiGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiGetCallbackName(
    domain: u32,
    cbid: u32,
    name: *mut *const c_char,
) -> u32 {
    unless_refused!("cuptiGetCallbackName");
    match names::call(domain, cbid) {
        // SAFETY: the caller's promise.
        Some(known) => unsafe { give(name, known.as_ptr()) },
        None => INVALID_PARAMETER,
    }
}

/// # Safety
/// See [`crate::cupti::cuptiGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiGetDeviceId(context: usize, device: *mut u32) -> u32 {
    unless_refused!("cuptiGetDeviceId");
    let context = if context == 0 {
        gpu::current()
    } else {
        context
    };
    match gpu::of_context(context) {
        // SAFETY: the caller's promise.
        Some(place) => unsafe { give(device, place.device) },
        None => INVALID_CONTEXT,
    }
}

/// A node is its id here.
///
/// # Safety
/// See [`crate::cupti::cuptiGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiGetGraphNodeId(node: usize, id: *mut u64) -> u32 {
    unless_refused!("cuptiGetGraphNodeId");
    // SAFETY: the caller's promise.
    unsafe { give(id, node as u64) }
}

/// # Safety
/// See [`crate::cupti::cuptiGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiGetGraphId(graph: usize, id: *mut u32) -> u32 {
    unless_refused!("cuptiGetGraphId");
    match gpu::of_graph(graph) {
        // SAFETY: the caller's promise.
        Some((known, _)) => unsafe { give(id, known) },
        None => INVALID_PARAMETER,
    }
}

/// Kinds of external ids: 1 to 5.
fn is_external(kind: u32) -> bool {
    (1..6).contains(&kind)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuptiActivityPushExternalCorrelationId(kind: u32, id: u64) -> u32 {
    unless_refused!("cuptiActivityPushExternalCorrelationId");
    if !is_external(kind) {
        return INVALID_PARAMETER;
    }
    let push = call::EXTERNAL.try_with(|pushed| pushed.borrow_mut().push((kind, id)));
    if push.is_ok() {
        SUCCESS
    } else {
        INVALID_OPERATION
    } // else the thread is ending
}

/// # Safety
/// `last` may be null; else see [`crate::cupti::cuptiGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuptiActivityPopExternalCorrelationId(kind: u32, last: *mut u64) -> u32 {
    unless_refused!("cuptiActivityPopExternalCorrelationId");
    if !is_external(kind) {
        return INVALID_PARAMETER;
    }
    let popped = call::EXTERNAL.try_with(|pushed| {
        let mut pushed = pushed.borrow_mut();
        let at = pushed.iter().rposition(|one| one.0 == kind)?;
        Some(pushed.remove(at).1)
    });
    let Ok(Some(id)) = popped else {
        return QUEUE_EMPTY;
    };
    if !last.is_null() {
        // SAFETY: not null, so the caller's promise holds.
        unsafe { last.write(id) };
    }
    SUCCESS
}

//! rocprofiler-sdk's functions, as a tool finds them.

use crate::gpu::What;
use crate::sdk::{
    BELL, BUFFER, CONTEXT, Completed, STATE, Service, State, deliver, kind_name, kind_of, state,
};
use crate::{agents, hip, lock, monotonic_ns, settings, truth};
use std::ffi::{c_char, c_int, c_void};

const SUCCESS: u32 = 0;
const ERROR: u32 = 1;
const KIND_NOT_FOUND: u32 = 4;
const OPERATION_NOT_FOUND: u32 = 5;
const CONFIGURATION_LOCKED: u32 = 16;
const NOT_IMPLEMENTED: u32 = 17;
const INCOMPATIBLE_ABI: u32 = 18;
const THREAD: u64 = 0x0007_4EAD;

fn refused(what: &str, status: u32) -> Option<u32> {
    settings::get().refuses(what).then_some(status)
}

fn configure(body: impl FnOnce(&mut State) -> u32) -> u32 {
    state(|state| match state.configuring {
        true => body(state),
        false => CONFIGURATION_LOCKED,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rocprofiler_create_context(context: *mut u64) -> u32 {
    // SAFETY: the caller passes a place to read and to write.
    unsafe {
        if *context != 0 {
            return 13; // ROCPROFILER_STATUS_ERROR_CONTEXT_ID_NOT_ZERO
        }
        *context = CONTEXT;
    }
    refused("CONTEXT", ERROR).unwrap_or_else(|| configure(|_| SUCCESS))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rocprofiler_create_buffer(
    context: u64,
    size: usize,
    watermark: usize,
    policy: u32,
    completed: Completed,
    _data: *mut c_void,
    buffer: *mut u64,
) -> u32 {
    if context != CONTEXT || watermark > size || !matches!(policy, 1 | 2) {
        return ERROR;
    }
    // SAFETY: the caller passes a place to write to.
    unsafe { *buffer = BUFFER };
    refused("BUFFER", ERROR).unwrap_or_else(|| {
        configure(|state| {
            (state.completed, state.watermark) = (Some(completed), watermark);
            SUCCESS
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rocprofiler_create_callback_thread(thread: *mut u64) -> u32 {
    // SAFETY: the caller passes a place to write to.
    unsafe { *thread = THREAD };
    configure(|_| SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn rocprofiler_assign_callback_thread(buffer: u64, thread: u64) -> u32 {
    if (buffer, thread) == (BUFFER, THREAD) {
        configure(|_| SUCCESS)
    } else {
        ERROR
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rocprofiler_configure_buffer_tracing_service(
    context: u64,
    kind: u32,
    operations: *const i32,
    count: usize,
    buffer: u64,
) -> u32 {
    let Some(name) = kind_name(kind).filter(|_| (context, buffer) == (CONTEXT, BUFFER)) else {
        return KIND_NOT_FOUND;
    };
    let operations = match operations.is_null() {
        true => Vec::new(),
        // SAFETY: the caller passes that many.
        false => unsafe { std::slice::from_raw_parts(operations, count) }.to_vec(),
    };
    refused(name.trim_end_matches('\0'), NOT_IMPLEMENTED).unwrap_or_else(|| {
        configure(|state| {
            state.wanted.push((kind, operations));
            SUCCESS
        })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn rocprofiler_configure_callback_tracing_service(
    context: u64,
    kind: u32,
    _operations: *const i32,
    _count: usize,
    told: usize,
    _data: *mut c_void,
) -> u32 {
    if context != CONTEXT || kind != 10 {
        return KIND_NOT_FOUND;
    }
    refused("CODE_OBJECT", NOT_IMPLEMENTED).unwrap_or_else(|| {
        configure(|state| {
            state.code = Some(told);
            SUCCESS
        })
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn rocprofiler_start_context(context: u64) -> u32 {
    if context != CONTEXT {
        return ERROR;
    }
    if let Some(status) = refused("START", ERROR) {
        return status;
    }
    let first = state(|state| {
        state.started = true;
        !std::mem::replace(&mut state.delivering, true)
    });
    if first {
        std::thread::spawn(deliver);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn rocprofiler_stop_context(_context: u64) -> u32 {
    state(|state| {
        // work that was launched while it was on is still recorded, as the SDK promises
        state.started = false;
    });
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn rocprofiler_flush_buffer(buffer: u64) -> u32 {
    if buffer != BUFFER {
        return ERROR;
    }
    let mut guard = lock(&STATE);
    let state = guard.get_or_insert_default();
    if state.over || !state.delivering {
        return 21; // ROCPROFILER_STATUS_ERROR_FINALIZED
    }
    state.collect(monotonic_ns());
    state.asked += 1;
    let goal = state.asked;
    BELL.notify_all();
    while guard.get_or_insert_default().done < goal {
        guard = match BELL.wait(guard) {
            Ok(guard) => guard,
            Err(_) => return ERROR,
        };
    }
    drop(guard);
    truth::write();
    SUCCESS
}

/// # Safety
/// Both places may be written to, or are null.
unsafe fn told_text(text: Option<&'static str>, at: *mut *const c_char, len: *mut u64) -> bool {
    // SAFETY: as the caller promises; the text ends in NUL.
    unsafe {
        if !at.is_null() {
            *at = text.map_or(std::ptr::null(), |text| text.as_ptr().cast());
        }
        if !len.is_null() {
            *len = text.map_or(0, |text| text.len() as u64 - 1);
        }
    }
    text.is_some()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rocprofiler_query_buffer_tracing_kind_name(
    kind: u32,
    at: *mut *const c_char,
    len: *mut u64,
) -> u32 {
    // SAFETY: as the caller promises.
    match unsafe { told_text(kind_name(kind), at, len) } {
        true => SUCCESS,
        false => KIND_NOT_FOUND,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rocprofiler_query_buffer_tracing_kind_operation_name(
    kind: u32,
    operation: i32,
    at: *mut *const c_char,
    len: *mut u64,
) -> u32 {
    let service = [Service::Runtime, Service::Compiler, Service::Rccl]
        .into_iter()
        .find(|service| kind_of(What::Call(*service)) == Some(kind));
    let name = service.and_then(|service| {
        let names = hip::operations(service);
        names.get(usize::try_from(operation).ok()?).copied()
    });
    // SAFETY: as the caller promises.
    match unsafe { told_text(name, at, len) } {
        true => SUCCESS,
        false => OPERATION_NOT_FOUND,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rocprofiler_query_available_agents(
    version: c_int,
    each: unsafe extern "C" fn(c_int, *const *const agents::Agent, usize, *mut c_void) -> c_int,
    size: usize,
    data: *mut c_void,
) -> u32 {
    if let Some(status) = refused("AGENTS", ERROR) {
        return status;
    }
    let most = if settings::get().new_layout() {
        312
    } else {
        296
    };
    if version != 1 || size > most {
        return INCOMPATIBLE_ABI;
    }
    let all: Vec<*const agents::Agent> = agents::all().iter().map(std::ptr::from_ref).collect();
    // SAFETY: the tool's function, and as many agents as it is told.
    unsafe { each(version, all.as_ptr(), all.len(), data) as u32 }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn rocprofiler_get_timestamp(time: *mut u64) -> u32 {
    if let Some(status) = refused("TIMESTAMP", ERROR) {
        return status;
    }
    // SAFETY: the caller passes a place to write to.
    unsafe { *time = monotonic_ns() + settings::get().offset_ns };
    SUCCESS
}

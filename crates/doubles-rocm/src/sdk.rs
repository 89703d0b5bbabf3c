//! rocprofiler-sdk: one tool's context, buffer and services, and a thread that delivers.

use crate::gpu::{self, Event, Function, What};
use crate::layout::{self, Callback, Load, NewId, OldId, Symbol};
use crate::truth::{self, Outcome};
use crate::{agents, hip, lock, monotonic_ns, settings, tid};
use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void};
use std::sync::{Condvar, Mutex};

/// Services that the double has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    Runtime,
    Compiler,
    Rccl,
}

impl Service {
    pub fn name(self) -> &'static str {
        match self {
            Service::Runtime => "HIP_RUNTIME_API",
            Service::Compiler => "HIP_COMPILER_API",
            Service::Rccl => "RCCL_API",
        }
    }
}

/// Names of kinds by their number: `rocprofiler_buffer_tracing_kind_t` of 0.5.0 (NUL-terminated, as they are told).
const OLD_KINDS: [&str; 16] = [
    "NONE\0",
    "HSA_CORE_API\0",
    "HSA_AMD_EXT_API\0",
    "HSA_IMAGE_EXT_API\0",
    "HSA_FINALIZE_EXT_API\0",
    "HIP_RUNTIME_API\0",
    "HIP_COMPILER_API\0",
    "MARKER_CORE_API\0",
    "MARKER_CONTROL_API\0",
    "MARKER_NAME_API\0",
    "MEMORY_COPY\0",
    "KERNEL_DISPATCH\0",
    "PAGE_MIGRATION\0",
    "SCRATCH_MEMORY\0",
    "CORRELATION_ID_RETIREMENT\0",
    "RCCL_API\0",
];
/// From 12 on, of later versions.
const NEW_KINDS: [&str; 5] = [
    "SCRATCH_MEMORY\0",
    "CORRELATION_ID_RETIREMENT\0",
    "RCCL_API\0",
    "OMPT\0",
    "MEMORY_ALLOCATION\0",
];

const SUCCESS: u32 = 0;
const ERROR: u32 = 1;
const KIND_NOT_FOUND: u32 = 4;
const OPERATION_NOT_FOUND: u32 = 5;
const CONFIGURATION_LOCKED: u32 = 16;
const NOT_IMPLEMENTED: u32 = 17;
const INCOMPATIBLE_ABI: u32 = 18;
const CONTEXT: u64 = 0x00C0_47E7;
const BUFFER: u64 = 0x00B0_FFE4;
const THREAD: u64 = 0x0007_4EAD;

#[repr(C)]
pub struct Header {
    category: u32,
    kind: u32,
    payload: *const u64,
}

type Completed = unsafe extern "C" fn(u64, u64, *mut *mut Header, usize, *mut c_void, u64);
type OldTold = unsafe extern "C" fn(Callback<OldId>, *mut u64, *mut c_void);
type NewTold = unsafe extern "C" fn(Callback<NewId>, *mut u64, *mut c_void);

struct Ready {
    kind: u32,
    record: Box<[u64]>,
    /// `None` of what nobody knows.
    event: Option<Event>,
}

#[derive(Default)]
struct State {
    configuring: bool,
    started: bool,
    over: bool,
    /// Kinds that are recorded, and their operations; of none: all.
    wanted: Vec<(u32, Vec<i32>)>,
    completed: Option<Completed>,
    watermark: usize,
    code: Option<usize>,
    /// By when they end, and the order in which they came.
    pending: BTreeMap<(u64, u64), Event>,
    ready: Vec<Ready>,
    ready_bytes: usize,
    emitted: u64,
    dropped: u64,
    asked: u64,
    done: u64,
    delivering: bool,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
static BELL: Condvar = Condvar::new();

fn state<T>(body: impl FnOnce(&mut State) -> T) -> T {
    body(lock(&STATE).get_or_insert_default())
}

/// A kind's name with its NUL.
fn kind_name(kind: u32) -> Option<&'static str> {
    let at = kind as usize;
    match settings::get().new_layout() && at >= 12 {
        true => NEW_KINDS.get(at - 12).copied(),
        false => OLD_KINDS.get(at).copied(),
    }
}

fn kind_of(what: What) -> Option<u32> {
    let name = match what {
        What::Call(service) => service.name(),
        What::Copy => "MEMORY_COPY",
        What::Kernel => "KERNEL_DISPATCH",
        What::Allocation => "MEMORY_ALLOCATION",
    };
    (0..32).find(|kind| kind_name(*kind).is_some_and(|known| known.trim_end_matches('\0') == name))
}

impl State {
    /// An event has ended: its record, if anybody wants one.
    fn emit(&mut self, event: Event) {
        let kind = kind_of(event.what);
        let is_call = matches!(event.what, What::Call(_));
        let wanted = self.wanted.iter().find(|known| Some(known.0) == kind);
        let wanted = wanted.filter(|(_, operations)| {
            !is_call || operations.is_empty() || operations.contains(&event.operation)
        });
        let (Some(kind), true, Some(_)) = (kind, self.started, wanted) else {
            return truth::note(&event, Outcome::Disabled);
        };
        let settings = settings::get();
        self.emitted += 1;
        if settings.drop_every > 0 && self.emitted.is_multiple_of(settings.drop_every) {
            self.dropped += 1;
            return truth::note(&event, Outcome::Dropped);
        }
        let record = layout::record(&event, kind);
        self.ready_bytes += 8 * record.len();
        self.ready.push(Ready {
            kind,
            record,
            event: Some(event),
        });
        if settings.unknown_every > 0 && self.emitted.is_multiple_of(settings.unknown_every) {
            self.ready.push(Ready {
                kind: layout::UNKNOWN,
                record: layout::unknown(),
                event: None,
            });
        }
        if self.ready_bytes >= self.watermark {
            BELL.notify_all();
        }
    }

    /// What has ended by now.
    fn collect(&mut self, now: u64) {
        while let Some(first) = self.pending.first_entry()
            && first.key().0 <= now
        {
            let event = first.remove();
            self.emit(event);
        }
    }
}

/// A call has ended.
pub fn call(event: Event) {
    state(|state| {
        state.collect(monotonic_ns());
        state.emit(event);
    });
}

/// Device work is on its way.
pub fn pend(event: Event) {
    state(|state| {
        state.collect(monotonic_ns());
        let key = (event.end_ns, state.emitted + state.pending.len() as u64);
        let mut key = key;
        while state.pending.contains_key(&key) {
            key.1 += 1;
        }
        state.pending.insert(key, event);
    });
}

/// Hands over what is ready, whenever it is asked for or enough.
fn deliver() {
    let mut guard = lock(&STATE);
    loop {
        let state = guard.get_or_insert_default();
        let due = state.asked != state.done || state.ready_bytes >= state.watermark;
        if !due {
            guard = match BELL.wait(guard) {
                Ok(guard) => guard,
                Err(_) => return,
            };
            continue;
        }
        let ready = std::mem::take(&mut state.ready);
        state.ready_bytes = 0;
        let (goal, dropped, completed) = (state.asked, state.dropped, state.completed);
        drop(guard);
        hand_over(&ready, dropped, completed);
        for event in ready.iter().filter_map(|one| one.event.as_ref()) {
            truth::note(event, Outcome::Delivered);
        }
        guard = lock(&STATE);
        guard.get_or_insert_default().done = goal;
        BELL.notify_all();
    }
}

fn hand_over(ready: &[Ready], dropped: u64, completed: Option<Completed>) {
    let mut headers: Vec<Header> = ready
        .iter()
        .map(|one| Header {
            category: 1,
            kind: one.kind,
            payload: one.record.as_ptr(),
        })
        .collect();
    let mut at: Vec<*mut Header> = headers.iter_mut().map(std::ptr::from_mut).collect();
    let Some(completed) = completed.filter(|_| !ready.is_empty()) else {
        return;
    };
    let (first, count) = (at.as_mut_ptr(), at.len());
    // SAFETY: the tool's function, and as many headers as it is told, with a record each.
    unsafe { completed(CONTEXT, BUFFER, first, count, std::ptr::null_mut(), dropped) };
}

/// Tells the tool of a kernel's symbol that is loaded, or goes.
pub fn load(index: u64, function: &Function, loaded: bool) {
    let Some(code) = state(|state| state.code.filter(|_| state.started)) else {
        return;
    };
    let object = Load {
        size: size_of::<Load>() as u64,
        code_object: 3,
        rest: [0; 8],
    };
    let symbol = Symbol {
        size: size_of::<Symbol>() as u64,
        kernel: gpu::KERNEL + index,
        code_object: 3,
        name: function.name.as_ptr(),
        kernel_object: 0x0B1E,
        kernarg_size: 64,
        kernarg_alignment: 16,
        group_segment: 512,
        private_segment: 0,
        scalar_registers: 96,
        vector_registers: function.registers,
        accumulation_registers: 4,
    };
    let phase = if loaded { 1 } else { 2 };
    tell(code, 1, phase, (&raw const object).cast());
    tell(code, 2, phase, (&raw const symbol).cast());
}

fn tell(code: usize, operation: i32, phase: u32, payload: *const u8) {
    let (mut user, data) = (0u64, std::ptr::null_mut());
    let kind = 10; // ROCPROFILER_CALLBACK_TRACING_CODE_OBJECT
    // SAFETY: the tool's function for this version's record, which it takes by value.
    unsafe {
        if settings::get().new_layout() {
            let told = std::mem::transmute::<usize, NewTold>(code);
            let record = Callback {
                context: CONTEXT,
                thread: tid(),
                correlation: NewId::of(10 | 2 << 32),
                kind,
                operation,
                phase,
                payload,
            };
            told(record, &mut user, data);
        } else {
            let told = std::mem::transmute::<usize, OldTold>(code);
            let record = Callback {
                context: CONTEXT,
                thread: tid(),
                correlation: OldId::of(1),
                kind,
                operation,
                phase,
                payload,
            };
            told(record, &mut user, data);
        }
    }
}

/// What `rocprofiler_configure` is called within.
pub fn configuring(to: bool) {
    state(|state| state.configuring = to);
}

/// All work has ended, and is ready.
pub fn complete() {
    let last = state(|state| state.pending.last_key_value().map(|(key, _)| key.0));
    if let Some(last) = last {
        gpu::wait_until(last + 1);
    }
    state(|state| state.collect(u64::MAX));
}

/// No more is delivered.
pub fn end() {
    let left = state(|state| {
        (state.over, state.started) = (true, false);
        std::mem::take(&mut state.ready)
    });
    for event in left.iter().filter_map(|one| one.event.as_ref()) {
        truth::note(event, Outcome::Pending);
    }
    truth::write();
}

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

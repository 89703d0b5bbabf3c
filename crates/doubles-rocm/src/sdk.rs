//! rocprofiler-sdk: one tool's context, buffer and services, and a thread that delivers.

use crate::gpu::{self, Event, Function, What};
use crate::layout::{self, Callback, Load, NewId, OldId, Symbol};
use crate::truth::{self, Outcome};
use crate::{lock, monotonic_ns, settings, tid};
use std::collections::BTreeMap;
use std::ffi::c_void;
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

pub const CONTEXT: u64 = 0x00C0_47E7;
pub const BUFFER: u64 = 0x00B0_FFE4;

#[repr(C)]
pub struct Header {
    category: u32,
    kind: u32,
    payload: *const u64,
}

pub type Completed = unsafe extern "C" fn(u64, u64, *mut *mut Header, usize, *mut c_void, u64);
type OldTold = unsafe extern "C" fn(Callback<OldId>, *mut u64, *mut c_void);
type NewTold = unsafe extern "C" fn(Callback<NewId>, *mut u64, *mut c_void);

pub struct Ready {
    kind: u32,
    record: Box<[u64]>,
    /// `None` of what nobody knows.
    event: Option<Event>,
}

#[derive(Default)]
pub struct State {
    pub configuring: bool,
    pub started: bool,
    pub over: bool,
    /// Kinds that are recorded, and their operations; of none: all.
    pub wanted: Vec<(u32, Vec<i32>)>,
    pub completed: Option<Completed>,
    pub watermark: usize,
    pub code: Option<usize>,
    /// By when they end, and the order in which they came.
    pub pending: BTreeMap<(u64, u64), Event>,
    pub ready: Vec<Ready>,
    pub ready_bytes: usize,
    pub emitted: u64,
    pub dropped: u64,
    pub asked: u64,
    pub done: u64,
    pub delivering: bool,
}

pub static STATE: Mutex<Option<State>> = Mutex::new(None);
pub static BELL: Condvar = Condvar::new();

pub fn state<T>(body: impl FnOnce(&mut State) -> T) -> T {
    body(lock(&STATE).get_or_insert_default())
}

/// A kind's name with its NUL.
pub fn kind_name(kind: u32) -> Option<&'static str> {
    let at = kind as usize;
    match settings::get().new_layout() && at >= 12 {
        true => NEW_KINDS.get(at - 12).copied(),
        false => OLD_KINDS.get(at).copied(),
    }
}

pub fn kind_of(what: What) -> Option<u32> {
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
    pub fn collect(&mut self, now: u64) {
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
pub fn deliver() {
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

//! Records as rocprofiler-sdk's headers have them: buffer_tracing.h, fwd.h and callback_tracing.h of 0.5.0 (commit
//! 8ab1ed7 of ROCm/rocprofiler-sdk) and, where they differ, of ROCm/rocm-systems (commits 00db669 and 0409832).

use crate::gpu::{Event, What};
use crate::settings;
use std::ffi::c_char;

#[derive(Clone, Copy)]
#[repr(C)]
pub struct OldId {
    internal: u64,
    external: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct NewId {
    internal: u64,
    external: u64,
    ancestor: u64,
}

#[repr(C)]
struct Api<Id> {
    size: u64,
    kind: u32,
    operation: i32,
    correlation: Id,
    start: u64,
    end: u64,
    thread: u64,
}

#[repr(C)]
struct Copy {
    size: u64,
    kind: u32,
    operation: u32,
    correlation: OldId,
    thread: u64,
    start: u64,
    end: u64,
    target_agent: u64,
    source_agent: u64,
    bytes: u64,
}

#[repr(C)]
struct NewCopy {
    old: Copy,
    target_address: u64,
    source_address: u64,
}

#[repr(C)]
struct Dispatch {
    size: u64,
    kind: u32,
    operation: u32,
    correlation: OldId,
    thread: u64,
    start: u64,
    end: u64,
    // rocprofiler_kernel_dispatch_info_t
    info_size: u64,
    agent: u64,
    queue: u64,
    kernel: u64,
    dispatch: u64,
    private_segment: u32,
    group_segment: u32,
    workgroup: [u32; 3],
    grid: [u32; 3],
    reserved: [u8; 56],
}

#[repr(C)]
struct NewDispatch {
    old: Dispatch,
    pipe: i32,
}

#[repr(C)]
struct Allocation {
    size: u64,
    kind: u32,
    operation: u32,
    correlation: NewId,
    thread: u64,
    start: u64,
    end: u64,
    agent: u64,
    address: u64,
    bytes: u64,
}

/// A record of the double's own, of a kind that nobody knows.
#[repr(C)]
struct Unknown {
    size: u64,
    kind: u32,
    operation: u32,
    rest: [u64; 3],
}

/// A kind whose number is beyond all that there are.
pub const UNKNOWN: u32 = 99;

/// `rocprofiler_callback_tracing_record_t`.
#[repr(C)]
pub struct Callback<Id> {
    pub context: u64,
    pub thread: u64,
    pub correlation: Id,
    pub kind: u32,
    pub operation: i32,
    pub phase: u32,
    pub payload: *const u8,
}

impl OldId {
    pub const fn of(internal: u64) -> OldId {
        OldId {
            internal,
            external: 0,
        }
    }
}

impl NewId {
    pub const fn of(internal: u64) -> NewId {
        NewId {
            internal,
            external: 0,
            ancestor: 0x00AC_E570,
        }
    }
}

/// `rocprofiler_callback_tracing_code_object_load_data_t`, as far as tests look.
#[repr(C)]
pub struct Load {
    pub size: u64,
    pub code_object: u64,
    pub rest: [u64; 8],
}

/// `rocprofiler_callback_tracing_code_object_kernel_symbol_register_data_t`.
#[repr(C)]
pub struct Symbol {
    pub size: u64,
    pub kernel: u64,
    pub code_object: u64,
    pub name: *const c_char,
    pub kernel_object: u64,
    pub kernarg_size: u32,
    pub kernarg_alignment: u32,
    pub group_segment: u32,
    pub private_segment: u32,
    pub scalar_registers: u32,
    pub vector_registers: u32,
    pub accumulation_registers: u32,
}

/// The structure's bytes as words, since what follows reads them as such.
fn words<T>(record: T) -> Box<[u64]> {
    let mut words = vec![0u64; size_of::<T>().div_ceil(8)].into_boxed_slice();
    // SAFETY: the words are as long as the structure, of plain integers, and aligned for it.
    unsafe { words.as_mut_ptr().cast::<T>().write(record) };
    words
}

/// An event's record, in the version's layout; `kind` is its number there.
pub fn record(event: &Event, kind: u32) -> Box<[u64]> {
    let new = settings::get().new_layout();
    let offset = settings::get().offset_ns;
    let (start, end) = match event.zeroed {
        true => (0, 0),
        false => (event.start_ns + offset, event.end_ns + offset),
    };
    let correlation = OldId::of(event.correlation);
    match event.what {
        What::Call(_) if new => words(Api {
            size: size_of::<Api<NewId>>() as u64,
            kind,
            operation: event.operation,
            correlation: NewId::of(event.correlation),
            start,
            end,
            thread: event.tid,
        }),
        What::Call(_) => words(Api {
            size: size_of::<Api<OldId>>() as u64,
            kind,
            operation: event.operation,
            correlation,
            start,
            end,
            thread: event.tid,
        }),
        What::Copy => {
            let old = Copy {
                size: if new { 96 } else { 80 },
                kind,
                operation: event.operation as u32,
                correlation,
                thread: event.tid,
                start,
                end,
                target_agent: event.agents[1],
                source_agent: event.agents[0],
                bytes: event.bytes,
            };
            match new {
                false => words(old),
                true => words(NewCopy {
                    old,
                    target_address: 0x1000,
                    source_address: 0x2000,
                }),
            }
        }
        What::Kernel => {
            let items = [0, 1, 2].map(|at| event.grid[at] * event.block[at] - event.short[at]);
            let old = Dispatch {
                size: if new { 192 } else { 184 },
                kind,
                operation: 2, // ROCPROFILER_KERNEL_DISPATCH_COMPLETE
                correlation,
                thread: event.tid,
                start,
                end,
                info_size: 72,
                agent: event.agents[1],
                queue: event.queue,
                kernel: event.kernel,
                dispatch: event.correlation,
                private_segment: event.private,
                group_segment: event.group,
                workgroup: event.block,
                grid: items,
                reserved: [0xAA; 56],
            };
            match new {
                false => words(old),
                true => words(NewDispatch { old, pipe: -1 }),
            }
        }
        What::Allocation => words(Allocation {
            size: size_of::<Allocation>() as u64,
            kind,
            operation: event.operation as u32,
            correlation: NewId::of(event.correlation),
            thread: event.tid,
            start,
            end,
            agent: event.agents[1],
            address: 0x7000_0000,
            bytes: event.bytes,
        }),
    }
}

/// A record that nobody knows.
pub fn unknown() -> Box<[u64]> {
    words(Unknown {
        size: size_of::<Unknown>() as u64,
        kind: UNKNOWN,
        operation: 7,
        rest: [u64::MAX; 3],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of the headers, compiled (the first two and the dispatch record: docs of the project's own notes).
    #[test]
    fn structures_are_as_long_as_the_headers_have_them() {
        assert_eq!(size_of::<Api<OldId>>(), 56);
        assert_eq!(size_of::<Api<NewId>>(), 64);
        assert_eq!((size_of::<Copy>(), size_of::<NewCopy>()), (80, 96));
        assert_eq!(
            (size_of::<Dispatch>(), size_of::<NewDispatch>()),
            (184, 192)
        );
        assert_eq!(size_of::<Allocation>(), 88);
        assert_eq!(size_of::<Callback<OldId>>(), 56);
        assert_eq!(size_of::<Callback<NewId>>(), 64);
        assert_eq!(size_of::<Symbol>(), 72);
    }
}

//! Where rocprofiler-sdk's records have what is read of them, in bytes.
//!
//! From buffer_tracing.h, fwd.h, callback_tracing.h and agent.h of `source/include/rocprofiler-sdk` in
//! ROCm/rocprofiler-sdk, 0.4.0 (tag rocm-6.2.0) and 0.5.0 (8ab1ed7), and of `projects/rocprofiler-sdk` in
//! ROCm/rocm-systems, 1.3 (00db669, 0409832). Every record begins with its own size. Newer ones end later; the one
//! thing that moved is `rocprofiler_correlation_id_t`, which has an `ancestor` since 1.0 and so 24 bytes, not 16.
//! Device work has `rocprofiler_async_correlation_id_t`, which is 16 bytes in all. Kinds are found by name: their
//! numbers moved when one was taken out from among them.

pub use crate::cuda::layout::Fields;

/// `ROCPROFILER_BUFFER_CATEGORY_TRACING`.
pub const TRACING: u32 = 1;
/// Longest record that is believed: the longest known is below 300 bytes.
pub const LONGEST: u64 = 4096;
/// Shortest: its size, kind and operation.
pub const SHORTEST: u64 = 16;

/// Of every record.
pub const SIZE: usize = 0; // u64
pub const OPERATION: usize = 12; // i32
/// `correlation_id.internal`: of every record that has one here.
pub const CORRELATION: usize = 16; // u64

/// `rocprofiler_buffer_tracing_hip_api_record_t` and `..._rccl_api_record_t`.
pub mod api {
    /// With an ancestor the record has at least this many bytes; without one, [`OLD_SIZE`].
    pub const NEW_SIZE: u64 = 64;
    pub const OLD_SIZE: u64 = 56;
    /// Start, end and thread, three u64, with an ancestor and without.
    pub const NEW: usize = 40;
    pub const OLD: usize = 32;
}

/// `rocprofiler_buffer_tracing_memory_copy_record_t`.
pub mod copy {
    pub const LEAST: u64 = 80;
    pub const START: usize = 40;
    pub const END: usize = 48;
    pub const TARGET: usize = 56; // agent
    pub const SOURCE: usize = 64; // agent
    pub const BYTES: usize = 72;
}

/// `rocprofiler_buffer_tracing_kernel_dispatch_record_t`, with its `rocprofiler_kernel_dispatch_info_t` at 56.
pub mod kernel {
    pub const LEAST: u64 = 128;
    pub const START: usize = 40;
    pub const END: usize = 48;
    pub const AGENT: usize = 64;
    pub const QUEUE: usize = 72;
    pub const KERNEL: usize = 80;
    pub const PRIVATE: usize = 96; // u32, bytes a work item
    pub const GROUP: usize = 100; // u32, bytes a work group
    pub const WORKGROUP: usize = 104; // 3 × u32, work items
    pub const GRID: usize = 116; // 3 × u32, work items
}

/// `rocprofiler_buffer_tracing_memory_allocation_record_t` of 1.0 and later: with an ancestor.
pub mod memory {
    pub const LEAST: u64 = 88;
    pub const THREAD: usize = 40;
    pub const START: usize = 48;
    pub const AGENT: usize = 64;
    pub const ADDRESS: usize = 72;
    pub const BYTES: usize = 80;
    /// `rocprofiler_memory_allocation_operation_t`: taken 1 and 2, given back 3 and 4.
    pub const FREED: [u32; 2] = [3, 4];
}

/// `rocprofiler_callback_tracing_record_t`, in words: kind and operation are halves of one word, phase is the low half
/// of the next, then the payload.
pub mod callback {
    /// `ROCPROFILER_CALLBACK_TRACING_CODE_OBJECT`.
    pub const CODE_OBJECT: u32 = 10;
    /// `ROCPROFILER_CODE_OBJECT_DEVICE_KERNEL_SYMBOL_REGISTER`.
    pub const KERNEL_SYMBOL: u32 = 2;
    /// `ROCPROFILER_CALLBACK_PHASE_LOAD`.
    pub const LOAD: u32 = 1;
    pub const OLD_KIND: usize = 4;
    pub const NEW_KIND: usize = 5;
}

/// `rocprofiler_callback_tracing_code_object_kernel_symbol_register_data_t`.
pub mod symbol {
    pub const LEAST: u64 = 64;
    pub const KERNEL: usize = 8;
    pub const NAME: usize = 24; // a C string
    pub const REGISTERS: usize = 60; // u32, arch_vgpr_count
}

/// `rocprofiler_agent_v0_t`, in which `HSA_ENGINE_VERSION`, `HSA_ENGINE_ID` and `HSA_CAPABILITY` (hsakmttypes.h) are
/// u32.
pub mod agent {
    pub const SIZE: usize = 296; // of 0.4 and 0.5; 1.0 has more behind it
    pub const ID: usize = 8;
    pub const TYPE: usize = 16; // u32; 2: a GPU
    pub const BANKS: usize = 28; // u32
    pub const WAVEFRONT: usize = 64;
    pub const COMPUTE_UNITS: usize = 72;
    pub const LOCAL_BYTES: usize = 176; // u64
    pub const MEMORY: usize = 224; // its banks
    pub const NAME: usize = 248;
    pub const PRODUCT: usize = 264;
    pub const MODEL: usize = 272;
    pub const NUMBER: usize = 288; // i32, among the agents of its type
    pub const UUID: usize = 296; // 16 bytes, since 0.6
}

/// `rocprofiler_agent_mem_bank_t`.
pub mod bank {
    pub const SIZE: usize = 24;
    pub const TYPE: usize = 0; // HSA_HEAPTYPE: 1 and 2 are frame buffers
    pub const BYTES: usize = 16; // u64
}

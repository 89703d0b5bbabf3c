//! Where each field of a CUPTI activity record lies, and how long a record is in each version.
//!
//! No field ever moved: a newer record is the older one and a tail. `tests/layout.rs` holds every number here
//! against cudarc's structs, which are generated from the vendor's headers.

/// `CUpti_ActivityKind`, as plain numbers: a newer library may name kinds that no enum of ours has.
pub mod kind {
    pub const MEMCPY: u32 = 1;
    pub const MEMSET: u32 = 2;
    /// Kernels, one at a time.
    pub const KERNEL: u32 = 3;
    pub const DRIVER: u32 = 4;
    pub const RUNTIME: u32 = 5;
    pub const DEVICE: u32 = 8;
    pub const CONTEXT: u32 = 9;
    pub const CONCURRENT_KERNEL: u32 = 10;
    pub const OVERHEAD: u32 = 17;
    /// Copies between devices.
    pub const MEMCPY2: u32 = 22;
    pub const STREAM: u32 = 37;
    pub const SYNCHRONIZATION: u32 = 38;
    pub const EXTERNAL_CORRELATION: u32 = 39;
    pub const MEMORY2: u32 = 49;
    pub const GRAPH_TRACE: u32 = 51;
    /// The last kind that CUPTI 13.5 has, roughly; above it `cuptiActivityEnable` knows nothing.
    pub const LAST: u32 = 60;
    /// What the double inserts for `ISC_DOUBLE_UNKNOWN_EVERY`; no CUPTI has it.
    pub const UNHEARD_OF: u32 = 7777;
}

/// Length of an [`kind::UNHEARD_OF`] record, in bytes.
pub const UNHEARD_OF_BYTES: usize = 72;
/// `CUpti_Activity.kind`, first in every record, u32.
pub const KIND: usize = 0;

/// `CUpti_ActivityKernel4` to `13`.
pub mod kernel {
    pub const REGISTERS: usize = 6; // u16
    pub const START: usize = 16;
    pub const END: usize = 24;
    pub const COMPLETED: usize = 32;
    pub const DEVICE: usize = 40;
    pub const CONTEXT: usize = 44;
    pub const STREAM: usize = 48;
    pub const GRID: usize = 52; // three i32
    pub const BLOCK: usize = 64; // three i32
    pub const STATIC_SHARED: usize = 76;
    pub const DYNAMIC_SHARED: usize = 80;
    pub const LOCAL_PER_THREAD: usize = 84;
    pub const LOCAL_TOTAL: usize = 88;
    pub const CORRELATION: usize = 92;
    pub const GRID_ID: usize = 96; // i64
    pub const NAME: usize = 104; // pointer
    pub const QUEUED: usize = 120;
    pub const SUBMITTED: usize = 128;
    pub const LAUNCH_TYPE: usize = 136; // u8
    pub const SHARED_EXECUTED: usize = 140;
    /// From Kernel5 (11.0).
    pub const GRAPH_NODE: usize = 144; // u64
    pub const GRAPH: usize = 156;
    /// From Kernel7 (11.6).
    pub const CHANNEL: usize = 168;
    pub const CHANNEL_TYPE: usize = 172;
    /// From Kernel8 (11.8): three u32.
    pub const CLUSTER: usize = 176;
    /// From Kernel9 (12.0).
    pub const MAX_ACTIVE_CLUSTERS: usize = 204;
    /// From Kernel10 (13.0), u8.
    pub const DEVICE_LAUNCHED: usize = 208;
    /// From Kernel11 (13.1), i32.
    pub const PRIORITY: usize = 216;
    /// From Kernel12 (13.3).
    pub const EXECUTION_MODEL: usize = 224;
    /// From Kernel13 (13.4).
    pub const SOURCE_GRAPH: usize = 232;
    pub const SOURCE_GRAPH_NODE: usize = 240; // u64
}

/// `CUpti_ActivityMemcpy4` to `7`.
pub mod memcpy {
    pub const COPY_KIND: usize = 4; // u8
    pub const FROM_KIND: usize = 5; // u8
    pub const TO_KIND: usize = 6; // u8
    pub const FLAGS: usize = 7; // u8
    pub const BYTES: usize = 8;
    pub const START: usize = 16;
    pub const END: usize = 24;
    pub const DEVICE: usize = 32;
    pub const CONTEXT: usize = 36;
    pub const STREAM: usize = 40;
    pub const CORRELATION: usize = 44;
    pub const RUNTIME_CORRELATION: usize = 48;
    pub const GRAPH_NODE: usize = 64; // u64
    pub const GRAPH: usize = 72;
    /// From Memcpy5 (11.6).
    pub const CHANNEL: usize = 76;
    /// From Memcpy6 (12.8), u64.
    pub const COPY_COUNT: usize = 88;
    /// From Memcpy7 (13.4).
    pub const SOURCE_GRAPH: usize = 96;
    pub const SOURCE_GRAPH_NODE: usize = 104; // u64
}

/// `CUpti_ActivityMemset3` to `5`.
pub mod memset {
    pub const VALUE: usize = 4;
    pub const BYTES: usize = 8;
    pub const START: usize = 16;
    pub const END: usize = 24;
    pub const DEVICE: usize = 32;
    pub const CONTEXT: usize = 36;
    pub const STREAM: usize = 40;
    pub const CORRELATION: usize = 44;
    pub const FLAGS: usize = 48; // u16
    pub const MEMORY_KIND: usize = 50; // u16
    pub const GRAPH_NODE: usize = 64; // u64
    pub const GRAPH: usize = 72;
    /// From Memset4 (11.6).
    pub const CHANNEL: usize = 76;
    /// From Memset5 (13.4).
    pub const SOURCE_GRAPH: usize = 88;
    pub const SOURCE_GRAPH_NODE: usize = 96; // u64
}

/// `CUpti_ActivityMemcpyPtoP4`.
pub mod peer {
    pub const COPY_KIND: usize = 4; // u8
    pub const FROM_KIND: usize = 5; // u8
    pub const TO_KIND: usize = 6; // u8
    pub const FLAGS: usize = 7; // u8
    pub const BYTES: usize = 8;
    pub const START: usize = 16;
    pub const END: usize = 24;
    pub const DEVICE: usize = 32;
    pub const CONTEXT: usize = 36;
    pub const STREAM: usize = 40;
    pub const FROM_DEVICE: usize = 44;
    pub const FROM_CONTEXT: usize = 48;
    pub const TO_DEVICE: usize = 52;
    pub const TO_CONTEXT: usize = 56;
    pub const CORRELATION: usize = 60;
    pub const GRAPH_NODE: usize = 72; // u64
    pub const GRAPH: usize = 80;
    pub const CHANNEL: usize = 84;
}

/// `CUpti_ActivityAPI`: driver and runtime calls.
pub mod api {
    pub const CBID: usize = 4;
    pub const START: usize = 8;
    pub const END: usize = 16;
    pub const PROCESS: usize = 24;
    pub const THREAD: usize = 28;
    pub const CORRELATION: usize = 32;
    pub const RETURN: usize = 36;
}

/// `CUpti_ActivityExternalCorrelation`.
pub mod external {
    pub const EXTERNAL_KIND: usize = 4;
    pub const EXTERNAL_ID: usize = 8; // u64
    pub const CORRELATION: usize = 16;
}

/// `CUpti_ActivitySynchronization`, `2`.
pub mod synchronization {
    pub const TYPE: usize = 4;
    pub const START: usize = 8;
    pub const END: usize = 16;
    pub const CORRELATION: usize = 24;
    pub const CONTEXT: usize = 28;
    pub const STREAM: usize = 32;
    pub const EVENT: usize = 36;
    /// From 2 (12.8), u64.
    pub const EVENT_SYNC: usize = 40;
    pub const RETURN: usize = 48;
}

/// `CUpti_ActivityOverhead` to `3`.
pub mod overhead {
    pub const OVERHEAD_KIND: usize = 4;
    pub const OBJECT_KIND: usize = 8;
    /// For a thread: process id, then thread id, u32 each.
    pub const OBJECT: usize = 12;
    pub const START: usize = 24;
    pub const END: usize = 32;
    /// From 2 (12.3).
    pub const CORRELATION: usize = 40;
}

/// `CUpti_ActivityGraphTrace`, `2`.
pub mod graph_trace {
    pub const CORRELATION: usize = 4;
    pub const START: usize = 8;
    pub const END: usize = 16;
    pub const DEVICE: usize = 24;
    pub const GRAPH: usize = 28;
    pub const CONTEXT: usize = 32;
    pub const STREAM: usize = 36;
    /// From 2 (12.3).
    pub const END_DEVICE: usize = 48;
    pub const END_CONTEXT: usize = 52;
}

/// `CUpti_ActivityMemory3`, `4`, of kind [`kind::MEMORY2`].
pub mod memory {
    pub const OPERATION: usize = 4;
    pub const MEMORY_KIND: usize = 8;
    pub const CORRELATION: usize = 12;
    pub const ADDRESS: usize = 16; // u64
    pub const BYTES: usize = 24;
    pub const TIMESTAMP: usize = 32;
    pub const PC: usize = 40; // u64
    pub const PROCESS: usize = 48;
    pub const DEVICE: usize = 52;
    pub const CONTEXT: usize = 56;
    pub const STREAM: usize = 60;
    pub const NAME: usize = 64; // pointer
    pub const ASYNC: usize = 72;
}

/// `CUpti_ActivityContext` to `4`.
pub mod context {
    pub const CONTEXT: usize = 4;
    pub const DEVICE: usize = 8;
    pub const API_KIND: usize = 12; // u16, 1 is CUDA
    pub const NULL_STREAM: usize = 14; // u16
    /// From 2 (12.4).
    pub const PARENT: usize = 16;
    pub const MULTIPROCESSORS: usize = 22; // u16
    /// From 4 (13.1), u64.
    pub const PROCESS: usize = 32;
}

/// `CUpti_ActivityStream`.
pub mod stream {
    pub const CONTEXT: usize = 4;
    pub const STREAM: usize = 8;
    pub const PRIORITY: usize = 12;
    pub const FLAG: usize = 16;
    pub const CORRELATION: usize = 20;
}

/// `CUpti_ActivityDevice4` to `6`.
pub mod device {
    pub const BANDWIDTH: usize = 8; // u64, kB/s
    pub const MEMORY: usize = 16; // u64, bytes
    pub const L2: usize = 28;
    pub const WARP: usize = 32;
    pub const CLOCK: usize = 36; // kHz
    pub const MULTIPROCESSORS: usize = 44;
    pub const WARPS: usize = 52; // per multiprocessor, as the next three
    pub const BLOCKS: usize = 56;
    pub const SHARED_BYTES: usize = 60;
    pub const REGISTERS: usize = 64;
    pub const MAJOR: usize = 104;
    pub const MINOR: usize = 108;
    pub const ID: usize = 112;
    pub const UUID: usize = 120; // 16 bytes
    pub const NAME: usize = 136; // pointer
    pub const VISIBLE: usize = 144; // u8
}

/// Length in bytes of a record of `kind` in CUDA `version` (`ISC_DOUBLE_VERSION`), if the double makes that kind.
pub fn bytes(version: u32, kind: u32) -> Option<usize> {
    let steps: &[(u32, usize)] = match kind {
        kind::KERNEL | kind::CONCURRENT_KERNEL => &[
            (0, 200),
            (120000, 208),
            (130000, 216),
            (130100, 224),
            (130300, 232),
            (130400, 248),
        ],
        kind::MEMCPY => &[(0, 88), (120800, 96), (130400, 112)],
        kind::MEMSET => &[(0, 88), (130400, 104)],
        kind::MEMCPY2 => &[(0, 96)],
        kind::DRIVER | kind::RUNTIME => &[(0, 40)],
        kind::EXTERNAL_CORRELATION => &[(0, 24)],
        kind::SYNCHRONIZATION => &[(0, 40), (120800, 56)],
        kind::OVERHEAD => &[(0, 40), (120300, 48), (120400, 56)],
        kind::GRAPH_TRACE => &[(0, 48), (120300, 56)],
        kind::MEMORY2 => &[(0, 120), (120600, 128)],
        kind::CONTEXT => &[(0, 16), (120400, 24), (120500, 32), (130100, 40)],
        kind::STREAM => &[(0, 24)],
        kind::DEVICE => &[(0, 176), (120200, 184), (130200, 192)],
        kind::UNHEARD_OF => &[(0, UNHEARD_OF_BYTES)],
        _ => return None,
    };
    steps
        .iter()
        .rev()
        .find(|(from, _)| *from <= version)
        .map(|&(_, bytes)| bytes)
}

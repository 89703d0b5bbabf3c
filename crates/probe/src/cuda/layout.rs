//! Where CUPTI's activity records have what is read of them, in bytes.
//!
//! From CUPTI 11.8 to 13.5 no field of a record ever moved, and each version's record begins with the one before it
//! (the headers `cupti_activity.h` of those versions, compiled). So a field is there if it lies within the record, and
//! how long that is follows from where the next one begins. The test doubles' crate compares these numbers with the
//! structures that cudarc has.

/// Kinds of records: `CUpti_ActivityKind`.
pub mod kind {
    pub const MEMCPY: u32 = 1;
    pub const MEMSET: u32 = 2;
    pub const KERNEL: u32 = 3;
    pub const DRIVER: u32 = 4;
    pub const RUNTIME: u32 = 5;
    pub const DEVICE: u32 = 8;
    pub const CONTEXT: u32 = 9;
    pub const CONCURRENT_KERNEL: u32 = 10;
    pub const OVERHEAD: u32 = 17;
    pub const MEMCPY_PEER: u32 = 22;
    pub const STREAM: u32 = 37;
    pub const SYNCHRONIZATION: u32 = 38;
    pub const MEMORY: u32 = 49;
    pub const GRAPH_TRACE: u32 = 51;

    /// What a person calls it.
    pub fn word(kind: u32) -> Option<&'static str> {
        Some(match kind {
            MEMCPY => "memcpy",
            MEMSET => "memset",
            KERNEL | CONCURRENT_KERNEL => "kernel",
            DRIVER => "driver calls",
            RUNTIME => "runtime calls",
            DEVICE => "device",
            CONTEXT => "context",
            OVERHEAD => "overhead",
            MEMCPY_PEER => "memcpy between devices",
            STREAM => "stream",
            SYNCHRONIZATION => "sync",
            MEMORY => "memory",
            GRAPH_TRACE => "graph",
            _ => return None,
        })
    }
}

pub mod kernel {
    pub const REGISTERS: usize = 6; // u16
    pub const START: usize = 16;
    pub const END: usize = 24;
    pub const DEVICE: usize = 40;
    pub const CONTEXT: usize = 44;
    pub const STREAM: usize = 48;
    pub const GRID: usize = 52; // 3 × u32
    pub const BLOCK: usize = 64; // 3 × u32
    pub const STATIC_SHARED: usize = 76;
    pub const DYNAMIC_SHARED: usize = 80;
    pub const LOCAL: usize = 84; // bytes a thread
    pub const CORRELATION: usize = 92;
    pub const NAME: usize = 104;
    pub const GRAPH_NODE: usize = 144; // u64
    pub const GRAPH: usize = 156;
    pub const CLUSTER: usize = 176; // 3 × u32
}

pub mod memcpy {
    pub const COPY_KIND: usize = 4; // u8
    pub const SOURCE_KIND: usize = 5; // u8
    pub const TARGET_KIND: usize = 6; // u8
    pub const FLAGS: usize = 7; // u8; 1: asynchronous
    pub const BYTES: usize = 8;
    pub const START: usize = 16;
    pub const END: usize = 24;
    pub const DEVICE: usize = 32;
    pub const CONTEXT: usize = 36;
    pub const STREAM: usize = 40;
    pub const CORRELATION: usize = 44;
    pub const GRAPH_NODE: usize = 64;
    pub const GRAPH: usize = 72;
}

/// A copy between devices: as [`memcpy`] up to its `DEVICE`, which is where it ran.
pub mod peer {
    pub const DEVICE: usize = 32;
    pub const CONTEXT: usize = 36;
    pub const STREAM: usize = 40;
    pub const SOURCE_DEVICE: usize = 44;
    pub const TARGET_DEVICE: usize = 52;
    pub const CORRELATION: usize = 60;
    pub const GRAPH_NODE: usize = 72;
    pub const GRAPH: usize = 80;
}

pub mod memset {
    pub const BYTES: usize = 8;
    pub const START: usize = 16;
    pub const END: usize = 24;
    pub const DEVICE: usize = 32;
    pub const CONTEXT: usize = 36;
    pub const STREAM: usize = 40;
    pub const CORRELATION: usize = 44;
    pub const MEMORY_KIND: usize = 50; // u16
    pub const GRAPH_NODE: usize = 64;
    pub const GRAPH: usize = 72;
}

/// Calls of the driver and the runtime.
pub mod api {
    pub const CALLBACK: usize = 4; // which call: its `cbid`
    pub const START: usize = 8;
    pub const END: usize = 16;
    pub const THREAD: usize = 28; // u32
    pub const CORRELATION: usize = 32;
    pub const RESULT: usize = 36;
}

pub mod sync {
    pub const TYPE: usize = 4;
    pub const START: usize = 8;
    pub const END: usize = 16;
    pub const CORRELATION: usize = 24;
    pub const CONTEXT: usize = 28;
    pub const STREAM: usize = 32;
}

pub mod overhead {
    pub const KIND: usize = 4;
    pub const OBJECT: usize = 8;
    pub const THREAD: usize = 16; // where the object is a thread
    pub const DEVICE: usize = 12; // where it is a device, context or stream
    pub const START: usize = 24;
    pub const END: usize = 32;
    pub const CORRELATION: usize = 40;
}

pub mod graph {
    pub const CORRELATION: usize = 4;
    pub const START: usize = 8;
    pub const END: usize = 16;
    pub const DEVICE: usize = 24;
    pub const GRAPH: usize = 28;
    pub const CONTEXT: usize = 32;
    pub const STREAM: usize = 36;
}

pub mod memory {
    pub const OPERATION: usize = 4; // 1 taken, 2 given back
    pub const MEMORY_KIND: usize = 8;
    pub const CORRELATION: usize = 12;
    pub const BYTES: usize = 24;
    pub const TIME: usize = 32;
    pub const DEVICE: usize = 52;
    pub const STREAM: usize = 60;
}

pub mod context {
    pub const CONTEXT: usize = 4;
    pub const DEVICE: usize = 8;
}

pub mod stream {
    pub const CONTEXT: usize = 4;
    pub const STREAM: usize = 8;
    pub const PRIORITY: usize = 12;
}

pub mod device {
    pub const MEMORY_BYTES: usize = 16; // u64
    pub const WARP: usize = 32;
    pub const CLOCK_KHZ: usize = 36;
    pub const SMS: usize = 44;
    pub const WARPS: usize = 52; // per SM, as the next three
    pub const BLOCKS: usize = 56;
    pub const SHARED_BYTES: usize = 60;
    pub const REGISTERS: usize = 64;
    pub const MAJOR: usize = 104;
    pub const MINOR: usize = 108;
    pub const ID: usize = 112;
    pub const UUID: usize = 120; // 16 bytes
    pub const NAME: usize = 136;
}

/// A record, as long as it is.
#[derive(Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl Fields<'_> {
    /// The integer at `at`; 0 beyond the record's end.
    #[inline(always)]
    pub fn u32(self, at: usize) -> u32 {
        self.0
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_le_bytes)
    }

    #[inline(always)]
    pub fn u64(self, at: usize) -> u64 {
        self.0
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    }

    #[inline(always)]
    pub fn u16(self, at: usize) -> u16 {
        self.0
            .get(at..at + 2)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u16::from_le_bytes)
    }

    #[inline(always)]
    pub fn u8(self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    #[inline(always)]
    pub fn three(self, at: usize) -> [u32; 3] {
        [self.u32(at), self.u32(at + 4), self.u32(at + 8)]
    }
}

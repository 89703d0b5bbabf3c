//! The bytes at the head of a segment file: the code side of `formats/spool-v1.md`.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

/// First eight bytes of every file of a spool.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ISCSPOOL");
/// Version of the layout this build writes, and the only one it reads.
pub const VERSION: u64 = 1;
/// Bytes before the first record.
pub const HEADER: usize = 256;
/// Bytes of a ring segment's file.
pub const RING_SEGMENT: usize = 128 << 10;
/// Bytes of a spill segment's file.
pub const SPILL_SEGMENT: usize = 1 << 20;
/// Longest file that is believed to be a segment, in bytes.
pub const MOST_SEGMENT: u64 = 1 << 30;

/// Nobody's: waits to be taken.
pub const FREE: u64 = 0;
/// A thread writes to it.
pub const ACTIVE: u64 = 1;
/// Its thread went on to the next one: `written` and `lost` are final.
pub const FULL: u64 = 2;
/// Its thread ended, or the file is about to be removed; `written` and `lost` are final.
pub const CLOSED: u64 = 3;

/// The head of a segment. Every group has a cache line to itself.
#[repr(C)]
pub struct Header {
    pub fixed: Fixed,
    pub owner: Owner,
    pub producer: ProducerLine,
    pub consumer: ConsumerLine,
}

/// Written before the file has its name, never after.
#[repr(C, align(64))]
pub struct Fixed {
    pub magic: AtomicU64,
    pub version: AtomicU64,
    /// Bytes for records, a multiple of 16; 0 in the process's own file.
    pub capacity: AtomicU64,
    pub pid: AtomicU64,
    /// Start time of the process, in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_ticks: AtomicU64,
}

/// Whose segment it is.
#[repr(C, align(64))]
pub struct Owner {
    /// `take << 2 | state`: `take` is unique in the process, so each use of a file has its own.
    pub state: AtomicU64,
    /// Chain of the thread, from 1.
    pub chain: AtomicU64,
    /// The thread, as the kernel names it; 0 for the process's names.
    pub tid: AtomicU64,
    /// Place in the chain, from 0.
    pub index: AtomicU64,
}

/// Stored by the producer only.
#[repr(C, align(64))]
pub struct ProducerLine {
    /// Bytes of whole records. In the process's own file: segment files made so far.
    pub written: AtomicU64,
    /// Records dropped after the last one here.
    pub lost: AtomicU64,
}

/// Stored by the consumer only, but for the reset of a drained segment.
#[repr(C, align(64))]
pub struct ConsumerLine {
    /// Bytes whose rows are safe.
    pub read: AtomicU64,
    /// Losses whose rows are safe.
    pub lost_read: AtomicU64,
    /// The `take` that was read to its end.
    pub released: AtomicU64,
}

#[cfg(not(loom))]
const _: () = {
    assert!(std::mem::size_of::<Header>() == HEADER);
    assert!(std::mem::offset_of!(Header, owner) == 64);
    assert!(std::mem::offset_of!(Header, producer) == 128);
    assert!(std::mem::offset_of!(Header, consumer) == 192);
};

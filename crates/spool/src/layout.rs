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
/// Bytes of a ring segment's file: of 8 MiB, 64 threads have one each, and as many are ready.
pub const RING_SEGMENT: usize = 64 << 10;
/// Bytes of the process's own file: a header, and places for threads that have no segment. One page.
pub const CONTROL: usize = 4096;
/// Such places.
pub const PLACES: usize = (CONTROL - HEADER) / size_of::<Place>();
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
    /// Bytes for records, a multiple of 16.
    pub capacity: AtomicU64,
    pub pid: AtomicU64,
    /// Start time of the process, in clock ticks since boot, as in `/proc/PID/stat`.
    pub start_ticks: AtomicU64,
    /// The namespace that `pid` is of: inode of `/proc/self/ns/pid`; 0: not known.
    pub pid_namespace: AtomicU64,
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
    /// Records dropped after the last one here. In the process's own file: of no thread that has a place there.
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

/// Losses of a thread that never had a segment. In the process's own file, after the header.
#[repr(C)]
pub struct Place {
    /// The thread; stored before `lost`.
    pub tid: AtomicU64,
    pub lost: AtomicU64,
    /// Stored by the consumer: losses whose rows are safe.
    pub lost_read: AtomicU64,
    unused: AtomicU64,
}

#[cfg(not(loom))]
const _: () = {
    assert!(std::mem::size_of::<Header>() == HEADER);
    assert!(std::mem::offset_of!(Header, owner) == 64);
    assert!(std::mem::offset_of!(Header, producer) == 128);
    assert!(std::mem::offset_of!(Header, consumer) == 192);
};

//! What happened: one flat type for every kind of record, so that the record and the truth are made of the same.

use crate::clock;
use crate::layout::kind;
use crate::settings;
use std::ffi::CStr;

/// A call, a piece of device work or a fact. Times are CLOCK_MONOTONIC in ns; what a kind has no use for is 0.
#[derive(Clone, Default, Debug)]
pub struct Event {
    /// `CUpti_ActivityKind`.
    pub kind: u32,
    /// A kernel's mangled name, a call's name.
    pub name: Option<&'static CStr>,
    pub correlation: u32,
    pub start_ns: u64,
    pub end_ns: u64,
    /// The same two on the clock of the records, as CUPTI would say them; see [`Event::report`].
    pub cupti_start: u64,
    pub cupti_end: u64,
    pub cbid: u32,
    /// `gettid` of the caller, for device work of who launched it, and what a record of the call says it is.
    pub tid: u32,
    pub thread_id: u32,
    pub return_value: u32,
    pub device: u32,
    pub context: u32,
    pub stream: u32,
    pub priority: i32,
    pub bytes: u64,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub graph: u32,
    pub graph_node: u64,
    /// What a memset writes.
    pub value: u32,
    /// `CUpti_ActivityMemcpyKind`.
    pub copy: u8,
    /// The other device and context of a copy between devices.
    pub to_device: u32,
    pub to_context: u32,
    /// Type of synchronization, overhead or memory operation, kind of external id.
    pub what: u32,
    /// External id, or address.
    pub id: u64,
    /// Whether the record's times, or its name, are withheld.
    pub zeroed: bool,
    pub nameless: bool,
}

/// `CUpti_ActivityMemcpyKind`.
pub mod copy {
    pub const HTOD: u8 = 1;
    pub const DTOH: u8 = 2;
    pub const DTOD: u8 = 8;
    pub const PTOP: u8 = 10;
}

impl Event {
    pub fn is_kernel(&self) -> bool {
        matches!(self.kind, kind::KERNEL | kind::CONCURRENT_KERNEL)
    }

    /// Whether the device did it, so that its times are the device's.
    pub fn is_device_work(&self) -> bool {
        matches!(
            self.kind,
            kind::KERNEL
                | kind::CONCURRENT_KERNEL
                | kind::MEMCPY
                | kind::MEMCPY2
                | kind::MEMSET
                | kind::GRAPH_TRACE
        )
    }

    /// Puts the device's times on the clock of the records, with the error that the settings leave in.
    pub fn report(&mut self) {
        if self.zeroed {
            (self.cupti_start, self.cupti_end) = (0, 0);
            return;
        }
        let settings = settings::get();
        let since_ns = self.start_ns.saturating_sub(crate::began_ns());
        let error = |at_ns: u64| {
            let skew = since_ns as f64 * settings.skew_ppm / 1e6;
            at_ns.saturating_add_signed(settings.offset_ns + skew as i64)
        };
        self.cupti_start = clock::to_cupti(error(self.start_ns));
        self.cupti_end = clock::to_cupti(error(self.end_ns));
    }
}

/// The caller's `gettid`.
pub fn tid() -> u32 {
    // SAFETY: no argument, cannot fail.
    unsafe { libc::gettid() as u32 }
}

/// This process.
pub fn pid() -> u32 {
    // SAFETY: no argument, cannot fail.
    unsafe { libc::getpid() as u32 }
}

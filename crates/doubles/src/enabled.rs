//! What the collector has enabled: kinds of records, and single calls.

use crate::layout::kind;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Callback ids a domain has room for.
const CBIDS: usize = 1024;
/// One flag a callback id.
pub struct Flags([AtomicU64; CBIDS / 64]);

impl Default for Flags {
    fn default() -> Self {
        Self::new()
    }
}

impl Flags {
    /// All off.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; CBIDS / 64])
    }

    pub fn all(&self, on: bool) {
        for word in &self.0 {
            word.store(if on { u64::MAX } else { 0 }, SeqCst);
        }
    }

    /// Sets one flag; false if there is no such id.
    pub fn set(&self, id: u32, on: bool) -> bool {
        let Some(word) = self.0.get(id as usize / 64) else {
            return false;
        };
        match on {
            true => word.fetch_or(1 << (id % 64), SeqCst),
            false => word.fetch_and(!(1 << (id % 64)), SeqCst),
        };
        true
    }

    pub fn get(&self, id: u32) -> bool {
        self.0
            .get(id as usize / 64)
            .is_some_and(|word| word.load(SeqCst) >> (id % 64) & 1 != 0)
    }
}

/// Kinds that are enabled.
static KINDS: Flags = Flags::new();
/// Driver and runtime calls that are.
pub static DRIVER_CALLS: Flags = Flags::new();
pub static RUNTIME_CALLS: Flags = Flags::new();

/// Turns a kind on or off; for calls that is all of them.
pub fn enable(kind: u32, on: bool) {
    KINDS.set(kind, on);
    match kind {
        kind::DRIVER => DRIVER_CALLS.all(on),
        kind::RUNTIME => RUNTIME_CALLS.all(on),
        _ => {}
    }
}

/// Whether a kind is enabled.
pub fn is_enabled(kind: u32) -> bool {
    KINDS.get(kind)
}

/// Whether any is.
pub fn any_enabled() -> bool {
    (0..=kind::LAST).any(is_enabled)
}

//! Which functions are called too often to be recorded between slices, before CPython 3.12.
//!
//! Between slices most frames pass the hook. Those of functions that are seldom called are recorded all the same: they cost
//! little, and every long call is among them. A function is hot from its first [`CALLS`] calls in less than the bar's
//! time on, and stays so until the slices of one row no longer show that it is.
//!
//! All state here is read and written with the GIL held.

use crate::code::Code;
use crate::hot;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// So many calls at a stretch are looked at.
const CALLS: u32 = 16;
/// The bar, in µs for [`CALLS`] calls, at first and at most: 2 000 calls a second, each worth 0.01 to 0.02 % of a
/// processor, and two a second.
const BAR_US: (u64, u64) = (8_000, 8_192_000);
/// How much higher it is after each time that what is recorded was too much.
const RAISE: u64 = 2;

static BAR: AtomicU64 = AtomicU64::new(0);
/// Numbers the rows that slices write, to tell who is hot in this one.
static ROW: AtomicU32 = AtomicU32::new(1);

/// What is known of one function's calls.
#[derive(Debug, Default)]
pub struct Heat {
    /// Calls since then.
    calls: u32,
    since: u64,
    /// The row it is hot in.
    row: u32,
    /// [`governor::work`](crate::governor::work) from which on its frames pass.
    passes: u64,
}

impl Heat {
    /// Whether frames pass now.
    #[inline(always)]
    pub fn is_hot(&self) -> bool {
        self.row == ROW.load(Relaxed)
    }

    /// From when on frames passed in that row, if they did.
    pub fn passed_from(&self, row: u32) -> Option<u64> {
        (self.row == row).then_some(self.passes)
    }

    /// Frames pass from `work` on, in the row that is numbered now.
    pub fn pass_from(&mut self, work: u64) {
        (self.row, self.passes) = (ROW.load(Relaxed), work);
    }
}

/// A frame of `known`, which is not hot, was recorded outside of a slice. `work` is called once it is.
///
/// # Safety
/// The GIL is held and `known` is valid.
#[inline(always)]
pub unsafe fn count(known: *mut Code, time: u64, work: impl FnOnce() -> u64) {
    // SAFETY: as the caller promises; `work` reads clocks only.
    let heat = unsafe { &mut (*known).heat };
    heat.calls += 1;
    if heat.calls >= CALLS {
        heat.calls = 0;
        let took = time.saturating_sub(std::mem::replace(&mut heat.since, time));
        if took < BAR.load(Relaxed) {
            heat.pass_from(work());
        }
    }
}

/// Begins a new row: who is hot in it is to be said anew. Returns the number of the one before.
pub fn next_row() -> u32 {
    ROW.fetch_add(1, Relaxed)
}

/// The bar, in ticks for [`CALLS`] calls.
pub fn bar() -> u64 {
    BAR.load(Relaxed)
}

/// The bar is as at first.
pub fn lower() {
    BAR.store(BAR_US.0 * hot::micro(), Relaxed);
}

/// Less is to be recorded; false if nothing less is left.
pub fn raise() -> bool {
    let bar = BAR.load(Relaxed) * RAISE;
    BAR.store(bar, Relaxed);
    bar <= BAR_US.1 * hot::micro()
}

/// Whether a function of so many calls per tick is hot.
pub fn is_rate_hot(rate: f64) -> bool {
    rate * BAR.load(Relaxed) as f64 > f64::from(CALLS)
}

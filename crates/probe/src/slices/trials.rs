//! What a recorded call costs beyond what the hook sees, found by trials: see [`super`].

use super::{CALLS, MODE, NUMBER, SLICE, WARM, is_thin};
use crate::clock::toss;
use crate::code::Code;
use crate::frames;
use crate::hot;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Every so many slices one is for trials.
const TRIALS_EVERY: u32 = 4;
/// Calls for trials: those below which, the last time, were 1 to so many. And what a trial may take: more was an interrupt.
const TRIAL_CALLS: u32 = 64;
const TRIAL_US: u64 = 50;

/// Ticks in muted trials of this slice.
static MUTED: AtomicU64 = AtomicU64::new(0);

/// A slice begins.
pub fn begin() {
    MUTED.store(0, Relaxed);
}

/// Ticks in muted trials since then.
pub fn muted() -> u64 {
    MUTED.load(Relaxed)
}

/// Whether the slice of this number is for trials.
pub fn are_in(slice: u32) -> bool {
    slice.is_multiple_of(TRIALS_EVERY)
}

/// Trials of one kind: how many, calls below, ticks and squares of ticks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    trials: f64,
    below: f64,
    ticks: f64,
    squares: f64,
}

/// What trials of all codes have shown: what the calls below took in all, how many they were, and the variance of
/// the first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    ticks: f64,
    calls: f64,
    variance: f64,
}

impl Cost {
    /// Adds one code's trials, as far as there are some of both kinds.
    pub fn add(&mut self, [with, without]: &[Sums; 2]) {
        let weight = with.trials * without.trials / (with.trials + without.trials).max(1.0);
        if with.trials < 2.0 || without.trials < 2.0 {
            return;
        }
        let mean = |sums: &Sums| sums.ticks / sums.trials;
        let variance = |sums: &Sums| {
            let around = (sums.squares / sums.trials - mean(sums).powi(2)).max(0.0);
            around / (sums.trials - 1.0)
        };
        self.ticks += weight * (mean(with) - mean(without));
        self.calls += weight * with.below / with.trials;
        self.variance += weight * weight * (variance(with) + variance(without));
    }

    /// Of one call, and two standard deviations of that, in ticks.
    pub fn of_a_call(&self) -> Option<(f64, f64)> {
        let (cost, error) = (
            self.ticks / self.calls,
            2.0 * self.variance.sqrt() / self.calls,
        );
        (self.calls > 0.0 && error < cost / 4.0).then_some((cost, error))
    }
}

/// A call's trial, if it is one.
#[derive(Clone, Copy)]
pub struct Trial {
    slice: u32,
    calls: u64,
    pub muted: bool,
    counts: bool,
}

/// A trial is under way.
static TRYING: AtomicBool = AtomicBool::new(false);

/// Before a call of `known` is evaluated in a slice, and after it was noted. Where it is muted, the hook is out.
///
/// # Safety
/// As for [`super::note`].
#[inline(always)]
pub unsafe fn trial(known: *mut Code) -> Option<Trial> {
    if MODE.load(Relaxed) != SLICE || !are_in(NUMBER.load(Relaxed)) || !WARM.load(Relaxed) {
        return None;
    }
    // SAFETY: as the caller promises.
    unsafe { begin_trial(known) }
}

#[inline(never)]
unsafe fn begin_trial(known: *mut Code) -> Option<Trial> {
    // SAFETY: as in `trial`; nothing here records.
    let (below, hot) = unsafe { ((*known).shown.below, (*known).heat.is_hot()) };
    // of what is long or seldom nothing below is to be missed
    let fits = (1..=TRIAL_CALLS).contains(&below) && (hot || !is_thin());
    let counts = fits && !TRYING.load(Relaxed);
    if !counts && below != 0 && TRYING.load(Relaxed) {
        return None;
    }
    let muted = counts && toss() >> 63 == 1;
    if counts {
        TRYING.store(true, Relaxed);
    }
    if muted {
        frames::disarm();
    }
    let slice = NUMBER.load(Relaxed);
    let calls = CALLS.load(Relaxed);
    Some(Trial {
        slice,
        calls,
        muted,
        counts,
    })
}

/// After it, `took` ticks later.
///
/// # Safety
/// As for [`super::note`].
#[cold]
pub unsafe fn tried(known: *mut Code, trial: Trial, took: u64) {
    if trial.counts {
        TRYING.store(false, Relaxed);
    }
    if MODE.load(Relaxed) != SLICE || NUMBER.load(Relaxed) != trial.slice {
        return;
    }
    if trial.muted {
        frames::arm();
        MUTED.fetch_add(took, Relaxed);
    }
    let below = CALLS.load(Relaxed).wrapping_sub(trial.calls);
    // SAFETY: as the caller promises; nothing here records.
    let shown = unsafe { &mut (*known).shown };
    if !trial.muted {
        shown.below = u32::try_from(below).unwrap_or(u32::MAX);
    }
    if trial.counts && took < TRIAL_US * hot::micro() {
        let sums = &mut shown.trials[usize::from(trial.muted)];
        let took = took as f64;
        sums.trials += 1.0;
        sums.below += below as f64;
        sums.ticks += took;
        sums.squares += took * took;
    }
}

//! What recording devices takes, whoever makes them: a clock beside ours, a flush every second, what is told of losses.

use crate::clock::system_ns;
use crate::hot::{self, locked};
use crate::inject::guard;
use crate::json::quote;
use inferscope_spool::record::Record;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// What is complete is taken this often.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Brackets of a reading of another clock; the narrowest is kept.
const READINGS: usize = 20;

/// Counts records that there should be, and are not.
pub fn missing(what: &str, records: u64) {
    if records > 0 {
        hot::write_process(&Record::Missing {
            time: hot::now(),
            id: hot::text_id(what),
            records,
        });
    }
}

/// Names and JSON values as an object.
pub fn object(members: impl Iterator<Item = (String, String)>) -> String {
    let members: Vec<_> = members
        .map(|(name, value)| format!("{}:{value}", quote(&name)))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// Reads another clock between two readings of CLOCK_MONOTONIC: what is to be added to its times, and half the width of
/// the bracket, in ns. Nothing is added where it cannot be read.
pub fn beside(read: impl Fn() -> Option<u64>) -> (i64, u64) {
    let (mut offset, mut error, mut narrowest) = (0, 0, u64::MAX);
    for _ in 0..READINGS {
        let before = system_ns(libc::CLOCK_MONOTONIC);
        let time = read();
        let width = system_ns(libc::CLOCK_MONOTONIC).saturating_sub(before);
        if let Some(time) = time
            && width < narrowest
        {
            narrowest = width;
            offset = (before + width / 2).wrapping_sub(time) as i64;
            error = width.div_ceil(2);
        }
    }
    (offset, error)
}

/// Whether recording was on at a time, in ns since the base; `hours` is of [`hot::hours`].
#[inline(always)]
pub fn was_on(hours: &[(u64, bool)], at: u64) -> bool {
    match hours {
        [] => false,
        [(since, true)] if at >= *since => true,
        hours => hours
            .iter()
            .rfind(|(since, _)| *since <= at)
            .is_some_and(|(_, on)| *on),
    }
}

/// A thread that does something every second.
pub struct Ticker {
    /// The process that it runs in; a forked child has no such thread, and perhaps a lock that nobody lets go of.
    pid: AtomicU32,
    stopped: Mutex<bool>,
    bell: Condvar,
}

impl Ticker {
    pub const fn new() -> Ticker {
        Ticker {
            pid: AtomicU32::new(0),
            stopped: Mutex::new(false),
            bell: Condvar::new(),
        }
    }

    pub fn start(&'static self, name: &str, turn: fn()) {
        self.pid.store(std::process::id(), Relaxed);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .stack_size(256 << 10);
        let started = hot::quietly(|| thread.spawn(move || self.keep(turn)));
        if let Err(error) = started {
            hot::note(&format!("device records come at the end only: {error}"));
        }
    }

    fn keep(&self, turn: fn()) {
        let mut stopped = locked(&self.stopped);
        while !*stopped {
            stopped = match self.bell.wait_timeout(stopped, FLUSH_EVERY) {
                Ok((guard, _)) => guard,
                Err(_) => return,
            };
            if !*stopped {
                drop(stopped);
                guard((), turn);
                stopped = locked(&self.stopped);
            }
        }
    }

    /// No more turns begin.
    pub fn stop(&self) {
        if self.pid.load(Relaxed) != std::process::id() {
            return;
        }
        *locked(&self.stopped) = true;
        self.bell.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_say_when_recording_was_on() {
        assert!(!was_on(&[], 5));
        assert!(was_on(&[(0, true)], 5));
        let hours = [(0, false), (10, true), (20, false)];
        for (at, on) in [(5, false), (10, true), (19, true), (20, false)] {
            assert_eq!(was_on(&hours, at), on, "{at}");
        }
        assert!(!was_on(&[(7, true)], 5));
    }

    #[test]
    fn another_clock_is_found_within_the_bracket() {
        const AHEAD: u64 = 1 << 40;
        let (offset, error) = beside(|| Some(system_ns(libc::CLOCK_MONOTONIC) + AHEAD));
        assert!((offset + AHEAD as i64).unsigned_abs() <= error, "{offset}");
        assert_eq!(beside(|| None), (0, 0));
    }
}

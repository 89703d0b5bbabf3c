//! Why a device had nothing to do: each moment between its first and its last work gets one cause.
//!
//! A gap ends with the work that begins behind it, so what that work waited for is the cause: nobody had launched it yet,
//! it was being launched, it had been launched and did not begin.

use std::collections::BTreeMap;

use super::device::Gpu;

/// One piece of device work.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub start_ns: i64,
    pub end_ns: i64,
    pub gpu: Gpu,
    /// Start and end of the call that launched it; `None` if that is not in the trace.
    pub launch: Option<(i64, i64)>,
}

/// Idle time by its cause, in ns; all of it, each moment once. `work` is sorted by start.
///
/// - `host`: the call that launches the next work had not begun: the host did something else.
/// - `launch`: that call was running.
/// - `queued`: the call had returned, and the work did not begin: latency of the launch, or work that it depends on.
/// - `unknown`: the next work's launch is not in the trace.
pub fn causes<'w>(work: impl Iterator<Item = &'w Work>) -> BTreeMap<&'static str, i64> {
    let mut causes = BTreeMap::new();
    let mut reach: Option<i64> = None;
    for work in work {
        if let Some(from) = reach.filter(|&from| from < work.start_ns) {
            let to = work.start_ns;
            let mut add = |cause, ns: i64| {
                if ns > 0 {
                    *causes.entry(cause).or_default() += ns;
                }
            };
            match work.launch {
                None => add("unknown", to - from),
                Some((begun, returned)) => {
                    let begun = begun.clamp(from, to);
                    let returned = returned.clamp(begun, to);
                    add("host", begun - from);
                    add("launch", returned - begun);
                    add("queued", to - returned);
                }
            }
        }
        reach = Some(reach.map_or(work.end_ns, |reach| reach.max(work.end_ns)));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(start_ns: i64, end_ns: i64, launch: Option<(i64, i64)>) -> Work {
        Work {
            start_ns,
            end_ns,
            gpu: Gpu::default(),
            launch,
        }
    }

    #[test]
    fn each_moment_of_a_gap_has_the_cause_that_the_next_work_had() {
        let all = [
            work(0, 10, None),
            work(5, 8, None),             // within
            work(20, 30, Some((14, 17))), // 4 host, 3 launch, 3 queued
            work(30, 40, Some((1, 2))),   // no gap
            work(43, 50, Some((35, 36))), // queued
            work(57, 60, Some((45, 52))), // 2 launch, 5 queued
            work(61, 62, None),           // unknown
            work(70, 71, Some((68, 80))), // begins before its launch returns: 6 host, 2 launch
        ];
        let causes = causes(all.iter());
        let wanted = [("host", 10), ("launch", 7), ("queued", 11), ("unknown", 1)];
        assert_eq!(causes, BTreeMap::from(wanted));
        // 71 long, of which 10 + 10 + 10 + 7 + 3 + 1 + 1 are busy.
        assert_eq!(causes.values().sum::<i64>(), 71 - 42);
    }
}

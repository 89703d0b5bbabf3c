//! Functions that the budget recorded in bursts: what they did in between, estimated.
//!
//! Between two bursts a function is taken to have run at the mean of their rates, in calls per CPU time of the program.
//! How wrong that may be: half the square of the difference is the variance of one burst's rate, however it comes about,
//! and it is at least that of a finite number of calls. Each burst stands for as much time as lies between two, so
//! the variances of all gaps add up to that of their sum.

use std::collections::VecDeque;

use super::dense::Dense;

/// Times at which a function was shed that are remembered, for frames that were open then.
const TIMES: usize = 64;
/// A row is written when it covers this much, so that rows do not grow with the number of bursts.
const ROW_NS: i64 = 1_000_000_000;
/// How far off the probe's own cost may be. It is taken out of the bursts' time, and next to a function that is far
/// shorter than that little is left.
const COST_ERROR: f64 = 0.25;
/// How far off all counts of a run may be together, beside that: the program's CPU time without what recording cost is
/// known no better. Measured with scripts/bench-estimates: means of 8 runs are off by up to 3 %.
const WORK_ERROR: f64 = 0.03;
/// A burst that was cut after less CPU time than this, in ns, counts by its length beside the other one: the budget was
/// overdrawn then, so that the time to the next one is long.
const SHORT_NS: f64 = 100_000.0;
/// Two-sided 95 % of the normal distribution.
const Z95: f64 = 1.96;

/// The functions of one process that were shed.
#[derive(Clone, Debug, Default)]
pub struct Throttled {
    functions: Dense<Box<Function>>,
    /// Of every function that was seen, shed or not.
    took: Dense<Took>,
    /// What a recorded call costs, in ns.
    call_ns: f64,
}

#[derive(Clone, Debug, Default)]
struct Function {
    /// When it was shed, newest last.
    times_ns: VecDeque<i64>,
    /// CPU time of the process at the last of them.
    pool_ns: i64,
    /// Calls and CPU time of the last burst, unless the function fell silent in it: then it woke up when it was shed,
    /// and that burst says nothing of what came after.
    last: Option<(f64, f64)>,
    row: Option<Row>,
}

/// How long calls took, in ns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Took {
    calls: f64,
    sum: f64,
    /// Of the parts: a call that was suspended has several.
    parts: f64,
    squares: f64,
}

/// What a function did while it was not recorded.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub start_ns: i64,
    pub end_ns: i64,
    /// Calls that were not seen.
    pub calls: f64,
    /// Of `calls`, by chance.
    pub variance: f64,
    /// And, on either side, by what is not known of the probe's own cost.
    pub bias: f64,
    /// CPU time of the process between the bursts.
    pub off_ns: i64,
    /// The bursts' CPU time, calls and number.
    pub on_ns: i64,
    pub seen: u64,
    pub bursts: u64,
    /// How long those calls took that were seen, these and others.
    pub took: Took,
}

/// One record of the spool, in ns.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    pub time_ns: i64,
    pub calls: u32,
    pub since_ns: i64,
    pub cpu_ns: i64,
    pub pools_ns: [i64; 2],
}

impl Throttled {
    /// Takes the probe's own word of what a recorded call costs it.
    pub fn set_cost(&mut self, call_ns: f64) {
        self.call_ns = call_ns;
    }

    /// What was shed and when, as [`Throttled::add`] takes it, by id; the estimates of what came before stay here.
    pub fn shed(&self) -> Vec<(u32, Burst)> {
        (self.functions.iter())
            .filter_map(|(id, function)| {
                let time_ns = *function.times_ns.back()?;
                let burst = Burst {
                    time_ns,
                    calls: 0,
                    since_ns: time_ns,
                    cpu_ns: 0,
                    pools_ns: [function.pool_ns; 2],
                };
                Some((id, burst))
            })
            .collect()
    }

    /// What a recorded call costs, in ns; 0 if nothing was said.
    pub fn cost_ns(&self) -> f64 {
        self.call_ns
    }

    /// Takes a burst; the row that is full, if one is.
    pub fn add(&mut self, id: u32, burst: Burst) -> Option<Row> {
        let call_ns = self.call_ns;
        if self.functions.get(id).is_none() {
            self.functions.insert(id, Box::default());
        }
        let function = self.functions.get_mut(id)?;
        let known = !function.times_ns.is_empty();
        let full = known.then(|| function.off(burst, call_ns)).flatten();
        function.times_ns.push_back(burst.time_ns);
        if function.times_ns.len() > TIMES {
            function.times_ns.pop_front();
        }
        function.pool_ns = burst.pools_ns[1];
        let silent = burst.pools_ns[1] - burst.pools_ns[0] > 2 * burst.cpu_ns;
        function.last = burst.rate_of().filter(|_| !silent);
        full
    }

    /// Takes what a call took, or a part of one; it did not begin in the part if it was `resumed`.
    #[inline(always)]
    pub fn took(&mut self, id: u32, dur_ns: i64, resumed: bool) {
        match self.took.get_mut(id) {
            Some(took) => took.add(dur_ns as f64, resumed),
            None => {
                self.took.insert(id, Took::default());
                self.took(id, dur_ns, resumed);
            }
        }
    }

    /// A row that says how long the calls took that were seen.
    pub fn timed(&self, id: u32, row: Row) -> Row {
        let took = self.took.get(id).copied().unwrap_or_default();
        Row { took, ..row }
    }

    /// Whether a frame that began at `start_ns` was open when its function was shed before `at_ns`: when.
    #[inline(always)]
    pub fn cut_ns(&self, id: u32, start_ns: i64, at_ns: i64) -> Option<i64> {
        if self.functions.is_empty() {
            return None;
        }
        self.cut(id, start_ns, at_ns)
    }

    fn cut(&self, id: u32, start_ns: i64, at_ns: i64) -> Option<i64> {
        let times = &self.functions.get(id)?.times_ns;
        if *times.back()? < start_ns {
            return None; // nearly always
        }
        let after = times.partition_point(|&time| time < start_ns);
        times.get(after).copied().filter(|&time| time <= at_ns)
    }

    /// The rows that are left, by id. `last_ns` is the process's last moment; one that was killed could not say what
    /// its functions did since their last bursts.
    pub fn finish(&mut self, base_ns: i64, last_ns: i64) -> Vec<(u32, Row)> {
        let call_ns = self.call_ns;
        let rows = (self.functions.iter())
            .filter_map(|(id, function)| {
                let mut function = function.clone();
                let off_ns = *function.times_ns.back()?;
                if last_ns > off_ns {
                    let busy = function.pool_ns as f64 / (off_ns - base_ns).max(1) as f64;
                    let pool_ns =
                        function.pool_ns + ((last_ns - off_ns) as f64 * busy.min(1.0)) as i64;
                    let rest = Burst {
                        time_ns: last_ns,
                        calls: 0,
                        since_ns: last_ns,
                        cpu_ns: 0,
                        pools_ns: [pool_ns, pool_ns],
                    };
                    let full = function.off(rest, call_ns);
                    debug_assert!(full.is_none() || function.row.is_none());
                    function.row = full.or(function.row);
                }
                Some((id, self.timed(id, function.row?)))
            })
            .collect();
        self.functions = Dense::default();
        rows
    }
}

impl Took {
    fn add(&mut self, ns: f64, resumed: bool) {
        self.calls += f64::from(u8::from(!resumed));
        self.sum += ns;
        self.parts += 1.0;
        self.squares += ns * ns;
    }
}

impl Function {
    /// The function was off since its last record, until `burst` began.
    fn off(&mut self, burst: Burst, call_ns: f64) -> Option<Row> {
        let start_ns = *self.times_ns.back()?;
        let off_ns = (burst.pools_ns[0] - self.pool_ns).max(0);
        let (calls, variance) = estimate(self.last, burst.rate_of(), off_ns as f64);
        let row = self.row.get_or_insert_with(|| Row {
            start_ns,
            ..Row::default()
        });
        row.end_ns = burst.since_ns.max(row.start_ns);
        row.calls += calls;
        row.variance += variance;
        let own = |(calls, cpu): (f64, f64)| calls * call_ns / cpu;
        let bursts = [self.last, burst.rate_of()];
        let own = match both(bursts[0], bursts[1]) {
            Some(both) => own(both),
            None => bursts.into_iter().flatten().map(own).fold(0.0, f64::max),
        };
        row.bias += calls * (own * COST_ERROR).hypot(WORK_ERROR);
        row.off_ns = row.off_ns.saturating_add(off_ns);
        row.on_ns = row.on_ns.saturating_add(burst.cpu_ns);
        row.seen += u64::from(burst.calls);
        row.bursts += u64::from(burst.cpu_ns > 0);
        self.row.take_if(|row| row.end_ns - row.start_ns >= ROW_NS)
    }
}

/// Calls in `off` of CPU time between two bursts, and the estimate's variance.
fn estimate(before: Option<(f64, f64)>, after: Option<(f64, f64)>, off: f64) -> (f64, f64) {
    let rate = |(calls, cpu): (f64, f64)| calls / cpu;
    let (first, second, change) = match (before, after) {
        // Nothing is known but that it is no more than one call a µs, about.
        (None, None) => return (0.0, (off / 1000.0).powi(2)),
        // That it went on like this is no more than a guess.
        (Some(one), None) | (None, Some(one)) => (one, one, rate(one).powi(2)),
        (Some(one), Some(other)) => (one, other, (rate(other) - rate(one)).powi(2) / 2.0),
    };
    // With no call in a burst there may have been one.
    let counting = |(calls, cpu): (f64, f64)| calls.max(1.0) / (cpu * cpu);
    if let Some(both) = both(before, after) {
        let change = change.min(rate(both).powi(2));
        return (rate(both) * off, change.max(counting(both)) * off * off);
    }
    let counted = (counting(first) + counting(second)) / 2.0;
    let mean = (rate(first) + rate(second)) / 2.0;
    (mean * off, change.max(counted) * off * off)
}

/// Calls and CPU time of both bursts, which count as one, if one of them was cut too soon to say something by itself.
fn both(before: Option<(f64, f64)>, after: Option<(f64, f64)>) -> Option<(f64, f64)> {
    let (first, second) = (before?, after?);
    let short = first.1.min(second.1) < SHORT_NS;
    short.then_some((first.0 + second.0, first.1 + second.1))
}

impl Burst {
    /// Calls and CPU time, if there was any.
    fn rate_of(&self) -> Option<(f64, f64)> {
        (self.cpu_ns > 0).then(|| (f64::from(self.calls), self.cpu_ns as f64))
    }
}

impl Row {
    /// Half the width of the 95 % interval around `calls`.
    pub fn error(&self) -> f64 {
        (Z95 * self.variance.sqrt()).hypot(self.bias)
    }

    /// Time in those calls, callees included, and half the width of its 95 % interval: as many calls as are estimated,
    /// each as long as those that were seen in bursts. `None` if none was seen.
    pub fn time_ns(&self) -> Option<(i64, i64)> {
        let took = &self.took;
        if took.calls == 0.0 {
            return None;
        }
        let mean = took.sum / took.calls;
        let part = took.sum / took.parts;
        let deviation = (took.squares / took.parts - part * part).max(0.0).sqrt();
        // that so many calls were not seen, and that those that were need not be like them
        let of_mean = Z95 * deviation * took.parts.sqrt() / took.calls;
        let error = (self.error() * mean).hypot(self.calls * of_mean);
        Some(((self.calls * mean).round() as i64, error.ceil() as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(time: i64, calls: u32, since: i64, pools: [i64; 2]) -> Burst {
        const MS: i64 = 1_000_000;
        Burst {
            time_ns: time * MS,
            calls,
            since_ns: since * MS,
            cpu_ns: (pools[1] - pools[0]) * MS,
            pools_ns: pools.map(|ms| ms * MS),
        }
    }

    #[test]
    fn unseen_calls_are_estimated_from_bursts_and_cpu_time() {
        let mut all = Throttled::default();
        // busy all the time, 5 calls a ms, recorded 2 ms of every 20
        assert!(all.add(1, burst(10, 0, 10, [10, 10])).is_none());
        let mut rows = Vec::new();
        for n in 1..100 {
            let from = 10 + 20 * n;
            rows.extend(all.add(1, burst(from + 2, 10, from, [from, from + 2])));
        }
        assert_eq!(rows.len(), 1, "a row a second");
        rows.extend(all.finish(0, 2_010_000_000).into_iter().map(|(_, row)| row));
        let calls: f64 = rows.iter().map(|row| row.calls).sum();
        let error: f64 = rows.iter().map(Row::error).sum();
        let off = 2000.0 - 99.0 * 2.0;
        assert!((calls / (5.0 * off) - 1.0).abs() < 0.01, "{calls}");
        assert!(error > 0.0 && error < 0.3 * calls, "{error}");
    }

    #[test]
    fn a_burst_that_ends_with_the_program_says_little_and_spoils_nothing() {
        let mut all = Throttled::default();
        all.set_cost(100.0);
        all.add(1, burst(10, 0, 10, [10, 10]));
        all.add(1, burst(52, 10, 50, [50, 52]));
        // one call in a µs, 40 ms later: no more than 5 a ms on average so far
        let last = Burst {
            time_ns: 92_001_000,
            calls: 1,
            since_ns: 92_000_000,
            cpu_ns: 1_000,
            pools_ns: [92_000_000, 92_001_000],
        };
        all.add(1, last);
        let rows = all.finish(0, 92_001_000);
        let (calls, error) = (rows[0].1.calls, rows[0].1.error());
        assert!((calls / (5.0 * 80.0) - 1.0).abs() < 0.1, "{calls}");
        assert!(error < 2.0 * 5.0 * 80.0, "{error}");
    }

    #[test]
    fn a_frame_is_cut_where_its_function_was_shed() {
        let mut all = Throttled::default();
        assert_eq!(all.cut_ns(1, 0, i64::MAX), None);
        all.add(1, burst(10, 0, 10, [10, 10]));
        all.add(1, burst(30, 3, 25, [25, 30]));
        let ms = |ms: i64| ms * 1_000_000;
        assert_eq!(all.cut_ns(1, ms(5), ms(40)), Some(ms(10)));
        assert_eq!(all.cut_ns(1, ms(26), ms(40)), Some(ms(30)));
        assert_eq!(all.cut_ns(1, ms(26), ms(29)), None);
        assert_eq!(all.cut_ns(1, ms(31), ms(40)), None);
    }

    #[test]
    fn a_process_that_was_killed_is_taken_to_have_gone_on() {
        let mut all = Throttled::default();
        all.add(1, burst(10, 0, 10, [10, 10]));
        all.add(1, burst(30, 10, 28, [28, 30]));
        let rows = all.finish(0, 50_000_000);
        assert_eq!(rows.len(), 1);
        assert!(
            (rows[0].1.calls - 5.0 * (18.0 + 20.0)).abs() < 1.0,
            "{rows:?}"
        );
    }
}

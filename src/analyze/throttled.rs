//! Functions that the budget recorded in bursts: what was seen of them, scaled to what they did.

use std::collections::BTreeMap;

use super::measure::Measures;
use crate::trace::HashMap;

/// What `throttled` rows and calls say, by function.
#[derive(Debug, Default)]
pub struct Unseen {
    /// Calls that were not seen.
    calls: BTreeMap<usize, Estimate>,
    /// Time in a function that a caller called, by (caller, function).
    by_caller: HashMap<(usize, usize), i64>,
    /// Sum of the squares of the durations of calls that were seen, in ns².
    squares: Vec<f64>,
}

/// Two-sided 95 % of the normal distribution.
const Z95: f64 = 1.96;

/// What `throttled` rows say of one function.
#[derive(Clone, Copy, Debug, Default)]
struct Estimate {
    calls: f64,
    /// Squares of the half-widths of the rows' 95 % intervals, as far as they are by chance.
    chance: f64,
    /// The rest of them, which is the same in all rows.
    bias: f64,
    /// Time in those calls, of which so many have one.
    time_ns: f64,
    timed: f64,
}

impl Estimate {
    fn error(&self) -> f64 {
        self.chance.sqrt().hypot(self.bias)
    }

    /// Time in the calls; `mean` is what one takes where rows do not say.
    fn time_ns(&self, mean: f64) -> f64 {
        self.time_ns + (self.calls - self.timed).max(0.0) * mean
    }
}

impl Unseen {
    /// Takes one row's estimate: `error` is half the width of its 95 % interval, `bias` what of that is not by chance;
    /// `time_ns` is what the calls took without what recording cost, if that is known.
    pub fn add(
        &mut self,
        function: usize,
        calls: f64,
        error: f64,
        bias: f64,
        time_ns: Option<f64>,
    ) {
        let sum = self.calls.entry(function).or_default();
        sum.calls += calls.max(0.0);
        if let Some(time_ns) = time_ns {
            sum.time_ns += time_ns.max(0.0);
            sum.timed += calls.max(0.0);
        }
        sum.chance += (error * error - bias * bias).max(0.0);
        sum.bias += bias.max(0.0);
    }

    /// Takes a call that was seen.
    pub fn seen(&mut self, caller: Option<usize>, function: usize, dur_ns: i64) {
        if let Some(caller) = caller {
            *self.by_caller.entry((caller, function)).or_default() += dur_ns;
        }
        if function >= self.squares.len() {
            self.squares.resize(function + 1, 0.0);
        }
        self.squares[function] += (dur_ns as f64).powi(2);
    }
}

impl Unseen {
    /// Who calls functions that were in bursts, and for how long that was seen.
    pub fn callers(&self) -> BTreeMap<usize, Vec<(usize, i64)>> {
        let mut all: BTreeMap<usize, Vec<(usize, i64)>> = BTreeMap::new();
        for (&(caller, function), &ns) in &self.by_caller {
            if self.calls.contains_key(&function) {
                all.entry(function).or_default().push((caller, ns));
            }
        }
        all.values_mut().for_each(|callers| callers.sort_unstable());
        all
    }
}

fn scaled(ns: i64, by: f64) -> i64 {
    (ns as f64 * by).round() as i64
}

/// Scales calls and times, and takes from callers what they had of unseen callees: a call that was not seen is its
/// caller's own time. By function, how much time went into unseen calls for each ns of those that were seen.
pub fn settle(m: &mut Measures, unseen: &Unseen) -> BTreeMap<usize, f64> {
    let mut moved = BTreeMap::new();
    let mut scales = BTreeMap::new();
    for (&function, estimate) in &unseen.calls {
        let (calls, error) = (estimate.calls, estimate.error());
        let sums = &mut m.functions[function].1;
        let seen = sums.calls;
        sums.calls += calls.round() as u64;
        sums.calls_error = error.ceil() as u64;
        if seen == 0 {
            continue;
        }
        let mean = sums.total_ns as f64 / seen as f64;
        let more_ns = estimate.time_ns(mean).round() as i64;
        let by = more_ns as f64 / sums.total_ns.max(1) as f64;
        moved.insert(function, more_ns);
        scales.insert(function, by);
        // That calls are not known, and that those that were seen need not be as long as the others.
        let squares = unseen.squares.get(function).copied().unwrap_or_default() / seen as f64;
        let deviation = (squares - mean * mean).max(0.0).sqrt() / (seen as f64).sqrt();
        sums.error_ns = (mean * error).hypot(Z95 * deviation * calls).round() as i64;
        sums.total_ns += more_ns;
        sums.self_ns += scaled(sums.self_ns, by);
        sums.native_ns += scaled(sums.native_ns, by);
        for ((_, _), own) in m.own.iter_mut().filter(|((_, of), _)| *of == function) {
            own.calls += scaled(own.calls as i64, calls / seen as f64) as u64;
            own.self_ns += scaled(own.self_ns, by);
            own.native_ns += scaled(own.native_ns, by);
        }
    }
    // A function that calls itself has its own time anyway.
    let mut by_caller: Vec<_> = unseen.by_caller.iter().collect();
    by_caller.sort_unstable();
    let mut of_all: BTreeMap<usize, i64> = BTreeMap::new();
    for &(&(_, function), &ns) in &by_caller {
        *of_all.entry(function).or_default() += ns;
    }
    for (&(caller, function), &ns) in by_caller {
        let (Some(&more_ns), true) = (moved.get(&function), caller != function) else {
            continue;
        };
        let part = scaled(more_ns, ns as f64 / of_all[&function].max(1) as f64);
        let sums = &mut m.functions[caller].1;
        let before = (sums.self_ns - sums.native_ns).max(0);
        let taken = part.min(before);
        sums.self_ns -= taken;
        let share = taken as f64 / before.max(1) as f64;
        for (_, own) in m.own.iter_mut().filter(|((_, of), _)| *of == caller) {
            own.self_ns -= scaled((own.self_ns - own.native_ns).max(0), share);
        }
    }
    scales
}

#[cfg(test)]
mod tests {
    use crate::analyze::measure::measure;
    use crate::trace::provenance::Stage;
    use crate::trace::text::reader;

    #[test]
    fn what_was_not_seen_is_scaled_up_and_leaves_its_caller() {
        let text = r#"
track    kind       start  end    name  file    value  line  args
py:main  python     0ms    100ms  main  app.py  -      1     -
py:main  throttled  10ms   90ms   hot   app.py  18     5     {"calls_low":15,"calls_high":21}
py:main  python     10ms   12ms   hot   app.py  -      5     -
py:main  python     20ms   22ms   hot   app.py  -      5     -
"#;
        let m = measure(
            reader(text, Stage::Timeline).unwrap(),
            &Default::default(),
            &Default::default(),
        )
        .unwrap();
        let of = |name: &str| {
            let found = m
                .functions
                .iter()
                .find(|(key, _)| m.names.text(key.name) == name);
            &found.unwrap().1
        };
        let ms = |ns: i64| ns / 1_000_000;
        let hot = of("hot");
        assert_eq!((hot.calls, hot.calls_error), (20, 3));
        assert_eq!(
            (ms(hot.total_ns), ms(hot.self_ns), ms(hot.error_ns)),
            (40, 40, 6)
        );
        assert_eq!(ms(of("main").self_ns), 100 - 40);
        assert_eq!(ms(of("main").total_ns), 100);
        assert_eq!(m.throttled, 1);
        // What the calls took without what recording cost, where a row says that.
        let text = text.replace(
            r#""calls_high":21"#,
            r#""calls_high":21,"time_ns":27000000"#,
        );
        let m = measure(
            reader(&text, Stage::Timeline).unwrap(),
            &Default::default(),
            &Default::default(),
        )
        .unwrap();
        let hot = m.functions.iter().find(|(_, sums)| sums.calls == 20);
        let hot = &hot.unwrap().1;
        assert_eq!((ms(hot.total_ns), ms(hot.self_ns)), (4 + 27, 4 + 27));
    }
}

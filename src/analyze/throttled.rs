//! Functions that the budget recorded in bursts: what was seen of them, scaled to what they did.

use std::collections::BTreeMap;

use super::measure::{Measures, PathNode, Track, library};
use crate::trace::{HashMap, Kind, Names};

/// What `throttled` rows and calls say, by function.
#[derive(Debug, Default)]
pub struct Unseen {
    /// Calls that were not seen.
    calls: BTreeMap<usize, Estimate>,
    /// Time in a function that a caller called, by (caller, function).
    by_caller: HashMap<(usize, usize), i64>,
    /// The same by what called it at once: a native function that was given it, as `sorted` is its key, or the caller.
    by_holder: HashMap<(usize, usize), i64>,
    /// Of the durations of calls that were seen.
    took: Vec<Took>,
}

/// Sum of durations in ns, those of calls that a function makes of itself too, and of their squares in ns².
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    ns: f64,
    squares: f64,
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

    /// Takes a call that was seen, by the Python function that called it and the native one between them, if any.
    pub fn seen(
        &mut self,
        caller: Option<usize>,
        native: Option<usize>,
        function: usize,
        dur_ns: i64,
    ) {
        if let Some(caller) = caller {
            *self.by_caller.entry((caller, function)).or_default() += dur_ns;
            let holder = native.unwrap_or(caller);
            *self.by_holder.entry((holder, function)).or_default() += dur_ns;
        }
        if function >= self.took.len() {
            self.took.resize(function + 1, Took::default());
        }
        let took = &mut self.took[function];
        took.ns += dur_ns as f64;
        took.squares += (dur_ns as f64).powi(2);
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
pub fn settle(m: &mut Measures, unseen: &Unseen, names: &Names) -> BTreeMap<usize, f64> {
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
        let took = unseen.took.get(function).copied().unwrap_or_default();
        let mean = took.ns / seen as f64;
        // A call within a call of the same function is in the time of that one already.
        let once = (sums.total_ns as f64 / took.ns.max(1.0)).min(1.0);
        let more_ns = (estimate.time_ns(mean) * once).round() as i64;
        let by = more_ns as f64 / sums.total_ns.max(1) as f64;
        moved.insert(function, more_ns);
        scales.insert(function, by);
        // That calls are not known, and that those that were seen need not be as long as the others.
        let variance = (took.squares / seen as f64 - mean * mean).max(0.0);
        let deviation = variance.sqrt() / (seen as f64).sqrt();
        sums.error_ns = (once * (mean * error).hypot(Z95 * deviation * calls)).round() as i64;
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
    let mut by_holder: Vec<_> = unseen.by_holder.iter().collect();
    by_holder.sort_unstable();
    let mut of_all: BTreeMap<usize, i64> = BTreeMap::new();
    for &(&(_, function), &ns) in &by_holder {
        *of_all.entry(function).or_default() += ns;
    }
    let interpreted = interpreted(m);
    for (&(caller, function), &ns) in by_holder {
        let (Some(&more_ns), true) = (moved.get(&function), caller != function) else {
            continue;
        };
        let part = scaled(more_ns, ns as f64 / of_all[&function].max(1) as f64);
        if m.functions[caller].0.kind != Kind::Python {
            let python = interpreted.get(&function).copied().unwrap_or(1.0);
            leave_native(m, caller, scaled(part, python), names);
            continue;
        }
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

/// Which part of the time of a Python function, with all that it calls, is not in native functions.
fn interpreted(m: &Measures) -> BTreeMap<usize, f64> {
    let own = |node: &PathNode| {
        let native = m.functions[node.function].0.kind != Kind::Python;
        (if native { 0 } else { node.self_ns }, node.self_ns)
    };
    let mut sums: Vec<(i64, i64)> = m.paths.iter().map(own).collect();
    let mut all: BTreeMap<usize, (i64, i64)> = BTreeMap::new();
    for (at, node) in m.paths.iter().enumerate().rev() {
        let (python, both) = sums[at];
        if let Some(parent) = node.parent {
            sums[parent].0 += python;
            sums[parent].1 += both;
        }
        let of = all.entry(node.function).or_default();
        *of = (of.0 + python, of.1 + both);
    }
    let part = |(function, (python, both)): (usize, (i64, i64))| {
        (function, python as f64 / both.max(1) as f64)
    };
    all.into_iter().map(part).collect()
}

/// Takes time of calls that were not seen from the native function that made them: it was the interpreter's.
fn leave_native(m: &mut Measures, native: usize, part: i64, names: &Names) {
    let (key, sums) = &mut m.functions[native];
    let before = sums.self_ns.max(0);
    let taken = part.min(before);
    let share = taken as f64 / before.max(1) as f64;
    sums.self_ns -= taken;
    sums.native_ns = (sums.native_ns - taken).max(0);
    let file = key.file.map_or("", |file| names.text(file));
    let library = library(file).to_owned();
    // Who calls it has its time as native time of its own.
    let mut callers: BTreeMap<usize, i64> = BTreeMap::new();
    for node in m.paths.iter().filter(|node| node.function == native) {
        let python = |at: &usize| m.functions[*at].0.kind == Kind::Python;
        if let Some(caller) = m.above(node).find(python) {
            *callers.entry(caller).or_default() += node.self_ns;
        }
    }
    let all: i64 = callers.values().sum();
    for (&caller, &ns) in &callers {
        let sums = &mut m.functions[caller].1;
        let ns = scaled(taken, ns as f64 / all.max(1) as f64).min(sums.native_ns);
        sums.native_ns -= ns;
        sums.self_ns -= ns;
    }
    let owns = m.own.iter_mut().filter(|((_, of), _)| *of == native);
    let by_thread: BTreeMap<Track, i64> = owns
        .map(|(&(track, _), own)| {
            let ns = scaled(own.self_ns, share);
            own.self_ns -= ns;
            own.native_ns = (own.native_ns - ns).max(0);
            (track, ns)
        })
        .collect();
    for (track, ns) in by_thread {
        for (&caller, &part) in &callers {
            if let Some(own) = m.own.get_mut(&(track, caller)) {
                let ns = scaled(ns, part as f64 / all.max(1) as f64).min(own.native_ns);
                own.native_ns -= ns;
                own.self_ns -= ns;
            }
        }
        let Some(thread) = m.threads.get_mut(&track) else {
            continue;
        };
        if let Some(known) = thread.times.native_ns.get_mut(&library) {
            let ns = ns.min(*known);
            *known -= ns;
            thread.times.python_ns += ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::analyze::measure::{Measures, measure};
    use crate::trace::provenance::Stage;
    use crate::trace::text::reader;

    fn measured(text: &str) -> Measures {
        let reader = reader(text, Stage::Timeline).unwrap();
        measure(reader, &Default::default(), &Default::default()).unwrap()
    }

    #[test]
    fn what_a_native_function_called_unseen_is_the_interpreters() {
        // `sorted` takes 80 ms, of which `key` is seen for 4 and told for 36 more.
        let text = r#"
track    kind       start  end    name    file    value  line  args
py:main  python     0ms    100ms  rank    app.py  -      1     -
py:main  native     10ms   90ms   sorted  python  -      -     -
py:main  throttled  10ms   90ms   key     app.py  18     5     {"calls_low":15,"calls_high":21}
py:main  python     10ms   12ms   key     app.py  -      5     -
py:main  python     20ms   22ms   key     app.py  -      5     -
"#;
        // What they have in native functions themselves stays native.
        let half = "py:main  native     11ms   12ms   dot     python  -      -     -\n\
                    py:main  python     20ms";
        let half = measured(&text.replace("py:main  python     20ms", half));
        let times = &half.threads.values().next().unwrap().times;
        let seen_ms = 1 + (80 - 4); // of 4 ms in key, 1 is native
        let native_ns = seen_ms * 1_000_000 - 36_000_000 * 3 / 4;
        assert_eq!(times.native_ns["python"], native_ns);

        let m = measured(text);
        let of = |name: &str| {
            let mut all = m.functions.iter();
            let found = all.find(|(key, _)| m.names.text(key.name) == name);
            let sums = &found.unwrap().1;
            (sums.self_ns / 1_000_000, sums.native_ns / 1_000_000)
        };
        assert_eq!(of("key"), (40, 0));
        assert_eq!(of("sorted"), (40, 40));
        assert_eq!(of("rank"), (20 + 40, 40));
        let times = &m.threads.values().next().unwrap().times;
        assert_eq!(times.native_ns["python"], 40_000_000);
        assert_eq!(times.python_ns, 60_000_000);
    }

    #[test]
    fn what_was_not_seen_is_scaled_up_and_leaves_its_caller() {
        let text = r#"
track    kind       start  end    name  file    value  line  args
py:main  python     0ms    100ms  main  app.py  -      1     -
py:main  throttled  10ms   90ms   hot   app.py  18     5     {"calls_low":15,"calls_high":21}
py:main  python     10ms   12ms   hot   app.py  -      5     -
py:main  python     20ms   22ms   hot   app.py  -      5     -
"#;
        let m = measured(text);
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
        let m = measured(&text);
        let hot = m.functions.iter().find(|(_, sums)| sums.calls == 20);
        let hot = &hot.unwrap().1;
        assert_eq!((ms(hot.total_ns), ms(hot.self_ns)), (4 + 27, 4 + 27));
    }

    #[test]
    fn a_function_that_calls_itself_has_its_time_once() {
        // 4 calls are seen, one in the other by twos: 24 ms of calls, in 16 ms of time. So 12 more are 48 ms.
        let text = r#"
track    kind       start  end    name  file    value  line  args
py:main  python     0ms    200ms  main  app.py  -      1     -
py:main  throttled  10ms   190ms  walk  app.py  12     5     {"calls_low":10,"calls_high":14,"time_ns":72000000}
py:main  python     10ms   18ms   walk  app.py  -      5     -
py:main  python     12ms   16ms   walk  app.py  -      5     -
py:main  python     20ms   28ms   walk  app.py  -      5     -
py:main  python     22ms   26ms   walk  app.py  -      5     -
"#;
        let m = measured(text);
        let walk = m.functions.iter().find(|(_, sums)| sums.calls == 16);
        let walk = &walk.unwrap().1;
        let ms = |ns: i64| ns / 1_000_000;
        assert_eq!((ms(walk.total_ns), ms(walk.self_ns)), (16 + 48, 16 + 48));
    }
}

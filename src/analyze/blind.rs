//! Functions that the budget records in bursts: their calls of native functions, which bursts do not show.
//!
//! Switching a function's call sites on again costs more than a burst is worth (crates/probe, `monitor::toggle`), so from
//! the moment it is shed for the first time its frames look as if they were all interpreter. Before that they were recorded
//! with what they called: the share of each native function in them then is taken to go on. Only what nothing else tells
//! of is estimated: samples see the time in libraries, whoever called them, but in the interpreter's own file, where the
//! methods of `str`, `list` and `re` are, not whose it is.

use std::collections::{BTreeMap, BTreeSet};

use super::measure::{Measures, Track, library};
use crate::trace::Names;

/// What one function's frames showed while they were recorded with what they called.
#[derive(Debug, Default)]
struct Sight {
    /// When it was first shed, by process: each has a budget of its own.
    shed_ns: Vec<(u32, i64)>,
    /// The interpreter's own time in them, up to the last one that called anything, and in those since: a call site that is
    /// not worth its events is dropped, and what comes after says nothing of it.
    own_ns: i64,
    since_ns: i64,
    /// The frames, likewise; and those that called anything.
    frames: u64,
    since: u64,
    calling: u64,
    /// Native functions that do not wait, their own time, and their calls.
    natives: Vec<(usize, i64, u64)>,
}

impl Sight {
    fn is_shed(&self, process: u32, end_ns: i64) -> bool {
        let is = |(of, shed_ns): &(u32, i64)| *of == process && end_ns > *shed_ns;
        self.shed_ns.iter().any(is)
    }

    fn ns(&self, native: usize) -> i64 {
        let found = self.natives.iter().find(|(known, ..)| *known == native);
        found.map_or(0, |(_, ns, _)| *ns)
    }
}

/// How often a function calls a native function in one of its own calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Often {
    /// Over all calls, up to the last that showed any native call: fewer than there were, as call sites of short functions
    /// are dropped after some looks, and looked at again much later.
    pub mean: f64,
    /// Over those that showed any.
    pub shown: f64,
}

/// Native time that is estimated, by function and native function.
#[derive(Debug, Default)]
pub struct Blind {
    sights: Vec<Sight>,
    moved: BTreeMap<(Track, usize, usize), i64>,
    /// Processes in which samples tell of libraries.
    sampled: BTreeSet<u32>,
}

impl Blind {
    fn sight(&mut self, function: usize) -> &mut Sight {
        if function >= self.sights.len() {
            self.sights.resize_with(function + 1, Sight::default);
        }
        &mut self.sights[function]
    }

    /// The function is in bursts from then on.
    pub fn shed(&mut self, process: u32, function: usize, at_ns: i64) {
        let shed_ns = &mut self.sight(function).shed_ns;
        if shed_ns.iter().all(|(of, _)| *of != process) {
            shed_ns.push((process, at_ns));
        }
    }

    /// A sample was taken there.
    pub fn sampled(&mut self, process: u32) {
        self.sampled.insert(process);
    }

    /// Takes a native call, which did not wait, when it has ended.
    pub fn native(&mut self, track: Track, (caller, native): (usize, usize), end_ns: i64, ns: i64) {
        let sight = self.sight(caller);
        if sight.is_shed(track.0, end_ns) {
            return;
        }
        match sight
            .natives
            .iter_mut()
            .find(|(known, ..)| *known == native)
        {
            Some((_, sum, calls)) => {
                *sum += ns;
                *calls += 1;
            }
            None => sight.natives.push((native, ns, 1)),
        }
    }

    /// Takes a frame that ended, with its own interpreter time and that in native functions it called: what of the first
    /// was spent in native functions as well, by function. `in_library` says of one whether samples see it.
    pub fn frame(
        &mut self,
        track: Track,
        function: usize,
        end_ns: i64,
        (own_ns, native_ns): (i64, i64),
        in_library: impl Fn(usize) -> bool,
    ) -> Vec<(usize, i64)> {
        let samples = self.sampled.contains(&track.0);
        let sight = self.sight(function);
        if !sight.is_shed(track.0, end_ns) {
            sight.since_ns += own_ns;
            sight.since += 1;
            if native_ns > 0 {
                sight.own_ns += std::mem::take(&mut sight.since_ns);
                sight.frames += std::mem::take(&mut sight.since);
                sight.calling += 1;
            }
            return Vec::new();
        }
        let natives_ns: i64 = sight.natives.iter().map(|(_, ns, _)| ns).sum();
        if natives_ns == 0 {
            return Vec::new();
        }
        let scale = (own_ns + native_ns) as f64 / (sight.own_ns + natives_ns) as f64;
        // Wrapped operators are seen in bursts too; they are in libraries.
        let mut seen_ns = if samples { 0 } else { native_ns };
        let mut left_ns = own_ns;
        let mut moved = Vec::new();
        for &(native, ns, _) in &sight.natives {
            if samples && in_library(native) {
                continue;
            }
            let ns = (ns as f64 * scale) as i64;
            let known_ns = ns.min(seen_ns);
            seen_ns -= known_ns;
            let ns = (ns - known_ns).min(left_ns);
            left_ns -= ns;
            if ns > 0 {
                moved.push((native, ns));
            }
        }
        for &(native, ns) in &moved {
            *self.moved.entry((track, function, native)).or_default() += ns;
        }
        moved
    }

    /// How often a function calls a native function in one of its own calls, as far as that was seen.
    pub fn calls(&self) -> BTreeMap<(usize, usize), Often> {
        let mut all = BTreeMap::new();
        for (function, sight) in self.sights.iter().enumerate() {
            for &(native, _, calls) in &sight.natives {
                let often = Often {
                    mean: calls as f64 / sight.frames.max(1) as f64,
                    shown: calls as f64 / sight.calling.max(1) as f64,
                };
                all.insert((function, native), often);
            }
        }
        all
    }
}

/// Books on native functions what was estimated of them, and what they did in calls that nobody saw: `unseen` is how much
/// time those took for each ns of the calls of a function that were seen.
pub fn settle(m: &mut Measures, blind: &Blind, unseen: &BTreeMap<usize, f64>, names: &Names) {
    let mut all: BTreeMap<usize, i64> = BTreeMap::new();
    let mut of_all: BTreeMap<(usize, usize), i64> = BTreeMap::new();
    for (&(_, function, native), &ns) in &blind.moved {
        *of_all.entry((function, native)).or_default() += ns;
    }
    for (&(track, function, native), &ns) in &blind.moved {
        // calls that nobody saw are like all that were seen
        let here_ns = of_all[&(function, native)];
        let seen_ns = here_ns + blind.sights[function].ns(native);
        let scale = unseen.get(&function).unwrap_or(&0.0) * seen_ns as f64 / here_ns as f64;
        let more_ns = (ns as f64 * scale).round() as i64;
        let file = m.functions[native].0.file;
        let file = library(file.map_or("", |file| names.text(file))).to_owned();
        let times = &mut m.threads.entry(track).or_default().times;
        let more_ns = more_ns.clamp(0, times.python_ns.max(0));
        times.python_ns -= more_ns;
        *times.native_ns.entry(file).or_default() += more_ns;
        let own = m.own.entry((track, native)).or_default();
        own.self_ns += ns + more_ns;
        own.native_ns += ns + more_ns;
        *all.entry(native).or_default() += ns + more_ns;
    }
    for (native, ns) in all {
        let sums = &mut m.functions[native].1;
        let mean = sums.total_ns as f64 / sums.calls.max(1) as f64;
        let calls = (ns as f64 / mean.max(1.0)).round();
        sums.calls += calls as u64;
        // an estimate from other calls than these: no bound is known but itself
        sums.calls_error += calls as u64;
        sums.error_ns += ns;
        sums.total_ns += ns;
        sums.self_ns += ns;
        sums.native_ns += ns;
    }
}

#[cfg(test)]
mod tests {
    use crate::analyze::measure::measure;
    use crate::trace::provenance::Stage;
    use crate::trace::text::reader;

    /// `redact` takes 4 ms, 3 of them in `sub`, while its calls are seen; from 10 ms on it is in bursts, and half of its
    /// calls are not seen at all.
    const TEXT: &str = r#"
track    kind       start  end    name    file        value  line  args
py:main  python     0ms    100ms  main    app.py      -      1     -
py:main  python     0ms    4ms    redact  app.py      -      5     -
py:main  native     1ms    4ms    sub     python      -      -     -
py:main  python     5ms    9ms    redact  app.py      -      5     -
py:main  native     6ms    9ms    sub     python      -      -     -
py:main  throttled  10ms   90ms   redact  app.py      2      5     {"time_ns":8000000}
py:main  python     20ms   24ms   redact  app.py      -      5     -
py:main  python     30ms   34ms   redact  app.py      -      5     -
"#;

    #[test]
    fn what_bursts_do_not_show_of_native_calls_is_what_was_seen_before() {
        let of = |text: &str, name: &str| {
            let reader = reader(text, Stage::Timeline).unwrap();
            let m = measure(reader, &Default::default(), &Default::default()).unwrap();
            let mut all = m.functions.iter();
            let found = all.find(|(key, _)| m.names.text(key.name) == name);
            let sums = found.unwrap().1.clone();
            let times = m.threads.values().next().unwrap().times.clone();
            (sums, times)
        };
        let ms = |ns: i64| (ns as f64 / 1e6).round() as i64;
        let (redact, times) = of(TEXT, "redact");
        assert_eq!((ms(redact.self_ns), ms(redact.native_ns)), (24, 18));
        assert_eq!(
            (ms(times.native_ns["python"]), ms(times.python_ns)),
            (18, 82)
        );
        let (sub, _) = of(TEXT, "sub");
        assert_eq!((sub.calls, ms(sub.self_ns), ms(sub.total_ns)), (6, 18, 18));
        assert_eq!((sub.calls_error, ms(sub.error_ns)), (4, 12));

        // Samples see a library's code wherever it is called from.
        let library = TEXT.replace("python      -      -     -", "fast/x.so   -      -     -");
        assert_eq!(ms(of(&library, "sub").0.self_ns), 18, "no samples");
        let sample = "py:main  sample     9ms    -      x       fast/x.so   1000000  -     -\npy:main  throttled";
        let sampled = library.replace("py:main  throttled", sample);
        assert_eq!(ms(of(&sampled, "sub").0.self_ns), 6);
    }
}

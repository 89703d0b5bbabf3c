//! Samples of the instruction pointer, set against the time that spans leave to the interpreter.
//!
//! A sample is an estimate: n of them stand for n periods of CPU time with a standard error of about √n. So they are
//! summed by thread and function first, and only then cut to the time there is; cut one by one, those in short
//! spans would be worth too little.

use std::collections::BTreeMap;

use super::measure::{Measures, Natives, library};
use crate::trace::{Names, Sym};

type Track = (u32, u64);

/// Samples in the interpreter's own time, by thread and function. Ordered, for equal bytes from equal input.
#[derive(Debug, Default)]
pub struct Sampled {
    natives: BTreeMap<Track, BTreeMap<Option<usize>, Natives>>,
    interpreter: BTreeMap<(Track, Option<usize>), Interpreter>,
}

/// Samples in the interpreter's own file.
#[derive(Debug, Default)]
struct Interpreter {
    file: Option<Sym>,
    ns: i64,
    count: u64,
    /// Those in the loop that runs bytecode.
    eval: u64,
}

impl Interpreter {
    /// Whether this is hardly bytecode but a method of `list`, `str`, `re` … that runs for long.
    fn is_native(&self) -> bool {
        self.count >= ENOUGH && (self.eval as f64) < LEAST_EVAL * self.count as f64
    }
}

/// Of the samples in a function of Python that runs bytecode, at least so many are in the loop that does: 5 to 15 % where
/// it formats strings and fills dictionaries, 20 to 50 % where it computes; searching, sorting, splitting and matching
/// have 0 to 3 % (CPython 3.9 to 3.13, some hundred samples each). Below so many samples nothing is said.
const LEAST_EVAL: f64 = 0.04;
const ENOUGH: u64 = 25;
/// Of all samples of a process in the interpreter's file, those in the loop, if it is known at all.
const TOLD: f64 = 0.005;

impl Sampled {
    /// Books a sample in the code of `file` on the function it was taken in.
    pub fn add(&mut self, track: Track, function: Option<usize>, file: Option<Sym>, cpu_ns: i64) {
        let functions = self.natives.entry(track).or_default();
        functions.entry(function).or_default().add(file, cpu_ns);
    }

    /// Takes a sample in the interpreter's own file, which may be in its loop.
    pub fn interpreter(
        &mut self,
        track: Track,
        function: Option<usize>,
        file: Option<Sym>,
        cpu_ns: i64,
        eval: bool,
    ) {
        let sums = self.interpreter.entry((track, function)).or_default();
        sums.file = file;
        sums.ns += cpu_ns;
        sums.count += 1;
        sums.eval += u64::from(eval);
    }
}

/// Whether code of this file is the interpreter's own work: itself, what it needs of the C library and the loader, the
/// kernel's page, the probe. A library's time in `read` is booked there too.
pub fn interprets(file: &str) -> bool {
    let own = ["python", "[vdso]", "[vsyscall]", "(generated code)"];
    let system = [
        "libc.",
        "libc-",
        "libm.",
        "libm-",
        "libpthread",
        "libdl",
        "ld-",
        "libinferscope_probe.",
    ];
    own.contains(&file) || system.iter().any(|start| file.starts_with(start))
}

/// Moves sampled time from the interpreter to the libraries: of each thread, and of each function up to what it has.
pub fn settle(m: &mut Measures, mut sampled: Sampled, bursts: &Bursts, names: &Names) {
    // A probe before this one, or of an interpreter whose loop is elsewhere, does not tell it from the rest.
    let mut loops: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for ((track, _), sums) in &sampled.interpreter {
        let (count, eval) = loops.entry(track.0).or_default();
        (*count, *eval) = (*count + sums.count, *eval + sums.eval);
    }
    let told = |(count, eval): &(u64, u64)| *eval as f64 > TOLD * *count as f64;
    for ((track, function), sums) in std::mem::take(&mut sampled.interpreter) {
        if sums.is_native() && loops.get(&track.0).is_some_and(told) {
            // what calls say of natives in this file is in it already
            let own = function.and_then(|f| m.own.get(&(track, f)));
            let most = own.map_or(sums.ns, |own| own.self_ns - own.native_ns - own.wait_ns);
            sampled.add(track, function, sums.file, sums.ns.min(most.max(0)));
        }
    }
    for (track, mut functions) in sampled.natives {
        bursts.move_copies(track, &mut m.copied);
        bursts.move_down(m, track, &mut functions);
        let mut all: BTreeMap<&str, i64> = BTreeMap::new();
        for (function, natives) in functions {
            for (file, ns) in &natives.0 {
                *all.entry(library(file.map_or("", |file| names.text(file))))
                    .or_default() += ns;
            }
            let Some(function) = function else { continue };
            let own = m.own.get(&(track, function)).copied().unwrap_or_default();
            let ns: i64 = natives.0.iter().map(|(_, ns)| ns).sum();
            let ns = ns.min(own.self_ns - own.native_ns - own.wait_ns);
            if ns > 0 {
                m.book(track, function, false, 0, ns);
                if let Some(own) = m.own.get_mut(&(track, function)) {
                    own.sampled_ns += ns;
                }
            }
        }
        let Some(times) = m.threads.get_mut(&track).map(|thread| &mut thread.times) else {
            continue;
        };
        let ns = all.values().sum::<i64>();
        let moved = ns.min(times.python_ns);
        times.python_ns -= moved;
        for (library, part) in all {
            let part = i128::from(part) * i128::from(moved) / i128::from(ns.max(1));
            *times.native_ns.entry(library.to_owned()).or_default() += part as i64;
        }
    }
}

/// Calls of functions in bursts that nobody saw: samples in them were taken in their callers, as far as one could tell.
#[derive(Debug, Default)]
pub struct Bursts {
    /// Time in such calls of a function for each ns in those that were seen.
    pub unseen: BTreeMap<usize, f64>,
    /// Who calls a function, and for how long that was seen.
    pub callers: BTreeMap<usize, Vec<(usize, i64)>>,
}

impl Bursts {
    /// The functions around a function that are not in bursts themselves, by their shares of its calls: what is sampled in
    /// a call that is not seen is sampled in one of these.
    pub fn roots(&self, function: usize) -> BTreeMap<usize, f64> {
        let mut roots = BTreeMap::new();
        self.add_roots(function, 1.0, 0, &mut roots);
        roots
    }

    fn add_roots(
        &self,
        function: usize,
        share: f64,
        depth: usize,
        roots: &mut BTreeMap<usize, f64>,
    ) {
        let callers = self.callers.get(&function).map_or(&[][..], Vec::as_slice);
        let of_all: i64 = callers.iter().map(|(_, ns)| ns).sum();
        for &(caller, ns) in callers.iter().filter(|(caller, _)| *caller != function) {
            let share = share * ns as f64 / of_all.max(1) as f64;
            if share < LEAST_SHARE {
                continue;
            }
            match self.unseen.contains_key(&caller) && depth < DEEPEST {
                true => self.add_roots(caller, share, depth + 1, roots),
                false => *roots.entry(caller).or_default() += share,
            }
        }
    }

    /// Gives functions in bursts their part of what was sampled in their callers: calls that were not seen are like those
    /// that were. Of a thread.
    fn move_down(
        &self,
        m: &Measures,
        track: Track,
        functions: &mut BTreeMap<Option<usize>, Natives>,
    ) {
        for (&function, &unseen) in &self.unseen {
            let Some(sampled) = functions.get(&Some(function)) else {
                continue;
            };
            let own = m.own.get(&(track, function)).copied().unwrap_or_default();
            let seen_ns = sampled.sum();
            let most_ns = own.self_ns - own.native_ns - own.wait_ns - seen_ns;
            let ns = scaled(seen_ns, unseen).min(most_ns);
            if ns <= 0 {
                continue;
            }
            let roots = self.roots(function);
            let mut moved: Vec<(Option<Sym>, i64)> = Vec::new();
            for (root, share) in roots {
                let Some(from) = functions.get_mut(&Some(root)) else {
                    continue;
                };
                let taken = scaled(ns, share).min(from.sum());
                let part = taken as f64 / from.sum().max(1) as f64;
                for (file, left_ns) in &mut from.0 {
                    let ns = scaled(*left_ns, part);
                    *left_ns -= ns;
                    moved.push((*file, ns));
                }
            }
            let natives = functions.entry(Some(function)).or_default();
            for (file, ns) in moved {
                natives.add(file, ns);
            }
        }
    }
}

impl Bursts {
    /// What [`Bursts::move_down`] does, with the part of it that is copying.
    fn move_copies(&self, track: Track, copied: &mut BTreeMap<(Track, usize), i64>) {
        for (&function, &unseen) in &self.unseen {
            let Some(&seen_ns) = copied.get(&(track, function)) else {
                continue;
            };
            let mut moved = 0;
            for (root, share) in self.roots(function) {
                let Some(from) = copied.get_mut(&(track, root)) else {
                    continue;
                };
                let ns = scaled(seen_ns, unseen * share).min(*from);
                *from -= ns;
                moved += ns;
            }
            *copied.entry((track, function)).or_default() += moved;
        }
    }
}

/// Callers of callers that are looked through; they may call each other.
const DEEPEST: usize = 8;
/// A caller with less than this share of the calls is passed over: functions that all call each other have many paths.
const LEAST_SHARE: f64 = 1e-3;

fn scaled(ns: i64, by: f64) -> i64 {
    (ns as f64 * by).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_in_calls_that_were_not_seen_are_those_calls_own() {
        use crate::analyze::measure::measure;
        use crate::trace::provenance::Stage;
        // `score` is seen for 20 ms of 60, half of them native.
        let text = r#"
track    kind       start  end    name    file        value     line  args
py:main  python     0ms    100ms  main    app.py      -         1     -
py:main  python     10ms   30ms   score   app.py      -         5     -
py:main  sample     20ms   -      x       fast/x.so   10000000  -     -
py:main  throttled  30ms   90ms   score   app.py      2         5     {"time_ns":40000000}
py:main  sample     40ms   -      x       fast/x.so   10000000  -     -
py:main  sample     60ms   -      x       fast/x.so   10000000  -     -
"#;
        let reader = crate::trace::text::reader(text, Stage::Timeline).unwrap();
        let m = measure(reader, &Default::default(), &Default::default()).unwrap();
        let of = |name: &str| {
            let mut all = m.functions.iter();
            let sums = &all
                .find(|(key, _)| m.names.text(key.name) == name)
                .unwrap()
                .1;
            (sums.self_ns / 1_000_000, sums.native_ns / 1_000_000)
        };
        assert_eq!(of("score"), (60, 30));
        assert_eq!(of("main"), (40, 0));
        let times = &m.threads.values().next().unwrap().times;
        assert_eq!(
            (times.python_ns, times.native_sum_ns()),
            (70_000_000, 30_000_000)
        );
    }

    #[test]
    fn copies_in_calls_that_were_not_seen_are_those_calls_own() {
        let (track, root, function) = ((0, 7), 0, 1);
        let bursts = Bursts {
            unseen: [(function, 2.0)].into(),
            callers: [(function, vec![(root, 100)])].into(),
        };
        let copied =
            |of_root, own| BTreeMap::from([((track, root), of_root), ((track, function), own)]);
        let mut found = copied(20, 4);
        bursts.move_copies(track, &mut found);
        assert_eq!(found, copied(12, 12));
        let mut found = copied(5, 4);
        bursts.move_copies(track, &mut found);
        assert_eq!(found, copied(0, 9), "no more than there is");
    }

    #[test]
    fn sampled_time_goes_from_the_interpreter_to_the_library_and_never_beyond_what_there_is() {
        use crate::analyze::measure::measure;
        use crate::trace::provenance::Stage;
        let text = r#"
track    kind    start  end    name   file         value    line
py:main  python  0ms    100ms  main   app.py       -        1
py:main  python  10ms   14ms   short  app.py       -        5
py:main  sample  12ms   -      s      fast/x.so    9000000  -
py:main  sample  20ms   -      s      fast/x.so    9000000  -
py:main  sample  30ms   -      s      libc.so.6    9000000  -
py:main  native  40ms   60ms   mul    numpy/y.so   -        -
py:main  sample  50ms   -      s      fast/x.so    9000000  -
py:pool  sample  60ms   -      s      fast/x.so    7000000  -
"#;
        let m = measure(
            crate::trace::text::reader(text, Stage::Timeline).unwrap(),
            &Default::default(),
            &Default::default(),
        )
        .unwrap();
        let ms = |ns: i64| ns / 1_000_000;
        let own = |name: &str| {
            let found = m
                .functions
                .iter()
                .find(|(key, _)| m.names.text(key.name) == name);
            let sums = &found.unwrap().1;
            (ms(sums.self_ns), ms(sums.native_ns))
        };
        assert_eq!(
            own("short"),
            (4, 4),
            "a sample is worth more than the span is long"
        );
        assert_eq!(own("main"), (96, 29));
        let times: Vec<_> = m.threads.values().map(|thread| &thread.times).collect();
        assert_eq!(
            (ms(times[0].python_ns), ms(times[0].native_ns["fast"])),
            (62, 18)
        );
        assert_eq!(
            ms(times[0].native_ns["numpy"]),
            20,
            "a native span says itself whose it is"
        );
        assert_eq!(ms(times[1].outside_ns["fast"]), 7);
        assert_eq!(
            times
                .iter()
                .map(|times| ms(times.native_sum_ns()))
                .sum::<i64>(),
            45
        );
    }

    #[test]
    fn a_sample_stands_for_the_wall_time_that_its_cpu_time_took() {
        use crate::analyze::measure::measure;
        use crate::trace::provenance::Stage;
        let text = r#"
track    kind    start  end    name      file       value
py:main  python  0ms    100ms  main      app.py     -
py:main  wait    10ms   30ms   runnable  -          10000000
py:main  sample  20ms   -      s         fast/x.so  9000000
py:main  sample  40ms   -      s         slow/x.so  9000000
"#;
        let m = measure(
            crate::trace::text::reader(text, Stage::Timeline).unwrap(),
            &Default::default(),
            &Default::default(),
        )
        .unwrap();
        let times = &m.threads.values().next().unwrap().times;
        assert_eq!(times.native_ns["fast"], 18_000_000);
        assert_eq!(times.native_ns["slow"], 9_000_000);
    }

    #[test]
    fn where_hardly_any_bytecode_runs_the_interpreters_time_is_native() {
        use crate::analyze::measure::measure;
        use crate::trace::provenance::Stage;
        let of = |every: i64| {
            let mut text = String::from(
                "track kind start end name file value line\n\
                 py:main python 0ms 2000ms find app.py - 1\n",
            );
            for at in 1..200 {
                if at == 100 {
                    text += "py:main python 1000ms 2000ms count app.py - 5\n";
                }
                let name = match at >= 100 && at % 5 == 0 || at < 100 && at % every == 0 {
                    true => "eval",
                    false => "python",
                };
                text += &format!("py:main sample {}ms - {name} python 10000000 -\n", at * 10);
            }
            let reader = crate::trace::text::reader(&text, Stage::Timeline).unwrap();
            let m = measure(reader, &Default::default(), &Default::default()).unwrap();
            let mut natives = m
                .functions
                .iter()
                .map(|(_, sums)| sums.native_ns / 1_000_000);
            let natives = (natives.next().unwrap(), natives.next().unwrap());
            (natives, m.threads.values().next().unwrap().times.clone())
        };
        let (natives, times) = of(50);
        assert_eq!(natives, (990, 0));
        assert_eq!(times.native_ns["python"], 990_000_000);
        assert_eq!(of(10).0, (0, 0));
    }

    #[test]
    fn only_the_interpreters_own_libraries_are_the_interpreters() {
        for file in [
            "python",
            "libc.so.6",
            "libm-2.31.so",
            "ld-linux-x86-64.so.2",
            "[vdso]",
        ] {
            assert!(interprets(file), "{file}");
        }
        for file in [
            "libcublas.so.12",
            "numpy.libs/libscipy_openblas64_.so",
            "libstdc++.so.6",
            "libmkl_rt.so",
        ] {
            assert!(!interprets(file), "{file}");
        }
    }
}

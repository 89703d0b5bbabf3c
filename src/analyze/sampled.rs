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
pub struct Sampled(BTreeMap<Track, BTreeMap<Option<usize>, Natives>>);

impl Sampled {
    /// Books a sample in the code of `file` on the function it was taken in.
    pub fn add(&mut self, track: Track, function: Option<usize>, file: Option<Sym>, cpu_ns: i64) {
        let functions = self.0.entry(track).or_default();
        functions.entry(function).or_default().add(file, cpu_ns);
    }
}

/// Whether code of this file is the interpreter's own work: itself, what it needs of the C library and the loader, the
/// kernel's page, the probe. A library's time in `memcpy` or `read` is booked there too.
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
pub fn settle(m: &mut Measures, sampled: Sampled, names: &Names) {
    for (track, functions) in sampled.0 {
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

#[cfg(test)]
mod tests {
    use super::*;

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

//! The budget: hot functions are recorded in bursts or slices, and what is said of them is near the truth that the program knows.

mod common;

use common::{libraries, pythons, rows};
use inferscope::trace::{Event, Kind};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Functions of 0.2 to 30 µs in a fixed mix, so that the number of steps says how often each of them ran.
const PROGRAM: &str = r#"
import sys, threading, time

def tiny(x):
    return x + 1

def small(x):
    s = 0
    for i in range(10):
        s += i * x
    return s

def mid(x):
    return small(x) + small(x + 1) + tiny(x)

def recurse(n):
    return recurse(n - 1) if n else 0

def fails(x):
    raise ValueError(x)

def numbers(n):
    yield from range(n)

def step(x):
    for k in range(10):
        mid(k)
    recurse(5)
    try:
        fails(x)
    except ValueError:
        pass
    return sum(numbers(3))

def rare(x):
    return x

def work(seconds, steps):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        rare(0)
        for _ in range(1000):
            step(steps[0])
            steps[0] += 1

counts = [[0], [0]]
other = threading.Thread(target=work, args=(0.5, counts[1]))
other.start()
work(0.5, counts[0])
other.join()
print(counts[0][0] + counts[1][0])
"#;

fn record(folder: &Path, python: &Path, flags: &[&str]) -> (u64, Value) {
    record_program(folder, python, flags, PROGRAM)
}

fn record_program(folder: &Path, python: &Path, flags: &[&str], program: &str) -> (u64, Value) {
    libraries();
    std::fs::write(folder.join("app.py"), program).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let python = python.to_str().unwrap();
    let arguments = [
        &["-o", "raw.parquet", "--python", python],
        flags,
        &["app.py"],
    ]
    .concat();
    let steps = run(env!("CARGO_BIN_EXE_isc-record"), &arguments);
    run(
        env!("CARGO_BIN_EXE_isc-merge"),
        &["raw.parquet", "-o", "t.parquet"],
    );
    let analysis = run(env!("CARGO_BIN_EXE_isc-analyze"), &["t.parquet", "--json"]);
    (
        steps.trim().parse().unwrap(),
        serde_json::from_str(&analysis).unwrap(),
    )
}

fn function<'a>(analysis: &'a Value, name: &str) -> &'a Value {
    let all = analysis["functions"].as_array().unwrap();
    let found = all
        .iter()
        .find(|f| f["name"] == name && f["kind"] == "python");
    found.unwrap_or_else(|| panic!("no {name}"))
}

/// How often each function runs in a step.
const TRUTH: [(&str, u64); 6] = [
    ("tiny", 10),
    ("small", 20),
    ("mid", 10),
    ("recurse", 6),
    ("fails", 1),
    ("step", 1),
];

#[test]
fn hot_functions_are_estimated_near_the_truth_and_rare_ones_are_exact() {
    if common::instrumented("hot_functions_are_estimated_near_the_truth_and_rare_ones_are_exact") {
        return;
    }
    for (python, version) in pythons() {
        let folder = tempfile::tempdir().unwrap();
        let (steps, analysis) = record(folder.path(), python, &["--budget", "1%"]);
        assert!(
            analysis["caveats"].to_string().contains("bursts"),
            "{version:?}: nothing was shed"
        );
        let mut seen = 0;
        for (name, per_step) in TRUTH {
            let f = function(&analysis, name);
            let (calls, truth) = (f["calls"].as_f64().unwrap(), (steps * per_step) as f64);
            let error = f["calls_error"].as_f64().unwrap();
            eprintln!(
                "{version:?} {name}: {:.3} ±{:.3} of {truth}",
                calls / truth,
                error / truth
            );
            // A count, not a promise of how near: on a machine with load 8 one was at 0.28, since its bursts are few
            // and short there.
            assert!(
                (0.1..10.0).contains(&(calls / truth)),
                "{version:?} {name}: {calls} of {truth}"
            );
            assert!(error > 0.0, "{version:?} {name} is an estimate");
            seen += 1;
        }
        assert_eq!(seen, TRUTH.len());
        let (rows, names) = rows(&folder.path().join("t.parquet"));
        let shed = rows.iter().filter(|row| row.kind == Kind::Throttled);
        for row in shed.filter(|row| row.value > Some(100.0)) {
            let args: Value = serde_json::from_str(names.text(row.args.unwrap())).unwrap();
            let of = |key: &str| {
                args[key]
                    .as_f64()
                    .unwrap_or_else(|| panic!("{key}: {args}"))
            };
            let calls = row.value.unwrap();
            assert!(of("calls_low") <= calls && calls <= of("calls_high"));
            let calls = rows.iter().filter(|other| {
                other.kind == Kind::Python
                    && (other.name, other.file, other.line) == (row.name, row.file, row.line)
                    && other.end_ns() <= row.end_ns()
            });
            let said =
                |other: &Event, what| other.args.is_some_and(|a| names.text(a).contains(what));
            let (cut, ended): (Vec<_>, Vec<_>) = calls.partition(|call| said(call, "open"));
            if ended.iter().any(|call| !said(call, "resumed")) {
                assert!(of("time_ns") > 0.0 && of("time_error_ns") > 0.0, "{args}");
            } else {
                assert!(of("seen") <= cut.len() as f64, "{args}"); // none has a known end, so none has a time
            }
        }
        // Before 3.12 no function is spared, and a rare one may run between two slices.
        if *version >= (3, 12) {
            let rare = function(&analysis, "rare");
            assert_eq!(rare["calls"].as_u64().unwrap(), steps / 1000, "{version:?}");
            assert_eq!(rare["calls_error"], 0);
        }
        let events = analysis["recording"]["events"].as_u64().unwrap();
        assert!(
            events < steps * 20,
            "{version:?}: {events} events for {steps} steps"
        );
    }
}

/// Requests of 7 ms with 150 000 short calls a second, whatever the machine: at 1 % these have to be shed (where one costs
/// 53 ns or more, and on quick machines 49 are found before 3.12), but before 3.12 frames still pass the hook (up to
/// 178 000).
const REQUESTS: &str = r#"
import time

def short(x):
    return x + 1

def chunk(end):
    for i in range(40):
        short(i)
    while time.thread_time() < end:
        sum(range(500))

def request():
    begin = time.thread_time()
    for i in range(25):
        chunk(begin + (i + 1) * 40 / 150_000)

requests, end = 0, time.thread_time() + 2
while time.thread_time() < end:
    request()
    requests += 1
print(requests)
"#;

#[test]
fn long_calls_are_all_there_where_short_ones_are_shed() {
    if common::instrumented("long_calls_are_all_there_where_short_ones_are_shed") {
        return;
    }
    let mut shed = Vec::new();
    for (python, version) in pythons() {
        let folder = tempfile::tempdir().unwrap();
        let (requests, analysis) =
            record_program(folder.path(), python, &["--budget", "1%"], REQUESTS);
        let of = |name: &str, key: &str| function(&analysis, name)[key].as_f64().unwrap();
        assert_eq!(of("request", "calls"), requests as f64, "{version:?}");
        assert_eq!(of("request", "calls_error"), 0.0, "{version:?}");
        let truth = (requests * 25 * 40) as f64;
        eprintln!(
            "{version:?} short: {:.3} ±{:.3}",
            of("short", "calls") / truth,
            of("short", "calls_error") / truth
        );
        if of("short", "calls_error") == 0.0 {
            assert_eq!(of("short", "calls"), truth, "{version:?}: all there");
            continue;
        }
        shed.push(*version);
        assert!(
            (0.3..3.0).contains(&(of("short", "calls") / truth)),
            "{version:?}"
        );
    }
    for (_, version) in pythons().iter().filter(|(_, version)| *version >= (3, 12)) {
        assert!(shed.contains(version), "{version:?}: nothing shed");
    }
    assert!(!shed.is_empty(), "nothing shed");
}

/// Frames that the program itself cuts short, suspends or leaves by exceptions while the hook comes and goes.
const TANGLED: &str = r#"
import asyncio, sys, threading, time

def deep(n):
    return deep(n - 1) + 1 if n else 0

def thrown():
    try:
        while True:
            yield 1
    except ValueError:
        yield 2

def catches(n):
    for _ in range(n):
        numbers = thrown()
        next(numbers)
        assert numbers.throw(ValueError()) == 2
        numbers.close()

async def waits(n):
    for _ in range(n):
        await asyncio.sleep(0)

async def serve():
    await asyncio.gather(*[waits(20) for _ in range(10)])

def work(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        assert deep(2000) == 2000
        catches(200)
        asyncio.run(serve())

sys.setrecursionlimit(4000)
threading.stack_size(64 << 20)
others = [threading.Thread(target=work, args=(0.2,)) for _ in range(3)]
for other in others:
    other.start()
for other in others:
    other.join()
print(1)
"#;

#[test]
fn a_program_runs_as_without_us_and_no_span_ends_after_its_thread() {
    for (python, version) in pythons() {
        let folder = tempfile::tempdir().unwrap();
        let (_, analysis) = record_program(folder.path(), python, &["--budget", "1%"], TANGLED);
        for f in analysis["functions"].as_array().unwrap() {
            let (own, total) = (
                f["self_ns"].as_i64().unwrap(),
                f["total_ns"].as_i64().unwrap(),
            );
            assert!(own >= 0 && total >= 0, "{version:?} {f}");
        }
        assert_eq!(analysis["recording"]["lost"], 0, "{version:?}");
    }
}

/// Windows end where something rare is called, which sleeps then: what runs next is not what runs all the time. And more
/// exceptions than the budget can be told of.
const PHASED: &str = r#"
import time

def leaf(x):
    return x

def calm(x):
    return leaf(x)

def raises(x):
    if x & 1:
        raise ValueError(x)
    return x

def through(x):
    return raises(x)

def catches(x):
    try:
        return through(x)
    except ValueError:
        return 0

def sleeps():
    time.sleep(0.001)
    raise KeyError

def work(seconds):
    n, end = 0, time.thread_time() + seconds
    while time.thread_time() < end:
        for i in range(5000):
            calm(i)
            calm(i)
            catches(i)
        n += 5000
        try:
            sleeps()
        except KeyError:
            pass
    return n

print(work(1.0))
"#;

/// The same in another thread, while the main one waits for it.
const PHASED_BESIDE: (&str, &str) = (
    "print(work(1.0))",
    "import threading
found = []
thread = threading.Thread(target=lambda: found.append(work(1.0)))
thread.start()
thread.join()
print(found[0])",
);

#[test]
fn bursts_begin_by_chance_and_frames_whose_end_is_not_told_leave_the_tree_as_it_is() {
    if common::instrumented(
        "bursts_begin_by_chance_and_frames_whose_end_is_not_told_leave_the_tree_as_it_is",
    ) {
        return;
    }
    let beside = PHASED.replace(PHASED_BESIDE.0, PHASED_BESIDE.1);
    let pythons = pythons().iter().filter(|(_, version)| *version >= (3, 12));
    let both = pythons.flat_map(|python| [(python, PHASED), (python, &*beside)]);
    for ((python, version), program) in both {
        let folder = tempfile::tempdir().unwrap();
        let (steps, analysis) = record_program(folder.path(), python, &[], program);
        for (name, per_step) in [("leaf", 2), ("calm", 2), ("catches", 1)] {
            let f = function(&analysis, name);
            let ratio = f["calls"].as_f64().unwrap() / (steps * per_step) as f64;
            eprintln!("{version:?} {name}: {ratio:.3}");
            // With bursts where the windows end: 0.2 to 0.4.
            assert!((0.5..2.0).contains(&ratio), "{version:?} {name}: {ratio}");
        }
        assert_eq!(function(&analysis, "sleeps")["calls"], steps / 5000);
        let (rows, names) = rows(&folder.path().join("t.parquet"));
        let mut untold = 0;
        for row in rows.iter().filter(|row| names.text(row.name) == "sleeps") {
            let args = row.args.map_or("", |args| names.text(args));
            untold += usize::from(args.contains("open"));
            let parent = &rows[usize::try_from(row.parent.unwrap()).unwrap()];
            assert_eq!(names.text(parent.name), "work", "{version:?}");
        }
        assert!(untold > 0, "{version:?}: all exceptions were told");
    }
}

/// So many exceptions that nobody listens, then hardly any: `late` raises ten times a second of CPU time.
const STORM: &str = r#"
import time

def raises():
    raise ValueError

def storm(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        for _ in range(1000):
            try:
                raises()
            except ValueError:
                pass

def late():
    raise KeyError

def busy(x):
    return x

def calm(seconds):
    n, start = 0, time.thread_time()
    while n < seconds * 10:
        while time.thread_time() < start + n / 10:
            for i in range(1000):
                busy(i)
        n += 1
        try:
            late()
        except KeyError:
            pass
    return n

storm(0.5)
print(calm(4))
"#;

#[test]
fn after_a_storm_of_exceptions_they_are_told_again() {
    if common::instrumented("after_a_storm_of_exceptions_they_are_told_again") {
        return;
    }
    let pythons = pythons().iter().filter(|(_, version)| *version >= (3, 12));
    for (python, version) in pythons {
        let folder = tempfile::tempdir().unwrap();
        let (late, analysis) = record_program(folder.path(), python, &[], STORM);
        assert_eq!(function(&analysis, "late")["calls"], late, "{version:?}");
        let (rows, names) = rows(&folder.path().join("t.parquet"));
        let mut calls: Vec<_> = rows
            .iter()
            .filter(|row| names.text(row.name) == "late")
            .collect();
        calls.sort_by_key(|row| row.start_ns);
        let raised = |row: &&&inferscope::trace::Event| {
            row.args
                .is_some_and(|args| names.text(args).contains("raised"))
        };
        let (first, last) = calls.split_at(calls.len() / 2);
        let told = [first, last].map(|half| half.iter().filter(raised).count());
        eprintln!("{version:?}: told of {told:?} in {}", calls.len());
        assert!(told[0] < first.len(), "{version:?}: nothing was too much");
        assert!(told[1] > 0, "{version:?}: nobody listens any more");
    }
}

#[test]
fn exact_means_every_call() {
    for (python, version) in pythons() {
        let folder = tempfile::tempdir().unwrap();
        let (steps, analysis) = record(folder.path(), python, &["--exact"]);
        for (name, per_step) in TRUTH {
            let f = function(&analysis, name);
            assert_eq!(
                f["calls"].as_u64().unwrap(),
                steps * per_step,
                "{version:?} {name}"
            );
            assert_eq!(f["calls_error"], 0, "{version:?} {name}");
        }
    }
}

/// A thread for each request, as socketserver's ThreadingMixIn makes them: none lives for a window.
const SHORT_THREADS: &str = r#"
import threading, time

def tiny(x):
    return x + 1

def small(x):
    s = 0
    for i in range(10):
        s += i * x
    return s

def work():
    end, n = time.thread_time() + 0.002, 0
    while time.thread_time() < end:
        for _ in range(20):
            small(tiny(n))
            n += 1
    total.append(n)

total, end = [], time.process_time() + 1.5
while time.process_time() < end:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
print(sum(total))
"#;

#[test]
fn threads_that_end_before_they_read_a_clock_are_counted_too() {
    if common::instrumented("threads_that_end_before_they_read_a_clock_are_counted_too") {
        return;
    }
    for (python, version) in pythons() {
        let folder = tempfile::tempdir().unwrap();
        let (steps, analysis) = record_program(folder.path(), python, &[], SHORT_THREADS);
        for name in ["tiny", "small"] {
            let f = function(&analysis, name);
            let ratio = f["calls"].as_f64().unwrap() / steps as f64;
            let error = f["calls_error"].as_f64().unwrap() / steps as f64;
            eprintln!("{version:?} {name}: {ratio:.3} ±{error:.3} of {steps}");
            // Without their time it was 0.001.
            assert!((0.3..3.0).contains(&ratio), "{version:?} {name}: {ratio}");
            assert!(error > 0.0, "{version:?} {name} is an estimate");
        }
    }
}

/// Two functions whose calls are far too many to be recorded, and later few and long; one of them goes on for all that
/// time, so that it is only its call that changes.
const CHANGES: &str = r#"
import time

def fold(n):
    return sum(range(n))

def goes_on(end):
    n, many, long = 3, 0, 0
    while time.thread_time() < end:
        len(str(n))
        max(range(n))
        many += 1
        if many == 300_000:
            n = 40_000
        long += n > 3
    return long

end = time.thread_time() + 0.2
while time.thread_time() < end:
    fold(3)
end, long = time.thread_time() + 3, 0
while time.thread_time() < end:
    fold(40_000)
    long += 1
print(long)
print(goes_on(time.thread_time() + 3))
"#;

#[test]
fn what_calms_down_is_recorded_again_with_its_native_calls() {
    if common::instrumented("what_calms_down_is_recorded_again_with_its_native_calls") {
        return;
    }
    for (python, version) in pythons() {
        if *version < (3, 12) {
            continue; // calls of native functions have no events there
        }
        libraries();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("app.py"), CHANGES).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_isc-record"))
            .args(["-o", "raw.parquet", "--python", python.to_str().unwrap()])
            .arg("app.py")
            .current_dir(folder.path())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let long: Vec<usize> = told.lines().map(|line| line.parse().unwrap()).collect();
        let (rows, names) = rows(&folder.path().join("raw.parquet"));
        let found = |name: &str| {
            let mine = |row: &&_| {
                let row: &inferscope::trace::Event = row;
                names.text(row.name) == name && row.dur_ns > Some(100_000)
            };
            rows.iter().filter(mine).count()
        };
        let (fold, sum, max) = (found("fold"), found("builtins.sum"), found("builtins.max"));
        eprintln!(
            "{version:?}: {fold} and {sum} of {}, {max} of {}",
            long[0], long[1]
        );
        // It takes a second or more until they are taken for calm.
        assert!(fold > long[0] / 4, "{version:?}: {fold} of {long:?}");
        assert!(sum > long[0] / 10, "{version:?}: {sum} of {long:?}");
        assert!(max > long[1] / 10, "{version:?}: {max} of {long:?}");
    }
}

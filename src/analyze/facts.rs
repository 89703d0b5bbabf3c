//! Measures to facts, tables, breakdown and verdict.

mod answers;
mod gpu; // facts about devices
mod inside; // facts about what many functions, or libraries, share
mod verdict; // what limits the program
mod wait; // facts about waits
mod work; // facts about steps, requests and memory

use std::collections::BTreeMap;

use serde_json::json;

use super::device::{Gpu, Owner};
use super::lines;
use super::measure::{FunctionKey, FunctionSums, Measures, Own, Thread as Track};
use super::waited::Waits;
use super::*;
use crate::record::WAITING_NAME;
use wait::{is_wait, waits};

/// Steps and functions listed; the rest is below what a reader looks at.
pub(super) const MOST_STEPS: usize = 20;
pub(crate) const MOST_FUNCTIONS: usize = 2000;
const MOST_PATHS: usize = 3000;

/// The category of sampled time: Python, and native code that it calls.
const RUNNING: &str = "running";

/// Names and places that rules can mention, as `{native.top.name}`, and rows that show them.
#[derive(Debug, Default)]
pub struct Texts {
    pub texts: BTreeMap<String, String>,
    /// By the label before `.name`: `native.top`.
    pub rows: BTreeMap<String, i64>,
}

/// The analysis, without findings, and what rules may say of it.
pub fn analysis(m: &Measures) -> (Analysis, Texts) {
    let mut texts = BTreeMap::new();
    let mut rows = BTreeMap::new();
    let span_ns = m.span_ns();
    let steps = steps::steps(m);
    let path = request_path(m, &steps);
    let breakdown = breakdown(m, path);
    let functions = functions(m, path);
    let libraries = libraries(m);
    let mut a = Analysis {
        format: FORMAT.into(),
        span_ns,
        steps,
        devices: m
            .devices
            .by_device
            .iter()
            .map(|(&gpu, work)| Device {
                device: gpu.device,
                owner: owner(m, gpu),
                busy_ns: work.union_ns(),
                span_ns: work.span_ns(),
            })
            .collect(),
        streams: (m.devices.streams.iter())
            .map(|(&(gpu, stream), work)| Stream {
                device: gpu.device,
                owner: owner(m, gpu),
                stream,
                count: work.count,
                busy_ns: work.busy.union_ns(),
                queue_mean: work.queue.mean,
                queue_max: work.queue.max,
                queue_changes: work.queue.changes,
            })
            .collect(),
        processes: processes(m),
        threads: threads(m),
        paths: paths(m),
        lines: lines::table(m),
        recording: Recording {
            events: m.events,
            lost: m.lost,
            cpu_ns: m.recorder_cpu_ns,
        },
        ..Analysis::default()
    };
    let share_of = |wanted: &dyn Fn(&str) -> bool| -> f64 {
        breakdown
            .iter()
            .filter(|s| wanted(&s.category))
            .map(|s| s.share)
            .fold(0.0, |sum, share| sum + share) // `sum` of nothing is -0.0
    };
    let native = share_of(&|c| c.starts_with("native: "));
    let shares = [
        ("native.share", native),
        ("python.share", share_of(&|c| c == "python")),
        ("imports.share", share_of(&|c| c == "import")),
        (
            "startup.share",
            share_of(&|c| c == "startup" || c == "import"),
        ),
        ("gc.share", share_of(&|c| c == "gc")),
        ("wait.share", share_of(&is_wait)),
        ("gil.share", share_of(&|c| c == "gil")),
        ("lock.share", share_of(&|c| c == "lock")),
        ("io.share", share_of(&|c| c == "io")),
        ("sleep.share", share_of(&|c| c == "sleep")),
        ("blocked.share", share_of(&|c| c == "blocked")),
        ("idle.share", share_of(&|c| c == "idle")),
        ("runnable.share", share_of(&|c| c == "runnable")),
        ("unknown.share", share_of(&|c| c == "unknown")),
    ];
    for (name, share) in shares {
        a.facts.insert(name.into(), json!(share));
    }
    let sum = |of: &dyn Fn(&Track) -> i64| -> i64 { m.threads.values().map(of).sum() };
    let cpu: i64 = m.processes.values().filter_map(|p| p.cpu_ns).sum();
    let cpu = if cpu > 0 {
        cpu
    } else {
        sum(&|t| t.cpu_ns.unwrap_or(0))
    };
    let numbers = [
        ("wall.ns", span_ns),
        ("cpu.ns", cpu),
        ("python.self_ns", sum(&|t| t.times.python_ns)),
        ("native.ns", sum(&|t| t.times.native_sum_ns())),
        ("imports.time_ns", sum(&|t| t.times.import_ns)),
        ("gc.time_ns", m.gc_ns),
        ("gc.count", m.gc_count as i64),
        ("wait.native_ns", sum(&|t| t.times.wait_ns)),
        ("wait.blocked_ns", sum(&|t| t.blocked_ns)),
        ("wait.runnable_ns", sum(&|t| t.runnable_ns)),
        ("rss.max_bytes", m.rss_max_bytes),
        ("process.count", m.processes.len() as i64),
        ("thread.count", m.threads.len() as i64),
        ("event.count", m.events as i64),
        ("lost.records", m.lost as i64),
    ];
    for (name, number) in numbers {
        a.facts.insert(name.into(), json!(number));
    }
    gpu::facts(m, &mut a, &mut texts, &mut rows);
    let tops = waits(m, path, &breakdown, &mut a.facts);
    // The hottest native call and Python function of the path, and the function that makes the hottest native
    // calls: sums over many threads would pass the timeline's length, and no gain could be had from them.
    let on_path = functions_of(m, path);
    let hottest = |functions: &[Function], kind: &str, own: &dyn Fn(&Function) -> i64| {
        functions
            .iter()
            .filter(|f| f.kind == kind && own(f) > 0)
            .max_by_key(|f| own(f))
            .cloned()
    };
    let denominator = span_ns.max(1) as f64;
    let mut top = |label: &str, function: Option<Function>, own: &dyn Fn(&Function) -> i64| {
        let share = function
            .as_ref()
            .map_or(0.0, |f| own(f) as f64 / denominator);
        a.facts.insert(format!("{label}.share"), json!(share));
        let Some(f) = function else { return };
        tell(label, &f, &mut texts, &mut rows);
        match f.calls_error {
            Some(_) => a
                .facts
                .insert(format!("{label}.calls"), json!(f.calls))
                .is_some(),
            // samples do not count
            None => texts
                .insert(format!("{label}.calls"), "uncounted".into())
                .is_some(),
        };
        a.facts.insert(format!("{label}.time_ns"), json!(own(&f)));
    };
    let waits = |f: &Function| super::measure::waits(&f.name);
    let waited = |f: &Function| {
        let of = |own: &Own| own.wait_ns - own.idle_ns;
        path.and_then(|track| m.own.get(&(track, f.at)))
            .map_or(0, of)
    };
    // A native call; or, where native calls are not seen, the Python function whose samples are in native code.
    let native = |f: &Function| match f.kind.as_str() {
        "native" if waits(f) => 0,
        "native" => f.self_ns,
        _ => path
            .and_then(|track| m.own.get(&(track, f.at)))
            .map_or(0, |own| own.sampled_ns),
    };
    let native_top = on_path.iter().filter(|f| native(f) > 0);
    let native_top = native_top.max_by_key(|f| native(f)).cloned();
    let asked = native_top.as_ref().map(|top| {
        let own = top.kind == "python" && steps::is_own(top.file.as_deref().unwrap_or(""));
        let caller = inside::caller(m, top.at).filter(|_| !own);
        let called = caller.map_or(top.at, |caller| caller.called);
        let called = on_path.iter().find(|f| f.at == called);
        let called = called.unwrap_or(top);
        let library = !own && called.kind == "python";
        let ns = native(top).max(if library { called.total_ns } else { 0 });
        (called.calls, (ns as f64 / denominator).min(1.0))
    });
    top("native.top", native_top, &native);
    top(
        "wait.top",
        on_path
            .iter()
            .filter(|f| waited(f) > 0)
            .max_by_key(|f| waited(f))
            .cloned(),
        &waited,
    );
    top(
        "python.top",
        hottest(&on_path, "python", &interpreted),
        &interpreted,
    );
    top(
        "caller.top",
        hottest(&on_path, "python", &|f| f.native_ns),
        &|f| f.native_ns,
    );
    top(
        "await.top",
        hottest(&functions, "python", &|f| f.await_ns),
        &|f| f.await_ns,
    );
    if let Some((calls, share)) = asked {
        a.facts.insert("native.asked.calls".into(), json!(calls));
        a.facts.insert("native.asked.share".into(), json!(share));
    }
    texts.extend(tops);
    // Samples see who waits, not in what.
    if texts
        .get("wait.top.name")
        .is_some_and(|name| name == WAITING_NAME)
        && let Some(place) = texts.get("caller.top.where").cloned()
    {
        texts.insert("wait.top.where".into(), place);
    }
    if let Some(library) = libraries.first() {
        texts.insert("native.library".into(), library.library.clone());
    }
    a.verdict = verdict::verdict(m, &a, &breakdown, &texts);
    a.caveats = caveats(m, &breakdown);
    a.functions = functions;
    a.functions.truncate(MOST_FUNCTIONS);
    a.libraries = libraries;
    a.breakdown = breakdown;
    work::facts(m, &mut a, &mut texts, &mut rows);
    let copied: Vec<(Function, i64)> = copied(m, path);
    work::copies(
        &on_path,
        &copied,
        denominator,
        &mut a,
        &mut texts,
        &mut rows,
    );
    work::queries(m, &on_path, denominator, &mut a, &mut texts, &mut rows);
    inside::children(m, path, &mut a, &mut texts, &mut rows);
    answers::answers(m, &mut a, &mut texts, &mut rows);
    inside::prepares(m, path, &mut a, &mut texts, &mut rows);
    inside::formats(m, path, &on_path, &mut a, &mut texts, &mut rows);
    (a, Texts { texts, rows })
}

/// A main thread that works for so much of what the busiest one does is the one that requests come to.
const MAIN: f64 = 0.6;

/// If no thread works for so much of the timeline, all wait.
const BUSY: f64 = 0.5;

/// A thread that waits for work for so much of the timeline serves others.
const SERVES: f64 = 0.02;

/// The thread whose spans fill most of the timeline without waiting, but for the GIL and a processor, which it wants: the
/// one to make faster.
fn request_path(m: &Measures, steps: &[Step]) -> Option<(u32, u64)> {
    let works = |t: &Track| {
        let native: i64 = t.times.native_ns.values().sum();
        let calls: i64 = t.times.calls_ns.values().sum();
        let gil = t.times.waits.get(&Waits::Gil).copied().unwrap_or(0);
        t.times.python_ns + t.times.gc_ns + native + calls + gil
    };
    let busy = |t: &Track| works(t) + t.times.import_ns;
    // Another profiler's Python functions may wait without saying so; a thread that starts device work is no such one.
    let launches = |t: &Track| t.times.calls_ns.contains_key("launch");
    let any = imported(m) && m.threads.values().any(launches);
    // Ties go to the first thread, so that the answer does not depend on anything else.
    let threads = m.threads.iter().rev().filter(|(_, t)| !any || launches(t));
    let best = threads.clone().max_by_key(|(_, t)| busy(t));
    let most = best.map_or(0, |(_, t)| busy(t));
    let main = threads.filter(|((_, tid), t)| *tid == u64::from(t.pid) && !imported(m));
    let main = main.max_by_key(|(_, t)| works(t));
    let main = main.filter(|(_, t)| works(t) as f64 >= MAIN * most as f64);
    // Where all wait for most of the time, it is one that takes the steps.
    let of_steps = || {
        let step = steps::main(steps).filter(|step| step.kind == "function")?;
        let named = |(key, _): &(FunctionKey, FunctionSums)| m.names.text(key.name) == step.scope;
        let function = m.functions.iter().position(named)?;
        let tracks = m
            .own
            .keys()
            .filter(|(_, at)| *at == function)
            .map(|(track, _)| track);
        let threads = tracks.filter_map(|track| Some((track, m.threads.get(track)?)));
        threads.max_by_key(|(track, t)| (works(t), std::cmp::Reverse(**track)))
    };
    let waits = (most as f64) < BUSY * m.span_ns() as f64;
    let of_steps = if waits { of_steps() } else { None };
    // A thread that is asked for work comes before one that always has some of its own.
    let idle = |t: &Track| t.times.waits.get(&Waits::Idle).copied().unwrap_or(0);
    let serving = m.threads.iter().rev().filter(|(_, t)| {
        !imported(m)
            && works(t) as f64 >= MAIN * most as f64
            && idle(t) as f64 > SERVES * m.span_ns() as f64
    });
    let serving = serving.max_by_key(|(_, t)| works(t));
    main.or(of_steps)
        .or(serving)
        .or(best)
        .filter(|(_, t)| t.first_ns.is_some())
        .map(|(track, _)| *track)
}

/// Other profilers recorded all of it.
fn imported(m: &Measures) -> bool {
    !m.processes.is_empty() && m.processes.values().all(|p| p.imported)
}

/// Each instant of the path's thread in one category; the sum is the timeline's length.
fn breakdown(m: &Measures, path: Option<(u32, u64)>) -> Vec<Share> {
    let span_ns = m.span_ns();
    let mut times: BTreeMap<String, i64> = BTreeMap::new();
    if let Some(t) = path.and_then(|track| m.threads.get(&track)) {
        let first = t.first_ns.unwrap_or(m.start_ns);
        let last = t.last_ns.min(m.end_ns);
        if imported(m) {
            // A profiler's window begins and ends in the midst of a program.
            let gpu = |from, to| m.devices.work.within_ns(from, to);
            let outside = gpu(m.start_ns, first) + gpu(last, m.end_ns);
            times.insert("gpu".into(), outside);
        } else {
            times.insert("startup".into(), first - m.start_ns);
            times.insert("exit".into(), m.end_ns - last);
        }
        for (&what, ns) in &t.times.calls_ns {
            times.insert(what.into(), *ns);
        }
        times.insert("import".into(), t.times.import_ns);
        times.insert("gc".into(), t.times.gc_ns);
        for (library, ns) in &t.times.native_ns {
            times.insert(format!("native: {library}"), *ns);
        }
        for (waits, ns) in &t.times.waits {
            times.insert(waits.word().into(), *ns);
        }
        // Time without a processor lies in Python and native code alike.
        let python = t.times.python_ns;
        let native: i64 = t.times.native_ns.values().sum();
        let running = (python + native).max(1);
        let runnable = t.runnable_ns.min(running);
        let left = 1.0 - runnable as f64 / running as f64;
        let category = if m.stacks { RUNNING } else { "python" };
        times.insert(category.into(), (python as f64 * left) as i64);
        for (_, ns) in times
            .iter_mut()
            .filter(|(name, _)| name.starts_with("native: "))
        {
            *ns = (*ns as f64 * left) as i64;
        }
        times.insert("runnable".into(), runnable);
    }
    let known: i64 = times.values().sum();
    times.insert("unknown".into(), (span_ns - known).max(0));
    // Spans of a damaged trace may claim more than there is: scaled, so that the sum still holds.
    if known > span_ns && known > 0 {
        for ns in times.values_mut() {
            *ns = (*ns as i128 * i128::from(span_ns) / i128::from(known)) as i64;
        }
        let rest = span_ns - times.values().sum::<i64>();
        *times.entry("unknown".into()).or_default() += rest;
    }
    let mut shares: Vec<Share> = times
        .into_iter()
        .filter(|(_, ns)| *ns > 0)
        .map(|(category, time_ns)| Share {
            category,
            time_ns,
            share: time_ns as f64 / span_ns.max(1) as f64,
        })
        .collect();
    shares.sort_by(|a, b| b.time_ns.cmp(&a.time_ns).then(a.category.cmp(&b.category)));
    shares
}

fn caveats(m: &Measures, breakdown: &[Share]) -> Vec<String> {
    let mut caveats = Vec::new();
    let started = m.devices.launch_delays_ns.len() as u64;
    if m.devices.captured() {
        caveats.push(format!(
            "{} launches started nothing on a device ({started} did): a graph was captured, and that the GPU is idle says nothing",
            m.devices.unstarted
        ));
    }
    if m.lost > 0 {
        caveats.push(format!(
            "{} records were lost: sums are too low by what they held",
            m.lost
        ));
    }
    for share in breakdown
        .iter()
        .filter(|s| s.category == "unknown" && s.share > 0.1)
    {
        caveats.push(format!(
            "{:.0} % of the request path's time is unknown",
            100.0 * share.share
        ));
    }
    if let Some(rate) = m.sampled_hz {
        caveats.push(format!(
            "stacks were sampled at {rate} Hz: times are estimates, one span's to ±{} ms, sums with a 95 % interval; calls are not counted (≥), native code is not told from Python",
            (1000.0 / rate).ceil()
        ));
    }
    let estimated = m.functions.iter().filter(|(_, sums)| sums.calls_error > 0);
    let estimated = estimated.count();
    if estimated > 0 {
        caveats.push(format!(
            "{estimated} functions were recorded in bursts to keep the budget: their calls and times are estimates (≈); isc-record \
             --exact records all"
        ));
    }
    caveats.extend(ended::caveats(m));
    for p in m.processes.values() {
        if !p.covered {
            let reason = p.reason.as_deref().unwrap_or("the reason is not known");
            caveats.push(format!(
                "{} (pid {}) was not covered: {reason}",
                p.name, p.pid
            ));
        }
        caveats.extend(
            p.notes
                .iter()
                .map(|note| format!("{} (pid {}): {note}", p.name, p.pid)),
        );
    }
    caveats
}

/// Interpreter time of its own.
fn interpreted(f: &Function) -> i64 {
    f.self_ns - f.native_ns - f.wait_ns
}

/// Names a function under this label.
fn tell(
    label: &str,
    f: &Function,
    texts: &mut BTreeMap<String, String>,
    rows: &mut BTreeMap<String, i64>,
) {
    texts.insert(format!("{label}.name"), f.name.clone());
    texts.insert(format!("{label}.where"), place_of(f));
    rows.insert(label.into(), f.row);
}

/// Name, file and line.
fn place_of(f: &Function) -> String {
    match (&f.file, f.line) {
        (Some(file), Some(line)) => format!("{} ({file}:{line})", f.name),
        (Some(file), None) => format!("{} ({file})", f.name),
        _ => f.name.clone(),
    }
}

/// Whose a device is, where devices have several owners.
fn owner(m: &Measures, gpu: Gpu) -> Owner {
    let mut gpus = m.devices.by_device.keys();
    let several = gpus.any(|other| other.owner != gpu.owner);
    let owner = m.devices.owners.get(gpu.owner).filter(|_| several);
    owner.cloned().unwrap_or_default()
}

fn function(m: &Measures, at: usize, key: &FunctionKey, sums: &FunctionSums) -> Function {
    Function {
        at,
        name: m.names.text(key.name).to_owned(),
        file: key.file.map(|file| m.names.text(file).to_owned()),
        line: key.line,
        kind: key.kind.as_str().into(),
        calls: sums.calls,
        calls_error: (!sums.sampled).then_some(sums.calls_error),
        total_ns: sums.total_ns,
        self_ns: sums.self_ns,
        native_ns: sums.native_ns,
        wait_ns: sums.wait_ns,
        await_ns: sums.await_ns,
        error_ns: sums.error_ns,
        row: sums.longest.0,
        path_ns: 0,
    }
}

/// The functions as one thread alone had them, in the order of first appearance.
fn functions_of(m: &Measures, path: Option<(u32, u64)>) -> Vec<Function> {
    let on_path = |(at, (key, sums)): (usize, &(FunctionKey, FunctionSums))| {
        let own = m.own.get(&(path?, at))?;
        Some(Function {
            calls: own.calls,
            self_ns: own.self_ns,
            native_ns: own.native_ns,
            wait_ns: own.wait_ns,
            ..function(m, at, key, sums)
        })
    };
    (m.functions.iter().enumerate())
        .filter_map(on_path)
        .collect()
}

/// Functions of a thread in which the interpreter copies memory, and for how long. Where most of what is sampled there is in
/// libraries, they copy.
fn copied(m: &Measures, path: Option<(u32, u64)>) -> Vec<(Function, i64)> {
    let on_path = m.copied.iter().filter(|(key, ns)| {
        let sampled_ns = m.own.get(key).map_or(0, |own| own.sampled_ns);
        Some(key.0) == path && 2 * **ns > sampled_ns
    });
    let one = on_path.map(|(&(_, at), &ns)| {
        let (key, sums) = &m.functions[at];
        (function(m, at, key, sums), ns.min(sums.self_ns))
    });
    one.collect()
}

fn functions(m: &Measures, path: Option<(u32, u64)>) -> Vec<Function> {
    let on_path = |at| path.and_then(|track| m.own.get(&(track, at)));
    let mut all: Vec<Function> = (m.functions.iter().enumerate())
        .map(|(at, (key, sums))| Function {
            path_ns: on_path(at).map_or(0, |own| own.self_ns - own.idle_ns),
            ..function(m, at, key, sums)
        })
        .collect();
    all.sort_by(|a, b| {
        b.self_ns
            .cmp(&a.self_ns)
            .then_with(|| (&a.name, &a.file, a.line).cmp(&(&b.name, &b.file, b.line)))
    });
    all
}

fn libraries(m: &Measures) -> Vec<Library> {
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for (library, ns) in m
        .threads
        .values()
        .flat_map(|t| t.times.native_ns.iter().chain(&t.times.outside_ns))
    {
        *sums.entry(library).or_default() += ns;
    }
    let mut all: Vec<Library> = sums
        .into_iter()
        .map(|(library, native_ns)| Library {
            library: library.to_owned(),
            native_ns,
        })
        .collect();
    all.sort_by(|a, b| {
        b.native_ns
            .cmp(&a.native_ns)
            .then(a.library.cmp(&b.library))
    });
    all
}

fn processes(m: &Measures) -> Vec<Process> {
    let native = |process: u32| -> i64 {
        let threads = m.threads.iter().filter(|((owner, _), _)| *owner == process);
        threads.map(|(_, t)| t.times.native_sum_ns()).sum()
    };
    m.processes
        .iter()
        .map(|(&process, p)| Process {
            process,
            name: p.name.clone(),
            pid: p.pid,
            python: p.python.clone(),
            covered: p.covered,
            reason: p.reason.clone(),
            start_ns: p.start_ns,
            dur_ns: p.dur_ns,
            cpu_ns: p.cpu_ns,
            native_ns: native(process),
        })
        .collect()
}

fn threads(m: &Measures) -> Vec<Thread> {
    m.threads
        .iter()
        .filter(|(_, t)| t.first_ns.is_some() || t.cpu_ns.is_some())
        .map(|(&(process, tid), t)| Thread {
            process,
            tid,
            name: t.name.clone(),
            cpu_ns: t.cpu_ns,
            python_ns: t.times.python_ns,
            native_ns: t.times.native_sum_ns(),
            runnable_ns: t.runnable_ns,
            blocked_ns: t.blocked_ns,
            waits: (t.seen.iter())
                .map(|(waits, ns)| (waits.word().to_owned(), *ns))
                .collect(),
        })
        .collect()
}

fn paths(m: &Measures) -> Vec<Path> {
    let mut heavy: Vec<usize> = (0..m.paths.len())
        .filter(|&at| m.paths[at].self_ns > 0)
        .collect();
    heavy.sort_by_key(|&at| (std::cmp::Reverse(m.paths[at].self_ns), at));
    heavy.truncate(MOST_PATHS);
    let frames = |mut at: usize| {
        let mut frames = vec![m.name(m.paths[at].function).to_owned()];
        while let Some(parent) = m.paths[at].parent {
            frames.push(m.name(m.paths[parent].function).to_owned());
            at = parent;
        }
        frames.reverse();
        frames
    };
    heavy
        .into_iter()
        .map(|at| Path {
            frames: frames(at),
            self_ns: m.paths[at].self_ns,
        })
        .collect()
}

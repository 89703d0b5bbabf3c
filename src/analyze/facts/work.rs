//! Facts about the program's work: its steps, requests and tokens, and what it does to memory.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::device::percentile;
use super::super::measure::{FunctionKey, FunctionSums, Measures};
use super::super::{Analysis, Function, Step, rising, steps};
use super::tell;
use crate::trace::Kind;

/// Memory that a program takes while it starts does not count as growth: up to this part of the run.
const SETTLED: f64 = 0.4;

/// Memory comes and goes if a process gives back one part in so many of the most it has, and so much.
const CHURN: i64 = 8;
const CHURN_BYTES: i64 = 32 << 20;

/// What a first touch of a page costs, the fault and its zeroing, where the recorder has not measured it: lmbench's
/// lat_pagefault gives 200 to 700 ns on machines that are no guests.
const FAULT_NS: f64 = 400.0;

fn put(facts: &mut BTreeMap<String, Value>, name: &str, value: Value) {
    facts.insert(name.into(), value);
}

fn percentiles(facts: &mut BTreeMap<String, Value>, label: &str, mut values: Vec<i64>) {
    if values.is_empty() {
        return;
    }
    values.sort_unstable();
    for n in [50, 90, 99] {
        put(
            facts,
            &format!("{label}_p{n}"),
            json!(percentile(&values, n)),
        );
    }
}

/// Facts of the main step, and the share of the timeline in which the program does its work.
pub(super) fn facts(
    m: &Measures,
    a: &mut Analysis,
    texts: &mut BTreeMap<String, String>,
    rows: &mut BTreeMap<String, i64>,
) {
    let span = m.span_ns().max(1) as f64;
    let facts = &mut a.facts;
    let of = |facts: &BTreeMap<String, Value>, name: &str| {
        facts.get(name).and_then(Value::as_f64).unwrap_or(0.0)
    };
    let exit = a.breakdown.iter().find(|s| s.category == "exit");
    let idle = of(facts, "idle.share");
    let started = 1.0 - of(facts, "startup.share") - exit.map_or(0.0, |s| s.share);
    let mut work = (started - idle).max(0.01);
    let mut steps_count = 0;
    if let Some(step) = steps::main(&a.steps) {
        steps_count = step.count;
        texts.insert("step.name".into(), step.scope.clone());
        let mut functions = m.functions.iter().filter(|_| step.kind == "function");
        if let Some((_, sums)) = functions.find(|(key, _)| m.names.text(key.name) == step.scope) {
            rows.insert("step.longest".into(), sums.longest.0);
        }
        let covered = steps::covered_ns(step) as f64 / span;
        if covered > work / 2.0 {
            work = covered.min(1.0);
        }
        let warm = steps::warmups(step);
        let mut durations: Vec<i64> = step.spans[warm..].iter().map(|(_, ns)| *ns).collect();
        durations.sort_unstable();
        let sum: i64 = durations.iter().sum();
        let mean = sum as f64 / durations.len().max(1) as f64;
        put(facts, "step.count", json!(step.count));
        put(facts, "step.total_ns", json!(step.total_ns));
        put(facts, "step.share", json!(covered));
        put(facts, "step.warmup.count", json!(warm));
        put(facts, "step.dur_ns_max", json!(durations.last()));
        let median = percentile(&durations, 50);
        put(facts, "step.jitter", json!(mean / median.max(1) as f64));
        let long = steps::long(step);
        put(facts, "step.long.count", json!(long.count));
        put(facts, "step.long.share", json!(long.share));
        put(facts, "step.long.excess.share", json!(long.excess));
        put(facts, "step.long.regular.share", json!(long.regular));
        percentiles(facts, "step.dur_ns", durations);
        // All calls of the program are looked at for it: only where long steps matter.
        let alone = (long.excess > TOLD).then(|| alone_in_long(m, step, median));
        let place = |at: Option<usize>| match at {
            Some(at) => {
                let (key, sums) = &m.functions[at];
                super::place_of(&super::function(m, at, key, sums))
            }
            None => step.scope.clone(),
        };
        texts.insert("step.long.where".into(), place(alone.flatten()));
        let rise = rising::rise(step);
        put(facts, "step.rise.ratio", json!(rise.ratio));
        put(facts, "step.rise.share", json!(rise.share));
        put(facts, "step.rise.first_ns", json!(rise.first_ns));
        put(facts, "step.rise.last_ns", json!(rise.last_ns));
        // As there: all calls are looked at for it.
        let rises = (rise.ratio > RISEN).then(|| rising::place(m, step));
        texts.insert("step.rise.where".into(), place(rises.flatten()));
    }
    put(facts, "work.share", json!(work));
    if let Some((load, ns)) = loading(m, &a.steps) {
        put(facts, "load.time_ns", json!(ns));
        put(facts, "load.share", json!(ns as f64 / span));
        let (key, sums) = &m.functions[load];
        let load = super::function(m, load, key, sums);
        tell("load", &load, texts, rows);
    }
    requests(m, facts, span);
    memory(m, facts, steps_count, span);
}

/// What long steps do and others do not is looked for where so much of all time is what they take more than the median. It
/// takes so much of that, and so little of the time of others.
const TOLD: f64 = 0.05;
const OF_EXCESS: f64 = 0.5;
const ELSEWHERE: f64 = 0.2;

/// What makes steps longer is looked for where half of them take so many times what one takes at the start.
const RISEN: f64 = 1.2;

/// The innermost function that nearly all long steps spend their time in, and hardly any other step does.
fn alone_in_long(m: &Measures, step: &Step, median: i64) -> Option<usize> {
    let long = steps::long_spans(step);
    let counted_ns = step.spans[steps::warmups(step)..]
        .first()
        .map_or(0, |s| s.0);
    let excess: i64 = long.iter().map(|(_, dur)| dur - median).sum();
    let is_in = |start: i64| {
        let at = long.partition_point(|(from, _)| *from <= start);
        let step = long[..at].last();
        step.is_some_and(|(from, dur)| start < from + dur)
    };
    let is = |(at, (key, sums)): (usize, &(FunctionKey, FunctionSums))| {
        let python = key.kind == Kind::Python && m.names.text(key.name) != step.scope;
        if !python || sums.too_many || !steps::is_own(key.file.map_or("", |f| m.names.text(f))) {
            return None;
        }
        let (mut inside, mut outside) = (0, 0);
        for (start, dur) in sums.spans.iter().filter(|(start, _)| *start >= counted_ns) {
            match is_in(*start) {
                true => inside += dur,
                false => outside += dur,
            }
        }
        let most = inside as f64 > OF_EXCESS * excess as f64;
        (most && (outside as f64) < ELSEWHERE * inside as f64).then_some((inside, at))
    };
    let all = m.functions.iter().enumerate().filter_map(is);
    all.min().map(|(_, at)| at)
}

/// What makes something ready, by words of its name.
const LOADS: [&str; 14] = [
    "__init__", "__new__", "load", "init", "setup", "set_up", "build", "compile", "warm",
    "prepare", "open", "create", "connect", "restore",
];
/// Of the time behind it, how much the steps fill that it makes ready for, and how many there are at least.
const FILLS: f64 = 0.6;
const FOLLOW: u64 = 10;
/// Of the time until it ends, how much it takes.
const MOST_OF_START: f64 = 0.6;

/// The function that a program spends its start in before it does what it does again and again: called once, and named as
/// what makes something ready is. A phase of a batch job has another name, or is called more often.
fn loading(m: &Measures, all: &[Step]) -> Option<(usize, i64)> {
    let works_from = |at_ns: i64| {
        let rest = (m.end_ns - at_ns).max(1) as f64;
        all.iter().any(|step| {
            let spans = &step.spans[step.spans.partition_point(|(start, _)| *start < at_ns)..];
            spans.len() as u64 >= FOLLOW && steps::union_ns(spans) as f64 > FILLS * rest
        })
    };
    let is_ready = |(at, (key, sums)): (usize, &(FunctionKey, FunctionSums))| {
        let [(start, dur)] = sums.spans[..] else {
            return None;
        };
        let name = m.names.text(key.name).to_lowercase();
        let last = name.rsplit('.').next().unwrap_or("");
        let loads = LOADS.iter().any(|word| last.contains(word));
        let file = key.file.map_or("", |file| m.names.text(file));
        let own = key.kind == Kind::Python && steps::is_own(file);
        let before = (start + dur - m.start_ns).max(1) as f64;
        let most = dur as f64 > MOST_OF_START * before;
        (loads && own && most && works_from(start + dur)).then_some((at, dur))
    };
    // of several within each other, the outermost
    (m.functions.iter().enumerate())
        .filter_map(is_ready)
        .max_by_key(|(_, dur)| *dur)
}

/// Functions that copy what they are given, by the end of their names.
const COPIES: [&str; 29] = [
    "bytes",
    "bytes.join",
    "bytearray.join",
    "bytearray.extend",
    "bytearray.copy",
    "memoryview.tobytes",
    "copy.copy",
    "copy.deepcopy",
    "ndarray.copy",
    "ndarray.tobytes",
    "ndarray.astype",
    "numpy.array",
    "numpy.concatenate",
    "numpy.ascontiguousarray",
    "numpy.stack",
    "pickle.dumps",
    "_pickle.dumps",
    "_pickle.loads",
    "ndarray.tolist",
    "ndarray.flatten",
    "numpy.copy",
    "numpy.vstack",
    "numpy.hstack",
    "numpy.append",
    "numpy.fromiter",
    "_pickle.Pickler.dump",
    "_pickle.Unpickler.load",
    "array.tolist",
    "array.tobytes",
];

/// What calls that copy take on the path, and what the interpreter itself copies; most of it where.
pub(super) fn copies(
    on_path: &[Function],
    copied: &[(Function, i64)],
    span: f64,
    a: &mut Analysis,
    texts: &mut BTreeMap<String, String>,
    rows: &mut BTreeMap<String, i64>,
) {
    let is = |name: &str| {
        COPIES.iter().any(|copy| {
            let rest = name.strip_suffix(copy);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    };
    // `copy.deepcopy` and what it calls, which is Python
    let deep = |f: &Function| {
        let file = f.file.as_deref().unwrap_or("");
        f.kind == "python" && file.ends_with("/copy.py") && file.contains("/lib/python3")
    };
    let copies = (on_path.iter()).filter(|f| f.kind == "native" && is(&f.name) || deep(f));
    let own = copied.iter().filter(|(f, _)| !deep(f));
    let own_ns: i64 = own.map(|(_, ns)| ns).sum();
    let time_ns: i64 = own_ns + copies.clone().map(|f| f.self_ns).sum::<i64>();
    let calls: u64 = copies.clone().map(|f| f.calls).sum();
    let python = copies.clone().filter(|f| deep(f)).map(super::interpreted);
    let python_ns: i64 = python.sum();
    put(&mut a.facts, "host.copy.time_ns", json!(time_ns));
    put(&mut a.facts, "host.copy.calls", json!(calls));
    put(
        &mut a.facts,
        "host.copy.python.share",
        json!(python_ns as f64 / span),
    );
    put(
        &mut a.facts,
        "host.copy.share",
        json!(time_ns as f64 / span),
    );
    let calls = copies.map(|f| (f, f.self_ns));
    let most = calls
        .chain(copied.iter().map(|(f, ns)| (f, *ns)))
        .max_by_key(|(_, ns)| *ns);
    if let Some((most, _)) = most {
        tell("host.copy", most, texts, rows);
    }
}

/// Statements of a step in one function from which on they are statement by statement: one that asks once or twice asks for
/// all that it needs.
const SINGLY: f64 = 3.0;

/// What the path asks a database, statement by statement: how often, and the time of the functions that do.
pub(super) fn queries(
    m: &Measures,
    on_path: &[Function],
    span: f64,
    a: &mut Analysis,
    texts: &mut BTreeMap<String, String>,
    rows: &mut BTreeMap<String, i64>,
) {
    let asks = |native: usize| m.name(native).ends_with(".execute");
    let mut per_call: BTreeMap<usize, f64> = BTreeMap::new();
    for (&(function, native), often) in &m.calls {
        if asks(native) {
            // One that shows a loop has a loop where its call sites were dropped, too.
            let looped = often.shown >= SINGLY;
            *per_call.entry(function).or_default() += if looped { often.shown } else { often.mean };
        }
    }
    let steps = a.facts.get("step.count").and_then(Value::as_f64);
    let steps = steps.unwrap_or(1.0).max(1.0);
    let asking = on_path
        .iter()
        .filter_map(|f| Some((f, per_call.get(&f.at)?)))
        .filter(|(f, calls)| f.calls as f64 * **calls >= SINGLY * steps);
    let asking: Vec<(&Function, &f64)> = asking.collect();
    let Some((most, _)) = asking.iter().max_by_key(|(f, _)| f.self_ns) else {
        return;
    };
    let count: f64 = asking
        .iter()
        .map(|(f, calls)| f.calls as f64 * **calls)
        .sum();
    let time_ns: i64 = asking.iter().map(|(f, _)| f.self_ns).sum();
    put(&mut a.facts, "query.count", json!(count.round() as i64));
    put(&mut a.facts, "query.per_step", json!(count / steps));
    put(&mut a.facts, "query.time_ns", json!(time_ns));
    put(&mut a.facts, "query.share", json!(time_ns as f64 / span));
    tell("query", most, texts, rows);
}

fn requests(m: &Measures, facts: &mut BTreeMap<String, Value>, span: f64) {
    let r = &m.requests;
    let seconds = span / 1e9;
    if !r.requests.is_empty() {
        put(facts, "request.count", json!(r.requests.len()));
        put(
            facts,
            "request.per_s",
            json!(r.requests.len() as f64 / seconds),
        );
        let durations = r.requests.iter().map(|r| r.end_ns - r.start_ns).collect();
        percentiles(facts, "request.dur_ns", durations);
    }
    let times = r.times();
    if times.tokens > 0 {
        put(facts, "token.count", json!(times.tokens));
        put(facts, "token.per_s", json!(times.tokens as f64 / seconds));
    }
    percentiles(facts, "request.ttft_ns", times.ttft_ns);
    percentiles(facts, "request.tpot_ns", times.tpot_ns);
    percentiles(facts, "token.itl_ns", times.itl_ns);
    let both = (r.prefill.iter().chain(&r.decode).sum::<i64>()).max(1) as f64;
    for (label, phase) in [("prefill", &r.prefill), ("decode", &r.decode)] {
        if phase.is_empty() {
            continue;
        }
        let mut sorted = phase.clone();
        sorted.sort_unstable();
        put(facts, &format!("{label}.count"), json!(sorted.len()));
        put(
            facts,
            &format!("{label}.dur_ns_p50"),
            json!(percentile(&sorted, 50)),
        );
        let share = sorted.iter().sum::<i64>() as f64 / both;
        put(facts, &format!("{label}.share"), json!(share));
    }
    if let Some(max) = r.batches.iter().max() {
        let mean = r.batches.iter().sum::<u64>() as f64 / r.batches.len() as f64;
        put(facts, "batch.max", json!(max));
        put(facts, "batch.mean", json!(mean));
    }
}

fn memory(m: &Measures, facts: &mut BTreeMap<String, Value>, steps: u64, span: f64) {
    let at = |part: f64| m.start_ns + (part * span) as i64;
    // The least in a stretch of time: what is freed again is no growth.
    let least = |series: &[(i64, i64)], from: f64, to: f64| {
        let before = series.partition_point(|(time, _)| *time <= at(from)).max(1) - 1;
        let after = series.partition_point(|(time, _)| *time <= at(to));
        series[before..after.max(before + 1)]
            .iter()
            .map(|(_, bytes)| *bytes)
            .min()
    };
    let growth = |series: &Vec<(i64, i64)>| {
        if series.is_empty() {
            return None;
        }
        let before = least(series, SETTLED - 0.1, SETTLED + 0.1)?;
        Some((least(series, 0.8, 1.0)? - before, before))
    };
    let most = m.rss_bytes.values().filter_map(growth).max();
    if let Some((bytes, before)) = most {
        put(facts, "memory.growth_bytes", json!(bytes));
        put(
            facts,
            "memory.growth.share",
            json!(bytes as f64 / before.max(1) as f64),
        );
        // Of the steps between: from the beginning of the first stretch to that of the last.
        let each = bytes as f64 / (steps as f64 / 2.0).max(1.0);
        put(facts, "memory.growth.per_step_bytes", json!(each as i64));
    }
    let since = at(SETTLED);
    let grown = |series: &Vec<(i64, i64)>| {
        let at = series.partition_point(|(at, _)| *at <= since);
        let before = series[..at].last().or(series.first())?;
        Some(series.last()?.1 - before.1)
    };
    let most = m
        .faults
        .iter()
        .filter_map(|(process, series)| Some((grown(series)?, process)));
    if let Some((count, process)) = most.max() {
        let mut ns = (count as f64 * m.fault_ns.unwrap_or(FAULT_NS)) as i64;
        // Where much memory comes and goes, the kernel gives it out in large pages: few faults that zero 2 MiB each. Nobody
        // counts those apart, but the time in the kernel is theirs.
        let rss = m.rss_bytes.get(process).map_or(&[][..], Vec::as_slice);
        let since = rss.partition_point(|(at, _)| *at <= since).max(1) - 1;
        let sizes = &rss[since.min(rss.len())..];
        let most = sizes.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0);
        let freed: i64 = (sizes.windows(2).map(|pair| (pair[0].1 - pair[1].1).max(0))).sum();
        if freed > (most / CHURN).max(CHURN_BYTES) {
            let system = m.system_ns.get(process).and_then(grown);
            ns = ns.max(system.unwrap_or(0));
        }
        put(facts, "fault.count", json!(count));
        put(facts, "fault.time_ns", json!(ns));
        put(
            facts,
            "fault.share",
            json!(ns as f64 / ((1.0 - SETTLED) * span)),
        );
    }
}

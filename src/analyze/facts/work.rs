//! Facts about the program's work: its steps, requests and tokens, and what it does to memory.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::device::percentile;
use super::super::measure::Measures;
use super::super::{Analysis, Function, steps};

/// Memory that a program takes while it starts does not count as growth: up to this part of the run.
const SETTLED: f64 = 0.4;

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
    }
    put(facts, "work.share", json!(work));
    requests(m, facts, span);
    memory(m, facts, steps_count, span);
}

/// Functions that copy what they are given, by the end of their names.
const COPIES: [&str; 19] = [
    "bytes",
    "bytes.join",
    "str.join",
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
    let own_ns: i64 = copied.iter().map(|(_, ns)| ns).sum();
    let time_ns: i64 = own_ns + copies.clone().map(|f| f.self_ns).sum::<i64>();
    let calls: u64 = copies.clone().map(|f| f.calls).sum();
    put(&mut a.facts, "host.copy.time_ns", json!(time_ns));
    put(&mut a.facts, "host.copy.calls", json!(calls));
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
        texts.insert("host.copy.name".into(), most.name.clone());
        texts.insert("host.copy.where".into(), super::place_of(most));
        rows.insert("host.copy".into(), most.row);
    }
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
    let since = m.start_ns + (SETTLED * span) as i64;
    let growth = |series: &Vec<(i64, i64)>| {
        let at = series.partition_point(|(at, _)| *at <= since);
        let before = series[..at].last().or(series.first())?;
        Some((series.last()?.1 - before.1, before.1))
    };
    let most = m.rss_bytes.values().filter_map(growth).max();
    if let Some((bytes, before)) = most {
        put(facts, "memory.growth_bytes", json!(bytes));
        put(
            facts,
            "memory.growth.share",
            json!(bytes as f64 / before.max(1) as f64),
        );
        // Of the steps in that part of the run.
        let each = bytes as f64 / (steps as f64 * (1.0 - SETTLED)).max(1.0);
        put(facts, "memory.growth.per_step_bytes", json!(each as i64));
    }
    let faults = |series: &Vec<(i64, i64)>| {
        let at = series.partition_point(|(at, _)| *at <= since);
        let before = series[..at].last().or(series.first())?;
        Some(series.last()?.1 - before.1)
    };
    if let Some(count) = m.faults.values().filter_map(faults).max() {
        let ns = (count as f64 * m.fault_ns.unwrap_or(FAULT_NS)) as i64;
        put(facts, "fault.count", json!(count));
        put(facts, "fault.time_ns", json!(ns));
        put(
            facts,
            "fault.share",
            json!(ns as f64 / ((1.0 - SETTLED) * span)),
        );
    }
}

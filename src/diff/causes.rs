//! Where the time of a step or run went before and after: categories of the path, causes of gaps; and facts and findings.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Cause, FLOOR, Fact, Findings, Unit};
use crate::analyze::Analysis;

/// Categories that lie outside of steps.
pub(super) const ONCE: [&str; 3] = ["startup", "import", "exit"];

/// The least change of a share that is called one.
const LEAST_SHARE: f64 = 0.005;

/// Kinds of waits that have an error of their own, `wait.error_ns`.
const ESTIMATED: [&str; 4] = ["wait.gil_ns", "wait.lock_ns", "wait.io_ns", "wait.sleep_ns"];

/// The path's time by category.
pub(super) fn breakdown(a: &Analysis, b: &Analysis, unit: &Unit) -> Vec<Cause> {
    let times = |run: &Analysis| -> BTreeMap<String, i64> {
        let shares = run.breakdown.iter();
        shares.map(|s| (s.category.clone(), s.time_ns)).collect()
    };
    causes(times(a), times(b), unit)
}

/// Idle time of all devices by cause.
pub(super) fn gaps(a: &Analysis, b: &Analysis, unit: &Unit) -> Vec<Cause> {
    let times = |run: &Analysis| -> BTreeMap<String, i64> {
        let all = run.gaps.iter().filter(|gap| gap.device == "all");
        all.map(|gap| (gap.cause.clone(), gap.time_ns)).collect()
    };
    causes(times(a), times(b), unit)
}

fn causes(a: BTreeMap<String, i64>, b: BTreeMap<String, i64>, unit: &Unit) -> Vec<Cause> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let cause = |name: &String| {
        let sum = |run: &BTreeMap<String, i64>| run.get(name).copied().unwrap_or(0);
        let (a_ns, b_ns) = match ONCE.contains(&name.as_str()) {
            true => unit.per_once(sum(&a), sum(&b)),
            false => unit.per(sum(&a), sum(&b)),
        };
        Cause {
            cause: name.clone(),
            a_ns,
            b_ns,
            change_ns: b_ns - a_ns,
            share: 0.0,
        }
    };
    let mut causes: Vec<Cause> = names.into_iter().map(cause).collect();
    let all: i64 = causes.iter().map(|cause| cause.change_ns.abs()).sum();
    for cause in &mut causes {
        cause.share = cause.change_ns.abs() as f64 / all.max(1) as f64;
    }
    causes.sort_by_key(|cause| -cause.change_ns.abs()); // stable: ties by name
    causes
}

/// Facts that differ by more than the floor, and more than their error where they have one.
pub(super) fn facts(a: &Analysis, b: &Analysis) -> BTreeMap<String, Fact> {
    let number = |run: &Analysis, name: &str| run.facts.get(name).and_then(Value::as_f64);
    let error = |run: &Analysis| number(run, "wait.error_ns").unwrap_or(0.0);
    let error = error(a).hypot(error(b));
    let names: BTreeSet<&String> = a.facts.keys().chain(b.facts.keys()).collect();
    let changed = |name: &&String, fact: &Fact| match (fact.a, fact.b) {
        (Some(a), Some(b)) => {
            let size = (b - a).abs();
            let within = ESTIMATED.contains(&name.as_str()) && size <= error;
            let small = name.ends_with("share") && size < LEAST_SHARE;
            !within && !small && size > FLOOR * a.abs().max(b.abs())
        }
        (a, b) => a.is_some() || b.is_some(),
    };
    let fact = |name: &String| Fact {
        a: number(a, name),
        b: number(b, name),
    };
    let all = names.into_iter().map(|name| (name, fact(name)));
    let changed = all.filter(|(name, fact)| changed(name, fact));
    changed.map(|(name, fact)| (name.clone(), fact)).collect()
}

/// Findings in one of the two.
pub(super) fn findings(a: &Analysis, b: &Analysis) -> Findings {
    let ids = |run: &Analysis| -> BTreeSet<String> {
        run.findings
            .iter()
            .map(|finding| finding.id.clone())
            .collect()
    };
    let (a, b) = (ids(a), ids(b));
    Findings {
        added: b.difference(&a).cloned().collect(),
        removed: a.difference(&b).cloned().collect(),
    }
}

//! The diff in one sentence: how much slower or faster, how sure that is, and what most of it is.

use super::causes::ONCE;
use super::{Change, Diff, FLOOR, Function, Own, Step, Verdict, steps};
use crate::report::units::{count, line, time};

/// From this share on a cause is most of the change.
const MOST: f64 = 0.5;

/// Below this share it is not worth a name.
const LEAST: f64 = 0.1;

/// A device that is busy for more than this share is what the host waits for, as isc-analyze has it.
const BUSY: f64 = 0.8;

pub(super) fn of(diff: &Diff) -> Verdict {
    let (class, summary) = match diff.steps.first() {
        Some(step) => of_step(diff, step),
        None => of_run(diff),
    };
    Verdict {
        class: class.word().into(),
        summary,
    }
}

fn of_step(diff: &Diff, step: &Step) -> (Change, String) {
    let name = quoted(&step.scope);
    let counts = format!(
        "{} and {} {}",
        count(step.a.count as f64),
        count(step.b.count as f64),
        if step.a.count.max(step.b.count) == 1 {
            "step"
        } else {
            "steps"
        }
    );
    let (change, ratio) = (step.change, step.ratio.unwrap_or(1.0));
    let interval = step.ratio_low.zip(step.ratio_high);
    let summary = match (change, interval) {
        (Change::Slower | Change::Faster, Some((low, high))) => {
            let (ratio, low, high) = match change {
                Change::Faster => (1.0 / ratio, 1.0 / high, 1.0 / low),
                _ => (ratio, low, high),
            };
            let [ratio, low, high] = [ratio, low, high].map(times);
            let word = change.word();
            let first = format!("B is {ratio} times {word} per {name} ({low} to {high}, {counts})");
            first + &cause(diff, change)
        }
        (_, Some((low, high))) => {
            let [ratio, low, high] = [ratio, low, high].map(times);
            let first = format!(
                "no change per {name}: B takes {ratio} times as long ({low} to {high}, {counts})"
            );
            first + &others(diff)
        }
        (_, None) => {
            let (a, b) = (step.a.dur_ns_p50, step.b.dur_ns_p50);
            let [from, to] = [a, b].map(|ns| time(ns as f64));
            let first = format!(
                "{name} takes {from} in A and {to} in B, but {counts} are too few to tell chance from change"
            );
            match steps::ratio(a, b) {
                Some(ratio) if ratio > 1.0 + FLOOR => first + &cause(diff, Change::Slower),
                Some(ratio) if ratio < 1.0 / (1.0 + FLOOR) => first + &cause(diff, Change::Faster),
                _ => first,
            }
        }
    };
    (change, summary)
}

/// Whole runs: one of each.
fn of_run(diff: &Diff) -> (Change, String) {
    let (a, b) = (diff.a.span_ns, diff.b.span_ns);
    let [from, to] = [a, b].map(|ns| time(ns as f64));
    let ratio = steps::ratio(a, b);
    let first = |word: &str, ratio: f64| {
        let ratio = times(ratio);
        format!(
            "B's whole run is {ratio} times {word} ({from} and {to}; no step is in both, so it is not known whether by chance)"
        )
    };
    match ratio {
        Some(ratio) if ratio.max(1.0 / ratio) <= 1.0 + FLOOR => (
            Change::Same,
            format!("no change: the whole run takes {from} in A and {to} in B"),
        ),
        Some(ratio) if ratio > 1.0 => (
            Change::Unknown,
            first("slower", ratio) + &cause(diff, Change::Slower),
        ),
        Some(ratio) if ratio > 0.0 => (
            Change::Unknown,
            first("faster", 1.0 / ratio) + &cause(diff, Change::Faster),
        ),
        _ => (
            Change::Unknown,
            format!("a run of no length cannot be compared ({from} and {to})"),
        ),
    }
}

/// Two decimals, or as many as tell it from 1.
fn times(ratio: f64) -> String {
    match (ratio - 1.0).abs() {
        near if near < 0.095 && near > 0.0 => format!("{ratio:.3}"),
        _ if ratio >= 100.0 => format!("{ratio:.0}"),
        _ => format!("{ratio:.2}"),
    }
}

/// Other steps that changed where the main one did not.
fn others(diff: &Diff) -> String {
    let mut changed = diff.steps.iter().skip(1).filter(|step| step.significant);
    changed.next().map_or(String::new(), |step| {
        let ratio = step.ratio.unwrap_or(1.0);
        let ratio = if step.change == Change::Faster {
            1.0 / ratio
        } else {
            ratio
        };
        format!(
            "; but {} is {} times {}",
            quoted(&step.scope),
            times(ratio),
            step.change.word()
        )
    })
}

/// What went the same way and has the largest share of the path: a function, or what lies before the work where that is more.
fn cause(diff: &Diff, change: Change) -> String {
    let sign = if change == Change::Slower { 1 } else { -1 };
    let told = |name: &str, change_ns: i64, part: f64| {
        let most = match part >= MOST {
            true => "most of it",
            false => "the largest part of it",
        };
        // Where the time is, as in a synchronizing call, is not why it is: the device works longer.
        let wait = match name.contains("Synchronize") {
            true => "the wait for the device, ",
            false => "",
        };
        let (name, change, part) = (quoted(name), signed(change_ns), 100.0 * part);
        format!(
            ": {most} {wait}{name} ({change} a {}, {part:.0} %)",
            diff.unit
        )
    };
    if let Some(step) = diff
        .steps
        .first()
        .filter(|step| step.mean_change_ns() * sign < 0)
    {
        let mean = signed(step.mean_change_ns());
        return format!("; its mean went the other way ({mean}), so no cause is named");
    }
    if let Some(change_ns) = device(diff, sign) {
        let how = if sign > 0 { "more" } else { "less" };
        let (change, unit) = (signed(change_ns), &diff.unit);
        return format!(
            ": devices, busy nearly all of the time in both, have {how} to do ({change} a {unit})"
        );
    }
    let same_way = || {
        let all = diff.functions.iter();
        all.filter(|f| f.path_change_ns().signum() == sign)
    };
    let size = |f: &&Function| f.path_change_ns().abs();
    let hidden = || same_way().filter(|f| f.change == Change::Same && f.error_ns() >= size(f));
    let largest = hidden().max_by_key(size);
    if let Some(f) = largest.filter(|_| hidden().map(|f| f.share).sum::<f64>() >= MOST) {
        let error = time(f.error_ns() as f64);
        return format!(
            ": most of it is within the error of estimates, {} for one ({} ± {error} a {}); isc-record --exact has none",
            quoted(&f.name),
            signed(f.path_change_ns()),
            diff.unit
        );
    }
    let moved = || same_way().filter(|f| f.change != Change::Same);
    let largest = moved().max_by_key(size);
    let category = |outside: bool| {
        let mut causes = diff.breakdown.iter();
        causes.find(|c| c.change_ns.signum() == sign && (!outside || ONCE.contains(&&*c.cause)))
    };
    // Of a whole run what lies before and after the work is a part.
    let outside = if diff.unit == "run" {
        category(true)
    } else {
        None
    };
    let around = around(diff, sign).filter(|_| largest.is_none_or(|f| f.share < MOST));
    if let Some((name, change_ns, part)) = around {
        return told(&name, change_ns, part) + ", with what it calls";
    }
    match (largest, outside) {
        (Some(f), Some(c)) if c.change_ns.abs() > size(&f) => told(&c.cause, c.change_ns, c.share),
        (Some(f), _) if f.share < LEAST => {
            let (moved, part) = (moved().count(), 100.0 * f.share);
            format!(
                ": spread over {moved} functions, none with more than {part:.0} % of the change"
            )
        }
        (Some(f), _) => told(&f.name, f.path_change_ns(), f.share) + &beside(diff, f, sign),
        (None, Some(c)) => told(&c.cause, c.change_ns, c.share),
        (None, None) => match category(false) {
            Some(c) => told(&c.cause, c.change_ns, c.share),
            None => String::new(),
        },
    }
}

/// By how much devices work longer for each step, where they are busy in both and the host only waits for them.
fn device(diff: &Diff, sign: i64) -> Option<i64> {
    let ((busy_a, share_a), (busy_b, share_b)) = (diff.a.busy, diff.b.busy);
    let count = |of: &dyn Fn(&Step) -> u64| diff.steps.first().map_or(1, of).max(1) as f64;
    let change = busy_b / count(&|step| step.b.count) - busy_a / count(&|step| step.a.count);
    let same_way = change * sign as f64 > 0.0;
    (share_a.min(share_b) > BUSY && same_way).then_some(change as i64)
}

/// The innermost function that has most of the change of a mean step in it or below it: name, change and share.
fn around(diff: &Diff, sign: i64) -> Option<(String, i64, f64)> {
    let step = diff.steps.first()?;
    let whole = step.mean_change_ns();
    let inside = |own: Option<Own>, steps: u64| own.is_none_or(|own| own.calls >= steps);
    let total = |own: Option<Own>| own.map_or(0, |own| own.total_ns);
    let has_most = |f: &&Function| {
        let part = (f.total_change_ns() * sign) as f64 / whole.abs().max(1) as f64;
        let on_path = [f.a, f.b].iter().flatten().any(|own| own.path_ns > 0);
        let certain = f.error_ns() * 2 < f.total_change_ns().abs();
        let inside = inside(f.a, step.a.count) && inside(f.b, step.b.count);
        // More than all of it would be another thread's as well.
        on_path && certain && inside && (MOST..=1.1).contains(&part)
    };
    let all = diff.functions.iter().filter(has_most);
    let innermost = all.min_by_key(|f| total(f.a).max(total(f.b)))?;
    let change_ns = innermost.total_change_ns();
    let part = change_ns.abs() as f64 / whole.abs().max(1) as f64;
    Some((innermost.name.clone(), change_ns, part.min(1.0)))
}

/// What another thread did, where the path waits longer.
fn beside(diff: &Diff, f: &Function, sign: i64) -> String {
    let off_path = |f: &&Function| {
        let elsewhere = f.path_change_ns().abs() * 2 < f.change_ns.abs();
        f.change != Change::Same && f.change_ns.signum() == sign && elsewhere && !f.waits()
    };
    match diff.functions.iter().find(off_path).filter(|_| f.waits()) {
        Some(other) => format!(
            "; in another thread {} ({} a {})",
            quoted(&other.name),
            signed(other.change_ns),
            diff.unit
        ),
        None => String::new(),
    }
}

/// A name between marks, which it has none of itself.
fn quoted(name: &str) -> String {
    format!("`{}`", line(name).replace('`', "'"))
}

/// A difference of times, with its sign.
pub(super) fn signed(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "+" };
    format!("{sign}{}", time(ns.unsigned_abs() as f64))
}

//! The diff as a page for a terminal: the sentence first, then what it rests on.

use std::fmt::Write;

use super::verdict::signed;
use super::{Cause, Change, Diff, Fact, Function, Own, Step};
use crate::analyze::page::{Style, cut, item, title, wrap};
use crate::report::units::{self, bytes, count, line, share, time};

/// What is shown of each table; the rest is in the JSON.
const MOST: usize = 8;

/// From this width on there is room for counts of calls.
const WIDE: usize = 100;

/// Shares below this are not shown.
const LEAST_SHARE: f64 = 0.005;

/// Draws the page.
pub fn page(diff: &Diff, style: Style) -> String {
    let style = style.clamped();
    let mut out = String::new();
    let class = &diff.verdict.class;
    wrap(
        &mut out,
        style,
        "",
        &format!("{class}: {}", line(&diff.verdict.summary)),
    );
    if style.colour {
        out.replace_range(..class.len(), &style.bold(class));
    }
    steps(&mut out, &diff.steps, style);
    let unit = diff.unit.as_str();
    causes(
        &mut out,
        &format!("Where it changed, per {unit}"),
        &diff.breakdown,
        style,
    );
    causes(
        &mut out,
        &format!("Why the device waits, per {unit}"),
        &diff.gaps,
        style,
    );
    functions(&mut out, diff, style);
    facts(&mut out, diff, style);
    for (head, ids) in [
        ("Findings of B only", &diff.findings.added),
        ("Findings of A only", &diff.findings.removed),
    ] {
        if !ids.is_empty() {
            title(&mut out, style, head);
            let ids: Vec<String> = ids.iter().map(|id| line(id)).collect();
            wrap(&mut out, style, "  ", &ids.join(", "));
        }
    }
    if !diff.caveats.is_empty() {
        title(&mut out, style, "Caveats");
        for caveat in diff.caveats.iter().take(MOST) {
            item(&mut out, style, "  - ", &line(caveat));
        }
        more(&mut out, diff.caveats.len());
    }
    out
}

fn more(out: &mut String, all: usize) {
    if all > MOST {
        let _ = writeln!(out, "  and {} more: --json", all - MOST);
    }
}

/// A table's head: its name, and what stands over the columns.
fn head(out: &mut String, style: Style, name: &str, columns: &[&str]) -> usize {
    let width = style.width.saturating_sub(10 * columns.len()).max(14);
    let mut text = format!("{name:width$}");
    for column in columns {
        let _ = write!(text, " {column:>9}");
    }
    title(out, style, &text);
    width - 2
}

fn row(out: &mut String, width: usize, name: &str, columns: &[String]) {
    let _ = write!(out, "  {:width$}", cut(name, width));
    for column in columns {
        let _ = write!(out, " {column:>9}");
    }
    out.push('\n');
}

fn ns(ns: i64) -> String {
    match ns {
        0 => "-".into(),
        ns => time(ns as f64),
    }
}

fn steps(out: &mut String, steps: &[Step], style: Style) {
    if steps.is_empty() {
        return;
    }
    let width = head(
        out,
        style,
        "Steps",
        &["A", "B", "ratio", "95 % from", "to", ""],
    );
    for s in steps.iter().take(MOST) {
        let times = |ratio: Option<f64>| ratio.map_or("-".into(), |ratio| format!("{ratio:.3}"));
        let columns = [
            ns(s.a.dur_ns_p50),
            ns(s.b.dur_ns_p50),
            times(s.ratio),
            times(s.ratio_low),
            times(s.ratio_high),
            match s.change {
                Change::Unknown => "too few".into(),
                change => change.word().to_owned(),
            },
        ];
        row(
            out,
            width,
            &format!("{} ({})", line(&s.scope), line(&s.kind)),
            &columns,
        );
    }
    more(out, steps.len());
}

fn causes(out: &mut String, name: &str, causes: &[Cause], style: Style) {
    let shown = causes.iter().filter(|cause| cause.share >= LEAST_SHARE);
    let shown: Vec<&Cause> = shown.take(MOST).collect();
    if shown.is_empty() {
        return;
    }
    let width = head(out, style, name, &["A", "B", "change", "share"]);
    for c in shown {
        let columns = [ns(c.a_ns), ns(c.b_ns), signed(c.change_ns), share(c.share)];
        row(out, width, &line(&c.cause), &columns);
    }
}

fn functions(out: &mut String, diff: &Diff, style: Style) {
    let changed = |f: &&Function| f.change != Change::Same;
    let changed: Vec<&Function> = diff.functions.iter().filter(changed).collect();
    if changed.is_empty() {
        return;
    }
    let name = format!("Functions by own time, per {}", diff.unit);
    let columns = ["calls A", "calls B", "A", "B", "change", "share"];
    // On a narrow page names go before counts.
    let from = if style.width < WIDE { 2 } else { 0 };
    let width = head(out, style, &name, &columns[from..]);
    for f in changed.iter().take(MOST) {
        let calls = |own: Option<Own>| match own {
            None => "-".into(),
            Some(own) => match own.calls_error {
                None => format!("≥{}", count(own.calls as f64)),
                Some(0) => count(own.calls as f64),
                Some(_) => format!("≈{}", count(own.calls as f64)),
            },
        };
        let time = |own: Option<Own>| ns(own.map_or(0, |own| own.self_ns));
        let mark = match f.change {
            Change::Added | Change::Removed => format!(" ({})", f.change.word()),
            _ => String::new(),
        };
        let place = match (&f.file, f.line) {
            (Some(file), Some(at)) => {
                format!(" {}:{at}", line(file.rsplit('/').next().unwrap_or(file)))
            }
            (Some(file), None) => format!(" [{}]", line(file.split('/').next().unwrap_or(file))),
            _ => String::new(),
        };
        let columns = [
            calls(f.a),
            calls(f.b),
            time(f.a),
            time(f.b),
            signed(f.change_ns),
            match f.share {
                0.0 => "-".into(),
                part => share(part),
            },
        ];
        let name = format!("{}{place}{mark}", line(&f.name));
        row(out, width, &name, &columns[from..]);
    }
    more(out, changed.len());
}

fn facts(out: &mut String, diff: &Diff, style: Style) {
    // Shares first, which can be compared with each other; then by ratio.
    let size = |name: &str, fact: &Fact| match (fact.a, fact.b) {
        (Some(a), Some(b)) if name.ends_with("share") => (true, (b - a).abs()),
        (Some(a), Some(b)) if a != 0.0 && b != 0.0 => (false, (b.abs() / a.abs()).ln().abs()),
        _ => (false, 0.0),
    };
    let mut facts: Vec<(&String, &Fact)> = diff.facts.iter().collect();
    facts.sort_by(|x, y| {
        let (of_x, of_y) = (size(x.0, x.1), size(y.0, y.1));
        let by_size = of_y.0.cmp(&of_x.0).then(of_y.1.total_cmp(&of_x.1));
        by_size.then(x.0.cmp(y.0))
    });
    if facts.is_empty() {
        return;
    }
    let width = head(out, style, "Facts that changed, of whole runs", &["A", "B"]);
    for (name, fact) in facts.iter().take(MOST) {
        let value = |value: Option<f64>| value.map_or("-".into(), |value| shown(name, value));
        row(out, width, &line(name), &[value(fact.a), value(fact.b)]);
    }
    more(out, facts.len());
}

/// A fact with its unit, as its name says.
fn shown(name: &str, number: f64) -> String {
    match name {
        name if name.contains("_ns") || name.ends_with(".ns") => time(number),
        name if name.ends_with("share") => share(number),
        name if name.ends_with("bytes") => bytes(number),
        _ => units::count(number),
    }
}

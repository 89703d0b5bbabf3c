//! Functions in both timelines, and what each took by itself.
//!
//! A function that the budget or samples made an estimate has not changed where its error is as large as the change.

use std::collections::{BTreeMap, VecDeque};

use super::{Change, FLOOR, Function, Own, Unit};
use crate::analyze::facts::MOST_FUNCTIONS;
use crate::analyze::{self, Analysis};

/// Functions listed; the rest is below what a reader looks at.
const MOST: usize = 200;

/// The least change of a function that is called one, as a share of a step or run. A judgement: smaller ones are within what
/// recording itself adds to a call.
const LEAST_OF_WHOLE: f64 = 0.001;

type Pair<'a> = (Option<&'a analyze::Function>, Option<&'a analyze::Function>);

/// Functions whose time changed, those whose own time did most first, each with its share of what changed on the path: an idle thread waits longer
/// in any longer run.
pub(super) fn compare(a: &Analysis, b: &Analysis, unit: &Unit) -> Vec<Function> {
    let least = [least(a), least(b)];
    let listed = |pair: &Pair| match pair {
        (Some(f), None) => f.self_ns > least[1],
        (None, Some(f)) => f.self_ns > least[0],
        _ => true,
    };
    let pairs = pairs(&a.functions, &b.functions);
    let pairs = pairs.into_iter().filter(listed);
    let mut functions: Vec<Function> = pairs.filter_map(|pair| function(pair, unit)).collect();
    functions.retain(|f| f.change_ns != 0 || f.total_change_ns() != 0);
    let all: i64 = functions.iter().map(|f| f.path_change_ns().abs()).sum();
    for f in &mut functions {
        f.share = f.path_change_ns().abs() as f64 / all.max(1) as f64;
    }
    functions.sort_by(|x, y| {
        let place = |f: &Function| (f.name.clone(), f.file.clone(), f.line, f.kind.clone());
        let size = |f: &Function| f.change_ns.abs();
        size(y).cmp(&size(x)).then_with(|| place(x).cmp(&place(y)))
    });
    functions.truncate(MOST);
    functions
}

/// The own time below which this analysis may have left functions out.
fn least(run: &Analysis) -> i64 {
    match run.functions.last() {
        Some(last) if run.functions.len() >= MOST_FUNCTIONS => last.self_ns,
        _ => -1,
    }
}

/// Which function of A is which of B. Lines move and folders differ, so what has no twin in its own line has one of the same
/// name in that file, else in a file of that name; several, in the order of their lines. Of a driver's calls the maker's part
/// of the name goes: `cudaLaunchKernel` is `hipLaunchKernel`.
fn pairs<'a>(a: &'a [analyze::Function], b: &'a [analyze::Function]) -> Vec<Pair<'a>> {
    let base = |file: &'a Option<String>| {
        let file = file.as_deref()?;
        Some(file.rsplit('/').next().unwrap_or(file))
    };
    let mut pairs = Vec::new();
    let (mut left_a, mut left_b): (Vec<_>, Vec<_>) = (a.iter().collect(), b.iter().collect());
    left_a.sort_by_key(|f| f.line);
    left_b.sort_by_key(|f| f.line);
    let unbranded = |f: &'a analyze::Function| match f.kind.as_str() {
        "launch" | "api" => ["cuda", "hip"]
            .iter()
            .find_map(|maker| f.name.strip_prefix(maker)),
        _ => None,
    };
    for pass in 0..4 {
        let key = |f: &'a analyze::Function| {
            let (file, line) = match pass {
                0 => (f.file.as_deref(), f.line),
                1 => (f.file.as_deref(), None),
                _ => (base(&f.file), None),
            };
            let name = unbranded(f).filter(|_| pass == 3);
            (f.kind.as_str(), name.unwrap_or(&f.name), file, line)
        };
        let mut of_b: BTreeMap<_, VecDeque<_>> = BTreeMap::new();
        for f in left_b {
            of_b.entry(key(f)).or_default().push_back(f);
        }
        left_a.retain(
            |f| match of_b.get_mut(&key(f)).and_then(VecDeque::pop_front) {
                Some(twin) => {
                    pairs.push((Some(*f), Some(twin)));
                    false
                }
                None => true,
            },
        );
        left_b = of_b.into_values().flatten().collect();
        left_b.sort_by_key(|f| f.line);
    }
    pairs.extend(left_a.into_iter().map(|f| (Some(f), None)));
    pairs.extend(left_b.into_iter().map(|f| (None, Some(f))));
    pairs
}

fn function((a, b): Pair, unit: &Unit) -> Option<Function> {
    let shown = b.or(a)?;
    let of = |f: Option<&analyze::Function>, what: fn(&analyze::Function) -> i64| f.map_or(0, what);
    let own = |f: &analyze::Function| f.self_ns;
    // Called less often than there are steps, it may be no part of them.
    let seldom = |f: Option<&analyze::Function>, steps: f64| {
        f.is_none_or(|f| f.calls_error == Some(0) && (f.calls as f64) < steps)
    };
    let seldom = seldom(a, unit.a) && seldom(b, unit.b);
    let per = |a: i64, b: i64| match seldom {
        true => unit.per_once(a, b),
        false => unit.per(a, b),
    };
    let (a_ns, b_ns) = per(of(a, own), of(b, own));
    let path = per(of(a, |f| f.path_ns), of(b, |f| f.path_ns));
    let total = per(of(a, |f| f.total_ns), of(b, |f| f.total_ns));
    let waits = unit.per(of(a, |f| f.wait_ns), of(b, |f| f.wait_ns));
    let errors = unit.per(of(a, error_ns), of(b, error_ns));
    let sums = |f: &analyze::Function,
                [self_ns, path_ns, total_ns, wait_ns, error_ns]: [i64; 5]| Own {
        calls: f.calls,
        calls_error: f.calls_error,
        self_ns,
        path_ns,
        total_ns,
        wait_ns: wait_ns.min(self_ns),
        error_ns,
    };
    let change_ns = b_ns - a_ns;
    let error = (errors.0 as f64).hypot(errors.1 as f64);
    let size = change_ns.abs() as f64;
    let small =
        size <= FLOOR * a_ns.max(b_ns) as f64 || size < LEAST_OF_WHOLE * unit.whole_ns as f64;
    let change = match (a, b) {
        _ if size <= error || small => Change::Same,
        (None, _) => Change::Added,
        (_, None) => Change::Removed,
        _ if change_ns > 0 => Change::Slower,
        _ => Change::Faster,
    };
    Some(Function {
        name: shown.name.clone(),
        file: shown.file.clone(),
        line: shown.line,
        kind: shown.kind.clone(),
        a: a.map(|f| sums(f, [a_ns, path.0, total.0, waits.0, errors.0])),
        b: b.map(|f| sums(f, [b_ns, path.1, total.1, waits.1, errors.1])),
        change_ns,
        share: 0.0,
        change,
    })
}

/// Half the 95 % interval of a function's own time. What is known is that of all time in it, and own time is what its callees
/// leave of that, so it is as wrong; a part of samples is the more wrong, for its size, the fewer they are, so that goes with
/// the root. Where only calls are an estimate, time is as wrong as they are.
fn error_ns(f: &analyze::Function) -> i64 {
    let own = f.self_ns.max(0) as f64;
    let Some(calls_error) = f.calls_error else {
        let part = (own / f.total_ns.max(1) as f64).min(1.0);
        return (f.error_ns as f64 * part.sqrt()).round() as i64;
    };
    let of_calls = f.total_ns as f64 * calls_error as f64 / f.calls.max(1) as f64;
    f.error_ns.max(of_calls.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, file: &str, line: u32, self_ns: i64) -> analyze::Function {
        analyze::Function {
            name: name.into(),
            file: Some(file.into()),
            line: Some(line),
            kind: "python".into(),
            calls: 10,
            calls_error: Some(0),
            total_ns: self_ns,
            self_ns,
            native_ns: 0,
            wait_ns: 0,
            await_ns: 0,
            error_ns: 0,
            row: 0,
            at: 0,
            path_ns: self_ns,
        }
    }

    #[test]
    fn functions_are_known_again_where_lines_moved_and_folders_differ() {
        let a = [
            function("f", "/old/app.py", 3, 1),
            function("<lambda>", "/old/app.py", 9, 2),
            function("<lambda>", "/old/app.py", 12, 3),
            function("gone", "/old/app.py", 20, 4),
            function("g", "lib.py", 5, 5),
        ];
        let b = [
            function("f", "/new/app.py", 4, 1),
            function("<lambda>", "/new/app.py", 19, 3),
            function("<lambda>", "/new/app.py", 10, 2),
            function("g", "lib.py", 5, 5),
            function("came", "/new/app.py", 30, 6),
        ];
        let launch = |name: &str| analyze::Function {
            kind: "launch".into(),
            file: None,
            line: None,
            ..function(name, "", 0, 7)
        };
        let a: Vec<_> = a.into_iter().chain([launch("cudaLaunchKernel")]).collect();
        let b: Vec<_> = b.into_iter().chain([launch("hipLaunchKernel")]).collect();
        for (before, after) in pairs(&a, &b) {
            match (before, after) {
                (Some(before), Some(after)) => {
                    let own = |f: &analyze::Function| (f.name.replace("cuda", "hip"), f.self_ns);
                    assert_eq!(own(before), own(after));
                }
                (Some(f), None) => assert_eq!(f.name, "gone"),
                (None, after) => assert_eq!(after.unwrap().name, "came"),
            }
        }
    }

    #[test]
    fn an_estimate_has_changed_only_by_more_than_its_error() {
        let unit = Unit {
            word: "run",
            a: 1.0,
            b: 1.0,
            whole_ns: 10_000,
        };
        let (before, mut after) = (
            function("f", "a.py", 1, 1000),
            function("f", "a.py", 1, 1500),
        );
        let change = |after: &analyze::Function| {
            super::function((Some(&before), Some(after)), &unit)
                .unwrap()
                .change
        };
        assert_eq!(change(&after), Change::Slower);
        after.error_ns = 600;
        assert_eq!(change(&after), Change::Same);
        (after.error_ns, after.calls_error) = (0, Some(4)); // of 10: 40 % of 1500
        assert_eq!(change(&after), Change::Same);
        after.calls_error = Some(1);
        assert_eq!(change(&after), Change::Slower);
    }
}

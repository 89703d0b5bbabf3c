//! What isc-diff's `--fail-on` may ask: an expression over the diff, and over the facts of both timelines.

use std::collections::{BTreeMap, HashMap};

use cel::Value;

use super::{Cause, Diff, Durations, Function};
use crate::analyze::Analysis;
use crate::analyze::expression::{Expression, Held, Table, Values, Words};
use crate::analyze::rules::FACTS;
use crate::error::Result;

/// Of the main step, and of whole runs. `formats/diff-v1.md` defines them; facts have `a.` or `b.` in front.
pub const NAMES: [&str; 13] = [
    "run.a_ns",
    "run.b_ns",
    "run.change_ns",
    "run.ratio",
    "step.a_count",
    "step.a_ns",
    "step.b_count",
    "step.b_ns",
    "step.change_ns",
    "step.ratio",
    "step.ratio_high",
    "step.ratio_low",
    "step.significant",
];

const STEP: [&str; 7] = [
    "a_ns",
    "b_ns",
    "change_ns",
    "ratio",
    "ratio_high",
    "ratio_low",
    "significant",
];
const FUNCTION: [&str; 5] = ["a_ns", "b_ns", "change", "change_ns", "share"];
const CAUSE: [&str; 4] = ["a_ns", "b_ns", "change_ns", "share"];

/// Expressions that were checked.
#[derive(Clone, Debug)]
pub struct Conditions {
    words: Words,
    all: Vec<Expression>,
}

impl Conditions {
    /// Checks these.
    ///
    /// # Errors
    /// What is no CEL; names that are not known, with the nearest one that is.
    pub fn new(texts: &[String]) -> Result<Conditions> {
        let table = |name, members| Table {
            name,
            members,
            keys: None,
        };
        let facts = |run: &'static str| FACTS.iter().map(move |fact| format!("{run}.{fact}"));
        let own = NAMES.map(str::to_owned).into_iter();
        let words = Words {
            names: own.chain(facts("a")).chain(facts("b")).collect(),
            tables: vec![
                table("steps", &STEP),
                table("functions", &FUNCTION),
                table("breakdown", &CAUSE),
                table("gaps", &CAUSE),
            ],
        };
        let checked = texts.iter().map(|text| Expression::new(text, &words));
        let all = checked.collect::<Result<_>>()?;
        Ok(Conditions { words, all })
    }

    /// Whether any of them holds; and a line on each that does not because of what is not there.
    ///
    /// # Errors
    /// One that cannot be evaluated.
    pub fn hold(&self, diff: &Diff, runs: &[Analysis; 2]) -> Result<(bool, Vec<String>)> {
        let values = values(diff, runs);
        let (mut any, mut notes) = (false, Vec::new());
        for expression in &self.all {
            let held = expression.holds(&self.words, &values)?;
            any |= held == Held::Yes;
            notes.extend(held.note(&expression.text, "there is no"));
        }
        Ok((any, notes))
    }
}

type Entry = HashMap<String, Value>;

fn entry<const N: usize>(members: [(&str, Option<Value>); N]) -> Entry {
    let there = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    there.collect()
}

fn ns(ns: i64) -> Option<Value> {
    number(ns as f64)
}

fn number(number: f64) -> Option<Value> {
    Some(Value::Float(number))
}

/// Two durations, and their ratio if it is known.
fn both(a: i64, b: i64, ratio: Option<f64>) -> Entry {
    entry([
        ("a_ns", ns(a)),
        ("b_ns", ns(b)),
        ("change_ns", ns(b - a)),
        ("ratio", ratio.and_then(number)),
    ])
}

fn values(diff: &Diff, runs: &[Analysis; 2]) -> Values {
    let mut named = BTreeMap::new();
    let mut add = |group: &str, members: Entry| {
        let members = members.into_iter();
        named.extend(members.map(|(name, value)| (format!("{group}.{name}"), value)));
    };
    for (run, analysis) in ["a", "b"].into_iter().zip(runs) {
        let facts = analysis.facts.iter();
        let facts =
            facts.filter_map(|(name, value)| Some((name.clone(), number(value.as_f64()?)?)));
        add(run, facts.collect());
    }
    let (a, b) = (diff.a.span_ns, diff.b.span_ns);
    add("run", both(a, b, super::steps::ratio(a, b)));
    let step = |step: &super::Step| {
        let p50 = |durations: &Durations| durations.dur_ns_p50;
        let mut members = both(p50(&step.a), p50(&step.b), step.ratio);
        members.extend(entry([
            ("ratio_low", step.ratio_low.and_then(number)),
            ("ratio_high", step.ratio_high.and_then(number)),
            ("significant", Some(Value::Bool(step.significant))),
        ]));
        members
    };
    if let Some(main) = diff.steps.first() {
        add("step", step(main));
        let counts = [
            ("a_count", ns(main.a.count as i64)),
            ("b_count", ns(main.b.count as i64)),
        ];
        add("step", entry(counts));
    }
    // Of several with one name the first, which changed most, counts.
    let steps = diff.steps.iter().rev().map(|s| (s.scope.clone(), step(s)));
    let functions = diff
        .functions
        .iter()
        .rev()
        .map(|f| (f.name.clone(), function(f)));
    let causes = |causes: &[Cause]| causes.iter().map(|c| (c.cause.clone(), cause(c))).collect();
    Values {
        named,
        tables: BTreeMap::from([
            ("steps", steps.collect()),
            ("functions", functions.collect()),
            ("breakdown", causes(&diff.breakdown)),
            ("gaps", causes(&diff.gaps)),
        ]),
    }
}

fn function(f: &Function) -> Entry {
    entry([
        ("a_ns", ns(f.a.map_or(0, |own| own.self_ns))),
        ("b_ns", ns(f.b.map_or(0, |own| own.self_ns))),
        ("change_ns", ns(f.change_ns)),
        ("share", number(f.share)),
        ("change", Some(f.change.word().into())),
    ])
}

fn cause(c: &Cause) -> Entry {
    entry([
        ("a_ns", ns(c.a_ns)),
        ("b_ns", ns(c.b_ns)),
        ("change_ns", ns(c.change_ns)),
        ("share", number(c.share)),
    ])
}

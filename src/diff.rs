//! Two timelines to what changed between them. `formats/diff-v1.md` is what comes out.
//!
//! A is before, B after. Times of functions, categories and gaps are compared per step, where the two have one in common,
//! so that runs of different length can be. Equal timelines give equal diffs; nothing is drawn by chance but from a fixed seed.

mod causes; // categories of the path, gaps of devices, facts
pub mod condition; // what --fail-on asks
mod functions; // which function is which, and what it took
pub mod page;
mod steps; // durations, and how sure a ratio of their medians is
mod verdict;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::analyze::{self, Analysis, Asks, Rules, Selection};
use crate::cli::Source;
use crate::error::{Error, Result};

/// The `format` of what this build writes.
pub const FORMAT: &str = "isc-diff/1";

/// The least change that is called one, as a share: two runs of one program differ by as much. A judgement.
pub const FLOOR: f64 = 0.02;

/// What changed. Times are ns; those of `functions`, `breakdown` and `gaps` are per `unit`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Diff {
    pub format: String,
    pub verdict: Verdict,
    pub a: Run,
    pub b: Run,
    /// What times are per: "step", which is the first of `steps`, or "run".
    pub unit: String,
    /// Those found in both, the main one first.
    pub steps: Vec<Step>,
    /// Those whose time changed at all, by how much their own did.
    pub functions: Vec<Function>,
    pub breakdown: Vec<Cause>,
    pub gaps: Vec<Cause>,
    /// Those that changed, over whole runs; `None` where a timeline does not have it.
    pub facts: BTreeMap<String, Fact>,
    pub findings: Findings,
    pub caveats: Vec<String>,
}

/// Whether B is slower, in one word and in one sentence.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// "slower", "faster", "same", or "unknown" where nothing tells chance from change.
    pub class: String,
    pub summary: String,
}

/// One of the two timelines.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// As it was given.
    pub path: String,
    pub span_ns: i64,
    pub events: u64,
    pub lost: u64,
    /// Of its devices: for how long they are busy, and that as a share of their span; 0 without.
    #[serde(skip)]
    pub busy: (f64, f64),
}

/// How a time went, from A to B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Slower,
    Faster,
    /// Less than the floor, or than the error.
    Same,
    /// In B only.
    Added,
    /// In A only.
    Removed,
    /// Too few to tell.
    Unknown,
}

impl Change {
    /// As it is in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Change::Slower => "slower",
            Change::Faster => "faster",
            Change::Same => "same",
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Unknown => "unknown",
        }
    }
}

/// Something that repeats in both.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    pub scope: String,
    pub kind: String,
    pub a: Durations,
    pub b: Durations,
    /// Median of B over that of A, and its 95 % interval; `None`: too few steps, or of no length.
    pub ratio: Option<f64>,
    pub ratio_low: Option<f64>,
    pub ratio_high: Option<f64>,
    /// The interval leaves out 1, and the change is above the floor.
    pub significant: bool,
    pub change: Change,
}

impl Step {
    /// How its mean went.
    pub fn mean_change_ns(&self) -> i64 {
        let mean = |of: &Durations| of.total_ns / of.count.max(1) as i64;
        mean(&self.b) - mean(&self.a)
    }
}

/// A step's durations in one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Durations {
    pub count: u64,
    pub total_ns: i64,
    pub dur_ns_p50: i64,
}

/// A function's own time in both.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Function {
    pub name: String,
    pub file: Option<String>,
    /// Its line in B, else in A.
    pub line: Option<u32>,
    pub kind: String,
    pub a: Option<Own>,
    pub b: Option<Own>,
    pub change_ns: i64,
    /// Of the sum of absolute changes on the path.
    pub share: f64,
    pub change: Change,
}

impl Function {
    /// How the part on the path went.
    pub fn path_change_ns(&self) -> i64 {
        let path = |own: Option<Own>| own.map_or(0, |own| own.path_ns);
        path(self.b) - path(self.a)
    }

    /// How time in it went, what it calls included.
    pub fn total_change_ns(&self) -> i64 {
        let total = |own: Option<Own>| own.map_or(0, |own| own.total_ns);
        total(self.b) - total(self.a)
    }

    /// Half the 95 % interval of `change_ns`; 0 where nothing is an estimate.
    pub fn error_ns(&self) -> i64 {
        let error = |own: Option<Own>| own.map_or(0.0, |own| own.error_ns as f64);
        error(self.a).hypot(error(self.b)).round() as i64
    }

    /// It changed by waiting, most of it.
    fn waits(&self) -> bool {
        let wait = |own: Option<Own>| own.map_or(0, |own| own.wait_ns);
        let (all, wait) = (self.change_ns, wait(self.b) - wait(self.a));
        wait.abs() * 2 > all.abs() && wait.signum() == all.signum()
    }
}

/// What a function did in one run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Own {
    /// In the whole run, and half of that number's 95 % interval; `None`: samples, which do not count.
    pub calls: u64,
    pub calls_error: Option<u64>,
    /// Own time per unit; the part of it on the path, outside of imports and not waiting for work; the part in which it
    /// waited; and half the 95 % interval where it is an estimate.
    pub self_ns: i64,
    pub path_ns: i64,
    /// Time in it with what it calls.
    pub total_ns: i64,
    pub wait_ns: i64,
    pub error_ns: i64,
}

/// A category of the path's time, or a cause of gaps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cause {
    pub cause: String,
    pub a_ns: i64,
    pub b_ns: i64,
    pub change_ns: i64,
    /// Of the sum of absolute changes in this table.
    pub share: f64,
}

/// A fact's values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fact {
    pub a: Option<f64>,
    pub b: Option<f64>,
}

/// Findings of the built-in rules that are in one of the two, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

/// Compares two timelines, or this part of each; both analyses are given back too, for conditions over their facts.
///
/// # Errors
/// Standard input twice; what is no timeline; what [`Selection::open`] does not find.
pub fn run(a: &Source, b: &Source, part: &Selection) -> Result<(Diff, [Analysis; 2])> {
    if *a == Source::Stdin && *b == Source::Stdin {
        return Err(Error::Invalid {
            path: a.path(),
            what: "cannot be both timelines".into(),
            hint: Some("isc-diff before.parquet - for one of them".into()),
        });
    }
    let rules = Rules::built_in()?;
    let read = |source: &Source| {
        let (reader, windows) = part.open(source)?;
        analyze::run_within(reader, &windows, &Asks::default(), &rules)
    };
    let runs = [read(a)?, read(b)?];
    let mut diff = compare(&runs[0], &runs[1]);
    diff.a.path = a.path().display().to_string();
    diff.b.path = b.path().display().to_string();
    Ok((diff, runs))
}

/// Compares two analyses that have their steps' durations, as [`analyze::run`] gives them.
pub fn compare(a: &Analysis, b: &Analysis) -> Diff {
    let steps = steps::compare(a, b);
    let unit = Unit::of(a, b, steps.first());
    let mut diff = Diff {
        format: FORMAT.into(),
        verdict: Verdict::default(),
        a: described(a),
        b: described(b),
        unit: unit.word.into(),
        breakdown: causes::breakdown(a, b, &unit),
        gaps: causes::gaps(a, b, &unit),
        facts: causes::facts(a, b),
        findings: causes::findings(a, b),
        functions: functions::compare(a, b, &unit),
        caveats: caveats(a, b, &unit),
        steps,
    };
    diff.verdict = verdict::of(&diff);
    diff
}

impl Diff {
    /// Indented JSON: `formats/diff-v1.md`.
    ///
    /// # Errors
    /// None that a test has not seen: no number in it is infinite.
    pub fn json(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self);
        let text = text.map_err(|error| Error::invalid("json", error.to_string()))?;
        Ok(text + "\n")
    }
}

fn described(run: &Analysis) -> Run {
    let fact = |name: &str| run.facts.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    Run {
        path: String::new(),
        span_ns: run.span_ns,
        events: run.recording.events,
        lost: run.recording.lost,
        busy: (fact("gpu.busy_ns"), fact("gpu.busy.share")),
    }
}

/// What times are divided by.
#[derive(Clone, Copy, Debug)]
struct Unit {
    word: &'static str,
    a: f64,
    b: f64,
    /// The time of one in A or B, whichever is longer: what a change has to be seen beside.
    whole_ns: i64,
}

impl Unit {
    fn of(a: &Analysis, b: &Analysis, main: Option<&Step>) -> Unit {
        match main {
            Some(step) => Unit {
                word: "step",
                a: step.a.count as f64,
                b: step.b.count as f64,
                whole_ns: step.a.dur_ns_p50.max(step.b.dur_ns_p50),
            },
            None => Unit {
                word: "run",
                a: 1.0,
                b: 1.0,
                whole_ns: a.span_ns.max(b.span_ns),
            },
        }
    }

    /// Two sums over the runs, in ns, per unit.
    fn per(&self, a: i64, b: i64) -> (i64, i64) {
        let per = |ns: i64, count: f64| (ns as f64 / count.max(1.0)).round() as i64;
        (per(a, self.a), per(b, self.b))
    }

    /// The same of what may lie outside of the steps, and so come once a run: both as if A had had B's steps, where that
    /// makes the change smaller. Only what changed both ways is sure to have changed.
    fn per_once(&self, a: i64, b: i64) -> (i64, i64) {
        let each = self.per(a, b);
        let once = Unit { a: self.b, ..*self }.per(a, b);
        let change = |(a, b): (i64, i64)| b - a;
        match change(each).signum() * change(once).signum() {
            ..=0 => (each.1, each.1),
            _ if change(each).abs() <= change(once).abs() => each,
            _ => once,
        }
    }
}

fn caveats(a: &Analysis, b: &Analysis, unit: &Unit) -> Vec<String> {
    let mut caveats = Vec::new();
    if unit.word == "run" {
        caveats.push(
            "no step is in both: whole runs are compared, and what is by chance is not known"
                .into(),
        );
    } else if (unit.a / unit.b).ln().abs() > FLOOR {
        caveats.push(format!(
            "A has {} steps and B {}: what comes once a run is taken to have changed only where it did per run and per step",
            unit.a, unit.b
        ));
    }
    for (name, run) in [("A", a), ("B", b)] {
        caveats.extend(run.caveats.iter().map(|caveat| format!("{name}: {caveat}")));
    }
    caveats
}

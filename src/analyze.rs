//! Timeline to analysis: measures, then rules over them. `formats/analysis-v1.md` is what comes out.
//!
//! analyze never changes a timeline, and equal timelines give equal analyses.

pub mod ask; // what if
mod blind; // native calls within bursts
mod clocks; // how closely they are known
pub mod condition; // what --fail-on asks
pub mod device;
mod ended; // programs that were cut short
pub mod expression; // conditions over named values, in CEL
pub mod facts;
pub mod idle; // why a device had nothing to do
mod kinds;
mod launches;
mod lines;
pub mod measure;
pub mod page;
pub mod replay; // what a change would gain
mod requests;
pub mod rules; // conditions over facts, and what to say where they hold
mod rising; // steps that take longer and longer
mod sampled;
pub mod select; // only a part of a timeline
mod steps;
mod throttled;
mod trail;
mod waited;

use std::collections::BTreeMap;

pub use ask::{Answer, Ask, Asks};
pub use condition::Condition;
pub use expression::Held;
pub use rules::Rules;
pub use select::{Selection, Windows};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::trace::io::Reader;
use crate::trace::provenance::{self, ClockFit, Stage};

/// The `format` of what this build writes.
pub const FORMAT: &str = "isc-analysis/1";

/// Where the time went and what to change. Times are ns, shares are of `span_ns` unless said.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Analysis {
    pub format: String,
    pub verdict: Verdict,
    pub span_ns: i64,
    pub breakdown: Vec<Share>,
    pub gaps: Vec<Gap>,
    pub facts: BTreeMap<String, Value>,
    pub devices: Vec<Device>,
    #[serde(default)]
    pub streams: Vec<Stream>,
    pub functions: Vec<Function>,
    #[serde(default)]
    pub lines: Vec<Line>,
    pub steps: Vec<Step>,
    pub findings: Vec<Finding>,
    /// What was asked for by `--what-if`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub what_if: Vec<Answer>,
    pub caveats: Vec<String>,
    pub libraries: Vec<Library>,
    pub processes: Vec<Process>,
    pub threads: Vec<Thread>,
    pub paths: Vec<Path>,
    /// How the clocks that were put on one timeline fit; none if all was on one.
    #[serde(default)]
    pub clocks: Vec<ClockFit>,
    pub recording: Recording,
}

/// What limits the program, in one sentence.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verdict {
    pub class: String,
    pub confidence: f64,
    pub summary: String,
}

/// One category of the request path; they add up to `span_ns`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Share {
    pub category: String,
    pub time_ns: i64,
    pub share: f64,
}

/// Idle time of a device by its cause; those of "all" add up to `gpu.idle_ns`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Gap {
    pub device: Value,
    #[serde(flatten)]
    pub owner: device::Owner,
    pub cause: String,
    pub time_ns: i64,
    /// Gaps that it has a part in.
    #[serde(default)]
    pub count: u64,
    /// Its longest part, and the row of the work that ended that gap.
    #[serde(default)]
    pub longest_ns: i64,
    #[serde(default)]
    pub row: i64,
    /// The span with most of it; of all devices together.
    #[serde(default, rename = "where")]
    pub place: Option<String>,
}

/// One device's work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    pub device: u32,
    #[serde(flatten)]
    pub owner: device::Owner,
    pub busy_ns: i64,
    pub span_ns: i64,
}

/// Work on one stream of a device, and how much of it waited there: launched, and not begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stream {
    pub device: u32,
    #[serde(flatten)]
    pub owner: device::Owner,
    pub stream: Option<u32>,
    pub count: u64,
    pub busy_ns: i64,
    /// Over the moments at which one more was launched or begun, after each of them.
    pub queue_mean: f64,
    pub queue_max: i64,
    pub queue_changes: u64,
}

/// One function, Python or native. `native_ns` is the native part of `self_ns`, `wait_ns` the one in which it waited.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Function {
    pub name: String,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub kind: String,
    pub calls: u64,
    /// `None`: sampled, and `calls` is the least that there were.
    pub calls_error: Option<u64>,
    pub total_ns: i64,
    pub self_ns: i64,
    pub native_ns: i64,
    #[serde(default)]
    pub wait_ns: i64,
    pub await_ns: i64,
    pub error_ns: i64,
    /// The timeline's row of its longest span.
    pub row: i64,
    /// Its number among the measures.
    #[serde(skip)]
    pub at: usize,
    /// Own time on the path outside of imports, waits for work left out.
    #[serde(skip)]
    pub path_ns: i64,
}

/// One line of a function that was measured by line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    pub file: String,
    pub line: u32,
    pub function: String,
    /// As far as they were seen.
    pub hits: u64,
    /// Time in it, what it called included.
    pub time_ns: i64,
    /// Of the function's time.
    pub share: f64,
    /// The budget left some of it out: `time_ns` is scaled to the function's time, `hits` is the least there were.
    pub estimated: bool,
}

/// Something that repeats: a scope, a function, or a task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    pub scope: String,
    pub kind: String,
    pub count: u64,
    pub total_ns: i64,
    pub dur_ns_mean: i64,
    pub dur_ns_p50: i64,
    pub dur_ns_p90: i64,
    pub dur_ns_p99: i64,
    /// Native time inside, on the step's own thread; 0 for tasks, whose segments lie between those of others.
    pub native_ns: i64,
    /// The library with most of it.
    pub library: Option<String>,
    /// Start and length of each, in the order of starts.
    #[serde(skip)]
    pub spans: Vec<(i64, i64)>,
    /// A function that calls itself: one is within another.
    #[serde(skip)]
    pub nests: bool,
}

/// Something worth changing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    pub id: String,
    pub title: String,
    pub severity: String,
    pub confidence: f64,
    pub gain: Option<Gain>,
    #[serde(rename = "where")]
    pub place: String,
    pub evidence: Vec<Evidence>,
    pub suggestion: String,
}

/// Ratio of the time before to the time after, best guess and bounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Gain {
    pub speedup: f64,
    pub low: f64,
    pub high: f64,
}

/// A statement and the timeline's rows that show it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Evidence {
    pub text: String,
    pub rows: Vec<i64>,
}

/// Time in one native library, over all threads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Library {
    pub library: String,
    pub native_ns: i64,
}

/// One process of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    pub process: u32,
    pub name: String,
    pub pid: u32,
    pub python: Option<String>,
    pub covered: bool,
    pub reason: Option<String>,
    pub start_ns: i64,
    pub dur_ns: i64,
    pub cpu_ns: Option<i64>,
    pub native_ns: i64,
}

/// One thread of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Thread {
    pub process: u32,
    pub tid: u64,
    pub name: String,
    pub cpu_ns: Option<i64>,
    pub python_ns: i64,
    pub native_ns: i64,
    pub runnable_ns: i64,
    pub blocked_ns: i64,
    /// The parts of `blocked_ns`: `gil`, `lock`, `io`, `sleep`, `blocked`.
    #[serde(default)]
    pub waits: BTreeMap<String, i64>,
}

/// A call path, outermost first, and the time at its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Path {
    pub frames: Vec<String>,
    pub self_ns: i64,
}

/// What the recording itself cost and lost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Recording {
    pub events: u64,
    pub lost: u64,
    pub cpu_ns: Option<i64>,
}

/// Analyzes a timeline: facts, tables, verdict, and the findings of these rules.
///
/// # Errors
/// Those of the reader; a raw trace, which has several clocks and no order; a rule that cannot be evaluated.
pub fn run(reader: Reader, rules: &Rules) -> Result<Analysis> {
    run_within(reader, &Windows::default(), &Asks::default(), rules)
}

/// Analyzes what lies within some windows of a timeline, and answers what would be if; else as [`run`].
///
/// # Errors
/// As [`run`]; a question about what is not there.
pub fn run_within(
    reader: Reader,
    windows: &Windows,
    asks: &Asks,
    rules: &Rules,
) -> Result<Analysis> {
    if reader.provenance().stage != Stage::Timeline {
        return Err(Error::Invalid {
            path: reader.path().to_owned(),
            what: "a raw trace, whose events have no common clock yet".into(),
            hint: Some("isc-merge TRACE | isc-analyze".into()),
        });
    }
    let window = window(&reader.provenance().config);
    let selected = selected(&reader.provenance().steps);
    let machine = &reader.provenance().machine;
    let cpus = machine["cpus"].as_u64();
    // Of several recordings that of the first.
    let fault_ns = machine.get(0).unwrap_or(machine)["fault_ns"].as_f64();
    let fits = reader.provenance().clocks.clone();
    let mut measures = measure::measure(reader, windows, asks)?;
    measures.cpus = cpus;
    measures.fault_ns = fault_ns;
    let (mut analysis, texts) = facts::analysis(&measures);
    analysis.what_if = asks.answers(&measures, &analysis.steps)?;
    if let Some(error_ns) = clocks::error_ns(&fits) {
        let facts = &mut analysis.facts;
        facts.insert("clock.error_ns".into(), error_ns.into());
    }
    let told = clocks::caveats(&fits, &analysis.facts);
    analysis.caveats.extend(told);
    analysis.clocks = fits;
    analysis.caveats.extend(window);
    analysis.caveats.extend(selected);
    if let Some(told) = &windows.told {
        let told = crate::report::units::line(told);
        analysis
            .caveats
            .push(format!("only a part, {told}: the rest is not counted"));
    }
    if windows.is_part() {
        // Threads' and processes' CPU time is known for the whole run only.
        for whole in ["cpu.ns", "threads.busy", "threads.excess", "threads.peers"] {
            analysis.facts.remove(whole);
        }
    }
    analysis.findings = rules.findings(&analysis.facts, &texts)?;
    Ok(analysis)
}

/// What isc-convert was asked for, if the timeline is what it kept of another.
fn selected(steps: &[provenance::Step]) -> Option<String> {
    let asked = |step: &&provenance::Step| step.command == "isc-convert" && !step.flags.is_empty();
    let flags: Vec<String> = (steps.iter().filter(asked))
        .map(|step| step.flags.join(" "))
        .collect();
    (!flags.is_empty()).then(|| {
        let flags = crate::report::units::line(&flags.join(", then "));
        format!("only a part of a timeline (isc-convert {flags}): the rest is not counted")
    })
}

/// What `isc-record --last` says of itself in the trace; see formats/trace-v1.md.
fn window(config: &serde_json::Value) -> Option<String> {
    let window = &config["window"];
    let seconds = window["last_ns"].as_f64()? / 1e9;
    let why = window["why"].as_str().unwrap_or("unknown");
    Some(format!(
        "only the last {seconds} s of a longer run ({why}): what was called before is not counted"
    ))
}

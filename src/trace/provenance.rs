//! Which commands made this trace. It travels in the file's metadata, as JSON.
//!
//! Our own commands, their versions and flags, and what they read, by content; never the arguments of the
//! recorded program, nor a time of day: the same work gives the same bytes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema::VERSION;

/// Where a trace comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Version of the trace format.
    pub version: u32,
    /// What has been done to the rows.
    pub stage: Stage,
    /// The commands that made it, first to last.
    pub steps: Vec<Step>,
    /// Facts of the machine that recorded it; an array of them where several did.
    #[serde(default)]
    pub machine: Value,
    /// The recorder's configuration; an array where there were several recorders.
    #[serde(default)]
    pub config: Value,
    /// How each clock domain was put on the timeline; empty before isc-merge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clocks: Vec<ClockFit>,
    /// Where the timeline's zero is; `None` before isc-merge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// The two states of the event table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Several clocks, no order.
    Raw,
    /// One clock, sorted, with parents and causes.
    Timeline,
}

/// One command of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its name: `isc-merge`.
    pub command: String,
    /// Its version.
    pub version: String,
    /// Its own flags that change what it writes, each as `--name=value`.
    #[serde(default)]
    pub flags: Vec<String>,
    /// blake3 of the content of what it read, in hexadecimal.
    #[serde(default)]
    pub inputs: Vec<String>,
}

/// How one clock domain of one process was put on the timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockFit {
    /// The process, as numbered in this table.
    pub process: u32,
    /// Name of the domain: `tsc`.
    pub domain: String,
    /// Readings it was fitted to.
    pub snapshots: u64,
    /// The most an event between the first snapshot and the last can be off, in ns: a bound, for certain.
    pub error_ns: i64,
    /// The median of that bound over the middles between two snapshots, in ns: far less than `error_ns` if the
    /// domain stepped. 0 in a trace from before it was told.
    #[serde(default)]
    pub error_ns_p50: i64,
    /// How much slower than CLOCK_MONOTONIC the domain runs, in parts per billion; its mean over the longest stretch
    /// without a step.
    pub drift_ppb: i64,
    /// How often the domain stepped.
    #[serde(default)]
    pub steps: u64,
    /// Events that the fit has before their cause, by more than it can be off.
    #[serde(default)]
    pub violations: u64,
    /// Where hosts were joined by CLOCK_REALTIME: how far that clock strayed from CLOCK_MONOTONIC in this host's readings,
    /// their own error included, in ns. How far apart two hosts' clocks are, nobody has measured.
    #[serde(default)]
    pub host_error_ns: i64,
}

/// The timeline's zero on the clocks of its first host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// CLOCK_MONOTONIC, in ns.
    pub monotonic_ns: i64,
    /// CLOCK_REALTIME, in ns since 1970; `None` when no snapshot read it.
    pub realtime_ns: Option<i64>,
}

impl Step {
    /// A step of the command `command` of this build.
    pub fn new(command: &str, flags: Vec<String>, inputs: Vec<String>) -> Step {
        Step {
            command: command.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            flags,
            inputs,
        }
    }
}

impl Provenance {
    /// Of a new raw trace, made by `step`.
    pub fn raw(step: Step) -> Provenance {
        Provenance {
            version: VERSION,
            stage: Stage::Raw,
            steps: vec![step],
            machine: Value::Null,
            config: Value::Null,
            clocks: Vec::new(),
            origin: None,
        }
    }

    /// Of what `step` made of traces with these provenances: their steps, each once, then its own.
    pub fn join<'a>(parts: impl IntoIterator<Item = &'a Provenance>, step: Step) -> Provenance {
        let mut whole = Provenance::raw(step.clone());
        whole.steps.clear();
        let (mut machines, mut configs) = (Vec::new(), Vec::new());
        for part in parts {
            for step in &part.steps {
                if !whole.steps.contains(step) {
                    whole.steps.push(step.clone());
                }
            }
            gather(&mut machines, &part.machine);
            gather(&mut configs, &part.config);
        }
        whole.steps.push(step);
        whole.machine = one_or_all(machines);
        whole.config = one_or_all(configs);
        whole
    }
}

fn gather(all: &mut Vec<Value>, value: &Value) {
    match value {
        Value::Null => {}
        Value::Array(values) => values.iter().for_each(|value| gather(all, value)),
        value if all.contains(value) => {}
        value => all.push(value.clone()),
    }
}

fn one_or_all(mut values: Vec<Value>) -> Value {
    match values.len() {
        0 => Value::Null,
        1 => values.remove(0),
        _ => Value::Array(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_clock_of_a_trace_from_before_steps_were_counted_has_none() {
        let old =
            json!({"process": 0, "domain": "tsc", "snapshots": 2, "error_ns": 300, "drift_ppb": 7});
        let clock: ClockFit = serde_json::from_value(old).unwrap();
        assert_eq!((clock.error_ns, clock.drift_ppb), (300, 7));
        assert_eq!(
            (clock.error_ns_p50, clock.steps, clock.violations),
            (0, 0, 0)
        );
    }

    #[test]
    fn joined_parts_name_each_step_and_machine_once() {
        let mut part = Provenance::raw(Step::new("isc-record", vec![], vec![]));
        part.machine = json!({"cpus": 2});
        let step = Step::new("isc-merge", vec![], vec!["aa".into(), "bb".into()]);
        let whole = Provenance::join([&part, &part], step.clone());
        assert_eq!(whole.steps, [part.steps[0].clone(), step]);
        assert_eq!(whole.machine, json!({"cpus": 2}));
    }
}

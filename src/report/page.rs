//! What the templates show: the analysis with its numbers written out.

use serde::Serialize;
use serde_json::{Map, Value};

use super::flame::Flame;
use super::units;

/// Rows of a table that people still read.
const LONGEST_TABLE: usize = 30;

/// A page, in the order in which it is read.
#[derive(Debug, Serialize)]
pub struct Page {
    class: String,
    confidence: String,
    summary: String,
    span: String,
    breakdown: Vec<Bar>,
    gaps: Vec<Bar>,
    findings: Vec<Finding>,
    steps: Table,
    functions: Table,
    libraries: Table,
    processes: Table,
    threads: Table,
    flame: Flame,
    recording: Vec<Fact>,
    facts: Vec<Fact>,
    caveats: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Bar {
    name: String,
    time: String,
    share: String,
    /// Percent, for a style's width.
    width: String,
    /// The same as block characters, a full one for 4 %.
    blocks: String,
    colour: usize,
}

#[derive(Debug, Serialize)]
struct Finding {
    id: String,
    severity: String,
    confidence: String,
    place: String,
    gain: String,
    evidence: Vec<String>,
    suggestion: String,
}

#[derive(Debug, Serialize)]
struct Fact {
    name: String,
    value: String,
}

/// Columns and rows; `left` rows did not fit.
#[derive(Debug, Default, Serialize)]
struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    left: usize,
}

#[derive(Debug, Serialize)]
struct Column {
    name: String,
    /// Numbers stand on the right.
    number: bool,
}

impl Page {
    /// The page of an analysis; what it lacks is left out.
    pub fn of(analysis: &Value) -> Page {
        let verdict = &analysis["verdict"];
        let span = number(&analysis["span_ns"]);
        let facts = object(&analysis["facts"]);
        let (recording, facts): (Vec<_>, Vec<_>) = facts
            .into_iter()
            .partition(|(key, _)| key.starts_with("recorder.") || key.starts_with("recording."));
        let mut recording: Vec<Fact> = recording.into_iter().map(|(k, v)| fact(k, v)).collect();
        let own = object(&analysis["recording"]);
        recording.extend(own.into_iter().map(|(key, value)| fact(key, value)));
        Page {
            class: text(&verdict["class"]),
            confidence: percent(&verdict["confidence"]),
            summary: text(&verdict["summary"]),
            span: units::time(span),
            breakdown: bars(&analysis["breakdown"], "category", span),
            gaps: bars(&analysis["gaps"], "cause", span),
            findings: list(&analysis["findings"])
                .iter()
                .map(Finding::of)
                .collect(),
            steps: Table::of(&analysis["steps"], &["scope", "kind", "count"]),
            functions: functions(&analysis["functions"]),
            libraries: Table::of(&analysis["libraries"], &["name", "library"]),
            processes: Table::of(
                &analysis["processes"],
                &["name", "process", "pid", "python"],
            ),
            threads: Table::of(&analysis["threads"], &["name", "process", "pid", "tid"]),
            flame: Flame::of(list(&analysis["paths"]).iter().map(path)),
            recording,
            facts: facts
                .into_iter()
                .map(|(key, value)| fact(key, value))
                .collect(),
            caveats: list(&analysis["caveats"]).iter().map(text).collect(),
        }
    }
}

impl Finding {
    fn of(value: &Value) -> Finding {
        let gain = &value["gain"];
        let gain = match (&gain["speedup"], &gain["low"], &gain["high"]) {
            (Value::Null, _, _) => String::new(),
            (best, Value::Null, _) | (best, _, Value::Null) => format!("{:.2}×", number(best)),
            (best, low, high) => format!(
                "{:.2}× ({:.2} to {:.2})",
                number(best),
                number(low),
                number(high)
            ),
        };
        Finding {
            id: match text(&value["title"]) {
                title if title.is_empty() => text(&value["id"]),
                title => title,
            },
            severity: text(&value["severity"]),
            confidence: percent(&value["confidence"]),
            place: text(&value["where"]),
            gain,
            evidence: (list(&value["evidence"]).iter())
                .map(|evidence| match evidence {
                    Value::Object(_) => text(&evidence["text"]),
                    other => text(other),
                })
                .collect(),
            suggestion: text(&value["suggestion"]),
        }
    }
}

impl Table {
    /// A table of objects: these columns first, then every other plain one in the order of its name.
    fn of(values: &Value, first: &[&str]) -> Table {
        let objects: Vec<&Map<String, Value>> =
            list(values).iter().filter_map(Value::as_object).collect();
        let shown = &objects[..objects.len().min(LONGEST_TABLE)];
        let has = |key: &str| {
            shown
                .iter()
                .any(|o| o.get(key).is_some_and(|v| !v.is_null()))
        };
        let mut keys: Vec<&str> = first.iter().copied().filter(|key| has(key)).collect();
        let mut others: Vec<&str> = (shown.iter())
            .flat_map(|object| object.iter())
            .filter(|(_, value)| !value.is_object() && !value.is_array())
            .map(|(key, _)| key.as_str())
            .filter(|key| !keys.contains(key) && has(key))
            .collect();
        others.sort_unstable();
        others.dedup();
        keys.extend(others);
        let is_number = |key: &str| {
            let mut values = shown.iter().filter_map(|object| object.get(key));
            values.all(|value| value.is_number() || value.is_null())
        };
        Table {
            columns: (keys.iter())
                .map(|key| Column {
                    name: units::head(key),
                    number: is_number(key),
                })
                .collect(),
            rows: (shown.iter())
                .map(|object| {
                    let cell = |key: &&str| {
                        object
                            .get(*key)
                            .map_or(String::new(), |value| units::value(key, value))
                    };
                    keys.iter().map(cell).collect()
                })
                .collect(),
            left: objects.len() - shown.len(),
        }
    }
}

/// The functions with the most time of their own, interpreter and native apart.
fn functions(values: &Value) -> Table {
    let mut all: Vec<&Value> = list(values).iter().collect();
    all.sort_by(|a, b| number(&b["self_ns"]).total_cmp(&number(&a["self_ns"]))); // stable
    let shown = &all[..all.len().min(LONGEST_TABLE)];
    let names = [
        "function",
        "where",
        "kind",
        "calls",
        "self",
        "interpreter",
        "native",
        "total",
    ];
    let row = |function: &&Value| {
        let own = number(&function["self_ns"]);
        let native = number(&function["native_ns"]).clamp(0.0, own.max(0.0));
        let calls = units::value("calls", &function["calls"]);
        let calls = match number(&function["calls_error"]) {
            error if error > 0.0 => format!("{calls} ± {}", units::count(error)),
            _ => calls,
        };
        let spent = units::time(own);
        let spent = match number(&function["error_ns"]) {
            error if error > 0.0 => format!("{spent} ± {}", units::time(error)),
            _ => spent,
        };
        let place = match (text(&function["file"]), &function["line"]) {
            (file, Value::Number(line)) if !file.is_empty() => format!("{file}:{line}"),
            (file, _) => file,
        };
        vec![
            text(&function["name"]),
            place,
            text(&function["kind"]),
            calls,
            spent,
            units::time(own - native),
            units::time(native),
            units::time(number(&function["total_ns"])),
        ]
    };
    Table {
        columns: (names.iter().enumerate())
            .map(|(at, name)| Column {
                name: (*name).into(),
                number: at >= 3,
            })
            .collect(),
        rows: shown.iter().map(row).collect(),
        left: all.len() - shown.len(),
    }
}

fn bars(values: &Value, name: &str, span: f64) -> Vec<Bar> {
    let bar = |(at, value): (usize, &Value)| {
        let ns = number(&value["time_ns"]);
        let share = match &value["share"] {
            Value::Number(share) => share.as_f64().unwrap_or(0.0),
            _ if span > 0.0 => ns / span,
            _ => 0.0,
        };
        let whole = share.clamp(0.0, 1.0);
        Bar {
            name: text(&value[name]),
            time: units::time(ns),
            share: units::share(share),
            width: format!("{:.2}", whole * 100.0),
            blocks: "█".repeat((whole * 25.0).round() as usize),
            colour: at % 8,
        }
    };
    list(values).iter().enumerate().map(bar).collect()
}

/// A call path: frames as a list or joined by `;`, outermost first, and the ns at its end.
fn path(value: &Value) -> (Vec<&str>, f64) {
    let frames = ["frames", "path", "stack"]
        .iter()
        .find_map(|key| value.get(*key));
    let frames = match frames {
        Some(Value::Array(frames)) => (frames.iter())
            .map(|frame| frame.as_str().or(frame["name"].as_str()).unwrap_or("?"))
            .collect(),
        Some(Value::String(joined)) => joined.split(';').collect(),
        _ => Vec::new(),
    };
    let ns = ["self_ns", "time_ns", "total_ns"]
        .iter()
        .find_map(|key| value.get(*key));
    (frames, ns.map_or(0.0, number))
}

fn fact(key: &str, value: &Value) -> Fact {
    Fact {
        name: units::line(key),
        value: units::value(key, value),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn object(value: &Value) -> Vec<(&String, &Value)> {
    value
        .as_object()
        .map_or(Vec::new(), |map| map.iter().collect())
}

fn text(value: &Value) -> String {
    value.as_str().map_or(String::new(), units::line)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn percent(value: &Value) -> String {
    value
        .as_f64()
        .map_or(String::new(), |share| format!("{:.0} %", share * 100.0))
}

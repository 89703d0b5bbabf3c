//! What the templates show: the analysis with its numbers written out.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use super::calls::{Calls, Sort, Tree};
use super::flame::{self, Flame, Path};
use super::units;

/// Rows of a table that people still read.
const LONGEST_TABLE: usize = 30;

/// A page, in the order in which it is read.
#[derive(Debug, Serialize)]
pub struct Page {
    /// What stands before everything else: records were lost.
    warning: String,
    program: String,
    class: String,
    confidence: String,
    summary: String,
    /// Length, processes, threads, Pythons.
    recorded: String,
    breakdown: Vec<Bar>,
    gaps: Vec<Bar>,
    findings: Vec<Finding>,
    /// Steps and functions.
    first: Vec<Table>,
    /// Where the call paths come from, and how to get all of them.
    calls: String,
    paths: Vec<Path>,
    /// JSON that is safe inside a script; empty if there are no calls.
    flame: String,
    /// Libraries, processes, threads.
    rest: Vec<Table>,
    caveats: Vec<String>,
    recording: Vec<Fact>,
    facts: Vec<Fact>,
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
    colour: String,
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
    title: &'static str,
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    /// Widths of the two parts of each row's bar, in percent; empty for a table without bars.
    bars: Vec<[String; 2]>,
    left: usize,
}

#[derive(Debug, Serialize)]
struct Column {
    name: String,
    /// Numbers stand on the right.
    number: bool,
}

impl Page {
    /// The page of an analysis; what it lacks is left out. The calls are those of its timeline, where that was given.
    pub fn of(analysis: &Value, calls: Option<&Calls>) -> Page {
        let verdict = &analysis["verdict"];
        let span = number(&analysis["span_ns"]);
        let (recording, facts): (Vec<_>, Vec<_>) = object(&analysis["facts"])
            .into_iter()
            .partition(|(key, _)| {
                let of = ["recorder.", "recording.", "clock."];
                of.iter().any(|of| key.starts_with(of))
            });
        let recording = object(&analysis["recording"]).into_iter().chain(recording);
        let cpu = number(&analysis["facts"]["cpu.ns"]);
        let known;
        let (tree, source) = match calls {
            Some(calls) => {
                let spans = units::count(calls.spans as f64);
                (
                    &calls.tree,
                    format!("All {spans} spans of the timeline, thread by thread."),
                )
            }
            None => {
                known = paths(analysis);
                let said = "The heaviest call paths that the analysis has; isc-report --trace TIMELINE shows all calls.";
                (&known, said.to_owned())
            }
        };
        let flame = Flame::of(tree);
        Page {
            warning: warning(analysis),
            program: program(&analysis["processes"]),
            class: text(&verdict["class"]),
            confidence: percent(&verdict["confidence"]),
            summary: text(&verdict["summary"]),
            recorded: recorded(analysis, span),
            breakdown: bars(&analysis["breakdown"], "category", span),
            gaps: bars(
                &of_all(&analysis["gaps"]),
                "cause",
                number(&analysis["facts"]["gpu.span_ns"]),
            ),
            findings: list(&analysis["findings"])
                .iter()
                .map(Finding::of)
                .collect(),
            first: tables([
                Table::of("Steps and requests", &analysis["steps"], &STEPS),
                functions(&analysis["functions"]),
                Table::of("Lines", &analysis["lines"], &LINES),
            ]),
            calls: source,
            paths: flame::heaviest(tree),
            flame: match flame.is_empty() {
                true => String::new(),
                false => flame.json().unwrap_or_default(),
            },
            rest: tables([
                Table::of(
                    "Native libraries",
                    &analysis["libraries"],
                    &["library", "name"],
                ),
                Table::of("Processes", &analysis["processes"], &PROCESSES),
                Table::of("Threads", &analysis["threads"], &THREADS),
                Table::of("Devices", &analysis["devices"], &["device"]),
            ]),
            caveats: list(&analysis["caveats"]).iter().map(text).collect(),
            recording: recording
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| fact(key, value).against(cpu, key, value))
                .collect(),
            facts: facts
                .into_iter()
                .map(|(key, value)| fact(key, value))
                .collect(),
        }
    }
}

/// Columns that stand first, in this order.
const STEPS: [&str; 8] = [
    "scope",
    "kind",
    "count",
    "total_ns",
    "dur_ns_mean",
    "dur_ns_p50",
    "dur_ns_p90",
    "dur_ns_p99",
];
const LINES: [&str; 6] = ["function", "file", "line", "hits", "time_ns", "share"];
const PROCESSES: [&str; 8] = [
    "name", "process", "pid", "python", "covered", "reason", "start_ns", "dur_ns",
];
const THREADS: [&str; 8] = [
    "name",
    "process",
    "tid",
    "cpu_ns",
    "python_ns",
    "native_ns",
    "runnable_ns",
    "blocked_ns",
];

/// Those with rows.
fn tables(all: impl IntoIterator<Item = Table>) -> Vec<Table> {
    all.into_iter()
        .filter(|table| !table.rows.is_empty())
        .collect()
}

/// Lost records come first: every sum below is too low by them.
fn warning(analysis: &Value) -> String {
    match number(&analysis["recording"]["lost"]) {
        lost if lost > 0.0 => format!(
            "{} records were lost while recording; sums below are too low by what they held.",
            units::count(lost)
        ),
        _ => String::new(),
    }
}

/// The name of the first process.
fn program(processes: &Value) -> String {
    let first = |value: &Value| (number(&value["start_ns"]), number(&value["process"]));
    let all = list(processes).iter();
    let first = all.min_by(|a, b| {
        let (a, b) = (first(a), first(b));
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    first.map_or(String::new(), |process| text(&process["name"]))
}

/// `4.20 s recorded, 2 processes, 5 threads, CPython 3.12.1`.
fn recorded(analysis: &Value, span: f64) -> String {
    let mut said = format!("{} recorded", units::time(span));
    for (key, one, many) in [
        ("processes", "process", "processes"),
        ("threads", "thread", "threads"),
    ] {
        match list(&analysis[key]).len() {
            0 => {}
            1 => said.push_str(&format!(", 1 {one}")),
            n => said.push_str(&format!(", {n} {many}")),
        }
    }
    let pythons = list(&analysis["processes"])
        .iter()
        .map(|p| text(&p["python"]));
    let pythons: BTreeSet<String> = pythons.filter(|python| !python.is_empty()).collect();
    for python in pythons {
        said.push_str(&format!(", CPython {python}"));
    }
    said
}

/// The analysis's own call paths as a tree.
fn paths(analysis: &Value) -> Tree {
    let mut sorts = BTreeMap::new();
    for function in list(&analysis["functions"]) {
        let kind = function["kind"].as_str().and_then(|kind| kind.parse().ok());
        let name = text(&function["name"]);
        let sort = kind.map_or(Sort::Other, |kind| Sort::of(kind, &name));
        // Heaviest first: of two with one name that one is meant more often.
        sorts.entry(name).or_insert(sort);
    }
    let mut tree = Tree::default();
    for value in list(&analysis["paths"]) {
        let mut at = 0;
        for frame in list(&value["frames"]) {
            let name = text(frame);
            let sort = sorts.get(&name).copied().unwrap_or(Sort::Python);
            match tree.called(at, sort, &name, "") {
                Some(node) => at = node,
                None => break,
            }
        }
        tree.add(at, number(&value["self_ns"]) as i64, 0);
    }
    tree
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
    fn of(title: &'static str, values: &Value, first: &[&str]) -> Table {
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
            title,
            bars: Vec::new(),
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
            _ if function["calls_error"].is_null() => format!("≥ {calls}"),
            error if error > 0.0 => format!("{calls} ± {}", units::count(error)),
            _ => calls,
        };
        let spent = units::time(own);
        let spent = match number(&function["error_ns"]) {
            error if error > 0.0 => format!("{spent} ± {}", units::time(error)),
            _ => spent,
        };
        // samples of stacks do not tell them apart
        let part = |ns| match function["calls_error"].is_null() {
            true => "–".to_owned(),
            false => units::time(ns),
        };
        let file = units::place(function["file"].as_str().unwrap_or(""));
        let place = match (file, &function["line"]) {
            (file, Value::Number(line)) if !file.is_empty() => format!("{file}:{line}"),
            (file, _) => file,
        };
        vec![
            text(&function["name"]),
            place,
            text(&function["kind"]),
            calls,
            spent,
            part(own - native),
            part(native),
            units::time(number(&function["total_ns"])),
        ]
    };
    // A bar's two parts are the interpreter's time and native time, against the function with most.
    let most = shown
        .first()
        .map_or(0.0, |f| number(&f["self_ns"]))
        .max(1.0);
    let bar = |function: &&Value| {
        let own = number(&function["self_ns"]).max(0.0);
        let native = number(&function["native_ns"]).clamp(0.0, own);
        [own - native, native].map(|ns| format!("{:.1}", 100.0 * ns / most))
    };
    Table {
        title: "Functions, by their own time",
        bars: shown.iter().map(bar).collect(),
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
    let (mut natives, mut others) = (0, 0);
    let bar = |value: &Value| {
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
            colour: colour(&text(&value[name]), &mut natives, &mut others),
        }
    };
    list(values).iter().map(bar).collect()
}

/// The gaps of the union of devices.
fn of_all(gaps: &Value) -> Value {
    let all = list(gaps).iter().filter(|gap| gap["device"] == "all");
    all.cloned().collect()
}

/// The class of a category's colour: what is the same in the flame graph has its colour there too.
fn colour(category: &str, natives: &mut usize, others: &mut usize) -> String {
    let name = match category.split(':').next().unwrap_or("") {
        "python" => "python",
        "native" => {
            *natives += 1;
            return format!("native{}", (*natives - 1) % 3);
        }
        "gc" => "gc",
        "import" => "import",
        "startup" | "exit" => "startup",
        // one colour for all that is not work: their names tell them apart
        "gil" | "lock" | "io" | "sleep" | "blocked" | "idle" => "wait",
        "runnable" => "runnable",
        "unknown" => "unknown",
        _ => {
            *others += 1;
            return format!("other{}", (*others - 1) % 3);
        }
    };
    name.to_owned()
}

impl Fact {
    /// The recorder's CPU time says more beside the program's.
    fn against(mut self, cpu_ns: f64, key: &str, value: &Value) -> Fact {
        if key == "cpu_ns" && cpu_ns > 0.0 {
            let share = units::share(number(value) / cpu_ns);
            let whole = units::time(cpu_ns);
            self.value
                .push_str(&format!(", {share} of the program's {whole}"));
        }
        self
    }
}

fn fact(key: &str, value: &Value) -> Fact {
    let name = match key {
        "events" => "events",
        "lost" => "records lost",
        "cpu_ns" => "CPU time of the recorder",
        key => key,
    };
    Fact {
        name: units::line(name),
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

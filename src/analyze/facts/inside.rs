//! Facts about what the path is in, beyond single functions: Python work that many small functions share, and libraries that
//! read and write formats.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::measure::{FunctionKey, FunctionSums, Measures, PathNode, Track, library, waits};
use super::super::steps::is_own;
use super::super::{Analysis, Function};
use super::tell;
use crate::trace::{HashMap, Kind};

/// A function prepares if so much of what it and all it calls take is the interpreter's.
const MOSTLY: f64 = 2.0 / 3.0;

/// Builtin functions that take less for a call are part of what Python does; longer ones compute something themselves.
const SHORT_NS: i64 = 20_000;

/// Libraries of CPython that read, write or search data for others: no program's own work.
const FORMATS: [&str; 9] = [
    "_json",
    "_csv",
    "_sqlite3",
    "libsqlite3",
    "pyexpat",
    "_elementtree",
    "_decimal",
    "_datetime",
    "_sre",
];

/// Time along the call tree.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    /// In the interpreter and its builtin functions.
    python: f64,
    all: f64,
}

/// The function of the path whose calls are Python for the most part, with all that they call, and that is in no other such
/// one: `prepare`. What a tokenizer or a parser takes is spread over many functions, none of which is hot by itself.
pub(super) fn prepares(
    m: &Measures,
    path: Option<Track>,
    a: &mut Analysis,
    texts: &mut BTreeMap<String, String>,
    rows: &mut BTreeMap<String, i64>,
) {
    let Some(path) = path else { return };
    let mut whole: HashMap<usize, i64> = HashMap::default();
    for node in &m.paths {
        *whole.entry(node.function).or_default() += node.self_ns;
    }
    let builtin = builtin_parts(m);
    let own = |node: &PathNode| {
        let builtin = builtin.get(&node.function).copied().unwrap_or(0.0);
        own(m, path, node, whole[&node.function], builtin)
    };
    let mut sums: Vec<Sums> = m.paths.iter().map(own).collect();
    for at in (0..sums.len()).rev() {
        if let Some(parent) = m.paths[at].parent {
            let inner = sums[at];
            sums[parent].python += inner.python;
            sums[parent].all += inner.all;
        }
    }
    let mut inside = vec![false; sums.len()];
    let mut by_function: BTreeMap<usize, f64> = BTreeMap::new();
    for (at, node) in m.paths.iter().enumerate() {
        if node.parent.is_some_and(|parent| inside[parent]) {
            inside[at] = true;
            continue;
        }
        let (key, _) = &m.functions[node.function];
        let sums = sums[at];
        if key.kind == Kind::Python && sums.python > MOSTLY * sums.all && sums.all > 0.0 {
            inside[at] = true;
            *by_function.entry(node.function).or_default() += sums.all;
        }
    }
    let most = by_function.iter().max_by(|a, b| a.1.total_cmp(b.1));
    let span = m.span_ns().max(1) as f64;
    put(a, "prepare.share", most.map_or(0.0, |(_, ns)| ns / span));
    let Some((&at, &ns)) = most else { return };
    let (key, sums) = &m.functions[at];
    let most = super::function(m, at, key, sums);
    a.facts.insert("prepare.time_ns".into(), json!(ns as i64));
    tell("prepare", &most, texts, rows);
}

/// What the path has of a node's own time, of `whole` at the ends of all paths to its function. That is more than the
/// function's own where what it calls is in bursts: Python too. `builtin`: the part of its native time that is Python's.
fn own(m: &Measures, path: Track, node: &PathNode, whole: i64, builtin: f64) -> Sums {
    let (key, sums) = &m.functions[node.function];
    let Some(own) = m.own.get(&(path, node.function)) else {
        return Sums::default();
    };
    // Of a function whose time went to callees that were not seen, its calls tell where it ran.
    let part = match sums.self_ns > 0 {
        true => own.self_ns as f64 / sums.self_ns as f64,
        false => own.calls as f64 / sums.calls.max(1) as f64,
    };
    let time = node.self_ns as f64 * part.min(1.0);
    let of_own = |ns: i64| ns.max(0) as f64 * node.self_ns as f64 / whole.max(1) as f64;
    if key.kind == Kind::Python {
        let waited = of_own(own.wait_ns).min(time);
        let all = (time - waited).max(0.0);
        return Sums {
            python: (all - of_own(own.native_ns) * (1.0 - builtin)).max(0.0),
            all,
        };
    }
    if key.kind != Kind::Native || waits(m.names.text(key.name)) {
        return Sums::default();
    }
    // What unseen callees took is not the native function's: a parser whose handlers are Python.
    let left = match is_builtin(m, node.function) {
        true => 0.0,
        false => (sums.self_ns as f64 / whole.max(1) as f64).clamp(0.0, 1.0),
    };
    Sums {
        python: time * (1.0 - left),
        all: time,
    }
}

/// A short builtin function of the interpreter's.
fn is_builtin(m: &Measures, native: usize) -> bool {
    let (key, sums) = &m.functions[native];
    let short = sums.self_ns < SHORT_NS * sums.calls.max(1) as i64;
    short && library(key.file.map_or("", |file| m.names.text(file))) == "python"
}

/// Which part of the native time of functions is in such, as far as their calls were seen.
fn builtin_parts(m: &Measures) -> HashMap<usize, f64> {
    let mut parts: HashMap<usize, (f64, f64)> = HashMap::default();
    for (&(function, native), calls) in &m.calls {
        let (_, sums) = &m.functions[native];
        let ns = calls.mean * sums.self_ns as f64 / sums.calls.max(1) as f64;
        let (builtin, all) = parts.entry(function).or_default();
        *builtin += if is_builtin(m, native) { ns } else { 0.0 };
        *all += ns;
    }
    let part = |(function, (builtin, all)): (usize, (f64, f64))| (function, builtin / all.max(1.0));
    parts.into_iter().map(part).collect()
}

/// What the path spends in libraries of formats: `format`, and which function most of it is in.
pub(super) fn formats(
    m: &Measures,
    path: Option<Track>,
    on_path: &[Function],
    a: &mut Analysis,
    texts: &mut BTreeMap<String, String>,
    rows: &mut BTreeMap<String, i64>,
) {
    let is = |name: &str| FORMATS.contains(&name);
    let of = path.and_then(|path| m.threads.get(&path));
    let ns = of.map_or(0, |thread| {
        let known = thread.times.native_ns.iter();
        known.filter(|(name, _)| is(name)).map(|(_, ns)| ns).sum()
    });
    put(a, "format.share", ns as f64 / m.span_ns().max(1) as f64);
    a.facts.insert("format.time_ns".into(), json!(ns));
    let native = |f: &&Function| f.kind == "native" && is(library(f.file.as_deref().unwrap_or("")));
    let call = on_path.iter().filter(native).max_by_key(|f| f.self_ns);
    // Where calls are not seen, samples tell who is in native code.
    let sampled = |f: &Function| {
        let own = path.and_then(|path| m.own.get(&(path, f.at)));
        own.map_or(0, |own| own.sampled_ns)
    };
    let most = match call.filter(|f| 2 * f.self_ns > ns) {
        Some(call) => Some(call),
        None => on_path.iter().max_by_key(|f| sampled(f)),
    };
    if let Some(most) = most.filter(|_| ns > 0) {
        tell("format", most, texts, rows);
    }
}

/// How `subprocess` waits for a child: until it ends, or has read and written all that there is.
const CHILD: [&str; 2] = ["Popen.communicate", "Popen.wait"];

/// What the path waits for children: `child`, and the program's own function that does.
pub(super) fn children(
    m: &Measures,
    path: Option<Track>,
    a: &mut Analysis,
    texts: &mut BTreeMap<String, String>,
    rows: &mut BTreeMap<String, i64>,
) {
    let waits = |(at, (key, sums)): (usize, &(FunctionKey, FunctionSums))| {
        let file = key.file.map_or("", |file| m.names.text(file));
        let is = CHILD.contains(&m.names.text(key.name)) && file.ends_with("/subprocess.py");
        let own = m.own.get(&(path?, at)).filter(|_| is)?;
        let part = own.calls as f64 / sums.calls.max(1) as f64;
        Some((at, (sums.total_ns as f64 * part.min(1.0)) as i64))
    };
    // The one waits in the other.
    let most = m.functions.iter().enumerate().filter_map(waits);
    let most = most.max_by_key(|(_, ns)| *ns);
    let ns = most.map_or(0, |(_, ns)| ns);
    put(a, "child.share", ns as f64 / m.span_ns().max(1) as f64);
    a.facts.insert("child.time_ns".into(), json!(ns));
    let Some((waits, _)) = most else { return };
    let at = caller(m, waits).map_or(waits, |caller| caller.own);
    let (key, sums) = &m.functions[at];
    let most = super::function(m, at, key, sums);
    tell("child", &most, texts, rows);
}

/// Through what a function is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// The program's own function that is next above it.
    pub own: usize,
    /// What that one calls: the function itself, or one of a library that calls it.
    pub called: usize,
}

/// Through what a function is called for most of its time, if by the program's own code at all.
pub(super) fn caller(m: &Measures, function: usize) -> Option<Caller> {
    let mine = |at: usize| {
        let (key, _) = &m.functions[at];
        key.kind == Kind::Python && is_own(key.file.map_or("", |file| m.names.text(file)))
    };
    let mut times: BTreeMap<(usize, usize), i64> = BTreeMap::new();
    let mut below: Vec<i64> = m.paths.iter().map(|node| node.self_ns).collect();
    for at in (0..below.len()).rev() {
        if let Some(parent) = m.paths[at].parent {
            below[parent] += below[at];
        }
    }
    for (node, ns) in m.paths.iter().zip(below) {
        if node.function != function {
            continue;
        }
        let mut called = node.function;
        for at in m.above(node) {
            if mine(at) {
                *times.entry((at, called)).or_default() += ns;
                break;
            }
            if m.functions[at].0.kind == Kind::Python {
                called = at;
            }
        }
    }
    let most = times.into_iter().max_by_key(|(_, ns)| *ns);
    most.map(|((own, called), _)| Caller { own, called })
}

fn put(a: &mut Analysis, name: &str, share: f64) {
    a.facts.insert(name.into(), Value::from(share));
}

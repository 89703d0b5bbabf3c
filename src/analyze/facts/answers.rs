//! Facts about work that goes to other threads and processes, and is waited for: whether any of it overlaps.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::Analysis;
use super::super::measure::{Measures, PathNode, Thread, Track, waits};
use super::super::steps::is_own;
use super::super::waited::{Place, Waits, is_answer, is_idle};
use super::tell;
use crate::trace::{HashMap, Kind};

/// A thread that is at work for so much of the timeline takes part.
const PART: f64 = 0.1;

/// A function that asks is called so often, at least.
const OFTEN: u64 = 10;

/// Who waits for so much of the timeline is one that asks others.
const MUCH: f64 = 0.3;

/// What the main thread that does so most waits for answers of other threads and processes, `answer`: the share, who of
/// the others is at work, and what could be won if they worked at once.
pub(super) fn answers(
    m: &Measures,
    a: &mut Analysis,
    texts: &mut BTreeMap<String, String>,
    rows: &mut BTreeMap<String, i64>,
) {
    let wall = m.span_ns().max(1) as f64;
    let busy = |t: &Thread| (t.cpu_ns.unwrap_or(0) + t.runnable_ns) as f64 / wall;
    let waits: Vec<(usize, Waiting)> = (m.paths.iter())
        .filter_map(|node| Some((node.function, waiting(m, node)?)))
        .collect();
    let mains = m.threads.iter();
    let mains = mains.filter(|((_, tid), t)| *tid == u64::from(t.pid) && busy(t) < 1.0 - PART);
    let by_thread: BTreeMap<Track, BTreeMap<usize, f64>> = mains
        .map(|(track, _)| (*track, asked(m, *track, &waits)))
        .collect();
    let sum = |functions: &BTreeMap<usize, f64>| functions.values().sum::<f64>();
    // Two that wait for each other by turns: the first one started the other.
    let first = by_thread
        .iter()
        .find(|(_, functions)| sum(functions) > MUCH * wall);
    let most = by_thread
        .iter()
        .max_by(|a, b| sum(a.1).total_cmp(&sum(b.1)));
    let most = first.or(most);
    let ns = most.map_or(0.0, |(_, functions)| sum(functions));
    let share = (ns / wall).min(1.0);
    a.facts.insert("answer.share".into(), json!(share));
    a.facts.insert("answer.time_ns".into(), json!(ns as i64));
    let others = most.map_or(Vec::new(), |(asker, _)| {
        let others = m.threads.iter().filter(|(track, _)| *track != asker);
        others.map(|(track, t)| (track.0, busy(t))).collect()
    });
    let (long, short): (Vec<_>, Vec<_>) = others.into_iter().partition(|(_, busy)| *busy > PART);
    // One child after the other, each for one answer, is as one that stays.
    let of_short = short.iter().map(|(_, busy)| busy).sum::<f64>();
    let of_short = if of_short > PART { of_short } else { 0.0 };
    let workers = long.len() + of_short.ceil() as usize;
    a.facts.insert("answer.workers".into(), json!(workers));
    // As short as the longest of: what the asker does itself, what each of the others does, all of it on all processors.
    let least = (1.0 - share).max(share / workers.max(1) as f64);
    let least = least.max(m.cpus.map_or(0.0, |cpus| 1.0 / cpus.max(1) as f64));
    a.facts.insert("answer.speedup".into(), json!(1.0 / least));
    let top = most
        .iter()
        .flat_map(|(_, functions)| functions.iter())
        .max_by(|a, b| a.1.total_cmp(b.1));
    let Some((&at, _)) = top else { return };
    let (key, sums) = &m.functions[at];
    let top = super::function(m, at, key, sums);
    tell("answer", &top, texts, rows);
    // Children that live for an answer each are waited for like programs that it starts.
    let path = most.map_or(0, |(asker, _)| asker.0);
    let children: BTreeSet<u32> = short.iter().map(|(process, _)| *process).collect();
    let known = a.facts.get("child.time_ns").and_then(Value::as_i64);
    if long.is_empty()
        && of_short > 0.0
        && ns as i64 > known.unwrap_or(0)
        && children.iter().filter(|process| **process != path).count() as u64 >= OFTEN
    {
        a.facts.insert("child.share".into(), json!(share));
        a.facts.insert("child.time_ns".into(), json!(ns as i64));
        tell("child", &top, texts, rows);
    }
}

/// The end of a path where one waits.
#[derive(Debug)]
struct Waiting {
    /// The program's own function that is next above it, else the outermost one.
    own: usize,
    self_ns: i64,
    /// For an answer.
    answer: bool,
}

/// What each own function of a thread waits for answers. Paths are those of all threads: what a function waits is the
/// thread's by the paths whose own function runs there.
fn asked(m: &Measures, track: Track, waits: &[(usize, Waiting)]) -> BTreeMap<usize, f64> {
    let calls = |at: usize| m.own.get(&(track, at)).map_or(0, |own| own.calls);
    let mut whole: HashMap<usize, i64> = HashMap::default();
    let here = || waits.iter().filter(|(_, waiting)| calls(waiting.own) > 0);
    for (function, waiting) in here() {
        *whole.entry(*function).or_default() += waiting.self_ns;
    }
    let mut functions = BTreeMap::new();
    for (function, waiting) in here() {
        // Who waits for the end of threads has nothing else to do.
        if !waiting.answer || calls(waiting.own) < OFTEN {
            continue;
        }
        let Some(own) = m.own.get(&(track, *function)) else {
            continue;
        };
        let waited = (own.wait_ns - own.idle_ns).max(0) as f64;
        let part = waiting.self_ns as f64 / whole[function].max(1) as f64;
        *functions.entry(waiting.own).or_default() += waited * part;
    }
    functions
}

/// How one waits at the end of this path, if at all.
fn waiting(m: &Measures, node: &PathNode) -> Option<Waiting> {
    let (key, sums) = &m.functions[node.function];
    let (name, file) = (m.names.text(key.name), key.file);
    let known = match key.kind {
        Kind::Native if waits(name) => Some(Waits::of_call(name)),
        Kind::Python if sums.wait_ns > 0 => None,
        _ => return None,
    };
    let stack = std::iter::once(node.function).chain(m.above(node));
    let stack: Vec<usize> = stack
        .filter(|at| m.functions[*at].0.kind == Kind::Python)
        .collect();
    let place = |&at: &usize| {
        let key = &m.functions[at].0;
        Place {
            name: m.names.text(key.name),
            file: key.file.map_or("", |file| m.names.text(file)),
        }
    };
    let places = || stack.iter().map(place);
    let call = if known.is_some() { name } else { "" };
    let native = file.map_or("", |file| m.names.text(file));
    let is = |waits: Waits| is_answer(waits, places()) && !is_idle(waits, call, native, places());
    let own = |at: &&usize| is_own(place(at).file);
    Some(Waiting {
        own: stack.iter().find(own).or(stack.last()).copied()?,
        self_ns: node.self_ns,
        // Rows tell of waits in Python code; there it is the file that says what for.
        answer: known.map_or_else(|| is(Waits::Lock) || is(Waits::Io), is),
    })
}

//! Facts about waits: what for, who has the GIL, what holds an event loop up.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::Share;
use super::super::device::percentile;
use super::super::measure::{Measures, Thread as Track};
use super::super::waited::Waits;
use super::{inside, place_of};

/// A thread that waits for locks for so much of the timeline is one that queues up.
const WAITER: f64 = 0.05;

/// Two threads do the same if so much of their own time is in the same functions, in the same parts.
const ALIKE: f64 = 0.5;

/// Whether a category is one of waiting, but for work.
pub(super) fn is_wait(category: &str) -> bool {
    let is = |waits: &&Waits| **waits != Waits::Idle && waits.word() == category;
    Waits::ALL.iter().any(|waits| is(&waits))
}

/// What the threads that do the same as the path's run and want to, in ns: the other workers of a pool. Fewer of them
/// would have more each to do.
fn peers(m: &Measures, path: Option<(u32, u64)>) -> f64 {
    let mut threads: BTreeMap<(u32, u64), BTreeMap<usize, i64>> = BTreeMap::new();
    for (&(track, function), own) in &m.own {
        let ns = (own.self_ns - own.wait_ns).max(0);
        threads.entry(track).or_default().insert(function, ns);
    }
    let Some((path, theirs)) = path.and_then(|path| Some((path, threads.get(&path)?))) else {
        return 0.0;
    };
    let whole = |own: &BTreeMap<usize, i64>| own.values().sum::<i64>().max(1) as f64;
    let all = whole(theirs);
    let alike = |own: &BTreeMap<usize, i64>| {
        let sum = whole(own);
        let both = |(function, ns): (&usize, &i64)| {
            let theirs = theirs.get(function).copied().unwrap_or(0);
            (*ns as f64 / sum).min(theirs as f64 / all)
        };
        own.iter().map(both).sum::<f64>() >= ALIKE
    };
    let peers = threads
        .iter()
        .filter(|(track, own)| **track != path && alike(own));
    let wants = |t: &Track| t.cpu_ns.unwrap_or(0) + t.runnable_ns;
    peers
        .filter_map(|(track, _)| m.threads.get(track).map(wants))
        .sum::<i64>() as f64
}

/// Facts about waits: of all threads, of the path, of event loops. Returns texts.
pub(super) fn waits(
    m: &Measures,
    path: Option<(u32, u64)>,
    breakdown: &[Share],
    facts: &mut BTreeMap<String, Value>,
) -> BTreeMap<String, String> {
    let wall = m.span_ns().max(1) as f64;
    let mut texts = BTreeMap::new();
    let mut fact = |name: &str, value: Value| drop(facts.insert(name.into(), value));
    let sum = |of: &dyn Fn(&Track) -> i64| -> i64 { m.threads.values().map(of).sum() };
    let seen = |waits: Waits| sum(&|t| t.seen.get(&waits).copied().unwrap_or(0));
    for waits in [Waits::Gil, Waits::Lock, Waits::Io, Waits::Sleep] {
        fact(&format!("wait.{}_ns", waits.word()), json!(seen(waits)));
    }
    // 95 % of a normal distribution
    fact("wait.error_ns", json!((1.96 * m.wait_error2.sqrt()) as i64));
    let runnable = sum(&|t| t.runnable_ns);
    let cpu = sum(&|t| t.cpu_ns.unwrap_or(0));
    let busy = (cpu + runnable) as f64 / wall;
    let excess = m.cpus.map_or(0.0, |cpus| (busy - cpus as f64).max(0.0));
    fact("threads.busy", json!(busy));
    fact("threads.excess", json!(excess));
    fact("threads.peers", json!(peers(m, path) / wall));
    fact("threads.gil", json!(seen(Waits::Gil) as f64 / wall));
    let contended = sum(&|t| t.times.contended_ns);
    fact("threads.lock", json!(contended as f64 / wall));
    let queues = |ns: i64| ns as f64 > WAITER * wall;
    let queue = |t: &&Track| queues(t.times.contended_ns);
    fact(
        "lock.waiters",
        json!(m.threads.values().filter(queue).count()),
    );
    // Of the time in which those that queue do not wait for work, how much they queue.
    let queued = |of: &dyn Fn(&Track) -> i64| {
        let waiters = m.threads.values().filter(|t| queues(of(t)));
        let (queued, all) = waiters.fold((0, 0), |(queued, all), t| {
            let idle = t.times.waits.get(&Waits::Idle).copied().unwrap_or(0);
            let lived = t.first_ns.map_or(0, |first| t.last_ns - first);
            (queued + of(t), all + (lived - idle).max(0))
        });
        queued as f64 / all.max(queued).max(1) as f64
    };
    fact("lock.queue.share", json!(queued(&|t| t.times.contended_ns)));
    let gil = |t: &Track| t.seen.get(&Waits::Gil).copied().unwrap_or(0);
    fact("gil.queue.share", json!(queued(&gil)));
    let own = path.and_then(|path| m.threads.get(&path));
    let own = own.map_or(0, |t| t.times.contended_ns);
    fact("lock.contended.share", json!(own as f64 / wall));

    let most = breakdown.iter().find(|share| is_wait(&share.category));
    if let Some(most) = most {
        texts.insert(
            "wait.for".into(),
            Waits::of_row(&most.category).words().into(),
        );
    }
    let mut place = |label: &str, function: Option<usize>, ns: i64, on: &str| {
        fact(&format!("{label}.time_ns"), json!(ns));
        fact(&format!("{label}.share"), json!(ns as f64 / wall));
        let Some(function) = function else { return };
        let (key, sums) = &m.functions[function];
        let mut f = super::function(m, function, key, sums);
        // A call of a library is told by who makes it.
        if let Some(caller) = inside::caller(m, function).filter(|_| f.kind == "native") {
            let (key, sums) = &m.functions[caller.own];
            f = super::function(m, caller.own, key, sums);
        }
        texts.insert(format!("{label}.where"), format!("{}{on}", place_of(&f)));
        texts.insert(format!("{label}.name"), f.name);
    };
    let holders = m
        .holders
        .iter()
        .filter(|((waits, ..), _)| Some(*waits) == path);
    // Ties go to the first, so that equal input gives equal bytes.
    if let Some(((_, holder, function), ns)) = holders.rev().max_by_key(|(_, ns)| **ns) {
        let thread = m.threads.get(holder).map_or("", |thread| &thread.name);
        place("gil.holder", *function, *ns, &format!(" in {thread}"));
    }
    let locks = m
        .contended
        .iter()
        .filter(|((waits, _), _)| Some(*waits) == path);
    if let Some(((_, function), ns)) = locks.rev().max_by_key(|(_, ns)| **ns) {
        place("lock.top", Some(*function), *ns, "");
    }
    // Those of all threads: those that the path waits for may queue while it does not.
    let mut everywhere: BTreeMap<usize, i64> = BTreeMap::new();
    for ((_, function), ns) in &m.contended {
        *everywhere.entry(*function).or_default() += ns;
    }
    if let Some((function, ns)) = everywhere.into_iter().rev().max_by_key(|(_, ns)| *ns) {
        place("lock.all", Some(function), ns, "");
    }
    let loops = &m.loops;
    let waiting: i64 = loops.waiting.values().sum();
    let top = loops.waiting.iter().rev().max_by_key(|(_, ns)| **ns);
    place(
        "eventloop.wait",
        top.map(|(function, _)| *function),
        waiting,
        "",
    );
    // Callbacks that were not seen are like those that were; where only one of the two was not, the other was counted.
    let all = |function: usize| 1.0 + m.unseen.get(&function).copied().unwrap_or(0.0);
    let mut slows: BTreeMap<usize, (u64, i64)> = BTreeMap::new();
    for (&(function, step), &(count, ns)) in loops.slow() {
        let scale = step.map_or(1.0, all).min(all(function));
        let scaled = |number: f64| (number * scale).round();
        let sums = slows.entry(function).or_default();
        sums.0 += scaled(count as f64) as u64;
        sums.1 += scaled(ns as f64) as i64;
    }
    let slow: i64 = slows.values().map(|(_, ns)| ns).sum();
    let top = slows.iter().rev().max_by_key(|(_, (_, ns))| *ns);
    place(
        "eventloop.slow",
        top.map(|(function, _)| *function),
        slow,
        "",
    );
    let count: u64 = slows.values().map(|(count, _)| count).sum();
    fact("eventloop.slow.count", json!(count));
    fact("eventloop.slow.mean_ns", json!(slow / count.max(1) as i64));
    if !loops.ready_ns.is_empty() {
        let mut ready = loops.ready_ns.clone();
        ready.sort_unstable();
        fact("eventloop.ready_ns_p50", json!(percentile(&ready, 50)));
        fact("eventloop.ready_ns_p99", json!(percentile(&ready, 99)));
    }
    texts
}

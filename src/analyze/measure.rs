//! One pass over a timeline: what ran, for how long, on which thread, and what it waited for.
//!
//! Memory grows with functions, call paths and open spans, not with events. Nothing here judges; rules do.

mod functions;
mod host; // what host threads do while devices are idle
mod span; // spans as they begin and end
mod stack;
mod wait; // `wait` rows, and what waits say of event loops and locks

use std::collections::{BTreeMap, BTreeSet};

use super::ask::Asks;
use super::blind::{self, Blind, Often};
use super::device::{Devices, Owner};
use super::idle::{Gaps, Part};
use super::lines::Counted;
use super::replay::{Model, Ops};
use super::requests::Requests;
use super::sampled::{self, Bursts, Sampled};
use super::select::Windows;
use super::throttled::{self, Unseen};
use super::waited::{self, In, Loops, Waited, Waits};
use crate::cli::Progress;
use crate::clock::FOREIGN;
use crate::error::Result;
use crate::trace::io::Reader;
use crate::trace::{Event, HashMap, Kind, Names, Sym};
use functions::Functions;
use stack::Stacks;

/// Durations kept of one function or scope: a step that runs more often than this is too short to be one.
const MOST_DURATIONS: usize = 200_000;

/// Two-sided 95 % of the normal distribution.
const Z95: f64 = 1.96;

/// Where a span's code is: what makes two spans the same function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FunctionKey {
    pub kind: Kind,
    pub name: Sym,
    pub file: Option<Sym>,
    pub line: Option<u32>,
}

/// Sums over all spans of one function, in ns.
#[derive(Clone, Debug, Default)]
pub struct FunctionSums {
    /// Spans that are not the continuation of a suspended one.
    pub calls: u64,
    /// Half the width of the 95 % interval, where calls are an estimate.
    pub calls_error: u64,
    /// Known by sampled stacks: `calls` is the least that there were.
    pub sampled: bool,
    /// Of its time by samples, in ns²: one span's error each, about a period. A function that has the share p of n samples
    /// stands in about n p (1 - p) spans, so this is the variance of n independent samples.
    variance: f64,
    /// The same of `total_ns`.
    pub error_ns: i64,
    /// Time inside, what it called included, recursion counted once.
    pub total_ns: i64,
    /// Time inside without the Python functions it called: its own interpreter and native time.
    pub self_ns: i64,
    /// The native part of `self_ns`.
    pub native_ns: i64,
    /// The part of `self_ns` in which it waited.
    pub wait_ns: i64,
    /// Time suspended between two segments of one task.
    pub await_ns: i64,
    pub awaits: u64,
    /// Start and length of each call that was not suspended, if it may be a step; empty when there were too many.
    pub spans: Vec<(i64, i64)>,
    pub too_many: bool,
    /// Native time inside, what it called included, by the library's file; recursion counted once. Samples included.
    pub natives: Natives,
    /// Row and duration of its longest span.
    pub longest: (i64, i64),
    /// Time within imports.
    pub import_ns: i64,
}

/// What one function did itself on one thread, outside imports; see [`FunctionSums`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Own {
    pub calls: u64,
    pub self_ns: i64,
    pub native_ns: i64,
    /// The part of `native_ns` that only samples tell of.
    pub sampled_ns: i64,
    /// Waited, and what of that was for work.
    pub wait_ns: i64,
    pub idle_ns: i64,
}

/// Categories of a thread's time. Each instant is in one.
#[derive(Clone, Debug, Default)]
pub struct Times {
    pub python_ns: i64,
    pub import_ns: i64,
    pub gc_ns: i64,
    /// In native calls that are known to wait (sleep, poll, locks).
    pub wait_ns: i64,
    /// All waits within spans, by what for.
    pub waits: BTreeMap<Waits, i64>,
    /// For a lock that another thread holds while it is in a section.
    pub contended_ns: i64,
    pub native_ns: BTreeMap<String, i64>,
    /// In calls of a driver or runtime: `launch`, `gpu wait`, `driver`.
    pub calls_ns: BTreeMap<&'static str, i64>,
    /// CPU time by samples outside of any span: threads that a native library made.
    pub outside_ns: BTreeMap<String, i64>,
}

impl Times {
    fn native(&mut self, library: &str, ns: i64) {
        match self.native_ns.get_mut(library) {
            Some(sum) => *sum += ns,
            None => drop(self.native_ns.insert(library.to_owned(), ns)),
        }
    }

    /// Native time, within spans and outside.
    pub fn native_sum_ns(&self) -> i64 {
        self.native_ns
            .values()
            .chain(self.outside_ns.values())
            .sum()
    }
}

/// One thread of one process.
#[derive(Clone, Debug, Default)]
pub struct Thread {
    pub name: String,
    pub pid: u32,
    pub times: Times,
    pub cpu_ns: Option<i64>,
    pub runnable_ns: i64,
    pub blocked_ns: i64,
    /// The last stretch in which it was ready to run and did not: its end, and how long for each ns that it ran.
    pub short_of_cpu: (i64, f64),
    /// The parts of `blocked_ns`, as the kernel saw them.
    pub seen: BTreeMap<Waits, i64>,
    pub first_ns: Option<i64>,
    pub last_ns: i64,
    /// Length of the union of its outermost spans.
    pub covered_ns: i64,
}

/// One process of the run.
#[derive(Clone, Debug, Default)]
pub struct Process {
    pub name: String,
    pub pid: u32,
    pub start_ns: i64,
    pub dur_ns: i64,
    pub cpu_ns: Option<i64>,
    pub python: Option<String>,
    pub covered: bool,
    /// Another profiler's file, as its clock tells.
    pub imported: bool,
    pub reason: Option<String>,
    pub notes: Vec<String>,
    /// How it ended; see `formats/trace-v1.md`.
    pub ended: Option<String>,
    pub signal: Option<i64>,
    /// The trace is of what a dead recorder left.
    pub recovered: bool,
}

/// One node of the call tree: a function called along one path.
#[derive(Clone, Debug)]
pub struct PathNode {
    pub parent: Option<usize>,
    pub function: usize,
    pub self_ns: i64,
}

impl Measures {
    /// The functions around a node of the call tree, from the one that calls it outwards.
    pub fn above(&self, node: &PathNode) -> impl Iterator<Item = usize> {
        let mut at = node.parent;
        std::iter::from_fn(move || {
            let node = &self.paths[at?];
            at = node.parent;
            Some(node.function)
        })
    }
}

/// Everything the pass found.
#[derive(Debug, Default)]
pub struct Measures {
    pub names: Names,
    pub events: u64,
    pub start_ns: i64,
    pub end_ns: i64,
    pub functions: Vec<(FunctionKey, FunctionSums)>,
    /// Start and length of each scope of a name, in the order of starts.
    pub scopes: BTreeMap<String, Vec<(i64, i64)>>,
    /// Native time inside the scopes of a name that nest.
    pub scope_natives: BTreeMap<String, Natives>,
    pub tasks: BTreeMap<usize, Vec<(i64, i64)>>,
    pub threads: BTreeMap<(u32, u64), Thread>,
    /// By thread and function.
    pub own: HashMap<((u32, u64), usize), Own>,
    pub processes: BTreeMap<u32, Process>,
    pub paths: Vec<PathNode>,
    pub gc_count: u64,
    pub gc_ns: i64,
    pub rss_max_bytes: i64,
    /// Resident memory of each process over time, at each change.
    pub rss_bytes: BTreeMap<u32, Vec<(i64, i64)>>,
    /// Page faults of each process up to a time.
    pub faults: BTreeMap<u32, Vec<(i64, i64)>>,
    /// The same of CPU time in the kernel.
    pub system_ns: BTreeMap<u32, Vec<(i64, i64)>>,
    pub requests: Requests,
    pub recorder_cpu_ns: Option<i64>,
    pub lost: u64,
    pub throttled: u64,
    /// Calls of a process are known by samples of its stacks, taken at a rate that may not be known.
    pub stacks: bool,
    /// Rate of the samples that a process's calls are known by, the lowest if they differ.
    pub sampled_hz: Option<f64>,
    pub lines: Counted,
    pub devices: Devices,
    /// Why devices were idle.
    pub gaps: Gaps,
    /// Launches, what they started, and what waited for that.
    pub model: Model,
    /// Calls that waited for a device, and time in them.
    pub syncs: (u64, i64),
    pub loops: Loops,
    /// Who had the GIL while others waited for it: waiting thread, thread that had it, its function.
    pub holders: BTreeMap<(Track, Track, Option<usize>), i64>,
    /// Waits for locks that another thread held while in a section, by thread and function.
    pub contended: BTreeMap<(Track, usize), i64>,
    /// Sum of the squares of the errors of `wait` rows.
    pub wait_error2: f64,
    /// Time in which the interpreter copied memory, by samples: slices of bytes, lists that grow.
    pub copied: BTreeMap<(Track, usize), i64>,
    /// By function in bursts: the time in calls that were not seen for each ns of those that were.
    pub unseen: BTreeMap<usize, f64>,
    /// By function and native function: calls of that in one of this.
    pub calls: BTreeMap<(usize, usize), Often>,
    /// Processors of the machine it was recorded on.
    pub cpus: Option<u64>,
    /// What a page fault costs there.
    pub fault_ns: Option<f64>,
}

/// A thread: process and number.
pub type Track = (u32, u64);

impl Measures {
    /// Length of the timeline, in ns.
    pub fn span_ns(&self) -> i64 {
        self.end_ns - self.start_ns
    }

    /// The name of a function.
    pub fn name(&self, function: usize) -> &str {
        self.functions
            .get(function)
            .map_or("", |(key, _)| self.names.text(key.name))
    }
}

/// Native time by the library's file, in ns. A few entries: searched, not hashed.
#[derive(Clone, Debug, Default)]
pub struct Natives(pub Vec<(Option<Sym>, i64)>);

impl Natives {
    pub(super) fn add(&mut self, file: Option<Sym>, ns: i64) {
        match self.0.iter_mut().find(|(known, _)| *known == file) {
            Some((_, sum)) => *sum += ns,
            None => self.0.push((file, ns)),
        }
    }

    pub(super) fn sum(&self) -> i64 {
        self.0.iter().map(|(_, ns)| ns).sum()
    }

    fn add_all(&mut self, other: &[(Option<Sym>, i64)]) {
        other.iter().for_each(|&(file, ns)| self.add(file, ns));
    }
}

#[derive(Debug)]
struct Task {
    function: usize,
    first_ns: i64,
}

#[derive(Debug, Default)]
struct Pass {
    measures: Measures,
    /// Number of the timeline's row.
    row: i64,
    functions: Functions,
    stacks: Stacks,
    tasks: HashMap<u64, Task>,
    suspended: HashMap<(u64, usize, usize), i64>,
    flags: HashMap<Sym, Flags>,
    /// Python functions that take connections.
    accepts: BTreeSet<usize>,
    gaps: Gaps,
    ops: Ops,
    /// Of the last call that went into it: memory to be used again.
    parts: Vec<Part>,
    asks: Asks,
    sampled: Sampled,
    waited: Waited,
    unseen: Unseen,
    blind: Blind,
    /// By call path: time in which clients' next requests were waited for, and in which something else sent by a socket.
    clients: HashMap<u32, (i64, i64)>,
    /// Native calls that waited for input or output, by thread and call path.
    reads: BTreeMap<(Track, u32), i64>,
    /// Waits in reads that rows do not tell the file of.
    unclear: BTreeMap<(Track, In, u32), i64>,
}

/// What a span's args say, read once for each distinct text.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    resumed: bool,
    suspended: bool,
    crossed: bool,
    /// Of sampled stacks, and how wrong its length may be.
    sampled: bool,
    error_ns: i64,
}

/// Reads a whole timeline.
///
/// # Errors
/// Those of the reader.
pub fn measure(reader: Reader, windows: &Windows, asks: &Asks) -> Result<Measures> {
    // What device work and operators have in args is another's business, and much of it differs from row to row.
    let mut reader = reader.without_links().with_args_of(|kind| {
        use Kind::*;
        !kind.on_device() && !matches!(kind, Op | Launch | Api | Alloc | Annotation | Flow | Sync)
    });
    let mut pass = Pass {
        asks: asks.clone(),
        ..Pass::default()
    };
    let mut names = Names::default();
    let mut events = Vec::new();
    let mut progress = Progress::reading("analysing", reader.rows(), reader.is_pipe());
    let mut more = true;
    while more {
        events.clear();
        more = reader.next_batch(&mut names, &mut events)?;
        for event in &events {
            match windows.is_all() {
                true => pass.event(event, &names),
                false => {
                    if let Some(event) = windows.cut(event) {
                        pass.event(&event, &names);
                    }
                }
            }
            pass.row += 1;
        }
        progress.add(events.len() as u64);
    }
    pass.idle(i64::MAX, &names);
    for track in pass.stacks.tracks() {
        pass.pop_until(track, i64::MAX, &names);
    }
    std::mem::take(&mut pass.stacks).settle(&mut pass.measures);
    pass.measures.paths = std::mem::take(&mut pass.functions).into_paths();
    pass.settle_reads();
    for (_, sums) in &mut pass.measures.functions {
        sums.error_ns = (Z95 * sums.variance.sqrt()) as i64;
    }
    let scales = throttled::settle(&mut pass.measures, &pass.unseen, &names);
    blind::settle(&mut pass.measures, &pass.blind, &scales, &names);
    pass.measures.calls = pass.blind.calls();
    pass.measures.unseen.clone_from(&scales);
    let bursts = Bursts {
        unseen: scales,
        callers: pass.unseen.callers(),
    };
    waited::settle(&mut pass.measures, pass.waited, &bursts, &names);
    sampled::settle(&mut pass.measures, pass.sampled, &bursts, &names);
    pass.measures.names = names;
    pass.measures.devices.finish();
    pass.measures.gaps = pass.gaps;
    pass.measures.model = Model::new(pass.ops, &pass.measures.devices.launched);
    Ok(pass.measures)
}

impl Pass {
    fn event(&mut self, event: &Event, names: &Names) {
        let m = &mut self.measures;
        if m.events == 0 {
            m.start_ns = event.start_ns;
            m.end_ns = event.start_ns;
        }
        m.events += 1;
        if event.kind != Kind::Clock {
            m.start_ns = m.start_ns.min(event.start_ns);
            m.end_ns = m.end_ns.max(event.end_ns());
        }
        let track = (event.process, event.tid);
        if matches!(
            event.kind,
            Kind::Scope | Kind::Mark | Kind::Nvtx | Kind::Annotation
        ) {
            m.requests.see(event, names);
        }
        match event.kind {
            Kind::Python | Kind::Native | Kind::Gc | Kind::Scope | Kind::Op | Kind::Nvtx => {
                self.span(event, names);
            }
            Kind::Launch | Kind::Api | Kind::Overhead if event.device.is_none() => {
                m.devices.event(event, names, 0);
                self.span(event, names);
            }
            Kind::Process => m.process(event, names),
            Kind::Thread => {
                let thread = m.thread(track, event.pid);
                thread.name = names.text(event.name).to_owned();
                let args = json(event.args, names);
                thread.cpu_ns = args["cpu_ns"].as_i64().or(thread.cpu_ns);
            }
            Kind::Wait => self.wait(event, names),
            Kind::Counter => {
                let value = event.value.unwrap_or(0.0) as i64;
                match names.text(event.name) {
                    "process.rss_bytes" => {
                        m.rss_max_bytes = m.rss_max_bytes.max(value);
                        let series = m.rss_bytes.entry(event.process).or_default();
                        series.push((event.start_ns, value));
                    }
                    "process.minor_faults" => {
                        let series = m.faults.entry(event.process).or_default();
                        series.push((event.start_ns, value));
                    }
                    "process.system_ns" => {
                        let series = m.system_ns.entry(event.process).or_default();
                        series.push((event.start_ns, value));
                    }
                    "thread.cpu_ns" => m.thread(track, event.pid).cpu_ns = Some(value),
                    "line.time_ns" => m.lines.add(event, names),
                    "recorder.cpu_ns" => m.recorder_cpu_ns = Some(value),
                    _ => {}
                }
            }
            Kind::Lost => m.lost += event.value.unwrap_or(1.0) as u64,
            Kind::Throttled => self.throttled(event, names),
            Kind::Sample => self.sample(event, names),
            _ => {
                if let Some(work) = m.devices.event(event, names, self.row) {
                    self.gaps.push(work);
                }
            }
        }
        if !self.gaps.is_empty() {
            self.idle(event.start_ns, names);
        }
    }

    /// A function was not seen for a while.
    fn throttled(&mut self, event: &Event, names: &Names) {
        let key = FunctionKey {
            kind: Kind::Python,
            name: event.name,
            file: event.file,
            line: event.line,
        };
        let known = &mut self.measures.functions;
        let function = self.functions.number(known, key, names);
        let args = json(event.args, names);
        let of = |key: &str| args[key].as_f64().unwrap_or(0.0);
        let calls = event.value.unwrap_or(0.0);
        let error = (of("calls_high") - calls).max(0.0);
        let time_ns = args["time_ns"].as_f64();
        self.unseen.add(function, calls, error, of("bias"), time_ns);
        self.blind.shed(event.process, function, event.start_ns);
        self.measures.throttled += 1;
    }

    /// A sample in the interpreter's own time of a span, or outside of all.
    fn sample(&mut self, event: &Event, names: &Names) {
        self.blind.sampled(event.process);
        let track = (event.process, event.tid);
        let cpu_ns = event.value.unwrap_or(0.0) as i64;
        let file = names.text(event.file.unwrap_or(event.name));
        // Pickling is copying, too, and where calls are not recorded only samples tell of it.
        let copies = names.text(event.name) == "memcpy" || library(file) == "_pickle";
        let interprets = sampled::interprets(file) && !copies;
        if cpu_ns <= 0 || interprets && file != "python" {
            return;
        }
        self.pop_until(track, event.start_ns, names);
        let stack = self.stacks.or_new(track, || false);
        let thread = self.measures.thread(track, event.pid);
        match stack.frames.last() {
            None if interprets => {}
            None => {
                let sums = &mut thread.times.outside_ns;
                *sums.entry(library(file).to_owned()).or_default() += cpu_ns;
            }
            Some(frame) if !frame.importing && matches!(frame.kind, Kind::Python | Kind::Scope) => {
                // spans are wall time, and so is what is taken from them
                let short = match thread.short_of_cpu {
                    (end_ns, short) if event.start_ns < end_ns => short,
                    _ => 0.0,
                };
                let ns = (cpu_ns as f64 * (1.0 + short)) as i64;
                let (natives, function) = (frame.natives, frame.within.python());
                if interprets {
                    let eval = names.text(event.name) == "eval";
                    self.sampled
                        .interpreter(track, function, event.file, ns, eval);
                    return;
                }
                stack.add_native(natives, event.file, ns);
                self.sampled.add(track, function, event.file, ns);
                if let Some(function) = function.filter(|_| copies) {
                    *self.measures.copied.entry((track, function)).or_default() += ns;
                }
            }
            Some(_) => {} // what it is in says already whose time this is
        }
    }

    /// The outermost span of a task starts, goes on or ends: a finished task is one request's worth.
    fn task(&mut self, flow: u64, function: usize, event: &Event, flags: Flags) {
        let first_ns = match self.tasks.get(&flow) {
            Some(task) if task.function == function => task.first_ns,
            _ => event.start_ns,
        };
        if flags.suspended {
            self.tasks.insert(flow, Task { function, first_ns });
        } else {
            self.tasks.remove(&flow);
            let spans = self.measures.tasks.entry(function).or_default();
            spans.push((first_ns, event.end_ns() - first_ns));
        }
    }
}

impl Measures {
    /// Adds time that a function spent in something it called itself.
    pub(super) fn book(
        &mut self,
        track: (u32, u64),
        function: usize,
        importing: bool,
        self_ns: i64,
        native_ns: i64,
    ) {
        let sums = &mut self.functions[function].1;
        sums.self_ns += self_ns;
        sums.native_ns += native_ns;
        if !importing {
            let own = self.own.entry((track, function)).or_default();
            own.self_ns += self_ns;
            own.native_ns += native_ns;
        }
    }

    fn thread(&mut self, track: (u32, u64), pid: u32) -> &mut Thread {
        let thread = self.threads.entry(track).or_default();
        thread.pid = pid;
        thread
    }

    fn process(&mut self, event: &Event, names: &Names) {
        let args = json(event.args, names);
        let process = self.processes.entry(event.process).or_default();
        let text = |key: &str| args[key].as_str().map(str::to_owned);
        process.name = names.text(event.name).to_owned();
        process.pid = event.pid;
        process.start_ns = event.start_ns;
        process.dur_ns = event.dur_ns.unwrap_or(0);
        process.cpu_ns = args["cpu_ns"].as_i64();
        process.python = text("python");
        self.stacks |= args["sampled"] == true;
        if let Some(rate) = args["sampled_hz"].as_f64() {
            self.stacks = true;
            let least = self.sampled_hz.map_or(rate, |other| other.min(rate));
            self.sampled_hz = Some(least);
        }
        let rank = &args["rank"];
        let owner = Owner {
            host: text("host"),
            rank: rank.as_i64().or_else(|| rank.as_str()?.parse().ok()),
        };
        self.devices.process(event.process, owner);
        process.imported = FOREIGN.iter().any(|clock| args["clock"] == *clock);
        process.covered = args["covered"].as_bool().unwrap_or(true);
        process.reason = text("reason");
        process.ended = text("ended");
        process.signal = args["signal"].as_i64();
        process.recovered = args["recovered"].as_bool().unwrap_or(false);
        process.notes = args["notes"].as_array().map_or_else(Vec::new, |notes| {
            notes
                .iter()
                .filter_map(|note| note.as_str())
                .map(str::to_owned)
                .collect()
        });
    }
}

/// The library a native span ran in: the first part of its file, without ending or version tag.
pub fn library(file: &str) -> &str {
    let first = file.trim_start_matches('/').split('/').next().unwrap_or("");
    match first.split('.').next() {
        None | Some("") => "native",
        Some(name) => name.strip_suffix("-linux-gnu").unwrap_or(name),
    }
}

/// Native calls that wait for something else than the processor, by the end of their name.
pub fn waits(name: &str) -> bool {
    const WAITS: [&str; 26] = [
        crate::record::WAITING_NAME,
        "time.sleep",
        "lock.acquire",
        "RLock.acquire",
        "Lock.acquire",
        "lock.__enter__",
        "RLock.__enter__",
        "epoll.poll",
        "poll.poll",
        "select.select",
        "SimpleQueue.get",
        "socket.recv",
        "socket.recv_into",
        "socket.accept",
        "socket._accept",
        "socket.connect",
        "posix.read",
        "posix.waitpid",
        "posix.wait",
        "posix.wait4",
        "_wait_for_tstate_lock",
        "_ThreadHandle.join",
        "SemLock.acquire",
        "SemLock.__enter__",
        "signal.pause",
        "start_joinable_thread.join",
    ];
    WAITS.iter().any(|wait| {
        name == *wait
            || name
                .strip_suffix(wait)
                .is_some_and(|rest| rest.ends_with('.'))
    })
}

/// What stands in a row's args; null if it has none.
pub(super) fn json(args: Option<Sym>, names: &Names) -> serde_json::Value {
    args.and_then(|args| serde_json::from_str(names.text(args)).ok())
        .unwrap_or_default()
}

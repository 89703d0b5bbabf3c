//! One pass over a timeline: what ran, for how long, on which thread, and what it waited for.
//!
//! Memory grows with functions, call paths and open spans, not with events. Nothing here judges; rules do.

mod host; // what host threads do while devices are idle
mod wait; // `wait` rows, and what waits say of event loops and locks

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::ask::Asks;
use super::device::{Devices, Owner};
use super::idle::Gaps;
use super::lines::Counted;
use super::replay::{Model, Ops};
use super::requests::Requests;
use super::sampled::{self, Sampled};
use super::select::Windows;
use super::throttled::{self, Unseen};
use super::trail::{Doing, Place, Trail};
use super::waited::{self, Loops, Waited, Waits};
use crate::cli::Progress;
use crate::clock::FOREIGN;
use crate::error::Result;
use crate::trace::io::Reader;
use crate::trace::{Event, HashMap, Kind, Names, Sym};
use host::{doing, is_sourced, tell};
use wait::places;

/// Durations kept of one function or scope: a step that runs more often than this is too short to be one.
const MOST_DURATIONS: usize = 200_000;

/// Two-sided 95 % of the normal distribution.
const Z95: f64 = 1.96;

/// Call paths kept; what would be one more is booked on its caller.
const MOST_PATHS: usize = 50_000;

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
    /// Start and length of each call that was not suspended; empty when there were too many.
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

    fn add_all(&mut self, other: &Natives) {
        other.0.iter().for_each(|&(file, ns)| self.add(file, ns));
    }
}

#[derive(Debug)]
struct Frame {
    /// Name, if it is a scope.
    scope: Option<Sym>,
    natives: Natives,
    function: Option<usize>,
    path: Option<usize>,
    kind: Kind,
    start_ns: i64,
    end_ns: i64,
    child_ns: i64,
    flow: Option<u64>,
    importing: bool,
    waits: Option<Waits>,
    /// It is what an event loop does between two polls: a callback, a task's segment.
    step: bool,
    /// A poll of an event loop.
    polls: bool,
    new_call: bool,
    /// What holds for it and all that is around it, so that a deep stack need not be searched.
    within: Within,
    doing: Doing,
    sourced: bool,
    /// It is what a question is about, or within that.
    asked: Option<u8>,
    /// Made when somebody asks.
    place: Option<Rc<Place>>,
}

/// Of a frame, itself included.
#[derive(Clone, Copy, Debug, Default)]
struct Within {
    /// The innermost Python function.
    python: Option<usize>,
    /// A step of an event loop.
    step: bool,
    /// Start of the innermost turn of an event loop.
    turn_ns: Option<i64>,
    /// Something is imported or compiled.
    compiles: bool,
}

/// What is open on a thread.
#[derive(Debug, Default)]
struct Stack {
    frames: Vec<Frame>,
    /// How often each function is, by its number.
    open: Vec<u32>,
    /// Another profiler's file tells of it: nothing was left out of it by a budget.
    imported: bool,
    trail: Trail,
}

impl Stack {
    fn opened(&mut self, function: usize) -> &mut u32 {
        if function >= self.open.len() {
            self.open.resize(function + 1, 0);
        }
        &mut self.open[function]
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
    index: HashMap<FunctionKey, usize>,
    children: HashMap<(Option<usize>, usize), usize>,
    stacks: HashMap<Track, Stack>,
    tasks: HashMap<u64, Task>,
    suspended: HashMap<(u64, usize, usize), i64>,
    flags: HashMap<Sym, Flags>,
    /// By function: what its spans are, and whether it says more than those around it.
    doings: Vec<(Doing, bool)>,
    /// Python functions that take connections.
    accepts: BTreeSet<usize>,
    gaps: Gaps,
    ops: Ops,
    asks: Asks,
    sampled: Sampled,
    waited: Waited,
    unseen: Unseen,
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
    let tracks: Vec<_> = pass.stacks.keys().copied().collect();
    for track in tracks {
        pass.pop_until(track, i64::MAX, &names);
    }
    for (_, sums) in &mut pass.measures.functions {
        sums.error_ns = (Z95 * sums.variance.sqrt()) as i64;
    }
    throttled::settle(&mut pass.measures, &pass.unseen);
    waited::settle(&mut pass.measures, pass.waited, &names);
    sampled::settle(&mut pass.measures, pass.sampled, &names);
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

    fn span(&mut self, event: &Event, names: &Names) {
        let Some(dur_ns) = event.dur_ns else { return };
        let flags = match event.args {
            None => Flags::default(),
            Some(args) => *self.flags.entry(args).or_insert_with(|| {
                let args = json(Some(args), names);
                let holds = |key: &str| args[key].as_bool().unwrap_or(false);
                Flags {
                    resumed: holds("resumed"),
                    suspended: holds("suspended"),
                    crossed: holds("async"),
                    sampled: holds("sampled"),
                    error_ns: args["error_ns"].as_i64().unwrap_or(0),
                }
            }),
        };
        if event.kind == Kind::Scope {
            let name = names.text(event.name).to_owned();
            self.measures
                .scopes
                .entry(name)
                .or_default()
                .push((event.start_ns, dur_ns));
            if flags.crossed {
                return;
            }
        }
        if event.kind == Kind::Nvtx && crate::correlate::crosses(event, names) {
            return;
        }
        let track = (event.process, event.tid);
        self.pop_until(track, event.start_ns, names);
        let processes = &self.measures.processes;
        let all = self.stacks.entry(track).or_insert_with(|| Stack {
            imported: processes.get(&track.0).is_some_and(|p| p.imported),
            ..Stack::default()
        });
        let imported = all.imported;
        let stack = &mut all.frames;
        if stack.last().is_some_and(|top| event.end_ns() > top.end_ns) {
            return; // it does not nest: what it overlaps already has this time
        }
        tell(all, event.start_ns, self.gaps.reach_ns());
        let stack = &mut all.frames;
        let thread = self.measures.thread(track, event.pid);
        thread.first_ns = Some(
            thread
                .first_ns
                .map_or(event.start_ns, |first| first.min(event.start_ns)),
        );
        thread.last_ns = thread.last_ns.max(event.end_ns());
        match stack.last_mut() {
            Some(top) => top.child_ns += dur_ns,
            None => thread.covered_ns += dur_ns,
        }
        let caller = stack.last();
        let mut within = caller.map_or(Within::default(), |frame| frame.within);
        let caller_function = within.python;
        let (caller_path, caller_flow) = (caller.and_then(|f| f.path), caller.and_then(|f| f.flow));
        let mut importing = caller.is_some_and(|frame| frame.importing);
        let within_asked = caller.and_then(|frame| frame.asked);
        let depth = stack.len();
        let mut frame = Frame {
            scope: (event.kind == Kind::Scope).then_some(event.name),
            natives: Natives::default(),
            function: None,
            path: caller_path,
            kind: event.kind,
            start_ns: event.start_ns,
            end_ns: event.end_ns(),
            child_ns: 0,
            flow: event.flow,
            importing,
            waits: None,
            step: false,
            polls: false,
            new_call: !flags.resumed,
            within,
            doing: Doing::Code,
            sourced: event.kind == Kind::Scope,
            asked: match self.asks.is_empty() {
                true => None,
                false => self.asks.number(names.text(event.name)).or(within_asked),
            },
            place: None,
        };
        if event.kind != Kind::Scope {
            let key = FunctionKey {
                kind: event.kind,
                name: event.name,
                file: event.file,
                line: event.line,
            };
            let function = function(&mut self.index, &mut self.measures.functions, key);
            if event.kind == Kind::Python && !imported {
                self.unseen.seen(caller_function, function, dur_ns);
            }
            let sums = &mut self.measures.functions[function].1;
            sums.calls += u64::from(!flags.resumed);
            if sums.calls == 1 || dur_ns > sums.longest.1 {
                sums.longest = (self.row, dur_ns);
            }
            importing |= names.text(event.name) == "_find_and_load";
            if importing {
                sums.import_ns += dur_ns;
            }
            while self.doings.len() <= function {
                let key = &self.measures.functions[self.doings.len()].0;
                let file = key.file.map_or("", |file| names.text(file));
                let sourced = key.kind == Kind::Python && is_sourced(file);
                self.doings.push((doing(key, names), sourced));
            }
            let (doing, sourced) = self.doings[function];
            frame.sourced = sourced;
            frame.doing = match importing || within.compiles {
                true => Doing::Import,
                false => doing,
            };
            within.compiles = frame.doing == Doing::Import;
            frame.importing = importing;
            frame.function = Some(function);
            let name = names.text(event.name);
            let stack = &all.frames;
            if event.kind == Kind::Native && waits(name) {
                let stack = places(&self.measures, stack, names);
                let waits = Waits::of_call(name);
                // Who takes connections and then polls waits for the next one, or for what they send.
                if name.ends_with("accept") {
                    let stack = all.frames.iter().rev().filter(|f| f.kind == Kind::Python);
                    self.accepts
                        .extend(stack.take(2).filter_map(|frame| frame.function));
                }
                let serves = caller_function.is_some_and(|f| self.accepts.contains(&f))
                    && (name.ends_with("select") || name.ends_with("poll"));
                frame.waits = Some(match serves || waited::is_idle(waits, name, "", stack) {
                    true => Waits::Idle,
                    false => waits,
                });
                let contended = waits == Waits::Lock
                    && waited::is_contended(places(&self.measures, &all.frames, names).next());
                frame.doing = Doing::Wait(frame.waits.unwrap_or(waits), contended);
            }
            let begins = event.flow.is_some() && caller_flow != event.flow;
            if (begins || waited::is_callback(event.kind, name)) && !within.step {
                frame.step = true;
                within.step = true;
                self.measures.loops.begin(track);
            }
            if begins && let Some(turn_ns) = within.turn_ns {
                self.measures.loops.ready(track, turn_ns, event.start_ns);
            }
            if waited::is_turn(name) {
                within.turn_ns = Some(event.start_ns);
            }
            if event.kind == Kind::Python {
                within.python = Some(function);
            }
            frame.within = within;
            frame.polls = frame.waits == Some(Waits::Idle) || waited::is_poll(name);
            let sums = &mut self.measures.functions[function].1;
            let open = all.opened(function);
            *open += 1;
            if *open == 1 {
                sums.total_ns += dur_ns;
            }
            if let Some(flow) = event.flow {
                if flags.resumed
                    && let Some(since_ns) = self.suspended.remove(&(flow, function, depth))
                {
                    sums.await_ns += event.start_ns - since_ns;
                    sums.awaits += 1;
                }
                if flags.suspended {
                    self.suspended
                        .insert((flow, function, depth), event.end_ns());
                }
                if caller_flow != Some(flow) {
                    self.task(flow, function, event, flags);
                }
            }
            let sums = &mut self.measures.functions[function].1;
            if flags.sampled {
                let error_ns = flags.error_ns as f64;
                sums.sampled = true;
                sums.variance += error_ns * error_ns;
            } else if event.kind == Kind::Python
                && !flags.resumed
                && !flags.suspended
                && !sums.too_many
            {
                sums.spans.push((event.start_ns, dur_ns));
                if sums.spans.len() > MOST_DURATIONS {
                    sums.spans = Vec::new();
                    sums.too_many = true;
                }
            }
            frame.path = self.path(caller_path, function);
        }
        let now_doing = frame.doing;
        if let Some(all) = self.stacks.get_mut(&track) {
            all.frames.push(frame);
        }
        match event.kind {
            Kind::Launch | Kind::Api => self.call(event, now_doing, names),
            Kind::Scope => self.edge(track, event.name, true, event.start_ns, names),
            _ => {}
        }
    }

    /// A function was not seen for a while.
    fn throttled(&mut self, event: &Event, names: &Names) {
        let function = self.function(FunctionKey {
            kind: Kind::Python,
            name: event.name,
            file: event.file,
            line: event.line,
        });
        let args = json(event.args, names);
        let of = |key: &str| args[key].as_f64().unwrap_or(0.0);
        let calls = event.value.unwrap_or(0.0);
        let error = (of("calls_high") - calls).max(0.0);
        let time_ns = args["time_ns"].as_f64();
        self.unseen.add(function, calls, error, of("bias"), time_ns);
        self.measures.throttled += 1;
    }

    fn function(&mut self, key: FunctionKey) -> usize {
        function(&mut self.index, &mut self.measures.functions, key)
    }

    /// A sample in the interpreter's own time of a span, or outside of all.
    fn sample(&mut self, event: &Event, names: &Names) {
        let track = (event.process, event.tid);
        let cpu_ns = event.value.unwrap_or(0.0) as i64;
        let file = names.text(event.file.unwrap_or(event.name));
        if cpu_ns <= 0 || sampled::interprets(file) {
            return;
        }
        self.pop_until(track, event.start_ns, names);
        let stack = &mut self.stacks.entry(track).or_default().frames;
        let function = stack.last().and_then(|frame| frame.within.python);
        let thread = self.measures.thread(track, event.pid);
        match stack.last_mut() {
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
                frame.natives.add(event.file, ns);
                self.sampled.add(track, function, event.file, ns);
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

    fn path(&mut self, caller: Option<usize>, function: usize) -> Option<usize> {
        let paths = &mut self.measures.paths;
        if let Some(&path) = self.children.get(&(caller, function)) {
            return Some(path);
        }
        if paths.len() >= MOST_PATHS {
            return caller;
        }
        paths.push(PathNode {
            parent: caller,
            function,
            self_ns: 0,
        });
        self.children.insert((caller, function), paths.len() - 1);
        Some(paths.len() - 1)
    }

    /// Ends every span that is over at `at_ns`, and books the time it did not spend in others.
    fn pop_until(&mut self, track: (u32, u64), at_ns: i64, names: &Names) {
        let reach_ns = self.gaps.reach_ns();
        let mut edges = Vec::new();
        let Some(stack) = self.stacks.get_mut(&track) else {
            return;
        };
        let m = &mut self.measures;
        while let Some(top) = stack.frames.last().filter(|top| top.end_ns <= at_ns) {
            let end_ns = top.end_ns;
            tell(stack, end_ns, reach_ns);
            let Stack {
                frames,
                open,
                trail,
                ..
            } = &mut *stack;
            let Some(mut frame) = frames.pop() else { break };
            if let Some(scope) = frame.scope.filter(|_| trail.launches()) {
                edges.push((scope, frame.end_ns));
            }
            let own_ns = (frame.end_ns - frame.start_ns - frame.child_ns).max(0);
            let caller = frames.last().and_then(|frame| frame.within.python);
            let times = &mut m.threads.entry(track).or_default().times;
            if let Some(path) = frame.path {
                m.paths[path].self_ns += own_ns;
            }
            match frame.kind {
                _ if frame.importing && frame.kind != Kind::Gc => times.import_ns += own_ns,
                Kind::Python => times.python_ns += own_ns,
                Kind::Gc => times.gc_ns += own_ns,
                Kind::Native if frame.waits.is_some() => {
                    times.wait_ns += own_ns;
                    let waits = frame.waits.unwrap_or(Waits::Blocked);
                    *times.waits.entry(waits).or_default() += own_ns;
                }
                Kind::Native | Kind::Op => {
                    let file = frame.function.and_then(|f| m.functions[f].0.file);
                    frame.natives.add(file, own_ns);
                    let library = match (frame.kind, file) {
                        (Kind::Op, None) => "framework",
                        _ => library(file.map_or("", |file| names.text(file))),
                    };
                    match times.native_ns.get_mut(library) {
                        Some(sum) => *sum += own_ns,
                        None => {
                            times.native_ns.insert(library.to_owned(), own_ns);
                        }
                    }
                }
                Kind::Launch | Kind::Api => {
                    let name = frame.function.map(|f| m.functions[f].0.name);
                    let waits = name.is_some_and(|name| names.text(name).contains("Synchronize"));
                    if waits {
                        m.syncs.0 += 1;
                        m.syncs.1 += own_ns;
                    }
                    let what = match (frame.kind, waits) {
                        (Kind::Launch, _) => "launch",
                        (_, true) => "gpu wait",
                        (_, false) => "driver",
                    };
                    *times.calls_ns.entry(what).or_default() += own_ns;
                }
                _ if caller.is_some() => times.python_ns += own_ns,
                _ => {}
            }
            if let Some(name) = frame.scope.filter(|_| !frame.natives.0.is_empty()) {
                let name = names.text(name);
                match m.scope_natives.get_mut(name) {
                    Some(natives) => natives.add_all(&frame.natives),
                    None => drop(
                        m.scope_natives
                            .insert(name.to_owned(), frame.natives.clone()),
                    ),
                }
            }
            if frame.kind == Kind::Gc {
                m.gc_count += 1;
                m.gc_ns += own_ns;
            }
            if let Some(waits) = frame.waits.filter(|_| !frame.importing) {
                m.waited(track, waits, own_ns, caller, frames, names);
            }
            if frame.polls {
                m.loops.polled(track, frame.end_ns);
            }
            if let Some(function) = frame.function {
                if frame.within.step {
                    m.loops.spent(track, function, own_ns);
                }
                if frame.step {
                    m.loops.end(track, frame.end_ns - frame.start_ns);
                }
                let sums = &mut m.functions[function].1;
                sums.self_ns += own_ns;
                open[function] -= 1;
                if open[function] == 0 {
                    sums.natives.add_all(&frame.natives);
                }
                let native_ns = match frame.kind {
                    Kind::Native | Kind::Op | Kind::Launch | Kind::Api => own_ns,
                    _ => 0,
                };
                sums.native_ns += native_ns;
                if frame.waits.is_some() {
                    sums.wait_ns += own_ns;
                }
                if !frame.importing {
                    let own = m.own.entry((track, function)).or_default();
                    if let Some(waits) = frame.waits {
                        own.wait_ns += own_ns;
                        own.idle_ns += if waits == Waits::Idle { own_ns } else { 0 };
                    }
                    own.calls += u64::from(frame.new_call);
                    own.self_ns += own_ns;
                    own.native_ns += native_ns;
                }
                if let Some(caller) = caller.filter(|_| frame.kind == Kind::Native) {
                    m.book(track, caller, frame.importing, own_ns, own_ns);
                }
            } else if let Some(caller) = caller {
                // A scope's own time is that of the function it stands in.
                m.book(track, caller, frame.importing, own_ns, 0);
            }
            if let Some(around) = frames.last_mut() {
                around.natives.add_all(&frame.natives);
            }
        }
        for (scope, end_ns) in edges {
            self.edge(track, scope, false, end_ns, names);
        }
    }
}

/// The number of a function, which it gets when it is new.
fn function(
    index: &mut HashMap<FunctionKey, usize>,
    functions: &mut Vec<(FunctionKey, FunctionSums)>,
    key: FunctionKey,
) -> usize {
    *index.entry(key).or_insert_with(|| {
        functions.push((key, FunctionSums::default()));
        functions.len() - 1
    })
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

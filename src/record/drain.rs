//! Records of the spool to rows of the trace: begins and ends paired into spans, ids to names, ticks to ns.
//!
//! Nothing here reads a file: bytes come in chain by chain, rows go out. What the bytes claim is checked
//! (an id without a definition, an end without a begin, a time that runs backwards), never believed.

// the fuzz targets include this file from elsewhere
#[path = "drain/device.rs"]
mod device; // what devices did
#[path = "drain/estimates.rs"]
mod estimates;
#[path = "drain/occupancy.rs"]
mod occupancy;
#[path = "drain/nvtx.rs"]
mod nvtx; // ranges and marks of NVTX
#[path = "drain/snapshot.rs"]
mod snapshot; // what is known, as records again: for the head of a journal

use std::collections::{HashMap, VecDeque};

use inferscope_spool::record::{
    DEVICES, LOOSE, RAISED, RESUMED, Record, SUSPENDED, SpanKind, Text, UNSEEN, depth,
};
use serde::{Deserialize, Serialize};

use self::device::Devices;
use super::dense::Dense;
use super::throttle::{Burst, Row, Throttled};
use crate::trace::{Event, Kind, Names, Sym};

/// Longest time that is believed, in ns: 36 years. A few of them can be added.
const MOST_NS: i64 = 1 << 60;

/// Notes of one process that are kept: a probe has a dozen to give.
const MOST_NOTES: usize = 256;

/// Threads of one process whose states' addresses are kept; those of ended threads are used again.
const MOST_STATES: usize = 1 << 16;

/// Bytes of texts that are let go of when only rows long written had them.
const MOST_TEXTS: usize = 8 << 20;

/// What came of devices in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// No probe was asked for it.
    #[default]
    Nothing,
    /// A probe could not, and said why.
    Refused,
    Recorded,
}

/// What makes a process unique in a run: pids are used again, start times are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    pub pid: u32,
    /// Field 22 of /proc/PID/stat: clock ticks since boot.
    pub start_ticks: u64,
}

/// The facts a probe writes first: `Text::Process` of formats/spool-v1.md.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessFacts {
    pub ppid: u32,
    pub ns_per_tick: f64,
    pub base_monotonic_ns: i64,
    pub clock: String,
    pub name: String,
    pub python: Option<String>,
    pub host: String,
    pub forked_from: Option<u32>,
    /// Its stacks were sampled at this rate, from outside, and no probe is in it.
    pub sampled_hz: Option<f64>,
}

impl Default for ProcessFacts {
    fn default() -> ProcessFacts {
        ProcessFacts {
            ppid: 0,
            ns_per_tick: 1.0,
            base_monotonic_ns: 0,
            clock: "monotonic".into(),
            name: String::new(),
            python: None,
            host: String::new(),
            forked_from: None,
            sampled_hz: None,
        }
    }
}

/// What is known of one process of the run.
#[derive(Clone, Debug)]
pub struct Process {
    /// Dense number of the process, in the order of appearance.
    pub id: u32,
    pub pid: u32,
    /// Whether a probe wrote anything for it.
    pub covered: bool,
    pub facts: ProcessFacts,
    /// Names of its threads, as they called themselves.
    pub thread_names: HashMap<u64, String>,
    /// What the probe could not do, in its words.
    pub notes: Vec<String>,
    /// It said that it ends by itself.
    pub exited: bool,
    /// When it was first heard of other than by the probe, in ns of CLOCK_MONOTONIC; set by a recovery.
    pub seen_ns: Option<i64>,
    /// Threads whose chains were closed, oldest first.
    closed: VecDeque<u64>,
    /// Where its interpreter's GIL is.
    pub gil: Option<Gil>,
    /// Its threads by the address of their state in the interpreter.
    pub states: HashMap<u64, u64>,
    defined: Dense<Defined>,
    threads: HashMap<u64, Thread>,
    scopes: HashMap<u64, OpenScope>,
    /// Times at which recording was switched off, in ns, ascending.
    off_ns: Vec<i64>,
    throttled: Throttled,
    /// Estimates that are not written yet, by id, oldest first.
    held: VecDeque<(u32, Row)>,
    /// What its devices are, and what records them.
    pub devices: Devices,
    nvtx: nvtx::Process,
}

/// Addresses in a process: the GIL lies between two of them, and the word at `holder` (0: not known) points to the
/// state of the thread that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gil {
    pub start: u64,
    pub end: u64,
    pub holder: u64,
}

#[derive(Clone, Copy, Debug)]
struct Defined {
    name: Sym,
    file: Option<Sym>,
    line: Option<u32>,
}

#[derive(Clone, Debug, Default)]
struct Thread {
    stack: Vec<OpenFrame>,
    metadata: Option<String>,
    /// Of its first record; `None` before it.
    first_ns: Option<i64>,
    last_ns: i64,
    /// `last_ns` before the record that is being taken.
    before_ns: i64,
    frames: u64,
    off_seen: usize,
    /// Its chain was closed, and no record came since.
    closed: bool,
    /// Records it lost, less the ends found without their begin since: so many more of these may be for that.
    lost: u64,
    nvtx: nvtx::Thread,
}

#[derive(Clone, Copy, Debug)]
struct OpenFrame {
    id: u32,
    start_ns: i64,
    resumed: bool,
    /// Python frames open on the thread when it began, itself included; 0 = not told.
    depth: u32,
    /// [`Thread::frames`] once it had begun.
    begun: u64,
    flow: Option<u64>,
    /// Set for the outermost frame of a task: which of its segments this is.
    segment: Option<u64>,
}

#[derive(Clone, Debug)]
struct OpenScope {
    id: u32,
    tid: u64,
    start_ns: i64,
    flow: Option<u64>,
    segment: Option<u64>,
    metadata: Option<String>,
}

/// A thread that is forgotten; see [`Drain::retire`].
#[derive(Debug)]
pub struct Retired {
    pub tid: u64,
    pub name: Option<String>,
    pub first_ns: i64,
    pub last_ns: i64,
}

/// All processes of a run, and the names their rows use.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    pub names: Names,
    processes: HashMap<ProcessKey, Process>,
    /// Records that could not be understood; the rest of their batch was skipped.
    pub damaged: u64,
    /// Bytes of texts at which they are gone through again.
    tidy_at: usize,
}

impl Drain {
    /// The process with this key; it gets the next dense number when it is new.
    pub fn process(&mut self, key: ProcessKey) -> &mut Process {
        let id = self.processes.len() as u32;
        self.processes.entry(key).or_insert_with(|| Process {
            id,
            pid: key.pid,
            covered: false,
            facts: ProcessFacts::default(),
            thread_names: HashMap::new(),
            notes: Vec::new(),
            exited: false,
            seen_ns: None,
            closed: VecDeque::new(),
            gil: None,
            states: HashMap::new(),
            defined: Dense::default(),
            threads: HashMap::new(),
            scopes: HashMap::new(),
            off_ns: Vec::new(),
            throttled: Throttled::default(),
            held: VecDeque::new(),
            devices: Devices::default(),
            nvtx: nvtx::Process::default(),
        })
    }

    /// Whether lines could be measured in a process (from 3.12 on) and were in none.
    pub fn misses_lines(&self) -> bool {
        let probed = |process: &&Process| process.covered && process.facts.sampled_hz.is_none();
        let can = |process: &Process| {
            let version = process.facts.python.as_deref().unwrap_or("");
            let minor = version
                .strip_prefix("3.")
                .and_then(|rest| rest.split('.').next());
            minor
                .and_then(|minor| minor.parse().ok())
                .is_some_and(|minor: u32| minor >= 12)
        };
        let named = |process: &Process| {
            let mut defined = process.defined.values();
            defined.any(|defined| self.names.text(defined.name) == "line.time_ns")
        };
        let mut all = self
            .processes
            .values()
            .filter(probed)
            .filter(|process| can(process));
        all.clone().next().is_some() && !all.any(named)
    }

    /// The latest end of anything that a device did, or that was called to have it done; 0: nothing was.
    pub fn last_device_ns(&self) -> i64 {
        let all = self
            .processes
            .values()
            .map(|process| process.devices.last_ns);
        all.max().unwrap_or(0)
    }

    /// The numbers that the program's runtime gives its devices, by UUID.
    pub fn device_numbers(&self) -> HashMap<String, u32> {
        let processes = self.processes.values();
        let numbers = processes.flat_map(|process| &process.devices.numbers);
        numbers
            .map(|(uuid, number)| (uuid.clone(), *number))
            .collect()
    }

    /// Whether devices were recorded in a process.
    pub fn devices(&self) -> Seen {
        let mut seen = Seen::Nothing;
        for facts in self.processes.values().filter_map(|p| p.devices.recorder()) {
            match facts.contains_key("reason") {
                false => return Seen::Recorded,
                true => seen = Seen::Refused,
            }
        }
        seen
    }

    /// Every process, in the order of its number.
    pub fn processes(&self) -> Vec<(ProcessKey, &Process)> {
        let mut all: Vec<_> = self
            .processes
            .iter()
            .map(|(key, process)| (*key, process))
            .collect();
        all.sort_by_key(|(_, process)| process.id);
        all
    }

    /// Lets go of texts that no id stands for, metadata above all, when there are many. No row may be waiting: their
    /// symbols mean nothing afterwards.
    pub fn tidy(&mut self) {
        if self.names.bytes() <= self.tidy_at.max(MOST_TEXTS) {
            return;
        }
        let old = std::mem::take(&mut self.names);
        for process in self.processes.values_mut() {
            for defined in process.defined.values_mut() {
                defined.name = self.names.sym(old.text(defined.name));
                defined.file = defined.file.map(|file| self.names.sym(old.text(file)));
            }
            process.devices.tidy(&old, &mut self.names);
            process.nvtx.forget_args();
        }
        self.tidy_at = 2 * self.names.bytes(); // if most are in use, looking again soon would find nothing
    }

    /// Turns whole records of one chain into rows. `tid` 0 is the process's names chain.
    pub fn records(&mut self, key: ProcessKey, tid: u64, mut bytes: &[u8], out: &mut Vec<Event>) {
        self.process(key).covered = true;
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let mut thread = process.threads.remove(&tid).unwrap_or_default();
        while !bytes.is_empty() {
            let Some((record, size)) = Record::decode(bytes) else {
                self.damaged += 1;
                break;
            };
            bytes = &bytes[size..];
            if !process.record(&mut self.names, tid, &mut thread, record, out) {
                self.damaged += 1;
            }
        }
        process.threads.insert(tid, thread);
    }

    /// The thread's chain was closed.
    pub fn closed(&mut self, key: ProcessKey, tid: u64) {
        let process = self.process(key);
        if let Some(thread) = process.threads.get_mut(&tid)
            && !std::mem::replace(&mut thread.closed, true)
        {
            process.closed.push_back(tid);
            process.nvtx.ended(tid);
        }
    }

    /// Forgets a thread that ended long ago, if there are more than `most` such ones: its id, its name, time of its
    /// first and of its last record. What was open in it ends.
    pub fn retire(
        &mut self,
        key: ProcessKey,
        most: usize,
        out: &mut Vec<Event>,
    ) -> Option<Retired> {
        let process = self.processes.get_mut(&key)?;
        while process.closed.len() > most {
            let tid = process.closed.pop_front()?;
            // its id may be another thread's by now
            if !process
                .threads
                .get(&tid)
                .is_some_and(|thread| thread.closed)
            {
                continue;
            }
            let mut thread = process.threads.remove(&tid)?;
            process.end_all(&mut self.names, tid, &mut thread, out);
            return Some(Retired {
                tid,
                name: process.thread_names.remove(&tid),
                first_ns: thread.first_ns.unwrap_or(thread.last_ns),
                last_ns: thread.last_ns,
            });
        }
        None
    }

    /// Writes how many records a thread has lost since the last call, where it lost them.
    pub fn lost(&mut self, key: ProcessKey, tid: u64, records: u64, out: &mut Vec<Event>) {
        let name = self.names.sym("records");
        let process = self.process(key);
        let heard = process.threads.get(&tid).filter(|t| t.first_ns.is_some());
        let latest = || process.threads.values().map(|t| t.last_ns).max();
        let at = heard.map(|t| t.last_ns).or_else(latest);
        let at = at.unwrap_or(process.facts.base_monotonic_ns);
        let mut event = Event::new(Kind::Lost, name, at, process.id, process.pid, tid);
        event.value = Some(records as f64);
        out.push(event);
        if let Some(thread) = process.threads.get_mut(&tid) {
            thread.lost = thread.lost.saturating_add(records);
        }
    }

    /// A row of the process with this number was found elsewhere.
    pub fn saw(&mut self, id: u32, start_ns: i64) {
        let found = self.processes.values_mut().find(|process| process.id == id);
        if let Some(process) = found {
            let seen_ns = process.seen_ns.unwrap_or(start_ns);
            process.seen_ns = Some(seen_ns.min(start_ns));
        }
    }

    /// Tells something of every process that a probe is in.
    pub fn note_all(&mut self, note: &str) {
        let covered = self.processes.values_mut().filter(|p| p.covered);
        covered.for_each(|process| process.notes.push(note.to_owned()));
    }

    /// Writes what is held back.
    pub fn tell(&mut self, out: &mut Vec<Event>) {
        let mut processes: Vec<_> = self.processes.values_mut().collect();
        processes.sort_by_key(|process| process.id);
        for process in processes {
            process.tell(&mut self.names, i64::MAX, out);
        }
    }

    /// Ends what is still open in all processes.
    pub fn finish(&mut self, out: &mut Vec<Event>) {
        let mut keys: Vec<_> = self.processes.keys().copied().collect();
        keys.sort();
        for key in keys {
            self.close(key, out);
        }
    }

    /// Ends what is still open in a process: it lasts to its thread's last record, `args.open` says so. Of what it
    /// defined nothing is kept, so that a run may have any number of processes.
    pub fn close(&mut self, key: ProcessKey, out: &mut Vec<Event>) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let mut tids: Vec<_> = process.threads.keys().copied().collect();
        tids.sort_unstable();
        for tid in tids {
            let Some(mut thread) = process.threads.remove(&tid) else {
                continue;
            };
            process.end_all(&mut self.names, tid, &mut thread, out);
            process.threads.insert(tid, thread);
        }
        process.tell(&mut self.names, i64::MAX, out);
        let last_ns = process.threads.values().map(|t| t.last_ns).max();
        let base_ns = process.facts.base_monotonic_ns;
        let rows = process
            .throttled
            .finish(base_ns, last_ns.unwrap_or(base_ns));
        for (id, row) in rows {
            out.push(process.estimate(&mut self.names, id, &row));
        }
        process.end_started(&mut self.names, out);
        let mut handles: Vec<_> = process.scopes.keys().copied().collect();
        handles.sort_unstable();
        for handle in handles {
            let Some(scope) = process.scopes.remove(&handle) else {
                continue;
            };
            let end_ns = process
                .threads
                .get(&scope.tid)
                .map_or(scope.start_ns, |t| t.last_ns);
            let event = process.scope(&mut self.names, scope, end_ns, &[("open", true)]);
            out.push(event);
        }
        process.device_rows(&mut self.names, out);
        process.devices.forget();
        process.defined = Dense::default();
    }
}

impl Process {
    /// Its threads that wrote records: id, time of the first and of the last one.
    pub fn active(&self) -> Vec<(u64, i64, i64)> {
        let threads = (self.threads.iter()).filter(|(tid, _)| **tid != 0 && **tid < DEVICES);
        let mut all: Vec<_> = threads
            .filter_map(|(tid, thread)| Some((*tid, thread.first_ns?, thread.last_ns)))
            .collect();
        all.sort_unstable();
        all
    }

    /// Whether this thread wrote records, and is not forgotten.
    pub fn has_thread(&self, tid: u64) -> bool {
        self.threads.contains_key(&tid)
    }

    /// Takes one record; false if it makes no sense.
    #[inline(always)]
    fn record(
        &mut self,
        names: &mut Names,
        tid: u64,
        thread: &mut Thread,
        record: Record,
        out: &mut Vec<Event>,
    ) -> bool {
        if let Record::Begin { id: 0, .. } | Record::End { id: 0, .. } = record {
            return true; // the probe's own function, with which it measures what a call costs
        }
        if let Some(at) = self.time_ns(&record) {
            self.switch_off(names, tid, thread, at, out);
            self.shed(names, tid, thread, at, out);
            thread.first_ns.get_or_insert(at);
            thread.closed = false;
            thread.before_ns = thread.last_ns;
            thread.last_ns = thread.last_ns.max(at);
            self.timed(names, tid, thread, record, at, out);
            return true;
        }
        let text = match record {
            Record::Gil { start, end, holder } => {
                self.gil = Some(Gil { start, end, holder });
                return true;
            }
            Record::State { tid, address } => {
                if self.states.len() >= MOST_STATES {
                    self.states.clear();
                }
                self.states.insert(address, tid);
                return true;
            }
            Record::Nvtx(nvtx) => {
                thread.nvtx.before(nvtx);
                return true;
            }
            Record::Text(text) => text,
            _ => return true,
        };
        match text {
            Text::Metadata(json) => thread.metadata = Some(json.to_owned()),
            Text::Define {
                id,
                line,
                name,
                file,
            } => {
                let defined = Defined {
                    name: names.sym(name),
                    file: (!file.is_empty()).then(|| names.sym(file)),
                    line: (line != 0).then_some(line),
                };
                self.defined.insert(id, defined);
            }
            Text::Process(json) => match serde_json::from_str::<ProcessFacts>(json) {
                Ok(facts) if facts.ns_per_tick.is_finite() && facts.ns_per_tick > 0.0 => {
                    let base_monotonic_ns = facts.base_monotonic_ns.clamp(-MOST_NS, MOST_NS);
                    self.facts = ProcessFacts {
                        base_monotonic_ns,
                        ..facts
                    };
                }
                _ => return false,
            },
            Text::Thread { .. } if self.nvtx.has_named(tid) => {}
            Text::Thread { name, .. } => {
                self.thread_names.insert(tid, name.to_owned());
            }
            Text::NvtxThread { tid, name } => {
                self.nvtx.name_thread(tid);
                self.thread_names.insert(tid, name.to_owned());
            }
            Text::NvtxCategory {
                domain,
                category,
                name,
            } => self.nvtx.name_category(domain, category, name),
            Text::Note(note) if self.notes.len() < MOST_NOTES => {
                self.notes.push(note.to_owned());
            }
            Text::Note(_) => {}
            Text::Shape { id, json } => {
                return self.devices.shape(names, &self.defined, id, json);
            }
            Text::Facts { name, json } => return self.devices.tell(name, json),
        }
        true
    }

    /// The record's time in ns of the process's clock; `None` for a text, which has none.
    #[inline(always)]
    fn time_ns(&self, record: &Record) -> Option<i64> {
        let ticks = match *record {
            Record::Begin { time, .. }
            | Record::End { time, .. }
            | Record::Span { time, .. }
            | Record::Mark { time, .. }
            | Record::ScopeBegin { time, .. }
            | Record::ScopeEnd { time, .. }
            | Record::Counter { time, .. }
            | Record::Sample { time, .. }
            | Record::Throttle { time, .. }
            | Record::Slices { time, .. }
            | Record::Missing { time, .. }
            | Record::Switch { time, .. }
            | Record::Exit { time } => time,
            Record::Clock { ticks, .. } => ticks,
            Record::Work { time, .. } | Record::Call { time, .. } => {
                let ns = i64::try_from(time).unwrap_or(MOST_NS).min(MOST_NS);
                return Some(self.facts.base_monotonic_ns.saturating_add(ns));
            }
            Record::Nvtx(event) => event.time()?,
            Record::Gil { .. } | Record::State { .. } | Record::Text(_) => return None,
        };
        Some(
            self.facts
                .base_monotonic_ns
                .saturating_add(self.ticks_ns(ticks)),
        )
    }

    #[inline(always)]
    fn ticks_ns(&self, ticks: u64) -> i64 {
        ((ticks as f64 * self.facts.ns_per_tick + 0.5) as i64).min(MOST_NS)
    }

    fn flow(&self, flow: u64) -> Option<u64> {
        let flow = flow & 0xffff_ffff;
        (flow != 0).then_some(u64::from(self.id) << 32 | flow)
    }

    /// Ends frames that were open when recording was switched off: what they did later is unknown.
    fn switch_off(
        &self,
        names: &mut Names,
        tid: u64,
        thread: &mut Thread,
        at: i64,
        out: &mut Vec<Event>,
    ) {
        while let Some(&off_ns) = self.off_ns.get(thread.off_seen) {
            if off_ns >= at {
                break;
            }
            thread.off_seen += 1;
            while let Some(frame) = thread.stack.pop_if(|frame| frame.start_ns <= off_ns) {
                let mut event = self.python(names, tid, frame, off_ns);
                event.args = Some(names.sym(r#"{"open":true}"#));
                out.push(event);
            }
        }
    }

    /// Ends frames on top whose function the budget has shed since they began: what they did later is unknown.
    #[inline(always)]
    fn shed(
        &self,
        names: &mut Names,
        tid: u64,
        thread: &mut Thread,
        at: i64,
        out: &mut Vec<Event>,
    ) {
        while let Some(frame) = thread.stack.last()
            && let Some(cut_ns) = self.throttled.cut_ns(frame.id, frame.start_ns, at)
        {
            let mut event = self.python(names, tid, *frame, cut_ns);
            event.args = Some(names.sym(r#"{"open":true}"#));
            out.push(event);
            thread.stack.pop();
        }
    }

    /// Ends frames that were as deep as one that begins now, or deeper: an exception left them, unseen, after the last
    /// record before this one.
    fn left(
        &self,
        names: &mut Names,
        tid: u64,
        thread: &mut Thread,
        depth: u32,
        out: &mut Vec<Event>,
    ) {
        let at = thread.before_ns;
        while let Some(frame) = thread.stack.pop_if(|frame| frame.depth >= depth.max(1)) {
            let cut_ns = self.throttled.cut_ns(frame.id, frame.start_ns, at);
            let mut event = self.python(names, tid, frame, cut_ns.unwrap_or(at));
            event.args = Some(names.sym(r#"{"open":true}"#));
            out.push(event);
        }
    }

    /// Ends all that is open in a thread.
    fn end_all(&mut self, names: &mut Names, tid: u64, thread: &mut Thread, out: &mut Vec<Event>) {
        let end_ns = thread.last_ns;
        for frame in std::mem::take(&mut thread.stack).into_iter().rev() {
            let cut_ns = self.throttled.cut_ns(frame.id, frame.start_ns, end_ns);
            let mut event = self.python(names, tid, frame, cut_ns.unwrap_or(end_ns));
            event.args = Some(names.sym(r#"{"open":true}"#));
            out.push(event);
        }
        self.end_pushed(names, tid, thread, out);
    }

    #[inline(always)]
    fn timed(
        &mut self,
        names: &mut Names,
        tid: u64,
        thread: &mut Thread,
        record: Record,
        at: i64,
        out: &mut Vec<Event>,
    ) {
        match record {
            Record::Begin {
                id, flags, flow, ..
            } => {
                let own = self.flow(flow);
                let depth = depth(flags);
                if flags & LOOSE != 0 {
                    self.left(names, tid, thread, depth, out);
                }
                thread.frames += 1;
                thread.stack.push(OpenFrame {
                    id,
                    start_ns: at,
                    resumed: flags & RESUMED != 0,
                    depth,
                    begun: thread.frames,
                    flow: own.or_else(|| thread.stack.last().and_then(|frame| frame.flow)),
                    segment: own
                        .map(|_| thread.frames)
                        .or_else(|| thread.stack.last().and_then(|frame| frame.segment)),
                });
            }
            Record::End { id, flags, .. } => self.end(names, tid, thread, id, flags, at, out),
            Record::Span {
                id,
                kind,
                dur,
                extra,
                ..
            } => {
                let kind_of = match kind {
                    SpanKind::Native => Kind::Native,
                    SpanKind::Gc => Kind::Gc,
                    SpanKind::Wait => Kind::Wait,
                };
                let mut event = self.row(names, kind_of, id, at, tid);
                event.dur_ns = Some(self.ticks_ns(dur));
                event.value = (kind == SpanKind::Gc).then_some(extra as f64);
                event.args = thread.metadata.take().map(|json| names.sym(&json));
                event.flow = thread.stack.last().and_then(|frame| frame.flow);
                thread.last_ns = thread.last_ns.max(event.end_ns());
                out.push(event);
            }
            Record::Mark { id, flow, .. } => {
                let mut event = self.row(names, Kind::Mark, id, at, tid);
                event.args = thread.metadata.take().map(|json| names.sym(&json));
                event.flow = self
                    .flow(flow)
                    .or(thread.stack.last().and_then(|frame| frame.flow));
                out.push(event);
            }
            Record::ScopeBegin {
                id, handle, flow, ..
            } => {
                let top = thread.stack.last();
                let scope = OpenScope {
                    id,
                    tid,
                    start_ns: at,
                    flow: self.flow(flow).or(top.and_then(|frame| frame.flow)),
                    segment: match flow & UNSEEN {
                        0 => top.and_then(|frame| frame.segment),
                        _ => Some(u64::MAX), // ends in another one, for all we know
                    },
                    metadata: thread.metadata.take(),
                };
                self.scopes.insert(handle, scope);
            }
            Record::ScopeEnd { flags, handle, .. } => {
                let Some(scope) = self.scopes.remove(&handle) else {
                    return;
                };
                let segment = thread.stack.last().and_then(|frame| frame.segment);
                let moved = scope.tid != tid || scope.segment != segment;
                let facts = [("async", moved), ("raised", flags & RAISED != 0)];
                let event = self.scope(names, scope, at, &facts);
                out.push(event);
            }
            Record::Counter { id, value, .. } => {
                let mut event = self.row(names, Kind::Counter, id, at, tid);
                event.value = Some(value);
                match names.text(event.name) {
                    "probe.call_ns" => self.throttled.set_cost(value),
                    "line.time_ns" => {
                        event.args = thread.metadata.take().map(|json| names.sym(&json));
                    }
                    _ => {}
                }
                out.push(event);
            }
            Record::Clock {
                monotonic_ns,
                realtime_ns,
                boottime_ns,
                error_ns,
                ..
            } => {
                let name = names.sym(&self.facts.clock);
                let mut event = Event::new(Kind::Clock, name, at, self.id, self.pid, tid);
                let args = serde_json::json!({"monotonic_ns": monotonic_ns, "realtime_ns": realtime_ns,
                    "boottime_ns": boottime_ns, "error_ns": error_ns});
                event.args = Some(names.sym(&args.to_string()));
                out.push(event);
            }
            Record::Sample {
                id, tid, cpu_ns, ..
            } => {
                let mut event = self.row(names, Kind::Sample, id, at, tid);
                event.value = Some(cpu_ns as f64);
                out.push(event);
            }
            Record::Throttle {
                id,
                calls,
                since,
                burst,
                pools,
                ..
            } => {
                let burst = Burst {
                    time_ns: at,
                    calls,
                    since_ns: self
                        .facts
                        .base_monotonic_ns
                        .saturating_add(self.ticks_ns(since)),
                    cpu_ns: self.ticks_ns(burst),
                    pools_ns: pools.map(|pool| self.ticks_ns(pool)),
                };
                if let Some(row) = self.throttled.add(id, burst) {
                    self.hold(id, row);
                }
                self.tell(names, at, out);
            }
            Record::Slices {
                id,
                dur_us,
                slices,
                seen,
                calls,
                chance,
                bias,
                on_us,
                off_us,
                ..
            } => {
                let row = Row {
                    start_ns: at - i64::from(dur_us) * 1000,
                    end_ns: at,
                    calls,
                    variance: f64::from(chance).powi(2),
                    bias: f64::from(bias),
                    off_ns: i64::from(off_us) * 1000,
                    on_ns: i64::from(on_us) * 1000,
                    seen: seen.into(),
                    bursts: slices.into(),
                    ..Row::default()
                };
                self.hold(id, row);
                self.tell(names, at, out);
            }
            Record::Switch { on, .. } => {
                if !on {
                    self.off_ns.push(at);
                    self.off_ns.sort_unstable();
                }
            }
            Record::Exit { .. } => self.exited = true,
            Record::Work { .. } | Record::Call { .. } => {
                let row = self.device_row(names, &record, at);
                let end_ns = row.as_ref().map_or(at, Event::end_ns);
                self.devices.last_ns = self.devices.last_ns.max(end_ns);
                out.extend(row);
            }
            Record::Missing { id, records, .. } => {
                let mut event = self.row(names, Kind::Lost, id, at, 0);
                event.value = Some(records as f64);
                out.push(event);
            }
            Record::Nvtx(event) => self.nvtx_event(names, tid, thread, event, at, out),
            Record::Gil { .. } | Record::State { .. } | Record::Text(_) => {}
        }
    }

    /// Ends the innermost frame with this id. Frames above it whose own end never came end with it; an end
    /// whose begin was before recording started has no span, and one whose begin was lost is lost with it.
    #[allow(clippy::too_many_arguments)]
    fn end(
        &mut self,
        names: &mut Names,
        tid: u64,
        thread: &mut Thread,
        id: u32,
        flags: u32,
        at: i64,
        out: &mut Vec<Event>,
    ) {
        let depth = match thread.stack.last() {
            Some(top) if top.id == id => Some(thread.stack.len() - 1),
            _ => thread.stack.iter().rposition(|frame| frame.id == id),
        };
        let Some(depth) = depth else {
            if thread.lost > 0 {
                thread.lost -= 1;
                let name = names.sym("ends without a beginning");
                let mut event = Event::new(Kind::Lost, name, at, self.id, self.pid, tid);
                event.value = Some(1.0);
                out.push(event);
            }
            return;
        };
        let cut_ns = |frame: &OpenFrame| self.throttled.cut_ns(frame.id, frame.start_ns, at);
        if cut_ns(&thread.stack[depth]).is_some() {
            return; // a frame that began while its function was not recorded
        }
        while thread.stack.len() > depth + 1
            && let Some(frame) = thread.stack.pop()
        {
            let mut event = self.python(names, tid, frame, cut_ns(&frame).unwrap_or(at));
            event.args = Some(names.sym(r#"{"open":true}"#));
            out.push(event);
        }
        let Some(frame) = thread.stack.pop() else {
            return;
        };
        // Without what it cost to record the calls below it.
        let below = (thread.frames - frame.begun) as f64 * self.throttled.cost_ns();
        let took = at.saturating_sub(frame.start_ns) - below as i64;
        self.throttled.took(id, took.max(0), frame.resumed);
        let mut event = self.python(names, tid, frame, at);
        let json = facts_of(frame.resumed, flags);
        event.args = (!json.is_empty()).then(|| names.sym(json));
        out.push(event);
    }

    #[inline(always)]
    fn row(&self, names: &mut Names, kind: Kind, id: u32, at: i64, tid: u64) -> Event {
        let defined = self.defined.get(id).copied().unwrap_or_else(|| Defined {
            name: names.sym("(name lost)"),
            file: None,
            line: None,
        });
        let mut event = Event::new(kind, defined.name, at, self.id, self.pid, tid);
        event.file = defined.file;
        event.line = defined.line;
        event
    }

    #[inline(always)]
    fn python(&self, names: &mut Names, tid: u64, frame: OpenFrame, end_ns: i64) -> Event {
        let mut event = self.row(names, Kind::Python, frame.id, frame.start_ns, tid);
        event.dur_ns = Some(end_ns.saturating_sub(frame.start_ns).max(0));
        event.flow = frame.flow;
        event
    }

    fn scope(
        &self,
        names: &mut Names,
        scope: OpenScope,
        end_ns: i64,
        facts: &[(&str, bool)],
    ) -> Event {
        let mut event = self.row(names, Kind::Scope, scope.id, scope.start_ns, scope.tid);
        event.dur_ns = Some(end_ns.saturating_sub(scope.start_ns).max(0));
        event.flow = scope.flow;
        event.args = args(scope.metadata.as_deref(), facts).map(|json| names.sym(&json));
        event
    }
}

/// What is to be said of a frame's span, as [`args`] would: there are many of them.
fn facts_of(resumed: bool, flags: u32) -> &'static str {
    match (flags & RAISED != 0, resumed, flags & SUSPENDED != 0) {
        (false, false, false) => "",
        (false, false, true) => r#"{"suspended":true}"#,
        (false, true, false) => r#"{"resumed":true}"#,
        (false, true, true) => r#"{"resumed":true,"suspended":true}"#,
        (true, false, false) => r#"{"raised":true}"#,
        (true, false, true) => r#"{"raised":true,"suspended":true}"#,
        (true, true, false) => r#"{"raised":true,"resumed":true}"#,
        (true, true, true) => r#"{"raised":true,"resumed":true,"suspended":true}"#,
    }
}

/// The user's metadata and our own facts that hold, as one JSON object; `None` when there is nothing to say.
fn args(metadata: Option<&str>, facts: &[(&str, bool)]) -> Option<String> {
    let mut object = match metadata.map(serde_json::from_str) {
        Some(Ok(serde_json::Value::Object(object))) => object,
        Some(_) | None => serde_json::Map::new(),
    };
    for (name, _) in facts.iter().filter(|(_, holds)| *holds) {
        object.insert((*name).into(), true.into());
    }
    (!object.is_empty()).then(|| serde_json::Value::Object(object).to_string())
}

#[cfg(test)]
mod tests;

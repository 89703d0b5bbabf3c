//! Records of the spool to rows of the trace: begins and ends paired into spans, ids to names, ticks to ns.
//!
//! Nothing here reads a file: bytes come in chain by chain, rows go out. What the bytes claim is checked
//! (an id without a definition, an end without a begin, a time that runs backwards), never believed.

mod device; // what devices did
mod estimates;
mod occupancy;
mod nvtx; // ranges and marks of NVTX
mod process; // the records of one
mod snapshot; // what is known, as records again: for the head of a journal

use std::collections::{HashMap, VecDeque};

use inferscope_spool::record::Record;
use serde::{Deserialize, Serialize};

use self::device::Devices;
use super::dense::Dense;
use super::throttle::{Row, Throttled};
use crate::trace::{Event, Kind, Names, Sym};

/// Longest time that is believed, in ns: 36 years. A few of them can be added.
const MOST_NS: i64 = 1 << 60;

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

#[cfg(test)]
mod tests;

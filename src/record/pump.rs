//! The recorder at work: records from the segments into the journal and, as rows, into the trace.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use inferscope_spool::sys::{self, Watch};
use inferscope_spool::{Chain, Reader};

use super::drain::{Drain, ProcessKey, Seen};
use super::ended::{Ends, Status};
use super::flight::{self, Flight};
use super::folder::Folder;
use super::journal::{Frame, Journal, Known, Replay};
use super::meters::Meters;
use super::sampling::Source;
use super::states::{Now, States};
use super::window;
use crate::error::{Error, Result};
use crate::trace::{Event, Writer, text};

/// What has been done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub rows: u64,
    /// Bytes of records.
    pub bytes: u64,
    /// Records lost.
    pub lost: u64,
    /// Processes with a probe.
    pub covered: u64,
    /// Segment files, records and frames of the journal that could not be read.
    pub damaged: u64,
    /// At the end: lines could be measured, and were in no process.
    pub without_lines: bool,
    /// At the end: what came of devices.
    pub devices: Seen,
}

/// Everything between the segments and the trace.
#[derive(Debug)]
pub struct Pump {
    reader: Reader,
    seen: HashSet<ProcessKey>,
    ends: Ends,
    samples: Option<Source>,
    meters: Option<Meters>,
    rows: Rows,
}

/// Where records and rows go.
#[derive(Debug)]
struct Rows {
    drain: Drain,
    states: States,
    journal: Option<Journal>,
    /// Names of the journal: while it has everything, and once it has not.
    paths: [PathBuf; 2],
    /// Processes whose number the journal has.
    numbered: usize,
    to: Option<To>,
    /// Rows are cut here: a dead recorder's window begins there.
    edge_ns: i64,
    /// Why the trace cannot be written.
    refused: Option<Error>,
    out: Vec<Event>,
    count: Count,
}

/// The trace, or the window of which traces are made.
#[derive(Debug)]
enum To {
    Trace(Box<Writer>),
    Window(Box<Flight>),
}

/// What a run is made into.
#[derive(Debug)]
pub enum Goal {
    Trace(Box<Writer>),
    Window(flight::Plan),
}

impl Pump {
    /// Follows the run in `folder`, whose processes `states` finds.
    ///
    /// # Errors
    /// A directory that cannot be read, a journal or a window that cannot be made.
    pub fn new(folder: &Folder, goal: Goal, states: States) -> Result<Pump> {
        let reader = Reader::open(&folder.dir, &folder.settings.spill)
            .map_err(Error::io("read", &folder.dir))?;
        let paths = folder.journals();
        let journal = Journal::create(&paths[0], folder.settings.spill_limit_bytes)
            .map_err(Error::io("create", &paths[0]))?;
        let to = match goal {
            Goal::Trace(writer) => To::Trace(writer),
            Goal::Window(plan) => {
                let spill = &folder.settings.spill;
                let flight = Flight::create(plan, spill, now().monotonic_ns, &states)?;
                To::Window(Box::new(flight))
            }
        };
        let mut rows = Rows::new(states, to, paths);
        rows.journal = Some(journal);
        Ok(Pump {
            reader,
            seen: HashSet::new(),
            ends: Ends::default(),
            samples: None,
            meters: None,
            rows,
        })
    }

    /// Takes sampled stacks too.
    pub fn sample(&mut self, source: Source) {
        self.samples = Some(source);
    }

    /// Takes what NVML says of GPUs too.
    pub fn meter(&mut self, meters: Option<Meters>) {
        self.meters = meters;
    }

    /// What has been done so far.
    pub fn count(&self) -> Count {
        self.rows.count()
    }

    /// Whether the trace can no longer be written, and everything stays in the journal.
    pub fn is_refused(&self) -> bool {
        self.rows.refused.is_some()
    }

    /// Looks at the threads of all processes.
    pub fn look(&mut self) {
        let rows = &mut self.rows;
        rows.states.look(now(), &mut rows.drain, &mut rows.out);
        if let Some(meters) = &mut self.meters {
            meters.take(&mut rows.drain, &mut rows.out, false);
        }
        let samples = self.samples.as_mut();
        let new = samples.map(|samples| samples.take(&mut rows.drain, &mut rows.out));
        rows.journal_rows();
        rows.journal_facts(&new.unwrap_or_default());
        rows.states.retire(&mut rows.drain, &mut rows.out); // a replay forgets no thread
        rows.write();
    }

    /// The trigger that fired since this was last asked.
    pub fn fired(&mut self) -> Option<String> {
        match &mut self.rows.to {
            Some(To::Window(flight)) => flight.fired(),
            _ => None,
        }
    }

    /// Writes the window as it is now; the file's name. `None` if it has no name of its own, or there is no window.
    ///
    /// # Errors
    /// What keeps it from being written; the recording goes on.
    pub fn dump(&mut self, why: &str) -> Result<Option<PathBuf>> {
        self.rows.end_chunk();
        let rows = &mut self.rows;
        let open = (self.samples.as_ref()).map(|samples| samples.open(&mut rows.drain));
        match &mut rows.to {
            Some(To::Window(flight)) => {
                let open = open.unwrap_or_default();
                flight.dump(why, now().monotonic_ns, &rows.drain, &rows.states, open)
            }
            _ => Ok(None),
        }
    }

    /// Takes what was recorded since the last turn, in bytes.
    ///
    /// # Errors
    /// The run's directory is gone.
    pub fn turn(&mut self) -> io::Result<u64> {
        let dead = self.dead();
        for key in &dead {
            self.reader.ended(key.pid, key.start_ticks);
        }
        let bytes = self.poll()?;
        self.rows.close(&dead);
        Ok(bytes)
    }

    /// Processes with a probe that still run.
    pub fn living(&mut self) -> Vec<Watch> {
        self.reader
            .processes()
            .filter(|&(pid, start)| life(pid, start) == Life::Runs)
            .filter_map(|(pid, _)| Watch::open(pid).ok())
            .collect()
    }

    /// Takes the rest: whoever still writes does it in vain.
    ///
    /// # Errors
    /// As [`Pump::turn`].
    pub fn last_turn(&mut self) -> io::Result<()> {
        let all: Vec<_> = self.reader.processes().collect();
        for (pid, start) in all {
            self.reader.ended(pid, start);
        }
        self.poll().map(|_| ())
    }

    /// Ends the trace. `status`: pid of the program, and how it ended, if it is our child.
    ///
    /// # Errors
    /// Why the trace could not be written; the records are still in the journal.
    pub fn finish(mut self, folder: &Folder, status: Option<(u32, Status)>) -> Result<Count> {
        let uncovered: BTreeMap<u32, String> = folder.uncovered().into_iter().collect();
        if let Some(samples) = self.samples.take() {
            samples.end(&mut self.rows.drain, &mut self.rows.out);
        }
        if let Some(mut meters) = self.meters.take() {
            meters.take(&mut self.rows.drain, &mut self.rows.out, true);
        }
        self.rows.journal_rows();
        self.rows.write();
        self.ends.program = status;
        let keys = self.rows.drain.processes().into_iter().map(|(key, _)| key);
        let running = keys.filter(|key| lives(key.pid, key.start_ticks));
        self.ends.running = running.collect();
        let without_lines = self.rows.drain.misses_lines();
        let devices = self.rows.drain.devices();
        self.rows.finish(&self.ends, &uncovered)?;
        Ok(Count {
            without_lines,
            devices,
            ..self.count()
        })
    }

    fn poll(&mut self) -> io::Result<u64> {
        let rows = &mut self.rows;
        let poll = self
            .reader
            .poll(&mut |chain, bytes| rows.take(chain, bytes))?;
        rows.count.bytes += poll.bytes;
        rows.count.lost = rows.count.lost.saturating_add(poll.lost);
        rows.count.damaged = rows.count.damaged.max(poll.damaged);
        if rows.flush() {
            self.reader.release();
            let due =
                |to: &To| matches!(to, To::Window(flight) if flight.is_due(now().monotonic_ns));
            if rows.to.as_ref().is_some_and(due) {
                rows.end_chunk();
            }
        }
        Ok(poll.bytes)
    }

    /// Processes that have ended. One that was never seen alive may count pids in a namespace of its own.
    fn dead(&mut self) -> Vec<ProcessKey> {
        let mut dead = Vec::new();
        for (pid, start_ticks) in self.reader.processes() {
            let key = ProcessKey { pid, start_ticks };
            let life = life(pid, start_ticks);
            if let Life::Zombie(Some(status)) = life {
                self.ends.seen.insert(key, status);
            }
            if life == Life::Runs {
                self.seen.insert(key);
            } else if self.seen.remove(&key) || self.reader.is_neighbour(pid, start_ticks) {
                dead.push(key);
            }
        }
        dead
    }
}

impl Rows {
    fn new(states: States, to: To, paths: [PathBuf; 2]) -> Rows {
        Rows {
            drain: Drain::default(),
            states,
            journal: None,
            paths,
            numbered: 0,
            to: Some(to),
            edge_ns: i64::MIN,
            refused: None,
            out: Vec::new(),
            count: Count::default(),
        }
    }

    fn count(&self) -> Count {
        let processes = self.drain.processes();
        let covered = processes.iter().filter(|(_, process)| process.covered);
        Count {
            covered: covered.count() as u64,
            damaged: self.count.damaged + self.drain.damaged,
            ..self.count
        }
    }

    fn take(&mut self, chain: &Chain, bytes: &[u8]) {
        let key = ProcessKey {
            pid: chain.pid,
            start_ticks: chain.start_ticks,
        };
        if let Some(journal) = &mut self.journal {
            let wrote = journal.records(chain, bytes);
            self.journaled(wrote);
        }
        if self.to.is_none() {
            self.drain.process(key); // it has its number as it will have in the replay
            return;
        }
        self.drain.records(key, chain.tid, bytes, &mut self.out);
        if chain.lost > 0 {
            self.drain.lost(key, chain.tid, chain.lost, &mut self.out);
        }
        if chain.closed {
            self.drain.closed(key, chain.tid);
        }
        self.write();
    }

    fn journal_rows(&mut self) {
        let Some(journal) = &mut self.journal else {
            return;
        };
        let processes = self.drain.processes();
        let new = processes.iter().skip(self.numbered);
        let mut wrote = new
            .map(|(key, _)| *key)
            .try_for_each(|key| journal.process(key));
        self.numbered = processes.len();
        if wrote.is_ok() && !self.out.is_empty() {
            wrote = journal.rows(&text::print(&self.out, &self.drain.names));
        }
        self.journaled(wrote);
    }

    /// What is known of these processes, which write no records that tell it.
    fn journal_facts(&mut self, keys: &[ProcessKey]) {
        let Some(journal) = self.journal.as_mut().filter(|_| !keys.is_empty()) else {
            return;
        };
        let known = self.drain.snapshot();
        let mut known = known.iter().filter(|known| keys.contains(&known.key));
        let wrote = known
            .try_for_each(|known| journal.records(&nobodys(0, known.key, known.tid), &known.bytes));
        self.journaled(wrote);
    }

    /// Goes on without a journal that cannot be written: what it has stays, under the other name.
    fn journaled(&mut self, wrote: io::Result<()>) {
        if let Err(error) = wrote {
            self.journal = None;
            let renamed = fs::rename(&self.paths[0], &self.paths[1]);
            let fate = match renamed {
                Ok(()) => "what is recorded from now on is lost with it",
                Err(_) => "what is recorded from now on is lost with it, without a sign",
            };
            let why = match error.kind() {
                io::ErrorKind::FileTooLarge => "has reached --spill-limit".to_owned(),
                _ => format!("cannot be written ({error})"),
            };
            eprintln!("isc-record: the journal {why}: if isc-record is killed, {fate}");
        }
    }

    /// Nothing more comes of these processes: what was still open in them ends.
    fn close(&mut self, ended: &[ProcessKey]) {
        if self.to.is_some() {
            for key in ended {
                self.drain.close(*key, &mut self.out);
            }
            self.write();
        }
    }

    fn write(&mut self) {
        if self.edge_ns > i64::MIN {
            let cut = |event| window::cut(event, self.edge_ns, &mut self.drain.names);
            self.out = self.out.drain(..).filter_map(cut).collect();
        }
        let names = &self.drain.names;
        let wrote = match &mut self.to {
            Some(To::Trace(writer)) => self.out.iter().try_for_each(|e| writer.push(e, names)),
            Some(To::Window(flight)) => self.out.iter().try_for_each(|e| flight.push(e, names)),
            None => Ok(()),
        };
        self.count.rows += self.out.len() as u64;
        self.out.clear();
        self.drain.tidy();
        self.refuse(wrote);
    }

    fn refuse(&mut self, wrote: Result<()>) {
        if let Err(error) = wrote {
            self.to = None;
            self.refused = Some(error);
        }
    }

    /// Begins a chunk of the window, and a journal of what comes after. All that was taken is released.
    fn end_chunk(&mut self) {
        let Some(To::Window(_)) = self.to else { return };
        self.states.cut(&mut self.drain, &mut self.out);
        self.drain.tell(&mut self.out);
        self.write();
        let Some(To::Window(flight)) = &mut self.to else {
            return;
        };
        match flight.turn(now().monotonic_ns, &self.states) {
            Ok(chunks) => self.restart_journal(chunks),
            Err(error) => self.refuse(Err(error)),
        }
    }

    fn restart_journal(&mut self, chunks: u64) {
        let Some(mut journal) = self.journal.take() else {
            return;
        };
        let drain = &self.drain;
        let wrote = journal.restart(chunks, |next| {
            let processes = drain.processes();
            processes
                .iter()
                .try_for_each(|(key, _)| next.process(*key))?;
            for (number, known) in drain.snapshot().iter().enumerate() {
                let chain = nobodys(number as u64, known.key, known.tid);
                next.records(&chain, &known.bytes)?;
            }
            Ok(())
        });
        self.numbered = drain.processes().len();
        self.journal = Some(journal);
        self.journaled(wrote);
    }

    /// Whether what was taken is safe.
    fn flush(&mut self) -> bool {
        if let Some(journal) = &mut self.journal {
            let wrote = journal.flush();
            self.journaled(wrote);
        }
        self.journal.is_some() || self.to.is_some()
    }

    fn finish(&mut self, ends: &Ends, uncovered: &BTreeMap<u32, String>) -> Result<()> {
        self.end_chunk();
        if let Some(To::Trace(_)) = self.to {
            let out = &mut self.out;
            self.drain.finish(out);
            self.states.finish(ends, uncovered, &mut self.drain, out);
            if !ends.recovered {
                out.push(flight::recorder(sys::cpu_ns(), &mut self.drain)); // of the dead one nothing is known
            }
            self.write();
        }
        match (self.to.take(), self.refused.take()) {
            (Some(To::Trace(writer)), _) => writer.finish(),
            (Some(To::Window(flight)), _) => {
                let (drain, states) = (&mut self.drain, &self.states);
                self.count.rows = flight.finish(drain, states, ends, uncovered)?;
                Ok(())
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(()),
        }
    }
}

/// A chain for what the drain knew; the program's own are counted from 1.
fn nobodys(number: u64, key: ProcessKey, tid: u64) -> Chain {
    Chain {
        pid: key.pid,
        start_ticks: key.start_ticks,
        chain: u64::MAX - number,
        tid,
        ..Chain::default()
    }
}

/// What has become of a process that has a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Runs,
    /// It has ended, and its parent does not know yet.
    Zombie(Option<Status>),
    Gone,
}

/// What has become of the process that had this spool. An exec keeps pid and start time, and the probe counts the
/// start time up for it.
fn life(pid: u32, start_ticks: u64) -> Life {
    /// Most programs one process becomes in turn, for all we believe.
    const MOST_EXECS: u64 = 64;
    let Ok(line) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return Life::Gone;
    };
    // the name may hold anything, parentheses too
    let fields: Vec<&str> = line
        .rsplit_once(')')
        .map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let field = |number: usize| fields.get(number - 3).copied();
    let real: Option<u64> = field(22).and_then(|word| word.parse().ok());
    if !real.is_some_and(|real| (real..real.saturating_add(MOST_EXECS)).contains(&start_ticks)) {
        return Life::Gone;
    }
    match field(3) {
        Some("Z" | "X") => {
            let word = field(52).and_then(|word| word.parse().ok());
            Life::Zombie(word.map(Status::from_wait))
        }
        _ => Life::Runs,
    }
}

/// Whether a process of this run's directory still runs.
pub fn lives(pid: u32, start_ticks: u64) -> bool {
    life(pid, start_ticks) == Life::Runs
}

fn now() -> Now {
    let clocks = sys::clocks();
    Now {
        monotonic_ns: clocks.monotonic_ns,
        realtime_ns: clocks.realtime_ns,
        boottime_ns: clocks.boottime_ns,
    }
}

/// Makes a trace of what a run left behind: its journal, then what is still in its segments. Changes nothing there.
/// The second value: how many of its processes still run.
///
/// # Errors
/// What cannot be read or written.
pub fn recover(folder: &Folder, writer: Writer) -> Result<(Count, usize)> {
    let paths = folder.journals();
    let to = To::Trace(Box::new(writer));
    let mut rows = Rows::new(States::new(0), to, paths.clone());
    let mut known = Known::default();
    let mut cut = false;
    for (path, is_cut) in paths.iter().zip([false, true]) {
        match Replay::open(path) {
            Ok(replay) => {
                cut = is_cut;
                rows.replay(replay, &mut known, &folder.settings.spill)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", path)(error)),
        }
    }
    let mut reader = Reader::open(&folder.dir, &folder.settings.spill)
        .map_err(Error::io("read", &folder.dir))?;
    let mut ends = Ends {
        recovered: true,
        ..Ends::default()
    };
    // before the segments are read: what a process does after that may not be in the trace
    let all: Vec<_> = reader.list().map_err(Error::io("read", &folder.dir))?;
    let running: Vec<_> = all
        .iter()
        .filter(|(pid, start)| lives(*pid, *start))
        .collect();
    let keys = running
        .iter()
        .map(|&&(pid, start_ticks)| ProcessKey { pid, start_ticks });
    ends.running = keys.collect();
    // nothing is known of segments before the first poll; the second takes what a chain still waited for
    for _ in 0..2 {
        let poll = reader.poll(&mut |chain, bytes| {
            let (rest, bytes) = known.rest(chain, bytes);
            rows.count.bytes += bytes.len() as u64;
            rows.count.lost = rows.count.lost.saturating_add(rest.lost);
            rows.take(&rest, bytes);
        });
        rows.count.damaged = poll.map_err(Error::io("read", &folder.dir))?.damaged;
        for &(pid, start) in &all {
            reader.ended(pid, start);
        }
    }
    if cut {
        rows.drain.note_all(
            "the journal was full or could not be written: what the recorder took after that died with it, and is not here",
        );
    }
    rows.finish(&ends, &folder.uncovered().into_iter().collect())?;
    Ok((rows.count(), ends.running.len()))
}

impl Rows {
    /// Takes everything of a journal, and the chunks of a window that it goes on after.
    fn replay(
        &mut self,
        journal: impl Iterator<Item = Frame>,
        known: &mut Known,
        spill: &Path,
    ) -> Result<()> {
        for frame in journal {
            match frame {
                Frame::Records { chain, bytes } => {
                    known.see(&chain, &bytes);
                    self.count.bytes += bytes.len() as u64;
                    self.count.lost = self.count.lost.saturating_add(chain.lost);
                    self.take(&chain, &bytes);
                }
                Frame::Rows(text) => {
                    let Ok((events, names)) = text::parse(&text) else {
                        self.count.damaged += 1;
                        continue;
                    };
                    let Some(To::Trace(writer)) = &mut self.to else {
                        return Ok(()); // `finish` says why
                    };
                    for event in &events {
                        writer.push(event, &names)?;
                        self.drain.saw(event.process, event.start_ns);
                    }
                    self.count.rows += events.len() as u64;
                }
                Frame::Process(key) => {
                    self.drain.process(key);
                }
                Frame::Chunk(chunks) => {
                    let Some(To::Trace(writer)) = &mut self.to else {
                        return Ok(());
                    };
                    if let Some((edge_ns, written)) = window::recover(spill, chunks, writer)? {
                        self.count.rows += written;
                        self.edge_ns = edge_ns;
                    }
                }
            }
        }
        Ok(())
    }
}

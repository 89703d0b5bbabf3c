//! The recorder at work: records from the segments into the journal and, as rows, into the trace.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::PathBuf;

use inferscope_spool::sys::{self, Watch};
use inferscope_spool::{Chain, Reader};

use super::drain::{Drain, ProcessKey};
use super::flight::{self, Ended, Flight};
use super::folder::Folder;
use super::journal::Journal;
use super::states::{self, Now, States};
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
    /// Segment files that could not be read.
    pub damaged: u64,
}

/// Everything between the segments and the trace.
#[derive(Debug)]
pub struct Pump {
    reader: Reader,
    seen: HashSet<ProcessKey>,
    rows: Rows,
}

/// Where records and rows go.
#[derive(Debug)]
struct Rows {
    drain: Drain,
    states: States,
    journal: Option<Journal>,
    /// Why there is no journal, if it failed.
    unsafe_since: Option<io::Error>,
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
    /// Follows the run in `folder`, whose processes are children of ours.
    ///
    /// # Errors
    /// A directory that cannot be read, a journal or a window that cannot be made.
    pub fn new(folder: &Folder, goal: Goal) -> Result<Pump> {
        let reader = Reader::open(&folder.dir, &folder.settings.spill)
            .map_err(Error::io("read", &folder.dir))?;
        let path = folder.journal();
        let journal = Journal::create(&path, folder.settings.spill_limit_bytes)
            .map_err(Error::io("create", &path))?;
        let states = States::new(std::process::id());
        let to = match goal {
            Goal::Trace(writer) => To::Trace(writer),
            Goal::Window(plan) => {
                let spill = &folder.settings.spill;
                let flight = Flight::create(plan, spill, now().monotonic_ns, &states)?;
                To::Window(Box::new(flight))
            }
        };
        Ok(Pump {
            reader,
            seen: HashSet::new(),
            rows: Rows {
                drain: Drain::default(),
                states,
                journal: Some(journal),
                unsafe_since: None,
                numbered: 0,
                to: Some(to),
                edge_ns: i64::MIN,
                refused: None,
                out: Vec::new(),
                count: Count::default(),
            },
        })
    }

    /// What has been done so far.
    pub fn count(&self) -> Count {
        let covered = self.rows.drain.processes();
        Count {
            covered: covered
                .iter()
                .filter(|(_, process)| process.covered)
                .count() as u64,
            ..self.rows.count
        }
    }

    /// Whether the trace can no longer be written, and everything stays in the journal.
    pub fn is_refused(&self) -> bool {
        self.rows.refused.is_some()
    }

    /// Looks at the threads of all processes.
    pub fn look(&mut self) {
        let rows = &mut self.rows;
        rows.states.look(now(), &mut rows.drain, &mut rows.out);
        rows.journal_rows();
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
        match &mut rows.to {
            Some(To::Window(flight)) => {
                flight.dump(why, now().monotonic_ns, &rows.drain, &rows.states)
            }
            _ => Ok(None),
        }
    }

    /// Takes what was recorded since the last turn, in bytes.
    ///
    /// # Errors
    /// The run's directory is gone.
    pub fn turn(&mut self) -> io::Result<u64> {
        for key in self.dead() {
            self.reader.ended(key.pid, key.start_ticks);
        }
        self.poll()
    }

    /// Processes with a probe that still run.
    pub fn living(&mut self) -> Vec<Watch> {
        self.reader
            .processes()
            .filter(|&(pid, start)| lives(pid, start))
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

    /// Ends the trace. `status`: pid and exit status of the program.
    ///
    /// # Errors
    /// Why the trace could not be written; the records are still in the journal.
    pub fn finish(mut self, folder: &Folder, status: (u32, i32)) -> Result<Count> {
        let uncovered: BTreeMap<u32, String> = folder.uncovered().into_iter().collect();
        self.rows.finish(Some(status), &uncovered)?;
        Ok(self.count())
    }

    fn poll(&mut self) -> io::Result<u64> {
        let rows = &mut self.rows;
        let poll = self
            .reader
            .poll(&mut |chain, bytes| rows.take(chain, bytes))?;
        rows.count.bytes += poll.bytes;
        rows.count.lost += poll.lost;
        rows.count.damaged = rows.count.damaged.max(poll.damaged);
        if rows.flush() {
            self.reader.release();
            rows.released();
            let due =
                |to: &To| matches!(to, To::Window(flight) if flight.is_due(now().monotonic_ns));
            if rows.to.as_ref().is_some_and(due) {
                rows.end_chunk();
            }
        }
        Ok(poll.bytes)
    }

    /// Processes that ended since they were last seen alive.
    fn dead(&mut self) -> Vec<ProcessKey> {
        let mut dead = Vec::new();
        for (pid, start_ticks) in self.reader.processes() {
            let key = ProcessKey { pid, start_ticks };
            if lives(pid, start_ticks) {
                self.seen.insert(key);
            } else if self.seen.remove(&key) {
                dead.push(key); // one that was never seen may be in a pid namespace of its own
            }
        }
        dead
    }
}

impl Rows {
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

    fn journaled(&mut self, wrote: io::Result<()>) {
        if let Err(error) = wrote {
            self.journal = None;
            self.unsafe_since = Some(error);
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
                let chain = Chain {
                    pid: known.key.pid,
                    start_ticks: known.key.start_ticks,
                    chain: number as u64,
                    tid: known.tid,
                    lost: 0,
                    closed: false,
                };
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

    fn released(&mut self) {
        if let Some(journal) = &mut self.journal {
            let wrote = journal.released();
            self.journaled(wrote);
        }
    }

    fn finish(
        &mut self,
        status: Option<(u32, i32)>,
        uncovered: &BTreeMap<u32, String>,
    ) -> Result<()> {
        self.end_chunk();
        if let Some(To::Trace(_)) = self.to {
            let out = &mut self.out;
            self.drain.finish(out);
            self.states.finish(status, uncovered, &mut self.drain, out);
            out.push(flight::recorder(sys::cpu_ns(), &mut self.drain));
            self.write();
        }
        match (self.to.take(), self.refused.take()) {
            (Some(To::Trace(writer)), _) => writer.finish(),
            (Some(To::Window(flight)), _) => {
                let ended = Ended { status, uncovered };
                self.count.rows = flight.finish(&mut self.drain, &self.states, &ended)?;
                Ok(())
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(()),
        }
    }
}

/// Whether the process that had this spool still runs. An exec keeps pid and start time, and the probe counts the
/// start time up for it; a process that has ended and waits for its parent does not run.
fn lives(pid: u32, start_ticks: u64) -> bool {
    /// Most programs one process becomes in turn, for all we believe.
    const MOST_EXECS: u64 = 64;
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|line| !line.contains(") Z ") && !line.contains(") X "))
        && states::start_ticks(pid)
            .is_some_and(|real| (real..real + MOST_EXECS).contains(&start_ticks))
}

fn now() -> Now {
    let clocks = sys::clocks();
    Now {
        monotonic_ns: clocks.monotonic_ns,
        realtime_ns: clocks.realtime_ns,
        boottime_ns: clocks.boottime_ns,
    }
}

/// Makes a trace of what a run left behind: its journal, then what is still in its segments.
///
/// # Errors
/// What cannot be read or written.
pub fn recover(folder: &Folder, writer: Writer) -> Result<Count> {
    use super::journal::{Frame, Replay, Tail};

    let path = folder.journal();
    let replay = match Replay::open(&path) {
        Ok(replay) => Some(replay),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("read", &path)(error)),
    };
    let mut rows = Rows {
        drain: Drain::default(),
        states: States::new(0),
        journal: None,
        unsafe_since: None,
        numbered: 0,
        to: Some(To::Trace(Box::new(writer))),
        edge_ns: i64::MIN,
        refused: None,
        out: Vec::new(),
        count: Count::default(),
    };
    let mut tail = Tail::default();
    for frame in replay.into_iter().flatten() {
        tail.see(&frame);
        match frame {
            Frame::Records {
                key,
                chain,
                tid,
                lost,
                bytes,
            } => {
                rows.count.bytes += bytes.len() as u64;
                rows.count.lost += lost;
                let (pid, start_ticks) = (key.pid, key.start_ticks);
                let chain = Chain {
                    pid,
                    start_ticks,
                    chain,
                    tid,
                    lost,
                    closed: false,
                };
                rows.take(&chain, &bytes);
            }
            Frame::Rows(text) => {
                let (events, names) = text::parse(&text)?;
                let Some(To::Trace(writer)) = &mut rows.to else {
                    break;
                };
                events
                    .iter()
                    .try_for_each(|event| writer.push(event, &names))?;
                rows.count.rows += events.len() as u64;
            }
            Frame::Process(key) => {
                rows.drain.process(key);
            }
            Frame::Released => {}
            Frame::Chunk(chunks) => {
                let Some(To::Trace(writer)) = &mut rows.to else {
                    break;
                };
                let spill = &folder.settings.spill;
                if let Some((edge_ns, written)) = window::recover(spill, chunks, writer)? {
                    rows.count.rows += written;
                    rows.edge_ns = edge_ns;
                }
            }
        }
    }
    let mut reader = Reader::open(&folder.dir, &folder.settings.spill)
        .map_err(Error::io("read", &folder.dir))?;
    // nothing is known of segments before the first poll; the second takes what a chain still waited for
    for _ in 0..2 {
        let poll = reader.poll(&mut |chain, bytes| {
            let key = ProcessKey {
                pid: chain.pid,
                start_ticks: chain.start_ticks,
            };
            let rest = tail.rest(key, chain.chain, bytes);
            rows.take(chain, rest);
        });
        let poll = poll.map_err(Error::io("read", &folder.dir))?;
        rows.count.bytes += poll.bytes;
        rows.count.lost += poll.lost;
        rows.count.damaged = poll.damaged;
        let all: Vec<_> = reader.processes().collect();
        for (pid, start) in all {
            reader.ended(pid, start);
        }
    }
    rows.finish(None, &folder.uncovered().into_iter().collect())?;
    let mut count = rows.count;
    let processes = rows.drain.processes();
    count.covered = processes
        .iter()
        .filter(|(_, process)| process.covered)
        .count() as u64;
    Ok(count)
}

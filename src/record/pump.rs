//! The recorder at work: records from the segments into the journal and, as rows, into the trace.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;

use inferscope_spool::sys::{self, Watch};
use inferscope_spool::{Chain, Reader};

use super::drain::{Drain, ProcessKey};
use super::folder::Folder;
use super::journal::Journal;
use super::sampling::Source;
use super::states::{self, Now, States};
use crate::error::{Error, Result};
use crate::trace::{Event, Kind, Writer, text};

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
    samples: Option<Source>,
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
    writer: Option<Writer>,
    /// Why the trace cannot be written.
    refused: Option<Error>,
    out: Vec<Event>,
    count: Count,
}

impl Pump {
    /// Follows the run in `folder`, whose processes `states` finds.
    ///
    /// # Errors
    /// A directory that cannot be read, a journal that cannot be made.
    pub fn new(folder: &Folder, writer: Writer, states: States) -> Result<Pump> {
        let reader = Reader::open(&folder.dir, &folder.settings.spill)
            .map_err(Error::io("read", &folder.dir))?;
        let path = folder.journal();
        let journal = Journal::create(&path, folder.settings.spill_limit_bytes)
            .map_err(Error::io("create", &path))?;
        Ok(Pump {
            reader,
            seen: HashSet::new(),
            samples: None,
            rows: Rows {
                drain: Drain::default(),
                states,
                journal: Some(journal),
                unsafe_since: None,
                numbered: 0,
                writer: Some(writer),
                refused: None,
                out: Vec::new(),
                count: Count::default(),
            },
        })
    }

    /// Takes sampled stacks too.
    pub fn sample(&mut self, source: Source) {
        self.samples = Some(source);
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
        if let Some(samples) = &self.samples {
            samples.take(&mut rows.drain, &mut rows.out);
        }
        rows.journal_rows();
        rows.write();
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
        if let Some(samples) = self.samples.take() {
            samples.end(&mut self.rows.drain, &mut self.rows.out);
            self.rows.journal_rows();
            self.rows.write();
        }
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
        if self.writer.is_none() {
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
        let mut wrote = Ok(());
        if let Some(writer) = &mut self.writer {
            wrote = (self.out.iter()).try_for_each(|event| writer.push(event, &self.drain.names));
        }
        self.count.rows += self.out.len() as u64;
        self.out.clear();
        if let Err(error) = wrote {
            self.writer = None;
            self.refused = Some(error);
        }
    }

    /// Whether what was taken is safe.
    fn flush(&mut self) -> bool {
        if let Some(journal) = &mut self.journal {
            let wrote = journal.flush();
            self.journaled(wrote);
        }
        self.journal.is_some() || self.writer.is_some()
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
        if self.writer.is_some() {
            let out = &mut self.out;
            self.drain.finish(out);
            self.states.finish(status, uncovered, &mut self.drain, out);
            let own = self.drain.names.sym("recorder.cpu_ns");
            let pid = std::process::id();
            let at = now().monotonic_ns;
            let mut row = Event::new(Kind::Counter, own, at, 0, pid, u64::from(pid));
            row.value = Some(sys::cpu_ns() as f64);
            out.push(row);
            self.write();
        }
        match (self.writer.take(), self.refused.take()) {
            (Some(writer), _) => writer.finish(),
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
        writer: Some(writer),
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
                rows.drain.sampled(&events);
                let Some(writer) = &mut rows.writer else {
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

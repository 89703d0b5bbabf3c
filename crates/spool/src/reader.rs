//! The consumer's side: follows the segments of every process of a run.
//!
//! The files are input: torn, of another version or made to mislead, they cost rows, never the recorder.

use crate::guard::Guard;
use crate::layout::{ACTIVE, CLOSED, FREE, Ordering};
use crate::map::Map;
use crate::record::SLOT;
use crate::sys;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Whose records these are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    pub pid: u32,
    /// Start time of the process, as in `/proc/PID/stat`: tells processes with one pid apart.
    pub start_ticks: u64,
    /// Unique in the process, from 1; 0 = the process itself, for losses of nobody in particular; from the top
    /// downwards, threads that lost records before they had a segment.
    pub chain: u64,
    /// The thread; 0 for the names of the process.
    pub tid: u64,
    /// Which segment of the chain these bytes are from, and where they begin in it.
    pub index: u64,
    pub at: u64,
    /// Records lost in that segment before.
    pub lost_at: u64,
    /// Records lost right after these bytes.
    pub lost: u64,
    /// Nothing more comes on this chain.
    pub closed: bool,
}

/// What a poll found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    /// Bytes of records visited.
    pub bytes: u64,
    /// Records lost.
    pub lost: u64,
    /// Processes with a spool here.
    pub processes: usize,
    /// Files that are not segments, or not whole.
    pub damaged: u64,
}

/// Follows all processes of a run.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    spill: PathBuf,
    processes: BTreeMap<(u32, u64), Process>,
    buffer: Vec<u8>,
}

/// Polls for which a chain waits for a segment that is missing, before it goes on without it.
const PATIENCE: u32 = 3;
/// Most segment files of one process that are looked at.
const MOST_FILES: usize = 1 << 16;
/// Chains whose place is remembered while they have no segment: a thread has one but for a moment.
const MOST_CHAINS: usize = 1 << 16;

#[derive(Debug, Default)]
struct Process {
    dirs: [PathBuf; 2],
    control: Option<Map>,
    /// Files made when the directories were last listed.
    made: u64,
    lost: u64,
    /// Losses visited, by the places of the process's own file.
    places: Vec<u64>,
    files: BTreeMap<(bool, u64), File>,
    chains: BTreeMap<u64, Next>,
    damaged: u64,
    end: End,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum End {
    #[default]
    Runs,
    /// The caller says that it ended: the next poll reads the rest.
    Ended,
    /// That poll was made.
    Read,
}

/// Where a chain goes on.
#[derive(Debug, Default, Clone, Copy)]
struct Next {
    index: u64,
    waited: u32,
}

#[derive(Debug)]
struct File {
    map: Map,
    /// The use being read; 0 = none.
    take: u64,
    /// The use read to its end.
    done: u64,
    chain: u64,
    tid: u64,
    index: u64,
    /// Visited so far.
    at: u64,
    lost: u64,
    /// What this poll may visit.
    to: u64,
    lost_to: u64,
    /// The producer is done with it, and everything was visited.
    over: bool,
    closed: bool,
    fresh: bool,
}

impl Reader {
    /// Follows the run in `dir`, with its spill files in `spill`; they need not exist yet.
    ///
    /// # Errors
    /// `dir` is not a directory that can be listed.
    pub fn open(dir: &Path, spill: &Path) -> io::Result<Reader> {
        fs::read_dir(dir)?;
        Ok(Reader {
            dir: dir.to_owned(),
            spill: spill.to_owned(),
            processes: BTreeMap::new(),
            buffer: Vec::new(),
        })
    }

    /// Visits what was published since the last poll: of each process its names first, then each thread's records
    /// in their order. The names are at least as new as the records that need them.
    ///
    /// # Errors
    /// The run's directory cannot be listed.
    pub fn poll(&mut self, visit: &mut dyn FnMut(&Chain, &[u8])) -> io::Result<Poll> {
        let _guard = Guard::new();
        self.find()?;
        let mut poll = Poll {
            processes: self.processes.len(),
            ..Poll::default()
        };
        for (&(pid, start_ticks), process) in &mut self.processes {
            process.poll((pid, start_ticks), &mut self.buffer, &mut |chain, bytes| {
                poll.bytes += bytes.len() as u64;
                poll.lost = poll.lost.saturating_add(chain.lost);
                visit(chain, bytes);
            });
            poll.damaged += process.damaged;
        }
        Ok(poll)
    }

    /// The rows of everything visited are safe: the producers may have the segments again.
    pub fn release(&mut self) {
        let _guard = Guard::new();
        for process in self.processes.values_mut() {
            process.release();
        }
        self.processes.retain(|_, process| {
            let over = process.end == End::Read;
            if over {
                for dir in &process.dirs {
                    let _ = fs::remove_dir_all(dir); // what stays is removed with the run
                }
            }
            !over
        });
    }

    /// The process has ended: after the next poll and release its files are removed.
    pub fn ended(&mut self, pid: u32, start_ticks: u64) {
        let _ = self.find(); // it may have come and gone since the last poll; the next one says what is wrong
        if let Some(process) = self.processes.get_mut(&(pid, start_ticks))
            && process.end == End::Runs
        {
            process.end = End::Ended;
        }
    }

    /// Looks which processes have files here: pid and start time.
    ///
    /// # Errors
    /// The run's directory cannot be listed.
    pub fn list(&mut self) -> io::Result<Vec<(u32, u64)>> {
        self.find()?;
        Ok(self.processes().collect())
    }

    /// The processes that had files here at the last poll: pid and start time.
    pub fn processes(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.processes.keys().copied()
    }

    /// Whether the process counts pids as we do, so that its own can be asked after. Known once it was polled.
    pub fn is_neighbour(&self, pid: u32, start_ticks: u64) -> bool {
        let _guard = Guard::new();
        let process = self.processes.get(&(pid, start_ticks));
        let control = process.and_then(|process| process.control.as_ref());
        control.is_some_and(|control| {
            let theirs = control.head().fixed.pid_namespace.load(Ordering::Relaxed);
            theirs != 0 && theirs == sys::pid_namespace()
        })
    }

    /// Looks for new processes.
    fn find(&mut self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)?.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue; // a link may lead anywhere
            }
            let name = entry.file_name();
            let Some((pid, start)) = name.to_str().and_then(|name| name.split_once('-')) else {
                continue;
            };
            let (Ok(pid), Ok(start)) = (pid.parse(), start.parse()) else {
                continue;
            };
            self.processes
                .entry((pid, start))
                .or_insert_with(|| Process {
                    dirs: [self.dir.join(&name), self.spill.join(&name)],
                    made: u64::MAX,
                    ..Process::default()
                });
        }
        Ok(())
    }
}

type Visit<'a> = dyn FnMut(&Chain, &[u8]) + 'a;

impl Process {
    fn poll(&mut self, (pid, start): (u32, u64), buffer: &mut Vec<u8>, visit: &mut Visit) {
        let last = self.end != End::Runs;
        self.list(pid, start, last);
        self.owners();
        if self.gap() {
            self.list(pid, start, true);
            self.owners();
        }
        // every owner was seen before any `written`: if a chain's next segment was seen, the ones before it are whole
        self.snapshot(false);
        // names come later than the records seen, and so hold every name these use, in a new file too
        self.list(pid, start, last);
        self.owners();
        self.snapshot(true);
        let lost = self
            .control
            .as_ref()
            .map_or(0, |c| c.head().producer.lost.load(Ordering::Relaxed));
        let mut order: Vec<(bool, u64, u64, (bool, u64))> = self
            .files
            .iter()
            .filter(|(_, file)| file.take != 0 && file.fresh)
            .map(|(&key, file)| (file.tid != 0, file.chain, file.index, key))
            .collect();
        order.sort_unstable();
        let mut waiting = None;
        for (_, chain, index, key) in order {
            let next = self.chains.entry(chain).or_default();
            if waiting == Some(chain) {
                continue;
            }
            if index > next.index && !last && next.waited < PATIENCE {
                next.waited += 1;
                waiting = Some(chain);
                continue;
            }
            let Some(file) = self.files.get_mut(&key) else {
                continue;
            };
            next.waited = 0;
            next.index = next.index.max(index);
            if file.over {
                next.index = next.index.max(index.saturating_add(1));
            }
            file.fresh = false;
            let chain = Chain {
                pid,
                start_ticks: start,
                chain: file.chain,
                tid: file.tid,
                index,
                at: file.at,
                lost_at: file.lost,
                lost: file.lost_to.saturating_sub(file.lost),
                closed: file.closed,
            };
            if file.to > file.at || chain.lost > 0 || file.closed {
                file.map.copy(file.at, file.to, buffer);
                file.at = file.to;
                file.lost = file.lost.max(file.lost_to);
                visit(&chain, buffer);
            }
        }
        let of_nobody = Chain {
            pid,
            start_ticks: start,
            tid: pid.into(),
            ..Chain::default()
        };
        if lost > self.lost {
            let chain = Chain {
                lost_at: self.lost,
                lost: lost - self.lost,
                ..of_nobody
            };
            visit(&chain, &[]);
            self.lost = lost;
        }
        let places = self.control.as_ref().map_or(&[][..], |c| c.places());
        for (at, (place, seen)) in places.iter().zip(&mut self.places).enumerate() {
            let lost = place.lost.load(Ordering::Acquire);
            if lost > *seen {
                let chain = Chain {
                    chain: u64::MAX - at as u64, // none of the process's own
                    tid: place.tid.load(Ordering::Relaxed),
                    lost_at: *seen,
                    lost: lost - *seen,
                    ..of_nobody
                };
                visit(&chain, &[]);
                *seen = lost;
            }
        }
        if self.end == End::Ended {
            self.end = End::Read;
        }
    }

    /// Lists the directories if a file was made since they were.
    fn list(&mut self, pid: u32, start: u64, force: bool) {
        if self.control.is_none() {
            let mut places = self.dirs.iter().map(|dir| dir.join("process"));
            self.control = places.find_map(|path| Map::open(&path, pid, start).ok());
            if let Some(control) = &self.control {
                self.lost = control.head().consumer.lost_read.load(Ordering::Relaxed);
                let places = control.places().iter();
                self.places = places
                    .map(|place| place.lost_read.load(Ordering::Relaxed))
                    .collect();
            }
        }
        let made = self
            .control
            .as_ref()
            .map_or(u64::MAX, |control| control.head().seen().written);
        if made == self.made && made != u64::MAX && !force {
            return;
        }
        self.made = made;
        self.damaged = 0;
        for (spill, dir) in [(false, &self.dirs[0]), (true, &self.dirs[1])] {
            let is_dir = fs::symlink_metadata(dir).is_ok_and(|facts| facts.is_dir());
            let Some(entries) = is_dir.then(|| fs::read_dir(dir).ok()).flatten() else {
                continue; // no spill yet
            };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
                let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) else {
                    continue;
                };
                if self.files.contains_key(&(spill, number)) || self.files.len() >= MOST_FILES {
                    continue;
                }
                match Map::open(&entry.path(), pid, start) {
                    Ok(map) => {
                        self.files.insert((spill, number), File::new(map));
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(_) => self.damaged += 1,
                }
            }
        }
    }

    /// Reads who owns each segment now.
    fn owners(&mut self) {
        for file in self.files.values_mut() {
            let head = file.map.head();
            let (take, state) = head.state();
            if state == FREE || take == 0 || take == file.done || take == file.take {
                continue;
            }
            let owner = &head.owner;
            file.chain = owner.chain.load(Ordering::Relaxed);
            file.tid = owner.tid.load(Ordering::Relaxed);
            file.index = owner.index.load(Ordering::Relaxed);
            // another reader may have stopped in the middle of this use; it cannot have got past its end
            let consumer = &head.consumer;
            if file.take == 0 && file.done == 0 {
                if consumer.released.load(Ordering::Relaxed) == take {
                    file.done = take;
                    let next = self.chains.entry(file.chain).or_default();
                    next.index = next.index.max(file.index.saturating_add(1));
                    continue;
                }
                file.at = consumer.read.load(Ordering::Relaxed) / SLOT as u64 * SLOT as u64;
                file.lost = consumer.lost_read.load(Ordering::Relaxed);
            } else {
                (file.at, file.lost) = (0, 0);
            }
            file.take = take;
            (file.over, file.closed) = (false, false);
        }
    }

    /// Whether a chain seen has a place before it that was not.
    fn gap(&self) -> bool {
        self.files.values().any(|file| {
            let next = self.chains.get(&file.chain);
            file.take != 0
                && next.is_some_and(|next| file.index > next.index)
                && !self.files.values().any(|other| {
                    let before = other.index.checked_add(1) == Some(file.index);
                    before && other.take != 0 && other.chain == file.chain
                })
        })
    }

    /// Reads how far each segment of a thread (or of the names) may be visited.
    fn snapshot(&mut self, names: bool) {
        for file in self.files.values_mut() {
            if file.take == 0 || (file.tid == 0) != names {
                continue;
            }
            let (take, state) = file.map.head().state();
            let seen = file.map.head().seen();
            let to = seen.written.min(file.map.capacity() as u64) / SLOT as u64 * SLOT as u64;
            file.to = to.max(file.at);
            file.lost_to = seen.lost;
            file.over = take != file.take || state != ACTIVE;
            file.closed = state == CLOSED;
            file.fresh = true;
        }
    }

    fn release(&mut self) {
        for file in self.files.values_mut() {
            if file.take == 0 || file.fresh {
                continue;
            }
            let over = file.over;
            let head = file.map.head();
            head.release(file.at, file.lost, over.then_some(file.take));
            if over {
                file.done = file.take;
                file.take = 0;
                if file.closed {
                    self.chains.remove(&file.chain);
                }
            }
        }
        if self.chains.len() > MOST_CHAINS {
            // made up: no process has so many threads
            let here: BTreeSet<u64> = self.files.values().map(|file| file.chain).collect();
            self.chains.retain(|chain, _| here.contains(chain));
        }
        if let Some(control) = &self.control {
            let read = &control.head().consumer.lost_read;
            read.store(self.lost, Ordering::Relaxed);
            for (place, seen) in control.places().iter().zip(&self.places) {
                place.lost_read.store(*seen, Ordering::Relaxed);
            }
        }
        // a drained spill file that its process removed
        self.files.retain(|&(spill, _), file| {
            !(spill && file.take == 0 && {
                let (take, state) = file.map.head().state();
                take == file.done && state == CLOSED && file.map.head().seen().written == 0
            })
        });
    }
}

impl File {
    fn new(map: Map) -> File {
        File {
            map,
            take: 0,
            done: 0,
            chain: 0,
            tid: 0,
            index: 0,
            at: 0,
            lost: 0,
            to: 0,
            lost_to: 0,
            over: false,
            closed: false,
            fresh: false,
        }
    }
}

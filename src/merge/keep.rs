//! Rows in the order in which they came: in memory as long as they fit, then in temporary files.
//!
//! Rows of one clock can be sorted before it is known where that clock stands, since no clock's place ever makes a later row
//! an earlier one. So what no longer fits is written as sorted runs at once: one of an imported file, which has one clock,
//! and of a recording one for each process and clock that has a good part of the rows. The others are written as
//! they came.

use std::collections::HashMap;
use std::fs::File;
use std::mem::size_of;
use std::thread::JoinHandle;

use crate::clock::{self, Origin};
use crate::error::{Error, Result};
use crate::trace::{Event, Names};

use super::scratch::{self, Blocks, Scratch};
use super::sort::sorted;

/// Bytes that a row takes in memory, with its place in a sorted index.
pub(super) const ROW_BYTES: u64 = size_of::<Event>() as u64 + 24;

/// Rows that are always kept together, however little memory there is.
const FEWEST: usize = 256;

/// A clock of a process has a run of its own in each part of which it has one row in so many: each run is an open file.
const SHARE: usize = 8;

/// Rows that are looked at for that.
const LOOKS: usize = 1 << 12;

/// Rows and their names, up to a number of bytes.
#[derive(Debug)]
pub(super) struct Chunk {
    pub names: Names,
    pub events: Vec<Event>,
    limit: u64,
}

impl Chunk {
    /// `limit`: bytes that it may hold.
    pub fn new(limit: u64) -> Chunk {
        Chunk {
            names: Names::default(),
            events: Vec::new(),
            limit,
        }
    }

    pub fn is_full(&self) -> bool {
        self.events.len() >= FEWEST && self.bytes() >= self.limit
    }

    /// Bytes that its rows and names take.
    pub fn bytes(&self) -> u64 {
        self.events.len() as u64 * ROW_BYTES + self.names.bytes() as u64
    }

    fn clear(&mut self) {
        self.events.clear();
        self.names = Names::default();
    }

    /// What it holds; it is empty then.
    pub fn taken(&mut self) -> Chunk {
        let empty = Chunk::new(self.limit);
        std::mem::replace(self, empty)
    }
}

/// See the module. The rows of an input are numbered, in the column `parent`, which they do not have yet, by whoever reads them.
#[derive(Debug)]
pub(super) struct Keep {
    origin: Origin,
    chunk: Chunk,
    written: Written,
    /// Sorts and writes what was kept before, while more is read.
    sorting: Option<JoinHandle<Result<(Written, Chunk)>>>,
    /// What it left empty: the system need not clear new pages.
    spare: Option<Chunk>,
}

/// What is in temporary files.
#[derive(Debug, Default)]
struct Written {
    /// Rows as they came.
    rest: Option<Scratch>,
    /// Sorted runs.
    runs: Vec<File>,
}

/// What was kept of an input.
#[derive(Debug)]
pub(super) struct Kept {
    /// Rows in the order in which they came.
    pub rows: Vec<Blocks>,
    /// Sorted runs, each of one clock.
    pub runs: Vec<File>,
    /// The rest, which is all of it if it always fitted.
    pub chunk: Chunk,
}

impl Keep {
    /// `memory`: bytes to use. A vector that grows takes twice its content, and one part is kept while another is written.
    pub fn new(origin: Origin, memory: u64) -> Keep {
        Keep {
            origin,
            chunk: Chunk::new(memory / 3),
            written: Written::default(),
            sorting: None,
            spare: None,
        }
    }

    /// Where the next rows are to be appended.
    pub fn room(&mut self) -> Result<(&mut Names, &mut Vec<Event>)> {
        if self.chunk.is_full() {
            self.spill()?;
        }
        Ok((&mut self.chunk.names, &mut self.chunk.events))
    }

    /// Writes what is in memory, on a thread of its own.
    fn spill(&mut self) -> Result<()> {
        self.sorted()?;
        let empty = self.spare.take();
        let empty = empty.unwrap_or_else(|| Chunk::new(self.chunk.limit));
        let mut chunk = std::mem::replace(&mut self.chunk, empty);
        let mut written = std::mem::take(&mut self.written);
        let origin = self.origin;
        let thread = std::thread::Builder::new().name("isc-sort".into());
        let thread = thread.spawn(move || {
            written.add(&chunk, origin)?;
            chunk.clear();
            Ok((written, chunk))
        });
        self.sorting = Some(thread.map_err(Error::io("start a thread in", &scratch::path()))?);
        Ok(())
    }

    /// Waits until what was kept before is written.
    fn sorted(&mut self) -> Result<()> {
        let Some(thread) = self.sorting.take() else {
            return Ok(());
        };
        match thread.join() {
            Ok(done) => {
                let (written, spare) = done?;
                self.written = written;
                self.spare = Some(spare);
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(())
    }

    /// What was kept, in memory if it always fitted.
    pub fn finish(mut self) -> Result<Kept> {
        self.sorted()?;
        let mut kept = Kept {
            rows: Vec::new(),
            runs: Vec::new(),
            chunk: self.chunk,
        };
        kept.take(self.written)?;
        Ok(kept)
    }
}

impl Kept {
    fn take(&mut self, written: Written) -> Result<()> {
        self.runs.extend(written.runs);
        if let Some(rest) = written.rest {
            self.rows.push(Blocks::open(rest.finish()?)?);
        }
        Ok(())
    }

    /// Writes what is in memory, to make room for another input.
    pub fn spill(&mut self, origin: Origin) -> Result<()> {
        if self.chunk.events.is_empty() {
            return Ok(());
        }
        let chunk = self.chunk.taken();
        let mut written = Written::default();
        written.add(&chunk, origin)?;
        self.take(written)
    }
}

impl Written {
    /// Rows of an input, each with its number.
    fn add(&mut self, chunk: &Chunk, origin: Origin) -> Result<()> {
        let clock = |event: &Event| match origin {
            Origin::Import => (0, true),
            _ => (event.process, clock::in_probe_clock(event.kind, origin)),
        };
        // Some rows tell the share of each clock: all of them are more than a processor's caches hold.
        let step = (chunk.events.len() / LOOKS).max(1);
        let mut counts: HashMap<(u32, bool), usize> = HashMap::new();
        for event in chunk.events.iter().step_by(step) {
            *counts.entry(clock(event)).or_default() += 1;
        }
        let looks = chunk.events.len().div_ceil(step);
        let mut runs = Vec::new();
        for (clock, count) in counts {
            if count * SHARE >= looks {
                runs.push((clock, Scratch::create()?));
            }
        }
        let mut last = 0;
        for at in sorted(&chunk.events) {
            let event = &chunk.events[at as usize];
            let clock = clock(event);
            if runs.get(last).is_none_or(|run| run.0 != clock) {
                let found = runs.iter().position(|run| run.0 == clock);
                last = found.unwrap_or(runs.len());
            }
            let to = match runs.get_mut(last) {
                Some((_, run)) => run,
                None => match &mut self.rest {
                    Some(rest) => rest,
                    none => none.insert(Scratch::create()?),
                },
            };
            to.push(event, &chunk.names)?;
        }
        for (_, run) in runs {
            self.runs.push(run.finish()?);
        }
        Ok(())
    }
}

/// Rows at their places as a sorted run.
pub(super) fn run(chunk: &Chunk) -> Result<File> {
    let mut scratch = Scratch::create()?;
    for at in sorted(&chunk.events) {
        scratch.push(&chunk.events[at as usize], &chunk.names)?;
    }
    scratch.finish()
}

//! Rows in the order in which they came: in memory as long as they fit, then in temporary files.
//!
//! An imported file has one clock, so its rows can be sorted before it is known where that clock stands: what no longer
//! fits of them is written as sorted runs at once. A recording has several clocks: its rows are written as they came.

use std::fs::File;
use std::mem::{size_of, take};
use std::path::PathBuf;
use std::thread::JoinHandle;

use crate::clock::Origin;
use crate::error::{Error, Result};
use crate::trace::provenance::{Provenance, Step};
use crate::trace::{Event, Names, Reader, Writer};

use super::sort::{BATCH_ROWS, sorted};

/// Bytes that a row takes in memory, with its place in a sorted index.
pub(super) const ROW_BYTES: u64 = size_of::<Event>() as u64 + 24;

/// Rows that are always kept together, however little memory there is.
const FEWEST: usize = 256;

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
        let bytes = self.events.len() as u64 * ROW_BYTES + self.names.bytes() as u64;
        self.events.len() >= FEWEST && bytes >= self.limit
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

/// See the module. Rows of all inputs are numbered, in the column `parent`, which they do not have yet.
#[derive(Debug)]
pub(super) struct Keep {
    chunk: Chunk,
    /// Rows of the chunk from which on another input begins.
    inputs: Vec<(usize, Origin)>,
    /// Rows that have a number.
    numbered: i64,
    file: Option<(Writer, File)>,
    runs: Vec<File>,
    /// Sorts and writes what was kept before, while more is read.
    sorting: Option<JoinHandle<Result<(Vec<File>, Chunk)>>>,
    /// What it left empty: the system need not clear new pages.
    spare: Option<Chunk>,
}

/// What was kept.
pub(super) enum Kept {
    /// All of it.
    Memory(Chunk),
    /// Rows in the order in which they came, if there are any, sorted runs, and a last run that is not sorted yet.
    Files(Option<Reader>, Vec<File>, Chunk),
}

impl Keep {
    /// `memory`: bytes that the whole command may use. A vector that grows takes twice its content, and one part is kept
    /// while another is written.
    pub fn new(memory: u64) -> Keep {
        Keep {
            chunk: Chunk::new(memory / 3),
            inputs: Vec::new(),
            numbered: 0,
            file: None,
            runs: Vec::new(),
            sorting: None,
            spare: None,
        }
    }

    /// A further input; its rows follow.
    pub fn input(&mut self, origin: Origin) {
        self.inputs.push((self.chunk.events.len(), origin));
    }

    /// Where the next rows are to be appended.
    pub fn room(&mut self) -> Result<(&mut Names, &mut Vec<Event>)> {
        if self.chunk.is_full() {
            self.spill()?;
        }
        Ok((&mut self.chunk.names, &mut self.chunk.events))
    }

    fn number(&mut self) {
        for event in &mut self.chunk.events {
            event.parent = Some(self.numbered);
            self.numbered += 1;
        }
    }

    /// Whether all that is in memory is of other profilers' files.
    fn is_imported(&self) -> bool {
        let mut ends = self.inputs.iter().skip(1).map(|&(from, _)| from);
        self.inputs.iter().all(|&(from, origin)| {
            let to = ends.next().unwrap_or(self.chunk.events.len());
            origin == Origin::Import || from == to
        })
    }

    /// Writes what is in memory.
    fn spill(&mut self) -> Result<()> {
        self.number();
        let last = self.inputs.last().map_or(Origin::Record, |input| input.1);
        let imported = self.is_imported();
        let inputs = std::mem::replace(&mut self.inputs, vec![(0, last)]);
        self.sorted()?;
        let empty = self.spare.take();
        let empty = empty.unwrap_or_else(|| Chunk::new(self.chunk.limit));
        let mut chunk = std::mem::replace(&mut self.chunk, empty);
        if imported {
            let thread = std::thread::Builder::new().name("isc-sort".into());
            let thread = thread.spawn(move || {
                let parts = parts(&inputs, &chunk.events);
                let runs: Result<_> = parts.map(|(_, rows)| run(rows, &chunk.names)).collect();
                chunk.clear();
                Ok((runs?, chunk))
            });
            self.sorting = Some(thread.map_err(Error::io("start a thread in", &scratch_path()))?);
            return Ok(());
        }
        for (origin, rows) in parts(&inputs, &chunk.events) {
            if origin == Origin::Import {
                self.runs.push(run(rows, &chunk.names)?);
                continue;
            }
            let (writer, _) = match &mut self.file {
                Some(file) => file,
                none => none.insert(scratch()?),
            };
            rows.iter()
                .try_for_each(|row| writer.push(row, &chunk.names))?;
        }
        Ok(())
    }

    /// Waits until what was kept before is written.
    fn sorted(&mut self) -> Result<()> {
        let Some(thread) = self.sorting.take() else {
            return Ok(());
        };
        match thread.join() {
            Ok(done) => {
                let (runs, spare) = done?;
                self.runs.extend(runs);
                self.spare = Some(spare);
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(())
    }

    /// What was kept, in memory if it always fitted.
    pub fn finish(mut self) -> Result<Kept> {
        self.sorted()?;
        if self.file.is_none() && self.runs.is_empty() {
            self.number();
            return Ok(Kept::Memory(self.chunk));
        }
        match self.file.is_none() && self.is_imported() {
            true => self.number(),
            false => self.spill()?,
        }
        self.sorted()?;
        self.spare = None;
        let reader = match take(&mut self.file) {
            Some((writer, file)) => {
                writer.finish()?;
                Some(Reader::from_file(file, &scratch_path())?)
            }
            None => None,
        };
        Ok(Kept::Files(reader, self.runs, self.chunk))
    }
}

/// The rows of each input that has any.
fn parts<'a>(
    inputs: &'a [(usize, Origin)],
    events: &'a [Event],
) -> impl Iterator<Item = (Origin, &'a [Event])> {
    let ends = inputs.iter().skip(1).map(|&(from, _)| from);
    let parts = inputs.iter().zip(ends.chain([events.len()]));
    let parts = parts.map(|(&(from, origin), to)| (origin, &events[from..to]));
    parts.filter(|(_, rows)| !rows.is_empty())
}

/// The rows of one clock as a sorted run.
fn run(rows: &[Event], names: &Names) -> Result<File> {
    let (writer, file) = scratch()?;
    let mut writer = writer.with_batch_rows(BATCH_ROWS);
    for at in sorted(rows) {
        writer.push(&rows[at as usize], names)?;
    }
    writer.finish()?;
    Ok(file)
}

/// A new trace in a temporary file without a name.
pub(super) fn scratch() -> Result<(Writer, File)> {
    let path = scratch_path();
    let file = tempfile::tempfile().map_err(Error::io("create a temporary file in", &path))?;
    let again = file
        .try_clone()
        .map_err(Error::io("open a file in", &path))?;
    let provenance = Provenance::raw(Step::new("isc-merge", vec![], vec![]));
    Ok((Writer::to_file(file, &path, &provenance)?, again))
}

pub(super) fn scratch_path() -> PathBuf {
    std::env::temp_dir()
}

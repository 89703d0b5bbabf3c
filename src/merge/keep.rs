//! Rows in the order in which they came: in memory as long as they fit, then in temporary files.
//!
//! An imported file has one clock, so its rows can be sorted before it is known where that clock stands: what no longer
//! fits of them is written as sorted runs at once. A recording has several clocks: its rows are written as they came.

use std::fs::File;
use std::mem::{size_of, take};
use std::path::PathBuf;

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
    /// `memory`: bytes that the whole command may use; a vector that grows takes twice its content.
    pub fn new(memory: u64) -> Chunk {
        Chunk {
            names: Names::default(),
            events: Vec::new(),
            limit: memory / 2,
        }
    }

    pub fn is_full(&self) -> bool {
        let bytes = self.events.len() as u64 * ROW_BYTES + self.names.bytes() as u64;
        self.events.len() >= FEWEST && bytes >= self.limit
    }

    pub fn clear(&mut self) {
        self.events.clear();
        self.names = Names::default();
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
}

/// What was kept.
pub(super) enum Kept {
    /// All of it.
    Memory(Chunk),
    /// Rows in the order in which they came, if there are any, and sorted runs.
    Files(Option<Reader>, Vec<File>),
}

impl Keep {
    pub fn new(memory: u64) -> Keep {
        Keep {
            chunk: Chunk::new(memory),
            inputs: Vec::new(),
            numbered: 0,
            file: None,
            runs: Vec::new(),
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

    fn spill(&mut self) -> Result<()> {
        self.number();
        let Chunk { names, events, .. } = &self.chunk;
        let ends = self.inputs.iter().skip(1).map(|&(from, _)| from);
        let ends: Vec<usize> = ends.chain([events.len()]).collect();
        for (&(from, origin), to) in self.inputs.iter().zip(ends) {
            let rows = &events[from..to];
            if rows.is_empty() {
                continue;
            }
            if origin == Origin::Import {
                let (writer, file) = scratch()?;
                let mut writer = writer.with_batch_rows(BATCH_ROWS);
                for at in sorted(rows) {
                    writer.push(&rows[at as usize], names)?;
                }
                writer.finish()?;
                self.runs.push(file);
                continue;
            }
            let (writer, _) = match &mut self.file {
                Some(file) => file,
                none => none.insert(scratch()?),
            };
            rows.iter().try_for_each(|row| writer.push(row, names))?;
        }
        self.chunk.clear();
        let last = self.inputs.last().map_or(Origin::Record, |input| input.1);
        self.inputs = vec![(0, last)];
        Ok(())
    }

    /// What was kept, in memory if it always fitted.
    pub fn finish(mut self) -> Result<Kept> {
        if self.file.is_none() && self.runs.is_empty() {
            self.number();
            return Ok(Kept::Memory(self.chunk));
        }
        self.spill()?;
        let reader = match take(&mut self.file) {
            Some((writer, file)) => {
                writer.finish()?;
                Some(Reader::from_file(file, &scratch_path())?)
            }
            None => None,
        };
        Ok(Kept::Files(reader, self.runs))
    }
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

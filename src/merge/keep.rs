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

/// See the module. The rows of an input are numbered, in the column `parent`, which they do not have yet.
#[derive(Debug)]
pub(super) struct Keep {
    origin: Origin,
    chunk: Chunk,
    /// Rows that have a number.
    numbered: i64,
    file: Option<(Writer, File)>,
    runs: Vec<File>,
    /// Sorts and writes what was kept before, while more is read.
    sorting: Option<JoinHandle<Result<(File, Chunk)>>>,
    /// What it left empty: the system need not clear new pages.
    spare: Option<Chunk>,
}

/// What was kept of an input.
#[derive(Debug)]
pub(super) struct Kept {
    /// Rows in the order in which they came.
    pub rows: Vec<Reader>,
    /// Sorted runs.
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
            numbered: 0,
            file: None,
            runs: Vec::new(),
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

    fn number(&mut self) {
        for event in &mut self.chunk.events {
            event.parent = Some(self.numbered);
            self.numbered += 1;
        }
    }

    /// Writes what is in memory.
    fn spill(&mut self) -> Result<()> {
        self.number();
        if self.origin != Origin::Import {
            let (writer, _) = match &mut self.file {
                Some(file) => file,
                none => none.insert(scratch()?),
            };
            let Chunk { names, events, .. } = &self.chunk;
            events.iter().try_for_each(|row| writer.push(row, names))?;
            self.chunk.clear();
            return Ok(());
        }
        self.sorted()?;
        let empty = self.spare.take();
        let empty = empty.unwrap_or_else(|| Chunk::new(self.chunk.limit));
        let mut chunk = std::mem::replace(&mut self.chunk, empty);
        let thread = std::thread::Builder::new().name("isc-sort".into());
        let thread = thread.spawn(move || {
            let run = run(&chunk)?;
            chunk.clear();
            Ok((run, chunk))
        });
        self.sorting = Some(thread.map_err(Error::io("start a thread in", &scratch_path()))?);
        Ok(())
    }

    /// Waits until what was kept before is written.
    fn sorted(&mut self) -> Result<()> {
        let Some(thread) = self.sorting.take() else {
            return Ok(());
        };
        match thread.join() {
            Ok(done) => {
                let (run, spare) = done?;
                self.runs.push(run);
                self.spare = Some(spare);
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(())
    }

    /// What was kept, in memory if it always fitted.
    pub fn finish(mut self) -> Result<Kept> {
        self.sorted()?;
        if self.file.is_some() {
            self.spill()?; // the rest of a recording stands behind what was written of it
        }
        self.number();
        let mut rows = Vec::new();
        if let Some((writer, file)) = take(&mut self.file) {
            writer.finish()?;
            rows.push(Reader::from_file(file, &scratch_path())?);
        }
        Ok(Kept {
            rows,
            runs: self.runs,
            chunk: self.chunk,
        })
    }
}

impl Kept {
    /// Writes what is in memory, to make room for another input.
    pub fn spill(&mut self, origin: Origin) -> Result<()> {
        if self.chunk.events.is_empty() {
            return Ok(());
        }
        let chunk = self.chunk.taken();
        if origin == Origin::Import {
            self.runs.push(run(&chunk)?);
            return Ok(());
        }
        let (mut writer, file) = scratch()?;
        let mut rows = chunk.events.iter();
        rows.try_for_each(|row| writer.push(row, &chunk.names))?;
        writer.finish()?;
        self.rows.push(Reader::from_file(file, &scratch_path())?);
        Ok(())
    }
}

/// Rows of one clock as a sorted run.
pub(super) fn run(chunk: &Chunk) -> Result<File> {
    let (writer, file) = scratch()?;
    let mut writer = writer.with_batch_rows(BATCH_ROWS);
    for at in sorted(&chunk.events) {
        writer.push(&chunk.events[at as usize], &chunk.names)?;
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

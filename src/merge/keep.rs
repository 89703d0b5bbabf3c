//! Rows in the order in which they came: in memory as long as they fit, then in a temporary file.

use std::fs::File;
use std::mem::{size_of, take};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::trace::provenance::{Provenance, Step};
use crate::trace::{Event, Names, Reader, Writer};

/// Bytes that a row takes in memory, with its place in a sorted index.
pub(super) const ROW_BYTES: u64 = size_of::<Event>() as u64 + 48;

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

/// See the module.
#[derive(Debug)]
pub(super) struct Keep {
    chunk: Chunk,
    file: Option<(Writer, File)>,
}

impl Keep {
    pub fn new(memory: u64) -> Keep {
        Keep {
            chunk: Chunk::new(memory),
            file: None,
        }
    }

    /// Where the next rows are to be appended.
    pub fn room(&mut self) -> Result<(&mut Names, &mut Vec<Event>)> {
        if self.chunk.is_full() {
            self.spill()?;
        }
        Ok((&mut self.chunk.names, &mut self.chunk.events))
    }

    fn spill(&mut self) -> Result<()> {
        let (writer, _) = match &mut self.file {
            Some(file) => file,
            none => none.insert(scratch()?),
        };
        for event in &self.chunk.events {
            writer.push(event, &self.chunk.names)?;
        }
        self.chunk.clear();
        Ok(())
    }

    /// Visits every row.
    pub fn each(mut self, mut visit: impl FnMut(&mut Event, &Names) -> Result<()>) -> Result<()> {
        if self.file.is_none() {
            let Chunk { names, events, .. } = &mut self.chunk;
            return events.iter_mut().try_for_each(|event| visit(event, names));
        }
        self.spill()?;
        let Some((writer, file)) = take(&mut self.file) else {
            return Ok(());
        };
        writer.finish()?;
        let mut reader = Reader::from_file(file, &scratch_path())?;
        loop {
            let (mut names, mut events) = (Names::default(), Vec::new());
            if !reader.next_batch(&mut names, &mut events)? {
                return Ok(());
            }
            for event in &mut events {
                visit(event, &names)?;
            }
        }
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

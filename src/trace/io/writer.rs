//! Rows on their way into a file or a pipe.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;

use super::super::provenance::Provenance;
use super::super::schema::{Event, Kind, Names};
use super::{BATCH_ROWS, ahead, columns, sender, table};
use crate::cli::{Output, Sink};
use crate::error::{Error, Result};

/// Writes a trace: Parquet or an Arrow stream by the output's ending, an Arrow stream to a pipe.
///
/// Dropped without [`Writer::finish`] it leaves no file, or a stream without its end mark.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    rows: columns::Columns,
    batch_rows: usize,
    to: ahead::Behind,
}

/// Where batches go.
#[derive(Debug)]
pub(super) enum To {
    Arrow(Box<sender::Sender>),
    Parquet(Box<table::Builder>),
}

impl To {
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            To::Arrow(sender) => sender.write(batch),
            To::Parquet(builder) => builder.write(batch),
        }
    }

    pub fn flush(&mut self) -> Result<()> {
        match self {
            To::Arrow(sender) => sender.flush(),
            To::Parquet(builder) => builder.flush(),
        }
    }

    pub fn finish(self) -> Result<()> {
        match self {
            To::Arrow(sender) => sender.finish(),
            To::Parquet(builder) => builder.finish(),
        }
    }
}

/// What a trace is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Arrow,
    Parquet,
}

impl Writer {
    /// Opens the output and writes what stands before the rows.
    ///
    /// # Errors
    /// A terminal, a name with another ending, a folder that cannot be written to.
    pub fn create(sink: &Sink, provenance: &Provenance) -> Result<Writer> {
        let container = match (sink, sink.extension().as_str()) {
            (Sink::Stdout, _) | (_, "arrow") => Container::Arrow,
            (_, "parquet") => Container::Parquet,
            _ => return Err(Error::Ending { path: sink.path() }),
        };
        Writer::create_as(container, sink, provenance)
    }

    /// [`Writer::create`], whatever the output is called.
    ///
    /// # Errors
    /// As there, but for the name.
    pub fn create_as(container: Container, sink: &Sink, provenance: &Provenance) -> Result<Writer> {
        let output = sink.create_binary()?;
        let path = sink.path();
        let to = match container {
            Container::Parquet => To::Parquet(Box::new(table::Builder::new(output, provenance)?)),
            Container::Arrow => To::Arrow(Box::new(sender::Sender::new(output, provenance)?)),
        };
        Ok(Writer::new(path, to))
    }

    /// Writes an Arrow stream into an open file; `path` is for messages.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn to_file(file: File, path: &Path, provenance: &Provenance) -> Result<Writer> {
        let output = Output::over(file, path.to_owned());
        let to = To::Arrow(Box::new(sender::Sender::new(output, provenance)?));
        Ok(Writer::new(path.to_owned(), to))
    }

    fn new(path: PathBuf, to: To) -> Writer {
        Writer {
            path,
            rows: columns::Columns::default(),
            batch_rows: BATCH_ROWS,
            to: ahead::Behind::Here(to),
        }
    }

    /// Writes batches on a thread of its own, while others are made.
    ///
    /// # Errors
    /// No more threads.
    pub fn beside(mut self) -> Result<Writer> {
        self.to = self.to.begin(&self.path)?;
        Ok(self)
    }

    /// Makes batches of another size.
    #[cfg(test)]
    pub(super) fn with_batch_rows(mut self, rows: usize) -> Writer {
        self.batch_rows = rows.max(1);
        self
    }

    /// Writes one row, whose symbols are those of `names`.
    ///
    /// # Errors
    /// What the system refuses, a full disk for one; [`Error::Closed`] when the reader is gone.
    pub fn push(&mut self, event: &Event, names: &Names) -> Result<()> {
        self.rows.push(event, names);
        if self.rows.len() >= self.batch_rows {
            self.send()?;
        }
        Ok(())
    }

    /// Hands over to the system what was pushed so far: as a batch of a stream, or as a row group of
    /// its own in Parquet (many small ones make a large file).
    ///
    /// # Errors
    /// As [`Writer::push`].
    pub fn flush(&mut self) -> Result<()> {
        self.send()?;
        self.to.flush()
    }

    /// Writes the end mark; only now a file appears under its name.
    ///
    /// # Errors
    /// As [`Writer::push`].
    pub fn finish(mut self) -> Result<()> {
        let mut names = Names::default();
        let end = Event::new(Kind::End, names.sym("end"), 0, 0, 0, 0);
        self.rows.push(&end, &names);
        self.send()?;
        self.to.finish()
    }

    fn send(&mut self) -> Result<()> {
        if self.rows.len() == 0 {
            return Ok(());
        }
        let batch = self.rows.finish().map_err(|error| Error::Corrupt {
            path: self.path.clone(),
            place: "in memory".into(),
            what: error.to_string(),
        })?;
        self.to.write(batch)
    }
}

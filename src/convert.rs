//! A trace as others read it, or the part of it that is asked for.
//!
//! Rows go by one after the other: read, selected, numbered anew, written. Memory is bounded by what is open at one
//! moment, and by distinct names and call paths; never by the number of rows. convert measures nothing, and moves no
//! time: what a format has no place for is left out and counted ([`Left`]).

mod chrome; // the trace event format, as torch.profiler writes it
mod condition; // --where
mod csv;
mod folded; // self time by call path
mod json; // JSON text, exact times
mod perfetto; // Perfetto's protocol buffers
mod proto; // protocol buffers, written field by field
mod renumber; // parent and cause of what is kept
mod select;
mod speedscope;
mod stacks; // open spans of a track
mod target; // formats, and files in them

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};

use crate::cli::{Input, Progress, Sink, Source};
use crate::error::{Error, Result};
use crate::trace::io::Opened;
use crate::trace::provenance::{Stage, Step};
use crate::trace::{Event, Kind, Names, Reader, Writer};
use renumber::Renumber;
pub use select::Select;
use select::{Fate, Selection};
pub use target::Format;
use target::Target;

/// Bytes of texts that a reader's table may hold before a new one takes its place.
const MOST_TEXT: usize = 64 << 20;

/// A file of some format, being written row by row.
trait Rows {
    /// The next row; `row` is its number in what is written.
    fn row(&mut self, row: i64, event: &Event, names: &Names) -> Result<()>;

    /// All rows were there: the file appears under its name. What had no place in it.
    fn finish(self: Box<Self>) -> Result<Left>;
}

/// Rows that the format has no place for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// By what they are.
    rows: BTreeMap<&'static str, u64>,
    /// Spans that begin inside another of their track and end outside it, where the format only has stacks.
    overlapping: u64,
}

impl Left {
    fn add(&mut self, kind: Kind) {
        *self.rows.entry(kind.as_str()).or_default() += 1;
    }
}

/// Empty if nothing was left out.
impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self
            .rows
            .iter()
            .map(|(kind, n)| format!("{n} {kind}"))
            .collect();
        if self.overlapping > 0 {
            parts.push(format!("{} overlapping", self.overlapping));
        }
        match parts.is_empty() {
            true => Ok(()),
            false => write!(
                f,
                "rows left out, as the format has no place for them: {}",
                parts.join(", ")
            ),
        }
    }
}

/// Converts `input` to `output`: in this format, or the one that the output's name says.
///
/// # Errors
/// What is wrong with the input, the selection or the output; a raw trace where spans have to be nested.
pub fn run(input: &Source, output: &Sink, format: Option<Format>, select: &Select) -> Result<Left> {
    let target = Target::of(format, output)?;
    let mut selection = Selection::new(select)?;
    let (mut reader, hash) = open(input, target.format.has_provenance())?;
    let stage = reader.provenance().stage;
    if stage == Stage::Raw {
        let wanted = match select.has_window() {
            true => Some("--from and --to are times on a timeline"),
            false => target.format.needs_nesting(),
        };
        if let Some(why) = wanted {
            return Err(Error::Invalid {
                path: reader.path().to_owned(),
                what: format!(
                    "a raw trace, whose spans are not nested yet, on clocks of their own; {why}"
                ),
                hint: Some("isc-merge TRACE | isc-convert, with the same flags".into()),
            });
        }
    }
    let mut provenance = reader.provenance().clone();
    let step = Step::new("isc-convert", select.flags(), hash.into_iter().collect());
    provenance.steps.push(step);
    let mut rows = target.create(output, &provenance)?;
    let mut renumber = (!select.is_everything()).then(Renumber::default);
    let mut progress = Progress::reading("converting", reader.rows(), reader.is_pipe());
    let (mut names, mut events) = (Names::default(), Vec::new());
    let (mut row, mut more) = (0, true);
    'rows: while more {
        events.clear();
        if names.bytes() > MOST_TEXT {
            names = Names::default();
        }
        more = reader.next_batch(&mut names, &mut events)?;
        for event in &mut events {
            let fate = selection.fate(event, &names)?;
            // Nothing in a timeline describes what came before it, so the rest need not be read.
            if fate == Fate::Past && stage == Stage::Timeline {
                break 'rows;
            }
            let kept = fate == Fate::Kept;
            if let Some(renumber) = &mut renumber {
                renumber.next(event, kept);
            }
            if kept {
                rows.row(row, event, &names)?;
                row += 1;
            }
        }
        progress.add(events.len() as u64);
    }
    rows.finish()
}

/// Opens the trace; with the hash of its content, where what is written has it before its first row. A pipe is then read
/// to its end first, into a temporary file.
fn open(source: &Source, hashed: bool) -> Result<(Reader, Option<String>)> {
    if !hashed {
        return match Reader::open_any(source)? {
            Opened::Trace(reader) => Ok((reader, None)),
            Opened::Other { input, found, .. } => Err(foreign(input.path, found)),
        };
    }
    let Input {
        mut file,
        path,
        seekable,
    } = source.open()?;
    let mut hasher = blake3::Hasher::new();
    if !seekable {
        file = spooled(&mut file, &path)?;
    }
    io::copy(&mut file, &mut hasher).map_err(Error::io("read", &path))?;
    let reader = Reader::from_file(file, &path).map_err(|error| match error {
        Error::NotATrace { path, found } => foreign(path, &found),
        other => other,
    })?;
    Ok((reader, Some(hasher.finalize().to_hex().to_string())))
}

/// What is no trace of ours may be another profiler's.
fn foreign(path: std::path::PathBuf, found: &str) -> Error {
    Error::Invalid {
        path,
        what: format!("{found}, not a trace"),
        hint: Some("isc-merge FILE | isc-convert, if it is another profiler's".into()),
    }
}

fn spooled(from: &mut File, path: &std::path::Path) -> Result<File> {
    let folder = std::env::temp_dir();
    let mut to = tempfile::tempfile().map_err(Error::io("create a temporary file in", &folder))?;
    let mut block = vec![0; 1 << 20];
    loop {
        let count = from.read(&mut block).map_err(Error::io("read", path))?;
        if count == 0 {
            break;
        }
        to.write_all(&block[..count])
            .map_err(Error::io("write to a file in", &folder))?;
    }
    to.rewind().map_err(Error::io("read a file in", &folder))?;
    Ok(to)
}

/// A trace in a trace: Parquet or Arrow.
#[derive(Debug)]
struct Table(Writer);

impl Rows for Table {
    fn row(&mut self, _row: i64, event: &Event, names: &Names) -> Result<()> {
        self.0.push(event, names)
    }

    fn finish(self: Box<Self>) -> Result<Left> {
        self.0.finish()?;
        Ok(Left::default())
    }
}

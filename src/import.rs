//! What other profilers wrote, as raw traces. The content says which format it is, never the name.
//!
//! Each importer turns its file into rows of the event table as it goes by, and holds no more than a window of it. gzip
//! and zstd are unpacked on the way. What a file carries besides events (environments, arguments, package lists) is not
//! read.

mod args; // JSON objects of rows
mod blocks; // bytes in, unpacked and hashed by a thread of their own
pub(crate) mod decimal; // exact numbers
mod events; // the trace event format: Kineto, Chrome, VizTracer, TensorFlow
mod folded; // folded stacks: py-spy's raw format, stackcollapse
pub(crate) mod json; // JSON as profilers write it
mod kineto; // what a trace event is as a row
mod lines; // text, line by line
mod memo; // what was made of bytes before
mod nsys; // Nsight Systems' SQLite export
pub(crate) mod ours; // trace events that isc-convert wrote
mod perf; // what perf script prints
mod rocpd; // rocprofv3's SQLite database
mod rocprof; // rocprofv3's JSON
mod rocprof_csv; // rocprof's tables
mod speedscope; // speedscope's JSON
mod sqlite; // SQLite databases, table by table
mod stacks; // samples of stacks as spans
mod tokens; // where trace events and their parts stand
pub(crate) mod tracks; // processes, threads, devices, streams of trace events
mod wire; // protocol buffers, field by field
mod xplane; // XPlane of TensorFlow and JAX

use std::path::{Path, PathBuf};

use crate::cli::{Input, Source};
use crate::clock::Origin;
use crate::error::{Error, Result};
use crate::trace::io::Opened;
use crate::trace::provenance::{Provenance, Step};
use crate::trace::{Event, Kind, Names, Reader};
use blocks::{Blocks, Packing};
use json::Window;
use lines::Lines;
pub use rocprof_csv::{Part, Run};
use sqlite::Database;

/// Bytes that are looked at to tell the format.
const HEAD: usize = 1 << 16;

/// The format of which several files are one input.
const ROCPROF_CSV: &str = "rocprof-csv";

/// What a command was given.
#[derive(Debug)]
pub enum Any {
    /// A trace of ours.
    Trace(Reader),
    /// Another profiler's file.
    Foreign(Import),
}

impl Any {
    /// How many rows there are, where that is known beforehand.
    pub fn rows(&self) -> Option<u64> {
        match self {
            Any::Trace(reader) => reader.rows(),
            Any::Foreign(_) => None,
        }
    }

    /// Whether it comes out of a pipe.
    pub fn is_pipe(&self) -> bool {
        match self {
            Any::Trace(reader) => reader.is_pipe(),
            Any::Foreign(import) => import.is_pipe(),
        }
    }

    /// Whether it is one table of several of a run, which are one input together.
    pub fn is_part(&self) -> bool {
        matches!(self, Any::Foreign(import) if import.is_part())
    }

    /// What a table tells of its run, once its end was reached.
    pub fn part(&mut self) -> Option<Part> {
        match self {
            Any::Trace(_) => None,
            Any::Foreign(import) => import.part(),
        }
    }

    /// Whose rows they are.
    pub fn origin(&self) -> Origin {
        match self {
            Any::Trace(reader) => Origin::of(reader.provenance().stage),
            Any::Foreign(_) => Origin::Import,
        }
    }

    /// Which commands made it.
    pub fn provenance(&self) -> &Provenance {
        match self {
            Any::Trace(reader) => reader.provenance(),
            Any::Foreign(import) => import.provenance(),
        }
    }

    /// Appends the next rows; `false` at the end.
    ///
    /// # Errors
    /// A file that is cut off or broken, with the place where that shows.
    pub fn next_batch(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<bool> {
        match self {
            Any::Trace(reader) => reader.next_batch(names, rows),
            Any::Foreign(import) => import.next_batch(names, rows),
        }
    }

    /// blake3 of the content, in hexadecimal, once the end was reached.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn content_hash(&mut self) -> Result<Option<String>> {
        match self {
            Any::Trace(reader) => reader.content_hash(),
            Any::Foreign(import) => Ok(import.content_hash()),
        }
    }
}

/// A file of another profiler, read as a raw trace.
#[derive(Debug)]
pub struct Import {
    path: PathBuf,
    format: &'static str,
    pipe: bool,
    rows: Box<dyn Rows>,
    provenance: Provenance,
}

/// Rows of one format, in the order of its file.
trait Rows: Send + std::fmt::Debug {
    /// Appends the next rows; `false` at the end.
    fn next_batch(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<bool>;

    /// blake3 of the file, in hexadecimal, once its end was reached.
    fn hash(&mut self) -> Option<String>;

    /// Of a file that is one of several of a run: what it tells of that, once its end was reached.
    fn part(&mut self) -> Option<Part> {
        None
    }
}

/// Whether broken events are left out, and how many were.
#[derive(Clone, Debug, Default)]
pub struct Lenient {
    on: bool,
    skipped: u64,
}

impl Lenient {
    /// `on`: what cannot be read is left out and counted.
    pub fn new(on: bool) -> Lenient {
        Lenient { on, skipped: 0 }
    }

    /// Whether the event at hand may be left out; it is counted then.
    fn skip(&mut self) -> bool {
        self.skipped += u64::from(self.on);
        self.on
    }

    /// Rows that say what is missing: events that could not be read, ends without a beginning.
    fn finish(&self, unmatched: u64, names: &mut Names, rows: &mut Vec<Event>) {
        for (count, what) in [
            (self.skipped, "broken events"),
            (unmatched, "ends without a beginning"),
        ] {
            if count > 0 {
                let at = rows.first().map_or(0, |row| row.start_ns);
                let mut row = Event::new(Kind::Lost, names.sym(what), at, 0, 0, 0);
                row.value = Some(count as f64);
                rows.push(row);
            }
        }
    }
}

/// Opens what may be a trace of ours or another profiler's file.
///
/// # Errors
/// What the system refuses, and content of no known format.
pub fn open(source: &Source, lenient: &Lenient) -> Result<Any> {
    match Reader::open_any(source)? {
        Opened::Trace(reader) => Ok(Any::Trace(reader)),
        Opened::Other { head, input, found } => {
            foreign(head, input, found, lenient).map(Any::Foreign)
        }
    }
}

fn foreign(mut head: Vec<u8>, input: Input, found: &str, lenient: &Lenient) -> Result<Import> {
    let Input {
        mut file,
        path,
        seekable,
    } = input;
    let wanted = (HEAD - head.len().min(HEAD)) as u64;
    let read = std::io::Read::read_to_end(&mut std::io::Read::take(&mut file, wanted), &mut head);
    read.map_err(Error::io("read", &path))?;
    let packing = Packing::of(&head);
    let plain = unpacked(&head, packing);
    let Some(content) = content(&plain) else {
        let found = match packing {
            Packing::None => found.to_owned(),
            _ => format!("{} data of no format that is known", packing.as_str()),
        };
        return Err(Error::NotATrace { path, found });
    };
    let window = |head, file| -> Result<Window> {
        let blocks = Blocks::start(head, file).map_err(Error::io("read", &path))?;
        Ok(Window::new(blocks, &path))
    };
    let (format, rows): (_, Box<dyn Rows>) = match content {
        Content::Events => {
            let rows = events::TraceEvents::new(window(head, file)?, lenient.clone(), &path)?;
            ("trace-events", Box::new(rows))
        }
        Content::Rocprof => {
            let rows = rocprof::Rocprof::new(window(head, file)?, lenient.clone());
            ("rocprofv3", Box::new(rows))
        }
        Content::RocprofCsv => {
            let lines = Lines::new(window(head, file)?);
            let rows = rocprof_csv::RocprofCsv::new(lines, path.clone(), lenient.clone());
            (ROCPROF_CSV, Box::new(rows))
        }
        Content::Perf => {
            let lines = Lines::new(window(head, file)?);
            (
                "perf-script",
                Box::new(perf::Perf::new(lines, lenient.clone())),
            )
        }
        Content::Folded => {
            let lines = Lines::new(window(head, file)?);
            (
                "folded",
                Box::new(folded::Folded::new(lines, lenient.clone())),
            )
        }
        Content::Speedscope => {
            let (plain, hash) = blocks::unpack(head, file, packing, &path)?;
            let rows = speedscope::reader(plain, hash, &path, lenient)?;
            ("speedscope", Box::new(rows))
        }
        Content::Xplane => {
            let (plain, hash) = blocks::unpack(head, file, packing, &path)?;
            let rows = xplane::reader(plain.into_file(), hash, &path, lenient)?;
            ("xplane", Box::new(rows))
        }
        Content::Sqlite => {
            let db = Database::open(head, file, seekable, &path)?;
            if rocpd::is(&db) {
                ("rocpd", Box::new(rocpd::reader(db, lenient)))
            } else if nsys::is(&db) {
                ("nsys-sqlite", Box::new(nsys::reader(db, lenient)))
            } else {
                let found = "an SQLite database of no format that is known".into();
                return Err(Error::NotATrace { path, found });
            }
        }
    };
    let mut step = Step::new("import", vec![format!("--format={format}")], vec![]);
    if lenient.on {
        step.flags.push("--lenient=true".into());
    }
    Ok(Import {
        format,
        pipe: !seekable,
        rows,
        provenance: Provenance::raw(step),
        path,
    })
}

/// What the first bytes of a file tell; which tables a database has says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Events,
    Folded,
    Perf,
    Rocprof,
    RocprofCsv,
    Speedscope,
    Sqlite,
    Xplane,
}

/// What the first bytes of the unpacked content are of.
fn content(head: &[u8]) -> Option<Content> {
    if head.starts_with(b"SQLite format 3\0") {
        return Some(Content::Sqlite); // "Database File Format", 1.3.1
    }
    if xplane::is(head) {
        return Some(Content::Xplane);
    }
    let head = head.trim_ascii_start();
    let first_key = |key: &[u8]| {
        let object = head.strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
        object.is_some_and(|object| object.starts_with(key))
    };
    // A stack may begin with `[unknown]`; behind a bracket of JSON's no letter stands.
    let json = match head {
        [b'{' | b'[', rest @ ..] => !rest.first().is_some_and(u8::is_ascii_alphabetic),
        _ => false,
    };
    if json {
        return Some(match () {
            () if first_key(b"\"rocprofiler-sdk-tool\"") => Content::Rocprof,
            () if speedscope::is(head) => Content::Speedscope,
            () => Content::Events,
        });
    }
    match () {
        () if rocprof_csv::is(head) => Some(Content::RocprofCsv),
        () if perf::is(head) => Some(Content::Perf),
        () if folded::is(head) => Some(Content::Folded),
        () => None,
    }
}

/// The first bytes, unpacked as far as they go.
fn unpacked(head: &[u8], packing: Packing) -> Vec<u8> {
    let mut plain = Vec::new();
    if let Ok(from) = packing.reader(head) {
        // The head is cut anywhere: what came before the cut is enough.
        let _ = std::io::Read::read_to_end(&mut std::io::Read::take(from, HEAD as u64), &mut plain);
    }
    plain
}

impl Import {
    /// The name for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format's name: `trace-events`, `nsys-sqlite`, `rocpd`, `rocprofv3`, `rocprof-csv`, `xplane`, `speedscope`,
    /// `folded`, `perf-script`.
    pub fn format(&self) -> &'static str {
        self.format
    }

    /// Whether it comes out of a pipe.
    pub fn is_pipe(&self) -> bool {
        self.pipe
    }

    /// Whether it is one table of several of a run, which are one input together.
    pub fn is_part(&self) -> bool {
        self.format == ROCPROF_CSV
    }

    /// What a table tells of its run, once its end was reached.
    pub fn part(&mut self) -> Option<Part> {
        self.rows.part()
    }

    /// What made it: only that it was imported is known.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Appends the next rows; `false` at the end.
    ///
    /// # Errors
    /// A file that is cut off or broken, with the place where that shows.
    pub fn next_batch(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<bool> {
        self.rows.next_batch(names, rows)
    }

    /// blake3 of the file, in hexadecimal, once its end was reached.
    pub fn content_hash(&mut self) -> Option<String> {
        self.rows.hash()
    }
}

//! Traces in files and pipes: Arrow IPC streams and Parquet tables, told apart by content.
//!
//! Both hold the columns of `formats/trace-v1.md`, and both close with a row of kind `end`, without which a
//! trace is cut off and therefore an error. Nothing in a file is believed: hostile bytes give an [`Error`].

mod ahead;
mod columns;
mod ipc;
mod rows;
mod sender;
mod table;
mod writer;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;

use arrow::array::RecordBatch;

use super::provenance::Provenance;
use super::schema::{Event, Kind, Names, VERSION};
use crate::cli::{Input, Source};
use crate::error::{Error, Result};
pub(crate) use columns::COLUMNS;
pub use writer::{Container, Writer};

/// Metadata key of the format version, in decimal.
pub const VERSION_KEY: &str = "inferscope.version";
/// Metadata key of the provenance, as JSON.
pub const PROVENANCE_KEY: &str = "inferscope.provenance";

/// The oldest version that is read.
const OLDEST: u32 = 1;

/// Rows of one Arrow batch: a few MB, which two commands have in a processor's caches while one hands them to the other. Half as
/// many make no difference there, and the texts of a batch, which it has once, are written more often.
pub const BATCH_ROWS: usize = 1 << 15;

/// Rows that are delivered at once: what is done with them finds them in the processor's own cache.
const ROWS: usize = 1 << 10;

/// Reads a trace, batch by batch.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    provenance: Provenance,
    ahead: ahead::Ahead,
    /// Rows there are, where that is known beforehand.
    rows: Option<u64>,
    /// It comes out of a pipe or the like.
    pipe: bool,
    /// The `end` row was met.
    ended: bool,
    decoder: Box<rows::Decoder>,
    batch: Option<Box<Batch>>,
}

/// What was found in an input.
#[derive(Debug)]
pub enum Opened {
    Trace(Reader),
    /// Something else: its first bytes, which were taken from the input, and what they look like.
    Other {
        head: Vec<u8>,
        input: Input,
        found: &'static str,
    },
}

/// A batch that is being delivered.
#[derive(Debug)]
struct Batch {
    rows: RecordBatch,
    place: String,
    /// How many of its rows were delivered.
    read: usize,
}

impl Batch {
    fn new((rows, place): (RecordBatch, String)) -> Box<Batch> {
        Box::new(Batch {
            rows,
            place,
            read: 0,
        })
    }
}

#[derive(Debug)]
enum Form {
    Arrow(Box<ipc::Stream>),
    Parquet(Box<table::Table>),
}

impl Form {
    fn next_batch(&mut self, path: &Path) -> Result<Option<ahead::Placed>> {
        match self {
            Form::Arrow(stream) => stream.next_batch(path),
            Form::Parquet(table) => table.next_batch(path),
        }
    }
}

impl Reader {
    /// Opens a trace and reads its provenance.
    ///
    /// # Errors
    /// What the system refuses, and everything that is not a trace of a version this build reads.
    pub fn open(source: &Source) -> Result<Reader> {
        Reader::new(source.open()?, false)
    }

    /// [`Reader::open`], of which [`Reader::content_hash`] can be asked afterwards.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open_hashed(source: &Source) -> Result<Reader> {
        Reader::new(source.open()?, true)
    }

    /// Reads an open file from its start; `path` is for messages.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn from_file(mut file: File, path: &Path) -> Result<Reader> {
        file.rewind().map_err(Error::io("read", path))?;
        let input = Input {
            file,
            path: path.to_owned(),
            seekable: true,
        };
        Reader::new(input, false)
    }

    /// Opens what may be something else than a trace; hashed, as by [`Reader::open_hashed`].
    ///
    /// # Errors
    /// As [`Reader::open`], but for content of another kind.
    pub fn open_any(source: &Source) -> Result<Opened> {
        Reader::sniff(source.open()?, true)
    }

    fn new(input: Input, hashed: bool) -> Result<Reader> {
        match Reader::sniff(input, hashed)? {
            Opened::Trace(reader) => Ok(reader),
            Opened::Other { input, found, .. } => Err(Error::NotATrace {
                path: input.path,
                found: found.into(),
            }),
        }
    }

    fn sniff(input: Input, hashed: bool) -> Result<Opened> {
        let Input {
            mut file,
            path,
            seekable,
        } = input;
        let mut magic = Vec::with_capacity(16);
        let read = (&mut file).take(16).read_to_end(&mut magic);
        read.map_err(Error::io("read", &path))?;
        let (form, metadata) = match content(&magic) {
            Content::Arrow => {
                let rest: Box<dyn Read + Send> = Box::new(io::Cursor::new(magic).chain(file));
                let rest = BufReader::with_capacity(1 << 20, rest);
                let (stream, metadata) = ipc::Stream::open(rest, &path, hashed)?;
                (Form::Arrow(Box::new(stream)), metadata)
            }
            Content::Parquet => {
                if seekable {
                    file.rewind().map_err(Error::io("read", &path))?;
                } else {
                    file = spooled(&magic, file, &path)?;
                }
                let (table, metadata) = table::Table::open(file, &path, hashed)?;
                (Form::Parquet(Box::new(table)), metadata)
            }
            Content::Nothing => return Err(Error::Empty { path }),
            Content::Other(found) => {
                let input = Input {
                    file,
                    path,
                    seekable,
                };
                return Ok(Opened::Other {
                    head: magic,
                    input,
                    found,
                });
            }
        };
        let provenance = metadata.provenance(&path)?;
        let rows = match &form {
            Form::Arrow(_) => None,
            Form::Parquet(table) => Some(table.rows().saturating_sub(1)),
        };
        Ok(Opened::Trace(Reader {
            path,
            provenance,
            ahead: ahead::Ahead::New(form),
            rows,
            pipe: !seekable,
            ended: false,
            decoder: Box::default(),
            batch: None,
        }))
    }

    /// Which commands made this trace, and what state it is in.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Reads args of rows of these kinds only: others' are null, and their texts take no memory.
    pub fn with_args_of(mut self, kinds: fn(Kind) -> bool) -> Reader {
        self.decoder.args_of = kinds;
        self
    }

    /// Leaves parents and causes unread: they are null. To be asked for before the first row is read.
    pub fn without_links(mut self) -> Reader {
        self.decoder.links = false;
        if let Some(Form::Parquet(table)) = self.ahead.form() {
            table.leave_out(&rows::LINKS);
        }
        self
    }

    /// The name for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether another command may still be writing it.
    pub fn is_pipe(&self) -> bool {
        self.pipe
    }

    /// How many rows there are, where that is known beforehand: in Parquet.
    pub fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// Appends the next rows; `false` at the end, which is verified: nothing was cut off.
    /// The `end` row itself is not delivered.
    ///
    /// # Errors
    /// A trace that is cut off or damaged, with the place where that shows.
    pub fn next_batch(&mut self, names: &mut Names, events: &mut Vec<Event>) -> Result<bool> {
        loop {
            let path = &self.path;
            let batch = match self.batch.take() {
                Some(batch) => Some(batch),
                None => self.ahead.next_batch(path)?.map(Batch::new),
            };
            let Some(Batch { rows, place, read }) = batch.map(|batch| *batch) else {
                return match self.ended {
                    true => Ok(false),
                    false => Err(Error::Cut {
                        path: path.clone(),
                        place: "after its last row".into(),
                    }),
                };
            };
            let damaged = |what: String| Error::Corrupt {
                path: path.clone(),
                place: place.clone(),
                what,
            };
            let from = events.len();
            let to = rows.num_rows().min(read + ROWS);
            guard(|| self.decoder.decode(&rows, read..to, names, events)).map_err(damaged)?;
            if self.ended && events.len() > from {
                return Err(damaged("rows after the end mark".into()));
            }
            let end = events[from..].iter().position(|e| e.kind == Kind::End);
            if let Some(at) = end {
                if from + at + 1 != events.len() {
                    return Err(damaged("rows after the end mark".into()));
                }
                events.pop();
                self.ended = true;
            }
            self.batch = (to < rows.num_rows()).then(|| {
                let read = to;
                Box::new(Batch { rows, place, read })
            });
            if events.len() > from {
                return Ok(true);
            }
        }
    }

    /// blake3 of the content, in hexadecimal. Complete after [`Reader::next_batch`] said that the end is
    /// reached; `None` if it was not opened for that.
    ///
    /// # Errors
    /// What the system refuses: a Parquet file is read again.
    pub fn content_hash(&mut self) -> Result<Option<String>> {
        match self.ahead.form() {
            Some(Form::Arrow(stream)) => Ok(stream.hash()),
            Some(Form::Parquet(table)) => table.hash(&self.path),
            None => Ok(None),
        }
    }
}

/// The metadata of a file or stream, as far as it is ours.
#[derive(Debug, Default)]
struct Metadata {
    provenance: Option<String>,
}

impl Metadata {
    /// Checks version and columns of what was opened; the version first, since a newer one may have others.
    fn check(
        get: impl Fn(&str) -> Option<String>,
        schema: &arrow::datatypes::Schema,
        path: &Path,
    ) -> Result<Metadata> {
        let version = get(VERSION_KEY);
        if let Some(text) = &version {
            let path = path.to_owned();
            match text.parse::<u32>() {
                Ok(version) if version > VERSION => {
                    return Err(Error::TooNew {
                        path,
                        version,
                        newest: VERSION,
                    });
                }
                Ok(version) if version < OLDEST => {
                    return Err(Error::TooOld {
                        path,
                        version,
                        oldest: OLDEST,
                    });
                }
                Ok(_) => {}
                Err(_) => {
                    return Err(Error::Corrupt {
                        path,
                        place: "in its metadata".into(),
                        what: format!("{VERSION_KEY} is no number"),
                    });
                }
            }
        }
        columns::check(schema, path)?;
        if version.is_none() {
            return Err(Error::NotATrace {
                path: path.to_owned(),
                found: format!("a table with a trace's columns but no {VERSION_KEY}"),
            });
        }
        Ok(Metadata {
            provenance: get(PROVENANCE_KEY),
        })
    }

    fn provenance(&self, path: &Path) -> Result<Provenance> {
        let damaged = |what: String| Error::Corrupt {
            path: path.to_owned(),
            place: "in its metadata".into(),
            what,
        };
        let Some(text) = &self.provenance else {
            return Err(damaged(format!("no {PROVENANCE_KEY}")));
        };
        serde_json::from_str(text).map_err(|e| damaged(format!("{PROVENANCE_KEY}: {e}")))
    }
}

enum Content {
    Nothing,
    Arrow,
    Parquet,
    Other(&'static str),
}

/// What the first bytes say a file is.
fn content(magic: &[u8]) -> Content {
    const OTHERS: [(&[u8], &str); 14] = [
        (
            b"ARROW1",
            "an Arrow file, which has no end mark (a trace is an Arrow stream)",
        ),
        (b"\x89PNG", "a PNG image"),
        (b"\xff\xd8\xff", "a JPEG image"),
        (b"GIF8", "a GIF image"),
        (b"%PDF", "a PDF document"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "gzip data"),
        (b"\x28\xb5\x2f\xfd", "zstd data"),
        (b"\x7fELF", "a program (ELF)"),
        (b"SQLite format 3", "an SQLite database"),
        (b"{", "JSON"),
        (b"[", "JSON"),
        (b"<", "HTML or XML"),
        (b"PARE", "an encrypted Parquet file"),
    ];
    if magic.is_empty() {
        return Content::Nothing;
    }
    if magic.starts_with(b"PAR1") {
        return Content::Parquet;
    }
    // A trace cut within its first bytes is still one that was cut.
    if magic.starts_with(&ipc::CONTINUATION) || ipc::CONTINUATION.starts_with(magic) {
        return Content::Arrow;
    }
    if b"PAR1".starts_with(magic) {
        return Content::Parquet;
    }
    let other = OTHERS.iter().find(|(start, _)| magic.starts_with(start));
    Content::Other(other.map_or_else(
        || match std::str::from_utf8(magic) {
            Ok(text) if !text.contains('\0') => "text",
            _ => "data of another kind",
        },
        |(_, name)| name,
    ))
}

/// Copies a pipe into a file without a name, so that it can be read out of order.
fn spooled(magic: &[u8], mut rest: File, path: &Path) -> Result<File> {
    let folder = std::env::temp_dir();
    let mut copy = tempfile::tempfile().map_err(Error::io("create a file in", &folder))?;
    copy.write_all(magic)
        .map_err(Error::io("write in", &folder))?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = match rest.read(&mut chunk) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        if read == 0 {
            break;
        }
        let wrote = copy.write_all(&chunk[..read]);
        wrote.map_err(Error::io("write in", &folder))?;
    }
    copy.rewind().map_err(Error::io("read", path))?;
    Ok(copy)
}

thread_local! {
    static GUARDED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs a third party's decoder, whose panic on hostile bytes becomes an error like any other.
fn guard<T, E: ToString>(
    decode: impl FnOnce() -> std::result::Result<T, E>,
) -> std::result::Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                usual(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(outer);
    match decoded {
        Ok(decoded) => decoded.map_err(|error| one_line(&error.to_string())),
        Err(_) => Err("the bytes make no sense to the decoder".into()),
    }
}

/// The first line of a message, at most 200 characters of it, without control characters.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::super::provenance::Step;
    use super::*;
    use crate::cli::Sink;
    use crate::trace::Sym;

    fn written(name: &str, rows: i64) -> (tempfile::TempDir, PathBuf, Vec<Event>, Names) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut names = Names::default();
        let mut events = Vec::new();
        let provenance = Provenance::raw(Step::new("test", vec![], vec![]));
        let sink = Sink::from(path.as_path());
        let mut writer = Writer::create(&sink, &provenance)
            .unwrap()
            .with_batch_rows(100);
        for i in 0..rows {
            let name = names.sym(&format!("f{}", i % 7));
            let mut event = Event::new(Kind::Python, name, i * 10, 0, 1, 2);
            event.dur_ns = (i % 3 > 0).then_some(i);
            event.args = (i % 5 == 0).then(|| names.sym(&format!("{{\"i\":{i}}}")));
            event.file = (i % 2 == 0).then(|| names.sym("a.py"));
            event.line = Some(7);
            event.value = (i % 4 == 0).then_some(0.5);
            writer.push(&event, &names).unwrap();
            events.push(event);
        }
        writer.finish().unwrap();
        (folder, path, events, names)
    }

    fn texts(events: &[Event], names: &Names) -> Vec<String> {
        let text = |sym: Option<Sym>| sym.map(|sym| names.text(sym).to_owned());
        let plain = |e: &Event| Event {
            name: Sym(0),
            file: None,
            args: None,
            ..*e
        };
        events
            .iter()
            .map(|e| {
                format!(
                    "{:?} {:?} {:?} {:?}",
                    plain(e),
                    names.text(e.name),
                    text(e.file),
                    text(e.args)
                )
            })
            .collect()
    }

    #[test]
    fn both_forms_give_back_what_was_written() {
        for name in ["a.arrow", "a.parquet"] {
            let (_folder, path, events, names) = written(name, 1234);
            let mut reader = Reader::open_hashed(&Source::from(path.as_path())).unwrap();
            let (mut again, mut others) = (Vec::new(), Names::default());
            while reader.next_batch(&mut others, &mut again).unwrap() {}
            assert!(!reader.next_batch(&mut others, &mut again).unwrap());
            assert_eq!(texts(&again, &others), texts(&events, &names));
            let whole = blake3::hash(&std::fs::read(&path).unwrap())
                .to_hex()
                .to_string();
            let hash = reader.content_hash().unwrap();
            assert_eq!(hash, Some(whole));
        }
    }

    #[test]
    fn the_same_rows_give_the_same_bytes() {
        for name in ["a.arrow", "a.parquet"] {
            let (_one, a, ..) = written(name, 500);
            let (_two, b, ..) = written(name, 500);
            assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap());
        }
    }

    #[test]
    fn a_thread_writes_the_same_bytes_and_tells_what_the_system_refuses() {
        let provenance = Provenance::raw(Step::new("test", vec![], vec![]));
        let fill = |mut writer: Writer, rows: i64, flush: bool| -> Result<()> {
            let mut names = Names::default();
            let name = names.sym("f");
            for i in 0..rows {
                writer.push(&Event::new(Kind::Python, name, i, 0, 1, 2), &names)?;
                if flush && i == rows / 2 {
                    writer.flush()?;
                }
            }
            writer.finish()
        };
        let folder = tempfile::tempdir().unwrap();
        for (ending, flush) in [("arrow", true), ("arrow", false), ("parquet", false)] {
            let [here, beside] = ["here", "beside"].map(|name| {
                let path = folder.path().join(name).with_extension(ending);
                let writer = Writer::create(&Sink::from(path.as_path()), &provenance).unwrap();
                let writer = writer.with_batch_rows(100);
                let writer = match name {
                    "here" => writer,
                    _ => writer.beside().unwrap(),
                };
                fill(writer, 1000, flush).unwrap();
                std::fs::read(path).unwrap()
            });
            assert!(here == beside, "{ending}");
        }
        let full = Path::new("/dev/full");
        for rows in [1, 1_000_000] {
            let file = File::options().write(true).open(full).unwrap();
            let writer = Writer::to_file(file, full, &provenance).unwrap();
            let told = fill(writer.beside().unwrap(), rows, false);
            assert!(matches!(told, Err(Error::Io { .. })), "{rows}: {told:?}");
        }
    }
}

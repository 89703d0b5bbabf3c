//! The Parquet table.

use std::fs::File;
use std::io::{self, Seek};
use std::path::Path;

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::super::provenance::Provenance;
use super::{Metadata, PROVENANCE_KEY, VERSION_KEY, columns, guard};
use crate::cli::Output;
use crate::error::{Error, Result};

/// Rows of one row group.
const GROUP_ROWS: usize = 1 << 20;

/// Rows that are read at once: few enough that columns and rows stay in a processor's own cache, and that memory is
/// used again rather than given back to the system and asked for anew.
const READ_ROWS: usize = 1 << 13;

/// Columns that mostly count up or stay: their differences are small, and dictionaries of them useless, or slower to
/// look things up in than a difference is to take.
const COUNTING: [&str; 9] = [
    "start_ns",
    "dur_ns",
    "process",
    "pid",
    "tid",
    "correlation",
    "flow",
    "parent",
    "cause",
];

/// A file being read.
#[derive(Debug)]
pub struct Table {
    batches: Batches,
    /// Rows of each row group.
    groups: Vec<u64>,
    rows: u64,
    read: u64,
    /// The file once more, to be hashed.
    file: Option<File>,
}

/// The reader is made when the first row is asked for: until then it may be said what is wanted.
struct Batches {
    opened: Option<ParquetRecordBatchReaderBuilder<File>>,
    read: Option<ParquetRecordBatchReader>,
}

impl Batches {
    fn next(&mut self) -> std::result::Result<Option<RecordBatch>, String> {
        if let Some(opened) = self.opened.take() {
            self.read = Some(opened.build().map_err(|error| error.to_string())?);
        }
        let next = self.read.as_mut().and_then(Iterator::next);
        next.transpose().map_err(|error| error.to_string())
    }
}

impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Batches")
    }
}

impl Table {
    /// Reads the footer and checks it.
    pub fn open(file: File, path: &Path, hashed: bool) -> Result<(Table, Metadata)> {
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let again = match hashed {
            true => Some(file.try_clone().map_err(Error::io("open", path))?),
            false => None,
        };
        closed(&file, length, path)?;
        let damaged = |what: String| Error::Corrupt {
            path: path.to_owned(),
            place: "in its footer".into(),
            what,
        };
        let builder = guard(|| ParquetRecordBatchReaderBuilder::try_new(file)).map_err(damaged)?;
        let footer = builder.metadata().file_metadata();
        let get = |key: &str| {
            let pairs = footer.key_value_metadata()?;
            pairs.iter().find(|p| p.key == key)?.value.clone()
        };
        let metadata = Metadata::check(get, builder.schema(), path)?;
        let groups: Option<Vec<u64>> = builder
            .metadata()
            .row_groups()
            .iter()
            .map(|group| u64::try_from(group.num_rows()).ok())
            .collect();
        let rows = u64::try_from(footer.num_rows()).ok();
        let (Some(groups), Some(rows)) = (groups, rows) else {
            return Err(damaged("a negative number of rows".into()));
        };
        if groups.iter().try_fold(0u64, |sum, &n| sum.checked_add(n)) != Some(rows) {
            return Err(damaged("row groups do not add up".into()));
        }
        let builder = builder.with_batch_size(READ_ROWS);
        let table = Table {
            batches: Batches {
                opened: Some(builder),
                read: None,
            },
            groups,
            rows,
            read: 0,
            file: again,
        };
        Ok((table, metadata))
    }

    /// Rows of the file, its end mark included.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Columns that are not to be read.
    pub fn leave_out(&mut self, columns: &[&str]) {
        let Some(opened) = self.batches.opened.take() else {
            return;
        };
        let schema = opened.parquet_schema();
        let wanted = |at: &usize| !columns.contains(&schema.column(*at).name());
        let wanted = (0..schema.num_columns()).filter(wanted);
        let mask = ProjectionMask::leaves(schema, wanted);
        self.batches.opened = Some(opened.with_projection(mask));
    }

    /// The next batch and its place.
    pub fn next_batch(&mut self, path: &Path) -> Result<Option<(RecordBatch, String)>> {
        let place = self.place();
        let batch = guard(|| self.batches.next());
        let damaged = |what: String| Error::Corrupt {
            path: path.to_owned(),
            place: place.clone(),
            what,
        };
        match batch.map_err(damaged)? {
            Some(batch) => {
                self.read += batch.num_rows() as u64;
                Ok(Some((batch, place)))
            }
            None if self.read != self.rows => Err(damaged(format!(
                "{} rows of {} are there",
                self.read, self.rows
            ))),
            None => Ok(None),
        }
    }

    fn place(&self) -> String {
        let mut before = 0;
        for (group, rows) in self.groups.iter().enumerate() {
            before += rows;
            if self.read < before {
                return format!("in row group {group}, at row {}", self.read);
            }
        }
        format!("after row {}", self.read)
    }

    /// blake3 of the whole file.
    pub fn hash(&mut self, path: &Path) -> Result<Option<String>> {
        let Some(file) = &mut self.file else {
            return Ok(None);
        };
        let mut hasher = blake3::Hasher::new();
        let hashed = file.rewind().and_then(|()| io::copy(file, &mut hasher));
        hashed.map_err(Error::io("read", path))?;
        Ok(Some(hasher.finalize().to_hex().to_string()))
    }
}

/// The file ends as every Parquet file does: with a footer that fits, and its magic.
fn closed(file: &File, length: u64, path: &Path) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let cut = || Error::Cut {
        path: path.to_owned(),
        place: format!("at byte {length}"),
    };
    let mut tail = [0; 8];
    let Some(at) = length.checked_sub(8).filter(|&at| at >= 4) else {
        return Err(cut());
    };
    file.read_exact_at(&mut tail, at)
        .map_err(Error::io("read", path))?;
    let footer = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
    match tail.ends_with(b"PAR1") && u64::from(footer) <= at - 4 {
        true => Ok(()),
        false => Err(cut()),
    }
}

/// A file being written.
#[derive(Debug)]
pub struct Builder {
    to: ArrowWriter<Output>,
}

impl Builder {
    pub fn new(output: Output, provenance: &Provenance) -> Result<Builder> {
        let path = output.path().to_owned();
        let json = serde_json::to_string(provenance).map_err(|error| {
            Error::invalid(&path, format!("provenance cannot be written: {error}"))
        })?;
        let mut properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_created_by(format!("inferscope {}", env!("CARGO_PKG_VERSION")))
            .set_key_value_metadata(Some(vec![
                KeyValue::new(VERSION_KEY.to_owned(), provenance.version.to_string()),
                KeyValue::new(PROVENANCE_KEY.to_owned(), json),
            ]));
        for column in COUNTING {
            let column = ColumnPath::from(column);
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        }
        let options = ArrowWriterOptions::new().with_properties(properties.build());
        let to = ArrowWriter::try_new_with_options(output, columns::schema([]), options);
        let to = to.map_err(|error| fault(&path, error))?;
        Ok(Builder { to })
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let wrote = self.to.write(batch);
        wrote.map_err(|error| self.fault(error))
    }

    pub fn flush(&mut self) -> Result<()> {
        let flushed = self.to.flush();
        flushed.map_err(|error| self.fault(error))?;
        let output = self.to.inner_mut();
        io::Write::flush(output).map_err(|error| self.to.inner().fault(error))
    }

    pub fn finish(self) -> Result<()> {
        let path = self.to.inner().path().to_owned();
        let output = self.to.into_inner();
        output.map_err(|error| fault(&path, error))?.finish()
    }

    fn fault(&self, error: ParquetError) -> Error {
        fault(self.to.inner().path(), error)
    }
}

/// The [`Error`] behind a Parquet writer's.
fn fault(path: &Path, error: ParquetError) -> Error {
    let source = match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => *source,
            Err(other) => io::Error::other(other.to_string()),
        },
        other => io::Error::other(other.to_string()),
    };
    crate::cli::fault(path, source)
}

//! The Arrow IPC stream being written: what several columns share is in the file once.
//!
//! Most columns of a recording are null in all rows of a batch, and all of these have the same zeros in the place of
//! numbers. Arrow's writer writes these zeros for each of them, which is half of the stream; where a column's buffers are is
//! in the head of a message, so that many may be in one place.

use std::collections::HashMap;
use std::io::Write;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use arrow::ipc::convert::IpcSchemaEncoder;
use arrow::ipc::writer::DictionaryTracker;
use arrow::ipc::{
    Buffer as Place, DictionaryBatch, DictionaryBatchArgs, FieldNode, Message, MessageArgs,
    MessageHeader, MetadataVersion, RecordBatch as Head, RecordBatchArgs,
};
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use super::super::provenance::Provenance;
use super::ipc::CONTINUATION;
use super::{PROVENANCE_KEY, VERSION_KEY, columns};
use crate::cli::Output;
use crate::error::{Error, Result};

/// Messages and buffers begin at multiples of so many bytes, as Arrow recommends for vector instructions.
const ALIGN: usize = 64;
const PADDING: [u8; ALIGN] = [0; ALIGN];

/// A stream being written.
#[derive(Debug)]
pub struct Sender {
    to: Output,
}

impl Sender {
    /// Writes the schema.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn new(output: Output, provenance: &Provenance) -> Result<Sender> {
        let json = serde_json::to_string(provenance).map_err(|error| {
            Error::invalid(
                output.path(),
                format!("provenance cannot be written: {error}"),
            )
        })?;
        let schema = columns::schema([
            (VERSION_KEY.to_owned(), provenance.version.to_string()),
            (PROVENANCE_KEY.to_owned(), json),
        ]);
        let mut sender = Sender { to: output };
        let mut tracker = DictionaryTracker::new(false);
        let mut builder = FlatBufferBuilder::new();
        let header = IpcSchemaEncoder::new()
            .with_dictionary_tracker(&mut tracker)
            .schema_to_fb_offset(&mut builder, &schema);
        let header = Some(header.as_union_value());
        sender.message(builder, MessageHeader::Schema, header, &Body::default())?;
        Ok(sender)
    }

    /// Writes a batch, behind the dictionaries of its columns of texts.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let dictionaries = batch.columns().iter().filter_map(texts);
        for (id, texts) in dictionaries.enumerate() {
            let body = Body::of([texts]);
            let mut builder = FlatBufferBuilder::new();
            let data = Some(body.head(&mut builder, texts.len()));
            let args = DictionaryBatchArgs {
                id: id as i64,
                data,
                isDelta: false,
            };
            let header = DictionaryBatch::create(&mut builder, &args);
            let header = Some(header.as_union_value());
            self.message(builder, MessageHeader::DictionaryBatch, header, &body)?;
        }
        let body = Body::of(batch.columns());
        let mut builder = FlatBufferBuilder::new();
        let header = body.head(&mut builder, batch.num_rows());
        let header = Some(header.as_union_value());
        self.message(builder, MessageHeader::RecordBatch, header, &body)
    }

    /// Hands over to the system what was written.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn flush(&mut self) -> Result<()> {
        let flushed = self.to.flush();
        flushed.map_err(|error| self.to.fault(error))
    }

    /// Writes the end mark and closes the output.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn finish(mut self) -> Result<()> {
        self.put(&CONTINUATION)?;
        self.put(&[0; 4])?;
        self.to.finish()
    }

    fn message(
        &mut self,
        mut builder: FlatBufferBuilder<'_>,
        header_type: MessageHeader,
        header: Option<WIPOffset<UnionWIPOffset>>,
        body: &Body,
    ) -> Result<()> {
        let args = MessageArgs {
            version: MetadataVersion::V5,
            header_type,
            header,
            bodyLength: body.bytes as i64,
            custom_metadata: None,
        };
        let message = Message::create(&mut builder, &args);
        builder.finish(message, None);
        let head = builder.finished_data();
        // The mark and the length stand before it: what follows is aligned.
        let padding = padding(CONTINUATION.len() + 4 + head.len());
        let length = (head.len() + padding) as u32;
        self.put(&CONTINUATION)?;
        self.put(&length.to_le_bytes())?;
        self.put(head)?;
        self.put(&PADDING[..padding])?;
        for buffer in &body.buffers {
            self.put(buffer)?;
            self.put(&PADDING[..self::padding(buffer.len())])?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.to.write_all(bytes);
        written.map_err(|error| self.to.fault(error))
    }
}

/// Bytes up to the next multiple of [`ALIGN`].
fn padding(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN) - bytes
}

/// The dictionary of a column that has one.
fn texts(column: &ArrayRef) -> Option<&ArrayRef> {
    column.as_any_dictionary_opt().map(|array| array.values())
}

/// What stands behind the head of a message, and where.
#[derive(Default)]
struct Body {
    nodes: Vec<FieldNode>,
    places: Vec<Place>,
    /// Each with its padding behind it.
    buffers: Vec<Buffer>,
    bytes: usize,
}

impl Body {
    /// Of columns as [`columns::Columns`] makes them: none is a part of a longer one.
    fn of<'a>(columns: impl IntoIterator<Item = &'a ArrayRef>) -> Body {
        let mut body = Body::default();
        let mut wanted = Vec::new();
        for column in columns {
            let data = column.to_data();
            let (rows, nulls) = (data.len(), data.null_count());
            body.nodes.push(FieldNode::new(rows as i64, nulls as i64));
            let valid = data.nulls().filter(|_| nulls > 0);
            let valid = valid.map(|nulls| nulls.buffer().slice_with_length(0, rows.div_ceil(8)));
            wanted.push(valid.unwrap_or_default());
            wanted.extend(used(&data));
        }
        // The buffer that begins at an address, by its number: the longest of those that do.
        let mut known: HashMap<*const u8, usize> = HashMap::new();
        let mut numbers = Vec::with_capacity(wanted.len());
        for buffer in &wanted {
            let number = *known.entry(buffer.as_ptr()).or_insert_with(|| {
                body.buffers.push(Buffer::default());
                body.buffers.len() - 1
            });
            if buffer.len() > body.buffers[number].len() {
                body.buffers[number] = buffer.clone();
            }
            numbers.push(number);
        }
        let mut starts = Vec::with_capacity(body.buffers.len());
        for buffer in &body.buffers {
            starts.push(body.bytes as i64);
            body.bytes += buffer.len().next_multiple_of(ALIGN);
        }
        let places = wanted.iter().zip(numbers);
        let places = places.map(|(buffer, at)| Place::new(starts[at], buffer.len() as i64));
        body.places = places.collect();
        body
    }

    fn head<'b>(&self, builder: &mut FlatBufferBuilder<'b>, rows: usize) -> WIPOffset<Head<'b>> {
        let args = RecordBatchArgs {
            length: rows as i64,
            nodes: Some(builder.create_vector(&self.nodes)),
            buffers: Some(builder.create_vector(&self.places)),
            compression: None,
            variadicBufferCounts: None,
        };
        Head::create(builder, &args)
    }
}

/// The parts of a column's buffers that it uses: what columns share is as long as the longest needs it.
fn used(data: &ArrayData) -> Vec<Buffer> {
    let first = |bytes: usize| data.buffers()[0].slice_with_length(0, bytes);
    match data.data_type() {
        DataType::Utf8 => {
            let offsets = first((data.len() + 1) * size_of::<i32>());
            let end = offsets.typed_data::<i32>().last().copied();
            let end = end.unwrap_or(0) as usize;
            vec![offsets, data.buffers()[1].slice_with_length(0, end)]
        }
        DataType::Dictionary(keys, _) => {
            vec![first(data.len() * keys.primitive_width().unwrap_or(0))]
        }
        numbers => vec![first(data.len() * numbers.primitive_width().unwrap_or(0))],
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use arrow::datatypes::Int32Type;
    use arrow::ipc::reader::StreamReader;

    use super::*;
    use crate::cli::Sink;
    use crate::trace::provenance::Step;
    use crate::trace::{Event, Kind, Names, Writer};

    /// Writes rows that `change` was applied to; the bytes of the stream.
    fn stream(rows: i64, change: impl Fn(i64, &mut Event, &mut Names)) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.arrow");
        let provenance = Provenance::raw(Step::new("isc-record", vec![], vec![]));
        let mut writer = Writer::create(&Sink::from(path.as_path()), &provenance).unwrap();
        let mut names = Names::default();
        for at in 0..rows {
            let name = names.sym(&format!("f{}", at % 7));
            let mut event = Event::new(Kind::Python, name, at, 0, 1, 2);
            change(at, &mut event, &mut names);
            writer.push(&event, &names).unwrap();
        }
        writer.finish().unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn arrows_own_reader_finds_every_column() {
        let bytes = stream(1000, |at, event, names| {
            event.dur_ns = (at % 3 > 0).then_some(at);
            event.file = Some(names.sym("a.py"));
            event.args = (at == 500).then(|| names.sym("{}"));
        });
        let reader = StreamReader::try_new(bytes.as_slice(), None).unwrap();
        let batches: Vec<RecordBatch> = reader.map(|batch| batch.unwrap()).collect();
        let [batch] = batches.as_slice() else {
            panic!("{} batches", batches.len());
        };
        assert_eq!(batch.num_rows(), 1001);
        for column in batch.columns() {
            column.to_data().validate_full().unwrap();
        }
        let count = |name| batch.column_by_name(name).unwrap().null_count();
        assert_eq!(count("start_ns"), 0);
        assert_eq!(count("dur_ns"), 334 + 1);
        assert_eq!(count("file"), 1);
        assert_eq!(count("args"), 1000);
        for null in [
            "device",
            "stream",
            "correlation",
            "flow",
            "parent",
            "cause",
            "bytes",
            "value",
        ] {
            assert_eq!(count(null), 1001, "{null}");
        }
        let names = batch.column_by_name("name").unwrap();
        let names = names
            .as_dictionary::<Int32Type>()
            .downcast_dict::<StringArray>();
        assert_eq!(names.unwrap().into_iter().nth(9), Some(Some("f2")));
    }

    #[test]
    fn columns_of_nulls_take_the_place_of_one() {
        let rows = 50_000;
        let few = stream(rows, |_, _, _| {}).len() as i64;
        let more = stream(rows, |_, event, _| event.value = Some(0.5)).len() as i64;
        // 40 bytes a row have values; 9 more columns do not, and 60 bytes a row they would take
        assert!((40 * rows..50 * rows).contains(&few), "{few}");
        assert!((7 * rows..9 * rows).contains(&(more - few)), "{more}");
    }
}

//! Rows to columns and back: the order and types of `formats/trace-v1.md`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, AsArray, DictionaryArray, Float64Builder, Int32Builder,
    Int64Builder, PrimitiveArray, RecordBatch, StringArray, StringBuilder, UInt32Builder,
    UInt64Builder,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef,
    UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;

use super::super::schema::{Event, Kind, Names, Sym};
use crate::error::{Error, Result, nearest};

/// Every column: name, type, whether it may be null.
fn fields() -> Vec<Field> {
    let text = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let (i64s, u32s, u64s) = (DataType::Int64, DataType::UInt32, DataType::UInt64);
    vec![
        Field::new("start_ns", i64s.clone(), false),
        Field::new("dur_ns", i64s.clone(), true),
        Field::new("kind", text(), false),
        Field::new("name", text(), false),
        Field::new("file", text(), true),
        Field::new("line", u32s.clone(), true),
        Field::new("process", u32s.clone(), false),
        Field::new("pid", u32s.clone(), false),
        Field::new("tid", u64s.clone(), false),
        Field::new("device", u32s.clone(), true),
        Field::new("stream", u32s, true),
        Field::new("correlation", u64s.clone(), true),
        Field::new("flow", u64s, true),
        Field::new("parent", i64s.clone(), true),
        Field::new("cause", i64s.clone(), true),
        Field::new("bytes", i64s, true),
        Field::new("value", DataType::Float64, true),
        Field::new("args", DataType::Utf8, true),
    ]
}

/// Names of the columns, in their order.
const COLUMNS: [&str; 18] = [
    "start_ns",
    "dur_ns",
    "kind",
    "name",
    "file",
    "line",
    "process",
    "pid",
    "tid",
    "device",
    "stream",
    "correlation",
    "flow",
    "parent",
    "cause",
    "bytes",
    "value",
    "args",
];

/// The table's schema, with this metadata.
pub fn schema(metadata: impl IntoIterator<Item = (String, String)>) -> SchemaRef {
    let metadata: HashMap<String, String> = metadata.into_iter().collect();
    Arc::new(Schema::new_with_metadata(fields(), metadata))
}

/// Every column is there, with its type. Others beside them are a newer writer's, and left alone.
pub fn check(schema: &Schema, path: &Path) -> Result<()> {
    for (wanted, column) in fields().iter().zip(COLUMNS) {
        let Ok(found) = schema.field_with_name(column) else {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            return Err(Error::MissingColumn {
                path: path.to_owned(),
                column,
                nearest: nearest(column, names).map(str::to_owned),
            });
        };
        if found.data_type() != wanted.data_type() {
            return Err(Error::ColumnType {
                path: path.to_owned(),
                column,
                found: super::one_line(&found.data_type().to_string()),
                wanted: wanted.data_type().to_string(),
            });
        }
    }
    Ok(())
}

/// Rows on their way into a batch.
#[derive(Debug, Default)]
pub struct Columns {
    start_ns: Int64Builder,
    dur_ns: Int64Builder,
    kind: Texts,
    name: Texts,
    file: Texts,
    line: UInt32Builder,
    process: UInt32Builder,
    pid: UInt32Builder,
    tid: UInt64Builder,
    device: UInt32Builder,
    stream: UInt32Builder,
    correlation: UInt64Builder,
    flow: UInt64Builder,
    parent: Int64Builder,
    cause: Int64Builder,
    bytes: Int64Builder,
    value: Float64Builder,
    args: StringBuilder,
    schema: Option<SchemaRef>,
    rows: usize,
}

impl Columns {
    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn push(&mut self, event: &Event, names: &Names) {
        self.start_ns.append_value(event.start_ns);
        self.dur_ns.append_option(event.dur_ns);
        self.kind.push_word(event.kind as u32, event.kind.as_str());
        self.name.push(Some(event.name), names);
        self.file.push(event.file, names);
        self.line.append_option(event.line);
        self.process.append_value(event.process);
        self.pid.append_value(event.pid);
        self.tid.append_value(event.tid);
        self.device.append_option(event.device);
        self.stream.append_option(event.stream);
        self.correlation.append_option(event.correlation);
        self.flow.append_option(event.flow);
        self.parent.append_option(event.parent);
        self.cause.append_option(event.cause);
        self.bytes.append_option(event.bytes);
        self.value.append_option(event.value);
        self.args
            .append_option(event.args.map(|sym| names.text(sym)));
        self.rows += 1;
    }

    /// The rows as a batch, and none are left.
    pub fn finish(&mut self) -> std::result::Result<RecordBatch, ArrowError> {
        self.rows = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.start_ns.finish()),
            Arc::new(self.dur_ns.finish()),
            Arc::new(self.kind.finish()?),
            Arc::new(self.name.finish()?),
            Arc::new(self.file.finish()?),
            Arc::new(self.line.finish()),
            Arc::new(self.process.finish()),
            Arc::new(self.pid.finish()),
            Arc::new(self.tid.finish()),
            Arc::new(self.device.finish()),
            Arc::new(self.stream.finish()),
            Arc::new(self.correlation.finish()),
            Arc::new(self.flow.finish()),
            Arc::new(self.parent.finish()),
            Arc::new(self.cause.finish()),
            Arc::new(self.bytes.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.args.finish()),
        ];
        let schema = self.schema.get_or_insert_with(|| schema([]));
        RecordBatch::try_new(schema.clone(), columns)
    }
}

/// A column of texts, with a dictionary of just the texts of this batch in the order of first use.
#[derive(Debug, Default)]
struct Texts {
    keys: Int32Builder,
    values: StringBuilder,
    /// Key of a symbol of the table `names`, if its round is this batch's.
    key_of: Vec<(u32, i32)>,
    key_of_text: HashMap<Box<str>, i32>,
    round: u32,
    names: u64,
}

impl Texts {
    fn push(&mut self, sym: Option<Sym>, names: &Names) {
        let Some(sym) = sym else {
            return self.keys.append_null();
        };
        if names.id() != self.names {
            // Rows of several tables alternate when sorted runs are merged: only one has the short way.
            if !self.keys.is_empty() {
                let key = self.key_of_text(names.text(sym));
                return self.keys.append_value(key);
            }
            self.names = names.id();
            self.key_of.clear();
        }
        self.push_word(sym.0, names.text(sym));
    }

    /// `slot` is a small number that always comes with the same word.
    fn push_word(&mut self, slot: u32, word: &str) {
        let slot = slot as usize;
        if slot >= self.key_of.len() {
            self.key_of.resize(slot + 1, (u32::MAX, 0));
        }
        let (round, key) = self.key_of[slot];
        if round == self.round {
            return self.keys.append_value(key);
        }
        let key = self.key_of_text(word);
        self.key_of[slot] = (self.round, key);
        self.keys.append_value(key);
    }

    fn key_of_text(&mut self, word: &str) -> i32 {
        if let Some(&key) = self.key_of_text.get(word) {
            return key;
        }
        let key = self.key_of_text.len() as i32;
        self.values.append_value(word);
        self.key_of_text.insert(word.into(), key);
        key
    }

    fn finish(&mut self) -> std::result::Result<DictionaryArray<Int32Type>, ArrowError> {
        self.key_of_text.clear();
        self.round += 1;
        if self.round == u32::MAX {
            self.round = 0;
            self.key_of.clear();
        }
        DictionaryArray::try_new(self.keys.finish(), Arc::new(self.values.finish()))
    }
}

/// Appends the rows of a batch whose schema was checked.
///
/// # Errors
/// A null where the format has none, or a kind that it does not know.
pub fn decode(
    batch: &RecordBatch,
    names: &mut Names,
    events: &mut Vec<Event>,
) -> std::result::Result<(), String> {
    let start_ns = numbers::<Int64Type>(batch, "start_ns")?;
    let dur_ns = numbers::<Int64Type>(batch, "dur_ns")?;
    let line = numbers::<UInt32Type>(batch, "line")?;
    let process = numbers::<UInt32Type>(batch, "process")?;
    let pid = numbers::<UInt32Type>(batch, "pid")?;
    let tid = numbers::<UInt64Type>(batch, "tid")?;
    let device = numbers::<UInt32Type>(batch, "device")?;
    let stream = numbers::<UInt32Type>(batch, "stream")?;
    let correlation = numbers::<UInt64Type>(batch, "correlation")?;
    let flow = numbers::<UInt64Type>(batch, "flow")?;
    let parent = numbers::<Int64Type>(batch, "parent")?;
    let cause = numbers::<Int64Type>(batch, "cause")?;
    let bytes = numbers::<Int64Type>(batch, "bytes")?;
    let value = numbers::<Float64Type>(batch, "value")?;
    let args = column(batch, "args")?
        .as_string_opt::<i32>()
        .ok_or("column args has another type")?;
    let kind = Words::new(batch, "kind")?;
    let mut name = Words::new(batch, "name")?;
    let mut file = Words::new(batch, "file")?;
    for (what, nulls) in [
        ("start_ns", start_ns.null_count()),
        ("process", process.null_count()),
        ("pid", pid.null_count()),
        ("tid", tid.null_count()),
    ] {
        if nulls > 0 {
            return Err(format!("{nulls} rows without {what}"));
        }
    }
    let mut kinds: Vec<Option<Kind>> = Vec::new();
    kinds.extend(
        kind.texts
            .iter()
            .map(|word| word.and_then(|w| w.parse().ok())),
    );
    events.reserve(batch.num_rows());
    for row in 0..batch.num_rows() {
        let kind = match kind.key(row) {
            Some(key) => kinds.get(key).copied().flatten().ok_or_else(|| {
                let word = kind.texts.iter().nth(key).flatten().unwrap_or("null");
                format!("unknown kind {:?}", super::one_line(word))
            })?,
            None => return Err("a row without kind".into()),
        };
        let name = name.sym(row, names).ok_or("a row without name")?;
        events.push(Event {
            start_ns: start_ns.value(row),
            dur_ns: optional(dur_ns, row),
            kind,
            name,
            file: file.sym(row, names),
            line: optional(line, row),
            process: process.value(row),
            pid: pid.value(row),
            tid: tid.value(row),
            device: optional(device, row),
            stream: optional(stream, row),
            correlation: optional(correlation, row),
            flow: optional(flow, row),
            parent: optional(parent, row),
            cause: optional(cause, row),
            bytes: optional(bytes, row),
            value: optional(value, row),
            args: args.is_valid(row).then(|| names.sym(args.value(row))),
        });
    }
    Ok(())
}

fn optional<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    array.is_valid(row).then(|| array.value(row))
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> std::result::Result<&'a ArrayRef, String> {
    batch
        .column_by_name(name)
        .ok_or_else(|| format!("no column {name}"))
}

fn numbers<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &str,
) -> std::result::Result<&'a PrimitiveArray<T>, String> {
    column(batch, name)?
        .as_primitive_opt::<T>()
        .ok_or_else(|| format!("column {name} has another type"))
}

/// A column of texts of one batch, each interned when it is first met.
struct Words<'a> {
    keys: &'a PrimitiveArray<Int32Type>,
    texts: &'a StringArray,
    syms: Vec<Option<Sym>>,
}

impl<'a> Words<'a> {
    fn new(batch: &'a RecordBatch, name: &str) -> std::result::Result<Words<'a>, String> {
        let wrong = || format!("column {name} has another type");
        let array = column(batch, name)?
            .as_dictionary_opt::<Int32Type>()
            .ok_or_else(wrong)?;
        let texts = array.values().as_string_opt::<i32>().ok_or_else(wrong)?;
        Ok(Words {
            keys: array.keys(),
            texts,
            syms: vec![None; texts.len()],
        })
    }

    fn key(&self, row: usize) -> Option<usize> {
        let key = self.keys.is_valid(row).then(|| self.keys.value(row))?;
        usize::try_from(key).ok()
    }

    fn sym(&mut self, row: usize, names: &mut Names) -> Option<Sym> {
        let key = self.key(row)?;
        let slot = self.syms.get_mut(key)?;
        if slot.is_none() && self.texts.is_valid(key) {
            *slot = Some(names.sym(self.texts.value(key)));
        }
        *slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_names_is_that_of_the_fields() {
        let fields = fields();
        assert!(fields.iter().map(|f| f.name().as_str()).eq(COLUMNS));
    }

    #[test]
    fn a_dictionary_holds_just_the_texts_of_its_batch_whatever_table_they_come_from() {
        let mut texts = Texts::default();
        let (mut one, mut two) = (Names::default(), Names::default());
        let (a, b) = (one.sym("a"), one.sym("b"));
        let other_b = two.sym("b");
        texts.push(Some(b), &one);
        texts.push(Some(other_b), &two);
        texts.push(Some(b), &one);
        let array = texts.finish().unwrap();
        assert_eq!(array.values().len(), 1);
        texts.push(Some(a), &one);
        let array = texts.finish().unwrap();
        assert_eq!(array.values().as_string::<i32>().value(0), "a");
    }
}

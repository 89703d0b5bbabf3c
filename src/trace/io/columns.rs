//! Rows to columns: the order and types of `formats/trace-v1.md`.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, DictionaryArray, PrimitiveArray, RecordBatch, StringArray,
    StringBuilder,
};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef,
    UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::super::schema::{Event, Names, Sym};
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
pub const COLUMNS: [&str; 18] = [
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
    start_ns: Numbers<Int64Type>,
    dur_ns: Numbers<Int64Type>,
    kind: Texts,
    name: Texts,
    file: Texts,
    line: Numbers<UInt32Type>,
    process: Numbers<UInt32Type>,
    pid: Numbers<UInt32Type>,
    tid: Numbers<UInt64Type>,
    device: Numbers<UInt32Type>,
    stream: Numbers<UInt32Type>,
    correlation: Numbers<UInt64Type>,
    flow: Numbers<UInt64Type>,
    parent: Numbers<Int64Type>,
    cause: Numbers<Int64Type>,
    bytes: Numbers<Int64Type>,
    value: Numbers<Float64Type>,
    args: StringBuilder,
    schema: Option<SchemaRef>,
    rows: usize,
    zeros: Zeros,
}

impl Columns {
    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn push(&mut self, event: &Event, names: &Names) {
        let row = self.rows;
        self.start_ns.push(row, Some(event.start_ns));
        self.dur_ns.push(row, event.dur_ns);
        self.kind
            .push_word(row, event.kind as u32, event.kind.as_str());
        self.name.push(row, Some(event.name), names);
        self.file.push(row, event.file, names);
        self.line.push(row, event.line);
        self.process.push(row, Some(event.process));
        self.pid.push(row, Some(event.pid));
        self.tid.push(row, Some(event.tid));
        self.device.push(row, event.device);
        self.stream.push(row, event.stream);
        self.correlation.push(row, event.correlation);
        self.flow.push(row, event.flow);
        self.parent.push(row, event.parent);
        self.cause.push(row, event.cause);
        self.bytes.push(row, event.bytes);
        self.value.push(row, event.value);
        if let Some(args) = event.args {
            self.args.append_nulls(row - self.args.len());
            self.args.append_value(names.text(args));
        }
        self.rows += 1;
    }

    /// The rows as a batch, and none are left.
    pub fn finish(&mut self) -> std::result::Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let zeros = &mut self.zeros;
        // One buffer for all of them: none needs more than 8 bytes for a row, and offsets need one more of theirs.
        zeros.get(rows * size_of::<u64>() + size_of::<i32>());
        let args = match self.args.is_empty() {
            true => {
                let offsets = OffsetBuffer::new(ScalarBuffer::new(zeros.get(0), 0, rows + 1));
                StringArray::try_new(offsets, Buffer::default(), Some(zeros.nulls(rows)))?
            }
            false => {
                self.args.append_nulls(rows - self.args.len());
                self.args.finish()
            }
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.start_ns.finish(rows, zeros)?),
            Arc::new(self.dur_ns.finish(rows, zeros)?),
            Arc::new(self.kind.finish(rows, zeros)?),
            Arc::new(self.name.finish(rows, zeros)?),
            Arc::new(self.file.finish(rows, zeros)?),
            Arc::new(self.line.finish(rows, zeros)?),
            Arc::new(self.process.finish(rows, zeros)?),
            Arc::new(self.pid.finish(rows, zeros)?),
            Arc::new(self.tid.finish(rows, zeros)?),
            Arc::new(self.device.finish(rows, zeros)?),
            Arc::new(self.stream.finish(rows, zeros)?),
            Arc::new(self.correlation.finish(rows, zeros)?),
            Arc::new(self.flow.finish(rows, zeros)?),
            Arc::new(self.parent.finish(rows, zeros)?),
            Arc::new(self.cause.finish(rows, zeros)?),
            Arc::new(self.bytes.finish(rows, zeros)?),
            Arc::new(self.value.finish(rows, zeros)?),
            Arc::new(args),
        ];
        let schema = self.schema.get_or_insert_with(|| schema([]));
        RecordBatch::try_new(schema.clone(), columns)
    }
}

/// A column of numbers. Most columns of a recording hold nothing but nulls: as long as that is so, they take no step.
#[derive(Debug)]
struct Numbers<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    /// A bit for each value: it is not null.
    valid: Vec<u64>,
    nulls: usize,
}

impl<T: ArrowPrimitiveType> Default for Numbers<T> {
    fn default() -> Numbers<T> {
        Numbers {
            values: Vec::new(),
            valid: Vec::new(),
            nulls: 0,
        }
    }
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    /// `row` is how many rows the table has so far.
    #[inline(always)]
    fn push(&mut self, row: usize, value: Option<T::Native>) {
        if value.is_none() && self.values.is_empty() {
            return; // nothing but nulls so far
        }
        if self.values.len() != row {
            self.fill(row);
        }
        if row.is_multiple_of(64) {
            self.valid.push(0);
        }
        if let Some(word) = self.valid.last_mut() {
            *word |= u64::from(value.is_some()) << (row % 64);
        }
        self.nulls += usize::from(value.is_none());
        self.values.push(value.unwrap_or_default());
    }

    /// Nulls up to a row, before the first number.
    #[cold]
    #[inline(never)]
    fn fill(&mut self, row: usize) {
        self.values.resize(row, T::Native::default());
        self.valid.resize(row.div_ceil(64), 0);
        self.nulls = row;
    }

    fn finish(
        &mut self,
        rows: usize,
        zeros: &mut Zeros,
    ) -> std::result::Result<PrimitiveArray<T>, ArrowError> {
        if self.values.is_empty() {
            let bytes = rows * size_of::<T::Native>();
            let values = ScalarBuffer::new(zeros.get(bytes), 0, rows);
            return PrimitiveArray::try_new(values, Some(zeros.nulls(rows)));
        }
        let taken = |values: &mut Vec<T::Native>| {
            let empty = Vec::with_capacity(values.len());
            std::mem::replace(values, empty)
        };
        let values = taken(&mut self.values);
        let valid = std::mem::take(&mut self.valid);
        let valid = (std::mem::take(&mut self.nulls) > 0).then(|| {
            // Arrow's bits are those of its bytes, the lowest first.
            let words: Vec<u64> = valid.into_iter().map(u64::to_le).collect();
            NullBuffer::new(BooleanBuffer::new(words.into(), 0, rows))
        });
        PrimitiveArray::try_new(values.into(), valid)
    }
}

/// What columns of nulls have in the place of numbers: one buffer for them all.
#[derive(Debug, Default)]
struct Zeros(Option<Buffer>);

impl Zeros {
    /// So many rows, all of them null.
    fn nulls(&mut self, rows: usize) -> NullBuffer {
        let bits = BooleanBuffer::new(self.get(rows.div_ceil(8)), 0, rows);
        NullBuffer::new(bits)
    }

    /// At least so many bytes.
    fn get(&mut self, bytes: usize) -> Buffer {
        match &self.0 {
            Some(zeros) if zeros.len() >= bytes => zeros.clone(),
            _ => {
                let zeros: Buffer = MutableBuffer::from_len_zeroed(bytes).into();
                self.0.insert(zeros).clone()
            }
        }
    }
}

/// A column of texts, with a dictionary of just the texts of this batch in the order of first use.
#[derive(Debug, Default)]
struct Texts {
    keys: Numbers<Int32Type>,
    values: StringBuilder,
    /// Key of a symbol of the table `names`, if its round is this batch's.
    key_of: Vec<(u32, i32)>,
    /// Keys by their texts, which stand in `values`.
    key_of_text: HashTable<i32>,
    hasher: RandomState,
    round: u32,
    names: u64,
}

impl Texts {
    #[inline(always)]
    fn push(&mut self, row: usize, sym: Option<Sym>, names: &Names) {
        let Some(sym) = sym else {
            return self.keys.push(row, None);
        };
        if names.id() != self.names {
            // Rows of several tables alternate when sorted runs are merged: only one has the short way.
            if !self.key_of_text.is_empty() {
                let key = self.key_of_text(names.text(sym));
                return self.keys.push(row, Some(key));
            }
            self.names = names.id();
            self.key_of.clear();
        }
        match self.key_of.get(sym.0 as usize) {
            Some(&(round, key)) if round == self.round => self.keys.push(row, Some(key)),
            _ => self.push_word(row, sym.0, names.text(sym)),
        }
    }

    /// `slot` is a small number that always comes with the same word.
    fn push_word(&mut self, row: usize, slot: u32, word: &str) {
        let slot = slot as usize;
        if slot >= self.key_of.len() {
            self.key_of.resize(slot + 1, (u32::MAX, 0));
        }
        let (round, key) = self.key_of[slot];
        if round == self.round {
            return self.keys.push(row, Some(key));
        }
        let key = self.key_of_text(word);
        self.key_of[slot] = (self.round, key);
        self.keys.push(row, Some(key));
    }

    fn key_of_text(&mut self, word: &str) -> i32 {
        let (texts, ends) = (self.values.values_slice(), self.values.offsets_slice());
        let text = |key: i32| {
            let at = key as usize;
            &texts[ends[at] as usize..ends[at + 1] as usize]
        };
        let hasher = &self.hasher;
        let entry = self.key_of_text.entry(
            hasher.hash_one(word.as_bytes()),
            |&key| text(key) == word.as_bytes(),
            |&key| hasher.hash_one(text(key)),
        );
        match entry {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                let key = self.values.len() as i32;
                place.insert(key);
                self.values.append_value(word);
                key
            }
        }
    }

    fn finish(
        &mut self,
        rows: usize,
        zeros: &mut Zeros,
    ) -> std::result::Result<DictionaryArray<Int32Type>, ArrowError> {
        self.key_of_text.clear();
        self.round += 1;
        if self.round == u32::MAX {
            self.round = 0;
            self.key_of.clear();
        }
        let keys = self.keys.finish(rows, zeros)?;
        DictionaryArray::try_new(keys, Arc::new(self.values.finish()))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};

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
        let zeros = &mut Zeros::default();
        texts.push(0, Some(b), &one);
        texts.push(1, Some(other_b), &two);
        texts.push(2, Some(b), &one);
        let array = texts.finish(3, zeros).unwrap();
        assert_eq!((array.len(), array.values().len()), (3, 1));
        texts.push(0, Some(a), &one);
        let array = texts.finish(1, zeros).unwrap();
        assert_eq!(array.values().as_string::<i32>().value(0), "a");
    }

    #[test]
    fn numbers_come_back_wherever_the_nulls_are() {
        let mut numbers = Numbers::<Int64Type>::default();
        let zeros = &mut Zeros::default();
        let cases: [&[Option<i64>]; 6] = [
            &[],
            &[None, None],
            &[None, None, Some(1), None],
            &[Some(1), Some(2)],
            &[Some(1), None, None, Some(0)],
            &[None],
        ];
        for case in cases {
            for (row, value) in case.iter().enumerate() {
                numbers.push(row, *value);
            }
            let array = numbers.finish(case.len(), zeros).unwrap();
            assert_eq!(array.iter().collect::<Vec<_>>(), case);
        }
    }
}

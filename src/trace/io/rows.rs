//! Batches to rows: what [`super::columns`] wrote, read back.
//!
//! Most columns of a batch hold nothing but nulls, or none; they are told apart once for the batch, not in each row.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, Float64Type, Int32Type, Int64Type, UInt32Type, UInt64Type,
};

use super::super::schema::{Event, Kind, Names, Sym};

/// Columns that join rows of a timeline by their numbers. Who goes through it row by row has no use for them.
pub const LINKS: [&str; 2] = ["parent", "cause"];

/// What of a row is read, and what is known of texts from one batch to the next.
#[derive(Debug)]
pub struct Decoder {
    /// Kinds of rows whose args are read.
    pub args_of: fn(Kind) -> bool,
    /// Whether [`LINKS`] are read.
    pub links: bool,
    names: Known,
    files: Known,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            args_of: |_| true,
            links: true,
            names: Known::default(),
            files: Known::default(),
        }
    }
}

impl Decoder {
    /// Appends some rows of a batch whose schema was checked.
    ///
    /// # Errors
    /// A null where the format has none, or a kind that it does not know.
    pub fn decode(
        &mut self,
        batch: &RecordBatch,
        rows: Range<usize>,
        names: &mut Names,
        events: &mut Vec<Event>,
    ) -> Result<(), String> {
        let start_ns = full::<Int64Type>(batch, "start_ns")?;
        let dur_ns = some::<Int64Type>(batch, "dur_ns")?;
        let line = some::<UInt32Type>(batch, "line")?;
        let process = full::<UInt32Type>(batch, "process")?;
        let pid = full::<UInt32Type>(batch, "pid")?;
        let tid = full::<UInt64Type>(batch, "tid")?;
        let device = some::<UInt32Type>(batch, "device")?;
        let stream = some::<UInt32Type>(batch, "stream")?;
        let correlation = some::<UInt64Type>(batch, "correlation")?;
        let flow = some::<UInt64Type>(batch, "flow")?;
        let link = |name| match self.links {
            true => some::<Int64Type>(batch, name),
            false => Ok(Numbers::Null),
        };
        let (parent, cause) = (link("parent")?, link("cause")?);
        let bytes = some::<Int64Type>(batch, "bytes")?;
        let value = some::<Float64Type>(batch, "value")?;
        let args = column(batch, "args")?
            .as_string_opt::<i32>()
            .ok_or("column args has another type")?;
        let args_of = Kind::ALL.map(|(kind, _)| (self.args_of)(kind));
        let words = Words::of(batch, "kind")?;
        let kinds: Vec<Option<Kind>> = (words.texts.iter())
            .map(|word| word.and_then(|word| word.parse().ok()))
            .collect();
        let name = Words::of(batch, "name")?;
        let name_syms = self.names.of(&name, names);
        let file = Words::of(batch, "file")?;
        let file_syms = self.files.of(&file, names);
        events.reserve(rows.len());
        for row in rows {
            let key = words.keys.get(row).ok_or("a row without kind")? as usize;
            let kind = kinds.get(key).copied().flatten().ok_or_else(|| {
                let word = words.texts.iter().nth(key).flatten();
                format!("unknown kind {:?}", super::one_line(word.unwrap_or("null")))
            })?;
            let name = name.sym(row, name_syms, names);
            let args = match args_of[kind as usize] && args.is_valid(row) {
                true => Some(names.sym(args.value(row))),
                false => None,
            };
            events.push(Event {
                start_ns: start_ns[row],
                dur_ns: dur_ns.get(row),
                kind,
                name: name.ok_or("a row without name")?,
                file: file.sym(row, file_syms, names),
                line: line.get(row),
                process: process[row],
                pid: pid[row],
                tid: tid[row],
                device: device.get(row),
                stream: stream.get(row),
                correlation: correlation.get(row),
                flow: flow.get(row),
                parent: parent.get(row),
                cause: cause.get(row),
                bytes: bytes.get(row),
                value: value.get(row),
                args,
            });
        }
        Ok(())
    }
}

/// A column of numbers, by where it has nulls.
enum Numbers<'a, T> {
    /// Everywhere.
    Null,
    /// Nowhere.
    Full(&'a [T]),
    Some(&'a [T], &'a NullBuffer),
}

impl<'a, T: ArrowNativeType> Numbers<'a, T> {
    fn of<P: ArrowPrimitiveType<Native = T>>(array: &'a PrimitiveArray<P>) -> Numbers<'a, T> {
        match array.nulls() {
            Some(nulls) if nulls.null_count() == array.len() => Numbers::Null,
            Some(nulls) if nulls.null_count() > 0 => Numbers::Some(array.values(), nulls),
            _ => Numbers::Full(array.values()),
        }
    }

    #[inline(always)]
    fn get(&self, row: usize) -> Option<T> {
        match self {
            Numbers::Null => None,
            Numbers::Full(values) => Some(values[row]),
            Numbers::Some(values, nulls) => nulls.is_valid(row).then(|| values[row]),
        }
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, String> {
    batch
        .column_by_name(name)
        .ok_or_else(|| format!("no column {name}"))
}

fn numbers<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a PrimitiveArray<T>, String> {
    column(batch, name)?
        .as_primitive_opt::<T>()
        .ok_or_else(|| format!("column {name} has another type"))
}

/// A column that may have nulls.
fn some<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<Numbers<'a, T::Native>, String> {
    Ok(Numbers::of(numbers::<T>(batch, name)?))
}

/// A column that has none.
fn full<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &str,
) -> Result<&'a [T::Native], String> {
    let array = numbers::<T>(batch, name)?;
    match array.null_count() {
        0 => Ok(array.values()),
        nulls => Err(format!("{nulls} rows without {name}")),
    }
}

/// A column of texts of one batch.
struct Words<'a> {
    keys: Numbers<'a, i32>,
    /// The dictionary, and as what it is.
    values: &'a ArrayRef,
    texts: &'a StringArray,
}

impl<'a> Words<'a> {
    fn of(batch: &'a RecordBatch, name: &str) -> Result<Words<'a>, String> {
        let wrong = || format!("column {name} has another type");
        let array = column(batch, name)?
            .as_dictionary_opt::<Int32Type>()
            .ok_or_else(wrong)?;
        let values = array.values();
        Ok(Words {
            keys: Numbers::of(array.keys()),
            values,
            texts: values.as_string_opt::<i32>().ok_or_else(wrong)?,
        })
    }

    /// The symbol of a row's text, which becomes known when it is first met.
    #[inline(always)]
    fn sym(&self, row: usize, known: &mut [Option<Sym>], names: &mut Names) -> Option<Sym> {
        let key = usize::try_from(self.keys.get(row)?).ok()?;
        let slot = known.get_mut(key)?;
        if slot.is_none() && self.texts.is_valid(key) {
            *slot = Some(names.sym(self.texts.value(key)));
        }
        *slot
    }
}

/// The symbols of a dictionary's texts, as far as they were met. Batches of one row group share their dictionary.
#[derive(Debug, Default)]
struct Known {
    /// The dictionary, and the table that the symbols are of.
    of: Option<(ArrayRef, u64)>,
    syms: Vec<Option<Sym>>,
}

impl Known {
    fn of(&mut self, words: &Words, names: &Names) -> &mut [Option<Sym>] {
        let same = |(values, id): &(ArrayRef, u64)| {
            std::ptr::addr_eq(values.as_ref(), words.values.as_ref()) && *id == names.id()
        };
        if !self.of.as_ref().is_some_and(same) {
            self.of = Some((words.values.clone(), names.id()));
            self.syms.clear();
            self.syms.resize(words.texts.len(), None);
        }
        &mut self.syms
    }
}

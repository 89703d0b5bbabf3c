//! The rows of one table in batches, and the cells of one row.

use std::borrow::Cow;
use std::cell::Cell;

use rusqlite::Row;
use rusqlite::types::{Type, ValueRef};

use super::super::Lenient;
use super::{Database, Mapped, quoted, words};
use crate::error::{Error, Result};
use crate::trace::{Event, Names};

/// Rows handed over at once, and bytes of text in them.
const BATCH: i64 = 1 << 14;
const BATCH_BYTES: usize = 32 << 20;

/// Where mapped rows go.
#[derive(Debug)]
pub struct To<'a> {
    pub names: &'a mut Names,
    pub rows: &'a mut Vec<Event>,
}

/// The rows of one table, from the first to the last.
#[derive(Debug)]
pub struct Table {
    name: String,
    columns: &'static [&'static str],
    query: String,
    /// The next rowid, without a look at what the row holds.
    next: String,
    /// The least rowid that was not read.
    from: Option<i64>,
}

impl Table {
    /// These columns of a table; those it does not have are null. `filter`: an SQL condition on columns that it has.
    pub fn new(db: &Database, name: &str, columns: &'static [&'static str], filter: &str) -> Table {
        let part = |column: &&str| match db.has(name, column) {
            true => format!(", \"{column}\""),
            false => ", NULL".into(),
        };
        let parts: String = columns.iter().map(part).collect();
        let from = format!("{} AS t", quoted(name));
        Table::of(name, columns, &parts, &from, filter)
    }

    /// A table `t` joined with others: `parts` are the columns, each after a comma.
    pub fn of(
        name: &str,
        columns: &'static [&'static str],
        parts: &str,
        from: &str,
        filter: &str,
    ) -> Table {
        let filter = if filter.is_empty() { "1" } else { filter };
        Table {
            name: name.to_owned(),
            columns,
            query: format!(
                "SELECT t.rowid{parts} FROM {from} WHERE t.rowid >= ?1 AND {filter} ORDER BY t.rowid LIMIT ?2"
            ),
            next: format!(
                "SELECT t.rowid FROM {from} WHERE t.rowid >= ?1 AND {filter} ORDER BY t.rowid LIMIT 1"
            ),
            from: Some(i64::MIN),
        }
    }

    /// Maps the next rows; `false` when there are no more.
    pub fn each(
        &mut self,
        db: &Database,
        lenient: &mut Lenient,
        to: &mut To<'_>,
        mut map: impl FnMut(&Cells<'_, '_>, &mut To<'_>) -> Mapped,
    ) -> Result<bool> {
        let Some(from) = self.from else {
            return Ok(false);
        };
        let full = to.names.bytes() + BATCH_BYTES;
        let mut count = 0;
        let mut read = || -> rusqlite::Result<Result<bool>> {
            let mut query = db.connection.prepare_cached(&self.query)?;
            let mut rows = query.query([from, BATCH])?;
            while let Some(row) = rows.next()? {
                let rowid: i64 = row.get(0)?;
                if self.from.is_none_or(|from| rowid < from) {
                    return Ok(Err(corrupt(db, &self.name, rowid, "rows are out of order")));
                }
                self.from = rowid.checked_add(1);
                count += 1;
                let cells = Cells {
                    row,
                    columns: self.columns,
                    next: Cell::new(0),
                };
                match map(&cells, to) {
                    Err(what) if !lenient.skip() => {
                        return Ok(Err(corrupt(db, &self.name, rowid, &what)));
                    }
                    _ => {}
                }
                if to.names.bytes() > full {
                    return Ok(Ok(true));
                }
            }
            Ok(Ok(count == BATCH))
        };
        match read() {
            Ok(done) => done,
            Err(error) => self.stopped(db, &words(&error), lenient),
        }
    }

    /// SQLite could not read the next row: an error, or a row left out. Whether to go on.
    fn stopped(&mut self, db: &Database, what: &str, lenient: &mut Lenient) -> Result<bool> {
        let from = self.from.unwrap_or(i64::MAX);
        let next = db.find(&self.next, from, |row| row.get::<_, i64>(0));
        match next {
            Ok(Some(rowid)) if rowid >= from => {
                if !lenient.skip() {
                    return Err(corrupt(db, &self.name, rowid, what));
                }
                self.from = rowid.checked_add(1);
                Ok(self.from.is_some())
            }
            _ if lenient.skip() => Ok(false),
            _ => Err(Error::Corrupt {
                path: db.path.clone(),
                place: format!("in {}", self.name),
                what: what.to_owned(),
            }),
        }
    }
}

fn corrupt(db: &Database, table: &str, rowid: i64, what: &str) -> Error {
    Error::Corrupt {
        path: db.path.clone(),
        place: format!("in {table}, row {rowid}"),
        what: what.to_owned(),
    }
}

/// One row, by the names of its columns.
#[derive(Debug)]
pub struct Cells<'r, 's> {
    row: &'r Row<'s>,
    columns: &'static [&'static str],
    /// Columns are mostly asked for in the order in which they are listed.
    next: Cell<usize>,
}

impl<'r> Cells<'r, '_> {
    fn value(&self, column: &str) -> ValueRef<'r> {
        let (before, after) = self
            .columns
            .split_at(self.next.get().min(self.columns.len()));
        let mut around = after.iter().chain(before);
        let Some(steps) = around.position(|name| *name == column) else {
            return ValueRef::Null;
        };
        let at = (before.len() + steps) % self.columns.len();
        self.next.set(at + 1);
        self.row.get_ref(at + 1).unwrap_or(ValueRef::Null)
    }

    /// A whole number.
    pub fn int(&self, column: &str) -> Mapped<Option<i64>> {
        match self.value(column) {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(value) => Ok(Some(value)),
            other => Err(format!("{column} is {}, not a whole number", word(&other))),
        }
    }

    /// A number of any kind.
    pub fn number(&self, column: &str) -> Mapped<Option<f64>> {
        match self.value(column) {
            ValueRef::Real(value) => Ok(Some(value)),
            _ => Ok(self.int(column)?.map(|value| value as f64)),
        }
    }

    /// A text.
    pub fn text(&self, column: &str) -> Mapped<Option<Cow<'r, str>>> {
        match self.value(column) {
            ValueRef::Null => Ok(None),
            ValueRef::Text(bytes) => Ok(Some(String::from_utf8_lossy(bytes))),
            other => Err(format!("{column} is {}, not a text", word(&other))),
        }
    }

    /// A time in ns.
    pub fn time(&self, column: &str) -> Mapped<i64> {
        match self.int(column)? {
            None => Err(format!("{column} is null")),
            Some(ns) if ns < 0 => Err(format!("{column} is before time began: {ns}")),
            Some(ns) if ns > i64::MAX / 4 => Err(format!("{column} is no time: {ns}")),
            Some(ns) => Ok(ns),
        }
    }

    /// `start` and the length up to `end`.
    pub fn span(&self) -> Mapped<(i64, i64)> {
        let (start, end) = (self.time("start")?, self.time("end")?);
        match end - start {
            dur if dur < 0 => Err(format!("it ends at {end}, before its start at {start}")),
            dur => Ok((start, dur)),
        }
    }

    /// The number of a device or stream; none where CUPTI has its number for "invalid".
    pub fn id(&self, column: &str) -> Mapped<Option<u32>> {
        match self.int(column)? {
            None | Some(0xffff_ffff | ..0) => Ok(None),
            Some(id) => u32::try_from(id)
                .map(Some)
                .map_err(|_| format!("{column} is no number of one: {id}")),
        }
    }
}

fn word(value: &ValueRef<'_>) -> &'static str {
    match value.data_type() {
        Type::Null => "null",
        Type::Integer => "a whole number",
        Type::Real => "a fraction",
        Type::Text => "a text",
        Type::Blob => "binary",
    }
}

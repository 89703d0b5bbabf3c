//! Protocol buffers, field by field: a message in a file is walked without being in memory.
//!
//! # Source
//! protobuf.dev/programming-guides/encoding.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Bytes of the longest field that is read as a whole.
const LONGEST: u64 = 1 << 20;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<T> {
    Int(u64),
    Fixed(u64),
    /// A text, or a message.
    Bytes(T),
}

/// A file that is a message.
#[derive(Debug)]
pub(super) struct Wire {
    from: BufReader<File>,
    path: PathBuf,
    at: u64,
    length: u64,
}

impl Wire {
    /// # Errors
    /// What the system refuses.
    pub fn new(mut file: File, path: &Path) -> Result<Wire> {
        let length = file
            .seek(SeekFrom::End(0))
            .map_err(Error::io("read", path))?;
        file.rewind().map_err(Error::io("read", path))?;
        Ok(Wire {
            from: BufReader::with_capacity(1 << 17, file),
            path: path.to_owned(),
            at: 0,
            length,
        })
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Where the next field is.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Goes there.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn seek(&mut self, to: u64) -> Result<()> {
        let by = i128::from(to) - i128::from(self.at);
        let by = i64::try_from(by).map_err(|_| self.wrong("a field beyond any file"))?;
        self.from
            .seek_relative(by)
            .map_err(Error::io("read", &self.path))?;
        self.at = to;
        Ok(())
    }

    /// The next field of the message that ends at `end`: its number and, for bytes, where they end. They come next, and have
    /// to be read or passed over.
    ///
    /// # Errors
    /// A message that is cut off, or none.
    pub fn field(&mut self, end: u64) -> Result<Option<(u64, Value<u64>)>> {
        if self.at >= end {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Int(self.varint()?),
            1 => Value::Fixed(self.fixed(8)?),
            5 => Value::Fixed(self.fixed(4)?),
            2 => {
                let length = self.varint()?;
                match self.at.checked_add(length).filter(|&to| to <= end) {
                    Some(to) => Value::Bytes(to),
                    None => return Err(self.wrong("a field that is longer than what it stands in")),
                }
            }
            _ => return Err(self.wrong("no field of a protocol buffer")),
        };
        Ok(Some((tag >> 3, value)))
    }

    /// The bytes up to `end`.
    ///
    /// # Errors
    /// More of them than any such field has; what the system refuses.
    pub fn bytes(&mut self, end: u64) -> Result<Vec<u8>> {
        let length = end - self.at;
        if length > LONGEST {
            return Err(self.wrong("a field of more than 1 MiB"));
        }
        let mut bytes = vec![0; length as usize];
        let read = self.from.read_exact(&mut bytes);
        read.map_err(|_| self.cut())?;
        self.at = end;
        Ok(bytes)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let buffer = self
                .from
                .fill_buf()
                .map_err(Error::io("read", &self.path))?;
            let Some(&byte) = buffer.first() else {
                return Err(self.cut());
            };
            self.from.consume(1);
            self.at += 1;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(value);
            }
        }
        Err(self.wrong("a number of more than ten bytes"))
    }

    fn fixed(&mut self, bytes: usize) -> Result<u64> {
        let mut all = [0; 8];
        let read = self.from.read_exact(&mut all[..bytes]);
        read.map_err(|_| self.cut())?;
        self.at += bytes as u64;
        Ok(u64::from_le_bytes(all))
    }

    fn cut(&self) -> Error {
        Error::Cut {
            path: self.path.clone(),
            place: format!("at byte {}", self.at),
        }
    }

    pub fn wrong(&self, what: &str) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            place: format!("at byte {}", self.at),
            what: what.to_owned(),
        }
    }
}

/// The fields of a message in memory. Ends where it makes no sense, which `whole` tells.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    pub whole: bool,
}

impl<'a> Fields<'a> {
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields {
            rest: message,
            whole: true,
        }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, bytes: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(bytes).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Value<&'a [u8]>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Int(self.varint()?),
            1 => Value::Fixed(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            5 => Value::Fixed(u64::from(u32::from_le_bytes(
                self.take(4)?.try_into().ok()?,
            ))),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Value<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            (self.whole, self.rest) = (false, &[]);
        }
        field
    }
}

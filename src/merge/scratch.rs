//! Rows in temporary files, which only the isc-merge that wrote them reads: small, and cheap to write and to read.
//!
//! A block is what it holds, in numbers, its texts and its rows. A row is a word of bits that says which columns have
//! values, then these: times and places as differences to the row before, texts by their number in the block,
//! all in the variable length of LEB128.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::trace::{Event, Kind, Names, Sym};

/// Rows of a block, of which each run has one in memory while runs are merged.
pub(super) const BLOCK_ROWS: usize = 1 << 12;

/// What stands before a block: the bytes of its texts and of its rows, and how many of both there are, 8 bytes each.
const HEAD_BYTES: u64 = 32;

/// A column has a value, or the same as in the row before.
const DUR: u32 = 1;
const FILE: u32 = 1 << 1;
const LINE: u32 = 1 << 2;
const DEVICE: u32 = 1 << 3;
const STREAM: u32 = 1 << 4;
const CORRELATION: u32 = 1 << 5;
const FLOW: u32 = 1 << 6;
const PARENT: u32 = 1 << 7;
const CAUSE: u32 = 1 << 8;
const BYTES: u32 = 1 << 9;
const VALUE: u32 = 1 << 10;
const ARGS: u32 = 1 << 11;
const SAME_PROCESS: u32 = 1 << 12;
const SAME_TID: u32 = 1 << 13;

/// What differences are taken to.
#[derive(Debug, Default)]
struct Before {
    start_ns: i64,
    parent: i64,
    process: u32,
    pid: u32,
    tid: u64,
}

/// Writes rows into a temporary file without a name.
#[derive(Debug)]
pub(super) struct Scratch {
    file: BufWriter<File>,
    rows: Vec<u8>,
    texts: Vec<u8>,
    count: usize,
    before: Before,
    /// By symbol of the table `names`: the block it was last met in, and its number there.
    numbers: Vec<(u32, u32)>,
    names: u64,
    block: u32,
    next: u32,
}

impl Scratch {
    /// # Errors
    /// No room for temporary files.
    pub fn create() -> Result<Scratch> {
        let file = tempfile::tempfile();
        let file = file.map_err(Error::io("create a temporary file in", &path()))?;
        Ok(Scratch {
            file: BufWriter::with_capacity(1 << 18, file),
            rows: Vec::new(),
            texts: Vec::new(),
            count: 0,
            before: Before::default(),
            numbers: Vec::new(),
            names: 0,
            block: 1,
            next: 0,
        })
    }

    /// Writes one row, whose symbols are those of `names`.
    ///
    /// # Errors
    /// What the system refuses, a full disk for one.
    pub fn push(&mut self, event: &Event, names: &Names) -> Result<()> {
        if self.count == BLOCK_ROWS || self.names != names.id() && self.count > 0 {
            self.flush()?;
        }
        if self.names != names.id() {
            self.names = names.id();
            self.numbers.clear();
        }
        let name = self.number(event.name, names);
        let file = event.file.map(|sym| self.number(sym, names));
        let args = event.args.map(|sym| self.number(sym, names));
        let before = &mut self.before;
        let out = &mut self.rows;
        let mut bits = 0;
        let mut bit = |is: bool, bit: u32| bits |= if is { bit } else { 0 };
        let same_process = event.process == before.process && event.pid == before.pid;
        bit(event.dur_ns.is_some(), DUR);
        bit(file.is_some(), FILE);
        bit(event.line.is_some(), LINE);
        bit(event.device.is_some(), DEVICE);
        bit(event.stream.is_some(), STREAM);
        bit(event.correlation.is_some(), CORRELATION);
        bit(event.flow.is_some(), FLOW);
        bit(event.parent.is_some(), PARENT);
        bit(event.cause.is_some(), CAUSE);
        bit(event.bytes.is_some(), BYTES);
        bit(event.value.is_some(), VALUE);
        bit(args.is_some(), ARGS);
        bit(same_process, SAME_PROCESS);
        bit(event.tid == before.tid, SAME_TID);
        out.push(event.kind as u8);
        put(out, u64::from(bits));
        put_signed(out, event.start_ns.wrapping_sub(before.start_ns));
        put(out, u64::from(name));
        if !same_process {
            put(out, u64::from(event.process));
            put(out, u64::from(event.pid));
        }
        if event.tid != before.tid {
            put(out, event.tid);
        }
        put_signed_if(out, event.dur_ns);
        put_if(out, file);
        put_if(out, event.line);
        put_if(out, event.device);
        put_if(out, event.stream);
        put_if(out, event.correlation);
        put_if(out, event.flow);
        if let Some(parent) = event.parent {
            put_signed(out, parent.wrapping_sub(before.parent));
            before.parent = parent;
        }
        put_signed_if(out, event.cause);
        put_signed_if(out, event.bytes);
        if let Some(value) = event.value {
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
        put_if(out, args);
        before.start_ns = event.start_ns;
        (before.process, before.pid) = (event.process, event.pid);
        before.tid = event.tid;
        self.count += 1;
        Ok(())
    }

    /// The number of a text in this block.
    fn number(&mut self, sym: Sym, names: &Names) -> u32 {
        let at = sym.0 as usize;
        if at >= self.numbers.len() {
            self.numbers.resize(at + 1, (0, 0));
        }
        let known = &mut self.numbers[at];
        if known.0 != self.block {
            *known = (self.block, self.next);
            self.next += 1;
            let text = names.text(sym);
            put(&mut self.texts, text.len() as u64);
            self.texts.extend_from_slice(text.as_bytes());
        }
        known.1
    }

    fn flush(&mut self) -> Result<()> {
        let mut head = Vec::new();
        for number in [
            self.texts.len(),
            self.rows.len(),
            self.next as usize,
            self.count,
        ] {
            head.extend_from_slice(&(number as u64).to_le_bytes());
        }
        for part in [&head, &self.texts, &self.rows] {
            let written = self.file.write_all(part);
            written.map_err(Error::io("write a temporary file in", &path()))?;
        }
        self.texts.clear();
        self.rows.clear();
        self.before = Before::default();
        (self.count, self.next) = (0, 0);
        self.block = self.block.wrapping_add(1);
        if self.block == 0 {
            self.block = 1;
            self.numbers.clear();
        }
        Ok(())
    }

    /// The whole file.
    ///
    /// # Errors
    /// As [`Scratch::push`].
    pub fn finish(mut self) -> Result<File> {
        if self.count > 0 {
            self.flush()?;
        }
        let file = self.file.into_inner().map_err(|e| e.into_error());
        file.map_err(Error::io("write a temporary file in", &path()))
    }
}

/// Reads what [`Scratch`] wrote.
#[derive(Debug)]
pub(super) struct Blocks {
    file: BufReader<File>,
    bytes: Vec<u8>,
    syms: Vec<Sym>,
}

impl Blocks {
    /// From the start of a file.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn open(mut file: File) -> Result<Blocks> {
        file.rewind()
            .map_err(Error::io("read a temporary file in", &path()))?;
        Ok(Blocks {
            file: BufReader::with_capacity(1 << 17, file),
            bytes: Vec::new(),
            syms: Vec::new(),
        })
    }

    /// Appends the next rows; `false` at the end.
    ///
    /// # Errors
    /// What the system refuses; a file that is not as it was written.
    pub fn next(&mut self, names: &mut Names, events: &mut Vec<Event>) -> Result<bool> {
        let damaged = || Error::Corrupt {
            path: path(),
            place: "in a temporary file".into(),
            what: "it is not as it was written".into(),
        };
        if self.read(HEAD_BYTES)? == 0 {
            return Ok(false);
        }
        let (words, _) = self.bytes.as_chunks();
        let &[texts, rows, syms, count] = words else {
            return Err(damaged());
        };
        let [texts, rows, syms, count] =
            [texts, rows, syms, count].map(|word| u64::from_le_bytes(word) as usize);
        self.read(texts.saturating_add(rows) as u64)?;
        let parts = self.bytes.split_at_checked(texts);
        let (mut texts, mut rows) = parts.ok_or_else(damaged)?;
        self.syms.clear();
        for _ in 0..syms {
            let sym = text(&mut texts, names).ok_or_else(damaged)?;
            self.syms.push(sym);
        }
        let mut before = Before::default();
        events.reserve(count.min(BLOCK_ROWS));
        for _ in 0..count {
            let event = row(&mut rows, &mut before, &self.syms);
            events.push(event.ok_or_else(damaged)?);
        }
        match rows {
            [] => Ok(true),
            _ => Err(damaged()),
        }
    }

    /// Reads so many bytes, or what is left; how many.
    fn read(&mut self, bytes: u64) -> Result<usize> {
        self.bytes.clear();
        let read = (&mut self.file).take(bytes).read_to_end(&mut self.bytes);
        read.map_err(Error::io("read a temporary file in", &path()))
    }
}

fn text(from: &mut &[u8], names: &mut Names) -> Option<Sym> {
    let length = usize::try_from(get(from)?).ok()?;
    let (text, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(names.sym(std::str::from_utf8(text).ok()?))
}

fn row(from: &mut &[u8], before: &mut Before, syms: &[Sym]) -> Option<Event> {
    let (&kind, rest) = from.split_first()?;
    *from = rest;
    let (kind, _) = *Kind::ALL.get(usize::from(kind))?;
    let bits = get(from)? as u32;
    let has = |bit: u32| bits & bit != 0;
    let sym = |number: u64| syms.get(number as usize).copied();
    before.start_ns = before.start_ns.wrapping_add(get_signed(from)?);
    let name = sym(get(from)?)?;
    if !has(SAME_PROCESS) {
        (before.process, before.pid) = (get(from)? as u32, get(from)? as u32);
    }
    if !has(SAME_TID) {
        before.tid = get(from)?;
    }
    let mut event = Event::new(
        kind,
        name,
        before.start_ns,
        before.process,
        before.pid,
        before.tid,
    );
    if has(DUR) {
        event.dur_ns = Some(get_signed(from)?);
    }
    if has(FILE) {
        event.file = Some(sym(get(from)?)?);
    }
    if has(LINE) {
        event.line = Some(get(from)? as u32);
    }
    if has(DEVICE) {
        event.device = Some(get(from)? as u32);
    }
    if has(STREAM) {
        event.stream = Some(get(from)? as u32);
    }
    if has(CORRELATION) {
        event.correlation = Some(get(from)?);
    }
    if has(FLOW) {
        event.flow = Some(get(from)?);
    }
    if has(PARENT) {
        before.parent = before.parent.wrapping_add(get_signed(from)?);
        event.parent = Some(before.parent);
    }
    if has(CAUSE) {
        event.cause = Some(get_signed(from)?);
    }
    if has(BYTES) {
        event.bytes = Some(get_signed(from)?);
    }
    if has(VALUE) {
        let (value, rest) = from.split_first_chunk()?;
        *from = rest;
        event.value = Some(f64::from_bits(u64::from_le_bytes(*value)));
    }
    if has(ARGS) {
        event.args = Some(sym(get(from)?)?);
    }
    Some(event)
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
#[inline(always)]
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Small numbers of both signs are small: 0, -1, 1, -2 …
#[inline(always)]
fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)) as u64);
}

#[inline(always)]
fn put_if(out: &mut Vec<u8>, number: Option<impl Into<u64>>) {
    if let Some(number) = number {
        put(out, number.into());
    }
}

#[inline(always)]
fn put_signed_if(out: &mut Vec<u8>, number: Option<i64>) {
    if let Some(number) = number {
        put_signed(out, number);
    }
}

#[inline(always)]
fn get(from: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
        shift += 7;
    }
}

#[inline(always)]
fn get_signed(from: &mut &[u8]) -> Option<i64> {
    let number = get(from)?;
    Some((number >> 1) as i64 ^ -((number & 1) as i64))
}

/// Where temporary files are.
pub(super) fn path() -> PathBuf {
    std::env::temp_dir()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_stand_in_their_order() {
        for (at, (kind, _)) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, at);
        }
    }

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![any::<i64>(), -3..3i64, Just(i64::MIN), Just(i64::MAX)]
    }

    prop_compose! {
        fn event()(
            kind in 0..Kind::ALL.len(),
            texts in (0..40u32, prop::option::of(0..40u32), prop::option::of(0..4000u32)),
            times in (number(), prop::option::of(number())),
            place in (any::<u32>(), 0..3u32, any::<u64>(), prop::option::of(any::<u32>())),
            device in (prop::option::of(any::<u32>()), prop::option::of(any::<u32>())),
            ids in (prop::option::of(any::<u64>()), prop::option::of(any::<u64>())),
            rows in (prop::option::of(number()), prop::option::of(number())),
            values in (prop::option::of(number()), prop::option::of(any::<f64>())),
        ) -> (Event, [Option<u32>; 3]) {
            let kind = Kind::ALL[kind].0;
            let mut names = Names::default();
            let mut event = Event::new(kind, names.sym(""), times.0, place.0, place.1, place.2);
            (event.dur_ns, event.line) = (times.1, place.3);
            (event.device, event.stream) = device;
            (event.correlation, event.flow) = ids;
            (event.parent, event.cause) = rows;
            (event.bytes, event.value) = values;
            (event, [Some(texts.0), texts.1, texts.2])
        }
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_were(rows in prop::collection::vec(event(), 0..300), tables in 1..3usize) {
            let mut all = vec![Names::default(); tables];
            let mut scratch = Scratch::create().unwrap();
            let mut wanted = Vec::new();
            let repeat = BLOCK_ROWS / 200; // more than one block, if there are many
            for at in 0..rows.len() * repeat {
                let (mut event, texts) = rows[at % rows.len()];
                let table = at / 97 % tables;
                let mut sym = |number: Option<u32>| number.map(|n| all[table].sym(&format!("text {n}")));
                event.name = sym(texts[0]).unwrap();
                (event.file, event.args) = (sym(texts[1]), sym(texts[2]));
                scratch.push(&event, &all[table]).unwrap();
                wanted.push((event, table));
            }
            let mut blocks = Blocks::open(scratch.finish().unwrap()).unwrap();
            let (mut names, mut found) = (Names::default(), Vec::new());
            while blocks.next(&mut names, &mut found).unwrap() {}
            prop_assert_eq!(found.len(), wanted.len());
            for (found, (wanted, table)) in found.iter().zip(&wanted) {
                let text = |sym: Sym| names.text(sym).to_owned();
                let was = |sym: Sym| all[*table].text(sym).to_owned();
                prop_assert_eq!(text(found.name), was(wanted.name));
                prop_assert_eq!(found.file.map(text), wanted.file.map(was));
                prop_assert_eq!(found.args.map(text), wanted.args.map(was));
                let without = |event: &Event| {
                    let mut event = Event { file: None, args: None, name: wanted.name, ..*event };
                    let value = event.value.take().map(f64::to_bits);
                    (event, value)
                };
                prop_assert_eq!(without(found), without(wanted));
            }
        }
    }

    #[test]
    fn a_file_that_is_cut_or_torn_is_an_error() {
        let mut names = Names::default();
        let name = names.sym("name");
        let mut scratch = Scratch::create().unwrap();
        for at in 0..10 {
            let event = Event::new(Kind::Python, name, at, 1, 2, 3);
            scratch.push(&event, &names).unwrap();
        }
        let mut file = scratch.finish().unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let read = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            let mut blocks = Blocks::open(file).unwrap();
            blocks.next(&mut Names::default(), &mut Vec::new())
        };
        assert!(read(&bytes).unwrap());
        assert!(read(&bytes[..bytes.len() - 1]).is_err());
        assert!(read(&bytes[..20]).is_err(), "within what stands before");
        assert!(!read(&[]).unwrap());
        for (at, byte) in [(33, 0xff), (bytes.len() - 1, 0xff), (38, 0xff)] {
            let mut torn = bytes.clone();
            torn[at] = byte;
            assert!(read(&torn).is_err(), "byte {at}");
        }
    }
}

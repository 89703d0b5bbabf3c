//! JSON as profilers write it: read in one pass through a window of the file, borrowed, and as leniently as their writers are
//! careless.
//!
//! serde_json does not take what is in the wild: control characters and bytes that are no UTF-8 within names, `nan` and
//! `inf` for numbers, a last comma, an array that is never closed. Nor can it hand out single events of an array without
//! the whole file in memory. What is skipped is not looked at more closely than needed to find its end.

use memchr::memchr2;

use super::blocks::{Blocks, HEADROOM, packed};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The longest single value, in bytes: whatever a file claims, no more of it is held in memory.
const LONGEST: usize = 64 << 20;

/// How deep values may be nested. Profilers' nest five deep.
const DEEPEST: usize = 512;

/// Bytes of a string that are looked at eight at once.
const SHORT: usize = 48;

/// Class of the bytes that numbers and bare words are made of; those of a higher class open or close something.
const WORD: u8 = 1;

/// What a byte outside of strings is.
const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut at = 0;
    while at < 256 {
        class[at] = match at as u8 {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'-' | b'+' => WORD,
            b'"' | b'{' | b'}' | b'[' | b']' => WORD + 1,
            _ => 0,
        };
        at += 1;
    }
    class
};

/// Where in eight bytes the first `"` or `\` is.
///
/// # Source
/// A byte of x is zero where it was the wanted one, and the lowest zero byte is found surely: H. Warren, "Hacker's
/// Delight", 2nd ed., 6-1.
#[inline]
fn quote(eight: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    let word = u64::from_le_bytes(eight.try_into().ok()?);
    let zero = |x: u64| x.wrapping_sub(ONES) & !x & (ONES << 7);
    let quotes = zero(word ^ (ONES * u64::from(b'"')));
    let found = quotes | zero(word ^ (ONES * u64::from(b'\\')));
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

/// Whether two slices of one length are equal: of a few bytes, a call takes longer than to compare them.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    let eight = |bytes: &[u8], at: usize| -> Option<u64> {
        let eight = bytes.get(at..at + 8)?;
        Some(u64::from_ne_bytes(eight.try_into().ok()?))
    };
    match a.len() {
        8..=16 => {
            let last = a.len() - 8; // the two parts may overlap
            (eight(a, 0), eight(a, last)) == (eight(b, 0), eight(b, last))
        }
        _ => a == b,
    }
}

/// Why a value cannot be read from what is in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It goes on behind the window.
    More,
    /// It is wrong, this far into the bytes.
    Wrong(usize, &'static str),
}

/// What is read of a value.
pub type Read<T> = std::result::Result<T, Stop>;

/// The part of a file that is being read.
#[derive(Debug)]
pub struct Window {
    blocks: Blocks,
    path: PathBuf,
    bytes: Vec<u8>,
    start: usize,
    /// Bytes of the file before the first of `bytes`, modulo 2^64: a block's room before them counts too.
    before: u64,
    ended: bool,
}

impl Window {
    pub fn new(blocks: Blocks, path: &Path) -> Window {
        Window {
            blocks,
            path: path.to_owned(),
            bytes: Vec::new(),
            start: 0,
            before: 0,
            ended: false,
        }
    }

    /// What is there and not yet taken.
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor {
            bytes: &self.bytes[self.start..],
            at: 0,
            last: self.ended,
        }
    }

    /// The first bytes were read.
    pub fn take(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Reads on.
    ///
    /// # Errors
    /// A value that is longer than any may be; a file that cannot be read or unpacked.
    pub fn more(&mut self) -> Result<()> {
        if let Some(read) = self.advance()? {
            self.blocks.give_back(read);
        }
        Ok(())
    }

    /// Reads on, and hands out the bytes that were in the window, what was not yet taken of them included: that stands at
    /// another place now. `None` at the end, where all stays as it is.
    ///
    /// # Errors
    /// As [`Window::more`].
    pub fn advance(&mut self) -> Result<Option<Vec<u8>>> {
        let left = self.left();
        if left > LONGEST {
            return Err(self.wrong(0, "a value of more than 64 MiB"));
        }
        let mut block = match self.blocks.next_block() {
            Ok(Some(block)) => block,
            Ok(None) => {
                self.ended = true;
                return Ok(None);
            }
            Err(error) => return Err(packed(error, &self.path)),
        };
        let rest = &self.bytes[self.start..];
        self.before = self.before.wrapping_add(self.start as u64);
        if left <= HEADROOM {
            let from = HEADROOM - left;
            block[from..HEADROOM].copy_from_slice(rest);
            // The position stays: what stands before the window's bytes is no part of the file.
            self.before = self.before.wrapping_sub(from as u64);
            self.start = from;
            return Ok(Some(std::mem::replace(&mut self.bytes, block)));
        }
        let longer = [rest, &block[HEADROOM..]].concat();
        self.start = 0;
        self.blocks.give_back(block);
        Ok(Some(std::mem::replace(&mut self.bytes, longer)))
    }

    /// Bytes of the file before the first of the window's, modulo 2^64.
    pub fn before(&self) -> u64 {
        self.before
    }

    /// The cursor's place in the window's bytes.
    pub fn offset(&self) -> usize {
        self.start
    }

    /// The bytes in the window, which is empty then.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        self.before = self.before.wrapping_add(self.start as u64);
        self.start = 0;
        std::mem::take(&mut self.bytes)
    }

    /// Reads one thing, with as much of the file as it takes.
    ///
    /// # Errors
    /// As [`Window::more`]; what is wrong, with its byte; a file that is cut off.
    pub fn read<T>(&mut self, mut one: impl FnMut(&mut Cursor<'_>) -> Read<T>) -> Result<T> {
        loop {
            let mut cursor = self.cursor();
            match one(&mut cursor) {
                Ok(thing) => {
                    let used = cursor.at;
                    self.take(used);
                    return Ok(thing);
                }
                Err(stop) => self.stopped(stop)?,
            }
        }
    }

    /// Reads on if that may help, or says what is wrong.
    ///
    /// # Errors
    /// As [`Window::read`].
    pub fn stopped(&mut self, stop: Stop) -> Result<()> {
        match stop {
            Stop::More if self.ended => {
                let byte = self.position() + self.left() as u64;
                Err(self.cut_in(format!("at byte {byte}")))
            }
            Stop::More => self.more(),
            Stop::Wrong(at, what) => Err(self.wrong(at, what)),
        }
    }

    /// Bytes that are there and not yet taken.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Bytes of the (unpacked) file before the cursor.
    pub fn position(&self) -> u64 {
        self.before.wrapping_add(self.start as u64)
    }

    /// An error so many bytes behind the cursor.
    pub fn wrong(&self, at: usize, what: &str) -> Error {
        self.wrong_at(self.position() + at as u64, what)
    }

    /// An error at this byte of the file.
    pub fn wrong_at(&self, byte: u64, what: &str) -> Error {
        self.wrong_in(format!("at byte {byte}"), what)
    }

    /// An error at a place that is no byte.
    pub fn wrong_in(&self, place: String, what: &str) -> Error {
        Error::Corrupt {
            path: self.path.clone(),
            place,
            what: what.to_owned(),
        }
    }

    /// The file ends too early, here.
    pub fn cut_in(&self, place: String) -> Error {
        Error::Cut {
            path: self.path.clone(),
            place,
        }
    }

    /// All of the file is in the window.
    pub fn ended(&self) -> bool {
        self.ended
    }

    pub fn blocks(&mut self) -> &mut Blocks {
        &mut self.blocks
    }
}

/// A place in bytes that begin with a value.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Nothing follows behind the bytes.
    last: bool,
}

/// A string as it stands in the file, without its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    pub raw: &'a [u8],
    /// It has escapes.
    pub escaped: bool,
}

impl<'a> Cursor<'a> {
    /// All of these bytes.
    pub fn whole(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor {
            bytes,
            at: 0,
            last: true,
        }
    }

    /// Bytes before this place.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Where a part of the bytes stands in them: from, to.
    pub fn place(&self, part: &[u8]) -> (u32, u32) {
        let from = part.as_ptr() as usize - self.bytes.as_ptr() as usize;
        (from as u32, (from + part.len()) as u32)
    }

    /// The bytes from one place to another.
    pub fn slice(&self, from: usize, to: usize) -> &'a [u8] {
        &self.bytes[from..to]
    }

    pub fn wrong<T>(&self, what: &'static str) -> Read<T> {
        Err(Stop::Wrong(self.at, what))
    }

    /// The next byte that is no white space; it is not taken.
    #[inline]
    pub fn peek(&mut self) -> Read<u8> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Ok(byte);
            }
            self.at += 1;
        }
        Err(Stop::More)
    }

    /// Takes the byte if it is the next.
    #[inline]
    pub fn skip_byte(&mut self, wanted: u8) -> Read<bool> {
        let found = self.peek()? == wanted;
        self.at += usize::from(found);
        Ok(found)
    }

    /// Takes the byte, which must be the next.
    #[inline]
    pub fn expect(&mut self, wanted: u8, what: &'static str) -> Read<()> {
        match self.skip_byte(wanted)? {
            true => Ok(()),
            false => self.wrong(what),
        }
    }

    /// Takes these bytes if they are the next.
    #[inline]
    pub fn skip_bytes(&mut self, wanted: &[u8]) -> bool {
        let end = self.at + wanted.len();
        let found = self.bytes.get(self.at..end);
        let found = found.is_some_and(|found| same(found, wanted));
        if found {
            self.at = end;
        }
        found
    }

    /// Nothing but white space is left in the file.
    pub fn is_end(&mut self) -> Read<bool> {
        match self.peek() {
            Ok(_) => Ok(false),
            Err(Stop::More) if self.last => Ok(true),
            Err(stop) => Err(stop),
        }
    }

    /// A string, whose opening quote is next.
    #[inline]
    pub fn text(&mut self) -> Read<Text<'a>> {
        self.expect(b'"', "a string should begin here")?;
        self.text_body()
    }

    /// A string behind its opening quote.
    #[inline]
    fn text_body(&mut self) -> Read<Text<'a>> {
        let start = self.at;
        let mut at = start;
        let mut escaped = false;
        // Most are short: eight bytes at once are quicker than a search that must be set up.
        let near = start + SHORT;
        loop {
            let found = match self.bytes.get(at..at + 8) {
                Some(eight) if at < near => {
                    let Some(found) = quote(eight) else {
                        at += 8;
                        continue;
                    };
                    found
                }
                _ => {
                    let rest = self.bytes.get(at..).ok_or(Stop::More)?;
                    memchr2(b'"', b'\\', rest).ok_or(Stop::More)?
                }
            };
            at += found;
            if self.bytes[at] == b'"' {
                self.at = at + 1;
                let raw = &self.bytes[start..at];
                return Ok(Text { raw, escaped });
            }
            escaped = true;
            at += 2;
        }
    }

    /// A number, `true`, `null` or another bare word, as it stands.
    #[inline]
    pub fn word(&mut self) -> Read<&'a [u8]> {
        self.peek()?;
        let start = self.at;
        let rest = &self.bytes[start..];
        let end = rest.iter().position(|&byte| CLASS[byte as usize] != WORD);
        let length = match end {
            Some(0) => return self.wrong("a value should begin here"),
            Some(length) => length,
            None if self.last => rest.len(),
            None => return Err(Stop::More),
        };
        self.at += length;
        Ok(&rest[..length])
    }

    /// Any value, as it stands: strings with their quotes.
    #[inline]
    pub fn value(&mut self) -> Read<&'a [u8]> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => {
                self.text()?;
            }
            b'{' | b'[' => self.nested()?,
            _ => {
                self.word()?;
            }
        }
        Ok(&self.bytes[start..self.at])
    }

    /// Goes behind the object or array that begins here.
    fn nested(&mut self) -> Read<()> {
        let mut open = [false; DEEPEST]; // true: an object
        let mut depth = 0;
        loop {
            let rest = &self.bytes[self.at..];
            let next = rest.iter().position(|&byte| CLASS[byte as usize] > WORD);
            self.at += next.ok_or(Stop::More)?;
            match self.bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    self.text_body()?;
                    continue;
                }
                byte @ (b'{' | b'[') => {
                    if depth == DEEPEST {
                        return self.wrong("nested more than 512 deep");
                    }
                    open[depth] = byte == b'{';
                    depth += 1;
                }
                byte => {
                    depth -= 1;
                    if open[depth] != (byte == b'}') {
                        return self.wrong("a bracket that closes another kind");
                    }
                    if depth == 0 {
                        self.at += 1;
                        return Ok(());
                    }
                }
            }
            self.at += 1;
        }
    }

    /// The next key of an object after its `{`; `None` when that is closed. `first`: no comma has to come before.
    #[inline]
    pub fn key(&mut self, first: bool) -> Read<Option<Text<'a>>> {
        let mut next = self.peek()?;
        if !first && next == b',' {
            self.at += 1;
            next = self.peek()?;
        } else if !first && next != b'}' {
            return self.wrong("a comma or the end of an object should stand here");
        }
        match next {
            b'"' => self.at += 1,
            b'}' => {
                self.at += 1;
                return Ok(None);
            }
            _ => return self.wrong("a key should stand here"),
        }
        let key = self.text_body()?;
        match self.bytes.get(self.at) {
            Some(b':') => self.at += 1,
            _ => self.expect(b':', "a colon should stand here")?,
        }
        Ok(Some(key))
    }

    /// Whether another element follows in an array after its `[`. `first`: no comma has to come before. `None`: the file
    /// ends here, which an array that is all of it may do.
    #[inline]
    pub fn element(&mut self, first: bool, bare: bool) -> Read<Option<bool>> {
        if bare && self.is_end()? {
            return Ok(None);
        }
        if !first && !self.skip_byte(b',')? && self.peek()? != b']' {
            return self.wrong("a comma or the end of an array should stand here");
        }
        if bare && self.is_end()? {
            return Ok(None);
        }
        Ok(Some(!self.skip_byte(b']')?))
    }
}

impl<'a> Text<'a> {
    /// The text that it stands for. What is no UTF-8 becomes U+FFFD, a wrong escape stays as it is.
    pub fn decode(self, into: &mut String) {
        into.clear();
        if !self.escaped {
            match std::str::from_utf8(self.raw) {
                Ok(text) => into.push_str(text),
                Err(_) => into.push_str(&String::from_utf8_lossy(self.raw)),
            }
            return;
        }
        let text = String::from_utf8_lossy(self.raw);
        let mut rest = text.as_ref();
        while let Some(at) = rest.find('\\') {
            into.push_str(&rest[..at]);
            rest = unescaped(&rest[at..], into);
        }
        into.push_str(rest);
    }
}

/// Appends what the escape at the start stands for. What follows it.
fn unescaped<'t>(text: &'t str, into: &mut String) -> &'t str {
    let rest = &text[1..];
    let Some(letter) = rest.chars().next() else {
        return rest;
    };
    let after = &rest[letter.len_utf8()..];
    let plain = match letter {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' => '\u{8}',
        'f' => '\u{c}',
        '"' | '\\' | '/' => letter,
        'u' => {
            let unit = |text: &str| u32::from_str_radix(text.get(..4)?, 16).ok();
            let Some(first) = unit(after) else {
                into.push_str("\\u");
                return after;
            };
            let low = after.get(4..6).filter(|next| *next == "\\u");
            let low = low.and_then(|_| unit(after.get(6..)?));
            // A pair of surrogates is one character.
            if let (0xd800..0xdc00, Some(low @ 0xdc00..0xe000)) = (first, low) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00);
                into.push(char::from_u32(code).unwrap_or('\u{fffd}'));
                return &after[10..];
            }
            into.push(char::from_u32(first).unwrap_or('\u{fffd}'));
            return &after[4..];
        }
        other => {
            into.push('\\');
            other
        }
    };
    into.push(plain);
    after
}

/// Appends a value as it stands in a file, as valid JSON: without white space, `null` for what is no number.
pub fn normal(raw: &[u8], into: &mut String) {
    let mut cursor = Cursor::whole(raw);
    while cursor.at < raw.len() {
        match raw[cursor.at] {
            b'"' => {
                let start = cursor.at;
                let Ok(text) = cursor.text() else { return };
                // Printable ASCII without escapes is what most are.
                if !text.escaped && text.raw.iter().all(|b| matches!(b, 0x20..0x7f)) {
                    into.push_str(std::str::from_utf8(&raw[start..cursor.at]).unwrap_or("\"\""));
                } else {
                    let mut plain = String::new();
                    text.decode(&mut plain);
                    into.push_str(&serde_json::Value::from(plain).to_string());
                }
            }
            byte @ (b'{' | b'}' | b'[' | b']' | b',' | b':') => {
                into.push(char::from(byte));
                cursor.at += 1;
            }
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'-' | b'+' => {
                let Ok(word) = cursor.word() else { return };
                let word = std::str::from_utf8(word).unwrap_or_default();
                let known = matches!(word, "true" | "false" | "null")
                    || word.bytes().all(|b| b.is_ascii_digit())
                    || serde_json::from_str::<serde_json::Number>(word).is_ok();
                into.push_str(if known { word } else { "null" });
            }
            _ => cursor.at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(raw: &str) -> String {
        let mut cursor = Cursor::whole(raw.as_bytes());
        let mut text = String::new();
        cursor.text().unwrap().decode(&mut text);
        text
    }

    #[test]
    fn bytes_are_skipped_only_if_all_are_the_same() {
        let bytes: Vec<u8> = (0..40).collect();
        for length in 0..30 {
            let mut cursor = Cursor::whole(&bytes);
            assert!(cursor.skip_bytes(&bytes[..length]));
            assert_eq!(cursor.at(), length);
            for at in 0..length {
                let mut other = bytes[..length].to_vec();
                other[at] ^= 0x80;
                assert!(!Cursor::whole(&bytes).skip_bytes(&other));
            }
        }
        assert!(!Cursor::whole(&bytes).skip_bytes(&[bytes.clone(), vec![0]].concat()));
    }

    #[test]
    fn strings_are_what_their_writers_meant() {
        assert_eq!(
            decoded(r#""a\"b\\c\/\n\u00e9\ud83d\ude00""#),
            "a\"b\\c/\né😀"
        );
        assert_eq!(decoded("\"tab\there\""), "tab\there");
        assert_eq!(decoded(r#""\ud83d \q \u12""#), "\u{fffd} \\q \\u12");
        assert_eq!(
            decoded(&format!("\"{}\\\"\"", "x".repeat(40))),
            "x".repeat(40) + "\""
        );
        let mut cursor = Cursor::whole(b"\"a\xffb\"");
        let mut text = String::new();
        cursor.text().unwrap().decode(&mut text);
        assert_eq!(text, "a\u{fffd}b");
    }

    #[test]
    fn a_value_that_goes_on_behind_the_window_asks_for_more() {
        let whole = br#"{"a": [1, {"b": "]}"}], "c": -1.5e3} "#;
        let mut cursor = Cursor::whole(whole);
        assert_eq!(cursor.value().unwrap().len(), whole.len() - 1);
        for cut in 0..whole.len() - 1 {
            let mut cursor = Cursor {
                last: false,
                ..Cursor::whole(&whole[..cut])
            };
            assert_eq!(cursor.value(), Err(Stop::More), "{cut}");
        }
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        let wrong = |text: &str| Cursor::whole(text.as_bytes()).value().unwrap_err();
        assert_eq!(
            wrong("[1}"),
            Stop::Wrong(2, "a bracket that closes another kind")
        );
        assert_eq!(wrong(" ;"), Stop::Wrong(1, "a value should begin here"));
        let deep = "[".repeat(10_000);
        assert_eq!(wrong(&deep), Stop::Wrong(512, "nested more than 512 deep"));
    }

    #[test]
    fn args_become_valid_json() {
        let mut text = String::new();
        normal(
            b"{\"a\" : [1,\n -2.5, nan, Infinity, +3], \"b\\n\": \"x\ty\"}",
            &mut text,
        );
        assert_eq!(text, r#"{"a":[1,-2.5,null,null,null],"b\n":"x\ty"}"#);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["b\n"], "x\ty");
    }
}

//! Text on its way out: packed or not, as JSON, with exact times.

use std::fmt::Write as _;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cli::Output;
use crate::error::Result;
use crate::import::json::{Cursor, Read, normal};

/// An output of text, or of bytes that may be packed with gzip.
#[derive(Debug)]
pub(super) struct Text {
    to: To,
}

#[derive(Debug)]
enum To {
    Plain(Output),
    /// Without name and time of day: equal content gives equal bytes.
    Packed(Box<GzEncoder<Output>>),
}

impl Text {
    pub fn new(output: Output, gzip: bool) -> Text {
        let to = match gzip {
            true => To::Packed(Box::new(GzEncoder::new(output, Compression::fast()))),
            false => To::Plain(output),
        };
        Text { to }
    }

    fn output(&self) -> &Output {
        match &self.to {
            To::Plain(output) => output,
            To::Packed(packed) => packed.get_ref(),
        }
    }

    /// Writes these bytes.
    ///
    /// # Errors
    /// A full disk, a reader that is gone.
    pub fn put(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let wrote = match &mut self.to {
            To::Plain(output) => output.write_all(bytes.as_ref()),
            To::Packed(packed) => packed.write_all(bytes.as_ref()),
        };
        wrote.map_err(|error| self.output().fault(error))
    }

    /// All is written: the file appears under its name.
    ///
    /// # Errors
    /// As [`Text::put`].
    pub fn finish(self) -> Result<()> {
        match self.to {
            To::Plain(output) => output.finish(),
            To::Packed(packed) => {
                let path = packed.get_ref().path().to_owned();
                let output = packed.finish();
                output
                    .map_err(|error| crate::cli::fault(&path, error))?
                    .finish()
            }
        }
    }
}

/// Appends a text as a JSON string.
pub(super) fn quote(text: &str, into: &mut String) {
    into.push('"');
    for c in text.chars() {
        match c {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            // Also what ends a line of JavaScript, and what terminals obey.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(into, "\\u{:04x}", u32::from(c));
            }
            c => into.push(c),
        }
    }
    into.push('"');
}

/// Appends a number as JSON has it; what is no finite number is null.
pub(super) fn number(value: f64, into: &mut String) {
    let whole = value as i64;
    let _ = match value.is_finite() {
        // Counts and bytes are whole: without a point they stay so in every reader.
        true if whole as f64 == value && whole.unsigned_abs() < 1 << 53 => write!(into, "{whole}"),
        true => write!(into, "{value:?}"),
        false => write!(into, "null"),
    };
}

/// Appends a time in µs, all of its ns as decimals: through a double they would be lost.
pub(super) fn micros(ns: i64, into: &mut String) {
    let sign = if ns < 0 { "-" } else { "" };
    let size = ns.unsigned_abs();
    let _ = match size % 1000 {
        0 => write!(into, "{sign}{}", size / 1000),
        rest => write!(into, "{sign}{}.{rest:03}", size / 1000),
    };
}

/// A JSON object that grows.
#[derive(Debug, Default)]
pub(super) struct Object(pub String);

impl Object {
    /// Begins a member; its value is to be appended.
    pub fn key(&mut self, key: &str) -> &mut String {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        quote(key, &mut self.0);
        self.0.push(':');
        &mut self.0
    }

    /// A member that is a whole number.
    pub fn int(&mut self, key: &str, value: impl std::fmt::Display) {
        let _ = write!(self.key(key), "{value}");
    }

    /// A member that is a text.
    pub fn text(&mut self, key: &str, value: &str) {
        quote(value, self.key(key));
    }

    /// The members of another object that stands as text: numbers digit by digit, in their order. `called` says what a
    /// member is called here, if it is kept. `false`: the text is no object, and nothing was added.
    pub fn members(&mut self, object: &str, called: impl Fn(&str) -> Option<String>) -> bool {
        let mut parts = Vec::new();
        let mut cursor = Cursor::whole(object.as_bytes());
        let mut read = || -> Read<()> {
            cursor.expect(b'{', "an object")?;
            while let Some(key) = cursor.key(parts.is_empty())? {
                parts.push((key, cursor.value()?));
            }
            match cursor.is_end()? {
                true => Ok(()),
                false => cursor.wrong("the end of an object"),
            }
        };
        if read().is_err() {
            return false;
        }
        let mut name = String::new();
        for (key, value) in parts {
            key.decode(&mut name);
            if let Some(key) = called(&name) {
                normal(value, self.key(&key));
            }
        }
        true
    }

    /// The object as text.
    pub fn close(mut self) -> String {
        match self.0.is_empty() {
            true => "{}".into(),
            false => {
                self.0.push('}');
                self.0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(make: impl Fn(&mut String)) -> String {
        let mut text = String::new();
        make(&mut text);
        text
    }

    #[test]
    fn every_nanosecond_is_a_decimal() {
        for (ns, text) in [
            (0, "0"),
            (1, "0.001"),
            (-1, "-0.001"),
            (1_000, "1"),
            (1_700_000_000_123_456_789, "1700000000123456.789"),
            (i64::MIN, "-9223372036854775.808"),
        ] {
            assert_eq!(made(|into| micros(ns, into)), text);
        }
    }

    #[test]
    fn members_keep_their_digits_and_their_order() {
        let mut object = Object::default();
        let other = r#" {"z":1.50, "a":18446744073709551617,"skip":0,"n":{"b":[1, nan]}}"#;
        let called = |key: &str| (key != "skip").then(|| key.to_owned());
        assert!(object.members(other, called));
        for text in ["", "[1]", "{\"a\":1", "{\"a\":1} x", "3"] {
            assert!(!object.members(text, called), "{text}");
        }
        assert_eq!(
            object.close(),
            r#"{"z":1.50,"a":18446744073709551617,"n":{"b":[1,null]}}"#
        );
    }

    #[test]
    fn hostile_text_and_odd_numbers_are_valid_json() {
        let text = "\"\\\n\u{1b}[31m\u{0}\u{2028}é😀";
        let json = made(|into| quote(text, into));
        assert!(json.chars().all(|c| !c.is_control()), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        let numbers =
            [f64::NAN, f64::INFINITY, 0.5, 3.0, -0.0, 1e300].map(|n| made(|into| number(n, into)));
        assert_eq!(numbers, ["null", "null", "0.5", "3", "0", "1e300"]);
    }
}

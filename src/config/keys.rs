//! The keys, and what a value of each may look like.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli;
use crate::error::nearest;

/// A key of `.inferscope.yaml`, and of the environment as `INFERSCOPE_` + name.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// The command it belongs to: `record`, `merge`, `analyze`, `report`.
    pub section: &'static str,
    /// Unique among all sections.
    pub name: &'static str,
    pub kind: Type,
    /// As it would be written in the file; `None`: not set.
    pub default: Option<&'static str>,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `8MiB`, `2 GB`, `65536`; powers of 1024.
    Bytes,
    /// `3%`, `0.5 %`; `none` for no limit.
    Share,
    /// `100`, `100 Hz`.
    Rate,
    /// `1.5s`, `250ms`, `2m`; a bare number is seconds.
    Time,
    Text,
    /// Relative to the file's folder, or to the current one.
    Path,
    /// A command's name, looked for on the PATH, or a path.
    Program,
    List,
    /// A list of paths.
    Paths,
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// A value that was understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bytes(u64),
    Share(f64),
    Rate(f64),
    Time(Duration),
    Text(String),
    Path(PathBuf),
    List(Vec<String>),
    Flag(bool),
}

const fn key(section: &'static str, name: &'static str, kind: Type) -> Key {
    Key {
        section,
        name,
        kind,
        default: None,
    }
}

impl Key {
    const fn or(mut self, default: &'static str) -> Key {
        self.default = Some(default);
        self
    }
}

/// Every key, by section.
pub const KEYS: &[Key] = &[
    key("record", "ring", Type::Bytes).or("8MiB"),
    key("record", "spill_dir", Type::Path),
    key("record", "spill_limit", Type::Bytes).or("4GiB"),
    key("record", "include", Type::List),
    key("record", "exclude", Type::List),
    key("record", "delay", Type::Time).or("0s"),
    key("record", "duration", Type::Time),
    key("record", "last", Type::Time),
    key("record", "start_on", Type::Text),
    key("record", "python", Type::Program),
    key("record", "budget", Type::Share).or("3%"),
    key("record", "wrap", Type::Flag).or("true"),
    key("record", "blas", Type::Flag).or("false"),
    key("record", "native_samples", Type::Flag).or("true"),
    key("record", "gpu", Type::Flag).or("true"),
    key("record", "cuda_api", Type::Word(&["needed", "all"])).or("needed"),
    key("record", "cuda_graph", Type::Word(&["nodes", "whole"])).or("nodes"),
    key("record", "cuda_memory", Type::Flag).or("false"),
    key("record", "sample", Type::Rate),
    key("record", "lines", Type::List),
    key("merge", "memory", Type::Bytes).or("512MiB"),
    key("analyze", "rules", Type::Paths),
    key("analyze", "fail_on", Type::Text),
    key(
        "report",
        "format",
        Type::Word(&["markdown", "html", "json"]),
    ),
];

impl Key {
    /// `record.ring`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `INFERSCOPE_RING`.
    pub fn variable(&self) -> String {
        format!("INFERSCOPE_{}", self.name.to_uppercase())
    }

    /// Reads a value as it stands in the file or the environment; a list there has commas.
    ///
    /// # Errors
    /// A sentence without the place.
    pub fn parse(&self, text: &str, folder: &Path) -> Result<Value, String> {
        let text = text.trim();
        let wrong = |wanted: &str| {
            let name = self.name;
            Err(format!("{name}: {:?} is no {wanted}", shorten(text)))
        };
        Ok(match self.kind {
            Type::Bytes => match cli::bytes(text) {
                Ok(bytes) => Value::Bytes(bytes),
                Err(_) => return wrong("size; write 512MiB, 2GiB or a number of bytes"),
            },
            Type::Share => match share(text) {
                Ok(share) => Value::Share(share),
                Err(_) => return wrong("share; write 3%, 0.5% or none"),
            },
            Type::Rate => match rate(text) {
                Ok(rate) => Value::Rate(rate),
                Err(_) => {
                    return wrong(
                        "rate; write 100 or 100Hz (samples of native code are native_samples)",
                    );
                }
            },
            Type::Time => match time(text) {
                Ok(time) => Value::Time(time),
                Err(_) => return wrong("time; write 250ms, 1.5s, 2m or a number of seconds"),
            },
            Type::Flag => match text {
                "true" | "yes" | "on" | "1" => Value::Flag(true),
                "false" | "no" | "off" | "0" => Value::Flag(false),
                _ => return wrong("yes or no; write true or false"),
            },
            Type::Word(words) => match words.iter().find(|word| **word == text) {
                Some(word) => Value::Text((*word).to_owned()),
                None => {
                    let near = nearest(text, words.iter().copied());
                    let near = near.map_or(String::new(), |word| format!("; did you mean {word}?"));
                    return wrong(&format!("choice of {}{near}", words.join(", ")));
                }
            },
            Type::Text => Value::Text(text.to_owned()),
            Type::Path => Value::Path(folder.join(text)),
            Type::Program if text.contains('/') => Value::Path(folder.join(text)),
            Type::Program => Value::Path(text.into()),
            Type::List | Type::Paths => {
                let words = text
                    .split(',')
                    .map(str::trim)
                    .filter(|word| !word.is_empty());
                self.list(words.map(str::to_owned).collect(), folder)
            }
        })
    }

    /// A list's value, from its words.
    pub(super) fn list(&self, words: Vec<String>, folder: &Path) -> Value {
        match self.kind {
            Type::Paths => Value::List(
                (words.iter())
                    .map(|word| folder.join(word).to_string_lossy().into_owned())
                    .collect(),
            ),
            _ => Value::List(words),
        }
    }
}

/// What a message quotes of a value.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// A share as people write it: `3%`, from 0.5 to 100; `none` is 0.
///
/// # Errors
/// A sentence for clap to print.
pub fn share(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no share; write 3%, anything from 0.5% to 100%, or none");
    let text = text.trim();
    if text == "none" {
        return Ok(0.0);
    }
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    let percent: f64 = number.parse().map_err(|_| wrong())?;
    match (0.5..=100.0).contains(&percent) {
        true => Ok(percent / 100.0),
        false => Err(wrong()),
    }
}

/// Samples per second as people write them: `100`, `99.5 Hz`, from 1 to 1000.
///
/// # Errors
/// A sentence for clap to print.
pub fn rate(text: &str) -> Result<f64, String> {
    let number = text.trim().to_ascii_lowercase();
    let number = number.strip_suffix("hz").unwrap_or(&number).trim();
    match number.parse() {
        Ok(rate) if (1.0..=1000.0).contains(&rate) => Ok(rate),
        _ => Err(format!(
            "{text:?} is no rate; write 100, anything from 1 to 1000 a second"
        )),
    }
}

/// A time as people write it: `250ms`, `1.5s`, `2m`; a bare number is seconds.
///
/// # Errors
/// A sentence for clap to print.
pub fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; write 250ms, 1.5s, 2m or a number of seconds");
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit.trim() {
        "" | "s" => 1.0,
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bytes(bytes) => {
                let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
                let whole = |&&(shift, _): &&(u32, &str)| *bytes > 0 && bytes % (1 << shift) == 0;
                match units.iter().find(whole) {
                    Some((shift, unit)) => write!(f, "{}{unit}", bytes >> shift),
                    None => write!(f, "{bytes}"),
                }
            }
            Value::Share(0.0) => write!(f, "none"),
            Value::Share(share) => write!(f, "{}%", (share * 1e6).round() / 1e4),
            Value::Rate(rate) => write!(f, "{rate}Hz"),
            Value::Time(time) => write!(f, "{}s", time.as_secs_f64()),
            Value::Text(text) => write!(f, "{}", text.escape_debug()),
            Value::Path(path) => write!(f, "{}", path.display()),
            Value::List(list) => write!(f, "[{}]", list.join(", ")),
            Value::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

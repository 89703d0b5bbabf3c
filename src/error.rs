//! What can go wrong, with the facts a person needs; `Display` is the one place with the prose.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Result of everything in this library that reads or writes.
pub type Result<T> = std::result::Result<T, Error>;

/// One fault: what happened, where, and (see [`Error::hint`]) what to do about it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The system refused; `doing` is a verb: "open", "read", "write".
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Whoever read our standard output is gone. Not a fault: the command ends quietly.
    Closed,
    /// A file of no bytes.
    Empty { path: PathBuf },
    /// A folder where a file is needed.
    Directory { path: PathBuf },
    /// The content is something else; `found` says what: "a PNG image".
    NotATrace { path: PathBuf, found: String },
    /// A table without one of the trace's columns.
    MissingColumn {
        path: PathBuf,
        column: &'static str,
        nearest: Option<String>,
    },
    /// A column whose values have another type than the format says.
    ColumnType {
        path: PathBuf,
        column: &'static str,
        found: String,
        wanted: String,
    },
    /// Written by a newer build.
    TooNew {
        path: PathBuf,
        version: u32,
        newest: u32,
    },
    /// A version that no release ever wrote, or that is read no more.
    TooOld {
        path: PathBuf,
        version: u32,
        oldest: u32,
    },
    /// The trace stops before its end mark; `place` says where.
    Cut { path: PathBuf, place: String },
    /// Bytes that no writer of this format makes; `place` says where.
    Corrupt {
        path: PathBuf,
        place: String,
        what: String,
    },
    /// A clock domain has no snapshot, so its events have no place on the timeline.
    NoSnapshot {
        path: PathBuf,
        domain: String,
        events: u64,
    },
    /// The same trace, or the same process, comes in twice.
    Duplicate {
        path: PathBuf,
        first: PathBuf,
        what: String,
    },
    /// Binary data would go to a terminal, or come from one.
    Terminal { doing: &'static str },
    /// A file name whose ending says no format that can be written.
    Ending { path: PathBuf },
    /// Any other fault of what the user gave: `what` names it, `hint` what to do.
    Invalid {
        path: PathBuf,
        what: String,
        hint: Option<String>,
    },
}

impl Error {
    /// An [`Error::Io`] of this verb and path, to be used as `map_err(Error::io("open", path))`.
    pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io {
            doing,
            path,
            source,
        }
    }

    /// An [`Error::Invalid`] without a hint.
    pub fn invalid(path: impl Into<PathBuf>, what: impl Into<String>) -> Error {
        Error::Invalid {
            path: path.into(),
            what: what.into(),
            hint: None,
        }
    }

    /// What the user can do about it, as one line; `None` where the message says it all.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Error::Empty { .. } => {
                "the command that should have written it, with -o FILE; did it fail?".into()
            }
            Error::Directory { path } => format!("one of the .parquet files in {}", path.display()),
            Error::NotATrace { .. } | Error::MissingColumn { .. } => {
                "a trace written by isc-record or isc-merge (.parquet or .arrow)".into()
            }
            Error::TooNew { .. } => "a newer InferScope: pip install --upgrade inferscope".into(),
            Error::TooOld { .. } => "record the program again".into(),
            Error::Cut { .. } => {
                "the command that wrote it again; what was recorded is kept: isc-record --recover DIR"
                    .into()
            }
            Error::Duplicate { .. } => "each trace once".into(),
            Error::Terminal { doing: "read" } => {
                "isc-record app.py | isc-merge, or the name of a trace".into()
            }
            Error::Terminal { .. } => "-o FILE.parquet, or a pipe".into(),
            Error::Ending { .. } => "a name ending in .parquet or .arrow, or - for a pipe".into(),
            Error::NoSnapshot { .. } => "record the program again; its clock was never read".into(),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "another folder, one that you can write to".into()
            }
            Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "another folder, or make room (TMPDIR is where large traces are sorted)".into()
            }
            Error::Invalid { hint, .. } => return hint.clone(),
            _ => return None,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io {
                doing,
                path,
                source,
            } => write!(f, "{}: cannot {doing}: {}", path.display(), plain(source)),
            Error::Closed => write!(f, "the reader of standard output is gone"),
            Error::Empty { path } => write!(f, "{}: empty, not a trace", path.display()),
            Error::Directory { path } => {
                write!(f, "{}: a directory, not a trace", path.display())
            }
            Error::NotATrace { path, found } => {
                write!(f, "{}: {found}, not a trace", path.display())
            }
            Error::MissingColumn {
                path,
                column,
                nearest,
            } => {
                write!(f, "{}: a table without column {column}", path.display())?;
                match nearest {
                    Some(name) => write!(
                        f,
                        " (nearest: {name}), so not a trace",
                        name = name.escape_debug()
                    ),
                    None => write!(f, ", so not a trace"),
                }
            }
            Error::ColumnType {
                path,
                column,
                found,
                wanted,
            } => write!(
                f,
                "{}: column {column} holds {found}, a trace has {wanted}",
                path.display()
            ),
            Error::TooNew {
                path,
                version,
                newest,
            } => write!(
                f,
                "{}: trace format {version}, this build reads up to {newest}",
                path.display()
            ),
            Error::TooOld {
                path,
                version,
                oldest,
            } => write!(
                f,
                "{}: trace format {version}, this build reads from {oldest}",
                path.display()
            ),
            Error::Cut { path, place } => {
                write!(
                    f,
                    "{}: cut off {place}: the end mark is missing",
                    path.display()
                )
            }
            Error::Corrupt { path, place, what } => {
                write!(f, "{}: damaged {place}: {what}", path.display())
            }
            Error::NoSnapshot {
                path,
                domain,
                events,
            } => write!(
                f,
                "{}: clock domain {domain} has no snapshot; its {events} events have no place in time",
                path.display()
            ),
            Error::Duplicate { path, first, what } if path == first => {
                write!(f, "{}: {what} comes in twice", path.display())
            }
            Error::Duplicate { path, first, what } => write!(
                f,
                "{}: {what} was already in {}",
                path.display(),
                first.display()
            ),
            Error::Terminal { doing: "read" } => {
                write!(f, "standard input is a terminal, not a trace")
            }
            Error::Terminal { .. } => {
                write!(f, "standard output is a terminal, and a trace is not text")
            }
            Error::Ending { path } => {
                write!(f, "{}: no format has this ending", path.display())
            }
            Error::Invalid { path, what, .. } if path.as_os_str().is_empty() => f.write_str(what),
            Error::Invalid { path, what, .. } => write!(f, "{}: {what}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The system's words for an error, without Rust's "(os error 2)".
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_lowercase(),
        None => text,
    }
}

/// The word of `known` that `word` most likely meant: at most a third of its letters differ.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|&(edits, candidate)| edits <= word.len().max(candidate.len()).div_ceil(3))
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, dropped or changed to make `a` into `b` (Levenshtein 1966).
fn edits(a: &str, b: &str) -> usize {
    // Longer words are nobody's typing error, and hostile ones would make this slow.
    let (a, b): (Vec<char>, Vec<char>) =
        (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_a_likely_slip_or_none() {
        let known = ["start_ns", "dur_ns", "kind"];
        assert_eq!(nearest("start", known), Some("start_ns"));
        assert_eq!(nearest("knid", known), Some("kind"));
        assert_eq!(nearest("passengers", known), None);
    }

    #[test]
    fn a_system_error_is_one_plain_sentence_with_its_path() {
        let source = io::Error::from_raw_os_error(2);
        let error = Error::io("open", Path::new("run.parquet"))(source);
        assert_eq!(
            error.to_string(),
            "run.parquet: cannot open: no such file or directory"
        );
    }
}

//! What the commands share: inputs, outputs, messages, exit status, manners in a pipe.

mod output;
mod progress;
mod signals;
mod units;

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Termination};
use std::str::FromStr;

use clap::Parser;

use crate::error::{Error, Result};
pub(crate) use output::fault;
pub use output::{Output, Sink};
pub use progress::Progress;
pub use signals::interrupts;
pub use units::time;

/// Exit status of a command that could not do its work.
pub const FAULT: u8 = 2;

/// Parses the arguments and runs the command; its faults are printed and end it with status 2.
///
/// The closure's value is `()` or an [`ExitCode`]. A reader of our output that is gone is no fault.
pub fn main<A: Parser, T: Termination>(run: impl FnOnce(A) -> Result<T>) -> ExitCode {
    main_with_fault(FAULT, run)
}

/// [`main`] with another exit status for our own faults: isc-record's is 125.
pub fn main_with_fault<A: Parser, T: Termination>(
    fault: u8,
    run: impl FnOnce(A) -> Result<T>,
) -> ExitCode {
    let args = match A::try_parse() {
        Ok(args) => args,
        Err(asked) => {
            let _ = asked.print();
            return match asked.exit_code() {
                0 => ExitCode::SUCCESS,
                _ => ExitCode::from(fault),
            };
        }
    };
    match run(args) {
        Ok(done) => done.report(),
        Err(Error::Closed) => ExitCode::SUCCESS,
        Err(error) => {
            complain(A::command().get_name(), &error);
            ExitCode::from(fault)
        }
    }
}

/// Prints a fault on stderr as `command: path: what`, and what to do on a second line.
pub fn complain(command: &str, error: &Error) {
    let mut text = format!("{command}: {error}\n");
    if let Some(hint) = error.hint() {
        text.push_str(&format!("  try: {hint}\n"));
    }
    // Nothing can be done if stderr is closed.
    let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
}

/// Says on stderr what a person should know of an output that was written; nothing if that is empty.
pub fn note(command: &str, output: &Sink, what: &impl fmt::Display) {
    let what = what.to_string();
    if !what.is_empty() {
        let text = format!("{command}: {}: {what}\n", output.path().display());
        // Nothing can be done if stderr is closed.
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
    }
}

/// Says something on stderr that is no fault: `command: what`.
pub fn say(command: &str, what: &str) {
    let text = format!("{command}: {what}\n");
    // Nothing can be done if stderr is closed.
    let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
}

/// Where a command reads from: a file, or standard input for `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Stdin,
    File(PathBuf),
}

/// An opened [`Source`].
#[derive(Debug)]
pub struct Input {
    pub file: File,
    /// For messages.
    pub path: PathBuf,
    /// An ordinary file at its start: it can be read out of order.
    pub seekable: bool,
}

impl Source {
    /// The name for messages.
    pub fn path(&self) -> PathBuf {
        match self {
            Source::Stdin => "standard input".into(),
            Source::File(path) => path.clone(),
        }
    }

    /// Opens it.
    ///
    /// # Errors
    /// Standard input that is a terminal, a directory, and what the system refuses.
    pub fn open(&self) -> Result<Input> {
        let path = self.path();
        let mut file = match self {
            Source::Stdin => {
                let stdin = io::stdin();
                if stdin.is_terminal() {
                    return Err(Error::Terminal { doing: "read" });
                }
                let owned = stdin.as_fd().try_clone_to_owned();
                File::from(owned.map_err(Error::io("open", &path))?)
            }
            Source::File(name) => File::open(name).map_err(Error::io("open", &path))?,
        };
        let facts = file.metadata().map_err(Error::io("open", &path))?;
        if facts.is_dir() {
            return Err(Error::Directory { path });
        }
        widen(&file);
        let seekable = facts.is_file() && file.stream_position().is_ok_and(|at| at == 0);
        Ok(Input {
            file,
            path,
            seekable,
        })
    }

    /// The whole content as text, for small inputs such as an analysis.
    ///
    /// # Errors
    /// As [`Source::open`]; bytes that are no UTF-8.
    pub fn read_text(&self) -> Result<String> {
        let mut input = self.open()?;
        let mut bytes = Vec::new();
        let read = input.file.read_to_end(&mut bytes);
        read.map_err(Error::io("read", &input.path))?;
        String::from_utf8(bytes).map_err(|_| Error::invalid(input.path, "not text (UTF-8)"))
    }

    /// A pipe, socket or the like: whoever writes it may still be at work.
    pub fn is_pipe(&self) -> bool {
        let piped = |facts: io::Result<std::fs::Metadata>| {
            facts.is_ok_and(|f| f.file_type().is_fifo() || f.file_type().is_socket())
        };
        match self {
            Source::Stdin => io::stdin()
                .as_fd()
                .try_clone_to_owned()
                .is_ok_and(|fd| piped(File::from(fd).metadata())),
            Source::File(path) => piped(std::fs::metadata(path)),
        }
    }
}

/// Bytes that a pipe should hold: what Linux allows anyone by default (/proc/sys/fs/pipe-max-size), 16 times what pipes begin
/// with. Two commands of a pipe need fewer turns then: measured, a sixth less time for a timeline of 600 MB.
const PIPE_BYTES: usize = 1 << 20;

/// Makes a pipe as wide as it may be. Anything else, and a pipe that may not be wider, stays as it is.
fn widen(file: &File) {
    if rustix::pipe::fcntl_getpipe_size(file).is_ok_and(|bytes| bytes < PIPE_BYTES) {
        // A user's pipes may take so many pages together, and no more: it works as well as before.
        let _ = rustix::pipe::fcntl_setpipe_size(file, PIPE_BYTES);
    }
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Source, Infallible> {
        Ok(match text {
            "-" => Source::Stdin,
            path => Source::File(path.into()),
        })
    }
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Source {
        Source::File(path.to_owned())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Stdin => f.write_str("-"),
            Source::File(path) => path.display().fmt(f),
        }
    }
}

/// A number of bytes as people write it: `512MiB`, `2 GB`, `65536`; powers of 1024 throughout.
///
/// # Errors
/// A sentence for clap to print.
pub fn bytes(text: &str) -> std::result::Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write 512MiB, 2GiB or a number of bytes");
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let shift = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("2 gb"), Ok(2 << 30));
        assert_eq!(bytes("7"), Ok(7));
        assert!(bytes("many").is_err());
        assert!(bytes("99999999999T").is_err());
    }
}

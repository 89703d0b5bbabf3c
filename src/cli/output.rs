//! Outputs: a file appears under its name when it is whole, and not before.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tempfile::NamedTempFile;

use super::signals;
use crate::error::{Error, Result};

/// Bytes gathered before they go to the system.
const BUFFER: usize = 1 << 20;

/// Where a command writes to: a file, or standard output for `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    Stdout,
    File(PathBuf),
}

impl Sink {
    /// The name for messages.
    pub fn path(&self) -> PathBuf {
        match self {
            Sink::Stdout => "standard output".into(),
            Sink::File(path) => path.clone(),
        }
    }

    /// The ending of the file's name, in lower case and without its dot; empty for standard output.
    pub fn extension(&self) -> String {
        match self {
            Sink::Stdout => String::new(),
            Sink::File(path) => path
                .extension()
                .map(|e| e.to_string_lossy().to_lowercase())
                .unwrap_or_default(),
        }
    }

    /// Opens it for text, which may go to a terminal.
    ///
    /// # Errors
    /// A directory, and what the system refuses.
    pub fn create(&self) -> Result<Output> {
        Output::new(self)
    }

    /// Opens it for a trace, which never goes to a terminal.
    ///
    /// # Errors
    /// As [`Sink::create`]; standard output that is a terminal.
    pub fn create_binary(&self) -> Result<Output> {
        if *self == Sink::Stdout && io::stdout().is_terminal() {
            return Err(Error::Terminal { doing: "write" });
        }
        Output::new(self)
    }

    /// Writes `text` and finishes.
    ///
    /// # Errors
    /// As [`Sink::create`]; a full disk; [`Error::Closed`].
    pub fn write_text(&self, text: &str) -> Result<()> {
        let mut output = self.create()?;
        let wrote = output.write_all(text.as_bytes());
        wrote.map_err(|error| output.fault(error))?;
        output.finish()
    }
}

impl FromStr for Sink {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Sink, Infallible> {
        Ok(match text {
            "-" => Sink::Stdout,
            path => Sink::File(path.into()),
        })
    }
}

impl From<&Path> for Sink {
    fn from(path: &Path) -> Sink {
        Sink::File(path.to_owned())
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sink::Stdout => f.write_str("-"),
            Sink::File(path) => path.display().fmt(f),
        }
    }
}

/// An opened [`Sink`]. Dropped without [`Output::finish`], it leaves no file.
#[derive(Debug)]
pub struct Output {
    to: BufWriter<To>,
    path: PathBuf,
}

#[derive(Debug)]
enum To {
    /// Standard output, a device, a pipe with a name, or a file someone else looks after.
    Open(File),
    /// A new file beside its final place.
    Temporary(Part, PathBuf),
}

#[derive(Debug)]
struct Part {
    file: NamedTempFile,
}

impl Drop for Part {
    fn drop(&mut self) {
        signals::forget(self.file.path());
    }
}

impl Output {
    fn new(sink: &Sink) -> Result<Output> {
        let path = sink.path();
        let name = match sink {
            Sink::Stdout => {
                let owned = io::stdout().as_fd().try_clone_to_owned();
                let file = File::from(owned.map_err(Error::io("open", &path))?);
                super::widen(&file);
                return Ok(Output::over(file, path));
            }
            Sink::File(name) => name,
        };
        // A link stays a link: what it leads to is replaced.
        let place = std::fs::canonicalize(name).unwrap_or_else(|_| name.clone());
        if let Ok(facts) = std::fs::metadata(&place) {
            if facts.is_dir() {
                return Err(Error::Directory { path });
            }
            if !facts.is_file() {
                let file = File::options().write(true).open(&place);
                let file = file.map_err(Error::io("open", &path))?;
                super::widen(&file);
                return Ok(Output::over(file, path));
            }
        }
        let folder = match place.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut prefix = OsString::from(".");
        prefix.push(place.file_name().unwrap_or_default());
        let part = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666)) // less the umask, as for any new file
            .tempfile_in(folder)
            .map_err(Error::io("create", &path))?;
        signals::remember(part.path());
        let to = To::Temporary(Part { file: part }, place);
        Ok(Output {
            to: BufWriter::with_capacity(BUFFER, to),
            path,
        })
    }

    /// Writes into an open file that needs no renaming.
    pub fn over(file: File, path: PathBuf) -> Output {
        Output {
            to: BufWriter::with_capacity(BUFFER, To::Open(file)),
            path,
        }
    }

    /// The name for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The [`Error`] for what a write returned.
    pub fn fault(&self, source: io::Error) -> Error {
        fault(&self.path, source)
    }

    /// All is written: the file appears under its name.
    ///
    /// # Errors
    /// What the system refuses, a full disk for one; [`Error::Closed`].
    pub fn finish(mut self) -> Result<()> {
        let flushed = self.to.flush();
        flushed.map_err(|error| self.fault(error))?;
        let Output { to, path } = self;
        let (to, _) = to.into_parts();
        let To::Temporary(part, place) = to else {
            return Ok(());
        };
        std::fs::rename(part.file.path(), &place).map_err(Error::io("create", &path))
        // The temporary file's own removal then finds nothing.
    }
}

/// The [`Error`] for a failed write to `path`: a reader that is gone is told apart.
pub(crate) fn fault(path: &Path, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::BrokenPipe => Error::Closed,
        _ => Error::io("write", path)(source),
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Write for To {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            To::Open(file) => file.write(bytes),
            To::Temporary(part, _) => part.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_when_it_is_finished_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        let sink = Sink::from(path.as_path());
        let mut output = sink.create().unwrap();
        output.write_all(b"half").unwrap();
        drop(output);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        sink.write_text("whole").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_no_output() {
        let folder = tempfile::tempdir().unwrap();
        let made = Sink::from(folder.path()).create();
        assert!(matches!(made, Err(Error::Directory { .. })));
    }
}

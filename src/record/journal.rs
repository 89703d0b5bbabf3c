//! What the recorder has taken from the segments, on disk until the trace is whole.
//!
//! A segment goes back to its producer once its records are here, long before they are in a finished file. If the
//! recorder dies, the journal is replayed; see formats/spool-v1.md.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use inferscope_spool::{Chain, sys};

use super::drain::ProcessKey;

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"ISCJRNL1";
/// Bytes gathered before they go to the system.
const BUFFER: usize = 1 << 20;
/// Bytes of a frame before its content: kind, pid, and eight numbers.
const HEAD: usize = 72;
/// Longest content that is believed.
const MOST: u64 = 1 << 30;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Records of a chain, and how many were lost after them.
    Records { chain: Chain, bytes: Vec<u8> },
    /// Rows that came from elsewhere, as `trace::text` has them.
    Rows(String),
    /// A process got the next number.
    Process(ProcessKey),
    /// What follows goes on after this many finished chunks of a window, and begins with all that is known by then.
    Chunk(u64),
}

const RECORDS: u32 = 1;
const ROWS: u32 = 2;
const PROCESS: u32 = 3;
const CHUNK: u32 = 4;

/// Appends frames, up to a limit.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    to: BufWriter<File>,
    bytes: u64,
    limit_bytes: u64,
}

impl Journal {
    /// A new journal.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn create(path: &Path, limit_bytes: u64) -> io::Result<Journal> {
        let mut options = File::options();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let mut to = BufWriter::with_capacity(BUFFER, file);
        to.write_all(MAGIC)?;
        Ok(Journal {
            path: path.to_owned(),
            to,
            bytes: 0,
            limit_bytes,
        })
    }

    /// Begins anew with the frames that `head` writes: everything before is in `chunks` finished chunks of a window.
    /// The old journal is there until the new one has its place.
    ///
    /// # Errors
    /// As [`Journal::records`].
    pub fn restart(
        &mut self,
        chunks: u64,
        head: impl FnOnce(&mut Journal) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.path.with_extension("new");
        let mut next = Journal::create(&path, self.limit_bytes)?;
        let number = Chain {
            chain: chunks,
            ..Chain::default()
        };
        next.frame(CHUNK, &number, &[])?;
        head(&mut next)?;
        next.flush()?;
        std::fs::rename(&path, &self.path)?;
        next.path.clone_from(&self.path);
        *self = next;
        Ok(())
    }

    /// Appends records and losses of a chain.
    ///
    /// # Errors
    /// A full disk; the limit.
    pub fn records(&mut self, chain: &Chain, bytes: &[u8]) -> io::Result<()> {
        self.frame(RECORDS, chain, bytes)
    }

    /// Appends rows.
    ///
    /// # Errors
    /// As [`Journal::records`].
    pub fn rows(&mut self, text: &str) -> io::Result<()> {
        self.frame(ROWS, &nobody(0, 0), text.as_bytes())
    }

    /// Appends that a process got the next number.
    ///
    /// # Errors
    /// As [`Journal::records`].
    pub fn process(&mut self, key: ProcessKey) -> io::Result<()> {
        self.frame(PROCESS, &nobody(key.pid, key.start_ticks), &[])
    }

    /// Hands everything to the system: from here on it outlives us.
    ///
    /// # Errors
    /// A full disk.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn frame(&mut self, kind: u32, chain: &Chain, content: &[u8]) -> io::Result<()> {
        self.bytes += (HEAD + content.len()) as u64;
        if self.bytes > self.limit_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&kind.to_le_bytes());
        head[4..8].copy_from_slice(&chain.pid.to_le_bytes());
        let words = [
            chain.start_ticks,
            chain.chain,
            chain.tid,
            chain.index,
            chain.at,
            chain.lost_at,
            chain.lost,
            content.len() as u64,
        ];
        for (at, word) in words.iter().enumerate() {
            head[8 + 8 * at..16 + 8 * at].copy_from_slice(&word.to_le_bytes());
        }
        self.to.write_all(&head)?;
        self.to.write_all(content)
    }
}

fn nobody(pid: u32, start_ticks: u64) -> Chain {
    Chain {
        pid,
        start_ticks,
        ..Chain::default()
    }
}

/// Reads a journal up to its end, or to where it was cut.
#[derive(Debug)]
pub struct Replay<R> {
    from: R,
}

impl Replay<BufReader<File>> {
    /// Opens a journal.
    ///
    /// # Errors
    /// What the system refuses; `InvalidData` for another kind of file.
    pub fn open(path: &Path) -> io::Result<Replay<BufReader<File>>> {
        let file = sys::open_own(path, false)?;
        Replay::new(BufReader::with_capacity(BUFFER, file))
    }
}

impl<R: Read> Replay<R> {
    /// Reads a journal from its first byte.
    ///
    /// # Errors
    /// `InvalidData` for something else.
    pub fn new(mut from: R) -> io::Result<Replay<R>> {
        let mut magic = [0; 8];
        match from.read_exact(&mut magic) {
            Ok(()) if &magic != MAGIC => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "not a journal"))
            }
            _ => Ok(Replay { from }), // an empty one was never flushed
        }
    }
}

impl<R: Read> Iterator for Replay<R> {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let mut head = [0; HEAD];
        self.from.read_exact(&mut head).ok()?;
        let half = |at: usize| {
            let bytes = head[at..at + 4].try_into().unwrap_or_default();
            u32::from_le_bytes(bytes)
        };
        let number = |at: usize| {
            let bytes = head[8 + 8 * at..16 + 8 * at].try_into().unwrap_or_default();
            u64::from_le_bytes(bytes)
        };
        let len = number(7);
        if len > MOST {
            return None;
        }
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(len).read_to_end(&mut bytes).ok()?;
        if read as u64 != len {
            return None;
        }
        let (pid, start_ticks) = (half(4), number(0));
        Some(match half(0) {
            RECORDS => Frame::Records {
                chain: Chain {
                    pid,
                    start_ticks,
                    chain: number(1),
                    tid: number(2),
                    index: number(3),
                    at: number(4),
                    lost_at: number(5),
                    lost: number(6),
                    closed: false,
                },
                bytes,
            },
            ROWS => Frame::Rows(String::from_utf8(bytes).ok()?),
            PROCESS => Frame::Process(ProcessKey { pid, start_ticks }),
            CHUNK => Frame::Chunk(number(1)),
            _ => return None,
        })
    }
}

/// Up to where the journal has each chain: what a segment still holds of that is not taken twice.
#[derive(Debug, Default)]
pub struct Known {
    chains: HashMap<(ProcessKey, u64), Place>,
}

/// A place in a chain; a later one is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    index: u64,
    at: u64,
    lost: u64,
}

impl Known {
    /// Takes note of a frame of the journal.
    pub fn see(&mut self, chain: &Chain, bytes: &[u8]) {
        let place = Place {
            index: chain.index,
            at: chain.at.saturating_add(bytes.len() as u64),
            lost: chain.lost_at.saturating_add(chain.lost),
        };
        let known = self.chains.entry(key(chain)).or_default();
        *known = place.max(*known);
    }

    /// What of these bytes and losses, read from a segment, the journal does not have.
    pub fn rest<'a>(&self, chain: &Chain, bytes: &'a [u8]) -> (Chain, &'a [u8]) {
        let Some(known) = self.chains.get(&key(chain)) else {
            return (*chain, bytes);
        };
        let (skip, lost) = match chain.index.cmp(&known.index) {
            std::cmp::Ordering::Less => (u64::MAX, chain.lost),
            std::cmp::Ordering::Equal => {
                let lost = known.lost.saturating_sub(chain.lost_at);
                (known.at.saturating_sub(chain.at), lost.min(chain.lost))
            }
            std::cmp::Ordering::Greater => (0, 0),
        };
        let skip = skip.min(bytes.len() as u64);
        let rest = Chain {
            at: chain.at.saturating_add(skip),
            lost_at: chain.lost_at.saturating_add(lost),
            lost: chain.lost - lost,
            ..*chain
        };
        (rest, &bytes[skip as usize..])
    }
}

fn key(chain: &Chain) -> (ProcessKey, u64) {
    let process = ProcessKey {
        pid: chain.pid,
        start_ticks: chain.start_ticks,
    };
    (process, chain.chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ProcessKey = ProcessKey {
        pid: 7,
        start_ticks: 99,
    };

    fn chain(index: u64, at: u64, [lost_at, lost]: [u64; 2]) -> Chain {
        Chain {
            chain: 3,
            tid: 8,
            index,
            at,
            lost_at,
            lost,
            ..nobody(KEY.pid, KEY.start_ticks)
        }
    }

    #[test]
    fn frames_come_back_up_to_where_the_file_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, 1 << 20).unwrap();
        journal.process(KEY).unwrap();
        journal.records(&chain(4, 5, [6, 7]), &[1; 32]).unwrap();
        journal.rows("kind start\nmark 1\n").unwrap();
        journal.flush().unwrap();
        let all: Vec<Frame> = Replay::open(&path).unwrap().collect();
        let records = Frame::Records {
            chain: chain(4, 5, [6, 7]),
            bytes: vec![1; 32],
        };
        let rows = Frame::Rows("kind start\nmark 1\n".into());
        let expected = [Frame::Process(KEY), records, rows];
        assert_eq!(all, expected);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let some: Vec<Frame> = Replay::open(&path).unwrap().collect();
            assert_eq!(some, expected[..some.len()]);
        }
        std::fs::write(&path, b"something else").unwrap();
        assert!(Replay::open(&path).is_err());
    }

    #[test]
    fn a_journal_that_begins_anew_has_only_what_came_since() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, 1 << 20).unwrap();
        journal.records(&chain(0, 0, [0, 0]), &[1; 32]).unwrap();
        journal.restart(4, |next| next.process(KEY)).unwrap();
        journal.records(&chain(0, 32, [0, 0]), &[2; 16]).unwrap();
        journal.flush().unwrap();
        let all: Vec<Frame> = Replay::open(&path).unwrap().collect();
        assert_eq!(all[..2], [Frame::Chunk(4), Frame::Process(KEY)]);
        assert!(matches!(&all[2], Frame::Records { bytes, .. } if bytes == &[2; 16]));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn a_journal_stops_at_its_limit_and_goes_through_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, 200).unwrap();
        journal.records(&chain(0, 0, [0, 0]), &[0; 64]).unwrap();
        assert!(journal.records(&chain(0, 64, [0, 0]), &[0; 64]).is_err());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
        assert!(Journal::create(&link, 200).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }

    #[test]
    fn what_the_journal_has_is_not_taken_twice() {
        let mut known = Known::default();
        known.see(&chain(0, 0, [0, 0]), b"first segment");
        known.see(&chain(1, 0, [0, 0]), b"one ");
        known.see(&chain(1, 4, [0, 3]), b"two ");
        let rest = |chain: &Chain, bytes: &'static [u8]| {
            let (rest, bytes) = known.rest(chain, bytes);
            (rest.at, rest.lost_at, rest.lost, bytes)
        };
        // a segment that was journaled, and released or not
        assert_eq!(rest(&chain(0, 6, [0, 2]), b"segment").3, b"");
        let same = rest(&chain(1, 4, [0, 5]), b"two three");
        assert_eq!(same, (8, 3, 2, &b"three"[..]));
        assert_eq!(
            rest(&chain(1, 8, [3, 1]), b"three"),
            (8, 3, 1, &b"three"[..])
        );
        assert_eq!(rest(&chain(2, 0, [0, 1]), b"four"), (0, 0, 1, &b"four"[..]));
        let other = Chain {
            chain: 4,
            ..chain(0, 0, [0, 0])
        };
        assert_eq!(rest(&other, b"five").3, b"five");
    }
}

//! What the recorder has taken from the segments, on disk until the trace is whole.
//!
//! A segment goes back to its producer once its records are here, long before they are in a finished file. If the
//! recorder dies, the journal is replayed; see formats/spool-v1.md.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use inferscope_spool::Chain;

use super::drain::ProcessKey;

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"ISCJRNL1";
/// Bytes gathered before they go to the system.
const BUFFER: usize = 1 << 20;
/// Bytes of a frame before its content.
const HEAD: usize = 40;
/// Longest content that is believed.
const MOST: u64 = 1 << 30;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Records of a chain, and how many were lost after them.
    Records {
        key: ProcessKey,
        chain: u64,
        tid: u64,
        lost: u64,
        bytes: Vec<u8>,
    },
    /// Rows that came from elsewhere, as `trace::text` has them.
    Rows(String),
    /// A process got the next number.
    Process(ProcessKey),
    /// The producers were given back everything before this.
    Released,
    /// What follows goes on after this many finished chunks of a window, and begins with all that is known by then.
    Chunk(u64),
}

const RECORDS: u32 = 1;
const ROWS: u32 = 2;
const PROCESS: u32 = 3;
const RELEASED: u32 = 4;
const CHUNK: u32 = 5;

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
        let mut to = BufWriter::with_capacity(BUFFER, File::create(path)?);
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
        next.frame(CHUNK, NOBODY, [chunks, 0], 0, &[])?;
        head(&mut next)?;
        next.released()?;
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
        let key = ProcessKey {
            pid: chain.pid,
            start_ticks: chain.start_ticks,
        };
        self.frame(RECORDS, key, [chain.chain, chain.tid], chain.lost, bytes)
    }

    /// Appends rows.
    ///
    /// # Errors
    /// As [`Journal::records`].
    pub fn rows(&mut self, text: &str) -> io::Result<()> {
        self.frame(ROWS, NOBODY, [0, 0], 0, text.as_bytes())
    }

    /// Appends that a process got the next number.
    ///
    /// # Errors
    /// As [`Journal::records`].
    pub fn process(&mut self, key: ProcessKey) -> io::Result<()> {
        self.frame(PROCESS, key, [0, 0], 0, &[])
    }

    /// Appends that all before was released.
    ///
    /// # Errors
    /// As [`Journal::records`].
    pub fn released(&mut self) -> io::Result<()> {
        self.frame(RELEASED, NOBODY, [0, 0], 0, &[])
    }

    /// Hands everything to the system: from here on it outlives us.
    ///
    /// # Errors
    /// A full disk.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn frame(
        &mut self,
        kind: u32,
        key: ProcessKey,
        [chain, tid]: [u64; 2],
        lost: u64,
        content: &[u8],
    ) -> io::Result<()> {
        self.bytes += (HEAD + 8 + content.len()) as u64;
        if self.bytes > self.limit_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut head = [0; HEAD + 8];
        head[..4].copy_from_slice(&kind.to_le_bytes());
        head[4..8].copy_from_slice(&key.pid.to_le_bytes());
        let words = [key.start_ticks, chain, tid, lost, content.len() as u64];
        for (at, word) in words.iter().enumerate() {
            head[8 + 8 * at..16 + 8 * at].copy_from_slice(&word.to_le_bytes());
        }
        self.to.write_all(&head)?;
        self.to.write_all(content)
    }
}

const NOBODY: ProcessKey = ProcessKey {
    pid: 0,
    start_ticks: 0,
};

/// Reads a journal up to its end, or to where it was cut.
#[derive(Debug)]
pub struct Replay {
    from: BufReader<File>,
}

impl Replay {
    /// Opens a journal.
    ///
    /// # Errors
    /// What the system refuses; `InvalidData` for another kind of file.
    pub fn open(path: &Path) -> io::Result<Replay> {
        let mut from = BufReader::with_capacity(BUFFER, File::open(path)?);
        let mut magic = [0; 8];
        match from.read_exact(&mut magic) {
            Ok(()) if &magic != MAGIC => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "not a journal"))
            }
            _ => Ok(Replay { from }), // an empty one was never flushed
        }
    }
}

impl Iterator for Replay {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let mut head = [0; HEAD + 8];
        self.from.read_exact(&mut head).ok()?;
        let number = |at: usize| {
            let bytes = head[at..at + 8].try_into().unwrap_or_default();
            u64::from_le_bytes(bytes)
        };
        let half = |at: usize| (number(at) & 0xffff_ffff) as u32;
        let len = number(40);
        if len > MOST {
            return None;
        }
        let mut bytes = Vec::new();
        let read = (&mut self.from).take(len).read_to_end(&mut bytes).ok()?;
        if read as u64 != len {
            return None;
        }
        let key = ProcessKey {
            pid: half(4),
            start_ticks: number(8),
        };
        Some(match half(0) {
            RECORDS => Frame::Records {
                key,
                chain: number(16),
                tid: number(24),
                lost: number(32),
                bytes,
            },
            ROWS => Frame::Rows(String::from_utf8(bytes).ok()?),
            PROCESS => Frame::Process(key),
            RELEASED => Frame::Released,
            CHUNK => Frame::Chunk(number(16)),
            _ => return None,
        })
    }
}

/// Tells which records of the journal are still in the segments: those that were written here and, the recorder
/// having died right then, never released.
#[derive(Debug, Default)]
pub struct Tail {
    chains: HashMap<(ProcessKey, u64), Vec<u8>>,
}

impl Tail {
    /// Looks at a frame of the journal, in order.
    pub fn see(&mut self, frame: &Frame) {
        match frame {
            Frame::Released => self.chains.clear(),
            Frame::Records {
                key, chain, bytes, ..
            } => self
                .chains
                .entry((*key, *chain))
                .or_default()
                .extend_from_slice(bytes),
            Frame::Rows(_) | Frame::Process(_) | Frame::Chunk(_) => {}
        }
    }

    /// What of these bytes, read from a segment, the journal did not have.
    pub fn rest<'a>(&mut self, key: ProcessKey, chain: u64, bytes: &'a [u8]) -> &'a [u8] {
        let Some(known) = self.chains.get_mut(&(key, chain)) else {
            return bytes;
        };
        let same = known.len().min(bytes.len());
        if same == 0 || known[..same] != bytes[..same] {
            self.chains.remove(&(key, chain));
            return bytes;
        }
        known.drain(..same);
        &bytes[same..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ProcessKey = ProcessKey {
        pid: 7,
        start_ticks: 99,
    };

    fn chain(lost: u64) -> Chain {
        Chain {
            pid: KEY.pid,
            start_ticks: KEY.start_ticks,
            chain: 3,
            tid: 8,
            lost,
            closed: false,
        }
    }

    #[test]
    fn frames_come_back_up_to_where_the_file_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, 1 << 20).unwrap();
        journal.process(KEY).unwrap();
        journal.records(&chain(2), &[1; 32]).unwrap();
        journal.released().unwrap();
        journal.rows("kind start\nmark 1\n").unwrap();
        journal.flush().unwrap();
        let all: Vec<Frame> = Replay::open(&path).unwrap().collect();
        let records = Frame::Records {
            key: KEY,
            chain: 3,
            tid: 8,
            lost: 2,
            bytes: vec![1; 32],
        };
        let rows = Frame::Rows("kind start\nmark 1\n".into());
        let expected = [Frame::Process(KEY), records, Frame::Released, rows];
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
        journal.records(&chain(0), &[1; 32]).unwrap();
        journal.restart(4, |next| next.process(KEY)).unwrap();
        journal.records(&chain(0), &[2; 16]).unwrap();
        journal.flush().unwrap();
        let all: Vec<Frame> = Replay::open(&path).unwrap().collect();
        assert_eq!(
            all[..3],
            [Frame::Chunk(4), Frame::Process(KEY), Frame::Released]
        );
        assert!(matches!(&all[3], Frame::Records { bytes, .. } if bytes == &[2; 16]));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn a_journal_stops_at_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(&dir.path().join("journal"), 200).unwrap();
        journal.records(&chain(0), &[0; 64]).unwrap();
        assert!(journal.records(&chain(0), &[0; 64]).is_err());
    }

    #[test]
    fn what_was_not_released_is_not_read_twice() {
        let frame = |bytes: &[u8]| Frame::Records {
            key: KEY,
            chain: 3,
            tid: 8,
            lost: 0,
            bytes: bytes.to_vec(),
        };
        let mut tail = Tail::default();
        tail.see(&frame(b"released"));
        tail.see(&Frame::Released);
        tail.see(&frame(b"one "));
        tail.see(&frame(b"two "));
        assert_eq!(tail.rest(KEY, 3, b"one t"), b"");
        assert_eq!(tail.rest(KEY, 3, b"wo three"), b"three");
        assert_eq!(tail.rest(KEY, 3, b"four"), b"four");
        tail.see(&frame(b"five"));
        assert_eq!(tail.rest(KEY, 3, b"six"), b"six", "they were released");
        assert_eq!(tail.rest(KEY, 4, b"five"), b"five", "another chain");
    }
}

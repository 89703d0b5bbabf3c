//! The bytes of a file on their way in: hashed, unpacked, and handed over in blocks by a thread of their own.
//!
//! Reading, hashing and unpacking take about as long as parsing does, so the two go side by side. Blocks that wait
//! are few: memory does not depend on the file.

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Result};

/// Bytes of a block. A fuzzer's files are small: blocks have to end within them.
const BLOCK: usize = if cfg!(fuzzing) { 1 << 9 } else { 1 << 20 };

/// Blocks that may wait for the parser.
const WAITING: usize = 3;

/// How the bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Packing {
    /// What the first bytes of a file say.
    pub fn of(head: &[u8]) -> Packing {
        match head {
            [0x1f, 0x8b, ..] => Packing::Gzip,             // RFC 1952, 2.3.1
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd, // RFC 8878, 3.1.1
            _ => Packing::None,
        }
    }

    /// A reader of what was packed. Several gzip members or zstd frames, one after the other, are one stream.
    ///
    /// # Errors
    /// A zstd decoder that cannot be made.
    pub fn reader<'a>(self, from: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Packing::None => Box::new(from),
            Packing::Gzip => Box::new(MultiGzDecoder::new(from)),
            Packing::Zstd => Box::new(zstd::Decoder::new(from)?),
        })
    }

    /// The word for messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Packing::None => "plain",
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
        }
    }
}

/// Room before the bytes of a block, for the part of a value that the block before ended in: so that the two stand
/// together without a copy of the block.
pub const HEADROOM: usize = 1 << 16;

/// Unpacked bytes, in order.
#[derive(Debug)]
pub struct Blocks {
    blocks: Receiver<io::Result<Vec<u8>>>,
    /// Blocks that were read, to be filled again: the system need not clear new pages for each.
    used: SyncSender<Vec<u8>>,
    thread: Option<JoinHandle<String>>,
    hash: Option<String>,
}

impl Blocks {
    /// Starts to read what is left of `file`, before which `head` was taken from it.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(head: Vec<u8>, file: File) -> io::Result<Blocks> {
        let (to, blocks) = sync_channel(WAITING);
        let (used, again) = sync_channel(2 * WAITING + 2);
        let thread = std::thread::Builder::new().name("isc-read".into());
        let thread = thread.spawn(move || send(head, file, &to, &again))?;
        Ok(Blocks {
            blocks,
            used,
            thread: Some(thread),
            hash: None,
        })
    }

    /// The next bytes, behind [`HEADROOM`] bytes of no meaning; `None` at the end.
    ///
    /// # Errors
    /// What the system refuses, and what is not packed as its first bytes said.
    pub fn next_block(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.blocks.recv() {
            Ok(block) => block.map(Some),
            Err(_) => {
                self.join();
                Ok(None)
            }
        }
    }

    /// Takes blocks back, for another thread.
    pub fn giver(&self) -> SyncSender<Vec<u8>> {
        self.used.clone()
    }

    /// Takes back a block that is no longer needed.
    pub fn give_back(&self, block: Vec<u8>) {
        let _ = self.used.try_send(block);
    }

    /// blake3 of the file as it is, packed, in hexadecimal; only once the end was reached.
    pub fn hash(&mut self) -> Option<String> {
        self.join();
        self.hash.clone()
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.hash = thread.join().ok();
        }
    }
}

/// Sends all blocks, or the error that ends them. The hash of what was read.
fn send(
    head: Vec<u8>,
    file: File,
    to: &SyncSender<io::Result<Vec<u8>>>,
    again: &Receiver<Vec<u8>>,
) -> String {
    let packing = Packing::of(&head);
    let mut raw = Hashed {
        from: Cursor::new(head).chain(file),
        hasher: blake3::Hasher::new(),
    };
    let sent = packing.reader(&mut raw).and_then(|mut from| {
        loop {
            let mut block = again.try_recv().unwrap_or_default();
            block.resize(HEADROOM + BLOCK, 0);
            let mut end = HEADROOM;
            while end < block.len() {
                match from.read(&mut block[end..]) {
                    Ok(0) => break,
                    Ok(read) => end += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            block.truncate(end);
            // A parser that is gone needs no more.
            if end == HEADROOM || to.send(Ok(block)).is_err() {
                return Ok(());
            }
        }
    });
    // What stands behind the last frame belongs to the file's hash.
    let rest = sent.and_then(|()| io::copy(&mut raw, &mut io::sink()));
    if let Err(error) = rest {
        let _ = to.send(Err(error));
    }
    raw.hasher.finalize().to_hex().to_string()
}

/// A reader that hashes what passes.
#[derive(Debug)]
pub(super) struct Hashed<R> {
    pub from: R,
    pub hasher: blake3::Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(bytes)?;
        self.hasher.update(&bytes[..read]);
        Ok(read)
    }
}

/// The [`Error`] of a file that cannot be read or unpacked.
pub(super) fn packed(error: io::Error, path: &Path) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Cut {
            path: path.to_owned(),
            place: "in its compressed data".into(),
        },
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Error::Corrupt {
            path: path.to_owned(),
            place: "in its compressed data".into(),
            what: error.to_string(),
        },
        _ => Error::io("read", path)(error),
    }
}

/// Copies the content to a temporary file. With it the hash of what was read.
pub(super) fn unpack(
    head: Vec<u8>,
    file: File,
    packing: Packing,
    path: &Path,
) -> Result<(tempfile::NamedTempFile, String)> {
    let folder = std::env::temp_dir();
    let create = tempfile::NamedTempFile::new_in(&folder);
    let mut to = create.map_err(Error::io("create a temporary file in", &folder))?;
    let mut raw = Hashed {
        from: Cursor::new(head).chain(file),
        hasher: blake3::Hasher::new(),
    };
    let mut from = packing.reader(&mut raw).map_err(|e| packed(e, path))?;
    let mut block = vec![0; 1 << 18];
    loop {
        let read = match from.read(&mut block) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read.map_err(|error| packed(error, path))?,
        };
        if read == 0 {
            break;
        }
        to.write_all(&block[..read])
            .map_err(Error::io("write a temporary file in", &folder))?;
    }
    drop(from);
    // What stands behind the last frame belongs to the file's hash.
    io::copy(&mut raw, &mut io::sink()).map_err(|error| packed(error, path))?;
    Ok((to, raw.hasher.finalize().to_hex().to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn whole(bytes: &[u8]) -> io::Result<(Vec<u8>, String)> {
        let mut file = tempfile::tempfile()?;
        let at = bytes.len().min(4);
        file.write_all(&bytes[at..])?;
        io::Seek::rewind(&mut file)?;
        let mut blocks = Blocks::start(bytes[..at].to_vec(), file)?;
        let mut all = Vec::new();
        while let Some(block) = blocks.next_block()? {
            all.extend(&block[HEADROOM..]);
            blocks.give_back(block);
        }
        Ok((all, blocks.hash().unwrap()))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        to.write_all(bytes).unwrap();
        to.finish().unwrap()
    }

    #[test]
    fn packed_bytes_come_out_as_they_went_in_and_the_file_is_hashed_as_it_is() {
        let text: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let members = [gzip(&text[..10]), gzip(&text[10..])].concat();
        let frames = zstd::encode_all(&text[..], 1).unwrap();
        for packed in [&text, &members, &frames] {
            let (all, hash) = whole(packed).unwrap();
            assert!(all == text);
            assert_eq!(hash, blake3::hash(packed).to_hex().to_string());
        }
    }

    #[test]
    fn a_cut_is_an_error() {
        let packed = gzip(&vec![7; 100_000]);
        let error = whole(&packed[..packed.len() - 9]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let frames = zstd::encode_all(&vec![7; 100_000][..], 1).unwrap();
        assert!(whole(&frames[..frames.len() - 3]).is_err());
    }
}

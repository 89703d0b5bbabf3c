//! The Arrow IPC stream being read, message by message, so that every cut is seen and placed.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{read_dictionary, read_record_batch};
use arrow::ipc::{MessageHeader, root_as_message};

use super::{Metadata, columns, guard};
use crate::error::{Error, Result};

/// What stands before the length of every message.
pub const CONTINUATION: [u8; 4] = [0xff; 4];

/// The longest message head, in bytes: far above that of any schema or batch of ours.
const HEAD_LIMIT: u64 = 64 << 20;
/// The longest message body, in bytes: Arrow's own limit for texts with 32-bit offsets, twice.
const BODY_LIMIT: u64 = 4 << 30;

/// A stream being read.
pub struct Stream {
    from: Box<dyn Read + Send>,
    hasher: Option<Box<blake3::Hasher>>,
    schema: SchemaRef,
    dictionaries: HashMap<i64, ArrayRef>,
    /// Bytes read so far.
    at: u64,
    batches: u64,
    finished: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("at", &self.at).finish()
    }
}

impl Stream {
    /// Reads the schema and checks it.
    pub fn open(
        from: impl Read + Send + 'static,
        path: &Path,
        hashed: bool,
    ) -> Result<(Stream, Metadata)> {
        let mut stream = Stream {
            from: Box::new(from),
            hasher: hashed.then(Box::default),
            schema: columns::schema([]),
            dictionaries: HashMap::new(),
            at: 0,
            batches: 0,
            finished: false,
        };
        let Some((head, _)) = stream.message(path)? else {
            return Err(stream.damaged(path, "it ends before its schema"));
        };
        let schema = guard(|| {
            let message = root_as_message(&head).map_err(|e| e.to_string())?;
            match message.header_as_schema() {
                Some(schema) => try_fb_to_schema(schema).map_err(|e| e.to_string()),
                None => Err("its first message is no schema".to_owned()),
            }
        });
        let schema = schema.map_err(|what| stream.damaged(path, &what))?;
        let get = |key: &str| schema.metadata().get(key).cloned();
        let metadata = Metadata::check(get, &schema, path)?;
        stream.schema = Arc::new(schema);
        Ok((stream, metadata))
    }

    /// The next batch and its place; `None` at the end of the stream, behind which there is nothing.
    pub fn next_batch(&mut self, path: &Path) -> Result<Option<(RecordBatch, String)>> {
        while let Some((head, body)) = self.message(path)? {
            let body = Buffer::from_vec(body);
            let decoded = guard(|| {
                let wrong = |error: ArrowError| error.to_string();
                let message = root_as_message(&head).map_err(|e| e.to_string())?;
                match message.header_type() {
                    MessageHeader::DictionaryBatch => {
                        let Some(dictionary) = message.header_as_dictionary_batch() else {
                            return Err("a dictionary without a head".to_owned());
                        };
                        let known = &mut self.dictionaries;
                        let version = message.version();
                        read_dictionary(&body, dictionary, &self.schema, known, &version)
                            .map_err(wrong)?;
                        Ok(None)
                    }
                    MessageHeader::RecordBatch => {
                        let Some(batch) = message.header_as_record_batch() else {
                            return Err("a batch without a head".to_owned());
                        };
                        let (schema, known) = (self.schema.clone(), &self.dictionaries);
                        let version = message.version();
                        read_record_batch(&body, batch, schema, known, None, &version)
                            .map(Some)
                            .map_err(wrong)
                    }
                    other => Err(format!("a message of kind {other:?}")),
                }
            });
            if let Some(batch) = decoded.map_err(|what| self.damaged(path, &what))? {
                self.batches += 1;
                return Ok(Some((batch, format!("in batch {}", self.batches))));
            }
        }
        Ok(None)
    }

    /// blake3 of what was read so far.
    pub fn hash(&self) -> Option<String> {
        let hasher = self.hasher.as_ref()?;
        Some(hasher.finalize().to_hex().to_string())
    }

    /// Head and body of the next message; `None` at the end mark, after which nothing may follow.
    fn message(&mut self, path: &Path) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        if self.finished {
            return Ok(None);
        }
        let start = self.take(8, path)?;
        let (mark, length) = start.split_at(4);
        if mark != CONTINUATION {
            return Err(self.damaged(path, "no message starts here"));
        }
        let length = u64::from(u32::from_le_bytes(length.try_into().unwrap_or_default()));
        if length == 0 {
            self.finished = true;
            let mut more = [0; 1];
            let read = self.from.read(&mut more).map_err(Error::io("read", path))?;
            return match read {
                0 => Ok(None),
                _ => Err(self.damaged(path, "bytes after the end of the stream")),
            };
        }
        if length > HEAD_LIMIT {
            return Err(self.damaged(path, "a message head of impossible length"));
        }
        let head = self.take(length, path)?;
        let body = guard(|| root_as_message(&head).map(|m| m.bodyLength()))
            .ok()
            .and_then(|body| u64::try_from(body).ok())
            .filter(|&body| body <= BODY_LIMIT);
        let Some(body) = body else {
            return Err(self.damaged(path, "a message head that makes no sense"));
        };
        let body = self.take(body, path)?;
        Ok(Some((head, body)))
    }

    /// Exactly `count` bytes; memory is taken as they come, whatever was promised.
    fn take(&mut self, count: u64, path: &Path) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(count.min(1 << 24) as usize);
        let read = (&mut self.from).take(count).read_to_end(&mut bytes);
        let read = read.map_err(Error::io("read", path))? as u64;
        self.at += read;
        if read < count {
            let batches = match self.batches {
                0 => "before its first batch".to_owned(),
                n => format!("after batch {n}"),
            };
            return Err(Error::Cut {
                path: path.to_owned(),
                place: format!("{batches}, at byte {}", self.at),
            });
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes);
        }
        Ok(bytes)
    }

    fn damaged(&self, path: &Path, what: &str) -> Error {
        Error::Corrupt {
            path: path.to_owned(),
            place: format!("before byte {}", self.at),
            what: what.to_owned(),
        }
    }
}

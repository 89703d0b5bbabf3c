//! The trace event format: Kineto, Chrome, Perfetto's JSON, VizTracer, TensorFlow's trace.json.
//!
//! `{"traceEvents": [...], ...}` or a bare array, of any length: a few blocks of it are in memory at a time. What stands beside the
//! events is passed over but for a few keys, so that environments and package lists which some files carry never reach a trace.
//!
//! # Source
//! "Trace Event Format", Google (2016), for phases and fields; pytorch/kineto, libkineto/src/output_json.cpp.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::decimal::{scaled, unsigned};
use super::json::{Text, Window};
use super::kineto::Key;
use super::tokens::{Arg, Batch, Part, Token, Tokens};
use super::tracks::{Owner, Tracks};
use super::{Lenient, kineto};
use crate::error::{Error, Result};
use crate::trace::{Event, Kind, Names};

/// Spans that may be open on all tracks together: a file that only begins them does not fill the memory.
const MOST_OPEN: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct TraceEvents {
    path: PathBuf,
    tokens: Tokens,
    open: Open,
    tracks: Tracks,
    lenient: Lenient,
}

/// One event, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    phase: u8,
    pub cat: Text<'a>,
    pub name: Text<'a>,
    ts: &'a [u8],
    dur: &'a [u8],
    pub pid: &'a [u8],
    pub tid: &'a [u8],
    id: &'a [u8],
    bytes: &'a [u8],
    args: &'a [Arg],
}

impl<'a> Fields<'a> {
    fn new(token: &Token, batch: &'a Batch) -> Fields<'a> {
        let text = |part, escaped| Text {
            raw: batch.part(part),
            escaped,
        };
        Fields {
            phase: token.phase,
            cat: text(token.cat, token.escaped.0),
            name: text(token.name, token.escaped.1),
            ts: batch.part(token.ts),
            dur: batch.part(token.dur),
            pid: batch.part(token.pid),
            tid: batch.part(token.tid),
            id: batch.part(token.id),
            bytes: &batch.bytes,
            args: &batch.args[token.args.0 as usize..token.args.1 as usize],
        }
    }

    /// Its args: what each is, keys and values as they stand.
    pub fn args(&self) -> impl Iterator<Item = (Key, &'a [u8], &'a [u8])> + use<'a> {
        let (bytes, args) = (self.bytes, self.args);
        let part = move |(from, to): Part| &bytes[from as usize..to as usize];
        args.iter()
            .map(move |arg| (arg.id, part(arg.key), part(arg.value)))
    }
}

/// Spans that began and did not end yet.
#[derive(Debug, Default)]
struct Open {
    nested: HashMap<(u32, u64), Vec<Event>>,
    crossing: HashMap<(Vec<u8>, Vec<u8>), Vec<Event>>,
    count: usize,
    /// Texts of what is open: those of the rows that were handed over may be gone when a span ends.
    names: Names,
    /// Ends without a beginning.
    unmatched: u64,
}

impl Open {
    /// A span that begins, with texts of its own.
    fn begun(&mut self, event: Event, names: &Names) -> Event {
        if self.count == 0 {
            self.names = Names::default();
        }
        self.count += 1;
        moved(event, names, &mut self.names)
    }

    /// A span that ends, with texts of `names`.
    fn ended(&mut self, event: Event, names: &mut Names) -> Event {
        self.count -= 1;
        moved(event, &self.names, names)
    }
}

/// The event, with its texts taken from one table to another.
fn moved(event: Event, from: &Names, to: &mut Names) -> Event {
    let mut sym = |sym| to.sym(from.text(sym));
    Event {
        name: sym(event.name),
        file: event.file.map(&mut sym),
        args: event.args.map(&mut sym),
        ..event
    }
}

impl TraceEvents {
    /// Starts to read; `path` is for messages.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn new(window: Window, lenient: Lenient, path: &Path) -> Result<TraceEvents> {
        Ok(TraceEvents {
            path: path.to_owned(),
            tokens: Tokens::start(window, lenient.clone(), path)?,
            open: Open::default(),
            tracks: Tracks::default(),
            lenient,
        })
    }

    /// The events of a batch as rows, and what stands between them.
    fn rows(&mut self, batch: &Batch, names: &mut Names, rows: &mut Vec<Event>) -> Result<()> {
        let mut headers = batch.headers.iter().peekable();
        for at in 0..=batch.tokens.len() {
            while let Some((_, key, value)) = headers.next_if(|header| header.0 <= at) {
                self.tracks.header(batch.part(*key), batch.part(*value));
            }
            let Some(token) = batch.tokens.get(at) else {
                break;
            };
            let fields = Fields::new(token, batch);
            if let Err(what) = map(&fields, &mut self.open, &mut self.tracks, names, rows)
                && !self.lenient.skip()
            {
                let byte = batch.before.wrapping_add(u64::from(token.from));
                return Err(Error::Corrupt {
                    path: self.path.clone(),
                    place: format!("at byte {byte}"),
                    what: what.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Rows of what is still open, of processes, threads, streams and the clock.
    fn finish(&mut self, names: &mut Names, rows: &mut Vec<Event>) {
        let open = std::mem::take(&mut self.open);
        let mut left: Vec<Event> = open.nested.into_values().flatten().collect();
        left.extend(open.crossing.into_values().flatten());
        left.sort_by_key(|e| (e.start_ns, e.process, e.tid, e.name, e.args));
        for event in left {
            let mut event = moved(event, &open.names, names);
            let last = self.tracks.last_ns(event.process).max(event.start_ns);
            event.dur_ns = Some(last - event.start_ns);
            let args = event.args.map_or("", |args| names.text(args)).to_owned();
            event.args = Some(names.sym(&with(&args, "\"open\":true")));
            rows.push(event);
        }
        self.tracks.finish(names, rows);
        self.lenient.finish(open.unmatched, names, rows);
    }
}

impl super::Rows for TraceEvents {
    fn next_batch(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<bool> {
        let mut batch = self.tokens.next_batch();
        self.rows(&batch, names, rows)?;
        let end = batch.end.take();
        self.tokens.give_back(batch);
        let Some(end) = end else { return Ok(true) };
        self.lenient.skipped += end?;
        self.finish(names, rows);
        Ok(false)
    }

    fn hash(&mut self) -> Option<String> {
        self.tokens.hash()
    }
}

/// Time in ns of a number of µs.
fn time(word: &[u8], what: &'static str) -> std::result::Result<i64, &'static str> {
    scaled(word, 1000)
        .filter(|ns| ns.unsigned_abs() < 1 << 62)
        .ok_or(what)
}

type Mapped = std::result::Result<(), &'static str>;

fn map(
    f: &Fields<'_>,
    open: &mut Open,
    tracks: &mut Tracks,
    names: &mut Names,
    rows: &mut Vec<Event>,
) -> Mapped {
    match f.phase {
        b'M' => {
            tracks.metadata(f);
            return Ok(());
        }
        b'X' | b'B' | b'b' | b'i' | b'I' | b'R' | b'n' | b'C' | b's' | b't' | b'f' | b'E'
        | b'e' => {}
        // Objects, memory dumps, clock syncs of Chrome itself: nothing of them is a row.
        _ => return Ok(()),
    }
    let start = time(f.ts, "an event whose ts is no time in µs")?;
    match f.phase {
        b'X' => {
            let dur = match f.dur {
                b"" => 0,
                dur => time(dur, "an event whose dur is no time in µs")?.max(0),
            };
            let event = kineto::span(f, start, dur, tracks, names);
            rows.push(event);
        }
        b'B' => {
            if open.count >= MOST_OPEN {
                return Err("the 1 048 577th span that begins and does not end");
            }
            let event = open.begun(kineto::span(f, start, 0, tracks, names), names);
            open.nested
                .entry((event.process, event.tid))
                .or_default()
                .push(event);
        }
        b'E' => {
            let owner = tracks.owner(f.pid, f.tid);
            tracks.saw(owner.process, start);
            match open
                .nested
                .get_mut(&(owner.process, owner.tid))
                .and_then(Vec::pop)
            {
                Some(event) => {
                    let mut event = open.ended(event, names);
                    event.dur_ns = Some((start - event.start_ns).max(0));
                    rows.push(event);
                }
                None => open.unmatched += 1,
            }
        }
        b'b' => {
            if open.count >= MOST_OPEN {
                return Err("the 1 048 577th span that begins and does not end");
            }
            let mut event = kineto::span(f, start, 0, tracks, names);
            // Ours has other kinds that may overlap too, and says of a flow itself.
            if !tracks.is_ours() {
                event.kind = Kind::Scope;
                event.flow = Some(number(f.id));
            }
            if event.kind == Kind::Scope {
                let args = event.args.map_or("", |args| names.text(args)).to_owned();
                event.args = Some(names.sym(&with(&args, "\"async\":true")));
            }
            let event = open.begun(event, names);
            open.crossing
                .entry((f.cat.raw.to_vec(), f.id.to_vec()))
                .or_default()
                .push(event);
        }
        b'e' => {
            let owner = tracks.owner(f.pid, f.tid);
            tracks.saw(owner.process, start);
            let key = (f.cat.raw.to_vec(), f.id.to_vec());
            let ended = open.crossing.get_mut(&key).and_then(Vec::pop);
            if open.crossing.get(&key).is_some_and(Vec::is_empty) {
                open.crossing.remove(&key);
            }
            match ended {
                Some(event) => {
                    let mut event = open.ended(event, names);
                    event.dur_ns = Some((start - event.start_ns).max(0));
                    rows.push(event);
                }
                None => open.unmatched += 1,
            }
        }
        b'C' => kineto::counters(f, start, tracks, names, rows),
        b's' | b't' | b'f' => {
            // What Kineto draws from launches to kernels is in their correlation already, and on ROCm wrong.
            if !matches!(f.cat.raw, b"ac2g" | b"async_cpu_to_gpu" | b"async") {
                rows.push(flow(f, start, tracks, names));
            }
        }
        _ => {
            let event = kineto::instant(f, start, tracks, names);
            rows.push(event);
        }
    }
    Ok(())
}

fn flow(f: &Fields<'_>, start: i64, tracks: &mut Tracks, names: &mut Names) -> Event {
    let Owner { process, pid, tid } = tracks.owner(f.pid, f.tid);
    tracks.saw(process, start);
    let name = kineto::name(f.name, tracks, names);
    let mut event = Event::new(Kind::Flow, name, start, process, pid, tid);
    event.flow = Some(number(f.id));
    let phase = match f.phase {
        b's' => r#"{"phase":"start"}"#,
        b't' => r#"{"phase":"step"}"#,
        _ => r#"{"phase":"end"}"#,
    };
    event.args = Some(names.sym(phase));
    event
}

/// The number of an id; one made of its bytes if it is none.
fn number(id: &[u8]) -> u64 {
    unsigned(id).unwrap_or_else(|| {
        let hash = blake3::hash(id);
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default())
    })
}

/// An object with one more member.
pub(super) fn with(object: &str, member: &str) -> String {
    match object.strip_suffix('}') {
        Some("{") | None => format!("{{{member}}}"),
        Some(rest) => format!("{rest},{member}}}"),
    }
}

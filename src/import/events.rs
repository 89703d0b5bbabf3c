//! The trace event format: Kineto, Chrome, Perfetto's JSON, VizTracer, TensorFlow's trace.json.
//!
//! `{"traceEvents": [...], ...}` or a bare array, of any length: one event is in memory at a time. What stands beside the
//! events is passed over but for a few keys, so that environments and package lists which some files carry never reach a trace.
//!
//! # Source
//! "Trace Event Format", Google (2016), for phases and fields; pytorch/kineto, libkineto/src/output_json.cpp.

use std::collections::HashMap;

use super::decimal::{scaled, unsigned};
use super::json::{Cursor, Read, Stop, Text, Window};
use super::tracks::{Owner, Tracks};
use super::{Lenient, kineto};
use crate::error::Result;
use crate::trace::{Event, Kind, Names};

/// Rows handed over at once.
const BATCH: usize = 1 << 14;

/// Spans that may be open on all tracks together: a file that only begins them does not fill the memory.
const MOST_OPEN: usize = 1 << 20;

/// Where in the file the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    /// Among the keys of the outer object.
    Keys {
        first: bool,
    },
    /// Among the events; `bare`: the array is all there is.
    Events {
        first: bool,
        bare: bool,
    },
    End,
    Done,
}

/// See the module.
#[derive(Debug)]
pub struct TraceEvents {
    window: Window,
    at: At,
    args: Vec<Arg>,
    open: Open,
    tracks: Tracks,
    lenient: Lenient,
}

/// Key and value of one of an event's args, by their places in its bytes.
#[derive(Clone, Copy, Debug)]
struct Arg {
    key: (u32, u32),
    value: (u32, u32),
}

/// One event, borrowed from the window.
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
    /// Its args: keys and values as they stand.
    pub fn args(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let (bytes, args) = (self.bytes, self.args);
        let part = move |(from, to): (u32, u32)| &bytes[from as usize..to as usize];
        args.iter().map(move |arg| (part(arg.key), part(arg.value)))
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

const NO_TEXT: Text<'static> = Text {
    raw: b"",
    escaped: false,
};

impl TraceEvents {
    pub fn new(window: Window, lenient: Lenient) -> TraceEvents {
        TraceEvents {
            window,
            at: At::Start,
            args: Vec::new(),
            open: Open::default(),
            tracks: Tracks::default(),
            lenient,
        }
    }

    /// Reads one thing of the outer structure. Whether an event is next.
    fn step(&mut self) -> Result<bool> {
        match self.at {
            At::Start => {
                let object = self.window.read(|c| match c.peek()? {
                    b'{' => c.skip_byte(b'{'),
                    b'[' => c.skip_byte(b'[').map(|_| false),
                    _ => c.wrong("a trace should begin with { or ["),
                })?;
                self.at = match object {
                    true => At::Keys { first: true },
                    false => At::Events {
                        first: true,
                        bare: true,
                    },
                };
            }
            At::Keys { first } => {
                let tracks = &mut self.tracks;
                self.at = self.window.read(|c| {
                    let Some(key) = c.key(first)? else {
                        return Ok(At::End);
                    };
                    if key.raw == b"traceEvents" && c.peek()? == b'[' {
                        c.skip_byte(b'[')?;
                        return Ok(At::Events {
                            first: true,
                            bare: false,
                        });
                    }
                    let value = c.value()?;
                    tracks.header(key.raw, value);
                    Ok(At::Keys { first: false })
                })?;
            }
            At::Events { first, bare } => {
                let next = self.window.read(|c| c.element(first, bare))?;
                match (next, bare) {
                    (Some(true), _) => {
                        self.at = At::Events { first: false, bare };
                        return Ok(true);
                    }
                    (None, _) => self.at = At::Done,
                    (Some(false), true) => self.at = At::End,
                    (Some(false), false) => self.at = At::Keys { first: false },
                }
            }
            At::End => {
                if !self.window.read(|c| c.is_end())? {
                    return Err(self.window.wrong(0, "more behind the end of the trace"));
                }
                self.at = At::Done;
            }
            At::Done => {}
        }
        Ok(false)
    }

    /// The event at the cursor, as rows.
    fn event(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<()> {
        loop {
            let mut cursor = self.window.cursor();
            let read = fields(&mut cursor, &mut self.args);
            let wrong = match read {
                Ok(fields) => {
                    let used = cursor.at();
                    let done = map(&fields, &mut self.open, &mut self.tracks, names, rows);
                    match done {
                        Ok(()) => {
                            self.window.take(used);
                            return Ok(());
                        }
                        Err(_) if self.lenient.skip() => {
                            self.window.take(used);
                            return Ok(());
                        }
                        Err(what) => Stop::Wrong(0, what),
                    }
                }
                Err(stop) => stop,
            };
            match self.window.stopped(wrong) {
                Ok(()) => {}
                Err(_) if self.lenient.skip() => return self.recover(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Goes on to what looks like the next event, or to the end.
    fn recover(&mut self) -> Result<()> {
        self.window.take(1.min(self.window.left()));
        loop {
            let mut cursor = self.window.cursor();
            let left = self.window.left();
            let bytes = cursor.slice(0, left);
            let comma = (0..left).find(|&at| {
                bytes[at] == b'{'
                    && bytes[..at].iter().rev().find(|b| !b.is_ascii_whitespace()) == Some(&b',')
            });
            if let Some(at) = comma {
                self.window.take(at);
                // Its comma is behind.
                let bare = matches!(self.at, At::Events { bare: true, .. });
                self.at = At::Events { first: true, bare };
                return Ok(());
            }
            if cursor.is_end() == Ok(true) || self.window.ended() {
                self.window.take(left);
                self.at = At::Done;
                return Ok(());
            }
            self.window.take(left.saturating_sub(64));
            self.window.more()?;
        }
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
        let enough = rows.len() + BATCH;
        while rows.len() < enough {
            match self.step() {
                Ok(true) => self.event(names, rows)?,
                Ok(false) if self.at == At::Done => {
                    self.finish(names, rows);
                    return Ok(false);
                }
                Ok(false) => {}
                Err(_) if matches!(self.at, At::Events { .. }) && self.lenient.skip() => {
                    self.recover()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn hash(&mut self) -> Option<String> {
        self.window.blocks().hash()
    }
}

/// Reads an event's fields; its args are noted by place.
fn fields<'a>(c: &mut Cursor<'a>, args: &'a mut Vec<Arg>) -> Read<Fields<'a>> {
    args.clear();
    let mut f = Fields {
        phase: 0,
        cat: NO_TEXT,
        name: NO_TEXT,
        ts: b"",
        dur: b"",
        pid: b"",
        tid: b"",
        id: b"",
        bytes: b"",
        args: &[],
    };
    if c.peek()? != b'{' {
        c.value()?; // null, say: no event
        return Ok(f);
    }
    c.skip_byte(b'{')?;
    let mut first = true;
    while let Some(key) = c.key(first)? {
        first = false;
        match key.raw {
            b"name" => f.name = text(c)?,
            b"cat" => f.cat = text(c)?,
            b"ph" => f.phase = text(c)?.raw.first().copied().unwrap_or(0),
            b"ts" => f.ts = scalar(c)?,
            b"dur" => f.dur = scalar(c)?,
            b"pid" => f.pid = scalar(c)?,
            b"tid" => f.tid = scalar(c)?,
            b"id" => f.id = scalar(c)?,
            b"args" if c.peek()? == b'{' => {
                c.skip_byte(b'{')?;
                let mut first = true;
                while let Some(key) = c.key(first)? {
                    first = false;
                    let value = c.value()?;
                    args.push(Arg {
                        key: c.place(key.raw),
                        value: c.place(value),
                    });
                }
            }
            _ => {
                c.value()?;
            }
        }
    }
    f.bytes = c.slice(0, c.at());
    f.args = args;
    Ok(f)
}

/// A string; another value as if it were one.
fn text<'a>(c: &mut Cursor<'a>) -> Read<Text<'a>> {
    match c.peek()? {
        b'"' => c.text(),
        _ => Ok(Text {
            raw: c.value()?,
            escaped: false,
        }),
    }
}

/// A number, or the content of a string: writers are not of one mind.
fn scalar<'a>(c: &mut Cursor<'a>) -> Read<&'a [u8]> {
    match c.peek()? {
        b'"' => Ok(c.text()?.raw),
        _ => c.value(),
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
    let name = kineto::name(f.name, names);
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

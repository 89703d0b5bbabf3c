//! Trace events as they stand in their file, found by a thread of their own.
//!
//! To find where an event's fields are takes about as long as to make a row of them, so the two go side by side: batches of
//! events, with the bytes they stand in, go from one to the other. What an event's writer wrote between two values it
//! mostly wrote in the event before, too: the bytes are compared before they are read.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::Lenient;
use super::json::{Cursor, Read, Stop, Text, Window};
use super::kineto::Key;
use crate::error::{Error, Result};

/// Batches that may wait to be made rows of.
const WAITING: usize = 2;

/// The longest bytes between two values that are remembered.
const LONGEST: usize = 64;

/// Keys of an object whose order is remembered.
const MOST_KEYS: usize = 64;

/// Orders of args that are remembered, by category.
const ORDERS: usize = 32;

/// From and to, in the bytes of a batch.
pub type Part = (u32, u32);

/// Where the parts of one event are. What it has not is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Token {
    pub phase: u8,
    pub cat: Part,
    pub name: Part,
    /// Category and name have escapes.
    pub escaped: (bool, bool),
    pub ts: Part,
    pub dur: Part,
    pub pid: Part,
    pub tid: Part,
    pub id: Part,
    /// Which of the batch's args are its own.
    pub args: Part,
    /// Where it begins.
    pub from: u32,
}

/// One of an event's args.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    pub id: Key,
    pub key: Part,
    pub value: Part,
}

/// Events that follow each other, and what stands around them.
#[derive(Debug, Default)]
pub struct Batch {
    pub bytes: Vec<u8>,
    /// Bytes of the file before the first of `bytes`, modulo 2^64.
    pub before: u64,
    pub tokens: Vec<Token>,
    pub args: Vec<Arg>,
    /// Keys beside the events and their values, and before which event they stand.
    pub headers: Vec<(usize, Part, Part)>,
    /// Nothing follows: broken events that were left out.
    pub end: Option<Result<u64>>,
}

impl Batch {
    pub fn part(&self, (from, to): Part) -> &[u8] {
        &self.bytes[from as usize..to as usize]
    }
}

/// The batches of a file.
#[derive(Debug)]
pub struct Tokens {
    batches: Receiver<Batch>,
    used: SyncSender<Vec<u8>>,
    thread: Option<JoinHandle<Option<String>>>,
}

impl Tokens {
    /// Starts to look for events.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(mut window: Window, lenient: Lenient, path: &Path) -> Result<Tokens> {
        let (to, batches) = sync_channel(WAITING);
        let used = window.blocks().giver();
        let thread = std::thread::Builder::new().name("isc-parse".into());
        let finder = Finder {
            window,
            at: At::Start,
            batch: Batch::default(),
            orders: Orders::default(),
            lenient,
            to,
        };
        let thread = thread
            .spawn(move || finder.run())
            .map_err(Error::io("start a thread to read", path))?;
        Ok(Tokens {
            batches,
            used,
            thread: Some(thread),
        })
    }

    /// The next batch; an empty one that ends after the last.
    pub fn next_batch(&mut self) -> Batch {
        self.batches.recv().unwrap_or(Batch {
            end: Some(Ok(0)),
            ..Batch::default()
        })
    }

    /// Takes back the bytes of a batch.
    pub fn give_back(&self, batch: Batch) {
        let _ = self.used.try_send(batch.bytes);
    }

    /// blake3 of the file, in hexadecimal, once its end was reached.
    pub fn hash(&mut self) -> Option<String> {
        self.thread.take()?.join().ok()?
    }
}

/// Where in the file the finder is.
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

#[derive(Debug)]
struct Finder {
    window: Window,
    at: At,
    batch: Batch,
    orders: Orders,
    lenient: Lenient,
    to: SyncSender<Batch>,
}

impl Finder {
    /// Sends all batches. The file's hash.
    fn run(mut self) -> Option<String> {
        let end = self.find();
        let ended = end.is_ok();
        self.batch.end = Some(end.map(|()| self.lenient.skipped));
        self.batch.before = self.window.before();
        self.batch.bytes = self.window.take_bytes();
        // Whoever waits for the batches may be gone.
        let sent = self.to.send(self.batch);
        drop(self.to);
        (ended && sent.is_ok()).then(|| self.window.blocks().hash())?
    }

    fn find(&mut self) -> Result<()> {
        while self.at != At::Done {
            match self.step() {
                Ok(true) => self.event()?,
                Ok(false) => {}
                Err(_) if matches!(self.at, At::Events { .. }) && self.lenient.skip() => {
                    self.recover()?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads on; what was found so far goes out with the bytes that it stands in.
    fn more(&mut self) -> Result<()> {
        let before = self.window.before();
        let Some(bytes) = self.window.advance()? else {
            return Ok(());
        };
        let batch = std::mem::take(&mut self.batch);
        if batch.tokens.is_empty() && batch.headers.is_empty() {
            self.batch = batch;
            self.window.blocks().give_back(bytes);
            return Ok(());
        }
        let room = |used: usize| used + used / 8;
        self.batch.tokens.reserve(room(batch.tokens.len()));
        self.batch.args.reserve(room(batch.args.len()));
        let batch = Batch {
            bytes,
            before,
            ..batch
        };
        if self.to.send(batch).is_err() {
            self.at = At::Done; // nobody waits for it
        }
        Ok(())
    }

    fn stopped(&mut self, stop: Stop) -> Result<()> {
        match stop {
            Stop::More if !self.window.ended() => self.more(),
            stop => self.window.stopped(stop),
        }
    }

    /// Reads one thing, with as much of the file as it takes.
    fn read<T>(&mut self, mut one: impl FnMut(&mut Cursor<'_>) -> Read<T>) -> Result<T> {
        loop {
            let mut cursor = self.window.cursor();
            match one(&mut cursor) {
                Ok(thing) => {
                    let used = cursor.at();
                    self.window.take(used);
                    return Ok(thing);
                }
                Err(stop) => self.stopped(stop)?,
            }
        }
    }

    /// Reads one thing of the outer structure. Whether an event is next.
    fn step(&mut self) -> Result<bool> {
        match self.at {
            At::Start => {
                let object = self.read(|c| match c.peek()? {
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
                let (at, header) = self.read(|c| {
                    let Some(key) = c.key(first)? else {
                        return Ok((At::End, None));
                    };
                    if key.raw == b"traceEvents" && c.peek()? == b'[' {
                        c.skip_byte(b'[')?;
                        let first = true;
                        return Ok((At::Events { first, bare: false }, None));
                    }
                    let value = c.value()?;
                    // Behind the value, which is taken with the rest: its place is counted from there.
                    let back = |part: &[u8]| {
                        let (from, to) = c.place(part);
                        let end = c.at() as u32;
                        (end - from, end - to)
                    };
                    Ok((
                        At::Keys { first: false },
                        Some((back(key.raw), back(value))),
                    ))
                })?;
                if let Some((key, value)) = header {
                    let end = self.window.offset() as u32;
                    let part = |(from, to): Part| (end - from, end - to);
                    let before = self.batch.tokens.len();
                    self.batch.headers.push((before, part(key), part(value)));
                }
                self.at = at;
            }
            At::Events { first, bare } => {
                let next = self.read(|c| c.element(first, bare))?;
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
                if !self.read(|c| c.is_end())? {
                    return Err(self.window.wrong(0, "more behind the end of the trace"));
                }
                self.at = At::Done;
            }
            At::Done => {}
        }
        Ok(false)
    }

    /// Notes where the parts of the event at the cursor are.
    fn event(&mut self) -> Result<()> {
        loop {
            let mut cursor = self.window.cursor();
            let from = self.window.offset() as u32;
            let known = self.batch.args.len();
            match token(&mut cursor, from, &mut self.batch.args, &mut self.orders) {
                Ok(token) => {
                    let used = cursor.at();
                    self.window.take(used);
                    self.batch.tokens.push(token);
                    return Ok(());
                }
                Err(stop) => {
                    self.batch.args.truncate(known);
                    match self.stopped(stop) {
                        Ok(()) if self.at == At::Done => return Ok(()),
                        Ok(()) => {}
                        Err(_) if self.lenient.skip() => return self.recover(),
                        Err(error) => return Err(error),
                    }
                }
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
            self.more()?;
            if self.at == At::Done {
                return Ok(());
            }
        }
    }
}

/// A field of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Phase,
    Cat,
    Name,
    Ts,
    Dur,
    Pid,
    Tid,
    Id,
    Args,
    Other,
}

impl Field {
    fn of(key: &[u8]) -> Field {
        match key {
            b"ph" => Field::Phase,
            b"cat" => Field::Cat,
            b"name" => Field::Name,
            b"ts" => Field::Ts,
            b"dur" => Field::Dur,
            b"pid" => Field::Pid,
            b"tid" => Field::Tid,
            b"id" => Field::Id,
            b"args" => Field::Args,
            _ => Field::Other,
        }
    }
}

/// The keys of an object as they came last, one behind the other.
#[derive(Clone, Debug)]
struct Order<K>(Vec<Option<Next<K>>>);

#[derive(Clone, Debug)]
struct Next<K> {
    /// All that stood between the value before and the value.
    between: Vec<u8>,
    /// Where in that the key is.
    key: Part,
    id: K,
}

impl<K: Copy> Order<K> {
    /// The key that is number `at` of its object, and where it stands; `None` where the object ends. The cursor goes to the
    /// value.
    #[inline]
    fn key(
        &mut self,
        c: &mut Cursor<'_>,
        at: usize,
        of: impl Fn(&[u8]) -> K,
    ) -> Read<Option<(K, Part)>> {
        let from = c.at() as u32;
        if let Some(Some(next)) = self.0.get(at)
            && c.skip_bytes(&next.between)
        {
            return Ok(Some((next.id, (from + next.key.0, from + next.key.1))));
        }
        let Some(key) = c.key(at == 0)? else {
            return Ok(None);
        };
        c.peek()?;
        let (id, place) = (of(key.raw), c.place(key.raw));
        let between = c.slice(from as usize, c.at());
        if between.len() <= LONGEST {
            let next = Next {
                between: between.to_vec(),
                key: (place.0 - from, place.1 - from),
                id,
            };
            if at >= self.0.len() && at < MOST_KEYS {
                self.0.resize_with(at + 1, || None);
            }
            if let Some(place) = self.0.get_mut(at) {
                *place = Some(next);
            }
        }
        Ok(Some((id, place)))
    }
}

/// Orders of keys: of events by phase, of args by category.
#[derive(Debug)]
struct Orders {
    fields: Vec<Order<Field>>,
    args: Vec<Order<Key>>,
}

impl Default for Orders {
    fn default() -> Orders {
        Orders {
            fields: vec![Order(Vec::new()); ORDERS],
            args: vec![Order(Vec::new()); ORDERS],
        }
    }
}

/// Which order a category has.
fn order(cat: &[u8]) -> usize {
    let end = |byte: Option<&u8>| byte.map_or(0, |&byte| usize::from(byte));
    (cat.len() + 5 * end(cat.first()) + 7 * end(cat.last())) % ORDERS
}

/// Where the fields of the event at the cursor are; the cursor's bytes are the batch's from `base` on.
fn token(c: &mut Cursor<'_>, base: u32, args: &mut Vec<Arg>, orders: &mut Orders) -> Read<Token> {
    let mut token = Token {
        from: base,
        ..Token::default()
    };
    let known = args.len() as u32;
    token.args = (known, known);
    if c.peek()? != b'{' {
        c.value()?; // null, say: no event
        return Ok(token);
    }
    c.skip_byte(b'{')?;
    let placed = |c: &Cursor<'_>, part: &[u8]| {
        let (from, to) = c.place(part);
        (base + from, base + to)
    };
    let (mut at, mut cat) = (0, &b""[..]);
    loop {
        let order_of = &mut orders.fields[usize::from(token.phase) % ORDERS];
        let Some((field, _)) = order_of.key(c, at, Field::of)? else {
            break;
        };
        at += 1;
        match field {
            Field::Phase => token.phase = text(c)?.raw.first().copied().unwrap_or(0),
            Field::Cat => {
                let text = text(c)?;
                cat = text.raw;
                (token.cat, token.escaped.0) = (placed(c, text.raw), text.escaped);
            }
            Field::Name => {
                let text = text(c)?;
                (token.name, token.escaped.1) = (placed(c, text.raw), text.escaped);
            }
            Field::Ts => token.ts = scalar(c).map(|part| placed(c, part))?,
            Field::Dur => token.dur = scalar(c).map(|part| placed(c, part))?,
            Field::Pid => token.pid = scalar(c).map(|part| placed(c, part))?,
            Field::Tid => token.tid = scalar(c).map(|part| placed(c, part))?,
            Field::Id => token.id = scalar(c).map(|part| placed(c, part))?,
            Field::Args if c.peek()? == b'{' => {
                c.skip_byte(b'{')?;
                let order = &mut orders.args[order(cat)];
                let mut at = 0;
                while let Some((id, key)) = order.key(c, at, Key::of)? {
                    at += 1;
                    let value = c.value()?;
                    args.push(Arg {
                        id,
                        key: (base + key.0, base + key.1),
                        value: placed(c, value),
                    });
                }
            }
            Field::Args | Field::Other => {
                c.value()?;
            }
        }
    }
    token.args.1 = args.len() as u32;
    Ok(token)
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

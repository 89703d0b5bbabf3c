//! Perfetto's protocol buffers: track events on tracks of processes, threads, devices, streams and counters.
//!
//! Slices of a track have to nest. What overlaps another slice of its track (waits, scopes over several tasks, work of one
//! stream) goes to a track below it. A launch, and what it started, is one flow; so are the segments of a coroutine.
//!
//! # Source
//! github.com/google/perfetto, protos/perfetto/trace: trace_packet.proto, interned_data/interned_data.proto, and in
//! track_event/ track_event.proto, track_descriptor.proto, counter_descriptor.proto, debug_annotation.proto.

mod tracks;

use serde_json::Value;

use super::json::Text;
use super::proto::Message;
use super::{Left, Rows};
use crate::correlate;
use crate::error::Result;
use crate::trace::{Event, Kind, Names};
use tracks::{Group, Place, Tracks};

/// Fields of the messages above, by message.
mod field {
    pub const PACKET: u32 = 1;

    pub mod packet {
        pub const TIMESTAMP: u32 = 8;
        pub const SEQUENCE: u32 = 10;
        pub const TRACK_EVENT: u32 = 11;
        pub const INTERNED: u32 = 12;
        pub const SEQUENCE_FLAGS: u32 = 13;
        pub const TRACK: u32 = 60;
    }

    pub mod interned {
        pub const CATEGORIES: u32 = 1;
        pub const NAMES: u32 = 2;
        pub const KEYS: u32 = 3;
        pub const IID: u32 = 1;
        pub const TEXT: u32 = 2;
    }

    pub mod event {
        pub const CATEGORY: u32 = 3;
        pub const ANNOTATION: u32 = 4;
        pub const TYPE: u32 = 9;
        pub const NAME: u32 = 10;
        pub const TRACK: u32 = 11;
        pub const COUNTER: u32 = 30;
        pub const DOUBLE_COUNTER: u32 = 44;
        pub const FLOW: u32 = 47;
    }

    pub mod annotation {
        pub const KEY: u32 = 1;
        pub const BOOL: u32 = 2;
        pub const UINT: u32 = 3;
        pub const INT: u32 = 4;
        pub const DOUBLE: u32 = 5;
        pub const TEXT: u32 = 6;
        pub const JSON: u32 = 9;
    }
}

/// TrackEvent.Type.
const BEGIN: u64 = 1;
const END: u64 = 2;
const INSTANT: u64 = 3;
const COUNTER: u64 = 4;

/// TracePacket.SequenceFlags: interned texts start anew, and are needed.
const CLEARED: u64 = 1;
const NEEDED: u64 = 2;

/// Bytes of interned texts after which they start anew, so that a reader and we need no more memory for them.
const MOST_TEXT: usize = 32 << 20;

/// Flows of coroutines are told from those of launches, which are row numbers.
const COROUTINE: u64 = 1 << 63;

/// See the module.
#[derive(Debug)]
pub(super) struct Perfetto {
    to: Packets,
    tracks: Tracks,
    categories: Interned,
    names: Interned,
    keys: Interned,
    left: Left,
}

/// Texts that have a number in the file.
#[derive(Debug)]
struct Interned {
    field: u32,
    names: Names,
    /// Numbers that were given to others before: none has two meanings.
    base: u64,
}

impl Interned {
    fn new(field: u32) -> Interned {
        Interned {
            field,
            names: Names::default(),
            base: 1,
        }
    }

    /// The text's number; a new one is added to the packet's new texts.
    fn iid(&mut self, text: &str, new: &mut Message) -> u64 {
        let known = self.names.len();
        let iid = self.base + u64::from(self.names.sym(text).0);
        if self.names.len() > known {
            let mut entry = Message::default();
            entry
                .uint(field::interned::IID, iid)
                .text(field::interned::TEXT, text);
            new.message(self.field, &entry);
        }
        iid
    }

    fn clear(&mut self) {
        self.base += self.names.len() as u64;
        self.names = Names::default();
    }
}

/// Packets on their way out.
#[derive(Debug)]
struct Packets {
    to: Text,
    cleared: bool,
}

impl Packets {
    fn put(&mut self, packet: &Message) -> Result<()> {
        let mut framed = Message::default();
        framed.message(field::PACKET, packet);
        self.to.put(&framed.0)
    }

    fn descriptor(&mut self, track: &Message) -> Result<()> {
        let mut packet = Message::default();
        packet
            .uint(field::packet::SEQUENCE, 1)
            .message(field::packet::TRACK, track);
        self.put(&packet)
    }

    fn event(&mut self, at_ns: i64, event: &Message, new: &Message) -> Result<()> {
        let mut packet = Message::default();
        let flags = match std::mem::take(&mut self.cleared) {
            true => CLEARED | NEEDED,
            false => NEEDED,
        };
        // A timeline's zero is its earliest row.
        packet.uint(field::packet::TIMESTAMP, at_ns.max(0) as u64);
        packet.uint(field::packet::SEQUENCE, 1);
        packet.uint(field::packet::SEQUENCE_FLAGS, flags);
        if !new.is_empty() {
            packet.message(field::packet::INTERNED, new);
        }
        packet.message(field::packet::TRACK_EVENT, event);
        self.put(&packet)
    }

    fn end(&mut self, track: u64, at_ns: i64) -> Result<()> {
        let mut event = Message::default();
        event
            .uint(field::event::TYPE, END)
            .uint(field::event::TRACK, track);
        self.event(at_ns, &event, &Message::default())
    }
}

impl Perfetto {
    pub fn new(to: Text) -> Result<Perfetto> {
        Ok(Perfetto {
            to: Packets { to, cleared: true },
            tracks: Tracks::default(),
            categories: Interned::new(field::interned::CATEGORIES),
            names: Interned::new(field::interned::NAMES),
            keys: Interned::new(field::interned::KEYS),
            left: Left::default(),
        })
    }

    fn counter(&mut self, event: &Event, names: &Names) -> Result<()> {
        let mut name = names.text(event.name).to_owned();
        if let (Some(file), Some(line)) = (event.file, event.line) {
            name.push_str(&format!(" {}:{line}", names.text(file)));
        }
        let track = self.tracks.counter(event, &name, &mut self.to)?;
        let value = event.value.unwrap_or(0.0);
        let mut made = Message::default();
        made.uint(field::event::TYPE, COUNTER)
            .uint(field::event::TRACK, track);
        let whole = value as i64;
        match whole as f64 == value {
            true => made.int(field::event::COUNTER, whole),
            false => made.double(field::event::DOUBLE_COUNTER, value),
        };
        self.to.event(event.start_ns, &made, &Message::default())
    }

    /// What a row has besides name, time and place.
    fn annotations(&mut self, event: &Event, names: &Names, made: &mut Message, new: &mut Message) {
        use field::annotation as a;
        let keys = &mut self.keys;
        let mut add = |key: &str, fill: &dyn Fn(&mut Message)| {
            let mut annotation = Message::default();
            annotation.uint(a::KEY, keys.iid(key, new));
            fill(&mut annotation);
            made.message(field::event::ANNOTATION, &annotation);
        };
        if let Some(file) = event.file {
            add("file", &|m| {
                m.text(a::TEXT, names.text(file));
            });
        }
        for (key, value) in [
            ("line", event.line.map(u64::from)),
            ("device", event.device.map(u64::from)),
            ("stream", event.stream.map(u64::from)),
            ("correlation", event.correlation),
            ("process", event.device.map(|_| event.process.into())),
        ] {
            if let Some(value) = value {
                add(key, &|m| {
                    m.uint(a::UINT, value);
                });
            }
        }
        if let Some(bytes) = event.bytes {
            add("bytes", &|m| {
                m.int(a::INT, bytes);
            });
        }
        if let Some(value) = event.value {
            add("value", &|m| {
                m.double(a::DOUBLE, value);
            });
        }
        let Some(args) = event.args.map(|args| names.text(args)) else {
            return;
        };
        match serde_json::from_str(args) {
            Ok(Value::Object(members)) => {
                for (key, value) in &members {
                    add(key, &|m| {
                        let number = || value.as_f64().unwrap_or(f64::NAN);
                        match (value, value.as_i64(), value.as_u64()) {
                            (Value::Bool(yes), ..) => m.uint(a::BOOL, u64::from(*yes)),
                            (_, Some(whole), _) => m.int(a::INT, whole),
                            (_, _, Some(whole)) => m.uint(a::UINT, whole),
                            (Value::Number(_), ..) => m.double(a::DOUBLE, number()),
                            (Value::String(text), ..) => m.text(a::TEXT, text),
                            (nested, ..) => m.text(a::JSON, &nested.to_string()),
                        };
                    });
                }
            }
            _ => add("args", &|m| {
                m.text(a::TEXT, args);
            }),
        }
    }
}

/// Flows that a row is on.
fn flows(row: i64, event: &Event) -> impl Iterator<Item = u64> {
    let launch = match event.kind {
        Kind::Launch => Some(row),
        _ => event.cause,
    };
    let coroutine = event.flow.map(|flow| {
        let process = u64::from(event.process) + 1;
        (flow ^ process.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | COROUTINE
    });
    // 0 is no flow.
    let launch = launch
        .and_then(|row| u64::try_from(row).ok())
        .map(|row| row + 1);
    launch.into_iter().chain(coroutine)
}

/// Which of the tracks around its place a slice goes to.
fn group(event: &Event, names: &Names) -> Group {
    match event.kind {
        Kind::Wait => Group::Waits,
        Kind::Throttled => Group::Throttled,
        _ if correlate::crosses(event, names) => Group::Async,
        Kind::Annotation if event.device.is_some() => Group::Annotations,
        Kind::Sync if event.device.is_some() => Group::Syncs,
        _ => Group::Own,
    }
}

impl Rows for Perfetto {
    fn row(&mut self, row: i64, event: &Event, names: &Names) -> Result<()> {
        match event.kind {
            Kind::Process | Kind::Thread | Kind::Stream => {
                return self
                    .tracks
                    .named(event, names.text(event.name), &mut self.to);
            }
            Kind::Counter => return self.counter(event, names),
            Kind::Clock => {
                self.left.add(event.kind);
                return Ok(());
            }
            _ => {}
        }
        let place = Place::of(event);
        let length = event.dur_ns.filter(|&length| length >= 0);
        let track = match length {
            Some(_) => {
                let group = group(event, names);
                self.tracks.slice(place, event, group, &mut self.to)?
            }
            None => self.tracks.of(place, event.pid, &mut self.to)?,
        };
        let size = [&self.names, &self.categories, &self.keys].map(|texts| texts.names.bytes());
        if size.iter().sum::<usize>() > MOST_TEXT {
            self.names.clear();
            self.categories.clear();
            self.keys.clear();
            self.to.cleared = true;
        }
        let (mut made, mut new) = (Message::default(), Message::default());
        made.uint(
            field::event::TYPE,
            if length.is_some() { BEGIN } else { INSTANT },
        );
        made.uint(field::event::TRACK, track);
        made.uint(
            field::event::CATEGORY,
            self.categories.iid(event.kind.as_str(), &mut new),
        );
        let name = names.text(event.name);
        let lost;
        let name = match event.kind {
            Kind::Lost => {
                lost = format!("lost: {name}");
                &lost
            }
            _ => name,
        };
        made.uint(field::event::NAME, self.names.iid(name, &mut new));
        for flow in flows(row, event) {
            made.fixed(field::event::FLOW, flow);
        }
        self.annotations(event, names, &mut made, &mut new);
        self.to.event(event.start_ns, &made, &new)
    }

    fn finish(mut self: Box<Self>) -> Result<Left> {
        self.tracks.finish(&mut self.to)?;
        self.to.to.finish()?;
        Ok(self.left)
    }
}

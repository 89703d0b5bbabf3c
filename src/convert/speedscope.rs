//! speedscope's JSON: an evented profile for each thread and each stream of a device, in ns.
//!
//! A profile has its events in one piece, a timeline has those of all threads among each other: they are kept apart in a
//! temporary file, of which each thread has blocks.
//!
//! # Source
//! github.com/jlfwong/speedscope, src/lib/file-format-spec.ts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use super::json::{Object, Text, quote};
use super::stacks::{Stacks, Track, has_place};
use super::{Left, Rows};
use crate::error::{Error, Result};
use crate::trace::{Event, HashMap, Kind, Names, Sym};

/// Bytes of a profile's events that are in memory; more go to the file.
const BLOCK: usize = 1 << 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Speedscope {
    to: Text,
    profiles: BTreeMap<Track, Profile>,
    stacks: Stacks<u32>,
    scratch: Option<File>,
    written: u64,
    frames: Frames,
    process_names: BTreeMap<u32, String>,
    thread_names: BTreeMap<(u32, u64), String>,
    lost: f64,
    left: Left,
}

#[derive(Debug, Default)]
struct Profile {
    events: String,
    /// Where in the file those before are: from, bytes.
    blocks: Vec<(u64, usize)>,
    range: Option<(i64, i64)>,
}

/// Functions, each once, and their numbers.
#[derive(Debug, Default)]
struct Frames {
    names: Names,
    index: HashMap<(Sym, Option<Sym>, Option<u32>), u32>,
    list: Vec<(Sym, Option<Sym>, Option<u32>)>,
}

impl Frames {
    fn of(&mut self, event: &Event, names: &Names) -> u32 {
        let name = self.names.sym(names.text(event.name));
        let file = event.file.map(|file| self.names.sym(names.text(file)));
        let key = (name, file, event.line);
        let list = &mut self.list;
        *self.index.entry(key).or_insert_with(|| {
            list.push(key);
            list.len() as u32 - 1
        })
    }
}

impl Speedscope {
    pub fn new(mut to: Text) -> Result<Speedscope> {
        to.put(
            "{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\",\"profiles\":[",
        )?;
        Ok(Speedscope {
            to,
            profiles: BTreeMap::new(),
            stacks: Stacks::default(),
            scratch: None,
            written: 0,
            frames: Frames::default(),
            process_names: BTreeMap::new(),
            thread_names: BTreeMap::new(),
            lost: 0.0,
            left: Left::default(),
        })
    }

    fn close(&mut self, track: Track, at_ns: i64) -> Result<()> {
        let mut stacks = std::mem::take(&mut self.stacks);
        let closed = stacks.close(track, at_ns, |span| {
            self.event(track, 'C', span.what, span.end_ns)
        });
        self.stacks = stacks;
        closed
    }

    fn event(&mut self, track: Track, phase: char, frame: u32, at_ns: i64) -> Result<()> {
        let profile = self.profiles.entry(track).or_default();
        let range = profile.range.get_or_insert((at_ns, at_ns));
        range.1 = range.1.max(at_ns);
        let first = profile.events.is_empty() && profile.blocks.is_empty();
        let comma = if first { "" } else { "," };
        let events = &mut profile.events;
        let _ = write!(
            events,
            "{comma}{{\"type\":\"{phase}\",\"frame\":{frame},\"at\":{at_ns}}}"
        );
        if events.len() >= BLOCK {
            let folder = std::env::temp_dir();
            let scratch = match &mut self.scratch {
                Some(scratch) => scratch,
                none => {
                    let made = tempfile::tempfile();
                    none.insert(made.map_err(Error::io("create a temporary file in", &folder))?)
                }
            };
            let wrote = scratch.write_all(events.as_bytes());
            wrote.map_err(Error::io("write to a file in", &folder))?;
            profile.blocks.push((self.written, events.len()));
            self.written += events.len() as u64;
            events.clear();
        }
        Ok(())
    }

    fn title(&self, track: Track) -> String {
        match track {
            Track::Stream(device, Some(stream)) => format!("GPU {device}, stream {stream}"),
            Track::Stream(device, None) => format!("GPU {device}"),
            Track::Thread(process, tid) => {
                let thread = match self.thread_names.get(&(process, tid)) {
                    Some(name) => format!("{name} ({tid})"),
                    None => format!("thread {tid}"),
                };
                match self.process_names.get(&process) {
                    Some(name) => format!("{name}, {thread}"),
                    None => format!("process {process}, {thread}"),
                }
            }
        }
    }

    fn profile(&mut self, track: Track, profile: &Profile, first: bool) -> Result<()> {
        let (start_ns, end_ns) = profile.range.unwrap_or((0, 0));
        let mut head = Object::default();
        head.text("type", "evented");
        head.text("name", &self.title(track));
        head.text("unit", "nanoseconds");
        head.int("startValue", start_ns);
        head.int("endValue", end_ns);
        head.key("events").push('[');
        self.to.put(if first { "\n" } else { ",\n" })?;
        self.to.put(&head.0)?;
        let mut block = Vec::new();
        for &(from, length) in &profile.blocks {
            let Some(scratch) = &mut self.scratch else {
                break;
            };
            block.resize(length, 0);
            let read = scratch
                .seek(SeekFrom::Start(from))
                .and_then(|_| scratch.read_exact(&mut block));
            read.map_err(Error::io("read a file in", &std::env::temp_dir()))?;
            self.to.put(&block)?;
        }
        self.to.put(&profile.events)?;
        self.to.put("]}")
    }
}

impl Rows for Speedscope {
    fn row(&mut self, row: i64, event: &Event, names: &Names) -> Result<()> {
        match event.kind {
            Kind::Process => {
                let name = format!("{} (pid {})", names.text(event.name), event.pid);
                self.process_names.insert(event.process, name);
                return Ok(());
            }
            Kind::Thread => {
                let name = names.text(event.name).to_owned();
                self.thread_names.insert((event.process, event.tid), name);
                return Ok(());
            }
            Kind::Stream => return Ok(()),
            Kind::Lost => self.lost += event.value.unwrap_or(1.0),
            _ => {}
        }
        if !has_place(event) {
            self.left.add(event.kind);
            return Ok(());
        }
        let track = Track::of(event);
        self.close(track, event.start_ns)?;
        if self.stacks.around(track, event, names).is_none() {
            self.left.overlapping += 1;
            return Ok(());
        }
        let frame = self.frames.of(event, names);
        self.stacks.open(track, row, event, frame);
        self.event(track, 'O', frame, event.start_ns)
    }

    fn finish(mut self: Box<Self>) -> Result<Left> {
        for track in self.stacks.tracks() {
            self.close(track, i64::MAX)?;
        }
        let profiles = std::mem::take(&mut self.profiles);
        for (at, (track, profile)) in profiles.iter().enumerate() {
            self.profile(*track, profile, at == 0)?;
        }
        self.to.put("\n],\"shared\":{\"frames\":[")?;
        let Frames { names, list, .. } = &self.frames;
        for (at, &(name, file, line)) in list.iter().enumerate() {
            let mut frame = Object::default();
            frame.text("name", names.text(name));
            if let Some(file) = file {
                frame.text("file", names.text(file));
            }
            if let Some(line) = line {
                frame.int("line", line);
            }
            let comma = if at == 0 { "\n" } else { ",\n" };
            self.to.put(format!("{comma}{}", frame.close()))?;
        }
        let mut tail = String::from("\n]}");
        if self.lost > 0.0 {
            // The one place that a page of speedscope shows.
            tail.push_str(",\"name\":");
            quote(&format!("{} records were lost", self.lost), &mut tail);
        }
        tail.push_str(",\"exporter\":");
        quote(
            &format!("isc-convert@{}", env!("CARGO_PKG_VERSION")),
            &mut tail,
        );
        tail.push_str("}\n");
        self.to.put(tail)?;
        self.to.finish()?;
        Ok(self.left)
    }
}

//! Tracks, their numbers and what describes them, and which slices are open on each.

use std::collections::{BTreeMap, BTreeSet};

use super::{Message, Packets};
use crate::error::Result;
use crate::trace::{Event, Kind};

/// Fields of the descriptors.
mod field {
    pub const UUID: u32 = 1;
    pub const NAME: u32 = 2;
    pub const PROCESS: u32 = 3;
    pub const THREAD: u32 = 4;
    pub const PARENT: u32 = 5;
    pub const COUNTER: u32 = 8;

    pub mod process {
        pub const PID: u32 = 1;
        pub const NAME: u32 = 6;
    }

    pub mod thread {
        pub const PID: u32 = 1;
        pub const TID: u32 = 2;
        pub const NAME: u32 = 5;
    }

    pub mod counter {
        pub const UNIT: u32 = 3;
    }
}

/// CounterDescriptor.Unit.
const TIME_NS: u64 = 1;
const BYTES: u64 = 3;

/// Where a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Process(u32),
    Thread(u32, u64),
    Device(u32),
    Stream(u32, u32),
}

impl Place {
    /// A row's place: device work on its stream, all else on its thread.
    pub fn of(event: &Event) -> Place {
        match (event.device, event.stream, event.tid) {
            (Some(device), Some(stream), _) => Place::Stream(device, stream),
            (Some(device), None, _) if event.kind != Kind::Alloc => Place::Device(device),
            (_, _, 0) => Place::Process(event.process),
            _ => Place::Thread(event.process, event.tid),
        }
    }

    fn around(self) -> Option<Place> {
        match self {
            Place::Thread(process, _) => Some(Place::Process(process)),
            Place::Stream(device, _) => Some(Place::Device(device)),
            _ => None,
        }
    }
}

/// Which of a place's tracks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// The place itself; what overlaps there goes below it.
    Own,
    Async,
    Waits,
    Throttled,
    Annotations,
    Syncs,
}

impl Group {
    fn name(self) -> &'static str {
        match self {
            Group::Own => "overlapping",
            Group::Async => "scopes over several tasks",
            Group::Waits => "waits",
            Group::Throttled => "recorded in bursts only",
            Group::Annotations => "annotations",
            Group::Syncs => "synchronisation",
        }
    }
}

/// Slices that are open on one track: each inside the one before.
#[derive(Debug)]
struct Line {
    uuid: u64,
    ends: Vec<i64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    /// Tracks in the order of their first use: their numbers are the same on every run.
    count: u64,
    places: BTreeMap<Place, u64>,
    counters: BTreeMap<(Place, String), u64>,
    lines: BTreeMap<(Place, Group), Vec<Line>>,
    /// Pids that a process has; another one with the same, in another container say, is only named.
    pids: BTreeMap<u32, u32>,
    taken: BTreeSet<u32>,
}

impl Tracks {
    fn uuid(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// The track of a place.
    pub fn of(&mut self, place: Place, pid: u32, to: &mut Packets) -> Result<u64> {
        if let Some(&uuid) = self.places.get(&place) {
            return Ok(uuid);
        }
        self.describe(place, pid, None, to)
    }

    /// A row that names a place.
    pub fn named(&mut self, event: &Event, name: &str, to: &mut Packets) -> Result<()> {
        let place = match (event.kind, event.device, event.stream) {
            (Kind::Process, ..) => Place::Process(event.process),
            (Kind::Thread, ..) => Place::Thread(event.process, event.tid),
            (_, Some(device), Some(stream)) => Place::Stream(device, stream),
            (_, Some(device), None) => Place::Device(device),
            _ => return Ok(()),
        };
        self.describe(place, event.pid, Some(name), to)?;
        Ok(())
    }

    /// Writes the descriptor of a place: once when it is first met, and again when its name is.
    fn describe(
        &mut self,
        place: Place,
        pid: u32,
        name: Option<&str>,
        to: &mut Packets,
    ) -> Result<u64> {
        let around = match place.around() {
            Some(around) => Some(self.of(around, pid, to)?),
            None => None,
        };
        let uuid = match self.places.get(&place) {
            Some(&uuid) => uuid,
            None => self.uuid(),
        };
        self.places.insert(place, uuid);
        let mut track = Message::default();
        track.uint(field::UUID, uuid);
        if let Some(around) = around {
            track.uint(field::PARENT, around);
        }
        match place {
            Place::Process(process) => {
                // 0 is a pid that nobody knew.
                if !self.pids.contains_key(&process)
                    && i32::try_from(pid).is_ok_and(|pid| pid > 0)
                    && self.taken.insert(pid)
                {
                    self.pids.insert(process, pid);
                }
                match self.pids.get(&process) {
                    Some(&pid) => {
                        let mut about = Message::default();
                        about.uint(field::process::PID, pid.into());
                        if let Some(name) = name {
                            about.text(field::process::NAME, name);
                        }
                        track.message(field::PROCESS, &about);
                    }
                    None => {
                        let name = name.unwrap_or("process");
                        track.text(
                            field::NAME,
                            &format!("{name} (pid {pid}, process {process})"),
                        );
                    }
                }
            }
            Place::Thread(process, tid) => {
                // A number that no system gives to a thread stands for a word in an imported file.
                match (self.pids.get(&process), i32::try_from(tid)) {
                    (Some(&pid), Ok(tid)) => {
                        let mut about = Message::default();
                        about.uint(field::thread::PID, pid.into());
                        about.int(field::thread::TID, tid.into());
                        if let Some(name) = name {
                            about.text(field::thread::NAME, name);
                        }
                        track.message(field::THREAD, &about);
                    }
                    _ => drop(track.text(
                        field::NAME,
                        &format!("{} ({tid})", name.unwrap_or("thread")),
                    )),
                }
            }
            Place::Device(device) => {
                let name = name.map_or(String::new(), |name| format!(": {name}"));
                track.text(field::NAME, &format!("GPU {device}{name}"));
            }
            Place::Stream(_, stream) => {
                let usual = format!("stream {stream}");
                track.text(field::NAME, name.unwrap_or(&usual));
            }
        }
        to.descriptor(&track)?;
        Ok(uuid)
    }

    /// The track that a slice begins on. Slices there that are over end first.
    pub fn slice(
        &mut self,
        place: Place,
        event: &Event,
        group: Group,
        to: &mut Packets,
    ) -> Result<u64> {
        let own = self.of(place, event.pid, to)?;
        let (start, end) = (event.start_ns, event.end_ns());
        let mut lines = std::mem::take(self.lines.entry((place, group)).or_default());
        let mut found = None;
        for line in &mut lines {
            close(line, start, to)?;
            if line.ends.last().is_none_or(|&until| until >= end) {
                line.ends.push(end);
                found = Some(line.uuid);
                break;
            }
        }
        let uuid = match found {
            Some(uuid) => uuid,
            None => {
                let uuid = match (group, lines.is_empty()) {
                    (Group::Own, true) => own,
                    _ => self.below(own, group.name(), to)?,
                };
                lines.push(Line {
                    uuid,
                    ends: vec![end],
                });
                uuid
            }
        };
        self.lines.insert((place, group), lines);
        Ok(uuid)
    }

    fn below(&mut self, own: u64, name: &str, to: &mut Packets) -> Result<u64> {
        let uuid = self.uuid();
        let mut track = Message::default();
        track
            .uint(field::UUID, uuid)
            .uint(field::PARENT, own)
            .text(field::NAME, name);
        to.descriptor(&track)?;
        Ok(uuid)
    }

    /// The track of a counter of a thread, or of a process.
    pub fn counter(&mut self, event: &Event, name: &str, to: &mut Packets) -> Result<u64> {
        let place = Place::of(event);
        let own = self.of(place, event.pid, to)?;
        if let Some(&uuid) = self.counters.get(&(place, name.to_owned())) {
            return Ok(uuid);
        }
        let uuid = self.uuid();
        self.counters.insert((place, name.to_owned()), uuid);
        let mut about = Message::default();
        if name.contains("_ns") {
            about.uint(field::counter::UNIT, TIME_NS);
        } else if name.ends_with("_bytes") {
            about.uint(field::counter::UNIT, BYTES);
        }
        let mut track = Message::default();
        track
            .uint(field::UUID, uuid)
            .uint(field::PARENT, own)
            .text(field::NAME, name);
        track.message(field::COUNTER, &about);
        to.descriptor(&track)?;
        Ok(uuid)
    }

    /// Ends all slices.
    pub fn finish(&mut self, to: &mut Packets) -> Result<()> {
        for line in self.lines.values_mut().flatten() {
            close(line, i64::MAX, to)?;
        }
        Ok(())
    }
}

/// Ends the slices of a track that are over.
fn close(line: &mut Line, at_ns: i64, to: &mut Packets) -> Result<()> {
    while let Some(end) = line.ends.pop_if(|end| *end <= at_ns) {
        to.end(line.uuid, end)?;
    }
    Ok(())
}

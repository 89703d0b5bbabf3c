//! Processes, threads, devices and streams of a trace-event file: who is who, and the rows that say so.
//!
//! Kineto writes one process's events; rows of a device carry the device where others have a pid. In other files the
//! first pid of a host row is the process that device rows belong to: process 0.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::decimal::{scaled, unsigned};
use super::events::Fields;
use super::json::{Cursor, Text};
use super::kineto::Memos;
use super::ours::EXPORTER;
use crate::clock::UNKNOWN;
use crate::trace::{Event, Kind, Names};

/// Words in the place of a number get one from here on, in the order of their first use.
const FIRST_WORD: u64 = 1 << 48;

/// A time in ns that only a clock of the day shows: 2001. Old Kineto files have such times and no base.
pub(super) const EPOCH_NS: i64 = 1_000_000_000_000_000_000;

/// Where a row belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub process: u32,
    pub pid: u32,
    pub tid: u64,
}

#[derive(Clone, Debug, Default)]
struct Life {
    pid: u32,
    word: Option<String>,
    range: Option<(i64, i64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    lives: Vec<Life>,
    by_pid: HashMap<u64, u32>,
    words: HashMap<Vec<u8>, u64>,
    /// By pid as the file has it.
    process_names: BTreeMap<u64, String>,
    thread_names: BTreeMap<(u64, u64), String>,
    last: Option<(Vec<u8>, Vec<u8>, Owner)>,
    base_ns: Option<i64>,
    header: Map<String, Value>,
    devices: Vec<Value>,
    /// It has fields that only Kineto writes.
    kineto: bool,
    /// What its events' texts became.
    pub memos: Memos,
    /// isc-convert wrote it.
    ours: bool,
    /// What it says there of processes, by pid.
    about: BTreeMap<u64, Map<String, Value>>,
}

impl Tracks {
    /// A key of the outer object. All others are left alone: some files hold environments there.
    pub fn header(&mut self, key: &[u8], value: &[u8]) {
        let parsed = || serde_json::from_slice::<Value>(value).ok();
        match key {
            b"baseTimeNanoseconds" => self.base_ns = scaled(unquoted(value), 1),
            b"schemaVersion" => self.kineto = !self.ours,
            b"exporter" => self.ours = unquoted(value) == EXPORTER.as_bytes(),
            b"deviceProperties" => {
                if let Some(Value::Array(devices)) = parsed() {
                    self.devices = devices;
                }
            }
            b"distributedInfo" => {
                let info = parsed().unwrap_or_default();
                for key in ["rank", "world_size", "backend"] {
                    if let Some(value) = info.get(key).filter(|v| v.is_number() || v.is_string()) {
                        self.header.insert(key.into(), value.clone());
                    }
                }
            }
            b"host_name" | b"hostname" => {
                if let Some(Value::String(host)) = parsed() {
                    self.header.insert("host".into(), host.into());
                }
            }
            _ => {}
        }
    }

    /// The file has a category that only Kineto writes. Its `schemaVersion` may stand behind all events.
    pub fn is_kineto(&mut self) {
        self.kineto = true;
    }

    /// isc-convert wrote the file; it says so before all events.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// The process and thread of a host row.
    pub fn owner(&mut self, pid: &[u8], tid: &[u8]) -> Owner {
        // Most events are of the thread of the event before.
        if let Some((last_pid, last_tid, owner)) = &self.last
            && last_pid == pid
            && last_tid == tid
        {
            return *owner;
        }
        let process = self.process(pid);
        let of_process = self.lives[process as usize].pid;
        // In a container annotations may have the pid that the container sees, and calls that of the host.
        let own = unsigned(pid).and_then(|pid| u32::try_from(pid).ok());
        let owner = Owner {
            process,
            pid: own
                .filter(|&pid| self.kineto && pid > 0)
                .unwrap_or(of_process),
            tid: self.number(tid),
        };
        self.last = Some((pid.to_vec(), tid.to_vec(), owner));
        owner
    }

    /// The process that device rows belong to; its pid is known when a host row was met, and else 0.
    pub fn device_owner(&mut self) -> Owner {
        let pid = self.lives.first().map_or(0, |life| life.pid);
        Owner {
            process: 0,
            pid,
            tid: 0,
        }
    }

    fn process(&mut self, pid: &[u8]) -> u32 {
        let number = self.number(pid);
        // A file of Kineto's is one process, whatever numbers stand in it: 0 for what belongs to no thread, words for its
        // own spans.
        if self.kineto {
            let life = self.life(0);
            if life.pid == 0 && (1..FIRST_WORD).contains(&number) {
                life.pid = number as u32;
                self.by_pid.insert(number, 0);
            }
            return 0;
        }
        if let Some(&process) = self.by_pid.get(&number) {
            return process;
        }
        // The first one takes over what rows of devices have begun.
        let first = self.by_pid.is_empty();
        let process = if first { 0 } else { self.lives.len() as u32 };
        self.by_pid.insert(number, process);
        let life = self.life(process);
        match u32::try_from(number) {
            Ok(pid) => life.pid = pid,
            Err(_) => life.word = Some(String::from_utf8_lossy(pid).into_owned()),
        }
        process
    }

    fn life(&mut self, process: u32) -> &mut Life {
        let at = process as usize;
        if at >= self.lives.len() {
            self.lives.resize(at + 1, Life::default());
        }
        &mut self.lives[at]
    }

    /// A number for a pid or tid: its own, that at the end of a word (`stream 7`), or one given to the word.
    fn number(&mut self, id: &[u8]) -> u64 {
        if let Some(number) = unsigned(id).filter(|&n| n < FIRST_WORD || self.ours) {
            return number;
        }
        if let Some(&number) = self.words.get(id) {
            return number;
        }
        let number = FIRST_WORD + self.words.len() as u64;
        self.words.insert(id.to_vec(), number);
        number
    }

    /// A row of this process was at this time.
    pub fn saw(&mut self, process: u32, ns: i64) {
        let range = &mut self.life(process).range;
        *range = Some(range.map_or((ns, ns), |(first, last)| (first.min(ns), last.max(ns))));
    }

    /// The last moment of a process.
    pub fn last_ns(&self, process: u32) -> i64 {
        let life = self.lives.get(process as usize);
        life.and_then(|life| life.range)
            .map_or(i64::MIN, |(_, last)| last)
    }

    /// The device of a pid whose process is named as one (`/device:GPU:0`), and the stream if its thread is one.
    pub fn device(&self, pid: &[u8], tid: &[u8]) -> Option<(u32, Option<u32>)> {
        if self.kineto || self.process_names.is_empty() {
            return None;
        }
        let (pid, tid) = (unsigned(pid)?, unsigned(tid)?);
        let device = self.process_names.get(&pid)?.split_once("/device:GPU:")?.1;
        let thread = self.thread_names.get(&(pid, tid));
        let stream = thread.and_then(|name| name.strip_prefix("Stream #"));
        let stream = stream.and_then(leading);
        Some((leading(device)?, stream))
    }

    /// An `M` event: the name of a process or thread.
    pub fn metadata(&mut self, f: &Fields<'_>) {
        let thread = match f.name.raw {
            b"process_name" => false,
            b"thread_name" => true,
            _ => return,
        };
        let Some((_, _, value)) = f.args().find(|(_, key, _)| *key == b"name") else {
            return;
        };
        let mut name = String::new();
        if let Ok(text) = Cursor::whole(value).text() {
            Text::decode(text, &mut name);
        }
        let (pid, tid) = (self.number(f.pid), self.number(f.tid));
        if self.ours && !thread {
            self.about(pid, f);
        }
        match thread {
            true => self.thread_names.insert((pid, tid), name),
            false => self.process_names.insert(pid, name),
        };
    }

    /// What a file of ours says of a process: its life, and its row's args. Those of devices have none.
    fn about(&mut self, pid: u64, f: &Fields<'_>) {
        let arg = |wanted: &[u8]| f.args().find(|(_, key, _)| *key == wanted).map(|arg| arg.2);
        // As far from any bound as the times of events.
        let sane = |ns: &i64| ns.unsigned_abs() < 1 << 61;
        let number = |key| arg(key).and_then(|value| scaled(value, 1)).filter(sane);
        if let Some(about) = arg(b"about").and_then(|value| serde_json::from_slice(value).ok()) {
            self.about.insert(pid, about);
        }
        if let Some(start) = number(b"start_ns") {
            let process = self.process(f.pid);
            self.saw(process, start);
            self.saw(
                process,
                start.saturating_add(number(b"dur_ns").unwrap_or(0)),
            );
        }
    }

    /// Rows of processes, threads, devices and streams, and the snapshot that places the file in time.
    pub fn finish(&mut self, names: &mut Names, rows: &mut Vec<Event>) {
        let earliest = self.lives.iter().filter_map(|l| l.range).map(|r| r.0).min();
        let base_ns = self
            .base_ns
            .or_else(|| earliest.filter(|&ns| ns > EPOCH_NS).map(|_| 0));
        let pids: HashMap<u32, u64> = self.by_pid.iter().map(|(&pid, &p)| (p, pid)).collect();
        for (process, life) in self.lives.iter().enumerate() {
            let process = process as u32;
            let nowhere = earliest.unwrap_or(0);
            let (first, last) = life.range.unwrap_or((nowhere, nowhere));
            let mut args = self.header.clone();
            let pid = pids.get(&process).copied().unwrap_or(0);
            args.extend(self.about.remove(&pid).unwrap_or_default());
            let name = self
                .process_names
                .get(&pid)
                .cloned()
                .or_else(|| life.word.clone());
            let name = name.unwrap_or_else(|| "process".into());
            args.insert(
                "clock".into(),
                if base_ns.is_some() {
                    "realtime"
                } else {
                    UNKNOWN
                }
                .into(),
            );
            let name = names.sym(&name);
            let mut row = Event::new(Kind::Process, name, first, process, life.pid, 0);
            row.dur_ns = Some(last.saturating_sub(first));
            row.args = Some(names.sym(&Value::Object(args).to_string()));
            rows.push(row);
            if let Some(base_ns) = base_ns {
                rows.push(snapshot(first, base_ns, process, life.pid, names));
            }
        }
        for (&(pid, tid), name) in &self.thread_names {
            // What is no host process's is a stream of a device. A file may name threads and have no event.
            let kineto = (self.kineto && pid == tid && pid > 0).then_some(0);
            let process = self.by_pid.get(&pid).copied().or(kineto);
            let process = process.and_then(|at| Some((at, self.lives.get(at as usize)?)));
            if let Some((process, life)) = process {
                let at = life.range.map_or(0, |r| r.0);
                let name = names.sym(name);
                rows.push(Event::new(Kind::Thread, name, at, process, life.pid, tid));
            } else if let (Some(rest), Ok(device)) =
                (name.strip_prefix("stream "), u32::try_from(pid))
                && let (Some(stream), Some(life)) = (leading(rest), self.lives.first())
            {
                let at = life.range.map_or(0, |r| r.0);
                let mut row = Event::new(Kind::Stream, names.sym(name.trim()), at, 0, life.pid, 0);
                (row.device, row.stream) = (Some(device), Some(stream));
                rows.push(row);
            }
        }
        for device in &self.devices {
            let Some(id) = device["id"].as_u64().and_then(|id| u32::try_from(id).ok()) else {
                continue;
            };
            let Some(life) = self.lives.first() else {
                continue;
            };
            let at = life.range.map_or(0, |r| r.0);
            let name = names.sym(device["name"].as_str().unwrap_or("device"));
            let mut row = Event::new(Kind::Stream, name, at, 0, life.pid, 0);
            row.device = Some(id);
            row.bytes = device["totalGlobalMem"].as_i64();
            row.args = Some(names.sym(&facts(device).to_string()));
            rows.push(row);
        }
    }
}

/// Properties of a device: Kineto's keys, and ours.
pub(crate) const PROPERTIES: [(&str, &str); 5] = [
    ("numSms", "sms"),
    ("warpSize", "warp"),
    ("maxThreadsPerMultiprocessor", "threads_per_sm"),
    ("regsPerMultiprocessor", "registers_per_sm"),
    ("sharedMemPerMultiprocessor", "shared_bytes_per_sm"),
];

/// What of a device's properties its row keeps.
fn facts(device: &Value) -> Value {
    let mut facts = Map::new();
    for (key, ours) in PROPERTIES {
        if let Some(value) = device.get(key).filter(|v| v.is_number()) {
            facts.insert(ours.into(), value.clone());
        }
    }
    if let (Some(major), Some(minor)) = (
        device["computeMajor"].as_u64(),
        device["computeMinor"].as_u64(),
    ) {
        facts.insert("compute".into(), json!(format!("{major}.{minor}")));
    }
    Value::Object(facts)
}

/// A reading of the file's clock, and the time of day it was.
pub(super) fn snapshot(at: i64, base_ns: i64, process: u32, pid: u32, names: &mut Names) -> Event {
    let realtime = at.saturating_add(base_ns);
    let args = json!({"monotonic_ns": realtime, "realtime_ns": realtime, "error_ns": 0});
    let mut row = Event::new(Kind::Clock, names.sym("realtime"), at, process, pid, 0);
    row.args = Some(names.sym(&args.to_string()));
    row
}

/// The number that a text begins with.
pub(super) fn leading(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

fn unquoted(value: &[u8]) -> &[u8] {
    value
        .strip_prefix(b"\"")
        .and_then(|v| v.strip_suffix(b"\""))
        .unwrap_or(value)
}

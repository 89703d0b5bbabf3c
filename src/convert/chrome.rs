//! The trace event format, as torch.profiler (Kineto) writes it: what reads its files reads these, isc-merge too.
//!
//! Categories, and keys of args, are Kineto's where it has them; other kinds are categories of their own. Spans are complete
//! events (X); what may overlap on its thread (waits, scopes over several tasks, times in which a function was shed) is a
//! pair of async events (b, e). Arrows from launches to their work are flow events (s, f). Times are µs with all ns.
//!
//! # Source
//! "Trace Event Format", Google (2016); pytorch/kineto, libkineto/src/output_json.cpp, for categories and keys.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::json::{Object, Text, micros, number, quote};
use super::{Left, Rows};
use crate::correlate;
use crate::error::{Error, Result};
use crate::import::ours;
use crate::import::tracks::PROPERTIES;
use crate::trace::provenance::Provenance;
use crate::trace::{Event, Kind, Names};

/// Kineto sorts devices behind all processes.
const DEVICES_SORT_FROM: u64 = 5_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Chrome {
    to: Text,
    line: String,
    first: bool,
    pids: Pids,
    devices: BTreeSet<(u32, Option<u32>)>,
    /// What is known of devices, as JSON.
    properties: Vec<String>,
    provenance: String,
    left: Left,
}

/// The pids that processes have in the file: their own, unless another has it already, as between containers.
#[derive(Debug, Default)]
struct Pids {
    of: HashMap<u32, u64>,
    taken: BTreeSet<u64>,
}

impl Pids {
    fn of(&mut self, event: &Event) -> u64 {
        let taken = &mut self.taken;
        *self.of.entry(event.process).or_insert_with(|| {
            let own = u64::from(event.pid);
            match taken.insert(own) {
                true => own,
                false => own + (u64::from(event.process) << 32),
            }
        })
    }
}

impl Chrome {
    pub fn new(mut to: Text, provenance: &Provenance) -> Result<Chrome> {
        let realtime_ns = provenance.origin.and_then(|origin| origin.realtime_ns);
        let mut head = Object::default();
        // First of all: it says how to read the rest.
        head.text("exporter", ours::EXPORTER);
        head.int("schemaVersion", 1);
        head.text("displayTimeUnit", "ns");
        if let Some(realtime_ns) = realtime_ns {
            head.int("baseTimeNanoseconds", realtime_ns);
        }
        head.key("traceEvents").push_str("[\n");
        to.put(head.0)?;
        let wrong = |error| Error::invalid("", format!("provenance cannot be written: {error}"));
        Ok(Chrome {
            to,
            line: String::new(),
            first: true,
            pids: Pids::default(),
            devices: BTreeSet::new(),
            properties: Vec::new(),
            provenance: serde_json::to_string(provenance).map_err(wrong)?,
            left: Left::default(),
        })
    }

    fn put(&mut self, event: Object) -> Result<()> {
        self.line.clear();
        if !std::mem::take(&mut self.first) {
            self.line.push_str(",\n");
        }
        self.line.push_str(&event.close());
        self.to.put(&self.line)
    }

    /// Names of a device and its stream, before the first event on them.
    fn device(&mut self, device: u32, stream: Option<u32>) -> Result<()> {
        if self.devices.insert((device, None)) {
            let name = format!("GPU {device}");
            self.put(meta("process_name", device, None, "name", |v| {
                quote(&name, v)
            }))?;
            self.put(meta("process_labels", device, None, "labels", |v| {
                quote(&name, v)
            }))?;
            let place = DEVICES_SORT_FROM + u64::from(device);
            self.put(meta(
                "process_sort_index",
                device,
                None,
                "sort_index",
                |v| v.push_str(&place.to_string()),
            ))?;
        }
        if let Some(stream) = stream
            && self.devices.insert((device, Some(stream)))
        {
            let name = format!("stream {stream}");
            self.put(meta(
                "thread_name",
                device,
                Some(stream.into()),
                "name",
                |v| quote(&name, v),
            ))?;
        }
        Ok(())
    }

    /// Rows that name something.
    fn named(&mut self, event: &Event, names: &Names) -> Result<()> {
        let name = names.text(event.name);
        match (event.kind, event.device) {
            (Kind::Process, _) => {
                let pid = self.pids.of(event);
                let about = event.args.map(|args| names.text(args));
                self.put(meta("process_name", pid, None, "name", |value| {
                    quote(name, value);
                    let (start, dur) = (event.start_ns, event.dur_ns.unwrap_or(0));
                    value.push_str(&format!(",\"start_ns\":{start},\"dur_ns\":{dur}"));
                    let mut own = Object::default();
                    if about.is_some_and(|args| own.members(args, |key| Some(key.to_owned()))) {
                        value.push_str(",\"about\":");
                        value.push_str(&own.close());
                    }
                }))
            }
            (Kind::Thread, _) => {
                let pid = self.pids.of(event);
                self.put(meta("thread_name", pid, Some(event.tid), "name", |v| {
                    quote(name, v)
                }))
            }
            (_, Some(device)) => {
                if event.stream.is_none() {
                    self.properties.push(properties(device, event, names));
                }
                self.device(device, event.stream)
            }
            _ => Ok(()),
        }
    }
}

/// A device's row, as Kineto says it.
fn properties(device: u32, event: &Event, names: &Names) -> String {
    let mut about = Object::default();
    about.int("id", device);
    about.text("name", names.text(event.name));
    if let Some(bytes) = event.bytes {
        about.int("totalGlobalMem", bytes);
    }
    let args = event.args.map_or("", |args| names.text(args));
    let args: Value = serde_json::from_str(args).unwrap_or_default();
    for (theirs, ours) in PROPERTIES {
        if let Some(number) = args[ours].as_i64() {
            about.int(theirs, number);
        }
    }
    let compute = args["compute"]
        .as_str()
        .and_then(|version| version.split_once('.'));
    let number = |text: &str| text.parse::<u64>().ok();
    if let Some((major, minor)) = compute
        && let (Some(major), Some(minor)) = (number(major), number(minor))
    {
        about.int("computeMajor", major);
        about.int("computeMinor", minor);
    }
    about.close()
}

/// A metadata event.
fn meta(
    what: &str,
    pid: impl std::fmt::Display,
    tid: Option<u64>,
    key: &str,
    value: impl FnOnce(&mut String),
) -> Object {
    let mut event = Object::default();
    event.text("ph", "M");
    event.text("name", what);
    event.int("pid", pid);
    event.int("tid", tid.unwrap_or(0));
    event.int("ts", 0);
    let mut args = Object::default();
    value(args.key(key));
    event.key("args").push_str(&args.close());
    event
}

/// It stands on a stream, and not on a thread.
fn on_device(event: &Event) -> bool {
    let may = event.kind.on_device() || matches!(event.kind, Kind::Sync | Kind::Annotation);
    event.kind.on_device() || (may && event.device.is_some())
}

impl Rows for Chrome {
    fn row(&mut self, row: i64, event: &Event, names: &Names) -> Result<()> {
        match event.kind {
            Kind::Process | Kind::Thread | Kind::Stream => return self.named(event, names),
            Kind::Clock => {
                self.left.add(event.kind);
                return Ok(());
            }
            _ => {}
        }
        let (pid, tid) = match on_device(event) {
            true => {
                if let Some(device) = event.device {
                    self.device(device, event.stream)?;
                }
                // No number: nothing is known.
                let word = |number: Option<u32>| number.map_or(-1, i64::from);
                (
                    word(event.device).to_string(),
                    word(event.stream).to_string(),
                )
            }
            false => (self.pids.of(event).to_string(), event.tid.to_string()),
        };
        let begin = |phase: &str, category: &str, name: &str, ts: i64| {
            let mut made = Object::default();
            made.text("ph", phase);
            made.text("cat", category);
            made.text("name", name);
            made.int("pid", &pid);
            made.int("tid", &tid);
            micros(ts, made.key("ts"));
            made
        };
        let name = title(event, names);
        let category = ours::category(event.kind, event.device.is_some());
        let start = event.start_ns;
        if event.kind == Kind::Counter {
            // process.rss_bytes is series rss_bytes of counter process, for readers that part the two and join them again.
            let (group, series) = name.rsplit_once('.').unwrap_or((&name, "value"));
            let mut made = begin("C", category, group, start);
            if event.tid != 0 {
                made.int("id", event.tid);
            }
            let mut args = Object::default();
            number(event.value.unwrap_or(f64::NAN), args.key(series));
            made.key("args").push_str(&args.close());
            return self.put(made);
        }
        if event.kind == Kind::Flow {
            let said = event.args.map_or("", |args| names.text(args));
            let phase = match said {
                said if said.contains("\"start\"") => "s",
                said if said.contains("\"step\"") => "t",
                _ => "f",
            };
            let mut made = begin(phase, category, &name, start);
            made.int("id", event.flow.unwrap_or(0));
            if phase == "f" {
                made.text("bp", "e");
            }
            return self.put(made);
        }
        let own = |made: &mut Object, pids: &mut Pids| {
            made.key("args").push_str(&args(event, names, pids))
        };
        match event.dur_ns {
            Some(dur) if may_overlap(event, names) => {
                let id = event
                    .flow
                    .filter(|_| event.kind == Kind::Scope)
                    .unwrap_or(row as u64);
                let mut made = begin("b", category, &name, start);
                made.int("id", id);
                own(&mut made, &mut self.pids);
                self.put(made)?;
                let mut end = begin("e", category, &name, start.saturating_add(dur));
                end.int("id", id);
                self.put(end)?;
            }
            Some(dur) => {
                let mut made = begin("X", category, &name, start);
                micros(dur, made.key("dur"));
                own(&mut made, &mut self.pids);
                self.put(made)?;
            }
            None => {
                let mut made = begin("i", category, &name, start);
                made.text("s", if event.kind == Kind::Lost { "p" } else { "t" });
                own(&mut made, &mut self.pids);
                self.put(made)?;
            }
        }
        // An arrow begins in each launch, and ends in what it started.
        let arrow = match event.kind {
            Kind::Launch => Some(("s", row)),
            _ => event.cause.map(|cause| ("f", cause)),
        };
        if let Some((phase, id)) = arrow {
            let mut made = begin(phase, "ac2g", "ac2g", start);
            made.int("id", id);
            if phase == "f" {
                made.text("bp", "e");
            }
            self.put(made)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Left> {
        self.to.put("\n]")?;
        if !self.properties.is_empty() {
            let devices = self.properties.join(",\n");
            self.to
                .put(format!(",\"deviceProperties\":[\n{devices}\n]"))?;
        }
        self.to
            .put(format!(",\"inferscope\":{}}}\n", self.provenance))?;
        self.to.finish()?;
        Ok(self.left)
    }
}

/// Spans that need not nest on their thread.
fn may_overlap(event: &Event, names: &Names) -> bool {
    matches!(event.kind, Kind::Wait | Kind::Throttled) || correlate::crosses(event, names)
}

/// The name: that of a Python function has its place in it.
fn title(event: &Event, names: &Names) -> String {
    let name = names.text(event.name);
    match (event.kind, event.file, event.line) {
        (Kind::Python, Some(file), Some(line)) => format!("{}({line}): {name}", names.text(file)),
        (Kind::Alloc, ..) => "[memory]".into(),
        _ => name.to_owned(),
    }
}

/// What a row has besides name, time and place.
fn args(event: &Event, names: &Names, pids: &mut Pids) -> String {
    let mut args = Object::default();
    if on_device(event) {
        if let Some(device) = event.device {
            args.int("device", device);
        }
        if let Some(stream) = event.stream {
            args.int("stream", stream);
        }
        // Where the device stands in place of the process.
        args.int("process", pids.of(event));
        if event.tid != 0 {
            args.int("thread", event.tid);
        }
    }
    if let Some(correlation) = event.correlation {
        args.int("correlation", correlation);
    }
    match event.kind {
        Kind::Alloc => {
            if let Some(bytes) = event.bytes {
                args.int("Bytes", bytes);
            }
            if let Some(total) = event.value {
                number(total, args.key("Total Allocated"));
            }
            args.int("Device Type", u8::from(event.device.is_some()));
            if let Some(device) = event.device {
                args.int("Device Id", device);
            }
            args.text("memory", names.text(event.name));
        }
        _ => {
            if let Some(bytes) = event.bytes {
                args.int("bytes", bytes);
            }
            if let Some(value) = event.value {
                number(value, args.key("value"));
            }
        }
    }
    if event.kind != Kind::Python || event.line.is_none() {
        if let Some(file) = event.file {
            args.text("file", names.text(file));
        }
        if let Some(line) = event.line {
            args.int("line", line);
        }
    }
    if let Some(flow) = event.flow {
        args.int("flow", flow);
    }
    if let Some(said) = event.args.map(|args| names.text(args)) {
        // That it overlaps shows in its being a pair of events.
        let told = |key: &str| event.kind == Kind::Scope && key == "async";
        let called = |key: &str| (!told(key)).then(|| ours::key(event.kind, key).into_owned());
        if !args.members(said, called) {
            args.text("args", said);
        }
    }
    args.close()
}

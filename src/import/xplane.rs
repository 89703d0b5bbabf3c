//! XPlane (`.xplane.pb`): what TensorFlow's and JAX's profilers write.
//!
//! A space has planes (a device, the host), a plane lines (a stream, a thread), a line events. Names stand behind the lines
//! that use them, so each plane is walked twice: for names and where its lines are, then for events.
//!
//! # Source
//! openxla/xla, xla/tsl/profiler/protobuf/xplane.proto; names of planes and lines in
//! xla/tsl/profiler/utils/xplane_schema.cc.

use std::collections::{HashMap, VecDeque};
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::Lenient;
use super::tracks::{EPOCH_NS, leading, snapshot};
use super::wire::{Fields, Value, Wire};
use crate::clock::UNKNOWN;
use crate::error::Result;
use crate::trace::{Event, Kind, Names};

/// Rows handed over at once.
const BATCH: usize = 1 << 14;

/// Whether these are the first bytes of a space: a plane, and in it an id, a name or a line.
pub(super) fn is(head: &[u8]) -> bool {
    // Field 1 of a space is a message; JSON's first byte may be a line feed, which is the same.
    let Some((0x0a, rest)) = head.split_first().map(|(first, rest)| (*first, rest)) else {
        return false;
    };
    let length = rest.iter().position(|byte| *byte < 128);
    let plane = length.and_then(|at| rest.get(at + 1..at + 3));
    matches!(plane, Some([0x08, _] | [0x12, 1..=127]) if length < Some(10))
        && plane.is_some_and(|plane| {
            plane[0] == 0x08 || rest.get(length.unwrap_or(0) + 3) == Some(&b'/')
        })
}

/// See the module.
#[derive(Debug)]
pub(super) struct Xplane {
    wire: Wire,
    hash: String,
    /// Where planes begin and end that were not walked yet.
    planes: VecDeque<(u64, u64)>,
    plane: Plane,
    /// Where the line that is read goes on and ends.
    line: Option<(Line, u64)>,
    range: Option<(i64, i64)>,
    host: Option<String>,
    /// Devices, or threads by number, and their names.
    tracks: Vec<(Option<u32>, u64, String)>,
    lenient: Lenient,
}

#[derive(Debug, Default)]
struct Plane {
    name: String,
    device: Option<u32>,
    names: HashMap<u64, String>,
    stats: HashMap<u64, String>,
    lines: VecDeque<Line>,
}

#[derive(Debug, Default)]
struct Line {
    id: u64,
    name: String,
    timestamp_ns: u64,
    from: u64,
    to: u64,
}

/// Reads the space in `file`, whose hash is `hash`.
///
/// # Errors
/// A file that is no space, or cut off.
pub(super) fn reader(
    file: std::fs::File,
    hash: String,
    path: &Path,
    lenient: &Lenient,
) -> Result<Xplane> {
    let mut wire = Wire::new(file, path)?;
    let (mut planes, mut host) = (VecDeque::new(), None);
    let end = wire.length();
    while let Some((number, value)) = wire.field(end)? {
        let Value::Bytes(to) = value else { continue };
        match number {
            1 => planes.push_back((wire.at(), to)),
            4 => host = Some(String::from_utf8_lossy(&wire.bytes(to)?).into_owned()),
            _ => {}
        }
        wire.seek(to)?;
    }
    Ok(Xplane {
        wire,
        hash,
        planes,
        plane: Plane::default(),
        line: None,
        range: None,
        host,
        tracks: Vec::new(),
        lenient: lenient.clone(),
    })
}

impl Xplane {
    /// The plane's names, and where its lines are.
    fn begin(&mut self, from: u64, to: u64) -> Result<()> {
        let mut plane = Plane::default();
        self.wire.seek(from)?;
        while let Some((number, value)) = self.wire.field(to)? {
            let Value::Bytes(end) = value else { continue };
            match number {
                2 => plane.name = String::from_utf8_lossy(&self.wire.bytes(end)?).into_owned(),
                3 => plane.lines.push_back(self.head(end)?),
                4 => drop(
                    self.entry(end)?
                        .map(|(id, name)| plane.names.insert(id, name)),
                ),
                5 => drop(
                    self.entry(end)?
                        .map(|(id, name)| plane.stats.insert(id, name)),
                ),
                _ => {}
            }
            self.wire.seek(end)?;
        }
        let number = plane
            .name
            .strip_prefix("/device:")
            .and_then(|rest| rest.rsplit_once(':'));
        plane.device = number.and_then(|(_, number)| leading(number));
        if plane.device.is_some() && !plane.lines.is_empty() {
            self.tracks.push((plane.device, 0, plane.name.clone()));
        }
        self.plane = plane;
        Ok(())
    }

    /// A line without its events.
    fn head(&mut self, end: u64) -> Result<Line> {
        let mut line = Line {
            from: self.wire.at(),
            to: end,
            ..Line::default()
        };
        while let Some((number, value)) = self.wire.field(end)? {
            match (number, value) {
                (1, Value::Int(id)) => line.id = id,
                (3, Value::Int(ns)) => line.timestamp_ns = ns,
                (2, Value::Bytes(to)) => {
                    line.name = String::from_utf8_lossy(&self.wire.bytes(to)?).into_owned()
                }
                (_, Value::Bytes(to)) => self.wire.seek(to)?,
                _ => {}
            }
        }
        Ok(line)
    }

    /// Key and name of an entry of a map from ids to what has a name.
    fn entry(&mut self, end: u64) -> Result<Option<(u64, String)>> {
        let (mut id, mut name) = (None, None);
        while let Some((number, value)) = self.wire.field(end)? {
            match (number, value) {
                (1, Value::Int(key)) => id = Some(key),
                (2, Value::Bytes(to)) => {
                    while let Some((number, value)) = self.wire.field(to)? {
                        match (number, value) {
                            (2, Value::Bytes(to)) => {
                                name = Some(
                                    String::from_utf8_lossy(&self.wire.bytes(to)?).into_owned(),
                                );
                            }
                            // The whole program of a module, for one.
                            (_, Value::Bytes(to)) => self.wire.seek(to)?,
                            _ => {}
                        }
                    }
                }
                (_, Value::Bytes(to)) => self.wire.seek(to)?,
                _ => {}
            }
        }
        Ok(id.map(|id| (id, name.unwrap_or_default())))
    }

    /// The next event of the line, if it has one; whether there are more.
    fn event(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<bool> {
        let Some((line, at)) = &mut self.line else {
            return Ok(false);
        };
        self.wire.seek(*at)?;
        let Some((number, value)) = self.wire.field(line.to)? else {
            self.line = None;
            return Ok(false);
        };
        if let Value::Bytes(end) = value {
            if number == 4 {
                let bytes = self.wire.bytes(end)?;
                match row(&bytes, line, &self.plane, names) {
                    Some(row) => {
                        let (from, to) = (row.start_ns, row.end_ns());
                        self.range = Some(
                            self.range
                                .map_or((from, to), |(a, b)| (a.min(from), b.max(to))),
                        );
                        rows.push(row);
                    }
                    None if self.lenient.skip() => {}
                    None => {
                        return Err(self.wire.wrong("an event that is not what profilers write"));
                    }
                }
            }
            self.wire.seek(end)?;
        }
        *at = self.wire.at();
        Ok(true)
    }

    fn finish(&mut self, names: &mut Names, rows: &mut Vec<Event>) {
        let (first, last) = self.range.unwrap_or((0, 0));
        let absolute = first > EPOCH_NS;
        let mut args = Map::new();
        args.insert(
            "clock".into(),
            if absolute { "realtime" } else { UNKNOWN }.into(),
        );
        if let Some(host) = self.host.take() {
            args.insert("host".into(), host.into());
        }
        let mut row = Event::new(Kind::Process, names.sym("process"), first, 0, 0, 0);
        row.dur_ns = Some(last - first);
        row.args = Some(names.sym(&Json::Object(args).to_string()));
        rows.push(row);
        if absolute {
            rows.push(snapshot(first, 0, 0, 0, names));
        }
        for (device, tid, name) in self.tracks.drain(..) {
            let kind = if device.is_some() {
                Kind::Stream
            } else {
                Kind::Thread
            };
            let mut row = Event::new(kind, names.sym(&name), first, 0, 0, tid);
            row.device = device;
            rows.push(row);
        }
        self.lenient.finish(0, names, rows);
    }
}

impl super::Rows for Xplane {
    fn next_batch(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<bool> {
        let enough = rows.len() + BATCH;
        while rows.len() < enough {
            if self.event(names, rows)? {
                continue;
            }
            if let Some(line) = self.plane.lines.pop_front() {
                if self.plane.device.is_none() && !line.name.is_empty() {
                    self.tracks.push((None, line.id, line.name.clone()));
                }
                let from = line.from;
                self.line = Some((line, from));
            } else if let Some((from, to)) = self.planes.pop_front() {
                self.begin(from, to)?;
            } else {
                self.finish(names, rows);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn hash(&mut self) -> Option<String> {
        Some(self.hash.clone())
    }
}

/// The row of an event; `None` if it is broken.
fn row(message: &[u8], line: &Line, plane: &Plane, names: &mut Names) -> Option<Event> {
    let mut fields = Fields::of(message);
    let (mut id, mut offset_ps, mut dur_ps) = (0, Some(0), 0);
    let mut stats = Vec::new();
    for (number, value) in fields.by_ref() {
        match (number, value) {
            (1, Value::Int(value)) => id = value,
            (2, Value::Int(value)) => offset_ps = Some(value),
            (5, Value::Int(_)) => offset_ps = None, // a sum of several, without a place in time
            (3, Value::Int(value)) => dur_ps = value,
            (4, Value::Bytes(stat)) => stats.push(stat),
            _ => {}
        }
    }
    if !fields.whole {
        return None;
    }
    let base = u128::from(line.timestamp_ns) * 1000 + u128::from(offset_ps.unwrap_or(0));
    let ns = |ps: u128| i64::try_from(ps / 1000).ok().filter(|&ns| ns < 1 << 62);
    let (start, end) = (ns(base)?, ns(base + u128::from(dur_ps))?);
    let text = plane.names.get(&id).map_or("", String::as_str);
    let (mut args, mut correlation, mut step) = (Map::new(), None, false);
    for stat in stats {
        let (key, value) = self::stat(stat, plane)?;
        match key {
            "correlation_id" => correlation = value.as_u64().filter(|&id| id > 0),
            "step_num" => step = true,
            "hlo_op" | "hlo_module" | "tf_op" | "kernel_details" | "memcpy_details" => {
                args.insert(key.into(), value);
            }
            _ => {}
        }
    }
    let mut event = Event::new(Kind::Op, names.sym(text), start, 0, 0, line.id);
    event.dur_ns = Some(end - start);
    if let Some(device) = plane.device {
        let stream = line.name.strip_prefix("Stream #");
        // A TPU has no streams: its operations are what it does.
        let works = stream.is_some() || (plane.name.contains(":TPU:") && line.name == "XLA Ops");
        event.kind = match works {
            false => Kind::Annotation,
            true if text.starts_with("Memcpy") || line.name.contains("(Memcpy") => Kind::Memcpy,
            true if text.starts_with("Memset") || line.name.contains("(Memset") => Kind::Memset,
            true => Kind::Kernel,
        };
        (event.device, event.tid) = (Some(device), 0);
        event.stream = stream.and_then(leading);
        let details = args.get("memcpy_details").and_then(Json::as_str);
        event.bytes =
            details.and_then(|text| i64::from(leading(text.split_once("size:")?.1)?).into());
    } else if let Some(place) = text.strip_prefix('$') {
        // Python's tracer: `$file.py:12 function`.
        event.kind = Kind::Python;
        if let Some((place, function)) = place.split_once(' ')
            && let Some((file, line)) = place.rsplit_once(':')
        {
            event.name = names.sym(function);
            (event.file, event.line) = (Some(names.sym(file)), line.parse().ok());
        }
    } else if correlation.is_some() && ["cu", "hip"].iter().any(|api| text.starts_with(api)) {
        event.kind = Kind::Api;
    } else if step {
        event.kind = Kind::Scope;
    }
    if event.kind == Kind::Api || event.kind.on_device() {
        event.correlation = correlation;
    }
    if !args.is_empty() {
        event.args = Some(names.sym(&Json::Object(args).to_string()));
    }
    Some(event)
}

/// Name and value of a stat.
fn stat<'p>(message: &[u8], plane: &'p Plane) -> Option<(&'p str, Json)> {
    let mut fields = Fields::of(message);
    let (mut key, mut found) = ("", Json::Null);
    for (number, value) in fields.by_ref() {
        match (number, value) {
            (1, Value::Int(id)) => key = plane.stats.get(&id).map_or("", String::as_str),
            (2, Value::Fixed(bits)) => found = json!(f64::from_bits(bits)),
            (3, Value::Int(value)) => found = json!(value),
            (4, Value::Int(value)) => found = json!(value as i64),
            (5, Value::Bytes(text)) => found = json!(String::from_utf8_lossy(text)),
            (7, Value::Int(id)) => {
                found = json!(plane.stats.get(&id).map_or("", String::as_str).trim())
            }
            _ => {}
        }
    }
    fields.whole.then_some((key, found))
}

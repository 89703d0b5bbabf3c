//! What the rows of PyTorch's profiler are, and of VizTracer's and TensorFlow's: one event to one row.
//!
//! The category decides, never the presence of a field: Triton's host operators have a `stream` too.
//!
//! # Source
//! Categories: pytorch/kineto, libkineto/include/ActivityType.h, and before 2021 the names with capital letters.

use super::decimal::unsigned;
use super::events::Fields;
use super::json::{Text, normal};
use super::ours;
use super::tracks::{Owner, Tracks, leading};
use crate::trace::{Event, Kind, Names, Sym};

/// Args that repeat a column, or number events within the file.
const LEFT_OUT: [&[u8]; 16] = [
    b"External id",
    b"External Id",
    b"Record function id",
    b"Ev Idx",
    b"Sequence number",
    b"Fwd thread id",
    b"Python id",
    b"Python parent id",
    b"Python module id",
    b"correlation",
    b"Trace name",
    b"Trace iteration",
    b"cbid",
    b"cid",
    b"ts_ns",
    b"device",
];

/// Words in a key whose value may be a secret or the program's own data.
const PRIVATE: [&str; 9] = [
    "token",
    "secret",
    "password",
    "passwd",
    "api_key",
    "apikey",
    "credential",
    "environ",
    "func_args",
];

/// The kind of a span of this category; `None` for a writer's own.
fn kind(cat: &[u8]) -> Option<Kind> {
    Some(match cat {
        b"cpu_op" | b"Operator" | b"collective_comm" => Kind::Op,
        b"python_function" | b"FEE" => Kind::Python,
        b"cuda_runtime"
        | b"cuda_driver"
        | b"Runtime"
        | b"xpu_runtime"
        | b"xpu_driver"
        | b"mtia_runtime"
        | b"privateuse1_runtime"
        | b"privateuse1_driver" => Kind::Api,
        b"kernel" | b"Kernel" => Kind::Kernel,
        b"gpu_memcpy" | b"Memcpy" => Kind::Memcpy,
        b"gpu_memset" | b"Memset" => Kind::Memset,
        b"user_annotation" => Kind::Scope,
        b"gpu_user_annotation" | b"Trace" | b"cuda_profiler_range" => Kind::Annotation,
        b"cuda_sync" | b"cuda_event" => Kind::Sync,
        b"overhead" => Kind::Overhead,
        _ => return None,
    })
}

/// The row of a span.
pub(super) fn span(
    f: &Fields<'_>,
    start: i64,
    dur: i64,
    tracks: &mut Tracks,
    names: &mut Names,
) -> Event {
    if tracks.is_ours() {
        return ours::row(f, start, Some(dur), tracks, names);
    }
    let known = kind(f.cat.raw);
    if known.is_some() && f.cat.raw != b"FEE" {
        tracks.is_kineto();
    }
    let on_device = match known {
        Some(Kind::Kernel | Kind::Memcpy | Kind::Memset | Kind::Sync) => true,
        Some(Kind::Annotation) => f.cat.raw == b"gpu_user_annotation",
        _ => false,
    };
    let named = known
        .is_none()
        .then(|| tracks.device(f.pid, f.tid))
        .flatten();
    let kind = match (known, named) {
        (Some(kind), _) => kind,
        (None, Some((_, None))) => Kind::Annotation,
        (None, Some(_)) if starts(f.name.raw, b"memcpy") => Kind::Memcpy,
        (None, Some(_)) if starts(f.name.raw, b"memset") => Kind::Memset,
        (None, Some(_)) => Kind::Kernel,
        (None, None) => Kind::Scope,
    };
    let Owner { process, pid, tid } = match on_device || named.is_some() {
        true => tracks.device_owner(),
        false => tracks.owner(f.pid, f.tid),
    };
    tracks.saw(process, start);
    tracks.saw(process, start.saturating_add(dur));
    let mut event = Event::new(kind, Sym(0), start, process, pid, tid);
    event.dur_ns = Some(dur);
    match kind {
        Kind::Python => place(f.name, &mut event, names),
        _ => event.name = name(f.name, names),
    }
    if on_device {
        event.device = id(f.pid);
        event.stream = id(f.tid);
    } else if let Some((device, stream)) = named {
        (event.device, event.stream) = (Some(device), stream);
    }
    let mut args = Args::default();
    let generic = known.is_none();
    for (key, value) in f.args() {
        match (kind, key) {
            (
                Kind::Api | Kind::Kernel | Kind::Memcpy | Kind::Memset | Kind::Sync,
                b"correlation",
            ) => {
                event.correlation = unsigned(value).filter(|&id| id > 0);
            }
            (_, b"device") if on_device => event.device = id(value).or(event.device),
            (_, b"stream") if on_device => event.stream = id(value).or(event.stream),
            (Kind::Memcpy | Kind::Memset, b"bytes") => {
                event.bytes = unsigned(value).and_then(|bytes| i64::try_from(bytes).ok());
            }
            // Follows from bytes and length.
            (Kind::Memcpy | Kind::Memset, b"memory bandwidth (GB/s)") => {}
            (Kind::Kernel, b"grid") => args.put("grid", value),
            (Kind::Kernel, b"block") => args.put("block", value),
            (Kind::Kernel, b"registers per thread") => args.put("registers", value),
            (Kind::Kernel, b"shared memory") => args.put("shared_bytes", value),
            (Kind::Kernel, b"est. achieved occupancy %") => args.put("occupancy_percent", value),
            (Kind::Kernel, b"graph id") => args.put("graph", value),
            (Kind::Kernel, b"graph node id") => args.put("node", value),
            // Follow from the grid, the block and the device.
            (Kind::Kernel, b"blocks per SM" | b"warps per SM" | b"queued" | b"context") => {}
            (Kind::Op, b"Input Dims" | b"Input dims") => args.put("dims", value),
            (Kind::Op, b"Input type" | b"Input Type") => args.put("types", value),
            // An operator's other inputs are the program's own values.
            (Kind::Op, b"Concrete Inputs" | b"Input Strides" | b"Input Values") => {}
            (Kind::Python, _) => {}
            (Kind::Sync, b"cuda_sync_kind") => args.put("sync", value),
            _ if LEFT_OUT.contains(&key) || (generic && private(key)) => {}
            _ => args.put_as_is(key, value),
        }
    }
    if generic && !f.cat.raw.is_empty() && named.is_none() {
        args.text("cat", f.cat);
    }
    if kind == Kind::Memcpy {
        copy(f.name.raw, &mut args);
    }
    event.args = args.sym(names);
    event
}

/// The row of an instant: memory that was taken or given back, or a mark.
pub(super) fn instant(f: &Fields<'_>, start: i64, tracks: &mut Tracks, names: &mut Names) -> Event {
    if tracks.is_ours() {
        return ours::row(f, start, None, tracks, names);
    }
    let alloc = matches!(f.cat.raw, b"" | b"cpu_instant_event") && f.name.raw == b"[memory]";
    let Owner { process, pid, tid } = tracks.owner(f.pid, f.tid);
    // Kineto's own marks stand outside of what it recorded.
    if !f.cat.raw.is_empty() {
        tracks.saw(process, start);
    }
    let kind = if alloc { Kind::Alloc } else { Kind::Mark };
    let mut event = Event::new(kind, name(f.name, names), start, process, pid, tid);
    let mut args = Args::default();
    let (mut on_device, mut device) = (false, None);
    for (key, value) in f.args() {
        match key {
            b"Bytes" if alloc => event.bytes = super::decimal::scaled(value, 1),
            b"Total Allocated" if alloc => {
                event.value = super::decimal::scaled(value, 1).map(|bytes| bytes as f64);
            }
            b"Total Reserved" if alloc => args.put("reserved", value),
            b"Addr" if alloc => args.put("address", value),
            b"Device Type" if alloc => on_device = unsigned(value).is_some_and(|kind| kind > 0),
            b"Device Id" if alloc => device = id(value),
            _ if LEFT_OUT.contains(&key) || private(key) => {}
            _ => args.put_as_is(key, value),
        }
    }
    event.device = device.filter(|_| on_device);
    event.args = args.sym(names);
    event
}

/// The rows of a counter event: one for each series in it.
pub(super) fn counters(
    f: &Fields<'_>,
    start: i64,
    tracks: &mut Tracks,
    names: &mut Names,
    rows: &mut Vec<Event>,
) {
    let Owner { process, pid, tid } = tracks.owner(f.pid, f.tid);
    tracks.saw(process, start);
    let mut text = String::new();
    f.name.decode(&mut text);
    for (key, value) in f.args() {
        let word = value
            .strip_prefix(b"\"")
            .and_then(|v| v.strip_suffix(b"\""))
            .unwrap_or(value);
        let number = std::str::from_utf8(word)
            .ok()
            .and_then(|word| word.parse::<f64>().ok());
        let Some(number) = number.filter(|n| n.is_finite()) else {
            continue;
        };
        let series = String::from_utf8_lossy(key);
        // A counter of ours without a point in its name has this for a series.
        let name = match tracks.is_ours() && series == "value" {
            true => names.sym(&text),
            false => names.sym(&format!("{text}.{series}")),
        };
        let mut event = Event::new(Kind::Counter, name, start, process, pid, tid);
        event.value = Some(number);
        rows.push(event);
    }
}

/// A name's symbol.
pub(super) fn name(text: Text<'_>, names: &mut Names) -> Sym {
    match std::str::from_utf8(text.raw) {
        Ok(plain) if !text.escaped => names.sym(plain),
        _ => {
            let mut plain = String::new();
            text.decode(&mut plain);
            names.sym(&plain)
        }
    }
}

/// The name and place of a Python function: `a/b.py(12): f` of Kineto, `f (/a/b.py:12)` of VizTracer.
pub(super) fn place(text: Text<'_>, event: &mut Event, names: &mut Names) {
    let mut plain = String::new();
    text.decode(&mut plain);
    let (function, file, line) = split(&plain).unwrap_or((&plain, "", 0));
    event.name = names.sym(function);
    if !file.is_empty() {
        event.file = Some(names.sym(file));
        event.line = Some(line);
    }
}

/// Function, file and line.
fn split(name: &str) -> Option<(&str, &str, u32)> {
    if let Some((place, function)) = name.split_once("): ")
        && let Some((file, line)) = place.rsplit_once('(')
        && let Ok(line) = line.parse()
    {
        return Some((function, file, line));
    }
    let (function, place) = name.strip_suffix(')')?.split_once(" (")?;
    let (file, line) = place.rsplit_once(':')?;
    Some((function, file, line.parse().ok()?))
}

/// Direction and memories of a copy, which its name tells: `Memcpy DtoH (Device -> Pinned)`, `hipMemcpyDtoD`.
fn copy(name: &[u8], args: &mut Args) {
    let name = String::from_utf8_lossy(name);
    for (word, copy) in [
        ("HtoD", "host to device"),
        ("DtoH", "device to host"),
        ("DtoD", "device to device"),
        ("HtoH", "host to host"),
        ("PtoP", "peer to peer"),
    ] {
        if name.contains(word) || name.contains(&word.replace("to", "2")) {
            args.member("copy", &format!("\"{copy}\""));
        }
    }
    if let Some((from, to)) = name
        .split_once(" (")
        .and_then(|(_, rest)| rest.strip_suffix(')')?.split_once(" -> "))
    {
        args.member(
            "from",
            &serde_json::Value::from(from.to_lowercase()).to_string(),
        );
        args.member(
            "to",
            &serde_json::Value::from(to.to_lowercase()).to_string(),
        );
    }
}

/// The number in a word such as `7`, `stream 7`; none in `-1`.
fn id(word: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(word).ok()?;
    let text = text.trim_matches('"').trim();
    text.parse()
        .ok()
        .or_else(|| leading(text.strip_prefix("stream ")?))
}

fn starts(name: &[u8], word: &[u8]) -> bool {
    name.get(..word.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(word))
}

fn private(key: &[u8]) -> bool {
    let key = String::from_utf8_lossy(key).to_ascii_lowercase();
    PRIVATE.iter().any(|word| key.contains(word))
}

/// A JSON object that grows.
#[derive(Debug, Default)]
pub(super) struct Args(String);

impl Args {
    /// A member whose value is as the file has it.
    fn put(&mut self, key: &str, value: &[u8]) {
        self.begin();
        self.0.push('"');
        self.0.push_str(key);
        self.0.push_str("\":");
        normal(value, &mut self.0);
    }

    /// A member whose key and value are as the file has them.
    pub(super) fn put_as_is(&mut self, key: &[u8], value: &[u8]) {
        self.begin();
        let quoted = [b"\"", key, b"\""].concat();
        normal(&quoted, &mut self.0);
        self.0.push(':');
        normal(value, &mut self.0);
    }

    fn text(&mut self, key: &str, text: Text<'_>) {
        let mut plain = String::new();
        text.decode(&mut plain);
        self.member(key, &serde_json::Value::from(plain).to_string());
    }

    pub(super) fn member(&mut self, key: &str, json: &str) {
        self.begin();
        self.0.push_str(&format!("\"{key}\":{json}"));
    }

    fn begin(&mut self) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
    }

    pub(super) fn sym(mut self, names: &mut Names) -> Option<Sym> {
        if self.0.is_empty() {
            return None;
        }
        self.0.push('}');
        Some(names.sym(&self.0))
    }
}

//! What the rows of PyTorch's profiler are, and of VizTracer's and TensorFlow's: one event to one row.
//!
//! The category decides, never the presence of a field: Triton's host operators have a `stream` too.
//!
//! # Source
//! Categories: pytorch/kineto, libkineto/include/ActivityType.h, and before 2021 the names with capital letters.

use super::args::Members;
use super::decimal::unsigned;
use super::events::Fields;
use super::json::Text;
use super::memo::Memo;
use super::ours;
use super::tracks::{Owner, Tracks, leading};
use crate::trace::{Event, Kind, Names, Sym};

/// What an arg says. The name tells, whatever the event is; what is done with it depends on that, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Correlation,
    Device,
    Stream,
    Bytes,
    Bandwidth,
    Grid,
    Block,
    Registers,
    Shared,
    Occupancy,
    Graph,
    Node,
    /// Follows from the grid, the block and the device.
    Derived,
    Dims,
    Types,
    /// An operator's other inputs.
    Inputs,
    Sync,
    AllocBytes,
    Allocated,
    Reserved,
    Address,
    DeviceType,
    DeviceId,
    /// Repeats a column, or numbers events within the file.
    LeftOut,
    Other,
}

impl Key {
    pub fn of(key: &[u8]) -> Key {
        match key {
            b"correlation" => Key::Correlation,
            b"device" => Key::Device,
            b"stream" => Key::Stream,
            b"bytes" => Key::Bytes,
            b"memory bandwidth (GB/s)" => Key::Bandwidth,
            b"grid" => Key::Grid,
            b"block" => Key::Block,
            b"registers per thread" => Key::Registers,
            b"shared memory" => Key::Shared,
            b"est. achieved occupancy %" => Key::Occupancy,
            b"graph id" => Key::Graph,
            b"graph node id" => Key::Node,
            b"blocks per SM" | b"warps per SM" | b"queued" | b"context" => Key::Derived,
            b"Input Dims" | b"Input dims" => Key::Dims,
            b"Input type" | b"Input Type" => Key::Types,
            b"Concrete Inputs" | b"Input Strides" | b"Input Values" => Key::Inputs,
            b"cuda_sync_kind" => Key::Sync,
            b"Bytes" => Key::AllocBytes,
            b"Total Allocated" => Key::Allocated,
            b"Total Reserved" => Key::Reserved,
            b"Addr" => Key::Address,
            b"Device Type" => Key::DeviceType,
            b"Device Id" => Key::DeviceId,
            b"External id"
            | b"External Id"
            | b"Record function id"
            | b"Ev Idx"
            | b"Sequence number"
            | b"Fwd thread id"
            | b"Python id"
            | b"Python parent id"
            | b"Python module id"
            | b"Trace name"
            | b"Trace iteration"
            | b"cbid"
            | b"cid"
            | b"ts_ns" => Key::LeftOut,
            _ => Key::Other,
        }
    }
}

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
        Kind::Python => {
            (event.name, event.file, event.line) = place(f.name, tracks, names);
        }
        _ => event.name = name(f.name, tracks, names),
    }
    if on_device {
        event.device = number(f.pid);
        event.stream = number(f.tid);
    } else if let Some((device, stream)) = named {
        (event.device, event.stream) = (Some(device), stream);
    }
    let mut args = std::mem::take(&mut tracks.memos.args);
    let generic = known.is_none();
    for (id, key, value) in f.args() {
        match (kind, id) {
            (
                Kind::Api | Kind::Kernel | Kind::Memcpy | Kind::Memset | Kind::Sync,
                Key::Correlation,
            ) => {
                event.correlation = unsigned(value).filter(|&id| id > 0);
            }
            (_, Key::Device) if on_device => event.device = number(value).or(event.device),
            (_, Key::Stream) if on_device => event.stream = number(value).or(event.stream),
            (Kind::Memcpy | Kind::Memset, Key::Bytes) => {
                event.bytes = unsigned(value).and_then(|bytes| i64::try_from(bytes).ok());
            }
            // Follows from bytes and length.
            (Kind::Memcpy | Kind::Memset, Key::Bandwidth) => {}
            (Kind::Kernel, Key::Grid) => args.put("grid", value),
            (Kind::Kernel, Key::Block) => args.put("block", value),
            (Kind::Kernel, Key::Registers) => args.put("registers", value),
            (Kind::Kernel, Key::Shared) => args.put("shared_bytes", value),
            (Kind::Kernel, Key::Occupancy) => args.put("occupancy_percent", value),
            (Kind::Kernel, Key::Graph) => args.put("graph", value),
            (Kind::Kernel, Key::Node) => args.put("node", value),
            (Kind::Kernel, Key::Derived) => {}
            (Kind::Op, Key::Dims) => args.put("dims", value),
            (Kind::Op, Key::Types) => args.put("types", value),
            // The program's own values.
            (Kind::Op, Key::Inputs) => {}
            (Kind::Python, _) => {}
            (Kind::Sync, Key::Sync) => args.put("sync", value),
            (_, Key::LeftOut | Key::Correlation | Key::Device) => {}
            _ if generic && private(key) => {}
            _ => args.put(key, value),
        }
    }
    if generic && !f.cat.raw.is_empty() && named.is_none() {
        args.text("cat", f.cat);
    }
    if kind == Kind::Memcpy {
        copy(f.name.raw, &mut args);
    }
    event.args = args.sym(names);
    tracks.memos.args = args;
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
    let name = name(f.name, tracks, names);
    let mut event = Event::new(kind, name, start, process, pid, tid);
    let mut args = std::mem::take(&mut tracks.memos.args);
    let (mut on_device, mut device) = (false, None);
    for (id, key, value) in f.args() {
        match id {
            Key::AllocBytes if alloc => event.bytes = super::decimal::scaled(value, 1),
            Key::Allocated if alloc => {
                event.value = super::decimal::scaled(value, 1).map(|bytes| bytes as f64);
            }
            Key::Reserved if alloc => args.put("reserved", value),
            Key::Address if alloc => args.put("address", value),
            Key::DeviceType if alloc => on_device = unsigned(value).is_some_and(|kind| kind > 0),
            Key::DeviceId if alloc => device = number(value),
            Key::LeftOut | Key::Correlation | Key::Device => {}
            _ if private(key) => {}
            _ => args.put(key, value),
        }
    }
    event.device = device.filter(|_| on_device);
    event.args = args.sym(names);
    tracks.memos.args = args;
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
    for (_, key, value) in f.args() {
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
pub(super) fn name(text: Text<'_>, tracks: &mut Tracks, names: &mut Names) -> Sym {
    tracks.memos.names.get(text.raw, names, |_, names| {
        let mut plain = String::new();
        text.decode(&mut plain);
        names.sym(&plain)
    })
}

/// Symbols of a Python function's name and file, and its line.
pub(super) type Place = (Sym, Option<Sym>, Option<u32>);

/// The name and place of a Python function: `a/b.py(12): f` of Kineto, `f (/a/b.py:12)` of VizTracer.
pub(super) fn place(text: Text<'_>, tracks: &mut Tracks, names: &mut Names) -> Place {
    tracks.memos.places.get(text.raw, names, |_, names| {
        let mut plain = String::new();
        text.decode(&mut plain);
        let (function, file, line) = split(&plain).unwrap_or((&plain, "", 0));
        let name = names.sym(function);
        match file {
            "" => (name, None, None),
            file => (name, Some(names.sym(file)), Some(line)),
        }
    })
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
fn copy(name: &[u8], args: &mut Members) {
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
fn number(word: &[u8]) -> Option<u32> {
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

/// What became of names and args before.
#[derive(Debug, Default)]
pub(super) struct Memos {
    names: Memo<Sym>,
    places: Memo<Place>,
    pub args: Members,
}

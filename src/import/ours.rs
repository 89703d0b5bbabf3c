//! Trace events that isc-convert wrote: each becomes the row again that it was made of.
//!
//! Categories and keys are Kineto's where it has them, so that its tools read the file; this is the one place that knows what
//! they are in a trace. Unlike in Kineto's own files pids are processes, and a device row says whose it is.

use super::decimal::{scaled, unsigned};
use super::events::Fields;
use super::kineto;
use super::tracks::Tracks;
use crate::trace::{Event, Kind, Names, Sym};

/// What `exporter` says in the outer object.
pub(crate) const EXPORTER: &str = "isc-convert";

/// Keys of args: in a trace, and what Kineto calls them.
const KEYS: [(Kind, &str, &str); 10] = [
    (Kind::Kernel, "registers", "registers per thread"),
    (Kind::Kernel, "shared_bytes", "shared memory"),
    (
        Kind::Kernel,
        "occupancy_percent",
        "est. achieved occupancy %",
    ),
    (Kind::Kernel, "graph", "graph id"),
    (Kind::Kernel, "node", "graph node id"),
    (Kind::Op, "dims", "Input Dims"),
    (Kind::Op, "types", "Input type"),
    (Kind::Alloc, "reserved", "Total Reserved"),
    (Kind::Alloc, "address", "Addr"),
    (Kind::Sync, "sync", "cuda_sync_kind"),
];

/// Keys under which columns stand among args; a row's own args of that name get [`OWN`] in front.
const COLUMNS: [&str; 15] = [
    "device",
    "stream",
    "process",
    "thread",
    "correlation",
    "bytes",
    "value",
    "file",
    "line",
    "flow",
    "Bytes",
    "Total Allocated",
    "Device Type",
    "Device Id",
    "memory",
];

const OWN: &str = "args.";

/// The category of rows of this kind: Kineto's, or the kind's own word.
pub(crate) fn category(kind: Kind, has_device: bool) -> &'static str {
    match kind {
        Kind::Op => "cpu_op",
        Kind::Python => "python_function",
        Kind::Scope => "user_annotation",
        Kind::Annotation if has_device => "gpu_user_annotation",
        Kind::Annotation => "Trace",
        Kind::Launch | Kind::Api => "cuda_runtime",
        Kind::Memcpy => "gpu_memcpy",
        Kind::Memset => "gpu_memset",
        Kind::Sync if has_device => "cuda_sync",
        Kind::Alloc => "cpu_instant_event",
        kind => kind.as_str(),
    }
}

/// The kind of rows of this category. A launch is told from other calls when all rows were seen.
fn kind(category: &[u8]) -> Kind {
    match category {
        b"cpu_op" => Kind::Op,
        b"python_function" => Kind::Python,
        b"gpu_user_annotation" | b"Trace" => Kind::Annotation,
        b"cuda_runtime" => Kind::Api,
        b"gpu_memcpy" => Kind::Memcpy,
        b"gpu_memset" => Kind::Memset,
        b"cuda_sync" => Kind::Sync,
        b"cpu_instant_event" => Kind::Alloc,
        word => {
            let word = std::str::from_utf8(word).unwrap_or_default();
            word.parse().unwrap_or(Kind::Scope)
        }
    }
}

/// What a member of a row's args is called in the file.
pub(crate) fn key(kind: Kind, key: &str) -> std::borrow::Cow<'_, str> {
    let renamed = KEYS
        .iter()
        .find(|(of, ours, _)| *of == kind && *ours == key);
    match renamed {
        Some((_, _, theirs)) => (*theirs).into(),
        None if COLUMNS.contains(&key) || key.starts_with(OWN) => format!("{OWN}{key}").into(),
        None => key.into(),
    }
}

/// The row of an event; without `dur` an instant.
pub(super) fn row(
    f: &Fields<'_>,
    start: i64,
    dur: Option<i64>,
    tracks: &mut Tracks,
    names: &mut Names,
) -> Event {
    let kind = kind(f.cat.raw);
    let arg = |wanted: &str| {
        f.args()
            .find(|(_, key, _)| *key == wanted.as_bytes())
            .map(|arg| arg.2)
    };
    let owner = match arg("process") {
        Some(process) => tracks.owner(process, arg("thread").unwrap_or(b"0")),
        None => tracks.owner(f.pid, f.tid),
    };
    tracks.saw(owner.process, start);
    tracks.saw(owner.process, start.saturating_add(dur.unwrap_or(0)));
    let mut event = Event::new(kind, Sym(0), start, owner.process, owner.pid, owner.tid);
    event.dur_ns = dur;
    match kind {
        Kind::Python => {
            (event.name, event.file, event.line) = kineto::place(f.name, tracks, names);
        }
        _ => event.name = kineto::name(f.name, tracks, names),
    }
    let mut args = std::mem::take(&mut tracks.memos.args);
    for (_, key, value) in f.args() {
        let small = || unsigned(value).and_then(|number| u32::try_from(number).ok());
        let double = || {
            std::str::from_utf8(value)
                .ok()
                .and_then(|word| word.parse().ok())
        };
        match key {
            b"process" | b"thread" | b"Device Type" => {}
            b"device" | b"Device Id" => event.device = small(),
            b"stream" => event.stream = small(),
            b"correlation" => event.correlation = unsigned(value),
            b"flow" => event.flow = unsigned(value),
            b"bytes" | b"Bytes" => event.bytes = scaled(value, 1),
            b"value" | b"Total Allocated" => event.value = double(),
            b"line" => event.line = small(),
            b"file" => event.file = Some(names.sym(&plain(value))),
            b"memory" => event.name = names.sym(&plain(value)),
            _ => {
                let renamed = KEYS
                    .iter()
                    .find(|(of, _, theirs)| *of == kind && theirs.as_bytes() == key);
                let key = match renamed {
                    Some((_, ours, _)) => ours.as_bytes(),
                    None => key.strip_prefix(OWN.as_bytes()).unwrap_or(key),
                };
                args.put(key, value);
            }
        }
    }
    event.args = args.sym(names);
    tracks.memos.args = args;
    event
}

/// The text of a JSON string.
fn plain(value: &[u8]) -> String {
    serde_json::from_slice(value).unwrap_or_default()
}

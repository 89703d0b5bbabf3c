//! What really happened, one JSON line an event, in the file that `ISC_DOUBLE_TRUTH` names.
//!
//! A line is known once it is known what became of its record; lines are appended at every `cuptiActivityFlushAll`
//! and at exit, so a program that dies between leaves the truth up to its last flush.

use crate::event::{Event, pid};
use crate::layout::kind;
use crate::settings;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;

/// What became of the record of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Handed over in a completed buffer.
    Delivered,
    /// Dropped, and counted as dropped.
    Dropped,
    /// The kind was not enabled, so there was no record to make.
    Disabled,
    /// Another tool had taken over the callbacks.
    Stolen,
    /// Not handed over by the end.
    Pending,
}

static LINES: Mutex<Vec<(Event, Outcome)>> = Mutex::new(Vec::new());

/// Whether anyone wants to know.
pub fn wanted() -> bool {
    settings::get().truth.is_some()
}

/// Keeps what became of an event.
pub fn note(event: Event, outcome: Outcome) {
    if wanted() {
        crate::lock(&LINES).push((event, outcome));
    }
}

/// Appends what is kept to the file, in one write.
pub fn write() {
    let Some(path) = &settings::get().truth else {
        return;
    };
    let lines = std::mem::take(&mut *crate::lock(&LINES));
    if lines.is_empty() {
        return;
    }
    let mut text = String::new();
    for (event, outcome) in &lines {
        line(&mut text, event, *outcome);
    }
    if let Ok(mut file) = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path)
    {
        let _ = file.write_all(text.as_bytes()); // a test that reads the truth sees that it is short
    }
}

/// The word for a kind.
pub fn word(of: u32) -> &'static str {
    match of {
        kind::KERNEL | kind::CONCURRENT_KERNEL => "kernel",
        kind::MEMCPY => "memcpy",
        kind::MEMCPY2 => "peer",
        kind::MEMSET => "memset",
        kind::DRIVER => "driver",
        kind::RUNTIME => "runtime",
        kind::DEVICE => "device",
        kind::CONTEXT => "context",
        kind::STREAM => "stream",
        kind::SYNCHRONIZATION => "synchronization",
        kind::EXTERNAL_CORRELATION => "external",
        kind::OVERHEAD => "overhead",
        kind::MEMORY2 => "memory",
        kind::GRAPH_TRACE => "graph",
        _ => "unheard of",
    }
}

/// One event as a line. Every key is always there but the marks at the end, which are there only if true.
fn line(text: &mut String, event: &Event, outcome: Outcome) {
    let name = event
        .name
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    let ([gx, gy, gz], [bx, by, bz]) = (event.grid, event.block);
    let _ = write!(
        text,
        "{{\"kind\":\"{}\",\"activity\":{},\"name\":\"{name}\",\"pid\":{},\"correlation\":{},\"start_ns\":{},\
         \"end_ns\":{},\"cupti_start\":{},\"cupti_end\":{},\"cbid\":{},\"tid\":{},\"thread_id\":{},\
         \"return_value\":{},\"device\":{},\"context\":{},\"stream\":{},\"priority\":{},\"bytes\":{},\
         \"grid\":[{gx},{gy},{gz}],\"block\":[{bx},{by},{bz}],\"shared\":{},\"graph\":{},\"graph_node\":{},\
         \"value\":{},\"copy\":{},\"to_device\":{},\"to_context\":{},\"what\":{},\"id\":{}",
        word(event.kind),
        event.kind,
        pid(),
        event.correlation,
        event.start_ns,
        event.end_ns,
        event.cupti_start,
        event.cupti_end,
        event.cbid,
        event.tid,
        event.thread_id,
        event.return_value,
        event.device,
        event.context,
        event.stream,
        event.priority,
        event.bytes,
        event.shared,
        event.graph,
        event.graph_node,
        event.value,
        event.copy,
        event.to_device,
        event.to_context,
        event.what,
        event.id,
    );
    let mark = match outcome {
        Outcome::Delivered => "",
        Outcome::Dropped => ",\"dropped\":true",
        Outcome::Disabled => ",\"disabled\":true",
        Outcome::Stolen => ",\"stolen\":true",
        Outcome::Pending => ",\"pending\":true",
    };
    text.push_str(mark);
    if event.zeroed {
        text.push_str(",\"zeroed\":true");
    }
    if event.nameless {
        text.push_str(",\"nameless\":true");
    }
    text.push_str("}\n");
}

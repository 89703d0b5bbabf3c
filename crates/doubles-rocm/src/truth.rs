//! What really happened, one JSON line an event, in the file that `ISC_DOUBLE_TRUTH` names.
//!
//! A line is known once it is known what became of its record; lines are appended at every flush and at the end, so a
//! program that dies between leaves the truth up to its last flush.

use crate::gpu::{Event, What};
use crate::settings;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;

/// What became of the record of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    Delivered,
    /// Dropped, and counted as dropped.
    Dropped,
    /// Nobody wanted it.
    Disabled,
    /// Not handed over by the end.
    Pending,
}

static LINES: Mutex<String> = Mutex::new(String::new());

/// Keeps what became of an event. Every key is always there but the marks at the end, which are there only if true.
pub fn note(event: &Event, outcome: Outcome) {
    if settings::get().truth.is_none() {
        return;
    }
    let kind = match event.what {
        What::Call(service) => service.name(),
        What::Copy => "copy",
        What::Kernel => "kernel",
        What::Allocation => "allocation",
    };
    let ([gx, gy, gz], [bx, by, bz]) = (event.grid, event.block);
    let mut text = crate::lock(&LINES);
    let _ = write!(
        text,
        "{{\"kind\":\"{kind}\",\"name\":\"{}\",\"pid\":{},\"correlation\":{},\"start_ns\":{},\"end_ns\":{},\"tid\":{},\
         \"device\":{},\"from\":{},\"queue\":{},\"bytes\":{},\"grid\":[{gx},{gy},{gz}],\"block\":[{bx},{by},{bz}],\
         \"group\":{},\"private\":{},\"registers\":{},\"operation\":{}",
        event.name.trim_end_matches(".kd"),
        std::process::id(),
        event.correlation,
        event.start_ns,
        event.end_ns,
        event.tid,
        event.device,
        event.from,
        event.queue,
        event.bytes,
        event.group,
        event.private,
        event.registers,
        event.operation,
    );
    text.push_str(match outcome {
        Outcome::Delivered => "",
        Outcome::Dropped => ",\"dropped\":true",
        Outcome::Disabled => ",\"disabled\":true",
        Outcome::Pending => ",\"pending\":true",
    });
    if event.zeroed {
        text.push_str(",\"zeroed\":true");
    }
    text.push_str("}\n");
}

/// Appends what is kept to the file, in one write.
pub fn write() {
    let Some(path) = &settings::get().truth else {
        return;
    };
    let text = std::mem::take(&mut *crate::lock(&LINES));
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path);
    if let Ok(mut file) = file {
        let _ = file.write_all(text.as_bytes()); // a test that reads the truth sees that it is short
    }
}

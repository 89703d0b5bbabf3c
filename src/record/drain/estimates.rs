//! Rows of functions that the budget recorded in bursts.

use super::{Names, Process, Row};
use crate::trace::{Event, Kind};

/// How long after its end a row is written, in ns: its records come in the process's chain, calls in their threads'
/// chains, and one chain may be read this much later than the other (a poll is at most 100 ms away).
const HELD_NS: i64 = 500_000_000;
/// Rows of a process that are held at most: times that are out of order must not keep more and more of them.
const MOST_HELD: usize = 1 << 16;

impl Process {
    /// Keeps a row until the calls before its end are known too.
    pub(super) fn hold(&mut self, id: u32, row: Row) {
        self.held.push_back((id, row));
    }

    /// Writes the rows that were held long enough at `now_ns`; [`i64::MAX`] for all.
    pub(super) fn tell(&mut self, names: &mut Names, now_ns: i64, out: &mut Vec<Event>) {
        let due_ns = now_ns.saturating_sub(HELD_NS);
        while self.held.len() > MOST_HELD
            || (self.held.front()).is_some_and(|(_, row)| row.end_ns <= due_ns)
        {
            let Some((id, row)) = self.held.pop_front() else {
                return;
            };
            let row = self.throttled.timed(id, row);
            out.push(self.estimate(names, id, &row));
        }
    }

    /// The row of a function that was recorded in bursts.
    pub(super) fn estimate(&self, names: &mut Names, id: u32, row: &Row) -> Event {
        let mut event = self.row(names, Kind::Throttled, id, row.start_ns, 0);
        event.dur_ns = Some(row.end_ns - row.start_ns);
        event.value = Some(row.calls.round());
        let error = row.error().ceil();
        let mut args = serde_json::json!({"calls_low": (row.calls.round() - error).max(0.0),
            "calls_high": row.calls.round() + error, "bias": row.bias.ceil(), "off_ns": row.off_ns,
            "on_ns": row.on_ns, "seen": row.seen, "bursts": row.bursts});
        if let Some((time_ns, error_ns)) = row.time_ns() {
            args["time_ns"] = time_ns.into();
            args["time_error_ns"] = error_ns.into();
        }
        event.args = Some(names.sym(&args.to_string()));
        event
    }
}

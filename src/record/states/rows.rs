//! What was seen of threads, as rows of the trace.

use std::collections::BTreeMap;

use super::States;
use crate::record::drain::{Drain, Gil, ProcessKey};
use crate::record::looks::ThreadRow;
use crate::record::waits::{Sums, What};
use crate::trace::{Event, Kind};

/// Locks of a run that get a number.
const MOST_LOCKS: usize = 1000;

/// `place`: number of the process, pid, tid. `times`: first and last.
pub(super) fn thread_row(
    drain: &mut Drain,
    name: &str,
    (number, pid, tid): (u32, u32, u64),
    (first_ns, last_ns): (i64, i64),
    sums: Option<Sums>,
) -> Event {
    let sym = drain.names.sym(name);
    let mut row = Event::new(Kind::Thread, sym, first_ns, number, pid, tid);
    row.dur_ns = Some((last_ns - first_ns).max(0));
    row.args = sums.map(|sums| {
        let args = serde_json::json!({"cpu_ns": sums.cpu_ns, "runnable_ns": sums.runnable_ns});
        drain.names.sym(&args.to_string())
    });
    row
}

/// The GIL of each process; of one that has executed another program, that of the last.
pub(super) fn gils(drain: &Drain) -> BTreeMap<u32, Gil> {
    let processes = drain.processes().into_iter();
    let known = processes.filter_map(|(key, process)| Some((key, process.gil?)));
    let mut all: Vec<_> = known.collect();
    all.sort_by_key(|(key, _)| *key);
    all.into_iter().map(|(key, gil)| (key.pid, gil)).collect()
}

impl States {
    /// Turns what was seen of threads into rows of the trace.
    pub(super) fn write(&mut self, rows: Vec<ThreadRow>, drain: &mut Drain, out: &mut Vec<Event>) {
        for (key, tid, row) in rows {
            let number = drain.process(key).id;
            let mut args = format!("{{\"error_ns\":{}", one_digit(row.error_ns));
            let name = match row.what {
                What::Runnable => "runnable",
                What::Blocked(blocked) => {
                    let mut add = |name: &str, value: &str| {
                        args += &format!(",\"{name}\":{value}");
                    };
                    let waiting = blocked.waiting;
                    if !waiting.call.is_empty() {
                        add("call", &format!("\"{}\"", waiting.call));
                    }
                    if !blocked.file.is_empty() {
                        add("file", &format!("\"{}\"", blocked.file));
                    }
                    let lock = waiting.address.and_then(|at| self.lock(key, at));
                    if let Some(lock) = lock {
                        add("lock", &lock.to_string());
                    }
                    let holder = blocked.holder.and_then(|at| holder(drain, key, at));
                    if let Some(holder) = holder.filter(|holder| *holder != tid) {
                        add("holder", &holder.to_string());
                    }
                    waiting.state.name()
                }
            };
            args.push('}');
            let sym = drain.names.sym(name);
            let mut event = Event::new(Kind::Wait, sym, row.start_ns, number, key.pid, tid);
            event.dur_ns = Some(row.end_ns - row.start_ns);
            event.value = Some(row.waited_ns as f64);
            event.args = Some(drain.names.sym(&args));
            out.push(event);
        }
    }

    /// The number of a lock; `None` once there are too many, whose texts would fill the memory.
    fn lock(&mut self, key: ProcessKey, address: u64) -> Option<usize> {
        let next = self.locks.len();
        if next >= MOST_LOCKS {
            return self.locks.get(&(key, address)).copied();
        }
        Some(*self.locks.entry((key, address)).or_insert(next))
    }
}

/// The thread whose state, in the interpreter, is at an address: of the process's last program.
fn holder(drain: &Drain, key: ProcessKey, address: u64) -> Option<u64> {
    let processes = drain.processes();
    let same = processes.iter().rev().filter(|(of, _)| of.pid == key.pid);
    let mut found = same.filter_map(|(_, process)| process.states.get(&address));
    found.next().copied()
}

/// A number rounded up to its first digit, so that there are few different texts.
fn one_digit(number: i64) -> i64 {
    let mut unit = 1;
    while number / unit >= 10 {
        unit *= 10;
    }
    (number.max(0) + unit - 1) / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_rounded_up_to_a_digit() {
        let rounded = [0, 1, 9, 10, 11, 4_000_001].map(one_digit);
        assert_eq!(rounded, [0, 1, 9, 10, 20, 5_000_000]);
    }
}

//! `--last`: the window of a run, written when the program ends, on a signal, or when a trigger fires.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inferscope_spool::sys;
use serde_json::json;

use super::drain::{Drain, ProcessKey};
use super::ended::Ends;
use super::pump::lives;
use super::states::{self, States};
use super::trigger::Trigger;
use super::window::{Window, cut};
use crate::cli::Sink;
use crate::error::Result;
use crate::trace::{Event, Kind, Names, Provenance, Writer};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    pub last: Duration,
    pub triggers: Vec<Trigger>,
    /// Where the window goes at the end; others are called after it.
    pub sink: Sink,
    pub provenance: Provenance,
}

/// The window and where it goes.
#[derive(Debug)]
pub struct Flight {
    window: Window<Past>,
    plan: Plan,
    /// Of the window at the end.
    exit: Writer,
    /// The trigger that fired since the last look.
    fired: Option<String>,
    /// No trigger counts before: the window it would write was written already.
    quiet_until_ns: i64,
    written: u32,
}

/// Sums as they were when a chunk began.
#[derive(Clone, Debug)]
struct Past {
    sums: states::Past,
    recorder_cpu_ns: i64,
}

impl Past {
    fn of(states: &States) -> Past {
        Past {
            sums: states.past(),
            recorder_cpu_ns: sys::cpu_ns(),
        }
    }
}

impl Flight {
    /// A window in `folder` that begins at `now_ns`.
    ///
    /// # Errors
    /// A folder that cannot be written to, the program's or the output's.
    pub fn create(plan: Plan, folder: &Path, now_ns: i64, states: &States) -> Result<Flight> {
        let exit = Writer::create(&plan.sink, &described(&plan, "the program ended"))?;
        Ok(Flight {
            window: Window::create(folder, plan.last, now_ns, Past::of(states))?,
            plan,
            exit,
            fired: None,
            quiet_until_ns: i64::MIN,
            written: 0,
        })
    }

    /// Takes a row; it may be one that a trigger waits for.
    ///
    /// # Errors
    /// A full disk.
    pub fn push(&mut self, event: &Event, names: &Names) -> Result<()> {
        if event.end_ns() >= self.quiet_until_ns {
            let fires = |trigger: &&Trigger| trigger.fires(event, names);
            if let Some(trigger) = self.plan.triggers.iter().find(fires) {
                self.fired.get_or_insert_with(|| trigger.to_string());
            }
        }
        self.window.push(event, names)
    }

    /// The trigger that fired since this was last asked.
    pub fn fired(&mut self) -> Option<String> {
        self.fired.take()
    }

    /// Whether a chunk is full.
    pub fn is_due(&self, now_ns: i64) -> bool {
        self.window.is_due(now_ns)
    }

    /// Ends a chunk, of which all rows were pushed, [`States::cut`]'s among them; how many chunks there were.
    ///
    /// # Errors
    /// A full disk.
    pub fn turn(&mut self, now_ns: i64, states: &States) -> Result<u64> {
        self.window.turn(now_ns, Past::of(states))?;
        Ok(self.window.chunks())
    }

    /// Writes the window, as it is now, into a file of its own; its name. After [`Flight::turn`]. `open`: rows of what goes on
    /// and the drain does not know of.
    ///
    /// # Errors
    /// What keeps it from being written; standard output, which takes one trace only.
    pub fn dump(
        &mut self,
        why: &str,
        now_ns: i64,
        drain: &Drain,
        states: &States,
        open: Vec<Event>,
    ) -> Result<Option<PathBuf>> {
        let Sink::File(path) = &self.plan.sink else {
            return Ok(None);
        };
        self.written += 1;
        let path = numbered(path, self.written);
        let sink = Sink::File(path.clone());
        let mut writer = Writer::create(&sink, &described(&self.plan, why))?;
        let last_ns = i64::try_from(self.plan.last.as_nanos()).unwrap_or(i64::MAX);
        self.quiet_until_ns = now_ns.saturating_add(last_ns);
        let keys = drain.processes().into_iter().map(|(key, _)| key);
        let ends = Ends {
            running: keys.filter(|key| lives(key.pid, key.start_ticks)).collect(),
            ..Ends::default()
        };
        let (mut drain, none) = (drain.clone(), BTreeMap::new());
        write(
            &self.window,
            &mut writer,
            &mut drain,
            states,
            &ends,
            &none,
            open,
        )?;
        writer.finish()?;
        Ok(Some(path))
    }

    /// Writes the window of the program's end; how many rows. After [`Flight::turn`].
    ///
    /// # Errors
    /// What keeps it from being written.
    pub fn finish(
        mut self,
        drain: &mut Drain,
        states: &States,
        ends: &Ends,
        uncovered: &BTreeMap<u32, String>,
    ) -> Result<u64> {
        let (window, to) = (&self.window, &mut self.exit);
        let rows = write(window, to, drain, states, ends, uncovered, Vec::new())?;
        self.exit.finish()?;
        Ok(rows)
    }
}

/// Writes the window, then `out` and what is so at its end: see [`States::ended`].
fn write(
    window: &Window<Past>,
    to: &mut Writer,
    drain: &mut Drain,
    states: &States,
    ends: &Ends,
    uncovered: &BTreeMap<u32, String>,
    mut out: Vec<Event>,
) -> Result<u64> {
    let Some((edge_ns, past)) = window.edge() else {
        return Ok(0);
    };
    let keys: BTreeMap<u32, ProcessKey> = (drain.processes().into_iter())
        .map(|(key, process)| (process.id, key))
        .collect();
    // these are sums since a thread or process began
    let mut rows = window.copy(to, |event, names| {
        let of_process = match names.text(event.name) {
            "thread.cpu_ns" => false,
            "process.cpu_ns" => true,
            _ => return,
        };
        if event.kind == Kind::Counter
            && let Some(&key) = keys.get(&event.process)
        {
            let before_ns = past.sums.cpu_ns(key, event.tid, of_process);
            event.value = event.value.map(|ns| (ns - before_ns as f64).max(0.0));
        }
    })?;
    drain.finish(&mut out);
    states.ended(&past.sums, ends, uncovered, drain, &mut out);
    let recorder_cpu_ns = sys::cpu_ns() - past.recorder_cpu_ns;
    out.push(recorder(recorder_cpu_ns, drain));
    for event in out {
        if let Some(event) = cut(event, edge_ns, &mut drain.names) {
            to.push(&event, &drain.names)?;
            rows += 1;
        }
    }
    Ok(rows)
}

/// The row of our own CPU time.
pub fn recorder(cpu_ns: i64, drain: &mut Drain) -> Event {
    let pid = std::process::id();
    let at_ns = sys::clocks().monotonic_ns;
    let name = drain.names.sym("recorder.cpu_ns");
    let mut row = Event::new(Kind::Counter, name, at_ns, 0, pid, u64::from(pid));
    row.value = Some(cpu_ns as f64);
    row
}

/// The provenance of one window.
fn described(plan: &Plan, why: &str) -> Provenance {
    let mut provenance = plan.provenance.clone();
    let last_ns = plan.last.as_nanos() as u64;
    provenance.config["window"] = json!({"last_ns": last_ns, "why": why});
    provenance
}

/// `run.parquet` as `run-2.parquet`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{number}.{ending}"))
}

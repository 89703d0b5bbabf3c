//! Clock domains, snapshots, hosts: every row gets its place on one clock.
//!
//! A raw trace has the probe's clock (one domain a process, `clock` rows are its snapshots) and CLOCK_MONOTONIC.
//! A fit gives each reading of a domain an estimate and a bound; hosts are joined by CLOCK_REALTIME; the earliest row is
//! the timeline's zero. Order within a domain is never changed: the map of a domain does not decrease.

mod fit;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::trace::provenance::{self, ClockFit, Stage};
use crate::trace::{Event, Kind, Names};
pub use fit::{Causality, Fit, Order, Snapshot};

/// Two processes that call their host the same, but whose clocks are this far apart (ns), ran in different
/// boots of it: no clock that is kept in order is off by that much, nor stepped so far while a program runs.
const OTHER_BOOT_NS: i64 = 10_000_000_000;

/// Whose rows an input has: which of them are in the process's own clock, and in which order spans were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// isc-record: the probe's rows have its clock, the kernel's and the driver's CLOCK_MONOTONIC; spans come at their end.
    Record,
    /// A timeline: one clock, in order.
    Timeline,
    /// Another profiler: one clock in a file; of spans that begin and end together the outer one comes first.
    Import,
}

impl Origin {
    /// Of a trace of ours.
    pub fn of(stage: Stage) -> Origin {
        match stage {
            Stage::Raw => Origin::Record,
            Stage::Timeline => Origin::Timeline,
        }
    }
}

/// The clock of a file that does not say which it is.
pub const UNKNOWN: &str = "unknown";

/// The clocks that other profilers' files have, as their process rows name them; isc-record has none of these.
pub const FOREIGN: [&str; 3] = ["realtime", "boottime", UNKNOWN];

/// What must be known of all rows before one of them can be placed.
#[derive(Debug, Default)]
pub struct Survey {
    inputs: Vec<(PathBuf, Origin)>,
    lives: Vec<Life>,
    index: HashMap<(usize, u32), u32>,
    /// Process and number of the row before.
    last: Option<(u32, u32)>,
}

/// One process of one input.
#[derive(Debug, Default)]
struct Life {
    input: usize,
    old: u32,
    pid: u32,
    host: Option<String>,
    /// Domain of the probe's clock; of the process row or the first snapshot.
    domain: Option<String>,
    /// Start of its `process` row, on CLOCK_MONOTONIC.
    start_ns: Option<i64>,
    start_realtime_ns: Option<i64>,
    snapshots: Vec<Snapshot>,
    /// The earliest row in the probe's clock, and how many there are.
    probe: Option<i64>,
    probe_rows: u64,
    /// The earliest row on CLOCK_MONOTONIC.
    monotonic: Option<i64>,
}

/// Where the rows of one process go.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its dense id on the timeline.
    pub process: u32,
    /// Its probe clock to its host's CLOCK_MONOTONIC.
    fit: Fit,
    /// From its host's CLOCK_MONOTONIC to the timeline, in ns.
    shift: i64,
    /// What is in the probe's clock.
    origin: Origin,
    /// For rows that came before their process was known.
    pid: u32,
}

/// The places of all processes, and what to write about them.
#[derive(Debug)]
pub struct Alignment {
    /// By the number that [`Survey::see`] gave.
    pub places: Vec<Place>,
    pub fits: Vec<ClockFit>,
    pub origin: provenance::Origin,
}

impl Survey {
    /// A further input; its rows follow.
    pub fn input(&mut self, path: &Path, origin: Origin) {
        self.inputs.push((path.to_owned(), origin));
        self.last = None;
    }

    /// Takes the inputs of another survey over. The number that its first process has now.
    pub fn join(&mut self, other: Survey) -> u32 {
        let (inputs, lives) = (self.inputs.len(), self.lives.len());
        self.inputs.extend(other.inputs);
        self.lives.extend(other.lives.into_iter().map(|life| Life {
            input: life.input + inputs,
            ..life
        }));
        self.last = None;
        lives as u32
    }

    /// Looks at one row of the last input. The number of its process among all inputs.
    pub fn see(&mut self, event: &Event, names: &Names) -> u32 {
        let input = self.inputs.len().saturating_sub(1);
        let origin = self.inputs.last().map_or(Origin::Record, |input| input.1);
        let next = self.lives.len() as u32;
        let number = match self.last {
            Some((process, number)) if process == event.process => number,
            _ => *self.index.entry((input, event.process)).or_insert(next),
        };
        self.last = Some((event.process, number));
        if number == next {
            self.lives.push(Life {
                input,
                old: event.process,
                pid: event.pid,
                ..Life::default()
            });
        }
        let life = &mut self.lives[number as usize];
        let earliest = if in_probe_clock(event.kind, origin) {
            life.probe_rows += 1;
            &mut life.probe
        } else {
            &mut life.monotonic
        };
        *earliest = Some(earliest.map_or(event.start_ns, |t| t.min(event.start_ns)));
        match event.kind {
            Kind::Clock => life.snapshot(event, names),
            Kind::Process => life.process(event, names),
            _ => {}
        }
        number
    }

    /// The places of everything seen. `margin_ns`: the largest error that a clock's place may have.
    ///
    /// # Errors
    /// A process that comes in twice; a clock that was never read, or not closely enough; hosts that nothing joins.
    pub fn align(self, margin_ns: Option<i64>) -> Result<Alignment> {
        self.refuse_duplicates()?;
        let mut fits = Vec::new();
        for life in &self.lives {
            let unread = life.snapshots.is_empty() && life.probe_rows > 0;
            let domain = life.domain.as_deref().filter(|_| unread);
            if domain == Some(UNKNOWN) {
                // Alone it needs no other's clock.
                if self.inputs.len() > 1 {
                    return Err(Error::Invalid {
                        path: self.path(life),
                        what: "it does not say when it was recorded, so it cannot be put beside other traces".into(),
                        hint: Some("isc-merge with this file alone".into()),
                    });
                }
            } else if domain.is_some_and(|domain| domain != "monotonic") {
                return Err(Error::NoSnapshot {
                    path: self.path(life),
                    domain: life.domain.clone().unwrap_or_default(),
                    events: life.probe_rows,
                });
            }
            fits.push(Fit::new(&life.snapshots));
        }
        let (offsets, errors, base) = self.offsets()?;
        for (at, life) in self.lives.iter().enumerate() {
            self.refuse_loose(
                life,
                fits[at].error_ns().saturating_add(errors[at]),
                margin_ns,
            )?;
        }
        let start = |(at, life): (usize, &Life)| {
            let probe = life.probe.map(|t| fits[at].monotonic_ns(t));
            let first = probe.into_iter().chain(life.monotonic).min();
            first.unwrap_or(0).saturating_add(offsets[at])
        };
        let starts: Vec<i64> = self.lives.iter().enumerate().map(start).collect();
        let zero = starts.iter().copied().min().unwrap_or(0);
        let mut order: Vec<usize> = (0..self.lives.len()).collect();
        order.sort_by_key(|&at| {
            let life = &self.lives[at];
            (starts[at], &life.host, life.pid, life.input, life.old)
        });
        let mut places: Vec<Place> = (0..self.lives.len())
            .map(|at| Place {
                process: 0,
                fit: fits[at].clone(),
                shift: offsets[at].saturating_sub(zero),
                origin: self.inputs[self.lives[at].input].1,
                pid: self.lives[at].pid,
            })
            .collect();
        let mut written = Vec::new();
        for (process, &at) in order.iter().enumerate() {
            places[at].process = process as u32;
            let life = &self.lives[at];
            if !life.snapshots.is_empty() {
                written.push(ClockFit {
                    process: process as u32,
                    domain: life.domain.clone().unwrap_or_default(),
                    snapshots: life.snapshots.len() as u64,
                    error_ns: fits[at].error_ns(),
                    error_ns_p50: fits[at].error_ns_p50(),
                    drift_ppb: fits[at].drift_ppb(),
                    steps: fits[at].steps() as u64,
                    violations: fits[at].violations(),
                    host_error_ns: errors[at],
                });
            }
        }
        let origin = provenance::Origin {
            monotonic_ns: zero.saturating_sub(base.shift),
            realtime_ns: base
                .realtime
                .map(|r| zero.saturating_sub(base.shift).saturating_add(r)),
        };
        Ok(Alignment {
            places,
            fits: written,
            origin,
        })
    }

    fn path(&self, life: &Life) -> PathBuf {
        self.inputs[life.input].0.clone()
    }

    fn refuse_duplicates(&self) -> Result<()> {
        let mut known: HashMap<(&str, u32, i64), &Life> = HashMap::new();
        for life in &self.lives {
            let (Some(host), Some(start)) = (&life.host, life.start_realtime_ns) else {
                continue;
            };
            let first = known.entry((host, life.pid, start)).or_insert(life);
            if first.input != life.input {
                return Err(Error::Duplicate {
                    path: self.path(life),
                    first: self.path(first),
                    what: format!("process {} of {host:?}", life.pid),
                });
            }
        }
        Ok(())
    }

    fn refuse_loose(&self, life: &Life, error_ns: i64, margin_ns: Option<i64>) -> Result<()> {
        match margin_ns {
            Some(margin_ns) if error_ns > margin_ns => Err(Error::Invalid {
                path: self.path(life),
                what: format!(
                    "its times can be placed to {error_ns} ns, not to the {margin_ns} ns of --sync-error-margin"
                ),
                hint: Some("a larger margin, or a recording with no step of its clocks".into()),
            }),
            _ => Ok(()),
        }
    }

    /// For each process, what joins its host's CLOCK_MONOTONIC with the others': nothing if there is one
    /// host, else the host's distance to CLOCK_REALTIME; and how far that distance went while it was recorded.
    fn offsets(&self) -> Result<(Vec<i64>, Vec<i64>, Base)> {
        // A process whose row is missing ran where the others of its recording did.
        let mut hosts: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
        for life in &self.lives {
            let hosts = hosts.entry(life.input).or_default();
            hosts.extend(life.host.as_deref());
        }
        let host = |life: &Life| -> String {
            let only = || hosts.get(&life.input)?.first().copied();
            life.host.as_deref().or_else(only).unwrap_or("").to_owned()
        };
        let mut groups: BTreeMap<(String, usize), Vec<usize>> = BTreeMap::new();
        let mut by_host: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, life) in self.lives.iter().enumerate() {
            by_host.entry(host(life)).or_default().push(at);
        }
        for (host, mut members) in by_host {
            members.sort_by_key(|&at| (self.lives[at].realtime_offset(), at));
            let (mut boot, mut last) = (0, None);
            for at in members {
                let offset = self.lives[at].realtime_offset();
                if let (Some(offset), Some(last)) = (offset, last) {
                    boot += usize::from(offset - last > i128::from(OTHER_BOOT_NS));
                }
                last = offset.or(last);
                groups.entry((host.clone(), boot)).or_default().push(at);
            }
        }
        let mut offsets = vec![0; self.lives.len()];
        let mut errors = vec![0; self.lives.len()];
        let mut base = Base::default();
        for (number, ((host, _), members)) in groups.iter().enumerate() {
            let known = members
                .iter()
                .filter_map(|&at| {
                    let life = &self.lives[at];
                    let first = life.snapshots.iter().map(|s| s.monotonic_ns).min();
                    Some((
                        first.is_none(),
                        first.or(life.start_ns),
                        life.realtime_offset()?,
                    ))
                })
                .min();
            let realtime = known.map(|(_, _, offset)| {
                offset.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
            });
            if groups.len() > 1 && realtime.is_none() {
                let life = &self.lives[members[0]];
                return Err(Error::NoSnapshot {
                    path: self.path(life),
                    domain: format!("monotonic of host {host:?}"),
                    events: members.iter().map(|&at| self.lives[at].probe_rows).sum(),
                });
            }
            let shift = match groups.len() {
                1 => 0,
                _ => realtime.unwrap_or(0),
            };
            let error = match groups.len() {
                1 => 0,
                _ => self.strayed(members, i128::from(shift)),
            };
            for &at in members {
                offsets[at] = shift;
                errors[at] = error;
            }
            if number == 0 {
                base = Base { shift, realtime };
            }
        }
        Ok((offsets, errors, base))
    }

    /// The most by which CLOCK_REALTIME, less CLOCK_MONOTONIC, was off `shift` in any reading of these processes, in ns.
    fn strayed(&self, members: &[usize], shift: i128) -> i64 {
        let read = members.iter().flat_map(|&at| &self.lives[at].snapshots);
        let off = read.filter_map(|s| {
            let offset = i128::from(s.realtime_ns?) - i128::from(s.monotonic_ns);
            Some((offset - shift).abs() + i128::from(s.error_ns))
        });
        off.max().unwrap_or(0).min(i128::from(i64::MAX)) as i64
    }
}

/// The first host's clock.
#[derive(Default)]
struct Base {
    shift: i64,
    realtime: Option<i64>,
}

impl Life {
    fn snapshot(&mut self, event: &Event, names: &Names) {
        let args = object(event, names);
        let ns = |key: &str| args.get(key).and_then(Value::as_i64);
        let Some(monotonic_ns) = ns("monotonic_ns") else {
            return;
        };
        self.domain
            .get_or_insert_with(|| names.text(event.name).to_owned());
        self.snapshots.push(Snapshot {
            reading_ns: event.start_ns,
            monotonic_ns,
            realtime_ns: ns("realtime_ns").filter(|&t| t > 0),
            error_ns: ns("error_ns").unwrap_or(0).max(0),
        });
    }

    fn process(&mut self, event: &Event, names: &Names) {
        let args = object(event, names);
        let text = |key: &str| args.get(key).and_then(Value::as_str).map(str::to_owned);
        self.pid = event.pid;
        self.host = text("host");
        self.start_ns = Some(event.start_ns);
        self.start_realtime_ns = args.get("start_realtime_ns").and_then(Value::as_i64);
        if let Some(clock) = text("clock") {
            self.domain = Some(clock);
        }
    }

    /// CLOCK_REALTIME less CLOCK_MONOTONIC, in ns, at the first moment that both are known.
    fn realtime_offset(&self) -> Option<i128> {
        let read = self
            .snapshots
            .iter()
            .filter_map(|s| Some((s.monotonic_ns, s.realtime_ns?)))
            .min()
            .map(|(monotonic, realtime)| i128::from(realtime) - i128::from(monotonic));
        let started = || Some(i128::from(self.start_realtime_ns?) - i128::from(self.start_ns?));
        read.or_else(started)
    }
}

fn object(event: &Event, names: &Names) -> Value {
    let args = event.args.map_or("", |args| names.text(args));
    serde_json::from_str(args).unwrap_or(Value::Null)
}

/// Rows whose times the probe took itself. The others come from the kernel or a driver, in CLOCK_MONOTONIC.
pub fn in_probe_clock(kind: Kind, origin: Origin) -> bool {
    use Kind::*;
    let probe = matches!(
        kind,
        Python | Native | Op | Scope | Mark | Sample | Gc | Nvtx | Flow | Clock | Lost | Throttled
    );
    probe || origin != Origin::Record
}

impl Place {
    /// A span stands where it ended, as in every trace of isc-record; else where it began.
    pub fn written_at_end(&self) -> bool {
        self.origin == Origin::Record
    }

    /// Moves a row to its place in time, and numbers its process anew.
    pub fn put(&self, event: &mut Event) {
        let at = |t: i64| match in_probe_clock(event.kind, self.origin) {
            true => self.fit.monotonic_ns(t),
            false => t,
        };
        let start = at(event.start_ns);
        event.dur_ns = event
            .dur_ns
            .map(|_| at(event.end_ns()).saturating_sub(start));
        event.start_ns = start.saturating_add(self.shift);
        event.process = self.process;
        if event.pid == 0 {
            event.pid = self.pid;
        }
    }
}

#[cfg(test)]
mod tests;

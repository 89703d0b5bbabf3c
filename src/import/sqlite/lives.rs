//! Processes and threads of a database, and its tables one after the other.

use std::collections::{BTreeSet, HashMap, VecDeque};

use serde_json::{Map, Value, json};

use super::super::tracks::{Owner, snapshot};
use super::super::{Lenient, Rows};
use super::{Cells, Database, Mapped, Table, To};
use crate::clock::UNKNOWN;
use crate::error::Result;
use crate::trace::{Event, Kind, Names, Sym};

/// Processes or threads that a file may have: one that has another one in each row does not fill the memory.
const MOST: usize = 1 << 20;

/// Which clock the times of a file are of.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    #[default]
    Unknown,
    /// That of the day, less so many ns.
    Realtime(i64),
    /// CLOCK_BOOTTIME. It is CLOCK_MONOTONIC and the time that the machine was suspended, which on a server is none.
    Boottime,
}

/// Who has rows, and since when.
#[derive(Debug, Default)]
pub struct Lives {
    pub clock: Clock,
    lives: Vec<Life>,
    index: HashMap<i64, u32>,
    threads: BTreeSet<(u32, u64)>,
}

#[derive(Debug)]
struct Life {
    pid: u32,
    name: String,
    args: Map<String, Value>,
    range: Option<(i64, i64)>,
}

impl Lives {
    /// The process of this key, a new one if it was not met before.
    pub fn process(&mut self, key: i64, pid: u32) -> Mapped<u32> {
        if let Some(&process) = self.index.get(&key) {
            return Ok(process);
        }
        if self.lives.len() >= MOST {
            return Err("it is of the 1 048 577th process".into());
        }
        let process = self.lives.len() as u32;
        self.index.insert(key, process);
        self.lives.push(Life {
            pid,
            name: "process".into(),
            args: Map::new(),
            range: None,
        });
        Ok(process)
    }

    /// The process of a key that has rows.
    pub fn known(&self, key: i64) -> Option<u32> {
        self.index.get(&key).copied()
    }

    /// The key and pid of the first process: whose rows are that say nothing of their process.
    pub fn first(&self) -> Option<(i64, u32)> {
        let key = self.index.iter().find(|(_, process)| **process == 0)?.0;
        Some((*key, self.lives.first()?.pid))
    }

    /// The first process that has rows, and when they begin.
    pub fn earliest(&self) -> Option<(u32, i64)> {
        let mut lives = (0..).zip(&self.lives);
        lives.find_map(|(process, life)| Some((process, life.range?.0)))
    }

    pub fn pid(&self, process: u32) -> u32 {
        self.lives.get(process as usize).map_or(0, |life| life.pid)
    }

    pub fn name(&mut self, process: u32, name: &str) {
        if let Some(life) = self.lives.get_mut(process as usize) {
            life.name = name.to_owned();
        }
    }

    /// One more member of the process's args.
    pub fn fact(&mut self, process: u32, key: &str, value: Value) {
        if let Some(life) = self.lives.get_mut(process as usize) {
            life.args.insert(key.into(), value);
        }
    }

    /// All processes that were met.
    pub fn all(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.lives.len() as u32
    }

    pub fn has_thread(&self, process: u32, tid: u64) -> bool {
        self.threads.contains(&(process, tid))
    }

    /// When the process was first and last seen.
    pub fn range(&self, process: u32) -> (i64, i64) {
        let life = self.lives.get(process as usize);
        life.and_then(|life| life.range).unwrap_or((0, 0))
    }

    /// The last moment of the file.
    pub fn last_ns(&self) -> i64 {
        let ends = self.lives.iter().filter_map(|life| life.range);
        ends.map(|range| range.1).max().unwrap_or(0)
    }

    /// A row of this owner; notes that it was there from `start` on for `dur`.
    pub fn row(&mut self, kind: Kind, name: Sym, span: (i64, i64), owner: Owner) -> Mapped<Event> {
        let (start, dur) = span;
        if let Some(life) = self.lives.get_mut(owner.process as usize) {
            let end = start + dur;
            let range = life.range.get_or_insert((start, end));
            *range = (range.0.min(start), range.1.max(end));
        }
        if owner.tid != 0 && !self.has_thread(owner.process, owner.tid) {
            if self.threads.len() >= MOST {
                return Err("it is of the 1 048 577th thread".into());
            }
            self.threads.insert((owner.process, owner.tid));
        }
        let mut event = Event::new(kind, name, start, owner.process, owner.pid, owner.tid);
        event.dur_ns = Some(dur);
        Ok(event)
    }

    /// A `process` row of each, and the snapshot that places it in time.
    fn finish(&mut self, names: &mut Names, rows: &mut Vec<Event>) {
        for (process, life) in std::mem::take(&mut self.lives).into_iter().enumerate() {
            let process = process as u32;
            let Some((first, last)) = life.range else {
                continue; // the profiler knew of it, and saw nothing of it
            };
            let mut args = life.args;
            let clock = match self.clock {
                Clock::Unknown => UNKNOWN,
                Clock::Realtime(_) => "realtime",
                Clock::Boottime => "boottime",
            };
            args.insert("clock".into(), clock.into());
            let name = names.sym(&life.name);
            let mut row = Event::new(Kind::Process, name, first, process, life.pid, 0);
            row.dur_ns = Some(last - first);
            row.args = Some(names.sym(&Value::Object(args).to_string()));
            rows.push(row);
            match self.clock {
                Clock::Unknown => {}
                Clock::Realtime(base_ns) => {
                    rows.push(snapshot(first, base_ns, process, life.pid, names));
                }
                Clock::Boottime => {
                    let args = json!({"monotonic_ns": first, "boottime_ns": first, "error_ns": 0});
                    let name = names.sym(clock);
                    let mut row = Event::new(Kind::Clock, name, first, process, life.pid, 0);
                    row.args = Some(names.sym(&args.to_string()));
                    rows.push(row);
                }
            }
        }
    }
}

/// What one format makes of rows.
pub trait Format: Send + std::fmt::Debug {
    fn lives(&mut self) -> &mut Lives;
}

/// How the rows of one table are mapped.
pub type MapRow<F> = fn(&mut F, &Database, &Cells<'_, '_>, &mut To<'_>) -> Mapped;

/// One table, and what its rows become.
#[derive(Debug)]
pub struct Step<F> {
    pub table: Table,
    pub map: MapRow<F>,
    /// Its rows were read before, and broken ones counted.
    pub again: bool,
}

/// The rows of a database.
#[derive(Debug)]
pub struct Reader<F> {
    pub db: Database,
    pub format: F,
    pub steps: VecDeque<Step<F>>,
    pub lenient: Lenient,
}

impl<F: Format> Rows for Reader<F> {
    fn next_batch(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<bool> {
        let Reader {
            db,
            format,
            steps,
            lenient,
        } = self;
        let Some(step) = steps.front_mut() else {
            format.lives().finish(names, rows);
            lenient.finish(0, names, rows);
            return Ok(false);
        };
        let map = step.map;
        let mut uncounted = lenient.clone();
        let lenient = match step.again {
            true => &mut uncounted,
            false => lenient,
        };
        let mut to = To { names, rows };
        let more = step
            .table
            .each(db, lenient, &mut to, |cells, to| map(format, db, cells, to))?;
        if !more {
            steps.pop_front();
        }
        Ok(true)
    }

    fn hash(&mut self) -> Option<String> {
        self.db.hash()
    }
}

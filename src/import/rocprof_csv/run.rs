//! What several tables of one run tell together: its processes, and which agents are GPUs.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::clock::UNKNOWN;
use crate::error::{Error, Result};
use crate::trace::{Event, Kind, Names};

/// A device whose number is the GPU's own (`GPU 0`), and not an agent's, has this bit set until all tables are read.
pub const NUMBERED: u32 = 1 << 30;

/// What one table tells of a run.
#[derive(Debug, Default)]
pub struct Part {
    /// By number of the process.
    pub lives: BTreeMap<u32, Life>,
    pub gpus: Vec<Gpu>,
}

/// A process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    pub pid: Option<u32>,
    pub range: Option<(i64, i64)>,
}

/// A GPU, as a table of agents has it.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// Its number among all agents, and among those that the process could see.
    pub node: u32,
    pub logical: u32,
    pub name: String,
    pub units: u64,
    pub wave: u64,
}

/// All tables of a run that were read so far; no table: another kind of input.
#[derive(Debug, Default)]
pub struct Run {
    tables: u32,
    whole: Part,
    devices: BTreeMap<u32, u32>,
}

impl Life {
    /// A row was from the one moment to the other.
    pub fn saw(&mut self, from_ns: i64, to_ns: i64) {
        let (first, last) = self.range.unwrap_or((from_ns, to_ns));
        self.range = Some((first.min(from_ns), last.max(to_ns)));
    }
}

impl Run {
    /// A table was read before.
    pub fn is_begun(&self) -> bool {
        self.tables > 0
    }

    /// Takes what a table tells.
    ///
    /// # Errors
    /// A table of another process: which of them a kernel is of, tables do not say.
    pub fn join(&mut self, part: Part, path: &Path) -> Result<()> {
        self.tables += 1;
        for (process, life) in part.lives {
            let known = self.whole.lives.entry(process).or_default();
            if let (Some(one), Some(other)) = (known.pid, life.pid)
                && one != other
            {
                return Err(Error::Invalid {
                    path: path.to_owned(),
                    what: format!("a table of process {other}, beside one of process {one}"),
                    hint: Some("isc-merge with the tables of one process at a time".into()),
                });
            }
            known.pid = known.pid.or(life.pid);
            if let Some((from_ns, to_ns)) = life.range {
                known.saw(from_ns, to_ns);
            }
        }
        self.whole.gpus.extend(part.gpus);
        Ok(())
    }

    /// The rows of processes and devices, when all tables were read.
    pub fn finish(&mut self, names: &mut Names, rows: &mut Vec<Event>) {
        if !self.is_begun() {
            return;
        }
        self.whole.gpus.sort_by_key(|gpu| gpu.node);
        self.whole.gpus.dedup_by_key(|gpu| gpu.node);
        // Without processes there are only devices: their rows are of one all the same.
        if self.whole.lives.is_empty() {
            self.whole.lives.insert(0, Life::default());
        }
        for (device, gpu) in (0u32..).zip(&self.whole.gpus) {
            self.devices.entry(gpu.node).or_insert(device);
        }
        // Newer versions number agents as the process sees them.
        for (device, gpu) in (0u32..).zip(&self.whole.gpus) {
            self.devices.insert(gpu.logical, device);
        }
        for (&process, life) in &self.whole.lives {
            let (first, last) = life.range.unwrap_or((0, 0));
            let pid = life.pid.unwrap_or(0);
            let name = names.sym("process");
            let mut row = Event::new(Kind::Process, name, first, process, pid, 0);
            row.dur_ns = Some(last - first);
            row.args = Some(names.sym(&json!({"clock": UNKNOWN}).to_string()));
            rows.push(row);
            for (device, gpu) in (0u32..).zip(&self.whole.gpus) {
                let name = names.sym(&gpu.name);
                let mut row = Event::new(Kind::Stream, name, first, process, pid, 0);
                row.device = Some(device | NUMBERED);
                let facts = json!({"sms": gpu.units, "warp": gpu.wave});
                row.args = Some(names.sym(&facts.to_string()));
                rows.push(row);
            }
        }
    }

    /// Gives a row the number of its GPU in the place of the agent's, where a table of agents says which that is.
    pub fn number(&self, event: &mut Event) {
        let Some(device) = event.device.filter(|_| self.is_begun()) else {
            return;
        };
        event.device = match device & NUMBERED {
            // An agent that allocates may be a processor.
            0 if self.devices.is_empty() => Some(device).filter(|_| event.kind != Kind::Alloc),
            0 => match (self.devices.get(&device), event.kind) {
                (Some(&device), _) => Some(device),
                // Memory of the host is of no device, work always of one.
                (None, Kind::Alloc) => None,
                (None, _) => Some(0),
            },
            _ => Some(device & !NUMBERED),
        };
    }
}

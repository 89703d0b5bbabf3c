//! rocprofv3's tables (`--output-format csv`), and `results.csv` of the older rocprof.
//!
//! Each file is one table: kernels, copies, calls of an API, allocations, agents. All that are given together are of one
//! run, with one clock; correlation ids join them. Columns are found by name, since their number differs between
//! versions. Counters, statistics and samples of program counters have no rows.
//!
//! # Source
//! ROCm/rocprofiler-sdk, source/lib/output/generateCSV.cpp and source/docs/data/*.csv, of 6.2 to 7.1; for the older
//! rocprof, "Using rocprof", ROCm 5 documentation, and what it wrote.

mod record; // one record of comma-separated values
mod run; // what the tables of a run tell together
mod table; // which table it is, and where its columns are

use serde_json::Map;

use super::Lenient;
use super::lines::{Line, Lines};
use super::rocprof::{copied, dispatched};
use crate::error::{Error, Result};
use crate::trace::{Event, Kind, Names};
use record::{Open, Record};
use run::{Gpu, NUMBERED};
pub use run::{Part, Run};
use std::path::PathBuf;
use table::{Column, Header, Table, Values, table};

/// Rows handed over at once.
const BATCH: usize = 1 << 14;

/// A time beyond this, in ns, is none: 146 years.
const LATEST_NS: u64 = 1 << 62;

/// The longest record of several lines, in bytes.
const LONGEST: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct RocprofCsv {
    lines: Lines,
    path: PathBuf,
    /// Once the first line was read.
    header: Option<(Table, Header)>,
    record: Record,
    part: Part,
    lenient: Lenient,
}

/// Whether the first line of what begins here names rocprof's columns.
pub(super) fn is(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or(head);
    let mut record = Record::default();
    record
        .read(String::from_utf8_lossy(line).trim_end())
        .is_ok_and(|()| table(&record).is_some())
}

impl RocprofCsv {
    pub fn new(lines: Lines, path: PathBuf, lenient: Lenient) -> RocprofCsv {
        RocprofCsv {
            lines,
            path,
            header: None,
            record: Record::default(),
            part: Part::default(),
            lenient,
        }
    }

    /// Reads the next record into `self.record`; `false` at the end.
    fn next_record(&mut self) -> Result<bool> {
        let mut whole = String::new();
        let mut begun = 0;
        loop {
            match self.lines.next_line()? {
                Line::End if whole.is_empty() => return Ok(false),
                Line::End | Line::Cut if self.lenient.skip() => return Ok(false),
                Line::End | Line::Cut => return Err(self.lines.cut()),
                Line::Whole(line) => {
                    let text = String::from_utf8_lossy(line);
                    if whole.is_empty() && text.trim().is_empty() {
                        continue;
                    }
                    if whole.is_empty() {
                        whole.push_str(&text);
                    } else {
                        whole.push('\n');
                        whole.push_str(&text);
                    }
                }
            }
            if begun == 0 {
                begun = self.lines.number();
            }
            let what = match self.record.read(&whole) {
                Ok(()) => return Ok(true),
                Err(Open) if whole.len() < LONGEST => continue,
                Err(Open) => "a quoted value of more than 1 MiB",
            };
            if !self.lenient.skip() {
                return Err(self.lines.wrong(begun, what));
            }
            (whole, begun) = (String::new(), 0);
        }
    }

    fn header(&mut self) -> Result<()> {
        self.next_record()?;
        let Some(table) = table(&self.record) else {
            return Err(self.lines.wrong(1, "no columns of rocprof's"));
        };
        if table == Table::Timeless {
            return Err(Error::Invalid {
                path: self.path.clone(),
                what: "its kernels have no times".into(),
                hint: Some("rocprof --timestamp on".into()),
            });
        }
        self.header = Some((table, Header::of(&self.record)));
        Ok(())
    }

    /// Reads a record and its row, if it has one; `false` at the end.
    fn step(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<bool> {
        if self.header.is_none() {
            self.header()?;
        }
        if !self.next_record()? {
            return Ok(false);
        }
        let Some((table, header)) = &self.header else {
            return Ok(false);
        };
        let values = Values(&self.record, header);
        let what = match self.record.len() == header.columns {
            false => "another number of values than of columns",
            true => match row(*table, &values, &mut self.part, names) {
                Ok(row) => {
                    rows.extend(row);
                    return Ok(true);
                }
                Err(what) => what,
            },
        };
        match self.lenient.skip() {
            true => Ok(true),
            false => Err(self.lines.wrong(self.lines.number(), what)),
        }
    }
}

/// The row of a record, if its table has any; what is wrong with one that is broken.
fn row(
    table: Table,
    values: &Values<'_>,
    part: &mut Part,
    names: &mut Names,
) -> std::result::Result<Option<Event>, &'static str> {
    let kind = match table {
        Table::Kernels => Kind::Kernel,
        Table::Copies => Kind::Memcpy,
        Table::Calls if values.text(Column::Domain).starts_with("MARKER") => Kind::Nvtx,
        Table::Calls => Kind::Api,
        Table::Allocations => Kind::Alloc,
        Table::Agents => {
            let read = agent(values, part).map(|()| None);
            return read.ok_or("an agent without a number");
        }
        Table::Timeless | Table::Nothing => return Ok(None),
    };
    let time = |column| {
        let ns = values.number(column)?;
        i64::try_from(ns).ok().filter(|_| ns < LATEST_NS)
    };
    let start = time(Column::Start).ok_or("a record whose beginning is no time in ns")?;
    let end = time(Column::End).ok_or("a record whose end is no time in ns")?;
    let end = end.max(start);
    let pid = match values.text(Column::Process) {
        "" => None,
        pid => Some(
            pid.parse()
                .map_err(|_| "a record whose process is no number")?,
        ),
    };
    // Tables made of a database name the run of each record; those of one process have none.
    let process = match values.text(Column::Guid) {
        "" => 0,
        guid => {
            let hash = blake3::hash(guid.as_bytes());
            u32::from_le_bytes(hash.as_bytes()[..4].try_into().unwrap_or_default())
        }
    };
    let life = part.lives.entry(process).or_default();
    life.pid = life.pid.or(pid);
    if pid.is_some() && pid != life.pid {
        return Err("a record of another process than those before it");
    }
    life.saw(start, end);
    let name = match kind {
        Kind::Kernel => kernel(values.text(Column::Kernel)),
        Kind::Memcpy => values.text(Column::Direction),
        Kind::Alloc => values.text(Column::Operation),
        _ => values.text(Column::Function),
    };
    let tid = match kind.on_device() {
        true => 0,
        false => values.number(Column::Thread).unwrap_or(0),
    };
    let pid = life.pid.unwrap_or(0);
    let mut row = Event::new(kind, names.sym(name), start, process, pid, tid);
    row.dur_ns = (kind != Kind::Alloc).then_some(end - start);
    let correlation = values.number(Column::Correlation);
    row.correlation = correlation.filter(|&id| id > 0 && kind != Kind::Nvtx);
    let bytes = values.number(Column::Bytes);
    row.bytes = bytes.and_then(|bytes| i64::try_from(bytes).ok());
    let number = |column| values.number(column).and_then(|n| u32::try_from(n).ok());
    let args = match kind {
        Kind::Kernel => {
            let agent = values.agent(Column::Agent);
            row.device = Some(agent.ok_or("a kernel whose agent is no number")?);
            // Before streams were told, a queue was as near to one as one gets.
            row.stream = number(Column::Stream).or(number(Column::Queue));
            use Column::*;
            dispatched(
                values.size([GridX, GridY, GridZ]),
                values.size([BlockX, BlockY, BlockZ]),
                values.number(Shared).unwrap_or(0),
                values.number(Queue).unwrap_or(0),
            )
        }
        Kind::Memcpy => {
            let (from, to) = ends(name);
            row.stream = number(Column::Stream);
            let agent = match (from, to) {
                (_, true) => values.agent(Column::To),
                (true, false) => values.agent(Column::From),
                (false, false) => None,
            };
            row.device = agent.or(Some(NUMBERED));
            copied(from, to)
        }
        Kind::Alloc => {
            row.device = values.agent(Column::Agent);
            Map::new()
        }
        _ => Map::new(),
    };
    if !args.is_empty() {
        row.args = Some(names.sym(&serde_json::Value::Object(args).to_string()));
    }
    Ok(Some(row))
}

/// A kernel's name without what the assembler's symbol has at its end.
fn kernel(name: &str) -> &str {
    let plain = name.strip_suffix(" [clone .kd]");
    plain.or(name.strip_suffix(".kd")).unwrap_or(name)
}

/// Whether a copy goes from and to a device, by its direction: `MEMORY_COPY_HOST_TO_DEVICE`.
fn ends(direction: &str) -> (bool, bool) {
    (
        direction.contains("DEVICE_TO"),
        direction.ends_with("TO_DEVICE"),
    )
}

/// A record of the table of agents; `None` if it is broken.
fn agent(values: &Values<'_>, part: &mut Part) -> Option<()> {
    let number = |column| values.number(column).and_then(|n| u32::try_from(n).ok());
    let node = number(Column::Node)?;
    if values.text(Column::AgentType) != "GPU" {
        return Some(());
    }
    let name = match values.text(Column::Product) {
        "" => values.text(Column::Name),
        name => name,
    };
    part.gpus.push(Gpu {
        node,
        logical: number(Column::Logical).unwrap_or(node),
        name: name.to_owned(),
        units: values.number(Column::Units).unwrap_or(0),
        wave: values.number(Column::Wave).unwrap_or(0),
    });
    Some(())
}

impl super::Rows for RocprofCsv {
    fn next_batch(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<bool> {
        let enough = rows.len() + BATCH;
        while rows.len() < enough {
            if !self.step(names, rows)? {
                self.lenient.finish(0, names, rows);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn hash(&mut self) -> Option<String> {
        self.lines.blocks().hash()
    }

    fn part(&mut self) -> Option<Part> {
        Some(std::mem::take(&mut self.part))
    }
}

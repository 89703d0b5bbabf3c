//! Nsight Systems, as `nsys export --type sqlite` writes it. Any table may be missing, and columns come and go by version.
//!
//! Left alone: META_DATA_* and TARGET_INFO_SYSTEM_ENV (but for the host's name), which hold environments and command
//! lines, and every string that no event refers to: some are files of the machine.
//!
//! # Source
//! "SQLite Schema Reference", NVIDIA Nsight Systems User Guide (2026.2): tables, global ids, enumerations.

mod calls; // of the CUDA runtime, the driver, the C library
mod nvtx; // ranges and marks
mod work; // what ran on devices

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::Lenient;
use super::sqlite::{
    Cells, Clock, Database, Format, Lives, MapRow, Mapped, Reader, Step, Strings, Table, To,
};
use super::tracks::Owner;
use crate::trace::{Event, Kind, Sym};

/// Domains, categories, streams and devices that are remembered.
const MOST: usize = 1 << 16;

/// What is known of the file besides the row at hand.
#[derive(Debug, Default)]
pub(super) struct Nsys {
    lives: Lives,
    strings: Strings,
    /// By process key and domain; a category by its own number too.
    domains: HashMap<(i64, i64), String>,
    categories: HashMap<(i64, i64, i64), String>,
    /// Device as the process sees it to the GPU that it is: CUDA_VISIBLE_DEVICES numbers them anew for each.
    gpus: HashMap<(i64, u32), u32>,
    /// By pid, context and stream: process and device of its work.
    streams: BTreeMap<(u32, i64, u32), (u32, u32)>,
}

impl Format for Nsys {
    fn lives(&mut self) -> &mut Lives {
        &mut self.lives
    }
}

/// Whether these tables are an export of Nsight Systems.
pub(super) fn is(db: &Database) -> bool {
    let known = |table: &str| {
        matches!(table, "StringIds" | "NVTX_EVENTS") || table.starts_with("CUPTI_ACTIVITY_KIND_")
    };
    db.tables().any(known)
}

/// A table, its columns that are asked for, a condition on one of them, what a row becomes.
type Wanted = (
    &'static str,
    &'static [&'static str],
    (&'static str, &'static str),
    MapRow<Nsys>,
);

const ALL: (&str, &str) = ("", "");

/// Of spans that begin and end together the outer one has to come first.
const TABLES: [Wanted; 20] = [
    (
        "TARGET_INFO_SESSION_START_TIME",
        &["utcEpochNs", "systemClockNs"],
        ALL,
        session,
    ),
    (
        "TARGET_INFO_CUDA_DEVICE",
        &["gpuId", "cudaId", "pid"],
        ALL,
        gpu_of,
    ),
    (
        "NVTX_EVENTS",
        &nvtx::COLUMNS,
        ("eventType", "eventType IN (33, 64, 75)"),
        nvtx::name,
    ),
    ("NVTX_EVENTS", &nvtx::COLUMNS, ALL, nvtx::ended),
    ("CUPTI_ACTIVITY_KIND_RUNTIME", &calls::API, ALL, calls::api),
    ("OSRT_API", &calls::API, ALL, calls::system_call),
    (
        "CUPTI_ACTIVITY_KIND_OVERHEAD",
        &calls::API,
        ALL,
        calls::overhead,
    ),
    ("PROFILER_OVERHEAD", &calls::API, ALL, calls::overhead),
    (
        "CUPTI_ACTIVITY_KIND_KERNEL",
        &work::KERNEL,
        ALL,
        work::kernel,
    ),
    ("CUPTI_ACTIVITY_KIND_MEMCPY", &work::COPY, ALL, work::copy),
    ("CUPTI_ACTIVITY_KIND_MEMSET", &work::COPY, ALL, work::memset),
    (
        "CUPTI_ACTIVITY_KIND_GRAPH_TRACE",
        &work::GRAPH,
        ALL,
        work::graph,
    ),
    (
        "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION",
        &work::SYNC,
        ALL,
        work::sync,
    ),
    (
        CALLCHAINS,
        &calls::SAMPLE,
        ("stackDepth", "t.stackDepth = 0"),
        calls::sample,
    ),
    (
        "NVTX_EVENTS",
        &nvtx::COLUMNS,
        ("end", "\"end\" IS NULL"),
        nvtx::open,
    ),
    ("PROCESSES", &["globalPid", "name"], ALL, process_name),
    ("ThreadNames", &["globalTid", "nameId"], ALL, thread_name),
    ("TARGET_INFO_CUDA_STREAM", &work::STREAM, ALL, work::stream),
    ("TARGET_INFO_GPU", &work::GPU, ALL, work::gpu),
    (
        "TARGET_INFO_SYSTEM_ENV",
        &["value"],
        ("name", "name = 'Hostname'"),
        host,
    ),
];

/// The first frames of samples of instruction pointers.
const CALLCHAINS: &str = "SAMPLING_CALLCHAINS";

/// Its rows.
pub(super) fn reader(db: Database, lenient: &Lenient) -> Reader<Nsys> {
    let step = |&(name, columns, (column, filter), map): &Wanted| {
        if !db.has_table(name) || !column.is_empty() && !db.has(name, column) {
            return None;
        }
        let table = match name {
            CALLCHAINS if !db.has("COMPOSITE_EVENTS", "globalTid") => return None,
            CALLCHAINS => {
                let parts = ", c.start, c.globalTid, t.symbol, t.module";
                let from =
                    "SAMPLING_CALLCHAINS AS t CROSS JOIN COMPOSITE_EVENTS AS c ON c.id = t.id";
                Table::of(name, columns, parts, from, filter)
            }
            _ => Table::new(&db, name, columns, filter),
        };
        let again = column == "end"; // NVTX ranges that did not end, for how long they last
        Some(Step { table, map, again })
    };
    Reader {
        steps: TABLES.iter().filter_map(step).collect(),
        format: Nsys {
            strings: Strings::new(&db, "StringIds", "value"),
            ..Nsys::default()
        },
        lenient: lenient.clone(),
        db,
    }
}

impl Nsys {
    /// The process of a global id: what is left of its last 24 bits, which are the thread's, is unique to it.
    fn owner(&mut self, c: &Cells<'_, '_>, column: &str) -> Mapped<Owner> {
        let id = match c.int(column)? {
            Some(id) => id,
            None => self.lives.first().map_or(0, |(key, _)| key << 24),
        };
        let pid = ((id >> 24) & 0xff_ffff) as u32;
        Ok(Owner {
            process: self.lives.process(id >> 24, pid)?,
            pid,
            tid: (id & 0xff_ffff) as u64,
        })
    }

    /// A text, or that of an id; `other` if there is neither.
    fn name(
        &mut self,
        db: &Database,
        c: &Cells<'_, '_>,
        columns: &[&str],
        other: &str,
        to: &mut To<'_>,
    ) -> Mapped<Sym> {
        for column in columns {
            let sym = match c.int(column) {
                Ok(None) => None,
                Ok(Some(id)) => self.strings.sym(db, id, to.names)?,
                Err(wrong) => Some(to.names.sym(&c.text(column).ok().flatten().ok_or(wrong)?)),
            };
            if let Some(sym) = sym {
                return Ok(sym);
            }
        }
        Ok(to.names.sym(other))
    }

    /// A row of a call, on its thread.
    fn call(&mut self, kind: Kind, name: Sym, c: &Cells<'_, '_>) -> Mapped<Event> {
        let owner = self.owner(c, "globalTid")?;
        self.lives.row(kind, name, c.span()?, owner)
    }

    /// A row of device work, or of a wait for some.
    fn work(&mut self, kind: Kind, name: Sym, c: &Cells<'_, '_>) -> Mapped<Event> {
        let span = c.span()?;
        let device = c.id("deviceId")?;
        let stream = c.id("streamId")?;
        let correlation = c.int("correlationId")?;
        let owner = Owner {
            tid: 0,
            ..self.owner(c, "globalPid")?
        };
        let mut event = self.lives.row(kind, name, span, owner)?;
        let seen = device.map(|device| (i64::from(owner.pid), device));
        event.device = seen.map(|seen| self.gpus.get(&seen).copied().unwrap_or(seen.1));
        event.stream = stream;
        event.correlation = positive(correlation);
        if let (Some(device), Some(stream)) = (event.device, stream)
            && let Some(context) = c.int("contextId")?
            && self.streams.len() < MOST
        {
            self.streams
                .insert((owner.pid, context, stream), (owner.process, device));
        }
        Ok(event)
    }
}

fn positive(id: Option<i64>) -> Option<u64> {
    id.and_then(|id| u64::try_from(id).ok())
        .filter(|&id| id > 0)
}

fn session(s: &mut Nsys, _: &Database, c: &Cells<'_, '_>, _: &mut To<'_>) -> Mapped {
    // Before schema 3 there is no system clock: times count from the session's start.
    let system = c.int("systemClockNs")?.unwrap_or(0);
    if let (Clock::Unknown, Some(epoch)) = (s.lives.clock, c.int("utcEpochNs")?) {
        let base = epoch
            .checked_sub(system)
            .ok_or("no time of a session's start")?;
        s.lives.clock = Clock::Realtime(base);
    }
    Ok(())
}

fn gpu_of(s: &mut Nsys, _: &Database, c: &Cells<'_, '_>, _: &mut To<'_>) -> Mapped {
    if let (Some(gpu), Some(seen), Some(pid)) = (c.id("gpuId")?, c.id("cudaId")?, c.int("pid")?)
        && s.gpus.len() < MOST
    {
        s.gpus.insert((pid, seen), gpu);
    }
    Ok(())
}

fn process_name(s: &mut Nsys, _: &Database, c: &Cells<'_, '_>, _: &mut To<'_>) -> Mapped {
    let process = c.int("globalPid")?.and_then(|id| s.lives.known(id >> 24));
    if let (Some(process), Some(name)) = (process, c.text("name")?) {
        s.lives.name(process, &name);
    }
    Ok(())
}

fn thread_name(s: &mut Nsys, db: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let id = c.int("globalTid")?.unwrap_or(0);
    let tid = (id & 0xff_ffff) as u64;
    if let Some(process) = s.lives.known(id >> 24)
        && s.lives.has_thread(process, tid)
    {
        let name = s.name(db, c, &["nameId"], "thread", to)?;
        let (at, pid) = (s.lives.range(process).0, s.lives.pid(process));
        to.rows
            .push(Event::new(Kind::Thread, name, at, process, pid, tid));
    }
    Ok(())
}

fn host(s: &mut Nsys, _: &Database, c: &Cells<'_, '_>, _: &mut To<'_>) -> Mapped {
    if let Some(name) = c.text("value")? {
        for process in s.lives.all() {
            s.lives.fact(process, "host", Value::from(name.as_ref()));
        }
    }
    Ok(())
}

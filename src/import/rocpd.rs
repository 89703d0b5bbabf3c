//! rocprofv3's database, rocpd, of schema 3 and 4. Each process has a set of tables whose names end in its number.
//!
//! The tables are read, not the views of the same name: a view adds up the sets of several processes, whose ids then
//! clash. The fourth schema has process, thread, device and stream of a row in `rocpd_track`, and (4.0) times in
//! `rocpd_timestamp`; so what a row has comes from wherever the file has it. Left alone: the process's environment,
//! command line and configuration, calls' arguments, and /etc/machine-id, which machine-id(5) calls confidential.
//!
//! # Source
//! ROCm/rocm-systems, projects/rocprofiler-sdk/source/share/rocprofiler-sdk-rocpd: rocpd_tables.sql of 3.0.0 to 4.1.0; what
//! is written to them: source/lib/output/generateRocpd.cpp of rocprofiler-sdk.

mod rows; // what is done and what runs

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::Lenient;
use super::sqlite::{
    Cells, Clock, Database, Format, Lives, MapRow, Mapped, Reader, Step, Strings, Table, To, quoted,
};
use super::tracks::Owner;
use crate::trace::{Event, Kind, Sym};

/// Processes, agents and streams that are remembered.
const MOST: usize = 1 << 16;

/// Tables that only this format has; an older one by another tool of AMD, rpd, has others that begin with `rocpd_`.
const OWN: [&str; 5] = [
    "rocpd_info_process",
    "rocpd_region",
    "rocpd_kernel_dispatch",
    "rocpd_memory_copy",
    "rocpd_memory_allocate",
];

/// What is known of the file besides the row at hand.
#[derive(Debug, Default)]
pub(super) struct Rocpd {
    lives: Lives,
    sets: Vec<Set>,
    /// Pid, by set and id.
    pids: HashMap<(i64, i64), u32>,
    /// GPUs by node and id, and the node of each by set and id.
    gpus: BTreeSet<(i64, i64)>,
    nodes: HashMap<(i64, i64), i64>,
    /// Dense numbers of the GPUs, once all are known.
    devices: HashMap<(i64, i64), u32>,
    /// Process, device and stream of work, by set and the stream's id.
    streams: BTreeMap<(i64, i64), BTreeSet<(u32, u32)>>,
    /// Devices that have their row.
    told: BTreeSet<u32>,
}

/// Strings of one set of tables.
#[derive(Debug)]
struct Set {
    strings: Strings,
    categories: Strings,
}

impl Format for Rocpd {
    fn lives(&mut self) -> &mut Lives {
        &mut self.lives
    }
}

/// Whether these tables are a rocpd database.
pub(super) fn is(db: &Database) -> bool {
    !sets(db).is_empty()
}

/// What stands behind the names of the tables: nothing, or `_` and a number, for each process.
fn sets(db: &Database) -> BTreeSet<String> {
    let end = |table: &str| {
        OWN.iter()
            .find_map(|own| table.strip_prefix(own))
            .map(str::to_owned)
    };
    let ends = db.tables().filter_map(end);
    ends.filter(|end| end.is_empty() || end.starts_with('_'))
        .collect()
}

/// A table, its columns that are asked for, what a row becomes.
type Wanted = (&'static str, &'static [&'static str], MapRow<Rocpd>);

/// Who is who comes before what they did. Of calls that begin and end together the outer one has to come first.
const TABLES: [Wanted; 10] = [
    (
        "info_process",
        &["set", "id", "pid", "name", "hostname", "hardware_name"],
        process,
    ),
    ("info_agent", &["set", "id", "nid", "type"], agent),
    ("region", &rows::REGION, rows::region),
    ("sample", &rows::REGION, rows::sample),
    ("kernel_dispatch", &rows::KERNEL, rows::kernel),
    ("memory_copy", &rows::COPY, rows::copy),
    ("memory_allocate", &rows::ALLOC, rows::alloc),
    ("info_thread", &["set", "pid", "tid", "name"], rows::thread),
    ("info_stream", &["set", "id", "name"], rows::stream),
    (
        "info_agent",
        &[
            "set",
            "id",
            "nid",
            "type",
            "product_name",
            "model_name",
            "name",
            "extdata",
        ],
        rows::device,
    ),
];

/// Its rows.
pub(super) fn reader(db: Database, lenient: &Lenient) -> Reader<Rocpd> {
    let sets = sets(&db);
    let mut steps = VecDeque::new();
    for (name, columns, map) in TABLES {
        for (number, set) in sets.iter().enumerate() {
            let again = false;
            let table = table(&db, name, columns, set, number);
            steps.extend(table.map(|table| Step { table, map, again }));
        }
    }
    let strings = |set: &String| Set {
        strings: Strings::new(&db, &format!("rocpd_string{set}"), "string"),
        // Before 4 a category is one of the strings.
        categories: match format!("rocpd_info_category{set}") {
            table if db.has_table(&table) => Strings::new(&db, &table, "name"),
            _ => Strings::new(&db, &format!("rocpd_string{set}"), "string"),
        },
    };
    let format = Rocpd {
        sets: sets.iter().map(strings).collect(),
        ..Rocpd::default()
    };
    Reader {
        format,
        steps,
        lenient: lenient.clone(),
        db,
    }
}

/// One table, joined by primary keys with what its rows refer to.
fn table(
    db: &Database,
    name: &str,
    columns: &'static [&'static str],
    set: &str,
    number: usize,
) -> Option<Table> {
    let full = |name: &str| format!("rocpd_{name}{set}");
    let table = full(name);
    if !db.has_table(&table) {
        return None;
    }
    let own = |column: &str| db.has(&table, column).then(|| format!("t.{column}"));
    let mut from = format!("{} AS t", quoted(&table));
    let mut joined = HashMap::new();
    let mut join = |letter: &'static str, other: &'static str, by: Option<String>| {
        if let Some(by) = by.filter(|_| db.has(&full(other), "id")) {
            let table = quoted(&full(other));
            from.push_str(&format!(
                " LEFT JOIN {table} AS {letter} ON {letter}.id = {by}"
            ));
            joined.insert(letter, other);
        }
    };
    let track = own("track_id").filter(|_| db.has(&full("track"), "id"));
    let placed = |column: &str| {
        let of_track = || track.is_some() && db.has(&full("track"), column);
        own(column).or_else(|| of_track().then(|| format!("k.{column}")))
    };
    join("k", "track", track.clone());
    join(
        "a",
        "timestamp",
        own("start_id").or_else(|| own("timestamp_id")),
    );
    join("b", "timestamp", own("end_id"));
    join("e", "event", own("event_id"));
    join("y", "info_kernel_symbol", own("kernel_id"));
    join(
        "n",
        "info_node",
        own("nid").filter(|_| name == "info_process"),
    );
    join(
        "h",
        "info_thread",
        placed("tid").filter(|_| name != "info_thread"),
    );
    let of = |letter: &str, column: &str| {
        let there = joined
            .get(letter)
            .is_some_and(|other| db.has(&full(other), column));
        there.then(|| format!("{letter}.{column}"))
    };
    let part = |column: &&str| {
        let part = match *column {
            "set" => Some(number.to_string()),
            "start" => own("start")
                .or_else(|| own("timestamp"))
                .or_else(|| of("a", "value")),
            "end" => own("end")
                .map(|_| "t.\"end\"".into())
                .or_else(|| of("b", "value")),
            "stack_id" | "category_id" => of("e", column),
            "message" => of("e", "extdata"),
            "display_name" | "kernel_name" | "arch_vgpr_count" => of("y", column),
            "hostname" | "hardware_name" => of("n", column),
            "thread" => of("h", "tid"),
            column => placed(column),
        };
        format!(", {}", part.unwrap_or_else(|| "NULL".into()))
    };
    let parts: String = columns.iter().map(part).collect();
    Some(Table::of(&table, columns, &parts, &from, ""))
}

impl Rocpd {
    /// The process of a row, and its thread; `set` and `pid` are ids in the file.
    fn owner(&mut self, c: &Cells<'_, '_>) -> Mapped<Owner> {
        let (set, id) = (c.int("set")?.unwrap_or(0), c.int("pid")?.unwrap_or(0));
        let pid = match self.pids.get(&(set, id)) {
            Some(&pid) => pid,
            None => u32::try_from(id).map_err(|_| format!("pid is no process: {id}"))?,
        };
        let tid = c.int("thread")?.or(c.int("tid")?).unwrap_or(0);
        Ok(Owner {
            process: self.lives.process(key(set, id), pid)?,
            pid,
            tid: u64::try_from(tid).map_err(|_| format!("tid is no thread: {tid}"))?,
        })
    }

    /// The string of this column's id.
    fn string(
        &mut self,
        db: &Database,
        c: &Cells<'_, '_>,
        column: &str,
        to: &mut To<'_>,
    ) -> Mapped<Option<Sym>> {
        let Some(id) = c.int(column)? else {
            return Ok(None);
        };
        let set = c.int("set")?.unwrap_or(0);
        match self.sets.get_mut(set as usize) {
            Some(set) if column == "category_id" => set.categories.sym(db, id, to.names),
            Some(set) => set.strings.sym(db, id, to.names),
            None => Ok(None),
        }
    }

    /// The number of a GPU among those of the file; none of other agents.
    fn device(&mut self, c: &Cells<'_, '_>, column: &str) -> Mapped<Option<u32>> {
        let Some(id) = c.int(column)? else {
            return Ok(None);
        };
        if self.devices.is_empty() {
            self.devices = self.gpus.iter().copied().zip(0..).collect();
        }
        let node = self.nodes.get(&(c.int("set")?.unwrap_or(0), id));
        Ok(node.and_then(|node| self.devices.get(&(*node, id)).copied()))
    }

    /// A row of device work.
    fn work(
        &mut self,
        kind: Kind,
        name: Sym,
        device: Option<u32>,
        c: &Cells<'_, '_>,
    ) -> Mapped<Event> {
        let owner = Owner {
            tid: 0,
            ..self.owner(c)?
        };
        let stream = c.int("stream_id")?;
        let mut event = self.lives.row(kind, name, c.span()?, owner)?;
        event.device = device;
        event.stream = stream
            .or(c.int("queue_id")?)
            .and_then(|id| u32::try_from(id).ok());
        event.correlation = positive(c.int("stack_id")?);
        if let (Some(stream), Some(device)) = (stream, device)
            && self.streams.len() < MOST
        {
            let used = self
                .streams
                .entry((c.int("set")?.unwrap_or(0), stream))
                .or_default();
            used.insert((owner.process, device));
        }
        Ok(event)
    }
}

/// What tells processes of several sets apart.
fn key(set: i64, id: i64) -> i64 {
    (set << 40).wrapping_add(id)
}

fn positive(id: Option<i64>) -> Option<u64> {
    id.and_then(|id| u64::try_from(id).ok())
        .filter(|&id| id > 0)
}

fn process(s: &mut Rocpd, _: &Database, c: &Cells<'_, '_>, _: &mut To<'_>) -> Mapped {
    let (set, Some(id)) = (c.int("set")?.unwrap_or(0), c.int("id")?) else {
        return Ok(());
    };
    let pid = c.int("pid")?.unwrap_or(id);
    let pid = u32::try_from(pid).map_err(|_| format!("pid is no process: {pid}"))?;
    if s.pids.len() >= MOST {
        return Err("the 65 537th process".into());
    }
    s.pids.insert((set, id), pid);
    let process = s.lives.process(key(set, id), pid)?;
    if let Some(name) = c.text("name")? {
        s.lives.name(process, &name);
    }
    if let Some(host) = c.text("hostname")?.filter(|host| !host.is_empty()) {
        // Times of one machine can be put beside each other, and need no time of day for that.
        s.lives.clock = Clock::Boottime;
        s.lives.fact(process, "host", host.as_ref().into());
    }
    if let Some(machine) = c.text("hardware_name")? {
        s.lives.fact(process, "machine", machine.as_ref().into());
    }
    Ok(())
}

fn agent(s: &mut Rocpd, _: &Database, c: &Cells<'_, '_>, _: &mut To<'_>) -> Mapped {
    if let (Some("GPU"), Some(id)) = (c.text("type")?.as_deref(), c.int("id")?)
        && s.gpus.len() < MOST
    {
        let node = c.int("nid")?.unwrap_or(0);
        s.gpus.insert((node, id));
        s.nodes.insert((c.int("set")?.unwrap_or(0), id), node);
    }
    Ok(())
}

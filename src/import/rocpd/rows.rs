//! What a row of each of rocpd's tables becomes.

use serde_json::{Map, Value};

use super::super::args::Args;
use super::super::sqlite::{Cells, Database, Mapped, To};
use super::{Rocpd, key, positive};
use crate::trace::{Event, Kind};

pub const REGION: [&str; 10] = [
    "set",
    "pid",
    "thread",
    "tid",
    "start",
    "end",
    "name_id",
    "category_id",
    "message",
    "stack_id",
];

/// Libraries whose calls are traced: the first word of a category such as `HIP_RUNTIME_API`.
const APIS: [&str; 6] = ["HIP_", "HSA_", "RCCL_", "ROCDECODE_", "ROCJPEG_", "OMPT"];

/// A call, a range of roctx, or a range of another writer's.
pub fn region(s: &mut Rocpd, db: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let span = c.span()?;
    let name = s.string(db, c, "name_id", to)?;
    let name = name.unwrap_or_else(|| to.names.sym("(no name)"));
    let category = match s.string(db, c, "category_id", to)? {
        Some(category) => to.names.text(category).to_ascii_uppercase(),
        None => String::new(),
    };
    let kind = match category.as_str() {
        _ if category.starts_with("MARKER_") => Kind::Nvtx,
        _ if category.is_empty() || APIS.iter().any(|api| category.starts_with(api)) => Kind::Api,
        _ => Kind::Scope,
    };
    let owner = s.owner(c)?;
    let mut event = s.lives.row(kind, name, span, owner)?;
    let mut args = Args::default();
    match kind {
        Kind::Api => event.correlation = positive(c.int("stack_id")?),
        Kind::Nvtx => {
            // From here to there on any thread, and so perhaps across others.
            if to.names.text(name).starts_with("roctxRangeStart") {
                event.flow = positive(c.int("stack_id")?);
            }
            if let Some(message) = message(c)? {
                event.name = to.names.sym(&message);
            }
        }
        _ => args.member("cat", &Value::from(category.to_lowercase()).to_string()),
    }
    event.args = args.sym(to.names);
    to.rows.push(event);
    Ok(())
}

/// What the program gave to roctx.
fn message(c: &Cells<'_, '_>) -> Mapped<Option<String>> {
    let Some(text) = c.text("message")? else {
        return Ok(None);
    };
    let object = serde_json::from_str::<Value>(&text).unwrap_or_default();
    Ok(object["message"].as_str().map(str::to_owned))
}

/// An instant: of roctx a mark. Those of counters are left alone.
pub fn sample(s: &mut Rocpd, db: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let category = s.string(db, c, "category_id", to)?;
    if !category.is_some_and(|category| to.names.text(category).starts_with("MARKER_")) {
        return Ok(());
    }
    let name = match (message(c)?, s.string(db, c, "name_id", to)?) {
        (Some(message), _) => to.names.sym(&message),
        (None, Some(name)) => name,
        (None, None) => to.names.sym("(no name)"),
    };
    let owner = s.owner(c)?;
    let mut event = s
        .lives
        .row(Kind::Mark, name, (c.time("start")?, 0), owner)?;
    event.dur_ns = None;
    to.rows.push(event);
    Ok(())
}

pub const KERNEL: [&str; 21] = [
    "set",
    "display_name",
    "kernel_name",
    "arch_vgpr_count",
    "pid",
    "thread",
    "tid",
    "agent_id",
    "start",
    "end",
    "stream_id",
    "queue_id",
    "stack_id",
    "grid_size_x",
    "grid_size_y",
    "grid_size_z",
    "workgroup_size_x",
    "workgroup_size_y",
    "workgroup_size_z",
    "group_segment_size",
    "graph_exec_id",
];

pub fn kernel(s: &mut Rocpd, _: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let name = c.text("display_name")?.filter(|name| !name.is_empty());
    let name = name.or(c.text("kernel_name")?);
    let name = to.names.sym(name.as_deref().unwrap_or("kernel"));
    let device = s.device(c, "agent_id")?;
    let mut event = s.work(Kind::Kernel, name, device, c)?;
    let mut args = Args::default();
    let (mut grid, mut block) = (Vec::new(), Vec::new());
    for (items, group) in [
        ("grid_size_x", "workgroup_size_x"),
        ("grid_size_y", "workgroup_size_y"),
        ("grid_size_z", "workgroup_size_z"),
    ] {
        if let (Some(items @ 0..), Some(group @ 1..)) = (c.int(items)?, c.int(group)?) {
            // HSA counts work items, where HIP and CUDA count blocks.
            grid.push(items / group + i64::from(items % group > 0));
            block.push(group);
        }
    }
    if grid.len() == 3 {
        args.member("grid", &Value::from(grid).to_string());
        args.member("block", &Value::from(block).to_string());
    }
    for (key, value) in [
        ("registers", c.int("arch_vgpr_count")?),
        ("shared_bytes", c.int("group_segment_size")?),
        ("graph", c.int("graph_exec_id")?.filter(|&id| id > 0)),
        ("queue", c.int("queue_id")?),
    ] {
        if let Some(value) = value {
            args.member(key, &value.to_string());
        }
    }
    event.args = args.sym(to.names);
    to.rows.push(event);
    Ok(())
}

pub const COPY: [&str; 13] = [
    "set",
    "name_id",
    "dst_agent_id",
    "src_agent_id",
    "pid",
    "thread",
    "tid",
    "start",
    "end",
    "stream_id",
    "queue_id",
    "stack_id",
    "size",
];

/// What a copy is called, by the end of `MEMORY_COPY_HOST_TO_DEVICE`; the rest in the words of Kineto.
const DIRECTIONS: [(&str, &str, &str, &str); 4] = [
    ("HOST_TO_DEVICE", "HtoD", "Host", "Device"),
    ("DEVICE_TO_HOST", "DtoH", "Device", "Host"),
    ("DEVICE_TO_DEVICE", "DtoD", "Device", "Device"),
    ("HOST_TO_HOST", "HtoH", "Host", "Host"),
];

pub fn copy(s: &mut Rocpd, db: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let operation = s.string(db, c, "name_id", to)?;
    let operation = operation.map_or("", |name| to.names.text(name));
    let direction = DIRECTIONS.iter().find(|known| operation.ends_with(known.0));
    let mut args = Args::default();
    let name = match direction {
        Some((_, short, from, onto)) => {
            let (lower, end) = (from.to_lowercase(), onto.to_lowercase());
            args.member("copy", &format!("\"{lower} to {end}\""));
            args.member("from", &format!("\"{lower}\""));
            args.member("to", &format!("\"{end}\""));
            to.names.sym(&format!("Memcpy {short} ({from} -> {onto})"))
        }
        None => to.names.sym("Memcpy"),
    };
    let device = s
        .device(c, "dst_agent_id")?
        .or(s.device(c, "src_agent_id")?);
    let mut event = s.work(Kind::Memcpy, name, device, c)?;
    event.bytes = c.int("size")?;
    event.args = args.sym(to.names);
    to.rows.push(event);
    Ok(())
}

pub const ALLOC: [&str; 11] = [
    "set", "pid", "thread", "tid", "agent_id", "start", "end", "type", "level", "address", "size",
];

/// Memory that was taken or given back; what is given back has fewer than no bytes, as far as the file says how many.
pub fn alloc(s: &mut Rocpd, _: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let what = c.text("type")?.unwrap_or_default().to_lowercase();
    let device = s.device(c, "agent_id")?;
    let owner = s.owner(c)?;
    let name = to.names.sym("[memory]");
    let mut event = s.lives.row(Kind::Alloc, name, c.span()?, owner)?;
    event.device = device;
    event.bytes = match what.as_str() {
        "free" | "reclaim" => c
            .int("size")?
            .filter(|&bytes| bytes > 0)
            .map(|bytes| -bytes),
        _ => c.int("size")?,
    };
    let mut args = Args::default();
    if !what.is_empty() {
        args.member("type", &Value::from(what).to_string());
    }
    if let Some(level) = c.text("level")? {
        args.member("level", &Value::from(level.to_lowercase()).to_string());
    }
    if let Some(address) = c.int("address")? {
        args.member("address", &address.to_string());
    }
    event.args = args.sym(to.names);
    to.rows.push(event);
    Ok(())
}

pub fn thread(s: &mut Rocpd, _: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let process = s
        .lives
        .known(key(c.int("set")?.unwrap_or(0), c.int("pid")?.unwrap_or(0)));
    let tid = c.int("tid")?.and_then(|tid| u64::try_from(tid).ok());
    if let (Some(process), Some(tid), Some(name)) = (process, tid, c.text("name")?)
        && s.lives.has_thread(process, tid)
    {
        let (at, pid) = (s.lives.range(process).0, s.lives.pid(process));
        let name = to.names.sym(&name);
        to.rows
            .push(Event::new(Kind::Thread, name, at, process, pid, tid));
    }
    Ok(())
}

/// A stream on which something ran, once for each device.
pub fn stream(s: &mut Rocpd, _: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let (Some(id), Some(name)) = (c.int("id")?, c.text("name")?) else {
        return Ok(());
    };
    let used = s.streams.get(&(c.int("set")?.unwrap_or(0), id));
    for &(process, device) in used.into_iter().flatten() {
        let (at, pid) = (s.lives.range(process).0, s.lives.pid(process));
        let name = to.names.sym(&name);
        let mut row = Event::new(Kind::Stream, name, at, process, pid, 0);
        (row.device, row.stream) = (Some(device), u32::try_from(id).ok());
        to.rows.push(row);
    }
    Ok(())
}

/// A GPU. What it can do is in the words of Kineto's devices.
pub fn device(s: &mut Rocpd, _: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let (Some(device), Some((process, at))) = (s.device(c, "id")?, s.lives.earliest()) else {
        return Ok(());
    };
    if !s.told.insert(device) {
        return Ok(()); // another process saw it too
    }
    let mut name = None;
    for column in ["product_name", "model_name", "name"] {
        name = name.or(c.text(column)?.filter(|name| !name.is_empty()));
    }
    let name = to.names.sym(name.as_deref().unwrap_or("device"));
    let mut row = Event::new(Kind::Stream, name, at, process, s.lives.pid(process), 0);
    row.device = Some(device);
    let about = c.text("extdata")?.unwrap_or_default();
    let about: Value = serde_json::from_str(&about).unwrap_or_default();
    let mut facts = Map::new();
    for (theirs, ours) in [("cu_count", "sms"), ("wave_front_size", "warp")] {
        if let Some(value) = about.get(theirs).filter(|value| value.is_number()) {
            facts.insert(ours.into(), value.clone());
        }
    }
    row.args = (!facts.is_empty()).then(|| to.names.sym(&Value::Object(facts).to_string()));
    to.rows.push(row);
    Ok(())
}

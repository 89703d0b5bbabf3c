//! What ran on devices, and the devices and streams, of Nsight Systems.

use serde_json::{Map, Value};

use super::super::args::Args;
use super::super::sqlite::{Cells, Database, Mapped, To};
use super::Nsys;
use crate::trace::{Event, Kind};

pub const KERNEL: [&str; 21] = [
    "demangledName",
    "shortName",
    "mangledName",
    "start",
    "end",
    "deviceId",
    "streamId",
    "correlationId",
    "globalPid",
    "contextId",
    "gridX",
    "gridY",
    "gridZ",
    "blockX",
    "blockY",
    "blockZ",
    "registersPerThread",
    "staticSharedMemory",
    "dynamicSharedMemory",
    "graphId",
    "graphNodeId",
];

pub fn kernel(s: &mut Nsys, db: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let name = s.name(
        db,
        c,
        &["demangledName", "shortName", "mangledName"],
        "kernel",
        to,
    )?;
    let mut event = s.work(Kind::Kernel, name, c)?;
    let mut args = Args::default();
    for (key, [x, y, z]) in [
        ("grid", ["gridX", "gridY", "gridZ"]),
        ("block", ["blockX", "blockY", "blockZ"]),
    ] {
        if let (Some(x), Some(y), Some(z)) = (c.int(x)?, c.int(y)?, c.int(z)?) {
            args.member(key, &format!("[{x},{y},{z}]"));
        }
    }
    put(&mut args, "registers", c.int("registersPerThread")?);
    let (fixed, given) = (c.int("staticSharedMemory")?, c.int("dynamicSharedMemory")?);
    if fixed.or(given).is_some() {
        let bytes = fixed.unwrap_or(0).saturating_add(given.unwrap_or(0));
        put(&mut args, "shared_bytes", Some(bytes));
    }
    in_graph(c, &mut args)?;
    event.args = args.sym(to.names);
    to.rows.push(event);
    Ok(())
}

fn put(args: &mut Args, key: &str, value: Option<i64>) {
    if let Some(value) = value {
        args.member(key, &value.to_string());
    }
}

/// The CUDA graph that the work is a node of.
fn in_graph(c: &Cells<'_, '_>, args: &mut Args) -> Mapped {
    put(args, "graph", c.int("graphId")?.filter(|&id| id > 0));
    put(args, "node", c.int("graphNodeId")?);
    Ok(())
}

pub const COPY: [&str; 14] = [
    "start",
    "end",
    "deviceId",
    "streamId",
    "correlationId",
    "globalPid",
    "contextId",
    "bytes",
    "copyKind",
    "srcKind",
    "dstKind",
    "memKind",
    "graphId",
    "graphNodeId",
];

/// The direction of a copy in the words of Kineto: in its name, and in args. Unified memory moves by itself.
/// ENUM_CUDA_MEMCPY_OPER.
const DIRECTIONS: [(&str, &str); 14] = [
    ("", ""),
    ("HtoD", "host to device"),
    ("DtoH", "device to host"),
    ("HtoA", "host to array"),
    ("AtoH", "array to host"),
    ("AtoA", "array to array"),
    ("AtoD", "array to device"),
    ("DtoA", "device to array"),
    ("DtoD", "device to device"),
    ("HtoH", "host to host"),
    ("PtoP", "peer to peer"),
    ("HtoD", "host to device"),
    ("DtoH", "device to host"),
    ("DtoD", "device to device"),
];

/// The first number of unified memory's own copies in it.
const UNIFIED: usize = 11;

/// ENUM_CUDA_MEM_KIND.
const MEMORIES: [&str; 8] = [
    "Pageable",
    "Pinned",
    "Device",
    "Array",
    "Managed",
    "Device Static",
    "Managed Static",
    "Unknown",
];

fn listed(list: &[&'static str], at: Option<i64>) -> Option<&'static str> {
    list.get(usize::try_from(at?).ok()?).copied()
}

pub fn copy(s: &mut Nsys, _: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let number = c
        .int("copyKind")?
        .and_then(|kind| usize::try_from(kind).ok());
    let (short, words) = number
        .and_then(|kind| DIRECTIONS.get(kind))
        .copied()
        .unwrap_or_default();
    let from = listed(&MEMORIES, c.int("srcKind")?);
    let onto = listed(&MEMORIES, c.int("dstKind")?);
    let mut name = "Memcpy".to_owned();
    if !short.is_empty() {
        name = format!("{name} {short}");
    }
    let mut args = Args::default();
    if !words.is_empty() {
        args.member("copy", &format!("\"{words}\""));
    }
    if let (Some(from), Some(onto)) = (from, onto) {
        name = format!("{name} ({from} -> {onto})");
        args.member("from", &format!("\"{}\"", from.to_lowercase()));
        args.member("to", &format!("\"{}\"", onto.to_lowercase()));
    }
    if number.is_some_and(|kind| (UNIFIED..DIRECTIONS.len()).contains(&kind)) {
        args.member("unified", "true");
    }
    in_graph(c, &mut args)?;
    let name = to.names.sym(&name);
    let mut event = s.work(Kind::Memcpy, name, c)?;
    event.bytes = c.int("bytes")?;
    event.args = args.sym(to.names);
    to.rows.push(event);
    Ok(())
}

pub fn memset(s: &mut Nsys, _: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let name = match listed(&MEMORIES, c.int("memKind")?) {
        Some(memory) => to.names.sym(&format!("Memset ({memory})")),
        None => to.names.sym("Memset"),
    };
    let mut event = s.work(Kind::Memset, name, c)?;
    event.bytes = c.int("bytes")?;
    let mut args = Args::default();
    in_graph(c, &mut args)?;
    event.args = args.sym(to.names);
    to.rows.push(event);
    Ok(())
}

pub const GRAPH: [&str; 8] = [
    "start",
    "end",
    "deviceId",
    "streamId",
    "correlationId",
    "globalPid",
    "contextId",
    "graphId",
];

/// A whole CUDA graph as one row: that is what nsys records unless it is told to look into them. The device was at work
/// for that long, and as no one knows at what, it counts as a kernel.
pub fn graph(s: &mut Nsys, _: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let id = c.int("graphId")?;
    let name = id.map_or("graph".into(), |id| format!("graph {id}"));
    let name = to.names.sym(&name);
    let mut event = s.work(Kind::Kernel, name, c)?;
    let mut args = Args::default();
    put(&mut args, "graph", id);
    args.member("whole_graph", "true");
    event.args = args.sym(to.names);
    to.rows.push(event);
    Ok(())
}

pub const SYNC: [&str; 10] = [
    "start",
    "end",
    "deviceId",
    "streamId",
    "correlationId",
    "globalPid",
    "contextId",
    "syncType",
    "eventSyncId",
    "eventId",
];

/// ENUM_CUPTI_SYNC_TYPE, in the words of Kineto.
const SYNCS: [&str; 5] = [
    "Unknown",
    "Event Sync",
    "Stream Wait Event",
    "Stream Sync",
    "Context Sync",
];

pub fn sync(s: &mut Nsys, _: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let what = listed(&SYNCS, c.int("syncType")?).unwrap_or("Unknown");
    let name = to.names.sym(what);
    let mut event = s.work(Kind::Sync, name, c)?;
    let mut args = Args::default();
    args.member("sync", &format!("\"{what}\""));
    // An event's own number is used again.
    put(
        &mut args,
        "event",
        c.int("eventSyncId")?
            .or(c.int("eventId")?)
            .filter(|&id| id > 0),
    );
    event.args = args.sym(to.names);
    to.rows.push(event);
    Ok(())
}

pub const STREAM: [&str; 5] = ["streamId", "processId", "contextId", "priority", "flag"];

/// A stream on which something ran.
pub fn stream(s: &mut Nsys, _: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let (Some(stream), Some(pid), Some(context)) =
        (c.id("streamId")?, c.id("processId")?, c.int("contextId")?)
    else {
        return Ok(());
    };
    let Some(&(process, device)) = s.streams.get(&(pid, context, stream)) else {
        return Ok(());
    };
    let name = to.names.sym(&format!("stream {stream}"));
    let at = s.lives.range(process).0;
    let mut row = Event::new(Kind::Stream, name, at, process, pid, 0);
    (row.device, row.stream) = (Some(device), Some(stream));
    let mut args = Args::default();
    put(&mut args, "priority", c.int("priority")?);
    if let Some(kind) = listed(
        &["unknown", "default", "non-blocking", "null"],
        c.int("flag")?,
    ) {
        args.member("stream", &format!("\"{kind}\""));
    }
    row.args = args.sym(to.names);
    to.rows.push(row);
    Ok(())
}

pub const GPU: [&str; 10] = [
    "id",
    "name",
    "totalMemory",
    "smCount",
    "threadsPerWarp",
    "maxWarpsPerSm",
    "maxRegistersPerSm",
    "maxShmemPerSm",
    "computeMajor",
    "computeMinor",
];

/// A device. What it can do is in the words of Kineto's devices.
pub fn gpu(s: &mut Nsys, _: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let (Some(id), Some((process, at))) = (c.id("id")?, s.lives.earliest()) else {
        return Ok(());
    };
    let name = c.text("name")?;
    let name = to.names.sym(name.as_deref().unwrap_or("device"));
    let mut row = Event::new(Kind::Stream, name, at, process, s.lives.pid(process), 0);
    row.device = Some(id);
    row.bytes = c.int("totalMemory")?;
    let mut facts = Map::new();
    let warp = c.int("threadsPerWarp")?;
    let threads = c
        .int("maxWarpsPerSm")?
        .zip(warp)
        .and_then(|(warps, warp)| warps.checked_mul(warp));
    for (key, value) in [
        ("sms", c.int("smCount")?),
        ("warp", warp),
        ("threads_per_sm", threads),
        ("registers_per_sm", c.int("maxRegistersPerSm")?),
        ("shared_bytes_per_sm", c.int("maxShmemPerSm")?),
    ] {
        facts.extend(value.map(|value| (key.to_owned(), Value::from(value))));
    }
    if let (Some(major), Some(minor)) = (c.int("computeMajor")?, c.int("computeMinor")?) {
        facts.insert("compute".into(), format!("{major}.{minor}").into());
    }
    row.args = Some(to.names.sym(&Value::Object(facts).to_string()));
    to.rows.push(row);
    Ok(())
}

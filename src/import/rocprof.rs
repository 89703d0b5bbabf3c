//! rocprofv3's JSON (`--output-format json`): kernels, copies, HIP and HSA calls, markers.
//!
//! `{"rocprofiler-sdk-tool": [{"metadata", "agents", "strings", "kernel_symbols", …, "buffer_records": {NAME: [record, …]}}]}`:
//! tables of names come first and are kept, records after them and go by one at a time. The command line, which stands in
//! the metadata, is not read.
//!
//! # Source
//! ROCm/rocprofiler-sdk, source/lib/output/generateJSON.cpp; structures in
//! source/include/rocprofiler-sdk/buffer_tracing.h.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::Lenient;
use super::json::{Stop, Window};
use crate::clock::UNKNOWN;
use crate::error::Result;
use crate::trace::{Event, Kind, Names};

/// Rows handed over at once.
const BATCH: usize = 1 << 14;

/// A time beyond this, in ns, is none: 146 years.
const LATEST_NS: u64 = 1 << 62;

/// How the value that the cursor stands before is nested.
#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Start,
    /// Among the keys of the outer object.
    Outer(bool),
    /// Among the tool's processes.
    Tools(bool),
    /// Among the keys of one of them.
    Tool(bool),
    /// Among the tables of records.
    Tables(bool),
    /// Among the records of the table of this name.
    Records(String, bool),
    Done,
}

/// See the module.
#[derive(Debug)]
pub struct Rocprof {
    window: Window,
    at: At,
    /// Processes that were begun.
    tools: u32,
    tool: Tool,
    lenient: Lenient,
}

/// What is known of the process whose records are read.
#[derive(Debug, Default)]
struct Tool {
    process: u32,
    pid: u32,
    host: Option<String>,
    range: Option<(i64, i64)>,
    /// Devices of agents that are GPUs, in the order of the file; their rows.
    devices: HashMap<u64, u32>,
    agents: Vec<Agent>,
    kernels: HashMap<u64, String>,
    /// Operations by kind.
    operations: Vec<Vec<String>>,
    /// Texts of markers by correlation.
    markers: HashMap<u64, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Handle {
    handle: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Agent {
    id: Handle,
    /// 1: a processor, 2: a GPU.
    r#type: u32,
    cu_count: u64,
    wave_front_size: u64,
    name: String,
    product_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Symbol {
    kernel_id: u64,
    formatted_kernel_name: String,
    demangled_kernel_name: String,
    kernel_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Strings {
    buffer_records: Vec<Operations>,
    marker_api: Vec<Marker>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Operations {
    operations: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Marker {
    key: u64,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    pid: u32,
    node: Node,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    hostname: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Correlation {
    internal: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Size {
    x: u64,
    y: u64,
    z: u64,
}

impl Size {
    fn list(&self) -> [u64; 3] {
        [self.x, self.y, self.z]
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Dispatch {
    agent_id: Handle,
    queue_id: Handle,
    kernel_id: u64,
    group_segment_size: u64,
    workgroup_size: Size,
    /// In work items, not in groups.
    grid_size: Size,
}

/// A record of any table.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record {
    kind: usize,
    operation: i64,
    thread_id: u64,
    correlation_id: Correlation,
    start_timestamp: Option<u64>,
    end_timestamp: Option<u64>,
    dispatch_info: Option<Dispatch>,
    stream_id: Option<Handle>,
    src_agent_id: Handle,
    dst_agent_id: Handle,
    agent_id: Handle,
    bytes: Option<u64>,
    allocation_size: Option<u64>,
}

impl Rocprof {
    pub fn new(window: Window, lenient: Lenient) -> Rocprof {
        Rocprof {
            window,
            at: At::Start,
            tools: 0,
            tool: Tool::default(),
            lenient,
        }
    }

    /// Reads one thing: a key with what is kept of its value, or a record.
    fn step(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<()> {
        let at = std::mem::replace(&mut self.at, At::Done);
        self.at = match at {
            At::Start => {
                self.window
                    .read(|c| c.expect(b'{', "a rocprofv3 file should begin with {"))?;
                At::Outer(true)
            }
            At::Outer(first) => match self.key(first)? {
                None => At::Done,
                Some(key) if key == "rocprofiler-sdk-tool" => {
                    self.window
                        .read(|c| c.expect(b'[', "a list of processes should begin here"))?;
                    At::Tools(true)
                }
                Some(_) => self.skip(At::Outer(false))?,
            },
            At::Tools(first) => match self.window.read(|c| c.element(first, false))? {
                Some(true) => {
                    self.window
                        .read(|c| c.expect(b'{', "a process should begin here"))?;
                    self.tool = Tool {
                        process: self.tools,
                        ..Tool::default()
                    };
                    self.tools += 1;
                    At::Tool(true)
                }
                _ => At::Outer(false),
            },
            At::Tool(first) => match self.key(first)? {
                None => {
                    self.tool.finish(names, rows);
                    At::Tools(false)
                }
                Some(key) if key == "buffer_records" => {
                    self.window
                        .read(|c| c.expect(b'{', "tables of records should begin here"))?;
                    At::Tables(true)
                }
                Some(key) => {
                    self.names(&key)?;
                    At::Tool(false)
                }
            },
            At::Tables(first) => match self.key(first)? {
                None => At::Tool(false),
                Some(key) => {
                    self.window
                        .read(|c| c.expect(b'[', "a table of records should begin here"))?;
                    At::Records(key, true)
                }
            },
            At::Records(table, first) => match self.window.read(|c| c.element(first, false))? {
                Some(true) => {
                    self.record(&table, names, rows)?;
                    At::Records(table, false)
                }
                _ => At::Tables(false),
            },
            At::Done => At::Done,
        };
        Ok(())
    }

    fn key(&mut self, first: bool) -> Result<Option<String>> {
        self.window.read(|c| {
            let Some(key) = c.key(first)? else {
                return Ok(None);
            };
            let mut text = String::new();
            key.decode(&mut text);
            Ok(Some(text))
        })
    }

    fn skip(&mut self, then: At) -> Result<At> {
        self.window.read(|c| c.value().map(|_| ()))?;
        Ok(then)
    }

    /// A table of names, of which nothing else is kept.
    fn names(&mut self, key: &str) -> Result<()> {
        match key {
            "metadata" => {
                let metadata: Metadata = self.parsed()?;
                (self.tool.pid, self.tool.host) = (metadata.pid, metadata.node.hostname);
            }
            "agents" => {
                let agents: Vec<Agent> = self.parsed()?;
                self.tool.agents = agents
                    .into_iter()
                    .filter(|agent| agent.r#type == 2)
                    .collect();
                let ids = self.tool.agents.iter().map(|agent| agent.id.handle);
                self.tool.devices = ids.zip(0..).collect();
            }
            "strings" => {
                let strings: Strings = self.parsed()?;
                let all = strings.buffer_records.into_iter();
                self.tool.operations = all.map(|kind| kind.operations).collect();
                let markers = strings.marker_api.into_iter();
                self.tool.markers = markers.map(|marker| (marker.key, marker.value)).collect();
            }
            "kernel_symbols" => {
                let symbols: Vec<Symbol> = self.parsed()?;
                let named = symbols.into_iter().map(|symbol| {
                    let all = [
                        symbol.formatted_kernel_name,
                        symbol.demangled_kernel_name,
                        symbol.kernel_name,
                    ];
                    let name = all.into_iter().find(|name| !name.is_empty());
                    (symbol.kernel_id, name.unwrap_or_default())
                });
                self.tool.kernels = named.collect();
            }
            _ => self.window.read(|c| c.value().map(|_| ()))?,
        }
        Ok(())
    }

    /// The value at the cursor.
    fn parsed<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.window.read(|c| {
            let value = c.value()?;
            let wrong = Stop::Wrong(0, "a value that is not what rocprofv3 writes here");
            serde_json::from_slice(value).map_err(|_| wrong)
        })
    }

    fn record(&mut self, table: &str, names: &mut Names, rows: &mut Vec<Event>) -> Result<()> {
        let place = self.window.position();
        let value = self.window.read(|c| c.value().map(<[u8]>::to_vec))?;
        let record = serde_json::from_slice::<Record>(&value).ok();
        let row = record.and_then(|record| self.tool.row(table, record, names));
        match row {
            Some(row) => rows.extend(row),
            None if self.lenient.skip() => {}
            None => {
                let what = format!("a record of {table} that is not what rocprofv3 writes");
                return Err(self.window.wrong_at(place, &what));
            }
        }
        Ok(())
    }
}

impl Tool {
    /// The row of a record, if its table has any; `None` if it is broken.
    #[allow(clippy::option_option)] // a broken record is another thing than one of no row
    fn row(&mut self, table: &str, record: Record, names: &mut Names) -> Option<Option<Event>> {
        let kind = match table {
            "kernel_dispatch" => Kind::Kernel,
            "memory_copy" => Kind::Memcpy,
            "hip_api" | "hsa_api" | "rccl_api" | "rocdecode_api" | "rocjpeg_api" => Kind::Api,
            "marker_api" => Kind::Nvtx,
            "memory_allocation" | "scratch_memory" => Kind::Alloc,
            _ => return Some(None),
        };
        let time = |ns: Option<u64>| ns.filter(|&ns| ns < LATEST_NS).map(|ns| ns as i64);
        let (start, end) = (time(record.start_timestamp)?, time(record.end_timestamp)?);
        let end = end.max(start);
        self.range = Some(
            self.range
                .map_or((start, end), |(a, b)| (a.min(start), b.max(end))),
        );
        let operation = || {
            let operations = self.operations.get(record.kind)?;
            let name = operations.get(usize::try_from(record.operation).ok()?)?;
            (!name.is_empty()).then_some(name.as_str())
        };
        let internal = record.correlation_id.internal;
        let name = match (kind, &record.dispatch_info) {
            (Kind::Kernel, Some(dispatch)) => match self.kernels.get(&dispatch.kernel_id) {
                Some(name) => names.sym(name),
                None => names.sym(&format!("kernel {}", dispatch.kernel_id)),
            },
            (Kind::Kernel, None) => return None,
            (Kind::Nvtx, _) if self.markers.contains_key(&internal) => {
                names.sym(&self.markers[&internal])
            }
            _ => names.sym(operation().unwrap_or(table)),
        };
        let tid = if kind.on_device() {
            0
        } else {
            record.thread_id
        };
        let mut row = Event::new(kind, name, start, self.process, self.pid, tid);
        row.dur_ns = (kind != Kind::Alloc).then_some(end - start);
        row.correlation = (internal > 0 && kind != Kind::Nvtx).then_some(internal);
        let bytes = record.bytes.or(record.allocation_size);
        row.bytes = bytes.and_then(|bytes| i64::try_from(bytes).ok());
        let mut args = Map::new();
        let stream = record.stream_id.as_ref().map(|stream| stream.handle);
        if let Some(dispatch) = record.dispatch_info.filter(|_| kind == Kind::Kernel) {
            row.device = Some(
                self.devices
                    .get(&dispatch.agent_id.handle)
                    .copied()
                    .unwrap_or(0),
            );
            args = dispatched(
                dispatch.grid_size.list(),
                dispatch.workgroup_size.list(),
                dispatch.group_segment_size,
                dispatch.queue_id.handle,
            );
            // Before streams were told, a queue was as near to one as one gets.
            let stream = stream.unwrap_or(dispatch.queue_id.handle);
            row.stream = u32::try_from(stream).ok();
        } else if kind == Kind::Memcpy {
            let device = |agent: &Handle| self.devices.get(&agent.handle).copied();
            let (from, to) = (device(&record.src_agent_id), device(&record.dst_agent_id));
            row.device = to.or(from).or(Some(0));
            row.stream = stream.and_then(|stream| u32::try_from(stream).ok());
            args = copied(from.is_some(), to.is_some());
        } else if kind == Kind::Alloc {
            row.device = self.devices.get(&record.agent_id.handle).copied();
        }
        if !args.is_empty() {
            row.args = Some(names.sym(&Value::Object(args).to_string()));
        }
        Some(Some(row))
    }

    /// The rows of the process and its devices.
    fn finish(&mut self, names: &mut Names, rows: &mut Vec<Event>) {
        let (first, last) = self.range.unwrap_or((0, 0));
        let mut args = Map::new();
        args.insert("clock".into(), UNKNOWN.into());
        if let Some(host) = self.host.take() {
            args.insert("host".into(), host.into());
        }
        let mut row = Event::new(
            Kind::Process,
            names.sym("process"),
            first,
            self.process,
            self.pid,
            0,
        );
        row.dur_ns = Some(last - first);
        row.args = Some(names.sym(&Value::Object(args).to_string()));
        rows.push(row);
        for (agent, device) in self.agents.iter().zip(0..) {
            let name = if agent.product_name.is_empty() {
                &agent.name
            } else {
                &agent.product_name
            };
            let mut row = Event::new(
                Kind::Stream,
                names.sym(name),
                first,
                self.process,
                self.pid,
                0,
            );
            row.device = Some(device);
            let facts = json!({"sms": agent.cu_count, "warp": agent.wave_front_size});
            row.args = Some(names.sym(&facts.to_string()));
            rows.push(row);
        }
    }
}

/// Args of a kernel: its grid, which rocprofv3 counts in work items, in groups.
pub(super) fn dispatched(
    items: [u64; 3],
    group: [u64; 3],
    shared_bytes: u64,
    queue: u64,
) -> Map<String, Value> {
    let groups = items.iter().zip(group);
    let groups: Vec<u64> = groups.map(|(n, of)| n.div_ceil(of.max(1))).collect();
    let mut args = Map::new();
    args.insert("grid".into(), json!(groups));
    args.insert("block".into(), json!(group));
    args.insert("shared_bytes".into(), shared_bytes.into());
    args.insert("queue".into(), queue.into());
    args
}

/// Args of a copy: whether it goes from and to a device.
pub(super) fn copied(from: bool, to: bool) -> Map<String, Value> {
    let word = |device| if device { "device" } else { "host" };
    let copy = format!("{} to {}", word(from), word(to));
    [("copy".to_owned(), copy.into())].into_iter().collect()
}

impl super::Rows for Rocprof {
    fn next_batch(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<bool> {
        let enough = rows.len() + BATCH;
        while rows.len() < enough && self.at != At::Done {
            self.step(names, rows)?;
        }
        if self.at != At::Done {
            return Ok(true);
        }
        if !self.window.read(|c| c.is_end())? {
            return Err(self.window.wrong(0, "more behind the end of the trace"));
        }
        self.lenient.finish(0, names, rows);
        Ok(false)
    }

    fn hash(&mut self) -> Option<String> {
        self.window.blocks().hash()
    }
}

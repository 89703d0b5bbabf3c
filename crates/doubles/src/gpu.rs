//! The GPU inside: work starts after its launch has returned and after what is before it on its stream.
//!
//! Streams run in order and beside each other. There are no engines to share: a thousand streams run a thousand
//! kernels at once, so every start and end follows from the launches alone.

use crate::activity;
use crate::enabled;
use crate::event::{Event, tid};
use crate::layout::kind;
use crate::lock;
use crate::settings;
use crate::truth::{self, Outcome};
use std::cell::Cell;
use std::ffi::CStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// Id of a context's default stream, as the driver has it.
pub const NULL_STREAM: u32 = 7;
/// Id of the first stream that is created.
const FIRST_STREAM: u32 = 13;

/// What handles start from; they are numbers, never dereferenced.
const CONTEXT: usize = 0xC000_0000;
const STREAM: usize = 0x5000_0000;
const FUNCTION: usize = 0xF000_0000;
const GRAPH: usize = 0x6000_0000;

struct Stream {
    context: usize,
    id: u32,
    priority: i32,
    /// When the last work on it ends.
    free_ns: u64,
}

struct Context {
    device: u32,
    id: u32,
    /// Index of its default stream.
    default: usize,
}

struct Function {
    name: &'static CStr,
    loaded: AtomicBool,
}

struct Graph {
    id: u32,
    /// Function and node id, in the order in which they run.
    nodes: Vec<(usize, u64)>,
}

struct Gpu {
    contexts: Vec<Context>,
    streams: Vec<Stream>,
    functions: Vec<Function>,
    graphs: Vec<Graph>,
}

static GPU: Mutex<Gpu> = Mutex::new(Gpu {
    contexts: vec![],
    streams: vec![],
    functions: vec![],
    graphs: vec![],
});
static NODES: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// Handle of the thread's context; 0 is none.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
    /// Duration of the thread's next kernel, if it set one.
    static NEXT_NS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Device work, all but its times.
pub struct Work {
    pub event: Event,
    stream: usize,
    duration_ns: u64,
}

/// Where a call puts its work.
#[derive(Clone, Copy)]
pub struct Place {
    stream: usize,
    pub device: u32,
    pub context: u32,
    pub stream_id: u32,
    pub priority: i32,
}

impl Place {
    /// An event at this place.
    pub fn event(&self, kind: u32) -> Event {
        Event {
            kind,
            device: self.device,
            context: self.context,
            stream: self.stream_id,
            priority: self.priority,
            ..Event::default()
        }
    }

    pub fn work(&self, event: Event, duration_ns: u64) -> Work {
        Work {
            event,
            stream: self.stream,
            duration_ns,
        }
    }
}

/// A new context, current on this thread: its handle, and its place.
pub fn create_context(device: u32) -> (usize, Place) {
    let mut gpu = lock(&GPU);
    let (index, default) = (gpu.contexts.len(), gpu.streams.len());
    gpu.contexts.push(Context {
        device,
        id: index as u32 + 1,
        default,
    });
    gpu.streams.push(Stream {
        context: index,
        id: NULL_STREAM,
        priority: 0,
        free_ns: 0,
    });
    CURRENT.set(CONTEXT + index);
    (CONTEXT + index, gpu.place(default))
}

/// Makes a context current; 0 none. False if there is no such context.
pub fn set_current(handle: usize) -> bool {
    let known = handle == 0 || of_context(handle).is_some();
    if known {
        CURRENT.set(handle);
    }
    known
}

/// The thread's context, 0 if it has none.
pub fn current() -> usize {
    CURRENT.get()
}

/// The place of a context's default stream.
pub fn of_context(handle: usize) -> Option<Place> {
    let gpu = lock(&GPU);
    let context = gpu.contexts.get(handle.checked_sub(CONTEXT)?)?;
    Some(gpu.place(context.default))
}

/// A new stream of the current context: its handle, and its place.
pub fn create_stream(priority: i32) -> Option<(usize, Place)> {
    let mut gpu = lock(&GPU);
    let context = CURRENT
        .get()
        .checked_sub(CONTEXT)
        .filter(|&index| index < gpu.contexts.len())?;
    let index = gpu.streams.len();
    let id = FIRST_STREAM + (index - gpu.contexts.len()) as u32;
    gpu.streams.push(Stream {
        context,
        id,
        priority,
        free_ns: 0,
    });
    Some((STREAM + index, gpu.place(index)))
}

/// The place of a stream; 0, 1 and 2 are the default of the thread's context.
pub fn of_stream(handle: usize) -> Option<Place> {
    if handle <= 2 {
        return of_context(CURRENT.get());
    }
    let gpu = lock(&GPU);
    let index = handle.checked_sub(STREAM)?;
    (index < gpu.streams.len()).then(|| gpu.place(index))
}

impl Gpu {
    fn place(&self, stream: usize) -> Place {
        let Stream {
            context,
            id,
            priority,
            ..
        } = self.streams[stream];
        let Context {
            device,
            id: context,
            ..
        } = self.contexts[context];
        Place {
            stream,
            device,
            context,
            stream_id: id,
            priority,
        }
    }
}

/// The function of that mangled name.
pub fn function(name: &CStr) -> usize {
    let mut gpu = lock(&GPU);
    if let Some(index) = gpu
        .functions
        .iter()
        .position(|function| function.name == name)
    {
        return FUNCTION + index;
    }
    let name = Box::leak(name.to_owned().into_boxed_c_str()); // as long as the module, which is never unloaded
    gpu.functions.push(Function {
        name,
        loaded: AtomicBool::new(false),
    });
    FUNCTION + gpu.functions.len() - 1
}

/// A function's name.
pub fn of_function(handle: usize) -> Option<&'static CStr> {
    let gpu = lock(&GPU);
    let function = gpu.functions.get(handle.checked_sub(FUNCTION)?)?;
    Some(function.name)
}

/// Whether a function is launched for the first time.
pub fn load_function(handle: usize) -> bool {
    let gpu = lock(&GPU);
    let function = handle
        .checked_sub(FUNCTION)
        .and_then(|index| gpu.functions.get(index));
    function.is_some_and(|function| !function.loaded.swap(true, SeqCst))
}

/// A graph that runs the function `nodes` times: its handle, its id and those of its nodes.
pub fn create_graph(function: usize, nodes: u32) -> Option<(usize, u32, Vec<u64>)> {
    of_function(function)?;
    let mut gpu = lock(&GPU);
    let id = gpu.graphs.len() as u32 + 1;
    let ids: Vec<u64> = (0..nodes).map(|_| NODES.fetch_add(1, SeqCst)).collect();
    let nodes = ids.iter().map(|&node| (function, node)).collect();
    gpu.graphs.push(Graph { id, nodes });
    Some((GRAPH + gpu.graphs.len() - 1, id, ids))
}

/// A graph's id, and function and node id of each node.
pub fn of_graph(handle: usize) -> Option<(u32, Vec<(usize, u64)>)> {
    let gpu = lock(&GPU);
    let graph = gpu.graphs.get(handle.checked_sub(GRAPH)?)?;
    Some((graph.id, graph.nodes.clone()))
}

/// How long the thread's next kernel runs.
pub fn set_next_ns(duration_ns: u64) {
    NEXT_NS.set(Some(duration_ns));
}

/// How long the kernel launched now runs.
pub fn kernel_ns() -> u64 {
    NEXT_NS.take().unwrap_or(settings::get().kernel_ns)
}

/// How long a copy runs: 25 GB/s over the bus, 2 TB/s within a device, and 1 µs to set up.
pub fn copy_ns(bytes: u64, over_bus: bool) -> u64 {
    1_000 + bytes / if over_bus { 25 } else { 2_000 }
}

/// The kind that kernels are recorded as now.
pub fn kernel_kind() -> u32 {
    let concurrent = enabled::is_enabled(kind::CONCURRENT_KERNEL);
    if !concurrent && enabled::is_enabled(kind::KERNEL) {
        kind::KERNEL
    } else {
        kind::CONCURRENT_KERNEL
    }
}

/// Places the work of one call that ended at `launched_ns`. With graph tracing, a graph's nodes are one event.
pub fn submit(works: Vec<Work>, correlation: u32, launched_ns: u64) {
    let latency_ns = settings::get().latency_ns;
    let whole = enabled::is_enabled(kind::GRAPH_TRACE);
    let mut graph: Option<Event> = None;
    for Work {
        mut event,
        stream,
        duration_ns,
    } in works
    {
        let mut gpu = lock(&GPU);
        let free_ns = &mut gpu.streams[stream].free_ns;
        event.start_ns = (*free_ns).max(launched_ns + latency_ns);
        event.end_ns = event.start_ns + duration_ns;
        *free_ns = event.end_ns;
        drop(gpu);
        (event.correlation, event.tid) = (correlation, tid());
        if event.graph == 0 || !whole {
            activity::submit(event);
            continue;
        }
        let trace = graph.get_or_insert_with(|| Event {
            kind: kind::GRAPH_TRACE,
            name: None,
            graph_node: 0,
            ..event.clone()
        });
        trace.end_ns = event.end_ns;
        truth::note(event, Outcome::Disabled);
    }
    graph.into_iter().for_each(activity::submit);
}

/// The places of all streams, each context's default before its others.
pub fn places() -> Vec<Place> {
    let gpu = lock(&GPU);
    (0..gpu.streams.len())
        .map(|stream| gpu.place(stream))
        .collect()
}

/// When all work on a stream, or of all streams of its context, ends.
pub fn free_ns(place: &Place, whole_context: bool) -> u64 {
    let gpu = lock(&GPU);
    let context = gpu.streams[place.stream].context;
    let mine = |(index, stream): &(usize, &Stream)| {
        if whole_context {
            stream.context == context
        } else {
            *index == place.stream
        }
    };
    let streams = gpu.streams.iter().enumerate();
    streams
        .filter(mine)
        .map(|(_, stream)| stream.free_ns)
        .max()
        .unwrap_or(0)
}

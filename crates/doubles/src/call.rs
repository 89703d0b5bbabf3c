//! A call of the driver or runtime: its times, correlation id, records, and who is called back about it.

use crate::activity::{self, Side};
use crate::clock::{self, Reading};
use crate::enabled::{self, Flags};
use crate::event::{Event, tid};
use crate::gpu::{self, Work};
use crate::layout::kind;
use crate::lock;
use crate::names::{self, domain};
use crate::truth::{self, Outcome};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

/// What a call came to.
#[derive(Default)]
pub struct Done {
    /// `CUresult`.
    pub code: u32,
    /// What it gave the device to do.
    pub works: Vec<Work>,
    /// What else there is to record: times 0 are the call's own.
    pub facts: Vec<Event>,
}

impl From<u32> for Done {
    fn from(code: u32) -> Self {
        Self {
            code,
            ..Self::default()
        }
    }
}

/// `CUpti_CallbackFunc`: user data, domain, callback id, data.
pub type Callback = unsafe extern "C" fn(*mut c_void, u32, u32, *const c_void);

/// Who is called back.
#[derive(Clone, Copy)]
pub struct Subscriber {
    pub callback: Callback,
    pub user: usize,
}

pub static SUBSCRIBER: Mutex<Option<Subscriber>> = Mutex::new(None);
/// Callback ids subscribed to, by domain.
pub static SUBSCRIBED: [Flags; 8] = [const { Flags::new() }; 8];
/// `cuptiSetThreadIdType(1)`: records say `gettid`.
pub static SYSTEM_TIDS: AtomicBool = AtomicBool::new(false);
/// The last correlation id; they are never reused.
static CORRELATION: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Correlation id of the call under way on this thread, which calls inside it share; 0 is none.
    static OUTER: Cell<u32> = const { Cell::new(0) };
    /// External ids pushed on this thread: kind, id.
    pub static EXTERNAL: RefCell<Vec<(u32, u64)>> = const { RefCell::new(Vec::new()) };
}

/// What records call this thread.
fn thread_id() -> u32 {
    if SYSTEM_TIDS.load(SeqCst) {
        return tid();
    }
    // SAFETY: no argument, cannot fail.
    unsafe { libc::pthread_self() as u32 }
}

/// `CUpti_CallbackData`.
#[repr(C)]
struct CallbackData {
    site: u32,
    function: *const c_char,
    parameters: *const c_void,
    result: *mut c_void,
    symbol: *const c_char,
    context: *mut c_void,
    context_id: u32,
    data: *mut u64,
    correlation: u32,
}

/// `CUpti_ResourceData`, and the `CUpti_GraphData` that it may point to.
#[repr(C)]
struct ResourceData {
    context: *mut c_void,
    stream: *mut c_void,
    descriptor: *mut c_void,
}

#[repr(C)]
#[derive(Default)]
struct GraphData {
    graph: usize,
    original_graph: usize,
    node: usize,
    original_node: usize,
    node_type: u32,
    dependency: usize,
    graph_exec: usize,
}

/// `CUpti_CallbackIdResource`.
pub mod resource {
    pub const CONTEXT_CREATED: u32 = 1;
    pub const CONTEXT_DESTROY_STARTING: u32 = 2;
    pub const STREAM_CREATED: u32 = 3;
    pub const CU_INIT_FINISHED: u32 = 5;
    pub const GRAPHNODE_CREATED: u32 = 13;
    pub const GRAPHEXEC_CREATED: u32 = 18;
}

/// The subscriber to a callback id, if there is one.
fn subscriber(domain: u32, cbid: u32) -> Option<Subscriber> {
    SUBSCRIBED[domain as usize]
        .get(cbid)
        .then(|| *lock(&SUBSCRIBER))
        .flatten()
}

/// Tells the subscriber of a resource; `graph` and `node` are 0 where it is not about a graph.
pub fn tell_resource(cbid: u32, stream: usize, graph: usize, node: usize) {
    let Some(subscriber) = subscriber(domain::RESOURCE, cbid) else {
        return;
    };
    let mut about = GraphData {
        graph,
        original_graph: graph,
        node,
        original_node: node,
        ..Default::default()
    };
    let data = ResourceData {
        context: gpu::current() as *mut c_void,
        stream: stream as *mut c_void,
        descriptor: if graph == 0 {
            std::ptr::null_mut()
        } else {
            (&raw mut about).cast()
        },
    };
    // SAFETY: what was subscribed, with data of the kind that the domain has; it is read during the call only.
    unsafe {
        (subscriber.callback)(
            subscriber.user as *mut c_void,
            domain::RESOURCE,
            cbid,
            (&raw const data).cast(),
        )
    };
}

/// Makes a call of `body`: the device work it leaves starts after the call has ended.
pub fn call(
    domain: u32,
    cbid: u32,
    symbol: Option<&'static CStr>,
    body: impl FnOnce() -> Done,
) -> u32 {
    let outer = OUTER.get();
    let correlation = match outer {
        0 => CORRELATION.fetch_add(1, SeqCst).wrapping_add(1).max(1),
        outer => outer,
    };
    OUTER.set(correlation);
    let subscriber = subscriber(domain, cbid);
    let mut data = 0;
    let mut tell = |site: u32, mut code: u32| {
        let Some(subscriber) = subscriber else { return };
        let current = gpu::current();
        let data = CallbackData {
            site,
            function: names::call(domain, cbid).map_or(std::ptr::null(), CStr::as_ptr),
            parameters: std::ptr::null(),
            result: (&raw mut code).cast(),
            symbol: symbol.map_or(std::ptr::null(), CStr::as_ptr),
            context: current as *mut c_void,
            context_id: gpu::of_context(current).map_or(0, |place| place.context),
            data: &raw mut data,
            correlation,
        };
        let user = subscriber.user as *mut c_void;
        // SAFETY: what was subscribed, with data of the kind that the domain has; it is read during the call only.
        unsafe { (subscriber.callback)(user, domain, cbid, (&raw const data).cast()) };
    };
    tell(0, 0);
    let start = clock::read();
    let Done { code, works, facts } = body();
    let end = clock::read();
    tell(1, code);
    OUTER.set(outer);
    gpu::submit(works, correlation, end.monotonic_ns);
    let kind = if domain == domain::DRIVER {
        kind::DRIVER
    } else {
        kind::RUNTIME
    };
    let event = Event {
        kind,
        cbid,
        return_value: code,
        name: names::call(domain, cbid),
        ..Event::default()
    };
    let event = stamp(event, correlation, start, end);
    let calls = if domain == domain::DRIVER {
        &enabled::DRIVER_CALLS
    } else {
        &enabled::RUNTIME_CALLS
    };
    if outer == 0 {
        external(correlation);
    }
    for fact in facts {
        put(stamp(fact, correlation, start, end), None);
    }
    put(event, Some(calls.get(cbid)));
    code
}

/// Records the devices, contexts or streams that there are.
pub fn dump(kind: u32) {
    let now = clock::read();
    let mut seen = BTreeSet::new();
    for place in gpu::places() {
        let key = match kind {
            kind::DEVICE => (place.device, 0),
            kind::CONTEXT => (place.context, 0),
            kind::STREAM => (place.context, place.stream_id),
            _ => return,
        };
        if seen.insert(key) {
            put(stamp(place.event(kind), 0, now, now), None);
        }
    }
}

/// Says who made an event and when, where it does not say itself.
fn stamp(mut event: Event, correlation: u32, start: Reading, end: Reading) -> Event {
    event.correlation = correlation;
    (event.tid, event.thread_id) = (tid(), thread_id());
    if event.start_ns == 0 {
        (event.start_ns, event.end_ns) = (start.monotonic_ns, end.monotonic_ns);
        (event.cupti_start, event.cupti_end) = (start.cupti, end.cupti);
    }
    event
}

/// The external ids that are pushed here go with the call.
fn external(correlation: u32) {
    if !enabled::is_enabled(kind::EXTERNAL_CORRELATION) {
        return;
    }
    let pushed = EXTERNAL.try_with(|pushed| pushed.borrow().clone());
    let pushed = pushed.unwrap_or_default(); // the thread is ending
    for (at, &(what, id)) in pushed.iter().enumerate() {
        let innermost = !pushed[at + 1..].iter().any(|later| later.0 == what);
        if innermost {
            let event = Event {
                kind: kind::EXTERNAL_CORRELATION,
                what,
                id,
                correlation,
                tid: tid(),
                ..Event::default()
            };
            put(event, None);
        }
    }
}

/// Records an event of the host, if its kind, or in its place `enabled`, says so.
fn put(event: Event, enabled: Option<bool>) {
    match enabled.unwrap_or(enabled::is_enabled(event.kind)) {
        true => activity::put(Side::Host, event),
        false => truth::note(event, Outcome::Disabled),
    }
}

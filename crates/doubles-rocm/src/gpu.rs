//! The GPUs inside: work starts after its launch has returned and after what is before it on its queue.
//!
//! Queues run in order and beside each other, so every start and end follows from the launches alone.

use crate::sdk::{self, Service};
use crate::{agents, monotonic_ns, settings, tid};
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Call(Service),
    Copy,
    Kernel,
    Allocation,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    pub what: What,
    pub name: String,
    pub operation: i32,
    pub correlation: u64,
    pub start_ns: u64,
    pub end_ns: u64,
    pub tid: u64,
    /// Where it ran; -1 is a processor.
    pub device: i64,
    /// Where a copy is from; -1 is a processor.
    pub from: i64,
    /// Source and target.
    pub agents: [u64; 2],
    pub queue: u64,
    pub kernel: u64,
    pub bytes: u64,
    /// In blocks.
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Work items that the last block of each dimension lacks.
    pub short: [u32; 3],
    pub group: u32,
    pub private: u32,
    pub registers: u32,
    pub zeroed: bool,
}

impl Event {
    pub fn new(what: What, name: &str, operation: i32) -> Event {
        Event {
            what,
            name: name.to_owned(),
            operation,
            correlation: 0,
            start_ns: 0,
            end_ns: 0,
            tid: tid(),
            device: -1,
            from: -1,
            agents: [0; 2],
            queue: 0,
            kernel: 0,
            bytes: 0,
            grid: [0; 3],
            block: [0; 3],
            short: [0; 3],
            group: 0,
            private: 0,
            registers: 0,
            zeroed: false,
        }
    }
}

#[derive(Clone, Copy)]
struct Queue {
    device: u32,
    /// When the last work on it ends.
    free_ns: u64,
}

/// A kernel of a code object.
pub struct Function {
    pub name: &'static CStr,
    pub registers: u32,
}

#[derive(Default)]
struct Gpus {
    queues: Vec<Queue>,
    functions: Vec<Function>,
}

static GPUS: Mutex<Gpus> = Mutex::new(Gpus {
    queues: vec![],
    functions: vec![],
});
/// What handles start from; they are numbers, never dereferenced.
pub const STREAM: usize = 0x5000_0000;
const FUNCTION: usize = 0xF000_0000;
/// The first kernel's number.
pub const KERNEL: u64 = 17;

thread_local! {
    static DEVICE: Cell<u32> = const { Cell::new(0) };
}

pub fn device() -> u32 {
    DEVICE.get()
}

pub fn set_device(device: u32) -> bool {
    let known = device < settings::get().devices;
    if known {
        DEVICE.set(device);
    }
    known
}

/// A queue of the thread's device, as a stream.
pub fn create_stream() -> usize {
    let mut gpus = crate::lock(&GPUS);
    gpus.queues.push(Queue {
        device: DEVICE.get(),
        free_ns: 0,
    });
    STREAM + gpus.queues.len() - 1
}

/// The queue of a stream; 0 is the default one, the first of the thread's device.
fn index(stream: usize) -> usize {
    if let Some(index) = stream.checked_sub(STREAM) {
        return index;
    }
    let device = DEVICE.get();
    let found = crate::lock(&GPUS)
        .queues
        .iter()
        .position(|queue| queue.device == device);
    found.unwrap_or_else(|| create_stream() - STREAM)
}

/// The handle of a queue, as the SDK has it.
fn handle(index: usize) -> u64 {
    match settings::get().long_queues {
        true => 0x7f00_0000_1000 + 64 * index as u64,
        false => 1 + index as u64,
    }
}

/// The function of that symbol, loaded now if it is new.
pub fn function(name: &CStr) -> usize {
    let (index, function) = {
        let mut gpus = crate::lock(&GPUS);
        if let Some(index) = gpus.functions.iter().position(|known| known.name == name) {
            return FUNCTION + index;
        }
        let index = gpus.functions.len();
        let name: &'static CStr = Box::leak(CString::from(name).into_boxed_c_str()); // never unloaded
        let registers = 24 + 8 * index as u32;
        gpus.functions.push(Function { name, registers });
        (index, Function { name, registers })
    };
    sdk::load(index as u64, &function, true);
    FUNCTION + index
}

/// Code goes: what its kernels were called.
pub fn unload() {
    for (index, function) in crate::lock(&GPUS).functions.iter().enumerate() {
        sdk::load(index as u64, function, false);
    }
}

/// A kernel, all but its times.
pub fn kernel(function: usize, grid: [u32; 3], block: [u32; 3], shared: u32) -> Option<Event> {
    let gpus = crate::lock(&GPUS);
    let index = function.checked_sub(FUNCTION)?;
    let known = gpus.functions.get(index)?;
    let mut event = Event::new(What::Kernel, &known.name.to_string_lossy(), 2);
    (event.kernel, event.registers) = (KERNEL + index as u64, known.registers);
    (event.grid, event.block, event.group) = (grid, block, shared);
    event.private = 16 * index as u32;
    // a grid of work items need not be whole blocks
    event.short[0] = if grid[0].is_multiple_of(2) {
        block[0] / 2
    } else {
        0
    };
    Some(event)
}

/// Places work of a call that ended at `launched_ns` on a stream's queue.
pub fn submit(mut event: Event, stream: usize, correlation: u64, launched_ns: u64, ns: u64) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let settings = settings::get();
    let index = index(stream);
    {
        let mut gpus = crate::lock(&GPUS);
        let queue = &mut gpus.queues[index];
        event.start_ns = queue.free_ns.max(launched_ns + settings.latency_ns);
        event.end_ns = event.start_ns + ns;
        queue.free_ns = event.end_ns;
        if event.what == What::Kernel {
            event.device = queue.device.into();
            event.agents[1] = agents::handle(Some(queue.device));
        }
    }
    event.queue = handle(index);
    event.correlation = correlation;
    let count = COUNT.fetch_add(1, SeqCst) + 1;
    event.zeroed = settings.zero_every > 0 && count.is_multiple_of(settings.zero_every);
    sdk::pend(event);
}

/// When all work on a stream, or of the thread's device, ends.
fn free_ns(stream: Option<usize>) -> u64 {
    let only = stream.map(index);
    let device = DEVICE.get();
    let gpus = crate::lock(&GPUS);
    let queues = gpus.queues.iter().enumerate();
    queues
        .filter(|(index, queue)| match only {
            Some(only) => *index == only,
            None => queue.device == device,
        })
        .map(|(_, queue)| queue.free_ns)
        .max()
        .unwrap_or(0)
}

/// Waits for a stream, or for all of the thread's device.
pub fn wait(stream: Option<usize>) {
    wait_until(free_ns(stream));
}

pub fn wait_until(ns: u64) {
    while let Some(rest) = ns.checked_sub(monotonic_ns()).filter(|rest| *rest > 0) {
        std::thread::sleep(std::time::Duration::from_nanos(rest.min(1_000_000)));
    }
}

//! CUPTI's activity records to records of the spool.

use super::layout::{Fields, api, context, device, graph, kernel, kind, memcpy, memory, memset};
use super::layout::{overhead, peer, stream, sync};
use super::shapes::{Shapes, in_graph};
use super::{calls, table::Cupti};
use crate::device::was_on;
use crate::hot;
use crate::json::quote;
use inferscope_spool::Producer;
use inferscope_spool::record::{DEVICES, NO_BYTES, NO_STREAM, Record};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};

/// `CUpti_ActivityMemcpyKind`: in a name and in words, as Kineto and Nsight have them.
const COPIES: [(&str, &str); 11] = [
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
];
/// `CUpti_ActivityMemoryKind`.
const MEMORIES: [&str; 8] = [
    "Unknown",
    "Pageable",
    "Pinned",
    "Device",
    "Array",
    "Managed",
    "Device Static",
    "Managed Static",
];
/// `CUpti_ActivitySynchronizationType`, in the words of Kineto.
const SYNCS: [&str; 5] = [
    "Unknown sync",
    "Event sync",
    "Stream wait event",
    "Stream sync",
    "Context sync",
];

/// Driver calls that wait for the runtime call around them; CUPTI writes that right after, perhaps in another buffer.
const HELD: usize = 1024;
/// A call that is not recorded.
const UNWANTED: u32 = u32::MAX;

/// Kinds of records are below this.
const KINDS: usize = 64;

/// What came, and what did not.
#[derive(Debug)]
pub struct Counts {
    pub records: [u64; KINDS],
    /// Without a time.
    pub untimed: u64,
    /// Dropped by CUPTI.
    pub dropped: u64,
    /// Of kinds that nobody here knows.
    pub unknown: BTreeMap<u32, u64>,
    /// Records without a length, after which a buffer could not be read.
    pub damaged: u64,
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            records: [0; KINDS],
            untimed: 0,
            dropped: 0,
            unknown: BTreeMap::new(),
            damaged: 0,
        }
    }
}

#[derive(Clone, Copy)]
struct Held {
    /// Correlation and thread.
    id: (u32, u32),
    record: Record<'static>,
    /// It was there when [`Decoder::settle`] was last called.
    waited: bool,
}

/// One for the process; whoever decodes holds it alone.
#[derive(Default)]
pub struct Decoder {
    chain: Option<Producer>,
    shapes: Shapes,
    /// Shapes of calls by their number, [`UNWANTED`], or 0 for those never met; of the driver and of the runtime.
    calls: [Vec<u32>; 2],
    held: Vec<Option<Held>>,
    /// Correlation and thread of runtime calls that came last, each where the driver's would be held.
    outer: Vec<(u32, u32)>,
    /// The device of each context.
    contexts: BTreeMap<u32, u32>,
    /// Record every call, and the driver's inside the runtime's.
    all_calls: bool,
    /// What makes a record's time one of the spool's: ns of CLOCK_MONOTONIC since the process's base.
    pub offset: i64,
    pub counts: Counts,
    /// When recording was switched, in ns since the base, and to what; see [`hot::hours`].
    hours: Vec<(u64, bool)>,
}

impl Decoder {
    /// Records every call if `all_calls`, else those that matter.
    pub fn new(all_calls: bool) -> Decoder {
        Decoder {
            all_calls,
            ..Decoder::default()
        }
    }

    /// Takes the records of one buffer, each as long as the way to the next one.
    ///
    /// # Safety
    /// As for [`Shapes::kernel`]: CUPTI has completed the buffer, and what records point to is still there.
    pub unsafe fn buffer(&mut self, cupti: &Cupti, buffer: *mut u8, valid: usize) {
        let Some(next) = cupti.cuptiActivityGetNextRecord else {
            return;
        };
        hot::hours(&mut self.hours);
        let mut at: *mut u8 = std::ptr::null_mut();
        // SAFETY: `next` steps through the buffer that CUPTI gave, starting from null, and says so at its end.
        let mut more = unsafe { next(buffer, valid, &mut at) } == 0;
        let end = buffer as usize + valid;
        while more && !at.is_null() {
            let this = at;
            // SAFETY: as above.
            more = unsafe { next(buffer, valid, &mut at) } == 0 && at > this;
            let until = if more { at as usize } else { end };
            let len = until.saturating_sub(this as usize);
            if !(8..=valid).contains(&len) {
                self.counts.damaged += 1;
                break;
            }
            // SAFETY: the record lies in the buffer, which is ours while it is decoded.
            unsafe { self.record(cupti, Fields(std::slice::from_raw_parts(this, len))) };
        }
    }

    /// Lets go of driver calls that no runtime call came around: `all`, or those that have waited since the last time.
    pub fn settle(&mut self, all: bool) {
        for at in 0..self.held.len() {
            match &mut self.held[at] {
                Some(held) if !all && !held.waited => held.waited = true,
                place => {
                    if let Some(held) = place.take() {
                        self.push(&held.record);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As for [`Decoder::buffer`].
    #[inline]
    unsafe fn record(&mut self, cupti: &Cupti, record: Fields) {
        let kind = record.u32(0);
        if let Some(count) = self.counts.records.get_mut(kind as usize) {
            *count += 1;
        }
        match kind {
            // SAFETY: as the caller promises.
            kind::CONCURRENT_KERNEL | kind::KERNEL => unsafe { self.kernel(record) },
            kind::RUNTIME | kind::DRIVER => self.call(cupti, kind, record),
            kind::MEMCPY => self.copy(record),
            kind::MEMCPY_PEER => self.peer(record),
            kind::MEMSET => self.memset(record),
            kind::SYNCHRONIZATION => self.sync(record),
            kind::OVERHEAD => self.overhead(record),
            kind::GRAPH_TRACE => self.graph(record),
            kind::MEMORY => self.memory(record),
            // SAFETY: as the caller promises, of the device's name.
            kind::DEVICE => unsafe { device(record) },
            kind::CONTEXT => {
                let (id, on) = (record.u32(context::CONTEXT), record.u32(context::DEVICE));
                self.contexts.insert(id, on);
                let name = format!("context {id}");
                hot::facts(&name, &format!("{{\"context\":{id},\"device\":{on}}}"));
            }
            kind::STREAM => {
                let (context, id) = (record.u32(stream::CONTEXT), record.u32(stream::STREAM));
                let priority = record.u32(stream::PRIORITY) as i32;
                let json =
                    format!("{{\"stream\":{id},\"context\":{context},\"priority\":{priority}}}");
                hot::facts(&format!("stream {context} {id}"), &json);
            }
            _ => {
                if let Some(count) = self.counts.records.get_mut(kind as usize) {
                    *count = 0;
                }
                *self.counts.unknown.entry(kind).or_default() += 1;
            }
        }
    }

    /// Start and length as the spool has them; `None` for what has no time, or was while recording was off.
    #[inline(always)]
    fn span(&mut self, start: u64, end: u64) -> Option<(u64, u64)> {
        if start == 0 || end == 0 {
            self.counts.untimed += 1;
            return None;
        }
        let at = start.wrapping_add_signed(self.offset);
        let on = was_on(&self.hours, at);
        on.then_some((at, end.saturating_sub(start)))
    }

    #[inline(always)]
    fn push(&mut self, record: &Record) {
        if self.chain.is_none() {
            self.chain = hot::chain(DEVICES);
        }
        if let (Some(chain), Some(words)) = (&mut self.chain, record.words()) {
            hot::push_to(chain, words.as_slice());
        }
    }

    #[inline(always)]
    fn work(
        &mut self,
        (time, dur): (u64, u64),
        id: u32,
        correlation: u32,
        stream: u32,
        bytes: u64,
    ) {
        self.push(&Record::Work {
            time,
            id,
            correlation,
            dur,
            stream,
            bytes,
        });
    }

    /// # Safety
    /// As for [`Shapes::kernel`].
    #[inline(always)]
    unsafe fn kernel(&mut self, record: Fields) {
        if let Some(span) = self.span(record.u64(kernel::START), record.u64(kernel::END)) {
            // SAFETY: as the caller promises.
            let id = unsafe { self.shapes.kernel(record) };
            let correlation = record.u32(kernel::CORRELATION);
            self.work(span, id, correlation, record.u32(kernel::STREAM), NO_BYTES);
        }
    }

    fn copy(&mut self, record: Fields) {
        let Some(span) = self.span(record.u64(memcpy::START), record.u64(memcpy::END)) else {
            return;
        };
        let kinds = record.u32(memcpy::COPY_KIND); // four bytes: kind, source, target, flags
        let [on, context] = [memcpy::DEVICE, memcpy::CONTEXT].map(|at| record.u32(at));
        let (graph, node) = (record.u32(memcpy::GRAPH), record.u64(memcpy::GRAPH_NODE));
        let key = [
            u64::from(kind::MEMCPY) << 32 | u64::from(kinds),
            u64::from(on) << 32 | u64::from(context),
            node,
            graph.into(),
        ];
        let id = self.shapes.other(key, || {
            let part = |at: usize| usize::from(record.u8(at));
            let (short, words) = COPIES
                .get(part(memcpy::COPY_KIND))
                .copied()
                .unwrap_or_default();
            let memory = |at| MEMORIES.get(part(at)).copied().unwrap_or(MEMORIES[0]);
            let [from, to] = [memcpy::SOURCE_KIND, memcpy::TARGET_KIND].map(memory);
            let mut args = format!(
                "\"context\":{context},\"copy\":{},\"from\":{},\"to\":{}",
                quote(words),
                quote(&from.to_lowercase()),
                quote(&to.to_lowercase())
            );
            if record.u8(memcpy::FLAGS) & 1 != 0 {
                args += ",\"async\":true";
            }
            in_graph(&mut args, graph, node);
            let rest = format!(",\"device\":{on},\"args\":{{{args}}}");
            ("memcpy", format!("Memcpy {short} ({from} -> {to})"), rest)
        });
        let bytes = record.u64(memcpy::BYTES);
        let [correlation, stream] = [memcpy::CORRELATION, memcpy::STREAM].map(|at| record.u32(at));
        self.work(span, id, correlation, stream, bytes);
    }

    fn peer(&mut self, record: Fields) {
        let Some(span) = self.span(record.u64(memcpy::START), record.u64(memcpy::END)) else {
            return;
        };
        let [on, context, from, to] = [
            peer::DEVICE,
            peer::CONTEXT,
            peer::SOURCE_DEVICE,
            peer::TARGET_DEVICE,
        ]
        .map(|at| record.u32(at));
        let (graph, node) = (record.u32(peer::GRAPH), record.u64(peer::GRAPH_NODE));
        let key = [
            u64::from(kind::MEMCPY_PEER) << 48 | u64::from(from) << 24 | u64::from(to),
            u64::from(on) << 32 | u64::from(context),
            node,
            graph.into(),
        ];
        let id = self.shapes.other(key, || {
            let mut args = format!(
                "\"context\":{context},\"copy\":\"peer to peer\",\"from_device\":{from},\"to_device\":{to}"
            );
            in_graph(&mut args, graph, node);
            let rest = format!(",\"device\":{on},\"args\":{{{args}}}");
            ("memcpy", "Memcpy PtoP (Device -> Device)".into(), rest)
        });
        let bytes = record.u64(memcpy::BYTES);
        let [correlation, stream] = [peer::CORRELATION, peer::STREAM].map(|at| record.u32(at));
        self.work(span, id, correlation, stream, bytes);
    }

    fn memset(&mut self, record: Fields) {
        let Some(span) = self.span(record.u64(memset::START), record.u64(memset::END)) else {
            return;
        };
        let memory = record.u16(memset::MEMORY_KIND);
        let [on, context] = [memset::DEVICE, memset::CONTEXT].map(|at| record.u32(at));
        let (graph, node) = (record.u32(memset::GRAPH), record.u64(memset::GRAPH_NODE));
        let key = [
            u64::from(kind::MEMSET) << 32 | u64::from(memory),
            u64::from(on) << 32 | u64::from(context),
            node,
            graph.into(),
        ];
        let id = self.shapes.other(key, || {
            let memory = MEMORIES
                .get(usize::from(memory))
                .copied()
                .unwrap_or(MEMORIES[0]);
            let mut args = format!("\"context\":{context}");
            in_graph(&mut args, graph, node);
            let rest = format!(",\"device\":{on},\"args\":{{{args}}}");
            ("memset", format!("Memset ({memory})"), rest)
        });
        let bytes = record.u64(memset::BYTES);
        let [correlation, stream] = [memset::CORRELATION, memset::STREAM].map(|at| record.u32(at));
        self.work(span, id, correlation, stream, bytes);
    }

    /// A whole CUDA graph: the device was at work for that long, on what nobody knows.
    fn graph(&mut self, record: Fields) {
        let Some(span) = self.span(record.u64(graph::START), record.u64(graph::END)) else {
            return;
        };
        let [on, context, graph] =
            [graph::DEVICE, graph::CONTEXT, graph::GRAPH].map(|at| record.u32(at));
        let key = [
            u64::from(kind::GRAPH_TRACE) << 32,
            u64::from(on) << 32 | u64::from(context),
            graph.into(),
            0,
        ];
        let id = self.shapes.other(key, || {
            let args = format!("\"context\":{context},\"graph\":{graph},\"whole\":true");
            let rest = format!(",\"device\":{on},\"args\":{{{args}}}");
            ("kernel", format!("graph {graph}"), rest)
        });
        let [correlation, stream] = [graph::CORRELATION, graph::STREAM].map(|at| record.u32(at));
        self.work(span, id, correlation, stream, NO_BYTES);
    }

    fn sync(&mut self, record: Fields) {
        let Some(span) = self.span(record.u64(sync::START), record.u64(sync::END)) else {
            return;
        };
        let [form, context] = [sync::TYPE, sync::CONTEXT].map(|at| record.u32(at));
        let on = self.contexts.get(&context).copied();
        let key = [
            u64::from(kind::SYNCHRONIZATION) << 32 | u64::from(form),
            context.into(),
            on.map_or(u64::MAX, u64::from),
            0,
        ];
        let id = self.shapes.other(key, || {
            let name = SYNCS.get(form as usize).copied().unwrap_or(SYNCS[0]);
            let on = on.map_or_else(String::new, |on| format!(",\"device\":{on}"));
            let rest = format!("{on},\"args\":{{\"context\":{context}}}");
            ("sync", name.into(), rest)
        });
        let [correlation, stream] = [sync::CORRELATION, sync::STREAM].map(|at| record.u32(at));
        self.work(span, id, correlation, stream, NO_BYTES);
    }

    fn memory(&mut self, record: Fields) {
        let time = record.u64(memory::TIME);
        let Some((time, _)) = self.span(time, time) else {
            return;
        };
        let [operation, memory, on] =
            [memory::OPERATION, memory::MEMORY_KIND, memory::DEVICE].map(|at| record.u32(at));
        let key = [
            u64::from(kind::MEMORY) << 32 | u64::from(operation),
            u64::from(memory) << 32 | u64::from(on),
            0,
            0,
        ];
        let id = self.shapes.other(key, || {
            let name = MEMORIES
                .get(memory as usize)
                .copied()
                .unwrap_or(MEMORIES[0]);
            let freed = if operation == 2 {
                ",\"freed\":true"
            } else {
                ""
            };
            (
                "alloc",
                name.to_lowercase(),
                format!(",\"device\":{on}{freed}"),
            )
        });
        let bytes = record.u64(memory::BYTES);
        let stream = record.u32(memory::STREAM);
        self.work(
            (time, 0),
            id,
            record.u32(memory::CORRELATION),
            stream,
            bytes,
        );
    }

    fn overhead(&mut self, record: Fields) {
        let Some((time, dur)) = self.span(record.u64(overhead::START), record.u64(overhead::END))
        else {
            return;
        };
        let form = record.u32(overhead::KIND);
        let on_thread = record.u32(overhead::OBJECT) == 2; // CUPTI_ACTIVITY_OBJECT_THREAD
        let key = [
            u64::from(kind::OVERHEAD) << 32 | u64::from(form),
            on_thread.into(),
            if on_thread {
                0
            } else {
                record.u32(overhead::DEVICE).into()
            },
            0,
        ];
        let id = self.shapes.other(key, || {
            // CUpti_ActivityOverheadKind
            let name = match form {
                1 => "driver compiler",
                0x1_0000 => "CUPTI buffer flush",
                0x2_0000 => "CUPTI instrumentation",
                0x3_0000 => "CUPTI resource",
                0x4_0000 => "module loading",
                0x5_0000 => "lazy function loading",
                0x6_0000 => "launch queue full",
                0x7_0000 => "CUPTI activity",
                _ => "overhead",
            };
            let device = match on_thread {
                true => String::new(),
                false => format!(",\"device\":{}", record.u32(overhead::DEVICE)),
            };
            ("overhead", name.into(), device)
        });
        let correlation = record.u32(overhead::CORRELATION);
        match on_thread {
            true => self.push(&Record::Call {
                time,
                id,
                correlation,
                dur,
                tid: record.u32(overhead::THREAD),
                result: 0,
            }),
            false => self.work((time, dur), id, correlation, NO_STREAM, NO_BYTES),
        }
    }

    #[inline]
    fn call(&mut self, cupti: &Cupti, kind: u32, record: Fields) {
        let id = self.call_shape(cupti, kind, record.u32(api::CALLBACK));
        if id == UNWANTED {
            return;
        }
        let Some((time, dur)) = self.span(record.u64(api::START), record.u64(api::END)) else {
            return;
        };
        let [correlation, tid] = [api::CORRELATION, api::THREAD].map(|at| record.u32(at));
        let record = Record::Call {
            time,
            id,
            correlation,
            dur,
            tid,
            result: record.u32(api::RESULT),
        };
        if self.all_calls {
            return self.push(&record);
        }
        // A call of the runtime and the driver's inside it have one correlation id: the outer one is kept. It mostly comes
        // right after the inner one, but a buffer that ends between them may be decoded before the one that follows, or
        // after it.
        self.held.resize(HELD, None);
        self.outer.resize(HELD, (0, 0));
        let (place, id) = (correlation as usize % HELD, (correlation, tid));
        let before = self.held[place].take();
        if kind == kind::RUNTIME {
            self.outer[place] = id;
            self.push(&record);
            if let Some(held) = before.filter(|held| held.id != id) {
                self.push(&held.record);
            }
        } else {
            if self.outer[place] != id {
                self.held[place] = Some(Held {
                    id,
                    record,
                    waited: false,
                });
            }
            if let Some(held) = before {
                self.push(&held.record);
            }
        }
    }

    #[inline]
    fn call_shape(&mut self, cupti: &Cupti, kind: u32, callback: u32) -> u32 {
        let domain = calls::domain(kind);
        let known = &mut self.calls[(domain - 1) as usize];
        let at = callback.min(1 << 16) as usize;
        if known.len() <= at {
            known.resize(at + 1, 0);
        }
        if known[at] != 0 {
            return known[at];
        }
        let name = calls::name(cupti, domain, callback);
        let id = match &name {
            Some(name) if !self.all_calls && !calls::wanted(name) => UNWANTED,
            _ => self
                .shapes
                .other([u64::from(kind) << 32, callback.into(), 0, 0], || {
                    let word = if kind == kind::RUNTIME {
                        "runtime"
                    } else {
                        "driver"
                    };
                    let name = name.unwrap_or_else(|| format!("{word} call {callback}"));
                    ("api", name, String::new())
                }),
        };
        self.calls[(domain - 1) as usize][at] = id;
        id
    }
}

/// Tells what a device is.
///
/// # Safety
/// The name is null or a C string.
unsafe fn device(record: Fields) {
    let name = record.u64(device::NAME) as *const c_char;
    let name = match name.is_null() {
        true => "GPU".into(),
        // SAFETY: as the caller promises.
        false => unsafe { CStr::from_ptr(name) }.to_string_lossy(),
    };
    let id = record.u32(device::ID);
    let uuid = record.0.get(device::UUID..device::UUID + 16);
    let uuid: String = uuid
        .unwrap_or_default()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let json = format!(
        "{{\"device\":{id},\"uuid\":\"{uuid}\",\"name\":{},\"bytes\":{},\"sms\":{},\"warp\":{},\"compute\":\"{}.{}\",\"clock_khz\":{},\
         \"warps_per_sm\":{},\"blocks_per_sm\":{},\"shared_bytes_per_sm\":{},\"registers_per_sm\":{}}}",
        quote(&name),
        record.u64(device::MEMORY_BYTES),
        record.u32(device::SMS),
        record.u32(device::WARP),
        record.u32(device::MAJOR),
        record.u32(device::MINOR),
        record.u32(device::CLOCK_KHZ),
        record.u32(device::WARPS),
        record.u32(device::BLOCKS),
        record.u32(device::SHARED_BYTES),
        record.u32(device::REGISTERS),
    );
    hot::facts(&format!("device {id}"), &json);
}

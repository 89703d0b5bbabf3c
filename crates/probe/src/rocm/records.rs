//! rocprofiler-sdk's records to records of the spool.

use super::agents::Gpu;
use super::kernels;
use super::layout::{self, Fields, LONGEST, SHORTEST, TRACING, api, copy, kernel, memory};
use super::services::{Service, Services};
use super::table::{Header, Sdk};
use crate::cuda::calls;
use crate::cuda::shapes::{MOST, Map, Shapes};
use crate::device::was_on;
use crate::hot;
use inferscope_spool::Producer;
use inferscope_spool::record::{DEVICES, NO_BYTES, NO_STREAM, Record};
use std::collections::BTreeMap;

/// `rocprofiler_memory_copy_operation_t`: in a name and in words, as our importers have them.
const COPIES: [(&str, &str, &str); 5] = [
    ("", "", ""),
    ("HtoH", "Host", "Host"),
    ("HtoD", "Host", "Device"),
    ("DtoH", "Device", "Host"),
    ("DtoD", "Device", "Device"),
];

/// A call that is not recorded.
const UNWANTED: u32 = u32::MAX;
/// Queues that have a stream of their own number.
const MOST_QUEUES: usize = 1 << 16;

/// What came, and what did not.
#[derive(Debug, Default)]
pub struct Counts {
    pub records: BTreeMap<&'static str, u64>,
    /// Without a time.
    pub untimed: u64,
    /// Dropped by the SDK, in all.
    pub dropped: u64,
    /// Of kinds that nobody here knows.
    pub unknown: BTreeMap<u32, u64>,
    /// Of an impossible length.
    pub damaged: u64,
}

/// Words that make a kernel's shape: kernel, device and private bytes, grid, work group and its bytes, queue.
type Key = [u64; 7];

/// One for the process; whoever decodes holds it alone.
pub struct Decoder {
    services: Services,
    gpus: Vec<Gpu>,
    chain: Option<Producer>,
    shapes: Shapes,
    kernels: Map<Key, u32>,
    /// Shapes of calls by their kind and number, or [`UNWANTED`].
    calls: Map<u64, u32>,
    /// Numbers of queues whose handles are too long for a stream's.
    queues: Map<u64, u32>,
    /// Record every call.
    all_calls: bool,
    /// What is to be added to a record's times, in ns.
    pub offset: i64,
    pub counts: Counts,
    /// When recording was switched, in ns since the base, and to what; see [`hot::hours`].
    hours: Vec<(u64, bool)>,
}

impl Decoder {
    pub fn new(services: Services, gpus: Vec<Gpu>, all_calls: bool) -> Decoder {
        Decoder {
            services,
            gpus,
            chain: None,
            shapes: Shapes::default(),
            kernels: Map::default(),
            calls: Map::default(),
            queues: Map::default(),
            all_calls,
            offset: 0,
            counts: Counts::default(),
            hours: Vec::new(),
        }
    }

    /// Takes the records of one delivery.
    ///
    /// # Safety
    /// Each header is null or one of the SDK's, with a record that begins with its size.
    pub unsafe fn batch(&mut self, sdk: &Sdk, headers: &[*mut Header]) {
        hot::hours(&mut self.hours);
        for at in headers {
            // SAFETY: as the caller promises.
            let Some(header) = (unsafe { at.as_ref() }) else {
                continue;
            };
            let service = self.services.get(header.kind);
            let Some(service) = service.filter(|_| header.category == TRACING) else {
                *self.counts.unknown.entry(header.kind).or_default() += 1;
                continue;
            };
            let size = match header.payload.is_null() {
                true => 0,
                // SAFETY: as the caller promises.
                false => unsafe { header.payload.cast::<u64>().read_unaligned() },
            };
            if !(SHORTEST..=LONGEST).contains(&size) {
                self.counts.damaged += 1;
                continue;
            }
            // SAFETY: as the caller promises, it is that long.
            let record = unsafe { std::slice::from_raw_parts(header.payload, size as usize) };
            self.record(sdk, service, header.kind, Fields(record));
        }
    }

    fn record(&mut self, sdk: &Sdk, service: Service, kind: u32, record: Fields) {
        let least = match service {
            Service::Kernel => kernel::LEAST,
            Service::Copy => copy::LEAST,
            Service::Memory => memory::LEAST,
            _ => api::OLD_SIZE,
        };
        if record.u64(layout::SIZE) < least {
            self.counts.damaged += 1;
            return;
        }
        *self.counts.records.entry(service.word()).or_default() += 1;
        match service {
            Service::Kernel => self.kernel(record),
            Service::Copy => self.copy(record),
            Service::Memory => self.memory(record),
            Service::Runtime | Service::Compiler | Service::Rccl => {
                self.call(sdk, service, kind, record);
            }
        }
    }

    /// Start and length as the spool has them; `None` for what has no time, or was while recording was off.
    fn span(&mut self, start: u64, end: u64) -> Option<(u64, u64)> {
        if start == 0 || end == 0 {
            self.counts.untimed += 1;
            return None;
        }
        let at = start.wrapping_add_signed(self.offset);
        was_on(&self.hours, at).then_some((at, end.saturating_sub(start)))
    }

    fn push(&mut self, record: &Record) {
        if self.chain.is_none() {
            self.chain = hot::chain(DEVICES);
        }
        if let (Some(chain), Some(words)) = (&mut self.chain, record.words()) {
            hot::push_to(chain, words.as_slice());
        }
    }

    /// The number of a GPU; `None` of a processor.
    fn gpu(&self, agent: u64) -> Option<u32> {
        self.gpus
            .iter()
            .find(|known| known.0 == agent)
            .map(|known| known.1)
    }

    /// A queue as a stream: its own number, which is small (`hsa_queue_t.id`), or one that stands for it.
    fn stream(&mut self, queue: u64) -> u32 {
        if queue < MOST_QUEUES as u64 {
            return queue as u32;
        }
        if self.queues.len() >= MOST_QUEUES {
            return NO_STREAM;
        }
        let next = (MOST_QUEUES + self.queues.len()) as u32;
        *self.queues.entry(queue).or_insert(next)
    }

    fn kernel(&mut self, record: Fields) {
        let Some((time, dur)) = self.span(record.u64(kernel::START), record.u64(kernel::END))
        else {
            return;
        };
        let queue = record.u64(kernel::QUEUE);
        let stream = self.stream(queue);
        let id = self.kernel_shape(record, queue);
        self.push(&Record::Work {
            time,
            id,
            correlation: record.u64(layout::CORRELATION) as u32,
            dur,
            stream,
            bytes: NO_BYTES,
        });
    }

    fn kernel_shape(&mut self, record: Fields, queue: u64) -> u32 {
        let pair = |a: u32, b: u32| u64::from(a) << 32 | u64::from(b);
        let [id, agent] = [kernel::KERNEL, kernel::AGENT].map(|at| record.u64(at));
        let [private, group] = [kernel::PRIVATE, kernel::GROUP].map(|at| record.u32(at));
        let items = record.three(kernel::GRID);
        let block = record.three(kernel::WORKGROUP);
        let device = self.gpu(agent).unwrap_or(0);
        let mut key = [
            id,
            pair(device, private),
            pair(items[0], items[1]),
            pair(items[2], block[0]),
            pair(block[1], block[2]),
            group.into(),
            queue,
        ];
        let whole = self.kernels.len() < MOST;
        if !whole && !self.kernels.contains_key(&key) {
            key = [id, pair(device, 0), 0, 0, 0, 0, 0];
        }
        if let Some(&known) = self.kernels.get(&key) {
            return known;
        }
        let known = kernels::get(id);
        let named = match &known {
            Some(known) => self.shapes.name(&known.name),
            None => hot::define(&format!("kernel {id}"), "", 0),
        };
        let mut args = Vec::new();
        if whole {
            // HSA counts work items, where HIP and CUDA count blocks.
            let [gx, gy, gz] = [0, 1, 2].map(|at| items[at].div_ceil(block[at].max(1)));
            let [bx, by, bz] = block;
            args.push(format!(
                "\"grid\":[{gx},{gy},{gz}],\"block\":[{bx},{by},{bz}]"
            ));
        }
        if let Some(known) = &known {
            args.push(format!("\"registers\":{}", known.registers));
        }
        if whole {
            args.push(format!("\"shared_bytes\":{group}"));
            if private > 0 {
                args.push(format!("\"local_bytes\":{private}"));
            }
            args.push(format!("\"queue\":{queue}"));
        }
        let args = args.join(",");
        let id = self.shapes.define(&format!(
            "{{\"kind\":\"kernel\",\"name\":{named},\"device\":{device},\"args\":{{{args}}}}}"
        ));
        self.kernels.insert(key, id);
        id
    }

    fn copy(&mut self, record: Fields) {
        let Some((time, dur)) = self.span(record.u64(copy::START), record.u64(copy::END)) else {
            return;
        };
        let operation = record.u32(layout::OPERATION);
        let [from, to] = [copy::SOURCE, copy::TARGET].map(|at| self.gpu(record.u64(at)));
        let number = |gpu: Option<u32>| gpu.map_or(u64::MAX, u64::from);
        let key = [1, operation.into(), number(from), number(to)];
        let id = self.shapes.other(key, || {
            let mut args = String::new();
            let name = match COPIES.get(operation as usize) {
                Some((short, source, target)) if !short.is_empty() => {
                    let (lower, end) = (source.to_lowercase(), target.to_lowercase());
                    args = format!(
                        "\"copy\":\"{lower} to {end}\",\"from\":\"{lower}\",\"to\":\"{end}\""
                    );
                    format!("Memcpy {short} ({source} -> {target})")
                }
                _ => "Memcpy".to_owned(),
            };
            if let (Some(from), Some(to)) = (from, to)
                && from != to
                && !args.is_empty()
            {
                args += &format!(",\"from_device\":{from},\"to_device\":{to}");
            }
            let device = to.or(from).unwrap_or(0);
            let rest = format!(",\"device\":{device},\"args\":{{{args}}}");
            ("memcpy", name, rest)
        });
        self.push(&Record::Work {
            time,
            id,
            correlation: record.u64(layout::CORRELATION) as u32,
            dur,
            stream: NO_STREAM,
            bytes: record.u64(copy::BYTES),
        });
    }

    fn memory(&mut self, record: Fields) {
        let at = record.u64(memory::START);
        let Some((time, _)) = self.span(at, at) else {
            return;
        };
        let gpu = self.gpu(record.u64(memory::AGENT));
        let freed = memory::FREED.contains(&record.u32(layout::OPERATION));
        let key = [2, freed.into(), gpu.map_or(u64::MAX, u64::from), 0];
        let id = self.shapes.other(key, || {
            let device = gpu.map_or_else(String::new, |gpu| format!(",\"device\":{gpu}"));
            let freed = if freed { ",\"freed\":true" } else { "" };
            let kind = if gpu.is_some() { "device" } else { "pinned" };
            ("alloc", kind.into(), format!("{device}{freed}"))
        });
        self.push(&Record::Work {
            time,
            id,
            correlation: record.u64(layout::CORRELATION) as u32,
            dur: 0,
            stream: NO_STREAM,
            bytes: record.u64(memory::BYTES),
        });
    }

    fn call(&mut self, sdk: &Sdk, service: Service, kind: u32, record: Fields) {
        let id = self.call_shape(sdk, service, kind, record.u32(layout::OPERATION));
        if id == UNWANTED {
            return;
        }
        let first = match record.u64(layout::SIZE) < api::NEW_SIZE {
            true => api::OLD,
            false => api::NEW,
        };
        let [start, end, tid] = [0, 8, 16].map(|at| record.u64(first + at));
        let Some((time, dur)) = self.span(start, end) else {
            return;
        };
        self.push(&Record::Call {
            time,
            id,
            correlation: record.u64(layout::CORRELATION) as u32,
            dur,
            tid: tid as u32,
            result: 0, // not told
        });
    }

    fn call_shape(&mut self, sdk: &Sdk, service: Service, kind: u32, operation: u32) -> u32 {
        let key = u64::from(kind) << 32 | u64::from(operation);
        if let Some(&known) = self.calls.get(&key) {
            return known;
        }
        let name = sdk.operation_name(kind, operation as i32);
        let id = match &name {
            Some(name)
                if service == Service::Runtime && !self.all_calls && !calls::wanted(name) =>
            {
                UNWANTED
            }
            _ => self.shapes.other([3, key, 0, 0], || {
                let word = service.word().trim_end_matches('s');
                let name = name.unwrap_or_else(|| format!("{word} {operation}"));
                ("api", name, String::new())
            }),
        };
        if self.calls.len() < MOST {
            self.calls.insert(key, id);
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_streams_of_their_own_number_or_one_that_stands_for_it() {
        let sdk = Sdk::none();
        let mut decoder = Decoder::new(Services::of(&sdk, 10_000, false, false), vec![], false);
        assert_eq!(decoder.stream(3), 3);
        let long = decoder.stream(0x7f00_dead_beef);
        assert!(long >= MOST_QUEUES as u32);
        assert_eq!(decoder.stream(0x7f00_dead_beef), long);
        assert_ne!(decoder.stream(0x7f00_dead_beee), long);
    }

    #[test]
    fn records_of_an_impossible_length_or_kind_are_counted_and_not_read() {
        let sdk = Sdk::none();
        let mut decoder = Decoder::new(Services::of(&sdk, 10_000, false, false), vec![], false);
        let long = [u64::MAX; 2];
        let short = [8u64; 2];
        let header = |category, kind, payload: *const u64| Header {
            category,
            kind,
            payload: payload.cast(),
        };
        let mut all = [
            header(TRACING, 11, long.as_ptr()),
            header(TRACING, 11, short.as_ptr()),
            header(TRACING, 11, std::ptr::null()),
            header(TRACING, 77, long.as_ptr()),
            header(3, 11, long.as_ptr()),
        ];
        let mut at: Vec<*mut Header> = all.iter_mut().map(std::ptr::from_mut).collect();
        at.push(std::ptr::null_mut());
        // SAFETY: each is a header of ours, with at least a size behind it, or null.
        unsafe { decoder.batch(&sdk, &at) };
        assert_eq!(decoder.counts.damaged, 3);
        assert_eq!(decoder.counts.unknown, BTreeMap::from([(11, 1), (77, 1)]));
        assert!(decoder.counts.records.is_empty());
    }
}

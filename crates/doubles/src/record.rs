//! An event as the bytes of an activity record of the version pretended.

use crate::event::{Event, pid};
use crate::layout::{self, kind};

/// The longest record there is, in bytes.
const MOST: usize = 256;

/// What a device is called.
pub const DEVICE_NAME: &std::ffi::CStr = c"NVIDIA H200";
/// A device's memory, in bytes.
pub const DEVICE_MEMORY: u64 = 141 << 30;

/// A record under way; what lies past its length, in this version, is not written.
struct Record {
    bytes: [u8; MOST],
    length: usize,
}

impl Record {
    fn put(&mut self, at: usize, field: &[u8]) {
        let end = at + field.len();
        if end <= self.length {
            self.bytes[at..end].copy_from_slice(field);
        }
    }

    fn u8(&mut self, at: usize, value: u8) {
        self.put(at, &[value]);
    }

    fn u16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_ne_bytes());
    }

    fn u32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_ne_bytes());
    }

    fn u64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_ne_bytes());
    }

    fn name(&mut self, at: usize, name: Option<&'static std::ffi::CStr>) {
        self.u64(at, name.map_or(0, |name| name.as_ptr() as u64));
    }
}

/// Writes the record into `to`, which must be as long as the version has it; false if the double has no such record.
pub fn write(event: &Event, version: u32, to: &mut [u8]) -> bool {
    let Some(length) = layout::bytes(version, event.kind).filter(|&length| length == to.len())
    else {
        return false;
    };
    let mut record = Record {
        bytes: [0; MOST],
        length,
    };
    record.u32(layout::KIND, event.kind);
    match event.kind {
        kind::KERNEL | kind::CONCURRENT_KERNEL => kernel(&mut record, event),
        kind::MEMCPY => memcpy(&mut record, event),
        kind::MEMCPY2 => peer(&mut record, event),
        kind::MEMSET => memset(&mut record, event),
        kind::DRIVER | kind::RUNTIME => api(&mut record, event),
        kind::DEVICE => device(&mut record, event),
        kind::UNHEARD_OF => record.bytes[4..length].fill(0xa5),
        _ => facts(&mut record, event),
    }
    to.copy_from_slice(&record.bytes[..length]);
    true
}

fn kernel(record: &mut Record, event: &Event) {
    use layout::kernel::*;
    record.u16(REGISTERS, 32);
    record.u64(START, event.cupti_start);
    record.u64(END, event.cupti_end);
    record.u64(COMPLETED, event.cupti_end);
    record.u32(DEVICE, event.device);
    record.u32(CONTEXT, event.context);
    record.u32(STREAM, event.stream);
    for axis in 0..3 {
        record.u32(GRID + 4 * axis, event.grid[axis]);
        record.u32(BLOCK + 4 * axis, event.block[axis]);
        record.u32(CLUSTER + 4 * axis, 1);
    }
    record.u32(STATIC_SHARED, 1024);
    record.u32(DYNAMIC_SHARED, event.shared);
    record.u32(LOCAL_PER_THREAD, 0);
    record.u32(LOCAL_TOTAL, 0);
    record.u32(CORRELATION, event.correlation);
    record.u64(GRID_ID, event.correlation.into());
    record.name(NAME, event.name.filter(|_| !event.nameless));
    record.u32(SHARED_EXECUTED, 16 << 10);
    record.u64(GRAPH_NODE, event.graph_node);
    record.u32(GRAPH, event.graph);
    record.u32(CHANNEL, event.stream);
    record.u32(CHANNEL_TYPE, 1);
    record.u32(MAX_ACTIVE_CLUSTERS, 132);
    record.u32(PRIORITY, event.priority as u32);
    record.u32(EXECUTION_MODEL, 1);
    record.u32(SOURCE_GRAPH, event.graph);
    record.u64(SOURCE_GRAPH_NODE, event.graph_node);
}

/// Memory kinds of the two ends of a copy: 1 pageable, 3 device.
fn ends(copy: u8) -> (u8, u8) {
    use crate::event::copy::*;
    match copy {
        HTOD => (1, 3),
        DTOH => (3, 1),
        _ => (3, 3),
    }
}

fn memcpy(record: &mut Record, event: &Event) {
    use layout::memcpy::*;
    let (from, to) = ends(event.copy);
    record.u8(COPY_KIND, event.copy);
    record.u8(FROM_KIND, from);
    record.u8(TO_KIND, to);
    record.u8(FLAGS, 1); // asynchronous
    record.u64(BYTES, event.bytes);
    record.u64(START, event.cupti_start);
    record.u64(END, event.cupti_end);
    record.u32(DEVICE, event.device);
    record.u32(CONTEXT, event.context);
    record.u32(STREAM, event.stream);
    record.u32(CORRELATION, event.correlation);
    record.u64(GRAPH_NODE, event.graph_node);
    record.u32(GRAPH, event.graph);
    record.u32(CHANNEL, event.stream);
    record.u64(COPY_COUNT, 1);
    record.u32(SOURCE_GRAPH, event.graph);
    record.u64(SOURCE_GRAPH_NODE, event.graph_node);
}

fn peer(record: &mut Record, event: &Event) {
    use layout::peer::*;
    record.u8(COPY_KIND, event.copy);
    record.u8(FROM_KIND, 3);
    record.u8(TO_KIND, 3);
    record.u8(FLAGS, 1);
    record.u64(BYTES, event.bytes);
    record.u64(START, event.cupti_start);
    record.u64(END, event.cupti_end);
    record.u32(DEVICE, event.device);
    record.u32(CONTEXT, event.context);
    record.u32(STREAM, event.stream);
    record.u32(FROM_DEVICE, event.device);
    record.u32(FROM_CONTEXT, event.context);
    record.u32(TO_DEVICE, event.to_device);
    record.u32(TO_CONTEXT, event.to_context);
    record.u32(CORRELATION, event.correlation);
    record.u64(GRAPH_NODE, event.graph_node);
    record.u32(GRAPH, event.graph);
    record.u32(CHANNEL, event.stream);
}

fn memset(record: &mut Record, event: &Event) {
    use layout::memset::*;
    record.u32(VALUE, event.value);
    record.u64(BYTES, event.bytes);
    record.u64(START, event.cupti_start);
    record.u64(END, event.cupti_end);
    record.u32(DEVICE, event.device);
    record.u32(CONTEXT, event.context);
    record.u32(STREAM, event.stream);
    record.u32(CORRELATION, event.correlation);
    record.u16(FLAGS, 1); // asynchronous
    record.u16(MEMORY_KIND, 3);
    record.u64(GRAPH_NODE, event.graph_node);
    record.u32(GRAPH, event.graph);
    record.u32(CHANNEL, event.stream);
    record.u32(SOURCE_GRAPH, event.graph);
    record.u64(SOURCE_GRAPH_NODE, event.graph_node);
}

fn api(record: &mut Record, event: &Event) {
    use layout::api::*;
    record.u32(CBID, event.cbid);
    record.u64(START, event.cupti_start);
    record.u64(END, event.cupti_end);
    record.u32(PROCESS, pid());
    record.u32(THREAD, event.thread_id);
    record.u32(CORRELATION, event.correlation);
    record.u32(RETURN, event.return_value);
}

fn device(record: &mut Record, event: &Event) {
    use layout::device::*;
    record.u64(BANDWIDTH, 4_800_000_000);
    record.u64(MEMORY, DEVICE_MEMORY);
    record.u32(L2, 50 << 20);
    record.u32(WARP, 32);
    record.u32(CLOCK, 1_980_000);
    record.u32(MULTIPROCESSORS, 132);
    record.u32(WARPS, 64);
    record.u32(BLOCKS, 32);
    record.u32(SHARED_BYTES, 233_472);
    record.u32(REGISTERS, 65_536);
    record.u32(MAJOR, 9);
    record.u32(MINOR, 0);
    record.u32(ID, event.device);
    record.put(UUID, &uuid(event.device));
    record.name(NAME, Some(DEVICE_NAME));
    record.u8(VISIBLE, 1);
}

/// The 16 bytes that name a device; its number is the last.
pub fn uuid(device: u32) -> [u8; 16] {
    let mut uuid = *b"inferscope-doub\0";
    uuid[15] = device as u8;
    uuid
}

/// The small records.
fn facts(record: &mut Record, event: &Event) {
    match event.kind {
        kind::EXTERNAL_CORRELATION => {
            use layout::external::*;
            record.u32(EXTERNAL_KIND, event.what);
            record.u64(EXTERNAL_ID, event.id);
            record.u32(CORRELATION, event.correlation);
        }
        kind::SYNCHRONIZATION => {
            use layout::synchronization::*;
            record.u32(TYPE, event.what);
            record.u64(START, event.cupti_start);
            record.u64(END, event.cupti_end);
            record.u32(CORRELATION, event.correlation);
            record.u32(CONTEXT, event.context);
            record.u32(STREAM, event.stream);
            record.u32(RETURN, event.return_value);
        }
        kind::OVERHEAD => {
            use layout::overhead::*;
            record.u32(OVERHEAD_KIND, event.what);
            record.u32(OBJECT_KIND, 2); // a thread
            record.u32(OBJECT, pid());
            record.u32(OBJECT + 4, event.thread_id);
            record.u64(START, event.cupti_start);
            record.u64(END, event.cupti_end);
            record.u32(CORRELATION, event.correlation);
        }
        kind::GRAPH_TRACE => {
            use layout::graph_trace::*;
            record.u32(CORRELATION, event.correlation);
            record.u64(START, event.cupti_start);
            record.u64(END, event.cupti_end);
            record.u32(DEVICE, event.device);
            record.u32(GRAPH, event.graph);
            record.u32(CONTEXT, event.context);
            record.u32(STREAM, event.stream);
            record.u32(END_DEVICE, event.device);
            record.u32(END_CONTEXT, event.context);
        }
        kind::MEMORY2 => {
            use layout::memory::*;
            record.u32(OPERATION, event.what);
            record.u32(MEMORY_KIND, 3);
            record.u32(CORRELATION, event.correlation);
            record.u64(ADDRESS, event.id);
            record.u64(BYTES, event.bytes);
            record.u64(TIMESTAMP, event.cupti_start);
            record.u32(PROCESS, pid());
            record.u32(DEVICE, event.device);
            record.u32(CONTEXT, event.context);
            record.u32(STREAM, event.stream);
        }
        kind::CONTEXT => {
            use layout::context::*;
            record.u32(CONTEXT, event.context);
            record.u32(DEVICE, event.device);
            record.u16(API_KIND, 1);
            record.u16(NULL_STREAM, event.stream as u16);
            record.u32(PARENT, u32::MAX);
            record.u16(MULTIPROCESSORS, 132);
            record.u64(PROCESS, pid().into());
        }
        kind::STREAM => {
            use layout::stream::*;
            record.u32(CONTEXT, event.context);
            record.u32(STREAM, event.stream);
            record.u32(PRIORITY, event.priority as u32);
            record.u32(FLAG, if event.what == 0 { 1 } else { event.what }); // 1 default, 2 non-blocking
            record.u32(CORRELATION, event.correlation);
        }
        _ => {}
    }
}

//! Records by prefix: a field is there if the record is long enough for it.

use crate::truth::Line;
use inferscope_doubles::layout::{self, kind};

/// A record, copied out of its buffer, with its name while that could be read.
pub struct Record {
    pub kind: u32,
    pub bytes: Vec<u8>,
    pub name: Option<String>,
}

/// Key of the truth, offset, width in bytes.
type Field = (&'static str, usize, usize);

/// The fields of a kind that the truth has.
fn fields(of: u32) -> Vec<Field> {
    match of {
        kind::CONCURRENT_KERNEL | kind::KERNEL => {
            use layout::kernel::*;
            vec![
                ("cupti_start", START, 8),
                ("cupti_end", END, 8),
                ("cupti_end", COMPLETED, 8),
                ("device", DEVICE, 4),
                ("context", CONTEXT, 4),
                ("stream", STREAM, 4),
                ("grid.0", GRID, 4),
                ("grid.1", GRID + 4, 4),
                ("grid.2", GRID + 8, 4),
                ("block.0", BLOCK, 4),
                ("block.1", BLOCK + 4, 4),
                ("block.2", BLOCK + 8, 4),
                ("shared", DYNAMIC_SHARED, 4),
                ("correlation", CORRELATION, 4),
                ("correlation", GRID_ID, 8),
                ("graph_node", GRAPH_NODE, 8),
                ("graph", GRAPH, 4),
                ("priority", PRIORITY, 4),
                ("graph", SOURCE_GRAPH, 4),
                ("graph_node", SOURCE_GRAPH_NODE, 8),
            ]
        }
        kind::MEMCPY => {
            use layout::memcpy::*;
            vec![
                ("copy", COPY_KIND, 1),
                ("bytes", BYTES, 8),
                ("cupti_start", START, 8),
                ("cupti_end", END, 8),
                ("device", DEVICE, 4),
                ("context", CONTEXT, 4),
                ("stream", STREAM, 4),
                ("correlation", CORRELATION, 4),
                ("graph_node", GRAPH_NODE, 8),
                ("graph", SOURCE_GRAPH, 4),
            ]
        }
        kind::MEMCPY2 => {
            use layout::peer::*;
            vec![
                ("copy", COPY_KIND, 1),
                ("bytes", BYTES, 8),
                ("cupti_start", START, 8),
                ("cupti_end", END, 8),
                ("device", FROM_DEVICE, 4),
                ("context", FROM_CONTEXT, 4),
                ("to_device", TO_DEVICE, 4),
                ("to_context", TO_CONTEXT, 4),
                ("stream", STREAM, 4),
                ("correlation", CORRELATION, 4),
            ]
        }
        kind::MEMSET => {
            use layout::memset::*;
            vec![
                ("value", VALUE, 4),
                ("bytes", BYTES, 8),
                ("cupti_start", START, 8),
                ("cupti_end", END, 8),
                ("device", DEVICE, 4),
                ("context", CONTEXT, 4),
                ("stream", STREAM, 4),
                ("correlation", CORRELATION, 4),
                ("graph_node", SOURCE_GRAPH_NODE, 8),
            ]
        }
        kind::DRIVER | kind::RUNTIME => {
            use layout::api::*;
            vec![
                ("cbid", CBID, 4),
                ("cupti_start", START, 8),
                ("cupti_end", END, 8),
                ("pid", PROCESS, 4),
                ("tid", THREAD, 4),
                ("thread_id", THREAD, 4),
                ("correlation", CORRELATION, 4),
                ("return_value", RETURN, 4),
            ]
        }
        kind::SYNCHRONIZATION => {
            use layout::synchronization::*;
            vec![
                ("what", TYPE, 4),
                ("cupti_start", START, 8),
                ("cupti_end", END, 8),
                ("correlation", CORRELATION, 4),
                ("context", CONTEXT, 4),
                ("stream", STREAM, 4),
            ]
        }
        kind::EXTERNAL_CORRELATION => {
            use layout::external::*;
            vec![
                ("what", EXTERNAL_KIND, 4),
                ("id", EXTERNAL_ID, 8),
                ("correlation", CORRELATION, 4),
            ]
        }
        kind::MEMORY2 => {
            use layout::memory::*;
            vec![
                ("what", OPERATION, 4),
                ("correlation", CORRELATION, 4),
                ("id", ADDRESS, 8),
                ("bytes", BYTES, 8),
                ("cupti_start", TIMESTAMP, 8),
                ("pid", PROCESS, 4),
                ("device", DEVICE, 4),
                ("context", CONTEXT, 4),
            ]
        }
        kind::DEVICE => vec![("device", layout::device::ID, 4)],
        kind::CONTEXT => {
            use layout::context::*;
            vec![
                ("context", CONTEXT, 4),
                ("device", DEVICE, 4),
                ("stream", NULL_STREAM, 2),
                ("pid", PROCESS, 8),
            ]
        }
        kind::STREAM => {
            use layout::stream::*;
            vec![
                ("context", CONTEXT, 4),
                ("stream", STREAM, 4),
                ("priority", PRIORITY, 4),
                ("correlation", CORRELATION, 4),
            ]
        }
        _ => vec![],
    }
}

impl Record {
    /// A number, if the record is long enough.
    fn number(&self, at: usize, width: usize) -> Option<u64> {
        let mut number = [0; 8];
        number[..width].copy_from_slice(self.bytes.get(at..at + width)?);
        Some(u64::from_le_bytes(number))
    }

    pub fn is_nameless_kernel(&self) -> bool {
        self.kind == kind::CONCURRENT_KERNEL && self.name.is_none()
    }

    /// Panics unless each field is as the line says.
    pub fn assert_is(&self, line: &Line) {
        assert_eq!(i64::from(self.kind), line.number("activity"));
        for (key, at, width) in fields(self.kind) {
            let Some(number) = self.number(at, width) else {
                continue;
            };
            let all = u64::MAX >> (64 - 8 * width);
            assert_eq!(
                number,
                line.number(key) as u64 & all,
                "{key} of kind {}",
                self.kind
            );
        }
        if self.kind == kind::CONCURRENT_KERNEL {
            let name = (!line.has("nameless")).then(|| line.text("name"));
            assert_eq!(self.name.as_deref(), name);
        }
    }
}

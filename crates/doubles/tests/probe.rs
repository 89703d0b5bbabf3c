//! The probe reads records where the double, and so the vendor (see `layout.rs`), has their fields.

use inferscope_doubles::layout as ours;
use inferscope_probe::cuda::layout as probe;

macro_rules! same {
    ($ours:ident, $probe:ident, { $($a:ident: $b:ident),* $(,)? }) => {
        $(assert_eq!(ours::$ours::$a, probe::$probe::$b, stringify!($probe, $b));)*
    };
}

#[test]
fn the_probe_reads_where_the_vendor_writes() {
    same!(kernel, kernel, {
        REGISTERS: REGISTERS, START: START, END: END, DEVICE: DEVICE, CONTEXT: CONTEXT, STREAM: STREAM,
        GRID: GRID, BLOCK: BLOCK, STATIC_SHARED: STATIC_SHARED, DYNAMIC_SHARED: DYNAMIC_SHARED,
        LOCAL_PER_THREAD: LOCAL, CORRELATION: CORRELATION, NAME: NAME, GRAPH_NODE: GRAPH_NODE,
        GRAPH: GRAPH, CLUSTER: CLUSTER,
    });
    same!(memcpy, memcpy, {
        COPY_KIND: COPY_KIND, FROM_KIND: SOURCE_KIND, TO_KIND: TARGET_KIND, FLAGS: FLAGS, BYTES: BYTES,
        START: START, END: END, DEVICE: DEVICE, CONTEXT: CONTEXT, STREAM: STREAM, CORRELATION: CORRELATION,
        GRAPH_NODE: GRAPH_NODE, GRAPH: GRAPH,
    });
    same!(peer, peer, {
        DEVICE: DEVICE, CONTEXT: CONTEXT, STREAM: STREAM, FROM_DEVICE: SOURCE_DEVICE,
        TO_DEVICE: TARGET_DEVICE, CORRELATION: CORRELATION, GRAPH_NODE: GRAPH_NODE, GRAPH: GRAPH,
    });
    same!(peer, memcpy, { BYTES: BYTES, START: START, END: END });
    same!(memset, memset, {
        BYTES: BYTES, START: START, END: END, DEVICE: DEVICE, CONTEXT: CONTEXT, STREAM: STREAM,
        CORRELATION: CORRELATION, MEMORY_KIND: MEMORY_KIND, GRAPH_NODE: GRAPH_NODE, GRAPH: GRAPH,
    });
    same!(api, api, {
        CBID: CALLBACK, START: START, END: END, THREAD: THREAD, CORRELATION: CORRELATION, RETURN: RESULT,
    });
    same!(synchronization, sync, {
        TYPE: TYPE, START: START, END: END, CORRELATION: CORRELATION, CONTEXT: CONTEXT, STREAM: STREAM,
    });
    same!(overhead, overhead, {
        OVERHEAD_KIND: KIND, OBJECT_KIND: OBJECT, OBJECT: DEVICE, START: START, END: END,
        CORRELATION: CORRELATION,
    });
    assert_eq!(ours::overhead::OBJECT + 4, probe::overhead::THREAD);
    same!(graph_trace, graph, {
        CORRELATION: CORRELATION, START: START, END: END, DEVICE: DEVICE, GRAPH: GRAPH, CONTEXT: CONTEXT,
        STREAM: STREAM,
    });
    same!(memory, memory, {
        OPERATION: OPERATION, MEMORY_KIND: MEMORY_KIND, CORRELATION: CORRELATION, BYTES: BYTES,
        TIMESTAMP: TIME, DEVICE: DEVICE, STREAM: STREAM,
    });
    same!(context, context, { CONTEXT: CONTEXT, DEVICE: DEVICE });
    same!(stream, stream, { CONTEXT: CONTEXT, STREAM: STREAM, PRIORITY: PRIORITY });
    same!(device, device, {
        MEMORY: MEMORY_BYTES, WARP: WARP, CLOCK: CLOCK_KHZ, MULTIPROCESSORS: SMS, WARPS: WARPS,
        BLOCKS: BLOCKS, SHARED_BYTES: SHARED_BYTES, REGISTERS: REGISTERS, MAJOR: MAJOR, MINOR: MINOR,
        ID: ID, NAME: NAME, UUID: UUID,
    });
    same!(kind, kind, {
        MEMCPY: MEMCPY, MEMSET: MEMSET, KERNEL: KERNEL, DRIVER: DRIVER, RUNTIME: RUNTIME, DEVICE: DEVICE,
        CONTEXT: CONTEXT, CONCURRENT_KERNEL: CONCURRENT_KERNEL, OVERHEAD: OVERHEAD, MEMCPY2: MEMCPY_PEER,
        STREAM: STREAM, SYNCHRONIZATION: SYNCHRONIZATION, MEMORY2: MEMORY, GRAPH_TRACE: GRAPH_TRACE,
    });
}

//! Every offset, length and name that the double has, against cudarc's, which come from the vendor's headers.

use cudarc::cupti::sys::*;
use inferscope_doubles::{layout, names};
use std::mem::{offset_of, size_of};

/// Holds the length of a struct, and where its fields lie, against ours.
macro_rules! same {
    ($of:ident, $bytes:expr, $module:ident, { $($field:ident: $ours:ident),* $(,)? }) => {
        assert_eq!(size_of::<$of>(), $bytes, stringify!($of));
        $(assert_eq!(
            offset_of!($of, $field),
            layout::$module::$ours,
            "{}.{}", stringify!($of), stringify!($field),
        );)*
    };
}

/// The kernel fields from the first on, then those of the version.
macro_rules! kernel {
    ($of:ident, $bytes:expr $(, $field:ident: $ours:ident)*) => {
        same!($of, $bytes, kernel, {
            registersPerThread: REGISTERS, start: START, end: END, completed: COMPLETED, deviceId: DEVICE,
            contextId: CONTEXT, streamId: STREAM, gridX: GRID, blockX: BLOCK, staticSharedMemory: STATIC_SHARED,
            dynamicSharedMemory: DYNAMIC_SHARED, localMemoryPerThread: LOCAL_PER_THREAD,
            localMemoryTotal: LOCAL_TOTAL, correlationId: CORRELATION, gridId: GRID_ID, name: NAME, queued: QUEUED,
            submitted: SUBMITTED, launchType: LAUNCH_TYPE, sharedMemoryExecuted: SHARED_EXECUTED
            $(, $field: $ours)*
        });
        assert_eq!(offset_of!($of, gridZ), layout::kernel::GRID + 8);
        assert_eq!(offset_of!($of, blockZ), layout::kernel::BLOCK + 8);
    };
}

#[test]
fn kernels() {
    kernel!(CUpti_ActivityKernel4, 144);
    kernel!(CUpti_ActivityKernel5, 160, graphNodeId: GRAPH_NODE, graphId: GRAPH);
    kernel!(CUpti_ActivityKernel6, 168, graphNodeId: GRAPH_NODE, graphId: GRAPH);
    kernel!(CUpti_ActivityKernel7, 176, graphNodeId: GRAPH_NODE, graphId: GRAPH, channelID: CHANNEL,
        channelType: CHANNEL_TYPE);
    kernel!(CUpti_ActivityKernel8, kernel_bytes(110800), graphNodeId: GRAPH_NODE, graphId: GRAPH,
        channelID: CHANNEL, channelType: CHANNEL_TYPE, clusterX: CLUSTER);
    kernel!(CUpti_ActivityKernel9, kernel_bytes(120901), graphNodeId: GRAPH_NODE, graphId: GRAPH,
        channelID: CHANNEL, channelType: CHANNEL_TYPE, clusterX: CLUSTER, maxActiveClusters: MAX_ACTIVE_CLUSTERS);
    kernel!(CUpti_ActivityKernel10, kernel_bytes(130001), graphNodeId: GRAPH_NODE, graphId: GRAPH,
        channelID: CHANNEL, channelType: CHANNEL_TYPE, clusterX: CLUSTER, maxActiveClusters: MAX_ACTIVE_CLUSTERS,
        isDeviceLaunched: DEVICE_LAUNCHED);
    kernel!(CUpti_ActivityKernel11, kernel_bytes(130100), graphNodeId: GRAPH_NODE, graphId: GRAPH,
        channelID: CHANNEL, channelType: CHANNEL_TYPE, clusterX: CLUSTER, maxActiveClusters: MAX_ACTIVE_CLUSTERS,
        isDeviceLaunched: DEVICE_LAUNCHED, priority: PRIORITY);
    kernel!(CUpti_ActivityKernel12, kernel_bytes(130300), graphNodeId: GRAPH_NODE, graphId: GRAPH,
        channelID: CHANNEL, channelType: CHANNEL_TYPE, clusterX: CLUSTER, maxActiveClusters: MAX_ACTIVE_CLUSTERS,
        isDeviceLaunched: DEVICE_LAUNCHED, priority: PRIORITY, executionModel: EXECUTION_MODEL);
    kernel!(CUpti_ActivityKernel13, kernel_bytes(130500), graphNodeId: GRAPH_NODE, graphId: GRAPH,
        channelID: CHANNEL, channelType: CHANNEL_TYPE, clusterX: CLUSTER, maxActiveClusters: MAX_ACTIVE_CLUSTERS,
        isDeviceLaunched: DEVICE_LAUNCHED, priority: PRIORITY, executionModel: EXECUTION_MODEL,
        sourceGraphId: SOURCE_GRAPH, sourceGraphNodeId: SOURCE_GRAPH_NODE);
    assert_eq!(
        offset_of!(CUpti_ActivityKernel13, clusterZ),
        layout::kernel::CLUSTER + 8
    );
}

fn kernel_bytes(version: u32) -> usize {
    bytes(version, layout::kind::CONCURRENT_KERNEL)
}

fn bytes(version: u32, kind: u32) -> usize {
    layout::bytes(version, kind).expect("a kind that the double makes")
}

macro_rules! memcpy {
    ($of:ident, $bytes:expr $(, $field:ident: $ours:ident)*) => {
        same!($of, $bytes, memcpy, {
            copyKind: COPY_KIND, srcKind: FROM_KIND, dstKind: TO_KIND, flags: FLAGS, bytes: BYTES, start: START,
            end: END, deviceId: DEVICE, contextId: CONTEXT, streamId: STREAM, correlationId: CORRELATION,
            runtimeCorrelationId: RUNTIME_CORRELATION, graphNodeId: GRAPH_NODE, graphId: GRAPH $(, $field: $ours)*
        });
    };
}

macro_rules! memset {
    ($of:ident, $bytes:expr $(, $field:ident: $ours:ident)*) => {
        same!($of, $bytes, memset, {
            value: VALUE, bytes: BYTES, start: START, end: END, deviceId: DEVICE, contextId: CONTEXT,
            streamId: STREAM, correlationId: CORRELATION, flags: FLAGS, memoryKind: MEMORY_KIND,
            graphNodeId: GRAPH_NODE, graphId: GRAPH $(, $field: $ours)*
        });
    };
}

#[test]
fn copies_and_sets() {
    use layout::kind::{MEMCPY, MEMCPY2, MEMSET};
    memcpy!(CUpti_ActivityMemcpy4, 80);
    memcpy!(CUpti_ActivityMemcpy5, bytes(120400, MEMCPY), channelID: CHANNEL);
    memcpy!(CUpti_ActivityMemcpy6, bytes(120800, MEMCPY), channelID: CHANNEL, copyCount: COPY_COUNT);
    memcpy!(CUpti_ActivityMemcpy7, bytes(130400, MEMCPY), channelID: CHANNEL, copyCount: COPY_COUNT,
        sourceGraphId: SOURCE_GRAPH, sourceGraphNodeId: SOURCE_GRAPH_NODE);
    memset!(CUpti_ActivityMemset3, 80);
    memset!(CUpti_ActivityMemset4, bytes(130300, MEMSET), channelID: CHANNEL);
    memset!(CUpti_ActivityMemset5, bytes(130400, MEMSET), channelID: CHANNEL, sourceGraphId: SOURCE_GRAPH,
        sourceGraphNodeId: SOURCE_GRAPH_NODE);
    same!(CUpti_ActivityMemcpyPtoP4, bytes(110800, MEMCPY2), peer, {
        copyKind: COPY_KIND, srcKind: FROM_KIND, dstKind: TO_KIND, flags: FLAGS, bytes: BYTES, start: START,
        end: END, deviceId: DEVICE, contextId: CONTEXT, streamId: STREAM, srcDeviceId: FROM_DEVICE,
        srcContextId: FROM_CONTEXT, dstDeviceId: TO_DEVICE, dstContextId: TO_CONTEXT, correlationId: CORRELATION,
        graphNodeId: GRAPH_NODE, graphId: GRAPH, channelID: CHANNEL,
    });
}

#[test]
fn calls_and_facts() {
    use layout::kind::*;
    same!(CUpti_ActivityAPI, bytes(110800, DRIVER), api, {
        cbid: CBID, start: START, end: END, processId: PROCESS, threadId: THREAD, correlationId: CORRELATION,
        returnValue: RETURN,
    });
    same!(CUpti_ActivityExternalCorrelation, bytes(110800, EXTERNAL_CORRELATION), external, {
        externalKind: EXTERNAL_KIND, externalId: EXTERNAL_ID, correlationId: CORRELATION,
    });
    same!(CUpti_ActivitySynchronization, bytes(120400, SYNCHRONIZATION), synchronization, {
        type_: TYPE, start: START, end: END, correlationId: CORRELATION, contextId: CONTEXT, streamId: STREAM,
        cudaEventId: EVENT,
    });
    same!(CUpti_ActivitySynchronization2, bytes(120800, SYNCHRONIZATION), synchronization, {
        type_: TYPE, start: START, end: END, correlationId: CORRELATION, contextId: CONTEXT, streamId: STREAM,
        cudaEventId: EVENT, cudaEventSyncId: EVENT_SYNC, returnValue: RETURN,
    });
    same!(CUpti_ActivityOverhead, bytes(120100, OVERHEAD), overhead, {
        overheadKind: OVERHEAD_KIND, objectKind: OBJECT_KIND, objectId: OBJECT, start: START, end: END,
    });
    same!(CUpti_ActivityOverhead2, bytes(120300, OVERHEAD), overhead, {
        overheadKind: OVERHEAD_KIND, objectKind: OBJECT_KIND, objectId: OBJECT, start: START, end: END,
        correlationId: CORRELATION,
    });
    same!(CUpti_ActivityOverhead3, bytes(120400, OVERHEAD), overhead, {
        overheadKind: OVERHEAD_KIND, objectKind: OBJECT_KIND, objectId: OBJECT, start: START, end: END,
        correlationId: CORRELATION,
    });
    same!(CUpti_ActivityGraphTrace, bytes(120100, GRAPH_TRACE), graph_trace, {
        correlationId: CORRELATION, start: START, end: END, deviceId: DEVICE, graphId: GRAPH, contextId: CONTEXT,
        streamId: STREAM,
    });
    same!(CUpti_ActivityGraphTrace2, bytes(120400, GRAPH_TRACE), graph_trace, {
        correlationId: CORRELATION, start: START, end: END, deviceId: DEVICE, graphId: GRAPH, contextId: CONTEXT,
        streamId: STREAM, endDeviceId: END_DEVICE, endContextId: END_CONTEXT,
    });
    same!(CUpti_ActivityMemory3, bytes(120400, MEMORY2), memory, {
        memoryOperationType: OPERATION, memoryKind: MEMORY_KIND, correlationId: CORRELATION, address: ADDRESS,
        bytes: BYTES, timestamp: TIMESTAMP, PC: PC, processId: PROCESS, deviceId: DEVICE, contextId: CONTEXT,
        streamId: STREAM, name: NAME, isAsync: ASYNC,
    });
    same!(CUpti_ActivityMemory4, bytes(120800, MEMORY2), memory, {
        memoryOperationType: OPERATION, memoryKind: MEMORY_KIND, correlationId: CORRELATION, address: ADDRESS,
        bytes: BYTES, timestamp: TIMESTAMP, PC: PC, processId: PROCESS, deviceId: DEVICE, contextId: CONTEXT,
        streamId: STREAM, name: NAME, isAsync: ASYNC,
    });
}

macro_rules! device {
    ($of:ident, $bytes:expr) => {
        same!($of, $bytes, device, {
            globalMemoryBandwidth: BANDWIDTH, globalMemorySize: MEMORY, l2CacheSize: L2, numThreadsPerWarp: WARP,
            coreClockRate: CLOCK, numMultiprocessors: MULTIPROCESSORS, maxWarpsPerMultiprocessor: WARPS,
            maxBlocksPerMultiprocessor: BLOCKS, maxSharedMemoryPerMultiprocessor: SHARED_BYTES,
            maxRegistersPerMultiprocessor: REGISTERS, computeCapabilityMajor: MAJOR,
            computeCapabilityMinor: MINOR, id: ID, uuid: UUID, name: NAME, isCudaVisible: VISIBLE,
        });
    };
}

#[test]
fn devices_contexts_streams() {
    use layout::kind::{CONTEXT, DEVICE, STREAM};
    device!(CUpti_ActivityDevice4, bytes(110800, DEVICE));
    device!(CUpti_ActivityDevice5, bytes(130001, DEVICE));
    device!(CUpti_ActivityDevice6, bytes(130500, DEVICE));
    same!(CUpti_ActivityContext, bytes(110800, CONTEXT), context, {
        contextId: CONTEXT, deviceId: DEVICE, computeApiKind: API_KIND, nullStreamId: NULL_STREAM,
    });
    same!(CUpti_ActivityContext2, bytes(120400, CONTEXT), context, {
        contextId: CONTEXT, deviceId: DEVICE, computeApiKind: API_KIND, nullStreamId: NULL_STREAM,
        parentContextId: PARENT, numMultiprocessors: MULTIPROCESSORS,
    });
    same!(CUpti_ActivityContext3, bytes(130001, CONTEXT), context, {
        contextId: CONTEXT, deviceId: DEVICE, computeApiKind: API_KIND, nullStreamId: NULL_STREAM,
        parentContextId: PARENT, numMultiprocessors: MULTIPROCESSORS,
    });
    same!(CUpti_ActivityContext4, bytes(130500, CONTEXT), context, {
        contextId: CONTEXT, deviceId: DEVICE, computeApiKind: API_KIND, nullStreamId: NULL_STREAM,
        parentContextId: PARENT, numMultiprocessors: MULTIPROCESSORS, processId: PROCESS,
    });
    same!(CUpti_ActivityStream, bytes(130500, STREAM), stream, {
        contextId: CONTEXT, streamId: STREAM, priority: PRIORITY, flag: FLAG, correlationId: CORRELATION,
    });
}

#[test]
fn kinds() {
    use CUpti_ActivityKind::*;
    let ours = [
        (CUPTI_ACTIVITY_KIND_MEMCPY, layout::kind::MEMCPY),
        (CUPTI_ACTIVITY_KIND_MEMSET, layout::kind::MEMSET),
        (CUPTI_ACTIVITY_KIND_KERNEL, layout::kind::KERNEL),
        (CUPTI_ACTIVITY_KIND_DRIVER, layout::kind::DRIVER),
        (CUPTI_ACTIVITY_KIND_RUNTIME, layout::kind::RUNTIME),
        (CUPTI_ACTIVITY_KIND_DEVICE, layout::kind::DEVICE),
        (CUPTI_ACTIVITY_KIND_CONTEXT, layout::kind::CONTEXT),
        (
            CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL,
            layout::kind::CONCURRENT_KERNEL,
        ),
        (CUPTI_ACTIVITY_KIND_OVERHEAD, layout::kind::OVERHEAD),
        (CUPTI_ACTIVITY_KIND_MEMCPY2, layout::kind::MEMCPY2),
        (CUPTI_ACTIVITY_KIND_STREAM, layout::kind::STREAM),
        (
            CUPTI_ACTIVITY_KIND_SYNCHRONIZATION,
            layout::kind::SYNCHRONIZATION,
        ),
        (
            CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION,
            layout::kind::EXTERNAL_CORRELATION,
        ),
        (CUPTI_ACTIVITY_KIND_MEMORY2, layout::kind::MEMORY2),
        (CUPTI_ACTIVITY_KIND_GRAPH_TRACE, layout::kind::GRAPH_TRACE),
    ];
    for (theirs, ours) in ours {
        assert_eq!(theirs as u32, ours, "{theirs:?}");
    }
    assert!(layout::kind::LAST >= CUPTI_ACTIVITY_KIND_COUNT as u32 - 1);
}

/// Each name of a table, once against the table and once against cudarc.
macro_rules! calls {
    ($table:expr, $enum:ident, $($theirs:ident),* $(,)?) => {
        let theirs = [$($enum::$theirs),*];
        assert_eq!(theirs.len(), $table.len(), "a call is missing in this test");
        for (theirs, &(cbid, name)) in theirs.into_iter().zip($table) {
            let full = format!("{theirs:?}");
            let short = full.split_once("CBID_").map(|(_, name)| name);
            assert_eq!((theirs as u32, short), (cbid, name.to_str().ok()));
        }
    };
}

#[test]
fn names_of_calls() {
    calls!(
        names::DRIVER,
        CUpti_driver_api_trace_cbid_enum,
        CUPTI_DRIVER_TRACE_CBID_cuInit,
        CUPTI_DRIVER_TRACE_CBID_cuDriverGetVersion,
        CUPTI_DRIVER_TRACE_CBID_cuDeviceGetCount,
        CUPTI_DRIVER_TRACE_CBID_cuCtxSynchronize,
        CUPTI_DRIVER_TRACE_CBID_cuModuleLoadData,
        CUPTI_DRIVER_TRACE_CBID_cuModuleGetFunction,
        CUPTI_DRIVER_TRACE_CBID_cuEventRecord,
        CUPTI_DRIVER_TRACE_CBID_cuEventSynchronize,
        CUPTI_DRIVER_TRACE_CBID_cuStreamCreate,
        CUPTI_DRIVER_TRACE_CBID_cuStreamSynchronize,
        CUPTI_DRIVER_TRACE_CBID_cuMemsetD8Async,
        CUPTI_DRIVER_TRACE_CBID_cuMemsetD32Async,
        CUPTI_DRIVER_TRACE_CBID_cuCtxCreate_v2,
        CUPTI_DRIVER_TRACE_CBID_cuMemAlloc_v2,
        CUPTI_DRIVER_TRACE_CBID_cuMemFree_v2,
        CUPTI_DRIVER_TRACE_CBID_cuMemcpyHtoD_v2,
        CUPTI_DRIVER_TRACE_CBID_cuMemcpyHtoDAsync_v2,
        CUPTI_DRIVER_TRACE_CBID_cuMemcpyDtoH_v2,
        CUPTI_DRIVER_TRACE_CBID_cuMemcpyDtoHAsync_v2,
        CUPTI_DRIVER_TRACE_CBID_cuMemcpyDtoDAsync_v2,
        CUPTI_DRIVER_TRACE_CBID_cuStreamWaitEvent,
        CUPTI_DRIVER_TRACE_CBID_cuCtxSetCurrent,
        CUPTI_DRIVER_TRACE_CBID_cuCtxGetCurrent,
        CUPTI_DRIVER_TRACE_CBID_cuMemcpyAsync,
        CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel,
        CUPTI_DRIVER_TRACE_CBID_cuMemcpyPeerAsync,
        CUPTI_DRIVER_TRACE_CBID_cuCtxDestroy_v2,
        CUPTI_DRIVER_TRACE_CBID_cuStreamDestroy_v2,
        CUPTI_DRIVER_TRACE_CBID_cuDevicePrimaryCtxGetState,
        CUPTI_DRIVER_TRACE_CBID_cuLaunchKernel_ptsz,
        CUPTI_DRIVER_TRACE_CBID_cuLaunchCooperativeKernel,
        CUPTI_DRIVER_TRACE_CBID_cuGraphLaunch,
        CUPTI_DRIVER_TRACE_CBID_cuGraphLaunch_ptsz,
        CUPTI_DRIVER_TRACE_CBID_cuMemAllocAsync,
        CUPTI_DRIVER_TRACE_CBID_cuMemFreeAsync,
        CUPTI_DRIVER_TRACE_CBID_cuGetProcAddress,
        CUPTI_DRIVER_TRACE_CBID_cuLaunchKernelEx,
        CUPTI_DRIVER_TRACE_CBID_cuLaunchKernelEx_ptsz,
        CUPTI_DRIVER_TRACE_CBID_cuGetProcAddress_v2,
        CUPTI_DRIVER_TRACE_CBID_cuKernelGetAttribute,
    );
    calls!(
        names::RUNTIME,
        CUpti_runtime_api_trace_cbid_enum,
        CUPTI_RUNTIME_TRACE_CBID_cudaGetLastError_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaFuncGetAttributes_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaSetDevice_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaGetDevice_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaMalloc_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaFree_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaHostAlloc_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaMemcpy_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaMemcpyAsync_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaMemset_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaMemsetAsync_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaStreamCreate_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaStreamSynchronize_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaEventRecord_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaEventSynchronize_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaEventQuery_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaStreamWaitEvent_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaMemcpyPeerAsync_v4000,
        CUPTI_RUNTIME_TRACE_CBID_cudaDeviceSynchronize_v3020,
        CUPTI_RUNTIME_TRACE_CBID_cudaDeviceGetAttribute_v5000,
        CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_v7000,
        CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_ptsz_v7000,
        CUPTI_RUNTIME_TRACE_CBID_cudaMemcpyAsync_ptsz_v7000,
        CUPTI_RUNTIME_TRACE_CBID_cudaStreamSynchronize_ptsz_v7000,
        CUPTI_RUNTIME_TRACE_CBID_cudaLaunchCooperativeKernel_v9000,
        CUPTI_RUNTIME_TRACE_CBID_cudaGraphInstantiate_v10000,
        CUPTI_RUNTIME_TRACE_CBID_cudaGraphLaunch_v10000,
        CUPTI_RUNTIME_TRACE_CBID_cudaGraphLaunch_ptsz_v10000,
        CUPTI_RUNTIME_TRACE_CBID_cudaStreamBeginCapture_v10000,
        CUPTI_RUNTIME_TRACE_CBID_cudaStreamIsCapturing_v10000,
        CUPTI_RUNTIME_TRACE_CBID_cudaStreamEndCapture_v10000,
        CUPTI_RUNTIME_TRACE_CBID_cudaMallocAsync_v11020,
        CUPTI_RUNTIME_TRACE_CBID_cudaFreeAsync_v11020,
        CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernelExC_v11060,
        CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernelExC_ptsz_v11060,
    );
}

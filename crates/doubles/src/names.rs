//! The names that CUPTI has for calls and results. `tests/layout.rs` holds the calls against cudarc's enums.

use std::ffi::CStr;

/// Driver calls by callback id: those the double has, and the most usual others.
pub const DRIVER: &[(u32, &CStr)] = &[
    (cbid::INIT, c"cuInit"),
    (cbid::DRIVER_GET_VERSION, c"cuDriverGetVersion"),
    (cbid::DEVICE_GET_COUNT, c"cuDeviceGetCount"),
    (cbid::CTX_SYNCHRONIZE, c"cuCtxSynchronize"),
    (19, c"cuModuleLoadData"),
    (cbid::MODULE_GET_FUNCTION, c"cuModuleGetFunction"),
    (119, c"cuEventRecord"),
    (121, c"cuEventSynchronize"),
    (cbid::STREAM_CREATE, c"cuStreamCreate"),
    (cbid::STREAM_SYNCHRONIZE, c"cuStreamSynchronize"),
    (cbid::MEMSET_D8_ASYNC, c"cuMemsetD8Async"),
    (220, c"cuMemsetD32Async"),
    (cbid::CTX_CREATE_V2, c"cuCtxCreate_v2"),
    (cbid::MEM_ALLOC_V2, c"cuMemAlloc_v2"),
    (cbid::MEM_FREE_V2, c"cuMemFree_v2"),
    (276, c"cuMemcpyHtoD_v2"),
    (cbid::HTOD_ASYNC_V2, c"cuMemcpyHtoDAsync_v2"),
    (278, c"cuMemcpyDtoH_v2"),
    (cbid::DTOH_ASYNC_V2, c"cuMemcpyDtoHAsync_v2"),
    (cbid::DTOD_ASYNC_V2, c"cuMemcpyDtoDAsync_v2"),
    (295, c"cuStreamWaitEvent"),
    (cbid::CTX_SET_CURRENT, c"cuCtxSetCurrent"),
    (304, c"cuCtxGetCurrent"),
    (306, c"cuMemcpyAsync"),
    (cbid::LAUNCH_KERNEL, c"cuLaunchKernel"),
    (cbid::PEER_ASYNC, c"cuMemcpyPeerAsync"),
    (cbid::CTX_DESTROY_V2, c"cuCtxDestroy_v2"),
    (326, c"cuStreamDestroy_v2"),
    (392, c"cuDevicePrimaryCtxGetState"),
    (442, c"cuLaunchKernel_ptsz"),
    (477, c"cuLaunchCooperativeKernel"),
    (cbid::GRAPH_LAUNCH, c"cuGraphLaunch"),
    (515, c"cuGraphLaunch_ptsz"),
    (598, c"cuMemAllocAsync"),
    (600, c"cuMemFreeAsync"),
    (626, c"cuGetProcAddress"),
    (cbid::LAUNCH_KERNEL_EX, c"cuLaunchKernelEx"),
    (653, c"cuLaunchKernelEx_ptsz"),
    (cbid::GET_PROC_ADDRESS_V2, c"cuGetProcAddress_v2"),
    (686, c"cuKernelGetAttribute"),
];

/// Runtime calls by callback id, likewise.
pub const RUNTIME: &[(u32, &CStr)] = &[
    (10, c"cudaGetLastError_v3020"),
    (15, c"cudaFuncGetAttributes_v3020"),
    (16, c"cudaSetDevice_v3020"),
    (17, c"cudaGetDevice_v3020"),
    (20, c"cudaMalloc_v3020"),
    (22, c"cudaFree_v3020"),
    (27, c"cudaHostAlloc_v3020"),
    (31, c"cudaMemcpy_v3020"),
    (cbid::RUNTIME_MEMCPY_ASYNC, c"cudaMemcpyAsync_v3020"),
    (49, c"cudaMemset_v3020"),
    (51, c"cudaMemsetAsync_v3020"),
    (129, c"cudaStreamCreate_v3020"),
    (131, c"cudaStreamSynchronize_v3020"),
    (135, c"cudaEventRecord_v3020"),
    (137, c"cudaEventSynchronize_v3020"),
    (138, c"cudaEventQuery_v3020"),
    (147, c"cudaStreamWaitEvent_v3020"),
    (161, c"cudaMemcpyPeerAsync_v4000"),
    (165, c"cudaDeviceSynchronize_v3020"),
    (200, c"cudaDeviceGetAttribute_v5000"),
    (cbid::RUNTIME_LAUNCH, c"cudaLaunchKernel_v7000"),
    (214, c"cudaLaunchKernel_ptsz_v7000"),
    (225, c"cudaMemcpyAsync_ptsz_v7000"),
    (239, c"cudaStreamSynchronize_ptsz_v7000"),
    (269, c"cudaLaunchCooperativeKernel_v9000"),
    (310, c"cudaGraphInstantiate_v10000"),
    (311, c"cudaGraphLaunch_v10000"),
    (312, c"cudaGraphLaunch_ptsz_v10000"),
    (315, c"cudaStreamBeginCapture_v10000"),
    (317, c"cudaStreamIsCapturing_v10000"),
    (319, c"cudaStreamEndCapture_v10000"),
    (373, c"cudaMallocAsync_v11020"),
    (375, c"cudaFreeAsync_v11020"),
    (430, c"cudaLaunchKernelExC_v11060"),
    (431, c"cudaLaunchKernelExC_ptsz_v11060"),
];

/// The callback ids of the double's own calls.
pub mod cbid {
    pub const INIT: u32 = 1;
    pub const DRIVER_GET_VERSION: u32 = 2;
    pub const DEVICE_GET_COUNT: u32 = 4;
    pub const CTX_SYNCHRONIZE: u32 = 17;
    pub const MODULE_GET_FUNCTION: u32 = 23;
    pub const STREAM_CREATE: u32 = 124;
    pub const STREAM_SYNCHRONIZE: u32 = 126;
    pub const MEMSET_D8_ASYNC: u32 = 216;
    pub const CTX_CREATE_V2: u32 = 235;
    pub const MEM_ALLOC_V2: u32 = 243;
    pub const MEM_FREE_V2: u32 = 245;
    pub const HTOD_ASYNC_V2: u32 = 277;
    pub const DTOH_ASYNC_V2: u32 = 279;
    pub const DTOD_ASYNC_V2: u32 = 281;
    pub const CTX_SET_CURRENT: u32 = 303;
    pub const LAUNCH_KERNEL: u32 = 307;
    pub const PEER_ASYNC: u32 = 319;
    pub const CTX_DESTROY_V2: u32 = 322;
    pub const GRAPH_LAUNCH: u32 = 514;
    pub const LAUNCH_KERNEL_EX: u32 = 652;
    pub const GET_PROC_ADDRESS_V2: u32 = 677;
    pub const RUNTIME_MEMCPY_ASYNC: u32 = 41;
    pub const RUNTIME_LAUNCH: u32 = 211;
}

/// `CUpti_CallbackDomain`.
pub mod domain {
    pub const DRIVER: u32 = 1;
    pub const RUNTIME: u32 = 2;
    pub const RESOURCE: u32 = 3;
}

/// The name of a call, if the double knows it.
pub fn call(domain: u32, cbid: u32) -> Option<&'static CStr> {
    let table = match domain {
        domain::DRIVER => DRIVER,
        domain::RUNTIME => RUNTIME,
        _ => return None,
    };
    table
        .iter()
        .find(|(id, _)| *id == cbid)
        .map(|&(_, name)| name)
}

/// `CUptiResult`: the codes that the double gives.
pub mod result {
    pub const SUCCESS: u32 = 0;
    pub const INVALID_PARAMETER: u32 = 1;
    pub const INVALID_CONTEXT: u32 = 3;
    pub const INVALID_OPERATION: u32 = 7;
    pub const PARAMETER_SIZE_NOT_SUFFICIENT: u32 = 10;
    pub const MAX_LIMIT_REACHED: u32 = 12;
    pub const NOT_COMPATIBLE: u32 = 14;
    pub const NOT_INITIALIZED: u32 = 15;
    pub const QUEUE_EMPTY: u32 = 18;
    pub const INVALID_KIND: u32 = 21;
    pub const NOT_SUPPORTED: u32 = 27;
    pub const MULTIPLE_SUBSCRIBERS: u32 = 39;
    pub const UNKNOWN: u32 = 999;
}

/// What `cuptiGetResultString` says of a code, if it is one.
pub fn result_text(code: u32) -> Option<&'static CStr> {
    Some(match code {
        0 => c"CUPTI_SUCCESS",
        1 => c"CUPTI_ERROR_INVALID_PARAMETER",
        2 => c"CUPTI_ERROR_INVALID_DEVICE",
        3 => c"CUPTI_ERROR_INVALID_CONTEXT",
        7 => c"CUPTI_ERROR_INVALID_OPERATION",
        8 => c"CUPTI_ERROR_OUT_OF_MEMORY",
        9 => c"CUPTI_ERROR_HARDWARE",
        10 => c"CUPTI_ERROR_PARAMETER_SIZE_NOT_SUFFICIENT",
        11 => c"CUPTI_ERROR_API_NOT_IMPLEMENTED",
        12 => c"CUPTI_ERROR_MAX_LIMIT_REACHED",
        13 => c"CUPTI_ERROR_NOT_READY",
        14 => c"CUPTI_ERROR_NOT_COMPATIBLE",
        15 => c"CUPTI_ERROR_NOT_INITIALIZED",
        18 => c"CUPTI_ERROR_QUEUE_EMPTY",
        19 => c"CUPTI_ERROR_INVALID_HANDLE",
        20 => c"CUPTI_ERROR_INVALID_STREAM",
        21 => c"CUPTI_ERROR_INVALID_KIND",
        23 => c"CUPTI_ERROR_DISABLED",
        26 => c"CUPTI_ERROR_HARDWARE_BUSY",
        27 => c"CUPTI_ERROR_NOT_SUPPORTED",
        33 => c"CUPTI_ERROR_VIRTUALIZED_DEVICE_NOT_SUPPORTED",
        35 => c"CUPTI_ERROR_INSUFFICIENT_PRIVILEGES",
        36 => c"CUPTI_ERROR_OLD_PROFILER_API_INITIALIZED",
        39 => c"CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED",
        40 => c"CUPTI_ERROR_VIRTUALIZED_DEVICE_INSUFFICIENT_PRIVILEGES",
        41 => c"CUPTI_ERROR_CONFIDENTIAL_COMPUTING_NOT_SUPPORTED",
        999 => c"CUPTI_ERROR_UNKNOWN",
        _ => return None,
    })
}

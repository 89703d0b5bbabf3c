//! As `libcuda.so.1`: the calls that give the device work or wait for it, and the double's own (`isc_*`).

use crate::call::{Done, call, resource, tell_resource};
use crate::clock;
use crate::cuda::{code, driver, give, named};
use crate::event::{Event, copy};
use crate::gpu::{self, Place, Work};
use crate::layout::kind;
use crate::names::{cbid, domain};
use crate::settings;
use std::ffi::{c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// `CUPTI_ACTIVITY_OVERHEAD_LAZY_FUNCTION_LOADING`.
const LAZY_LOADING: u32 = 5 << 16;
/// `CUPTI_ACTIVITY_SYNCHRONIZATION_TYPE_*`.
const STREAM_SYNCHRONIZE: u32 = 3;
const CONTEXT_SYNCHRONIZE: u32 = 4;

static LAUNCHES: AtomicU64 = AtomicU64::new(0);

/// # Safety
/// `parameters` and `extra` are not read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: usize,
    _parameters: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> u32 {
    let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    launch(
        cbid::LAUNCH_KERNEL,
        function,
        grid,
        block,
        shared_bytes,
        stream,
    )
}

/// `CUlaunchConfig`, the part that matters here.
#[repr(C)]
pub struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared_bytes: c_uint,
    stream: usize,
}

/// # Safety
/// `config` is null or a `CUlaunchConfig`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernelEx(
    config: *const LaunchConfig,
    function: usize,
    _parameters: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> u32 {
    // SAFETY: the caller's promise.
    let Some(config) = (unsafe { config.as_ref() }) else {
        return code::INVALID_VALUE;
    };
    let LaunchConfig {
        grid,
        block,
        shared_bytes,
        stream,
    } = *config;
    launch(
        cbid::LAUNCH_KERNEL_EX,
        function,
        grid,
        block,
        shared_bytes,
        stream,
    )
}

fn launch(
    cbid: u32,
    function: usize,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: usize,
) -> u32 {
    let Some(name) = gpu::of_function(function) else {
        return code::INVALID_HANDLE;
    };
    let status = named(cbid, Some(name), || {
        let Some(place) = gpu::of_stream(stream) else {
            return code::INVALID_CONTEXT.into();
        };
        let facts = if gpu::load_function(function) {
            lazy_loading(&place)
        } else {
            vec![]
        };
        let event = Event {
            name: Some(name),
            grid,
            block,
            shared,
            ..place.event(gpu::kernel_kind())
        };
        Done {
            code: code::SUCCESS,
            works: vec![place.work(event, gpu::kernel_ns())],
            facts,
        }
    });
    launched();
    status
}

/// The first launch of a function takes the time to load it.
fn lazy_loading(place: &Place) -> Vec<Event> {
    let lazy_ns = settings::get().lazy_ns;
    if lazy_ns == 0 {
        return vec![];
    }
    let start = clock::read();
    wait_until(start.monotonic_ns + lazy_ns);
    let end = clock::read();
    vec![Event {
        what: LAZY_LOADING,
        start_ns: start.monotonic_ns,
        end_ns: end.monotonic_ns,
        cupti_start: start.cupti,
        cupti_end: end.cupti,
        ..place.event(kind::OVERHEAD)
    }]
}

/// Counts launches: after so many another tool takes the callbacks over.
fn launched() {
    let after = settings::get().stolen_after;
    if LAUNCHES.fetch_add(1, SeqCst) + 1 == after {
        crate::activity::steal();
    }
}

/// Device work of a call that is no kernel.
fn transfer(cbid: u32, stream: usize, work: impl FnOnce(&Place) -> Work) -> u32 {
    driver(cbid, || match gpu::of_stream(stream) {
        None => code::INVALID_CONTEXT.into(),
        Some(place) => Done {
            works: vec![work(&place)],
            ..Done::default()
        },
    })
}

fn memcpy(cbid: u32, copy: u8, bytes: usize, stream: usize) -> u32 {
    transfer(cbid, stream, |place| {
        let event = Event {
            copy,
            bytes: bytes as u64,
            ..place.event(kind::MEMCPY)
        };
        place.work(event, gpu::copy_ns(bytes as u64, copy != copy::DTOD))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyHtoDAsync_v2(
    _to: u64,
    _from: *const c_void,
    bytes: usize,
    stream: usize,
) -> u32 {
    memcpy(cbid::HTOD_ASYNC_V2, copy::HTOD, bytes, stream)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoHAsync_v2(
    _to: *mut c_void,
    _from: u64,
    bytes: usize,
    stream: usize,
) -> u32 {
    memcpy(cbid::DTOH_ASYNC_V2, copy::DTOH, bytes, stream)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(_to: u64, _from: u64, bytes: usize, stream: usize) -> u32 {
    memcpy(cbid::DTOD_ASYNC_V2, copy::DTOD, bytes, stream)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyPeerAsync(
    _to: u64,
    to_context: usize,
    _from: u64,
    from_context: usize,
    bytes: usize,
    stream: usize,
) -> u32 {
    let (Some(to), Some(from)) = (gpu::of_context(to_context), gpu::of_context(from_context))
    else {
        return code::INVALID_CONTEXT;
    };
    transfer(cbid::PEER_ASYNC, stream, |place| {
        let event = Event {
            copy: copy::PTOP,
            bytes: bytes as u64,
            device: from.device,
            context: from.context,
            to_device: to.device,
            to_context: to.context,
            ..place.event(kind::MEMCPY2)
        };
        place.work(event, gpu::copy_ns(bytes as u64, true))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(_to: u64, value: u8, bytes: usize, stream: usize) -> u32 {
    transfer(cbid::MEMSET_D8_ASYNC, stream, |place| {
        let event = Event {
            value: value.into(),
            bytes: bytes as u64,
            ..place.event(kind::MEMSET)
        };
        place.work(event, gpu::copy_ns(bytes as u64, false))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> u32 {
    synchronize(cbid::CTX_SYNCHRONIZE, CONTEXT_SYNCHRONIZE, 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: usize) -> u32 {
    synchronize(cbid::STREAM_SYNCHRONIZE, STREAM_SYNCHRONIZE, stream)
}

/// Waits for a stream, or all of the context.
fn synchronize(cbid: u32, what: u32, stream: usize) -> u32 {
    driver(cbid, || {
        let Some(place) = gpu::of_stream(stream) else {
            return code::INVALID_CONTEXT.into();
        };
        wait_until(gpu::free_ns(&place, what == CONTEXT_SYNCHRONIZE));
        let stream = if what == CONTEXT_SYNCHRONIZE {
            u32::MAX
        } else {
            place.stream_id
        };
        let fact = Event {
            what,
            stream,
            ..place.event(kind::SYNCHRONIZATION)
        };
        Done {
            facts: vec![fact],
            ..Done::default()
        }
    })
}

/// Returns at that time of CLOCK_MONOTONIC, in ns; sleeps through all but the last of it.
fn wait_until(at_ns: u64) {
    const SPIN_NS: u64 = 100_000;
    loop {
        let left_ns = at_ns.saturating_sub(clock::monotonic_ns());
        match left_ns {
            0 => return,
            SPIN_NS.. => std::thread::sleep(Duration::from_nanos(left_ns - SPIN_NS / 2)),
            _ => std::hint::spin_loop(),
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphLaunch(graph: usize, stream: usize) -> u32 {
    let Some((id, nodes)) = gpu::of_graph(graph) else {
        return code::INVALID_HANDLE;
    };
    let status = driver(cbid::GRAPH_LAUNCH, || {
        let Some(place) = gpu::of_stream(stream) else {
            return code::INVALID_CONTEXT.into();
        };
        let duration_ns = gpu::kernel_ns();
        let node = |(function, node)| {
            let name = gpu::of_function(function);
            let kind = gpu::kernel_kind();
            let (grid, block) = ([1, 1, 1], [32, 1, 1]);
            let event = Event {
                name,
                grid,
                block,
                graph: id,
                graph_node: node,
                ..place.event(kind)
            };
            place.work(event, duration_ns)
        };
        Done {
            works: nodes.into_iter().map(node).collect(),
            ..Done::default()
        }
    });
    launched();
    status
}

/// As `cudaLaunchKernel`: a runtime call around the driver's, with one correlation id for both.
#[unsafe(no_mangle)]
pub extern "C" fn isc_runtime_launch(
    function: usize,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: usize,
) -> u32 {
    let Some(name) = gpu::of_function(function) else {
        return code::INVALID_HANDLE;
    };
    let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
    call(domain::RUNTIME, cbid::RUNTIME_LAUNCH, Some(name), || {
        launch(
            cbid::LAUNCH_KERNEL,
            function,
            grid,
            block,
            shared_bytes,
            stream,
        )
        .into()
    })
}

/// As `cudaMemcpyAsync` to the device, likewise.
#[unsafe(no_mangle)]
pub extern "C" fn isc_runtime_copy(
    to: u64,
    from: *const c_void,
    bytes: usize,
    stream: usize,
) -> u32 {
    call(domain::RUNTIME, cbid::RUNTIME_MEMCPY_ASYNC, None, || {
        cuMemcpyHtoDAsync_v2(to, from, bytes, stream).into()
    })
}

/// How long the next kernel that this thread launches runs, in ns; for a graph, each of its nodes.
#[unsafe(no_mangle)]
pub extern "C" fn isc_next_kernel_ns(duration_ns: u64) {
    gpu::set_next_ns(duration_ns);
}

/// A graph that can be launched: the function, `nodes` times. Subscribers hear of its nodes as if captured now.
///
/// # Safety
/// See [`crate::cuda::cuDriverGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isc_graph_create(
    graph: *mut usize,
    function: usize,
    nodes: c_uint,
) -> u32 {
    let Some((handle, _, ids)) = gpu::create_graph(function, nodes) else {
        return code::INVALID_HANDLE;
    };
    for id in ids {
        tell_resource(resource::GRAPHNODE_CREATED, 0, handle, id as usize);
    }
    tell_resource(resource::GRAPHEXEC_CREATED, 0, handle, 0);
    // SAFETY: the caller's promise.
    unsafe { give(graph, handle) }
}

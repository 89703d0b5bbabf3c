//! HIP's calls, each of which rocprofiler-sdk may record, and how HIP finds its tools.

use crate::gpu::{self, Event, What};
use crate::sdk::{self, Service};
use crate::{agents, monotonic_ns, settings};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, Once};

/// Calls by their number, with the NUL that ends each.
const RUNTIME: [&str; 12] = [
    "hipInit\0",
    "hipGetDeviceCount\0",
    "hipSetDevice\0",
    "hipGetDevice\0",
    "hipMalloc\0",
    "hipFree\0",
    "hipMemcpyAsync\0",
    "hipMemcpy\0",
    "hipLaunchKernel\0",
    "hipStreamCreate\0",
    "hipStreamSynchronize\0",
    "hipDeviceSynchronize\0",
];
const COMPILER: [&str; 1] = ["__hipPushCallConfiguration\0"];
const RCCL: [&str; 2] = ["ncclGetVersion\0", "ncclAllReduce\0"];

pub fn operations(service: Service) -> &'static [&'static str] {
    match service {
        Service::Runtime => &RUNTIME,
        Service::Compiler => &COMPILER,
        Service::Rccl => &RCCL,
    }
}

const SUCCESS: u32 = 0;
const INVALID: u32 = 1;
/// `hipErrorNoDevice`.
const NO_DEVICE: u32 = 100;

/// `rocprofiler_tool_configure_result_t`.
#[repr(C)]
struct Configured {
    size: usize,
    initialize: Option<unsafe extern "C" fn(*const c_void, *mut c_void) -> c_int>,
    finalize: Option<unsafe extern "C" fn(*mut c_void)>,
    data: *mut c_void,
}

type Configure = unsafe extern "C" fn(u32, *const c_char, u32, *mut u64) -> *mut Configured;

/// What a tool asked to be called at the end, and with what.
type Finalize = (unsafe extern "C" fn(*mut c_void), usize);
static FINALIZERS: Mutex<Vec<Finalize>> = Mutex::new(Vec::new());

/// What HIP, rocprofiler-register and rocprofiler-sdk do when HIP is loaded.
fn begin() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a function of this library, which is never unloaded. It comes before the tools', and so runs after
        // them.
        unsafe { libc::atexit(at_exit) };
        let tools = std::env::var("ROCP_TOOL_LIBRARIES").unwrap_or_default();
        if tools.is_empty() {
            return;
        }
        // SAFETY: a C string; the library is this one, under the name that tools look for.
        unsafe { libc::dlopen(c"librocprofiler-sdk.so.1".as_ptr(), libc::RTLD_LAZY) };
        for (priority, path) in tools.split(':').enumerate() {
            tool(path, priority as u32);
        }
    });
}

fn tool(path: &str, priority: u32) {
    let name = CString::new(path).unwrap_or_default();
    // SAFETY: C strings; a tool is made to be loaded.
    let at = unsafe {
        let library = libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL);
        libc::dlsym(library, c"rocprofiler_configure".as_ptr())
    };
    if at.is_null() {
        eprintln!("FATAL: [ROCP_TOOL_LIBRARIES] error dlopening '{path}'");
        std::process::abort(); // as older versions do
    }
    let version = settings::get().version;
    let mut client = [0x5155_u64; 3];
    // SAFETY: the tool's function of that name and signature (registration.h).
    let configured = unsafe {
        let configure = std::mem::transmute::<*mut c_void, Configure>(at);
        configure(version, c"double".as_ptr(), priority, client.as_mut_ptr()).as_ref()
    };
    let Some(configured) = configured else { return };
    if configured.size < size_of::<Configured>() {
        return;
    }
    if let Some(finalize) = configured.finalize {
        crate::lock(&FINALIZERS).push((finalize, configured.data as usize));
    }
    if let Some(initialize) = configured.initialize {
        sdk::configuring(true);
        // SAFETY: the tool's function, with its own data.
        unsafe { initialize(std::ptr::null(), configured.data) };
        sdk::configuring(false);
    }
}

extern "C" fn at_exit() {
    sdk::complete();
    gpu::unload();
    for (finalize, data) in std::mem::take(&mut *crate::lock(&FINALIZERS)) {
        // SAFETY: the tool's function, with its own data.
        unsafe { finalize(data as *mut c_void) };
    }
    sdk::end();
}

static CORRELATION: AtomicU64 = AtomicU64::new(100);

/// One call: `body` gets its id, and what it returns is done after the call has ended, with when that was.
fn call<T>(
    service: Service,
    name: &str,
    body: impl FnOnce(u64) -> T,
    after: impl FnOnce(T, u64, u64) -> u32,
) -> u32 {
    begin();
    let named = |known: &&str| known.trim_end_matches('\0') == name;
    let operation = operations(service).iter().position(named);
    let operation = operation.map_or(-1, |at| at as i32);
    let mut event = Event::new(What::Call(service), name, operation);
    event.correlation = CORRELATION.fetch_add(1, SeqCst);
    event.start_ns = monotonic_ns();
    let done = body(event.correlation);
    event.end_ns = loop {
        let now = monotonic_ns();
        if now > event.start_ns {
            break now;
        }
    };
    let (correlation, end) = (event.correlation, event.end_ns);
    sdk::call(event);
    after(done, correlation, end)
}

fn plain(name: &str, body: impl FnOnce() -> u32) -> u32 {
    call(Service::Runtime, name, |_| body(), |result, _, _| result)
}

#[unsafe(no_mangle)]
pub extern "C" fn hipInit(_flags: u32) -> u32 {
    plain("hipInit", || match settings::get().devices {
        0 => NO_DEVICE,
        _ => SUCCESS,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipGetDeviceCount(count: *mut c_int) -> u32 {
    // SAFETY: the caller passes a place to write to.
    unsafe { *count = settings::get().devices as c_int };
    plain("hipGetDeviceCount", || SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn hipSetDevice(device: c_int) -> u32 {
    plain("hipSetDevice", || match gpu::set_device(device as u32) {
        true => SUCCESS,
        false => INVALID,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipGetDevice(device: *mut c_int) -> u32 {
    // SAFETY: the caller passes a place to write to.
    unsafe { *device = gpu::device() as c_int };
    plain("hipGetDevice", || SUCCESS)
}

/// Memory is taken (1) or given back (3), within a call.
fn allocation(operation: i32, correlation: u64, bytes: u64) {
    let mut event = Event::new(What::Allocation, "", operation);
    (event.correlation, event.bytes) = (correlation, bytes);
    (event.start_ns, event.end_ns) = (monotonic_ns(), monotonic_ns() + 100);
    event.device = gpu::device().into();
    event.agents[1] = agents::handle(Some(gpu::device()));
    sdk::pend(event);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipMalloc(at: *mut u64, bytes: usize) -> u32 {
    // SAFETY: the caller passes a place to write to.
    unsafe { *at = 0x7000_0000 };
    let taken = |correlation| allocation(1, correlation, bytes as u64);
    call(Service::Runtime, "hipMalloc", taken, |(), _, _| SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn hipFree(_at: u64) -> u32 {
    let given = |correlation| allocation(3, correlation, 0);
    call(Service::Runtime, "hipFree", given, |(), _, _| SUCCESS)
}

/// `kind`: 0 host to host, 1 host to device, 2 device to host, 3 device to device, of `hipMemcpyKind`.
fn copy(name: &str, bytes: usize, kind: u32, stream: usize) -> u32 {
    let device = gpu::device();
    let body = |_| {
        // rocprofiler_memory_copy_operation_t counts from 1
        let mut event = Event::new(What::Copy, "", kind as i32 + 1);
        event.bytes = bytes as u64;
        let peer = device + 1 < settings::get().devices;
        let (from, to) = match kind {
            1 => (None, Some(device)),
            2 => (Some(device), None),
            3 => (Some(device), Some(if peer { device + 1 } else { device })),
            _ => (None, None),
        };
        event.agents = [agents::handle(from), agents::handle(to)];
        let number = |gpu: Option<u32>| gpu.map_or(-1, i64::from);
        (event.from, event.device) = (number(from), number(to));
        event
    };
    call(Service::Runtime, name, body, |event, correlation, end| {
        gpu::submit(event, stream, correlation, end, 1_000 + bytes as u64 / 25);
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn hipMemcpyAsync(_to: u64, _from: u64, bytes: usize, kind: u32, on: usize) -> u32 {
    copy("hipMemcpyAsync", bytes, kind, on)
}

#[unsafe(no_mangle)]
pub extern "C" fn hipMemcpy(_to: u64, _from: u64, bytes: usize, kind: u32) -> u32 {
    copy("hipMemcpy", bytes, kind, 0)
}

/// `dim3`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Dim3(pub [u32; 3]);

#[unsafe(no_mangle)]
pub extern "C" fn __hipPushCallConfiguration(_: Dim3, _: Dim3, _: usize, _: usize) -> u32 {
    let name = "__hipPushCallConfiguration";
    call(Service::Compiler, name, |_| (), |(), _, _| SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn hipLaunchKernel(
    function: usize,
    grid: Dim3,
    block: Dim3,
    _arguments: *mut *mut c_void,
    shared: usize,
    stream: usize,
) -> u32 {
    let body = |_| gpu::kernel(function, grid.0, block.0, shared as u32);
    call(
        Service::Runtime,
        "hipLaunchKernel",
        body,
        |event, correlation, end| {
            let Some(event) = event else { return INVALID };
            gpu::submit(event, stream, correlation, end, settings::get().kernel_ns);
            SUCCESS
        },
    )
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipStreamCreate(stream: *mut usize) -> u32 {
    plain("hipStreamCreate", || {
        // SAFETY: the caller passes a place to write to.
        unsafe { *stream = gpu::create_stream() };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn hipStreamSynchronize(stream: usize) -> u32 {
    plain("hipStreamSynchronize", || {
        gpu::wait(Some(stream));
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn hipDeviceSynchronize() -> u32 {
    plain("hipDeviceSynchronize", || {
        gpu::wait(None);
        SUCCESS
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclAllReduce() -> u32 {
    call(Service::Rccl, "ncclAllReduce", |_| (), |(), _, _| SUCCESS)
}

/// The kernel of that symbol, for `hipLaunchKernel`: what `__hipRegisterFunction` and the first launch do.
///
/// # Safety
/// A C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn isc_hip_function(name: *const c_char) -> usize {
    begin();
    // SAFETY: as the caller promises.
    gpu::function(unsafe { CStr::from_ptr(name) })
}

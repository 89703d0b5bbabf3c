//! ROCm devices: what ran on them, through rocprofiler-sdk's buffered records.
//!
//! HIP finds rocprofiler-sdk, which loads this library (`ROCP_TOOL_LIBRARIES`) and calls [`rocprofiler_configure`],
//! then [`initialize`]; its functions are found by name in the library that is there, and never linked. Records come in
//! batches on a thread of the SDK's; a thread of ours has it hand them over every second, so that a program that is
//! killed loses no more than that. What is wrong with the SDK costs the device's rows, is said once, and never the
//! program.

mod agents;
mod kernels;
pub mod layout;
mod records;
mod services;
mod table;

use crate::clock::system_ns;
use crate::device::{Ticker, beside, missing, object};
use crate::hot::{self, locked};
use crate::inject::{self, guard};
use crate::json::quote;
use crate::loaded;
use records::Decoder;
use services::{Service, Services};
use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use table::{Header, Sdk};

/// Bytes of the SDK's buffer, of which it has two: a program waits only if one fills while the other is decoded.
const BUFFER: usize = 8 << 20;
/// It is handed over when it is this full.
const WATERMARK: usize = BUFFER / 4;
/// `ROCPROFILER_BUFFER_POLICY_LOSSLESS` of fwd.h.
const LOSSLESS: u32 = 2;

/// The SDK in use.
struct Device {
    sdk: Sdk,
    path: String,
    version: u32,
    pid: u32,
    context: u64,
    buffer: u64,
    /// What it would not record, and why.
    refused: Vec<(String, String)>,
}

static DEVICE: OnceLock<Device> = OnceLock::new();
static VERSION: AtomicU32 = AtomicU32::new(0);
static DECODER: Mutex<Option<Decoder>> = Mutex::new(None);
/// Half the width of the bracket of the last reading of the SDK's clock, in ns.
static CLOCK_ERROR: AtomicU64 = AtomicU64::new(0);
/// The SDK takes no calls any more.
static OVER: AtomicBool = AtomicBool::new(false);
static FLUSHES: Ticker = Ticker::new();

/// `rocprofiler_tool_configure_result_t` of registration.h, which the SDK copies.
#[repr(C)]
pub struct Configured {
    size: usize,
    initialize: unsafe extern "C" fn(*const c_void, *mut c_void) -> c_int,
    finalize: unsafe extern "C" fn(*mut c_void),
    data: usize,
}

static CONFIGURED: Configured = Configured {
    size: size_of::<Configured>(),
    initialize,
    finalize,
    data: 0,
};

/// The door that rocprofiler-sdk opens. `version` is 10000 × major + 100 × minor + patch. The client's id is left as it
/// is: its name is optional, and not where it was since 1.0 (registration.h).
///
/// Null where the run does not want devices, or there is none.
#[unsafe(no_mangle)]
pub extern "C" fn rocprofiler_configure(
    version: u32,
    _runtime: *const c_char,
    _priority: u32,
    _client: *mut c_void,
) -> *const Configured {
    static ONCE: AtomicBool = AtomicBool::new(false);
    guard(std::ptr::null(), || {
        let wanted = inject::begin() && hot::run().is_some_and(|run| run.settings.gpu);
        if !wanted || ONCE.swap(true, Relaxed) {
            return std::ptr::null();
        }
        VERSION.store(version, Relaxed);
        &raw const CONFIGURED
    })
}

/// The SDK is ready to be told what to record; 0 if it was.
unsafe extern "C" fn initialize(_finalize: *const c_void, _data: *mut c_void) -> c_int {
    guard(-1, || match start() {
        Ok(device) => {
            let _ = DEVICE.set(device);
            if let Some(device) = DEVICE.get() {
                read_clock(device);
            }
            tell();
            // SAFETY: a function of this library, which is never unloaded.
            unsafe { libc::atexit(at_exit) };
            FLUSHES.start("inferscope-rocm", flush);
            0
        }
        Err(why) => {
            hot::facts("gpu", &format!("{{\"reason\":{}}}", quote(&why)));
            hot::warn(&format!("no GPU data: {why}"));
            -1
        }
    })
}

/// The SDK that called us, by the name it is loaded under.
fn find() -> Result<(Sdk, String), String> {
    let flags = libc::RTLD_NOW | libc::RTLD_NOLOAD;
    // SAFETY: C strings; nothing is loaded that is not.
    let library = [c"librocprofiler-sdk.so.1", c"librocprofiler-sdk.so"]
        .map(|name| unsafe { libc::dlopen(name.as_ptr(), flags) })
        .into_iter()
        .find(|library| !library.is_null())
        .ok_or("librocprofiler-sdk.so.1 is not in this process")?;
    // SAFETY: a handle of dlopen, and a C string.
    let symbol = unsafe { libc::dlsym(library, c"rocprofiler_create_context".as_ptr()) };
    let path = loaded::library(symbol).map_or_else(String::new, |library| library.file);
    // SAFETY: rocprofiler-sdk, which stays: it is what called us.
    Ok((unsafe { Sdk::of(library) }, path))
}

fn start() -> Result<Device, String> {
    let (sdk, path) = find()?;
    let version = VERSION.load(Relaxed);
    let (Some(make_context), Some(make_buffer), Some(start), Some(_)) = (
        sdk.rocprofiler_create_context,
        sdk.rocprofiler_create_buffer,
        sdk.rocprofiler_start_context,
        sdk.rocprofiler_configure_buffer_tracing_service,
    ) else {
        return Err(format!("{path} is no rocprofiler-sdk that is known here"));
    };
    let check = |what: &str, result: u32| match result {
        0 => Ok(()),
        result => Err(format!("{what} of {path}: {}", sdk.words(result))),
    };
    let mut refused = Vec::new();
    let agents = agents::all(&sdk).unwrap_or_else(|result| {
        refused.push(("agents".to_owned(), sdk.words(result)));
        Vec::new()
    });
    if agents.is_empty() && refused.is_empty() {
        return Err(format!("{path} sees no GPU"));
    }
    let (mut context, mut buffer) = (0, 0);
    // SAFETY: the SDK's functions of those names, as are all below; each gets what the SDK's headers say.
    check("a context", unsafe { make_context(&mut context) })?;
    let null = std::ptr::null_mut();
    // SAFETY: as above; `completed` is ours and stays.
    check("a buffer", unsafe {
        let size = (BUFFER, WATERMARK);
        make_buffer(
            context,
            size.0,
            size.1,
            LOSSLESS,
            completed,
            null,
            &mut buffer,
        )
    })?;
    own_thread(&sdk, buffer);
    if let Err(result) = kernels::watch(&sdk, context, version) {
        refused.push(("kernel names".to_owned(), sdk.words(result)));
    }
    let settings = hot::run().map(|run| &run.settings);
    let all = settings.is_some_and(|settings| settings.cuda_api_all);
    let memory = settings.is_some_and(|settings| settings.cuda_memory);
    let services = Services::of(&sdk, version, all, memory);
    for (service, result) in services.configure(&sdk, context, buffer) {
        if service == Service::Kernel {
            return Err(format!("kernels of {path}: {}", sdk.words(result)));
        }
        refused.push((service.word().to_owned(), sdk.words(result)));
    }
    *locked(&DECODER) = Some(Decoder::new(services, agents, all));
    // SAFETY: as above.
    check("the start", unsafe { start(context) })?;
    for (word, why) in &refused {
        hot::note(&format!("rocprofiler-sdk does not record {word}: {why}"));
    }
    Ok(Device {
        sdk,
        path,
        version,
        pid: std::process::id(),
        context,
        buffer,
        refused,
    })
}

/// Has the records delivered on a thread of their own, without the program's signals. Else they come on a shared one.
fn own_thread(sdk: &Sdk, buffer: u64) {
    if let (Some(make), Some(assign)) = (
        sdk.rocprofiler_create_callback_thread,
        sdk.rocprofiler_assign_callback_thread,
    ) {
        let mut thread = 0;
        // SAFETY: the SDK's functions (internal_threading.h): one stores a handle, the other takes two.
        hot::quietly(|| unsafe { make(&mut thread) == 0 && assign(buffer, thread) == 0 });
    }
}

/// Reads the SDK's clock beside ours: CLOCK_BOOTTIME, as `default_clock_id` of its lib/common/utility.hpp has it.
fn read_clock(device: &Device) {
    let base_ns = hot::run().map_or(0, |run| run.calibration.base_monotonic_ns);
    let (offset, error) = beside(|| {
        let mut time = 0;
        let read = device.sdk.rocprofiler_get_timestamp;
        // SAFETY: the SDK's function of that name stores a number (rocprofiler.h).
        let told = read.is_some_and(|read| unsafe { read(&mut time) } == 0);
        Some(if told {
            time
        } else {
            system_ns(libc::CLOCK_BOOTTIME)
        })
    });
    CLOCK_ERROR.store(error, Relaxed);
    if let Some(decoder) = &mut *locked(&DECODER) {
        decoder.offset = offset.wrapping_sub_unsigned(base_ns);
    }
}

/// The SDK hands records over: on its own thread, or on ours in a call to flush. `dropped` is of all time (buffer.hpp).
unsafe extern "C" fn completed(
    _context: u64,
    _buffer: u64,
    headers: *mut *mut Header,
    count: usize,
    _data: *mut c_void,
    dropped: u64,
) {
    guard((), || {
        let Some(device) = DEVICE
            .get()
            .filter(|device| device.pid == std::process::id())
        else {
            return;
        };
        let new = {
            let mut decoder = locked(&DECODER);
            let Some(decoder) = &mut *decoder else { return };
            if !headers.is_null() {
                // SAFETY: the SDK passes that many headers, and what they point to, for the time of this call.
                unsafe {
                    let headers = std::slice::from_raw_parts(headers, count);
                    decoder.batch(&device.sdk, headers);
                }
            }
            let before = std::mem::replace(&mut decoder.counts.dropped, dropped);
            decoder.counts.dropped = before.max(dropped);
            dropped.saturating_sub(before)
        };
        missing("device records that rocprofiler-sdk dropped", new);
    });
}

/// Has the SDK hand over what is complete.
fn flush() {
    let Some(device) = DEVICE
        .get()
        .filter(|device| device.pid == std::process::id() && !OVER.load(Relaxed))
    else {
        return;
    };
    read_clock(device);
    if let Some(flush) = device.sdk.rocprofiler_flush_buffer {
        // SAFETY: the SDK's function of that name, which waits for `completed`; no lock of ours is held.
        unsafe { flush(device.buffer) };
    }
    tell();
}

/// Writes what has been found out since the last time.
fn tell() {
    static UNTIMED: AtomicU64 = AtomicU64::new(0);
    static SAID: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    let Some(device) = DEVICE.get() else { return };
    let (facts, untimed, unknown) = {
        let guard = locked(&DECODER);
        let Some(decoder) = &*guard else { return };
        let counts = &decoder.counts;
        let records = counts.records.iter();
        let records = object(records.map(|(word, n)| ((*word).to_owned(), n.to_string())));
        let unknown = counts.unknown.iter();
        let unknown = object(unknown.map(|(kind, n)| (kind.to_string(), n.to_string())));
        let refused = device.refused.iter();
        let refused = object(refused.map(|(word, why)| (word.clone(), quote(why))));
        let facts = format!(
            "{{\"interface\":\"rocprofiler\",\"path\":{},\"version\":{},\"clock\":\"read\",\"clock_error_ns\":{},\
             \"refused\":{refused},\"records\":{records},\"dropped\":{},\"untimed\":{},\"unknown\":{unknown},\
             \"damaged\":{},\"kernels\":{}}}",
            quote(&device.path),
            device.version,
            CLOCK_ERROR.load(Relaxed),
            counts.dropped,
            counts.untimed,
            counts.damaged + kernels::damaged(),
            kernels::known(),
        );
        let unknown: Vec<u32> = counts.unknown.keys().copied().collect();
        (facts, counts.untimed, unknown)
    };
    hot::facts("gpu", &facts);
    let before = UNTIMED.swap(untimed, Relaxed);
    missing(
        "device records without a time",
        untimed.saturating_sub(before),
    );
    let mut said = locked(&SAID);
    for kind in unknown {
        if !said.contains(&kind) {
            said.push(kind);
            hot::note(&format!(
                "rocprofiler-sdk's records of kind {kind} are not known here, and left out"
            ));
        }
    }
}

/// Before the SDK's own exit handler, which it registered before it called us.
extern "C" fn at_exit() {
    guard((), last);
}

/// The program is at its end.
pub fn last() {
    FLUSHES.stop();
    flush();
}

/// The SDK is about to end: all work is complete, and what comes now is the last.
unsafe extern "C" fn finalize(_data: *mut c_void) {
    guard((), || {
        FLUSHES.stop();
        let device = DEVICE.get();
        if let Some(device) = device.filter(|device| device.pid == std::process::id())
            && let Some(stop) = device.sdk.rocprofiler_stop_context
        {
            // SAFETY: the SDK's function of that name, and the context that it made.
            unsafe { stop(device.context) };
        }
        flush();
        OVER.store(true, Relaxed);
    });
}

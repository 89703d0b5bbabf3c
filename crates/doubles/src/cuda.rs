//! As `libcuda.so.1`: devices, contexts, streams and memory; [`crate::launch`] has what gives the device work.

use crate::call::{Done, call, resource, tell_resource};
use crate::event::Event;
use crate::gpu;
use crate::layout::kind;
use crate::names::{cbid, domain};
use crate::settings;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// `CUresult`.
pub mod code {
    pub const SUCCESS: u32 = 0;
    pub const INVALID_VALUE: u32 = 1;
    pub const NOT_INITIALIZED: u32 = 3;
    pub const NO_DEVICE: u32 = 100;
    pub const INVALID_DEVICE: u32 = 101;
    pub const INVALID_CONTEXT: u32 = 201;
    pub const INVALID_HANDLE: u32 = 400;
    pub const NOT_FOUND: u32 = 500;
}

static INITIALIZED: AtomicBool = AtomicBool::new(false);
/// The next device address; nothing is ever there.
static ADDRESS: AtomicU64 = AtomicU64::new(0x7f00_0000_0000);

/// A call of the driver that works only once it is initialized.
pub fn driver(cbid: u32, body: impl FnOnce() -> Done) -> u32 {
    named(cbid, None, body)
}

/// Like [`driver`], about a kernel of that name.
pub fn named(cbid: u32, symbol: Option<&'static CStr>, body: impl FnOnce() -> Done) -> u32 {
    if !INITIALIZED.load(SeqCst) || crate::is_forked() {
        return code::NOT_INITIALIZED;
    }
    call(domain::DRIVER, cbid, symbol, body)
}

/// Writes an out parameter, or says that there is none.
///
/// # Safety
/// `to` is null or may be written to.
pub unsafe fn give<T>(to: *mut T, value: T) -> u32 {
    if to.is_null() {
        return code::INVALID_VALUE;
    }
    // SAFETY: not null, so the caller's promise holds.
    unsafe { to.write(value) };
    code::SUCCESS
}

/// The program's SONAME of the driver; honours `CUDA_INJECTION64_PATH` as the driver does, once.
#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_flags: c_uint) -> u32 {
    crate::begin();
    if crate::is_forked() {
        return code::NOT_INITIALIZED;
    }
    if settings::get().no_driver {
        return code::NO_DEVICE;
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        inject();
        INITIALIZED.store(true, SeqCst);
        tell_resource(resource::CU_INIT_FINISHED, 0, 0, 0);
    });
    code::SUCCESS
}

/// Loads the library that the environment names and calls its entry; what cannot be loaded is passed over.
fn inject() {
    let path = std::env::var("CUDA_INJECTION64_PATH").unwrap_or_default();
    if path.is_empty() || path == "none" {
        return;
    }
    let Ok(path) = CString::new(path) else { return };
    // SAFETY: a path that ends in NUL; loading a library is what was asked for.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return;
    }
    // SAFETY: a library just opened, a name that ends in NUL.
    let entry = unsafe { libc::dlsym(library, c"InitializeInjection".as_ptr()) };
    if !entry.is_null() {
        // SAFETY: the entry that the driver documents, `int InitializeInjection(void)`.
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(entry)() };
    }
}

/// # Safety
/// The pointer is null or may be written to; so in all calls below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> u32 {
    let (major, minor) = (
        settings::get().version / 10_000,
        settings::get().version / 100 % 100,
    );
    // SAFETY: the caller's promise.
    unsafe { give(version, (major * 1000 + minor * 10) as c_int) }
}

/// # Safety
/// See [`cuDriverGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> u32 {
    driver(cbid::DEVICE_GET_COUNT, || {
        // SAFETY: the caller's promise.
        unsafe { give(count, settings::get().devices as c_int) }.into()
    })
}

/// # Safety
/// See [`cuDriverGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> u32 {
    if ordinal < 0 || ordinal as u32 >= settings::get().devices {
        return code::INVALID_DEVICE;
    }
    // SAFETY: the caller's promise.
    unsafe { give(device, ordinal) }
}

/// # Safety
/// See [`cuDriverGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxCreate_v2(context: *mut usize, _flags: c_uint, device: c_int) -> u32 {
    driver(cbid::CTX_CREATE_V2, || {
        if device < 0 || device as u32 >= settings::get().devices {
            return code::INVALID_DEVICE.into();
        }
        let (handle, place) = gpu::create_context(device as u32);
        tell_resource(resource::CONTEXT_CREATED, 0, 0, 0);
        let facts = [kind::DEVICE, kind::CONTEXT, kind::STREAM]
            .map(|kind| place.event(kind))
            .into();
        // SAFETY: the caller's promise.
        let code = unsafe { give(context, handle) };
        Done {
            code,
            facts,
            ..Done::default()
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxDestroy_v2(context: usize) -> u32 {
    driver(cbid::CTX_DESTROY_V2, || {
        if gpu::of_context(context).is_none() {
            return code::INVALID_CONTEXT.into();
        }
        tell_resource(resource::CONTEXT_DESTROY_STARTING, 0, 0, 0);
        if gpu::current() == context {
            gpu::set_current(0);
        }
        code::SUCCESS.into()
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: usize) -> u32 {
    driver(cbid::CTX_SET_CURRENT, || match gpu::set_current(context) {
        true => code::SUCCESS.into(),
        false => code::INVALID_CONTEXT.into(),
    })
}

/// # Safety
/// See [`cuDriverGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut usize, flags: c_uint) -> u32 {
    driver(cbid::STREAM_CREATE, || {
        let Some((handle, place)) = gpu::create_stream(-1) else {
            return code::INVALID_CONTEXT.into();
        };
        tell_resource(resource::STREAM_CREATED, handle, 0, 0);
        let fact = Event {
            what: if flags & 1 != 0 { 2 } else { 1 },
            ..place.event(kind::STREAM)
        };
        // SAFETY: the caller's promise.
        let code = unsafe { give(stream, handle) };
        Done {
            code,
            facts: vec![fact],
            ..Done::default()
        }
    })
}

/// # Safety
/// `name` is null or ends in NUL; see [`cuDriverGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: *mut usize,
    _module: usize,
    name: *const c_char,
) -> u32 {
    driver(cbid::MODULE_GET_FUNCTION, || {
        if name.is_null() {
            return code::INVALID_VALUE.into();
        }
        // SAFETY: not null, so it ends in NUL.
        let name = unsafe { CStr::from_ptr(name) };
        // SAFETY: the caller's promise.
        unsafe { give(function, gpu::function(name)) }.into()
    })
}

/// # Safety
/// See [`cuDriverGetVersion`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> u32 {
    driver(cbid::MEM_ALLOC_V2, || {
        let Some(place) = gpu::of_stream(0) else {
            return code::INVALID_CONTEXT.into();
        };
        let at = ADDRESS.fetch_add((bytes as u64).next_multiple_of(512), SeqCst);
        let fact = Event {
            what: 1,
            id: at,
            bytes: bytes as u64,
            ..place.event(kind::MEMORY2)
        };
        // SAFETY: the caller's promise.
        let code = unsafe { give(address, at) };
        Done {
            code,
            facts: vec![fact],
            ..Done::default()
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> u32 {
    driver(cbid::MEM_FREE_V2, || {
        let Some(place) = gpu::of_stream(0) else {
            return code::INVALID_CONTEXT.into();
        };
        Done {
            facts: vec![Event {
                what: 2,
                id: address,
                ..place.event(kind::MEMORY2)
            }],
            ..Done::default()
        }
    })
}

/// The address of a symbol of this library: as its name is, or with the suffix of its newest version.
///
/// # Safety
/// `symbol` is null or ends in NUL; see [`cuDriverGetVersion`] for the others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetProcAddress_v2(
    symbol: *const c_char,
    address: *mut *mut c_void,
    _cuda_version: c_int,
    _flags: u64,
    status: *mut c_int,
) -> u32 {
    if symbol.is_null() || address.is_null() {
        return code::INVALID_VALUE;
    }
    // SAFETY: not null, so it ends in NUL.
    let name = unsafe { CStr::from_ptr(symbol) }.to_string_lossy();
    let found = crate::own_symbol(&format!("{name}_v2")).or_else(|| crate::own_symbol(&name));
    // SAFETY: the caller's promise; a missing status is not an error.
    unsafe {
        address.write(found.unwrap_or(std::ptr::null_mut()));
        give(status, found.is_none() as c_int); // 1: symbol not found
    }
    if found.is_some() {
        code::SUCCESS
    } else {
        code::NOT_FOUND
    }
}

//! The double's functions, by `dlopen` as a probe would have them. Calls that must not fail stop the test.

use crate::collect::{self, completed, heard, monotonic, request};
use crate::decode::Record;
use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The handle that the double gave.
static SUBSCRIBER: AtomicUsize = AtomicUsize::new(0);

/// # Safety
/// `F` is the type of the function of that name.
unsafe fn symbol<F: Copy>(name: &CStr) -> F {
    let path = inferscope_doubles::cdylib().unwrap();
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: path and name end in NUL; the library is opened again, not twice.
    let symbol = unsafe { libc::dlsym(libc::dlopen(path.as_ptr(), libc::RTLD_NOW), name.as_ptr()) };
    assert!(!symbol.is_null(), "{name:?} in {path:?}");
    // SAFETY: a function pointer is as long as any other, and the caller says that it is an `F`.
    unsafe { std::mem::transmute_copy(&symbol) }
}

/// Calls a function of the double by name; its arguments are of these types.
macro_rules! c {
    ($name:literal, $($argument:expr => $type:ty),* $(,)?) => {{
        // SAFETY: the type of the function in CUDA's or CUPTI's headers; pointers point to what lives that long.
        let function = unsafe { symbol::<unsafe extern "C" fn($($type),*) -> u32>($name) };
        // SAFETY: as above.
        unsafe { function($($argument),*) }
    }};
}

type Next = unsafe extern "C" fn(*mut u8, usize, *mut *mut u8) -> u32;

/// CUPTI.
pub struct Cupti {
    pub next: Next,
}

impl Cupti {
    pub fn load() -> Self {
        // SAFETY: its type in `cupti_activity.h`.
        let next = unsafe { symbol(c"cuptiActivityGetNextRecord") };
        Self { next }
    }

    /// Registers buffers and CLOCK_MONOTONIC, with system thread ids.
    pub fn register_monotonic(&self) {
        assert_eq!(c!(c"cuptiSetThreadIdType", 1 => u32), 0);
        assert_eq!(self.register(monotonic), 0);
    }

    /// Registers buffers and a clock; what the clock came to.
    pub fn register(&self, clock: extern "C" fn() -> u64) -> u32 {
        self.register_buffers();
        c!(c"cuptiActivityRegisterTimestampCallback", clock => extern "C" fn() -> u64)
    }

    fn register_buffers(&self) {
        let code = c!(
            c"cuptiActivityRegisterCallbacks",
            request => unsafe extern "C" fn(*mut *mut u8, *mut usize, *mut usize),
            completed => unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize, usize),
        );
        assert_eq!(code, 0);
    }

    pub fn enable(&self, kind: u32) -> u32 {
        self.register_if_first();
        c!(c"cuptiActivityEnable", kind => u32)
    }

    pub fn enable_and_dump(&self, kind: u32) -> u32 {
        c!(c"cuptiActivityEnableAndDump", kind => u32)
    }

    /// What the double says of a record's length.
    pub fn struct_bytes(&self, kind: u32) -> usize {
        let mut bytes = 0;
        let code = c!(
            c"cuptiActivityGetStructSize",
            kind => u32, 0 => u32, &mut bytes => *mut usize,
        );
        assert_eq!(code, 0);
        bytes
    }

    fn register_if_first(&self) {
        static ONCE: std::sync::Once = std::sync::Once::new();
        let version = std::env::var("ISC_DOUBLE_NO_DRIVER");
        ONCE.call_once(|| {
            if version.is_err() && collect::is_new() {
                self.register_buffers();
                c!(c"cuptiSetThreadIdType", 1 => u32);
            }
        });
    }

    pub fn enable_call(&self, cbid: u32) -> u32 {
        c!(c"cuptiActivityEnableRuntimeApi", cbid => u32, 1 => u8)
    }

    pub fn flush(&self, flag: u32) {
        assert_eq!(c!(c"cuptiActivityFlushAll", flag => u32), 0);
    }

    /// What has come since the last question.
    pub fn records(&self) -> Vec<Record> {
        collect::take()
    }

    pub fn dropped(&self) -> usize {
        let mut dropped = 0;
        let none = std::ptr::null_mut();
        let code = c!(
            c"cuptiActivityGetNumDroppedRecords",
            none => *mut c_void, 0 => u32, &mut dropped => *mut usize,
        );
        assert_eq!(code, 0);
        dropped
    }

    /// Code and version.
    pub fn version(&self) -> (u32, u32) {
        let mut version = 0;
        (c!(c"cuptiGetVersion", &mut version => *mut u32), version)
    }

    pub fn subscribe(&self) -> u32 {
        let mut subscriber = 0;
        let callback = heard as unsafe extern "C" fn(*mut c_void, u32, u32, *const c_void);
        let code = c!(
            c"cuptiSubscribe",
            &mut subscriber => *mut usize,
            callback => unsafe extern "C" fn(*mut c_void, u32, u32, *const c_void),
            std::ptr::null_mut() => *mut c_void,
        );
        SUBSCRIBER.store(subscriber, SeqCst);
        code
    }

    pub fn subscribe_to(&self, domain: u32, cbid: u32) -> u32 {
        let subscriber = SUBSCRIBER.load(SeqCst);
        c!(c"cuptiEnableCallback", 1 => u32, subscriber => usize, domain => u32, cbid => u32)
    }

    pub fn text(&self, code: u32) -> String {
        let mut text = std::ptr::null();
        assert_eq!(
            c!(c"cuptiGetResultString", code => u32, &mut text => *mut *const c_char),
            0
        );
        // SAFETY: a text of the library.
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    }

    pub fn name(&self, domain: u32, cbid: u32) -> Option<String> {
        let mut name = std::ptr::null();
        let code = c!(
            c"cuptiGetCallbackName",
            domain => u32, cbid => u32, &mut name => *mut *const c_char,
        );
        // SAFETY: a text of the library, if the code says that there is one.
        let known = || unsafe { CStr::from_ptr(name) };
        (code == 0).then(|| known().to_string_lossy().into_owned())
    }

    pub fn push_external(&self, kind: u32, id: u64) {
        assert_eq!(
            c!(c"cuptiActivityPushExternalCorrelationId", kind => u32, id => u64),
            0
        );
    }

    pub fn pop_external(&self, kind: u32) -> u64 {
        let mut id = 0;
        assert_eq!(
            c!(c"cuptiActivityPopExternalCorrelationId", kind => u32, &mut id => *mut u64),
            0
        );
        id
    }
}

type Parameters = *mut *mut c_void;

/// The driver. Calls that fail stop the test.
pub struct Driver {
    launch: unsafe extern "C" fn(
        usize,
        u32,
        u32,
        u32,
        u32,
        u32,
        u32,
        u32,
        usize,
        Parameters,
        Parameters,
    ) -> u32,
    launch_runtime: unsafe extern "C" fn(usize, u32, u32, u32, u32, u32, u32, u32, usize) -> u32,
}

impl Driver {
    pub fn load() -> Self {
        // SAFETY: the first is of the type in `cuda.h`, the second is the double's own.
        unsafe {
            Self {
                launch: symbol(c"cuLaunchKernel"),
                launch_runtime: symbol(c"isc_runtime_launch"),
            }
        }
    }

    pub fn init(&self) -> u32 {
        c!(c"cuInit", 0 => u32)
    }

    pub fn context(&self, device: i32) -> usize {
        let mut context = 0;
        assert_eq!(
            c!(c"cuCtxCreate_v2", &mut context => *mut usize, 0 => u32, device => i32),
            0
        );
        context
    }

    pub fn use_context(&self, context: usize) {
        assert_eq!(c!(c"cuCtxSetCurrent", context => usize), 0);
    }

    pub fn stream(&self) -> usize {
        let mut stream = 0;
        assert_eq!(
            c!(c"cuStreamCreate", &mut stream => *mut usize, 1 => u32),
            0
        );
        stream
    }

    pub fn function(&self, name: &CStr) -> usize {
        let mut function = 0;
        let code = c!(
            c"cuModuleGetFunction",
            &mut function => *mut usize, 0 => usize, name.as_ptr() => *const c_char,
        );
        assert_eq!(code, 0);
        function
    }

    pub fn launch(&self, function: usize, grid: u32, stream: usize) {
        let none = std::ptr::null_mut();
        // SAFETY: handles are numbers; the parameters are not read.
        let code =
            unsafe { (self.launch)(function, grid, 2, 1, 128, 1, 2, 48, stream, none, none) };
        assert_eq!(code, 0);
    }

    pub fn launch_runtime(&self, function: usize, grid: u32, stream: usize) {
        // SAFETY: handles are numbers.
        let code = unsafe { (self.launch_runtime)(function, grid, 1, 3, 64, 2, 1, 0, stream) };
        assert_eq!(code, 0);
    }

    pub fn allocate(&self, bytes: usize) -> u64 {
        let mut address = 0;
        assert_eq!(
            c!(c"cuMemAlloc_v2", &mut address => *mut u64, bytes => usize),
            0
        );
        address
    }

    pub fn free(&self, address: u64) {
        assert_eq!(c!(c"cuMemFree_v2", address => u64), 0);
    }

    pub fn copy(&self, to: u64, bytes: usize, stream: usize) {
        let from = std::ptr::null();
        let code = c!(
            c"cuMemcpyHtoDAsync_v2",
            to => u64, from => *const c_void, bytes => usize, stream => usize,
        );
        assert_eq!(code, 0);
    }

    pub fn copy_peer(&self, to: usize, from: usize, bytes: usize, stream: usize) {
        let code = c!(
            c"cuMemcpyPeerAsync",
            0 => u64, to => usize, 0 => u64, from => usize, bytes => usize, stream => usize,
        );
        assert_eq!(code, 0);
    }

    pub fn set(&self, address: u64, value: u8, bytes: usize, stream: usize) {
        let code =
            c!(c"cuMemsetD8Async", address => u64, value => u8, bytes => usize, stream => usize);
        assert_eq!(code, 0);
    }

    pub fn graph(&self, function: usize, nodes: u32) -> usize {
        let mut graph = 0;
        let code =
            c!(c"isc_graph_create", &mut graph => *mut usize, function => usize, nodes => u32);
        assert_eq!(code, 0);
        graph
    }

    pub fn launch_graph(&self, graph: usize, stream: usize) {
        assert_eq!(c!(c"cuGraphLaunch", graph => usize, stream => usize), 0);
    }

    pub fn synchronize(&self, stream: usize) {
        assert_eq!(c!(c"cuStreamSynchronize", stream => usize), 0);
    }

    pub fn synchronize_all(&self) {
        assert_eq!(c!(c"cuCtxSynchronize",), 0);
    }

    /// Where the driver says that a function is.
    pub fn address(&self, name: &CStr) -> Option<usize> {
        let (mut address, mut status) = (std::ptr::null_mut(), 0);
        let code = c!(
            c"cuGetProcAddress_v2",
            name.as_ptr() => *const c_char, &mut address => *mut *mut c_void, 12090 => i32, 0 => u64,
            &mut status => *mut i32,
        );
        assert_eq!(
            (code == 500, status == 1),
            (address.is_null(), address.is_null())
        );
        (!address.is_null()).then(|| address.addr())
    }
}

//! The least that `CUDA_INJECTION64_PATH` can name: counts kernel records, and says at exit how many.
//!
//! It finds CUPTI as a probe does, by its bare name, and so proves that driver and CUPTI are one mapping.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Kind of kernel records, and their length in CUDA 12.
const KERNEL: u32 = 10;
const KERNEL_BYTES: usize = 208;
/// Of each buffer, in bytes.
const BUFFER: usize = 1 << 20;

static KERNELS: AtomicUsize = AtomicUsize::new(0);

type Request = unsafe extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
type Completed = unsafe extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);

/// # Safety
/// `F` is the type of the function of that name.
unsafe fn symbol<F: Copy>(name: &CStr) -> Option<F> {
    // SAFETY: names that end in NUL.
    let symbol = unsafe {
        let library = libc::dlopen(c"libcupti.so.12".as_ptr(), libc::RTLD_NOW);
        if library.is_null() {
            return None;
        }
        libc::dlsym(library, name.as_ptr())
    };
    // SAFETY: a function pointer is as long as any other, and the caller says that it is an `F`.
    (!symbol.is_null()).then(|| unsafe { std::mem::transmute_copy(&symbol) })
}

unsafe extern "C" fn request(buffer: *mut *mut u8, bytes: *mut usize, most: *mut usize) {
    let memory = vec![0u64; BUFFER / 8].into_boxed_slice();
    // SAFETY: CUPTI passes three pointers to write to.
    unsafe {
        *buffer = Box::into_raw(memory).cast();
        *bytes = BUFFER;
        *most = 0;
    }
}

unsafe extern "C" fn completed(
    _: *mut c_void,
    _: u32,
    buffer: *mut u8,
    bytes: usize,
    valid: usize,
) {
    KERNELS.fetch_add(valid / KERNEL_BYTES, SeqCst);
    // SAFETY: `request` allocated it, as u64.
    drop(unsafe {
        Box::from_raw(std::ptr::slice_from_raw_parts_mut(
            buffer.cast::<u64>(),
            bytes / 8,
        ))
    });
}

type Flush = unsafe extern "C" fn(u32) -> u32;

extern "C" fn at_exit() {
    // SAFETY: its type in `cupti_activity.h`.
    let flush = unsafe { symbol::<Flush>(c"cuptiActivityFlushAll") };
    // SAFETY: a plain number.
    flush.map(|flush| unsafe { flush(1) });
    eprintln!("injected: {} kernels", KERNELS.load(SeqCst));
}

/// What the driver calls in `cuInit`.
#[unsafe(no_mangle)]
pub extern "C" fn InitializeInjection() -> c_int {
    // SAFETY: their types in `cupti_activity.h`; the callbacks live as long as the process.
    let codes = unsafe {
        let register: Option<unsafe extern "C" fn(Request, Completed) -> u32> =
            symbol(c"cuptiActivityRegisterCallbacks");
        let enable: Option<unsafe extern "C" fn(u32) -> u32> = symbol(c"cuptiActivityEnable");
        libc::atexit(at_exit);
        (
            register.map(|register| register(request, completed)),
            enable.map(|enable| enable(KERNEL)),
        )
    };
    eprintln!("injected: {codes:?}");
    1
}

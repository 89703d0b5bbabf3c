//! A HIP program for tests: loads `libamdhip64.so.6` by name and gives it work. Without one it says so, and that is
//! fine.
//!
//! rocm-app [--kernels N] [--copies N] [--collectives N] [--streams N] [--threads N] [--devices N] [--sync-every N]
//!          [--pause-us N] [--exit normal|_exit|abort|sigterm|loop] [--quiet]
//!
//! Kernels, copies and collectives are shared out over the threads, a thread's over its streams, and threads over
//! devices. Copies go to the device, from it, and between devices in turn. `--pause-us` waits after each launch.
//! `--exit loop` goes on for ever; its line comes after each round.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::time::Duration;

#[derive(Clone, Copy)]
struct Plan {
    kernels: usize,
    copies: usize,
    collectives: usize,
    streams: usize,
    threads: usize,
    devices: usize,
    sync_every: usize,
    pause_us: u64,
    quiet: bool,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Dim3([u32; 3]);

type Launch = extern "C" fn(usize, Dim3, Dim3, *mut *mut c_void, usize, usize) -> u32;

/// The calls that the program makes.
#[derive(Clone, Copy)]
struct Hip {
    init: extern "C" fn(u32) -> u32,
    set_device: extern "C" fn(c_int) -> u32,
    get_device: extern "C" fn(*mut c_int) -> u32,
    allocate: extern "C" fn(*mut u64, usize) -> u32,
    free: extern "C" fn(u64) -> u32,
    copy: extern "C" fn(u64, u64, usize, u32, usize) -> u32,
    push: extern "C" fn(Dim3, Dim3, usize, usize) -> u32,
    launch: Launch,
    create_stream: extern "C" fn(*mut usize) -> u32,
    synchronize_stream: extern "C" fn(usize) -> u32,
    synchronize: extern "C" fn() -> u32,
    all_reduce: extern "C" fn() -> u32,
    function: extern "C" fn(*const c_char) -> usize,
}

impl Hip {
    /// The library and its calls, if it is there and is the double.
    fn load() -> Option<Hip> {
        // SAFETY: a name that ends in NUL.
        let library = unsafe { libc::dlopen(c"libamdhip64.so.6".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return None;
        }
        /// # Safety
        /// `F` is the type of the function of that name.
        unsafe fn find<F: Copy>(library: *mut c_void, name: &CStr) -> Option<F> {
            // SAFETY: a handle of dlopen; a pointer is as long as a function's address.
            unsafe {
                let at = libc::dlsym(library, name.as_ptr());
                (!at.is_null()).then(|| std::mem::transmute_copy(&at))
            }
        }
        // SAFETY: the types are those of the double's functions.
        unsafe {
            Some(Hip {
                init: find(library, c"hipInit")?,
                set_device: find(library, c"hipSetDevice")?,
                get_device: find(library, c"hipGetDevice")?,
                allocate: find(library, c"hipMalloc")?,
                free: find(library, c"hipFree")?,
                copy: find(library, c"hipMemcpyAsync")?,
                push: find(library, c"__hipPushCallConfiguration")?,
                launch: find(library, c"hipLaunchKernel")?,
                create_stream: find(library, c"hipStreamCreate")?,
                synchronize_stream: find(library, c"hipStreamSynchronize")?,
                synchronize: find(library, c"hipDeviceSynchronize")?,
                all_reduce: find(library, c"ncclAllReduce")?,
                function: find(library, c"isc_hip_function")?,
            })
        }
    }
}

/// Symbols of kernels, as code objects have them.
const NAMES: [&CStr; 3] = [
    c"_Z9addKernelPfS_i.kd",
    c"_ZN2at6native4fillIfEEvT_.kd",
    c"triton_poi_fused_0.kd",
];

fn check(what: &str, code: u32) {
    if code != 0 {
        eprintln!("rocm-app: {what}: {code}");
        std::process::exit(3);
    }
}

fn main() {
    let (plan, end) = arguments();
    let Some(hip) = Hip::load() else {
        println!("no rocm");
        return;
    };
    check("hipInit", (hip.init)(0));
    loop {
        std::thread::scope(|scope| {
            for thread in 1..plan.threads {
                scope.spawn(move || work(hip, plan, thread));
            }
            work(hip, plan, 0); // the first share is the main thread's
        });
        if !plan.quiet {
            println!("done {}", plan.kernels + plan.copies + plan.collectives);
        }
        match end.as_str() {
            "normal" => return,
            // SAFETY: ends the process at once, which is what was asked for.
            "_exit" => unsafe { libc::_exit(0) },
            "abort" => std::process::abort(),
            // SAFETY: the default action of the signal ends the process, which is what was asked for.
            "sigterm" => unsafe {
                libc::raise(libc::SIGTERM);
            },
            "loop" => continue,
            word => usage(word),
        }
    }
}

/// One thread's share.
fn work(hip: Hip, plan: Plan, thread: usize) {
    let mut device = (thread % plan.devices) as c_int;
    check("hipSetDevice", (hip.set_device)(device));
    check("hipGetDevice", (hip.get_device)(&mut device));
    let functions = NAMES.map(|name| (hip.function)(name.as_ptr()));
    let mut streams = vec![0; plan.streams.max(1)];
    for stream in &mut streams {
        check("hipStreamCreate", (hip.create_stream)(stream));
    }
    let mut address = 0;
    check("hipMalloc", (hip.allocate)(&mut address, 4096));
    let most = plan.kernels.max(plan.copies).max(plan.collectives);
    for at in (thread..most).step_by(plan.threads) {
        let stream = streams[at / plan.threads % streams.len()];
        if at < plan.copies {
            let (bytes, kind) = (4096 + at, 1 + at as u32 % 3);
            check(
                "hipMemcpyAsync",
                (hip.copy)(address, 0, bytes, kind, stream),
            );
        }
        if at < plan.kernels {
            let function = functions[at % functions.len()];
            let grid = Dim3([at as u32 % 64 + 1, 2, 1]);
            let block = Dim3([128, 1, 2]);
            let shared = 256 * (at % 4);
            check("the push", (hip.push)(grid, block, shared, stream));
            let none = std::ptr::null_mut();
            let code = (hip.launch)(function, grid, block, none, shared, stream);
            check("hipLaunchKernel", code);
        }
        if at < plan.collectives {
            check("ncclAllReduce", (hip.all_reduce)());
        }
        if plan.sync_every > 0 && (at / plan.threads + 1).is_multiple_of(plan.sync_every) {
            check("hipStreamSynchronize", (hip.synchronize_stream)(stream));
        }
        if plan.pause_us > 0 {
            std::thread::sleep(Duration::from_micros(plan.pause_us));
        }
    }
    check("hipFree", (hip.free)(address));
    check("hipDeviceSynchronize", (hip.synchronize)());
}

fn arguments() -> (Plan, String) {
    let mut plan = Plan {
        kernels: 100,
        copies: 0,
        collectives: 0,
        streams: 0,
        threads: 1,
        devices: 1,
        sync_every: 0,
        pause_us: 0,
        quiet: false,
    };
    let mut end = "normal".to_owned();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--quiet" {
            plan.quiet = true;
            continue;
        }
        let value = words.next().unwrap_or_else(|| usage(&word));
        let number = || value.parse().unwrap_or_else(|_| usage(&word));
        match word.as_str() {
            "--kernels" => plan.kernels = number(),
            "--copies" => plan.copies = number(),
            "--collectives" => plan.collectives = number(),
            "--streams" => plan.streams = number(),
            "--threads" => plan.threads = number().max(1),
            "--devices" => plan.devices = number().max(1),
            "--sync-every" => plan.sync_every = number(),
            "--pause-us" => plan.pause_us = number() as u64,
            "--exit" => end = value,
            _ => usage(&word),
        }
    }
    (plan, end)
}

fn usage(word: &str) -> ! {
    eprintln!(
        "rocm-app: cannot read {word}; the first lines of crates/doubles-rocm/src/bin/rocm-app.rs say what can be asked"
    );
    std::process::exit(2);
}

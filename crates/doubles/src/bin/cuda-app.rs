//! A CUDA program for tests: loads `libcuda.so.1` by name and gives it work. Without one it says so, and that is fine.
//!
//! cuda-app [--kernels N] [--copies N] [--graphs N] [--nodes N] [--streams N] [--threads N] [--devices N]
//!          [--sync-every N] [--pause-us N] [--runtime] [--exit normal|_exit|abort|sigterm|loop] [--quiet]
//!
//! Kernels, copies and graph launches are shared out over the threads, a thread's over its streams, and threads over
//! devices. `--pause-us` waits after each launch. `--exit loop` goes on for ever; its line comes after each round.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::time::Duration;

/// What to do.
#[derive(Clone, Copy)]
struct Plan {
    kernels: usize,
    copies: usize,
    graphs: usize,
    nodes: u32,
    streams: usize,
    threads: usize,
    devices: usize,
    sync_every: usize,
    pause_us: u64,
    runtime: bool,
    quiet: bool,
}

/// How to end.
enum End {
    Normal,
    Underscore,
    Abort,
    Sigterm,
    Loop,
}

type Launch = extern "C" fn(
    usize,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    c_uint,
    usize,
    *mut *mut c_void,
    *mut *mut c_void,
) -> u32;
type RuntimeLaunch =
    extern "C" fn(usize, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, usize) -> u32;

/// The calls that the program makes.
#[derive(Clone, Copy)]
struct Cuda {
    init: extern "C" fn(c_uint) -> u32,
    create_context: extern "C" fn(*mut usize, c_uint, c_int) -> u32,
    set_current: extern "C" fn(usize) -> u32,
    create_stream: extern "C" fn(*mut usize, c_uint) -> u32,
    get_function: extern "C" fn(*mut usize, usize, *const c_char) -> u32,
    launch: Launch,
    runtime_launch: RuntimeLaunch,
    copy: extern "C" fn(u64, *const c_void, usize, usize) -> u32,
    allocate: extern "C" fn(*mut u64, usize) -> u32,
    synchronize: extern "C" fn() -> u32,
    synchronize_stream: extern "C" fn(usize) -> u32,
    create_graph: extern "C" fn(*mut usize, usize, c_uint) -> u32,
    launch_graph: extern "C" fn(usize, usize) -> u32,
}

impl Cuda {
    /// The library and its calls, if it is there and is the double.
    fn load() -> Option<Self> {
        // SAFETY: a name that ends in NUL.
        let library = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return None;
        }
        /// # Safety
        /// `F` is the type of the function of that name.
        unsafe fn of<F: Copy>(library: *mut c_void, name: &CStr) -> Option<F> {
            // SAFETY: an open library, a name that ends in NUL.
            let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
            // SAFETY: a function pointer is as long as any other, and the caller says that it is an `F`.
            (!symbol.is_null()).then(|| unsafe { std::mem::transmute_copy(&symbol) })
        }
        // SAFETY: the types are those of the CUDA driver API, and of the double's own calls.
        unsafe {
            Some(Self {
                init: of(library, c"cuInit")?,
                create_context: of(library, c"cuCtxCreate_v2")?,
                set_current: of(library, c"cuCtxSetCurrent")?,
                create_stream: of(library, c"cuStreamCreate")?,
                get_function: of(library, c"cuModuleGetFunction")?,
                launch: of(library, c"cuLaunchKernel")?,
                runtime_launch: of(library, c"isc_runtime_launch")?,
                copy: of(library, c"cuMemcpyHtoDAsync_v2")?,
                allocate: of(library, c"cuMemAlloc_v2")?,
                synchronize: of(library, c"cuCtxSynchronize")?,
                synchronize_stream: of(library, c"cuStreamSynchronize")?,
                create_graph: of(library, c"isc_graph_create")?,
                launch_graph: of(library, c"cuGraphLaunch")?,
            })
        }
    }
}

/// The kernels, launched in turn; mangled, as the driver has them.
const NAMES: [&CStr; 3] = [
    c"_Z9addKernelPfS_i",
    c"_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIfEEEEviT0_",
    c"ampere_sgemm_128x64_tn",
];

/// Stops the program: a call failed.
fn check(call: &str, code: u32) {
    if code != 0 {
        eprintln!("cuda-app: {call} failed: {code}");
        std::process::exit(1);
    }
}

fn main() {
    let (plan, end) = arguments();
    let Some(cuda) = Cuda::load() else {
        return println!("no cuda");
    };
    if (cuda.init)(0) != 0 {
        return println!("no cuda");
    }
    let contexts: Vec<usize> = (0..plan.devices as c_int)
        .map(|device| {
            let mut context = 0;
            check(
                "cuCtxCreate_v2",
                (cuda.create_context)(&mut context, 0, device),
            );
            context
        })
        .collect();
    loop {
        std::thread::scope(|scope| {
            for thread in 1..plan.threads {
                let context = contexts[thread % contexts.len()];
                scope.spawn(move || work(cuda, plan, context, thread));
            }
            work(cuda, plan, contexts[0], 0); // the first share is the main thread's
        });
        if !plan.quiet {
            println!("done {}", plan.kernels + plan.copies + plan.graphs);
        }
        match end {
            End::Normal => return,
            // SAFETY: ends the process at once, which is what was asked for.
            End::Underscore => unsafe { libc::_exit(0) },
            End::Abort => std::process::abort(),
            // SAFETY: the default action of the signal ends the process, which is what was asked for.
            End::Sigterm => unsafe { libc::raise(libc::SIGTERM) },
            End::Loop => continue,
        };
    }
}

/// One thread's share.
fn work(cuda: Cuda, plan: Plan, context: usize, thread: usize) {
    check("cuCtxSetCurrent", (cuda.set_current)(context));
    let mut functions = NAMES.map(|_| 0);
    for (function, name) in functions.iter_mut().zip(NAMES) {
        check(
            "cuModuleGetFunction",
            (cuda.get_function)(function, 0, name.as_ptr()),
        );
    }
    let mut streams = vec![0; plan.streams];
    for stream in &mut streams {
        check("cuStreamCreate", (cuda.create_stream)(stream, 0));
    }
    if streams.is_empty() {
        streams.push(0); // the default stream
    }
    let (mut address, mut graph) = (0, 0);
    let host = [0u8; 4096];
    if plan.copies > 0 {
        check("cuMemAlloc_v2", (cuda.allocate)(&mut address, host.len()));
    }
    if plan.graphs > 0 {
        check(
            "isc_graph_create",
            (cuda.create_graph)(&mut graph, functions[0], plan.nodes),
        );
    }
    for at in (thread..plan.kernels.max(plan.copies).max(plan.graphs)).step_by(plan.threads) {
        let stream = streams[at / plan.threads % streams.len()];
        if at < plan.copies {
            check(
                "cuMemcpyHtoDAsync_v2",
                (cuda.copy)(address, host.as_ptr().cast(), host.len(), stream),
            );
        }
        if at < plan.kernels {
            let function = functions[at % functions.len()];
            let grid = at as c_uint % 64 + 1;
            let code = if plan.runtime {
                (cuda.runtime_launch)(function, grid, 1, 1, 128, 1, 1, 0, stream)
            } else {
                let none = std::ptr::null_mut();
                (cuda.launch)(function, grid, 1, 1, 128, 1, 1, 0, stream, none, none)
            };
            check("the launch", code);
        }
        if at < plan.graphs {
            check("cuGraphLaunch", (cuda.launch_graph)(graph, stream));
        }
        if plan.sync_every > 0 && (at / plan.threads + 1).is_multiple_of(plan.sync_every) {
            check("cuStreamSynchronize", (cuda.synchronize_stream)(stream));
        }
        if plan.pause_us > 0 {
            std::thread::sleep(Duration::from_micros(plan.pause_us));
        }
    }
    check("cuCtxSynchronize", (cuda.synchronize)());
}

fn arguments() -> (Plan, End) {
    let mut plan = Plan {
        kernels: 100,
        copies: 0,
        graphs: 0,
        nodes: 10,
        streams: 0,
        threads: 1,
        devices: 1,
        sync_every: 0,
        pause_us: 0,
        runtime: false,
        quiet: false,
    };
    let mut end = End::Normal;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--runtime" => plan.runtime = true,
            "--quiet" => plan.quiet = true,
            _ => {
                let value = words.next().unwrap_or_else(|| usage(&word));
                let number = || value.parse().unwrap_or_else(|_| usage(&word));
                match word.as_str() {
                    "--kernels" => plan.kernels = number(),
                    "--copies" => plan.copies = number(),
                    "--graphs" => plan.graphs = number(),
                    "--nodes" => plan.nodes = number() as u32,
                    "--streams" => plan.streams = number(),
                    "--threads" => plan.threads = number().max(1),
                    "--devices" => plan.devices = number().max(1),
                    "--sync-every" => plan.sync_every = number(),
                    "--pause-us" => plan.pause_us = number() as u64,
                    "--exit" => end = ending(&value),
                    _ => usage(&word),
                }
            }
        }
    }
    (plan, end)
}

fn ending(word: &str) -> End {
    match word {
        "normal" => End::Normal,
        "_exit" => End::Underscore,
        "abort" => End::Abort,
        "sigterm" => End::Sigterm,
        "loop" => End::Loop,
        _ => usage(word),
    }
}

fn usage(word: &str) -> ! {
    eprintln!(
        "cuda-app: cannot read {word}; the first lines of crates/doubles/src/bin/cuda-app.rs say what can be asked"
    );
    std::process::exit(2);
}

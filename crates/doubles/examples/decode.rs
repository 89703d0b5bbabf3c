//! What a record costs in the probe's callback: buffers of kernels and calls as CUPTI 13.5 writes them, decoded into a
//! spool. Prints ns of CPU time a record, the median of rounds. Run by scripts/bench-cuda.

use inferscope_doubles::event::Event;
use inferscope_doubles::layout::{bytes, kind};
use inferscope_doubles::record;
use inferscope_probe::cuda::activity::Decoder;
use inferscope_probe::cuda::table::Cupti;
use inferscope_probe::hot;
use std::ffi::{CStr, c_void};

const VERSION: u32 = 130_500;
const ROUNDS: usize = 21;
const RECORDS: usize = 4000;

/// Kernels as a decoder launches them: so many shapes, one after the other.
const SHAPES: u32 = 200;
const NAME: &CStr =
    c"_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_11FillFunctorIfEEEEviT0_";

fn buffer(of: u32) -> Vec<u8> {
    let size = bytes(VERSION, of).expect("a kind that the double makes");
    let mut all = vec![0; size * RECORDS];
    for (at, to) in all.chunks_exact_mut(size).enumerate() {
        let at = at as u32;
        let event = Event {
            kind: of,
            name: Some(NAME),
            correlation: at + 1,
            cupti_start: 1_000_000_000_000 + u64::from(at) * 1000,
            cupti_end: 1_000_000_000_500 + u64::from(at) * 1000,
            cbid: 307,
            thread_id: 7,
            context: 1,
            stream: 7,
            grid: [at % SHAPES + 1, 1, 1],
            block: [128, 1, 1],
            ..Event::default()
        };
        assert!(record::write(&event, VERSION, to));
    }
    all
}

fn cpu_ns() -> u64 {
    let mut at = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut at) };
    at.tv_sec as u64 * 1_000_000_000 + at.tv_nsec as u64
}

fn main() {
    let own = std::env::args().nth(1).expect("a folder for the spool");
    hot::start(own.as_ref(), "decode", None).expect("a spool");
    let double = inferscope_doubles::cdylib().expect("the double is built");
    let path = std::ffi::CString::new(double.to_str().expect("a path")).expect("no zero in it");
    // SAFETY: the double, which stays.
    let cupti = unsafe { Cupti::of(libc::dlopen(path.as_ptr(), libc::RTLD_NOW).cast::<c_void>()) };
    let mut decoder = Decoder::new(false);
    for of in [kind::CONCURRENT_KERNEL, kind::DRIVER] {
        let mut buffer = buffer(of);
        let mut rounds: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let before = cpu_ns();
                // SAFETY: a buffer as CUPTI gives it; its names are static.
                unsafe { decoder.buffer(&cupti, buffer.as_mut_ptr(), buffer.len()) };
                (cpu_ns() - before) as f64 / RECORDS as f64
            })
            .collect();
        rounds.sort_by(f64::total_cmp);
        let word = if of == kind::DRIVER { "call" } else { "kernel" };
        println!(
            "{word} {:.1} ns a record (median of {ROUNDS} buffers of {RECORDS})",
            rounds[ROUNDS / 2]
        );
    }
}

#![no_main]

#[path = "../src/drain.rs"]
mod drain;
#[path = "../src/record.rs"]
mod record;
#[path = "../src/trace.rs"]
mod trace;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drain::run(data));

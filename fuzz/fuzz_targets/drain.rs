#![no_main]

#[path = "../src/drain.rs"]
mod drain;

libfuzzer_sys::fuzz_target!(|data: &[u8]| drain::run(data));

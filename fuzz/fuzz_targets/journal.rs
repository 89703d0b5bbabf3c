#![no_main]

#[path = "../src/journal.rs"]
mod journal;
#[path = "../src/record.rs"]
mod record;
#[path = "../src/trace.rs"]
mod trace;

libfuzzer_sys::fuzz_target!(|data: &[u8]| journal::run(data));

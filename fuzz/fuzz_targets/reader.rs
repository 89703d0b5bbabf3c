#![no_main]

#[path = "../src/reader.rs"]
mod reader;
#[path = "../src/script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reader::run(data));

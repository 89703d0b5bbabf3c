#![no_main]

#[path = "../src/import.rs"]
mod import;
#[path = "../src/script.rs"]
mod script;
#[path = "../src/message.rs"]
mod message;

libfuzzer_sys::fuzz_target!(|data: &[u8]| message::run(data));

#![no_main]

#[path = "../src/import.rs"]
mod import;
#[path = "../src/script.rs"]
mod script;
#[path = "../src/database.rs"]
mod database;

libfuzzer_sys::fuzz_target!(|data: &[u8]| database::run(data));

//! The parts of isc-record that are fuzzed, compiled by themselves: without arrow and parquet that takes a minute.
#![allow(dead_code)]

#[path = "../../src/record/dense.rs"]
mod dense;
#[path = "../../src/record/drain.rs"]
pub mod drain;
#[path = "../../src/record/journal.rs"]
pub mod journal;
#[path = "../../src/record/throttle.rs"]
mod throttle;

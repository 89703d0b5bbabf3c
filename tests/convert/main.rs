//! What isc-convert writes is read back: by isc-merge, by Perfetto's own messages, by the schema of speedscope, as sums of
//! isc-report; and the part that was asked for is a timeline.

mod anyone;
mod asked;
#[path = "../common/mod.rs"]
mod common;
mod formats;
mod place;
mod readers;

//! InferScope shows where inference time goes:
//! program ▸ spool ▸ record ▸ trace ▸ merge ▸ trace ▸ analyze ▸ analysis ▸ report
//!
//! Modules stand in the order data flows; each may use those above it, never below.
//! A trace, in a file or a pipe, is all two commands share; each can rerun from its input alone.
#![forbid(unsafe_code)]

pub mod error; // what can go wrong, and what to do about it
pub mod cli; // what the commands share
pub mod config; // flags, environment, .inferscope.yaml, defaults
pub mod trace; // the event table: schema, reading, writing         formats/trace-v1.md
pub mod record; // run a program under the probe, drain its spools  formats/spool-v1.md
pub mod clock; // clock domains, snapshots: one clock for all rows
pub mod import; // other profilers' files as raw traces            docs/imports.md
pub mod correlate; // spans nested, device work joined to its launch
pub mod merge; // raw traces -> one timeline, sorted, in bounded memory
pub mod analyze; // measures, then rules: timeline -> analysis      formats/analysis-v1.md
pub mod diff; // two timelines -> what changed                      formats/diff-v1.md
pub mod report; // analysis -> HTML, Markdown, JSON
pub mod convert; // traces -> what other tools read, or a part of them    docs/convert.md
pub mod stages; // the commands one after the other, for `inferscope`

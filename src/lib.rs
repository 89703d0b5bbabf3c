//! InferScope shows where inference time goes:
//! program ▸ spool ▸ record ▸ trace ▸ merge ▸ trace ▸ analyze ▸ analysis ▸ report
//!
//! Modules stand in the order data flows; each may use those above it, never below.
//! A trace, in a file or a pipe, is all two commands share; each can rerun from its input alone.
#![forbid(unsafe_code)]

pub mod trace; // the event table: schema, reading, writing         formats/trace-v1.md

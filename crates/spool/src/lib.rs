//! What a probe and its recorder share: memory-mapped segments of records.
//!
//! Specification: `formats/spool-v1.md`.

pub mod record;

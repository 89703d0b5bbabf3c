//! What those parts need of the trace.
#![allow(dead_code)]

#[path = "../../src/trace/schema.rs"]
pub mod schema;

pub use schema::{Event, Kind, Names, Sym};

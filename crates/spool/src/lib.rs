//! What a probe and its recorder share: memory-mapped segments of records.
//!
//! Specification: `formats/spool-v1.md`. A probe makes a [`Pool`] per process and a [`Producer`] per thread; the
//! recorder follows a run's directory with a [`Reader`].

pub mod layout;
pub mod record;
mod segment;

#[cfg(not(loom))]
mod guard;
#[cfg(not(loom))]
mod map;
#[cfg(not(loom))]
mod pool;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
pub mod sys;

#[cfg(not(loom))]
pub use pool::{Pool, Producer, Settings};
#[cfg(not(loom))]
pub use reader::{Chain, Poll, Reader};

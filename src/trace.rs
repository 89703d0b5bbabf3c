//! The event table: `formats/trace-v1.md`.
//!
//! [`Event`] is one row. A raw trace (from isc-record, or an importer) has several clocks and no order; a
//! timeline (from isc-merge) has one clock, sorted rows and parents. Which one a file is stands in its
//! provenance, and both are read with `io::Reader`.

pub mod io;
pub mod provenance;
pub mod schema;
pub mod text;

pub use io::{Reader, Writer};
pub use provenance::{Provenance, Stage, Step};
pub use schema::{Event, Kind, Names, Sym};

/// A hash map with keys out of traces: quick, and seeded anew in each process, so that no file can choose what collides.
pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

//! The library inside the recorded program: calls become records in the spool.
//!
//! A guest: it never panics across the border, prints to stdout, waits for the recorder, or changes a result.
//! It holds no undefined Python symbol, so any program can load it; [`py`] finds what it needs in the
//! interpreter that is already in the process.
//!
//! Modules stand in the order data flows: [`hot`] writes records, the doors ([`monitor`] for CPython 3.12+,
//! [`profile`] before or, under a budget, [`frames`], [`lines`] for time by line, [`wrap`] for numpy's own functions,
//! [`sample`] for all other native code, [`nvtx`], which [`inject`] lets in) turn events into them; [`governor`] and [`slices`]
//! keep the budget; [`api`] is what the Python module calls.

pub mod hot;
pub mod py;

mod again;
mod api;
mod clock;
mod code;
mod cpu;
pub mod cuda;
mod depth;
mod device;
mod frames;
mod gil;
mod governor;
mod heat;
mod held;
mod inject;
mod json;
mod lines;
mod loaded;
mod monitor;
mod name;
mod nvtx;
mod profile;
mod python;
pub mod rocm;
mod sample;
mod settings;
mod slices;
mod task;
mod wrap;

pub use api::{Api, isc_api};

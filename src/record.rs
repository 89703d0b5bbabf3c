//! Follow a program from its launch to its last drained record.

pub mod drain; // records to rows: begins and ends paired, ids to names, ticks to ns
pub mod states; // CPU time, runnable, blocked, memory and lives, from /proc

//! Clock domains and snapshots.

//! What isc-record needs of the system, as safe functions.

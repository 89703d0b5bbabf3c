//! Flags, environment, file, defaults.

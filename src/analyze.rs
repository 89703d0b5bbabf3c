//! Timeline to analysis.

//! Spans nested, device work joined to its launch.

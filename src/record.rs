//! run a program under the probe, drain its spools.

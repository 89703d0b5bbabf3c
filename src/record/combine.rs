//! What was asked for and cannot be had together.

use std::path::PathBuf;

use super::Options;
use crate::cli::Sink;
use crate::error::{Error, Result};

impl Options {
    /// # Errors
    /// Windows of their own, and a pipe to write them into.
    pub fn check(&self, sink: &Sink) -> Result<()> {
        match !self.triggers.is_empty() && *sink == Sink::Stdout {
            true => Err(Error::Invalid {
                path: "--trigger".into(),
                what: "each window is a file of its own, and the output is a pipe".into(),
                hint: Some("-o run.parquet: the windows are run-1.parquet, run-2.parquet …".into()),
            }),
            false => Ok(()),
        }
    }

    /// What samples of stacks cannot do; `why` they are taken. What they merely do not need is told in a line.
    ///
    /// # Errors
    /// A recording or a window that would never begin.
    pub fn check_sampled(&self, why: &str) -> Result<()> {
        let refuse = |flag: &str, what: String| {
            Err(Error::Invalid {
                path: PathBuf::from(flag),
                what: format!("{why}, and samples see {what}"),
                hint: None,
            })
        };
        if let Some(scope) = &self.start_on {
            return refuse(
                "--start-on",
                format!("no scopes: {scope} would never begin"),
            );
        }
        if let Some(trigger) = self.triggers.iter().find(|trigger| !trigger.is_python()) {
            let what = format!("Python functions only: {trigger} would never fire");
            return refuse("--trigger", what);
        }
        let chosen = [
            ("include", &self.include),
            ("exclude", &self.exclude),
            ("lines", &self.lines),
        ];
        let chosen: Vec<&str> = (chosen.iter())
            .filter(|(_, patterns)| !patterns.is_empty())
            .map(|(name, _)| *name)
            .collect();
        if !chosen.is_empty() {
            let unused = chosen.join(", ");
            eprintln!("isc-record: samples see all functions, and no lines: not used: {unused}");
        }
        Ok(())
    }
}

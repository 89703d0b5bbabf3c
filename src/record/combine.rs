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
    /// A recording or a window that would never begin; a build that cannot sample.
    pub fn check_sampled(&self, why: &str) -> Result<()> {
        if !cfg!(feature = "sampling") {
            return Err(Error::Invalid {
                path: "--sample".into(),
                what: format!("{why}, and this isc-record was built without samples of stacks"),
                hint: Some("build it with its default features".into()),
            });
        }
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

//! A line on stderr for what takes longer than a second, and only for people.

use std::io::{self, IsTerminal};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How long a command may take before it is worth a line.
const PATIENCE: Duration = Duration::from_secs(1);

/// When the command began; its works share one second of silence.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Counts work done. It shows itself after a second, if stderr is a terminal, and is wiped when dropped.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    total: Option<u64>,
    done: u64,
    bar: Option<ProgressBar>,
    shown: bool,
}

impl Progress {
    /// `what` is a verb ("merging"); `total` in the unit of [`Progress::add`], if it is known.
    pub fn new(what: &'static str, total: Option<u64>) -> Progress {
        LazyLock::force(&BEGAN);
        Progress {
            what,
            total,
            done: 0,
            bar: None,
            shown: io::stderr().is_terminal(),
        }
    }

    /// [`Progress::new`] for an input; silent if that is a pipe, whose writer has a line of its own.
    pub fn reading(what: &'static str, total: Option<u64>, pipe: bool) -> Progress {
        let mut progress = Progress::new(what, total);
        progress.shown &= !pipe;
        progress
    }

    /// `more` units are done.
    pub fn add(&mut self, more: u64) {
        self.done += more;
        if !self.shown || BEGAN.elapsed() < PATIENCE {
            return;
        }
        let (what, total) = (self.what, self.total);
        let bar = self.bar.get_or_insert_with(|| {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let bar = bar.with_position(self.done);
            let template = match total {
                Some(_) => "{msg} {wide_bar} {percent}% {eta}",
                None => "{msg} {human_pos} {elapsed}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(what);
            bar
        });
        bar.set_position(self.done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

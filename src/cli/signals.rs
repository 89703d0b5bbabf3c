//! Ctrl-C in a pipe: it reaches every command at once, and the readers let the first one go by.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::Source;

/// Unfinished files, to be removed when a signal ends the command.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

pub(super) fn remember(path: &Path) {
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    unfinished.push(path.to_owned());
}

pub(super) fn forget(path: &Path) {
    let mut unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
    unfinished.retain(|other| other != path);
}

/// From now on a signal that ends this command removes its unfinished files first. While an input is
/// a pipe, the first Ctrl-C goes by: the recorder gets it too, finishes, and our input ends by itself.
pub fn interrupts(inputs: &[Source]) {
    static ONCE: Once = Once::new();
    let mut passes = inputs.is_empty() || inputs.iter().any(Source::is_pipe);
    ONCE.call_once(|| {
        // Without the handler, the signals do what they do by default: nothing to report.
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            return;
        };
        std::thread::spawn(move || {
            for signal in signals.forever() {
                if signal == SIGINT && std::mem::take(&mut passes) {
                    continue;
                }
                let unfinished = UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner);
                for path in unfinished.iter() {
                    let _ = std::fs::remove_file(path);
                }
                let _ = emulate_default_handler(signal);
            }
        });
    });
}

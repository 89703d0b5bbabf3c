//! How each process of a run ended, as far as that can be known.

use std::collections::{HashMap, HashSet};

use super::drain::ProcessKey;

/// Signals by which a program ends itself: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS. Their numbers
/// are those of signal(7) on x86-64 and arm64.
const CRASHES: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];

/// What the kernel says of a process that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Exit(i32),
    Signal(i32),
}

impl Status {
    /// From the number that wait(2) and `/proc/PID/stat` (field 52) have.
    pub fn from_wait(word: i32) -> Status {
        match word & 0x7f {
            0 => Status::Exit(word >> 8 & 0xff),
            signal => Status::Signal(signal),
        }
    }
}

/// What is known of the ends of a run's processes.
#[derive(Debug, Default)]
pub struct Ends {
    /// The pid of the program itself, and how it ended.
    pub program: Option<(u32, Status)>,
    /// Of other processes, where it was seen.
    pub seen: HashMap<ProcessKey, Status>,
    /// Those that still run.
    pub running: HashSet<ProcessKey>,
    /// The trace is made of what a dead recorder left.
    pub recovered: bool,
}

/// Entries of a process row's args; `None` is left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct End {
    pub exit: Option<i32>,
    pub signal: Option<i32>,
    pub ended: Option<&'static str>,
}

impl Ends {
    /// How this process ended. `exited`: it said that it ends by itself.
    pub fn of(&self, key: ProcessKey, exited: bool) -> End {
        let lives = self.running.contains(&key);
        let program = self.program.filter(|(pid, _)| *pid == key.pid);
        let seen = self.seen.get(&key).copied();
        match program.map(|(_, status)| status).or(seen) {
            Some(Status::Exit(code)) => End {
                exit: Some(code),
                signal: None,
                ended: Some("exit"),
            },
            Some(Status::Signal(signal)) => End {
                exit: None,
                signal: Some(signal),
                ended: Some(match CRASHES.contains(&signal) {
                    true => "crashed",
                    false => "killed",
                }),
            },
            None => End {
                ended: match (lives, exited, self.recovered) {
                    (true, ..) => Some("running"),
                    (false, true, _) => Some("exit"),
                    (false, false, true) => Some("recorder died"),
                    (false, false, false) => None,
                },
                ..End::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_word_stands_over_the_process_s_own_and_that_over_nothing() {
        let key = ProcessKey {
            pid: 7,
            start_ticks: 1,
        };
        let mut ends = Ends::default();
        assert_eq!(ends.of(key, false), End::default());
        ends.recovered = true;
        assert_eq!(ends.of(key, false).ended, Some("recorder died"));
        assert_eq!(ends.of(key, true).ended, Some("exit"));
        ends.running.insert(key);
        assert_eq!(ends.of(key, false).ended, Some("running"));
        ends.seen.insert(key, Status::from_wait(11 | 0x80)); // with a core dump
        let end = ends.of(key, false);
        assert_eq!((end.signal, end.ended), (Some(11), Some("crashed")));
        ends.program = Some((7, Status::from_wait(9)));
        assert_eq!(ends.of(key, false).ended, Some("killed"));
        ends.program = Some((7, Status::from_wait(3 << 8)));
        let end = ends.of(key, false);
        assert_eq!((end.exit, end.ended), (Some(3), Some("exit")));
    }
}

//! Samples of the instruction pointer: the native time that neither a wrap nor a call event reaches, by library.
//!
//! Each thread of the process has a timer on its own CPU clock, so a sleeping thread costs nothing and a sample stands
//! for CPU time, not for wall time. The handler notes the instruction pointer in [`ring`]; the helper looks up whose
//! library that is in [`maps`] and writes the records.
//!
//! The signal is SIGURG, as Go's runtime has it for its own threads (go.dev/design/24543): it is ignored unless
//! somebody asks for it, so that a program which puts all signals back to their defaults is not killed by ours, and
//! debuggers let it pass. A program that handles it itself keeps it, and has no samples. A kernel from 5.11 on looks
//! at these timers only on the way back to the program (CONFIG_POSIX_CPU_TIMERS_TASK_WORK), so no system call
//! that waits is cut short.

mod maps;
mod ring;
mod timer;

use crate::hot;
use inferscope_spool::record::Record;
use maps::Maps;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use timer::Timer;

pub use ring::forget;

/// CPU time between two samples of a thread, in ns: a tick of most kernels is 4 ms, and these timers fire on ticks.
/// A signal takes 2 to 4 µs of it, under 0.1 %.
const PERIOD_NS: u32 = 5_000_000;
/// Between two looks for threads that began or ended, at most; a look is due at once when their number changes.
const LOOK: Duration = Duration::from_millis(50);
/// But at most one part in so many of the time goes into looking …
const LOOK_SHARE: u32 = 2000;
/// … beyond this much at once: a look at new code or after a fork takes 100 µs and more, and a thread that begins soon
/// after it would compute unseen for 200 ms.
const LOOKS_AHEAD: Duration = Duration::from_millis(1);

/// The timers of this process and what is known of its libraries; the helper has one.
pub struct Sampler {
    timers: HashMap<i32, Timer>,
    maps: Maps,
    /// Threads at the last look.
    threads: u64,
    looked: Instant,
    /// What looks have cost, less their share of the time since; as it was at the last turn.
    owed: Duration,
    turned: Instant,
}

impl Sampler {
    /// Takes the signal. `None`: the program has it, or the processor is not known; a note says so.
    pub fn start() -> Option<Sampler> {
        if let Err(why) = ring::install() {
            hot::note(&format!("no samples: {why}"));
            return None;
        }
        Some(Sampler {
            timers: HashMap::new(),
            maps: Maps::default(),
            threads: 0,
            looked: Instant::now(),
            owed: Duration::ZERO,
            turned: Instant::now(),
        })
    }

    /// Writes what was sampled, if that is to be kept, and sees to new threads. Returns false when the program has taken
    /// the signal.
    pub fn turn(&mut self, keep: bool) -> bool {
        while let Some(sample) = ring::take() {
            if !keep {
                continue; // the timers are there for `slices` alone
            }
            hot::write_process(&Record::Sample {
                time: sample.time,
                id: self.maps.id(sample.ip),
                tid: sample.tid,
                cpu_ns: sample.periods * u64::from(PERIOD_NS),
            });
        }
        hot::lost(ring::dropped());
        if !ring::installed() {
            self.timers.clear();
            hot::note("no samples from here on: the program handles SIGURG itself");
            return false;
        }
        let now = Instant::now();
        let since = now - self.looked;
        let share = (now - self.turned) / LOOK_SHARE;
        (self.owed, self.turned) = (self.owed.saturating_sub(share), now);
        if self.owed > LOOKS_AHEAD {
            return true;
        }
        // A folder has a link for each folder in it.
        let threads = std::fs::metadata("/proc/self/task").map_or(0, |folder| folder.nlink());
        if threads != self.threads || since >= LOOK {
            self.threads = threads;
            self.looked = now;
            // in CPU time: a helper that had to wait for a processor has cost nothing
            let before_ns = crate::clock::system_ns(libc::CLOCK_THREAD_CPUTIME_ID);
            self.look();
            let cost_ns = crate::clock::system_ns(libc::CLOCK_THREAD_CPUTIME_ID) - before_ns;
            self.owed += Duration::from_nanos(cost_ns);
        }
        true
    }

    /// Gives a timer to each thread that has none, but not to the helper, which calls this.
    fn look(&mut self) {
        // SAFETY: no arguments, cannot fail.
        let own = unsafe { libc::gettid() };
        let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
        let tids: Vec<i32> = tasks
            .flatten()
            .filter_map(|task| task.file_name().to_str()?.parse().ok())
            .filter(|tid| *tid != own)
            .collect();
        // A number that is in use again has the timer of a thread that is gone: that one never fires.
        self.timers
            .retain(|tid, timer| tids.contains(tid) && timer.runs());
        for tid in tids {
            if let std::collections::hash_map::Entry::Vacant(place) = self.timers.entry(tid)
                && let Some(timer) = Timer::start(tid, PERIOD_NS)
            {
                place.insert(timer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_computes_is_sampled_and_one_that_sleeps_is_not() {
        ring::install().unwrap();
        hot::switch_for_test();
        let (busy_tx, busy) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let worker = std::thread::spawn(move || {
            // SAFETY: no arguments, cannot fail.
            let tid = unsafe { libc::gettid() };
            let timer = Timer::start(tid, PERIOD_NS).unwrap();
            let mut number = 1u64;
            while crate::clock::system_ns(libc::CLOCK_THREAD_CPUTIME_ID) < 200_000_000 {
                for _ in 0..10_000 {
                    number = std::hint::black_box(number.rotate_left(7).wrapping_mul(0x9E37_79B9));
                }
            }
            busy_tx.send(tid).unwrap();
            ended.recv().unwrap();
            drop(timer);
        });
        let tid = busy.recv().unwrap() as u64;
        let mut periods = 0;
        let mut maps = Maps::default();
        let mut own = 0;
        let exe = std::env::current_exe().unwrap();
        while let Some(sample) = ring::take() {
            assert_eq!(sample.tid, tid);
            periods += sample.periods;
            own += u64::from(maps.path(sample.ip) == exe.to_str()) * sample.periods;
        }
        end.send(()).unwrap();
        worker.join().unwrap();
        // 40 periods in 200 ms; a tick may be late, none may be counted twice
        assert!((30..=41).contains(&periods), "{periods}");
        assert!(
            own * 10 >= periods * 8,
            "{own} of {periods} in this program"
        );
    }
}

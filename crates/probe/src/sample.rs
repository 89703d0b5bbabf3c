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

use crate::clock;
use crate::hot;
use inferscope_spool::record::Record;
use maps::Maps;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub use ring::forget;
pub use timer::Timer;

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

/// Of the threads that begin, one in so many has a sample at its first tick, which stands for as many ticks: threads that
/// end before the helper sees them have one as often as they have computed for long. Setting it up takes 2 µs.
const ONE_IN: u64 = 4;
/// Threads that have used more than this, in ns, are no new ones.
const NEW_NS: u64 = 1_000_000;
/// CPU time that such a sample stands for; 0: none are taken.
static ONCE_NS: AtomicU64 = AtomicU64::new(0);

/// This thread, whose number is `tid`, begins: what it is to keep until it ends.
pub fn begin(tid: u64) -> Option<Timer> {
    let wanted = ONCE_NS.load(Relaxed) > 0 && clock::toss().is_multiple_of(ONE_IN);
    if !wanted || clock::system_ns(libc::CLOCK_THREAD_CPUTIME_ID) > NEW_NS {
        return None;
    }
    Timer::once(tid as i32)
}

/// Between two ticks of the kernel, in ns: its coarse clocks go on with them (clock_getres(2)). 0 if that is not known.
fn tick_ns() -> u64 {
    let mut tick = libc::timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    // SAFETY: `tick` is a valid timespec to write to.
    let known = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &mut tick) } == 0;
    match known && tick.tv_sec == 0 {
        true => tick.tv_nsec as u64,
        false => 0,
    }
}

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
        ONCE_NS.store(ONE_IN * tick_ns(), Relaxed);
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
                cpu_ns: sample.cpu_ns,
            });
        }
        hot::lost(ring::dropped());
        if !ring::installed() {
            self.timers.clear();
            ONCE_NS.store(0, Relaxed);
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
            let before_ns = clock::system_ns(libc::CLOCK_THREAD_CPUTIME_ID);
            self.look();
            let cost_ns = clock::system_ns(libc::CLOCK_THREAD_CPUTIME_ID) - before_ns;
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
    use std::sync::Mutex;

    /// There is one ring.
    static ALONE: Mutex<()> = Mutex::new(());

    fn compute(ns: u64) {
        let mut number = 1u64;
        while clock::system_ns(libc::CLOCK_THREAD_CPUTIME_ID) < ns {
            for _ in 0..10_000 {
                number = std::hint::black_box(number.rotate_left(7).wrapping_mul(0x9E37_79B9));
            }
        }
    }

    #[test]
    fn threads_that_end_soon_have_as_many_samples_as_they_have_computed_for() {
        let _alone = ALONE.lock();
        ring::install().unwrap();
        hot::switch_for_test();
        ONCE_NS.store(ONE_IN * tick_ns(), Relaxed);
        for _ in 0..500 {
            let thread = std::thread::spawn(|| {
                // SAFETY: no arguments, cannot fail.
                let _timer = begin(unsafe { libc::gettid() } as u64);
                compute(2_000_000);
            });
            thread.join().unwrap();
        }
        ONCE_NS.store(0, Relaxed);
        let mut cpu_ns = 0;
        while let Some(sample) = ring::take() {
            cpu_ns += sample.cpu_ns;
        }
        // Of 1 s; at 250 ticks a second 62 samples are to be expected, which is known to an eighth.
        assert!((500_000_000..1_700_000_000).contains(&cpu_ns), "{cpu_ns}");
    }

    #[test]
    fn a_thread_that_computes_is_sampled_and_one_that_sleeps_is_not() {
        let _alone = ALONE.lock();
        ring::install().unwrap();
        hot::switch_for_test();
        let (busy_tx, busy) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let worker = std::thread::spawn(move || {
            // SAFETY: no arguments, cannot fail.
            let tid = unsafe { libc::gettid() };
            let timer = Timer::start(tid, PERIOD_NS).unwrap();
            compute(200_000_000);
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
            let of_one = sample.cpu_ns / u64::from(PERIOD_NS);
            periods += of_one;
            own += u64::from(maps.path(sample.ip) == exe.to_str()) * of_one;
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

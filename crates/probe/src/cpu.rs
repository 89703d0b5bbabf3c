//! CPU time of the program's threads: whoever asks finds all that was used until now.
//!
//! Each thread reads its own clock now and then. What it has used since is read by others when that matters, and given
//! when it ends: in a program that makes a thread for each request none may live until it reads its clock a second time.
//! A thread's time is counted once, whoever reads it: the highest reading is kept, and only what is beyond it counts.

use crate::clock;
use crate::held::Held;
use crate::hot;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The threads whose clocks were read last: the others have hardly run meanwhile.
const RECENT: usize = 8;

/// What threads used that have ended, in ticks, as far as nobody has counted it.
static ENDED: AtomicU64 = AtomicU64::new(0);

/// All that threads used that had read their clocks and have ended, in ns; the same of those that never did, as far as
/// it was counted.
static SEEN_NS: AtomicU64 = AtomicU64::new(0);
static UNSEEN_NS: AtomicU64 = AtomicU64::new(0);

/// What of a thread's CPU time was counted, in ticks. Its rest is counted when it ends.
pub struct Meter(Option<Arc<AtomicU64>>);

impl Meter {
    pub const NEW: Meter = Meter(None);

    /// What was counted.
    pub fn counted(&self) -> u64 {
        self.0.as_ref().map_or(0, |counted| counted.load(Relaxed))
    }

    /// What this thread has used that was not counted, in ticks; it is now.
    ///
    /// # Safety
    /// It is this thread's own, whose number for the system is `tid` (0: not known yet), and the GIL is held.
    pub unsafe fn read(&mut self, tid: u64) -> u64 {
        let counted = self.0.get_or_insert_default();
        if tid != 0 {
            // SAFETY: as the caller promises; the reference ends here.
            unsafe { recent() }.touch(tid, counted);
        }
        count(counted, clock::system_ns(libc::CLOCK_THREAD_CPUTIME_ID))
    }

    /// In a forked child: this thread's clock has begun anew, and the others are gone. They are forgotten by who next
    /// has the GIL: the child of a fork without it may have found the list half changed.
    pub fn forked(&mut self) {
        self.0 = None;
        for sum in [&ENDED, &SEEN_NS, &UNSEEN_NS] {
            sum.store(0, Relaxed);
        }
        FORKED.store(true, Relaxed);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(counted) = &self.0 {
            let cpu_ns = clock::system_ns(libc::CLOCK_THREAD_CPUTIME_ID);
            ENDED.fetch_add(count(counted, cpu_ns), Relaxed);
            SEEN_NS.fetch_add(cpu_ns, Relaxed);
        }
    }
}

/// What threads that have ended used, and nobody had counted, in ticks.
pub fn of_ended() -> u64 {
    ENDED.swap(0, Relaxed)
}

/// What threads have used that have ended and never read their clocks, since this was last asked, in ticks: Python's
/// most likely, since other libraries' threads live on. Takes some 20 µs, and half one for each thread that lives.
pub fn of_unseen() -> u64 {
    let all_ns = clock::system_ns(libc::CLOCK_PROCESS_CPUTIME_ID);
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    let living: Vec<u64> = (tasks.flatten())
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect();
    // SAFETY: no arguments, cannot fail.
    let own = unsafe { libc::gettid() } as u64;
    if !living.contains(&own) {
        return 0; // there is no /proc, or it numbers threads as another namespace does
    }
    let living_ns: u64 = living.into_iter().map(clock::thread_ns).sum();
    // The first reading is the earlier one: what was used since then is not found here.
    let ended_ns = all_ns.saturating_sub(living_ns);
    let unseen_ns = ended_ns.saturating_sub(SEEN_NS.load(Relaxed));
    let before_ns = UNSEEN_NS.fetch_max(unseen_ns, Relaxed);
    unseen_ns.saturating_sub(before_ns) * hot::micro() / 1000
}

/// The same of the other threads that ran of late. Their clocks are read by calls of the system, in 0.3 µs each.
///
/// # Safety
/// The GIL is held. `tid` is this thread.
pub unsafe fn of_others(tid: u64) -> u64 {
    // SAFETY: as the caller promises; the reference ends here.
    unsafe { recent() }.others(tid, clock::thread_ns)
}

/// CPU time of a thread so far, or all it has used if it has ended, in ticks; 0 if it never read its clock, or long ago.
///
/// # Safety
/// The GIL is held.
pub unsafe fn of(tid: u64) -> u64 {
    match clock::thread_ns(tid) {
        // SAFETY: as the caller promises; the reference ends here.
        0 => unsafe { recent() }.counted(tid),
        cpu_ns => cpu_ns * hot::micro() / 1000,
    }
}

fn count(counted: &AtomicU64, cpu_ns: u64) -> u64 {
    let cpu = cpu_ns * hot::micro() / 1000;
    cpu.saturating_sub(counted.fetch_max(cpu, Relaxed))
}

/// System's number of a thread, and what was counted of it; the one that was read last comes first.
struct Recent([Option<(u64, Arc<AtomicU64>)>; RECENT]);

/// The list is that of a process of which this is a forked child.
static FORKED: AtomicBool = AtomicBool::new(false);
static READ: Held<Recent> = Held::new(Recent([const { None }; RECENT]));

/// # Safety
/// As [`Held::get`].
unsafe fn recent() -> &'static mut Recent {
    // SAFETY: as the caller promises.
    let recent = unsafe { READ.get() };
    if FORKED.load(Relaxed) && FORKED.swap(false, Relaxed) {
        recent.0 = [const { None }; RECENT];
    }
    recent
}

impl Recent {
    fn touch(&mut self, tid: u64, counted: &Arc<AtomicU64>) {
        if matches!(&self.0[0], Some((_, first)) if Arc::ptr_eq(first, counted)) {
            return; // nearly always
        }
        let known = |entry: &Option<(u64, Arc<AtomicU64>)>| {
            entry
                .as_ref()
                .is_none_or(|(of, known)| *of == tid || Arc::ptr_eq(known, counted))
        };
        let place = self.0.iter().position(known).unwrap_or(RECENT - 1);
        self.0[..=place].rotate_right(1);
        self.0[0] = Some((tid, counted.clone()));
    }

    fn counted(&self, tid: u64) -> u64 {
        let mut all = self.0.iter().flatten();
        let found = all.find(|(of, _)| *of == tid);
        found.map_or(0, |(_, counted)| counted.load(Relaxed))
    }

    fn others(&mut self, tid: u64, cpu_ns: impl Fn(u64) -> u64) -> u64 {
        let mut used = 0;
        for entry in &mut self.0 {
            let Some((other, counted)) = entry else {
                continue;
            };
            if *other == tid {
                continue;
            }
            match cpu_ns(*other) {
                0 => *entry = None, // it has ended
                cpu_ns => used += count(counted, cpu_ns),
            }
        }
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_threads_time_is_counted_once_whoever_reads_it() {
        let micro = hot::micro();
        let mut recent = Recent([const { None }; RECENT]);
        let all: Vec<Arc<AtomicU64>> = (0..20).map(|_| Arc::default()).collect();
        for (tid, counted) in (1..).zip(&all) {
            recent.touch(tid, counted);
        }
        // the last eight, but the one that asks
        assert_eq!(recent.others(20, |_| 5000), 7 * 5 * micro);
        assert_eq!(recent.others(20, |_| 5000), 0);
        recent.touch(19, &all[18]);
        assert_eq!(count(&all[18], 8000), 3 * micro);
        // one has ended, and another has its number
        assert_eq!(
            recent.others(19, |tid| if tid == 20 { 0 } else { 8000 }),
            6 * 3 * micro
        );
        let next = Arc::default();
        recent.touch(18, &next);
        assert_eq!(recent.others(19, |_| 1000), micro);
    }

    #[test]
    fn what_a_thread_used_before_it_ended_is_counted() {
        let counted: Arc<AtomicU64> = Arc::default();
        let meter = Meter(Some(counted.clone()));
        let before = ENDED.load(Relaxed);
        let used = std::thread::spawn(move || {
            let meter = meter;
            while clock::system_ns(libc::CLOCK_THREAD_CPUTIME_ID) < 2_000_000 {}
            drop(meter);
        });
        used.join().unwrap();
        let all = counted.load(Relaxed);
        assert!(all >= 2000 * hot::micro());
        assert_eq!(ENDED.load(Relaxed) - before, all);
    }
}

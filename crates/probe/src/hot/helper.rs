//! The helper thread: it readies segments, reads clocks, samples, and keeps `delay` and `duration`.

use super::{HELPED, Process, Run, begun, current, locked, run, switch, write_clock};
use crate::clock::{self, micro, now, toss};
use crate::governor;
use crate::lines;
use crate::sample::Sampler;
use crate::slices;
use inferscope_spool::sys::Folder;
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::time::{Duration, Instant};

/// The helper's period while no segment is to be had.
const TICK: Duration = Duration::from_millis(1);
/// The same else, in CPU time of the program, and the longest that is in wall time: segments that run low wake it. A
/// thread's wake-up and its work cost the program 30 to 80 µs, and on a busy machine a program has little CPU time in much
/// wall time. A hundredth of what the program has used so far, between these two: each wake-up may give a burst, and a
/// program that is soon over needs some too.
const IDLE_TICK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(20));
const LONGEST_TICK: Duration = Duration::from_millis(50);
/// Between two readings of all clocks.
const CLOCK_EVERY: Duration = Duration::from_secs(1);

/// The recorder is gone: no helper is started any more.
static GONE: AtomicBool = AtomicBool::new(false);
/// When the helper is to start again, in ticks; 0 = it runs, or need not.
static RESTART: AtomicU64 = AtomicU64::new(0);

/// First record, or one after a fork: starts the helper again when it is time.
#[cold]
pub fn stir() {
    let at = RESTART.load(Relaxed);
    if at == 0 {
        HELPED.store(true, Relaxed);
    } else if now() >= at && RESTART.swap(0, Relaxed) != 0 {
        start_helper();
    }
}

/// How long after a fork the helper stays away: Python 3.13 looks for threads to warn of after its own hooks, a few
/// µs later. Far longer than that, and short against what ready segments last.
const AFTER_FORK_US: u64 = 2000;

/// Lets the next record, a moment from now, start the helper that [`stop_helper`] ended.
pub fn start_helper_soon() {
    RESTART.store(now() + AFTER_FORK_US * micro(), Relaxed);
    HELPED.store(false, Relaxed);
}

/// In a forked child: nothing is to start again here, as its first record opens a spool and starts a helper.
pub fn forked() {
    RESTART.store(0, Relaxed);
}

/// Starts the helper thread unless it runs: it readies segments, reads clocks, keeps `delay` and `duration`.
pub fn start_helper() {
    let Some(process) = current().filter(|_| !GONE.load(Relaxed)) else {
        return;
    };
    let mut helper = locked(&process.helper);
    if helper.is_some() {
        return;
    }
    process.stop.store(false, Relaxed);
    *helper = quietly(|| {
        std::thread::Builder::new()
            .name("inferscope".into())
            .stack_size(256 << 10)
            .spawn(move || help(process))
    })
    .ok();
}

/// Runs `then` with all signals blocked. A thread that it starts inherits the mask, so that the program's handlers run
/// on the program's own threads only.
pub fn quietly<T>(then: impl FnOnce() -> T) -> T {
    // SAFETY: the sets are initialised by the calls that fill them.
    let before = unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        before
    };
    let done = then();
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    done
}

/// Ends the helper and waits for it, so that a fork copies a process with the program's own threads only.
pub fn stop_helper() {
    let Some(process) = current() else { return };
    let Some(helper) = locked(&process.helper).take() else {
        return;
    };
    process.stop.store(true, Release);
    helper.thread().unpark();
    let _ = helper.join(); // a panic in it has nothing to add here
}

/// How much wall time the program's CPU time takes of late.
#[derive(Default)]
struct Pace {
    cpu_ns: u64,
    wall_ns: u64,
}

impl Pace {
    /// About [`IDLE_TICK`] in wall time; by chance, so as not to go along with what the program does.
    fn idle(&mut self) -> Duration {
        let cpu_ns = clock::system_ns(libc::CLOCK_PROCESS_CPUTIME_ID);
        let wall_ns = clock::system_ns(libc::CLOCK_MONOTONIC);
        let cpu = cpu_ns.saturating_sub(std::mem::replace(&mut self.cpu_ns, cpu_ns));
        let wall = wall_ns.saturating_sub(std::mem::replace(&mut self.wall_ns, wall_ns));
        let stretch = wall as f64 / cpu.max(1) as f64;
        let tick = Duration::from_nanos(cpu_ns / 100).clamp(IDLE_TICK.0, IDLE_TICK.1);
        let wait = tick.mul_f64(stretch.clamp(1.0, 5.0)).min(LONGEST_TICK);
        wait.mul_f64(0.6 + 0.8 * toss() as f64 / u64::MAX as f64)
    }
}

fn help(process: &'static Process) {
    let Some(run) = run() else { return };
    let started = Duration::from_nanos(
        clock::system_ns(libc::CLOCK_MONOTONIC).saturating_sub(run.calibration.base_monotonic_ns),
    );
    let (since, mut clock_at) = (Instant::now(), Instant::now());
    let (mut wait, mut pace) = (TICK, Pace::default());
    let (mut sampler, mut tried) = (None::<Sampler>, false);
    let (mut asking, mut late) = (governor::Asking::default(), slices::Late::default());
    process.pool.serve();
    loop {
        std::thread::park_timeout(wait);
        if process.stop.load(Acquire) {
            return;
        }
        wait = match process.pool.tick() {
            true => pace.idle(),
            false => TICK,
        };
        let keep = run.settings.sample;
        if !tried && (keep || slices::begun()) {
            tried = true;
            sampler = Sampler::start();
        }
        if sampler.as_mut().is_some_and(|sampler| !sampler.turn(keep)) {
            sampler = None;
        }
        match sampler.is_none() {
            true => slices::arm_any(),
            false => late.look(),
        }
        if clock_at.elapsed() >= CLOCK_EVERY {
            clock_at = Instant::now();
            write_clock(process);
            lines::tell();
            if process.folder.as_ref().is_ok_and(Folder::is_removed) {
                return abandon();
            }
        }
        if let Some(py) = crate::py::get() {
            governor::wake(py.version, &mut asking);
        }
        keep_hours(run, started + since.elapsed());
    }
}

/// The recorder has ended and taken the run's directory away: what this process does from now on is its own.
fn abandon() {
    OVER.store(true, Relaxed);
    switch(false);
    GONE.store(true, Relaxed);
    crate::python::stop();
}

/// Switches on after `delay`, and off for good after `duration`; `age` is since the first process's start.
fn keep_hours(run: &Run, age: Duration) {
    static DONE: AtomicBool = AtomicBool::new(false);
    static SINCE_MS: AtomicU64 = AtomicU64::new(u64::MAX);
    let age_ms = age.as_millis() as u64;
    if run.settings.delay_ms > 0 && !begun() && age_ms >= run.settings.delay_ms {
        switch(true);
        crate::python::ask_for_open_frames();
    }
    let Some(duration) = run.settings.duration_ms else {
        return;
    };
    if begun() && SINCE_MS.load(Relaxed) == u64::MAX {
        SINCE_MS.store(age_ms, Relaxed);
    }
    if age_ms.saturating_sub(SINCE_MS.load(Relaxed)) >= duration && !DONE.swap(true, Relaxed) {
        switch(false);
        OVER.store(true, Relaxed);
    }
}

/// `duration` has passed: nothing switches on again.
static OVER: AtomicBool = AtomicBool::new(false);

/// Whether `duration` has passed.
pub fn over() -> bool {
    OVER.load(Relaxed)
}

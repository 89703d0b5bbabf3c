//! A timer on another thread's CPU clock. The system's calls are made directly: the C library hides these timers.

use super::ring::{ONCE, SIGNAL};
use crate::clock;
use std::ffi::c_int;

/// Signals one thread each time it has used a period of CPU time, until dropped.
#[derive(Debug)]
pub struct Timer(c_int);

impl Timer {
    /// Starts one for a thread of this process; `None`: the thread is gone, or the system has no timers left.
    pub fn start(tid: i32, period_ns: u32) -> Option<Timer> {
        Timer::set(tid, tid as usize, period_ns, period_ns)
    }

    /// One that signals the thread only once, at the next tick that it is at work.
    pub fn once(tid: i32) -> Option<Timer> {
        Timer::set(tid, tid as usize | ONCE, 1, 0)
    }

    fn set(tid: i32, value: usize, first_ns: u32, period_ns: u32) -> Option<Timer> {
        let clock = clock::of_thread(tid);
        let mut id: c_int = 0;
        // SAFETY: the event is all zeros but for what is set, and lives for the call, as does `id`.
        let made = unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = SIGNAL;
            event.sigev_notify_thread_id = tid;
            event.sigev_value.sival_ptr = value as *mut _;
            libc::syscall(libc::SYS_timer_create, clock, &mut event, &mut id)
        };
        if made != 0 {
            return None;
        }
        let timer = Timer(id);
        let span = |ns: u32| libc::timespec {
            tv_sec: 0,
            tv_nsec: ns.into(),
        };
        let times = libc::itimerspec {
            it_interval: span(period_ns),
            it_value: span(first_ns),
        };
        // SAFETY: a timer of ours and times that live for the call.
        let set = unsafe {
            libc::syscall(
                libc::SYS_timer_settime,
                id,
                0,
                &times,
                std::ptr::null_mut::<libc::itimerspec>(),
            )
        };
        (set == 0).then_some(timer)
    }

    /// Whether its thread still is: the timer of one that ended has no time left.
    pub fn runs(&self) -> bool {
        // SAFETY: times of zeros are valid; the call only writes to them.
        unsafe {
            let mut left: libc::itimerspec = std::mem::zeroed();
            libc::syscall(libc::SYS_timer_gettime, self.0, &mut left) == 0
                && (left.it_value.tv_sec, left.it_value.tv_nsec) != (0, 0)
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: a timer of ours.
        unsafe { libc::syscall(libc::SYS_timer_delete, self.0) };
    }
}

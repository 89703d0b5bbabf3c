//! From the signal handler to the helper: a ring of atomics, since a handler may neither lock nor allocate.

use crate::clock;
use crate::hot;
use crate::slices;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// One sample of a thread.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// In ticks since the base.
    pub time: u64,
    pub tid: u64,
    pub ip: u64,
    /// CPU time that it stands for: what passed while the signal was held up is in it.
    pub cpu_ns: u64,
}

/// `turn` is the sample's number, from 1, once the rest is written.
struct Slot {
    turn: AtomicU64,
    time: AtomicU64,
    tid: AtomicU64,
    ip: AtomicU64,
    cpu_ns: AtomicU64,
}

/// The helper takes them every few ms; these last for 10 s of CPU time when it does not.
const SLOTS: usize = 2048;

static RING: [Slot; SLOTS] = [const {
    Slot {
        turn: AtomicU64::new(0),
        time: AtomicU64::new(0),
        tid: AtomicU64::new(0),
        ip: AtomicU64::new(0),
        cpu_ns: AtomicU64::new(0),
    }
}; SLOTS];
/// Samples that got a slot, and those that were taken out.
static WRITTEN: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// Samples that found the ring full, since the helper asked.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// In a timer's value, beside the thread's number: it fires once.
pub const ONCE: usize = 1 << 32;

/// The signal of the timers.
pub const SIGNAL: c_int = libc::SIGURG;

fn push(sample: Sample) {
    let mut at = WRITTEN.load(Relaxed);
    loop {
        // The helper's reads of a slot come before its store to TAKEN.
        if at.wrapping_sub(TAKEN.load(Acquire)) >= SLOTS as u64 {
            DROPPED.fetch_add(1, Relaxed);
            return;
        }
        match WRITTEN.compare_exchange_weak(at, at + 1, Relaxed, Relaxed) {
            Ok(_) => break,
            Err(now) => at = now,
        }
    }
    let slot = &RING[at as usize % SLOTS];
    slot.time.store(sample.time, Relaxed);
    slot.tid.store(sample.tid, Relaxed);
    slot.ip.store(sample.ip, Relaxed);
    slot.cpu_ns.store(sample.cpu_ns, Relaxed);
    slot.turn.store(at + 1, Release);
}

/// The oldest sample that is whole. For one caller at a time.
pub fn take() -> Option<Sample> {
    let at = TAKEN.load(Relaxed);
    let slot = &RING[at as usize % SLOTS];
    if slot.turn.load(Acquire) != at + 1 {
        return None;
    }
    let sample = Sample {
        time: slot.time.load(Relaxed),
        tid: slot.tid.load(Relaxed),
        ip: slot.ip.load(Relaxed),
        cpu_ns: slot.cpu_ns.load(Relaxed),
    };
    TAKEN.store(at + 1, Release);
    Some(sample)
}

/// Samples dropped since the last call.
pub fn dropped() -> u64 {
    match DROPPED.load(Relaxed) {
        0 => 0,
        _ => DROPPED.swap(0, Relaxed),
    }
}

/// In a forked child: what was sampled is the parent's, and threads that were writing are not here.
pub fn forget() {
    TAKEN.store(WRITTEN.load(Relaxed), Release);
    DROPPED.store(0, Relaxed);
}

/// The head of a `siginfo_t` that a timer sent: include/uapi/asm-generic/siginfo.h, 64 bit.
#[repr(C)]
struct TimerInfo {
    signo: c_int,
    errno: c_int,
    code: c_int,
    padding: c_int,
    timer: c_int,
    overrun: c_int,
    value: usize,
}

extern "C" fn on_signal(_: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes both, valid until the handler returns; a siginfo_t is 128 bytes long.
    let (info, context) = unsafe { (&*info.cast::<TimerInfo>(), &*context.cast()) };
    if info.code == libc::SI_TIMER && hot::on() {
        let periods = 1 + info.overrun.max(0) as u64;
        let sample = Sample {
            time: clock::now(),
            tid: (info.value & !ONCE) as u64,
            ip: instruction_pointer(context),
            cpu_ns: match info.value & ONCE {
                0 => periods * u64::from(super::PERIOD_NS),
                _ => super::ONCE_NS.load(Relaxed),
            },
        };
        push(sample);
        slices::arm(sample.tid, sample.time, sample.ip);
    }
}

#[cfg(target_arch = "x86_64")]
fn instruction_pointer(context: &libc::ucontext_t) -> u64 {
    context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64
}

#[cfg(target_arch = "aarch64")]
fn instruction_pointer(context: &libc::ucontext_t) -> u64 {
    context.uc_mcontext.pc
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instruction_pointer(_: &libc::ucontext_t) -> u64 {
    0
}

fn current() -> Option<libc::sigaction> {
    // SAFETY: a sigaction of zeros is valid, and is only written to.
    unsafe {
        let mut action = std::mem::zeroed();
        (libc::sigaction(SIGNAL, std::ptr::null(), &mut action) == 0).then_some(action)
    }
}

/// Whether the signal is ours.
pub fn installed() -> bool {
    current().is_some_and(|action| action.sa_sigaction == on_signal as *const () as usize)
}

/// Takes the signal, if nobody else has it.
///
/// # Errors
/// In words, why not.
pub fn install() -> Result<(), String> {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        return Err("not on this processor".into());
    }
    let Some(before) = current() else {
        return Err("the signal's handler cannot be read".into());
    };
    let ours = on_signal as *const () as usize;
    if before.sa_sigaction == ours {
        return Ok(());
    }
    if before.sa_sigaction != libc::SIG_DFL && before.sa_sigaction != libc::SIG_IGN {
        return Err("the program handles SIGURG itself".into());
    }
    // SAFETY: the handler does only what may be done in one (atomics, a clock); SA_ONSTACK for threads whose own
    // stack is too small, SA_RESTART so that system calls go on.
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ours;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(SIGNAL, &action, std::ptr::null_mut()) == 0
    };
    match done {
        true => Ok(()),
        false => Err("the signal's handler cannot be set".into()),
    }
}

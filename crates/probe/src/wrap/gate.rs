//! Times a wrapped call and decides whether it becomes a span. When the budget is spent the call is not timed, and
//! samples say whose code it was.

use crate::governor;
use crate::hot;
use std::cell::Cell;

/// A wrap that is not inside another one is recorded if it took this long, in ns, or if there is no budget.
pub const OUTERMOST_NS: u64 = 500;
/// A wrap inside another one is recorded if it took this long, in ns, or if there is no budget.
pub const NESTED_NS: u64 = 1000;

/// Added to the state for each open wrap.
const DEPTH: u32 = 2;
/// In the state: an operator was entered and has not reached its ufunc yet.
const IN_OPERATOR: u32 = 1;

thread_local! {
    static STATE: Cell<u32> = const { Cell::new(0) };
}

#[cold]
#[inline(never)]
fn record(start: u64, dur: u64, id: u32) {
    if id != 0 {
        hot::native(start, dur, id);
    }
}

#[inline(always)]
fn timed<R>(before: u32, inside: u32, call: impl FnOnce() -> R, id: impl FnOnce() -> u32) -> R {
    governor::charge_wrap();
    timed_as(before, inside, call, |start, dur| record(start, dur, id()))
}

#[inline(always)]
fn timed_as<R>(
    before: u32,
    inside: u32,
    call: impl FnOnce() -> R,
    tell: impl FnOnce(u64, u64),
) -> R {
    STATE.set(inside);
    let start = hot::now();
    let result = call();
    let dur = hot::now().saturating_sub(start);
    STATE.set(before);
    let least = match before < DEPTH {
        _ if !governor::governs() => 0,
        true => OUTERMOST_NS,
        false => NESTED_NS,
    };
    if dur * 1000 >= hot::micro() * least {
        tell(start, dur);
    }
    result
}

/// Runs what is called without the GIL, and tells of it in its own way if it is worth that: with its start and duration, in
/// ticks.
#[inline(always)]
pub fn told<R>(call: impl FnOnce() -> R, tell: impl FnOnce(u64, u64)) -> R {
    if !hot::on() || governor::is_short() {
        return call();
    }
    governor::charge_unlocked();
    let before = STATE.get();
    timed_as(before, (before & !IN_OPERATOR) + DEPTH, call, tell)
}

/// Runs an operator that reaches its ufunc by calling it: that call is part of the operator.
#[inline(always)]
pub fn operator<R>(call: impl FnOnce() -> R, id: impl FnOnce() -> u32) -> R {
    if !hot::on() || governor::is_short() {
        return call();
    }
    let before = STATE.get();
    timed(before, (before | IN_OPERATOR) + DEPTH, call, id)
}

/// Runs anything else that is wrapped.
#[inline(always)]
pub fn function<R>(call: impl FnOnce() -> R, id: impl FnOnce() -> u32) -> R {
    if !hot::on() || governor::is_short() {
        return call();
    }
    let before = STATE.get();
    timed(before, (before & !IN_OPERATOR) + DEPTH, call, id)
}

/// Runs a ufunc: untimed if it is an operator's own.
#[inline(always)]
pub fn ufunc<R>(call: impl FnOnce() -> R, id: impl FnOnce() -> u32) -> R {
    if !hot::on() || governor::is_short() {
        return call();
    }
    let before = STATE.get();
    if before & IN_OPERATOR != 0 {
        STATE.set(before & !IN_OPERATOR);
        let result = call();
        STATE.set(before);
        return result;
    }
    timed(before, before + DEPTH, call, id)
}

//! What limits the program, in one sentence.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::idle::Cause;
use super::super::measure::Measures;
use super::super::{Analysis, Share, Verdict};
use super::{RUNNING, gpu, imported};

/// Categories of time in calls of a driver, and with nothing but device work.
const DEVICE_CALLS: [&str; 4] = ["launch", "gpu wait", "driver", "gpu"];

/// A verdict on the device needs its work to reach over this share of the timeline.
const GPU_WINDOW: f64 = 0.2;

/// A program that waits for more than this share of its path is limited by what it waits for.
const MOSTLY: f64 = 0.5;

/// A device that is busy for more than this share limits the program, and for less than the other it does not.
const BUSY: f64 = 0.8;
const HALF_BUSY: f64 = 0.7;

/// From this share of the idle time on stalls make a verdict uncertain.
const STALLED: f64 = 0.3;

/// How much of the confidence goes with idle time of which the cause is not known.
const UNEXPLAINED: f64 = 0.7;

/// So short a window tells little of a program: a step of a model takes longer.
const MOMENT_NS: f64 = 1e6;

/// What a window's length takes from the confidence.
fn moment(window_ns: f64) -> f64 {
    if window_ns < MOMENT_NS { 0.5 } else { 1.0 }
}

/// Whether the device's own story is the program's: it is used for much of the run, or is what the host waits for.
fn limits(m: &Measures, fact: &dyn Fn(&str) -> f64) -> bool {
    let used = fact("gpu.busy_ns") / m.span_ns().max(1) as f64;
    used > MOSTLY
        || fact("gap.launch.share") + fact("gap.sync.share") + fact("gap.copy.share") > MOSTLY
}

/// The verdict where devices work for most of the time, or wait for the host.
fn device(
    m: &Measures,
    fact: &dyn Fn(&str) -> f64,
    text: &dyn Fn(&str) -> String,
) -> (&'static str, String) {
    let window = fact("gpu.span_ns").max(1.0);
    let (busy, copies) = (fact("gpu.busy_ns") / window, fact("gpu.memcpy_ns") / window);
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let from = "of the time from its first to its last work";
    if copies > MOSTLY && fact("gpu.memcpy_ns") > fact("gpu.compute_ns") {
        return (
            "transfer-bound",
            format!(
                "copies take {} of the time from the GPU's first to its last work",
                percent(copies)
            ),
        );
    }
    if busy > BUSY {
        return (
            "gpu-bound",
            format!("the GPU is busy {} {from}", percent(busy)),
        );
    }
    let idle = format!("the GPU is idle {} {from}", percent(1.0 - busy));
    let of_idle = |cause: Cause| {
        fact(&format!("gap.{}.time_ns", cause.word())) / fact("gpu.idle_ns").max(1.0)
    };
    let most = Cause::ALL
        .into_iter()
        .max_by(|a, b| of_idle(*a).total_cmp(&of_idle(*b)));
    let most = most.unwrap_or(Cause::Unknown);
    let part = percent(of_idle(most));
    let place = match text(&format!("gap.{}.where", most.word())).as_str() {
        "" => String::new(),
        place => format!(", most in {place}"),
    };
    let shorter = fact("launch.shorter.count") / fact("launch.count").max(1.0);
    let shorter = match shorter > MOSTLY {
        true => format!(
            "; {} of what it runs is shorter than the call that starts it",
            percent(shorter)
        ),
        false => String::new(),
    };
    let waits = |what: &str| {
        format!("{idle}: it waits for the host, {part} of that {what}{place}{shorter}")
    };
    if gpu::stalled_ns(m) as f64 > MOSTLY * fact("gpu.idle_ns") {
        return (
            "unknown",
            format!(
                "{idle}, {part} of that in stalls: launched work did not begin, and the host waited for it{place}. Either \
                 the device did what is not in this trace, or it was held up"
            ),
        );
    }
    let stalls = gpu::stalled_ns(m) as f64 > STALLED * fact("gpu.idle_ns");
    let class = match busy > HALF_BUSY {
        // Much of what it waited for is not in the trace.
        _ if most == Cause::Queued && stalls => "unknown",
        true => "balanced",
        false => "cpu-bound",
    };
    match most {
        Cause::Idle => (
            "balanced",
            format!("{idle}: for {part} of that nobody asked for anything"),
        ),
        Cause::Unknown | Cause::Host if of_idle(most) > MOSTLY => (
            if of_idle(Cause::Unknown) > MOSTLY {
                "unknown"
            } else {
                class
            },
            format!(
                "{idle}, and why is not in the trace for {part} of that: {}",
                most.words()
            ),
        ),
        Cause::Queued => (
            class,
            format!("{idle}: for {part} of that launched work had not begun{shorter}"),
        ),
        Cause::Copy => ("transfer-bound", waits("while it copies")),
        Cause::Launch => (class, waits("for launches and the framework between them")),
        cause => (class, waits(cause.words())),
    }
}

pub(super) fn verdict(
    m: &Measures,
    a: &Analysis,
    breakdown: &[Share],
    texts: &BTreeMap<String, String>,
) -> Verdict {
    let fact = |name: &str| a.facts.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let text = |name: &str| texts.get(name).map_or("", String::as_str);
    let (native, wait) = (fact("native.share"), fact("wait.share"));
    let sampled = breakdown.iter().filter(|s| s.category == RUNNING);
    let python = fact("python.share") + sampled.map(|s| s.share).sum::<f64>();
    let startup = fact("startup.share");
    // Without a processor for a while, it was still doing what it did before and after.
    let (runnable, running) = (fact("runnable.share"), native + python);
    let doing = running + runnable;
    let native_all = (native + runnable * native / running.max(1e-9)).max(1e-9);
    let native_led = native >= python && (running > 0.0 && doing >= startup);
    let starved = match runnable > 0.2 {
        true => format!(
            "; for {:.0} % of the time it had no processor",
            100.0 * runnable
        ),
        false => String::new(),
    };
    let known = native
        + python
        + wait
        + startup
        + fact("gc.share")
        + fact("runnable.share")
        + fact("idle.share");
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let calls = breakdown
        .iter()
        .filter(|s| DEVICE_CALLS.contains(&&*s.category));
    let known = known + calls.map(|s| s.share).sum::<f64>();
    // What ran on a device for a moment only says nothing of the rest: the capture of a graph, say.
    let gpu =
        fact("gpu.span_ns") / m.span_ns().max(1) as f64 >= GPU_WINDOW && !m.devices.captured();
    let (class, summary) = if m.events == 0 || (!gpu && (breakdown.is_empty() || known < 0.2)) {
        (
            "unknown",
            "too little of the time is covered to say what limits the program".to_owned(),
        )
    } else if m.devices.captured() {
        (
            "unknown",
            "a graph was captured: nothing of its execution is in the trace".to_owned(),
        )
    } else if gpu && (imported(m) || limits(m, &fact)) {
        device(m, &fact, &|name| text(name).to_owned())
    } else if wait >= MOSTLY || wait > doing.max(startup) {
        (
            "balanced",
            format!(
                "waiting: {} of the time, most of it for {}, in {}",
                percent(wait),
                text("wait.for"),
                match text("wait.top.where") {
                    "" => "a place that is not known",
                    place => place,
                }
            ),
        )
    } else if fact("idle.share") >= MOSTLY {
        (
            "balanced",
            format!(
                "idle: {} of the time it waits for work",
                percent(fact("idle.share"))
            ),
        )
    } else if native_led {
        let of_native = (fact("native.top.share") / native_all).min(1.0);
        // Of a library that only samples saw, no function is known by name.
        let hottest = match of_native > 0.1 {
            true => format!(
                ": {} has {} of it",
                text("native.top.name"),
                percent(of_native)
            ),
            false => String::new(),
        };
        // Of a program that is all native nobody calls it.
        let caller = match text("caller.top.where") {
            "" => String::new(),
            caller => format!(", called most by {caller}"),
        };
        let summary = format!(
            "native code: {} of the time, most of it in {}{hottest}{caller}",
            percent(native),
            text("native.library"),
        );
        ("cpu-bound", summary)
    } else if startup > doing {
        (
            "cpu-bound",
            format!(
                "startup: {} of the time goes before the work begins",
                percent(startup)
            ),
        )
    } else {
        let what = match m.stacks {
            true => "code: {} of the time in Python functions and native code that they call",
            false => "Python: {} of the time in the interpreter",
        };
        let summary = format!(
            "CPU-bound {}, {} of it in {}",
            what.replacen("{}", &percent(python), 1),
            percent(fact("python.top.share")),
            text("python.top.where"),
        );
        ("cpu-bound", summary)
    };
    let lost = if m.lost > 0 { 0.9 } else { 1.0 };
    let summary = summary + &starved;
    // Of a verdict on the device all is known from its first to its last work, but for gaps that have no known cause.
    let known = if gpu {
        let unexplained = gpu::unexplained_ns(m) as f64 / fact("gpu.span_ns").max(1.0);
        (1.0 - UNEXPLAINED * unexplained) * moment(fact("gpu.span_ns"))
    } else {
        known
    };
    let confidence = (known.min(1.0) * lost * 0.98 * 100.0).round() / 100.0;
    Verdict {
        class: class.into(),
        confidence,
        summary,
    }
}

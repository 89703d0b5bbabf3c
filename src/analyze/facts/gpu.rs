//! Facts about devices: what they did, why they did nothing, and what would change that.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::device::{Gpu, Owner, percentile};
use super::super::idle::{Cause, Sum};
use super::super::kinds::{Direction, Memory, SHORT_NS};
use super::super::measure::Measures;
use super::super::replay::{Model, Run, Scenario};
use super::super::trail::Label;
use super::super::{Analysis, Gap};
use super::{function, owner, place_of};
use crate::trace::Kind;

/// A launch that takes longer than this is slow, and device work that begins later than this after its launch returned is
/// late: the outlier thresholds of Holistic Trace Analysis (`get_cuda_kernel_launch_stats`), in ns.
const SLOW_NS: i64 = 50_000;
const LATE_NS: i64 = 100_000;

/// Causes that a change of the program can take away, and how much of them is left then: all of it gone is the best
/// guess, but launches are made cheaper (a graph's replay), not fewer to none.
const REMOVABLE: [(Cause, f64); 12] = [
    (Cause::Launch, 0.1),
    (Cause::Sync, 0.0),
    (Cause::Copy, 0.0),
    (Cause::Preprocessing, 0.0),
    (Cause::Gil, 0.0),
    (Cause::Lock, 0.0),
    (Cause::Io, 0.0),
    (Cause::Sleep, 0.0),
    (Cause::Runnable, 0.0),
    (Cause::Gc, 0.1),
    (Cause::Import, 0.0),
    (Cause::Driver, 0.0),
];

/// A cause with less than this share of the time is not worth a run.
const LEAST: f64 = 0.001;

/// A change may do more than take its cause away, as far as the runs of the corpus show: docs/diagnosis.md.
const MORE: f64 = 1.5;

/// Of a cause that is easily halved, the gain that is sure.
const HALF: f64 = 0.5;

pub(super) fn facts(
    m: &Measures,
    a: &mut Analysis,
    texts: &mut BTreeMap<String, String>,
    rows: &mut BTreeMap<String, i64>,
) {
    let d = &m.devices;
    if d.by_device.is_empty() {
        a.facts.insert("gpu.busy.share".into(), json!(0.0));
        a.facts.insert("gpu.span.share".into(), json!(0.0));
        a.facts.insert("gpu.captured".into(), json!(0.0));
        return;
    }
    let (span, busy) = (d.work.span_ns(), d.work.union_ns());
    let (delays, durs) = (&d.launch_delays_ns, &d.launch_durs_ns);
    let above = |sorted: &[i64], ns: i64| {
        let upto = sorted.partition_point(|&x| x <= ns);
        (sorted.len() - upto) as i64
    };
    let kernels = &d.kinds.kernel_durs_ns;
    let short = kernels.partition_point(|&ns| ns < SHORT_NS);
    let overhead = m
        .functions
        .iter()
        .filter(|(key, _)| key.kind == Kind::Overhead);
    let overhead: i64 = overhead.map(|(_, sums)| sums.self_ns).sum();
    let to_device = d.kinds.sum(|direction, _| direction == Direction::ToDevice);
    let to_host = d.kinds.sum(|direction, _| direction == Direction::ToHost);
    let pageable = d.kinds.sum(|_, memory| memory == Memory::Pageable);
    let exposed = d.memcpy.exposed_ns(&[&d.compute, &d.comm]);
    let exposed_comm = d.comm.exposed_ns(&[&d.compute]);
    for (name, value) in [
        ("copy.blocking.count", d.kinds.blocking.0 as i64),
        ("copy.blocking.time_ns", d.kinds.blocking.1),
        ("copy.pageable.count", pageable.count as i64),
        ("copy.pageable.bytes", pageable.bytes),
        ("copy.pageable.time_ns", d.kinds.pageable.1),
        ("copy.to_device.bytes", to_device.bytes),
        ("copy.to_device.count", to_device.count as i64),
        ("copy.to_device.time_ns", to_device.time_ns),
        ("copy.to_host.bytes", to_host.bytes),
        ("copy.to_host.count", to_host.count as i64),
        ("copy.to_host.time_ns", to_host.time_ns),
        ("gpu.span_ns", span),
        ("gpu.busy_ns", busy),
        ("gpu.idle_ns", span - busy),
        ("gpu.compute_ns", d.compute.union_ns()),
        ("gpu.memcpy_ns", d.memcpy.union_ns()),
        ("gpu.memcpy.exposed_ns", exposed),
        ("gpu.comm_ns", d.comm.union_ns()),
        ("gpu.comm.exposed_ns", exposed_comm),
        ("kernel.count", d.kernels as i64),
        ("kernel.sum_ns", d.kernel_sum_ns),
        ("kernel.dur_ns_p50", percentile(kernels, 50)),
        ("kernel.short.count", short as i64),
        ("launch.count", delays.len() as i64),
        ("launch.late.count", above(delays, LATE_NS)),
        ("launch.slow.count", above(durs, SLOW_NS)),
        ("launch.shorter.count", d.shorter as i64),
        ("launch.dur_ns_p50", percentile(durs, 50)),
        ("launch.dur_ns_p90", percentile(durs, 90)),
        ("launch.dur_ns_p99", percentile(durs, 99)),
        (
            "queue.max",
            d.streams.values().map(|s| s.queue.max).max().unwrap_or(0),
        ),
        ("launch.delay_ns_p50", percentile(delays, 50)),
        ("launch.delay_ns_p90", percentile(delays, 90)),
        ("launch.delay_ns_p99", percentile(delays, 99)),
        ("gap.stalled.time_ns", m.gaps.stalled_ns),
        ("profiler.time_ns", overhead),
        ("sync.count", m.syncs.0 as i64),
        ("sync.time_ns", m.syncs.1),
    ] {
        a.facts.insert(name.into(), json!(value));
    }
    let window = span.max(1) as f64;
    let captured = f64::from(u8::from(d.captured()));
    for (name, share) in [
        ("gpu.busy.share", busy as f64 / window),
        ("gpu.captured", captured),
        ("gpu.comm.exposed.share", exposed_comm as f64 / window),
        ("gpu.idle.share", (span - busy) as f64 / window),
        ("gpu.memcpy.exposed.share", exposed as f64 / window),
        ("gpu.memcpy.share", d.memcpy.union_ns() as f64 / window),
        ("gpu.span.share", span as f64 / m.span_ns().max(1) as f64),
        (
            "kernel.short.share",
            short as f64 / kernels.len().max(1) as f64,
        ),
        (
            "launch.shorter.share",
            d.shorter as f64 / (delays.len() as f64).max(1.0),
        ),
        (
            "profiler.share",
            overhead as f64 / m.span_ns().max(1) as f64,
        ),
    ] {
        a.facts.insert(name.into(), json!(share));
    }
    if let Some((name, sums)) = d.kinds.top() {
        let share = sums.time_ns as f64 / d.kernel_sum_ns.max(1) as f64;
        a.facts.insert("kernel.top.share".into(), json!(share));
        a.facts.insert("kernel.top.count".into(), json!(sums.count));
        a.facts
            .insert("kernel.top.time_ns".into(), json!(sums.time_ns));
        texts.insert("kernel.top.name".into(), m.names.text(name).to_owned());
        rows.insert("kernel.top".into(), sums.longest.1);
    }
    let copies = d.kinds.sum(|_, _| true);
    if copies.count > 0 {
        rows.insert("copy.top".into(), copies.longest.1);
    }
    devices(m, a, texts);
    gaps(m, a, texts, rows, window);
    replays(&m.model, a);
}

/// Idle time in which launched work did not begin for long.
pub(super) fn stalled_ns(m: &Measures) -> i64 {
    m.gaps.stalled_ns
}

/// Idle time of which the cause is not known.
pub(super) fn unexplained_ns(m: &Measures) -> i64 {
    let of = |cause| m.gaps.sums.get(&(None, cause)).map_or(0, |sum| sum.time_ns);
    of(Cause::Unknown) + of(Cause::Host) + m.gaps.stalled_ns
}

/// Where a span is, for people.
fn place(m: &Measures, label: Label) -> String {
    match label {
        Label::Function(at) => {
            let at = at as usize;
            let (key, sums) = &m.functions[at];
            place_of(&function(m, at, key, sums))
        }
        Label::Scope(_) => format!("{} (a scope)", m.label(label)),
    }
}

fn gaps(
    m: &Measures,
    a: &mut Analysis,
    texts: &mut BTreeMap<String, String>,
    rows: &mut BTreeMap<String, i64>,
    window: f64,
) {
    let of = |gpu: Option<Gpu>, cause: Cause| {
        m.gaps.sums.get(&(gpu, cause)).copied().unwrap_or_default()
    };
    let mut listed = |device: Value, owner: Owner, gpu: Option<Gpu>| {
        let mut causes: Vec<(Cause, Sum)> =
            Cause::ALL.map(|cause| (cause, of(gpu, cause))).to_vec();
        causes.retain(|(_, sum)| sum.time_ns > 0);
        causes.sort_by_key(|(cause, sum)| (std::cmp::Reverse(sum.time_ns), cause.word()));
        a.gaps.extend(causes.into_iter().map(|(cause, sum)| Gap {
            device: device.clone(),
            owner: owner.clone(),
            cause: cause.word().into(),
            time_ns: sum.time_ns,
            count: sum.count,
            longest_ns: sum.longest.0,
            row: sum.longest.1,
            place: (m.gaps.most(cause).filter(|_| gpu.is_none())).map(|(label, _)| place(m, label)),
        }));
    };
    listed(json!("all"), Owner::default(), None);
    // Of one device they are those of all.
    for &gpu in m
        .devices
        .by_device
        .keys()
        .filter(|_| m.devices.by_device.len() > 1)
    {
        listed(json!(gpu.device), owner(m, gpu), Some(gpu));
    }
    for cause in Cause::ALL {
        let (word, sum) = (cause.word(), of(None, cause));
        a.facts
            .insert(format!("gap.{word}.time_ns"), json!(sum.time_ns));
        let share = sum.time_ns as f64 / window;
        a.facts.insert(format!("gap.{word}.share"), json!(share));
        if sum.count > 0 {
            rows.insert(format!("gap.{word}"), sum.longest.1);
        }
        if let Some((label, ns)) = m.gaps.most(cause) {
            texts.insert(format!("gap.{word}.name"), m.label(label).to_owned());
            texts.insert(format!("gap.{word}.where"), place(m, label));
            let top = ns as f64 / sum.time_ns.max(1) as f64;
            a.facts.insert(format!("gap.{word}.top.share"), json!(top));
        }
    }
}

/// Several devices against each other.
fn devices(m: &Measures, a: &mut Analysis, texts: &mut BTreeMap<String, String>) {
    let computed: Vec<(Gpu, i64)> = (m.devices.compute_by_device.iter())
        .map(|(gpu, work)| (*gpu, work.union_ns()))
        .collect();
    a.facts
        .insert("device.count".into(), json!(m.devices.by_device.len()));
    let sum: i64 = computed.iter().map(|(_, ns)| ns).sum();
    // Ties go to the first.
    let slowest = computed.iter().rev().max_by_key(|(_, ns)| *ns);
    let Some((gpu, ns)) = slowest.filter(|_| computed.len() > 1 && sum > 0) else {
        return;
    };
    let mean = sum as f64 / computed.len() as f64;
    a.facts
        .insert("device.imbalance".into(), json!(*ns as f64 / mean));
    a.facts.insert("device.slowest.time_ns".into(), json!(ns));
    let owner = owner(m, *gpu);
    let rank = owner
        .rank
        .map_or(String::new(), |rank| format!(" of rank {rank}"));
    texts.insert(
        "device.slowest.name".into(),
        format!("device {}{rank}", gpu.device),
    );
}

/// What taking away each cause would gain.
fn replays(model: &Model, a: &mut Analysis) {
    if model.is_empty() {
        return;
    }
    let base = model.run(&Scenario::default());
    let measured = model.measured_ns() as f64;
    let error = (base.total_ns - measured).abs() / measured.max(1.0);
    a.facts.insert("replay.error.share".into(), json!(error));
    let fact = |name: &str| a.facts.get(name).and_then(Value::as_f64);
    let busy = fact("gpu.busy.share").unwrap_or(1.0);
    let top = fact("kernel.top.share").unwrap_or(0.0);
    let speedup = |run: Run| base.ns() / run.ns().max(1.0);
    let mut told = |name: &str, best: Run, half: Run| {
        // The device's own work is left in any case.
        let most = match name {
            "copy" | "kernel" => f64::INFINITY,
            _ => (1.0 + error) / busy.max(1e-9),
        };
        let (best, half) = (speedup(best).min(most), speedup(half).min(most));
        for (what, value) in [
            ("speedup", best),
            ("low", half.min(best) * (1.0 - error)),
            ("high", (1.0 + (best - 1.0) * MORE + best * error).min(most)),
        ] {
            a.facts
                .insert(format!("replay.{name}.{what}"), json!(value));
        }
    };
    let times_ns = model.times_ns();
    for (cause, left) in REMOVABLE {
        if times_ns[cause as usize] as f64 <= LEAST * measured {
            told(cause.word(), base, base);
            continue;
        }
        let best = Scenario::default().with(cause, left);
        let half = Scenario::default().with(cause, HALF);
        told(cause.word(), model.run(&best), model.run(&half));
    }
    let faster = |left: f64| Scenario::default().with_kernels(1.0 - top * (1.0 - left));
    told("kernel", model.run(&faster(0.1)), model.run(&faster(HALF)));
}

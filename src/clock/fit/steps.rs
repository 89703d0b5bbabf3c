//! Where a clock steps: its snapshots, cut into stretches that one clock each can have gone through.

use super::Snapshot;
use super::corridor::{Corridor, DRIFT, ONE, Rates, Stretch, ceil, floor, mirrored, runs};

/// Snapshots closer together than this tell nothing of a clock's nominal rate, in ns: at 100 ns a reading, a rate
/// from 10 ms is already off by 10 ppm.
pub(super) const SHORTEST_NS: i128 = 10_000_000;
/// Nominal rates that a counter may have, in 10^-12: from 1 MHz taken for 1 THz, to the other way round.
const NOMINAL: (i128, i128) = (ONE / 1_000_000, ONE * 1_000_000);

/// The fewest stretches that explain these snapshots, in order of time; none without snapshots.
///
/// Going forwards as far as one clock can be seen to go, and again from there, finds the latest snapshot before
/// which each step can lie; going backwards finds the earliest. What is between the two belongs to no stretch for
/// certain, and so narrows none.
pub(super) fn stretches(snapshots: &[Snapshot]) -> Vec<Stretch> {
    let corridors = in_time(snapshots);
    let Some(last) = corridors.len().checked_sub(1) else {
        return Vec::new();
    };
    let limits = limits(&corridors);
    let steps = steps(&corridors, limits);
    let starts = [0].into_iter().chain(steps.iter().map(|s| s.1));
    let ends = steps.iter().map(|s| s.0).chain([last]);
    let between = |at: usize| {
        let before = at.checked_sub(1).map(|step| steps[step].0);
        let after = steps.get(at).map(|step| step.1);
        let start = before.map_or(i64::MIN.into(), |s| corridors[s].low);
        let end = after.map_or(i64::MAX.into(), |s| corridors[s].high);
        let around = &corridors[before.unwrap_or(0)..=after.unwrap_or(last)];
        ((start, end.max(start)), around)
    };
    starts
        .zip(ends)
        .enumerate()
        .map(|(at, (start, end))| {
            let (between, around) = between(at);
            if start <= end {
                return Stretch::new(&corridors[start..=end], limits, between);
            }
            let readings = around.iter().map(|c| c.reading);
            let first = readings.clone().min().unwrap_or(0);
            Stretch::unknown(limits, between, (first, readings.max().unwrap_or(0)))
        })
        .collect()
}

/// For each step, the last snapshot that is certainly before it and the first that is certainly after it.
fn steps(corridors: &[Corridor], limits: Rates) -> Vec<(usize, usize)> {
    let latest = &runs(corridors, limits)[1..];
    let last = corridors.len() - 1;
    let earliest: Vec<usize> = runs(&mirrored(corridors), limits)[1..]
        .iter()
        .rev()
        .map(|start| last - start)
        .collect();
    // One way may just see what the other just misses. Then each step is where it was seen.
    match latest.len().cmp(&earliest.len()) {
        std::cmp::Ordering::Equal => earliest
            .iter()
            .zip(latest)
            .map(|(&before, &after)| (before.min(after - 1), after))
            .collect(),
        std::cmp::Ordering::Greater => latest.iter().map(|&after| (after - 1, after)).collect(),
        std::cmp::Ordering::Less => earliest
            .iter()
            .map(|&before| (before, before + 1))
            .collect(),
    }
}

/// The corridors in the order in which the snapshots were taken.
fn in_time(snapshots: &[Snapshot]) -> Vec<Corridor> {
    let mut sorted: Vec<&Snapshot> = snapshots.iter().collect();
    sorted.sort_by_key(|s| (s.monotonic_ns, s.reading_ns));
    let mut all: Vec<Corridor> = Vec::with_capacity(sorted.len());
    for snapshot in sorted {
        let [reading, monotonic, error] = [
            snapshot.reading_ns,
            snapshot.monotonic_ns,
            snapshot.error_ns.max(0),
        ]
        .map(i128::from);
        let corridor = Corridor {
            reading,
            low: monotonic - error,
            high: monotonic + error,
        };
        // Brackets that overlap do not say which was first; the readings do.
        let mut at = all.len();
        while at > 0 && all[at - 1].reading > reading && all[at - 1].high >= corridor.low {
            at -= 1;
        }
        match all[..at].last_mut() {
            Some(same) if same.reading == reading && same.high >= corridor.low => {
                *same = same.and(corridor.low, corridor.high);
            }
            _ => all.insert(at, corridor),
        }
    }
    all
}

/// What rates the clock may have: those of an oscillator of nominal rate 1, unless most snapshots deny it.
///
/// Then the unit is another one, or was measured badly, and the nominal rate is the median of what we see; that may
/// be on one edge of what the oscillator does, and the clock on the other.
fn limits(corridors: &[Corridor]) -> Rates {
    let usual = Rates::around(ONE, DRIFT);
    let mut seen = Vec::new();
    let mut usual_ones = 0;
    for pair in corridors.windows(2) {
        let [a, b] = [pair[0], pair[1]];
        let distance = b.reading - a.reading;
        if distance < SHORTEST_NS {
            continue;
        }
        let rate = |ns: i128| ns.saturating_mul(ONE);
        let slow = floor(rate(b.low - a.high), distance);
        let fast = ceil(rate(b.high - a.low), distance);
        usual_ones += usize::from(slow <= usual.fast && fast >= usual.slow);
        seen.push(rate(b.middle() - a.middle()) / distance);
    }
    if 2 * usual_ones >= seen.len() {
        return usual;
    }
    let middle = seen.len() / 2;
    let (_, &mut median, _) = seen.select_nth_unstable(middle);
    Rates::around(median.clamp(NOMINAL.0, NOMINAL.1), 2 * DRIFT)
}

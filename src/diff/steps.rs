//! Steps that both timelines have, and how sure one can be that they take another time.
//!
//! The interval is a bootstrap over the steps' durations, each run's drawn by itself: the steps of a run are taken to be
//! independent, and what differs from run to run (another machine, another day) is not in it.

use super::{Change, Durations, FLOOR, Step};
use crate::analyze::{self, Analysis};

/// The fewest steps of a run that say something of its median: below six, the least and the greatest value hold the median
/// between them with less than 95 % (1 - 2 · 0.5ⁿ; H. A. David, "Order Statistics", 1970, section 2.5).
pub(super) const FEWEST: u64 = 6;

/// Draws of the bootstrap: its 2.5 % quantile is then known to about 0.15 % of the draws.
const DRAWS: usize = 10_000;

/// Every comparison starts from here, so that equal inputs give equal bytes.
const SEED: u64 = 0x5eed;

/// How many times as many kernels a repetition may have in one of the two: fewer after some were fused, say. A judgement.
const TURNS_DIFFER: f64 = 1.5;

/// The order in which kinds are looked at for the main step: what somebody named, then what repeats by itself.
const KINDS: [&[&str]; 4] = [
    &["scope", "phase"],
    &["repetition"],
    &["task"],
    &["function"],
];

/// Steps with the same kind and name in both: the main one first, which is the one with the largest total time among those
/// that come often enough, of the first kind that has any. A function that takes more than the run nests in itself or runs
/// in many threads, and is the main step only where nothing else is.
pub(super) fn compare(a: &Analysis, b: &Analysis) -> Vec<Step> {
    let mut left: Vec<&analyze::Step> = b.steps.iter().collect();
    let mut steps: Vec<Step> = Vec::new();
    for before in &a.steps {
        // Of several functions with one name it is the one called as often, else the next.
        let twins = || (left.iter().enumerate()).filter(|(_, after)| same(before, after));
        let often = twins().find(|(_, after)| after.count == before.count);
        if let Some((at, _)) = often.or_else(|| twins().next()) {
            steps.push(step(before, left.remove(at)));
        }
    }
    let rank = |step: &Step| {
        let kind = KINDS.iter().position(|kinds| kinds.contains(&&*step.kind));
        let few = step.a.count.min(step.b.count) < FEWEST;
        let nests = step.a.total_ns > a.span_ns || step.b.total_ns > b.span_ns;
        let nests = nests && step.kind == "function";
        (few, kind.unwrap_or(KINDS.len()), nests)
    };
    steps.sort_by_key(|step| (rank(step), -(step.a.total_ns + step.b.total_ns)));
    steps
}

/// Whether two steps are the same; of what a device repeats, if it begins with the same kernel and has not become another
/// thing, a layer where it was all of them.
fn same(a: &analyze::Step, b: &analyze::Step) -> bool {
    let turn = |step: &analyze::Step| {
        let (kernels, from) = step.scope.split_once(" kernels from ")?;
        Some((kernels.parse::<f64>().ok()?, from.to_owned()))
    };
    let alike = || match (turn(a), turn(b)) {
        (Some((kernels, from)), Some((others, other))) => {
            from == other && kernels.max(others) <= kernels.min(others) * TURNS_DIFFER
        }
        _ => false,
    };
    a.kind == b.kind && (a.scope == b.scope || a.kind == "repetition" && alike())
}

fn step(a: &analyze::Step, b: &analyze::Step) -> Step {
    let durations = |step: &analyze::Step| Durations {
        count: step.count,
        total_ns: step.total_ns,
        dur_ns_p50: step.dur_ns_p50,
    };
    let ratio = ratio(a.dur_ns_p50, b.dur_ns_p50);
    let enough = a.count.min(b.count) >= FEWEST;
    let interval = match enough {
        true => interval(&sorted(a), &sorted(b)),
        false => None,
    };
    let change = match (ratio, interval) {
        (Some(ratio), Some((low, _))) if low > 1.0 && ratio > 1.0 + FLOOR => Change::Slower,
        (Some(ratio), Some((_, high))) if high < 1.0 && 1.0 / ratio > 1.0 + FLOOR => Change::Faster,
        (Some(_), Some(_)) => Change::Same,
        _ => Change::Unknown,
    };
    Step {
        scope: a.scope.clone(),
        kind: a.kind.clone(),
        a: durations(a),
        b: durations(b),
        ratio: ratio.map(rounded),
        ratio_low: interval.map(|(low, _)| rounded(low)),
        ratio_high: interval.map(|(_, high)| rounded(high)),
        significant: matches!(change, Change::Slower | Change::Faster),
        change,
    }
}

fn sorted(step: &analyze::Step) -> Vec<i64> {
    let mut durations: Vec<i64> = step.spans.iter().map(|(_, dur_ns)| *dur_ns).collect();
    durations.sort_unstable();
    durations
}

/// Of what has no length nothing is a multiple, but two of them are as long.
pub(super) fn ratio(a_ns: i64, b_ns: i64) -> Option<f64> {
    match (a_ns, b_ns) {
        (0, 0) => Some(1.0),
        (a, b) if a > 0 && b >= 0 => Some(b as f64 / a as f64),
        _ => None,
    }
}

/// Four decimals: more than an interval means.
fn rounded(ratio: f64) -> f64 {
    (ratio * 1e4).round() / 1e4
}

/// The 95 % interval of the ratio of medians, B's over A's; of sorted durations. `None` where a median is of no length.
fn interval(a: &[i64], b: &[i64]) -> Option<(f64, f64)> {
    let mut random = Random(SEED);
    let mut ratios = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let (a, b) = (median_again(a, &mut random)?, median_again(b, &mut random)?);
        ratios.push(ratio(a, b)?);
    }
    ratios.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| ratios[((share * DRAWS as f64) as usize).min(DRAWS - 1)];
    Some((at(0.025), at(0.975)))
}

/// The median of as many durations drawn from these with replacement, without drawing them all: its place among the n
/// sorted ones is n times the k-th smallest of n uniform numbers, which has the distribution Beta(k, n + 1 - k).
///
/// # Source
/// B. Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7 (1979), section 3, for the median.
fn median_again(sorted: &[i64], random: &mut Random) -> Option<i64> {
    let n = sorted.len();
    let k = n / 2 + 1; // the element floor(n/2), as dur_ns_p50 has it
    let (below, above) = (
        random.gamma(k as f64),
        random.gamma((n + 1 - k.min(n)) as f64),
    );
    let at = (below / (below + above) * n as f64) as usize;
    sorted.get(at.min(n.checked_sub(1)?)).copied()
}

/// Numbers that look random and are the same each time.
///
/// # Source
/// splitmix64: G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Above 0 and below 1.
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Of mean 0 and variance 1 (G. Box, M. Muller, 1958).
    fn normal(&mut self) -> f64 {
        let (length, turn) = (self.uniform(), self.uniform());
        (-2.0 * length.ln()).sqrt() * (std::f64::consts::TAU * turn).cos()
    }

    /// Gamma(shape, 1), of a shape that is at least 1.
    ///
    /// # Source
    /// G. Marsaglia, W. Tsang, "A Simple Method for Generating Gamma Variables", ACM TOMS 26 (2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape.max(1.0) - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
                return d * v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As [`median_again`], by drawing them all.
    fn drawn(sorted: &[i64], random: &mut Random) -> i64 {
        let n = sorted.len();
        let draw = |_| sorted[(random.next() % n as u64) as usize];
        let mut drawn: Vec<i64> = (0..n).map(draw).collect();
        drawn.sort_unstable();
        drawn[n / 2]
    }

    #[test]
    fn a_median_drawn_by_its_place_is_distributed_as_one_of_all_drawn() {
        for n in [1, 2, 7, 40] {
            let sorted: Vec<i64> = (0..n).collect();
            let mut random = Random(1);
            let mut counts = vec![[0f64; 2]; n as usize];
            for _ in 0..20_000 {
                counts[median_again(&sorted, &mut random).unwrap() as usize][0] += 1.0;
                counts[drawn(&sorted, &mut random) as usize][1] += 1.0;
            }
            for [ours, all] in counts {
                // five standard deviations of the difference of two counts
                assert!(
                    (ours - all).abs() <= 5.0 * (ours + all).sqrt() + 1.0,
                    "{n}: {ours} {all}"
                );
            }
        }
        assert_eq!(median_again(&[], &mut Random(1)), None);
    }

    #[test]
    fn an_interval_holds_the_true_ratio_nineteen_times_in_twenty() {
        let mut random = Random(7);
        let mut held = 0;
        for _ in 0..200 {
            let mut run = |scale: f64| {
                let step = |_| (1e6 * scale * (0.1 * random.normal()).exp()) as i64;
                let mut steps: Vec<i64> = (0..40).map(step).collect();
                steps.sort_unstable();
                steps
            };
            let (a, b) = (run(1.0), run(1.2));
            let (low, high) = interval(&a, &b).unwrap();
            held += usize::from(low <= 1.2 && 1.2 <= high);
        }
        // 190 is expected; a bootstrap of medians holds a little more or less
        assert!((180..=199).contains(&held), "{held} of 200");
    }

    #[test]
    fn what_has_no_length_has_no_ratio() {
        assert_eq!(
            (ratio(0, 0), ratio(0, 5), ratio(5, 0)),
            (Some(1.0), None, Some(0.0))
        );
        assert_eq!(interval(&[0; 9], &[5; 9]), None);
    }
}

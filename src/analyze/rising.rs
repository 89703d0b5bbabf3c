//! Steps that take longer and longer: each goes through what those before it left behind.

use super::Step;
use super::device::percentile;
use super::measure::{FunctionKey, FunctionSums, Measures};
use super::steps;
use crate::trace::Kind;

/// Parts of a run, one after the other, whose medians are set against each other; and the fewest steps of one. A few steps that
/// are longer by chance do not move a median of five.
const PARTS: usize = 10;
const FEWEST: usize = 5;

/// How a step's time changes from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rise {
    /// The median of all steps by what one takes at the start.
    pub ratio: f64,
    /// Of the parts but the first, the share whose median is longer than that of the part before.
    pub share: f64,
    /// What a step takes at the start, and at the end.
    pub first_ns: i64,
    pub last_ns: i64,
}

/// By a line through the medians of [`PARTS`] parts: Theil and Sen's, which up to a quarter of them cannot spoil. Its start is
/// taken for half of the first part's median at least: steps that grow with their number squared would begin below 0.
pub(super) fn rise(step: &Step) -> Rise {
    let median_ns = step.dur_ns_p50.max(1);
    let count = step.spans.len();
    let none = Rise {
        ratio: 1.0,
        share: 0.0,
        first_ns: median_ns,
        last_ns: median_ns,
    };
    if count < PARTS * FEWEST {
        return none;
    }
    let medians: Vec<i64> = (0..PARTS)
        .map(|part| {
            let of = &step.spans[part * count / PARTS..(part + 1) * count / PARTS];
            let mut durations: Vec<i64> = of.iter().map(|(_, dur_ns)| *dur_ns).collect();
            durations.sort_unstable();
            percentile(&durations, 50)
        })
        .collect();
    let longer = medians.windows(2).filter(|pair| pair[1] > pair[0]).count();
    let pairs = (0..PARTS).flat_map(|a| (a + 1..PARTS).map(move |b| (a, b)));
    let slope = middle(pairs.map(|(a, b)| (medians[b] - medians[a]) as f64 / (b - a) as f64));
    let starts = medians.iter().zip(0..);
    let start = middle(starts.map(|(ns, part)| *ns as f64 - slope * (f64::from(part) + 0.5)));
    let start = start.max(medians[0] as f64 / 2.0).max(1.0);
    Rise {
        ratio: median_ns as f64 / start,
        share: longer as f64 / (PARTS - 1) as f64,
        first_ns: start as i64,
        last_ns: medians[PARTS - 1],
    }
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Of what the second half of the steps takes more than the first, how much a function has to take more as well.
const OF_RISE: f64 = 0.6;

/// The program's function in which steps become longer: the one with the least time of those that have most of the rise.
pub(super) fn place(m: &Measures, step: &Step) -> Option<usize> {
    let middle_ns = step.spans.get(step.spans.len() / 2)?.0;
    let halves = |spans: &[(i64, i64)]| {
        let (mut early, mut late) = (0, 0);
        for (start_ns, dur_ns) in spans {
            match *start_ns < middle_ns {
                true => early += dur_ns,
                false => late += dur_ns,
            }
        }
        (early, late)
    };
    let (early, late) = halves(&step.spans);
    let wanted = OF_RISE * (late - early) as f64;
    let is = |(at, (key, sums)): (usize, &(FunctionKey, FunctionSums))| {
        let own = steps::is_own(key.file.map_or("", |file| m.names.text(file)));
        if key.kind != Kind::Python || !own || sums.too_many {
            return None;
        }
        let (early, late) = halves(&sums.spans);
        ((late - early) as f64 > wanted).then_some((late, at))
    };
    let all = m.functions.iter().enumerate().filter_map(is);
    all.min().map(|(_, at)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(durations: impl Iterator<Item = i64>) -> Step {
        let spans: Vec<(i64, i64)> = durations
            .scan(0, |start, dur_ns| {
                *start += dur_ns;
                Some((*start - dur_ns, dur_ns))
            })
            .collect();
        steps::step("f".into(), "function", spans, (0, None))
    }

    #[test]
    fn a_list_that_is_gone_through_costs_what_the_steps_take_more_than_at_the_start() {
        // 1 µs, and 10 ns for each step before; every seventh is a long one
        let found =
            rise(&run((0..400).map(|at| {
                1000 + 10 * at + if at % 7 == 0 { 30_000 } else { 0 }
            })));
        assert_eq!(found.share, 1.0);
        assert!((2.8..3.3).contains(&found.ratio), "{found:?}");
        assert!((900..1100).contains(&found.first_ns), "{found:?}");
        assert!((4700..5000).contains(&found.last_ns), "{found:?}");
    }

    #[test]
    fn noise_warm_ups_and_a_single_change_are_no_rise() {
        let noise = rise(&run((0..400i64).map(|at| 1000 + at * 7919 % 101)));
        assert!(noise.share < 0.75 && noise.ratio < 1.05, "{noise:?}");
        let warm = rise(&run((0..400).map(|at| if at < 60 { 5000 } else { 1000 })));
        assert!(warm.share < 0.2 && warm.ratio <= 1.0, "{warm:?}");
        let once = rise(&run((0..400).map(|at| if at < 150 { 1000 } else { 2000 })));
        assert!(once.share < 0.2, "{once:?}");
        let few = rise(&run((0..40).map(|at| 1000 * at)));
        assert_eq!((few.ratio, few.share), (1.0, 0.0));
    }

    #[test]
    fn what_grows_with_its_square_does_not_begin_below_zero() {
        let found = rise(&run((0..500).map(|at| 100 + at * at)));
        // half of the first part's, 100 to 2501
        assert!((300..400).contains(&found.first_ns), "{found:?}");
    }
}

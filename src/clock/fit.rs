//! One clock domain against CLOCK_MONOTONIC: an estimate at each reading, and a bound that holds for certain.
//!
//! A snapshot is a corridor that the domain's map passes. What it can do between corridors is known: its rate is
//! within 100 ppm of its nominal one and changes by at most 1 ppm a second ([`corridor`] says why). Where no such
//! map passes them all, the clock has stepped, and the readings around are given a bound that covers both sides.
//!
//! What cannot be known, and is in no bound: a step that the brackets around it hide; readings from between two steps
//! that no snapshot separates; a clock that does what we take it not to and still passes all corridors.

mod corridor;
mod steps;

use std::collections::BTreeMap;

use corridor::{Corridor, ONE, Stretch, floor};
use steps::SHORTEST_NS;

/// Readings of several clocks, taken together. All in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// In the domain.
    pub reading_ns: i64,
    /// CLOCK_MONOTONIC.
    pub monotonic_ns: i64,
    /// CLOCK_REALTIME, since 1970.
    pub realtime_ns: Option<i64>,
    /// The most by which the readings can belong to different moments: half the bracket around them.
    pub error_ns: i64,
}

/// What an event's cause or effect tells of its reading: a kernel does not start before its launch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Causality {
    /// In the domain, in ns.
    pub reading_ns: i64,
    /// CLOCK_MONOTONIC of the other event, in ns.
    pub monotonic_ns: i64,
    pub order: Order,
}

/// On which side of the other event the reading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    NotBefore,
    NotAfter,
}

/// A map from a domain to CLOCK_MONOTONIC that never decreases. Without snapshots it changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Fit {
    /// Readings and the estimate of their CLOCK_MONOTONIC: the first strictly increasing, the second never decreasing.
    knots: Vec<(i64, i64)>,
    /// Rates before the first knot and after the last, in 10^-12.
    rates: (i128, i128),
    /// By the first reading that each can have.
    stretches: Vec<Stretch>,
    /// The last reading that a stretch up to this one can have.
    reach: Vec<i128>,
    error_ns: i64,
    violations: u64,
}

impl Fit {
    /// Through these snapshots, in any order.
    pub fn new(snapshots: &[Snapshot]) -> Fit {
        Fit::through(steps::stretches(snapshots))
    }

    /// The same, and narrowed by what follows from causality.
    ///
    /// Points that the snapshots, or one another, contradict are counted and left out: that a clock is wrong must not
    /// make it look right. Of the others we use the two that say most between each two snapshots.
    pub fn with_causality(snapshots: &[Snapshot], points: &[Causality]) -> Fit {
        let fit = Fit::new(snapshots);
        let mut most: BTreeMap<(usize, usize, Order), (i128, Corridor)> = BTreeMap::new();
        for point in points {
            let reading = i128::from(point.reading_ns);
            let mut possible = fit.possible(reading);
            let (Some(only), None) = (possible.next(), possible.next()) else {
                continue; // around a step it may speak of either side
            };
            let stretch = &fit.stretches[only];
            let (low, high) = stretch.at(reading);
            let moment = i128::from(point.monotonic_ns);
            let (gain, low, high) = match point.order {
                Order::NotBefore => (moment - low, moment, high),
                Order::NotAfter => (high - moment, low, moment),
            };
            if gain <= 0 || low > high {
                continue;
            }
            let cell = stretch.corridors.partition_point(|c| c.reading <= reading);
            let corridor = Corridor { reading, low, high };
            let best = most
                .entry((only, cell, point.order))
                .or_insert((gain, corridor));
            if gain > best.0 {
                *best = (gain, corridor);
            }
        }
        let mut chosen: BTreeMap<usize, Vec<Corridor>> = BTreeMap::new();
        for ((stretch, ..), (_, corridor)) in most {
            chosen.entry(stretch).or_default().push(corridor);
        }
        let mut stretches = fit.stretches;
        let mut violations = 0;
        for (at, corridors) in chosen {
            match stretches[at].with(&corridors) {
                Some(narrower) => stretches[at] = narrower,
                None => violations += corridors.len() as u64,
            }
        }
        let mut fit = Fit::through(stretches);
        let wrong = |point: &&Causality| {
            let (low, high) = fit.range(point.reading_ns);
            let moment = i128::from(point.monotonic_ns);
            match point.order {
                Order::NotBefore => high < moment,
                Order::NotAfter => low > moment,
            }
        };
        fit.violations = violations + points.iter().filter(wrong).count() as u64;
        fit
    }

    fn through(mut stretches: Vec<Stretch>) -> Fit {
        stretches.sort_by_key(|s| s.readings);
        let mut middles: Vec<(Corridor, usize)> = Vec::new();
        for (at, stretch) in stretches.iter().enumerate() {
            middles.extend(stretch.corridors.iter().map(|&c| (c, at)));
        }
        middles.sort_by_key(|(c, at)| (c.reading, *at));
        let (Some(&(_, first)), Some(&(_, last))) = (middles.first(), middles.last()) else {
            return Fit::default();
        };
        let mut knots: Vec<(i64, i64)> = middles
            .iter()
            .map(|(c, _)| (clamped(c.reading), clamped(c.middle())))
            .collect();
        // Two stretches may share readings, if the domain went back; the bound sees to what is lifted here.
        for at in 1..knots.len() {
            knots[at].1 = knots[at].1.max(knots[at - 1].1);
        }
        knots.dedup_by_key(|knot| knot.0);
        let rates = (stretches[first].rates.0, stretches[last].rates.1);
        let mut reach = i128::MIN;
        let mut fit = Fit {
            knots,
            rates: (rates.0.middle(), rates.1.middle()),
            reach: stretches
                .iter()
                .map(|s| {
                    reach = reach.max(s.readings.1);
                    reach
                })
                .collect(),
            stretches,
            error_ns: 0,
            violations: 0,
        };
        fit.error_ns = fit.largest_bound();
        fit
    }

    /// The estimate of CLOCK_MONOTONIC at a reading of the domain, in ns. Outside the snapshots the clock is taken to
    /// keep the rate it had there.
    pub fn monotonic_ns(&self, reading: i64) -> i64 {
        let (Some(&first), Some(&last)) = (self.knots.first(), self.knots.last()) else {
            return reading;
        };
        if reading < first.0 {
            return outside(first, self.rates.0, reading);
        }
        if reading >= last.0 {
            return outside(last, self.rates.1, reading);
        }
        let after = self.knots.partition_point(|&(r, _)| r <= reading);
        line(self.knots[after - 1], self.knots[after], reading)
    }

    /// The most by which [`Fit::monotonic_ns`] is off at this reading, in ns.
    pub fn bound_ns(&self, reading: i64) -> i64 {
        let estimate = i128::from(self.monotonic_ns(reading));
        let (low, high) = self.range(reading);
        clamped((high - estimate).max(estimate - low))
    }

    /// The largest bound from the first snapshot to the last, in ns.
    pub fn error_ns(&self) -> i64 {
        self.error_ns
    }

    /// The median bound at the middles between two neighbouring snapshots, in ns; of a single one, its own.
    pub fn error_ns_p50(&self) -> i64 {
        let middles = self.knots.windows(2).map(|pair| {
            let sum = i128::from(pair[0].0) + i128::from(pair[1].0);
            self.bound_ns(clamped(sum.div_euclid(2)))
        });
        let mut bounds: Vec<i64> = middles.collect();
        if bounds.is_empty() {
            return self.error_ns;
        }
        let middle = bounds.len() / 2;
        *bounds.select_nth_unstable(middle).1
    }

    /// How often the domain stepped.
    pub fn steps(&self) -> usize {
        self.stretches.len().saturating_sub(1)
    }

    /// Points of causality that the snapshots, or one another, contradict.
    pub fn violations(&self) -> u64 {
        self.violations
    }

    /// How much slower than CLOCK_MONOTONIC the domain runs, in parts per billion: its mean over the longest stretch,
    /// 0 when unknown.
    pub fn drift_ppb(&self) -> i64 {
        let means = self.stretches.iter().filter_map(|stretch| {
            let (first, last) = (stretch.corridors.first()?, stretch.corridors.last()?);
            Some((last.reading - first.reading, last.middle() - first.middle()))
        });
        match means.max() {
            Some((domain, monotonic)) if domain >= SHORTEST_NS => {
                clamped((monotonic - domain).saturating_mul(1_000_000_000) / domain)
            }
            _ => 0,
        }
    }

    /// The stretches in which the domain can have given this reading.
    fn possible(&self, reading: i128) -> impl Iterator<Item = usize> {
        let end = self.stretches.partition_point(|s| s.readings.0 <= reading);
        let reached = move |&at: &usize| self.reach[at] >= reading;
        let given = move |&at: &usize| self.stretches[at].readings.1 >= reading;
        (0..end).rev().take_while(reached).filter(given)
    }

    /// Where CLOCK_MONOTONIC is for certain at this reading, in ns.
    fn range(&self, reading: i64) -> (i128, i128) {
        let reading = i128::from(reading);
        if self.stretches.is_empty() {
            return (reading, reading);
        }
        let both = |a: (i128, i128), b: (i128, i128)| (a.0.min(b.0), a.1.max(b.1));
        let at = |stretch: usize| self.stretches[stretch].at(reading);
        if let Some(range) = self.possible(reading).map(at).reduce(both) {
            return range;
        }
        // Skipped in a step, and so no event's; between its neighbours all the same.
        let after = self.stretches.partition_point(|s| s.readings.0 <= reading);
        let last = self.stretches.len() - 1;
        both(at(after.saturating_sub(1)), at(after.min(last)))
    }

    fn largest_bound(&self) -> i64 {
        let (first, last) = (self.knots[0].0, self.knots[self.knots.len() - 1].0);
        let knots = self.knots.iter().map(|knot| knot.0);
        // Between two snapshots a bound is a parabola that opens downwards: its top is halfway, or towards the wider.
        let tops = self.knots.windows(2).map(|pair| {
            let [a, b] = [pair[0].0, pair[1].0];
            let apart = i128::from(b) - i128::from(a);
            let wider = i128::from(self.bound_ns(b)) - i128::from(self.bound_ns(a));
            let top = apart / 2 + wider * corridor::NS_PER_WANDER / apart;
            clamped(i128::from(a) + top.clamp(0, apart))
        });
        let ends = self
            .stretches
            .iter()
            .flat_map(|s| [s.readings.0, s.readings.1]);
        let ends = ends.map(|end| clamped(end).clamp(first, last));
        let bounds = knots.chain(tops).chain(ends).map(|at| self.bound_ns(at));
        bounds.max().unwrap_or(0)
    }
}

/// The value at `x` of the line through `a` and `b`, rounded down so that it never decreases; `x` is between them.
fn line(a: (i64, i64), b: (i64, i64), x: i64) -> i64 {
    // Differences of what is in order fit 64 bits without a sign, and their product 128.
    let far = |from: i64, to: i64| to.wrapping_sub(from) as u64;
    let rise = u128::from(far(a.0, x)) * u128::from(far(a.1, b.1)) / u128::from(far(a.0, b.0));
    a.1.wrapping_add(rise as i64)
}

fn outside(knot: (i64, i64), rate: i128, reading: i64) -> i64 {
    let distance = i128::from(reading) - i128::from(knot.0);
    if rate == ONE {
        return clamped(i128::from(knot.1) + distance);
    }
    clamped(i128::from(knot.1) + floor(distance.saturating_mul(rate), ONE))
}

fn clamped(ns: i128) -> i64 {
    ns.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

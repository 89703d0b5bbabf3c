//! Simulated clocks, whose true time is known: they do all that `corridor` says a clock may do, and no more.

use super::Snapshot;

pub const S: i64 = 1_000_000_000;
/// CLOCK_MONOTONIC where a simulation begins: a machine that has run for 11 days.
const START_NS: i64 = 1_000_000 * S;
/// 1 ppm a second, in 1/ns.
const WANDER: f64 = 1e-15;
/// How long before and after the first and last snapshot a clock is simulated.
const MARGIN_NS: i64 = 5 * S;

/// Splitmix64 of G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// From 0 to 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low) as u64) as i64
    }

    /// As likely in one decade as in another.
    pub fn decades(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.share())
    }
}

/// One clock, as it ran. Its oscillator's count is a time of its own: ns since the first snapshot, without the steps.
pub struct Clock {
    /// From a count on: CLOCK_MONOTONIC less the count there, its rate less 1, and how that changes.
    bends: Vec<(i64, f64, f64, f64)>,
    /// From a count on, the reading less the count.
    steps: Vec<(i64, i64)>,
    pub length_ns: i64,
}

impl Clock {
    /// With drift up to 100 ppm and wander up to the limit, and these steps: from a count on, by how much.
    pub fn new(random: &mut Random, length_ns: i64, steps: &[(i64, i64)]) -> Clock {
        let (mut at, mut ahead) = (-MARGIN_NS, 0.0);
        let mut rate = (random.share() * 2.0 - 1.0) * 100e-6;
        let mut bends = Vec::new();
        while at < length_ns + MARGIN_NS {
            // At the limit one way or the other as often as anything in between: the worst is to be simulated.
            let mut wander = match random.between(0, 4) {
                0 => WANDER,
                1 => -WANDER,
                2 => 0.0,
                _ => (random.share() * 2.0 - 1.0) * WANDER,
            };
            let length = random.decades(0.05e9, 10e9).round();
            if (rate + wander * length).abs() > 100e-6 {
                wander = -wander;
            }
            bends.push((at, ahead, rate, wander));
            ahead += rate * length + wander / 2.0 * length * length;
            rate += wander * length;
            at += length as i64;
        }
        let mut offset = 0;
        let steps = steps.iter().map(|&(count, by)| {
            offset += by;
            (count, offset)
        });
        Clock {
            bends,
            steps: steps.collect(),
            length_ns,
        }
    }

    /// Of one rate, 10 ppm off, until it changes at once by `jump`.
    pub fn turning(at: i64, jump: f64, length_ns: i64) -> Clock {
        let (rate, start) = (10e-6, -MARGIN_NS);
        Clock {
            bends: vec![
                (start, start as f64 * rate, rate, 0.0),
                (at, at as f64 * rate, rate + jump, 0.0),
            ],
            steps: Vec::new(),
            length_ns,
        }
    }

    pub fn reading(&self, count: i64) -> i64 {
        let after = self.steps.partition_point(|s| s.0 <= count);
        count + after.checked_sub(1).map_or(0, |at| self.steps[at].1)
    }

    /// True CLOCK_MONOTONIC, in ns after the simulation's begin, so that a float holds it to 0.00001 ns.
    pub fn truth(&self, count: i64) -> f64 {
        let after = self.bends.partition_point(|b| b.0 <= count);
        let (from, ahead, rate, wander) = self.bends[after - 1];
        let gone = (count - from) as f64;
        count as f64 + ahead + rate * gone + wander / 2.0 * gone * gone
    }

    /// How far a moment of a fit is from the truth, in ns.
    pub fn error(&self, monotonic_ns: i64, count: i64) -> f64 {
        (monotonic_ns - START_NS) as f64 - self.truth(count)
    }

    /// CLOCK_MONOTONIC at a count, to a ns.
    pub fn monotonic_ns(&self, count: i64) -> i64 {
        START_NS + self.truth(count).round() as i64
    }

    /// A snapshot whose bracket is this wide; the reading is taken anywhere in it, often right at one end.
    pub fn snapshot(&self, random: &mut Random, count: i64, bracket_ns: f64) -> Snapshot {
        let share = (random.share() * 1.5 - 0.25).clamp(0.0, 1.0);
        let before = (self.truth(count) - bracket_ns * share).floor() as i64;
        let after = (self.truth(count) + bracket_ns * (1.0 - share)).ceil() as i64;
        Snapshot {
            reading_ns: self.reading(count),
            monotonic_ns: START_NS + (before + after) / 2,
            realtime_ns: None,
            error_ns: (after - before + 2) / 2,
        }
    }

    /// Two snapshots a second; brackets from 80 ns to 8 µs, and one of twenty up to 200 µs.
    pub fn snapshots(&self, random: &mut Random) -> Vec<Snapshot> {
        let number = self.length_ns / (S / 2);
        let each = (0..number).map(|at| {
            let inner = at > 0 && at + 1 < number;
            let jitter = if inner {
                random.between(-S / 20, S / 20)
            } else {
                0
            };
            let count = at * (self.length_ns / (number - 1)) + jitter;
            let widest = if random.between(0, 20) == 0 {
                200e3
            } else {
                8e3
            };
            let bracket_ns = random.decades(80.0, widest);
            self.snapshot(random, count, bracket_ns)
        });
        each.collect()
    }
}

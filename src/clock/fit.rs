//! One clock domain against CLOCK_MONOTONIC: a line from each snapshot to the next.

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

/// Snapshots closer together than this tell nothing of a clock's rate, in ns: at 100 ns a reading, a rate
/// from 10 ms is already off by 10 ppm.
const SHORTEST_NS: i64 = 10_000_000;

/// A map from a domain to CLOCK_MONOTONIC that never decreases. Without snapshots it changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Fit {
    /// Readings and their CLOCK_MONOTONIC, both strictly increasing.
    anchors: Vec<(i64, i64)>,
    error_ns: i64,
}

impl Fit {
    /// Through these snapshots, in any order; one at which a clock goes back is left out.
    pub fn new(snapshots: &[Snapshot]) -> Fit {
        let mut sorted: Vec<&Snapshot> = snapshots.iter().collect();
        sorted.sort_by_key(|s| (s.reading_ns, s.monotonic_ns));
        let mut anchors: Vec<(i64, i64)> = Vec::new();
        for snapshot in &sorted {
            let (reading, monotonic) = (snapshot.reading_ns, snapshot.monotonic_ns);
            if anchors
                .last()
                .is_none_or(|&(r, m)| reading > r && monotonic > m)
            {
                anchors.push((reading, monotonic));
            }
        }
        let read = sorted.iter().map(|s| s.error_ns).max().unwrap_or(0);
        // How far the clock was from a line where we can tell: at each snapshot, from the one before to the next.
        let bent = anchors.windows(3).map(|three| {
            let there = line(three[0], three[2], three[1].0);
            there.abs_diff(three[1].1)
        });
        let bent = i64::try_from(bent.max().unwrap_or(0)).unwrap_or(i64::MAX);
        Fit {
            anchors,
            error_ns: read.saturating_add(bent),
        }
    }

    /// CLOCK_MONOTONIC at a reading of the domain. Outside the snapshots the clock is taken to run at its
    /// mean rate.
    pub fn monotonic_ns(&self, reading: i64) -> i64 {
        let (Some(&first), Some(&last)) = (self.anchors.first(), self.anchors.last()) else {
            return reading;
        };
        let after = self.anchors.partition_point(|&(r, _)| r <= reading);
        if after > 0 && after < self.anchors.len() {
            return line(self.anchors[after - 1], self.anchors[after], reading);
        }
        let near = if after == 0 { first } else { last };
        if last.0.saturating_sub(first.0) < SHORTEST_NS {
            return near.1.saturating_add(reading.saturating_sub(near.0));
        }
        let rate = (last.0 - first.0, last.1.saturating_sub(first.1));
        let there = (near.0.saturating_add(rate.0), near.1.saturating_add(rate.1));
        line(near, there, reading)
    }

    /// The most by which a row between two snapshots can be off, in ns, as far as the readings tell.
    pub fn error_ns(&self) -> i64 {
        self.error_ns
    }

    /// How much slower than CLOCK_MONOTONIC the domain runs, in parts per billion: 0 when unknown.
    pub fn drift_ppb(&self) -> i64 {
        let (Some(first), Some(last)) = (self.anchors.first(), self.anchors.last()) else {
            return 0;
        };
        let domain = i128::from(last.0) - i128::from(first.0);
        if domain < i128::from(SHORTEST_NS) {
            return 0;
        }
        let monotonic = i128::from(last.1) - i128::from(first.1);
        let ppb = (monotonic - domain).saturating_mul(1_000_000_000) / domain;
        ppb.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }
}

/// The value at `x` of the line through `a` and `b`, rounded down, so that it never decreases.
fn line(a: (i64, i64), b: (i64, i64), x: i64) -> i64 {
    let [ax, ay, bx, by, x] = [a.0, a.1, b.0, b.1, x].map(i128::from);
    if bx <= ax {
        return a.1;
    }
    let y = ay + (x - ax).saturating_mul(by - ay).div_euclid(bx - ax);
    y.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

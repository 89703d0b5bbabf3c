//! What snapshots say of a clock that does not step: corridors that its map passes, and how far it can stray
//! from them. Everything is rounded outwards, so that a bound stays one.

/// The furthest an oscillator is from its nominal rate, in 10^-12 of it: 100 ppm. IEEE 802.3 asks that of the
/// clocks of Ethernet, and of 20 000 hosts the median was 78 ppm (D. Mills, "Computer Network Time
/// Synchronization", 2006).
pub(super) const DRIFT: i128 = 100_000_000;
/// The furthest the rate changes within a stretch: 1 ppm a second, which is 1 / 10^15 each ns. Quartz moves by about
/// 1 ppm a kelvin (D. Hart, questions@lists.ntp.org, February 2012), and no board warms by a kelvin each second for
/// long. A rate that changes at once, as when NTP corrects CLOCK_MONOTONIC, is covered up to 0.5 ppm for each second
/// between two snapshots: the map then strays no further from their chord than in a steady bend. From 10 ppm on it
/// is seen, and treated as a step. In between it may be neither: at 2 ppm, one second and brackets of 60 to 400 ns,
/// two of three were seen and the others missed the bound by at most 0.5 µs (simulated as in the test
/// `a_rate_that_jumps_is_covered_or_seen`).
pub(super) const NS_PER_WANDER: i128 = 1_000_000_000_000_000;
/// The unit of a rate is 10^-12: over 60 s it makes 0.06 ns.
pub(super) const ONE: i128 = 1_000_000_000_000;
/// How many earlier corridors a rate is taken from. Those before tell less: the rate has wandered since.
const WINDOW: usize = 16;

/// Where CLOCK_MONOTONIC was at one reading of a domain. All in ns, in 128 bits so that nothing overflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Corridor {
    pub reading: i128,
    pub low: i128,
    pub high: i128,
}

/// The least and the greatest rate of a clock, CLOCK_MONOTONIC by the domain, in 10^-12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rates {
    pub slow: i128,
    pub fast: i128,
}

impl Rates {
    /// All within `drift` of a nominal rate.
    pub fn around(nominal: i128, drift: i128) -> Rates {
        let drift = nominal.saturating_mul(drift) / ONE;
        Rates {
            slow: nominal - drift,
            fast: nominal + drift,
        }
    }

    pub fn middle(self) -> i128 {
        (self.slow + self.fast) / 2
    }
}

impl Corridor {
    pub fn middle(self) -> i128 {
        (self.low + self.high).div_euclid(2)
    }

    pub fn is_empty(self) -> bool {
        self.low > self.high
    }

    pub fn and(self, low: i128, high: i128) -> Corridor {
        Corridor {
            low: self.low.max(low),
            high: self.high.min(high),
            ..self
        }
    }

    /// Where the clock is `distance` later if it has one of these rates here, and never leaves `limits`.
    fn ahead(self, distance: i128, rates: Rates, limits: Rates) -> (i128, i128) {
        let bend = bend(distance, distance);
        let slow = floor(distance.saturating_mul(rates.slow), ONE) - bend;
        let fast = ceil(distance.saturating_mul(rates.fast), ONE) + bend;
        let slowest = floor(distance.saturating_mul(limits.slow), ONE);
        let fastest = ceil(distance.saturating_mul(limits.fast), ONE);
        (self.low + slow.max(slowest), self.high + fast.min(fastest))
    }

    /// Where it was `distance` before.
    fn behind(self, distance: i128, rates: Rates, limits: Rates) -> (i128, i128) {
        let (low, high) = self.mirrored().ahead(distance, rates, limits);
        (-high, -low)
    }

    /// With both clocks running backwards, so that what holds ahead need not be said again of behind.
    fn mirrored(self) -> Corridor {
        Corridor {
            reading: -self.reading,
            low: -self.high,
            high: -self.low,
        }
    }
}

/// All with both clocks running backwards, in order again.
pub(super) fn mirrored(corridors: &[Corridor]) -> Vec<Corridor> {
    corridors.iter().rev().map(|c| c.mirrored()).collect()
}

/// Where each run of corridors begins that one clock can pass, and that can be no longer. The corridors are in
/// order of time; where a run begins, the clock has stepped since the one before began.
pub(super) fn runs(corridors: &[Corridor], limits: Rates) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut held: Vec<Corridor> = Vec::new();
    for (at, corridor) in corridors.iter().enumerate() {
        match next(&held, *corridor, limits) {
            Some(narrow) => held.push(narrow),
            None => {
                starts.push(at);
                held = vec![*corridor];
            }
        }
    }
    starts
}

/// What is left of a corridor after those before it; `None` if no clock comes there from them.
fn next(before: &[Corridor], corridor: Corridor, limits: Rates) -> Option<Corridor> {
    let last = before.last()?;
    let distance = corridor.reading - last.reading;
    let (low, high) = last.ahead(distance, rates(before, limits), limits);
    Some(corridor.and(low, high)).filter(|c| distance > 0 && !c.is_empty())
}

/// The rates that the clock can have at the last corridor, by those before it.
///
/// Its mean rate since an earlier corridor is from (low − high) / distance to (high − low) / distance, and its rate
/// now is off the mean by at most half of what it can wander in that time.
fn rates(corridors: &[Corridor], limits: Rates) -> Rates {
    let mut found = limits;
    let Some((last, before)) = corridors.split_last() else {
        return found;
    };
    for earlier in before.iter().rev().take(WINDOW) {
        let distance = (last.reading - earlier.reading).max(1);
        let wander = ceil(distance.saturating_mul(ONE), 2 * NS_PER_WANDER);
        if limits.slow + wander >= found.fast && limits.fast - wander <= found.slow {
            break; // from here on even the sharpest corridors say nothing new
        }
        let fast = ceil((last.high - earlier.low).saturating_mul(ONE), distance);
        let slow = floor((last.low - earlier.high).saturating_mul(ONE), distance);
        found.fast = found.fast.min(fast + wander);
        found.slow = found.slow.max(slow - wander);
    }
    if found.slow > found.fast {
        std::mem::swap(&mut found.slow, &mut found.fast); // no clock passes them: any that one side asks for
    }
    found
}

/// A clock between two steps.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    /// Those that are certainly in it, as narrow as their neighbours make them, in order of reading; none if
    /// no snapshot is.
    pub corridors: Vec<Corridor>,
    limits: Rates,
    /// At the first corridor and at the last.
    pub rates: (Rates, Rates),
    /// The moments within which it lies.
    between: (i128, i128),
    /// First and last reading that the domain can have given in it.
    pub readings: (i128, i128),
}

impl Stretch {
    /// The clock through these corridors, whose readings increase.
    pub fn new(corridors: &[Corridor], limits: Rates, between: (i128, i128)) -> Stretch {
        let mut stretch = Stretch {
            corridors: narrowed(corridors, limits),
            ..Stretch::unknown(limits, between, (0, 0))
        };
        for corridor in &mut stretch.corridors {
            if corridor.is_empty() {
                // No clock passes them all, though no step was seen: what either side asks for is possible.
                std::mem::swap(&mut corridor.low, &mut corridor.high);
            }
        }
        stretch.rates = (
            rates(&mirrored(&stretch.corridors), limits),
            rates(&stretch.corridors, limits),
        );
        // The range never decreases, so the readings at which it enters and leaves its moments are found by halving.
        stretch.readings = (
            least(|reading| stretch.range(reading).1 >= between.0),
            least(|reading| stretch.range(reading).0 > between.1) - 1,
        );
        stretch
    }

    /// One in which no snapshot is known to be: at each of these readings, any of its moments.
    pub fn unknown(limits: Rates, between: (i128, i128), readings: (i128, i128)) -> Stretch {
        Stretch {
            corridors: Vec::new(),
            limits,
            rates: (limits, limits),
            between,
            readings,
        }
    }

    /// This one with what else is known of it; `None` if no clock does all of that.
    pub fn with(&self, more: &[Corridor]) -> Option<Stretch> {
        let mut all = self.corridors.clone();
        all.extend(more);
        all.sort_by_key(|c| c.reading);
        all.dedup_by(|next, kept| {
            let same = next.reading == kept.reading;
            if same {
                *kept = kept.and(next.low, next.high);
            }
            same
        });
        let possible = !narrowed(&all, self.limits).iter().any(|c| c.is_empty());
        possible.then(|| Stretch::new(&all, self.limits, self.between))
    }

    /// Where CLOCK_MONOTONIC is at a reading, if the domain gave it in this stretch.
    pub fn at(&self, reading: i128) -> (i128, i128) {
        let (low, high) = self.range(reading);
        let (start, end) = self.between;
        (low.clamp(start, end), high.clamp(start, end))
    }

    fn range(&self, reading: i128) -> (i128, i128) {
        let after = self.corridors.partition_point(|c| c.reading <= reading);
        let (before, after) = self.corridors.split_at(after);
        let limits = self.limits;
        match (before.last(), after.first()) {
            (None, None) => self.between,
            (Some(last), None) => last.ahead(reading - last.reading, self.rates.1, limits),
            (None, Some(first)) => first.behind(first.reading - reading, self.rates.0, limits),
            (Some(a), Some(b)) => {
                let (gone, left) = (reading - a.reading, b.reading - reading);
                let stray = bend(gone, left);
                let from_a = a.ahead(gone, limits, limits);
                let from_b = b.behind(left, limits, limits);
                let low = chord(gone, left, (a.low, b.low), floor) - stray;
                let high = chord(gone, left, (a.high, b.high), ceil) + stray;
                let low = low.max(from_a.0).max(from_b.0);
                let high = high.min(from_a.1).min(from_b.1);
                (low.min(high), low.max(high))
            }
        }
    }
}

/// The corridors after what each tells of the others; some are empty if no clock passes them all.
fn narrowed(corridors: &[Corridor], limits: Rates) -> Vec<Corridor> {
    let mut all = corridors.to_vec();
    // Forwards and backwards, twice: what the hull took off one is passed on to its neighbours.
    for _ in 0..4 {
        for at in 1..all.len() {
            let (before, rest) = all.split_at_mut(at);
            let last = before[at - 1];
            let distance = rest[0].reading - last.reading;
            let (low, high) = last.ahead(distance, rates(before, limits), limits);
            rest[0] = rest[0].and(low, high);
        }
        under_hull(&mut all);
        all = mirrored(&all);
    }
    all
}

/// Lowers what lies above a chord of two others.
///
/// Where a rate changes by at most W, map + W/2 · reading² is convex, and so lies below each of its chords: the lower
/// convex hull of the upper ends bounds it. Without wander this is the hull of A. Duda, G. Harrus, Y. Haddad and
/// G. Bernard, "Estimating global time in distributed systems", ICDCS 1987.
fn under_hull(corridors: &mut [Corridor]) {
    let over = |a: Corridor, b: Corridor, reading: i128| {
        let (gone, left) = (reading - a.reading, b.reading - reading);
        chord(gone, left, (a.high, b.high), ceil) + bend(gone, left)
    };
    let mut hull: Vec<Corridor> = Vec::new();
    for &corridor in &*corridors {
        while let [.., a, b] = hull[..]
            && over(a, corridor, b.reading) <= b.high
        {
            hull.pop();
        }
        hull.push(corridor);
    }
    let mut side = 0;
    for corridor in corridors {
        while side + 2 < hull.len() && hull[side + 1].reading < corridor.reading {
            side += 1;
        }
        if let [a, b, ..] = hull[side..] {
            corridor.high = corridor.high.min(over(a, b, corridor.reading));
        }
    }
}

/// How far a map can stray from a chord, `a` ns from its one end and `b` from the other; from a tangent after `a` = `b`.
fn bend(a: i128, b: i128) -> i128 {
    ceil(a.saturating_mul(b), 2 * NS_PER_WANDER)
}

/// On the way from one end to the other, with `gone` ns behind and `left` ahead; rounded by `round`.
fn chord(gone: i128, left: i128, ends: (i128, i128), round: fn(i128, i128) -> i128) -> i128 {
    let rise = gone.saturating_mul(ends.1 - ends.0);
    ends.0 + round(rise, (gone + left).max(1))
}

pub(super) fn floor(a: i128, b: i128) -> i128 {
    a.div_euclid(b)
}

pub(super) fn ceil(a: i128, b: i128) -> i128 {
    -(-a.max(-i128::MAX)).div_euclid(b)
}

/// The least reading of 64 bits from which on this holds; one more than the last if there is none.
fn least(holds: impl Fn(i128) -> bool) -> i128 {
    let (mut low, mut high) = (i128::from(i64::MIN), i128::from(i64::MAX) + 1);
    while low < high {
        let middle = (low + high).div_euclid(2);
        match holds(middle) {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    low
}

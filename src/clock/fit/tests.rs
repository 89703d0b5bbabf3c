use super::simulated::{Clock, Random, S};
use super::*;

fn snapshot(reading_ns: i64, monotonic_ns: i64, error_ns: i64) -> Snapshot {
    Snapshot {
        reading_ns,
        monotonic_ns,
        realtime_ns: None,
        error_ns,
    }
}

/// Exact snapshots, each second, of a clock that is neither fast nor slow.
fn seconds(number: i64, error_ns: i64) -> Vec<Snapshot> {
    (0..number)
        .map(|at| snapshot(at * S, at * S + 5, error_ns))
        .collect()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Up to three steps in a minute, either way, at least 5 s apart; each more than brackets can hide.
fn some_steps(random: &mut Random) -> Vec<(i64, i64)> {
    let third = |at: i64| at * 20 * S;
    let each = (0..3).filter_map(|at| {
        let count = random.between(third(at) + S, third(at + 1) - 4 * S);
        let by = random.decades(1e6, 100e6) as i64;
        let by = if random.between(0, 2) == 0 { by } else { -by };
        (random.between(0, 2) == 0).then_some((count, by))
    });
    each.collect()
}

#[test]
fn the_truth_is_in_the_bound_and_the_bound_is_narrow() {
    let (mut bounds, mut errors, mut durations) = (Vec::new(), Vec::new(), [0.0f64; 2]);
    for seed in 0..1000 {
        let mut random = Random(seed);
        let steps = some_steps(&mut random);
        let clock = Clock::new(&mut random, 60 * S, &steps);
        let fit = Fit::new(&clock.snapshots(&mut random));
        assert_eq!(fit.steps(), steps.len(), "seed {seed}: {steps:?}");
        let near = |count: i64, ns: i64| steps.iter().any(|s| (s.0 - count).abs() < ns);
        let check = |count: i64| {
            let reading = clock.reading(count);
            let (estimate, bound) = (fit.monotonic_ns(reading), fit.bound_ns(reading));
            let error = clock.error(estimate, count).abs();
            assert!(
                error <= bound as f64,
                "seed {seed}, {count}: {error} > {bound}; steps: {steps:?}"
            );
            (estimate, bound, error)
        };
        let mut seen = (Vec::new(), Vec::new());
        for _ in 0..300 {
            let count = random.between(0, 60 * S);
            let (estimate, bound, error) = check(count);
            seen.0.push(bound as f64);
            seen.1.push(error);
            for (span, worst) in [1_000_000, 100_000_000].into_iter().zip(&mut durations) {
                if !near(count, 2 * S) {
                    let end = check(count + span).0;
                    let true_ns = clock.truth(count + span) - clock.truth(count);
                    *worst = worst.max(((end - estimate) as f64 / true_ns - 1.0).abs());
                }
            }
        }
        for step in &steps {
            for _ in 0..50 {
                check(step.0 + random.between(-S, S));
            }
            check(step.0 - 1);
            check(step.0);
        }
        for _ in 0..20 {
            check(random.between(-5 * S, 0));
            check(random.between(60 * S, 65 * S));
        }
        bounds.push(median(&mut seen.0));
        errors.push(median(&mut seen.1));
    }
    let (bound, error) = (median(&mut bounds), median(&mut errors));
    eprintln!(
        "medians over seeds: bound {bound} ns (largest {}), error {error} ns; durations off by {durations:?}",
        bounds[999]
    );
    assert!(bound <= 1000.0, "{bound}");
    assert!(error <= 500.0, "{error}");
    assert!(durations[0] < 1e-3 && durations[1] < 1e-3, "{durations:?}");
}

#[test]
fn a_step_among_good_snapshots_is_seen_down_to_twice_their_brackets() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let by = random.decades(4e3, 100e3) as i64;
        let by = if random.between(0, 2) == 0 { by } else { -by };
        let at = random.between(0, 20 * S);
        let clock = Clock::new(&mut random, 20 * S, &[(at, by)]);
        let snapshots: Vec<Snapshot> = (0..=40)
            .map(|half| {
                let bracket_ns = random.decades(80.0, 2e3);
                clock.snapshot(&mut random, half * S / 2, bracket_ns)
            })
            .collect();
        let fit = Fit::new(&snapshots);
        assert_eq!(fit.steps(), 1, "seed {seed}: {by} at {at}");
        for _ in 0..200 {
            let count = random.between(0, 20 * S);
            let reading = clock.reading(count);
            let error = clock.error(fit.monotonic_ns(reading), count).abs();
            let bound = fit.bound_ns(reading);
            assert!(
                error <= bound as f64,
                "seed {seed}, {count}: {error} > {bound}; {by} at {at}"
            );
        }
    }
}

#[test]
fn a_rate_that_jumps_is_covered_or_seen() {
    for (jump, steps) in [(0.5e-6, 0), (10e-6, 1)] {
        for seed in 0..100 {
            let mut random = Random(seed);
            let at = random.between(5 * S, 50 * S);
            let clock = Clock::turning(at, jump, 60 * S);
            let snapshots: Vec<Snapshot> = (0..=60)
                .map(|second| {
                    let bracket_ns = random.decades(60.0, 400.0);
                    clock.snapshot(&mut random, second * S, bracket_ns)
                })
                .collect();
            let fit = Fit::new(&snapshots);
            assert_eq!(fit.steps(), steps, "seed {seed}: {jump} at {at}");
            for _ in 0..200 {
                let count = at + random.between(-2 * S, 2 * S);
                let error = clock.error(fit.monotonic_ns(count), count).abs();
                let bound = fit.bound_ns(count);
                assert!(
                    error <= bound as f64,
                    "seed {seed}, {count}: {error} > {bound}"
                );
            }
        }
    }
}

#[test]
fn without_snapshots_nothing_changes_and_a_single_one_is_a_shift() {
    let fit = Fit::new(&[]);
    assert_eq!((fit.monotonic_ns(7), fit.bound_ns(7)), (7, 0));
    let fit = Fit::new(&[snapshot(0, 50, 3)]);
    assert_eq!(
        (fit.monotonic_ns(7), fit.monotonic_ns(S), fit.error_ns()),
        (57, S + 50, 3)
    );
    assert_eq!((fit.bound_ns(S), fit.bound_ns(-S)), (100_003, 100_003)); // 100 ppm either way
    assert_eq!((fit.steps(), fit.drift_ppb()), (0, 0));
}

#[test]
fn outside_the_snapshots_the_bound_grows_with_the_wander() {
    let fit = Fit::new(&seconds(60, 50));
    assert!(fit.error_ns() < 200, "{}", fit.error_ns());
    let bounds: Vec<i64> = [59, 60, 61, 69]
        .iter()
        .map(|s| fit.bound_ns(s * S))
        .collect();
    assert!(bounds[1] < 2_000 && bounds[3] < 70_000, "{bounds:?}");
    assert!(bounds.is_sorted_by(|a, b| a < b), "{bounds:?}");
}

#[test]
fn a_bad_snapshot_does_not_widen_the_bound_among_good_ones() {
    let good = Fit::new(&seconds(20, 50));
    let mut snapshots = seconds(20, 50);
    snapshots[10].error_ns = 5_000_000;
    snapshots[10].monotonic_ns += 3_000_000;
    let fit = Fit::new(&snapshots);
    assert!(fit.error_ns() < good.error_ns() + 500, "{}", fit.error_ns());
    assert_eq!(fit.steps(), 0);
    // One at the end has neighbours on one side only.
    snapshots[19].error_ns = 5_000_000;
    let fit = Fit::new(&snapshots);
    assert!(fit.error_ns() < 2_000, "{}", fit.error_ns());
}

#[test]
fn around_a_step_the_bound_covers_both_sides() {
    let mut snapshots = seconds(20, 50);
    for late in &mut snapshots[10..] {
        late.monotonic_ns += 1_000_000;
    }
    let fit = Fit::new(&snapshots);
    assert_eq!((fit.steps(), fit.drift_ppb()), (1, 0));
    for at in [9 * S + 1000, 9 * S + S / 2, 10 * S - 1000] {
        for side in [5, 1_000_005] {
            let error = fit.monotonic_ns(at).abs_diff(at + side);
            assert!(error <= fit.bound_ns(at) as u64, "{at} {side}: {error}");
        }
    }
    assert!(fit.bound_ns(9 * S - 2_000_000) < 200 && fit.bound_ns(10 * S + 2_000_000) < 200);
}

#[test]
fn a_domain_that_starts_again_keeps_its_order_and_owns_its_readings_to_both_times() {
    let mut snapshots = seconds(10, 50);
    snapshots.extend((0..10).map(|at| snapshot(at * S + 300, (at + 100) * S, 50)));
    let fit = Fit::new(&snapshots);
    assert_eq!(fit.steps(), 1);
    let placed: Vec<i64> = (-100..200)
        .map(|at| fit.monotonic_ns(at * S / 10))
        .collect();
    assert!(placed.is_sorted());
    for second in 0..9 {
        let at = second * S + S / 2;
        for truth in [at + 5, at + 100 * S - 300] {
            let error = fit.monotonic_ns(at).abs_diff(truth);
            assert!(error <= fit.bound_ns(at) as u64, "{at}: {error}");
        }
    }
}

#[test]
fn a_domain_in_another_unit_has_a_bound_too() {
    let halves: Vec<Snapshot> = (0..20).map(|at| snapshot(at * S, at * S / 2, 50)).collect();
    let fit = Fit::new(&halves);
    assert_eq!((fit.steps(), fit.drift_ppb()), (0, -500_000_000));
    assert!(fit.error_ns() < 200, "{}", fit.error_ns());
}

#[test]
fn causality_narrows_the_bound_and_the_truth_stays_in_it() {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for seed in 0..100 {
        let mut random = Random(seed);
        let clock = Clock::new(&mut random, 20 * S, &[]);
        let snapshots: Vec<Snapshot> = (0..=4)
            .map(|at| clock.snapshot(&mut random, at * 5 * S, 200e3))
            .collect();
        let points: Vec<Causality> = (0..2000)
            .map(|at| {
                let count = random.between(0, 20 * S);
                let slack = random.decades(2e3, 1e6) as i64;
                let (order, slack) = match at % 2 {
                    0 => (Order::NotBefore, -slack),
                    _ => (Order::NotAfter, slack),
                };
                let monotonic_ns = clock.monotonic_ns(count) + slack;
                Causality {
                    reading_ns: clock.reading(count),
                    monotonic_ns,
                    order,
                }
            })
            .collect();
        let plain = Fit::new(&snapshots);
        let fit = Fit::with_causality(&snapshots, &points);
        assert_eq!(fit.violations(), 0, "seed {seed}");
        for _ in 0..100 {
            let count = random.between(0, 20 * S);
            let reading = clock.reading(count);
            let error = clock.error(fit.monotonic_ns(reading), count).abs();
            let bound = fit.bound_ns(reading);
            assert!(
                error <= bound as f64,
                "seed {seed}, {count}: {error} > {bound}"
            );
            without.push(plain.bound_ns(reading) as f64);
            with.push(bound as f64);
        }
    }
    let (without, with) = (median(&mut without), median(&mut with));
    eprintln!("causality: bound {without} -> {with} ns");
    assert!(with < without / 3.0, "{without} {with}");
}

#[test]
fn a_violation_is_counted_and_moves_nothing() {
    let snapshots = seconds(10, 50);
    let point = |at: i64, by: i64, order| Causality {
        reading_ns: at,
        monotonic_ns: at + 5 + by,
        order,
    };
    let fit = Fit::with_causality(
        &snapshots,
        &[
            point(5 * S, 10_000, Order::NotBefore),
            point(6 * S, -10_000, Order::NotAfter),
            point(7 * S, -10_000, Order::NotBefore),
        ],
    );
    let plain = Fit::new(&snapshots);
    assert_eq!((fit.violations(), plain.violations()), (2, 0));
    for at in 0..100 {
        let at = at * S / 10;
        assert_eq!(fit.monotonic_ns(at), plain.monotonic_ns(at));
        assert_eq!(fit.bound_ns(at), plain.bound_ns(at));
    }
    // Each of these two may be, but not both; which is wrong nobody can say.
    let wide = [snapshot(0, 0, 10_000)];
    let both = [
        point(0, 5_000, Order::NotBefore),
        point(1000, -5_000, Order::NotAfter),
    ];
    let fit = Fit::with_causality(&wide, &both);
    assert_eq!((fit.violations(), fit.bound_ns(0)), (2, 10_000));
    let fit = Fit::with_causality(&[], &both);
    assert_eq!((fit.violations(), fit.monotonic_ns(0)), (2, 0));
}

#[test]
fn whatever_the_snapshots_the_map_never_decreases_and_covers_single_ones() {
    let mut random = Random(7);
    for round in 0..2000 {
        let number = random.between(0, 12);
        let bits = random.between(1, 64);
        let mut any = || (random.next() as i64) >> (64 - bits);
        let snapshots: Vec<Snapshot> = (0..number)
            .map(|_| snapshot(any(), any(), any() >> (round % 32)))
            .collect();
        let mut readings: Vec<i64> = (0..30).map(|_| any()).chain([i64::MIN, i64::MAX]).collect();
        readings.sort();
        let fit = Fit::new(&snapshots);
        let placed: Vec<i64> = readings.iter().map(|&at| fit.monotonic_ns(at)).collect();
        assert!(placed.is_sorted(), "{snapshots:?} {placed:?}");
        assert!(
            readings.iter().all(|&at| fit.bound_ns(at) >= 0),
            "{snapshots:?}"
        );
    }
}

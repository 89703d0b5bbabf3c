//! How closely the timeline's clocks are known, and what depends on that.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::report::units::time;
use crate::trace::provenance::ClockFit;

/// The most by which two moments that different clocks told can be nearer or farther than they stand on the timeline, in
/// ns: the bounds of the two worst. `None`: all is on one clock.
pub fn error_ns(clocks: &[ClockFit]) -> Option<i64> {
    let mut bounds: Vec<i64> = clocks
        .iter()
        .map(|clock| clock.error_ns.saturating_add(clock.host_error_ns))
        .collect();
    bounds.sort_unstable_by(|a, b| b.cmp(a));
    let worst = bounds.iter().take(2);
    (!bounds.is_empty()).then(|| worst.fold(0i64, |sum, bound| sum.saturating_add(*bound)))
}

/// What is to be known of them before numbers are believed.
pub fn caveats(clocks: &[ClockFit], facts: &BTreeMap<String, Value>) -> Vec<String> {
    let mut caveats = Vec::new();
    for clock in clocks {
        let whose = format!("the clock {} of process {}", clock.domain, clock.process);
        if clock.steps > 0 {
            caveats.push(format!(
                "{whose} stepped {} times: events near a step are known to {} only",
                clock.steps,
                time(clock.error_ns as f64)
            ));
        }
        if clock.violations > 0 {
            caveats.push(format!(
                "{whose} has {} events before their cause, by more than it can be off",
                clock.violations
            ));
        }
    }
    let delay = facts.get("launch.delay_ns_p50").and_then(Value::as_f64);
    let error = error_ns(clocks).map(|error| error as f64);
    if let (Some(delay), Some(error)) = (delay, error)
        && error > delay
    {
        caveats.push(format!(
            "the clocks are known to {} only: delays of launches (median {}) and causes of gaps are no closer than that",
            time(error),
            time(delay)
        ));
    }
    caveats
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(process: u32, error_ns: i64, host_error_ns: i64) -> ClockFit {
        ClockFit {
            process,
            domain: "tsc".into(),
            snapshots: 9,
            error_ns,
            error_ns_p50: error_ns,
            drift_ppb: 0,
            steps: 0,
            violations: 0,
            host_error_ns,
        }
    }

    #[test]
    fn the_bound_is_that_of_the_two_worst_clocks() {
        assert_eq!(error_ns(&[]), None);
        assert_eq!(error_ns(&[clock(0, 300, 20)]), Some(320));
        let clocks = [clock(0, 300, 0), clock(1, 10, 0), clock(2, 0, 1000)];
        assert_eq!(error_ns(&clocks), Some(1300));
        assert_eq!(
            error_ns(&[clock(0, i64::MAX, 0), clock(1, 1, 0)]),
            Some(i64::MAX)
        );
    }

    #[test]
    fn a_delay_below_the_bound_a_step_and_an_effect_before_its_cause_are_told() {
        let delays = |ns: i64| BTreeMap::from([("launch.delay_ns_p50".into(), ns.into())]);
        let close = [clock(0, 300, 0)];
        assert!(caveats(&close, &delays(2000)).is_empty());
        assert!(caveats(&close, &BTreeMap::new()).is_empty());
        let said = caveats(&close, &delays(200));
        assert!(said.len() == 1 && said[0].contains("300 ns"), "{said:?}");
        let mut bad = clock(3, 300, 0);
        (bad.steps, bad.violations) = (2, 5);
        let said = caveats(&[bad], &BTreeMap::new());
        assert!(
            said[0].contains("stepped 2 times") && said[1].contains("5 events"),
            "{said:?}"
        );
    }
}

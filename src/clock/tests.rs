use proptest::prelude::*;

use super::*;
use crate::trace::text::parse;

fn align(inputs: &[&str]) -> Result<(Vec<Event>, Alignment)> {
    let mut survey = Survey::default();
    let mut rows = Vec::new();
    for (number, text) in inputs.iter().enumerate() {
        let (events, names) = parse(text)?;
        survey.input(Path::new(&format!("{number}.arrow")), Origin::Record);
        for mut event in events {
            event.process = survey.see(&event, &names);
            rows.push(event);
        }
    }
    let alignment = survey.align(None)?;
    for event in &mut rows {
        alignment.places[event.process as usize].put(event);
    }
    Ok((rows, alignment))
}

#[test]
fn a_domain_is_moved_by_its_snapshots_and_the_earliest_row_is_zero() {
    let (rows, alignment) = align(&[r#"
        track    kind    start  end    name  args
        py:main  python  100ms  200ms  f
        py:main  wait    60ms   70ms   runnable
        py:main  clock   0ms    -      tsc   {"monotonic_ns":50000000,"realtime_ns":1050000000,"error_ns":100}
        py:main  clock   200ms  -      tsc   {"monotonic_ns":450000000,"error_ns":300}"#])
    .unwrap();
    assert_eq!(
        (rows[0].start_ns, rows[0].dur_ns),
        (200_000_000, Some(200_000_000))
    );
    assert_eq!(rows[1].start_ns, 10_000_000);
    assert_eq!(rows[2].start_ns, 0);
    assert_eq!(alignment.origin.monotonic_ns, 50_000_000);
    assert_eq!(alignment.origin.realtime_ns, Some(1_050_000_000));
    assert_eq!(
        (alignment.fits[0].error_ns, alignment.fits[0].snapshots),
        (300, 2)
    );
    assert_eq!(alignment.fits[0].drift_ppb, 1_000_000_000);
}

#[test]
fn hosts_are_joined_by_realtime_and_processes_numbered_by_their_start() {
    let one = r#"
        track    kind     start  end   name  args
        py:main  process  5ms    9ms   a     {"host":"a","start_realtime_ns":100005000000}
        py:main  python   6ms    7ms   f"#;
    let two = r#"
        track    kind     start  end    name  args
        py:main  process  70ms   90ms   b     {"host":"b","start_realtime_ns":100004000000}
        py:main  python   72ms   75ms   f"#;
    let (rows, alignment) = align(&[one, two]).unwrap();
    let places: Vec<_> = rows.iter().map(|r| (r.process, r.start_ns)).collect();
    assert_eq!(
        places,
        [(1, 1_000_000), (1, 2_000_000), (0, 0), (0, 2_000_000)]
    );
    assert_eq!(alignment.origin.realtime_ns, Some(100_004_000_000));
}

#[test]
fn a_clock_that_was_never_read_and_a_process_that_comes_twice_are_refused() {
    let never = r#"
        track    kind     start  end  name  args
        py:main  process  0      9    a     {"host":"a","clock":"tsc"}
        py:main  python   6      7    f"#;
    assert_eq!(
        align(&[never]).unwrap_err().to_string(),
        "0.arrow: clock domain tsc has no snapshot; its 1 events have no place in time"
    );
    let twice = r#"
        track    kind     start  end  name  args
        py:main  process  0      9    a     {"host":"a","start_realtime_ns":7}"#;
    assert_eq!(
        align(&[twice, twice]).unwrap_err().to_string(),
        "1.arrow: process 1000 of \"a\" was already in 0.arrow"
    );
}

proptest! {
    #[test]
    fn alignment_keeps_the_order_in_a_domain(
        anchors in prop::collection::vec((any::<i64>(), any::<i64>()), 0..8),
        mut times in prop::collection::vec(any::<i64>(), 2..20),
    ) {
        let snapshots: Vec<Snapshot> = anchors
            .iter()
            .map(|&(reading_ns, monotonic_ns)| Snapshot {
                reading_ns, monotonic_ns, realtime_ns: None, error_ns: 0,
            })
            .collect();
        let fit = Fit::new(&snapshots);
        times.sort();
        let placed: Vec<i64> = times.iter().map(|&t| fit.monotonic_ns(t)).collect();
        prop_assert!(placed.is_sorted(), "{placed:?}");
    }
}

//! Others' eyes on what was written: Perfetto's messages, speedscope's schema, the report's sums, a timeline's rules.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::repository;
use crate::place::Place;
use inferscope::cli::Source;
use inferscope::trace::{Event, Kind, Names};
use serde_json::Value;

/// Slices, instants and counters of a Perfetto trace, read with Perfetto's own messages; `None` if they cannot be had.
pub fn perfetto(place: &Place, file: &str) -> Option<Vec<Value>> {
    let made = place.run(
        repository("scripts/venv.sh").to_str().unwrap(),
        &["python3", "perfetto", "protobuf", "perfetto"],
    );
    if !made.status.success() {
        eprintln!(
            "skipped: perfetto: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        return None;
    }
    let python = String::from_utf8(made.stdout).unwrap();
    let script = repository("tests/python/read_perfetto.py");
    let out = place.run(python.trim(), &[script.to_str().unwrap(), file]);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8(out.stdout).unwrap();
    Some(
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

/// What speedscope's file-format-spec.ts asks for, and that each profile's events are balanced. Time at the end of each stack.
pub fn speedscope(text: &str) -> BTreeMap<String, i64> {
    let file: Value = serde_json::from_str(text).unwrap();
    assert_eq!(
        file["$schema"],
        "https://www.speedscope.app/file-format-schema.json"
    );
    let frames = file["shared"]["frames"].as_array().unwrap();
    for frame in frames {
        assert!(frame["name"].is_string(), "{frame}");
        assert!(
            frame.get("file").is_none_or(Value::is_string)
                && frame.get("line").is_none_or(Value::is_u64)
        );
    }
    let mut sums = BTreeMap::new();
    for profile in file["profiles"].as_array().unwrap() {
        assert_eq!(
            (&profile["type"], &profile["unit"]),
            (&"evented".into(), &"nanoseconds".into())
        );
        let name = profile["name"].as_str().unwrap();
        let (mut at, mut stack) = (profile["startValue"].as_i64().unwrap(), Vec::new());
        for event in profile["events"].as_array().unwrap() {
            let (frame, now) = (
                event["frame"].as_u64().unwrap(),
                event["at"].as_i64().unwrap(),
            );
            assert!(now >= at, "{name}: {event}");
            let title = frames[frame as usize]["name"].as_str().unwrap();
            let place = stack
                .iter()
                .map(|&frame: &u64| frames[frame as usize]["name"].as_str().unwrap());
            let place = place.collect::<Vec<_>>().join(";");
            *sums.entry(format!("{name};{place}")).or_default() += now - at;
            at = now;
            match event["type"].as_str().unwrap() {
                "O" => stack.push(frame),
                "C" => assert_eq!(stack.pop(), Some(frame), "{name}: {title}"),
                other => panic!("{other}"),
            }
        }
        assert!(stack.is_empty());
        assert!(profile["endValue"].as_i64().unwrap() >= at);
    }
    sums
}

/// Sums of folded stacks by the innermost frame, devices apart.
pub fn leaves(folded: &str) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for line in folded.lines().filter(|line| !line.starts_with("GPU ")) {
        let (stack, ns) = line.rsplit_once(' ').unwrap();
        let leaf = stack.rsplit(';').next().unwrap();
        let name = leaf.split(" (").next().unwrap().to_owned();
        *sums.entry(name).or_default() += ns.parse::<i64>().unwrap();
    }
    sums
}

/// The same of the call tree of isc-report.
pub fn tree(timeline: &Path) -> BTreeMap<String, i64> {
    let place = Place::new();
    let t = timeline.to_str().unwrap();
    let analyze = place.run(env!("CARGO_BIN_EXE_isc-analyze"), &[t, "-o", "a.json"]);
    assert!(analyze.status.success(), "{analyze:?}");
    let analysis = inferscope::report::read(&Source::from(place.path("a.json").as_path())).unwrap();
    let calls = inferscope::report::calls(&Source::from(timeline), &analysis).unwrap();
    let mut sums = BTreeMap::new();
    for node in calls.tree.nodes().iter().filter(|node| node.self_ns > 0) {
        let name = calls.tree.text(node.name).replace(';', ":");
        let name = name.split(" (").next().unwrap().to_owned();
        *sums.entry(name).or_default() += node.self_ns;
    }
    sums
}

/// A timeline whose numbers lead to rows that are there and around, before or behind them, as isc-merge leaves them.
pub fn check_timeline(events: &[Event], names: &Names) {
    for (row, event) in events.iter().enumerate() {
        let name = names.text(event.name);
        if let Some(parent) = event.parent {
            assert!(parent < row as i64, "{name}");
            let around = &events[parent as usize];
            assert_eq!(
                (around.process, around.tid),
                (event.process, event.tid),
                "{name}"
            );
            assert!(
                around.start_ns <= event.start_ns && around.end_ns() >= event.end_ns(),
                "{name}"
            );
        }
        if let Some(cause) = event.cause {
            let cause = &events[cause as usize];
            assert_eq!(
                (cause.kind, cause.correlation),
                (Kind::Launch, event.correlation),
                "{name}"
            );
        }
    }
}

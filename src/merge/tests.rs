use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::trace::Reader;
use crate::trace::text::{parse, print};
use crate::trace::{Event, Names};

fn put(folder: &Path, name: &str, events: &[Event], names: &Names) -> Source {
    let path = folder.join(name);
    let provenance = Provenance::raw(Step::new("test", vec![], vec![]));
    let mut writer = Writer::create(&Sink::from(path.as_path()), &provenance).unwrap();
    for event in events {
        writer.push(event, names).unwrap();
    }
    writer.finish().unwrap();
    Source::from(path.as_path())
}

fn merged(folder: &Path, inputs: &[Source], memory: u64) -> (String, Vec<u8>) {
    let path = folder.join(format!("out-{memory}.arrow"));
    let raw = read(inputs, memory, &Lenient::default()).unwrap();
    raw.write(&Sink::from(path.as_path()), None).unwrap();
    let mut reader = Reader::open(&Source::from(path.as_path())).unwrap();
    let (mut names, mut events) = (Names::default(), Vec::new());
    while reader.next_batch(&mut names, &mut events).unwrap() {}
    (print(&events, &names), std::fs::read(path).unwrap())
}

#[test]
fn rows_are_sorted_nested_and_joined() {
    let folder = tempfile::tempdir().unwrap();
    let (events, names) = parse(
        "track     kind    start  end   name    correlation
         py:main   native  2us    3us   matmul
         py:main   python  2us    3us   same
         py:main   launch  3us    4us   launch  1
         cuda:0/7  kernel  5us    6us   gemm    1
         py:main   python  1us    9us   main",
    )
    .unwrap();
    let input = put(folder.path(), "a.parquet", &events, &names);
    let (text, _) = merged(folder.path(), &[input], 1 << 30);
    let wanted = "\
track     kind    start  end  name    correlation  parent  cause
py:main   python  0us    8us  main    -            -       -
py:main   python  1us    2us  same    -            0       -
py:main   native  1us    2us  matmul  -            1       -
py:main   launch  2us    3us  launch  1            0       -
cuda:0/7  kernel  4us    5us  gemm    1            -       3
";
    assert_eq!(text, wanted);
}

/// Rows of a few processes and threads, with a `process` row each.
fn rows() -> impl Strategy<Value = Vec<(u32, u64, i64, Option<i64>, u8)>> {
    let row = (
        0..3u32,
        1..3u64,
        0..200i64,
        prop::option::of(0..50i64),
        0..4u8,
    );
    prop::collection::vec(row, 1..900)
}

fn events(rows: &[(u32, u64, i64, Option<i64>, u8)], names: &mut Names) -> Vec<Event> {
    use crate::trace::Kind::*;
    let mut events = Vec::new();
    for process in 0..3 {
        let args = format!("{{\"host\":\"h\",\"start_realtime_ns\":{}}}", 5 + process);
        let name = names.sym("app");
        let mut event = Event::new(Process, name, i64::from(process), process, 70 + process, 0);
        event.args = Some(names.sym(&args));
        events.push(event);
    }
    for &(process, tid, start, dur, kind) in rows {
        let kind = [Python, Native, Mark, Wait][usize::from(kind)];
        let name = names.sym(&format!("n{}", start % 9));
        let mut event = Event::new(kind, name, start + 3, process, 70 + process, tid);
        event.dur_ns = dur;
        event.value = Some(events.len() as f64);
        events.push(event);
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn merging_parts_equals_merging_the_whole_in_any_memory(rows in rows(), cut in 0..3u32) {
        let folder = tempfile::tempdir().unwrap();
        let mut names = Names::default();
        let all = events(&rows, &mut names);
        let (one, two): (Vec<Event>, Vec<Event>) = all.iter().partition(|e| e.process <= cut);
        let whole = put(folder.path(), "all.arrow", &all, &names);
        let one = put(folder.path(), "one.parquet", &one, &names);
        let two = put(folder.path(), "two.arrow", &two, &names);
        let (large, bytes) = merged(folder.path(), std::slice::from_ref(&whole), 1 << 30);
        let (_, again) = merged(folder.path(), std::slice::from_ref(&whole), 1);
        prop_assert!(bytes == again, "the bytes depend on the memory");
        let (parts, _) = merged(folder.path(), &[two, one], 1);
        prop_assert_eq!(&large, &parts);
        let timeline = Source::from(folder.path().join("out-1.arrow").as_path());
        let (twice, _) = merged(folder.path(), &[timeline], 1 << 29);
        prop_assert_eq!(&large, &twice);
    }

    #[test]
    fn parents_contain_their_children_and_stand_before_them(rows in rows()) {
        let folder = tempfile::tempdir().unwrap();
        let mut names = Names::default();
        let all = events(&rows, &mut names);
        let input = put(folder.path(), "all.arrow", &all, &names);
        let (text, _) = merged(folder.path(), &[input], 1 << 30);
        let (events, _) = parse(&text).unwrap();
        prop_assert_eq!(events.len(), all.len());
        prop_assert!(events.is_sorted_by_key(|e| e.start_ns));
        for (row, event) in events.iter().enumerate() {
            let Some(parent) = event.parent else { continue };
            prop_assert!(parent < row as i64);
            let parent = &events[parent as usize];
            prop_assert_eq!((parent.process, parent.tid), (event.process, event.tid));
            prop_assert!(parent.start_ns <= event.start_ns && event.end_ns() <= parent.end_ns());
        }
    }
}

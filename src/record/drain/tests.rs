use super::*;
use inferscope_spool::record::{LOOSE, RESUMED, SUSPENDED, Text, UNSEEN, deep};

pub(super) const KEY: ProcessKey = ProcessKey {
    pid: 10,
    start_ticks: 1,
};

pub(super) fn bytes(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        let words = match record {
            Record::Text(text) => text.encode(),
            fixed => fixed
                .words()
                .map(|w| w.as_slice().to_vec())
                .unwrap_or_default(),
        };
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    bytes
}

/// What the records of one thread become, as `name start+dur args flow`.
pub(super) fn rows(records: &[Record]) -> Vec<String> {
    let mut drain = Drain::default();
    let mut out = Vec::new();
    let defines: Vec<Record> = [(1, "f"), (2, "g"), (3, "s")]
        .into_iter()
        .map(|(id, name)| {
            Record::Text(Text::Define {
                id,
                line: id,
                name,
                file: "a.py",
            })
        })
        .collect();
    drain.records(KEY, 0, &bytes(&defines), &mut out);
    drain.records(KEY, 7, &bytes(records), &mut out);
    drain.finish(&mut out);
    out.iter()
        .map(|e| {
            let args = e.args.map_or("-", |args| drain.names.text(args));
            let flow = e.flow.map_or(0, |flow| flow);
            format!(
                "{} {}+{} {args} {flow}",
                drain.names.text(e.name),
                e.start_ns,
                e.dur_ns.unwrap_or(-1)
            )
        })
        .collect()
}

fn begin(time: u64, id: u32) -> Record<'static> {
    Record::Begin {
        time,
        id,
        flags: 0,
        flow: 0,
    }
}

fn end(time: u64, id: u32) -> Record<'static> {
    Record::End { time, id, flags: 0 }
}

#[test]
fn calls_nest_and_recursion_pairs_the_innermost() {
    let got = rows(&[begin(1, 1), begin(2, 1), end(3, 1), end(9, 1)]);
    assert_eq!(got, ["f 2+1 - 0", "f 1+8 - 0"]);
}

#[test]
fn an_end_that_never_came_ends_with_its_caller_and_a_begin_that_never_came_is_no_span() {
    let got = rows(&[end(1, 2), begin(2, 1), begin(3, 2), end(9, 1)]);
    assert_eq!(got, [r#"g 3+6 {"open":true} 0"#, "f 2+7 - 0"]);
}

#[test]
fn ends_whose_begin_was_lost_are_lost_with_it_and_no_others() {
    let mut drain = Drain::default();
    let mut out = Vec::new();
    drain.records(KEY, 7, &bytes(&[end(1, 1), begin(2, 2)]), &mut out); // 1 began before the recording
    drain.lost(KEY, 7, 1, &mut out);
    let after = [end(4, 3), end(5, 2), end(6, 1)]; // 3 began in the gap, 1 before it all
    drain.records(KEY, 7, &bytes(&after), &mut out);
    let got: Vec<_> = out
        .iter()
        .map(|e| (drain.names.text(e.name), e.start_ns, e.value))
        .collect();
    let want = [
        ("records", 2, Some(1.0)),
        ("ends without a beginning", 4, Some(1.0)),
        ("(name lost)", 2, None),
    ];
    assert_eq!(got, want);
}

#[test]
fn what_is_open_at_the_end_lasts_to_the_last_record() {
    let got = rows(&[begin(2, 1), begin(3, 2), end(9, 2)]);
    assert_eq!(got, ["g 3+6 - 0", r#"f 2+7 {"open":true} 0"#]);
}

#[test]
fn a_task_gives_its_flow_to_what_it_calls_and_a_scope_across_an_await_is_async() {
    let task = |time, flags| Record::Begin {
        time,
        id: 1,
        flags,
        flow: 5,
    };
    let got = rows(&[
        task(1, 0),
        Record::Text(Text::Metadata(r#"{"n":1}"#)),
        Record::ScopeBegin {
            time: 2,
            id: 3,
            handle: 1,
            flow: 5,
        },
        begin(3, 2),
        end(4, 2),
        Record::End {
            time: 5,
            id: 1,
            flags: SUSPENDED,
        },
        task(8, RESUMED),
        Record::ScopeEnd {
            time: 9,
            id: 3,
            flags: 0,
            handle: 1,
        },
        end(10, 1),
    ]);
    assert_eq!(
        got,
        [
            "g 3+1 - 5",
            r#"f 1+4 {"suspended":true} 5"#,
            r#"s 2+7 {"async":true,"n":1} 5"#,
            r#"f 8+2 {"resumed":true} 5"#,
        ]
    );
}

#[test]
fn a_frame_that_an_exception_left_unseen_ends_when_another_begins_as_deep() {
    let begin = |time, id, depth, flags| Record::Begin {
        time,
        id,
        flags: flags | deep(depth),
        flow: 0,
    };
    let open = r#"{"open":true}"#;
    let seen = [begin(1, 1, 5, 0), begin(2, 2, 6, 0), begin(4, 3, 7, 0)];
    let got = rows(&[&seen[..], &[begin(8, 2, 6, LOOSE), end(9, 2), end(10, 1)]].concat());
    let left = [format!("s 4+0 {open} 0"), format!("g 2+2 {open} 0")];
    assert_eq!(got[..2], left);
    assert_eq!(got[2..], ["g 8+1 - 0", "f 1+9 - 0"]);
    // Where all ends are told, and where nobody said how deep, nothing is ended.
    let got = rows(&[&seen[..], &[begin(8, 2, 6, 0), end(9, 2), end(10, 1)]].concat());
    assert_eq!(got[0], "g 8+1 - 0");
    let got = rows(&[
        begin(1, 1, 0, 0),
        begin(2, 2, 3, LOOSE),
        end(3, 2),
        end(4, 1),
    ]);
    assert_eq!(got, ["g 2+1 - 0", "f 1+3 - 0"]);
}

#[test]
fn a_scope_of_a_task_whose_frames_are_not_recorded_is_async_and_of_no_known_flow() {
    let scope = |flow| Record::ScopeBegin {
        time: 2,
        id: 3,
        handle: 1,
        flow,
    };
    let end = Record::ScopeEnd {
        time: 9,
        id: 3,
        flags: 0,
        handle: 1,
    };
    assert_eq!(rows(&[scope(UNSEEN), end]), [r#"s 2+7 {"async":true} 0"#]);
    assert_eq!(rows(&[scope(0), end]), ["s 2+7 - 0"]);
}

#[test]
fn switching_off_ends_what_is_open() {
    let off = Record::Switch { time: 4, on: false };
    let got = rows(&[begin(1, 1), off, begin(9, 2), end(10, 2)]);
    assert_eq!(got, [r#"f 1+3 {"open":true} 0"#, "g 9+1 - 0"]);
}

#[test]
fn a_thread_that_ended_is_forgotten_and_one_that_has_its_id_again_is_not() {
    let mut drain = Drain::default();
    let mut out = Vec::new();
    for tid in 1..=4 {
        let name = Record::Text(Text::Thread { tid, name: "t" });
        drain.records(KEY, tid, &bytes(&[name, begin(tid, 1)]), &mut out);
        drain.closed(KEY, tid);
    }
    drain.records(KEY, 1, &bytes(&[begin(9, 1)]), &mut out);
    let retired = drain.retire(KEY, 2, &mut out).unwrap();
    assert_eq!((retired.tid, retired.name.as_deref()), (2, Some("t")));
    assert_eq!((retired.first_ns, out.len()), (2, 1), "its frame ended");
    assert!(drain.retire(KEY, 2, &mut out).is_none());
    assert_eq!(drain.processes()[0].1.active().len(), 3);
}

#[test]
fn texts_of_rows_long_written_are_let_go_of_and_names_stay() {
    let mut drain = Drain::default();
    let mut out = Vec::new();
    let define = Text::Define {
        id: 1,
        line: 3,
        name: "f",
        file: "a.py",
    };
    drain.records(KEY, 0, &bytes(&[Record::Text(define)]), &mut out);
    let mut most = 0;
    for n in 0..400_000 {
        let json = format!("{{\"request\":{n}}}");
        let mark = Record::Mark {
            time: n,
            id: 1,
            flow: 0,
        };
        let records = [Record::Text(Text::Metadata(&json)), mark];
        drain.records(KEY, 7, &bytes(&records), &mut out);
        let row = out.pop().unwrap();
        assert_eq!(drain.names.text(row.name), "f");
        assert_eq!(drain.names.text(row.file.unwrap()), "a.py");
        assert_eq!(drain.names.text(row.args.unwrap()), json);
        most = most.max(drain.names.bytes());
        drain.tidy();
    }
    assert!((MOST_TEXTS..MOST_TEXTS + 1000).contains(&most), "{most}");
}

#[test]
fn damaged_bytes_are_counted_and_end_their_batch() {
    let mut drain = Drain::default();
    let mut out = Vec::new();
    drain.records(KEY, 7, &[0xff; 48], &mut out);
    assert_eq!((drain.damaged, out.len()), (1, 0));
}

#[test]
fn an_estimate_waits_for_the_calls_that_other_chains_hold() {
    const MS: u64 = 1_000_000;
    let slices = |time_ms: u64| Record::Slices {
        time: time_ms * MS,
        dur_us: 1_000_000,
        id: 1,
        slices: 20,
        seen: 1,
        calls: 100.0,
        chance: 50.0,
        bias: 1.0,
        on_us: 10_000,
        off_us: 990_000,
    };
    let time_of = |drain: &Drain, event: &Event| {
        let args = drain.names.text(event.args.unwrap());
        serde_json::from_str::<serde_json::Value>(args).unwrap()["time_ns"].clone()
    };
    let mut drain = Drain::default();
    let mut out = Vec::new();
    drain.records(KEY, 0, &bytes(&[slices(1000)]), &mut out);
    drain.records(
        KEY,
        7,
        &bytes(&[begin(900 * MS, 1), end(902 * MS, 1)]),
        &mut out,
    );
    drain.records(KEY, 0, &bytes(&[slices(1500), slices(1600)]), &mut out);
    let told: Vec<_> = (out.iter()).filter(|e| e.kind == Kind::Throttled).collect();
    assert_eq!(told.len(), 1, "the others are too new");
    assert_eq!(time_of(&drain, told[0]), 200 * MS);
    out.clear();
    drain.tell(&mut out);
    assert_eq!(out.len(), 2);
    drain.finish(&mut out);
    assert_eq!(out.len(), 2, "each once");
}

use super::*;

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[test]
fn fixed_records_come_back_as_written() {
    let time = (1 << 56) - 1;
    for record in [
        Record::Begin {
            time,
            id: 7,
            flags: RESUMED,
            flow: 0,
        },
        Record::Begin {
            time,
            id: 7,
            flags: 0,
            flow: 9,
        },
        Record::End {
            time,
            id: u32::MAX,
            flags: SUSPENDED | RAISED,
        },
        Record::Span {
            time,
            id: 1,
            kind: SpanKind::Native,
            dur: 5,
            extra: u64::MAX,
        },
        Record::Span {
            time,
            id: 1,
            kind: SpanKind::Native,
            dur: u32::MAX.into(),
            extra: 0,
        },
        Record::Span {
            time,
            id: 1,
            kind: SpanKind::Native,
            dur: 1 << 32,
            extra: 0,
        },
        Record::Mark {
            time,
            id: 3,
            flow: 4,
        },
        Record::ScopeBegin {
            time,
            id: 3,
            handle: 4,
            flow: 5,
        },
        Record::ScopeEnd {
            time,
            id: 3,
            flags: RAISED,
            handle: 4,
        },
        Record::Counter {
            time,
            id: 3,
            value: -1.5,
        },
        Record::Clock {
            ticks: time,
            monotonic_ns: 1,
            realtime_ns: 2,
            boottime_ns: 3,
            error_ns: 4,
        },
        Record::Throttle {
            time,
            id: 3,
            calls: 4,
            since: 5,
            burst: 6,
            pools: [7, 8],
        },
        Record::Slices {
            time,
            dur_us: 1,
            id: 2,
            slices: 3,
            seen: 4,
            calls: 5.5,
            chance: 6.5,
            bias: 7.5,
            on_us: 8,
            off_us: 9,
        },
        Record::Work {
            time,
            id: 1,
            correlation: u32::MAX,
            dur: u64::MAX,
            stream: NO_STREAM,
            bytes: NO_BYTES,
        },
        Record::Work {
            time,
            id: 1,
            correlation: 2,
            dur: 3,
            stream: 4,
            bytes: 0,
        },
        Record::Call {
            time,
            id: 1,
            correlation: 2,
            dur: 3,
            tid: u32::MAX,
            result: 700,
        },
        Record::Missing {
            time,
            id: 1,
            records: u64::MAX,
        },
        Record::Switch { time, on: true },
        Record::Exit { time },
        Record::Gil {
            start: 1,
            end: u64::MAX,
            holder: 2,
        },
        Record::State { tid: 3, address: 4 },
        Record::Nvtx(Nvtx::Push {
            time,
            id: 3,
            domain: MOST_DOMAIN - 1,
            level: MOST_LEVEL,
        }),
        Record::Nvtx(Nvtx::Pop {
            time,
            domain: 4,
            level: 5,
        }),
        Record::Nvtx(Nvtx::Start {
            time,
            id: 3,
            domain: 4,
            range: u64::MAX,
        }),
        Record::Nvtx(Nvtx::End {
            time,
            range: u64::MAX,
        }),
        Record::Nvtx(Nvtx::Mark {
            time,
            id: 3,
            domain: 4,
        }),
        Record::Nvtx(Nvtx::Attributes(Attributes {
            category: 3,
            color: Some(u32::MAX),
            value: Some(-0.5),
        })),
        Record::Nvtx(Nvtx::Attributes(Attributes::default())),
    ] {
        let bytes = bytes(record.words().unwrap().as_slice());
        assert_eq!(Record::decode(&bytes), Some((record, bytes.len())));
        for cut in 0..bytes.len() {
            assert_eq!(
                Record::decode(&bytes[..cut]),
                None,
                "{record:?} cut at {cut}"
            );
        }
    }
}

#[test]
fn texts_come_back_and_long_ones_are_cut_at_a_character() {
    for text in [
        Text::Metadata("{}"),
        Text::Process(""),
        Text::Note("sixteen bytes ok"),
        Text::Thread {
            tid: 42,
            name: "größe",
        },
        Text::Shape { id: 5, json: "{}" },
        Text::Facts {
            name: "device 0",
            json: "{}",
        },
        Text::NvtxThread {
            tid: 42,
            name: "größe",
        },
        Text::NvtxCategory {
            domain: 1,
            category: u32::MAX,
            name: "größe",
        },
        Text::Define {
            id: 1,
            line: 2,
            name: "f",
            file: "a.py",
        },
    ] {
        let bytes = bytes(&text.encode());
        assert_eq!(
            Record::decode(&bytes),
            Some((Record::Text(text), bytes.len()))
        );
        assert_eq!(bytes.len() % SLOT, 0);
    }
    let long = "ß".repeat(MAX_TEXT);
    let bytes = bytes(&Text::Note(&long).encode());
    let Some((Record::Text(Text::Note(kept)), _)) = Record::decode(&bytes) else {
        panic!()
    };
    assert_eq!(kept.len(), MAX_TEXT);
}

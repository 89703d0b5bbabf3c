//! Records of any content, in any order, on a few threads of two processes.

use inferscope::record::drain::{Drain, ProcessKey};
use inferscope_spool::record::{Record, SpanKind, Text};

/// Does what `data` says: a record, or bytes as they are, at each step.
pub fn run(data: &[u8]) {
    let (mut drain, mut out) = (Drain::default(), Vec::new());
    let mut rest = data;
    while let [what, place, id, size, tail @ ..] = rest {
        let key = ProcessKey {
            pid: u32::from(place & 1),
            start_ticks: 1,
        };
        let tid = u64::from(place >> 1 & 3);
        let (content, tail) = tail.split_at(tail.len().min(usize::from(size % 64)));
        rest = tail;
        let number = |at: usize| {
            let byte = |n| content.get(8 * at + n).copied().unwrap_or_default();
            u64::from_le_bytes(std::array::from_fn(byte))
        };
        let text = std::str::from_utf8(content).unwrap_or_default();
        let id = u32::from(id % 8);
        let bytes = match what % 16 {
            15 => content.to_vec(),
            14 => {
                drain.close(key, &mut out);
                continue;
            }
            13 => {
                drain.lost(key, tid, number(0), &mut out);
                continue;
            }
            what => encode(&record(what, id, number, text)),
        };
        drain.records(key, tid, &bytes, &mut out);
        out.clear();
        drain.tidy();
    }
    drain.finish(&mut out);
}

fn record<'a>(what: u8, id: u32, number: impl Fn(usize) -> u64, text: &'a str) -> Record<'a> {
    let time = number(0) & ((1 << 56) - 1);
    let flags = number(1) as u32;
    match what {
        0 => Record::Begin {
            time,
            id,
            flags,
            flow: number(2),
        },
        1 => Record::End { time, id, flags },
        2 => Record::Span {
            time,
            id,
            kind: [SpanKind::Native, SpanKind::Gc, SpanKind::Wait][id as usize % 3],
            dur: number(1),
            extra: number(2),
        },
        3 => Record::Mark {
            time,
            id,
            flow: number(1),
        },
        4 => Record::ScopeBegin {
            time,
            id,
            handle: number(1),
            flow: number(2),
        },
        5 => Record::ScopeEnd {
            time,
            id,
            flags,
            handle: number(2),
        },
        6 => Record::Counter {
            time,
            id,
            value: f64::from_bits(number(1)),
        },
        7 => Record::Clock {
            ticks: time,
            monotonic_ns: number(1),
            realtime_ns: number(2),
            boottime_ns: number(3),
            error_ns: number(4),
        },
        8 => Record::Sample {
            time,
            id,
            tid: number(1),
            cpu_ns: number(2),
        },
        9 => Record::Throttle {
            time,
            id,
            calls: flags,
            since: number(2),
            burst: number(3),
            pools: [number(4), number(5)],
        },
        10 => Record::Switch {
            time,
            on: flags & 1 == 1,
        },
        11 => Record::Text(Text::Process(text)),
        _ => Record::Text(match id {
            0 => Text::Metadata(text),
            1 => Text::Note(text),
            2 => Text::Thread { tid: 1, name: text },
            // what the budget reads from the probe's own counter
            3 => Text::Define {
                id,
                line: flags,
                name: "probe.call_ns",
                file: "",
            },
            _ => Text::Define {
                id,
                line: flags,
                name: text,
                file: text,
            },
        }),
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let words = match record {
        Record::Text(text) => text.encode(),
        fixed => fixed
            .words()
            .map(|words| words.as_slice().to_vec())
            .unwrap_or_default(),
    };
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

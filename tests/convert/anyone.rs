//! Traces that others made: hostile texts, and real programs.

use std::collections::BTreeMap;

use crate::common::{repository, rows};
use crate::place::{Place, raw};
use crate::readers::{check_timeline, leaves, perfetto, speedscope, tree};
use inferscope::trace::{Event, Kind};
use serde_json::Value;

#[test]
fn texts_of_anyone_break_no_format() {
    let place = Place::new();
    let names = [
        "\u{0}\u{1b}[31m",
        "a\nb;c d",
        "</script>",
        "\u{2028}\u{202e}",
        "",
        "'\"\\",
        "=1+1,\r\n",
        "🦀",
    ];
    let mut text = String::from("track kind start end name file line args\n");
    for (at, name) in names.iter().enumerate() {
        let name = Value::from(*name);
        let (start, end) = (at * 100, at * 100 + 50);
        text.push_str(&format!(
            "py:main python {start} {end} {name} {name} 1 {}\n",
            serde_json::json!({ "k": name })
        ));
        text.push_str(&format!("py:main native {start} {end} {name} {name} - -\n"));
        text.push_str(&format!("cuda:0/7 kernel {start} {end} {name} - - -\n"));
        text.push_str(&format!("py:main counter {start} - {name} - - -\n"));
    }
    text.push_str("py:main thread 0 - \"t;\\n\" - - -\npy:main process 0 9000 \"p;\\n\" - - -\n");
    raw(&place.path("raw.parquet"), &text);
    place.merge(&["raw.parquet", "-o", "t.parquet"]);
    for output in [
        "t.json",
        "t.speedscope.json",
        "t.folded",
        "t.pftrace",
        "t.csv",
    ] {
        place.convert(&["t.parquet", "-o", output]);
    }
    let json: Value = serde_json::from_str(&place.read("t.json")).unwrap();
    assert!(json["traceEvents"].as_array().unwrap().len() > 4 * names.len());
    assert!(!place.read("t.json").contains('\u{1b}'));
    speedscope(&place.read("t.speedscope.json"));
    for line in place.read("t.folded").lines() {
        let (stack, ns) = line.rsplit_once(' ').unwrap();
        assert_eq!(ns, "50", "{line}");
        assert!(
            stack.split(';').count() <= 4 && !line.chars().any(char::is_control),
            "{line}"
        );
    }
    place.merge(&["t.json", "-o", "back.parquet"]);
    let spans = |name: &str| {
        let (events, texts) = rows(&place.path(name));
        let of = events.iter().filter(|event| event.dur_ns == Some(50));
        let mut of: Vec<_> = of
            .map(|event| {
                (
                    event.kind,
                    texts.text(event.name).to_owned(),
                    event.start_ns,
                )
            })
            .collect();
        of.sort();
        of
    };
    assert_eq!(spans("back.parquet"), spans("t.parquet"));
    if let Some(lines) = perfetto(&place, "t.pftrace") {
        assert_eq!(
            lines.iter().filter(|line| line["ph"] == "X").count(),
            3 * names.len()
        );
    }
}

#[test]
fn real_traces_keep_their_kernels_in_every_format() {
    let folder = repository("../shared/traces");
    let mut seen = 0;
    for name in [
        "tl_h100_qwen05b",
        "tl_mi300x_sglang_decode",
        "hta_a100_alexnet_cuda_sync",
        "hta_vit_sampled_rank0",
        "hta_gpu_user_annotation",
        "tl_mi210_gpu_only",
    ] {
        let trace = folder.join(format!("{name}.json.gz"));
        if !trace.exists() {
            eprintln!("skipped: {name}: not in ../shared/traces");
            continue;
        }
        seen += 1;
        let place = Place::new();
        place.merge(&[trace.to_str().unwrap(), "-o", "t.parquet"]);
        place.convert(&["t.parquet", "-o", "t.json.gz"]);
        place.merge(&["t.json.gz", "-o", "back.parquet"]);
        let facts = |timeline: &str| {
            let out = place.run(env!("CARGO_BIN_EXE_isc-analyze"), &[timeline, "--json"]);
            let analysis: Value = serde_json::from_slice(&out.stdout).unwrap();
            let facts = analysis["facts"].as_object().unwrap().clone();
            let of_device = |key: &String| {
                ["gpu.", "kernel.", "launch."]
                    .iter()
                    .any(|part| key.starts_with(part))
            };
            facts
                .into_iter()
                .filter(|(key, _)| of_device(key))
                .collect::<Vec<_>>()
        };
        assert_eq!(facts("back.parquet"), facts("t.parquet"), "{name}");
        let spans = |timeline: &str| {
            let (events, texts) = rows(&place.path(timeline));
            let spans = events
                .iter()
                .filter(|event| event.dur_ns.is_some() && event.kind != Kind::Process);
            let key = |event: &Event| {
                let place = (event.device, event.stream, event.correlation, event.tid);
                (
                    event.start_ns,
                    event.dur_ns,
                    event.kind,
                    texts.text(event.name).to_owned(),
                    place,
                    event.bytes,
                )
            };
            let mut spans: Vec<_> = spans.map(key).collect();
            spans.sort();
            spans
        };
        assert!(spans("back.parquet") == spans("t.parquet"), "{name}");
        place.convert(&["t.parquet", "-o", "t.folded"]);
        let report: BTreeMap<String, i64> = tree(&place.path("t.parquet"));
        let (whole, wanted): (i64, i64) = (
            leaves(&place.read("t.folded")).values().sum(),
            report.values().sum(),
        );
        let (events, _) = rows(&place.path("t.parquet"));
        let on_device = events
            .iter()
            .filter(|event| event.kind.nests() && event.device.is_some());
        // The report has what the host waited for on a stream in a thread of its own.
        if on_device.count() == 0 {
            assert_eq!(whole, wanted, "{name}");
        }
        place.convert(&["t.parquet", "-o", "t.speedscope.json"]);
        speedscope(&place.read("t.speedscope.json"));
        place.convert(&["t.parquet", "-o", "t.pftrace"]);
        if let Some(lines) = perfetto(&place, "t.pftrace") {
            let slices = lines.iter().filter(|line| line["ph"] == "X").count();
            let spans = events
                .iter()
                .filter(|event| event.dur_ns.is_some() && event.kind != Kind::Process);
            assert_eq!(slices, spans.count(), "{name}");
        }
        place.convert(&[
            "t.parquet",
            "--kind",
            "kernel,launch",
            "--head",
            "500",
            "-o",
            "s.parquet",
        ]);
        let (events, names) = rows(&place.path("s.parquet"));
        check_timeline(&events, &names);
    }
    eprintln!("{seen} real traces");
}

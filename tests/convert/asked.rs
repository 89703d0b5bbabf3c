//! What is asked for: a part of a timeline is a timeline, and what cannot be done is said.

use std::fs;

use crate::common::rows;
use crate::place::{CONVERT, Place, place, raw};
use crate::readers::check_timeline;
use inferscope::cli::Source;
use inferscope::trace::{Kind, Reader};
use serde_json::Value;

#[test]
fn what_is_selected_is_a_timeline_that_can_be_analysed() {
    let place = place();
    for (words, kept) in [
        (
            &["--kind", "python,kernel"][..],
            "gemm<float> inner main nothing overlaps relu serve step",
        ),
        (
            &["--kind", "kernel", "--device", "0"],
            "gemm<float> overlaps relu",
        ),
        (&["--process", "1"], "cudaLaunch inner nothing relu serve"),
        (&["--thread", "77"], "cudaLaunch inner nothing serve"),
        (
            &["--tid", "77", "--name", "inn", "--name", "Launch"],
            "cudaLaunch inner",
        ),
        (
            &[
                "--from",
                "155us",
                "--to",
                "0.0002s",
                "--kind",
                "kernel,memcpy,mark,python",
            ],
            "Memcpy DtoH inner main overlaps serve step",
        ),
        (
            &["--where", "kind == \"kernel\" && dur_ns > 20000"],
            "gemm<float> relu",
        ),
        (
            &["--where", "kind == 'native' || name == 'main'"],
            "main numpy.dot",
        ),
        (&["--kind", "python", "--head", "2"], "main step"),
    ] {
        let words = [&["t.parquet", "-o", "s.parquet"], words].concat();
        place.convert(&words);
        let (events, names) = rows(&place.path("s.parquet"));
        check_timeline(&events, &names);
        let described = [
            Kind::Process,
            Kind::Thread,
            Kind::Stream,
            Kind::Clock,
            Kind::Lost,
            Kind::Throttled,
        ];
        let found = events
            .iter()
            .filter(|event| !described.contains(&event.kind));
        let mut found: Vec<&str> = found.map(|event| names.text(event.name)).collect();
        found.sort_unstable();
        assert_eq!(found.join(" "), kept, "{words:?}");
        let out = place.run(env!("CARGO_BIN_EXE_isc-analyze"), &["s.parquet", "--json"]);
        assert!(out.status.success(), "{out:?}");
        let analysis: Value = serde_json::from_slice(&out.stdout).unwrap();
        let caveats = analysis["caveats"].to_string();
        assert!(caveats.contains("only a part of a timeline"), "{caveats}");
    }
    // The nearest kept span is around what was inside of a dropped one, and a cause that is gone is none.
    place.convert(&[
        "t.parquet",
        "--kind",
        "python,native,kernel",
        "--where",
        "name != 'step'",
        "-o",
        "s.arrow",
    ]);
    let (events, names) = rows(&place.path("s.arrow"));
    let at = |name: &str| {
        events
            .iter()
            .position(|event| names.text(event.name) == name)
            .unwrap()
    };
    assert_eq!(events[at("numpy.dot")].parent, Some(at("main") as i64));
    assert_eq!(events[at("gemm<float>")].cause, None);
    let source = Source::from(place.path("s.arrow").as_path());
    let reader = Reader::open(&source).unwrap();
    let step = reader.provenance().steps.last().unwrap();
    assert_eq!(
        step.flags,
        ["--kind=python,native,kernel", "--where=name != 'step'"]
    );
}

#[test]
fn what_cannot_be_done_is_said_in_a_line() {
    let place = place();
    fs::write(place.path("x.png"), b"\x89PNG\r\n\x1a\n1234567890").unwrap();
    fs::write(place.path("k.json"), b"{\"traceEvents\":[]}").unwrap();
    fs::write(place.path("empty"), b"").unwrap();
    let whole = fs::read(place.path("t.parquet")).unwrap();
    fs::write(place.path("cut.parquet"), &whole[..whole.len() - 9]).unwrap();
    place.convert(&["t.parquet", "-o", "t.arrow"]);
    let whole = fs::read(place.path("t.arrow")).unwrap();
    fs::write(place.path("cut.arrow"), &whole[..whole.len() - 9]).unwrap();
    for (words, message) in [
        (
            &["raw.parquet", "-o", "o.folded"][..],
            "isc-convert: raw.parquet: a raw trace, whose spans are not nested yet",
        ),
        (
            &["raw.parquet", "-o", "o.pftrace"],
            "isc-convert: raw.parquet: a raw trace",
        ),
        (
            &["raw.parquet", "-o", "o.speedscope.json"],
            "isc-convert: raw.parquet: a raw trace",
        ),
        (
            &["raw.parquet", "--from", "1s", "-o", "o.csv"],
            "isc-convert: raw.parquet: a raw trace",
        ),
        (
            &["x.png", "-o", "o.json"],
            "isc-convert: x.png: a PNG image, not a trace",
        ),
        (
            &["k.json", "-o", "o.csv"],
            "isc-convert: k.json: JSON, not a trace\n  try: isc-merge FILE",
        ),
        (
            &["k.json", "-o", "o.json"],
            "isc-convert: k.json: JSON, not a trace\n  try: isc-merge FILE",
        ),
        (
            &["empty", "-o", "o.json"],
            "isc-convert: empty: empty, not a trace",
        ),
        (
            &["none", "-o", "o.json"],
            "isc-convert: none: cannot open: no such file",
        ),
        (
            &["cut.parquet", "-o", "o.json"],
            "isc-convert: cut.parquet: cut off",
        ),
        (
            &["cut.arrow", "-o", "o.csv"],
            "isc-convert: cut.arrow: cut off",
        ),
        (
            &["cut.arrow", "-o", "o.speedscope.json"],
            "isc-convert: cut.arrow: cut off",
        ),
        (
            &["cut.arrow", "-o", "o.parquet"],
            "isc-convert: cut.arrow: cut off",
        ),
        (
            &["t.parquet", "-o", "o.txt"],
            "isc-convert: o.txt: the name does not say which format",
        ),
        (
            &["t.parquet", "-o", "o.parquet.gz"],
            "isc-convert: o.parquet.gz: a table is not packed",
        ),
        (
            &["t.parquet", "-o", "no/o.json"],
            "isc-convert: no/o.json: cannot create: no such file",
        ),
        (
            &["t.parquet", "--where", "dur > 3", "-o", "o.csv"],
            "isc-convert: --where: dur is no column; did you mean dur_ns?",
        ),
        (
            &["t.parquet", "--where", "name >", "-o", "o.csv"],
            "isc-convert: --where: ",
        ),
        (
            &["t.parquet", "--where", "name > 3", "-o", "o.csv"],
            "isc-convert: --where: ",
        ),
        (
            &["t.parquet", "--where", "dur_ns", "-o", "o.csv"],
            "isc-convert: --where: ",
        ),
        (
            &["t.parquet", "--kind", "kernels", "-o", "o.csv"],
            "\"kernels\" is no kind; did you mean kernel?",
        ),
        (
            &["t.parquet", "--from", "2s", "--to", "1s", "-o", "o.csv"],
            "isc-convert: --to: the window ends before it begins",
        ),
        (
            &["t.parquet", "--from", "soon", "-o", "o.csv"],
            "\"soon\" is no time",
        ),
    ] {
        let said = place.refusal(words);
        assert!(said.contains(message), "{words:?}: {said}");
    }
}

#[test]
fn a_reader_that_stops_ends_it_quietly() {
    let place = Place::new();
    let mut text = String::from("track kind start end name\n");
    for row in 0..200_000 {
        text.push_str(&format!("py:main mark {row} - m{row}\n"));
    }
    raw(&place.path("raw.parquet"), &text);
    let command = format!("{CONVERT} raw.parquet --format csv | head -1; echo ${{PIPESTATUS[0]}}");
    let out = place.run("bash", &["-c", &command]);
    assert!(out.stderr.is_empty(), "{out:?}");
    assert!(
        String::from_utf8_lossy(&out.stdout).ends_with("args\n0\n"),
        "{out:?}"
    );
}

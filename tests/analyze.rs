//! A timeline made by hand, and what is said of it.

use inferscope::analyze::{self, Rules};
use inferscope::cli::{Sink, Source};
use inferscope::trace::io::{Reader, Writer};
use inferscope::trace::provenance::{Provenance, Stage, Step};
use inferscope::trace::{Event, Kind, Names};

const MS: i64 = 1_000_000;

/// Kind, name, start and duration in ms (negative: none), flow, args.
type Row<'a> = (Kind, &'a str, i64, i64, Option<u64>, &'a str);

fn analysis(stage: Stage, rows: &[Row]) -> Result<analyze::Analysis, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    let mut provenance = Provenance::raw(Step::new("test", vec![], vec![]));
    provenance.stage = stage;
    let mut writer = Writer::create(&Sink::File(path.clone()), &provenance).unwrap();
    let mut names = Names::default();
    for &(kind, name, start, dur, flow, args) in rows {
        let sym = names.sym(name);
        let mut event = Event::new(kind, sym, start * MS, 0, 7, 7);
        event.dur_ns = (dur >= 0).then_some(dur * MS);
        event.flow = flow;
        event.line = (kind == Kind::Python).then_some(1);
        event.file = Some(names.sym(if kind == Kind::Native {
            "numpy/core.so"
        } else {
            "app.py"
        }));
        event.args = (!args.is_empty()).then(|| names.sym(args));
        event.value = matches!(kind, Kind::Wait | Kind::Counter | Kind::Lost).then_some(2e6);
        event.correlation = kind
            .on_device()
            .then_some(1)
            .or((kind == Kind::Launch).then_some(1));
        writer.push(&event, &names).unwrap();
    }
    writer.finish().unwrap();
    let reader = Reader::open(&Source::File(path)).unwrap();
    analyze::run(reader, &Rules::default())
        .map_err(|error| format!("{error} / {}", error.hint().unwrap_or_default()))
}

#[test]
fn native_time_is_not_the_interpreters() {
    use Kind::*;
    let mut rows = vec![
        (
            Process,
            "app.py",
            0,
            100,
            None,
            r#"{"covered":true,"cpu_ns":90000000,"notes":["a note"]}"#,
        ),
        (Python, "main", 0, 100, None, ""),
    ];
    for step in 0..4 {
        let at = 10 + 20 * step;
        rows.push((Scope, "decode", at, 20, None, ""));
        rows.push((Python, "step", at, 20, None, ""));
        rows.push((Native, "ndarray.__matmul__", at + 1, 18, None, ""));
    }
    rows.push((Gc, "gen0", 92, 2, None, ""));
    rows.push((Wait, "blocked", 95, 5, None, ""));
    rows.push((Counter, "process.rss_bytes", 96, -1, None, ""));
    rows.push((Lost, "records", 97, -1, None, ""));
    rows.push((Thread, "main", 98, 1, None, r#"{"cpu_ns":90000000}"#));
    let a = analysis(Stage::Timeline, &rows).unwrap();
    assert_eq!(a.span_ns, 100 * MS);
    assert_eq!(
        a.breakdown.iter().map(|s| s.time_ns).sum::<i64>(),
        a.span_ns
    );
    assert_eq!(
        (a.breakdown[0].category.as_str(), a.breakdown[0].time_ns),
        ("native: numpy", 72 * MS)
    );
    assert_eq!(a.facts["imports.share"].to_string(), "0.0", "and not -0.0");
    assert_eq!(a.verdict.class, "cpu-bound");
    assert!(
        a.verdict
            .summary
            .starts_with("native code: 72 % of the time, most of it in numpy"),
        "{}",
        a.verdict.summary
    );
    let step = a.functions.iter().find(|f| f.name == "step").unwrap();
    assert_eq!(
        (step.calls, step.total_ns, step.self_ns, step.native_ns),
        (4, 80 * MS, 80 * MS, 72 * MS)
    );
    let steps: Vec<_> = a
        .steps
        .iter()
        .map(|s| (s.scope.as_str(), s.kind.as_str(), s.count, s.dur_ns_p50))
        .collect();
    assert_eq!(
        steps,
        [
            ("decode", "scope", 4, 20 * MS),
            ("step", "function", 4, 20 * MS)
        ]
    );
    assert_eq!(a.recording.lost, 2_000_000);
    assert!(a.caveats.iter().any(|c| c.contains("a note")));
    assert!(
        a.paths
            .iter()
            .any(|p| p.frames == ["main", "step", "ndarray.__matmul__"] && p.self_ns == 72 * MS)
    );
}

#[test]
fn a_task_lasts_from_its_first_segment_to_its_last_and_what_it_awaited_is_known() {
    let rows = [
        (
            Kind::Python,
            "request",
            0,
            10,
            Some(5),
            r#"{"suspended":true}"#,
        ),
        (
            Kind::Python,
            "request",
            40,
            10,
            Some(5),
            r#"{"resumed":true}"#,
        ),
    ];
    let a = analysis(Stage::Timeline, &rows).unwrap();
    assert_eq!(
        (
            a.steps[0].kind.as_str(),
            a.steps[0].count,
            a.steps[0].dur_ns_p50
        ),
        ("task", 1, 50 * MS)
    );
    assert_eq!(
        (a.functions[0].calls, a.functions[0].await_ns),
        (1, 30 * MS)
    );
    assert!(a.verdict.summary.contains("Python") || a.verdict.class == "unknown");
}

#[test]
fn device_facts_are_unions() {
    let rows = [
        (Kind::Launch, "cudaLaunchKernel", 0, 1, None, ""),
        (Kind::Kernel, "gemm", 2, 10, None, ""),
        (Kind::Kernel, "ncclAllReduce", 5, 10, None, ""),
        (Kind::Memcpy, "HtoD", 20, 5, None, ""),
    ];
    let a = analysis(Stage::Timeline, &rows).unwrap();
    let fact = |name: &str| a.facts[name].as_i64().unwrap();
    assert_eq!(
        (
            fact("gpu.span_ns"),
            fact("gpu.busy_ns"),
            fact("gpu.idle_ns")
        ),
        (23 * MS, 18 * MS, 5 * MS)
    );
    assert_eq!(
        (
            fact("kernel.count"),
            fact("kernel.sum_ns"),
            fact("gpu.comm_ns")
        ),
        (2, 20 * MS, 10 * MS)
    );
    assert_eq!(fact("launch.delay_ns_p50"), 4 * MS);
}

#[test]
fn a_raw_trace_is_sent_to_merge() {
    let message = analysis(Stage::Raw, &[]).unwrap_err();
    assert!(
        message.contains("raw trace") && message.contains("isc-merge"),
        "{message}"
    );
}

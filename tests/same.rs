//! Equal input, equal bytes: the real commands, one after the other, twice.

use std::path::Path;
use std::process::Command;

use inferscope::cli::Sink;
use inferscope::trace::{Event, Kind, Names, Provenance, Step, Writer};

/// Spans of several processes and threads, written as they end and therefore out of order.
fn recording(path: &Path) {
    let mut names = Names::default();
    let provenance = Provenance::raw(Step::new("test", vec![], vec![]));
    let mut writer = Writer::create(&Sink::from(path), &provenance).unwrap();
    for process in 0..3u32 {
        let mut event = Event::new(Kind::Process, names.sym("app"), 0, process, 70 + process, 0);
        event.dur_ns = Some(9_000_000);
        event.args = Some(names.sym(r#"{"host":"h","covered":true}"#));
        writer.push(&event, &names).unwrap();
    }
    for i in (0..9000i64).rev() {
        let (process, tid) = ((i % 3) as u32, 1 + (i % 4) as u64);
        for (kind, name, from, dur) in [
            (Kind::Native, format!("numpy.f{}", i % 40), 100, 300),
            (Kind::Python, format!("g{}", i % 90), 0, 700),
            (Kind::Scope, format!("s{}", i % 5), 0, 800),
        ] {
            let name = names.sym(&name);
            let mut event = Event::new(kind, name, i * 1000 + from, process, 70 + process, tid);
            event.dur_ns = Some(dur);
            writer.push(&event, &names).unwrap();
        }
    }
    writer.finish().unwrap();
}

fn run(program: &str, arguments: &[&str], folder: &Path) {
    let out = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(out.status.success(), "{program}: {out:?}");
    assert!(out.stderr.is_empty(), "no terminal, no progress: {out:?}");
}

#[test]
fn merge_analyze_and_report_give_equal_bytes_twice() {
    let folder = tempfile::tempdir().unwrap();
    recording(&folder.path().join("raw.parquet"));
    let merge = env!("CARGO_BIN_EXE_isc-merge");
    let analyze = env!("CARGO_BIN_EXE_isc-analyze");
    let report = env!("CARGO_BIN_EXE_isc-report");
    let outputs = |memory: &str| {
        let merged = ["raw.parquet", "--memory", memory, "-o", "t.parquet"];
        run(merge, &merged, folder.path());
        run(analyze, &["t.parquet", "-o", "a.json"], folder.path());
        for page in ["a.html", "a.md"] {
            let words = ["a.json", "--trace", "t.parquet", "-o", page];
            run(report, &words, folder.path());
        }
        ["t.parquet", "a.json", "a.html", "a.md"]
            .map(|name| std::fs::read(folder.path().join(name)).unwrap())
    };
    let first = outputs("512MiB");
    assert!(first.iter().all(|bytes| !bytes.is_empty()));
    assert!(outputs("512MiB") == first);
    assert!(outputs("1MiB") == first, "the bytes depend on the memory");
}

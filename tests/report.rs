//! isc-report as a command: pages, what they must never contain, and inputs that are no analysis.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use inferscope::analyze::{self, Rules};
use inferscope::cli::{Sink, Source};
use inferscope::trace::{Provenance, Reader, Stage, Step, Writer, text};
use serde_json::Value;
use tempfile::TempDir;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/report")
}

fn report(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_isc-report"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses its arguments does not read.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn analysis() -> Vec<u8> {
    std::fs::read(golden().join("analysis.json")).unwrap()
}

fn page(format: &str) -> String {
    let out = report(&["--format", format], &analysis());
    assert!(out.status.success(), "{out:?}");
    assert!(out.stderr.is_empty(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// What the flame graph is drawn from.
fn calls(html: &str) -> Value {
    let from = html.split("id=\"calls\">").nth(1).unwrap();
    serde_json::from_str(from.split('<').next().unwrap()).unwrap()
}

#[test]
fn the_markdown_page_is_the_golden_one() {
    let (path, found) = (golden().join("report.md"), page("markdown"));
    if std::env::var_os("ISC_BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).expect("run with ISC_BLESS=1 once");
    assert_eq!(found, wanted);
}

#[test]
fn text_from_a_trace_stays_text() {
    let html = page("html");
    assert!(html.contains("&lt;script&gt;alert("));
    assert!(
        !html.contains("<script>alert"),
        "a function's name became a script"
    );
    assert!(!html.contains("<img"));
    assert!(!html.contains("<b>bold"));
    assert!(!html.contains('\u{1b}'));
    let markdown = page("md");
    assert!(!markdown.contains('<'), "{markdown}");
    assert!(markdown.contains("a\\|b\\*.py"), "{markdown}");
    assert!(!markdown.contains("[link]("));
    assert!(!markdown.contains('\u{1b}'));
}

#[test]
fn the_page_needs_no_other_file() {
    let html = page("html");
    for outside in ["http://", "https://", "src=", "@import", "url(", "<link"] {
        let mut places = html.match_indices(outside);
        // A function's name may say what it likes, once escaped.
        assert!(
            places.all(|(at, _)| ["&lt;img ", "\\u003cimg "]
                .iter()
                .any(|name| html[..at].ends_with(name))),
            "{outside}"
        );
    }
    assert!(html.contains("default-src 'none'"));
    assert!(html.contains("id=\"flame\""));
    let calls = calls(&html);
    assert_eq!(
        calls["frames"][0][1], 3_390_000_000_i64,
        "all of the paths' time"
    );
    assert!(
        html.contains("isc-report --trace TIMELINE"),
        "how to get all calls"
    );
    assert!(html.ends_with("</html>\n"));
}

#[test]
fn equal_input_gives_equal_bytes_and_the_ending_says_the_format() {
    let folder = tempfile::tempdir().unwrap();
    for (name, start) in [
        ("a.html", "<!doctype html>"),
        ("a.md", "# cpu"),
        ("a.json", "{\n"),
    ] {
        let path = folder.path().join(name);
        let mut pages = Vec::new();
        for _ in 0..2 {
            let input = golden().join("analysis.json");
            let out = report(
                &[input.to_str().unwrap(), "-o", path.to_str().unwrap()],
                b"",
            );
            assert!(out.status.success(), "{out:?}");
            pages.push(std::fs::read_to_string(&path).unwrap());
        }
        assert!(pages[0].starts_with(start), "{}", pages[0]);
        assert_eq!(pages[0], pages[1]);
    }
    // The JSON page is an analysis again.
    let again = report(&["--format", "json"], page("json").as_bytes());
    assert_eq!(String::from_utf8(again.stdout).unwrap(), page("json"));
}

#[test]
fn what_is_no_analysis_is_refused_in_one_line() {
    let newer = String::from_utf8(analysis())
        .unwrap()
        .replace("isc-analysis/1", "isc-analysis/7");
    let cut = analysis()[..600].to_vec();
    let cases: Vec<(&[u8], &str)> = vec![
        (b"", "empty, not an analysis"),
        (b"PAR1\x15\x00", "a trace, not an analysis"),
        (b"\x89PNG\r\n\x1a\n", "not JSON, so not an analysis"),
        (b"[1, 2]", "JSON, but not an analysis"),
        (b"{\"format\": \"other/1\"}", "JSON, but not an analysis"),
        (
            b"{\"format\": \"isc-analysis/1\"}",
            "\"verdict\" is not an object",
        ),
        (
            newer.as_bytes(),
            "analysis format 7, this build reads up to 1",
        ),
        (&cut, "not JSON, so not an analysis: EOF"),
    ];
    for (input, message) in cases {
        let out = report(&[], input);
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.starts_with("isc-report: standard input: "), "{said}");
        assert!(said.contains(message), "{said}");
        let lines: Vec<&str> = said.lines().collect();
        assert!(
            lines.len() <= 2 && lines[1].starts_with("  try: "),
            "{said}"
        );
        assert!(out.stdout.is_empty());
    }
}

#[test]
fn outputs_that_cannot_be_written_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/such/a.html");
    let odd = folder.path().join("a.htlm");
    for (path, message) in [
        (missing.to_str().unwrap(), "cannot create"),
        (odd.to_str().unwrap(), "a name ending in .html, or --format"),
        (folder.path().to_str().unwrap(), "try"),
    ] {
        let out = report(&["-o", path], &analysis());
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.contains(message), "{said}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A timeline with two threads, a call that raises no event, and a scope that crossed a suspension.
const TIMELINE: &str = r#"
track      kind     start  end    name          file                  line  parent  value  args
py:main@0  process  0ms    100ms  app.py        -                     -     -       -      {"pid":7,"python":"3.12.1"}
py:main@0  thread   0ms    100ms  MainThread    -                     -     -       -      -
py:main@0  python   0ms    90ms   main          app.py                40    -       -      -
py:main@0  scope    10ms   80ms   decode_step   -                     -     2       -      -
py:main@0  python   10ms   50ms   feed_forward  app.py                10    3       -      -
py:main@0  scope    11ms   95ms   request       -                     -     -       -      {"async":true}
py:main@0  native   12ms   42ms   numpy.matmul  numpy/_core/umath.so  -     4       -      -
py:w@0     python   20ms   60ms   worker        app.py                70    -       -      -
py:main@0  wait     30ms   40ms   blocked       -                     -     -       5e6    -
py:main@0  python   50ms   80ms   feed_forward  app.py                10    3       -      -
py:main@0  native   55ms   75ms   numpy.matmul  numpy/_core/umath.so  -     9       -      -
py:main@0  gc       82ms   84ms   gen2          -                     -     2       100    -
"#;

/// A timeline and its analysis.
fn timeline(folder: &Path, name: &str, rows: &str, stage: Stage) -> (String, Option<String>) {
    let (events, names) = text::parse(rows).unwrap();
    let mut provenance = Provenance::raw(Step::new("test", vec![], vec![]));
    provenance.stage = stage;
    let path = folder.join(name);
    let mut writer = Writer::create(&Sink::from(path.as_path()), &provenance).unwrap();
    for event in &events {
        writer.push(event, &names).unwrap();
    }
    writer.finish().unwrap();
    let reader = Reader::open(&Source::from(path.as_path())).unwrap();
    let analysis = analyze::run(reader, &Rules::default())
        .ok()
        .map(|analysis| {
            let path = path.with_extension("json");
            std::fs::write(&path, serde_json::to_string(&analysis).unwrap()).unwrap();
            path.to_str().unwrap().to_owned()
        });
    (path.to_str().unwrap().to_owned(), analysis)
}

fn recorded() -> (TempDir, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let (trace, analysis) = timeline(folder.path(), "t.parquet", TIMELINE, Stage::Timeline);
    (folder, trace, analysis.unwrap())
}

#[test]
fn the_flame_graph_is_the_timelines_call_tree() {
    let (_folder, trace, analysis) = recorded();
    let out = report(&[&analysis, "--trace", &trace, "--format", "html"], b"");
    assert!(out.status.success(), "{out:?}");
    let html = String::from_utf8(out.stdout).unwrap();
    assert!(html.contains("All 8 spans of the timeline"), "{html}");
    let calls = calls(&html);
    let text = |at: &Value| {
        calls["texts"][at.as_u64().unwrap() as usize]
            .as_str()
            .unwrap()
    };
    let boxes: Vec<String> = (calls["frames"].as_array().unwrap().iter())
        .map(|f| {
            let ms = |ns: &Value| ns.as_i64().unwrap() / 1_000_000;
            let depth = f[0].as_u64().unwrap() as usize;
            let (total, own, calls) = (ms(&f[1]), ms(&f[2]), &f[3]);
            format!(
                "{}{} {total} {own} {calls} {}",
                "  ".repeat(depth),
                text(&f[5]),
                text(&f[6])
            )
        })
        .map(|line| line.trim_end().to_owned())
        .collect();
    let wanted = [
        "all 130 0 0",
        "  app.py (pid 1000) 130 0 0",
        "    MainThread (1000) 90 0 0",
        "      main 90 18 1 app.py:40",
        "        decode_step 70 0 1",
        "          feed_forward 70 20 2 app.py:10",
        "            numpy.matmul 50 50 2 numpy/_core/umath.so",
        "        gen2 2 2 1",
        "    thread 5000 40 0 0",
        "      worker 40 40 1 app.py:70",
    ];
    assert_eq!(boxes, wanted);
}

#[test]
fn markdown_has_the_heaviest_paths() {
    let (_folder, trace, analysis) = recorded();
    let out = report(&["--trace", &trace, &analysis], b"");
    let page = String::from_utf8(out.stdout).unwrap();
    let path =
        "| main › decode\\_step › feed\\_forward › numpy.matmul | native | 50.0 ms | 38.5 % |";
    assert!(page.contains(path), "{page}");
    assert_eq!(out.stderr, b"");
}

#[test]
fn equal_timelines_give_equal_pages() {
    let (_folder, trace, analysis) = recorded();
    for format in ["html", "markdown", "json"] {
        let page = || report(&[&analysis, "--trace", &trace, "--format", format], b"").stdout;
        let first = page();
        assert!(!first.is_empty());
        assert!((0..4).all(|_| page() == first), "{format}");
    }
}

#[test]
fn a_trace_that_is_not_the_analysed_timeline_is_told_in_one_line() {
    let (folder, trace, analysis) = recorded();
    let (raw, _) = timeline(folder.path(), "raw.parquet", TIMELINE, Stage::Raw);
    let fewer: Vec<&str> = TIMELINE
        .lines()
        .filter(|line| !line.contains("gen2"))
        .collect();
    let (other, _) = timeline(
        folder.path(),
        "other.parquet",
        &fewer.join("\n"),
        Stage::Timeline,
    );
    let missing = folder.path().join("no.parquet");
    for (trace, message, hint) in [
        (
            other.as_str(),
            "not the timeline of this analysis: it has 11 events in 100 ms, the analysis is of 12",
            "isc-analyze ",
        ),
        (
            &raw,
            "a raw trace, which has no call tree yet",
            "isc-merge ",
        ),
        (&analysis, "JSON, not a trace", "a trace written by"),
        (missing.to_str().unwrap(), "cannot open", ""),
    ] {
        let out = report(&[&analysis, "--trace", trace, "--format", "html"], b"");
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(
            said.starts_with(&format!("isc-report: {trace}: ")),
            "{said}"
        );
        assert!(said.contains(message), "{said}");
        assert!(said.contains(hint) && said.lines().count() <= 2, "{said}");
        assert!(out.stdout.is_empty());
    }
    let same = report(&[&analysis, "--trace", &trace], b"");
    assert!(same.status.success(), "{same:?}");
}

#[test]
fn hostile_parents_and_lengths_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let rows = r#"
track    kind    start                end                  name                        parent
py:main  python  0ns                  9223372036854775807  </script><script>alert(1)   -
py:main  python  1ns                  9223372036854775807  b                           0
py:main  python  2ns                  3ns                  c                           77
py:main  python  2ns                  3ns                  d                           -5
py:main  scope   3ns                  4ns                  e                           -
py:main  python  9223372036854775807  9223372036854775807  f                           2
"#;
    let (trace, analysis) = timeline(folder.path(), "t.arrow", rows, Stage::Timeline);
    let out = report(
        &[&analysis.unwrap(), "--trace", &trace, "--format", "html"],
        b"",
    );
    let html = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{:?}", out.stderr);
    assert!(!html.contains("<script>alert"), "{html}");
    assert_eq!(calls(&html)["frames"].as_array().unwrap().len(), 5);
}

//! isc-report as a command: pages, what they must never contain, and inputs that are no analysis.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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
            places.all(|(at, _)| html[..at].ends_with("&lt;img ")),
            "{outside}"
        );
    }
    assert!(html.contains("default-src 'none'"));
    assert!(html.contains("id=\"flame\""));
    assert!(
        html.contains("feed_forward, 1.90 s, 56.0 %"),
        "the flame graph's box"
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

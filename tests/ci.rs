//! What isc-analyze writes for continuous integration, of programs whose names would like to be more than names.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use inferscope::cli::Sink;
use inferscope::trace::io::Writer;
use inferscope::trace::provenance::{Provenance, Stage, Step};
use inferscope::trace::text;
use serde_json::Value;

/// A timeline in t.parquet: one function of this name and file has most of the time, at line 20.
fn hot(name: &str, file: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    let text = format!(
        "track    kind    start  end    name      file    line
         py:main  python  0ms    100ms  main      app.py  1
         py:main  python  10ms   95ms   {}        {}      20",
        quoted(name),
        quoted(file)
    );
    let (events, names) = text::parse(&text).unwrap();
    let mut provenance = Provenance::raw(Step::new("test", vec![], vec![]));
    provenance.stage = Stage::Timeline;
    let path = folder.path().join("t.parquet");
    let mut writer = Writer::create(&Sink::File(path), &provenance).unwrap();
    for event in &events {
        writer.push(event, &names).unwrap();
    }
    writer.finish().unwrap();
    folder
}

fn isc_analyze(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isc-analyze"))
        .args(args)
        .current_dir(folder)
        .env_remove("INFERSCOPE_RULES")
        .env_remove("INFERSCOPE_FAIL_ON")
        .output()
        .unwrap()
}

fn stdout(folder: &Path, args: &[&str]) -> String {
    let out = isc_analyze(folder, args);
    assert_ne!(
        out.status.code(),
        Some(2),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

const HOSTILE: &str = "f\"/><x y='&'>]]>\u{1b}[2J\r\n::error::50 % {0} [a](http://b)";

#[test]
fn github_gets_a_command_a_finding_and_names_stay_in_it() {
    let folder = hot("tokenize", "app.py");
    let text = stdout(
        folder.path(),
        &["t.parquet", "--format", "github", "--fail-on", "warning"],
    );
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("::warning file=app.py,line=20,title=cpu-bound-python%3A "),
        "{text}"
    );
    assert!(
        lines[0].contains("%0Aat tokenize (app.py:20)%0A- "),
        "{text}"
    );
    assert_eq!(lines[1], "::error title=--fail-on::warning holds");
    assert!(
        lines[2].starts_with("::notice title=cpu-bound (0."),
        "{text}"
    );
    assert_eq!(lines.len(), 3);

    let folder = hot(HOSTILE, "a,b:c%\n.py");
    let text = stdout(folder.path(), &["t.parquet", "--format", "github"]);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().all(|line| line.starts_with("::")), "{text}");
    assert!(
        text.starts_with("::warning file=a%2Cb%3Ac%25 .py,line=20,title="),
        "{text}"
    );
    assert!(!text.contains('\u{1b}') && !text.contains('\r'));
    // a command's end is the first :: that is no part of a property
    let (head, _) = text[2..].split_once("::").unwrap();
    assert!(
        !head.contains(':') && head.matches(',').count() == 2,
        "{head}"
    );
}

/// What Python's parser makes of a document: a line a test case, its class, name, and the messages of what is in it.
const READ: &str = r#"
import sys, xml.etree.ElementTree as ET
root = ET.parse(sys.argv[1]).getroot()
suite = root.find("testsuite")
cases = suite.findall("testcase")
assert root.tag == "testsuites" and int(suite.get("tests")) == len(cases)
assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
assert int(suite.get("skipped")) == len(suite.findall("testcase/skipped"))
for case in cases:
    inside = ["|".join([part.tag, part.get("message"), part.text or ""]) for part in case]
    print(case.get("classname"), case.get("name"), *(part.replace("\n", " / ") for part in inside))
"#;

fn junit(folder: &Path, fail_on: &[&str]) -> String {
    let mut args = vec!["t.parquet", "--format", "junit", "-o", "isc.xml"];
    args.extend(fail_on.iter().flat_map(|word| ["--fail-on", word]));
    isc_analyze(folder, &args);
    let mut python = Command::new("python3");
    let read = python
        .args(["-c", READ, "isc.xml"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        read.status.success(),
        "{}",
        String::from_utf8_lossy(&read.stderr)
    );
    String::from_utf8(read.stdout).unwrap()
}

#[test]
fn junit_has_a_case_for_each_rule_and_each_condition() {
    let folder = hot("tokenize", "app.py");
    let said = junit(
        folder.path(),
        &["critical", "python.share > 0.5", "kernel.count > 1.0"],
    );
    for line in [
        "isc-analyze.rules gc-pressure",
        "isc-analyze.rules cpu-bound-python failure|The Python",
        "isc-analyze.fail-on critical",
        "isc-analyze.fail-on python.share > 0.5 failure|the condition holds|",
        "isc-analyze.fail-on kernel.count > 1.0 skipped|--fail-on 'kernel.count > 1.0' does not hold",
    ] {
        assert!(
            said.lines().any(|said| said.starts_with(line)),
            "{line} in\n{said}"
        );
    }
    // a rule about what this timeline does not have is no test that passed
    let rule = "- id: kernels\n  title: t\n  severity: info\n  when: kernel.count > 1.0\n  where: w\n  suggestion: s\n";
    fs::write(folder.path().join("ours.yaml"), rule).unwrap();
    let args = ["t.parquet", "--format", "junit", "--rules", "ours.yaml"];
    assert!(!stdout(folder.path(), &args).contains("kernels"));

    let folder = hot(HOSTILE, "<app>.py");
    let said = junit(
        folder.path(),
        &["python.top.share > 0.0 && '<&\"]]>' != ''"],
    );
    assert!(said.contains("<x y='&'>]]>\\u{1b}[2J"), "{said}");
    assert!(
        said.contains("python.top.share > 0.0 && '<&\"]]>' != ''"),
        "{said}"
    );
}

/// What SARIF 2.1.0 requires of what is here (its schema is not at hand offline), and that indices and ids agree.
fn checked(log: &Value) -> &Value {
    assert_eq!(log["version"], "2.1.0");
    assert!(log["$schema"].as_str().unwrap().contains("sarif"));
    let [run] = &log["runs"].as_array().unwrap()[..] else {
        panic!("one run: {log}");
    };
    let driver = &run["tool"]["driver"];
    assert!(driver["name"].is_string());
    let rules = driver["rules"].as_array().unwrap();
    let levels = ["none", "note", "warning", "error"];
    let is_level = |level: &Value| levels.iter().any(|known| level == *known);
    for rule in rules {
        assert!(rule["id"].is_string() && is_level(&rule["defaultConfiguration"]["level"]));
        for text in ["shortDescription", "fullDescription", "help"] {
            assert!(!rule[text]["text"].as_str().unwrap().is_empty(), "{rule}");
        }
    }
    for result in run["results"].as_array().unwrap() {
        let at = result["ruleIndex"].as_u64().unwrap() as usize;
        assert_eq!(result["ruleId"], rules[at]["id"]);
        assert!(is_level(&result["level"]));
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        for location in result["locations"].as_array().into_iter().flatten() {
            let physical = &location["physicalLocation"];
            let uri = physical["artifactLocation"]["uri"].as_str().unwrap();
            assert!(
                uri.bytes()
                    .all(|b| b.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&b)),
                "{uri}"
            );
            assert!(physical["region"]["startLine"].as_u64().unwrap() >= 1);
        }
    }
    for invocation in run["invocations"].as_array().unwrap() {
        assert!(invocation["executionSuccessful"].is_boolean());
        for told in invocation["toolExecutionNotifications"].as_array().unwrap() {
            assert!(told["message"]["text"].is_string());
        }
    }
    run
}

#[test]
fn sarif_has_what_the_standard_requires() {
    let folder = hot("tokenize", "src/app.py");
    let args = ["t.parquet", "--format", "sarif", "--fail-on", "warning"];
    let log: Value = serde_json::from_str(&stdout(folder.path(), &args)).unwrap();
    let run = checked(&log);
    let result = &run["results"][0];
    assert_eq!(
        (&result["ruleId"], &result["level"]),
        (&"cpu-bound-python".into(), &"warning".into())
    );
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "src/app.py");
    assert_eq!(place["region"]["startLine"], 20);
    assert_eq!(run["invocations"][0]["exitCode"], 1);

    let folder = hot(HOSTILE, "/srv/a {b}<c>:d.py");
    let log: Value = serde_json::from_str(&stdout(folder.path(), &args[..3])).unwrap();
    let run = checked(&log);
    let result = &run["results"][0];
    let uri = &result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
    assert_eq!(uri, "file:///srv/a%20%7Bb%7D%3Cc%3E%3Ad.py");
    let message = result["message"]["text"].as_str().unwrap();
    assert!(
        message.contains("\\[a\\](http://b)") && message.contains("{{0}}"),
        "{message}"
    );
    assert_eq!(run["invocations"][0]["exitCode"], 0);
}

#[test]
fn a_file_below_the_current_folder_is_named_from_it_on() {
    let folder = tempfile::tempdir().unwrap();
    let here = fs::canonicalize(folder.path()).unwrap();
    let made = hot("tokenize", here.join("src/app.py").to_str().unwrap());
    fs::copy(made.path().join("t.parquet"), here.join("t.parquet")).unwrap();
    let text = stdout(&here, &["t.parquet", "--format", "github"]);
    assert!(
        text.starts_with("::warning file=src/app.py,line=20,"),
        "{text}"
    );
}

#[test]
fn a_file_gets_json_unless_another_format_is_asked_for() {
    let folder = hot("tokenize", "app.py");
    let at = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    let json = stdout(folder.path(), &["t.parquet", "--json"]);
    assert_eq!(
        json,
        stdout(folder.path(), &["t.parquet", "--format", "json"])
    );
    stdout(folder.path(), &["t.parquet", "-o", "a"]);
    assert_eq!(at("a"), json);
    stdout(folder.path(), &["t.parquet", "-o", "a", "--format", "text"]);
    assert_eq!(at("a"), stdout(folder.path(), &["t.parquet"]));
    let both = isc_analyze(folder.path(), &["t.parquet", "--json", "--format", "text"]);
    assert_eq!(both.status.code(), Some(2));
    for format in ["github", "junit", "sarif"] {
        let args = ["t.parquet", "--format", format];
        assert_eq!(
            stdout(folder.path(), &args),
            stdout(folder.path(), &args),
            "the same bytes"
        );
    }
}

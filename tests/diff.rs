//! What isc-diff says of two timelines made by hand, and of real pairs.

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::repository;
use inferscope::analyze::{self, Analysis, Rules};
use inferscope::cli::Sink;
use inferscope::diff::{self, Change, Diff};
use inferscope::trace::io::Writer;
use inferscope::trace::provenance::{Provenance, Stage, Step};
use inferscope::trace::text;
use serde_json::Value;

/// A program that decodes: one import, then so many steps in which it tokenizes for `tokenize` µs and infers for 5 ms, each
/// a little longer or shorter.
fn decoding(steps: i64, tokenize: i64) -> String {
    let mut rows = String::new();
    let mut at = 60_000;
    for step in 0..steps {
        let jitter = step * 7919 % 100; // µs
        let (begin, between) = (at + 100, at + 100 + tokenize + jitter);
        let end = between + 5000 + jitter;
        let _ = write!(
            rows,
            "py:main scope  {at}us {end}us decode - -
             py:main python {begin}us {between}us tokenize app.py 41
             py:main python {between}us {end}us infer app.py 60\n",
        );
        at = end + 50;
    }
    format!(
        "track kind start end name file line
         py:main python 0us {at}us main app.py 1
         py:main python 0us 50000us _find_and_load \"<frozen importlib._bootstrap>\" 1
         {rows}"
    )
}

fn analysis(text: &str) -> Analysis {
    let reader = text::reader(text, Stage::Timeline).unwrap();
    analyze::run(reader, &Rules::built_in().unwrap()).unwrap()
}

fn diff(a: &str, b: &str) -> Diff {
    diff::compare(&analysis(a), &analysis(b))
}

#[test]
fn a_slower_step_is_told_with_how_sure_that_is_and_what_made_it() {
    let diff = diff(&decoding(120, 1000), &decoding(118, 3100));
    let step = &diff.steps[0];
    assert_eq!(
        (step.scope.as_str(), step.kind.as_str()),
        ("decode", "scope")
    );
    let (low, high) = (step.ratio_low.unwrap(), step.ratio_high.unwrap());
    let ratio = step.ratio.unwrap();
    assert!(
        1.3 < low && low <= ratio && ratio <= high && high < 1.4,
        "{step:?}"
    );
    assert!(step.significant && step.change == Change::Slower);
    assert_eq!(
        (diff.verdict.class.as_str(), diff.unit.as_str()),
        ("slower", "step")
    );
    let said = &diff.verdict.summary;
    assert!(said.starts_with("B is 1.3"), "{said}");
    assert!(said.contains(" times slower per `decode` (1.3"), "{said}");
    assert!(
        said.contains(", 120 and 118 steps): most of it `tokenize` (+2.10 ms a step, 100 %)"),
        "{said}"
    );
    let tokenize = &diff.functions[0];
    assert_eq!(
        (tokenize.name.as_str(), tokenize.change),
        ("tokenize", Change::Slower)
    );
    assert!(
        (tokenize.change_ns - 2_100_000).abs() < 2000,
        "{tokenize:?}"
    );
    assert_eq!(tokenize.b.unwrap().calls, 118);
    // the import took as long in both, whatever that is per step
    assert!(diff.functions.iter().all(|f| f.name != "_find_and_load"));
    assert!(
        diff.functions
            .iter()
            .skip(1)
            .all(|f| f.change == Change::Same),
        "{:?}",
        diff.functions
    );
    let shares: f64 = diff.functions.iter().map(|f| f.share).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    assert_eq!(
        (diff.breakdown[0].cause.as_str(), diff.breakdown.len()),
        ("python", 2)
    );
    assert!(diff.facts.contains_key("wall.ns") && !diff.facts.contains_key("process.count"));
}

#[test]
fn the_other_way_round_it_is_faster() {
    let diff = diff(&decoding(118, 3100), &decoding(120, 1000));
    let said = &diff.verdict.summary;
    assert!(
        said.starts_with("B is 1.3") && said.contains("times faster per `decode`"),
        "{said}"
    );
    assert!(said.contains("`tokenize` (-2.10 ms a step"), "{said}");
    assert_eq!(diff.functions[0].change, Change::Faster);
}

#[test]
fn equal_timelines_have_not_changed() {
    for text in [
        decoding(50, 1000),
        decoding(2, 1000),
        "track kind start end name".into(),
    ] {
        let diff = diff(&text, &text);
        assert!(
            diff.functions.is_empty() && diff.facts.is_empty(),
            "{diff:?}"
        );
        assert!(
            diff.steps
                .iter()
                .all(|step| !step.significant && step.ratio == Some(1.0))
        );
        assert_eq!(diff.findings, diff::Findings::default());
        let changes = diff
            .breakdown
            .iter()
            .chain(&diff.gaps)
            .map(|cause| cause.change_ns);
        assert_eq!(changes.sum::<i64>(), 0);
    }
    let said = diff(&decoding(50, 1000), &decoding(50, 1000))
        .verdict
        .summary;
    assert!(
        said.starts_with("no change per `decode`: B takes 1.00 times as long (0.99"),
        "{said}"
    );
}

#[test]
fn what_two_runs_differ_by_is_no_change_and_runs_of_other_length_are_compared_by_step() {
    let diff = diff(&decoding(40, 1000), &decoding(200, 1010));
    assert_eq!(diff.verdict.class, "same", "{}", diff.verdict.summary);
    assert!(
        diff.functions.iter().all(|f| f.change == Change::Same),
        "{:?}",
        diff.functions
    );
    let import = diff
        .breakdown
        .iter()
        .find(|cause| cause.cause == "import")
        .unwrap();
    assert_eq!(import.change_ns, 0);
    assert!(
        diff.caveats
            .iter()
            .any(|c| c.starts_with("A has 40 steps and B 200"))
    );
}

#[test]
fn too_few_steps_say_nothing() {
    let diff = diff(&decoding(5, 1000), &decoding(80, 3000));
    let step = &diff.steps[0];
    assert_eq!((step.ratio_low, step.change), (None, Change::Unknown));
    assert!(step.ratio.unwrap() > 1.2 && !step.significant);
    assert_eq!(diff.verdict.class, "unknown");
    assert!(
        diff.verdict.summary.contains("5 and 80 steps are too few"),
        "{}",
        diff.verdict.summary
    );
}

#[test]
fn without_a_step_in_both_whole_runs_are_compared_and_nothing_is_said_to_be_sure() {
    let run = |name: &str, ms: i64| {
        format!(
            "track kind start end name file line
             py:main python 0ms {}ms main app.py 1
             py:main python 1ms {ms}ms {name} app.py 9",
            ms + 1
        )
    };
    let diff = diff(&run("old", 100), &run("new", 150));
    assert_eq!(
        (diff.unit.as_str(), diff.verdict.class.as_str()),
        ("run", "unknown")
    );
    let said = &diff.verdict.summary;
    assert!(
        said.contains("1.50 times slower") && said.contains("no step is in both"),
        "{said}"
    );
    assert!(said.ends_with("`new` (+149 ms a run, 60 %)"), "{said}");
    let changed = diff.functions.iter().filter(|f| f.change != Change::Same);
    let changes: Vec<_> = changed.map(|f| (&*f.name, f.change)).collect();
    assert_eq!(changes, [("new", Change::Added), ("old", Change::Removed)]);
    assert!(diff.functions[0].a.is_none() && diff.functions[1].b.is_none());
}

#[test]
fn an_idle_thread_has_no_share_of_a_slower_run() {
    let with_worker = |text: String, us: i64| {
        let (head, rows) = text.split_once('\n').unwrap();
        let (main, rows) = rows.split_once('\n').unwrap();
        format!(
            "{head}\n{main}
             py:w python 0us {us}us work lib/pool.py 3
             py:w native 10us {us}us SimpleQueue.get python -\n{rows}"
        )
    };
    let a = with_worker(decoding(60, 1000), 420_000);
    let b = with_worker(decoding(60, 3000), 540_000);
    let diff = diff(&a, &b);
    let queue = diff
        .functions
        .iter()
        .find(|f| f.name == "SimpleQueue.get")
        .unwrap();
    assert!(
        queue.change_ns > 1_900_000 && queue.share == 0.0,
        "{queue:?}"
    );
    assert!(
        diff.verdict.summary.contains("most of it `tokenize`"),
        "{}",
        diff.verdict.summary
    );
}

#[test]
fn a_change_in_many_functions_is_named_after_the_one_that_calls_them() {
    let run = |us: i64| {
        let mut rows = String::from(
            "track kind start end name file line\npy:main python 0us 500000us main app.py 1\n",
        );
        for step in 0..20 {
            let at = 1000 + step * 20_000;
            let end = at + 5000 + 6 * us;
            let _ = write!(
                rows,
                "py:main scope {at}us {}us step - -
                 py:main python {at}us {end}us parse app.py 20\n",
                end + 1000
            );
            for part in 0..6 {
                let (from, to) = (at + part * us, at + (part + 1) * us);
                let _ = writeln!(
                    rows,
                    "py:main python {from}us {to}us part{part} app.py {}",
                    30 + part
                );
            }
        }
        rows
    };
    let said = diff(&run(100), &run(900)).verdict.summary;
    assert!(
        said.ends_with("most of it `parse` (+4.80 ms a step, 100 %), with what it calls"),
        "{said}"
    );
}

#[test]
fn where_the_path_waits_longer_the_thread_that_made_it_is_named_too() {
    let run = |us: i64| {
        let mut rows = String::from("track kind start end name file line\n");
        let _ = writeln!(rows, "py:main python 0us 400000us main app.py 1");
        for step in 0..20 {
            let at = 1000 + step * 15_000;
            let _ = write!(
                rows,
                "py:main scope {at}us {}us step - -
                 py:main python {at}us {}us infer app.py 20
                 py:w python {}us {}us load app.py 30
                 py:main native {}us {}us lock.acquire python -\n",
                at + 7010 + us,
                at + 7000,
                at + 1,
                at + 7000 + us,
                at + 7000,
                at + 7005 + us
            );
        }
        rows
    };
    let diff = diff(&run(100), &run(2100));
    let said = &diff.verdict.summary;
    assert!(
        said.contains("most of it `lock.acquire` (+2.00 ms a step"),
        "{said}"
    );
    assert!(
        said.ends_with("; in another thread `load` (+2.00 ms a step)"),
        "{said}"
    );
}

#[test]
fn what_the_budget_left_out_has_not_changed_within_its_error() {
    let run = |us: i64, error: i64| {
        // half of the calls of tokenize were not seen, give or take `error`
        let estimate = format!(
            "py:main throttled 60000us 400000us tokenize app.py 41 60 \
             {{\"calls_low\":{},\"calls_high\":{}}}\n",
            60 - error,
            60 + error
        );
        let text = decoding(60, us).replacen("file line", "file line value args", 1);
        let (head, rows) = text.split_once("py:main scope").unwrap();
        format!("{head}{estimate}py:main scope{rows}")
    };
    let sure = diff(&run(1000, 0), &run(1500, 0));
    let tokenize = sure
        .functions
        .iter()
        .find(|f| f.name == "tokenize")
        .unwrap();
    assert_eq!(
        (tokenize.change, tokenize.b.unwrap().calls),
        (Change::Slower, 120)
    );
    let unsure = diff(&run(1000, 59), &run(1500, 59));
    let tokenize = unsure
        .functions
        .iter()
        .find(|f| f.name == "tokenize")
        .unwrap();
    assert!(
        tokenize.error_ns() >= tokenize.change_ns && tokenize.change_ns > 0,
        "{tokenize:?}"
    );
    assert_eq!(tokenize.change, Change::Same);
    let said = &unsure.verdict.summary;
    assert!(
        said.contains("most of it is within the error of estimates, `tokenize` for one"),
        "{said}"
    );
}

#[test]
fn why_the_device_waits_is_compared_by_cause() {
    let serving = |late: i64| {
        let mut rows = String::from("track kind start end name correlation\n");
        for step in 0..20 {
            let at = step * 1000;
            let _ = write!(
                rows,
                "py:main  scope  {at}us {}us step -
                 py:main  launch {}us {}us cudaLaunchKernel {}
                 cuda:0/7 kernel {}us {}us gemm {}\n",
                at + 900,
                at + late,
                at + late + 10,
                step + 1,
                at + late + 10,
                at + late + 300,
                step + 1,
            );
        }
        rows
    };
    let diff = diff(&serving(100), &serving(100));
    assert_eq!(diff.gaps.iter().map(|gap| gap.change_ns).sum::<i64>(), 0);
    let short = serving(100).replace("cuda:0/7 kernel", "cuda:0/7 memcpy");
    let diff = self::diff(&serving(100), &short);
    assert!(diff.facts.contains_key("gpu.memcpy_ns"));
    assert!(
        diff.gaps
            .iter()
            .any(|gap| gap.cause == "host" && gap.a_ns > 0)
    );
}

fn write(folder: &Path, name: &str, text: &str, stage: Stage) {
    let (events, names) = text::parse(text).unwrap();
    let mut provenance = Provenance::raw(Step::new("test", vec![], vec![]));
    provenance.stage = stage;
    let mut writer = Writer::create(&Sink::File(folder.join(name)), &provenance).unwrap();
    for event in &events {
        writer.push(event, &names).unwrap();
    }
    writer.finish().unwrap();
}

fn isc_diff(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isc-diff"));
    command.args(args).current_dir(folder).output().unwrap()
}

/// A folder with a.parquet and b.parquet, in which tokenize takes three times as long.
fn pair() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "a.parquet",
        &decoding(60, 1000),
        Stage::Timeline,
    );
    write(
        folder.path(),
        "b.parquet",
        &decoding(60, 3000),
        Stage::Timeline,
    );
    folder
}

#[test]
fn fail_on_takes_expressions_over_the_diff() {
    let folder = pair();
    for (expression, wanted) in [
        ("step.ratio_low > 1.05", 1),
        ("step.ratio_low > 2.0", 0),
        ("step.significant && step.ratio > 1.1", 1),
        ("step.change_ns > 1000000.0 && step.a_count == 60.0", 1),
        ("functions[\"tokenize\"].change_ns > 1900000.0", 1),
        ("functions[\"tokenize\"].change == 'slower'", 1),
        ("functions[\"infer\"].change == 'slower'", 0),
        ("functions[\"none\"].change_ns > 0.0", 0),
        ("functions.exists(f, functions[f].share > 0.5)", 1),
        ("breakdown['python'].change_ns > 0.0", 1),
        ("\"host\" in gaps", 0),
        ("'decode' in steps && steps['decode'].ratio_high < 2.0", 1),
        ("run.ratio > 1.1", 1),
        ("b.python.share > a.python.share", 1),
        ("!has(a.gpu.span_ns)", 1),
    ] {
        let out = isc_diff(
            folder.path(),
            &["a.parquet", "b.parquet", "--fail-on", expression],
        );
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(wanted), "{expression}: {said}");
        assert!(
            said.is_empty() && !out.stdout.is_empty(),
            "{expression}: {said}"
        );
    }
    let both = [
        "a.parquet",
        "b.parquet",
        "--fail-on",
        "step.ratio > 9.0",
        "--fail-on",
        "true",
    ];
    assert_eq!(
        isc_diff(folder.path(), &both).status.code(),
        Some(1),
        "any of them"
    );
    let absent = ["a.parquet", "b.parquet", "--fail-on", "b.gpu.span_ns > 1.0"];
    let out = isc_diff(folder.path(), &absent);
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&out.stderr),
        "isc-diff: --fail-on 'b.gpu.span_ns > 1.0' does not hold: there is no b.gpu.span_ns\n"
    );
}

#[test]
fn what_cannot_be_compared_gets_one_line_and_status_2() {
    let folder = pair();
    let at = |name: &str| folder.path().join(name);
    write(folder.path(), "raw.parquet", &decoding(3, 1000), Stage::Raw);
    let whole = fs::read(at("b.parquet")).unwrap();
    fs::write(at("cut.parquet"), &whole[..whole.len() / 2]).unwrap();
    for (args, wanted) in [
        (
            &["a.parquet", "none.parquet"][..],
            "none.parquet: cannot open: no such file or directory",
        ),
        (&["raw.parquet", "b.parquet"], "raw.parquet: a raw trace"),
        (&["a.parquet", "cut.parquet"], "cut.parquet: "),
        (&["-", "-"], "standard input: cannot be both timelines"),
        (
            &["a.parquet", "b.parquet", "--fail-on", "step.ratio_lo > 1.0"],
            "--fail-on 'step.ratio_lo > 1.0': step.ratio_lo is no fact; did you mean step.ratio_low?",
        ),
        (
            &["a.parquet", "b.parquet", "--fail-on", "b.gc.shar > 1.0"],
            "--fail-on 'b.gc.shar > 1.0': b.gc.shar is no fact; did you mean b.gc.share?",
        ),
        (
            &[
                "a.parquet",
                "b.parquet",
                "--fail-on",
                "functions['f'].chang == ''",
            ],
            "--fail-on 'functions['f'].chang == ''': an entry of functions has no chang; did you mean change?",
        ),
        (
            &["a.parquet", "b.parquet", "--fail-on", "step.ratio"],
            "--fail-on 'step.ratio': gives ",
        ),
        (
            &["a.parquet", "b.parquet", "--fail-on", "step.ratio >"],
            "--fail-on 'step.ratio >': ",
        ),
    ] {
        let mut with_output = args.to_vec();
        with_output.extend(["-o", "diff.json"]);
        let out = isc_diff(folder.path(), &with_output);
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(said.starts_with(&format!("isc-diff: {wanted}")), "{said}");
        assert_eq!(
            said.lines()
                .filter(|line| !line.starts_with("  try: "))
                .count(),
            1,
            "{said}"
        );
        assert!(!at("diff.json").exists(), "{args:?} left a file");
    }
}

#[test]
fn the_page_is_narrow_and_the_bytes_are_the_same_each_time() {
    let folder = pair();
    for args in [
        &["a.parquet", "b.parquet"][..],
        &["a.parquet", "b.parquet", "--json"],
    ] {
        let first = isc_diff(folder.path(), args);
        assert!(first.status.success());
        assert!(isc_diff(folder.path(), args).stdout == first.stdout);
        let text = String::from_utf8(first.stdout).unwrap();
        assert!(!text.contains('\u{1b}'), "colours without a terminal");
        if args.len() == 2 {
            assert!(text.starts_with("slower: B is 1.3"), "{text}");
            assert!(
                text.lines().all(|line| line.chars().count() <= 80),
                "{text}"
            );
            for head in [
                "\nSteps",
                "\nWhere it changed, per step",
                "\nFunctions by own time, per step",
            ] {
                assert!(text.contains(head), "{text}");
            }
        }
    }
}

#[test]
fn names_of_a_program_drive_no_terminal() {
    let hostile = decoding(20, 3000).replace("tokenize", "\"\\u001b[2Jtok`enize\"");
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        "a.parquet",
        &decoding(20, 1000),
        Stage::Timeline,
    );
    write(folder.path(), "b.parquet", &hostile, Stage::Timeline);
    let out = isc_diff(folder.path(), &["a.parquet", "b.parquet"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(
        text.contains("\\u{1b}[2Jtok") && !text.contains('\u{1b}'),
        "{text}"
    );
}

/// The first block of JSON in the document.
fn example() -> Value {
    let text = fs::read_to_string(repository("formats/diff-v1.md")).unwrap();
    let (_, after) = text.split_once("```json\n").unwrap();
    serde_json::from_str(after.split_once("```").unwrap().0).unwrap()
}

#[test]
fn the_document_s_example_and_what_is_written_are_as_the_schema_says() {
    let diff: Diff = serde_json::from_value(example()).unwrap();
    assert_eq!(
        serde_json::to_value(&diff).unwrap(),
        example(),
        "no key more, and none less"
    );
    let document = fs::read_to_string(repository("formats/diff-v1.md")).unwrap();
    for name in diff::condition::NAMES {
        assert!(document.contains(name), "{name} is not in the document");
    }

    let folder = pair();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("example.json"), example().to_string()).unwrap();
    let other = "track kind start end name\npy:main python 0ms 9ms other";
    write(folder.path(), "other.parquet", other, Stage::Timeline);
    for (b, name) in [
        ("b.parquet", "slower.json"),
        ("other.parquet", "run.json"),
        ("a.parquet", "same.json"),
    ] {
        let out = isc_diff(folder.path(), &["a.parquet", b, "-o", name]);
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    let packages = ["python3", "tables", "duckdb", "polars", "jsonschema"]; // as tests/tables.rs has it
    let venv = Command::new(repository("scripts/venv.sh"))
        .args(packages)
        .output()
        .unwrap();
    assert!(
        venv.status.success(),
        "{}",
        String::from_utf8_lossy(&venv.stderr)
    );
    let python = String::from_utf8(venv.stdout).unwrap();
    let check = "import json, sys, jsonschema\n\
                 schema, *files = (json.load(open(path, encoding='utf-8')) for path in sys.argv[1:])\n\
                 jsonschema.Draft202012Validator.check_schema(schema)\n\
                 for file in files: jsonschema.Draft202012Validator(schema).validate(file)\n\
                 print(len(files), 'valid')";
    let out = Command::new(python.trim())
        .args(["-c", check])
        .arg(repository("formats/diff-v1.schema.json"))
        .args(["example.json", "slower.json", "run.json", "same.json"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "4 valid\n", "{said}");
}

/// The timeline of a shared trace; says by name what is skipped.
fn shared(folder: &Path, name: &str) -> Option<PathBuf> {
    let trace = repository("../shared/traces").join(format!("{name}.json.gz"));
    if !trace.exists() {
        eprintln!("skipped: {name}: no ../shared/traces");
        return None;
    }
    let timeline = folder.join(format!("{name}.parquet"));
    let merged = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
        .args([&trace, Path::new("-o"), &timeline])
        .output()
        .unwrap();
    assert!(
        merged.status.success(),
        "{}",
        String::from_utf8_lossy(&merged.stderr)
    );
    Some(timeline)
}

#[test]
fn real_pairs_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let compared = |a: &str, b: &str| -> Option<Value> {
        let (a, b) = (shared(folder.path(), a)?, shared(folder.path(), b)?);
        let args = [a.to_str().unwrap(), b.to_str().unwrap(), "--json"];
        let out = isc_diff(folder.path(), &args);
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        Some(serde_json::from_slice(&out.stdout).unwrap())
    };
    // One model on two makes of GPU: its scopes and functions are found in both.
    if let Some(diff) = compared("tl_h100_qwen05b", "tl_mi300_qwen05b") {
        let steps = diff["steps"].as_array().unwrap();
        assert!(
            steps.iter().any(|step| step["scope"] == "ProfilerStep#6"),
            "{steps:?}"
        );
        assert!(
            steps.iter().any(|step| step["significant"] == true),
            "{steps:?}"
        );
        assert_eq!(diff["unit"], "step");
    }
    // Training with no worker and with four, who load data while the step computes: the device waits for the host less.
    if let Some(diff) = compared(
        "kineto_v100_resnet50_workers0",
        "kineto_v100_resnet50_workers4",
    ) {
        let gaps = diff["gaps"].as_array().unwrap();
        let changes = gaps.iter().map(|gap| gap["change_ns"].as_i64().unwrap());
        assert!(changes.sum::<i64>() < -20_000_000, "{gaps:?}");
        let said = diff["verdict"]["summary"].as_str().unwrap();
        assert!(said.contains("_SingleProcessDataLoaderIter"), "{said}");
        let busy = &diff["facts"]["gpu.busy.share"];
        assert!(
            busy["b"].as_f64().unwrap() > busy["a"].as_f64().unwrap() + 0.1,
            "{busy}"
        );
        let step = &diff["steps"][0];
        assert_eq!(step["kind"], "repetition", "{step}");
        assert!(step["ratio"].as_f64().unwrap() < 0.9, "{step}");
    }
}

//! What the rules find in small timelines, and what isc-analyze does with rules that are wrong.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use inferscope::analyze::{self, Analysis, Rules};
use inferscope::cli::{Sink, Source};
use inferscope::trace::io::{Reader, Writer};
use inferscope::trace::provenance::{Provenance, Stage, Step};
use inferscope::trace::text;

/// Half a second of interpreter, native code, imports and a little of the rest: nothing to complain of.
const HEALTHY: &str = "
    track    kind    start  end    name            file                            line  value  args
    py:main  process 0ms    500ms  app.py          -                               -     -      {\"covered\":true,\"cpu_ns\":490000000}
    py:main  python  20ms   500ms  main            app.py                          1
    py:main  python  20ms   80ms   _find_and_load  \"<frozen importlib._bootstrap>\" 1
    py:main  python  100ms  200ms  load            app.py                          10
    py:main  native  110ms  180ms  json.loads      lib-dynload/_json.so
    py:main  python  200ms  300ms  tokenize        app.py                          20
    py:main  native  250ms  290ms  re.findall      python
    py:main  python  300ms  400ms  infer           app.py                          30
    py:main  native  310ms  390ms  numpy.matmul    numpy/core.so
    py:main  gc      395ms  399ms  gen0            -                               -     10
    py:main  python  400ms  490ms  write           app.py                          40
    py:main  native  410ms  440ms  time.sleep      python";

/// One function's bytecode takes nearly all of the time.
const INTERPRETED: &str = "
    track    kind    start  end    name      file    line
    py:main  python  0ms    100ms  main      app.py  1
    py:main  python  10ms   95ms   tokenize  app.py  20
    py:main  native  20ms   25ms   re.match  python";

/// One native call takes nearly all of the time, in several calls of one function.
const NATIVE: &str = "
    track    kind    start  end    name                  file                 line
    py:main  python  0ms    100ms  main                  app.py               1
    py:main  python  10ms   90ms   decode                app.py               30
    py:main  native  12ms   50ms   InferenceSession.run  onnxruntime/capi.so
    py:main  native  51ms   88ms   InferenceSession.run  onnxruntime/capi.so";

/// Two seconds of imports before a moment of work.
const IMPORTS: &str = "
    track    kind    start   end     name            file                            line
    py:main  python  100ms   2100ms  main            app.py                          1
    py:main  python  100ms   1900ms  _find_and_load  \"<frozen importlib._bootstrap>\" 1
    py:main  python  1900ms  2100ms  work            app.py                          30";

/// Twelve collections, a fifth of the time.
fn collections() -> String {
    let mut text = String::from(
        "track    kind    start  end    name  file    line
         py:main  python  0ms    120ms  main  app.py  1\n",
    );
    for at in 0..12 {
        let start = at * 10;
        text.push_str(&format!("py:main gc {start}ms {}ms gen2\n", start + 2));
    }
    text
}

/// A thread that waits for a lock most of the time.
const LOCKED: &str = "
    track    kind    start  end    name          file    line
    py:main  python  0ms    100ms  main          app.py  1
    py:main  native  10ms   90ms   lock.acquire  python";

/// Ready to run, and no processor: the kernel's word for it.
const CROWDED: &str = "
    track    kind    start  end    name      file           line  value
    py:main  python  0ms    100ms  main      app.py         1
    py:main  native  0ms    30ms   numpy.a   numpy/core.so
    py:main  native  30ms   60ms   numpy.b   numpy/core.so
    py:main  wait    0ms    100ms  runnable  -              -     40000000";

/// Three threads that run Python in turn, or wait: `waits` is a row's name, `ms` its value, `file` where they wait.
fn together(waits: &str, ms: i64, file: &str) -> String {
    let mut text = String::from("track kind start end name file line value args\n");
    for worker in 0..3 {
        text += &format!("py:w{worker} python 0ms 100ms work app.py 1\n");
    }
    for worker in 0..3 {
        text += &format!("py:w{worker} python 2ms 98ms section {file} 9\n");
    }
    for worker in 0..3 {
        let holder = 5000 + (worker + 1) % 3;
        text += &format!(
            "py:w{worker} wait 5ms 95ms {waits} - - {ms}000000 {{\"error_ns\":0,\"holder\":{holder}}}\n"
        );
    }
    text
}

/// An event loop's turn of 100 ms that polls for `poll` ms, and 1 ms later runs a task that sleeps for `sleep` ms.
fn turn(poll: i64, sleep: i64) -> String {
    let (turn, task) = (poll + 1, poll + 2);
    let (slept, end) = (task + 1 + sleep, task + 2 + sleep);
    format!(
        "track    kind    start     end      name                     file                    line  flow
         py:main  python  0ms       100ms    BaseEventLoop._run_once  asyncio/base_events.py  1     -
         py:main  python  0ms       {turn}ms EpollSelector.select     selectors.py            2     -
         py:main  native  0ms       {poll}ms select.epoll.poll        select.so               -     -
         py:main  python  {turn}ms  {end}ms  Handle._run              asyncio/events.py       3     -
         py:main  python  {task}ms  {end}ms  serve                    app.py                  4     7
         py:main  native  {}ms      {slept}ms  time.sleep             python                  -     7",
        task + 1
    )
}

fn analysis(text: &str, rules: &Rules) -> Analysis {
    analyze::run(text::reader(text, Stage::Timeline).unwrap(), rules).unwrap()
}

fn found(text: &str) -> Vec<String> {
    let analysis = analysis(text, &Rules::built_in().unwrap());
    (analysis.findings.iter())
        .map(|finding| finding.id.clone())
        .collect()
}

#[test]
fn each_rule_finds_its_own_case_and_nothing_else_does() {
    assert_eq!(found(INTERPRETED), ["cpu-bound-python"]);
    assert_eq!(found(NATIVE), ["native-hot-spot"]);
    assert_eq!(found(IMPORTS), ["startup-dominates"]);
    let collecting = found(&collections());
    assert!(collecting.contains(&"gc-pressure".into()), "{collecting:?}");
    assert_eq!(found(LOCKED), ["waiting"]);
    assert_eq!(found(CROWDED), ["too-few-cpus"]);
}

#[test]
fn waits_have_rules_by_what_for() {
    assert_eq!(found(&together("gil", 60, "app.py")), ["gil-contention"]);
    assert_eq!(found(&together("gil", 10, "app.py")), ["cpu-bound-python"]);
    assert_eq!(found(&together("lock", 60, "app.py")), ["lock-convoy"]);
    // in a condition they wait to be told, not for each other
    assert_eq!(
        found(&together("lock", 60, "lib/threading.py")),
        ["waiting"]
    );
    assert_eq!(found(&together("io", 60, "app.py")), ["blocking-io"]);
    assert_eq!(found(&together("io", 20, "app.py")), ["cpu-bound-python"]);
    assert_eq!(found(&turn(20, 60)), ["blocking-io"]);
    assert_eq!(found(&turn(88, 5)), ["idle-no-work"]);
    let idle = analysis(&turn(88, 5), &Rules::built_in().unwrap());
    assert!(
        idle.verdict.summary.starts_with("idle"),
        "{}",
        idle.verdict.summary
    );
    let loops = analysis(&turn(20, 60), &Rules::built_in().unwrap());
    assert_eq!(loops.facts["eventloop.ready_ns_p50"], 1_000_000);
    assert_eq!(loops.findings[0].place, "serve (app.py:4)");
}

#[test]
fn a_loop_of_the_program_s_own_waits_for_work_and_a_library_s_poll_for_an_answer() {
    let polls = |name: &str, file: &str| {
        format!(
            "track    kind    start  end    name                  file          line
             py:main  python  0ms    100ms  {name}                {file}        1
             py:main  python  2ms    95ms   EpollSelector.select  selectors.py  2
             py:main  native  2ms    95ms   select.epoll.poll     select.so     -"
        )
    };
    assert_eq!(found(&polls("serve", "app.py")), ["idle-no-work"]);
    let urllib3 = "/usr/lib/python3/site-packages/urllib3/util/wait.py";
    let library = polls("poll_wait_for_socket", urllib3);
    assert_eq!(found(&library), ["blocking-io"]);
}

#[test]
fn callbacks_that_compute_for_long_are_named() {
    let busy = |ms: i64| {
        let mut text = String::from("track kind start end name file line flow\n");
        for at in 0..5 {
            let (start, end) = (at * 200, at * 200 + ms);
            text += &format!(
                "py:main python {start}ms {end}ms serve app.py 4 {}\n",
                at + 1
            );
            text += &format!(
                "py:main python {}ms {}ms tokenize app.py 9 {}\n",
                start + 1,
                end - 1,
                at + 1
            );
        }
        analysis(&text, &Rules::built_in().unwrap())
    };
    let of = |analysis: &Analysis| {
        let all = analysis.findings.iter();
        let found = all.filter(|finding| finding.id == "slow-callback");
        found
            .map(|finding| finding.place.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&busy(150)), ["tokenize (app.py:9)"]);
    assert!(of(&busy(90)).is_empty());

    // Among many short ones, 40 ms are long.
    let beside = |short: i64| {
        let mut text = String::from("track kind start end name file line flow\n");
        for turn in 0..5 {
            let start = turn * 200;
            text += &format!(
                "py:main python {start}ms {}ms plan app.py 4 {}\n",
                start + 40,
                turn + 1
            );
            for at in 0..short {
                let from = start + 45 + 2 * at;
                let flow = 100 + turn * short + at;
                text += &format!(
                    "py:main python {from}ms {}ms answer app.py 9 {flow}\n",
                    from + 1
                );
            }
        }
        analysis(&text, &Rules::built_in().unwrap())
    };
    assert_eq!(of(&beside(30)), ["plan (app.py:4)"]);
    assert_eq!(beside(30).facts["eventloop.slow.mean_ns"], 40_000_000);
    assert!(
        of(&beside(8)).is_empty(),
        "one in nine is what the loop does"
    );
}

/// Steps of 10 ms from `load_ms` on, to 1 s.
fn loaded(name: &str, load_ms: i64) -> String {
    let mut text = format!(
        "track    kind    start  end         name    file    line
         py:main  python  0ms    1000ms      main    app.py  1
         py:main  python  10ms   {load_ms}ms {name}  app.py  5\n"
    );
    for start in (load_ms..990).step_by(10) {
        let end = start + 9;
        text += &format!("py:main python {start}ms {end}ms answer app.py 9\n");
        text += &format!("py:main native {start}ms {end}ms matmul numpy/core.so -\n");
    }
    text
}

#[test]
fn what_is_made_ready_before_the_work_is_startup() {
    let of = |text: &str| {
        let found = analysis(text, &Rules::built_in().unwrap());
        let found = found
            .findings
            .into_iter()
            .filter(|f| f.id == "startup-dominates");
        found.map(|f| f.place).collect::<Vec<_>>()
    };
    assert_eq!(
        of(&loaded("Index.__init__", 600)),
        ["Index.__init__ (app.py:5)"]
    );
    assert_eq!(of(&loaded("load_model", 600)), ["load_model (app.py:5)"]);
    assert!(
        of(&loaded("tokenize", 600)).is_empty(),
        "a phase of the work"
    );
    assert!(of(&loaded("load_model", 200)).is_empty());
}

#[test]
fn statements_one_by_one_are_batches_taken_apart() {
    // `part` of the functions' time is that of one that asks once a step.
    let with = |per_step: i64, part: i64| {
        let mut text = String::from(
            "track    kind    start  end     name  file    line
             py:main  python  0ms    1000ms  main  app.py  1\n",
        );
        for step in 0..10 {
            let start = step * 100;
            text += &format!(
                "py:main python {start}ms {}ms answer app.py 5\n",
                start + 99
            );
            if part > 0 {
                let (start, end) = (start + 99 - part, start + 99);
                text += &format!(
                    "py:main python {start}ms {end}ms all app.py 14
                     py:main native {start}ms {end}ms sqlite3.Connection.execute _sqlite3.so -\n"
                );
            }
            for at in 0..per_step {
                let start = start + 3 * at;
                text += &format!(
                    "py:main python {start}ms {}ms customer app.py 9\n",
                    start + 3
                );
                // the call site is dropped after a few
                if step == 0 {
                    let name = "sqlite3.Connection.execute";
                    text += &format!(
                        "py:main native {start}ms {}ms {name} _sqlite3.so -\n",
                        start + 1
                    );
                }
            }
        }
        analysis(&text, &Rules::built_in().unwrap())
    };
    let of = |per_step| with(per_step, 0);
    let many = of(30);
    assert_eq!(many.facts["query.count"], 300);
    assert_eq!(many.facts["query.per_step"], 30.0);
    let found = many.findings.iter().find(|f| f.id == "small-batches");
    assert_eq!(found.unwrap().place, "customer (app.py:9)");
    let few = of(5);
    assert!(few.findings.iter().all(|f| f.id != "small-batches"));
    // One statement for all is none of those that are asked one by one, however long it takes.
    let at_once = with(5, 80);
    assert_eq!(at_once.facts["query.count"], 50);
    assert_eq!(at_once.facts["query.time_ns"], 150_000_000);
    assert!(at_once.findings.iter().all(|f| f.id != "small-batches"));
}

#[test]
fn what_the_interpreter_copies_is_copying() {
    let mut text = String::from(
        "track    kind    start  end     name    file    line  value
         py:main  python  0ms    1000ms  frames  app.py  5     -\n",
    );
    for at in 1..100 {
        let (name, file) = match at % 2 {
            0 => ("memcpy", "libc.so.6"),
            _ => ("python", "python"),
        };
        text += &format!("py:main sample {}ms - {name} {file} - 10000000\n", at * 10);
    }
    let of = |text: &str| analysis(text, &Rules::built_in().unwrap());
    let copied = of(&text);
    assert_eq!(copied.facts["host.copy.time_ns"], 490_000_000);
    let found = copied.findings.iter().find(|f| f.id == "host-copies");
    assert_eq!(found.unwrap().place, "frames (app.py:5)");
    let other = of(&text.replace("memcpy", "libc.so.6"));
    assert_eq!(other.facts["host.copy.time_ns"], 0);
}

#[test]
fn memory_that_is_given_back_is_no_growth_but_may_be_many_faults() {
    // a step of 10 ms takes 90 MB and gives them back; the kernel works for a third of the time
    let mut text = String::from(
        "track    kind    start  end     name  file    line  value
         py:main  python  0ms    1000ms  main  app.py  1     -\n",
    );
    for at in 0..100 {
        let start = at * 10;
        text += &format!(
            "py:main python {start}ms {}ms step app.py 5 -\n",
            start + 10
        );
        let (least, most) = (100_000_000, 190_000_000);
        let rows = [
            ("process.rss_bytes", start + 2, most),
            (
                "process.rss_bytes",
                start + 8,
                if at == 99 { most } else { least },
            ),
            ("process.minor_faults", start + 8, 30_000 + at * 300),
            ("process.system_ns", start + 8, at * 3_300_000),
        ];
        for (name, time, value) in rows {
            text += &format!("py:main counter {time}ms - {name} - - {value}\n");
        }
    }
    let all = analysis(&text, &Rules::built_in().unwrap());
    assert_eq!(all.facts["memory.growth_bytes"], 0);
    let share = all.facts["fault.share"].as_f64().unwrap();
    assert!((share - 0.33).abs() < 0.02, "{share}");
    assert!(
        all.findings.iter().any(|f| f.id == "page-faults"),
        "{:?}",
        all.findings
    );
    let flat = analysis(
        &text.replace("190000000", "100000000"),
        &Rules::built_in().unwrap(),
    );
    assert!(flat.facts["fault.share"].as_f64().unwrap() < 0.02);
}

#[test]
fn who_has_the_gil_is_named() {
    let analysis = analysis(&together("gil", 60, "app.py"), &Rules::built_in().unwrap());
    assert!(
        analysis.findings[0].place.starts_with("section (app.py:9)"),
        "{}",
        analysis.findings[0].place
    );
}

/// Four threads that have a processor half of the time, on a machine with `cpus`; `work` is what each of them does.
fn four(work: impl Fn(u32) -> String, cpus: u32) -> Analysis {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::from("track kind start end name file line value args\n");
    for worker in 0..4 {
        text += &format!("py:w{worker} python 0ms 100ms {} app.py 1\n", work(worker));
    }
    for worker in 0..4 {
        text += &format!("py:w{worker} wait 0ms 100ms runnable - - 50000000\n");
    }
    for worker in 0..4 {
        text += &format!("py:w{worker} counter 100ms - thread.cpu_ns - - 50000000\n");
    }
    let (events, names) = text::parse(&text).unwrap();
    let mut provenance = Provenance::raw(Step::new("test", vec![], vec![]));
    provenance.stage = Stage::Timeline;
    provenance.machine = serde_json::json!({"cpus": cpus});
    let path = folder.path().join("four.parquet");
    let mut writer = Writer::create(&Sink::File(path.clone()), &provenance).unwrap();
    for event in &events {
        writer.push(event, &names).unwrap();
    }
    writer.finish().unwrap();
    let reader = Reader::open(&Source::from(path.as_path())).unwrap();
    analyze::run(reader, &Rules::built_in().unwrap()).unwrap()
}

#[test]
fn too_many_threads_are_told_from_too_few_processors() {
    for (cpus, id) in [(2, "thread-oversubscription"), (8, "too-few-cpus")] {
        let analysis = four(|_| "work".into(), cpus);
        let ids = analysis.findings.iter().map(|finding| &*finding.id);
        let other = ["thread-oversubscription", "too-few-cpus"];
        let told: Vec<_> = ids.filter(|id| other.contains(id)).collect();
        assert_eq!(told, [id], "{cpus}");
    }
}

#[test]
fn workers_of_one_pool_are_no_claim_and_threads_that_do_something_else_are() {
    let told = |work: fn(u32) -> String| {
        let analysis = four(work, 2);
        let mut findings = analysis.findings.iter();
        let of = findings.find(|finding| finding.id == "thread-oversubscription");
        let peers = analysis.facts["threads.peers"].as_f64().unwrap();
        (peers, of.unwrap().confidence)
    };
    assert_eq!(told(|_| "work".into()), (3.0, 0.45));
    assert_eq!(told(|worker| format!("work{worker}")), (0.0, 0.9));
}

#[test]
fn each_instant_is_in_one_category_whatever_is_waited_for() {
    for text in [
        together("gil", 60, "app.py"),
        together("lock", 200, "app.py"), // more than there is
        turn(20, 60),
        LOCKED.to_owned(),
        CROWDED.to_owned(),
    ] {
        let analysis = analysis(&text, &Rules::built_in().unwrap());
        let sum: i64 = analysis.breakdown.iter().map(|share| share.time_ns).sum();
        assert_eq!(sum, analysis.span_ns, "{:?}", analysis.breakdown);
    }
}

#[test]
fn a_healthy_program_is_left_alone() {
    assert_eq!(found(HEALTHY), Vec::<String>::new());
    assert_eq!(found("track kind start end name"), Vec::<String>::new());
}

#[test]
fn the_verdict_names_native_code_where_that_is_the_time() {
    let summary = |text: &str| analysis(text, &Rules::built_in().unwrap()).verdict.summary;
    let native = summary(NATIVE);
    assert!(native.contains("onnxruntime"), "{native}");
    assert!(!native.contains("CPU-bound Python"), "{native}");
    let python = summary(INTERPRETED);
    assert!(python.contains("CPU-bound Python"), "{python}");
    assert!(summary(LOCKED).starts_with("waiting"));
}

#[test]
fn a_finding_says_where_how_much_and_which_rows_show_it() {
    let analysis = analysis(NATIVE, &Rules::built_in().unwrap());
    let finding = &analysis.findings[0];
    assert!(finding.place.contains("onnxruntime/capi.so"));
    let evidence = &finding.evidence[0];
    assert_eq!(evidence.text, "75.0 ms in 2 calls of InferenceSession.run");
    assert_eq!(evidence.rows, [2], "the longest of its calls");
    let gain = finding.gain.as_ref().unwrap();
    assert!(gain.low <= gain.speedup && gain.speedup <= gain.high);
    assert!(1.0 <= gain.low);
}

/// Four workers at once do more work than the clock has time: no gain follows from that sum.
#[test]
fn gains_stay_possible_when_many_threads_do_the_same() {
    for kind in ["python", "native"] {
        let mut text = String::from("track kind start end name file line\n");
        for worker in 0..4 {
            text.push_str(&format!("py:w{worker} python 0ms 100ms work app.py 1\n"));
            if kind == "native" {
                text.push_str(&format!(
                    "py:w{worker} native 1ms 99ms numpy.dot numpy/a.so\n"
                ));
            }
        }
        // A timeline is sorted by time.
        let (head, rows) = text.split_once('\n').unwrap();
        let mut rows: Vec<&str> = rows.lines().collect();
        rows.sort_by_key(|row| !row.contains(" 0ms "));
        let text = format!("{head}\n{}", rows.join("\n"));
        let analysis = analysis(&text, &Rules::built_in().unwrap());
        assert!(!analysis.findings.is_empty(), "{kind}");
        for finding in &analysis.findings {
            if let Some(gain) = &finding.gain {
                assert!(
                    1.0 <= gain.low && gain.low <= gain.speedup && gain.speedup <= gain.high,
                    "{}: {gain:?}",
                    finding.id
                );
            }
        }
    }
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

fn isc_analyze(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isc-analyze"))
        .args(args)
        .current_dir(folder)
        .env_remove("INFERSCOPE_RULES")
        .env_remove("INFERSCOPE_FAIL_ON")
        .output()
        .unwrap()
}

/// The first line on stderr, and the status, which is not 0.
fn fault(folder: &Path, args: &[&str]) -> (String, Option<i32>) {
    let out = isc_analyze(folder, args);
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(out.stdout.is_empty(), "{stderr}");
    let lines = stderr.lines().filter(|line| !line.starts_with("  try: "));
    assert_eq!(lines.count(), 1, "{stderr}");
    (stderr, out.status.code())
}

const RULE: &str = "
- id: ours
  title: Ours
  severity: warning
  when: native.share > 0.5
  where: here
  suggestion: do something
";

#[test]
fn rules_of_the_user_come_beside_the_built_in_ones_or_replace_them() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ours.yaml"), RULE).unwrap();
    let silent = RULE
        .replace("id: ours", "id: native-hot-spot")
        .replace("0.5", "2.0");
    fs::write(folder.path().join("silent.yaml"), silent).unwrap();
    write(folder.path(), "t.parquet", NATIVE, Stage::Timeline);
    let args = [
        "t.parquet",
        "--json",
        "--rules",
        "ours.yaml",
        "--rules",
        "silent.yaml",
    ];
    let out = isc_analyze(folder.path(), &args);
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let ids: Vec<_> = (json["findings"].as_array().unwrap().iter())
        .map(|finding| finding["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["ours"]);
}

#[test]
fn every_number_fact_can_stand_in_a_condition() {
    for fact in analyze::rules::FACTS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.yaml");
        let rule = RULE.replace("native.share > 0.5", &format!("{fact} >= 0.0"));
        fs::write(&path, rule).unwrap();
        let mut rules = Rules::built_in().unwrap();
        rules
            .read(&path)
            .unwrap_or_else(|error| panic!("{fact}: {error}"));
        analysis(NATIVE, &rules);
    }
}

#[test]
fn a_wrong_rule_file_gets_one_line_that_says_what_and_where() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "t.parquet", NATIVE, Stage::Timeline);
    for (old, new, wanted) in [
        ("severity: warning", "sevrity: warning", "sevrity"),
        (
            "severity: warning",
            "severity: warn",
            "warn is none of info, warning, critical",
        ),
        ("native.share", "native.shar", "did you mean native.share?"),
        ("native.share > 0.5", "native.share >", "when"),
        ("native.share > 0.5", "native.share", "true or false"),
        ("native.share > 0.5", "native.share * 2 > 0.5", "write 2.0"),
        (
            "title: Ours",
            "title: \"{native.top.nam}\"",
            "did you mean native.top.name?",
        ),
        ("  where: here\n", "", "where"),
        ("- id: ours", "- id: [", "line"),
    ] {
        let text = RULE.replace(old, new);
        assert_ne!(text, RULE);
        fs::write(folder.path().join("bad.yaml"), text).unwrap();
        let (line, status) = fault(folder.path(), &["t.parquet", "--rules", "bad.yaml"]);
        assert_eq!(status, Some(2));
        assert!(line.starts_with("isc-analyze: bad.yaml"), "{line}");
        assert!(line.contains(wanted), "{line}");
    }
    let (line, status) = fault(folder.path(), &["t.parquet", "--rules", "none.yaml"]);
    assert_eq!(status, Some(2));
    assert!(line.contains("none.yaml: cannot read"), "{line}");
    fs::write(
        folder.path().join("image.yaml"),
        b"\x89PNG\r\n\x1a\n\xff\xfe",
    )
    .unwrap();
    let (line, _) = fault(folder.path(), &["t.parquet", "--rules", "image.yaml"]);
    assert!(line.contains("image.yaml"), "{line}");
}

#[test]
fn fail_on_ends_with_1_where_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "t.parquet", NATIVE, Stage::Timeline);
    write(folder.path(), "healthy.parquet", HEALTHY, Stage::Timeline);
    for (trace, word, wanted) in [
        ("t.parquet", "native-hot-spot", 1),
        ("t.parquet", "gc-pressure", 0),
        ("t.parquet", "info", 1),
        ("t.parquet", "critical", 0),
        ("healthy.parquet", "info", 0),
    ] {
        let out = isc_analyze(folder.path(), &[trace, "--fail-on", word]);
        assert_eq!(out.status.code(), Some(wanted), "{trace} {word}");
        assert!(!out.stdout.is_empty());
    }
    let (line, status) = fault(folder.path(), &["t.parquet", "--fail-on", "gc-presure"]);
    assert_eq!(status, Some(2));
    assert!(
        line.contains("gc-presure") && line.contains("--fail-on gc-pressure"),
        "{line}"
    );
}

#[test]
fn fail_on_takes_expressions_over_facts_and_findings() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "t.parquet", NATIVE, Stage::Timeline);
    for (expression, wanted) in [
        ("native.share > 0.5", 1),
        ("native.share < 0.5", 0),
        ("native.share > 0.5 && gc.share > 0.05", 0),
        ("native.share > 0.5 || gc.share > 0.05", 1),
        (r#""native-hot-spot" in findings"#, 1),
        (r#"findings["native-hot-spot"].confidence > 0.4"#, 1),
        (r#"findings["native-hot-spot"].speedup > 90.0"#, 0),
        (
            r#""gc-pressure" in findings && findings["gc-pressure"].confidence > 0.8"#,
            0,
        ),
        (r#"findings["gc-pressure"].confidence > 0.0"#, 0), // it is not there
        (
            r#"findings.exists(id, findings[id].severity == "warning")"#,
            1,
        ),
        ("size(findings) > 0", 1),
        ("!has(kernel.count)", 1),
    ] {
        let out = isc_analyze(folder.path(), &["t.parquet", "--fail-on", expression]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(wanted), "{expression}: {said}");
        assert!(
            said.is_empty() && !out.stdout.is_empty(),
            "{expression}: {said}"
        );
    }
    // any of several
    let several = [
        "t.parquet",
        "--fail-on",
        "gc-pressure",
        "--fail-on",
        "native.share > 0.5",
    ];
    assert_eq!(isc_analyze(folder.path(), &several).status.code(), Some(1));
    // what this timeline does not have is told, in one line each, and does not hold
    let absent = [
        "t.parquet",
        "--fail-on",
        "kernel.count < 5.0",
        "--fail-on",
        "gc.share > 0.5",
    ];
    let out = isc_analyze(folder.path(), &absent);
    assert_eq!(out.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&out.stderr),
        "isc-analyze: --fail-on 'kernel.count < 5.0' does not hold: this timeline has no kernel.count\n"
    );
}

#[test]
fn a_condition_from_the_settings_may_be_an_expression_too() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "t.parquet", NATIVE, Stage::Timeline);
    let settings =
        "analyze:\n  fail_on: findings.exists(id, id.startsWith('native')) && native.share > 0.5\n";
    fs::write(folder.path().join(".inferscope.yaml"), settings).unwrap();
    assert_eq!(
        isc_analyze(folder.path(), &["t.parquet"]).status.code(),
        Some(1)
    );
    let flag = ["t.parquet", "--fail-on", "gc-pressure"];
    assert_eq!(
        isc_analyze(folder.path(), &flag).status.code(),
        Some(0),
        "the flag goes before"
    );
}

#[test]
fn a_wrong_expression_gets_one_line_with_what_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "t.parquet", NATIVE, Stage::Timeline);
    for (expression, wanted) in [
        (
            "native.shar > 0.5",
            "native.shar is no fact; did you mean native.share?",
        ),
        (
            "gc.share > 0.5 || has(gpu.bsy_ns)",
            "gpu.bsy_ns is no fact; did you mean gpu.busy_ns?",
        ),
        (
            r#""gc-presure" in findings"#,
            "gc-presure is never in findings; did you mean gc-pressure?",
        ),
        (
            r#"findings["gc-pressure"].sverity == """#,
            "has no sverity; did you mean severity?",
        ),
        (
            r#"finding["gc-pressure"].confidence > 0.5"#,
            "finding is no fact; did you mean findings?",
        ),
        ("native.share >", "--fail-on 'native.share >': "),
        ("native.share + 1.0", "not true or false"),
        ("native.share * 2 > 0.5", "write 2.0"),
    ] {
        let args = ["t.parquet", "--fail-on", expression, "-o", "a.json"];
        let out = isc_analyze(folder.path(), &args);
        let stderr = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("isc-analyze: --fail-on '"), "{stderr}");
        assert!(stderr.contains(wanted), "{stderr}");
        assert!(!folder.path().join("a.json").exists());
    }
}

#[test]
fn what_if_about_gaps_needs_a_device() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "t.parquet", HEALTHY, Stage::Timeline);
    let (line, status) = fault(folder.path(), &["t.parquet", "--what-if", "gaps:launch=0"]);
    assert_eq!(status, Some(2));
    assert!(
        line.contains("none works here") && line.contains("NAME=0.1x"),
        "{line}"
    );
}

#[test]
fn the_same_timeline_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let collections = collections();
    for text in [HEALTHY, NATIVE, &collections] {
        write(folder.path(), "t.parquet", text, Stage::Timeline);
        for args in [&["t.parquet"][..], &["t.parquet", "--json"]] {
            let first = isc_analyze(folder.path(), args).stdout;
            for _ in 0..5 {
                assert!(isc_analyze(folder.path(), args).stdout == first);
            }
            let text = String::from_utf8(first).unwrap();
            assert!(!text.contains('\u{1b}'), "colours without a terminal");
            if args.len() == 1 {
                assert!(text.lines().all(|line| line.chars().count() <= 120));
            }
        }
    }
}

#[test]
fn what_is_no_timeline_gets_one_line_and_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(folder.path(), "raw.parquet", NATIVE, Stage::Raw);
    write(folder.path(), "whole.arrow", NATIVE, Stage::Timeline);
    let whole = fs::read(at("whole.arrow")).unwrap();
    fs::write(at("cut.arrow"), &whole[..whole.len() / 2]).unwrap();
    fs::write(at("empty"), b"").unwrap();
    fs::write(at("image.png"), b"\x89PNG\r\n\x1a\n0000").unwrap();
    fs::create_dir(at("folder")).unwrap();
    for (name, wanted) in [
        ("raw.parquet", "isc-merge"),
        ("cut.arrow", "cut.arrow"),
        ("empty", "empty, not a trace"),
        ("image.png", "a PNG image, not a trace"),
        ("folder", "a directory, not a trace"),
        ("none", "no such file"),
    ] {
        let (line, status) = fault(folder.path(), &[name, "-o", "a.json"]);
        assert_eq!(status, Some(2), "{line}");
        assert!(line.contains(wanted), "{line}");
        assert!(!at("a.json").exists(), "{name} left a file");
    }
}

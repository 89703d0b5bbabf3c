//! Why devices wait, what a change would gain, and what is said of a part of a timeline: small timelines made by hand, and
//! what is known of real traces.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::repository;
use inferscope::analyze::{self, Analysis, Rules};
use inferscope::cli::Sink;
use inferscope::trace::io::Writer;
use inferscope::trace::provenance::{Provenance, Stage, Step};
use inferscope::trace::text;
use serde_json::Value;

fn analysis(text: &str) -> Analysis {
    let reader = text::reader(text, Stage::Timeline).unwrap();
    analyze::run(reader, &Rules::built_in().unwrap()).unwrap()
}

/// Idle time of all devices by cause, in µs, and what is to blame.
fn gaps(a: &Analysis) -> BTreeMap<&str, (i64, Option<&str>)> {
    let all = a.gaps.iter().filter(|gap| gap.device == "all");
    let gaps = all.map(|gap| {
        let place = gap.place.as_deref();
        (gap.cause.as_str(), (gap.time_ns / 1000, place))
    });
    gaps.collect()
}

fn adds_up(a: &Analysis) {
    let all = a.gaps.iter().filter(|gap| gap.device == "all");
    let sum: i64 = all.map(|gap| gap.time_ns).sum();
    assert_eq!(sum, a.facts["gpu.idle_ns"].as_i64().unwrap());
    let path: i64 = a.breakdown.iter().map(|share| share.time_ns).sum();
    assert_eq!(path, a.span_ns);
}

/// One gap for each cause; the last number of a kernel's name is its launch.
const CAUSES: &str = "
    track      kind      start    end      name                   file       line  correlation  value
    py:main    process   0us      9000us   app.py                 -          -     -            -
    py:main    python    0us      9000us   main                   app.py     1     -            -
    py:main    launch    10us     14us     cudaLaunchKernel       -          -     1            -
    cuda:0/7   kernel    20us     100us    k1                     -          -     1            -
    py:main    python    50us     300us    tokenize               app.py     20    -            -
    py:main    python    60us     90us     lower                  app.py     30    -            -
    py:main    launch    310us    320us    cudaLaunchKernel       -          -     2            -
    cuda:0/7   kernel    325us    400us    k2                     -          -     2            -
    py:main    api       350us    410us    cudaStreamSynchronize  -          -     -            -
    py:main    api       415us    435us    cudaMalloc             -          -     -            -
    py:main    launch    440us    470us    cudaMemcpyAsync        -          -     3            -
    cuda:0/7   memcpy    460us    480us    \"Memcpy HtoD (Pageable -> Device)\" - - 3        -
    py:main    native    500us    900us    time.sleep             python     -     -            -
    py:main    native    910us    1310us   socket.recv            _socket.so -     -            -
    py:main    gc        1320us   1420us   gen2                   -          -     -            -
    py:main    launch    1430us   1435us   cudaLaunchKernel       -          -     4            -
    cuda:0/7   kernel    1440us   1500us   k4                     -          -     4            -
    py:main    python    1510us   1900us   _find_and_load         \"<frozen importlib._bootstrap>\" 1 - -
    py:main    wait      1920us   2120us   gil                    -          -     -            200000
    py:main    launch    2130us   2135us   cudaLaunchKernel       -          -     5            -
    cuda:0/7   kernel    2140us   2200us   k5                     -          -     5            -
    cuda:0/7   kernel    2210us   2300us   k6                     -          -     99           -";

#[test]
fn each_moment_of_a_gap_has_the_cause_that_the_launching_thread_was_in() {
    let a = analysis(CAUSES);
    adds_up(&a);
    let gaps = gaps(&a);
    let ns = |cause: &str| gaps.get(cause).map_or(0, |(us, _)| *us);
    // 100 to 300, in tokenize, of which `lower` is a part; the launch, with 10 µs before it, until 320; 5 to its start
    assert_eq!(gaps["preprocessing"], (200, Some("tokenize (app.py:20)")));
    assert_eq!(gaps["sync"].0, 10, "400 to 410");
    assert_eq!(ns("driver"), 20);
    assert_eq!(ns("copy"), 20, "440 to 460, in the call that copies");
    assert_eq!(gaps["sleep"].0, 400);
    assert_eq!(ns("io"), 400);
    assert_eq!(ns("gc"), 100);
    assert_eq!(ns("import"), 390);
    assert_eq!(ns("gil"), 200);
    assert_eq!(ns("unknown"), 10, "its launch is not there");
    assert_eq!(ns("queued"), 5 + 5 + 5);
    let launch = 20 + 5 + 5 + 20 + 10 + 10 + 15 + 10 + 20 + 15;
    assert_eq!(ns("launch"), launch, "what is short between two launches");
    let sum: i64 = gaps.values().map(|(us, _)| us).sum();
    assert_eq!(sum, a.facts["gpu.idle_ns"].as_i64().unwrap() / 1000);
}

#[test]
fn a_wait_for_another_thread_is_that_thread_s_work() {
    let text = |waits: &str| {
        format!(
            "
    track      kind      start    end      name              file        line  correlation
    py:main    process   0us      9000us   app.py            -           -     -
    py:main    python    0us      9000us   main              app.py      1     -
    py:2       python    0us      9000us   prepare           app.py      50    -
    py:main    launch    10us     14us     cudaLaunchKernel  -           -     1
    cuda:0/7   kernel    20us     100us    k1                -           -     1
    {waits}
    py:main    launch    1110us   1114us   cudaLaunchKernel  -           -     2
    cuda:0/7   kernel    1120us   1200us   k2                -           -     2"
        )
    };
    let get = "
    py:main    python    90us     1105us   Queue.get         /lib/queue.py  9  -
    py:2       python    95us     900us    tokenize          app.py      20    -
    py:main    native    100us    1100us   lock.acquire      python      -     -
    py:2       native    905us    1100us   time.sleep        python      -     -";
    let waiting = analysis(&text(get));
    adds_up(&waiting);
    let found = gaps(&waiting);
    assert_eq!(found["preprocessing"].1, Some("tokenize (app.py:20)"));
    // 800 in tokenize, 5 in prepare; then the other thread sleeps, and nobody asks for anything; 5 at the end of Queue.get
    assert_eq!((found["preprocessing"].0, found["idle"].0), (810, 195));
}

#[test]
fn launched_work_that_does_not_begin_is_told_as_what_the_host_waits_in() {
    let a = analysis(
        "
    track      kind      start    end      name              file        line  correlation
    py:main    process   0us      9000us   engine.py         -           -     -
    py:main    python    0us      9000us   step              engine.py   1     -
    py:main    launch    10us     14us     hipLaunchKernel   -           -     1
    cuda:0/7   kernel    20us     100us    k1                -           -     1
    py:main    launch    30us     35us     hipLaunchKernel   -           -     2
    py:main    python    40us     8110us   populate          engine.py   40    -
    py:main    api       50us     8100us   hipMemcpyWithStream  -        -     -
    cuda:0/7   kernel    8050us   8120us   k2                -           -     2",
    );
    adds_up(&a);
    let found = gaps(&a);
    assert_eq!(found["copy"], (7950, Some("populate (engine.py:40)")));
    assert_eq!(a.facts["gap.stalled.time_ns"], 7_950_000);
    assert_eq!(a.verdict.class, "unknown");
    assert!(a.verdict.confidence < 0.5, "{}", a.verdict.confidence);
    assert!(a.findings.is_empty(), "{:?}", a.findings);
}

/// Steps of a program that tokenizes for 3 ms, then launches 4 kernels of 1 ms each, and waits for them.
fn steps(count: i64) -> String {
    let mut text = "track kind start end name file line correlation\n".to_owned();
    text += &format!("py:main process 0us {}us app.py\n", count * 8000 + 1000);
    text += &format!("py:main python 0us {}us main app.py 1\n", count * 8000);
    for step in 0..count {
        let at = step * 8000;
        let mut row =
            |track: &str, kind: &str, from: i64, to: i64, name: &str, line: &str, id: i64| {
                let id = if id == 0 {
                    "-".to_owned()
                } else {
                    (step * 10 + id).to_string()
                };
                text += &format!(
                    "{track} {kind} {}us {}us {name} app.py {line} {id}\n",
                    at + from,
                    at + to
                );
            };
        row("py:main", "scope", 0, 7150, "step", "-", 0);
        row("py:main", "python", 10, 3010, "tokenize", "20", 0);
        for kernel in 0..4 {
            row(
                "py:main",
                "launch",
                3020 + kernel * 20,
                3025 + kernel * 20,
                "cudaLaunchKernel",
                "-",
                kernel + 1,
            );
        }
        for kernel in 0..4 {
            row(
                "cuda:0/7",
                "kernel",
                3030 + kernel * 1001,
                4030 + kernel * 1001,
                "gemm",
                "-",
                kernel + 1,
            );
        }
        row(
            "py:main",
            "api",
            3110,
            7040,
            "cudaStreamSynchronize",
            "-",
            0,
        );
    }
    let mut lines: Vec<&str> = text.lines().collect();
    let start = |line: &str| {
        line.split(' ')
            .nth(2)
            .unwrap()
            .trim_end_matches("us")
            .parse::<i64>()
    };
    lines[1..].sort_by_key(|line| start(line).unwrap());
    lines.join("\n")
}

#[test]
fn a_gain_is_what_the_replay_without_the_cause_gains() {
    let a = analysis(&steps(6));
    adds_up(&a);
    let first = &a.findings[0];
    assert_eq!(first.id, "preprocessing-bound", "{:?}", a.findings);
    assert_eq!(first.place, "tokenize (app.py:20)");
    // A step is 7.15 ms with it and 4.15 ms without.
    let gain = first.gain.as_ref().unwrap();
    let want = 7.15 / 4.15;
    assert!((gain.speedup - want).abs() < 0.02, "{gain:?}, not {want}");
    assert!(
        gain.low < gain.speedup && gain.speedup <= gain.high,
        "{gain:?}"
    );
    assert!(a.facts["replay.error.share"].as_f64().unwrap() < 0.001);
    assert_eq!(first.evidence[0].rows.len(), 1, "it can be looked up");
    assert_eq!(a.facts["step.count"], 6);
}

fn isc_analyze(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isc-analyze"));
    command.current_dir(folder).args(args).output().unwrap()
}

/// A folder with `t.arrow`.
fn written(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut provenance = Provenance::raw(Step::new("test", vec![], vec![]));
    provenance.stage = Stage::Timeline;
    let sink = Sink::File(folder.path().join("t.arrow"));
    let mut writer = Writer::create(&sink, &provenance).unwrap();
    let (events, names) = text::parse(text).unwrap();
    for event in &events {
        writer.push(event, &names).unwrap();
    }
    writer.finish().unwrap();
    folder
}

fn json(folder: &Path, args: &[&str]) -> Value {
    let args: Vec<&str> = ["t.arrow", "--json"].iter().chain(args).copied().collect();
    let out = isc_analyze(folder, &args);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).unwrap()
}

fn stderr(out: &Output) -> String {
    assert_eq!(out.status.code(), Some(2));
    String::from_utf8(out.stderr.clone()).unwrap()
}

#[test]
fn what_if_asks_the_replay() {
    let folder = written(&steps(6));
    let asks = [
        "--what-if",
        "tokenize=0.5x",
        "--what-if",
        "gaps:preprocessing=0",
    ];
    let a = json(folder.path(), &asks);
    let answers = a["what_if"].as_array().unwrap();
    let after = |at: usize| answers[at]["after_ns"].as_i64().unwrap();
    assert_eq!(answers[0]["of"], "step");
    assert_eq!(answers[0]["before_ns"], 7_150_000);
    assert!((after(0) - 5_650_000).abs() < 20_000, "{answers:?}");
    assert!((after(1) - 4_150_000).abs() < 20_000, "{answers:?}");
    let page = isc_analyze(folder.path(), &["t.arrow", "--what-if", "tokenize=0"]);
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(
        page.contains("What if") && page.contains("tokenize=0x: 1.72×"),
        "{page}"
    );
    let wrong = isc_analyze(folder.path(), &["t.arrow", "--what-if", "tokenise=0"]);
    let said = stderr(&wrong);
    assert!(
        said.contains("tokenise") && said.contains("tokenize=0.1x"),
        "{said}"
    );
}

#[test]
fn a_part_of_a_timeline_is_as_if_there_were_nothing_else() {
    let folder = written(&steps(6));
    let tokenize = json(folder.path(), &["--scope", "tokenize"]);
    assert_eq!(tokenize["span_ns"], 6 * 3_000_000);
    let python = |a: &Value| {
        let all = a["breakdown"].as_array().unwrap().iter();
        let python = all.filter(|share| share["category"] == "python");
        python
            .map(|share| share["time_ns"].as_i64().unwrap())
            .sum::<i64>()
    };
    assert_eq!(python(&tokenize), 6 * 3_000_000);
    let window = json(folder.path(), &["--from", "8ms", "--to", "16ms"]);
    assert_eq!(window["span_ns"], 8_000_000);
    assert_eq!(window["facts"]["kernel.count"], 4);
    let caveats = window["caveats"].to_string();
    assert!(caveats.contains("only a part"), "{caveats}");
    let none = json(folder.path(), &["--device", "3"]);
    assert!(none["facts"].get("kernel.count").is_none());
    // Of a pipe too, which is read once.
    let mut child = Command::new(env!("CARGO_BIN_EXE_isc-analyze"));
    child.args(["--scope", "tokenize", "--json"]);
    child.stdin(fs::File::open(folder.path().join("t.arrow")).unwrap());
    let out = child.output().unwrap();
    let piped: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(piped["span_ns"], tokenize["span_ns"]);
}

#[test]
fn a_steady_state_is_without_the_first_steps() {
    // The first of 12 steps compiles for 30 ms.
    let mut text = "track kind start end name file line\n".to_owned();
    text += "py:main process 0ms 141ms app.py\npy:main python 0ms 140ms main app.py 1\n";
    text += "py:main scope 0ms 30ms step\n";
    for step in 0..11 {
        text += &format!(
            "py:main scope {}ms {}ms step\n",
            30 + step * 10,
            40 + step * 10
        );
    }
    let folder = written(&text);
    let all = json(folder.path(), &[]);
    assert_eq!(all["facts"]["step.warmup.count"], 1);
    let steady = json(folder.path(), &["--steady-state"]);
    assert_eq!(steady["span_ns"], 110_000_000);
    let text = "track kind start end name file line\npy:main python 0ms 9ms main app.py 1\n";
    let once = written(text);
    let said = stderr(&isc_analyze(once.path(), &["t.arrow", "--steady-state"]));
    assert!(said.contains("nothing repeats"), "{said}");
    let said = stderr(&isc_analyze(
        folder.path(),
        &["t.arrow", "--scope", "stepp"],
    ));
    assert!(
        said.contains("stepp") && said.contains("--scope step"),
        "{said}"
    );
    let said = stderr(&isc_analyze(
        folder.path(),
        &["t.arrow", "--from", "2s", "--to", "1s"],
    ));
    assert!(said.contains("--from"), "{said}");
}

#[test]
fn requests_tell_their_first_token_and_the_time_of_each() {
    let a = analysis(
        "
    track      kind   start  end    name
    py:main    scope  0ms    100ms  request
    py:main    scope  0ms    40ms   prefill
    py:main    scope  40ms   60ms   decode
    py:main    scope  60ms   90ms   decode",
    );
    let fact = |name: &str| a.facts[name].as_i64().unwrap();
    assert_eq!(fact("request.count"), 1);
    assert_eq!(fact("request.ttft_ns_p50"), 40_000_000);
    assert_eq!(fact("request.tpot_ns_p50"), 25_000_000);
    assert_eq!(
        (fact("token.itl_ns_p50"), fact("token.count")),
        (30_000_000, 3)
    );
    assert_eq!((fact("prefill.count"), fact("decode.count")), (1, 2));
    assert_eq!(a.facts["prefill.share"], 40.0 / 90.0);
}

/// The real traces, and their analyses; `None` where they are not.
fn real(name: &str) -> Option<Value> {
    let folder = repository("../shared/traces");
    let found = fs::read_dir(&folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let is = |path: &PathBuf| {
        path.file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with(name)
    };
    let path = found.filter(|path| path.is_file()).find(is)?;
    let at = tempfile::tempdir().unwrap();
    let merged = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
        .arg(path)
        .args(["-o", "t.arrow"])
        .current_dir(at.path())
        .output()
        .unwrap();
    assert!(merged.status.success(), "{name}");
    Some(json(at.path(), &[]))
}

#[test]
fn what_is_known_of_real_traces_is_found() {
    let traces = repository("../shared/traces");
    if !traces.exists() {
        eprintln!("skipped: what is known of real traces: no ../shared/traces");
        return;
    }
    let first = |a: &Value| {
        let finding = &a["findings"][0];
        let gain = finding["gain"]["speedup"].as_f64().unwrap_or(0.0);
        (finding["id"].as_str().unwrap_or("none").to_owned(), gain)
    };
    let class = |a: &Value| a["verdict"]["class"].as_str().unwrap().to_owned();
    let share = |a: &Value, name: &str| a["facts"][name].as_f64().unwrap();
    let cause = |a: &Value| a["gaps"][0]["cause"].as_str().unwrap_or("none").to_owned();

    let vllm = real("tl_vllm_decode_full.json").unwrap();
    assert_eq!(
        (class(&vllm).as_str(), first(&vllm).0.as_str()),
        ("gpu-bound", "none")
    );
    assert!(share(&vllm, "gpu.idle.share") < 0.0025);

    for capture in [
        "tl_vllm_decode_full_capture",
        "tl_mi300x_sglang_decode_capture",
    ] {
        let a = real(capture).unwrap();
        assert_eq!(a["facts"]["gpu.captured"], 1.0, "{capture}");
        let said = a["verdict"]["summary"].as_str().unwrap();
        assert!(!said.contains("idle"), "{capture}: {said}");
        let about = [
            "launch-bound",
            "preprocessing-bound",
            "idle-no-work",
            "sync-stall",
        ];
        let none = |id: &&str| {
            a["findings"]
                .as_array()
                .unwrap()
                .iter()
                .all(|f| f["id"] != **id)
        };
        assert!(about.iter().all(none), "{capture}: {}", a["findings"]);
    }

    for bert in ["tl_h100_bert_small", "tl_mi300_bert_small"] {
        let a = real(bert).unwrap();
        assert_eq!(
            (class(&a).as_str(), first(&a).0.as_str()),
            ("cpu-bound", "launch-bound")
        );
        assert!(first(&a).1 > 3.0, "{bert}");
    }

    // Its work was launched, and did not begin: the device did what is not in this file.
    let sglang = real("tl_mi300x_sglang_decode.json").unwrap();
    assert_eq!(
        (class(&sglang).as_str(), cause(&sglang).as_str()),
        ("unknown", "copy")
    );
    let place = sglang["gaps"][0]["where"].as_str().unwrap();
    assert!(
        place.starts_with("populate_from_forward_batch (")
            && place.contains("cuda_graph_runner.py:276")
    );
    assert!(sglang["gaps"][0]["longest_ns"].as_i64().unwrap() > 463_000_000);
    assert_ne!(first(&sglang).0, "launch-bound");

    let waits = real("kineto_v100_resnet50_workers0").unwrap();
    assert_eq!(
        (class(&waits).as_str(), first(&waits).0.as_str()),
        ("cpu-bound", "preprocessing-bound")
    );
    assert!((first(&waits).1 - 1.40).abs() < 0.1, "{:?}", first(&waits));
    let place = waits["gaps"][0]["where"].as_str().unwrap();
    assert!(place.contains("DataLoader"), "{place}");
    let workers = real("kineto_v100_resnet50_workers4").unwrap();
    assert_ne!(first(&workers).0, "preprocessing-bound");
    assert!(share(&workers, "gap.preprocessing.share") < 0.02);

    for healthy in [
        "tl_h100_qwen05b",
        "tl_mi300_qwen05b",
        "hta_v100_ns_resolution",
    ] {
        let a = real(healthy).unwrap();
        assert_eq!(
            (class(&a).as_str(), first(&a).0.as_str()),
            ("gpu-bound", "none"),
            "{healthy}"
        );
    }
}

#[test]
fn gaps_and_breakdowns_of_all_real_traces_add_up() {
    let traces = repository("../shared/traces");
    let Ok(entries) = fs::read_dir(&traces) else {
        eprintln!("skipped: gaps of real traces: no ../shared/traces");
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.ends_with(".gz") {
            continue;
        }
        let a = real(&name).unwrap();
        let sum = |list: &Value, of: &dyn Fn(&Value) -> bool| -> i64 {
            let all = list.as_array().unwrap().iter().filter(|one| of(one));
            all.map(|one| one["time_ns"].as_i64().unwrap()).sum()
        };
        let idle = a["facts"]["gpu.idle_ns"].as_i64().unwrap_or(0);
        assert_eq!(
            sum(&a["gaps"], &|gap| gap["device"] == "all"),
            idle,
            "{name}"
        );
        assert_eq!(
            sum(&a["breakdown"], &|_| true),
            a["span_ns"].as_i64().unwrap(),
            "{name}"
        );
    }
}

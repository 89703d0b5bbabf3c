//! Other profilers' files become timelines with exact times; broken ones are told in a line.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{repository, rows};
use inferscope::trace::Kind;
use inferscope::trace::text::print;
use serde_json::Value;

fn merge(inputs: &[&Path], flags: &[&str], output: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isc-merge"))
        .args(inputs)
        .args(flags)
        .arg("-o")
        .arg(output)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file with this content in a folder of its own, and where its timeline goes.
fn place(content: &[u8]) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("x.json"), folder.path().join("t.arrow"));
    fs::write(&input, content).unwrap();
    (folder, input, output)
}

/// The timeline of a file with this content, as lines.
fn lines(content: &[u8], flags: &[&str]) -> String {
    let (_folder, input, output) = place(content);
    let merged = merge(&[&input], flags, &output);
    assert!(merged.status.success(), "{}", text(&merged.stderr));
    let (events, names) = rows(&output);
    print(&events, &names)
}

/// What isc-merge says of a file that it cannot read.
fn refusal(content: &[u8], flags: &[&str]) -> String {
    let (_folder, input, output) = place(content);
    let merged = merge(&[&input], flags, &output);
    let said = text(&merged.stderr);
    assert_eq!(merged.status.code(), Some(2), "{said}");
    assert!(!output.exists(), "nothing half-written stays");
    let first = said.lines().next().unwrap();
    let first = first.strip_prefix("isc-merge: ").unwrap();
    first.replace(&input.display().to_string(), "x.json")
}

fn analysis(inputs: &[&Path], flags: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("t.arrow");
    let merged = merge(inputs, flags, &output);
    let said = text(&merged.stderr);
    assert!(merged.status.success(), "{inputs:?}: {said}");
    let analyzed = Command::new(env!("CARGO_BIN_EXE_isc-analyze"))
        .arg("--json")
        .arg(&output)
        .output()
        .unwrap();
    assert!(analyzed.status.success(), "{}", text(&analyzed.stderr));
    serde_json::from_slice(&analyzed.stdout).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

/// The rows of each small file are those beside it, which were compared by hand. `ISC_BLESS=1` writes them anew.
#[test]
fn each_dialect_of_json_has_its_rows() {
    for name in ["kineto", "chrome", "viztracer", "tensorflow", "rocprof"] {
        let content = fs::read(repository(&format!("tests/golden/import/{name}.json"))).unwrap();
        let timeline = lines(&content, &[]);
        let golden = repository(&format!("tests/golden/import/{name}.txt"));
        if std::env::var_os("ISC_BLESS").is_some() {
            fs::write(&golden, &timeline).unwrap();
        }
        let wanted = fs::read_to_string(&golden).expect("run with ISC_BLESS=1 once");
        assert_eq!(timeline, wanted, "{name}");
        assert!(
            !timeline.contains("hidden"),
            "{name}: private values stay out"
        );
        // Packed, in several members, from a pipe, the rows are the same.
        let half = content.len() / 2;
        let members = [gzip(&content[..half]), gzip(&content[half..])].concat();
        assert_eq!(lines(&members, &[]), timeline, "{name}");
        let frames = zstd::encode_all(&content[..], 1).unwrap();
        assert_eq!(lines(&frames, &[]), timeline, "{name}");
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("t.arrow");
        let mut merged = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
            .arg("-o")
            .arg(&output)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        merged.stdin.take().unwrap().write_all(&members).unwrap();
        assert!(merged.wait().unwrap().success());
        let (events, names) = rows(&output);
        assert_eq!(print(&events, &names), timeline, "{name}");
    }
}

#[test]
fn what_stands_beside_the_events_may_stand_behind_them() {
    let events = KINETO.find("\"traceEvents\"").unwrap();
    let base = KINETO.find("\"baseTimeNanoseconds\"").unwrap();
    let (head, tail) = (&KINETO[1..events], &KINETO[events..base]);
    let (head, rest) = (head.trim().trim_end_matches(','), &KINETO[base..]);
    let turned = format!("{{{tail} {head}, {rest}");
    assert_eq!(lines(turned.as_bytes(), &[]), lines(KINETO.as_bytes(), &[]));
}

#[test]
fn rows_are_the_same_however_little_memory_there_is() {
    let mut content = String::from("[");
    let mut time = 1_000_000u64;
    for i in 0..30_000u64 {
        time = (time * 6_364_136_223 + 1_442_695) % 5_000_000; // in no order, many at one moment
        let (pid, ts) = (1 + i % 3, time / 50);
        content.push_str(&format!(
            "{{\"ph\":\"X\",\"name\":\"f{}\",\"pid\":{pid},\"tid\":{},\"ts\":{ts},\"dur\":{}}},",
            i % 17,
            i % 5,
            i % 11
        ));
    }
    // Spans that begin first and end last, or never: their texts outlive many others.
    let early = "{\"ph\":\"B\",\"name\":\"outer\",\"pid\":9,\"tid\":9,\"ts\":0,\"args\":{\"a\":\"b\"}},\
                 {\"ph\":\"b\",\"name\":\"load\",\"cat\":\"c\",\"id\":1,\"pid\":9,\"tid\":9,\"ts\":1},\
                 {\"ph\":\"B\",\"name\":\"open\",\"pid\":9,\"tid\":8,\"ts\":2},";
    let late = "{\"ph\":\"E\",\"pid\":9,\"tid\":9,\"ts\":999999},\
                {\"ph\":\"e\",\"cat\":\"c\",\"id\":1,\"pid\":9,\"tid\":9,\"ts\":999998}";
    let content = content.replacen('[', &format!("[{early}"), 1) + late;
    let whole = lines(content.as_bytes(), &[]);
    assert_eq!(whole.lines().count(), 30_000 + 3 + 4 + 1);
    for name in ["outer", "load", "open"] {
        assert!(whole.contains(&format!(" {name} ")), "{name}");
    }
    assert_eq!(lines(content.as_bytes(), &["--memory", "200KiB"]), whole);
}

#[test]
fn broken_files_are_told_with_their_byte() {
    for (content, said) in [
        (
            "[{\"ph\":\"X\",\"ts\":1",
            "x.json: cut off at byte 17: the end mark is missing",
        ),
        (
            "{\"traceEvents\":[{\"ph\":\"X\",\"ts\":1}",
            "x.json: cut off at byte 33: the end mark is missing",
        ),
        (
            "{\"traceEvents\":[{\"ph\":\"X\",\"ts\":1}]} x",
            "x.json: damaged at byte 36: more behind the end of the trace",
        ),
        (
            "[{\"ph\":\"X\",\"ts\":nan}]",
            "x.json: damaged at byte 1: an event whose ts is no time in µs",
        ),
        (
            "[{\"ph\":\"X\",\"ts\":1e400}]",
            "x.json: damaged at byte 1: an event whose ts is no time in µs",
        ),
        (
            "[{\"ph\":\"X\",\"ts\":1,\"dur\":1e300}]",
            "x.json: damaged at byte 1: an event whose dur is no time in µs",
        ),
        (
            "[{\"ph\":\"X\" \"ts\":1}]",
            "x.json: damaged at byte 11: a comma or the end of an object should stand here",
        ),
        (
            "[{\"ph\":\"X\",\"args\":{\"a\":[1}}]",
            "x.json: damaged at byte 25: a bracket that closes another kind",
        ),
    ] {
        assert_eq!(refusal(content.as_bytes(), &[]), said, "{content}");
    }
    let deep = format!(
        "[{{\"ph\":\"X\",\"ts\":1,\"args\":{{\"a\":{}",
        "[".repeat(10_000)
    );
    assert_eq!(
        refusal(deep.as_bytes(), &[]),
        "x.json: damaged at byte 542: nested more than 512 deep"
    );
    let packed = gzip(KINETO.as_bytes());
    let said = refusal(&packed[..packed.len() - 20], &[]);
    assert_eq!(
        said,
        "x.json: cut off in its compressed data: the end mark is missing"
    );
    assert_eq!(
        refusal(&gzip(b"plain text"), &[]),
        "x.json: gzip data of no format that is known, not a trace"
    );
}

const KINETO: &str = include_str!("golden/import/kineto.json");

#[test]
fn what_is_broken_is_left_out_and_counted_when_asked() {
    let content = br#"[{"ph":"X","name":"a","pid":1,"tid":1,"ts":1,"dur":1},
        {"ph":"X","name":"b","pid":1,"tid":1,"ts":nan,"dur":1},
        {"ph":"X","name":"c" "pid":1,"tid":1,"ts":2,"dur":1},
        {"ph":"X","name":"d","pid":1,"tid":1,"ts":3,"dur":1},
        {"ph":"X","name":"e","pi"#;
    let (_folder, input, output) = place(content);
    assert!(merge(&[&input], &["--lenient"], &output).status.success());
    let (events, names) = rows(&output);
    let spans: Vec<&str> = (events.iter().filter(|e| e.kind == Kind::Scope))
        .map(|e| names.text(e.name))
        .collect();
    assert_eq!(spans, ["a", "d"]);
    let lost: Vec<_> = (events.iter().filter(|e| e.kind == Kind::Lost))
        .map(|e| (names.text(e.name), e.value))
        .collect();
    assert_eq!(lost, [("broken events", Some(3.0))]);
    let said = analysis(&[&input], &["--lenient"])["caveats"].to_string();
    assert!(said.contains("3 records were lost"), "{said}");
}

/// Any change of a few bytes gives a timeline or one line of error, with either way of reading.
#[test]
fn changed_bytes_never_panic() {
    let mut state = 7u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..120 {
        let mut content = KINETO.as_bytes().to_vec();
        for _ in 0..1 + random(4) {
            let at = random(content.len());
            match random(3) {
                0 => content[at] = random(256) as u8,
                1 => content.truncate(at.max(1)),
                _ => content.insert(at, b"{}[]\",:\\0-"[random(10)]),
            }
        }
        let (_folder, input, output) = place(&content);
        let flags: &[&str] = if round % 2 == 0 { &[] } else { &["--lenient"] };
        let merged = merge(&[&input], flags, &output);
        let said = text(&merged.stderr);
        assert!(matches!(merged.status.code(), Some(0 | 2)), "{said}");
        assert!(said.lines().count() <= 2, "{said}");
    }
}

#[test]
fn files_of_several_ranks_are_on_one_clock_and_the_same_twice_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let rank = |number: u32, base: u64| {
        let path = folder.path().join(format!("rank{number}.json"));
        let info = format!("\"schemaVersion\": 1, \"distributedInfo\": {{\"rank\": {number}}},");
        let content = KINETO
            .replacen("\"schemaVersion\": 1,", &info, 1)
            .replace("1700000000000000000", &base.to_string());
        fs::write(&path, content).unwrap();
        path
    };
    let (one, two) = (
        rank(0, 1_700_000_000_000_000_000),
        rank(1, 1_700_000_000_000_000_500),
    );
    let output = folder.path().join("t.arrow");
    assert!(merge(&[&two, &one], &[], &output).status.success());
    let (events, names) = rows(&output);
    let kernels: Vec<_> = events.iter().filter(|e| e.kind == Kind::Kernel).collect();
    assert_eq!(kernels[1].start_ns - kernels[0].start_ns, 500);
    assert_eq!((kernels[0].process, kernels[1].process), (0, 1));
    for kernel in kernels {
        let launch = &events[usize::try_from(kernel.cause.unwrap()).unwrap()];
        assert_eq!(
            (launch.kind, launch.process),
            (Kind::Launch, kernel.process)
        );
    }
    let ranks: Vec<_> = (events.iter().filter(|e| e.kind == Kind::Process))
        .map(|e| e.args.map_or("", |args| names.text(args)))
        .collect();
    assert!(
        ranks[0].contains("\"rank\":0") && ranks[1].contains("\"rank\":1"),
        "{ranks:?}"
    );
    let again = merge(&[&one, &one], &[], &output);
    assert!(
        text(&again.stderr).contains("the same trace comes in twice"),
        "{}",
        text(&again.stderr)
    );
    // A file that does not say when it was cannot be put beside another.
    let lost = folder.path().join("lost.json");
    fs::write(
        &lost,
        "[{\"ph\":\"X\",\"name\":\"a\",\"pid\":1,\"tid\":1,\"ts\":1}]",
    )
    .unwrap();
    let beside = merge(&[&one, &lost], &[], &output);
    let said = text(&beside.stderr);
    assert!(
        said.contains("it does not say when it was recorded"),
        "{said}"
    );
}

#[test]
fn the_facts_of_real_traces_are_the_references_to_the_nanosecond() {
    let folder = repository("../shared/traces");
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("skipped: real GPU traces: no ../shared/traces");
        return;
    };
    let mut seen = 0;
    for path in entries.flatten().map(|entry| entry.path()) {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(name) = file.strip_suffix(".json.gz") else {
            continue;
        };
        let Ok(expected) = fs::read(folder.join(format!("expected/{name}.json"))) else {
            continue;
        };
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let wanted = &expected["reference"];
        let a = analysis(&[&path], &[]);
        seen += 1;
        // The file has sixteen digits of µs, of which the stored reference, made with doubles, lost some;
        // ../shared/bench/kineto_reference.py gives these.
        let exact = |key: &str| match (name, key) {
            ("hta_v100_ns_resolution", "gpu_span_ns") => Some(480_029_179),
            ("hta_v100_ns_resolution", "gpu_idle_ns") => Some(7_574_738),
            ("hta_v100_ns_resolution", "p50") => Some(77_149_589),
            ("hta_v100_ns_resolution", "p90") => Some(89_797_454),
            (_, "p50" | "p90") => wanted["launch_delay_ns"][key].as_i64(),
            _ => wanted[key].as_i64(),
        };
        for (fact, key) in [
            ("gpu.span_ns", "gpu_span_ns"),
            ("gpu.busy_ns", "gpu_busy_ns"),
            ("gpu.idle_ns", "gpu_idle_ns"),
            ("gpu.compute_ns", "compute_union_ns"),
            ("gpu.comm_ns", "comm_union_ns"),
            ("gpu.memcpy_ns", "memcpy_union_ns"),
            ("kernel.count", "n_kernels"),
            ("kernel.sum_ns", "kernel_sum_ns"),
            ("launch.delay_ns_p50", "p50"),
            ("launch.delay_ns_p90", "p90"),
        ] {
            let found = a["facts"][fact].as_i64().unwrap_or(0);
            assert_eq!(found, exact(key).unwrap_or(0), "{name}: {fact}");
        }
        let gaps = a["gaps"].as_array().unwrap().iter();
        let idle: i64 = (gaps.filter(|gap| gap["device"] == "all"))
            .map(|gap| gap["time_ns"].as_i64().unwrap())
            .sum();
        assert_eq!(
            idle,
            a["facts"]["gpu.idle_ns"].as_i64().unwrap_or(0),
            "{name}"
        );
        let launches = wanted["launch_delay_ns"]["n"].as_i64().unwrap_or(0);
        assert_eq!(
            a["facts"]["launch.count"].as_i64().unwrap_or(0),
            launches,
            "{name}"
        );
        if expected["hta_same_event_set"] == true {
            queues(
                name,
                &expected["hta_ns_exact"]["queue_length"]["summary"],
                &a["streams"],
            );
        }
    }
    assert!(
        seen >= 25,
        "{seen} of the shared traces have expected numbers"
    );
}

/// A file of Kineto's with these spans: category, name, start and length in µs, correlation.
fn kineto(spans: &[(&str, &str, u32, u32, u32)]) -> Vec<u8> {
    let span = |&(cat, name, ts, dur, correlation): &(&str, &str, u32, u32, u32)| {
        let (pid, tid) = if cat.starts_with("cuda_") {
            (5, 5)
        } else {
            (0, 7)
        };
        format!(
            "{{\"ph\":\"X\",\"cat\":\"{cat}\",\"name\":\"{name}\",\"pid\":{pid},\"tid\":{tid},\"ts\":{ts},\"dur\":{dur},\
             \"args\":{{\"correlation\":{correlation}}}}}"
        )
    };
    let spans: Vec<String> = spans.iter().map(span).collect();
    format!(
        "{{\"schemaVersion\":1,\"traceEvents\":[{}]}}",
        spans.join(",")
    )
    .into_bytes()
}

#[test]
fn the_verdict_says_what_the_device_waits_for() {
    let of = |spans: &[(&str, &str, u32, u32, u32)]| {
        let (_folder, input, _) = place(&kineto(spans));
        let a = analysis(&[&input], &[]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (
            text(&a["verdict"]["class"]),
            text(&a["verdict"]["summary"]),
            a,
        )
    };
    let launch = ("cuda_runtime", "cudaLaunchKernel", 0, 8, 1);
    let (class, said, a) = of(&[
        launch,
        ("kernel", "gemm", 10, 2, 1),
        ("cuda_runtime", "cudaLaunchKernel", 90, 8, 2),
        ("kernel", "gemm", 100, 2, 2),
    ]);
    assert_eq!(class, "cpu-bound");
    assert!(
        said.contains("idle 96 %") && said.contains("100 % of what it runs is shorter"),
        "{said}"
    );
    assert_eq!(a["facts"]["launch.shorter.count"], 2);
    // From the first kernel's end, at 12, to the second launch's return, at 98, to the second kernel, at 100: what is between two
    // launches and shorter than 100 µs is a part of launching.
    let gaps: Vec<_> = (a["gaps"].as_array().unwrap().iter())
        .map(|gap| {
            (
                gap["cause"].as_str().unwrap().to_owned(),
                gap["time_ns"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        gaps,
        [
            ("launch".to_owned(), 86_000),
            ("queued".to_owned(), 2_000)
        ]
    );
    let schema = fs::read(repository("formats/analysis-v1.schema.json")).unwrap();
    let schema: Value = serde_json::from_slice(&schema).unwrap();
    let known = &schema["properties"]["facts"]["propertyNames"]["enum"];
    for fact in a["facts"].as_object().unwrap().keys() {
        assert!(
            known.as_array().unwrap().iter().any(|known| known == fact),
            "{fact}"
        );
    }
    let category = |name: &str| {
        let all = a["breakdown"].as_array().unwrap().iter();
        all.filter(|share| share["category"] == name)
            .map(|share| share["time_ns"].as_i64().unwrap())
            .sum::<i64>()
    };
    assert_eq!(
        (category("launch"), category("gpu"), category("startup")),
        (16_000, 2_000, 0)
    );
    let (class, said, _) = of(&[
        launch,
        ("kernel", "gemm", 10, 100, 1),
        ("kernel", "gemm", 110, 9, 2),
    ]);
    assert_eq!(class, "gpu-bound", "{said}");
    let (class, said, _) = of(&[
        launch,
        ("gpu_memcpy", "Memcpy HtoD", 10, 80, 1),
        ("kernel", "gemm", 95, 5, 2),
    ]);
    assert_eq!(class, "transfer-bound", "{said}");
    // Capturing a graph launches and runs nothing.
    let mut spans = vec![("kernel", "warm", 10, 2, 1), ("kernel", "warm", 300, 2, 2)];
    spans.extend((0..30).map(|i| ("cuda_runtime", "cudaLaunchKernel", 20 + 9 * i, 8, 100 + i)));
    let (_, said, a) = of(&spans);
    assert!(!said.contains("idle"), "{said}");
    assert!(
        a["caveats"].to_string().contains("a graph was captured"),
        "{}",
        a["caveats"]
    );
}

/// Lengths of queues as HTA has them, where it knows the launches: after each launch and each beginning.
fn queues(name: &str, summary: &Value, streams: &Value) {
    let queues = || summary.as_array().into_iter().flatten();
    let theirs: f64 = queues()
        .filter_map(|queue| queue["queue_length_count"].as_f64())
        .sum();
    let all = streams.as_array().unwrap();
    let ours: f64 = all
        .iter()
        .filter_map(|stream| stream["queue_changes"].as_f64())
        .sum();
    if theirs < ours {
        eprintln!("{name}: HTA knows {theirs} of {ours} launches and beginnings");
        return;
    }
    for queue in queues() {
        let stream = &queue["stream"];
        let ours: Vec<_> = (all.iter())
            .filter(|ours| ours["stream"] == *stream)
            .collect();
        assert_eq!(ours.len(), 1, "{name}: stream {stream}");
        let number = |key: &str| queue[key].as_f64().unwrap();
        let changes = ours[0]["queue_changes"].as_f64().unwrap();
        assert_eq!(
            changes,
            number("queue_length_count"),
            "{name}: stream {stream}"
        );
        assert_eq!(
            ours[0]["queue_max"].as_f64(),
            Some(number("queue_length_max")),
            "{name}: stream {stream}"
        );
        let mean = ours[0]["queue_mean"].as_f64().unwrap();
        assert!(
            (mean - number("queue_length_mean")).abs() < 0.01,
            "{name}: stream {stream}: {mean}"
        );
    }
}

/// Length of the union of intervals.
fn union(mut intervals: Vec<(i64, i64)>) -> i64 {
    intervals.sort_unstable();
    let (mut total, mut reach) = (0, i64::MIN);
    for (from, to) in intervals {
        total += (to - from.max(reach)).max(0);
        reach = reach.max(to);
    }
    total
}

fn shared(name: &str) -> Option<PathBuf> {
    let path = repository("../shared/traces").join(name);
    if !path.exists() {
        eprintln!("skipped: {name}: no ../shared/traces");
    }
    path.exists().then_some(path)
}

#[test]
fn rocprofs_kernels_are_all_there_with_their_times() {
    let Some(path) = shared("rocprofv3_mi350_908_results.json.gz") else {
        return;
    };
    let file = flate2::read::MultiGzDecoder::new(fs::File::open(&path).unwrap());
    let whole: Value = serde_json::from_reader(std::io::BufReader::new(file)).unwrap();
    let records = &whole["rocprofiler-sdk-tool"][0]["buffer_records"]["kernel_dispatch"];
    let time = |record: &Value, key: &str| record[key].as_i64().unwrap();
    let kernels: Vec<(i64, i64)> = (records.as_array().unwrap().iter())
        .map(|r| (time(r, "start_timestamp"), time(r, "end_timestamp")))
        .collect();
    let facts = &analysis(&[&path], &[])["facts"];
    assert_eq!(facts["kernel.count"], kernels.len());
    assert_eq!(
        facts["kernel.sum_ns"],
        kernels.iter().map(|k| k.1 - k.0).sum::<i64>()
    );
    let last = kernels.iter().map(|k| k.1).max().unwrap();
    assert_eq!(
        facts["gpu.span_ns"],
        last - kernels.iter().map(|k| k.0).min().unwrap()
    );
    assert_eq!(facts["gpu.busy_ns"], union(kernels));
}

/// A field of a protocol buffer: a number, or bytes.
fn number(field: u8, mut value: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3];
    while value > 127 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn field(field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = number(field, content.len() as u64);
    bytes[0] |= 2;
    [&bytes, content].concat()
}

/// A plane with an event on a line: `name`, from 2.5 µs on for 1.25 µs, with correlation 6.
fn plane(plane: &str, line: &str, name: &str) -> Vec<u8> {
    let stat = [number(1, 3), number(3, 6)].concat();
    let event = [
        number(1, 7),
        number(2, 1_500_000),
        number(3, 1_250_999),
        field(4, &stat),
    ]
    .concat();
    let line = [
        number(1, 12),
        field(2, line.as_bytes()),
        number(3, 1000),
        field(4, &event),
    ]
    .concat();
    let entry = |id: u64, name: &str| {
        let named = [number(1, id), field(2, name.as_bytes())].concat();
        [number(1, id), field(2, &named)].concat()
    };
    let names = [
        field(4, &entry(7, name)),
        field(5, &entry(3, "correlation_id")),
    ]
    .concat();
    field(
        1,
        &[field(2, plane.as_bytes()), field(3, &line), names].concat(),
    )
}

#[test]
fn an_xplane_file_has_device_work_and_the_calls_that_started_it() {
    let space = [
        plane("/device:GPU:1", "Stream #17(Kernel)", "fusion"),
        plane("/device:GPU:1", "XLA Ops", "fusion.1"),
        plane("/host:CPU", "python", "hipLaunchKernel"),
        plane("/host:CPU", "python", "$app.py:3 f"),
    ]
    .concat();
    let timeline = lines(&space, &[]);
    let has = |wanted: &str| {
        let words: Vec<&str> = wanted.split(' ').collect();
        let is = |line: &str| {
            line.split_whitespace()
                .take(words.len())
                .eq(words.iter().copied())
        };
        assert!(timeline.lines().any(is), "{wanted}: {timeline}");
    };
    has("cuda:1/17 kernel 0us 1250ns fusion");
    has("cuda:1 annotation 0us 1250ns fusion.1");
    has("py:12 launch 0us 1250ns hipLaunchKernel");
    has("py:12 python 0us 1250ns f app.py 3");
    for cut in 1..space.len() {
        let (_folder, input, output) = place(&space[..cut]);
        let merged = merge(&[&input], &[], &output);
        assert!(
            matches!(merged.status.code(), Some(0 | 2)),
            "{cut}: {}",
            text(&merged.stderr)
        );
    }
    let Some(path) = shared("jax_mi300x_conv_08.xplane.pb.gz") else {
        return;
    };
    // By another decoder of protocol buffers, of all events on lines called Stream.
    let facts = &analysis(&[&path], &[])["facts"];
    for (fact, ns) in [
        ("kernel.count", 235),
        ("gpu.span_ns", 138_470_832),
        ("gpu.busy_ns", 12_291_527),
        ("kernel.sum_ns", 28_137_077),
        ("launch.count", 235),
    ] {
        assert_eq!(facts[fact], ns, "{fact}");
    }
}

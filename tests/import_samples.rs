//! Profiles of samples and rocprof's tables: rows compared by hand, facts of whole chains, and what is broken.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{repository, rows};
use inferscope::trace::Kind;
use inferscope::trace::text::print;
use serde_json::{Value, json};

/// Small inputs, each with its rows beside it; of the last one several files are one input.
const CASES: [&str; 7] = [
    "speedscope.json",
    "values.json",
    "pyspy.raw",
    "folded.folded",
    "perf.script",
    "perf-flat.script",
    "rocprof-v1.csv",
];

fn merge(inputs: &[PathBuf], flags: &[&str], output: &Path) -> Output {
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

fn golden(name: &str) -> PathBuf {
    repository(&format!("tests/golden/import/{name}"))
}

/// The timeline of these files, as lines.
fn timeline(inputs: &[PathBuf], flags: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("t.arrow");
    let merged = merge(inputs, flags, &output);
    assert!(merged.status.success(), "{}", text(&merged.stderr));
    let (events, names) = rows(&output);
    print(&events, &names)
}

/// A file of this content, under a name that says nothing.
fn place(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("x");
    fs::write(&input, content).unwrap();
    (folder, input)
}

fn lines(content: &[u8], flags: &[&str]) -> String {
    let (_folder, input) = place(content);
    timeline(&[input], flags)
}

/// What isc-merge says of a file that it cannot read.
fn refusal(content: &[u8], flags: &[&str]) -> String {
    let (folder, input) = place(content);
    let output = folder.path().join("t.arrow");
    let merged = merge(std::slice::from_ref(&input), flags, &output);
    let said = text(&merged.stderr);
    assert_eq!(merged.status.code(), Some(2), "{said}");
    assert!(!output.exists(), "nothing half-written stays");
    let first = said.lines().next().unwrap();
    let first = first.strip_prefix("isc-merge: ").unwrap();
    first.replace(&input.display().to_string(), "x")
}

fn analysis(inputs: &[PathBuf], flags: &[&str]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("t.arrow");
    let merged = merge(inputs, flags, &output);
    assert!(merged.status.success(), "{}", text(&merged.stderr));
    let analyzed = Command::new(env!("CARGO_BIN_EXE_isc-analyze"))
        .arg("--json")
        .arg(&output)
        .output()
        .unwrap();
    assert!(analyzed.status.success(), "{}", text(&analyzed.stderr));
    serde_json::from_slice(&analyzed.stdout).unwrap()
}

fn compare(name: &str, timeline: &str) {
    let golden = golden(&format!("{name}.txt"));
    if std::env::var_os("ISC_BLESS").is_some() {
        fs::write(&golden, timeline).unwrap();
    }
    let wanted = fs::read_to_string(&golden).expect("run with ISC_BLESS=1 once");
    assert_eq!(timeline, wanted, "{name}");
    assert!(
        !timeline.contains("hidden"),
        "{name}: private values stay out"
    );
}

fn tables() -> Vec<PathBuf> {
    let folder = fs::read_dir(golden("rocprof-csv")).unwrap();
    let mut tables: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
    tables.sort();
    tables
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

/// The rows of each small file are those beside it, which were compared by hand. `ISC_BLESS=1` writes them anew.
#[test]
fn each_format_has_its_rows() {
    for name in CASES {
        let content = fs::read(golden(name)).unwrap();
        let timeline = lines(&content, &[]);
        compare(name, &timeline);
        let half = content.len() / 2;
        let members = [gzip(&content[..half]), gzip(&content[half..])].concat();
        assert_eq!(lines(&members, &[]), timeline, "{name}: gzip");
        let frames = zstd::encode_all(&content[..], 1).unwrap();
        assert_eq!(lines(&frames, &[]), timeline, "{name}: zstd");
        assert_eq!(
            lines(&content, &["--memory", "1KiB"]),
            timeline,
            "{name}: little memory"
        );
    }
}

#[test]
fn tables_of_a_run_are_one_process_in_any_order() {
    let mut tables = tables();
    let forth = timeline(&tables, &[]);
    compare("rocprof-csv", &forth);
    tables.reverse();
    assert_eq!(timeline(&tables, &[]), forth);
    let other = tables[0].with_file_name("hip_api_trace.csv");
    let (_folder, input) = place(
        &text(&fs::read(&other).unwrap())
            .replace(",31,", ",32,")
            .into_bytes(),
    );
    let output = tempfile::tempdir().unwrap();
    let merged = merge(&[other, input], &[], &output.path().join("t.arrow"));
    let said = text(&merged.stderr);
    assert!(
        said.contains("a table of process 32, beside one of process 31"),
        "{said}"
    );
}

/// The tables that rocprofv3 writes of what its JSON has.
fn tables_of(whole: &Value, folder: &Path) -> Vec<PathBuf> {
    let tool = &whole["rocprofiler-sdk-tool"][0];
    let agents = tool["agents"].as_array().unwrap();
    let node = |id: &Value| {
        let found = agents
            .iter()
            .find(|agent| agent["id"]["handle"] == id["handle"]);
        found.map_or(json!(0), |agent| agent["node_id"].clone())
    };
    let operation = |record: &Value| {
        let kind = record["kind"].as_u64().unwrap() as usize;
        let operation = record["operation"].as_u64().unwrap() as usize;
        tool["strings"]["buffer_records"][kind]["operations"][operation].clone()
    };
    let kernel = |id: &Value| {
        let symbols = tool["kernel_symbols"].as_array().unwrap().iter();
        let mut found = symbols.filter(|symbol| symbol["kernel_id"] == *id);
        found.next().unwrap()["formatted_kernel_name"].clone()
    };
    let records = |table: &str| {
        tool["buffer_records"][table]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let mut paths = Vec::new();
    let mut write = |name: &str, header: &str, all: Vec<Vec<Value>>| {
        let mut content = header
            .split(',')
            .map(|c| format!("\"{c}\""))
            .collect::<Vec<_>>()
            .join(",");
        content.push('\n');
        for record in all {
            // Texts in quotes, as rocprofv3 has them, and nothing escaped.
            let value = |v: &Value| {
                v.as_str()
                    .map_or(v.to_string(), |text| format!("\"{text}\""))
            };
            content += &record.iter().map(value).collect::<Vec<_>>().join(",");
            content.push('\n');
        }
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        paths.push(path);
    };
    let kernels = records("kernel_dispatch").into_iter().map(|r| {
        let d = &r["dispatch_info"];
        let mut row = vec![
            json!("KERNEL_DISPATCH"),
            json!(format!("Agent {}", node(&d["agent_id"]))),
            d["queue_id"]["handle"].clone(),
            r["stream_id"]["handle"].clone(),
            kernel(&d["kernel_id"]),
            r["correlation_id"]["internal"].clone(),
            r["start_timestamp"].clone(),
            r["end_timestamp"].clone(),
        ];
        for size in ["workgroup_size", "grid_size"] {
            row.extend(["x", "y", "z"].map(|axis| d[size][axis].clone()));
        }
        row
    });
    write(
        "kernel_trace.csv",
        "Kind,Agent_Id,Queue_Id,Stream_Id,Kernel_Name,Correlation_Id,Start_Timestamp,End_Timestamp,Workgroup_Size_X,\
         Workgroup_Size_Y,Workgroup_Size_Z,Grid_Size_X,Grid_Size_Y,Grid_Size_Z",
        kernels.collect(),
    );
    let calls = ["hip_api", "hsa_api", "rccl_api"]
        .iter()
        .flat_map(|table| records(table))
        .map(|r| {
            vec![
                json!("HIP_RUNTIME_API"),
                operation(&r),
                tool["metadata"]["pid"].clone(),
                r["thread_id"].clone(),
                r["correlation_id"]["internal"].clone(),
                r["start_timestamp"].clone(),
                r["end_timestamp"].clone(),
            ]
        });
    write(
        "hip_api_trace.csv",
        "Domain,Function,Process_Id,Thread_Id,Correlation_Id,Start_Timestamp,End_Timestamp",
        calls.collect(),
    );
    let copies = records("memory_copy").into_iter().map(|r| {
        vec![
            json!("MEMORY_COPY"),
            operation(&r),
            r["stream_id"]["handle"].clone(),
            json!(format!("Agent {}", node(&r["src_agent_id"]))),
            json!(format!("Agent {}", node(&r["dst_agent_id"]))),
            r["correlation_id"]["internal"].clone(),
            r["start_timestamp"].clone(),
            r["end_timestamp"].clone(),
        ]
    });
    write(
        "memory_copy_trace.csv",
        "Kind,Direction,Stream_Id,Source_Agent_Id,Destination_Agent_Id,Correlation_Id,Start_Timestamp,End_Timestamp",
        copies.collect(),
    );
    let all = agents.iter().map(|agent| {
        let kind = if agent["type"] == 2 { "GPU" } else { "CPU" };
        vec![
            agent["node_id"].clone(),
            json!(kind),
            agent["cu_count"].clone(),
            agent["wave_front_size"].clone(),
            agent["name"].clone(),
            agent["product_name"].clone(),
        ]
    });
    write(
        "agent_info.csv",
        "Node_Id,Agent_Type,Cu_Count,Wave_Front_Size,Name,Product_Name",
        all.collect(),
    );
    paths
}

#[test]
fn tables_have_the_facts_of_the_json_of_the_same_run() {
    let path = repository("../shared/traces/rocprofv3_mi350_908_results.json.gz");
    let Ok(file) = fs::File::open(&path) else {
        eprintln!("skipped: real GPU traces: no ../shared/traces");
        return;
    };
    let file = flate2::read::MultiGzDecoder::new(file);
    let whole: Value = serde_json::from_reader(std::io::BufReader::new(file)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tables = tables_of(&whole, folder.path());
    let (of_json, of_tables) = (analysis(&[path], &[]), analysis(&tables, &[]));
    assert!(of_json["facts"]["kernel.count"].as_i64() > Some(0));
    for part in ["facts", "devices", "streams", "gaps", "verdict", "kernels"] {
        assert_eq!(of_tables[part], of_json[part], "{part}");
    }
}

/// Every cut gives a timeline that is whole, or one line of error, or with --lenient one that says what is missing.
#[test]
fn a_cut_anywhere_is_told_and_never_a_panic() {
    for name in CASES {
        let content = fs::read(golden(name)).unwrap();
        for cut in 1..content.len() {
            let (folder, input) = place(&content[..cut]);
            let output = folder.path().join("t.arrow");
            let flags: &[&str] = if cut % 2 == 0 { &[] } else { &["--lenient"] };
            let merged = merge(&[input], flags, &output);
            let said = text(&merged.stderr);
            let at = format!("{name} cut at {cut}: {said}");
            assert!(matches!(merged.status.code(), Some(0 | 2)), "{at}");
            assert!(
                said.lines().count() <= 2 && !said.contains("panicked"),
                "{at}"
            );
            // What is left is nothing, or begins with a whole line; of JSON only white space may be missing.
            let whole_lines = match content[0] {
                b'{' => content[cut..].trim_ascii().is_empty(),
                _ => content[cut - 1] == b'\n',
            };
            if merged.status.success() && flags.is_empty() {
                assert!(whole_lines, "{at}");
            }
            if merged.status.success() && !whole_lines {
                let (events, _) = rows(&output);
                assert!(events.iter().any(|e| e.kind == Kind::Lost), "{at}");
            }
        }
    }
}

#[test]
fn changed_bytes_never_panic() {
    let mut state = 11u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..280 {
        let mut content = fs::read(golden(CASES[round % CASES.len()])).unwrap();
        for _ in 0..1 + random(4) {
            let at = random(content.len());
            match random(3) {
                0 => content[at] = random(256) as u8,
                1 => content[at] = b"0123456789-e.,:;/[]{}\"\n\t "[random(25)],
                _ => content.insert(at, b"{}[]\",:\\0-;\n 9e"[random(15)]),
            }
        }
        let (folder, input) = place(&content);
        let output = folder.path().join("t.arrow");
        let flags: &[&str] = if round % 2 == 0 { &[] } else { &["--lenient"] };
        let merged = merge(&[input], flags, &output);
        let said = text(&merged.stderr);
        assert!(matches!(merged.status.code(), Some(0 | 2)), "{said}");
        assert!(said.lines().count() <= 2, "{said}");
    }
}

/// A speedscope file of this profile.
fn speedscope(profile: &str) -> Vec<u8> {
    format!(
        "{{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\",\"shared\":{{\"frames\":[{{\"name\":\"f\"}}]}},\
         \"profiles\":[{{{profile}}}]}}"
    )
    .into_bytes()
}

#[test]
fn hostile_profiles_are_told_with_their_byte() {
    for (profile, said) in [
        (
            r#""type":"sampled","unit":"seconds","samples":[[1]],"weights":[1]"#,
            "damaged at byte 157: a sample that is no list of frames that there are",
        ),
        (
            r#""unit":"seconds","samples":[[99999999999999999999]],"weights":[1]"#,
            "damaged at byte 140: a sample that is no list of frames that there are",
        ),
        (
            r#""unit":"seconds","samples":[[0]],"weights":[-1]"#,
            "damaged at byte 156: a weight that is no number from 0 on",
        ),
        (
            r#""unit":"seconds","samples":[[0]],"weights":[1e400]"#,
            "damaged at byte 156: a weight that is no number from 0 on",
        ),
        (
            r#""unit":"seconds","samples":[[0]],"weights":[nan]"#,
            "damaged at byte 156: a weight that is no number from 0 on",
        ),
        (
            r#""unit":"seconds","samples":[[0]],"weights":[]"#,
            "damaged at byte 158: a profile with 1 samples and 0 weights",
        ),
        (
            r#""unit":"seconds","samples":[[0],[0],[0]],"weights":[4e9,4e9,4e9]"#,
            "damaged at byte 177: weights that are too large together",
        ),
        (
            r#""unit":"parsecs","samples":[],"weights":[]"#,
            "damaged at byte 111: a profile whose unit is none that there is",
        ),
        (
            r#""unit":"none","events":[{"type":"C","frame":0,"at":1}]"#,
            "damaged at byte 136: a frame that closes and is not the innermost one",
        ),
        (
            r#""unit":"none","events":[{"type":"O","frame":7,"at":1}]"#,
            "damaged at byte 136: an event of no type, or of a frame that there is not",
        ),
        (
            r#""unit":"none","events":[{"type":"O","frame":0,"at":1},{"type":"C","frame":0,"at":0}]"#,
            "damaged at byte 166: an event that is before the one before it",
        ),
        (
            r#""unit":"none","events":[{"type":"O","frame":0}]"#,
            "damaged at byte 136: an event whose `at` is no number",
        ),
    ] {
        let content = speedscope(profile);
        assert_eq!(refusal(&content, &[]), format!("x: {said}"), "{profile}");
        if !profile.contains("weights\":[]") || profile.contains("parsecs") {
            let left = lines(&content, &["--lenient"]);
            assert!(left.contains("broken events"), "{profile}: {left}");
        }
    }
    let deep = speedscope(&format!(
        "\"unit\":\"none\",\"samples\":[{}",
        "[".repeat(10_000)
    ));
    assert!(refusal(&deep, &[]).ends_with("nested more than 512 deep"));
    let empty = speedscope(r#""unit":"none","samples":[],"weights":[]"#);
    assert!(lines(&empty, &[]).contains("process"));
    // A profile's weights may stand before its samples, and its unit behind both.
    let forth = speedscope(r#""unit":"seconds","samples":[[0],[]],"weights":[1,2]"#);
    let back = speedscope(r#""weights":[1,2],"samples":[[0],[]],"unit":"seconds""#);
    assert_eq!(lines(&forth, &[]), lines(&back, &[]));
}

#[test]
fn broken_lines_are_told_with_their_number_or_counted() {
    for (content, said) in [
        ("a;b 1\na;c\n", "damaged in line 2: a stack without a count"),
        (
            "a;b 1\na;c -1\n",
            "damaged in line 2: a stack whose count is no number",
        ),
        (
            "a;b 1\na;c 1e400\n",
            "damaged in line 2: a stack whose count is no number",
        ),
        (
            "a;b 4e15\na;b 1\n",
            "damaged in line 1: a stack whose count is no number",
        ),
        (
            "a;b 4000000000000000\na;b 4000000000000000\n",
            "damaged in line 2: counts that are too large together",
        ),
        (
            "a;b 1\na;c 12",
            "cut off in line 2: the end mark is missing",
        ),
        (
            "a  1  1.500000: 1 cycles: \nx\n",
            "damaged in line 2: neither a sample of perf's nor a frame of one",
        ),
        (
            "a  1  1.500000: 1 cycles: \n\t 1f f (x)\n",
            "cut off in line 3: the end mark is missing",
        ),
        (
            "\"Domain\",\"Function\",\"Start_Timestamp\",\"End_Timestamp\"\n\"A\",\"f\",1,nan\n",
            "damaged in line 2: a record whose end is no time in ns",
        ),
        (
            "\"Domain\",\"Function\",\"Start_Timestamp\",\"End_Timestamp\"\n\"A\",\"f\",-1,2\n",
            "damaged in line 2: a record whose beginning is no time in ns",
        ),
        (
            "\"Domain\",\"Function\",\"Start_Timestamp\",\"End_Timestamp\"\n\"A\",\"f\",1\n",
            "damaged in line 2: another number of values than of columns",
        ),
        (
            "\"Domain\",\"Function\",\"Start_Timestamp\",\"End_Timestamp\"\n\"A\",\"f,1,2\n",
            "cut off in line 3: the end mark is missing",
        ),
        (
            "\"KernelName\",\"gpu-id\",\"queue-id\"\n\"f\",0,0\n",
            "its kernels have no times",
        ),
    ] {
        assert_eq!(
            refusal(content.as_bytes(), &[]),
            format!("x: {said}"),
            "{content}"
        );
        if !said.contains("no times") {
            let left = lines(content.as_bytes(), &["--lenient"]);
            assert!(left.contains("broken events"), "{content}: {left}");
        }
    }
    assert!(lines(b"[unknown];main 3\n", &[]).contains(" [unknown] "));
    for prose in [
        "some text\n",
        "a b 3\n",
        "1,2,3\n",
        "a;b;c\n",
        "- [ ] x;y z\n",
    ] {
        let said = refusal(prose.as_bytes(), &[]);
        assert!(said.ends_with("not a trace"), "{said}");
    }
}

/// The functions with most time of their own, and the report's page, of a file.
fn hottest(input: &Path) -> (Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let (trace, page) = (
        folder.path().join("t.parquet"),
        folder.path().join("r.html"),
    );
    let analysis_path = folder.path().join("a.json");
    let merged = merge(&[input.to_owned()], &[], &trace);
    let content = fs::read(input).unwrap();
    assert!(
        merged.status.success(),
        "{}{}",
        text(&merged.stderr),
        text(&content[..content.len().min(2000)])
    );
    let run = |command: &str, args: &[&Path]| {
        let ran = Command::new(command).args(args).output().unwrap();
        assert!(ran.status.success(), "{}", text(&ran.stderr));
    };
    run(
        env!("CARGO_BIN_EXE_isc-analyze"),
        &[&trace, Path::new("-o"), &analysis_path],
    );
    run(
        env!("CARGO_BIN_EXE_isc-report"),
        &[
            &analysis_path,
            Path::new("--trace"),
            &trace,
            Path::new("-o"),
            &page,
        ],
    );
    let analysis = serde_json::from_slice(&fs::read(&analysis_path).unwrap()).unwrap();
    (analysis, fs::read_to_string(&page).unwrap())
}

#[test]
fn samples_are_analyzed_and_drawn_as_isc_records_own() {
    for (name, hot, own_ns) in [
        ("pyspy.raw", "step", 50_000),
        ("folded.folded", "A::run(int, char const*)", 7_500),
        ("perf.script", "main", 1_003_009),
        ("perf-flat.script", "read", 500_000),
    ] {
        let (analysis, page) = hottest(&golden(name));
        let functions = analysis["functions"].as_array().unwrap();
        let first = functions.iter().find(|f| f["name"] == hot).unwrap();
        assert_eq!(first["self_ns"], own_ns, "{name}");
        assert_eq!(functions[0]["self_ns"], own_ns, "{name}: nothing has more");
        assert!(
            first["calls_error"].is_null(),
            "{name}: samples count no calls"
        );
        assert!(
            page.contains("flame") && page.contains(&hot.replace('&', "&amp;")[..4]),
            "{name}"
        );
    }
}

const PROGRAM: &str = "
import threading, time
def hot(n):
    t = 0
    for i in range(n): t += i * i
    return t
def warm(n): return sum(i for i in range(n))
def work(seconds):
    end = time.time() + seconds
    while time.time() < end: hot(30000); warm(3000)
t = threading.Thread(target=work, args=(0.7,), name='second')
t.start(); work(0.7); t.join()
";

/// py-spy, where a Python and the package index are there.
fn py_spy() -> Option<PathBuf> {
    let made = Command::new(repository("scripts/venv.sh"))
        .args(["python3", "py-spy", "py-spy==0.4.1"])
        .output()
        .ok()?;
    let python = PathBuf::from(text(&made.stdout).trim());
    let found = python.with_file_name("py-spy");
    (made.status.success() && found.exists()).then_some(found)
}

#[test]
fn py_spys_own_files_show_the_hottest_function() {
    let Some(py_spy) = py_spy() else {
        eprintln!("skipped: py-spy: it cannot be installed");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("app.py");
    fs::write(&program, PROGRAM).unwrap();
    for format in [
        &["speedscope"][..],
        &["raw"],
        &["raw", "-t", "-s"],
        &["speedscope", "-s", "-F"],
    ] {
        let output = folder.path().join("out");
        let ran = Command::new(&py_spy)
            .args(["record", "-o"])
            .arg(&output)
            .arg("--format")
            .args(format)
            .arg("--")
            .arg(py_spy.with_file_name("python"))
            .arg(&program)
            .arg("--token=s3cr3t")
            .output()
            .unwrap();
        if !ran.status.success() {
            eprintln!("skipped: py-spy: {}", text(&ran.stderr));
            continue;
        }
        let (analysis, page) = hottest(&output);
        let first = &analysis["functions"][0];
        assert_eq!(
            first["name"], "hot",
            "{format:?}: {}",
            analysis["functions"]
        );
        let said = format!("{analysis}{page}");
        assert!(!said.contains("s3cr3t"), "{format:?}");
        let summary = analysis["verdict"]["summary"].as_str().unwrap();
        assert!(
            summary.contains(" of it in hot (") && summary.contains("app.py"),
            "{summary}"
        );
    }
}

#[test]
fn perfs_own_output_is_read_from_a_pipe_too() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("perf.data");
    let code = "t = 0\nfor i in range(4000000): t += i * i";
    for chains in [&["-g"][..], &[]] {
        let recorded = Command::new("perf")
            .args(["record", "-q", "-e", "cpu-clock", "-F", "997", "-o"])
            .arg(&data)
            .args(chains)
            .args(["--", "python3", "-c", code])
            .output();
        if !recorded.is_ok_and(|recorded| recorded.status.success()) {
            eprintln!("skipped: perf: it is not there, or may not record");
            return;
        }
        for flags in [&[][..], &["-F", "+pid", "--ns"]] {
            let script = Command::new("perf")
                .args(["script", "-i"])
                .arg(&data)
                .args(flags)
                .output()
                .unwrap();
            assert!(script.status.success(), "{}", text(&script.stderr));
            let timeline = lines(&script.stdout, &[]);
            let whole = lines(&gzip(&script.stdout), &[]);
            assert_eq!(timeline, whole);
            let folder = tempfile::tempdir().unwrap();
            let output = folder.path().join("t.arrow");
            let mut merged = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
                .arg("-o")
                .arg(&output)
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = merged.stdin.take().unwrap();
            stdin.write_all(&script.stdout).unwrap();
            drop(stdin);
            assert!(merged.wait().unwrap().success());
            let (events, names) = rows(&output);
            assert_eq!(print(&events, &names), timeline);
            let heads = text(&script.stdout);
            let samples = heads
                .lines()
                .filter(|line| line.contains(" cpu-clock:"))
                .count();
            let outermost = events
                .iter()
                .filter(|e| e.kind == Kind::Native && e.parent.is_none());
            let time_ns: i64 = outermost.filter_map(|e| e.dur_ns).sum();
            let wanted_ns = samples as i64 * 1_003_009;
            // Each sample is a period; the clock beats no finer than the kernel's timers.
            assert!(
                (wanted_ns / 2..wanted_ns * 2).contains(&time_ns),
                "{samples} samples: {time_ns} ns"
            );
        }
    }
}

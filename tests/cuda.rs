//! What CUDA devices do, recorded from the test double (crates/doubles): a driver and a CUPTI that know the truth.

mod common;

use common::{libraries, pythons, recorder, rows};
use inferscope::trace::{Event, Kind, Names};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// CUDA versions whose records differ in length.
const VERSIONS: [&str; 10] = [
    "110800", "120100", "120400", "120800", "120901", "130001", "130100", "130300", "130400",
    "130500",
];

/// A folder with the double in it, and what a program did there.
struct Stage {
    folder: tempfile::TempDir,
    knobs: Vec<(String, String)>,
}

struct Run {
    output: Output,
    events: Vec<Event>,
    names: Names,
    truth: Vec<Value>,
}

fn built(name: &str) -> PathBuf {
    libraries().0.with_file_name(name)
}

impl Stage {
    fn new(version: &str) -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let version = version.parse().unwrap();
        let double = built("libinferscope_doubles.so");
        inferscope_doubles::install_version(folder.path(), &double, version).unwrap();
        let truth = folder.path().join("truth.json");
        Stage {
            folder,
            knobs: vec![],
        }
        .with("VERSION", &version.to_string())
        .with("TRUTH", truth.to_str().unwrap())
    }

    fn with(mut self, knob: &str, value: &str) -> Stage {
        self.knobs
            .push((format!("ISC_DOUBLE_{knob}"), value.into()));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn prepare(&self, command: &mut Command) {
        command.current_dir(self.folder.path());
        command.env("LD_LIBRARY_PATH", self.folder.path());
        command.env_remove("CUDA_INJECTION64_PATH");
        command.envs(self.knobs.iter().map(|(knob, value)| (knob, value)));
    }

    /// Records the CUDA program with these flags and arguments.
    fn run(&self, flags: &[&str], args: &[&str]) -> Run {
        let program = built("cuda-app");
        self.record(flags, &[&[program.to_str().unwrap()], args].concat())
    }

    fn record(&self, flags: &[&str], program: &[&str]) -> Run {
        let mut command = recorder();
        self.prepare(&mut command);
        command
            .args(["-o", "run.parquet"])
            .args(flags)
            .arg("--")
            .args(program);
        let output = command.output().unwrap();
        let (events, names) = rows(&self.path("run.parquet"));
        Run {
            output,
            events,
            names,
            truth: self.truth(),
        }
    }

    fn truth(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("truth.json")).unwrap_or_default();
        let mut all: Vec<Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        all.sort_by_key(|line| line["start_ns"].as_u64());
        all
    }

    /// What the trace says of a machine without devices.
    fn no_gpu(&self) -> String {
        let source = inferscope::cli::Source::from(self.path("run.parquet").as_path());
        let reader = inferscope::trace::Reader::open(&source).unwrap();
        reader.provenance().machine["no_gpu"].to_string()
    }

    /// Merges what was recorded.
    fn merge(&self) -> (Vec<Event>, Names) {
        let mut merge = Command::new(env!("CARGO_BIN_EXE_isc-merge"));
        merge
            .args(["run.parquet", "-o", "t.parquet"])
            .current_dir(self.folder.path());
        let output = merge.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        rows(&self.path("t.parquet"))
    }

    fn analyze(&self) -> Value {
        let mut analyze = Command::new(env!("CARGO_BIN_EXE_isc-analyze"));
        analyze
            .args(["t.parquet", "--json"])
            .current_dir(self.folder.path());
        let output = analyze.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Run {
    fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    fn text(&self, event: &Event) -> &str {
        self.names.text(event.name)
    }

    fn args(&self, event: &Event) -> Value {
        let args = event.args.map_or("null", |args| self.names.text(args));
        serde_json::from_str(args).unwrap()
    }

    fn of(&self, kinds: &[Kind]) -> Vec<&Event> {
        self.events
            .iter()
            .filter(|event| kinds.contains(&event.kind))
            .collect()
    }

    /// How the process says that its devices were recorded.
    fn recorder(&self) -> Value {
        let processes = self.of(&[Kind::Process]);
        let found = processes
            .iter()
            .map(|event| self.args(event)["gpu"].clone());
        found
            .into_iter()
            .find(|gpu| !gpu.is_null())
            .unwrap_or(Value::Null)
    }

    /// The sum of losses of this name.
    fn lost(&self, name: &str) -> f64 {
        let lost = self.of(&[Kind::Lost]);
        let named = lost.iter().filter(|event| self.text(event) == name);
        named.filter_map(|event| event.value).sum()
    }

    /// What was delivered of the truth, by kind.
    fn delivered(&self, kind: &str) -> Vec<&Value> {
        let gone = |line: &&Value| {
            ["dropped", "disabled", "stolen", "pending", "zeroed"]
                .iter()
                .all(|mark| line.get(*mark).is_none())
        };
        self.truth
            .iter()
            .filter(|line| line["kind"] == kind)
            .filter(gone)
            .collect()
    }

    /// Compares every kernel, copy and call with the truth; how many there are.
    fn compare(&self) -> usize {
        let mut rows: HashMap<(Kind, u64, i64, i64), &Event> = HashMap::new();
        for event in self.of(&[Kind::Kernel, Kind::Memcpy, Kind::Memset, Kind::Api]) {
            let correlation = event.correlation.unwrap_or(0);
            let before = rows.insert(
                (event.kind, correlation, event.start_ns, event.end_ns()),
                event,
            );
            assert_eq!(before, None, "{}", self.text(event));
        }
        let mut compared = 0;
        for (kind, of) in [("kernel", Kind::Kernel), ("memcpy", Kind::Memcpy)] {
            for line in self.delivered(kind) {
                let number = |key: &str| line[key].as_i64().unwrap();
                let key = (
                    of,
                    number("correlation") as u64,
                    number("cupti_start"),
                    number("cupti_end"),
                );
                let event = rows
                    .remove(&key)
                    .unwrap_or_else(|| panic!("no row for {line}"));
                let want = number("cupti_end") - number("cupti_start");
                assert_eq!(event.dur_ns, Some(want), "{line}");
                assert_eq!(
                    event.device.map(i64::from),
                    Some(number("device")),
                    "{line}"
                );
                assert_eq!(
                    event.stream.map(i64::from),
                    Some(number("stream")),
                    "{line}"
                );
                assert_eq!(i64::from(event.pid), number("pid"), "{line}");
                let args = self.args(event);
                assert_eq!(args["context"], line["context"], "{line}");
                let node = line["graph_node"].as_i64().filter(|&node| node != 0);
                assert_eq!(args["node"].as_i64(), node, "{line}");
                if of == Kind::Kernel {
                    assert_eq!(args["grid"], line["grid"], "{line}");
                    assert_eq!(args["block"], line["block"], "{line}");
                    let mangled = line["name"].as_str().unwrap();
                    let plain = match (line.get("nameless").is_some(), mangled) {
                        (true, _) => "(no name)",
                        (_, "_Z9addKernelPfS_i") => "addKernel(float*, float*, int)",
                        (_, name) if name.starts_with("_ZN2at") => {
                            "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float> >(int, at::native::FillFunctor<float>)"
                        }
                        (_, name) => name,
                    };
                    assert_eq!(self.text(event), plain, "{line}");
                } else {
                    assert_eq!(event.bytes, Some(number("bytes")), "{line}");
                    assert_eq!(args["copy"], "host to device", "{line}");
                    assert_eq!(self.text(event), "Memcpy HtoD (Pageable -> Device)");
                }
                compared += 1;
            }
        }
        // Of a runtime call and the driver's inside it, which has the same id, the outer one; but where a buffer ends
        // between them, and both come while the program ends, the probe cannot wait for what follows.
        let mut doubled = 0;
        let outer: Vec<_> = self
            .delivered("runtime")
            .iter()
            .map(|l| l["correlation"].clone())
            .collect();
        let outer: std::collections::HashSet<_> = outer.iter().map(Value::to_string).collect();
        for line in [self.delivered("runtime"), self.delivered("driver")].concat() {
            let inner =
                line["kind"] == "driver" && outer.contains(&line["correlation"].to_string());
            let number = |key: &str| line[key].as_i64().unwrap();
            let key = (
                Kind::Api,
                number("correlation") as u64,
                number("cupti_start"),
                number("cupti_end"),
            );
            let Some(event) = rows.remove(&key) else {
                // before CUPTI 12.5 it hands over calls of all sorts
                let name = line["name"].as_str().unwrap();
                let unwanted = ["Ctx", "Module", "Stream"]
                    .iter()
                    .any(|word| name.contains(word));
                assert!(
                    inner || unwanted && !name.contains("Synchronize"),
                    "no row for {line}"
                );
                continue;
            };
            doubled += usize::from(inner);
            assert_eq!(
                event.dur_ns,
                Some(number("cupti_end") - number("cupti_start")),
                "{line}"
            );
            assert_eq!(event.tid as i64, number("tid"), "{line}");
            let name = line["name"].as_str().unwrap();
            let short = name
                .split("_v7000")
                .next()
                .unwrap()
                .split("_v3020")
                .next()
                .unwrap();
            assert_eq!(self.text(event), short, "{line}");
            compared += 1;
        }
        assert!(rows.is_empty(), "{} rows that nobody made", rows.len());
        assert!(doubled <= 12, "{doubled} of {compared}"); // buffers of 1 MiB
        compared
    }
}

#[test]
fn records_of_every_length_become_rows_without_a_wrong_field() {
    let (mut kernels, mut all) = (0, 0);
    for version in VERSIONS {
        let stage = Stage::new(version)
            .with("DEVICES", "2")
            .with("KERNEL_NS", "1500");
        let work = "--kernels 10000 --copies 500 --graphs 20 --nodes 30 --streams 3 --threads 2 --devices 2 --runtime";
        let run = stage.run(&[], &work.split(' ').collect::<Vec<_>>());
        assert!(run.output.status.success(), "{version}: {}", run.stderr());
        assert_eq!(run.delivered("kernel").len(), 10_600, "{version}");
        assert_eq!(run.delivered("memcpy").len(), 500, "{version}");
        kernels += run.delivered("kernel").len();
        all += run.compare();
        let gpu = run.recorder();
        assert_eq!(gpu["clock"], "monotonic", "{version}: {gpu}");
        assert_eq!((&gpu["dropped"], &gpu["untimed"]), (&0.into(), &0.into()));
        assert_eq!(run.of(&[Kind::Lost]), Vec::<&Event>::new(), "{version}");
        let devices = run
            .of(&[Kind::Stream])
            .into_iter()
            .filter(|e| e.stream.is_none());
        assert_eq!(devices.filter_map(|e| e.device).max(), Some(1), "{version}");
    }
    assert_eq!(kernels, 106_000);
    assert!(all >= 216_200, "{all}");
}

#[test]
fn kernels_are_joined_to_the_launch_and_the_python_that_launched_them() {
    for (python, version) in pythons() {
        let stage = Stage::new("120901").with("KERNEL_NS", "400000");
        let program = common::repository("tests/python/cuda.py");
        let program = [python.to_str().unwrap(), program.to_str().unwrap(), "50"];
        let run = stage.record(&["--exact"], &program);
        assert!(run.output.status.success(), "{version:?}: {}", run.stderr());
        let (events, names) = stage.merge();
        let mut seen = 0;
        for (row, event) in events.iter().enumerate() {
            let Some(cause) = event.cause else { continue };
            let launch = events[cause as usize];
            assert_eq!(launch.kind, Kind::Launch, "{version:?}");
            assert!(launch.start_ns <= event.start_ns, "{version:?}: row {row}");
            let mut around = vec![];
            let mut at = launch.parent;
            while let Some(parent) = at {
                let parent = &events[parent as usize];
                around.push(names.text(parent.name));
                at = parent.parent;
            }
            let want = if event.kind == Kind::Memcpy {
                "load"
            } else {
                "decode"
            };
            assert!(around.contains(&want), "{version:?}: {around:?}");
            seen += 1;
        }
        assert_eq!(seen, 100, "{version:?}");
        let analysis = stage.analyze();
        let facts = &analysis["facts"];
        assert_eq!(facts["kernel.count"], 50, "{version:?}");
        let busy: i64 = run
            .delivered("kernel")
            .iter()
            .chain(&run.delivered("memcpy"))
            .map(|l| l["cupti_end"].as_i64().unwrap() - l["cupti_start"].as_i64().unwrap())
            .sum();
        assert_eq!(
            facts["gpu.busy_ns"].as_i64(),
            Some(busy),
            "{version:?}: one stream, so the sum"
        );
        assert_eq!(analysis["caveats"], Value::Array(vec![]), "{version:?}");
    }
}

#[test]
fn what_cupti_drops_withholds_or_invents_is_counted_and_the_rest_is_right() {
    let args = "--kernels 3000 --copies 300 --streams 2"
        .split(' ')
        .collect::<Vec<_>>();
    let stage = Stage::new("120901").with("DROP_EVERY", "7");
    let run = stage.run(&[], &args);
    let dropped = run
        .truth
        .iter()
        .filter(|line| line.get("dropped").is_some())
        .count();
    assert!(dropped > 500, "{dropped}");
    assert_eq!(
        run.lost("device records that CUPTI dropped"),
        dropped as f64
    );
    assert_eq!(run.recorder()["dropped"], dropped);
    run.compare();

    let run = Stage::new("130500")
        .with("ZERO_EVERY", "11")
        .run(&[], &args);
    let zeroed = run
        .truth
        .iter()
        .filter(|l| l.get("zeroed").is_some() && l.get("disabled").is_none());
    let zeroed = zeroed.count();
    assert!(zeroed > 300, "{zeroed}");
    assert_eq!(run.lost("device records without a time"), zeroed as f64);
    run.compare();

    let run = Stage::new("110800")
        .with("UNKNOWN_EVERY", "13")
        .with("NULL_NAME_EVERY", "5")
        .run(&[], &args);
    let unknown = run.recorder()["unknown"].clone();
    let counts: u64 = unknown
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_u64)
        .sum();
    assert!(counts > 200, "{unknown}");
    assert!(run.truth.iter().any(|line| line.get("nameless").is_some()));
    run.compare();
}

#[test]
fn a_clock_that_cupti_does_not_take_is_read_beside_ours() {
    let stage = Stage::new("120800")
        .with("TIMESTAMP_REFUSED", "1")
        .with("KERNEL_NS", "300000");
    let run = stage.run(&[], &["--kernels", "50", "--sync-every", "1"]);
    let gpu = run.recorder();
    assert_eq!(gpu["clock"], "read", "{gpu}");
    let kernels = run.of(&[Kind::Kernel]);
    let truth = run.delivered("kernel");
    assert_eq!(kernels.len(), truth.len());
    // the bracket of the reading, and what the system's clock was corrected by since
    let bound = gpu["clock_error_ns"].as_i64().unwrap() + 100_000;
    for (event, line) in kernels.iter().zip(truth) {
        let off = event.start_ns - line["start_ns"].as_i64().unwrap();
        assert!(off.abs() <= bound, "{off} {bound}");
    }
}

#[test]
fn what_cannot_be_recorded_is_left_out_and_said() {
    let refused = [
        ("38", "sync"),
        ("17", "overhead"),
        ("1", "memcpy"),
        ("4", "driver calls"),
    ];
    for (kind, word) in refused {
        let stage = Stage::new("120901").with("FAIL_ENABLE", kind);
        let run = stage.run(&[], &["--kernels", "20", "--copies", "5"]);
        assert!(run.output.status.success(), "{}", run.stderr());
        assert_eq!(run.of(&[Kind::Kernel]).len(), 20, "{word}");
        assert!(
            run.recorder()["refused"].get(word).is_some(),
            "{word}: {}",
            run.recorder()
        );
    }
    for absent in [
        "cuptiActivityRegisterTimestampCallback",
        "cuptiSetThreadIdType",
        "cuptiActivitySetAttribute",
        "cuptiGetCallbackName",
        "cuptiActivityEnableRuntimeApi,cuptiActivityEnableDriverApi",
        "cuptiActivityGetNumDroppedRecords",
        "cuptiGetResultString",
    ] {
        let run = Stage::new("120901")
            .with("ABSENT", absent)
            .run(&[], &["--kernels", "20"]);
        assert!(run.output.status.success(), "{}", run.stderr());
        assert_eq!(run.of(&[Kind::Kernel]).len(), 20, "{absent}");
    }
}

/// What the program itself sees is the same with and without us, and one line says why there is nothing.
#[test]
fn without_a_driver_or_with_a_broken_one_the_program_runs_as_it_would_and_one_line_says_why() {
    let program = built("cuda-app");
    let program = program.to_str().unwrap();
    let stages: [(Stage, &str); 4] = [
        (Stage::new("120901").with("NO_DRIVER", "1"), "no GPU data"),
        (Stage::new("130500").with("NO_DRIVER", "1"), "no GPU data"),
        (
            Stage::new("120901").with("FAIL_ENABLE", "10:39"),
            "another profiler",
        ),
        (
            Stage::new("120901").with("ABSENT", "cuptiActivityRegisterCallbacks"),
            "callbacks",
        ),
    ];
    for (stage, word) in &stages {
        let mut bare = Command::new(program);
        stage.prepare(&mut bare);
        let bare = bare.args(["--kernels", "30"]).output().unwrap();
        let run = stage.run(&[], &["--kernels", "30"]);
        assert_eq!(run.output.status, bare.status);
        assert_eq!(run.output.stdout, bare.stdout);
        let own = String::from_utf8_lossy(&bare.stderr).into_owned();
        let said = run.stderr().replace(&own, "");
        let lines: Vec<_> = said
            .lines()
            .filter(|line| line.contains("no GPU data"))
            .collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert!(lines[0].contains(word), "{said}");
        assert_eq!(run.of(&[Kind::Kernel]).len(), 0);
    }
    // no driver at all
    let stage = Stage::new("120901");
    for name in ["libcuda.so.1", "libcupti.so.12", "libnvidia-ml.so.1"] {
        fs::remove_file(stage.path(name)).unwrap();
    }
    let run = stage.run(&[], &["--kernels", "30"]);
    assert_eq!(run.output.stdout, b"no cuda\n");
    assert!(!run.stderr().contains("GPU"), "{}", run.stderr());
    assert!(stage.no_gpu().contains("no NVIDIA driver here"));
    // a driver without a CUPTI
    let stage = Stage::new("120901");
    fs::remove_file(stage.path("libcupti.so.12")).unwrap();
    let mut command = recorder();
    stage.prepare(&mut command);
    let asked = stage.path("nowhere.so");
    command.env("ISC_CUPTI_PATH", &asked).args([
        "-o",
        "run.parquet",
        "--",
        program,
        "--kernels",
        "30",
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("no GPU data") && said.contains("nowhere.so"),
        "{said}"
    );
    // and where it is not wanted, nothing is said
    let run = Stage::new("120901").run(&["--no-gpu"], &["--kernels", "30"]);
    assert!(!run.stderr().contains("GPU"), "{}", run.stderr());
    assert_eq!(run.of(&[Kind::Kernel]).len(), 0);
}

#[test]
fn another_profiler_that_has_the_device_keeps_it() {
    let stage = Stage::new("120901");
    let mut command = recorder();
    stage.prepare(&mut command);
    command.env("CUDA_INJECTION64_PATH", "/opt/nsys/libToolsInjection64.so");
    let program = built("cuda-app");
    command
        .args(["-o", "run.parquet", "--"])
        .arg(program)
        .args(["--kernels", "30"]);
    let output = command.output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another profiler has the device"), "{said}");
    let (events, _) = rows(&stage.path("run.parquet"));
    assert!(!events.iter().any(|event| event.kind == Kind::Kernel));
}

#[test]
fn however_the_program_ends_all_that_was_complete_a_second_before_is_there() {
    for (end, code, signal) in [
        ("_exit", Some(0), None),
        ("abort", None, Some(6)),
        ("sigterm", None, Some(15)),
    ] {
        let stage = Stage::new("120901").with("KERNEL_NS", "2000");
        // 2500 launches with a millisecond between: two flushes, and some that come after
        let args = ["--kernels", "2500", "--pause-us", "1000", "--exit", end];
        let run = stage.run(&[], &args);
        let status = run.output.status;
        let signal = signal.map(|signal| 128 + signal);
        assert_eq!(
            status.code(),
            code.or(signal),
            "{end}: {status:?} {:?}",
            status.signal()
        );
        let kernels = run.of(&[Kind::Kernel]).len();
        assert!((1000..=2500).contains(&kernels), "{end}: {kernels}");
        let ended = run
            .of(&[Kind::Process])
            .iter()
            .map(|e| run.args(e)["ended"].clone())
            .collect::<Vec<_>>();
        assert!(ended.iter().all(|how| how != "running"), "{ended:?}");
    }
}

#[test]
fn a_python_that_leaves_without_exit_handlers_loses_no_device_record() {
    for (python, version) in pythons() {
        for how in ["leave", "fork"] {
            let stage = Stage::new("120901").with("KERNEL_NS", "2000");
            let program = common::repository("tests/python/cuda.py");
            let program = [
                python.to_str().unwrap(),
                program.to_str().unwrap(),
                "50",
                how,
            ];
            let run = stage.record(&[], &program);
            let code = run.output.status.code();
            assert_eq!(code, Some(3), "{version:?} {how}: {}", run.stderr());
            assert_eq!(run.of(&[Kind::Kernel]).len(), 50, "{version:?} {how}");
            assert_eq!(run.of(&[Kind::Memcpy]).len(), 50, "{version:?} {how}");
        }
    }
}

#[test]
fn records_that_another_tool_takes_over_are_missed_and_that_is_said() {
    let stage = Stage::new("120901").with("STOLEN_AFTER", "2500");
    let run = stage.run(&[], &["--kernels", "7000", "--pause-us", "1000"]);
    assert!(run.output.status.success());
    let kernels = run.of(&[Kind::Kernel]).len();
    assert!((1..7000).contains(&kernels), "{kernels}");
    assert!(
        run.stderr().contains("another profiler in the program"),
        "{}",
        run.stderr()
    );
    let told = run.of(&[Kind::Process]).iter().any(|event| {
        run.args(event)["notes"]
            .to_string()
            .contains("another profiler in the program")
    });
    assert!(told);
}

#[test]
fn each_device_has_its_counters_once_a_second() {
    let stage = Stage::new("120901")
        .with("DEVICES", "2")
        .with("THROTTLE", "4");
    let work = "--kernels 1300 --pause-us 1000 --threads 2 --devices 2";
    let run = stage.run(&[], &work.split(' ').collect::<Vec<_>>());
    let counters = run.of(&[Kind::Counter]);
    for device in [0, 1] {
        let of = |name: &str| {
            let own = counters.iter().filter(|event| event.device == Some(device));
            own.filter(|event| run.text(event) == name)
                .filter_map(|event| event.value)
                .collect::<Vec<_>>()
        };
        assert!(
            of("gpu.utilization_percent")
                .iter()
                .all(|share| (0.0..=100.0).contains(share))
        );
        assert!(!of("gpu.memory_bytes").is_empty());
        assert!(
            of("gpu.sm_mhz")
                .iter()
                .chain(&of("gpu.power_mw"))
                .all(|value| *value > 0.0)
        );
        assert_eq!(of("gpu.throttle_reasons").first(), Some(&4.0), "{device}");
    }
}

#[test]
fn what_is_on_a_device_while_recording_is_off_is_not_recorded() {
    let stage = Stage::new("120901").with("KERNEL_NS", "2000");
    let run = stage.run(
        &["--delay", "400ms"],
        &["--kernels", "800", "--pause-us", "1000"],
    );
    let kernels = run.of(&[Kind::Kernel]);
    assert!(
        !kernels.is_empty() && kernels.len() < 700,
        "{}",
        kernels.len()
    );
    let first = run.truth.iter().find(|l| l["kind"] == "kernel").unwrap()["start_ns"]
        .as_i64()
        .unwrap();
    assert!(
        kernels
            .iter()
            .all(|event| event.start_ns > first + 200_000_000)
    );
}

#[test]
fn every_call_or_whole_graphs_on_request() {
    let args = [
        "--kernels",
        "10",
        "--graphs",
        "4",
        "--nodes",
        "25",
        "--runtime",
    ];
    let run = Stage::new("120901").run(&["--cuda-api", "all"], &args);
    let calls = run.of(&[Kind::Api]);
    let named = |name: &str| calls.iter().filter(|event| run.text(event) == name).count();
    assert_eq!(
        (named("cudaLaunchKernel"), named("cuLaunchKernel")),
        (10, 10)
    );
    assert!(named("cuCtxSetCurrent") > 0);
    let run = Stage::new("120901").run(&["--cuda-graph", "whole"], &args);
    let kernels = run.of(&[Kind::Kernel]);
    assert_eq!(kernels.len(), 14);
    let graphs = kernels
        .iter()
        .filter(|event| run.text(event).starts_with("graph "));
    assert_eq!(graphs.count(), 4);
}

#[test]
fn a_kernel_takes_less_than_24_bytes_of_the_finished_trace() {
    let stage = Stage::new("130500").with("KERNEL_NS", "1000");
    let run = stage.run(&[], &["--kernels", "50000", "--streams", "4"]);
    assert_eq!(run.of(&[Kind::Kernel]).len(), 50_000);
    stage.merge();
    let bytes = |path: &Path| fs::metadata(path).unwrap().len() as f64 / 100_000.0; // kernels and launches
    let (raw, merged) = (
        bytes(&stage.path("run.parquet")),
        bytes(&stage.path("t.parquet")),
    );
    println!("bytes a row: {raw:.1} recorded, {merged:.1} merged");
    assert!(merged < 24.0, "{merged}");
}

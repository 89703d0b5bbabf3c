//! What ROCm devices do, recorded from the test double (crates/doubles-rocm): HIP and a rocprofiler-sdk that know the
//! truth.

mod common;

use common::{libraries, recorder, rows};
use inferscope::trace::{Event, Kind, Names};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Versions of rocprofiler-sdk whose records differ: 0.5.0 and 1.0.0.
const VERSIONS: [&str; 2] = ["500", "10000"];

/// Bound of a thread's clock on the timeline beside that of the SDK's, in ns: the wall clock is not slewed within a
/// test.
const SLACK_NS: i64 = 1_000;

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
        let double = built("libinferscope_doubles_rocm.so");
        inferscope_doubles_rocm::install(folder.path(), &double).unwrap();
        let truth = folder.path().join("truth.json");
        Stage {
            folder,
            knobs: vec![],
        }
        .with("VERSION", version)
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
        command.env_remove("ROCP_TOOL_LIBRARIES");
        command.envs(self.knobs.iter().map(|(knob, value)| (knob, value)));
    }

    /// Records the HIP program with these flags and arguments.
    fn run(&self, flags: &[&str], args: &str) -> Run {
        let mut command = recorder();
        self.prepare(&mut command);
        command.args(["-o", "run.parquet"]).args(flags).arg("--");
        command.arg(built("rocm-app")).args(args.split_whitespace());
        let output = command.output().unwrap();
        let (events, names) = rows(&self.path("run.parquet"));
        let truth = fs::read_to_string(self.path("truth.json")).unwrap_or_default();
        let truth = truth.lines().map(|l| serde_json::from_str(l).unwrap());
        Run {
            output,
            events,
            names,
            truth: truth.collect(),
        }
    }

    /// Merges what was recorded.
    fn merge(&self) -> (Vec<Event>, Names) {
        let mut merge = Command::new(env!("CARGO_BIN_EXE_isc-merge"));
        merge.args(["run.parquet", "-o", "t.parquet"]);
        let output = merge.current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        rows(&self.path("t.parquet"))
    }
}

/// What a kernel's symbol is called in its source.
fn plain(symbol: &str) -> &str {
    match symbol {
        "_Z9addKernelPfS_i" => "addKernel(float*, float*, int)",
        "_ZN2at6native4fillIfEEvT_" => "void at::native::fill<float>(float)",
        name => name,
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

    fn of(&self, kind: Kind) -> Vec<&Event> {
        self.events.iter().filter(|e| e.kind == kind).collect()
    }

    /// How the process says that its devices were recorded.
    fn recorder(&self) -> Value {
        let processes = self.of(Kind::Process);
        let mut found = processes
            .iter()
            .map(|event| self.args(event)["gpu"].clone());
        found.find(|gpu| !gpu.is_null()).unwrap_or(Value::Null)
    }

    /// The sum of losses of this name.
    fn lost(&self, name: &str) -> f64 {
        let lost = self.of(Kind::Lost);
        let named = lost.iter().filter(|event| self.text(event) == name);
        named.filter_map(|event| event.value).sum()
    }

    /// Lines of the truth that have this mark.
    fn marked(&self, mark: &str) -> usize {
        self.truth.iter().filter(|l| l.get(mark).is_some()).count()
    }

    /// What was delivered of the truth, by kind.
    fn delivered(&self, kind: &str) -> Vec<&Value> {
        let gone = |line: &&Value| {
            let mut marks = ["dropped", "disabled", "pending", "zeroed"].iter();
            marks.all(|mark| line.get(*mark).is_none())
        };
        let all = self.truth.iter().filter(|line| line["kind"] == kind);
        all.filter(gone).collect()
    }

    /// Compares every kernel, copy and call with the truth, field by field; how many there are.
    fn compare(&self) -> usize {
        let bound = self.recorder()["clock_error_ns"].as_i64().unwrap() + SLACK_NS;
        let mut rows: HashMap<(Kind, u64), &Event> = HashMap::new();
        for kind in [Kind::Kernel, Kind::Memcpy, Kind::Api] {
            for event in self.of(kind) {
                let correlation = event.correlation.unwrap_or(0);
                assert_eq!(rows.insert((kind, correlation), event), None);
            }
        }
        let mut compared = 0;
        for (kind, of) in [
            ("kernel", Kind::Kernel),
            ("copy", Kind::Memcpy),
            ("HIP_RUNTIME_API", Kind::Api),
            ("HIP_COMPILER_API", Kind::Api),
            ("RCCL_API", Kind::Api),
        ] {
            for line in self.delivered(kind) {
                let number = |key: &str| line[key].as_i64().unwrap();
                let found = rows.remove(&(of, number("correlation") as u64));
                let event = found.unwrap_or_else(|| panic!("no row for {line}"));
                let off = event.start_ns - number("start_ns");
                assert!(off.abs() <= bound, "{off} {bound} {line}");
                let want = number("end_ns") - number("start_ns");
                assert_eq!(event.dur_ns, Some(want), "{line}");
                assert_eq!(i64::from(event.pid), number("pid"), "{line}");
                let device = event.device.map(i64::from);
                match of {
                    Kind::Kernel => {
                        assert_eq!(self.text(event), plain(line["name"].as_str().unwrap()));
                        assert_eq!(device, Some(number("device")), "{line}");
                        let mut args = json!({"grid": line["grid"], "block": line["block"],
                            "registers": line["registers"], "shared_bytes": line["group"], "queue": line["queue"]});
                        if number("private") > 0 {
                            args["local_bytes"] = line["private"].clone();
                        }
                        assert_eq!(self.args(event), args, "{line}");
                        let stream = event.stream.map(i64::from);
                        if number("queue") < 1 << 16 {
                            assert_eq!(stream, Some(number("queue")), "{line}");
                        } else {
                            assert!(stream.is_some_and(|stream| stream >= 1 << 16), "{line}");
                        }
                    }
                    Kind::Memcpy => {
                        let (name, copy) = match number("operation") {
                            2 => ("Memcpy HtoD (Host -> Device)", "host to device"),
                            3 => ("Memcpy DtoH (Device -> Host)", "device to host"),
                            _ => ("Memcpy DtoD (Device -> Device)", "device to device"),
                        };
                        assert_eq!(self.text(event), name, "{line}");
                        let args = self.args(event);
                        assert_eq!(args["copy"], copy, "{line}");
                        let (from, to) = (number("from"), number("device"));
                        assert_eq!(device, Some(if to < 0 { from } else { to }), "{line}");
                        if from >= 0 && to >= 0 && from != to {
                            assert_eq!(
                                (&args["from_device"], &args["to_device"]),
                                (&from.into(), &to.into())
                            );
                        }
                        assert_eq!(event.bytes, Some(number("bytes")), "{line}");
                        assert_eq!(event.stream, None);
                    }
                    _ => {
                        assert_eq!(self.text(event), line["name"], "{line}");
                        assert_eq!(event.tid as i64, number("tid"), "{line}");
                    }
                }
                compared += 1;
            }
        }
        assert!(rows.is_empty(), "{} rows that nobody made", rows.len());
        compared
    }
}

#[test]
fn records_of_both_layouts_become_rows_without_a_wrong_field() {
    for version in VERSIONS {
        let stage = Stage::new(version).with("KERNEL_NS", "1500");
        let work =
            "--kernels 24000 --copies 900 --collectives 50 --streams 3 --threads 2 --devices 2";
        let run = stage.run(&[], work);
        assert!(run.output.status.success(), "{version}: {}", run.stderr());
        assert_eq!(run.delivered("kernel").len(), 24_000, "{version}");
        assert_eq!(run.delivered("copy").len(), 900, "{version}");
        assert_eq!(run.delivered("RCCL_API").len(), 50, "{version}");
        assert!(run.compare() > 49_000, "{version}");
        let gpu = run.recorder();
        assert_eq!(gpu["interface"], "rocprofiler", "{version}");
        assert_eq!(gpu["version"].to_string(), version);
        assert_eq!(gpu["refused"], json!({}), "{version}: {gpu}");
        assert_eq!(gpu["kernels"], 3, "{version}: {gpu}");
        for none in ["dropped", "untimed", "damaged"] {
            assert_eq!(gpu[none], 0, "{version}: {gpu}");
        }
        assert_eq!(gpu["records"]["kernel"], 24_000, "{version}: {gpu}");
        assert_eq!(run.of(Kind::Lost), Vec::<&Event>::new(), "{version}");
        // what nobody asked for was not even recorded
        let calls = run.of(Kind::Api);
        assert!(calls.iter().all(|event| run.text(event) != "hipGetDevice"));
        assert_eq!(run.delivered("HIP_COMPILER_API").len(), 0);
        let devices = run.of(Kind::Stream);
        let mut devices: Vec<_> = devices.iter().filter(|e| e.stream.is_none()).collect();
        devices.sort_by_key(|event| event.device);
        assert_eq!(devices.len(), 2, "{version}");
        for (number, event) in devices.into_iter().enumerate() {
            assert_eq!(event.device, Some(number as u32));
            assert_eq!(run.text(event), "AMD Instinct MI300X");
            assert_eq!(event.bytes, Some(192 << 30));
            let args = json!({"sms": 304, "warp": 64, "compute": "gfx942"});
            assert_eq!(run.args(event), args);
        }
    }
}

#[test]
fn kernels_and_copies_are_joined_to_the_call_that_started_them() {
    for version in VERSIONS {
        let stage = Stage::new(version).with("LONG_QUEUES", "1");
        let run = stage.run(
            &[],
            "--kernels 2000 --copies 300 --threads 2 --devices 2 --streams 2",
        );
        run.compare();
        let (events, names) = stage.merge();
        let (mut kernels, mut copies) = (0, 0);
        for event in &events {
            let (count, want) = match event.kind {
                Kind::Kernel => (&mut kernels, "hipLaunchKernel"),
                Kind::Memcpy => (&mut copies, "hipMemcpyAsync"),
                _ => continue,
            };
            let cause = event
                .cause
                .unwrap_or_else(|| panic!("{version}: no cause: {event:?}"));
            let launch = &events[cause as usize];
            assert_eq!((launch.kind, names.text(launch.name)), (Kind::Launch, want));
            assert_eq!(launch.correlation, event.correlation);
            assert!(launch.start_ns <= event.start_ns);
            *count += 1;
        }
        assert_eq!((kernels, copies), (2000, 300), "{version}");
    }
}

#[test]
fn what_the_sdk_drops_withholds_or_invents_is_counted_and_the_rest_is_right() {
    let args = "--kernels 3000 --copies 300 --streams 2";
    for version in VERSIONS {
        // more than two seconds, so several deliveries: each has the count of all time
        let long = "--kernels 2000 --copies 300 --streams 2 --pause-us 1000";
        let run = Stage::new(version).with("DROP_EVERY", "7").run(&[], long);
        let dropped = run.marked("dropped");
        assert!(dropped > 500, "{dropped}");
        let lost = run.lost("device records that rocprofiler-sdk dropped");
        assert_eq!(lost, dropped as f64, "{version}");
        assert_eq!(run.recorder()["dropped"], dropped, "{version}");
        run.compare();

        let run = Stage::new(version).with("ZERO_EVERY", "11").run(&[], args);
        let zeroed = run.marked("zeroed");
        assert_eq!(zeroed, 300, "{version}");
        assert_eq!(run.lost("device records without a time"), zeroed as f64);
        run.compare();

        let run = Stage::new(version)
            .with("UNKNOWN_EVERY", "13")
            .run(&[], args);
        let unknown = run.recorder()["unknown"]["99"].as_u64().unwrap();
        assert!(unknown > 400, "{version}: {unknown}");
        run.compare();
    }
}

#[test]
fn the_clock_is_that_of_the_sdk_or_the_systems_and_its_error_holds() {
    for offset in ["0", "1", "999999999999999"] {
        let stage = Stage::new("10000").with("OFFSET_NS", offset);
        let run = stage.run(&[], "--kernels 300 --sync-every 1");
        assert_eq!(run.compare(), 903, "{offset}"); // and hipMalloc, hipFree, hipDeviceSynchronize
    }
    // without its own word for the time: CLOCK_BOOTTIME, which the double's records are not on by a known offset
    let stage = Stage::new("500")
        .with("REFUSE", "TIMESTAMP")
        .with("OFFSET_NS", "0");
    let run = stage.run(&[], "--kernels 30");
    let off =
        run.of(Kind::Kernel)[0].start_ns - run.delivered("kernel")[0]["start_ns"].as_i64().unwrap();
    let read = |clock| {
        let mut at = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `at` is a valid timespec to write to.
        unsafe { libc::clock_gettime(clock, &mut at) };
        at.tv_sec * 1_000_000_000 + at.tv_nsec
    };
    let ahead = read(libc::CLOCK_BOOTTIME) - read(libc::CLOCK_MONOTONIC);
    assert!((off + ahead).abs() < 1_000_000, "{off} {ahead}");
}

#[test]
fn what_is_refused_is_left_out_and_said() {
    for (service, word, kernels) in [
        ("HIP_RUNTIME_API", "HIP calls", true),
        ("MEMORY_COPY", "memcpy", true),
        ("RCCL_API", "RCCL calls", true),
        ("CODE_OBJECT", "kernel names", true),
        ("AGENTS", "agents", true),
        ("KERNEL_DISPATCH", "kernels of", false),
        ("CONTEXT", "a context", false),
        ("BUFFER", "a buffer", false),
        ("START", "the start", false),
    ] {
        for version in VERSIONS {
            let stage = Stage::new(version).with("REFUSE", service);
            let run = stage.run(&[], "--kernels 20 --copies 6 --collectives 2");
            assert!(run.output.status.success(), "{service}: {}", run.stderr());
            assert_eq!(run.output.stdout, b"done 28\n");
            let found = run.of(Kind::Kernel);
            let gpu = run.recorder();
            if kernels {
                assert_eq!(found.len(), 20, "{service}");
                assert!(gpu["refused"].get(word).is_some(), "{service}: {gpu}");
                assert!(!run.stderr().contains("no GPU data"), "{}", run.stderr());
            } else {
                assert_eq!(found.len(), 0, "{service}");
                let said = run.stderr();
                let lines: Vec<_> = said.lines().filter(|l| l.contains("no GPU data")).collect();
                assert_eq!(lines.len(), 1, "{service}: {said}");
                assert!(lines[0].contains(word), "{service}: {said}");
            }
            if service == "CODE_OBJECT" {
                assert!(
                    found
                        .iter()
                        .all(|event| run.text(event).starts_with("kernel "))
                );
            }
        }
    }
}

/// What the program itself sees is the same with and without us, and one line says why there is nothing.
#[test]
fn without_rocm_or_a_gpu_the_program_runs_as_it_would_and_one_line_says_why() {
    let no_gpu = Stage::new("10000").with("DEVICES", "0");
    let no_rocm = Stage::new("10000");
    for name in inferscope_doubles_rocm::NAMES {
        fs::remove_file(no_rocm.path(name)).unwrap();
    }
    // a machine without devices is nothing to hear of at each run
    for (stage, word) in [no_gpu, no_rocm].iter().zip([Some("sees no GPU"), None]) {
        let mut bare = Command::new(built("rocm-app"));
        stage.prepare(&mut bare);
        let bare = bare.args(["--kernels", "30"]).output().unwrap();
        let run = stage.run(&[], "--kernels 30");
        assert_eq!(run.output.status, bare.status);
        assert_eq!(run.output.stdout, bare.stdout);
        let said = run.stderr();
        let lines: Vec<_> = said.lines().filter(|l| l.contains("no GPU data")).collect();
        assert_eq!(lines.len(), usize::from(word.is_some()), "{said}");
        assert!(
            lines
                .iter()
                .all(|line| line.contains(word.unwrap_or_default())),
            "{said}"
        );
        assert_eq!(run.of(Kind::Kernel).len(), 0);
    }
    // where it is there, and not used
    let stage = Stage::new("10000");
    let mut command = recorder();
    stage.prepare(&mut command);
    let output = command
        .args(["-o", "run.parquet", "--", "true"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("it did not use HIP"), "{said}");
    // and where it is not wanted, nothing is said
    let run = Stage::new("10000").run(&["--no-gpu"], "--kernels 30");
    assert!(!run.stderr().contains("GPU"), "{}", run.stderr());
    assert_eq!(run.of(Kind::Kernel).len(), 0);
    assert_eq!(run.marked("disabled"), run.truth.len());
}

#[test]
fn tools_that_the_user_has_come_first_and_stay() {
    let stage = Stage::new("10000");
    let mut command = recorder();
    stage.prepare(&mut command);
    let probe = libraries().0.to_str().unwrap().to_owned();
    command.env("ROCP_TOOL_LIBRARIES", &probe);
    let program = [
        "-o",
        "run.parquet",
        "--",
        "sh",
        "-c",
        "echo $ROCP_TOOL_LIBRARIES",
    ];
    let output = command.args(program).output().unwrap();
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    let tools: Vec<_> = list.trim().split(':').collect();
    assert_eq!((tools.len(), tools[0]), (2, probe.as_str()), "{list}");
}

#[test]
fn every_call_and_memory_on_request() {
    for version in VERSIONS {
        let run = Stage::new(version).run(&["--cuda-api", "all", "--cuda-memory"], "--kernels 10");
        let calls = run.of(Kind::Api);
        let named = |name: &str| calls.iter().filter(|event| run.text(event) == name).count();
        assert_eq!(named("hipLaunchKernel"), 10, "{version}");
        assert_eq!(named("__hipPushCallConfiguration"), 10, "{version}");
        assert_eq!(named("hipGetDevice"), 1, "{version}");
        run.compare();
        // records of memory before 1.0 have a layout that is not read
        let memory = run.of(Kind::Alloc);
        let want = if version == "500" { 0 } else { 2 };
        assert_eq!(memory.len(), want, "{version}");
        if let [taken, given] = memory[..] {
            assert_eq!((taken.bytes, taken.device), (Some(4096), Some(0)));
            assert_eq!((given.bytes, run.text(given)), (Some(0), "device"));
        }
    }
}

#[test]
fn however_the_program_ends_all_that_was_complete_a_second_before_is_there() {
    for (end, code) in [("_exit", 0), ("abort", 128 + 6), ("sigterm", 128 + 15)] {
        let stage = Stage::new("10000").with("KERNEL_NS", "2000");
        // 2500 launches with a millisecond between: two flushes, and some that come after
        let run = stage.run(&[], &format!("--kernels 2500 --pause-us 1000 --exit {end}"));
        assert_eq!(run.output.status.code(), Some(code), "{end}");
        let kernels = run.of(Kind::Kernel).len();
        assert!((1000..=2500).contains(&kernels), "{end}: {kernels}");
    }
}

#[test]
fn what_is_on_a_device_while_recording_is_off_is_not_recorded() {
    let stage = Stage::new("500").with("KERNEL_NS", "2000");
    let run = stage.run(&["--delay", "400ms"], "--kernels 800 --pause-us 1000");
    let kernels = run.of(Kind::Kernel);
    assert!(
        !kernels.is_empty() && kernels.len() < 700,
        "{}",
        kernels.len()
    );
    let truth = run.truth.iter().filter(|line| line["kind"] == "kernel");
    let first = truth
        .filter_map(|line| line["start_ns"].as_i64())
        .min()
        .unwrap();
    assert!(
        kernels
            .iter()
            .all(|event| event.start_ns > first + 200_000_000)
    );
}

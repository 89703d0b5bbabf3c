//! Native code that no event reaches, seen by samples: in every Python that is here.

mod common;

use common::{libraries, pythons};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Computes for so many ms of CPU time: in the caller, in a thread of its own, between naps.
const LIBRARY: &str = r#"
#include <errno.h>
#include <pthread.h>
#include <time.h>
static double cpu_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}
static volatile double sink;
void spin(double ms) {
    double end = cpu_ms() + ms;
    do {
        double x = 1;
        for (int i = 0; i < 50000; i++) x = x * 1.0000001 + 0.5;
        sink = x;
    } while (cpu_ms() < end);
}
static void *body(void *ms) { spin(*(double *)ms); return 0; }
void spin_thread(double ms) {
    pthread_t thread;
    pthread_create(&thread, 0, body, &ms);
    pthread_join(thread, 0);
}
int naps(int n) {
    int cut = 0;
    struct timespec nap = {0, 200000};
    for (int i = 0; i < n; i++) {
        spin(0.7);
        cut += nanosleep(&nap, 0) != 0 && errno == EINTR;
    }
    return cut;
}
"#;

const PROGRAM: &str = r#"
import ctypes, os, signal, sys, time

lib = ctypes.CDLL(os.path.abspath("libspin.so"))
for function in lib.spin, lib.spin_thread:
    function.argtypes = [ctypes.c_double]

def native():
    lib.spin(300.0)

def in_fork():
    lib.spin_thread(200.0)
    sys.exit()

def forked():
    child = os.fork()
    if child == 0:
        in_fork()
    os.waitpid(child, 0)

def interpreter():
    end = time.thread_time() + 0.2
    while time.thread_time() < end:
        for _ in range(10_000):
            pass

if "--handles" in sys.argv:
    got = []
    signal.signal(signal.SIGURG, lambda *_: got.append(1))
    lib.spin(300.0)
    interpreter()
    print(len(got))
else:
    native()
    lib.spin_thread(200.0)
    forked()
    interpreter()
    print(lib.naps(300))
"#;

fn place() -> tempfile::TempDir {
    libraries();
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("spin.c"), LIBRARY).unwrap();
    fs::write(place.path().join("app.py"), PROGRAM).unwrap();
    let built = Command::new("cc")
        .args([
            "-O1",
            "-shared",
            "-fPIC",
            "spin.c",
            "-o",
            "libspin.so",
            "-lpthread",
        ])
        .current_dir(place.path())
        .status();
    assert!(built.unwrap().success());
    place
}

/// Records the program and analyses it; also its output.
fn run(place: &Path, python: &Path, flags: &[&str], arguments: &[&str]) -> (String, Value) {
    let done = |output: Output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut record = common::recorder();
    record.args(["-o", "raw.parquet", "--python"]).arg(python);
    record.args(flags).arg("app.py").args(arguments);
    let said = done(record.current_dir(place).output().unwrap());
    let mut merge = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
        .arg("raw.parquet")
        .stdout(Stdio::piped())
        .current_dir(place)
        .spawn()
        .unwrap();
    let analyze = Command::new(env!("CARGO_BIN_EXE_isc-analyze"))
        .arg("--json")
        .stdin(merge.stdout.take().unwrap())
        .output();
    let analysis = done(analyze.unwrap());
    assert!(merge.wait().unwrap().success());
    (said, serde_json::from_str(&analysis).unwrap())
}

fn library_ms(analysis: &Value, library: &str) -> f64 {
    let all = analysis["libraries"].as_array().unwrap();
    let found = all.iter().find(|entry| entry["library"] == library);
    found.map_or(0.0, |entry| entry["native_ns"].as_f64().unwrap() / 1e6)
}

/// What the main thread's CPU time took in wall time: on a busy machine it also waits for a processor.
fn wall_for_cpu(analysis: &Value) -> f64 {
    let threads = analysis["threads"].as_array().unwrap();
    let main = threads.iter().find(|t| t["process"] == 0).unwrap();
    let ns = |key: &str| main[key].as_f64().unwrap();
    1.0 + ns("runnable_ns") / ns("cpu_ns")
}

#[test]
fn a_library_without_events_has_its_cpu_time() {
    if common::instrumented("a_library_without_events_has_its_cpu_time") {
        return;
    }
    let place = place();
    for (python, version) in pythons() {
        let (said, analysis) = run(place.path(), python, &[], &[]);
        let cut: u32 = said.trim().parse().unwrap();
        // kernels before 5.11 may cut a nap short, rarely
        assert!(cut <= 3, "{version:?}: {cut} of 300 naps were cut short");
        // From 3.12 on a call through ctypes is a native span, whatever it calls; the threads that the library made
        // itself are seen by samples in all versions: 200 ms here and 200 ms in the fork.
        let wanted = if *version >= (3, 12) {
            400.0
        } else {
            400.0 + (300.0 + 210.0) * wall_for_cpu(&analysis)
        };
        let ms = library_ms(&analysis, "libspin");
        eprintln!("{version:?}: {:.3} of {wanted:.0} ms", ms / wanted);
        assert!(
            (0.8..1.1).contains(&(ms / wanted)),
            "{version:?}: {ms} of {wanted}"
        );
        let functions = analysis["functions"].as_array().unwrap();
        let share = |name: &str| {
            let function = functions
                .iter()
                .find(|f| f["name"] == name && f["kind"] == "python");
            let function = function.unwrap();
            function["native_ns"].as_f64().unwrap() / function["self_ns"].as_f64().unwrap()
        };
        assert!(share("native") > 0.7, "{version:?}: {}", share("native"));
        assert!(
            share("interpreter") < 0.2,
            "{version:?}: {}",
            share("interpreter")
        );
    }
}

#[test]
fn nothing_is_sampled_if_the_user_or_the_program_does_not_want_it() {
    let place = place();
    let (python, _) = pythons().first().unwrap();
    let (_, analysis) = run(place.path(), python, &["--no-native-samples"], &[]);
    assert_eq!(library_ms(&analysis, "libspin"), 0.0);
    let (said, analysis) = run(place.path(), python, &[], &["--handles"]);
    let got: u32 = said.trim().parse().unwrap();
    assert!(got <= 3, "the program's own handler was called {got} times");
    let caveats = analysis["caveats"].to_string();
    assert!(caveats.contains("handles SIGURG itself"), "{caveats}");
}

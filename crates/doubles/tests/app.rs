//! The program for tests, with and without the double, by the names that programs know.

use inferscope_doubles::{cdylib, install};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory for one test, with the double in it under all its names.
fn installed(test: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("doubles-app-{}-{test}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    install(&dir, &cdylib().unwrap()).unwrap();
    install(&dir, &cdylib().unwrap()).unwrap(); // and again, over itself
    dir
}

fn app(libraries: &Path) -> Command {
    let mut app = Command::new(env!("CARGO_BIN_EXE_cuda-app"));
    app.env("LD_LIBRARY_PATH", libraries);
    app
}

/// The example library, as cargo built it beside the tests.
fn injected() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let library = test
        .ancestors()
        .nth(2)
        .unwrap()
        .join("examples/libinjected.so");
    assert!(
        library.is_file(),
        "not built: cargo build -p inferscope-doubles --examples, as cargo test does by itself"
    );
    library
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn without_a_driver_it_says_so() {
    let output = app(Path::new("/nonexistent")).output().unwrap();
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(0), "no cuda\n")
    );
    let dir = installed("driverless");
    let output = app(&dir).env("ISC_DOUBLE_NO_DRIVER", "1").output().unwrap();
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(0), "no cuda\n")
    );
}

#[test]
fn all_its_work_is_in_the_truth() {
    let dir = installed("truth");
    let truth = dir.join("truth");
    let output = app(&dir)
        .args(
            "--kernels 1000 --copies 100 --graphs 10 --nodes 7 --streams 3 --threads 4 --devices 2"
                .split(' '),
        )
        .args(["--sync-every", "50", "--runtime"])
        .env("ISC_DOUBLE_DEVICES", "2")
        .env("ISC_DOUBLE_TRUTH", &truth)
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "done 1110\n", "{}", stderr(&output));
    let truth = std::fs::read_to_string(truth).unwrap();
    let count = |text: &str| truth.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("\"kind\":\"kernel\""), 1000 + 10 * 7);
    assert_eq!(count("\"name\":\"cuLaunchKernel\""), 1000);
    assert_eq!(count("\"name\":\"cudaLaunchKernel_v7000\""), 1000);
    assert_eq!(count("\"name\":\"cuMemcpyHtoDAsync_v2\""), 100);
    assert_eq!(
        count("\"disabled\":true"),
        truth.lines().count(),
        "nobody asked for records"
    );
    assert!(count("\"device\":1,") > 0);
}

#[test]
fn the_driver_loads_what_the_environment_names() {
    let dir = installed("injection");
    let run = |path: &Path| {
        let mut app = app(&dir);
        app.args("--kernels 500 --graphs 2 --nodes 10 --quiet".split(' '));
        let output = app.env("CUDA_INJECTION64_PATH", path).output().unwrap();
        assert!(output.status.success());
        assert_eq!(stdout(&output), "");
        stderr(&output)
    };
    assert_eq!(
        run(&injected()),
        "injected: (Some(0), Some(0))\ninjected: 520 kernels\n"
    );
    assert_eq!(run(Path::new("none")), "");
    assert_eq!(run(Path::new("/nonexistent/library.so")), "");
}

/// Records that come only after the program's own exit handlers, so after the collector's last flush.
#[test]
fn late_to_the_end() {
    let dir = installed("late");
    let truth = dir.join("truth");
    let output = app(&dir)
        .args(["--kernels", "500"])
        .env("CUDA_INJECTION64_PATH", injected())
        .env("ISC_DOUBLE_LATE", "exit")
        .env("ISC_DOUBLE_TRUTH", &truth)
        .output()
        .unwrap();
    assert!(
        stderr(&output).ends_with("injected: 0 kernels\n"),
        "{}",
        stderr(&output)
    );
    let truth = std::fs::read_to_string(truth).unwrap();
    let kernels = truth
        .lines()
        .filter(|line| line.contains("\"kind\":\"kernel\""));
    assert!(
        kernels.clone().all(|line| line.ends_with("\"id\":0}")),
        "all were handed over in the end"
    );
    assert_eq!(kernels.count(), 500);
}

#[test]
fn ways_to_end() {
    let dir = installed("ends");
    let end = |how: &str| {
        let output = app(&dir)
            .args(["--kernels", "10", "--exit", how])
            .output()
            .unwrap();
        (output.status.code(), output.status.signal())
    };
    assert_eq!(end("normal"), (Some(0), None));
    assert_eq!(end("_exit"), (Some(0), None));
    assert_eq!(end("abort"), (None, Some(libc::SIGABRT)));
    assert_eq!(end("sigterm"), (None, Some(libc::SIGTERM)));
    let mut child = app(&dir)
        .args(["--exit", "loop"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "it goes on");
    child.kill().unwrap();
    child.wait().unwrap();
}

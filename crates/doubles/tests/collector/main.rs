//! A small collector against the double: what it decodes is the truth, in every version and under every fault.
//!
//! Settings are read once a process, so each case runs in a child: this very test again, told by `CASE`.

mod calls;
mod collect;
mod decode;
mod faults;
mod truth;

use calls::{Cupti, Driver};
use decode::Record;
use inferscope_doubles::layout::kind;
use std::path::PathBuf;
use std::process::Command;
use truth::Line;

const VERSIONS: [u32; 10] = [
    110800, 120100, 120400, 120800, 120901, 130001, 130100, 130300, 130400, 130500,
];
/// Kernels a copy.
const KERNELS_A_COPY: usize = 5;

/// Kernels that the program launches by itself, beside those of its graphs; fewer where order and volume matter less.
fn kernels() -> usize {
    if is_child("whole") { 10_000 } else { 2_000 }
}
/// Kinds that the collector enables.
const KINDS: [u32; 13] = [
    kind::DEVICE,
    kind::CONTEXT,
    kind::STREAM,
    kind::CONCURRENT_KERNEL,
    kind::MEMCPY,
    kind::MEMCPY2,
    kind::MEMSET,
    kind::DRIVER,
    kind::RUNTIME,
    kind::SYNCHRONIZATION,
    kind::OVERHEAD,
    kind::MEMORY2,
    kind::EXTERNAL_CORRELATION,
];

/// Runs a case in a child under these settings, and leaves its truth to the child.
fn case(name: &str, settings: &[(&str, &str)]) {
    let truth = std::env::temp_dir().join(format!(
        "doubles-{}-{}",
        std::process::id(),
        tag(name, settings)
    ));
    let _ = std::fs::remove_file(&truth);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("CASE", name)
        .env("ISC_DOUBLE_TRUTH", &truth)
        .envs(
            settings
                .iter()
                .map(|(knob, value)| (format!("ISC_DOUBLE_{knob}"), value)),
        )
        .output()
        .unwrap();
    let _ = std::fs::remove_file(&truth);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{name} {settings:?}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn tag(name: &str, settings: &[(&str, &str)]) -> String {
    let text = format!("{name}{settings:?}");
    text.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Whether this process is the child for a case.
fn is_child(name: &str) -> bool {
    std::env::var("CASE").is_ok_and(|case| case == name)
}

/// What the double says of this process.
fn truth_so_far() -> Vec<Line> {
    truth::read(&PathBuf::from(std::env::var("ISC_DOUBLE_TRUTH").unwrap()))
}

/// The program under record: every kind of work, on two streams.
fn program(driver: &Driver) {
    let (context, other) = (driver.context(0), driver.context(0));
    driver.use_context(context);
    let streams = [driver.stream(), driver.stream()];
    let functions = [
        driver.function(c"_Z4sgemPfS_"),
        driver.function(c"_Z5scalePff"),
    ];
    let address = driver.allocate(4096);
    let graph = driver.graph(functions[1], 5);
    for at in 0..kernels() {
        let (stream, function) = (streams[at % 2], functions[at % 2]);
        match at % 3 {
            0 => driver.launch_runtime(function, at as u32 + 1, stream),
            _ => driver.launch(function, at as u32 + 1, stream),
        }
        if at % KERNELS_A_COPY == 0 {
            driver.copy(address, 64 + at, stream);
        }
        if at % 1000 == 0 {
            driver.set(address, 7, 512, stream);
            driver.copy_peer(other, context, 256, stream);
            driver.launch_graph(graph, stream);
            driver.synchronize(stream);
        }
    }
    driver.free(address);
    driver.synchronize_all();
}

/// Records the program with everything on, and gives what came and what is true.
fn recorded(cupti: &Cupti) -> (Vec<Record>, Vec<Line>) {
    let driver = Driver::load();
    for kind in KINDS {
        assert_eq!(cupti.enable(kind), 0, "kind {kind}");
    }
    assert_eq!(driver.init(), 0);
    cupti.push_external(5, 42);
    program(&driver);
    assert_eq!(cupti.pop_external(5), 42);
    cupti.flush(1);
    (cupti.records(), truth_so_far())
}

/// Holds each record against its line. Buffers are handed over one at a time, so both are in the same order.
fn assert_true(records: &[Record], truth: &[Line]) {
    let delivered: Vec<&Line> = truth.iter().filter(|line| line.is_delivered()).collect();
    assert_eq!(records.len(), delivered.len(), "records, delivered");
    for (record, line) in records.iter().zip(delivered) {
        record.assert_is(line);
    }
}

fn count(records: &[Record], kind: u32) -> usize {
    records.iter().filter(|record| record.kind == kind).count()
}

#[test]
fn every_version_tells_the_truth() {
    for version in VERSIONS {
        case("whole", &[("VERSION", &version.to_string())]);
        case(
            "whole",
            &[("VERSION", &version.to_string()), ("BUFFER_BYTES", "1000")],
        );
    }
}

/// Every field of every record is true, nothing is missing, and cause comes before effect.
#[test]
fn whole() {
    if !is_child("whole") {
        return;
    }
    let cupti = Cupti::load();
    cupti.register_monotonic();
    let (records, truth) = recorded(&cupti);
    assert_eq!(cupti.dropped(), 0);
    assert_true(&records, &truth);
    assert_eq!(count(&records, kind::CONCURRENT_KERNEL), 10_000 + 5 * 10);
    assert_eq!(count(&records, kind::MEMCPY), 2_000);
    assert_eq!(count(&records, kind::MEMCPY2), 10);
    assert_eq!(count(&records, kind::MEMSET), 10);
    assert_eq!(count(&records, kind::RUNTIME), 3_334);
    assert_eq!(count(&records, kind::SYNCHRONIZATION), 11);
    assert_eq!(count(&records, kind::STREAM), 4);
    assert!(
        !truth.iter().any(|line| line.is_marked()),
        "something was lost"
    );
    for line in truth.iter().filter(|line| line.is_device_work()) {
        assert_eq!(
            line.number("start_ns"),
            line.number("cupti_start"),
            "the clock is the callback's"
        );
    }
    truth::assert_causal(&truth, 2_000);
}

#[test]
fn losses_are_counted() {
    for version in ["110800", "120901", "130500"] {
        case(
            "lossy",
            &[
                ("VERSION", version),
                ("DROP_EVERY", "7"),
                ("BUFFER_BYTES", "3000"),
            ],
        );
        case(
            "refusing",
            &[("VERSION", version), ("BUFFER_BYTES", "1000")],
        );
        case("refusing", &[("VERSION", version), ("BUFFER_BYTES", "100")]);
    }
}

#[test]
fn lossy() {
    if !is_child("lossy") {
        return;
    }
    let cupti = Cupti::load();
    cupti.register_monotonic();
    let (records, truth) = recorded(&cupti);
    assert_true(&records, &truth);
    let dropped = truth.iter().filter(|line| line.has("dropped")).count();
    assert_eq!(cupti.dropped(), dropped);
    assert_eq!(dropped, (records.len() + dropped) / 7);
    assert_eq!(cupti.dropped(), 0, "the count begins again");
}

/// A collector that has no buffer every third time.
#[test]
fn refusing() {
    if !is_child("refusing") {
        return;
    }
    let cupti = Cupti::load();
    collect::refuse_every(3);
    cupti.register_monotonic();
    let (records, truth) = recorded(&cupti);
    assert_true(&records, &truth);
    let dropped = truth.iter().filter(|line| line.has("dropped")).count();
    assert!(dropped > 0);
    assert_eq!(cupti.dropped(), dropped);
    assert_eq!(collect::held(), 0, "every buffer came back");
}

#[test]
fn strange_records_can_be_stepped_over() {
    for version in VERSIONS {
        let version = version.to_string();
        let every = [
            ("UNKNOWN_EVERY", "5"),
            ("ZERO_EVERY", "11"),
            ("NULL_NAME_EVERY", "13"),
        ];
        case(
            "strange",
            &[&[("VERSION", version.as_str())], &every[..]].concat(),
        );
    }
}

#[test]
fn strange() {
    if !is_child("strange") {
        return;
    }
    let cupti = Cupti::load();
    cupti.register_monotonic();
    let (records, truth) = recorded(&cupti);
    assert_true(&records, &truth);
    let strange = count(&records, kind::UNHEARD_OF);
    assert_eq!(strange, (records.len() - strange) / 5);
    let nameless = records
        .iter()
        .filter(|record| record.is_nameless_kernel())
        .count();
    assert_eq!(nameless, (kernels() + 2 * 5) / 13);
    let zeroed = truth.iter().filter(|line| line.has("zeroed")).count();
    assert_eq!(zeroed, (records.len() - strange) / 11);
}

#[test]
fn other_clocks() {
    case("realtime", &[]);
    case("ticks", &[]);
    case("skewed", &[("SKEW_PPM", "50"), ("OFFSET_NS", "1000")]);
}

/// Most that the conversion may be wrong by in these tests, in ns, on a machine with other things to do.
const CLOCK_ERROR_NS: i64 = 100_000;

/// Without a callback, times are CLOCK_REALTIME.
#[test]
fn realtime() {
    if !is_child("realtime") {
        return;
    }
    let cupti = Cupti::load();
    let (records, truth) = recorded(&cupti);
    assert_true(&records, &truth);
    let apart_ns = collect::apart_ns();
    for line in truth.iter().filter(|line| line.is_device_work()) {
        let error_ns = line.number("cupti_start") - line.number("start_ns") - apart_ns;
        assert!(error_ns.abs() < CLOCK_ERROR_NS, "{error_ns}");
    }
}

/// A callback that counts three to the nanosecond from an origin of its own.
#[test]
fn ticks() {
    if !is_child("ticks") {
        return;
    }
    let cupti = Cupti::load();
    cupti.register(collect::ticks);
    let (records, truth) = recorded(&cupti);
    assert_true(&records, &truth);
    for line in truth.iter().filter(|line| line.is_device_work()) {
        let expected = line.number("start_ns") * 3 + collect::TICK_ORIGIN;
        let error_ns = (line.number("cupti_start") - expected) / 3;
        assert!(error_ns.abs() < CLOCK_ERROR_NS, "{error_ns}");
    }
}

#[test]
fn skewed() {
    if !is_child("skewed") {
        return;
    }
    let cupti = Cupti::load();
    cupti.register_monotonic();
    let (records, truth) = recorded(&cupti);
    assert_true(&records, &truth);
    let errors = truth.iter().filter(|line| line.is_device_work());
    let errors: Vec<i64> = errors
        .map(|line| line.number("cupti_start") - line.number("start_ns"))
        .collect();
    assert!(
        errors[0] >= 1_000 && errors.last() > errors.first(),
        "{:?}",
        (errors.first(), errors.last())
    );
}

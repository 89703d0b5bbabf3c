//! Codes, late and lost records, and the parts that the whole program does not reach.

use crate::calls::{Cupti, Driver};
use crate::collect;
use crate::decode::Record;
use crate::{case, is_child, truth_so_far};
use inferscope_doubles::layout::kind;

#[test]
fn faults_have_their_codes() {
    case(
        "faults::refused",
        &[
            ("TIMESTAMP_REFUSED", "1"),
            ("SUBSCRIBER_BUSY", "1"),
            ("FAIL_ENABLE", "10:35,39"),
        ],
    );
    case(
        "faults::absent",
        &[
            ("VERSION", "120400"),
            ("ABSENT", "cuptiSubscribe,cuptiActivityFlushPeriod"),
        ],
    );
    case(
        "faults::driverless",
        &[("NO_DRIVER", "1"), ("VERSION", "120901")],
    );
    case(
        "faults::driverless",
        &[("NO_DRIVER", "1"), ("VERSION", "130001")],
    );
    case(
        "faults::driverless",
        &[("NO_DRIVER", "1"), ("VERSION", "130500")],
    );
}

#[test]
fn refused() {
    if !is_child("faults::refused") {
        return;
    }
    let cupti = Cupti::load();
    assert_eq!(cupti.register(collect::ticks), 7);
    assert_eq!(cupti.subscribe(), 39);
    assert_eq!(cupti.enable(10), 35);
    assert_eq!(cupti.enable(39), 14);
    assert_eq!(cupti.enable(kind::MEMCPY), 0);
    assert_eq!(cupti.enable(kind::UNHEARD_OF), 21);
    assert_eq!(
        cupti.text(39),
        "CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED"
    );
}

#[test]
fn absent() {
    if !is_child("faults::absent") {
        return;
    }
    let cupti = Cupti::load();
    assert_eq!(cupti.version(), (0, 22));
    assert_eq!(cupti.subscribe(), 27);
    assert_eq!(cupti.enable_call(211), 27, "single calls came with 12.5");
    assert_eq!(cupti.enable(kind::DRIVER), 0);
}

#[test]
fn driverless() {
    if !is_child("faults::driverless") {
        return;
    }
    let cupti = Cupti::load();
    let (version, code) = match std::env::var("ISC_DOUBLE_VERSION").unwrap().as_str() {
        "120901" => ((0, 28), 15),
        "130001" => ((0, 130001), 999),
        _ => ((999, 0), 999),
    };
    assert_eq!(Driver::load().init(), 100);
    assert_eq!(cupti.version(), version);
    assert_eq!(cupti.enable(kind::DRIVER), code);
}

#[test]
fn late_and_lost_records() {
    case("faults::late", &[("LATE", "1")]);
    case("faults::stolen", &[("STOLEN_AFTER", "100")]);
}

#[test]
fn late() {
    if !is_child("faults::late") {
        return;
    }
    let (cupti, driver) = (Cupti::load(), Driver::load());
    cupti.register_monotonic();
    cupti.enable(kind::CONCURRENT_KERNEL);
    driver.init();
    driver.context(0);
    driver.launch(driver.function(c"f"), 1, 0);
    driver.synchronize_all();
    cupti.flush(0);
    assert_eq!(cupti.records().len(), 0);
    cupti.flush(1);
    assert_eq!(cupti.records().len(), 1);
}

#[test]
fn stolen() {
    if !is_child("faults::stolen") {
        return;
    }
    let (cupti, driver) = (Cupti::load(), Driver::load());
    cupti.register_monotonic();
    cupti.enable(kind::CONCURRENT_KERNEL);
    driver.init();
    driver.context(0);
    let function = driver.function(c"f");
    (0..200).for_each(|_| driver.launch(function, 1, 0));
    driver.synchronize_all();
    cupti.flush(1);
    assert_eq!(cupti.records().len(), 0);
    cupti.register_monotonic();
    driver.launch(function, 1, 0);
    driver.synchronize_all();
    cupti.flush(0);
    assert_eq!(cupti.records().len(), 1, "it can be taken back");
    assert_eq!(
        truth_so_far()
            .iter()
            .filter(|line| line.has("stolen"))
            .count(),
        200
    );
}

#[test]
fn whom_calls_are_told_to() {
    case("faults::subscribed", &[]);
}

#[test]
fn subscribed() {
    if !is_child("faults::subscribed") {
        return;
    }
    let (cupti, driver) = (Cupti::load(), Driver::load());
    assert_eq!(cupti.subscribe(), 0);
    assert_eq!(cupti.subscribe_to(2, 211), 0);
    assert_eq!(cupti.subscribe_to(3, 13), 0);
    driver.init();
    driver.context(0);
    let function = driver.function(c"f");
    driver.launch_runtime(function, 1, 0);
    driver.launch(function, 1, 0);
    driver.graph(function, 3);
    let node = (3, 13);
    assert_eq!(collect::told(), [(2, 211), (2, 211), node, node, node]);
    assert_eq!(
        cupti.name(2, 211).as_deref(),
        Some("cudaLaunchKernel_v7000")
    );
    assert_eq!(cupti.name(1, 307).as_deref(), Some("cuLaunchKernel"));
    assert_eq!(cupti.name(1, 9999), None);
}

#[test]
fn other_parts() {
    case("faults::graphs_as_one", &[]);
    case("faults::lazy", &[("LAZY_NS", "300000")]);
    case(
        "faults::unfinished",
        &[("FORCED_ZERO", "1"), ("KERNEL_NS", "10000000000")],
    );
    case("faults::single_calls", &[("VERSION", "130001")]);
    case("faults::addresses", &[]);
    case(
        "faults::late_arrival",
        &[("VERSION", "130300"), ("DEVICES", "2")],
    );
    case("faults::forked", &[]);
}

/// Ready to record kernels, with a context.
fn ready(kinds: &[u32]) -> (Cupti, Driver, usize) {
    let (cupti, driver) = (Cupti::load(), Driver::load());
    cupti.register_monotonic();
    kinds
        .iter()
        .for_each(|&kind| assert_eq!(cupti.enable(kind), 0));
    assert_eq!(driver.init(), 0);
    driver.context(0);
    let function = driver.function(c"f");
    (cupti, driver, function)
}

/// With graph tracing a launch is one record, and its nodes are none.
#[test]
fn graphs_as_one() {
    if !is_child("faults::graphs_as_one") {
        return;
    }
    let (cupti, driver, function) = ready(&[kind::GRAPH_TRACE, kind::CONCURRENT_KERNEL]);
    let graph = driver.graph(function, 4);
    driver.launch_graph(graph, 0);
    driver.launch(function, 1, 0);
    driver.synchronize_all();
    cupti.flush(0);
    let kinds: Vec<u32> = cupti.records().iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [kind::GRAPH_TRACE, kind::CONCURRENT_KERNEL]);
    let truth = truth_so_far();
    let graph = truth
        .iter()
        .find(|line| line.text("kind") == "graph")
        .unwrap();
    assert_eq!(graph.number("end_ns") - graph.number("start_ns"), 4 * 5_000);
}

/// A function's first launch takes longer, and says why.
#[test]
fn lazy() {
    if !is_child("faults::lazy") {
        return;
    }
    let (cupti, driver, function) = ready(&[kind::OVERHEAD, kind::DRIVER]);
    driver.launch_runtime(function, 1, 0);
    driver.launch(function, 1, 0);
    cupti.flush(1);
    let records = cupti.records();
    assert_eq!(
        records
            .iter()
            .filter(|record| record.kind == kind::OVERHEAD)
            .count(),
        1
    );
    let truth = truth_so_far();
    let launches = truth
        .iter()
        .filter(|line| line.text("name") == "cuLaunchKernel");
    let first = launches
        .map(|line| line.number("end_ns") - line.number("start_ns"))
        .next();
    assert!(first >= Some(300_000), "{first:?}");
}

/// A forced flush does not wait.
#[test]
fn unfinished() {
    if !is_child("faults::unfinished") {
        return;
    }
    let (cupti, driver, function) = ready(&[kind::CONCURRENT_KERNEL]);
    driver.launch(function, 1, 0);
    cupti.flush(0);
    assert_eq!(cupti.records().len(), 0, "it runs for ten seconds");
    cupti.flush(1);
    assert_eq!(cupti.records().len(), 1);
    assert!(truth_so_far().iter().any(|line| line.has("zeroed")));
}

/// Only the calls that were asked for are recorded.
#[test]
fn single_calls() {
    if !is_child("faults::single_calls") {
        return;
    }
    let (cupti, driver, function) = ready(&[]);
    assert_eq!(cupti.enable_call(211), 0);
    driver.launch_runtime(function, 1, 0);
    driver.launch(function, 1, 0);
    cupti.flush(1);
    let kinds: Vec<u32> = cupti.records().iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [kind::RUNTIME]);
}

/// `cuGetProcAddress_v2` gives the newest version of a name.
#[test]
fn addresses() {
    if !is_child("faults::addresses") {
        return;
    }
    let driver = Driver::load();
    assert_eq!(
        driver.address(c"cuMemAlloc"),
        driver.address(c"cuMemAlloc_v2")
    );
    assert!(driver.address(c"cuLaunchKernel").is_some());
    assert_eq!(driver.address(c"cuNoSuchThing"), None);
}

/// Who comes late is told what there is already.
#[test]
fn late_arrival() {
    if !is_child("faults::late_arrival") {
        return;
    }
    let (cupti, driver, _) = ready(&[]);
    driver.stream();
    driver.context(1);
    driver.context(1);
    for kind in [kind::DEVICE, kind::CONTEXT, kind::STREAM] {
        assert_eq!(cupti.enable_and_dump(kind), 0);
    }
    cupti.flush(1);
    let records = cupti.records();
    let count = |kind| records.iter().filter(|record| record.kind == kind).count();
    assert_eq!(
        [kind::DEVICE, kind::CONTEXT, kind::STREAM].map(count),
        [2, 3, 4]
    );
    let whole = |record: &Record| cupti.struct_bytes(record.kind) == record.bytes.len();
    assert!(records.iter().all(whole));
}

/// The driver does not survive a fork, and the child's exit leaves the parent's truth alone.
#[test]
fn forked() {
    if !is_child("faults::forked") {
        return;
    }
    let (cupti, driver, function) = ready(&[kind::CONCURRENT_KERNEL]);
    driver.launch(function, 1, 0);
    // SAFETY: the child calls into the double only, which takes no lock then, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = driver.init() == 3 && cupti.enable(kind::MEMCPY) == 15;
        // SAFETY: ends the child, with its exit handlers.
        unsafe { libc::exit(!refused as i32) };
    }
    let mut status = 0;
    // SAFETY: a child of this process, a number to write to.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0);
    driver.synchronize_all();
    cupti.flush(1);
    assert_eq!(cupti.records().len(), 1);
    assert_eq!(
        truth_so_far()
            .iter()
            .filter(|line| line.text("kind") == "kernel")
            .count(),
        1
    );
}

//! Databases of Nsight Systems and rocprofv3: made here, row by row, and a real one from `../shared/traces` if it is there.

mod common;

use common::repository;
use inferscope::cli::Source;
use inferscope::import::{self, Any, Lenient};
use inferscope::trace::{Event, Names, text};
use rusqlite::Connection;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A database that these statements make.
fn database(folder: &Path, sql: &str) -> PathBuf {
    let path = folder.join("it.sqlite");
    let _ = fs::remove_file(&path);
    let db = Connection::open(&path).unwrap();
    db.execute_batch(sql).unwrap();
    path
}

/// All rows of an imported file, its format and its hash.
fn rows(
    path: &Path,
    lenient: bool,
) -> inferscope::error::Result<(Vec<Event>, Names, &'static str, String)> {
    let any = import::open(&Source::from(path), &Lenient::new(lenient))?;
    let Any::Foreign(mut import) = any else {
        panic!("taken for a trace of ours")
    };
    let (mut names, mut events) = (Names::default(), Vec::new());
    while import.next_batch(&mut names, &mut events)? {}
    let hash = import.content_hash().unwrap();
    Ok((events, names, import.format(), hash))
}

/// The rows as text, without spaces at will.
fn printed(path: &Path) -> String {
    let (events, names, ..) = rows(path, false).unwrap();
    text::print(&events, &names)
}

fn assert_rows(path: &Path, wanted: &str) {
    let found = printed(path);
    let cells = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    assert!(cells(&found) == cells(wanted), "{found}");
}

fn error(path: &Path) -> String {
    rows(path, false)
        .unwrap_err()
        .to_string()
        .replace(&path.display().to_string(), "FILE")
}

/// Global ids of pid 100 and its thread 101: on top there is the number of a virtual machine.
const PID: i64 = 1 << 48 | 100 << 24;
const TID: i64 = PID | 101;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

/// Schema 3: a bit of everything.
fn nsys_sql() -> String {
    format!(
        "CREATE TABLE StringIds (id INTEGER NOT NULL PRIMARY KEY, value TEXT NOT NULL);
         INSERT INTO StringIds VALUES (1, 'gemm<float>(int)'), (2, 'gemm'), (3, 'cudaLaunchKernel_v7000'),
            (4, 'cuMemAlloc_v2'), (5, 'pthread_cond_wait'), (6, 'read'), (7, 'Command Buffer Full'), (8, 'worker'),
            (9, 'registered'), (10, '/usr/lib/libtorch.so'), (11, 'at::native'), (12, 'SECRET=1');
         CREATE TABLE TARGET_INFO_SESSION_START_TIME (utcEpochNs INTEGER, utcTime TEXT, localTime TEXT, systemClockNs INTEGER);
         INSERT INTO TARGET_INFO_SESSION_START_TIME VALUES (1700000000000000000, '', '', 5000);
         CREATE TABLE TARGET_INFO_SYSTEM_ENV (globalVid INTEGER, name TEXT, value TEXT);
         INSERT INTO TARGET_INFO_SYSTEM_ENV VALUES (1, 'Hostname', 'node7'), (1, 'KernelVersion', '6');
         CREATE TABLE META_DATA_CAPTURE (name TEXT, value TEXT);
         INSERT INTO META_DATA_CAPTURE VALUES ('ENV', 'SECRET=1');
         CREATE TABLE TARGET_INFO_CUDA_DEVICE (gpuId INTEGER, cudaId INTEGER, pid INTEGER, uuid TEXT);
         INSERT INTO TARGET_INFO_CUDA_DEVICE VALUES (1, 0, 100, 'GPU-x');
         CREATE TABLE TARGET_INFO_GPU (id INTEGER, name TEXT, totalMemory INTEGER, smCount INTEGER, threadsPerWarp INTEGER,
            maxWarpsPerSm INTEGER, maxRegistersPerSm INTEGER, maxShmemPerSm INTEGER, computeMajor INTEGER, computeMinor INTEGER);
         INSERT INTO TARGET_INFO_GPU VALUES (1, 'NVIDIA H100', 85899345920, 132, 32, 64, 65536, 233472, 9, 0);
         CREATE TABLE TARGET_INFO_CUDA_STREAM (streamId INTEGER, hwId INTEGER, vmId INTEGER, processId INTEGER,
            contextId INTEGER, priority INTEGER, flag INTEGER);
         INSERT INTO TARGET_INFO_CUDA_STREAM VALUES (7, 0, 1, 100, 1, -5, 2), (8, 0, 1, 100, 1, 0, 1);
         CREATE TABLE PROCESSES (globalPid INTEGER, pid INTEGER, name TEXT);
         INSERT INTO PROCESSES VALUES ({PID}, 100, 'python3'), (7, 0, 'idle');
         CREATE TABLE ThreadNames (nameId INTEGER, priority INTEGER, globalTid INTEGER);
         INSERT INTO ThreadNames VALUES (8, 20, {TID}), (8, 20, {TID} + 1);
         CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INTEGER, end INTEGER, eventClass INTEGER, globalTid INTEGER,
            correlationId INTEGER, nameId INTEGER, returnValue INTEGER, callchainId INTEGER);
         INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (10000, 12000, 0, {TID}, 41, 3, 0, NULL), (13000, 14000, 1, {TID}, 42, 4, 2, NULL);
         CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
            streamId INTEGER, correlationId INTEGER, globalPid INTEGER, demangledName INTEGER, shortName INTEGER,
            registersPerThread INTEGER, gridX INTEGER, gridY INTEGER, gridZ INTEGER, blockX INTEGER, blockY INTEGER,
            blockZ INTEGER, staticSharedMemory INTEGER, dynamicSharedMemory INTEGER, graphNodeId INTEGER, graphId INTEGER);
         INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES
            (15000, 25000, 0, 1, 7, 41, {PID}, 1, 2, 32, 50, 4, 1, 256, 1, 1, 16, 1024, NULL, 0),
            (26000, 27000, 0, 1, 7, 43, {PID}, 1, 2, 32, 1, 1, 1, 32, 1, 1, 0, 0, 4294967299, 5);
         CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
            streamId INTEGER, correlationId INTEGER, globalPid INTEGER, bytes INTEGER, copyKind INTEGER, srcKind INTEGER, dstKind INTEGER);
         INSERT INTO CUPTI_ACTIVITY_KIND_MEMCPY VALUES (28000, 29000, 0, 1, 7, 44, {PID}, 4096, 1, 0, 2),
            (29000, 30000, 0, 1, 7, 0, {PID}, 4096, 12, 4, 4), (30000, 30500, 0, 1, 7, 45, {PID}, 8, 77, 9, 2);
         CREATE TABLE CUPTI_ACTIVITY_KIND_MEMSET (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
            streamId INTEGER, correlationId INTEGER, globalPid INTEGER, value INTEGER, bytes INTEGER, memKind INTEGER);
         INSERT INTO CUPTI_ACTIVITY_KIND_MEMSET VALUES (31000, 31001, 0, 1, 7, 46, {PID}, 0, 64, 2);
         CREATE TABLE CUPTI_ACTIVITY_KIND_GRAPH_TRACE (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
            streamId INTEGER, correlationId INTEGER, globalPid INTEGER, graphId INTEGER, graphExecId INTEGER);
         INSERT INTO CUPTI_ACTIVITY_KIND_GRAPH_TRACE VALUES (32000, 40000, 0, 1, 7, 47, {PID}, 3, 6);
         CREATE TABLE CUPTI_ACTIVITY_KIND_SYNCHRONIZATION (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
            streamId INTEGER, correlationId INTEGER, globalPid INTEGER, syncType INTEGER, eventId INTEGER, eventSyncId INTEGER);
         INSERT INTO CUPTI_ACTIVITY_KIND_SYNCHRONIZATION VALUES (41000, 42000, 0, 1, 7, 48, {PID}, 2, 7, 21),
            (42000, 43000, 0, 1, 4294967295, 49, {PID}, 4, 0, NULL);
         CREATE TABLE CUPTI_ACTIVITY_KIND_OVERHEAD (start INTEGER, end INTEGER, globalTid INTEGER, correlationId INTEGER,
            nameId INTEGER, overheadType INTEGER);
         INSERT INTO CUPTI_ACTIVITY_KIND_OVERHEAD VALUES (43000, 44000, {TID}, 41, 7, 8);
         CREATE TABLE OSRT_API (start INTEGER, end INTEGER, globalTid INTEGER, nameId INTEGER, returnValue INTEGER, nestingLevel INTEGER);
         INSERT INTO OSRT_API VALUES (45000, 47000, {TID}, 5, 0, 0), (47000, 48000, {TID}, 6, 3, 0), (47100, 47200, {TID}, 5, 0, 1);
         CREATE TABLE COMPOSITE_EVENTS (id INTEGER NOT NULL PRIMARY KEY, start INTEGER, cpu INTEGER, threadState INTEGER,
            globalTid INTEGER, cpuCycles INTEGER);
         INSERT INTO COMPOSITE_EVENTS VALUES (1, 48500, 0, 1, {TID}, 1000);
         CREATE TABLE SAMPLING_CALLCHAINS (id INTEGER, symbol INTEGER, module INTEGER, stackDepth INTEGER, PRIMARY KEY (id, stackDepth));
         INSERT INTO SAMPLING_CALLCHAINS VALUES (1, 11, 10, 0), (1, 2, 10, 1);
         CREATE TABLE NVTX_EVENTS (start INTEGER, end INTEGER, eventType INTEGER, rangeId INTEGER, category INTEGER,
            text TEXT, globalTid INTEGER, textId INTEGER, domainId INTEGER, uint64Value INTEGER, doubleValue REAL);
         INSERT INTO NVTX_EVENTS VALUES
            (9000, 50000, 59, NULL, NULL, 'step', {TID}, NULL, 0, NULL, NULL),
            (9100, 49000, 60, 77, 4, NULL, {TID}, 9, 2, NULL, 0.5),
            (9200, NULL, 34, NULL, NULL, 'mark', {TID}, NULL, 0, 8, NULL),
            (9300, NULL, 59, NULL, NULL, 'open', {TID}, NULL, 0, NULL, NULL),
            (9400, 9900, 59, NULL, NULL, 'Waiting for GIL', {TID}, NULL, 3, NULL, NULL),
            (1, NULL, 75, NULL, NULL, 'NCCL', {TID}, NULL, 2, NULL, NULL),
            (1, NULL, 75, NULL, NULL, 'Python GIL', {TID}, NULL, 3, NULL, NULL),
            (1, NULL, 33, NULL, 4, 'comm', {TID}, NULL, 2, NULL, NULL);"
    )
}

const NSYS_ROWS: &str = r#"
track     kind      start    end      name                                file                  pid  correlation  flow  bytes        value  args
py:101    nvtx      9us      50us     step                                -                     100  -            -     -            -      -
py:101    nvtx      9100ns   49us     registered                          -                     100  -            77    -            0.5    {"domain":"NCCL","category":"comm"}
py:101    mark      9200ns   -        mark                                -                     100  -            -     -            8      -
py:101    wait      9400ns   9900ns   gil                                 -                     100  -            -     -            500    -
py:101    api       10us     12us     cudaLaunchKernel                    -                     100  41           -     -            -      -
py:101    api       13us     14us     cuMemAlloc_v2                       -                     100  42           -     -            -      {"return":2}
py:101    wait      45us     47us     lock                                -                     100  -            -     -            2000   {"call":"pthread_cond_wait"}
py:101    api       47us     48us     read                                -                     100  -            -     -            -      -
py:101    api       47100ns  47200ns  pthread_cond_wait                   -                     100  -            -     -            -      -
py:101    overhead  43us     44us     "Command Buffer Full"               -                     100  -            -     -            -      -
cuda:1/7  kernel    15us     25us     gemm<float>(int)                    -                     100  41           -     -            -      {"grid":[50,4,1],"block":[256,1,1],"registers":32,"shared_bytes":1040}
cuda:1/7  kernel    26us     27us     gemm<float>(int)                    -                     100  43           -     -            -      {"grid":[1,1,1],"block":[32,1,1],"registers":32,"shared_bytes":0,"graph":5,"node":4294967299}
cuda:1/7  memcpy    28us     29us     "Memcpy HtoD (Pageable -> Device)"  -                     100  44           -     4096         -      {"copy":"host to device","from":"pageable","to":"device"}
cuda:1/7  memcpy    29us     30us     "Memcpy DtoH (Managed -> Managed)"  -                     100  -            -     4096         -      {"copy":"device to host","from":"managed","to":"managed","unified":true}
cuda:1/7  memcpy    30us     30500ns  Memcpy                              -                     100  45           -     8            -      -
cuda:1/7  memset    31us     31001ns  "Memset (Device)"                   -                     100  46           -     64           -      -
cuda:1/7  kernel    32us     40us     "graph 3"                           -                     100  47           -     -            -      {"graph":3,"whole_graph":true}
cuda:1/7  sync      41us     42us     "Stream Wait Event"                 -                     100  48           -     -            -      {"sync":"Stream Wait Event","event":21}
cuda:1    sync      42us     43us     "Context Sync"                      -                     100  49           -     -            -      {"sync":"Context Sync"}
py:101    sample    48500ns  -        /usr/lib/libtorch.so                /usr/lib/libtorch.so  100  -            -     -            -      {"symbol":"at::native"}
py:101    nvtx      9300ns   50us     open                                -                     100  -            -     -            -      {"open":true}
py:101    thread    9us      -        worker                              -                     100  -            -     -            -      -
cuda:1/7  stream    9us      -        "stream 7"                          -                     100  -            -     -            -      {"priority":-5,"stream":"non-blocking"}
cuda:1    stream    9us      -        "NVIDIA H100"                       -                     100  -            -     85899345920  -      {"compute":"9.0","registers_per_sm":65536,"shared_bytes_per_sm":233472,"sms":132,"threads_per_sm":2048,"warp":32}
py:0      process   9us      50us     python3                             -                     100  -            -     -            -      {"clock":"realtime","host":"node7"}
py:0      clock     9us      -        realtime                            -                     100  -            -     -            -      {"error_ns":0,"monotonic_ns":1700000000000004000,"realtime_ns":1700000000000004000}
"#;

#[test]
fn everything_of_an_nsys_export_becomes_the_row_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path(), &nsys_sql());
    assert_rows(&path, NSYS_ROWS);
    let (_, names, format, hash) = rows(&path, false).unwrap();
    assert_eq!(format, "nsys-sqlite");
    assert_eq!(
        hash,
        blake3::hash(&fs::read(&path).unwrap()).to_hex().to_string()
    );
    // What no event refers to is not even read.
    assert_eq!(names.find("SECRET=1"), None);
}

#[test]
fn packed_and_piped_databases_are_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = database(folder.path(), &nsys_sql());
    let plain = fs::read(&path).unwrap();
    let half = plain.len() / 2;
    let members = [gzip(&plain[..half]), gzip(&plain[half..])].concat();
    for (packed, name) in [
        (gzip(&plain), "gz"),
        (members, "members"),
        (zstd::encode_all(&plain[..], 1).unwrap(), "zst"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, &packed).unwrap();
        assert_rows(&path, NSYS_ROWS);
        let hash = rows(&path, false).unwrap().3;
        assert_eq!(hash, blake3::hash(&packed).to_hex().to_string());
    }
    let cut = folder.path().join("cut");
    fs::write(&cut, &gzip(&plain)[..1000]).unwrap();
    let said = error(&cut);
    assert!(
        said.starts_with("FILE: cut off in its compressed data"),
        "{said}"
    );

    let merge = |from: Stdio| {
        let done = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
            .stdin(from)
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        done.unwrap()
    };
    let file = merge(fs::File::open(&path).unwrap().into())
        .wait_with_output()
        .unwrap();
    let mut piped = merge(Stdio::piped());
    piped.stdin.take().unwrap().write_all(&plain).unwrap();
    let piped = piped.wait_with_output().unwrap();
    assert!(
        file.status.success() && piped.status.success(),
        "{}",
        String::from_utf8_lossy(&piped.stderr)
    );
    assert!(file.stdout == piped.stdout && !file.stdout.is_empty());
}

#[test]
fn tables_columns_and_strings_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    // Schema 2: times count from the start of the session, and device work does not say whose it is.
    let old = format!(
        "CREATE TABLE TARGET_INFO_SESSION_START_TIME (utcEpochNs INTEGER);
         INSERT INTO TARGET_INFO_SESSION_START_TIME VALUES (1600000000000000000);
         CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (nameId TEXT, globalTid INTEGER, end INTEGER, start INTEGER, correlationId INTEGER);
         INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES ('cudaLaunchKernel_v7000', {TID}, 2000, 1000, 5);
         CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (shortName INTEGER, end INTEGER, start INTEGER, deviceId INTEGER, streamId INTEGER,
            correlationId INTEGER);
         INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (1, 4000, 3000, 2, 7, 5);
         CREATE TABLE NVTX_EVENTS (start INTEGER, end INTEGER, text TEXT, globalTid INTEGER);
         INSERT INTO NVTX_EVENTS VALUES (500, 5000, 'range', {TID}), (600, NULL, 'mark', {TID});"
    );
    assert_rows(
        &database(folder.path(), &old),
        r#"track     kind     start   end  name              pid  correlation  args
           py:101    nvtx     500ns   5us  range             100  -            -
           py:101    mark     600ns   -    mark              100  -            -
           py:101    api      1us     2us  cudaLaunchKernel  100  5            -
           cuda:2/7  kernel   3us     4us  kernel            100  5            -
           py:0      process  500ns   5us  process           100  -            {"clock":"realtime"}
           py:0      clock    500ns   -    realtime          100  -            {"error_ns":0,"monotonic_ns":1600000000000000500,"realtime_ns":1600000000000000500}"#,
    );
    // A view is a program, and so no table.
    let view = "CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT);
         CREATE VIEW NVTX_EVENTS AS WITH RECURSIVE n(start) AS (SELECT 1 UNION ALL SELECT start + 1 FROM n) SELECT * FROM n;
         CREATE TABLE OSRT_API (start INTEGER, end INTEGER, nameId INTEGER);
         INSERT INTO OSRT_API VALUES (1, 2, 7);";
    assert_rows(
        &database(folder.path(), view),
        r#"track  kind     start  end  name           pid  args
           py:main  api      1ns    2ns  "system call"  0  -
           py:main  process  1ns    2ns  process        0  {"clock":"unknown"}"#,
    );
    let empty = database(
        folder.path(),
        "CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT);",
    );
    assert_eq!(rows(&empty, false).unwrap().0.len(), 0);
}

#[test]
fn a_wrong_cell_is_an_error_with_its_place_or_is_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = "FILE: damaged in CUPTI_ACTIVITY_KIND_KERNEL, row 2: ";
    for (set, what) in [
        ("start = 'soon'", "start is a text, not a whole number"),
        ("start = NULL", "start is null"),
        ("start = -1", "start is before time began: -1"),
        (
            "end = 2305843009213693952",
            "end is no time: 2305843009213693952",
        ),
        ("end = 9", "it ends at 9, before its start at 26000"),
        ("end = 26000.5", "end is a fraction, not a whole number"),
        (
            "streamId = 99999999999",
            "streamId is no number of one: 99999999999",
        ),
        (
            "globalPid = x'00'",
            "globalPid is binary, not a whole number",
        ),
        (
            "demangledName = x'00'",
            "demangledName is binary, not a whole number",
        ),
        ("gridX = 'wide'", "gridX is a text, not a whole number"),
    ] {
        let sql = format!(
            "{}; UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET {set} WHERE rowid = 2",
            nsys_sql()
        );
        let path = database(folder.path(), &sql);
        assert_eq!(error(&path), format!("{kernel}{what}"));
        let (events, names, ..) = rows(&path, true).unwrap();
        let lost = events.last().unwrap();
        assert_eq!(
            (names.text(lost.name), lost.value),
            ("broken events", Some(1.0)),
            "{set}"
        );
        assert_eq!(events.len(), NSYS_ROWS.trim().lines().count() - 1); // less the header and the row, and one more
    }
    // A text longer than any name, which is not even read.
    let sql = format!(
        "{}; UPDATE NVTX_EVENTS SET text = printf('%.*c', 70000000, 'x') WHERE rowid = 3",
        nsys_sql()
    );
    let path = database(folder.path(), &sql);
    assert_eq!(
        error(&path),
        "FILE: damaged in NVTX_EVENTS, row 3: string or blob too big"
    );
    let (events, ..) = rows(&path, true).unwrap();
    assert_eq!(events.last().unwrap().value, Some(1.0));
    assert_eq!(events.len(), NSYS_ROWS.trim().lines().count() - 1);
}

#[test]
fn another_database_is_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    for sql in [
        "CREATE TABLE passengers (name TEXT)",
        "CREATE TABLE rocpd_api (id INTEGER); CREATE TABLE rocpd_op (id INTEGER)",
    ] {
        let path = database(folder.path(), sql);
        assert_eq!(
            error(&path),
            "FILE: an SQLite database of no format that is known, not a trace"
        );
    }
    let path = folder.path().join("header");
    fs::write(&path, b"SQLite format 3\0 and nothing of the kind").unwrap();
    assert_eq!(
        error(&path),
        "FILE: damaged in its schema: file is not a database"
    );
}

/// A rocpd database of version 3, 4 (times in a table of their own) or 5 (4.1: they are back). Each has one process's tables.
fn rocpd_sql(version: u32, set: &str) -> String {
    let tracked = version > 3;
    let (start, end) = if version == 4 {
        ("start_id", "end_id")
    } else {
        ("start", "end")
    };
    let place = |of: &str| {
        if tracked {
            "track_id INTEGER".to_owned()
        } else {
            format!("nid INTEGER, pid INTEGER, tid INTEGER{of}")
        }
    };
    let mut sql = format!(
        "CREATE TABLE rocpd_string{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, guid TEXT, string TEXT);
         INSERT INTO rocpd_string{set} VALUES (1, '', 'HIP_RUNTIME_API'), (2, '', 'hipLaunchKernel'), (3, '', 'MARKER_CORE_RANGE_API'),
            (4, '', 'roctxRangePushA'), (5, '', 'KERNEL_DISPATCH'), (6, '', 'MEMORY_COPY_HOST_TO_DEVICE'), (7, '', 'HSA_CORE_API'),
            (8, '', 'hsa_signal_create'), (9, '', 'user'), (10, '', 'phase'), (11, '', 'roctxRangeStartA'), (12, '', 'roctxMarkA'),
            (13, '', 'MARKER_CORE_API'), (14, '', 'SECRET');
         CREATE TABLE rocpd_info_node{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, hash BIGINT, machine_id TEXT, hostname TEXT, hardware_name TEXT);
         INSERT INTO rocpd_info_node{set} VALUES (77, 1, 'confidential', 'mi300', 'x86_64');
         CREATE TABLE rocpd_info_process{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, nid INTEGER, ppid INTEGER, pid INTEGER, command TEXT, environment TEXT);
         INSERT INTO rocpd_info_process{set} VALUES (9, 77, 1, 500, 'python --password', '{{\"A\":1}}');
         CREATE TABLE rocpd_info_thread{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, nid INTEGER, ppid INTEGER, pid INTEGER, tid INTEGER, name TEXT);
         INSERT INTO rocpd_info_thread{set} VALUES (3, 77, 1, 9, 501, 'main'), (4, 77, 1, 9, 502, 'idle');
         CREATE TABLE rocpd_info_agent{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, nid INTEGER, pid INTEGER, type TEXT, name TEXT, product_name TEXT, extdata TEXT);
         INSERT INTO rocpd_info_agent{set} VALUES (0, 77, 9, 'CPU', 'EPYC', '', '{{}}'),
            (4, 77, 9, 'GPU', 'gfx942', 'AMD Instinct MI300X', '{{\"cu_count\":304,\"wave_front_size\":64}}'),
            (5, 77, 9, 'GPU', 'gfx942', NULL, 'none');
         CREATE TABLE rocpd_info_queue{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, name TEXT);
         CREATE TABLE rocpd_info_stream{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, nid INTEGER, pid INTEGER, name TEXT);
         INSERT INTO rocpd_info_stream{set} VALUES (0, 77, 9, 'Default Stream'), (1, 77, 9, 'Stream 0'), (2, 77, 9, 'Stream 1');
         CREATE TABLE rocpd_info_kernel_symbol{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, kernel_name TEXT, display_name TEXT, arch_vgpr_count INTEGER);
         INSERT INTO rocpd_info_kernel_symbol{set} VALUES (21, '_Z4gemmv', 'gemm()', 64);
         CREATE TABLE rocpd_event{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, category_id INTEGER, stack_id INTEGER, extdata TEXT);
         INSERT INTO rocpd_event{set} VALUES (1, 1, 100, '{{}}'), (2, 3, 99, '{{\"message\":\"forward\"}}'), (3, 5, 100, '{{}}'), (4, 5, 100, '{{}}'),
            (5, 5, 101, '{{}}'), (6, 7, 102, '{{}}'), (7, 9, 103, '{{}}'), (8, 3, 104, '{{\"message\":\"request\"}}'), (9, 13, 105, '{{\"message\":\"here\"}}'), (10, 1, 106, '{{}}');
         CREATE TABLE rocpd_track{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, nid INTEGER, pid INTEGER, tid INTEGER, agent_id INTEGER, queue_id INTEGER, stream_id INTEGER);
         INSERT INTO rocpd_track{set} VALUES (1, 77, 9, 3, NULL, NULL, NULL), (2, 77, 9, 3, 4, 1, 1), (3, 77, 9, 3, 5, 2, 0), (4, 77, 9, 3, NULL, NULL, 1), (5, 77, 9, 3, 4, 0, 0);
         CREATE TABLE rocpd_region{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, {on}, {start} BIGINT, {end} BIGINT, name_id INTEGER, event_id INTEGER);
         CREATE TABLE rocpd_kernel_dispatch{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, {work}, kernel_id INTEGER, {start} BIGINT, {end} BIGINT,
            group_segment_size INTEGER, workgroup_size_x INTEGER, workgroup_size_y INTEGER, workgroup_size_z INTEGER,
            grid_size_x INTEGER, grid_size_y INTEGER, grid_size_z INTEGER, event_id INTEGER);
         CREATE TABLE rocpd_memory_copy{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, {copy}, {start} BIGINT, {end} BIGINT, name_id INTEGER,
            dst_agent_id INTEGER, src_agent_id INTEGER, size INTEGER, event_id INTEGER);
         CREATE TABLE rocpd_memory_allocate{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, {alloc}, type TEXT, level TEXT, {start} BIGINT, {end} BIGINT,
            address INTEGER, size INTEGER, event_id INTEGER);
         CREATE TABLE rocpd_sample{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, track_id INTEGER, {stamp} BIGINT, event_id INTEGER);
         CREATE VIEW rocpd_region_view AS SELECT * FROM rocpd_region{set};",
        on = place(""),
        work = place(", agent_id INTEGER, queue_id INTEGER, stream_id INTEGER"),
        copy = place(", stream_id INTEGER"),
        alloc = place(", agent_id INTEGER, queue_id INTEGER, stream_id INTEGER"),
        stamp = if version == 4 { "timestamp_id" } else { "timestamp" },
    );
    if version > 3 {
        let names = "(1, 'HIP_RUNTIME_API'), (3, 'MARKER_CORE_RANGE_API'), (5, 'KERNEL_DISPATCH'), (7, 'HSA_CORE_API'), (9, 'user'), (13, 'MARKER_CORE_API')";
        sql += &format!("CREATE TABLE rocpd_info_category{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, name TEXT);
            INSERT INTO rocpd_info_category{set} VALUES {names};");
    }
    if version == 4 {
        sql += &format!(
            "CREATE TABLE rocpd_timestamp{set} (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, value BIGINT, track_id INTEGER);"
        );
    }
    let mut stamps = 0;
    // Each of a row's times is itself, or the number of a row that has it.
    let mut at = |sql: &mut String, ns: i64| {
        if version != 4 {
            return ns.to_string();
        }
        stamps += 1;
        *sql += &format!("INSERT INTO rocpd_timestamp{set} VALUES ({stamps}, {ns}, NULL);");
        stamps.to_string()
    };
    for (table, track, place, head, start, end, tail) in [
        ("region", 1, "", "", 1000, 9000, "4, 2"),
        ("region", 1, "", "", 2000, 3000, "2, 1"),
        ("region", 1, "", "", 3000, 3100, "8, 6"),
        ("region", 1, "", "", 3200, 3300, "10, 7"),
        ("region", 1, "", "", 3300, 8000, "11, 8"),
        (
            "kernel_dispatch",
            2,
            ", 4, 1, 1",
            "21, ",
            4000,
            5000,
            "1024, 256, 1, 1, 1000, 4, 1, 3",
        ),
        (
            "kernel_dispatch",
            3,
            ", 5, 2, 0",
            "21, ",
            4500,
            5500,
            "0, 64, 1, 1, 64, 1, 1, 4",
        ),
        ("memory_copy", 4, ", 1", "", 6000, 7000, "6, 5, 0, 4096, 5"),
        (
            "memory_allocate",
            5,
            ", 4, 0, 0",
            "'ALLOC', 'REAL', ",
            7000,
            7100,
            "4660, 65536, 10",
        ),
        (
            "memory_allocate",
            1,
            ", NULL, 0, 0",
            "'FREE', 'REAL', ",
            7200,
            7300,
            "4660, 0, 10",
        ),
    ] {
        let (start, end) = (at(&mut sql, start), at(&mut sql, end));
        let place = if tracked {
            track.to_string()
        } else {
            format!("77, 9, 3{place}")
        };
        sql += &format!(
            "INSERT INTO rocpd_{table}{set} VALUES (NULL, {place}, {head}{start}, {end}, {tail});"
        );
    }
    let stamp = at(&mut sql, 8500);
    sql + &format!("INSERT INTO rocpd_sample{set} VALUES (NULL, 1, {stamp}, 9);")
}

const ROCPD_ROWS: &str = r#"
track     kind     start   end     name                            pid  tid  correlation  flow  bytes  args
py:501    nvtx     1us     9us     forward                         500  -    -            -     -      -
py:501    api      2us     3us     hipLaunchKernel                 500  -    100          -     -      -
py:501    api      3us     3100ns  hsa_signal_create               500  -    102          -     -      -
py:501    scope    3200ns  3300ns  phase                           500  -    -            -     -      {"cat":"user"}
py:501    nvtx     3300ns  8us     request                         500  -    -            104   -      -
py:501    mark     8500ns  -       here                            500  -    -            -     -      -
cuda:0/1  kernel   4us     5us     gemm()                          500  -    100          -     -      {"grid":[4,4,1],"block":[256,1,1],"registers":64,"shared_bytes":1024,"queue":1}
cuda:1/0  kernel   4500ns  5500ns  gemm()                          500  -    100          -     -      {"grid":[1,1,1],"block":[64,1,1],"registers":64,"shared_bytes":0,"queue":2}
cuda:1/1  memcpy   6us     7us     "Memcpy HtoD (Host -> Device)"  500  -    101          -     4096   {"copy":"host to device","from":"host","to":"device"}
cuda:0    alloc    7us     7100ns  [memory]                        500  501  -            -     65536  {"type":"alloc","level":"real","address":4660}
py:501    alloc    7200ns  7300ns  [memory]                        500  -    -            -     -      {"type":"free","level":"real","address":4660}
py:501    thread   1us     -       main                            500  -    -            -     -      -
cuda:1/0  stream   1us     -       "Default Stream"                500  -    -            -     -      -
cuda:0/1  stream   1us     -       "Stream 0"                      500  -    -            -     -      -
cuda:1/1  stream   1us     -       "Stream 0"                      500  -    -            -     -      -
cuda:0    stream   1us     -       "AMD Instinct MI300X"           500  -    -            -     -      {"sms":304,"warp":64}
cuda:1    stream   1us     -       gfx942                          500  -    -            -     -      -
py:0      process  1us     9us     process                         500  -    -            -     -      {"clock":"boottime","host":"mi300","machine":"x86_64"}
py:0      clock    1us     -       boottime                        500  -    -            -     -      {"boottime_ns":1000,"error_ns":0,"monotonic_ns":1000}
"#;

#[test]
fn rocpd_is_the_same_rows_in_each_of_its_versions() {
    let folder = tempfile::tempdir().unwrap();
    for version in [3, 4, 5] {
        for set in ["_0193_aa", ""] {
            let path = database(folder.path(), &rocpd_sql(version, set));
            assert_rows(&path, ROCPD_ROWS);
            let (_, names, format, _) = rows(&path, false).unwrap();
            assert_eq!(format, "rocpd");
            assert_eq!(names.find("SECRET"), None);
        }
    }
}

#[test]
fn processes_of_one_rocpd_file_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let second = rocpd_sql(4, "_b")
        .replace("(9, 77, 1, 500,", "(9, 77, 1, 600,")
        .replace("rocpd_region_view", "other");
    let path = database(folder.path(), &(rocpd_sql(3, "_a") + &second));
    let (events, ..) = rows(&path, false).unwrap();
    let kernels: Vec<_> = events
        .iter()
        .filter(|e| e.kind.as_str() == "kernel")
        .collect();
    let of: Vec<_> = kernels
        .iter()
        .map(|e| (e.process, e.pid, e.device, e.correlation))
        .collect();
    let [a, b] = [0, 1].map(|process| (process, [500, 600][process as usize]));
    assert_eq!(
        of,
        [(a, 0), (a, 1), (b, 0), (b, 1)].map(|((process, pid), device)| (
            process,
            pid,
            Some(device),
            Some(100)
        ))
    );
    let devices = events
        .iter()
        .filter(|e| e.kind.as_str() == "stream" && e.stream.is_none());
    assert_eq!(devices.count(), 2);
}

#[test]
fn mutated_databases_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let (mut fine, mut broken) = (0, 0);
    for sql in [nsys_sql(), rocpd_sql(3, "_a"), rocpd_sql(4, "_a")] {
        let plain = fs::read(database(folder.path(), &sql)).unwrap();
        let path = folder.path().join("mutated");
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            // xorshift64: Marsaglia, "Xorshift RNGs" (2003)
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        for round in 0..150 {
            let mut bytes = plain.clone();
            for _ in 0..1 + random(8) {
                // Half of them where a page keeps its own structure: the first bytes of each.
                let at = match random(2) {
                    0 => random(bytes.len() / 4096) * 4096 + random(64),
                    _ => random(bytes.len()),
                };
                bytes[at.max(16)] = random(256) as u8;
            }
            if round % 10 == 0 {
                bytes.truncate(random(bytes.len()).max(100));
            }
            fs::write(&path, &bytes).unwrap();
            for lenient in [false, true] {
                match rows(&path, lenient) {
                    Ok(_) => fine += 1,
                    Err(_) => broken += 1,
                }
            }
        }
    }
    // Both happen, or the test tests nothing.
    assert!(fine > 50 && broken > 50, "{fine} {broken}");
}

/// The real export: its name, and the database in it.
fn shared(folder: &Path) -> Option<(PathBuf, Connection)> {
    let path = ["../shared/traces", "../../shared/traces"]
        .map(|traces| repository(traces).join("nsys_h100_fastvideo_2gpu_1s.sqlite.gz"))
        .into_iter()
        .find(|path| path.is_file());
    let Some(path) = path else {
        eprintln!("skipped: no ../shared/traces/nsys_h100_fastvideo_2gpu_1s.sqlite.gz");
        return None;
    };
    let plain = folder.join("plain.sqlite");
    let packed = fs::File::open(&path).unwrap();
    std::io::copy(
        &mut flate2::read::MultiGzDecoder::new(packed),
        &mut fs::File::create(&plain).unwrap(),
    )
    .unwrap();
    Some((path, Connection::open(plain).unwrap()))
}

/// Length of the union of what a query of starts and ends gives.
fn union_ns(db: &Connection, intervals: &str) -> i64 {
    // An interval adds what of it lies behind everything that began before it.
    let sql = format!(
        "SELECT sum(max(0, stop - max(start, coalesce(reach, start)))) FROM (SELECT start, stop, max(stop) OVER
            (ORDER BY start, stop ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reach FROM ({intervals}))"
    );
    db.query_row(&sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn facts_of_a_real_export_are_those_that_sql_gives() {
    let folder = tempfile::tempdir().unwrap();
    let Some((path, db)) = shared(folder.path()) else {
        return;
    };
    let mut merge = Command::new(env!("CARGO_BIN_EXE_isc-merge"))
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let analyze = Command::new(env!("CARGO_BIN_EXE_isc-analyze"))
        .arg("--json")
        .stdin(merge.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(merge.wait().unwrap().success() && analyze.status.success());
    let analysis: Value = serde_json::from_slice(&analyze.stdout).unwrap();

    let number = |sql: &str| -> i64 { db.query_row(sql, [], |row| row.get(0)).unwrap() };
    let select = |table: &str| {
        format!(
            "SELECT start, \"end\" AS stop, deviceId, globalPid, correlationId, rowid FROM CUPTI_ACTIVITY_KIND_{table}"
        )
    };
    let work = ["KERNEL", "MEMCPY", "MEMSET"]
        .map(select)
        .join(" UNION ALL ");
    let kernels = |which: &str| {
        format!(
            "SELECT start, \"end\" AS stop FROM CUPTI_ACTIVITY_KIND_KERNEL k WHERE {which} (SELECT 1 FROM StringIds s
                WHERE s.id = k.demangledName AND (s.value LIKE '%nccl%' OR s.value LIKE '%rccl%'))"
        )
    };
    let span = number(&format!("SELECT max(stop) - min(start) FROM ({work})"));
    let busy = union_ns(&db, &work);
    let mut delays = db
        .prepare(&format!(
            "SELECT max(0, w.start - r.\"end\") AS delay FROM ({work}) w JOIN CUPTI_ACTIVITY_KIND_RUNTIME r
                ON r.correlationId = w.correlationId AND r.globalTid >> 24 = w.globalPid >> 24 ORDER BY delay"
        ))
        .unwrap();
    let delays = delays.query_map([], |row| row.get(0)).unwrap();
    let delays: Vec<i64> = delays.map(Result::unwrap).collect();
    let wanted = HashMap::from([
        ("gpu.span_ns", span),
        ("gpu.busy_ns", busy),
        ("gpu.idle_ns", span - busy),
        ("gpu.compute_ns", union_ns(&db, &kernels("NOT EXISTS"))),
        ("gpu.memcpy_ns", union_ns(&db, &select("MEMCPY"))),
        (
            "gpu.comm_ns",
            number(&format!("SELECT count(*) FROM ({})", kernels("EXISTS"))),
        ), // no kernels, so no time
        (
            "kernel.count",
            number("SELECT count(*) FROM CUPTI_ACTIVITY_KIND_KERNEL"),
        ),
        (
            "kernel.sum_ns",
            number("SELECT sum(\"end\" - start) FROM CUPTI_ACTIVITY_KIND_KERNEL"),
        ),
        ("launch.delay_ns_p50", delays[delays.len() / 2]),
        ("launch.delay_ns_p90", delays[90 * delays.len() / 100]),
    ]);
    for (fact, value) in wanted {
        assert_eq!(analysis["facts"][fact].as_i64(), Some(value), "{fact}");
    }
    for device in [0, 1] {
        let busy = union_ns(
            &db,
            &format!("SELECT * FROM ({work}) WHERE deviceId = {device}"),
        );
        assert_eq!(analysis["devices"][device]["busy_ns"].as_i64(), Some(busy));
    }
    assert_eq!(delays.len(), 2092);
    // Every row of every table that is read is there.
    let (events, ..) = rows(&path, false).unwrap();
    for (kind, table) in [
        ("kernel", "CUPTI_ACTIVITY_KIND_KERNEL"),
        ("memcpy", "CUPTI_ACTIVITY_KIND_MEMCPY"),
        ("memset", "CUPTI_ACTIVITY_KIND_MEMSET"),
        ("sync", "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION"),
        ("overhead", "CUPTI_ACTIVITY_KIND_OVERHEAD"),
        ("api", "CUPTI_ACTIVITY_KIND_RUNTIME"),
        ("nvtx", "NVTX_EVENTS"),
    ] {
        let found = events
            .iter()
            .filter(|event| event.kind.as_str() == kind)
            .count();
        assert_eq!(
            found as i64,
            number(&format!("SELECT count(*) FROM {table}")),
            "{table}"
        );
    }
}

//! NVTX recorded: a client in C, as every library with the headers has one, and the Python package.
//!
//! Without a C compiler, or where the package cannot be had, a test says what it skips.

mod common;

use common::{libraries, pythons, repository, rows};
use inferscope::cli::Source;
use inferscope::trace::{Event, Kind, Names, Reader};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The client as a program and as a library; `None` without a compiler.
fn client() -> Option<&'static (PathBuf, PathBuf)> {
    static BUILT: OnceLock<Option<(PathBuf, PathBuf)>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        libraries();
        let test = std::env::current_exe().unwrap();
        let folder = test.with_file_name(format!("nvtx-client-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let build = |name: &str, flags: &[&str]| {
            let to = folder.join(name);
            let mut cc = Command::new("cc");
            cc.args(["-O2", "-pthread"]).args(flags).arg("-o").arg(&to);
            cc.arg(repository("tests/c/nvtx.c")).arg("-ldl");
            let output = cc.output().ok()?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
            Some(to)
        };
        let library = build("second.so", &["-shared", "-fPIC", "-DCLIENT"])?;
        Some((build("nvtx", &[])?, library))
    });
    if built.is_none() {
        eprintln!("skipped: no C compiler (cc)");
    }
    built.as_ref()
}

struct Trace {
    rows: Vec<Event>,
    names: Names,
    output: Output,
    folder: tempfile::TempDir,
}

impl Trace {
    fn said(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    fn errors(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    fn name(&self, row: &Event) -> &str {
        self.names.text(row.name)
    }

    fn args(&self, row: &Event) -> &str {
        row.args.map_or("", |args| self.names.text(args))
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Event> {
        self.rows.iter().filter(move |row| row.kind == kind)
    }

    fn named(&self, name: &str) -> Vec<&Event> {
        let named =
            |row: &&Event| matches!(row.kind, Kind::Nvtx | Kind::Mark) && self.name(row) == name;
        self.rows.iter().filter(named).collect()
    }

    /// `kind name args value`, of every row of NVTX, by start.
    fn told(&self) -> Vec<String> {
        let mut rows: Vec<_> = self.of(Kind::Nvtx).chain(self.of(Kind::Mark)).collect();
        rows.sort_by_key(|row| row.start_ns);
        let told = rows.iter().map(|row| {
            let value = row.value.map_or(String::new(), |value| format!(" {value}"));
            let flow = row.flow.map_or("", |_| " flow");
            format!(
                "{} {} {}{value}{flow}",
                row.kind,
                self.name(row),
                self.args(row)
            )
        });
        told.map(|told| told.trim_end().to_owned()).collect()
    }

    fn lost(&self) -> usize {
        self.of(Kind::Lost).count()
    }

    /// The same trace after isc-merge.
    fn merged(self) -> Trace {
        let to = self.folder.path().join("timeline.parquet");
        let mut merge = Command::new(env!("CARGO_BIN_EXE_isc-merge"));
        merge
            .arg(self.folder.path().join("raw.parquet"))
            .arg("-o")
            .arg(&to);
        let output = merge.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let (rows, names) = rows(&to);
        Trace {
            rows,
            names,
            ..self
        }
    }
}

fn record(folder: tempfile::TempDir, command: &mut Command) -> Trace {
    let output = command.output().unwrap();
    let mut reader =
        Reader::open(&Source::from(folder.path().join("raw.parquet").as_path())).unwrap();
    let (mut rows, mut names) = (Vec::new(), Names::default());
    while reader.next_batch(&mut names, &mut rows).unwrap() {}
    Trace {
        rows,
        names,
        output,
        folder,
    }
}

/// Records a case of the client.
fn run(options: &[&str], words: &[&str]) -> Option<Trace> {
    let (program, _) = client()?;
    let folder = tempfile::tempdir().unwrap();
    let mut command = common::recorder();
    command
        .args(options)
        .arg("-o")
        .arg(folder.path().join("raw.parquet"));
    command.arg("--").arg(program).args(words);
    command.env_remove("NVTX_INJECTION64_PATH");
    Some(record(folder, &mut command))
}

#[test]
fn every_function_of_both_tables_is_recorded() {
    let Some(trace) = run(&[], &["everything"]) else {
        return;
    };
    let want = "tool 1\nsame domain 1\nlevels 0 1 2 2 1 0 -1\ndomain levels 0 1 1 0 -1\nsame string 1\nunique 1\n";
    assert_eq!(trace.said(), want);
    assert!(!trace.errors().contains("no Python"), "{}", trace.errors());
    let engine = r#"{"domain":"engine","category":"prefill"}"#;
    let attributes = r##"{"category":"größe","color":"#ff00ff7f"}"##;
    let want = [
        "nvtx ascii".to_owned(),
        "nvtx wide größe 🦀".into(),
        format!("nvtx with attributes {attributes} 2.5"),
        format!("nvtx registered {engine}"),
        format!("nvtx registered {engine}"),
        "mark payload  1099511627776".into(),
        "mark payload  -2".into(),
        "mark payload  0.25".into(),
        "mark payload  4000000000".into(),
        "mark payload  -5".into(),
        "mark payload  0.5".into(),
        "mark (no text)".into(),
        "mark mark a".into(),
        "mark mark w".into(),
        format!("mark registered {engine}"),
        "nvtx start a  flow".into(),
        "nvtx start w  flow".into(),
        format!("nvtx with attributes {attributes} 2.5 flow"),
        format!("nvtx registered {engine} flow"),
        format!("nvtx registered {engine}"),
        r#"nvtx crossing {"domain":"other"}"#.into(),
    ];
    assert_eq!(trace.told(), want);
    let flows: BTreeSet<u64> = trace.of(Kind::Nvtx).filter_map(|row| row.flow).collect();
    assert_eq!(flows.len(), 4);
    assert_eq!(
        trace
            .of(Kind::Thread)
            .filter(|row| trace.name(row) == "the main one")
            .count(),
        1
    );
    assert_eq!(trace.lost(), 0);

    let merged = trace.merged();
    let parent = |name: &str| {
        let row = merged.named(name)[0];
        row.parent
            .map(|parent| merged.name(&merged.rows[parent as usize]))
    };
    assert_eq!(parent("with attributes"), Some("wide größe 🦀"));
    assert_eq!(parent("wide größe 🦀"), Some("ascii"));
    assert_eq!(
        (parent("ascii"), parent("crossing"), parent("start w")),
        (None, None, None)
    );
}

#[test]
fn two_clients_share_domains_strings_and_levels_and_may_be_closed() {
    let Some((_, library)) = client() else { return };
    let Some(trace) = run(&[], &["two", library.to_str().unwrap()]) else {
        return;
    };
    assert!(trace.output.status.success(), "{}", trace.errors());
    assert_eq!(
        trace.said(),
        "tool 1\nclient 1 domain 1 string 1\nlevels 0 1 1 0\n"
    );
    assert_eq!(
        trace.told(),
        ["nvtx first", "nvtx second", "nvtx after dlclose"]
    );
}

#[test]
fn threads_have_ranges_of_their_own_and_ranges_end_on_others() {
    let Some(trace) = run(&[], &["threads"]) else {
        return;
    };
    let trace = trace.merged();
    let mut tids = BTreeSet::new();
    for n in 0..4 {
        let outer = trace.named(&format!("thread {n}"));
        assert_eq!(outer.len(), 1000);
        tids.extend(outer.iter().map(|row| row.tid));
    }
    assert_eq!(tids.len(), 4);
    let inner = trace.named("inner");
    assert_eq!(inner.len(), 4000);
    for row in inner {
        let around = &trace.rows[row.parent.unwrap() as usize];
        assert!(trace.name(around).starts_with("thread ") && around.tid == row.tid);
    }
    let across = trace.named("across");
    let flows: BTreeSet<_> = across.iter().filter_map(|row| row.flow).collect();
    assert_eq!((across.len(), flows.len()), (1000, 1000));
    assert!(
        across
            .iter()
            .all(|row| row.args.is_none() && row.dur_ns > Some(0))
    );
    let named = trace
        .of(Kind::Thread)
        .filter(|row| trace.name(row) == "worker größe");
    assert_eq!(named.count(), 4);
}

/// Each range's edges are where the program saw them, once the clock is fitted: one zero of the
/// timeline, which is not known here, puts every start between the two times around it. Any of
/// the threads' steps may take long (the first one loads what it calls), so that no single row
/// says where the zero is.
fn check_times(trace: &Trace, name: &str, told: &[[i64; 4]]) {
    let mut ranges = trace.named(name);
    ranges.sort_by_key(|row| row.start_ns);
    assert_eq!(ranges.len(), told.len());
    let (mut lowest, mut highest) = (i64::MIN, i64::MAX);
    for (row, [before, begun, end, after]) in ranges.iter().zip(told) {
        let dur = row.dur_ns.unwrap();
        assert!(
            (end - begun..=after - before + 100).contains(&dur),
            "{dur}: {told:?}"
        );
        lowest = lowest.max(row.start_ns - begun);
        highest = highest.min(row.start_ns - before);
    }
    assert!(lowest <= highest + 10_000, "{lowest} {highest}: {told:?}");
}

#[test]
fn times_are_those_of_the_program() {
    let Some(trace) = run(&[], &["times"]) else {
        return;
    };
    let said = trace.said();
    let told: Vec<[i64; 4]> = said
        .lines()
        .skip(1)
        .map(|line| {
            let numbers: Vec<_> = line.split(' ').map(|word| word.parse().unwrap()).collect();
            numbers.try_into().unwrap()
        })
        .collect();
    check_times(&trace.merged(), "timed", &told);
}

#[test]
fn a_hundred_thousand_names_keep_their_texts() {
    let Some(trace) = run(&[], &["names", "100000"]) else {
        return;
    };
    let (mut names, mut strings) = (BTreeSet::new(), BTreeMap::new());
    for row in trace.of(Kind::Nvtx) {
        let name = trace.name(row);
        match name.strip_prefix("string ") {
            Some(number) => {
                assert_eq!(trace.args(row), r#"{"domain":"many"}"#);
                strings.insert(number.parse::<u32>().unwrap(), row.value.unwrap());
            }
            None => assert!(names.insert(name.to_owned()), "{name} twice"),
        }
    }
    assert_eq!(
        (names.len(), strings.len(), trace.lost()),
        (100_000, 100_000, 0)
    );
    assert!(
        (0..100_000).all(|n| names.contains(&format!("name {n}")) && strings[&n] == f64::from(n))
    );
}

#[test]
fn a_forked_child_has_its_own_ranges_and_all_names() {
    let Some(trace) = run(&[], &["fork"]) else {
        return;
    };
    let mut told: Vec<_> = trace
        .of(Kind::Nvtx)
        .map(|row| (row.process, trace.name(row), trace.args(row)))
        .collect();
    told.sort();
    let want = [
        (0, "parent", ""),
        (1, "child", r#"{"category":"seven"}"#),
        (1, "child", r#"{"domain":"engine","category":7}"#),
    ];
    assert_eq!(told, want);
}

#[test]
fn ranges_open_at_the_end_last_to_the_last_record() {
    for (how, status) in [("open", 0), ("kill", 128 + 9)] {
        let Some(trace) = run(&[], &[how]) else {
            return;
        };
        assert_eq!(trace.output.status.code(), Some(status));
        let open = r#"{"open":true}"#;
        let want = [
            format!("nvtx started {open} flow"),
            format!("nvtx pushed {open}"),
            "nvtx inner".into(),
            "mark last".into(),
        ];
        assert_eq!(trace.told(), want);
        let mark = trace.named("last")[0].start_ns;
        for name in ["started", "pushed"] {
            assert_eq!(trace.named(name)[0].end_ns(), mark, "{name} {how}");
        }
    }
}

#[test]
fn nothing_begins_while_recording_is_off() {
    let Some(trace) = run(
        &["--delay", "300ms", "--duration", "300ms"],
        &["slow", "1000"],
    ) else {
        return;
    };
    let said = trace.said();
    let pairs: usize = said.lines().nth(1).unwrap().parse().unwrap();
    let steps = trace.named("step");
    assert!(
        !steps.is_empty() && steps.len() < pairs,
        "{} of {pairs}",
        steps.len()
    );
    assert!(trace.named("whole").is_empty(), "it began before");
    let (first, last) = (steps[0].start_ns, steps[steps.len() - 1].start_ns);
    assert!(last - first < 400_000_000, "{}", last - first);
    let last_ones = trace
        .of(Kind::Nvtx)
        .filter(|row| trace.args(row).contains("open"));
    assert_eq!(last_ones.count(), 0);
}

#[test]
fn a_window_has_ranges_that_began_before_it() {
    let Some(trace) = run(&["--last", "300ms"], &["slow", "1500"]) else {
        return;
    };
    let whole = trace.named("whole");
    assert_eq!(whole.len(), 1);
    assert!(
        !trace.args(whole[0]).contains("open"),
        "{}",
        trace.args(whole[0])
    );
    assert!(trace.named("step").len() > 20);
}

#[test]
fn what_the_environment_had_is_overridden_with_a_word_and_left_alone_without_a_probe() {
    let Some((program, _)) = client() else { return };
    let recorded = |options: &[&str], value: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut command = common::recorder();
        command
            .args(options)
            .arg("-o")
            .arg(folder.path().join("raw.parquet"));
        command.args(["--", "sh", "-c", "echo \"$NVTX_INJECTION64_PATH\""]);
        let output = command
            .env("NVTX_INJECTION64_PATH", value)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    let (path, said) = recorded(&[], "/opt/cupti/libcupti.so");
    assert!(path.ends_with("/libinferscope_probe.so"), "{path}");
    assert!(said.contains("/opt/cupti/libcupti.so"), "{said}");
    let (path, said) = recorded(&[], "/dev/shm/inferscope-other/libinferscope_probe.so");
    assert!(
        path.ends_with("/libinferscope_probe.so") && !path.contains("inferscope-other"),
        "{path}"
    );
    assert!(!said.contains("NVTX"), "{said}");
    if cfg!(feature = "sampling") {
        assert_eq!(
            recorded(&["--sample", "10"], "/opt/other.so").0,
            "/opt/other.so"
        );
        let ours = "/dev/shm/inferscope-other/libinferscope_probe.so";
        assert_eq!(recorded(&["--sample", "10"], ours).0, "");
    }
    // Without a recorder the library is there, and takes nothing.
    let mut alone = Command::new(program);
    alone
        .arg("everything")
        .env("NVTX_INJECTION64_PATH", &libraries().0);
    let output = alone.env_remove("INFERSCOPE_SPOOL").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "tool 0\n");
}

/// A Python with the package; `None`, and a word, where it cannot be had.
fn with_package(python: &Path, (major, minor): (u32, u32)) -> Option<PathBuf> {
    let mut venv = Command::new(repository("scripts/venv.sh"));
    venv.arg(python)
        .arg(format!("nvtx-{major}.{minor}"))
        .arg("nvtx==0.2.17");
    let output = venv.output().unwrap();
    if !output.status.success() {
        eprintln!("skipped: Python {major}.{minor}: the nvtx package cannot be had");
        return None;
    }
    Some(String::from_utf8(output.stdout).unwrap().trim().into())
}

fn python(options: &[&str], python: &Path, flags: &[&str]) -> (Trace, Value) {
    libraries();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("told.json");
    let mut command = common::recorder();
    command
        .args(options)
        .arg("-o")
        .arg(folder.path().join("raw.parquet"));
    command.env_remove("NVTX_INJECTION64_PATH");
    command.arg("--").arg(python).args(flags);
    command
        .arg(repository("tests/python/nvtx_ranges.py"))
        .arg(&out);
    let trace = record(folder, &mut command);
    assert!(trace.output.status.success(), "{}", trace.errors());
    let told = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    (trace, told)
}

fn check_counts(trace: &Trace, told: &Value) {
    let mut got: BTreeMap<&str, u64> = BTreeMap::new();
    for row in trace.of(Kind::Nvtx) {
        *got.entry(trace.name(row)).or_default() += 1;
    }
    let want = told["counts"].as_object().unwrap();
    let want: BTreeMap<&str, u64> = want
        .iter()
        .map(|(name, n)| (name.as_str(), n.as_u64().unwrap()))
        .collect();
    assert_eq!(got, want);
    let marks: Vec<_> = trace
        .named("a mark")
        .iter()
        .filter_map(|row| row.value)
        .collect();
    assert_eq!(marks, [0.5, 1.5, 2.5, 3.5, 4.5]);
    let open = trace
        .of(Kind::Nvtx)
        .filter(|row| trace.args(row).contains("open"));
    assert_eq!((open.count(), trace.lost()), (0, 0));
}

#[test]
fn the_python_package_is_recorded_whole() {
    for (path, version) in pythons() {
        let Some(path) = with_package(path, *version) else {
            continue;
        };
        let (trace, told) = python(&["--exact"], &path, &[]);
        check_counts(&trace, &told);
        let trace = trace.merged();
        let args: HashMap<&str, Value> = trace
            .of(Kind::Nvtx)
            .filter(|row| row.args.is_some())
            .map(|row| {
                (
                    trace.name(row),
                    serde_json::from_str(trace.args(row)).unwrap(),
                )
            })
            .collect();
        assert_eq!(args["decorated"]["domain"], "engine");
        assert_eq!(args["decorated"]["category"], "step");
        assert_eq!(args["decorated"]["color"], "#000000ff"); // the package gives no alpha
        assert_eq!(args["worker 0"]["domain"], "threads");
        assert!(
            trace
                .named("inner")
                .iter()
                .all(|row| row.value == Some(7.0))
        );
        let flows: BTreeSet<_> = trace
            .named("across threads")
            .iter()
            .map(|row| row.flow)
            .collect();
        assert_eq!(flows.len(), 10);
        // Ranges are inside the function that annotates, and what it calls inside them, whatever calls push and pop.
        let parent = |row: &Event| row.parent.map(|row| &trace.rows[row as usize]);
        let parents = |name: &str| -> BTreeSet<&str> {
            let found = trace.named(name).into_iter().map(parent);
            found
                .map(|row| row.map_or("none", |row| trace.name(row)))
                .collect()
        };
        assert_eq!(parents("outer größe 🦀"), BTreeSet::from(["nested"]));
        assert_eq!(parents("inner"), BTreeSet::from(["outer größe 🦀"]));
        assert_eq!(parents("measured"), BTreeSet::from(["measured"]));
        assert_eq!(parents("across threads"), BTreeSet::from(["none"]));
        let spins = trace
            .of(Kind::Python)
            .filter(|row| trace.name(row) == "spin");
        let mut within: BTreeMap<&str, usize> = BTreeMap::new();
        for row in spins {
            *within.entry(trace.name(parent(row).unwrap())).or_default() += 1;
        }
        let want = [
            ("decorated", 10),
            ("inner", 20),
            ("measured", 20),
            ("step", 12),
        ];
        assert_eq!(within, BTreeMap::from(want), "{version:?}");
        let times = told["times"].as_array().unwrap().iter();
        let times: Vec<[i64; 4]> = times
            .map(|four| std::array::from_fn(|at| four[at].as_i64().unwrap()))
            .collect();
        check_times(&trace, "measured", &times);
    }
}

#[test]
fn it_is_recorded_where_the_bootstrap_does_not_run_and_under_a_budget() {
    let Some((path, version)) = pythons().iter().max_by_key(|(_, version)| *version) else {
        return;
    };
    let Some(path) = with_package(path, *version) else {
        return;
    };
    for (options, flags) in [
        (&["--exact"][..], &["-I"][..]),
        (&[], &["-E"]),
        (&["--budget", "0.5%"], &[]),
    ] {
        let (trace, told) = python(options, &path, flags);
        check_counts(&trace, &told);
        assert!(
            !trace.errors().contains("no Python was"),
            "{}",
            trace.errors()
        );
    }
}

//! The probe inside real interpreters, read back from its spool.
//!
//! Runs in every CPython that is found (pyenv's, and `python3`), and says which it skips.

mod common;

use common::{libraries, pythons, repository};
use inferscope_spool::Reader;
use inferscope_spool::record::{RAISED, RESUMED, Record, SUSPENDED, SpanKind, Text};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// A run's directory as isc-record makes it.
fn run_dir(settings: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (probe, module) = libraries();
    let package = dir.path().join("python/inferscope");
    fs::create_dir_all(&package).unwrap();
    for entry in fs::read_dir(repository("python/inferscope"))
        .unwrap()
        .flatten()
    {
        if entry.path().is_file() {
            fs::copy(entry.path(), package.join(entry.file_name())).unwrap();
        }
    }
    fs::copy(module, package.join("_inferscope.abi3.so")).unwrap();
    fs::copy(probe, dir.path().join("libinferscope_probe.so")).unwrap();
    let bootstrap = dir.path().join("python/sitecustomize.py");
    fs::copy(repository("python/bootstrap/sitecustomize.py"), bootstrap).unwrap();
    fs::write(dir.path().join("settings.json"), settings).unwrap();
    dir
}

fn python_in(dir: &Path, python: &Path) -> Command {
    let mut command = Command::new(python);
    command
        .env("PYTHONPATH", dir.join("python"))
        .env("INFERSCOPE_SPOOL", dir);
    command
        .env_remove("PYTHONHOME")
        .env_remove("PYTHONSTARTUP")
        .current_dir(dir);
    command
}

fn passed(output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", output.status);
    text
}

/// A record that stays, its name looked up later.
#[derive(Clone, Debug)]
enum Row {
    Begin {
        time: u64,
        id: u32,
        flags: u32,
        flow: u64,
    },
    End {
        time: u64,
        id: u32,
        flags: u32,
    },
    Span {
        time: u64,
        id: u32,
        kind: SpanKind,
        dur: u64,
    },
    Mark {
        id: u32,
        metadata: String,
    },
    ScopeBegin {
        id: u32,
        handle: u64,
        flow: u64,
        metadata: String,
    },
    ScopeEnd {
        handle: u64,
    },
    Other,
}

#[derive(Default, Debug)]
struct Process {
    facts: Value,
    names: BTreeMap<u32, (String, String, u32)>,
    notes: Vec<String>,
    threads: BTreeMap<u64, Vec<Row>>,
    thread_names: Vec<String>,
    clocks: usize,
    switches: Vec<bool>,
    lost: u64,
}

impl Process {
    fn name(&self, id: u32) -> &str {
        &self
            .names
            .get(&id)
            .unwrap_or_else(|| panic!("id {id} was not defined"))
            .0
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.threads.values().flatten()
    }

    /// How often frames of a function began (not resumed), and ended in each of the ways.
    fn frames(&self, name: &str) -> [usize; 5] {
        let mut counts = [0; 5];
        for row in self.rows() {
            match row {
                Row::Begin { id, flags, .. } if self.name(*id) == name => {
                    counts[usize::from(flags & RESUMED != 0)] += 1;
                }
                Row::End { id, flags, .. } if self.name(*id) == name => match *flags {
                    SUSPENDED => counts[3] += 1,
                    RAISED => counts[4] += 1,
                    _ => counts[2] += 1,
                },
                _ => {}
            }
        }
        counts
    }

    fn natives(&self) -> BTreeMap<&str, (usize, &str)> {
        let mut found = BTreeMap::new();
        for row in self.rows() {
            if let Row::Span {
                id,
                kind: SpanKind::Native,
                ..
            } = row
            {
                let (name, file, _) = &self.names[id];
                found.entry(name.as_str()).or_insert((0, file.as_str())).0 += 1;
            }
        }
        found
    }
}

/// Reads all processes of a run whose programs have ended.
fn read(dir: &Path) -> Vec<Process> {
    let mut reader = Reader::open(dir, &dir.join("spill")).unwrap();
    let mut found: BTreeMap<(u32, u64), Process> = BTreeMap::new();
    let mut bytes_of = |reader: &mut Reader| {
        let poll = reader.poll(&mut |chain, bytes| {
            let process = found.entry((chain.pid, chain.start_ticks)).or_default();
            process.lost += chain.lost;
            let mut rest = bytes;
            let mut metadata = String::new();
            while let Some((record, size)) = Record::decode(rest) {
                rest = &rest[size..];
                take(process, chain.chain, chain.tid, record, &mut metadata);
            }
            assert!(rest.is_empty(), "{} bytes are no record", rest.len());
        });
        reader.release();
        poll.unwrap().bytes
    };
    while bytes_of(&mut reader) > 0 {}
    found.into_values().collect()
}

fn take(process: &mut Process, chain: u64, tid: u64, record: Record, metadata: &mut String) {
    let row = match record {
        // the probe's own function, with which it measures what a call costs
        Record::Begin { id: 0, .. } | Record::End { id: 0, .. } => Row::Other,
        Record::Begin {
            time,
            id,
            flags,
            flow,
        } => Row::Begin {
            time,
            id,
            flags,
            flow,
        },
        Record::End { time, id, flags } => Row::End { time, id, flags },
        Record::Span {
            time,
            id,
            kind,
            dur,
            ..
        } => Row::Span {
            time,
            id,
            kind,
            dur,
        },
        Record::Mark { id, .. } => Row::Mark {
            id,
            metadata: std::mem::take(metadata),
        },
        Record::ScopeBegin {
            id, handle, flow, ..
        } => Row::ScopeBegin {
            id,
            handle,
            flow,
            metadata: std::mem::take(metadata),
        },
        Record::ScopeEnd { handle, .. } => Row::ScopeEnd { handle },
        Record::Clock { .. } => {
            process.clocks += 1;
            Row::Other
        }
        Record::Switch { on, .. } => {
            process.switches.push(on);
            Row::Other
        }
        Record::Counter { .. }
        | Record::Sample { .. }
        | Record::Throttle { .. }
        | Record::Slices { .. }
        | Record::Exit { .. }
        | Record::Gil { .. }
        | Record::State { .. }
        | Record::Work { .. }
        | Record::Call { .. }
        | Record::Missing { .. }
        | Record::Nvtx(_) => Row::Other,
        Record::Text(Text::Metadata(text)) => {
            text.clone_into(metadata);
            return;
        }
        Record::Text(Text::Define {
            id,
            line,
            name,
            file,
        }) => {
            process
                .names
                .insert(id, (name.to_owned(), file.to_owned(), line));
            return;
        }
        Record::Text(Text::Process(text)) => {
            assert_eq!(process.facts, Value::Null, "told once, and first");
            process.facts = serde_json::from_str(text).unwrap();
            return;
        }
        Record::Text(Text::Thread { name, .. }) => {
            process.thread_names.push(name.to_owned());
            return;
        }
        Record::Text(Text::Note(text)) => {
            process.notes.push(text.to_owned());
            return;
        }
        Record::Text(
            Text::Shape { .. }
            | Text::Facts { .. }
            | Text::NvtxCategory { .. }
            | Text::NvtxThread { .. },
        ) => return,
    };
    if tid != 0 {
        process.threads.entry(chain).or_default().push(row);
    }
}

/// What every trace must hold: names before use, times in order, no end of a frame that another one is inside of.
fn check(process: &Process) {
    assert_eq!(process.lost, 0);
    assert!(process.clocks >= 1 && process.facts["pid"].is_u64());
    for rows in process.threads.values() {
        let (mut open, mut last) = (Vec::new(), 0);
        for row in rows {
            match *row {
                Row::Begin { time, id, .. } => {
                    assert!(time >= last);
                    last = time;
                    open.push(id);
                }
                Row::End { time, id, .. } => {
                    assert!(time >= last);
                    last = time;
                    // Frames that were open when the recording began, or at a fork, end without a beginning.
                    match open.pop() {
                        Some(inner) => assert_eq!(process.name(inner), process.name(id)),
                        None => continue,
                    }
                }
                Row::Span { time, dur, id, .. } => {
                    assert!(dur < 1 << 50 && time > 0);
                    process.name(id);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn calls_are_counted_exactly_in_every_python() {
    for (python, version) in pythons() {
        eprintln!("{}", python.display());
        let dir = run_dir("{}");
        let output = python_in(dir.path(), python)
            .arg(repository("tests/python/calls.py"))
            .output()
            .unwrap();
        let text = passed(output);
        assert_eq!(text, "", "silent, and no warning of threads at a fork");
        let processes = read(dir.path());
        processes.iter().for_each(check);
        let main = processes
            .iter()
            .find(|p| p.facts["name"] == "calls.py" && p.facts["forked_from"].is_null())
            .unwrap();

        // name: begun, resumed, returned, suspended, raised
        for (name, expected) in [
            ("plain", [177 + 3 * 15, 0, 177 + 3 * 15, 0, 0]),
            ("items", [1, 5, 1, 5, 0]),
            ("fails", [2, 0, 0, 0, 2]),
            ("catches", [2, 0, 2, 0, 0]),
            ("in_thread", [3, 0, 3, 0, 0]),
            ("step", [12, 12, 12, 12, 0]),
            ("request", [4, 12, 4, 12, 0]),
            ("serve", [1, 1, 1, 1, 0]),
            ("decorated", [1, 0, 1, 0, 0]),
        ] {
            assert_eq!(main.frames(name), expected, "{name} in {version:?}");
        }
        let plain = main
            .names
            .values()
            .find(|(name, ..)| name == "plain")
            .unwrap();
        assert!(
            plain.1.ends_with("tests/python/calls.py") && plain.2 == 14,
            "{plain:?}"
        );
        for thread in ["MainThread", "worker-0", "worker-1", "worker-2"] {
            assert!(
                main.thread_names.iter().any(|name| name == thread),
                "{thread}: {:?}",
                main.thread_names
            );
        }
        assert_eq!(
            main.facts["python"].as_str().unwrap().split('.').nth(1),
            Some(&*version.1.to_string())
        );

        // each task has one flow, on the outermost frame of each of its segments
        let mut flows: BTreeMap<u64, usize> = BTreeMap::new();
        for row in main.rows() {
            match row {
                Row::Begin { id, flow, .. } if main.name(*id) == "request" => {
                    *flows.entry(*flow).or_default() += 1
                }
                Row::Begin { id, flow, .. } if main.name(*id) == "step" => assert_eq!(*flow, 0),
                _ => {}
            }
        }
        assert_eq!(
            flows.values().copied().collect::<Vec<_>>(),
            [4; 4],
            "{flows:?}"
        );
        assert!(!flows.contains_key(&0));

        let mut scopes: BTreeMap<&str, Vec<(u64, &str, u64)>> = BTreeMap::new();
        let mut ended = BTreeSet::new();
        for row in main.rows() {
            match row {
                Row::ScopeBegin {
                    id,
                    handle,
                    metadata,
                    flow,
                } => {
                    scopes
                        .entry(main.name(*id))
                        .or_default()
                        .push((*handle, metadata, *flow));
                }
                Row::ScopeEnd { handle } => assert!(ended.insert(*handle)),
                Row::Mark { id, metadata } => {
                    assert_eq!(
                        (main.name(*id), metadata.as_str()),
                        ("first_token", r#"{"request": 7}"#)
                    );
                }
                _ => {}
            }
        }
        assert_eq!(scopes.values().map(Vec::len).sum::<usize>(), ended.len());
        assert_eq!((scopes["request"].len(), scopes["decorated"].len()), (4, 1));
        assert!(
            scopes["request"]
                .iter()
                .all(|(_, _, flow)| flows.contains_key(flow))
        );
        assert_eq!(scopes["outer"][0].1, r#"{"model": "tiny", "layers": 2}"#);

        let natives = main.natives();
        assert!(natives.contains_key("time.sleep"), "{natives:?}");
        assert!(
            !natives.keys().any(|name| name.contains("inferscope")),
            "{natives:?}"
        );

        // fork, spawn and a child of its own
        let pid = main.facts["pid"].as_u64();
        let forked = processes
            .iter()
            .find(|p| p.facts["forked_from"].as_u64() == pid)
            .unwrap();
        assert_eq!(forked.frames("plain")[..3], [5, 0, 5]);
        assert_eq!(forked.frames("in_fork")[0], 1);
        let spawned = processes
            .iter()
            .find(|p| p.frames("in_spawn")[0] == 1)
            .unwrap();
        assert_eq!(spawned.frames("plain")[0], 9);
        let child = processes
            .iter()
            .find(|p| p.frames("in_child")[0] == 1)
            .unwrap();
        assert_eq!(child.facts["ppid"].as_u64(), pid);
    }
}

#[test]
fn python_s_own_tools_go_on_working() {
    for (python, version) in pythons() {
        let dir = run_dir("{}");
        let script = repository("tests/python/guests.py");
        let output = python_in(dir.path(), python).arg(&script).output().unwrap();
        assert_eq!(passed(output), "guests ok\n", "{}", python.display());
        let main = &read(dir.path())[0];
        let stepped_aside = main
            .notes
            .iter()
            .any(|note| note.contains("profile function"));
        assert_eq!(stepped_aside, *version < (3, 12), "{:?}", main.notes);
    }
}

#[test]
fn what_is_left_out_is_left_out() {
    for (python, _) in pythons() {
        let began = |settings: &str| {
            let dir = run_dir(settings);
            let script = repository("tests/python/selected.py");
            passed(python_in(dir.path(), python).arg(script).output().unwrap());
            let main = read(dir.path()).remove(0);
            let counts = ["before", "during", "after", "dumps"].map(|name| main.frames(name)[0]);
            (counts, main.frames("main")[0], main.switches)
        };
        assert_eq!(began("{}"), ([1, 1, 0, 1], 1, vec![false, true]));
        assert_eq!(
            began(r#"{"start_on": "measured"}"#),
            ([0, 1, 0, 1], 1, vec![true, false, true])
        );
        assert_eq!(began(r#"{"exclude": ["json"]}"#).0, [1, 1, 0, 0]);
        assert_eq!(began(r#"{"include": ["json"]}"#).0, [0, 0, 0, 1]);
        assert_eq!(began(r#"{"exclude": ["selected.py"]}"#).0, [0, 0, 0, 1]);
    }
}

#[test]
fn an_isolated_python_runs_as_without_us() {
    let (python, _) = &pythons()[0];
    let dir = run_dir("{}");
    let output = python_in(dir.path(), python)
        .args(["-I", "-c", "print(1)"])
        .output()
        .unwrap();
    assert_eq!(passed(output), "1\n");
    assert!(read(dir.path()).is_empty());
}

#[test]
fn a_sitecustomize_of_the_program_runs_too() {
    let (python, _) = &pythons()[0];
    let dir = run_dir("{}");
    let own = dir.path().join("own");
    fs::create_dir(&own).unwrap();
    fs::write(
        own.join("sitecustomize.py"),
        "import sys\nsys.own = __file__\n",
    )
    .unwrap();
    let path = std::env::join_paths([dir.path().join("python"), own.clone()]).unwrap();
    let ask = "import sys, sitecustomize; assert sys.own == sitecustomize.__file__; print(sys.own)";
    let output = python_in(dir.path(), python)
        .env("PYTHONPATH", path)
        .args(["-c", ask])
        .output()
        .unwrap();
    assert_eq!(
        passed(output).trim(),
        own.join("sitecustomize.py").to_str().unwrap()
    );
    assert_eq!(read(dir.path()).len(), 1);
}

#[test]
fn a_c_program_without_python_can_load_the_probe() {
    let (probe, _) = libraries();
    let symbols = Command::new("nm")
        .args(["-D", "--undefined-only"])
        .arg(probe)
        .output()
        .unwrap();
    for line in passed(symbols).lines() {
        let name = line.split_whitespace().last().unwrap_or_default();
        assert!(
            !name.starts_with("Py") && !name.starts_with("_Py"),
            "{line}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("load.c"), dir.path().join("load"));
    let text = r#"
        #include <dlfcn.h>
        #include <stdio.h>
        int main(int argc, char **argv) {
            void *probe = dlopen(argv[1], RTLD_NOW);
            if (!probe) { puts(dlerror()); return 1; }
            const unsigned *(*api)(void) = (const unsigned *(*)(void))dlsym(probe, "isc_api");
            return api && *api() == 3 ? 0 : 2;
        }"#;
    fs::write(&source, text).unwrap();
    passed(
        Command::new("cc")
            .arg("-o")
            .arg(&program)
            .arg(&source)
            .arg("-ldl")
            .output()
            .unwrap(),
    );
    assert_eq!(
        passed(Command::new(&program).arg(probe).output().unwrap()),
        ""
    );
}

#[test]
fn a_python_that_is_too_old_says_so_and_runs() {
    let dir = run_dir("{}");
    // The reasons are found without running an old interpreter: the bootstrap is asked with another version.
    let script = "import os, sys, json\n\
        sys.version_info = (3, 8, 0)\n\
        exec(open(os.environ['INFERSCOPE_SPOOL'] + '/python/sitecustomize.py').read().replace('_next()\\n', '', 1))\n";
    let (python, _) = &pythons()[0];
    let path = dir.path().join("python/sitecustomize.py");
    let mut command = python_in(dir.path(), python);
    command.env_remove("PYTHONPATH").args(["-c", script]);
    let text = passed(command.output().unwrap());
    assert_eq!(
        text,
        "inferscope: not recorded: Python 3.8 is older than 3.9\n",
        "{}",
        path.display()
    );
    let word = fs::read_dir(dir.path())
        .unwrap()
        .flatten()
        .find(|e| e.file_name().to_string_lossy().starts_with("uncovered-"));
    let word: Value = serde_json::from_slice(&fs::read(word.unwrap().path()).unwrap()).unwrap();
    assert_eq!(word["reason"], "Python 3.8 is older than 3.9");
    assert!(word["pid"].is_u64());
}

//! Death in every form: no record that was published is missing from the trace.
//!
//! The program counts its own calls in a file that outlives it, after each call; so the trace has as many of each
//! thread, or the one more that it was in. `INFERSCOPE_DEATHS=20` runs each form at so many random moments
//! (scripts/check-deaths), `INFERSCOPE_SEED` repeats those of a run that failed.

mod common;

use common::{libraries, pythons, repository};
use inferscope::cli::Source;
use inferscope::trace::{Kind, Names, Reader};
use inferscope_spool::sys;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, SystemTime};

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;
const SIGTERM: i32 = 15;

/// Threads that the program has a place for, and the words of its file.
const SLOTS: usize = 8;
const WORDS: usize = 512;

/// Random numbers that can be had again (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Does something at as many random moments as asked for.
fn at_random_moments(ordinary: u64, round: impl Fn(&mut Random)) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let rounds = number("INFERSCOPE_DEATHS").unwrap_or(ordinary);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = number("INFERSCOPE_SEED").unwrap_or_else(|| now.unwrap().as_nanos() as u64);
    for n in 0..rounds {
        let seed = seed.wrapping_add(n).max(1);
        println!("round {n}: INFERSCOPE_SEED={seed} INFERSCOPE_DEATHS=1 repeats it");
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(2);
        round(&mut random);
    }
}

/// One recorded run of `deaths.py`.
struct Run {
    home: tempfile::TempDir,
    record: Child,
    /// The program's standard input, for as long as this is here.
    stdin: Option<ChildStdin>,
    output: &'static str,
}

impl Run {
    fn start(random: &mut Random, how: &str, calls: u64, output: &'static str) -> Run {
        libraries();
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("calls"), vec![0; 8 * WORDS]).unwrap();
        let pythons = pythons();
        let (python, version) = &pythons[random.below(pythons.len() as u64) as usize];
        println!("{how} after {calls} calls in Python {version:?}, to {output}");
        let mut command = isc_record(home.path());
        command.args(["--exact", "-o", output, "--python"]);
        command
            .arg(python)
            .arg(repository("tests/python/deaths.py"));
        command.arg(how).arg("calls").arg(calls.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut record = command.stderr(Stdio::piped()).spawn().unwrap();
        let stdin = record.stdin.take(); // waiting for a child would close it
        Run {
            home,
            record,
            stdin,
            output,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The words of the program's file.
    fn words(&self) -> Vec<u64> {
        let bytes = fs::read(self.at("calls")).unwrap();
        let words = bytes.chunks_exact(8);
        words
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect()
    }

    /// Waits until the file says so.
    fn until(&mut self, what: &str, holds: impl Fn(&[u64]) -> bool) {
        self.wait_for(what, |run| holds(&run.words()));
    }

    fn wait_for(&mut self, what: &str, holds: impl Fn(&Run) -> bool) {
        while !holds(self) {
            assert!(
                self.record.try_wait().unwrap().is_none(),
                "ended before {what}"
            );
            std::thread::sleep(Duration::from_millis(1)); // between two looks at what is waited for
        }
    }

    /// The directory of the run: the program's environment has it.
    fn dir(&self) -> PathBuf {
        let environment = fs::read(format!("/proc/{}/environ", self.program())).unwrap();
        let text = String::from_utf8_lossy(&environment).into_owned();
        let mut entries = text.split('\0');
        let dir = entries.find_map(|entry| entry.strip_prefix("INFERSCOPE_SPOOL="));
        PathBuf::from(dir.unwrap())
    }

    /// The program: the main thread of slot 0 has its pid.
    fn program(&self) -> u32 {
        self.words()[0] as u32
    }

    fn kill_recorder(&mut self) {
        self.record.kill().unwrap();
        self.record.wait().unwrap();
    }

    /// Waits until nobody has the program's standard output open any more.
    fn until_all_ended(&mut self) {
        let mut rest = String::new();
        let mut stdout = self.record.stdout.take().unwrap();
        stdout.read_to_string(&mut rest).unwrap();
    }

    /// Waits for isc-record, which ends by itself.
    fn ended(&mut self) -> i32 {
        self.until_all_ended();
        let status = self.record.wait().unwrap();
        status.code().unwrap_or_else(|| panic!("{status:?}"))
    }

    fn recover(&self, dir: &Path) -> Output {
        let mut command = isc_record(self.home.path());
        command.args(["-o", self.output, "--recover"]).arg(dir);
        command.output().unwrap()
    }

    fn recovered(&self, dir: &Path) {
        let output = self.recover(dir);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
    }

    /// Whether the trace has what the program counted; the second value allows the calls that were open.
    fn assert_nothing_missing(&self, slots: &[usize], open: u64) {
        let words = self.words();
        let trace = calls(&self.at(self.output));
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for &slot in slots {
            *counts.entry(words[2 * slot]).or_default() += words[2 * slot + 1];
        }
        for (tid, counted) in counts {
            let found = trace.get(&tid).copied().unwrap_or(0);
            assert!(
                (counted..=counted + open).contains(&found),
                "thread {tid}: {found} of {counted} calls"
            );
        }
        for slot in (0..SLOTS).filter(|slot| !slots.contains(slot)) {
            assert_eq!(words[2 * slot], 0, "slot {slot} was not looked at");
        }
    }

    /// The args of the program's own row, once the trace went through the commands behind isc-record; and what the
    /// analysis has to say.
    fn analyzed(&self) -> (Value, String) {
        let run = |name: &str, args: &[&str]| {
            let mut command = Command::new(name);
            let output = command.args(args).current_dir(self.home.path()).output();
            let output = output.unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{args:?}: {said}");
            output.stdout
        };
        let merge = env!("CARGO_BIN_EXE_isc-merge");
        run(merge, &[self.output, "-o", "timeline.arrow"]);
        let analyze = env!("CARGO_BIN_EXE_isc-analyze");
        let analysis = run(analyze, &["--json", "timeline.arrow"]);
        let analysis: Value = serde_json::from_slice(&analysis).unwrap();
        let caveats = analysis["caveats"].as_array().unwrap();
        let caveats: Vec<&str> = caveats.iter().filter_map(Value::as_str).collect();
        let pid = self.program();
        let args = processes(&self.at("timeline.arrow"));
        let (_, args) = args.into_iter().find(|(of, _)| *of == pid).unwrap();
        (args, caveats.join("\n"))
    }

    /// What the program's row says of its end, and whether the analysis warns of it.
    fn assert_ended(&self, ended: &str, warns: &str) {
        let (args, caveats) = self.analyzed();
        assert_eq!(args["ended"], ended, "{args}");
        assert_eq!(args["covered"], true, "{args}");
        assert!(caveats.contains(warns), "{caveats:?} without {warns:?}");
        if warns.is_empty() {
            assert!(!caveats.contains("ended"), "{caveats}");
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let program = self.program();
        if let (Ok(None), 1..) = (self.record.try_wait(), program) {
            let _ = sys::kill(program, SIGKILL); // after a failed assertion
            let _ = self.record.kill();
        }
    }
}

fn isc_record(home: &Path) -> Command {
    let mut command = common::recorder();
    command.current_dir(home).env("TMPDIR", home);
    for name in ["VIRTUAL_ENV", "PYTHONPATH", "INFERSCOPE_PYTHON"] {
        command.env_remove(name);
    }
    command
}

fn each_event(path: &Path, mut visit: impl FnMut(&inferscope::trace::Event, &Names)) {
    let mut reader = Reader::open(&Source::from(path)).unwrap();
    let (mut events, mut names) = (Vec::new(), Names::default());
    while reader.next_batch(&mut names, &mut events).unwrap() {
        events.iter().for_each(|event| visit(event, &names));
        events.clear();
    }
}

/// Calls of `work` by thread.
fn calls(path: &Path) -> BTreeMap<u64, u64> {
    let mut calls = BTreeMap::new();
    each_event(path, |event, names| {
        if event.kind == Kind::Python && names.text(event.name) == "work" {
            *calls.entry(event.tid).or_default() += 1;
        }
    });
    calls
}

/// Pid and args of the processes that a probe was in.
fn processes(path: &Path) -> Vec<(u32, Value)> {
    let mut all = Vec::new();
    each_event(path, |event, names| {
        if event.kind == Kind::Process {
            let args = names.text(event.args.unwrap());
            all.push((event.pid, serde_json::from_str(args).unwrap()));
        }
    });
    all.retain(|(_, args): &(u32, Value)| args["covered"] == true);
    all
}

/// After so many calls of its main thread, the program does this to itself.
fn dies(how: &str, slots: &[usize], check: impl Fn(&Run, i32)) {
    at_random_moments(2, |random| {
        let calls = random.below(20_000) + 1;
        let mut run = Run::start(random, how, calls, "run.arrow");
        let status = run.ended();
        run.assert_nothing_missing(slots, 1);
        check(&run, status);
    });
}

/// Kills the program from outside, at a random moment.
fn kills(signal: i32) {
    at_random_moments(2, |random| {
        let mut run = Run::start(random, "killed", 0, "run.parquet");
        let moment = random.below(30_000);
        run.until("the moment", |words| words[1] >= moment && words[0] > 0);
        sys::kill(run.program(), signal).unwrap();
        assert_eq!(run.ended(), 128 + signal);
        run.assert_nothing_missing(&[0, 1], 1);
        let (args, caveats) = run.analyzed();
        assert_eq!(
            (&args["signal"], &args["exit"]),
            (&signal.into(), &Value::Null)
        );
        assert_eq!(args["ended"], "killed");
        assert!(caveats.contains("was killed"), "{caveats}");
    });
}

#[test]
fn the_program_is_killed() {
    kills(SIGKILL);
}

#[test]
fn the_program_is_terminated() {
    kills(SIGTERM);
}

#[test]
fn the_program_leaves_by_the_back_door() {
    dies("leaves", &[0, 1], |run, status| {
        assert_eq!(status, 3);
        run.assert_ended("exit", "");
    });
}

#[test]
fn the_program_aborts() {
    dies("aborts", &[0, 1], |run, status| {
        assert_eq!(status, 128 + SIGABRT);
        run.assert_ended("crashed", "crashed");
    });
}

#[test]
fn the_program_crashes() {
    dies("crashes", &[0, 1], |run, status| {
        assert_eq!(status, 128 + SIGSEGV);
        run.assert_ended("crashed", "SIGSEGV");
    });
}

#[test]
fn the_program_is_out_of_memory_and_goes_on() {
    dies("exhausts", &[0, 1, 2, 3, 4], |run, status| {
        assert_eq!(status, 0);
        run.assert_ended("exit", "");
    });
}

#[test]
fn a_child_is_forked_and_dies_its_own_way() {
    dies("forks", &[0, 1, 2, 3, 4], |run, status| {
        assert_eq!(status, 0);
        run.assert_ended("exit", "");
        let trace = processes(&run.at("timeline.arrow"));
        assert_eq!(trace.len(), 4, "{trace:?}");
        let third = run.words()[6] as u32;
        let (_, args) = trace.iter().find(|(pid, _)| *pid == third).unwrap();
        assert_eq!(args["ended"], "exit", "it said so");
    });
}

#[test]
fn a_thread_never_ends() {
    dies("daemons", &[0, 1], |run, status| {
        assert_eq!(status, 0);
        run.assert_ended("exit", "");
    });
}

#[test]
fn the_interpreter_shuts_down_while_threads_run() {
    dies("shuts_down", &[0, 1, 2, 3], |run, status| {
        assert_eq!(status, 0);
        run.assert_ended("exit", "");
    });
}

#[test]
fn the_recorder_is_killed_and_the_program_ends_by_itself() {
    at_random_moments(2, |random| {
        let calls = 60_000;
        let mut run = Run::start(random, "runs", calls, "run.parquet");
        let moment = random.below(calls / 2);
        run.until("the moment", |words| words[1] >= moment && words[0] > 0);
        let dir = run.dir();
        run.kill_recorder();
        run.until_all_ended();
        assert_eq!(run.words()[WORDS - 1], 2, "the program did not notice");
        run.recovered(&dir);
        run.assert_nothing_missing(&[0, 1], 0);
        run.assert_ended("exit", "recovered");
        assert!(!dir.exists());
    });
}

#[test]
fn the_recorder_is_killed_when_the_file_has_more_than_one_row_group() {
    at_random_moments(1, |random| {
        let calls = 1_300_000;
        let mut run = Run::start(random, "runs", calls, "run.parquet");
        run.until("the program's start", |words| words[0] > 0);
        let dir = run.dir();
        run.wait_for("the second row group", |run| {
            let entries = fs::read_dir(run.home.path()).unwrap().flatten();
            let parts = entries.filter(|e| e.path().extension().is_some_and(|e| e == "part"));
            let sizes = parts.filter_map(|entry| entry.metadata().ok());
            sizes.map(|facts| facts.len()).sum::<u64>() > 1 << 20
        });
        run.kill_recorder();
        run.until_all_ended();
        run.recovered(&dir);
        run.assert_nothing_missing(&[0, 1], 0);
    });
}

#[test]
fn the_recorder_is_killed_and_the_program_still_runs() {
    at_random_moments(2, |random| {
        let calls = random.below(20_000) + 1;
        let mut run = Run::start(random, "waits", calls, "run.arrow");
        run.until("half of it", |words| words[WORDS - 1] == 1);
        let dir = run.dir();
        run.kill_recorder();
        let clean = format!("--clean={}", dir.display());
        let cleaned = isc_record(run.home.path()).arg(clean).output().unwrap();
        let said = String::from_utf8_lossy(&cleaned.stderr).into_owned();
        assert!(
            said.contains(dir.to_str().unwrap()) && dir.exists(),
            "{said}"
        );
        let output = run.recover(&dir);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("run on") && output.status.success(), "{said}");
        run.assert_nothing_missing(&[0], 0);
        run.assert_ended("running", "recovered");
        assert!(dir.exists(), "there is more to come");
        let line = run.stdin.take().unwrap().write_all(b"\n");
        line.unwrap();
        run.until_all_ended();
        run.recovered(&dir);
        run.assert_nothing_missing(&[0, 1], 0);
        assert!(!dir.exists());
    });
}

#[test]
fn both_are_killed_and_the_first_recovery_fails() {
    at_random_moments(2, |random| {
        let mut run = Run::start(random, "killed", 0, "run.parquet");
        let moment = random.below(30_000);
        run.until("the moment", |words| words[1] >= moment && words[0] > 0);
        let (dir, program) = (run.dir(), run.program());
        if random.below(2) == 0 {
            run.kill_recorder();
            sys::kill(program, SIGKILL).unwrap();
        } else {
            sys::kill(program, SIGKILL).unwrap();
            let _ = run.record.kill(); // it may have seen that, and be at its end already
            run.record.wait().unwrap();
        }
        run.until_all_ended();
        if dir.exists() {
            fs::create_dir(run.at("run.parquet")).unwrap();
            let output = run.recover(&dir);
            assert_eq!(output.status.code(), Some(125));
            fs::remove_dir(run.at("run.parquet")).unwrap();
            run.recovered(&dir);
            assert_eq!(
                run.recover(&dir).status.code(),
                Some(125),
                "nothing is left"
            );
        }
        run.assert_nothing_missing(&[0, 1], 1);
        let (args, _) = run.analyzed();
        let ended = args["ended"].as_str().unwrap();
        assert!(["killed", "recorder died"].contains(&ended), "{args}");
    });
}

//! A recorder that stands still, and file systems that are full: nothing is lost that is not counted.

mod common;

use common::{libraries, repository};
use inferscope::cli::Source;
use inferscope::trace::{Kind, Names, Reader};
use inferscope_spool::sys;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SIGKILL: i32 = 9;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

const THREADS: usize = 4;
const WORDS: usize = 512;
/// 32 bytes each: per thread, some times the ring below.
const MARKS: u64 = 60_000;
const RING: &str = "256KiB";

/// A recorded run of `marks.py`.
struct Run {
    home: tempfile::TempDir,
    record: Child,
}

impl Run {
    /// `mounts`: shell commands that come first, in a mount namespace of their own; None: no namespace.
    fn start(mounts: Option<&str>, options: &[&str], fill: Option<&str>) -> Run {
        libraries();
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("calls"), vec![0; 8 * WORDS]).unwrap();
        fs::create_dir(home.path().join("disk")).unwrap();
        let record = env!("CARGO_BIN_EXE_isc-record");
        let mut command = match mounts {
            None => Command::new(record),
            Some(mounts) => {
                let mut command = Command::new("unshare");
                let script = format!("{mounts} && exec \"$@\"");
                command.args(["-rm", "sh", "-c", &script, "sh", record]);
                command
            }
        };
        command.args(["--exact", "--include", "nothing", "-o", "run.arrow"]);
        command.args(["--ring", RING]).args(options);
        command.arg(repository("tests/python/marks.py"));
        command.args(["calls", &THREADS.to_string(), &MARKS.to_string()]);
        command.args(fill).current_dir(home.path());
        for name in ["VIRTUAL_ENV", "PYTHONPATH", "INFERSCOPE_PYTHON"] {
            command.env_remove(name);
        }
        command.env("TMPDIR", home.path()).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let record = command.spawn().unwrap();
        let mut run = Run { home, record };
        run.until(|run| run.words()[WORDS - 1] == 1);
        run
    }

    fn words(&self) -> Vec<u64> {
        let bytes = fs::read(self.home.path().join("calls")).unwrap();
        let words = bytes.chunks_exact(8);
        words
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect()
    }

    fn until(&mut self, holds: impl Fn(&Run) -> bool) {
        while !holds(self) {
            if self.record.try_wait().unwrap().is_some() {
                panic!("{}", self.rest().1);
            }
            std::thread::sleep(Duration::from_millis(1)); // between two looks at what is waited for
        }
    }

    fn line(&mut self) {
        let stdin = self.record.stdin.as_mut().unwrap();
        stdin.write_all(b"\n").unwrap();
    }

    /// Lets the program make its marks while the recorder stands still.
    fn mark_while_stopped(&mut self) {
        sys::kill(self.record.id(), SIGSTOP).unwrap();
        self.line();
        self.until(|run| (0..THREADS).all(|slot| run.words()[2 * slot + 1] == MARKS));
    }

    fn go_on(&mut self) {
        sys::kill(self.record.id(), SIGCONT).unwrap();
    }

    /// Standard output and error, to their ends.
    fn rest(&mut self) -> (String, String) {
        let mut said = [String::new(), String::new()];
        let (mut stdout, mut stderr) = (self.record.stdout.take(), self.record.stderr.take());
        let _ = stdout.as_mut().unwrap().read_to_string(&mut said[0]);
        let _ = stderr.as_mut().unwrap().read_to_string(&mut said[1]);
        said.into()
    }

    /// Lets it come to its end; what isc-record said.
    fn finish(&mut self) -> String {
        self.line();
        let (_, said) = self.rest();
        let status = self.record.wait().unwrap();
        assert!(status.success(), "{status:?}: {said}");
        said
    }

    /// Spill segments that are there now.
    fn spilled(&self) -> Vec<PathBuf> {
        let list = |dir: PathBuf| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let runs = list(self.home.path().to_owned()).into_iter();
        let runs = runs.filter(|path| path.join("run").exists());
        let processes = runs.flat_map(list).filter(|path| path.is_dir());
        let files = processes.flat_map(list);
        files
            .filter(|path| path.extension().is_some_and(|e| e == "seg"))
            .collect()
    }

    /// Marks made, found and lost, over all threads; for each of these the sum was checked.
    fn balance(&self) -> [u64; 3] {
        let words = self.words();
        let trace = trace(&self.home.path().join("run.arrow"));
        let mut sums = [0; 3];
        for slot in 0..THREADS {
            let (tid, made) = (words[2 * slot], words[2 * slot + 1]);
            let [found, lost] = trace.get(&tid).copied().unwrap_or_default();
            // a thread's name is a record too: the only other one that can have been lost
            assert!(
                [made, made + 1].contains(&(found + lost)),
                "thread {tid}: {made} made, {found} found, {lost} lost"
            );
            assert!(found + lost == made || lost > 0);
            for (sum, value) in sums.iter_mut().zip([made, found, lost]) {
                *sum += value;
            }
        }
        sums
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Ok(None) = self.record.try_wait() {
            let _ = sys::kill(self.words()[0] as u32, SIGKILL); // after a failed assertion
            let _ = self.record.kill();
        }
    }
}

/// Marks and losses by thread; losses stand between the first and the last row. The last reading of the clock may itself
/// be one of them.
fn trace(path: &Path) -> BTreeMap<u64, [u64; 2]> {
    let mut reader = Reader::open(&Source::from(path)).unwrap();
    let (mut events, mut names) = (Vec::new(), Names::default());
    let mut sums: BTreeMap<u64, [u64; 2]> = BTreeMap::new();
    let mut times = Vec::new();
    let mut losses = Vec::new();
    while reader.next_batch(&mut names, &mut events).unwrap() {
        for event in events.drain(..) {
            let sum = sums.entry(event.tid).or_default();
            match event.kind {
                Kind::Mark => sum[0] += 1,
                Kind::Lost => {
                    sum[1] += event.value.unwrap() as u64;
                    losses.push(event.start_ns);
                }
                Kind::Clock | Kind::Process => times.extend([event.start_ns, event.end_ns()]),
                _ => {}
            }
        }
    }
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(
        losses.iter().all(|at| (first..=last).contains(&at)),
        "{losses:?}"
    );
    sums
}

/// Whether file systems can be mounted here, in a namespace of a test's own.
fn can_mount() -> bool {
    let script = "mount -t tmpfs tmpfs /dev/shm";
    let tried = Command::new("unshare")
        .args(["-rm", "sh", "-c", script])
        .output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("skipped: no mount namespaces here");
    }
    can
}

#[test]
fn a_recorder_that_stands_still_loses_nothing_within_the_limit() {
    let mut run = Run::start(None, &[], None);
    run.mark_while_stopped();
    assert!(!run.spilled().is_empty(), "the ring is not that large");
    run.go_on();
    run.until(|run| run.spilled().len() <= 2 * THREADS); // what is written to, or ready
    let said = run.finish();
    let [made, found, lost] = run.balance();
    assert_eq!(
        (made, found, lost),
        (THREADS as u64 * (MARKS + MARKS / 10), made, 0)
    );
    // what others have left on this machine is told of too
    let said = said
        .lines()
        .filter(|line| !line.contains("is left of a run"));
    assert_eq!(said.collect::<Vec<_>>(), Vec::<&str>::new());
}

/// Goes on and ends: a part of the marks is lost, counted, and told.
fn loses_and_says_so(run: &mut Run) {
    run.go_on();
    let said = run.finish();
    let [made, found, lost] = run.balance();
    assert!(
        lost > 0 && found > 0 && found < made,
        "{made} {found} {lost}"
    );
    assert!(said.contains("records lost"), "{said}");
}

#[test]
fn beyond_the_limit_what_is_lost_is_exact_and_on_the_timeline() {
    let mut run = Run::start(None, &["--spill-limit", "2MiB"], None);
    run.mark_while_stopped();
    assert!(run.spilled().len() <= 2);
    loses_and_says_so(&mut run);
}

#[test]
fn a_full_spill_disk_is_a_counted_loss() {
    if !can_mount() {
        return;
    }
    let mounts = "mount -t tmpfs -o size=2m tmpfs disk";
    let mut run = Run::start(Some(mounts), &["--spill-dir", "disk"], None);
    run.mark_while_stopped();
    loses_and_says_so(&mut run);
}

#[test]
fn shared_memory_that_is_full_or_becomes_so_is_done_without() {
    if !can_mount() {
        return;
    }
    let small = "mount -t tmpfs -o size=64m tmpfs /dev/shm";
    let full = format!("{small} && (head -c 63m /dev/zero >/dev/shm/full)");
    let fills = Some("/dev/shm/full");
    for (mounts, fill) in [(small, None), (small, fills), (&full, None), (&full, fills)] {
        let mut run = Run::start(Some(mounts), &[], fill);
        run.line();
        run.until(|run| (0..THREADS).all(|slot| run.words()[2 * slot + 1] == MARKS));
        let said = run.finish();
        let [made, found, lost] = run.balance();
        assert_eq!((found, lost), (made, 0), "{mounts} {fill:?}");
        assert_eq!(said, "");
    }
}

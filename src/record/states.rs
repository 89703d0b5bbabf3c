//! What threads did while nobody called us, read from /proc: CPU time, runnable, blocked, memory, lives.
//!
//! Costs the program nothing and sees threads and processes that no probe covers. The kernel's counters are
//! exact; where inside a window the thread waited is not known, so a `wait` row is the window and its value
//! the time waited. What a thread did between our last look and its end is missing from both.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use inferscope_spool::sys;

use super::drain::{Drain, ProcessKey};
use super::ended::Ends;
use crate::trace::{Event, Kind};

/// /proc's clock tick is 1/100 s on Linux, whatever the kernel's own is (`man 5 proc`, USER_HZ).
const TICK_NS: i64 = 10_000_000;

/// Name of the thread that the probe runs beside the program's own; see crates/probe/src/hot.rs.
const OUR_THREAD: &str = "inferscope";

/// Waits are written once they come to this much, so that a thread that hardly waits writes hardly a row.
const LEAST_WAIT_NS: i64 = 1_000_000;

/// Threads of one process that have ended and are remembered until the end of the run.
const MOST_ENDED: usize = 4096;

/// A reading of the clocks that rows of this module are placed by, in ns.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub monotonic_ns: i64,
    pub realtime_ns: i64,
    pub boottime_ns: i64,
}

/// Follows every process below one of ours.
#[derive(Clone, Debug)]
pub struct States {
    root: u32,
    /// What ran before this is no part of the recording.
    since: Option<Now>,
    host: String,
    lives: BTreeMap<ProcessKey, Life>,
}

#[derive(Clone, Debug)]
struct Life {
    ppid: u32,
    name: String,
    /// Why no probe can be in it, as far as one sees from outside.
    reason: String,
    start_ns: i64,
    start_realtime_ns: i64,
    last_ns: i64,
    cpu_ns: i64,
    /// CPU time before the recording.
    before_ns: i64,
    since: Option<Now>,
    rss_bytes: i64,
    alive: bool,
    threads: BTreeMap<u64, ThreadLife>,
}

#[derive(Clone, Debug)]
struct ThreadLife {
    name: String,
    /// What the kernel had counted before the recording.
    before: Scheduled,
    first_ns: i64,
    last_ns: i64,
    /// Start of the window not yet written, and what the counters were then.
    window_ns: i64,
    window: Scheduled,
    last: Scheduled,
    counted_ns: i64,
}

/// The two sums of /proc/PID/task/TID/schedstat.
#[derive(Clone, Copy, Debug, Default)]
struct Scheduled {
    cpu_ns: i64,
    runnable_ns: i64,
}

impl States {
    /// Follows the children of process `root`, and theirs.
    pub fn new(root: u32) -> States {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        States {
            root,
            since: None,
            host: host.trim().to_owned(),
            lives: BTreeMap::new(),
        }
    }

    /// Follows process `root`, which runs already, and its children, from now on.
    pub fn attached(root: u32) -> States {
        let mut states = States::new(root);
        let clocks = sys::clocks();
        states.since = Some(Now {
            monotonic_ns: clocks.monotonic_ns,
            realtime_ns: clocks.realtime_ns,
            boottime_ns: clocks.boottime_ns,
        });
        states
    }

    /// Looks once at every process and thread, and writes what changed.
    pub fn look(&mut self, now: Now, drain: &mut Drain, out: &mut Vec<Event>) {
        let mut seen = HashSet::new();
        // A process whose parent has ended is nobody's child here, but was seen before or has a probe. Its start
        // time tells it from another that has got its pid.
        let any = |pid| (pid, None);
        let mut queue: Vec<(u32, Option<u64>)> = children(self.root).into_iter().map(any).collect();
        queue.extend(self.since.map(|_| any(self.root)));
        let known = self.lives.iter().filter(|(_, life)| life.alive);
        queue.extend(known.map(|(key, _)| (key.pid, Some(key.start_ticks))));
        let probed = drain.processes().into_iter();
        let new = probed.filter(|(key, p)| p.covered && !self.lives.contains_key(key));
        queue.extend(new.map(|(key, _)| (key.pid, Some(key.start_ticks))));
        while let Some((pid, start)) = queue.pop() {
            let Some(stat) = Stat::read(&format!("/proc/{pid}/stat")) else {
                continue;
            };
            let key = ProcessKey {
                pid,
                start_ticks: stat.start_ticks,
            };
            if start.is_some_and(|start| start != key.start_ticks) || !seen.insert(key) {
                continue;
            }
            queue.extend(children(pid).into_iter().map(any));
            let number = drain.process(key).id;
            let life = self
                .lives
                .entry(key)
                .or_insert_with(|| Life::new(pid, &stat, now, self.since));
            // A zombie keeps the sums of its main thread, but has no memory and no executable.
            life.cpu_ns = life.cpu_ns.max(stat.cpu_ns - life.before_ns);
            life.last_ns = now.monotonic_ns;
            if stat.state != 'Z' {
                life.describe(pid, &stat);
                life.memory(pid, number, now, drain, out);
            }
            life.look_at_threads(pid, number, now, drain, out);
        }
        for (key, life) in &mut self.lives {
            if life.alive && !seen.contains(key) {
                life.alive = false;
                let number = drain.process(*key).id;
                life.flush(*key, number, drain, out);
            }
        }
    }

    /// Ends all open windows: what comes after is in rows of its own.
    pub fn cut(&mut self, drain: &mut Drain, out: &mut Vec<Event>) {
        for (key, life) in self.lives.iter_mut().filter(|(_, life)| life.alive) {
            let number = drain.process(*key).id;
            for (tid, thread) in &mut life.threads {
                thread.write(key.pid, number, *tid, drain, out);
            }
        }
    }

    /// The same, less what was so at `past`: what processes and threads did since then.
    pub fn since(&self, past: &States) -> States {
        let mut states = self.clone();
        for (key, life) in &mut states.lives {
            let Some(old) = past.lives.get(key) else {
                continue;
            };
            life.cpu_ns -= old.cpu_ns;
            for (tid, thread) in &mut life.threads {
                if let Some(old) = old.threads.get(tid) {
                    thread.last.cpu_ns -= old.last.cpu_ns;
                    thread.last.runnable_ns -= old.last.runnable_ns;
                }
            }
        }
        states
    }

    /// CPU time of a thread, or of the process (`tid` its pid), in ns.
    pub fn cpu_ns(&self, key: ProcessKey, tid: u64, of_process: bool) -> i64 {
        let life = self.lives.get(&key);
        match of_process {
            true => life.map_or(0, |life| life.cpu_ns),
            false => life
                .and_then(|life| life.threads.get(&tid))
                .map_or(0, |thread| thread.last.cpu_ns),
        }
    }

    /// Writes the rows of threads that ended long ago, where they are many, and forgets them.
    pub fn retire(&mut self, drain: &mut Drain, out: &mut Vec<Event>) {
        let keys: Vec<_> = drain.processes().iter().map(|(key, _)| *key).collect();
        for key in keys {
            let number = drain.process(key).id;
            while let Some(thread) = drain.retire(key, MOST_ENDED, out) {
                let life = self.lives.get_mut(&key);
                let known = life.and_then(|life| life.threads.remove(&thread.tid));
                let name = thread
                    .name
                    .or(known.as_ref().map(|known| known.name.clone()));
                let name = name.unwrap_or_else(|| "thread".into());
                let (mut first_ns, mut last_ns) = (thread.first_ns, thread.last_ns);
                if let Some(known) = &known {
                    (first_ns, last_ns) = (known.first_ns, known.last_ns.max(last_ns));
                }
                let place = (number, key.pid, thread.tid);
                let sums = known.map(|known| known.last);
                out.push(thread_row(drain, &name, place, (first_ns, last_ns), sums));
            }
            // threads without a probe's records
            let Some(life) = self.lives.get_mut(&key) else {
                continue;
            };
            let last_look_ns = life.last_ns;
            let process = drain.process(key);
            let gone = |tid: &u64, thread: &ThreadLife| {
                thread.last_ns < last_look_ns && !process.has_thread(*tid)
            };
            let gone: Vec<u64> = life
                .threads
                .iter()
                .filter(|(tid, thread)| gone(tid, thread))
                .map(|(tid, _)| *tid)
                .collect();
            if gone.len() <= MOST_ENDED {
                continue;
            }
            for tid in gone {
                if let Some(mut thread) = life.threads.remove(&tid) {
                    thread.write(key.pid, number, tid, drain, out);
                    let place = (number, key.pid, tid);
                    let times = (thread.first_ns, thread.last_ns);
                    out.push(thread_row(
                        drain,
                        &thread.name,
                        place,
                        times,
                        Some(thread.last),
                    ));
                }
            }
        }
    }

    /// Writes the rest, and one row for each process and thread. `uncovered` has what a bootstrap wrote about
    /// processes it could not cover.
    pub fn finish(
        &mut self,
        ends: &Ends,
        uncovered: &BTreeMap<u32, String>,
        drain: &mut Drain,
        out: &mut Vec<Event>,
    ) {
        let mut lives = std::mem::take(&mut self.lives);
        for (key, life) in &mut lives {
            let number = drain.process(*key).id;
            if life.alive {
                life.flush(*key, number, drain, out);
            }
        }
        let rows: Vec<_> = drain
            .processes()
            .into_iter()
            .map(|(key, process)| {
                let facts = process.facts.clone();
                (
                    key,
                    process.id,
                    process.covered,
                    facts,
                    process.thread_names.clone(),
                    process.notes.clone(),
                    process.active(),
                    (ends.of(key, process.exited), process.seen_ns),
                )
            })
            .collect();
        for (key, number, covered, facts, thread_names, notes, active, (end, seen_ns)) in rows {
            // after an exec the probe counts the start time up, and the kernel does not
            let execs = lives.range(..=key).next_back();
            let life = execs
                .filter(|(real, _)| real.pid == key.pid)
                .map(|(_, life)| life);
            let name = if covered && !facts.name.is_empty() {
                facts.name.clone()
            } else {
                life.map_or_else(|| format!("pid {}", key.pid), |life| life.name.clone())
            };
            let start_ns = match (life, covered, seen_ns) {
                (Some(life), ..) => life.start_ns,
                (None, true, _) => facts.base_monotonic_ns,
                (None, false, Some(seen_ns)) => seen_ns,
                (None, false, None) => continue, // nothing is known of it, not even when it was
            };
            let sym = drain.names.sym(&name);
            let mut row = Event::new(
                Kind::Process,
                sym,
                start_ns,
                number,
                key.pid,
                u64::from(key.pid),
            );
            row.dur_ns = life.map(|life| (life.last_ns - start_ns).max(0));
            let reason = match (covered, uncovered.get(&key.pid), life) {
                (true, ..) => None,
                (false, Some(said), _) => Some(said.clone()),
                (false, None, Some(life)) => Some(life.reason.clone()),
                (false, None, None) if ends.recovered => {
                    Some("the recorder that looked at it died".to_owned())
                }
                (false, None, None) => Some("it ended before it could be looked at".to_owned()),
            };
            let args = serde_json::json!({
                "host": if facts.host.is_empty() { &self.host } else { &facts.host },
                "pid": key.pid,
                "ppid": life.map_or(facts.ppid, |life| life.ppid),
                "start_realtime_ns": life.map(|life| life.start_realtime_ns),
                "python": facts.python,
                "covered": covered,
                "clock": covered.then_some(&facts.clock),
                "sampled_hz": facts.sampled_hz,
                "reason": reason,
                "notes": notes,
                "exit": end.exit,
                "signal": end.signal,
                "ended": end.ended,
                "recovered": ends.recovered.then_some(true),
                "cpu_ns": life.map(|life| life.cpu_ns),
            });
            row.args = Some(drain.names.sym(&without_nulls(args).to_string()));
            out.push(row);
            let own = lives.get(&key);
            for (tid, thread) in own.map(|life| &life.threads).into_iter().flatten() {
                let name = thread_names.get(tid).unwrap_or(&thread.name);
                let place = (number, key.pid, *tid);
                let times = (thread.first_ns, thread.last_ns);
                out.push(thread_row(drain, name, place, times, Some(thread.last)));
            }
            // threads that came and went between two looks
            let unseen = |tid: &u64| own.is_none_or(|life| !life.threads.contains_key(tid));
            for (tid, first_ns, last_ns) in active.into_iter().filter(|(tid, ..)| unseen(tid)) {
                let name = thread_names.get(&tid).map_or("thread", String::as_str);
                let place = (number, key.pid, tid);
                out.push(thread_row(drain, name, place, (first_ns, last_ns), None));
            }
        }
    }
}

/// `place`: number of the process, pid, tid. `times`: first and last.
fn thread_row(
    drain: &mut Drain,
    name: &str,
    (number, pid, tid): (u32, u32, u64),
    (first_ns, last_ns): (i64, i64),
    sums: Option<Scheduled>,
) -> Event {
    let sym = drain.names.sym(name);
    let mut row = Event::new(Kind::Thread, sym, first_ns, number, pid, tid);
    row.dur_ns = Some((last_ns - first_ns).max(0));
    row.args = sums.map(|sums| {
        let args = serde_json::json!({"cpu_ns": sums.cpu_ns, "runnable_ns": sums.runnable_ns});
        drain.names.sym(&args.to_string())
    });
    row
}

impl Life {
    fn new(pid: u32, stat: &Stat, now: Now, since: Option<Now>) -> Life {
        let age_ns = stat.age_ns(now, None);
        let before = since.filter(|since| age_ns > now.monotonic_ns - since.monotonic_ns);
        let age_ns = stat.age_ns(now, since);
        Life {
            ppid: stat.ppid,
            name: stat.comm.clone(),
            reason: reason(pid),
            start_ns: now.monotonic_ns - age_ns,
            start_realtime_ns: now.realtime_ns - age_ns,
            last_ns: now.monotonic_ns,
            cpu_ns: 0,
            before_ns: before.map_or(0, |_| stat.cpu_ns),
            since,
            rss_bytes: 0,
            alive: true,
            threads: BTreeMap::new(),
        }
    }

    /// An exec changes what a process is: name and reason are those of the last program it ran.
    fn describe(&mut self, pid: u32, stat: &Stat) {
        if self.name != stat.comm {
            self.name.clone_from(&stat.comm);
            self.reason = reason(pid);
        }
    }

    fn memory(&mut self, pid: u32, number: u32, now: Now, drain: &mut Drain, out: &mut Vec<Event>) {
        let pages = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let Some(pages) = pages
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse::<i64>().ok())
        else {
            return;
        };
        let rss_bytes = pages.saturating_mul(PAGE_BYTES);
        // A row for each change of 1 % keeps the curve and not the noise.
        if (rss_bytes - self.rss_bytes).abs() > self.rss_bytes / 100 {
            self.rss_bytes = rss_bytes;
            let sym = drain.names.sym("process.rss_bytes");
            let mut row = Event::new(
                Kind::Counter,
                sym,
                now.monotonic_ns,
                number,
                pid,
                u64::from(pid),
            );
            row.value = Some(rss_bytes as f64);
            out.push(row);
        }
    }

    fn look_at_threads(
        &mut self,
        pid: u32,
        number: u32,
        now: Now,
        drain: &mut Drain,
        out: &mut Vec<Event>,
    ) {
        let mut cpu_ns = 0;
        for tid in numbers(Path::new(&format!("/proc/{pid}/task"))) {
            let task = format!("/proc/{pid}/task/{tid}");
            let Some(sums) = Scheduled::read(&format!("{task}/schedstat")) else {
                continue;
            };
            let name = fs::read_to_string(format!("{task}/comm")).unwrap_or_default();
            if name.trim_end() == OUR_THREAD {
                cpu_ns += sums.cpu_ns; // the process's, but none of the program's threads
                continue;
            }
            let thread = self.threads.entry(tid).or_insert_with(|| {
                // A thread that is new to us and has run for less than the window began inside of it.
                let stat = Stat::read(&format!("{task}/stat"));
                let age_ns = |since| stat.as_ref().map_or(0, |stat| stat.age_ns(now, since));
                let whole_ns = age_ns(None).max(sums.cpu_ns + sums.runnable_ns);
                let cut_ns = age_ns(self.since);
                let (first_ns, before) = match cut_ns < whole_ns && self.since.is_some() {
                    true => (now.monotonic_ns - cut_ns, sums),
                    false => (now.monotonic_ns - whole_ns, Scheduled::default()),
                };
                ThreadLife {
                    before,
                    name: String::new(),
                    first_ns,
                    last_ns: first_ns,
                    window_ns: first_ns,
                    window: Scheduled::default(),
                    last: Scheduled::default(),
                    counted_ns: -1,
                }
            });
            let sums = Scheduled {
                cpu_ns: sums.cpu_ns - thread.before.cpu_ns,
                runnable_ns: sums.runnable_ns - thread.before.runnable_ns,
            };
            if !name.is_empty() {
                thread.name = name.trim_end().to_owned();
            }
            let busy = sums.cpu_ns != thread.last.cpu_ns;
            let was_idle =
                thread.last.cpu_ns == thread.window.cpu_ns && thread.last_ns > thread.window_ns;
            // Idle windows grow until the thread runs again; a window in which it ran ends now.
            if busy && was_idle {
                thread.write(pid, number, tid, drain, out);
            }
            thread.last = sums;
            thread.last_ns = now.monotonic_ns;
            if busy {
                thread.write(pid, number, tid, drain, out);
            }
            cpu_ns += sums.cpu_ns;
        }
        self.cpu_ns = self.cpu_ns.max(cpu_ns);
    }

    fn flush(&mut self, key: ProcessKey, number: u32, drain: &mut Drain, out: &mut Vec<Event>) {
        for (tid, thread) in &mut self.threads {
            thread.write(key.pid, number, *tid, drain, out);
        }
        let sym = drain.names.sym("process.cpu_ns");
        let mut row = Event::new(
            Kind::Counter,
            sym,
            self.last_ns,
            number,
            key.pid,
            u64::from(key.pid),
        );
        row.value = Some(self.cpu_ns as f64);
        out.push(row);
    }
}

impl ThreadLife {
    /// Writes the window up to `last_ns` and starts the next one there.
    fn write(&mut self, pid: u32, number: u32, tid: u64, drain: &mut Drain, out: &mut Vec<Event>) {
        let dur_ns = self.last_ns - self.window_ns;
        let cpu_ns = self.last.cpu_ns - self.window.cpu_ns;
        let runnable_ns = (self.last.runnable_ns - self.window.runnable_ns).clamp(0, dur_ns);
        let blocked_ns = (dur_ns - cpu_ns - runnable_ns).max(0);
        for (name, waited_ns) in [("runnable", runnable_ns), ("blocked", blocked_ns)] {
            if waited_ns >= LEAST_WAIT_NS {
                let sym = drain.names.sym(name);
                let mut row = Event::new(Kind::Wait, sym, self.window_ns, number, pid, tid);
                row.dur_ns = Some(dur_ns);
                row.value = Some(waited_ns as f64);
                out.push(row);
            }
        }
        if self.last.cpu_ns != self.counted_ns {
            self.counted_ns = self.last.cpu_ns;
            let sym = drain.names.sym("thread.cpu_ns");
            let mut row = Event::new(Kind::Counter, sym, self.last_ns, number, pid, tid);
            row.value = Some(self.last.cpu_ns as f64);
            out.push(row);
        }
        self.window_ns = self.last_ns;
        self.window = self.last;
    }
}

/// Bytes of a page, as /proc/PID/statm counts them on x86-64 and most arm64 kernels.
const PAGE_BYTES: i64 = 4096;

/// The fields of a /proc stat line that matter here.
#[derive(Debug)]
struct Stat {
    comm: String,
    state: char,
    ppid: u32,
    cpu_ns: i64,
    start_ticks: u64,
}

impl Stat {
    /// Time since its start, or since the recording's if that is later.
    fn age_ns(&self, now: Now, since: Option<Now>) -> i64 {
        let age_ns = (now.boottime_ns - self.start_ticks as i64 * TICK_NS).max(0);
        since.map_or(age_ns, |since| {
            age_ns.min(now.monotonic_ns - since.monotonic_ns)
        })
    }

    fn read(path: &str) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(path).ok()?)
    }

    /// The name stands in parentheses and may hold any character, parentheses too: split at the last one.
    fn parse(line: &str) -> Option<Stat> {
        let (left, right) = line.rsplit_once(')')?;
        let fields: Vec<&str> = right.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat {
            comm: left.split_once('(')?.1.to_owned(),
            state: fields.first()?.chars().next()?,
            ppid: number(4)? as u32,
            cpu_ns: (number(14)? as i64)
                .saturating_add(number(15)? as i64)
                .saturating_mul(TICK_NS),
            start_ticks: number(22)?,
        })
    }
}

impl Scheduled {
    fn read(path: &str) -> Option<Scheduled> {
        let text = fs::read_to_string(path).ok()?;
        let mut words = text.split_ascii_whitespace().map(str::parse::<i64>);
        Some(Scheduled {
            cpu_ns: words.next()?.ok()?,
            runnable_ns: words.next()?.ok()?,
        })
    }
}

/// Start time of a process as [`ProcessKey`] has it; `None` when it is gone.
pub fn start_ticks(pid: u32) -> Option<u64> {
    Stat::read(&format!("/proc/{pid}/stat")).map(|stat| stat.start_ticks)
}

/// The processes that a process has started and that still run.
pub fn children(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    for tid in numbers(Path::new(&format!("/proc/{pid}/task"))) {
        let list =
            fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")).unwrap_or_default();
        all.extend(
            list.split_ascii_whitespace()
                .filter_map(|word| word.parse::<u32>().ok()),
        );
    }
    all
}

fn numbers(folder: &Path) -> Vec<u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut all: Vec<u64> = entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    all.sort_unstable();
    all
}

/// Why a process without a probe has none. Looks at flags and at whether our variable is there; keeps neither.
fn reason(pid: u32) -> String {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let exe = exe
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    if !exe.contains("python") && !exe.contains("pypy") {
        return "it is not a Python program, or one with Python inside that reads no PYTHONPATH (frozen)".to_owned();
    }
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let flags = line
        .split(|byte| *byte == 0)
        .skip(1)
        .take_while(|arg| arg.starts_with(b"-") && arg.len() > 1);
    for flag in flags {
        // The program's own arguments begin after -c or -m: what follows is not ours to look at.
        if flag == b"-c" || flag == b"-m" || flag.starts_with(b"--") {
            break;
        }
        if flag.contains(&b'I') {
            return "Python runs isolated (-I)".to_owned();
        }
        if flag.contains(&b'E') {
            return "Python ignores its environment (-E)".to_owned();
        }
        if flag.contains(&b'S') {
            return "Python runs without its site module (-S)".to_owned();
        }
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    if !environment
        .split(|byte| *byte == 0)
        .any(|entry| entry.starts_with(b"INFERSCOPE_SPOOL="))
    {
        return "it was started with an environment of its own, without ours".to_owned();
    }
    format!("{exe} did not load the probe")
}

fn without_nulls(mut value: serde_json::Value) -> serde_json::Value {
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, value| {
            !value.is_null() && value.as_array().is_none_or(|array| !array.is_empty())
        });
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ended::Status;
    use std::process::{Command, Stdio};

    fn now(ns: i64) -> Now {
        Now {
            monotonic_ns: ns,
            realtime_ns: ns,
            boottime_ns: ns,
        }
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) b) (c) R 1 7 7 0 -1 4 1 0 0 0 3 4 0 0 20 0 1 0 99 1 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            (stat.comm.as_str(), stat.state, stat.ppid),
            ("a) b) (c", 'R', 1)
        );
        assert_eq!((stat.cpu_ns, stat.start_ticks), (7 * TICK_NS, 99));
        assert!(Stat::parse("7 (a").is_none());
    }

    #[test]
    fn windows_add_up_to_the_threads_life() {
        let mut drain = Drain::default();
        let mut out = Vec::new();
        let mut thread = ThreadLife {
            name: String::new(),
            before: Scheduled::default(),
            first_ns: 0,
            last_ns: 100_000_000,
            window_ns: 0,
            window: Scheduled::default(),
            last: Scheduled {
                cpu_ns: 30_000_000,
                runnable_ns: 20_000_000,
            },
            counted_ns: -1,
        };
        thread.write(1, 0, 1, &mut drain, &mut out);
        let waited: Vec<_> = out
            .iter()
            .filter(|e| e.kind == Kind::Wait)
            .map(|e| e.value)
            .collect();
        assert_eq!(waited, [Some(20e6), Some(50e6)]);
        assert_eq!(out.last().and_then(|e| e.value), Some(30e6));
    }

    #[test]
    fn a_child_that_waits_is_seen_waiting_and_gets_its_rows() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (mut drain, mut out) = (Drain::default(), Vec::new());
        let mut states = States::new(std::process::id());
        let key = ProcessKey {
            pid: child.id(),
            start_ticks: start_ticks(child.id()).unwrap(),
        };
        let base = key.start_ticks as i64 * TICK_NS;
        states.look(now(base + 1_000_000_000), &mut drain, &mut out);
        states.look(now(base + 2_000_000_000), &mut drain, &mut out);
        drop(child.stdin.take());
        child.wait().unwrap();
        states.look(now(base + 3_000_000_000), &mut drain, &mut out);
        let ends = Ends {
            program: Some((key.pid, Status::Exit(0))),
            ..Ends::default()
        };
        states.finish(&ends, &BTreeMap::new(), &mut drain, &mut out);
        let number = drain.process(key).id;
        let mine = |kind| {
            out.iter()
                .filter(move |e| e.kind == kind && e.process == number)
        };
        let blocked: f64 = mine(Kind::Wait)
            .filter(|e| drain.names.text(e.name) == "blocked")
            .filter_map(|e| e.value)
            .sum();
        assert!(blocked > 1.5e9, "{blocked}");
        let row = mine(Kind::Process).next().unwrap();
        let args = drain.names.text(row.args.unwrap());
        assert!(
            args.contains(r#""covered":false"#) && args.contains("not a Python program"),
            "{args}"
        );
        assert_eq!(mine(Kind::Thread).count(), 1);
    }
}

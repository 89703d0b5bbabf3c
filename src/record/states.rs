//! What processes and threads did while nobody called us, read from /proc: CPU time, waits, memory, lives.
//!
//! Costs the program nothing and sees threads and processes that no probe covers. What they wait for is seen by
//! [`super::looks`]; what a thread did between our last look and its end is missing.

mod rows; // what was seen of threads, as rows of the trace

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use inferscope_spool::sys;

use super::drain::{Drain, ProcessKey};
use super::ended::Ends;
use super::looks::Looks;
use super::proc::{OUR_THREAD, Stat, children, numbers, reason};
use super::waits::Sums;
use crate::trace::{Event, Kind};
use rows::{gils, thread_row};

/// Threads of one process that have ended and are remembered until the end of the run.
const LEAST_SYSTEM_NS: i64 = 50_000_000;
const MOST_ENDED: usize = 4096;

/// A reading of the clocks that rows of this module are placed by, in ns.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub monotonic_ns: i64,
    pub realtime_ns: i64,
    pub boottime_ns: i64,
}

/// Follows every process below one of ours.
#[derive(Debug)]
pub struct States {
    root: u32,
    /// What ran before this is no part of the recording.
    since: Option<Now>,
    host: String,
    lives: BTreeMap<ProcessKey, Life>,
    looks: Looks,
    /// Small numbers for what threads lock, by process and address.
    locks: HashMap<(ProcessKey, u64), usize>,
}

#[derive(Debug)]
struct Life {
    ppid: u32,
    name: String,
    /// Why no probe can be in it, as far as one sees from outside.
    reason: String,
    /// Tells its program from the one before; see [`Stat`].
    environment_end: u64,
    start_ns: i64,
    start_realtime_ns: i64,
    last_ns: i64,
    cpu_ns: i64,
    /// CPU time before the recording.
    before_ns: i64,
    since: Option<Now>,
    rss_bytes: i64,
    minor_faults: u64,
    /// CPU time in the kernel, when that was last written.
    system_ns: i64,
    alive: bool,
    /// The system does not tell what its threads wait for.
    hidden: bool,
    threads: BTreeMap<u64, ThreadLife>,
}

#[derive(Debug)]
struct ThreadLife {
    name: String,
    /// What the kernel had counted before the recording.
    before: Sums,
    first_ns: i64,
    last_ns: i64,
    last: Sums,
    counted_ns: i64,
}

/// Sums of processes and threads at one moment.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// CPU time of each process, and the sums of its threads.
    lives: BTreeMap<ProcessKey, (i64, BTreeMap<u64, Sums>)>,
    looks_cpu_ns: i64,
}

impl Past {
    /// CPU time of a thread, or of the whole process, in ns.
    pub fn cpu_ns(&self, key: ProcessKey, tid: u64, of_process: bool) -> i64 {
        match of_process {
            true => self.lives.get(&key).map_or(0, |(cpu_ns, _)| *cpu_ns),
            false => self.sums(key, tid).cpu_ns,
        }
    }

    fn sums(&self, key: ProcessKey, tid: u64) -> Sums {
        let threads = self.lives.get(&key).map(|(_, threads)| threads);
        let sums = threads.and_then(|threads| threads.get(&tid));
        sums.copied().unwrap_or_default()
    }
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
            looks: Looks::start(),
            locks: HashMap::new(),
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
                life.faults(pid, &stat, number, now, drain, out);
            }
            life.look_at_threads(pid, number, now, drain, out);
            life.hidden |= self.looks.is_denied(key);
        }
        let gils = gils(drain);
        let followed: Vec<_> = (seen.iter())
            .map(|key| (*key, gils.get(&key.pid).copied()))
            .collect();
        let rows = self.looks.follow(&followed);
        self.write(rows, drain, out);
        for (key, life) in &mut self.lives {
            if life.alive && !seen.contains(key) {
                life.alive = false;
                let number = drain.process(*key).id;
                life.flush(*key, number, life.cpu_ns, drain, out);
                drain.process(*key).states = HashMap::new();
            }
        }
    }

    /// Ends all rows that go on: what comes after is in rows of its own.
    pub fn cut(&mut self, drain: &mut Drain, out: &mut Vec<Event>) {
        let rows = self.looks.cut();
        self.write(rows, drain, out);
    }

    /// The sums as they are now.
    pub fn past(&self) -> Past {
        let of = |life: &Life| {
            let threads = life.threads.iter();
            let threads = threads.map(|(tid, thread)| (*tid, thread.last)).collect();
            (life.cpu_ns, threads)
        };
        let lives = self.lives.iter().map(|(key, life)| (*key, of(life)));
        Past {
            lives: lives.collect(),
            looks_cpu_ns: self.looks.cost_ns(),
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
                if let Some(thread) = life.threads.remove(&tid) {
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
        let rows = self.looks.finish();
        self.write(rows, drain, out);
        self.ended(&Past::default(), ends, uncovered, drain, out);
    }

    /// Writes one row for each process and thread, as if it ended now; with what it did since `past`. After
    /// [`States::cut`].
    pub fn ended(
        &self,
        past: &Past,
        ends: &Ends,
        uncovered: &BTreeMap<u32, String>,
        drain: &mut Drain,
        out: &mut Vec<Event>,
    ) {
        let pid = std::process::id();
        let sym = drain.names.sym("recorder.looks_cpu_ns");
        let at_ns = inferscope_spool::sys::monotonic_ns();
        let mut row = Event::new(Kind::Counter, sym, at_ns, 0, pid, u64::from(pid));
        row.value = Some((self.looks.cost_ns() - past.looks_cpu_ns) as f64);
        out.push(row);
        let lives = &self.lives;
        for (key, life) in lives.iter().filter(|(_, life)| life.alive) {
            let number = drain.process(*key).id;
            let cpu_ns = life.cpu_ns - past.cpu_ns(*key, 0, true);
            life.flush(*key, number, cpu_ns, drain, out);
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
                    process.devices.recorder().cloned(),
                )
            })
            .collect();
        for (key, number, covered, facts, thread_names, notes, active, (end, seen_ns), gpu) in rows
        {
            // after an exec the probe counts the start time up, and the kernel does not
            let execs = lives.range(..=key).next_back();
            let execs = execs.filter(|(real, _)| real.pid == key.pid);
            let life = execs.map(|(_, life)| life);
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
            let mut notes = notes;
            if life.is_some_and(|life| life.hidden) {
                notes.push(HIDDEN.to_owned());
            }
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
                "gpu": gpu,
                "exit": end.exit,
                "signal": end.signal,
                "ended": end.ended,
                "recovered": ends.recovered.then_some(true),
                "cpu_ns": execs.map(|(real, life)| life.cpu_ns - past.cpu_ns(*real, 0, true)),
            });
            row.args = Some(drain.names.sym(&without_nulls(args).to_string()));
            out.push(row);
            let own = lives.get(&key);
            for (tid, thread) in own.map(|life| &life.threads).into_iter().flatten() {
                let name = thread_names.get(tid).unwrap_or(&thread.name);
                let place = (number, key.pid, *tid);
                let times = (thread.first_ns, thread.last_ns);
                let sums = thread.last.since(past.sums(key, *tid));
                out.push(thread_row(drain, name, place, times, Some(sums)));
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

impl Life {
    fn new(pid: u32, stat: &Stat, now: Now, since: Option<Now>) -> Life {
        let age_ns = stat.age_ns(now, None);
        let before = since.filter(|since| age_ns > now.monotonic_ns - since.monotonic_ns);
        let age_ns = stat.age_ns(now, since);
        Life {
            ppid: stat.ppid,
            name: stat.comm.clone(),
            reason: reason(pid, stat),
            environment_end: stat.environment_end,
            start_ns: now.monotonic_ns - age_ns,
            start_realtime_ns: now.realtime_ns - age_ns,
            last_ns: now.monotonic_ns,
            cpu_ns: 0,
            before_ns: before.map_or(0, |_| stat.cpu_ns),
            since,
            rss_bytes: 0,
            minor_faults: 0,
            system_ns: 0,
            alive: true,
            hidden: false,
            threads: BTreeMap::new(),
        }
    }

    /// An exec changes what a process is: name and reason are those of the last program it ran.
    fn describe(&mut self, pid: u32, stat: &Stat) {
        if self.name != stat.comm || self.environment_end != stat.environment_end {
            self.name.clone_from(&stat.comm);
            self.environment_end = stat.environment_end;
            self.reason = reason(pid, stat);
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

    /// Rows for faults and for time in the kernel, at each change of either by 2 %: large pages are few faults that take long.
    fn faults(
        &mut self,
        pid: u32,
        stat: &Stat,
        number: u32,
        now: Now,
        drain: &mut Drain,
        out: &mut Vec<Event>,
    ) {
        let faults = stat.minor_faults > self.minor_faults + self.minor_faults / 50;
        let grown_ns = stat.system_ns - self.system_ns;
        if !faults && grown_ns <= (self.system_ns / 50).max(LEAST_SYSTEM_NS) {
            return;
        }
        (self.minor_faults, self.system_ns) = (stat.minor_faults, stat.system_ns);
        let counters = [
            ("process.minor_faults", stat.minor_faults as f64),
            ("process.system_ns", stat.system_ns as f64),
        ];
        for (name, value) in counters {
            let sym = drain.names.sym(name);
            let at_ns = now.monotonic_ns;
            let mut row = Event::new(Kind::Counter, sym, at_ns, number, pid, u64::from(pid));
            row.value = Some(value);
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
            let line = fs::read_to_string(format!("{task}/schedstat")).unwrap_or_default();
            let Some(sums) = Sums::parse(&line) else {
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
                    false => (now.monotonic_ns - whole_ns, Sums::default()),
                };
                ThreadLife {
                    before,
                    name: String::new(),
                    first_ns,
                    last_ns: first_ns,
                    last: Sums::default(),
                    counted_ns: -1,
                }
            });
            let sums = sums.since(thread.before);
            if !name.is_empty() {
                thread.name = name.trim_end().to_owned();
            }
            thread.last = sums;
            thread.last_ns = now.monotonic_ns;
            thread.count(pid, number, tid, drain, out);
            cpu_ns += sums.cpu_ns;
        }
        self.cpu_ns = self.cpu_ns.max(cpu_ns);
    }

    fn flush(
        &self,
        key: ProcessKey,
        number: u32,
        cpu_ns: i64,
        drain: &mut Drain,
        out: &mut Vec<Event>,
    ) {
        let sym = drain.names.sym("process.cpu_ns");
        let mut row = Event::new(
            Kind::Counter,
            sym,
            self.last_ns,
            number,
            key.pid,
            u64::from(key.pid),
        );
        row.value = Some(cpu_ns as f64);
        out.push(row);
    }
}

impl ThreadLife {
    /// Writes the CPU time if it has changed.
    fn count(&mut self, pid: u32, number: u32, tid: u64, drain: &mut Drain, out: &mut Vec<Event>) {
        if self.last.cpu_ns == self.counted_ns {
            return;
        }
        self.counted_ns = self.last.cpu_ns;
        let sym = drain.names.sym("thread.cpu_ns");
        let mut row = Event::new(Kind::Counter, sym, self.last_ns, number, pid, tid);
        row.value = Some(self.last.cpu_ns as f64);
        out.push(row);
    }
}

/// What the trace says where the system hides what threads wait for.
const HIDDEN: &str = "what its threads waited for is not known: the system does not let us read /proc/PID/task/TID/syscall";

/// Bytes of a page, as /proc/PID/statm counts them on x86-64 and most arm64 kernels.
const PAGE_BYTES: i64 = 4096;

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
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    fn now() -> Now {
        let clocks = inferscope_spool::sys::clocks();
        Now {
            monotonic_ns: clocks.monotonic_ns,
            realtime_ns: clocks.realtime_ns,
            boottime_ns: clocks.boottime_ns,
        }
    }

    #[test]
    fn an_exec_gives_a_process_another_reason_even_if_its_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let python = folder.path().join("python3");
        fs::copy("/bin/sh", &python).unwrap();
        let mut child = Command::new(&python)
            .args(["-c", "read a; exec \"$0\" -E -c 'read b'"])
            .arg(&python)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut drain, mut out) = (Drain::default(), Vec::new());
        let mut states = States::new(std::process::id());
        let pid = child.id();
        let mut told = |wanted: &str| {
            for _ in 0..1_000_000 {
                states.look(now(), &mut drain, &mut out);
                let lives = states.lives.iter();
                let mut mine = lives.filter(|(key, _)| key.pid == pid);
                if mine.any(|(_, life)| life.reason.contains(wanted)) {
                    return;
                }
            }
            panic!("it is never said: {wanted}");
        };
        told("environment of its own");
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        told("(-E)");
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_child_that_waits_is_seen_waiting_for_its_pipe_and_gets_its_rows() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (mut drain, mut out) = (Drain::default(), Vec::new());
        let mut states = States::new(std::process::id());
        let stat = Stat::read(&format!("/proc/{}/stat", child.id()));
        let key = ProcessKey {
            pid: child.id(),
            start_ticks: stat.unwrap().start_ticks,
        };
        let reads = |states: &States| {
            let read = libc::SYS_read.to_string() + " ";
            let call = fs::read_to_string(format!("/proc/{}/syscall", key.pid)).unwrap();
            states.lives.contains_key(&key) && call.starts_with(&read)
        };
        let (mut looks, mut first) = (0, None);
        // until it has waited for a hundredth of a second, seen by looks of which the last comes later
        while first.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(100)) {
            states.look(now(), &mut drain, &mut out);
            looks += 1;
            assert!(looks < 1_000_000);
            if first.is_none() && reads(&states) {
                first = Some(Instant::now());
            }
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        states.look(now(), &mut drain, &mut out);
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
        let told: Vec<_> = mine(Kind::Wait)
            .map(|e| {
                (
                    drain.names.text(e.name),
                    drain.names.text(e.args.unwrap()),
                    e.value,
                )
            })
            .collect();
        let pipe = told
            .iter()
            .find(|(name, args, _)| *name == "io" && args.contains("\"file\":\"pipe\""));
        assert!(
            pipe.is_some_and(|(.., waited)| waited > &Some(0.0)),
            "{told:?}"
        );
        let row = mine(Kind::Process).next().unwrap();
        let args = drain.names.text(row.args.unwrap());
        assert!(
            args.contains(r#""covered":false"#) && args.contains("not a Python program"),
            "{args}"
        );
        assert_eq!(mine(Kind::Thread).count(), 1);
    }
}

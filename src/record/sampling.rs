//! Python stacks, sampled from outside: nothing runs in the program, which pays nothing.
//!
//! A thread of ours looks at every Python process of the run at a rate, and makes spans of what it sees. The
//! rate wavers, so that a program which does the same at every 10 ms is not always met at the same point.

#[cfg(feature = "sampling")]
mod pthread; // the system's numbers of threads before Python 3.11
mod source; // what the sampling thread tells
mod spy; // the stacks of one process
mod stacks; // samples to spans

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use inferscope_spool::sys;

use super::drain::ProcessKey;
use super::proc;
pub use source::Source;
use source::{Function, Told};
pub use spy::Spy;
use stacks::{Seen, Span, Stacks, WAITING};

/// Between two looks for processes.
const LOOK: Duration = Duration::from_millis(50);
/// After so many samples in a row that failed a process is taken to be another program now.
const MOST_FAILED: u32 = 20;
/// Between the first two tries to find the interpreter in a process that is starting, and the most that it grows to.
const TRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Spans that are open are told only when they end; ended ones at least this often.
const TELL: Duration = Duration::from_millis(100);
/// Distinct functions of one process; further ones are `(one of too many)`.
const MOST_FUNCTIONS: usize = 1 << 17;
/// Names of threads that have ended are forgotten when there are more than twice as many as threads, and so many.
const SPARE_NAMES: usize = 1024;
/// What a thread that waits does, below its Python frames; `analyze::measure::waits` knows it.
pub const WAITING_NAME: &str = "(waiting)";

/// What is sampled, and when.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The process that all others descend from.
    pub root: u32,
    pub rate_hz: f64,
    pub delay: Duration,
    pub duration: Option<Duration>,
    /// Files of ours, which are no part of the program.
    pub own: PathBuf,
    /// What is open is told too: a window may be written at any time.
    pub windowed: bool,
}

struct Sampler {
    plan: Plan,
    tell: mpsc::Sender<Told>,
    targets: HashMap<ProcessKey, Target>,
    /// State of a generator of numbers, for the wavering; xorshift64 (Marsaglia, 2003).
    random: u64,
}

/// A process below the root.
struct Target {
    spy: Option<Spy>,
    stacks: Stacks,
    numbers: HashMap<(String, String, u32), u32>,
    functions: Vec<Arc<Function>>,
    /// Of the program and of its Python, once it was found.
    name: String,
    python: String,
    names: HashMap<u64, String>,
    /// Names not told yet.
    new_names: Vec<(u64, String)>,
    /// Those told before are to be forgotten.
    forget: bool,
    spans: Vec<Span>,
    first_ns: i64,
    told: Instant,
    failed: u32,
    lost: u64,
    retry: (Instant, Duration),
}

impl Sampler {
    fn new(plan: Plan, tell: mpsc::Sender<Told>) -> Sampler {
        let random = u64::from(plan.root) | 1 << 40;
        Sampler {
            plan,
            tell,
            targets: HashMap::new(),
            random,
        }
    }

    fn run(mut self, stop: &AtomicBool) {
        let begun = Instant::now() + self.plan.delay;
        let period = Duration::from_secs_f64(1.0 / self.plan.rate_hz);
        let mut next = begun;
        let mut looked: Option<Instant> = None;
        while !stop.load(Ordering::SeqCst) {
            let now = Instant::now();
            if now < next {
                std::thread::park_timeout(next - now);
                continue;
            }
            if self.plan.duration.is_some_and(|most| now - begun >= most) {
                break;
            }
            if looked.is_none_or(|at| at.elapsed() >= LOOK) {
                looked = Some(now);
                self.look();
            }
            for (key, target) in &mut self.targets {
                target.sample(*key, &self.plan);
                if target.told.elapsed() >= TELL {
                    target.tell(*key, &self.plan, &self.tell, false);
                }
            }
            // a sample that is late is not made up for
            next = (next + period.mul_f64(self.waver())).max(Instant::now());
        }
        for (key, target) in &mut self.targets {
            target.tell(*key, &self.plan, &self.tell, true);
        }
    }

    /// From 0.5 to 1.5, evenly; with a steady rate, what the program repeats at the same rate is always met at the same
    /// point. The width is a choice: its mean is the period, and two samples are never less than half of one apart.
    fn waver(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        0.5 + (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Finds the processes that there are, and leaves those that are gone.
    fn look(&mut self) {
        let mut queue = vec![self.plan.root];
        // of a process whose parent is gone, only its being known tells
        queue.extend(self.targets.keys().map(|key| key.pid));
        let mut living = Vec::new();
        while let Some(pid) = queue.pop() {
            let Some(start_ticks) = proc::start_ticks(pid) else {
                continue;
            };
            let key = ProcessKey { pid, start_ticks };
            if !living.contains(&key) {
                living.push(key);
                queue.extend(proc::children(pid));
            }
        }
        let period_ns = (1e9 / self.plan.rate_hz) as i64;
        for key in &living {
            let new = || Target::new(period_ns);
            self.targets.entry(*key).or_insert_with(new);
        }
        let (plan, tell) = (&self.plan, &self.tell);
        self.targets.retain(|key, target| {
            let lives = living.contains(key);
            if !lives {
                target.tell(*key, plan, tell, true);
            }
            lives
        });
    }
}

impl Target {
    fn new(period_ns: i64) -> Target {
        let now = Instant::now();
        Target {
            spy: None,
            stacks: Stacks::new(period_ns),
            numbers: HashMap::new(),
            functions: Vec::new(),
            name: String::new(),
            python: String::new(),
            names: HashMap::new(),
            new_names: Vec::new(),
            forget: false,
            spans: Vec::new(),
            first_ns: 0,
            told: now,
            failed: 0,
            lost: 0,
            retry: (now, TRY.0),
        }
    }

    fn sample(&mut self, key: ProcessKey, plan: &Plan) {
        if self.spy.is_none() {
            if self.retry.0 > Instant::now() || !may_be_python(key.pid) {
                return;
            }
            let Ok(found) = Spy::open(key.pid) else {
                let wait = (self.retry.1 * 2).min(TRY.1);
                self.retry = (Instant::now() + wait, wait);
                return;
            };
            self.name = program_name(key.pid).unwrap_or_default();
            self.python = found.version();
            self.spy = Some(found);
        }
        let Some(spy) = &mut self.spy else { return };
        let before = sys::clocks().monotonic_ns;
        let Ok(seen) = spy.stacks() else {
            self.failed += 1;
            self.lost += 1;
            if self.failed > MOST_FAILED {
                (self.spy, self.failed) = (None, 0);
                self.stacks.end(before, &mut self.spans);
            }
            return;
        };
        self.failed = 0;
        let at_ns = (before + sys::clocks().monotonic_ns) / 2;
        let own = plan.own.to_string_lossy();
        let mut all = Vec::with_capacity(seen.len());
        for stack in seen {
            if let Some(name) = stack.name
                && self.names.get(&stack.tid) != Some(&name)
            {
                self.names.insert(stack.tid, name.clone());
                self.new_names.push((stack.tid, name));
            }
            let theirs = stack.frames.into_iter();
            let theirs = theirs.take_while(|(_, file, _)| !file.starts_with(&*own));
            let mut frames: Vec<u32> = theirs.map(|frame| self.number(frame)).collect();
            if !stack.running && !frames.is_empty() {
                frames.push(WAITING);
            }
            let tid = stack.tid;
            all.push(Seen { tid, frames });
        }
        if self.stacks.samples == 0 {
            self.first_ns = at_ns;
        }
        if self.names.len() > 2 * all.len() + SPARE_NAMES {
            let lives = |tid: &u64| all.iter().any(|seen| seen.tid == *tid);
            self.names.retain(|tid, _| lives(tid));
            self.new_names = (self.names.iter())
                .map(|(tid, name)| (*tid, name.clone()))
                .collect();
            self.forget = true;
        }
        self.stacks.take(at_ns, &all, &mut self.spans);
    }

    fn number(&mut self, frame: (String, String, u32)) -> u32 {
        if let Some(&number) = self.numbers.get(&frame) {
            return number;
        }
        let frame = match self.functions.len() < MOST_FUNCTIONS {
            true => frame,
            false => ("(one of too many)".into(), String::new(), 0),
        };
        let function = Function {
            name: frame.0.clone(),
            file: frame.1.clone(),
            line: frame.2,
        };
        let next = self.functions.len() as u32 + 1; // 0 is WAITING
        let number = *self.numbers.entry(frame).or_insert(next);
        if number == next {
            self.functions.push(Arc::new(function));
        }
        number
    }

    /// Hands over what is finished; all, if this is the `last` time.
    fn tell(&mut self, key: ProcessKey, plan: &Plan, tell: &mpsc::Sender<Told>, last: bool) {
        self.told = Instant::now();
        let samples = self.stacks.samples;
        if samples == 0 {
            return; // no Python, as far as one sees
        }
        if last {
            self.stacks.end(sys::clocks().monotonic_ns, &mut self.spans);
        }
        let torn = self.stacks.torn + self.lost;
        let note = (last && torn > 0).then(|| {
            format!("{torn} samples beside {samples} good ones were torn and are left out")
        });
        let functions = &self.functions;
        let of = |span: &Span| {
            functions
                .get((span.frame as usize).wrapping_sub(1))
                .cloned()
        };
        let ended = self.spans.drain(..).map(|span| (span, of(&span))).collect();
        let mut open = Vec::new();
        if plan.windowed && !last {
            self.stacks.open(&mut open);
        }
        let open = open.into_iter().map(|span| (span, of(&span))).collect();
        // whoever listens has ended only when all is over
        let _ = tell.send(Told {
            key,
            name: self.name.clone(),
            python: self.python.clone(),
            rate_hz: plan.rate_hz,
            first_ns: self.first_ns,
            ended,
            open,
            threads: std::mem::take(&mut self.new_names),
            forget: std::mem::take(&mut self.forget),
            note,
        });
    }
}

/// Whether there can be an interpreter in the process: its executable or a library of its is called after Python.
pub fn may_be_python(pid: u32) -> bool {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = exe.file_name().unwrap_or_default().to_string_lossy();
    name.contains("python")
        || fs::read_to_string(format!("/proc/{pid}/maps"))
            .is_ok_and(|maps| maps.contains("/libpython"))
}

/// The base name of the script or module that a Python process runs, of its command line; nothing else of that is kept.
pub fn program_name(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> = line
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    let base = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let mut words = words.iter().skip(1).filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        match word.as_str() {
            "-W" | "-X" | "--check-hash-based-pycs" => drop(words.next()),
            "-c" => {
                // what multiprocessing starts its children with
                let own = words
                    .next()
                    .filter(|code| code.starts_with("from multiprocessing."));
                let module = own.and_then(|code| code.split(' ').nth(1));
                return Some(module.unwrap_or("python -c").to_owned());
            }
            "-m" => return words.next().cloned(),
            flag if flag.starts_with('-') && flag.len() > 1 => {}
            script => return Some(base(script)),
        }
    }
    Some("python".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_without_python_is_none_and_its_name_is_its_programs() {
        let mut child = Command::new("cat")
            .args(["-u", "/dev/stdin"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        while program_name(child.id()).as_deref() != Some("stdin") {
            std::thread::yield_now(); // it has not executed cat yet
        }
        assert!(!may_be_python(child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(program_name(child.id()), None);
    }

    #[test]
    fn the_rate_wavers_and_keeps_its_mean() {
        let plan = Plan {
            root: 7,
            rate_hz: 100.0,
            delay: Duration::ZERO,
            duration: None,
            own: PathBuf::new(),
            windowed: false,
        };
        let mut sampler = Sampler::new(plan, mpsc::channel().0);
        let all: Vec<f64> = (0..10_000).map(|_| sampler.waver()).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        assert!((0.99..1.01).contains(&mean), "{mean}");
        assert!(all.iter().all(|factor| (0.5..1.5).contains(factor)));
    }
}

//! What the sampling thread tells, and the rows that are made of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use super::stacks::Span;
use super::{Plan, Sampler, WAITING_NAME};
use crate::record::drain::{Drain, ProcessKey};
use crate::trace::{Event, Kind, Names};

/// The sampling thread, and what comes from it.
#[derive(Debug)]
pub struct Source {
    told: mpsc::Receiver<Told>,
    /// What is open in each process, as it told last.
    open: HashMap<ProcessKey, Vec<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A span and whose it is; `None`: of a thread that waits.
pub type Seen = (Span, Option<Arc<Function>>);

/// What was seen of one process.
#[derive(Debug)]
pub struct Told {
    pub key: ProcessKey,
    pub name: String,
    pub python: String,
    pub rate_hz: f64,
    /// When its first sample was taken.
    pub first_ns: i64,
    pub ended: Vec<Seen>,
    pub open: Vec<Seen>,
    /// Names of threads; all that live, if those told before are to be forgotten.
    pub threads: Vec<(u64, String)>,
    pub forget: bool,
    pub note: Option<String>,
}

#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub file: String,
    pub line: u32,
}

impl Source {
    /// Begins to sample.
    pub fn start(plan: Plan) -> Source {
        let (tell, told) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || Sampler::new(plan, tell).run(&stopped));
        Source {
            told,
            open: HashMap::new(),
            stop,
            thread: Some(thread),
        }
    }

    /// Writes what was seen since the last call. Returns the processes that are new.
    pub fn take(&mut self, drain: &mut Drain, out: &mut Vec<Event>) -> Vec<ProcessKey> {
        let mut new = Vec::new();
        for mut told in self.told.try_iter() {
            if drain.process(told.key).facts.sampled_hz.is_none() {
                new.push(told.key);
            }
            self.open.insert(told.key, std::mem::take(&mut told.open));
            told.write(drain, out);
        }
        new
    }

    /// Rows of what was open when the processes told last: for a window that is written while they run.
    pub fn open(&self, drain: &mut Drain) -> Vec<Event> {
        let mut out = Vec::new();
        for (key, open) in &self.open {
            let process = drain.process(*key);
            let place = (process.id, process.pid);
            for (span, function) in open {
                out.push(row(
                    span,
                    function.as_deref(),
                    place,
                    true,
                    &mut drain.names,
                ));
            }
        }
        out
    }

    /// Ends the sampling and writes the rest.
    pub fn end(mut self, drain: &mut Drain, out: &mut Vec<Event>) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join(); // what it had told by then is there
        }
        self.take(drain, out);
    }
}

impl Told {
    fn write(self, drain: &mut Drain, out: &mut Vec<Event>) {
        let process = drain.process(self.key);
        process.covered = true;
        if process.facts.sampled_hz.is_none() {
            process.facts.base_monotonic_ns = self.first_ns;
        }
        process.facts.sampled_hz = Some(self.rate_hz);
        process.facts.python = Some(self.python);
        process.facts.name = self.name;
        if self.forget {
            process.thread_names.clear();
        }
        process.thread_names.extend(self.threads);
        process.notes.extend(self.note);
        let place = (process.id, process.pid);
        for (span, function) in self.ended {
            let row = row(&span, function.as_deref(), place, false, &mut drain.names);
            out.push(row);
        }
    }
}

/// `place`: number of the process, pid.
fn row(
    span: &Span,
    function: Option<&Function>,
    (process, pid): (u32, u32),
    open: bool,
    names: &mut Names,
) -> Event {
    let (kind, name) = match function {
        Some(function) => (Kind::Python, function.name.as_str()),
        None => (Kind::Native, WAITING_NAME),
    };
    let mut event = Event::new(kind, names.sym(name), span.start_ns, process, pid, span.tid);
    event.dur_ns = Some(span.end_ns - span.start_ns);
    if let Some(function) = function {
        event.file = Some(names.sym(&function.file));
        event.line = (function.line != 0).then_some(function.line);
    }
    // rounded up to 0.5 ms, so that few texts differ
    let error_ns = (span.error_ns + 499_999) / 500_000 * 500_000;
    let open = if open { r#","open":true"# } else { "" };
    let args = format!(r#"{{"sampled":true,"error_ns":{error_ns}{open}}}"#);
    event.args = Some(names.sym(&args));
    event
}

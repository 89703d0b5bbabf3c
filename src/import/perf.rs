//! What `perf script` prints: samples of a processor's clock or cycles, with or without chains of calls.
//!
//! perf looks at threads that run, at its clock's beat, so a sample stands for the time since the one before, if that is not
//! long ago, and else for one beat: what a thread did while it waited is not in the file. The beat is the period where the
//! event is a clock, and else the median distance of the first samples of one thread. Only one event tells time: others
//! in the file are left out and counted in a note. Which clock the times are of (`perf record -k`) the file does not say.

mod text;

use std::collections::BTreeMap;

use serde_json::{Map, json};

use super::Lenient;
use super::lines::{Line, Lines};
use super::stacks::{Functions, Lives, Span, Stack, rate, sampled_args};
use super::tracks::Owner;
use crate::error::Result;
use crate::trace::{Event, HashMap, Names};
use text::{Head, frame, head};

/// Rows handed over at once.
const BATCH: usize = 1 << 14;

/// Samples that are looked at before the first row: they tell the event and the beat.
const FIRST: usize = 512;

/// The beat where it cannot be told: perf record's own default, 4000 Hz.
const DEFAULT_NS: i64 = 250_000;

/// A sample so many beats behind the one before does not follow it: one may be missed.
const MOST_BEATS: i64 = 2;

/// See the module.
#[derive(Debug)]
pub struct Perf {
    lines: Lines,
    /// The sample whose frames are read, innermost first.
    current: Option<Sample>,
    /// Of a head that could not be read, and of an idle processor's, frames are passed over.
    passing: bool,
    /// Samples end in an empty line, as they do with chains.
    chains: bool,
    first: Vec<Sample>,
    told: Option<Told>,
    functions: Functions,
    threads: HashMap<(u32, u64), Stack>,
    order: Vec<(u32, u64)>,
    lives: Lives,
    others: BTreeMap<String, u64>,
    /// Samples of processors that had nothing to do.
    idle: u64,
    spans: Vec<(Span, Owner)>,
    lenient: Lenient,
}

/// What the first samples tell.
#[derive(Debug)]
struct Told {
    event: String,
    beat_ns: i64,
}

#[derive(Debug)]
struct Sample {
    owner: Owner,
    time_ns: i64,
    event: String,
    /// The period of a clock.
    period_ns: Option<i64>,
    frames: Vec<u32>,
    /// Frames that were inlined into the next one.
    inlined: Vec<String>,
}

/// Whether one of these lines is a sample's head.
pub(super) fn is(content: &[u8]) -> bool {
    let lines = content
        .split(|&byte| byte == b'\n')
        .map(String::from_utf8_lossy);
    let mut said = lines.filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    said.next().is_some_and(|line| head(&line).is_some())
}

/// What counts as the same event: the cycles of all sorts of cores of one processor do.
fn event_name(event: &str) -> &str {
    event.split('/').nth(1).unwrap_or(event)
}

/// How well an event tells time: clocks do, cycles nearly.
fn rank(event: &str) -> u8 {
    match event_name(event).split(':').next() {
        Some("cpu-clock" | "task-clock") => 0,
        Some("cycles" | "cpu-cycles") => 1,
        _ => 2,
    }
}

impl Perf {
    pub fn new(lines: Lines, lenient: Lenient) -> Perf {
        Perf {
            lines,
            current: None,
            passing: false,
            chains: false,
            first: Vec::new(),
            told: None,
            functions: Functions::default(),
            threads: HashMap::default(),
            order: Vec::new(),
            lives: Lives::default(),
            others: BTreeMap::new(),
            idle: 0,
            spans: Vec::new(),
            lenient,
        }
    }

    /// Reads a line; `false` at the end.
    fn line(&mut self) -> Result<bool> {
        let line = match self.lines.next_line()? {
            Line::End if self.current.is_some() && self.chains && !self.lenient.skip() => {
                return Err(self.lines.cut());
            }
            Line::Cut if !self.lenient.skip() => return Err(self.lines.cut()),
            Line::Cut | Line::End => {
                // Of a chain that was cut off, the outermost frames are missing.
                self.current = self.current.take().filter(|_| !self.chains);
                self.sampled();
                return Ok(false);
            }
            Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
        };
        if line.trim().is_empty() {
            self.chains |= self.current.is_some();
            self.passing = false;
            self.sampled();
            return Ok(true);
        }
        if line.starts_with('#') {
            return Ok(true);
        }
        // A command may be called as if it were an address, and stand behind white space.
        let chained = line.starts_with('\t') || (line.starts_with(' ') && head(&line).is_none());
        let found = frame(&line).filter(|_| chained);
        if let (Some(frame), Some(sample)) = (found, &mut self.current) {
            // A file of frames has chains, which end in an empty line.
            self.chains = true;
            sample.push(frame, &mut self.functions);
            return Ok(true);
        }
        let number = self.lines.number();
        if let Some(head) = head(&line) {
            if head.tid == 0 {
                self.sampled();
                self.idle += 1;
                self.passing = true;
                return Ok(true);
            }
            let (sample, ended) = Sample::new(&head, &mut self.lives, &mut self.functions);
            self.passing = false;
            self.sampled();
            self.current = Some(sample);
            if ended {
                self.sampled();
            }
            return Ok(true);
        }
        if self.passing && frame(&line).is_some() {
            return Ok(true);
        }
        if !self.lenient.skip() {
            return Err(self
                .lines
                .wrong(number, "neither a sample of perf's nor a frame of one"));
        }
        self.passing |= self.current.is_none();
        Ok(true)
    }

    /// Takes the sample that was read, if there is one.
    fn sampled(&mut self) {
        let Some(mut sample) = self.current.take() else {
            return;
        };
        sample.end(&mut self.functions);
        self.first.push(sample);
        if self.told.is_some() || self.first.len() == FIRST {
            self.tell();
        }
    }

    /// Samples that wait become spans.
    fn tell(&mut self) {
        let first = std::mem::take(&mut self.first);
        if self.told.is_none() {
            self.told = told(&first);
        }
        for sample in first {
            self.take(&sample);
        }
    }

    fn take(&mut self, sample: &Sample) {
        let Some(told) = &self.told else { return };
        if event_name(&sample.event) != told.event {
            *self.others.entry(sample.event.clone()).or_default() += 1;
            return;
        }
        let owner = sample.owner;
        let key = (owner.process, owner.tid);
        let mut spans = Vec::new();
        let beat_ns = sample.period_ns.unwrap_or(told.beat_ns);
        let (order, threads) = (&mut self.order, &mut self.threads);
        let mut new = false;
        let stack = threads.entry(key).or_insert_with(|| {
            order.push(key);
            new = true;
            Stack::default()
        });
        let (end_ns, at_ns) = (stack.end_ns(), sample.time_ns);
        let from_ns = match !new && at_ns - end_ns <= beat_ns.saturating_mul(MOST_BEATS) {
            true => end_ns,
            false => at_ns.saturating_sub(beat_ns),
        };
        // One at the moment of the one before, or before it: its thread's time was told already.
        if from_ns < at_ns {
            stack.sample(&sample.frames, from_ns, at_ns, &mut spans);
            self.lives.all[owner.process as usize].saw(from_ns, at_ns);
        }
        self.spans
            .extend(spans.into_iter().map(|span| (span, owner)));
    }

    /// Rows of what is still open, and of processes and threads.
    fn finish(&mut self, names: &mut Names, rows: &mut Vec<Event>) {
        self.tell();
        let mut spans = Vec::new();
        for key in std::mem::take(&mut self.order) {
            if let Some(mut stack) = self.threads.remove(&key) {
                stack.end(&mut spans);
            }
            let owner = Owner {
                process: key.0,
                pid: self.lives.all[key.0 as usize].pid,
                tid: key.1,
            };
            self.spans.extend(spans.drain(..).map(|span| (span, owner)));
        }
        self.rows(names, rows);
        let mut facts = Map::new();
        if let Some(told) = &self.told {
            facts.extend(rate(1, told.beat_ns));
            facts.insert("event".into(), json!(told.event));
        }
        let mut notes = Vec::new();
        if !self.others.is_empty() {
            let others = self.others.iter();
            let all: Vec<String> = others.map(|(event, n)| format!("{n} of {event}")).collect();
            let all = all.join(", ");
            notes.push(format!("samples of other events are left out: {all}"));
        }
        if self.idle > 0 {
            let idle = self.idle;
            notes.push(format!("{idle} samples of idle processors are left out"));
        }
        if !notes.is_empty() {
            facts.insert("notes".into(), json!(notes));
        }
        self.lives.finish(&facts, names, rows);
        self.lenient.finish(0, names, rows);
    }

    fn rows(&mut self, names: &mut Names, rows: &mut Vec<Event>) {
        for (span, owner) in self.spans.drain(..) {
            rows.push(span.row(&self.functions, owner, &sampled_args(span.error_ns), names));
        }
    }
}

/// The event that tells time best, and its beat.
fn told(first: &[Sample]) -> Option<Told> {
    let best = first.iter().min_by_key(|sample| rank(&sample.event))?;
    let event = event_name(&best.event).to_owned();
    let mut last: HashMap<(u32, u64), i64> = HashMap::default();
    let mut gaps = Vec::new();
    for sample in first.iter().filter(|s| event_name(&s.event) == event) {
        let key = (sample.owner.process, sample.owner.tid);
        let before = last.insert(key, sample.time_ns);
        gaps.extend(before.map(|ns| sample.time_ns - ns).filter(|&gap| gap > 0));
    }
    gaps.sort_unstable();
    let median = gaps.get(gaps.len() / 2).copied();
    let beat_ns = best.period_ns.or(median).unwrap_or(DEFAULT_NS);
    Some(Told { event, beat_ns })
}

impl Sample {
    /// The sample of a head; `true`: a frame on the same line is all of it.
    fn new(head: &Head<'_>, lives: &mut Lives, functions: &mut Functions) -> (Sample, bool) {
        // Without pids all threads are taken to be of one process.
        let process = lives.number(head.pid.unwrap_or(0));
        let life = &mut lives.all[process as usize];
        let tid = u64::from(head.tid);
        let pid = life.pid;
        if head.pid.is_some() && (u64::from(pid) == tid || life.threads.is_empty()) {
            life.name = head.comm.into();
        }
        life.threads.entry(tid).or_insert_with(|| head.comm.into());
        let mut sample = Sample {
            owner: Owner { process, pid, tid },
            time_ns: head.time_ns,
            event: head.event.into(),
            period_ns: (rank(head.event) == 0)
                .then_some(head.period)
                .flatten()
                .and_then(|period| i64::try_from(period).ok())
                .filter(|&period| period > 0),
            frames: Vec::new(),
            inlined: Vec::new(),
        };
        let only = frame(head.rest).filter(|_| !head.rest.is_empty());
        let ended = only.is_some();
        if let Some(frame) = only {
            sample.push(frame, functions);
        }
        (sample, ended)
    }

    fn push(&mut self, frame: text::Frame<'_>, functions: &mut Functions) {
        if frame.is_inlined() {
            self.inlined.push(frame.symbol.to_owned());
            return;
        }
        self.settle(frame.file, functions);
        self.frames
            .push(functions.number(frame.function(frame.file)));
    }

    /// Inlined functions are of the file of the one that they are in.
    fn settle(&mut self, file: &str, functions: &mut Functions) {
        for symbol in self.inlined.drain(..) {
            let frame = text::Frame {
                symbol: &symbol,
                file,
            };
            self.frames.push(functions.number(frame.function(file)));
        }
    }

    /// All frames are there.
    fn end(&mut self, functions: &mut Functions) {
        self.settle("", functions);
        if self.frames.is_empty() {
            let frame = text::Frame {
                symbol: "[unknown]",
                file: "",
            };
            self.frames.push(functions.number(frame.function("")));
        }
        self.frames.reverse();
    }
}

impl super::Rows for Perf {
    fn next_batch(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<bool> {
        let enough = rows.len() + BATCH;
        while rows.len() < enough {
            if !self.line()? {
                self.finish(names, rows);
                return Ok(false);
            }
            self.rows(names, rows);
        }
        Ok(true)
    }

    fn hash(&mut self) -> Option<String> {
        self.lines.blocks().hash()
    }
}

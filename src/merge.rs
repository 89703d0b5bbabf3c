//! Raw traces to one timeline: placed, sorted, nested. Memory is bounded, whatever the size of the input.
//!
//! Nothing can be placed before every clock was read to its end, so rows are kept first (in memory, then in
//! temporary files), placed and sorted in runs that fit into memory, and the runs merged. The order is total,
//! so the output's bytes do not depend on how many runs there were.

mod keep;
mod scratch;
mod sort;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

use crate::cli::{Progress, Sink, Source};
use crate::clock::{Origin, Survey};
use crate::correlate::{Nest, Started};
use crate::error::{Error, Result};
use crate::import::{self, Any, Lenient, Run};
use crate::trace::provenance::{Provenance, Stage, Step};
use crate::trace::{Event, Names, Writer};
use keep::{Keep, Kept};
use scratch::Blocks;
use sort::{Put, Sorter};

/// Rows between two looks at the progress line.
const STRIDE: u64 = 1 << 16;

/// Everything that was read.
#[derive(Debug)]
pub struct Raw {
    survey: Survey,
    inputs: Vec<Input>,
    count: u64,
    provenances: Vec<Provenance>,
    hashes: Vec<String>,
    memory: u64,
}

/// What was read of one input, each by itself; or of the tables of a run of rocprof's, which are one.
#[derive(Debug)]
struct Input {
    origin: Origin,
    /// Its own clocks, by its own numbers of processes.
    survey: Survey,
    /// The number of the first of these processes among those of all inputs.
    first: u32,
    kept: Kept,
    count: u64,
    /// Which calls started device work.
    started: Started,
    /// What tables have in common, if it is such.
    run: Run,
}

/// An input while it is read.
struct Reading {
    origin: Origin,
    survey: Survey,
    keep: Keep,
    count: u64,
    started: Started,
}

impl Reading {
    fn new(path: &Path, origin: Origin, memory: u64) -> Reading {
        let mut survey = Survey::default();
        survey.input(path, origin);
        Reading {
            origin,
            survey,
            keep: Keep::new(origin, memory),
            count: 0,
            started: Started::default(),
        }
    }

    /// Takes the rows that `append` makes. What it returns.
    fn take<T>(
        &mut self,
        append: impl FnOnce(&mut Names, &mut Vec<Event>) -> Result<T>,
    ) -> Result<T> {
        let (names, events) = self.keep.room()?;
        let from = events.len();
        let done = append(names, events)?;
        for event in &mut events[from..] {
            event.process = self.survey.see(event, names);
            self.started.see(event);
            event.parent = Some(self.count as i64);
            self.count += 1;
        }
        Ok(done)
    }

    fn all(&mut self, any: &mut Any, progress: &mut Progress) -> Result<()> {
        loop {
            let before = self.count;
            let more = self.take(|names, events| any.next_batch(names, events))?;
            progress.add(self.count - before);
            if !more {
                return Ok(());
            }
        }
    }

    fn finish(self, run: Run) -> Result<Input> {
        Ok(Input {
            origin: self.origin,
            survey: self.survey,
            first: 0,
            kept: self.keep.finish()?,
            count: self.count,
            started: self.started,
            run,
        })
    }
}

/// An input that was opened.
enum Outcome {
    /// It was read.
    Whole(Box<Input>, Provenance, String),
    /// One of several tables, which are read together.
    Part(Any),
}

/// Reads one input.
fn one(source: &Source, memory: u64, lenient: &Lenient, quiet: bool) -> Result<Outcome> {
    let mut any = import::open(source, lenient)?;
    if any.is_part() {
        return Ok(Outcome::Part(any));
    }
    let quiet = quiet || any.is_pipe();
    let mut progress = Progress::reading("reading", any.rows(), quiet);
    let mut reading = Reading::new(&source.path(), any.origin(), memory);
    reading.all(&mut any, &mut progress)?;
    let hash = any.content_hash()?.unwrap_or_default();
    let input = reading.finish(Run::default())?;
    Ok(Outcome::Whole(
        Box::new(input),
        any.provenance().clone(),
        hash,
    ))
}

/// Reads these traces and other profilers' files, as many at once as there are processors; standard input if there are
/// none. `memory`: bytes to use at most, about. `lenient`: what to do about broken events of other profilers.
///
/// # Errors
/// What is wrong with an input, the first of them; the same one twice; no room for temporary files.
pub fn read(inputs: &[Source], memory: u64, lenient: &Lenient) -> Result<Raw> {
    let stdin = [Source::Stdin];
    let inputs = if inputs.is_empty() { &stdin } else { inputs };
    let mut read = Read {
        inputs,
        lenient,
        memory,
        raw: Raw {
            survey: Survey::default(),
            inputs: Vec::new(),
            count: 0,
            provenances: Vec::new(),
            hashes: Vec::new(),
            memory,
        },
        parts: Vec::new(),
        held: 0,
    };
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    match inputs.len().min(workers) {
        1 => {
            for input in inputs {
                let outcome = one(input, memory, lenient, false)?;
                read.outcome(outcome)?;
            }
        }
        workers => read.beside(workers)?,
    }
    read.parts()?;
    Ok(read.raw)
}

/// Inputs on their way in, in their order.
struct Read<'a> {
    inputs: &'a [Source],
    lenient: &'a Lenient,
    memory: u64,
    raw: Raw,
    parts: Vec<(usize, Any)>,
    /// Bytes in memory of inputs that were read.
    held: u64,
}

impl Read<'_> {
    /// Reads inputs on so many threads.
    fn beside(&mut self, workers: usize) -> Result<()> {
        let (to, outcomes) = sync_channel(workers);
        let next = Arc::new(AtomicUsize::new(0));
        for _ in 0..workers {
            let (inputs, lenient) = (self.inputs.to_vec(), self.lenient.clone());
            let (to, next) = (to.clone(), next.clone());
            let memory = self.memory / workers as u64;
            let thread = std::thread::Builder::new().name("isc-input".into());
            let thread = thread.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(input) = inputs.get(at) else { return };
                    let outcome =
                        catch_unwind(AssertUnwindSafe(|| one(input, memory, &lenient, true)));
                    if to.send((at, outcome)).is_err() {
                        return; // another input is broken
                    }
                }
            });
            thread.map_err(Error::io("start a thread to read", &self.inputs[0].path()))?;
        }
        drop(to);
        let mut progress = Progress::new("reading", Some(self.inputs.len() as u64));
        let mut early = BTreeMap::new();
        let mut wanted = 0;
        for (at, outcome) in outcomes {
            early.insert(at, outcome);
            while let Some(outcome) = early.remove(&wanted) {
                match outcome {
                    Ok(outcome) => self.outcome(outcome?)?,
                    Err(panic) => resume_unwind(panic),
                }
                progress.add(1);
                wanted += 1;
            }
        }
        Ok(())
    }

    /// Takes the next input.
    fn outcome(&mut self, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Part(any) => {
                let at = self.raw.hashes.len();
                self.raw.hashes.push(String::new());
                self.raw.provenances.push(any.provenance().clone());
                self.parts.push((at, any));
            }
            Outcome::Whole(input, provenance, hash) => {
                self.raw.hashes.push(String::new());
                self.raw.provenances.push(provenance);
                self.hash(self.raw.hashes.len() - 1, hash)?;
                self.input(*input)?;
            }
        }
        Ok(())
    }

    /// The content's hash of an input, which no other one may have.
    fn hash(&mut self, at: usize, hash: String) -> Result<()> {
        if let Some(first) = self.raw.hashes.iter().position(|other| *other == hash) {
            return Err(Error::Duplicate {
                path: self.inputs[at.max(first)].path(),
                first: self.inputs[at.min(first)].path(),
                what: "the same trace".into(),
            });
        }
        self.raw.hashes[at] = hash;
        Ok(())
    }

    fn input(&mut self, mut input: Input) -> Result<()> {
        input.first = self.raw.survey.join(std::mem::take(&mut input.survey));
        self.raw.count += input.count;
        self.held += input.kept.chunk.bytes();
        if self.held > self.memory / 3 && self.inputs.len() > 1 {
            self.held -= input.kept.chunk.bytes();
            input.kept.spill(input.origin)?;
        }
        self.raw.inputs.push(input);
        Ok(())
    }

    /// Reads the tables of a run, which are one input.
    fn parts(&mut self) -> Result<()> {
        let mut parts = std::mem::take(&mut self.parts);
        let Some(&(first, _)) = parts.first() else {
            return Ok(());
        };
        let mut run = Run::default();
        let path = self.inputs[first].path();
        let mut reading = Reading::new(&path, Origin::Import, self.memory);
        for (at, any) in &mut parts {
            let mut progress = Progress::reading("reading", any.rows(), any.is_pipe());
            reading.all(any, &mut progress)?;
            if let Some(part) = any.part() {
                run.join(part, &self.inputs[*at].path())?;
            }
            let hash = any.content_hash()?.unwrap_or_default();
            self.hash(*at, hash)?;
        }
        reading.take(|names, events| {
            run.finish(names, events);
            Ok(())
        })?;
        let input = reading.finish(run)?;
        self.input(input)
    }
}

impl Raw {
    /// Places and sorts the rows, and writes the timeline. `margin_ns`: the largest error that a clock's place may have.
    ///
    /// # Errors
    /// Rows that have no place in time, or none that is close enough; what the system refuses.
    pub fn write(self, output: &Sink, margin_ns: Option<i64>) -> Result<()> {
        let alignment = self.survey.align(margin_ns)?;
        let flags = margin_ns.map(|ns| format!("--sync-error-margin={ns}ns"));
        let step = Step::new("isc-merge", flags.into_iter().collect(), self.hashes);
        let mut provenance = Provenance::join(&self.provenances, step);
        provenance.stage = Stage::Timeline;
        provenance.clocks = alignment.fits;
        provenance.origin = Some(alignment.origin);

        let mut sorter = Sorter::new(self.memory / 2);
        let mut puts: Vec<Put<'_>> = Vec::new();
        for (at, input) in self.inputs.into_iter().enumerate() {
            let places = alignment.places.get(input.first as usize..).unwrap_or(&[]);
            let (started, run) = (input.started, input.run);
            let put: Put<'_> = Box::new(move |event| {
                if let Some(place) = places.get(event.process as usize) {
                    started.mark(event);
                    run.number(event);
                    place.put(event);
                    event.parent = Some(place.sequence(event, event.parent.unwrap_or(0)));
                }
            });
            let Kept {
                rows,
                runs,
                mut chunk,
            } = input.kept;
            for mut blocks in rows {
                sort(&mut blocks, &mut sorter, &put)?;
            }
            chunk.events.iter_mut().for_each(&put);
            sorter.hold(chunk);
            runs.into_iter().for_each(|run| sorter.run(run, at));
            puts.push(put);
        }
        let mut writer = Writer::create(output, &provenance)?.beside()?;
        let mut nest = Nest::default();
        let mut progress = Progress::new("writing", Some(self.count));
        let mut row = 0;
        sorter.each(&puts, |event, names| {
            nest.place(row, event, names);
            row += 1;
            if (row as u64).is_multiple_of(STRIDE) {
                progress.add(STRIDE);
            }
            writer.push(event, names)
        })?;
        writer.finish()
    }
}

/// Puts rows at their places and into the sorter.
fn sort(blocks: &mut Blocks, sorter: &mut Sorter, put: &Put<'_>) -> Result<()> {
    let mut progress = Progress::new("sorting", None);
    loop {
        let (mut names, mut events) = (Names::default(), Vec::new());
        if !blocks.next(&mut names, &mut events)? {
            return Ok(());
        }
        for event in &mut events {
            put(event);
            sorter.push(event, &names)?;
        }
        progress.add(events.len() as u64);
    }
}

#[cfg(test)]
mod tests;

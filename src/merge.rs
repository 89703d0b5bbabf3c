//! Raw traces to one timeline: placed, sorted, nested. Memory is bounded, whatever the size of the input.
//!
//! Nothing can be placed before every clock was read to its end, so rows are kept first (in memory, then in
//! temporary files), placed and sorted in runs that fit into memory, and the runs merged. The order is total,
//! so the output's bytes do not depend on how many runs there were.

mod keep;
mod sort;

use crate::cli::{Progress, Sink, Source};
use crate::clock::{Origin, Survey};
use crate::correlate::{Nest, Started};
use crate::error::{Error, Result};
use crate::import::{self, Lenient, Run};
use crate::trace::provenance::{Provenance, Stage, Step};
use crate::trace::{Event, Names, Reader, Writer};
use keep::{Keep, Kept};
use sort::Sorter;

/// Rows between two looks at the progress line.
const STRIDE: u64 = 1 << 16;

/// Everything that was read.
#[derive(Debug)]
pub struct Raw {
    survey: Survey,
    rows: Keep,
    count: u64,
    provenances: Vec<Provenance>,
    hashes: Vec<String>,
    memory: u64,
    /// Which calls of imported files started device work.
    started: Started,
    /// What the tables of rocprof's have in common, where there are any.
    run: Run,
}

/// Reads these traces and other profilers' files; standard input if there are none. `memory`: bytes to use at most,
/// about. `lenient`: what to do about broken events of other profilers.
///
/// # Errors
/// What is wrong with an input; the same one twice; no room for temporary files.
pub fn read(inputs: &[Source], memory: u64, lenient: &Lenient) -> Result<Raw> {
    let stdin = [Source::Stdin];
    let inputs = if inputs.is_empty() { &stdin } else { inputs };
    let mut raw = Raw {
        survey: Survey::default(),
        rows: Keep::new(memory),
        count: 0,
        provenances: Vec::new(),
        hashes: Vec::new(),
        memory,
        started: Started::default(),
        run: Run::default(),
    };
    for input in inputs {
        let mut any = import::open(input, lenient)?;
        let origin = any.origin();
        let mut progress = Progress::reading("reading", any.rows(), any.is_pipe());
        if !(any.is_part() && raw.run.is_begun()) {
            raw.survey.input(&input.path(), origin);
            raw.rows.input(origin);
        }
        loop {
            let (names, events) = raw.rows.room()?;
            let from = events.len();
            let more = any.next_batch(names, events)?;
            for event in &mut events[from..] {
                event.process = raw.survey.see(event, names);
                if origin == Origin::Import {
                    raw.started.see(event);
                }
            }
            let more_rows = (events.len() - from) as u64;
            raw.count += more_rows;
            progress.add(more_rows);
            if !more {
                break;
            }
        }
        if let Some(part) = any.part() {
            raw.run.join(part, &input.path())?;
        }
        let hash = any.content_hash()?.unwrap_or_default();
        if let Some(first) = raw.hashes.iter().position(|other| *other == hash) {
            return Err(Error::Duplicate {
                path: input.path(),
                first: inputs[first].path(),
                what: "the same trace".into(),
            });
        }
        raw.hashes.push(hash);
        raw.provenances.push(any.provenance().clone());
    }
    let (names, events) = raw.rows.room()?;
    let from = events.len();
    raw.run.finish(names, events);
    for event in &mut events[from..] {
        event.process = raw.survey.see(event, names);
    }
    raw.count += (events.len() - from) as u64;
    Ok(raw)
}

impl Raw {
    /// Places and sorts the rows, and writes the timeline; `flags` are those that matter to it.
    ///
    /// # Errors
    /// Rows that have no place in time; what the system refuses.
    pub fn write(self, output: &Sink, flags: Vec<String>) -> Result<()> {
        let alignment = self.survey.align()?;
        let step = Step::new("isc-merge", flags, self.hashes);
        let mut provenance = Provenance::join(&self.provenances, step);
        provenance.stage = Stage::Timeline;
        provenance.clocks = alignment.fits;
        provenance.origin = Some(alignment.origin);

        let (started, run) = (self.started, self.run);
        let put = |event: &mut Event| {
            if let Some(place) = alignment.places.get(event.process as usize) {
                started.mark(event);
                run.number(event);
                place.put(event);
                event.parent = Some(place.sequence(event, event.parent.unwrap_or(0)));
            }
        };
        let sorter = match self.rows.finish()? {
            Kept::Memory(mut chunk) => {
                chunk.events.iter_mut().for_each(put);
                Sorter::of(chunk)
            }
            Kept::Files(rows, runs, mut chunk) => {
                chunk.events.iter_mut().for_each(put);
                let mut sorter = match rows {
                    None => Sorter::of(chunk),
                    Some(mut rows) => {
                        let mut sorter = Sorter::new(self.memory);
                        sort(&mut rows, &mut sorter, &put)?;
                        sorter
                    }
                };
                runs.into_iter().for_each(|run| sorter.run(run));
                sorter
            }
        };
        let mut writer = Writer::create(output, &provenance)?;
        let mut nest = Nest::default();
        let mut progress = Progress::new("writing", Some(self.count));
        let mut row = 0;
        sorter.each(&put, |event, names| {
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
fn sort(rows: &mut Reader, sorter: &mut Sorter, put: &dyn Fn(&mut Event)) -> Result<()> {
    let mut progress = Progress::new("sorting", None);
    loop {
        let (mut names, mut events) = (Names::default(), Vec::new());
        if !rows.next_batch(&mut names, &mut events)? {
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

//! The external sort: runs that fit into memory, then a merge of the runs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;

use super::keep::{Chunk, scratch, scratch_path};
use crate::clock::Place;
use crate::error::Result;
use crate::trace::{Event, Names, Reader};

/// Runs merged at once: each needs an open file and a batch in memory.
const FAN_IN: usize = 64;

/// Rows of a run's batches, of which each run has one in memory while they are merged.
const BATCH_ROWS: usize = 1 << 12;

/// Where a row stands: start, process, tid, longer ones first, then its place in the input. No two rows of
/// an input have the same.
type Key = (i64, u32, u64, Reverse<i64>, i64);

fn key(event: &Event, sequence: i64) -> Key {
    // Instants stand behind the spans that begin with them.
    let length = event.dur_ns.unwrap_or(-1);
    (
        event.start_ns,
        event.process,
        event.tid,
        Reverse(length),
        sequence,
    )
}

impl Place {
    /// The rank among rows that begin and end together, of the row that came as number `at` of all inputs.
    /// In a raw trace a span is written when it ends, so of two such spans the outer one came last.
    pub(super) fn sequence(&self, event: &Event, at: i64) -> i64 {
        let nested = self.written_at_end() && event.kind.nests() && event.dur_ns > Some(0);
        if nested { -1 - at } else { at }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Sorter {
    chunk: Chunk,
    memory: u64,
    /// Sorted, in the order of their rows in the input.
    runs: Vec<File>,
}

impl Sorter {
    pub fn new(memory: u64) -> Sorter {
        Sorter {
            chunk: Chunk::new(memory),
            memory,
            runs: Vec::new(),
        }
    }

    /// A further row; `sequence` tells it from all others.
    pub fn push(&mut self, event: &Event, sequence: i64, names: &Names) -> Result<()> {
        if self.chunk.is_full() {
            self.spill()?;
        }
        let mut sym = |sym| self.chunk.names.sym(names.text(sym));
        self.chunk.events.push(Event {
            name: sym(event.name),
            file: event.file.map(&mut sym),
            args: event.args.map(&mut sym),
            // Not given yet, so the sequence travels here.
            parent: Some(sequence),
            ..*event
        });
        Ok(())
    }

    fn spill(&mut self) -> Result<()> {
        let (writer, file) = scratch()?;
        let mut writer = writer.with_batch_rows(BATCH_ROWS);
        for at in sorted(&self.chunk.events) {
            writer.push(&self.chunk.events[at], &self.chunk.names)?;
        }
        writer.finish()?;
        self.runs.push(file);
        self.chunk.clear();
        Ok(())
    }

    /// Visits every row in order. The row's `parent` holds nothing of use.
    pub fn each(mut self, mut visit: impl FnMut(&mut Event, &Names) -> Result<()>) -> Result<()> {
        if self.runs.is_empty() {
            let Chunk { names, events, .. } = &mut self.chunk;
            for at in sorted(events) {
                visit(&mut events[at], names)?;
            }
            return Ok(());
        }
        self.spill()?;
        // What it held goes back before the runs' own batches are read.
        self.chunk = Chunk::new(self.memory);
        let mut runs = self.runs;
        while runs.len() > FAN_IN {
            let rest = runs.split_off(FAN_IN);
            let (writer, file) = scratch()?;
            let mut writer = writer.with_batch_rows(BATCH_ROWS);
            merge(runs, &mut |event, names| writer.push(event, names))?;
            writer.finish()?;
            runs = rest;
            runs.push(file);
        }
        merge(runs, &mut visit)
    }
}

/// The numbers of the rows, in order.
fn sorted(events: &[Event]) -> Vec<usize> {
    let mut order: Vec<(Key, usize)> = events
        .iter()
        .enumerate()
        .map(|(at, event)| (key(event, event.parent.unwrap_or(0)), at))
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, at)| at).collect()
}

/// One run while it is merged.
struct Run {
    reader: Reader,
    names: Names,
    block: Vec<Event>,
    at: usize,
}

impl Run {
    fn open(file: File) -> Result<Run> {
        let mut run = Run {
            reader: Reader::from_file(file, &scratch_path())?,
            names: Names::default(),
            block: Vec::new(),
            at: 0,
        };
        run.fill()?;
        Ok(run)
    }

    fn fill(&mut self) -> Result<()> {
        self.block.clear();
        self.names = Names::default();
        self.at = 0;
        self.reader.next_batch(&mut self.names, &mut self.block)?;
        Ok(())
    }

    fn head(&self) -> Option<Key> {
        let event = self.block.get(self.at)?;
        Some(key(event, event.parent.unwrap_or(0)))
    }
}

fn merge(files: Vec<File>, visit: &mut dyn FnMut(&mut Event, &Names) -> Result<()>) -> Result<()> {
    let mut runs = Vec::new();
    let mut heap = BinaryHeap::new();
    for (number, file) in files.into_iter().enumerate() {
        let run = Run::open(file)?;
        heap.extend(run.head().map(|key| Reverse((key, number))));
        runs.push(run);
    }
    while let Some(Reverse((_, number))) = heap.pop() {
        let run = &mut runs[number];
        visit(&mut run.block[run.at], &run.names)?;
        run.at += 1;
        if run.at == run.block.len() {
            run.fill()?;
        }
        heap.extend(run.head().map(|key| Reverse((key, number))));
    }
    Ok(())
}

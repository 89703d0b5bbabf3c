//! The external sort: runs that fit into memory, then a merge of the runs.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;

use super::keep::{Chunk, run, scratch, scratch_path};
use crate::clock::Place;
use crate::error::Result;
use crate::trace::{Event, Names, Reader};

/// Runs merged at once: each needs an open file and a batch in memory.
const FAN_IN: usize = 64;

/// Rows of a run's batches, of which each run has one in memory while they are merged.
pub(super) const BATCH_ROWS: usize = 1 << 12;

/// Where a row stands: start, process, tid, longer ones first, then its place in the input. No two rows of
/// an input have the same.
type Key = (i64, u32, u64, Reverse<i64>, i64);

/// The key of a row whose `parent` holds its place in the input.
fn key(event: &Event) -> Key {
    // Instants stand behind the spans that begin with them.
    let length = event.dur_ns.unwrap_or(-1);
    (
        event.start_ns,
        event.process,
        event.tid,
        Reverse(length),
        event.parent.unwrap_or(0),
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

/// Puts a row of one input at its place in time; its `parent` holds the number it came as, and then its rank.
pub(super) type Put<'a> = Box<dyn Fn(&mut Event) + 'a>;

/// See the module.
#[derive(Debug)]
pub(super) struct Sorter {
    /// Rows that were pushed.
    chunk: Chunk,
    /// Others, at their places too.
    held: Vec<Chunk>,
    /// Sorted runs. With an input's number: its rows have yet to be put at their places, in the same order but for rows of one
    /// moment.
    runs: Vec<(File, Option<usize>)>,
}

impl Sorter {
    /// `memory`: bytes that pushed rows may take.
    pub fn new(memory: u64) -> Sorter {
        Sorter {
            chunk: Chunk::new(memory),
            held: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Rows that are at their places.
    pub fn hold(&mut self, chunk: Chunk) {
        self.held.push(chunk);
    }

    /// A run of an input's rows that are not at their places yet.
    pub fn run(&mut self, run: File, input: usize) {
        self.runs.push((run, Some(input)));
    }

    /// A further row, at its place.
    pub fn push(&mut self, event: &Event, names: &Names) -> Result<()> {
        if self.chunk.is_full() {
            self.spill()?;
        }
        let mut sym = |sym| self.chunk.names.sym(names.text(sym));
        self.chunk.events.push(Event {
            name: sym(event.name),
            file: event.file.map(&mut sym),
            args: event.args.map(&mut sym),
            ..*event
        });
        Ok(())
    }

    fn spill(&mut self) -> Result<()> {
        let run = run(&self.chunk.taken())?;
        self.runs.push((run, None));
        Ok(())
    }

    /// Visits every row in order. The row's `parent` holds nothing of use. `puts`: of each input.
    pub fn each(
        mut self,
        puts: &[Put<'_>],
        mut visit: impl FnMut(&mut Event, &Names) -> Result<()>,
    ) -> Result<()> {
        self.held.push(self.chunk);
        self.held.retain(|chunk| !chunk.events.is_empty());
        let mut runs = self.runs;
        if let ([chunk], []) = (self.held.as_mut_slice(), runs.as_slice()) {
            let Chunk { names, events, .. } = chunk;
            for at in sorted(events) {
                visit(&mut events[at as usize], names)?;
            }
            return Ok(());
        }
        while runs.len() > FAN_IN {
            let rest = runs.split_off(FAN_IN);
            let (writer, file) = scratch()?;
            let mut writer = writer.with_batch_rows(BATCH_ROWS);
            let opened = Run::open_all(runs, puts)?;
            merge(opened, &mut |event, names| writer.push(event, names))?;
            writer.finish()?;
            runs = rest;
            runs.push((file, None));
        }
        let mut opened = Run::open_all(runs, puts)?;
        opened.extend(self.held.into_iter().map(Run::of));
        merge(opened, &mut visit)
    }
}

/// The numbers of the rows, in order. What profilers write is a few long ordered parts, which a stable sort finds.
pub(super) fn sorted(events: &[Event]) -> Vec<u32> {
    let starts = events.iter().zip(0..);
    let mut order: Vec<(i64, u32)> = starts.map(|(event, at)| (event.start_ns, at)).collect();
    let same =
        |a: u32, b: u32| -> Ordering { key(&events[a as usize]).cmp(&key(&events[b as usize])) };
    order.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| same(a.1, b.1)));
    order.into_iter().map(|(_, at)| at).collect()
}

/// One run while it is merged.
struct Run<'a> {
    /// `None`: all of it is in memory.
    reader: Option<Reader>,
    put: Option<&'a Put<'a>>,
    names: Names,
    block: Vec<Event>,
    /// The order of the block's rows, if they do not stand in it.
    order: Option<Vec<u32>>,
    at: usize,
    /// The rows of the block that may be given out: behind them others of the same moment may follow.
    known: usize,
}

impl<'a> Run<'a> {
    fn open(file: File, put: Option<&'a Put<'a>>) -> Result<Run<'a>> {
        let mut run = Run {
            reader: Some(Reader::from_file(file, &scratch_path())?),
            put,
            names: Names::default(),
            block: Vec::new(),
            order: None,
            at: 0,
            known: 0,
        };
        run.fill()?;
        Ok(run)
    }

    /// Runs of which some have yet to be put at their places.
    fn open_all(files: Vec<(File, Option<usize>)>, puts: &'a [Put<'a>]) -> Result<Vec<Run<'a>>> {
        let files = files.into_iter();
        let open =
            |(file, input): (File, Option<usize>)| Run::open(file, input.map(|at| &puts[at]));
        files.map(open).collect()
    }

    /// Rows that are at their places.
    fn of(chunk: Chunk) -> Run<'a> {
        let order = sorted(&chunk.events);
        Run {
            reader: None,
            put: None,
            names: chunk.names,
            known: order.len(),
            order: Some(order),
            block: chunk.events,
            at: 0,
        }
    }

    /// The row at this place of the order.
    fn row(&self, at: usize) -> usize {
        self.order.as_ref().map_or(at, |order| order[at] as usize)
    }

    fn fill(&mut self) -> Result<()> {
        let Some(reader) = &mut self.reader else {
            return Ok(());
        };
        let mut more = true;
        while more && self.at == self.known {
            self.block.drain(..self.at);
            let kept = self.block.len();
            // Rows that are kept have symbols of the table before.
            if kept == 0 {
                self.names = Names::default();
            }
            more = reader.next_batch(&mut self.names, &mut self.block)?;
            (self.at, self.known) = (0, self.block.len());
            let Some(put) = self.put else { return Ok(()) };
            self.block[kept..].iter_mut().for_each(put);
            // Processes have other numbers now, so rows of one moment may have changed their order.
            self.block.sort_by_key(key);
            if let Some(last) = self.block.last().filter(|_| more) {
                let moment = last.start_ns;
                self.known = self.block.partition_point(|row| row.start_ns < moment);
            }
        }
        Ok(())
    }

    fn head(&self) -> Option<Key> {
        (self.at < self.known).then(|| key(&self.block[self.row(self.at)]))
    }
}

fn merge(
    mut runs: Vec<Run<'_>>,
    visit: &mut dyn FnMut(&mut Event, &Names) -> Result<()>,
) -> Result<()> {
    let mut heap = BinaryHeap::new();
    for (number, run) in runs.iter().enumerate() {
        heap.extend(run.head().map(|key| Reverse((key, number))));
    }
    while let Some(Reverse((_, number))) = heap.pop() {
        let run = &mut runs[number];
        // Rows of one run often follow each other: as long as they stand before all others, no heap is needed.
        let next = heap.peek().map(|Reverse((key, _))| *key);
        loop {
            let at = run.row(run.at);
            visit(&mut run.block[at], &run.names)?;
            run.at += 1;
            if run.at == run.known {
                run.fill()?;
            }
            match run.head() {
                Some(key) if next.is_none_or(|next| key < next) => {}
                Some(key) => {
                    heap.push(Reverse((key, number)));
                    break;
                }
                None => break,
            }
        }
    }
    Ok(())
}

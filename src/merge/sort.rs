//! The external sort: runs that fit into memory, then a merge of the runs.

use std::cell::RefCell;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::mem::size_of;
use std::rc::Rc;

use super::keep::{Chunk, run};
use super::scratch::{BLOCK_ROWS, Blocks, Scratch};
use crate::clock::Place;
use crate::error::Result;
use crate::trace::{Event, Names};

/// Runs merged at once, at least and at most: each needs an open file and a block in memory, of so many bytes with buffers.
const FAN_IN: (u64, u64) = (16, 256);
const RUN_BYTES: u64 = (BLOCK_ROWS * size_of::<Event>() + (1 << 18)) as u64;

/// Bytes of texts after which runs that are merged begin a new table.
const TABLE_BYTES: usize = 16 << 20;

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
    fan_in: usize,
}

impl Sorter {
    /// `memory`: bytes that pushed rows may take.
    pub fn new(memory: u64) -> Sorter {
        Sorter {
            fan_in: (memory / 2 / RUN_BYTES).clamp(FAN_IN.0, FAN_IN.1) as usize,
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
        let mut table = Table::default();
        while runs.len() > self.fan_in {
            let rest = runs.split_off(self.fan_in);
            let mut scratch = Scratch::create()?;
            let opened = Run::open_all(runs, puts, &mut table)?;
            merge(opened, &mut table, &mut |event, names| {
                scratch.push(event, names)
            })?;
            runs = rest;
            runs.push((scratch.finish()?, None));
        }
        let mut opened = Run::open_all(runs, puts, &mut table)?;
        opened.extend(self.held.into_iter().map(Run::of));
        merge(opened, &mut table, &mut visit)
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

/// The texts of the blocks that are read: one table for all runs, so that a text that many have is looked up once.
#[derive(Default)]
struct Table(Rc<RefCell<Names>>);

impl Table {
    /// For the next block.
    fn current(&mut self) -> Rc<RefCell<Names>> {
        if self.0.borrow().bytes() > TABLE_BYTES {
            self.0 = Rc::default();
        }
        self.0.clone()
    }
}

/// One run while it is merged.
struct Run<'a> {
    /// `None`: all of it is in memory.
    blocks: Option<Blocks>,
    put: Option<&'a Put<'a>>,
    names: Rc<RefCell<Names>>,
    block: Vec<Event>,
    /// The order of the block's rows, if they do not stand in it.
    order: Option<Vec<u32>>,
    at: usize,
    /// The rows of the block that may be given out: behind them others of the same moment may follow.
    known: usize,
}

impl<'a> Run<'a> {
    fn open(file: File, put: Option<&'a Put<'a>>, table: &mut Table) -> Result<Run<'a>> {
        let mut run = Run {
            blocks: Some(Blocks::open(file)?),
            put,
            names: table.current(),
            block: Vec::new(),
            order: None,
            at: 0,
            known: 0,
        };
        run.fill(table)?;
        Ok(run)
    }

    /// Runs of which some have yet to be put at their places.
    fn open_all(
        files: Vec<(File, Option<usize>)>,
        puts: &'a [Put<'a>],
        table: &mut Table,
    ) -> Result<Vec<Run<'a>>> {
        let files = files.into_iter();
        files
            .map(|(file, input)| Run::open(file, input.map(|at| &puts[at]), table))
            .collect()
    }

    /// Rows that are at their places.
    fn of(chunk: Chunk) -> Run<'a> {
        let order = sorted(&chunk.events);
        Run {
            blocks: None,
            put: None,
            names: Rc::new(RefCell::new(chunk.names)),
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

    fn fill(&mut self, table: &mut Table) -> Result<()> {
        let Some(blocks) = &mut self.blocks else {
            return Ok(());
        };
        let mut more = true;
        while more && self.at == self.known {
            self.block.drain(..self.at);
            let kept = self.block.len();
            // Rows that are kept have symbols of the table before.
            if kept == 0 {
                self.names = table.current();
            }
            more = blocks.next(&mut self.names.borrow_mut(), &mut self.block)?;
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
    table: &mut Table,
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
            visit(&mut run.block[at], &run.names.borrow())?;
            run.at += 1;
            if run.at == run.known {
                run.fill(table)?;
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

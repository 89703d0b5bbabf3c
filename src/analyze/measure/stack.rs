//! What is open on each thread, and what its spans add up to.
//!
//! Every span comes through here twice, so nothing is looked up by its thread or its name more than once, and nothing
//! is allocated for one.

use std::cell::Cell;
use std::rc::Rc;

use super::super::trail::{Doing, Place, Trail};
use super::super::waited::Waits;
use super::{Measures, Own, Thread, Track};
use crate::trace::{HashMap, Kind, Sym};

/// One open span.
#[derive(Debug)]
pub(super) struct Frame {
    /// Name, if it is a scope.
    pub scope: Option<Sym>,
    /// Where its native time begins in [`Stack::natives`].
    pub natives: u32,
    pub function: Option<u32>,
    pub path: Option<u32>,
    /// The path of the last function that it called.
    pub called: Option<u32>,
    pub kind: Kind,
    pub start_ns: i64,
    pub end_ns: i64,
    pub child_ns: i64,
    /// In native functions that it called itself, if it is of Python.
    pub native_ns: i64,
    pub flow: Option<u64>,
    pub importing: bool,
    pub waits: Option<Waits>,
    /// It is what an event loop does between two polls: a callback, a task's segment.
    pub step: bool,
    /// A poll of an event loop.
    pub polls: bool,
    pub new_call: bool,
    /// What holds for it and all that is around it, so that a deep stack need not be searched.
    pub within: Within,
    pub doing: Doing,
    pub sourced: bool,
    /// It is what a question is about, or within that.
    pub asked: Option<u8>,
    /// Made when somebody asks.
    pub place: Option<Rc<Place>>,
}

/// Of a frame, itself included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Within {
    /// The innermost Python function.
    pub python: Option<u32>,
    /// A step of an event loop.
    pub step: bool,
    /// Start of the innermost turn of an event loop.
    pub turn_ns: Option<i64>,
    /// Something is imported or compiled.
    pub compiles: bool,
}

impl Within {
    /// [`Within::python`], as its number among the measures.
    pub fn python(&self) -> Option<usize> {
        self.python.map(|function| function as usize)
    }
}

impl Frame {
    /// Its function's number among the measures.
    pub fn function(&self) -> Option<usize> {
        self.function.map(|function| function as usize)
    }
}

/// A function on one thread: how often it is open, and the place of its sums, if it has some.
#[derive(Clone, Copy, Debug)]
struct Slot {
    open: u32,
    own: u32,
}

/// No sums yet.
const NONE: u32 = u32::MAX;

/// One thread.
#[derive(Debug, Default)]
pub(super) struct Stack {
    pub track: Track,
    pub frames: Vec<Frame>,
    /// Native time inside of frames by the library's file, the outermost frame's first.
    natives: Vec<(Option<Sym>, i64)>,
    /// By function.
    slots: Vec<Slot>,
    owns: Vec<(usize, Own)>,
    /// Another profiler's file tells of it: nothing was left out of it by a budget.
    pub imported: bool,
    pub trail: Trail,
    /// What spans say of it.
    pub thread: Thread,
}

impl Stack {
    /// How often a function is open.
    pub fn open(&mut self, function: usize) -> &mut u32 {
        &mut self.slot(function).open
    }

    /// What a function did itself.
    pub fn own(&mut self, function: usize) -> &mut Own {
        let next = self.owns.len();
        let slot = self.slot(function);
        let at = match slot.own {
            NONE => {
                slot.own = next as u32;
                self.owns.push((function, Own::default()));
                next
            }
            known => known as usize,
        };
        &mut self.owns[at].1
    }

    fn slot(&mut self, function: usize) -> &mut Slot {
        if function >= self.slots.len() {
            self.slots.resize(function + 1, Slot { open: 0, own: NONE });
        }
        &mut self.slots[function]
    }

    /// Where the native time of a frame begins that is opened now.
    pub fn natives_end(&self) -> u32 {
        self.natives.len() as u32
    }

    /// Native time of a frame that is the innermost, or was till now.
    pub fn natives(&self, frame: &Frame) -> &[(Option<Sym>, i64)] {
        &self.natives[frame.natives as usize..]
    }

    /// Adds native time to it.
    pub fn add_native(&mut self, from: u32, file: Option<Sym>, ns: i64) {
        let own = &mut self.natives[from as usize..];
        match own.iter_mut().find(|(known, _)| *known == file) {
            Some((_, sum)) => *sum += ns,
            None => self.natives.push((file, ns)),
        }
    }

    /// A frame is no more: its native time is that of the one around it.
    pub fn hand_on(&mut self, frame: &Frame) {
        let from = frame.natives as usize;
        let mut end = from;
        if let Some(around) = self.frames.last() {
            for at in from..self.natives.len() {
                let (file, ns) = self.natives[at];
                let known = &mut self.natives[around.natives as usize..end];
                match known.iter_mut().find(|(known, _)| *known == file) {
                    Some((_, sum)) => *sum += ns,
                    None => {
                        self.natives[end] = (file, ns);
                        end += 1;
                    }
                }
            }
        }
        self.natives.truncate(end);
    }
}

/// The threads that have spans, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    all: Vec<Stack>,
    index: HashMap<Track, usize>,
    /// The one that was asked for last: rows of a thread come one after the other.
    last: Cell<usize>,
}

impl Stacks {
    fn find(&self, track: Track) -> Option<usize> {
        let last = self.last.get();
        if self.all.get(last).is_some_and(|stack| stack.track == track) {
            return Some(last);
        }
        let at = *self.index.get(&track)?;
        self.last.set(at);
        Some(at)
    }

    pub fn get(&self, track: Track) -> Option<&Stack> {
        self.find(track).map(|at| &self.all[at])
    }

    pub fn get_mut(&mut self, track: Track) -> Option<&mut Stack> {
        self.find(track).map(|at| &mut self.all[at])
    }

    /// That of a thread, made if there is none; `imported` is asked then.
    pub fn or_new(&mut self, track: Track, imported: impl FnOnce() -> bool) -> &mut Stack {
        let at = self.find(track).unwrap_or_else(|| {
            self.index.insert(track, self.all.len());
            self.all.push(Stack {
                track,
                imported: imported(),
                ..Stack::default()
            });
            self.all.len() - 1
        });
        &mut self.all[at]
    }

    pub fn tracks(&self) -> Vec<Track> {
        self.all.iter().map(|stack| stack.track).collect()
    }

    /// The other threads of a thread's process.
    pub fn others(&self, track: Track) -> impl Iterator<Item = &Stack> {
        let others = move |other: &&Stack| other.track.0 == track.0 && other.track != track;
        self.all.iter().filter(others)
    }

    /// Adds up what the spans of each thread say.
    pub fn settle(self, m: &mut Measures) {
        for stack in self.all {
            let spans = stack.thread;
            if spans.first_ns.is_none() {
                continue;
            }
            let thread = m.thread(stack.track, spans.pid);
            thread.first_ns = spans.first_ns;
            thread.last_ns = spans.last_ns;
            thread.covered_ns = spans.covered_ns;
            let others = std::mem::replace(&mut thread.times, spans.times);
            thread.times.contended_ns += others.contended_ns;
            thread.times.outside_ns.extend(others.outside_ns);
            let owns = stack.owns.into_iter();
            m.own
                .extend(owns.map(|(function, own)| ((stack.track, function), own)));
        }
    }
}

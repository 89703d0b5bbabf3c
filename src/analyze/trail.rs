//! What each host thread was in from moment to moment: its innermost span, cut where another begins or ends.
//!
//! Kept only as long as somebody may ask: from the last device work's end, or the thread's last launch, to now. A program
//! without a device costs nothing here.

use std::collections::VecDeque;
use std::rc::Rc;

use super::waited::Waits;
use crate::trace::Sym;

/// Pieces kept of one thread: about as many as a minute without device work has. What is older is not known any more.
const MOST_PIECES: usize = 1 << 20;

/// Places kept to be used again: as many as there are spans between two launches, and more.
const MOST_SPARE: usize = 1 << 12;

/// What the innermost span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// In a call that starts device work.
    Launch,
    /// In one that copies.
    Copy,
    /// In one that waits for the device.
    Sync,
    /// In another call of a runtime or driver.
    Driver,
    /// In a framework's operator.
    Op,
    /// In Python, or native code that it called.
    Code,
    Gc,
    /// Importing, compiling, loading code onto a device.
    Import,
    /// In what is known to wait; whether another thread is in the section it waits for.
    Wait(Waits, bool),
    /// In the profiler's own work.
    Profiler,
    /// In no span.
    Outside,
}

/// A span by what it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// A function, by its number among the measures.
    Function(u32),
    Scope(Sym),
}

/// One span, and those around it.
#[derive(Debug)]
pub struct Place {
    pub label: Label,
    pub start_ns: i64,
    pub end_ns: i64,
    /// It has a source file, or a name that the user gave: it says more than a built-in function does.
    pub sourced: bool,
    /// The question that it, or a span around it, is the subject of; see [`super::ask::Asks`].
    pub asked: Option<u8>,
    pub around: Option<Rc<Place>>,
}

/// The innermost span that has a source.
pub fn sourced(place: Option<&Rc<Place>>) -> Option<Label> {
    let mut next = place;
    while let Some(place) = next {
        if place.sourced {
            return Some(place.label);
        }
        next = place.around.as_ref();
    }
    place.map(|place| place.label)
}

/// Whether such a wait may be for another thread's answer.
pub fn follows(waits: Waits, contended: bool) -> bool {
    waits == Waits::Idle || waits == Waits::Lock && !contended
}

/// A stretch of time in one span's own code.
#[derive(Clone, Debug)]
pub struct Piece {
    pub from_ns: i64,
    pub to_ns: i64,
    pub doing: Doing,
    pub place: Option<Rc<Place>>,
    /// End of the thread's last launch before it; `i64::MIN` if there was none.
    pub launched_ns: i64,
}

impl Doing {
    /// Whether it may be a wait for another thread's answer.
    fn follows(self) -> bool {
        match self {
            Doing::Wait(waits, contended) => follows(waits, contended),
            _ => false,
        }
    }
}

/// A `wait` row: of `dur_ns` from `from_ns` on the thread waited for `wait_ns`, nobody knows when.
#[derive(Clone, Copy, Debug)]
pub struct Shade {
    pub from_ns: i64,
    pub to_ns: i64,
    pub wait_ns: i64,
    /// `None`: for a processor.
    pub waits: Option<Waits>,
    pub contended: bool,
}

impl Shade {
    /// How much of its wait lies in a window, as if it were spread evenly.
    pub fn within_ns(&self, from_ns: i64, to_ns: i64) -> i64 {
        let both = (self.to_ns.min(to_ns) - self.from_ns.max(from_ns)).max(0);
        let long = (self.to_ns - self.from_ns).max(1);
        (i128::from(both) * i128::from(self.wait_ns) / i128::from(long)) as i64
    }
}

/// What one thread did lately.
#[derive(Debug)]
pub struct Trail {
    /// Up to here it is told.
    pub cursor_ns: i64,
    pub pieces: VecDeque<Piece>,
    pub shades: VecDeque<Shade>,
    /// Places that nobody asks for any more, to be made into others.
    spare: Vec<Rc<Place>>,
    /// End of the last piece in which it may wait for another thread.
    follows_ns: i64,
    /// End of its last launch.
    pub launched_ns: i64,
    /// From here on nothing is booked for the replay.
    pub booked_ns: i64,
    /// Its last call in the replay: number, start and end.
    pub called: Option<(u32, i64, i64)>,
}

impl Default for Trail {
    fn default() -> Trail {
        Trail {
            cursor_ns: i64::MIN,
            pieces: VecDeque::new(),
            shades: VecDeque::new(),
            spare: Vec::new(),
            follows_ns: i64::MIN,
            launched_ns: i64::MIN,
            booked_ns: i64::MIN,
            called: None,
        }
    }
}

impl Trail {
    /// The thread launches device work.
    pub fn launches(&self) -> bool {
        self.launched_ns > i64::MIN
    }

    /// Whether a piece up to `to_ns` is worth keeping: the device may have been idle then, or the replay wants it.
    pub fn wants(&self, to_ns: i64, reach_ns: Option<i64>) -> bool {
        to_ns > self.cursor_ns
            && (self.launches() || reach_ns.is_some_and(|reach_ns| to_ns > reach_ns))
    }

    /// Adds the time up to `to_ns`. Inlined, as [`Trail::place`] is: what is put together elsewhere, in small parts, and
    /// then copied as a whole makes the processor wait, twice for each span.
    #[inline(always)]
    pub fn add(&mut self, to_ns: i64, doing: Doing, place: Option<Rc<Place>>) {
        if doing.follows() {
            self.follows_ns = to_ns;
        }
        self.pieces.push_back(Piece {
            from_ns: self.cursor_ns,
            to_ns,
            doing,
            place,
            launched_ns: self.launched_ns,
        });
        self.cursor_ns = to_ns;
        if self.pieces.len() > MOST_PIECES {
            self.pieces.pop_front();
        }
    }

    /// A new place: one for each span, and so in memory that another one had.
    #[inline(always)]
    pub fn place(&mut self, place: Place) -> Rc<Place> {
        let Some(mut spare) = self.spare.pop() else {
            return Rc::new(place);
        };
        match Rc::get_mut(&mut spare) {
            Some(other) => {
                *other = place;
                spare
            }
            None => Rc::new(place),
        }
    }

    /// Forgets what ended before the device's last work did and is booked.
    pub fn forget(&mut self, reach_ns: i64) {
        let until = match self.launches() {
            true => reach_ns.min(self.booked_ns),
            false => reach_ns,
        };
        while self.pieces.front().is_some_and(|p| p.to_ns <= until) {
            let mut last = self.pieces.pop_front().and_then(|piece| piece.place);
            while let Some(mut place) = last {
                let Some(spare) = Rc::get_mut(&mut place) else {
                    break;
                };
                last = spare.around.take();
                if self.spare.len() < MOST_SPARE {
                    self.spare.push(place);
                }
            }
        }
        if self.pieces.is_empty() {
            self.pieces.clear(); // begins anew where memory is warm, rather than going around in all that there is
        }
        let called = self.called.map_or(until, |(_, start, _)| start.min(until));
        while self.shades.front().is_some_and(|s| s.to_ns <= called) {
            self.shades.pop_front();
        }
    }

    /// Whether in a window it waits for what another thread may do.
    pub fn follows(&self, from_ns: i64, to_ns: i64) -> bool {
        if self.shades.is_empty() && self.follows_ns <= from_ns {
            return false;
        }
        let over = |shade: &Shade| shade.from_ns < to_ns && shade.to_ns > from_ns;
        let shaded = self.shades.iter().filter(|shade| over(shade));
        let mut shaded = shaded.filter_map(|shade| Some((shade.waits?, shade.contended)));
        let mut pieces = self.within(from_ns, to_ns);
        shaded.any(|(waits, contended)| follows(waits, contended))
            || pieces.any(|(.., piece)| piece.doing.follows())
    }

    /// The pieces that overlap a window, each cut to it.
    pub fn within(&self, from_ns: i64, to_ns: i64) -> impl Iterator<Item = (i64, i64, &Piece)> {
        let first = self.pieces.partition_point(|p| p.to_ns <= from_ns);
        (self.pieces.range(first..))
            .take_while(move |p| p.from_ns < to_ns)
            .map(move |p| (p.from_ns.max(from_ns), p.to_ns.min(to_ns), p))
    }
}

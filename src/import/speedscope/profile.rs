//! What is in one profile of a speedscope file: samples with weights, or events that open and close frames.

use std::sync::Arc;

use super::LATEST_NS;
use super::heads::{NO_FRAME, Unit};
use crate::import::decimal::scaled;
use crate::import::json::{Cursor, Read};
use crate::import::stacks::{Span, Stack};
use crate::trace::HashMap;

/// Frames that may be open in one profile.
const MOST_OPEN: usize = 1 << 20;

/// A sample that cannot be read: its time is a hole.
const BROKEN: u32 = u32::MAX;

/// The profile that is read.
#[derive(Debug, Default)]
pub struct Profile {
    /// Stacks, each once, and which of them each sample is.
    stacks: Vec<Arc<[u32]>>,
    index: HashMap<Arc<[u32]>, u32>,
    samples: Vec<u32>,
    pub weights: Vec<i64>,
    stack: Stack,
    /// Frames that are open, and since when.
    open: Vec<(u32, i64)>,
    /// Spans that ended at the moment of the last event: of those that also begin together the outer ones end later.
    ended: Vec<Span>,
    /// The moment of the last event, or to which samples are laid.
    pub last_ns: i64,
}

/// What came of laying samples.
#[derive(Debug)]
pub struct Laid {
    /// The sample to go on with.
    pub next: Option<usize>,
    /// So many were laid, for so much time.
    pub samples: u64,
    pub time_ns: i64,
    /// The next would end beyond all time.
    pub too_large: bool,
}

impl Profile {
    /// One that begins at this time.
    pub fn at(start_ns: i64) -> Profile {
        Profile {
            last_ns: start_ns,
            ..Profile::default()
        }
    }

    /// Takes a sample; `false`, if it is none.
    pub fn sample(&mut self, frames: Option<Vec<u32>>) -> bool {
        let Some(frames) = frames else {
            self.samples.push(BROKEN);
            return false;
        };
        let number = match self.index.get(&frames[..]) {
            Some(&number) => number,
            None => {
                let next = self.stacks.len() as u32;
                let frames: Arc<[u32]> = frames.into();
                self.index.insert(frames.clone(), next);
                self.stacks.push(frames);
                next
            }
        };
        self.samples.push(number);
        true
    }

    /// How many samples and weights there are.
    pub fn lengths(&self) -> (usize, usize) {
        (self.samples.len(), self.weights.len())
    }

    /// Lays samples end to end from this one on, until there are so many spans.
    pub fn lay(&mut self, from: usize, most: usize, spans: &mut Vec<Span>) -> Laid {
        let many = self.samples.len().min(self.weights.len());
        let mut laid = Laid {
            next: None,
            samples: 0,
            time_ns: 0,
            too_large: false,
        };
        let mut at = from;
        while at < many && spans.len() < most {
            let (sample, ns) = (self.samples[at], self.weights[at]);
            let from_ns = self.last_ns;
            let Some(to_ns) = from_ns.checked_add(ns).filter(|&ns| ns < LATEST_NS) else {
                laid.too_large = true;
                break;
            };
            at += 1;
            self.last_ns = to_ns;
            if ns > 0 && sample != BROKEN {
                let frames = &self.stacks[sample as usize];
                self.stack.sample(frames, from_ns, to_ns, spans);
                laid.samples += 1;
                laid.time_ns += ns;
            }
        }
        match at < many && !laid.too_large {
            true => laid.next = Some(at),
            false => self.stack.end(spans),
        }
        laid
    }

    /// A frame opens or closes. Spans that are over, outer ones first.
    ///
    /// # Errors
    /// What is wrong with the event.
    pub fn event(
        &mut self,
        opens: Option<bool>,
        function: Option<u32>,
        at_ns: Option<i64>,
    ) -> Result<Vec<Span>, &'static str> {
        let at_ns = at_ns.ok_or("an event whose `at` is no number")?;
        let (Some(opens), Some(function)) = (opens, function) else {
            return Err("an event of no type, or of a frame that there is not");
        };
        if at_ns < self.last_ns {
            return Err("an event that is before the one before it");
        }
        if opens && self.open.len() >= MOST_OPEN {
            return Err("the 1 048 577th frame that opens and does not close");
        }
        if !opens && self.open.last().map(|open| open.0) != Some(function) {
            return Err("a frame that closes and is not the innermost one");
        }
        let ended = match opens || at_ns > self.last_ns {
            true => self.over(),
            false => Vec::new(),
        };
        self.last_ns = at_ns;
        if opens {
            self.open.push((function, at_ns));
        } else if let Some((function, start_ns)) = self.open.pop() {
            self.ended.push(span(function, start_ns, at_ns));
        }
        Ok(ended)
    }

    /// The profile is over, at `end_ns` or at its last event. Spans that are over; to `open` those that never ended.
    pub fn end(&mut self, end_ns: i64, open: &mut Vec<Span>) -> Vec<Span> {
        let end_ns = self.last_ns.max(end_ns);
        let left = self.open.drain(..);
        open.extend(left.map(|(function, start_ns)| span(function, start_ns, end_ns)));
        self.over()
    }

    fn over(&mut self) -> Vec<Span> {
        let mut over = std::mem::take(&mut self.ended);
        over.reverse();
        over
    }
}

fn span(function: u32, start_ns: i64, end_ns: i64) -> Span {
    Span {
        function,
        start_ns,
        end_ns,
        error_ns: 0,
    }
}

/// Reads a value, and what a number in it is in a unit; `None`: it is no number, or too large a one.
pub fn number(c: &mut Cursor<'_>, unit: Unit) -> Read<Option<i64>> {
    let value = c.value()?;
    Ok(scaled(value, unit.ns()).filter(|ns| ns.unsigned_abs() < LATEST_NS as u64))
}

/// The frames of a sample by number of function, where all are known.
pub fn stack(raw: &[u8], known: &[u32]) -> Option<Vec<u32>> {
    let mut cursor = Cursor::whole(raw);
    cursor.skip_byte(b'[').ok().filter(|&list| list)?;
    let (mut frames, mut first) = (Vec::new(), true);
    while cursor.element(first, false).ok()? == Some(true) {
        first = false;
        let number = scaled(cursor.value().ok()?, 1)?;
        let function = *known.get(usize::try_from(number).ok()?)?;
        frames.extend((function != NO_FRAME).then_some(function));
    }
    Some(frames)
}

/// What an event says, where it does.
#[derive(Debug, Default)]
pub struct Said {
    pub opens: Option<bool>,
    pub frame: Option<usize>,
    pub at_ns: Option<i64>,
}

/// Reads an event.
pub fn event(c: &mut Cursor<'_>, unit: Unit) -> Read<Said> {
    let mut said = Said::default();
    if c.peek()? != b'{' {
        c.value()?;
        return Ok(said);
    }
    c.skip_byte(b'{')?;
    let mut first = true;
    while let Some(key) = c.key(first)? {
        first = false;
        match key.raw {
            b"type" => {
                said.opens = match c.value()? {
                    b"\"O\"" => Some(true),
                    b"\"C\"" => Some(false),
                    _ => None,
                }
            }
            b"frame" => {
                let number = scaled(c.value()?, 1);
                said.frame = number.and_then(|number| usize::try_from(number).ok());
            }
            b"at" => said.at_ns = number(c, unit)?,
            _ => drop(c.value()?),
        }
    }
    Ok(said)
}

//! Open spans of each track, for formats that are made of stacks.

use std::collections::BTreeMap;

use crate::correlate;
use crate::trace::{Event, Kind, Names};

/// A line that spans are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Track {
    /// Of this process and tid.
    Thread(u32, u64),
    /// Of this device; work of which no stream is known has a track of its own.
    Stream(u32, Option<u32>),
}

impl Track {
    /// Where a row stands: device work on its stream, all else on its thread.
    pub fn of(event: &Event) -> Track {
        match event.device {
            Some(device) if event.kind != Kind::Alloc => Track::Stream(device, event.stream),
            _ => Track::Thread(event.process, event.tid),
        }
    }
}

/// It may be in a stack: what nests on its thread, and what ran on a device. What a device waited for overlaps its work.
pub(super) fn has_place(event: &Event) -> bool {
    event.kind.on_device() || (event.kind.nests() && event.device.is_none())
}

/// A span that is open, and what the format knows it by.
#[derive(Debug)]
pub(super) struct Open<T> {
    row: i64,
    pub start_ns: i64,
    pub end_ns: i64,
    /// Length of the spans directly inside.
    pub inner_ns: i64,
    pub what: T,
}

impl<T> Open<T> {
    /// Time in it and in nothing inside of it, in ns.
    pub fn self_ns(&self) -> i64 {
        let length = self.end_ns.saturating_sub(self.start_ns);
        length.saturating_sub(self.inner_ns).max(0)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stacks<T>(BTreeMap<Track, Vec<Open<T>>>);

impl<T> Default for Stacks<T> {
    fn default() -> Stacks<T> {
        Stacks(BTreeMap::new())
    }
}

impl<T> Stacks<T> {
    /// Ends the spans of a track that are over at this time, innermost first.
    pub fn close<E>(
        &mut self,
        track: Track,
        at_ns: i64,
        mut ended: impl FnMut(Open<T>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(open) = self.0.get_mut(&track) {
            while let Some(span) = open.pop_if(|span| span.end_ns <= at_ns) {
                ended(span)?;
            }
        }
        Ok(())
    }

    /// The innermost open span, if the event nests in it, `Some(None)` if it nests in none, and `None` if it is no span of
    /// a stack, or begins inside of another and ends outside. What is over at its start has to be closed before.
    pub fn around(&self, track: Track, event: &Event, names: &Names) -> Option<Option<&T>> {
        let length = event.dur_ns.filter(|&length| length >= 0);
        length?;
        let top = self.0.get(&track).and_then(|open| open.last());
        match track {
            Track::Stream(..) => {
                // What runs on a stream runs one after the other; a whole graph may be around its nodes.
                let top = top.map(|top| (top.end_ns >= event.end_ns()).then_some(&top.what));
                match top {
                    None => Some(None),
                    Some(inside) => inside.map(Some),
                }
            }
            Track::Thread(..) if !event.kind.nests() || correlate::crosses(event, names) => None,
            Track::Thread(..) => match (top, event.parent) {
                (None, None) => Some(None),
                (Some(top), Some(parent)) if top.row == parent => Some(Some(&top.what)),
                _ => None,
            },
        }
    }

    /// Opens a span that [`Stacks::around`] has a place for.
    pub fn open(&mut self, track: Track, row: i64, event: &Event, what: T) {
        let open = self.0.entry(track).or_default();
        if let Some(top) = open.last_mut() {
            top.inner_ns = top.inner_ns.saturating_add(event.dur_ns.unwrap_or(0));
        }
        open.push(Open {
            row,
            start_ns: event.start_ns,
            end_ns: event.end_ns(),
            inner_ns: 0,
            what,
        });
    }

    /// Tracks that had a span.
    pub fn tracks(&self) -> Vec<Track> {
        self.0.keys().copied().collect()
    }
}

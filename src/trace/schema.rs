//! Columns, units and version: the code side of `formats/trace-v1.md`.

use std::fmt;
use std::hash::BuildHasher;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Version of the table this build writes, and the newest it reads.
pub const VERSION: u32 = 1;

/// What a row is. The order is that of the specification, and of nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Python,
    Native,
    Op,
    Scope,
    Mark,
    Sample,
    Gc,
    Nvtx,
    Annotation,
    Launch,
    Api,
    Kernel,
    Memcpy,
    Memset,
    Sync,
    Overhead,
    Alloc,
    Counter,
    Wait,
    Flow,
    Clock,
    Lost,
    Throttled,
    Process,
    Thread,
    Stream,
    /// The last row of a stream: nothing was cut off.
    End,
}

impl Kind {
    /// Every kind, with the word that stands in the `kind` column.
    pub const ALL: [(Kind, &'static str); 27] = [
        (Kind::Python, "python"),
        (Kind::Native, "native"),
        (Kind::Op, "op"),
        (Kind::Scope, "scope"),
        (Kind::Mark, "mark"),
        (Kind::Sample, "sample"),
        (Kind::Gc, "gc"),
        (Kind::Nvtx, "nvtx"),
        (Kind::Annotation, "annotation"),
        (Kind::Launch, "launch"),
        (Kind::Api, "api"),
        (Kind::Kernel, "kernel"),
        (Kind::Memcpy, "memcpy"),
        (Kind::Memset, "memset"),
        (Kind::Sync, "sync"),
        (Kind::Overhead, "overhead"),
        (Kind::Alloc, "alloc"),
        (Kind::Counter, "counter"),
        (Kind::Wait, "wait"),
        (Kind::Flow, "flow"),
        (Kind::Clock, "clock"),
        (Kind::Lost, "lost"),
        (Kind::Throttled, "throttled"),
        (Kind::Process, "process"),
        (Kind::Thread, "thread"),
        (Kind::Stream, "stream"),
        (Kind::End, "end"),
    ];

    /// The word that stands in the `kind` column.
    pub fn as_str(self) -> &'static str {
        Kind::ALL[self as usize].1
    }

    /// Work that ran on a device: kernel, memcpy, memset; never sync or annotation rows.
    pub fn on_device(self) -> bool {
        matches!(self, Kind::Kernel | Kind::Memcpy | Kind::Memset)
    }

    /// Spans that nest on their thread's track, and so get a parent from isc-merge.
    pub fn nests(self) -> bool {
        use Kind::*;
        matches!(
            self,
            Python | Native | Op | Scope | Gc | Nvtx | Launch | Api | Sync | Overhead
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(word: &str) -> Result<Kind, ()> {
        Kind::ALL
            .iter()
            .find(|(_, name)| *name == word)
            .map(|(kind, _)| *kind)
            .ok_or(())
    }
}

/// One row of the table. `None` is the column's null; `formats/trace-v1.md` says what it means.
///
/// Before isc-merge, times are in the row's clock domain; after it, in ns since the timeline's origin.
/// Texts are symbols of the [`Names`] that travels with the events.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    pub start_ns: i64,
    pub dur_ns: Option<i64>,
    pub kind: Kind,
    pub name: Sym,
    pub file: Option<Sym>,
    pub line: Option<u32>,
    pub process: u32,
    pub pid: u32,
    pub tid: u64,
    pub device: Option<u32>,
    pub stream: Option<u32>,
    pub correlation: Option<u64>,
    pub flow: Option<u64>,
    pub parent: Option<i64>,
    pub cause: Option<i64>,
    pub bytes: Option<i64>,
    pub value: Option<f64>,
    pub args: Option<Sym>,
}

impl Event {
    /// A row with this kind, name and place; everything optional is null.
    pub fn new(kind: Kind, name: Sym, start_ns: i64, process: u32, pid: u32, tid: u64) -> Event {
        Event {
            start_ns,
            dur_ns: None,
            kind,
            name,
            file: None,
            line: None,
            process,
            pid,
            tid,
            device: None,
            stream: None,
            correlation: None,
            flow: None,
            parent: None,
            cause: None,
            bytes: None,
            value: None,
            args: None,
        }
    }

    /// Where the row ends, in ns: its start, for an instant.
    pub fn end_ns(&self) -> i64 {
        self.start_ns.saturating_add(self.dur_ns.unwrap_or(0))
    }
}

/// A text of a [`Names`] table: equal symbols of one table are equal texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sym(pub u32);

/// Bytes that a text takes beyond its own: its end, and its slot in an index that is half full.
const TEXT_OVERHEAD: usize = 8 + 10;

/// Interned texts. Symbols are given in the order of first use and never reused.
pub struct Names {
    /// All texts, one behind the other, and where each ends.
    texts: String,
    ends: Vec<usize>,
    index: HashTable<Sym>,
    hasher: RandomState,
    id: u64,
}

impl Default for Names {
    fn default() -> Names {
        Names {
            texts: String::new(),
            ends: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
            id: new_id(),
        }
    }
}

/// A copy is another table: from here on the two may differ.
impl Clone for Names {
    fn clone(&self) -> Names {
        Names {
            texts: self.texts.clone(),
            ends: self.ends.clone(),
            index: self.index.clone(),
            hasher: self.hasher.clone(),
            id: new_id(),
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("len", &self.len()).finish()
    }
}

fn new_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn text_at<'a>(texts: &'a str, ends: &[usize], sym: Sym) -> &'a str {
    let at = sym.0 as usize;
    let from = if at == 0 { 0 } else { ends[at - 1] };
    &texts[from..ends[at]]
}

impl Names {
    /// The symbol of `text`, a new one if it was not seen before.
    pub fn sym(&mut self, text: &str) -> Sym {
        let hash = self.hasher.hash_one(text);
        let (texts, ends, hasher) = (&self.texts, &self.ends, &self.hasher);
        let entry = self.index.entry(
            hash,
            |&sym| text_at(texts, ends, sym) == text,
            |&sym| hasher.hash_one(text_at(texts, ends, sym)),
        );
        match entry {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                let sym = Sym(self.ends.len() as u32);
                place.insert(sym);
                self.texts.push_str(text);
                self.ends.push(self.texts.len());
                sym
            }
        }
    }

    /// The text of a symbol of this table; empty for a symbol of another one.
    pub fn text(&self, sym: Sym) -> &str {
        match (sym.0 as usize) < self.ends.len() {
            true => text_at(&self.texts, &self.ends, sym),
            false => "",
        }
    }

    /// The symbol of `text`, if it has one.
    pub fn find(&self, text: &str) -> Option<Sym> {
        let hash = self.hasher.hash_one(text);
        let known = self.index.find(hash, |&sym| self.text(sym) == text);
        known.copied()
    }

    /// Tells this table from all others of the process: what was derived from its symbols holds only here.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// About how many bytes of memory the texts take.
    pub fn bytes(&self) -> usize {
        self.texts.len() + self.len() * TEXT_OVERHEAD
    }

    /// How many texts there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// No text yet.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_at_their_own_place_and_come_back_from_their_words() {
        for (at, (kind, word)) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, at);
            assert_eq!(word.parse::<Kind>(), Ok(*kind));
            assert_eq!(kind.as_str(), *word);
        }
        assert_eq!("kernels".parse::<Kind>(), Err(()));
    }
}

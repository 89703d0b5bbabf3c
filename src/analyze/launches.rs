//! Launches, found by what device work has of them: process and correlation.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// Process and correlation.
pub type Key = (u32, u64);

/// A call that starts device work.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    pub key: Key,
    /// Its thread.
    pub track: (u32, u64),
    /// Its number in the replay; `None` if it does not nest in its thread's spans.
    pub op: Option<u32>,
    pub start_ns: i64,
    pub end_ns: i64,
    /// Device rows that it started.
    pub started: u64,
}

/// All launches, each with a number. The index has numbers only: with keys in it, it would be too large for a
/// processor's cache, and launches that are looked up are mostly recent ones.
#[derive(Debug, Default)]
pub struct Launches {
    pub all: Vec<Launch>,
    index: HashTable<u32>,
    hasher: RandomState,
}

impl Launches {
    /// Adds one, in the place of another one that had the same key.
    pub fn add(&mut self, launch: Launch) {
        let (all, hasher) = (&mut self.all, &self.hasher);
        let entry = self.index.entry(
            hasher.hash_one(launch.key),
            |&at| all[at as usize].key == launch.key,
            |&at| hasher.hash_one(all[at as usize].key),
        );
        match entry {
            Entry::Occupied(known) => all[*known.get() as usize] = launch,
            Entry::Vacant(place) => {
                place.insert(all.len() as u32);
                all.push(launch);
            }
        }
    }

    /// The number of the one with this key.
    pub fn find(&self, key: Key) -> Option<u32> {
        let is = |&at: &u32| self.all[at as usize].key == key;
        self.index.find(self.hasher.hash_one(key), is).copied()
    }
}

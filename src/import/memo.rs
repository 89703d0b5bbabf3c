//! What was made of bytes before: most of what a profiler writes it has written already.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::trace::Names;

/// Bytes that are remembered at most.
const MOST_BYTES: usize = 8 << 20;

/// Values made of bytes, symbols of one table of names among them.
#[derive(Debug)]
pub struct Memo<V> {
    /// The table whose symbols the values hold.
    names: u64,
    bytes: Vec<u8>,
    index: HashTable<(u32, u32, V)>,
    hasher: RandomState,
}

impl<V> Default for Memo<V> {
    fn default() -> Memo<V> {
        Memo {
            names: 0,
            bytes: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
        }
    }
}

impl<V: Copy> Memo<V> {
    /// The value of these bytes, which `make` makes if it is not known yet.
    pub fn get(
        &mut self,
        raw: &[u8],
        names: &mut Names,
        make: impl FnOnce(&[u8], &mut Names) -> V,
    ) -> V {
        if self.names != names.id() || self.bytes.len() > MOST_BYTES {
            self.names = names.id();
            self.bytes.clear();
            self.index.clear();
        }
        let Memo {
            bytes,
            index,
            hasher,
            ..
        } = self;
        let of = |&(from, to, _): &(u32, u32, V)| &bytes[from as usize..to as usize];
        let entry = index.entry(
            hasher.hash_one(raw),
            |known| of(known) == raw,
            |known| hasher.hash_one(of(known)),
        );
        match entry {
            Entry::Occupied(known) => known.get().2,
            Entry::Vacant(place) => {
                let value = make(raw, names);
                let from = bytes.len() as u32;
                place.insert((from, from + raw.len() as u32, value));
                bytes.extend_from_slice(raw);
                value
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_made_once_for_each_table_of_names() {
        let mut memo = Memo::default();
        let mut made = 0;
        let mut names = Names::default();
        for _ in 0..2 {
            for raw in [&b"a"[..], b"b", b"a"] {
                let value = memo.get(raw, &mut names, |raw, names| {
                    made += 1;
                    names.sym(std::str::from_utf8(raw).unwrap())
                });
                assert_eq!(names.text(value).as_bytes(), raw);
            }
            names = Names::default();
        }
        assert_eq!(made, 4);
    }
}

//! What NVTX keeps of each thread: how deep its ranges are, and ids of texts it has used.

use super::text::Name;
use crate::hot;

/// Of one thread.
pub struct Own {
    levels: Vec<Level>,
    known: Option<Box<[Known; KNOWN]>>,
}

impl Own {
    pub const NEW: Own = Own {
        levels: Vec::new(),
        known: None,
    };
}

/// Ranges of one domain that are open.
struct Level {
    domain: u32,
    depth: u32,
    /// Of the innermost 64, whether their beginning was recorded.
    seen: u64,
}

/// Texts of a thread whose ids are at hand.
const KNOWN: usize = 128;

struct Known {
    hash: u64,
    id: u32,
    text: Vec<u8>,
}

const NOTHING: Known = Known {
    hash: 0,
    id: 0,
    text: Vec::new(),
};

/// This thread's; `None` once it has taken down its locals.
#[inline(always)]
fn own<'a>() -> Option<&'a mut Own> {
    let at = hot::thread();
    // SAFETY: this thread's own state; whoever has the reference here calls nothing that records.
    (!at.is_null()).then(|| unsafe { &mut (*at).nvtx })
}

/// One more range is open; the level it is at.
#[inline(always)]
pub fn push(domain: u32, seen: bool) -> Option<u32> {
    let levels = &mut own()?.levels;
    let level = match levels.iter_mut().find(|level| level.domain == domain) {
        Some(level) => level,
        None => new(levels, domain)?,
    };
    let depth = level.depth;
    level.depth += 1;
    level.seen = level.seen << 1 | u64::from(seen);
    Some(depth)
}

#[cold]
fn new(levels: &mut Vec<Level>, domain: u32) -> Option<&mut Level> {
    levels.push(Level {
        domain,
        depth: 0,
        seen: 0,
    });
    levels.last_mut()
}

/// The innermost range ends: its level, and whether its beginning was recorded. `None`: none is open.
#[inline(always)]
pub fn pop(domain: u32) -> Option<(u32, bool)> {
    let mut levels = own()?.levels.iter_mut();
    let level = levels.find(|level| level.domain == domain && level.depth > 0)?;
    let seen = level.seen & 1 != 0;
    level.depth -= 1;
    level.seen >>= 1;
    Some((level.depth, seen))
}

/// What stands for a text that ends where the client says.
#[inline(always)]
pub fn name(text: &[u8]) -> Name {
    let hash = hash(text);
    if let Some(known) = own().and_then(|own| own.known.as_ref()) {
        let known = &known[hash as usize % KNOWN];
        if known.hash == hash && known.id != 0 && known.text == text {
            return Name::Id(known.id);
        }
    }
    learn(text, hash)
}

#[cold]
fn learn(text: &[u8], hash: u64) -> Name {
    let name = Name::of(&String::from_utf8_lossy(text));
    if let (Name::Id(id), Some(own)) = (&name, own()) {
        let known = own.known.get_or_insert_with(|| Box::new([NOTHING; KNOWN]));
        let known = &mut known[hash as usize % KNOWN];
        (known.hash, known.id) = (hash, *id);
        known.text.clear();
        known.text.extend_from_slice(text);
    }
    name
}

/// Multiply and fold, eight bytes at a time (as wyhash, Wang Yi): what is found by it is compared.
#[inline(always)]
fn hash(text: &[u8]) -> u64 {
    let mix = |a: u64, b: u64| {
        let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xe703_7ed1_a0b4_28db);
        product as u64 ^ (product >> 64) as u64
    };
    let mut hash = text.len() as u64;
    let mut words = text.chunks_exact(8);
    for word in &mut words {
        hash = mix(
            hash,
            u64::from_le_bytes(word.try_into().unwrap_or_default()),
        );
    }
    let mut last = [0; 8];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    mix(hash, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_domain_has_its_own_levels_and_remembers_what_was_seen() {
        assert_eq!(
            (push(1, true), push(1, false), push(2, true)),
            (Some(0), Some(1), Some(0))
        );
        assert_eq!(pop(1), Some((1, false)));
        assert_eq!((pop(1), pop(1), pop(3)), (Some((0, true)), None, None));
        for _ in 0..100 {
            push(1, true);
        }
        let seen = (0..100).filter(|_| pop(1).unwrap().1).count();
        assert_eq!((seen, pop(2)), (64, Some((0, true))));
    }

    #[test]
    fn texts_that_share_a_place_keep_their_own_ids() {
        let texts: Vec<String> = (0..500)
            .map(|n| format!("a text of some length {n}"))
            .collect();
        let id = |text: &String| match name(text.as_bytes()) {
            Name::Id(id) => id,
            Name::Text(text) => panic!("{text}"),
        };
        let first: Vec<u32> = texts.iter().map(id).collect();
        let again: Vec<u32> = texts.iter().map(id).collect();
        assert_eq!(first, again);
        assert_eq!(id(&texts[7]), hot::text_id(&texts[7]));
    }
}

//! Names of functions, scopes and marks, and what else a forked child tells again.

use super::{current, locked};
use inferscope_spool::Pool;
use inferscope_spool::record::Text;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// Distinct names of scopes and marks that get an id; further ones share one, so that memory stays flat.
pub const MOST_TEXTS: usize = 16_384;

/// Records that a forked child tells again, at most.
const MOST_TOLD: usize = 16_384;

/// Definitions that are kept; further functions share an id. About 8 MiB.
const MOST_DEFINED: usize = 65_536;
const TOO_MANY: &str = "(one of too many functions)";

static NEXT_ID: AtomicU32 = AtomicU32::new(1);
static NAMES: Mutex<Option<Names>> = Mutex::new(None);

/// A name as it was defined, to be told again by a forked child.
struct Definition {
    id: u32,
    name: Box<str>,
    /// Shared with its neighbours: most of a file's functions are defined in a row.
    file: Arc<str>,
    line: u32,
}

#[derive(Default)]
pub struct Names {
    /// By id, ascending.
    all: Vec<Definition>,
    /// Ids of functions whose code is gone, by the hash of what they stand for: code that a program makes again and
    /// again, `eval`'s for one, gets the same id.
    free: HashMap<u64, Vec<u32>>,
    /// Ids of scopes and marks by name.
    texts: HashMap<String, u32>,
    /// Texts without an id that somebody refers to.
    kept: HashMap<&'static str, &'static String>,
    /// Records that a forked child tells again.
    told: Vec<Vec<u64>>,
}

impl Names {
    fn hash(name: &str, file: &str, line: u32) -> u64 {
        let mut hasher = DefaultHasher::new();
        (name, file, line).hash(&mut hasher);
        hasher.finish()
    }

    fn of(&self, id: u32) -> Option<&Definition> {
        let at = self.all.binary_search_by_key(&id, |known| known.id);
        self.all.get(at.ok()?)
    }

    /// Takes an id that stands for this, and for nothing that lives.
    fn again(&mut self, name: &str, file: &str, line: u32) -> Option<u32> {
        let hash = Names::hash(name, file, line);
        let id = *self.free.get(&hash)?.last()?;
        let known = self.of(id)?;
        if &*known.name != name || &*known.file != file || known.line != line {
            return None;
        }
        let ids = self.free.get_mut(&hash)?;
        ids.pop();
        if ids.is_empty() {
            self.free.remove(&hash);
        }
        Some(id)
    }
}

/// Keeps others away from the names: for a fork, whose child must not find them held.
pub fn hold() -> MutexGuard<'static, Option<Names>> {
    locked(&NAMES)
}

/// Tells a process's names chain all that was told so far.
pub fn tell_again(pool: &Pool) {
    let guard = locked(&NAMES);
    let Some(names) = &*guard else { return };
    for known in &names.all {
        let define = Text::Define {
            id: known.id,
            line: known.line,
            name: &known.name,
            file: &known.file,
        };
        pool.push_names(&define.encode());
    }
    for words in &names.told {
        pool.push_names(words);
    }
}

/// An id for a name, used by nothing else that lives; `line` 0 and an empty `file` mean none.
pub fn define(name: &str, file: &str, line: u32) -> u32 {
    let mut guard = locked(&NAMES);
    let names = guard.get_or_insert_default();
    if let Some(id) = names.again(name, file, line) {
        return id;
    }
    if names.all.len() < MOST_DEFINED {
        return define_in(names, name, file, line);
    }
    static SHARED: OnceLock<u32> = OnceLock::new();
    *SHARED.get_or_init(|| define_in(names, TOO_MANY, "", 0))
}

/// What had this id from [`define`] is gone: the next one of the same name and place may have it.
pub fn undefine(id: u32) {
    let mut guard = locked(&NAMES);
    let Some(names) = guard.as_mut() else { return };
    let Some(known) = names.of(id).filter(|known| &*known.name != TOO_MANY) else {
        return;
    };
    let hash = Names::hash(&known.name, &known.file, known.line);
    names.free.entry(hash).or_default().push(id);
}

fn define_in(names: &mut Names, name: &str, file: &str, line: u32) -> u32 {
    let id = NEXT_ID.fetch_add(1, Relaxed);
    if let Some(process) = current() {
        process.pool.push_names(
            &Text::Define {
                id,
                line,
                name,
                file,
            }
            .encode(),
        );
    }
    let last = names.all.last().map(|last| &last.file);
    let file = last
        .filter(|last| &***last == file)
        .cloned()
        .unwrap_or_else(|| file.into());
    names.all.push(Definition {
        id,
        name: name.into(),
        file,
        line,
    });
    id
}

/// The id of a scope's or mark's name: the same for the same text.
pub fn text_id(name: &str) -> u32 {
    let shared = || text_id_below(usize::MAX, "(one of too many names)");
    text_id_below(MOST_TEXTS, name).or_else(shared).unwrap_or(0)
}

/// The same; `None` where it would be a new one and there are `most` texts already.
pub fn text_id_below(most: usize, name: &str) -> Option<u32> {
    let mut guard = locked(&NAMES);
    let names = guard.get_or_insert_default();
    if let Some(&id) = names.texts.get(name) {
        return Some(id);
    }
    if names.texts.len() >= most {
        return None;
    }
    let id = define_in(names, name, "", 0);
    names.texts.insert(name.to_owned(), id);
    Some(id)
}

/// A copy of the text that stays: the same for the same text.
pub fn keep_text(text: &str) -> &'static String {
    let mut guard = locked(&NAMES);
    let kept = &mut guard.get_or_insert_default().kept;
    if let Some(known) = kept.get(text) {
        return known;
    }
    let new: &'static String = Box::leak(Box::new(text.to_owned()));
    kept.insert(new, new);
    new
}

/// Tells the process's names chain, and `again` those of its forked children.
pub fn tell(text: &Text, again: bool) {
    let words = text.encode();
    let mut guard = locked(&NAMES);
    if let Some(process) = current() {
        process.pool.push_names(&words);
    }
    let told = &mut guard.get_or_insert_default().told;
    if again && told.len() < MOST_TOLD {
        told.push(words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_again_has_its_id_again_and_what_lives_keeps_its_own() {
        let first = define("f", "again.py", 1);
        let second = define("f", "again.py", 1);
        assert_ne!(first, second);
        undefine(first);
        assert_eq!(define("f", "again.py", 1), first);
        assert_ne!(define("g", "again.py", 1), first);
        let known = locked(&NAMES).as_ref().unwrap().all.len();
        for _ in 0..1000 {
            let id = define("<module>", "<string>", 1);
            undefine(id);
        }
        assert_eq!(locked(&NAMES).as_ref().unwrap().all.len(), known + 1);
    }
}

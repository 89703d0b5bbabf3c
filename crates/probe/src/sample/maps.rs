//! Which library an address lies in, from `/proc/self/maps`: the loader's own functions take its lock, and a thread
//! may hold that for as long as a library's constructors run. Symbols are looked up once, on the helper, which can wait.

use crate::{hot, name, py};
use std::collections::HashMap;

#[derive(Debug)]
struct Range {
    start: u64,
    end: u64,
    path: String,
}

/// The process's executable mappings, and the ids of their libraries. Read again when an address is in none; a
/// library that was loaded where an unloaded one had been takes its name.
#[derive(Debug, Default)]
pub struct Maps {
    ranges: Vec<Range>,
    ids: HashMap<String, u32>,
    python: String,
    /// Functions with a name of their own, once they were looked up.
    parts: Option<[Part; 2]>,
}

/// A function that says more than its library does.
#[derive(Debug)]
struct Part {
    name: &'static str,
    start: u64,
    end: u64,
    /// Of its name, once it was seen.
    id: Option<u32>,
}

impl Part {
    fn all() -> [Part; 2] {
        let copies = py::sym(c"memcpy") as u64;
        let part = |name, start, end| Part {
            name,
            start,
            end,
            id: None,
        };
        // The loop that runs bytecode: what is called for it (operators, methods, allocation) is elsewhere.
        let (start, end) = py::extent(c"_PyEval_EvalFrameDefault").unwrap_or_default();
        let length = if copies == 0 { 0 } else { COPY_BYTES };
        [
            part("memcpy", copies, copies + length),
            part("eval", start, end),
        ]
    }
}

/// Length of the C library's `memcpy` from where its symbol points: of the version for this processor, which `memmove`
/// shares. glibc's for AVX has 1.2 kB (samples of copies of 100 bytes to 200 MB lay within 1167), its others have less.
const COPY_BYTES: u64 = 1280;

/// Code that no file has: what a just-in-time compiler wrote.
const GENERATED: &str = "(generated code)";

impl Maps {
    /// The library's file, `[vdso]`, or "(generated code)" for memory that is executable and no file's.
    pub fn path(&mut self, ip: u64) -> Option<&str> {
        if self.find(ip).is_none() {
            self.read();
        }
        self.find(ip).map(|at| self.ranges[at].path.as_str())
    }

    /// The id of the library's name, or of a function in it that has one of its own: copying is nobody's own work, whoever
    /// asked for it, and the interpreter's loop is no native function's.
    pub fn id(&mut self, ip: u64) -> u32 {
        let parts = self.parts.get_or_insert_with(Part::all);
        if let Some(at) = parts
            .iter()
            .position(|part| (part.start..part.end).contains(&ip))
        {
            if let Some(id) = parts[at].id {
                return id;
            }
            let (name, path) = (
                parts[at].name,
                self.path(ip).unwrap_or(GENERATED).to_owned(),
            );
            let id = hot::define(name, self.file(&path), 0);
            if let Some(parts) = &mut self.parts {
                parts[at].id = Some(id);
            }
            return id;
        }
        let path = self.path(ip).unwrap_or(GENERATED).to_owned();
        if let Some(&id) = self.ids.get(&path) {
            return id;
        }
        let file = self.file(&path);
        let id = hot::define(last(file), file, 0);
        self.ids.insert(path, id);
        id
    }

    /// A library's path as traces have it.
    fn file<'a>(&self, path: &'a str) -> &'a str {
        match path == self.python {
            true => "python",
            false => name::shorten(path),
        }
    }

    fn find(&self, ip: u64) -> Option<usize> {
        let after = self.ranges.partition_point(|range| range.start <= ip);
        let at = after.checked_sub(1)?;
        (ip < self.ranges[at].end).then_some(at)
    }

    fn read(&mut self) {
        let text = std::fs::read("/proc/self/maps").unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let python = py::sym(c"PyDict_Type") as u64;
        self.ranges.clear();
        for (range, executable) in text.lines().filter_map(parse) {
            if (range.start..range.end).contains(&python) {
                self.python.clone_from(&range.path);
            }
            if executable {
                self.ranges.push(range);
            }
        }
    }
}

fn last(file: &str) -> &str {
    file.rsplit_once('/').map_or(file, |(_, last)| last)
}

/// A line of proc(5)'s maps: `start-end rwxp offset device inode   path`.
fn parse(line: &str) -> Option<(Range, bool)> {
    let mut rest = line;
    let mut word = || {
        let (word, after) = rest.split_once(' ')?;
        rest = after.trim_start();
        Some(word)
    };
    let (start, end) = word()?.split_once('-')?;
    let executable = word()?.as_bytes().get(2) == Some(&b'x');
    word()?;
    word()?;
    word(); // the last word of a line without a path
    let path = rest.trim_end_matches(" (deleted)");
    let range = Range {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        path: match path.starts_with(['/', '[']) {
            true => path.to_owned(),
            false => GENERATED.to_owned(),
        },
    };
    Some((range, executable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps_are_read() {
        let parsed = |line| parse(line).map(|(r, x)| (r.start, r.end, r.path, x));
        let line = "7f10-7f20 r-xp 00001000 08:01 1234      /a b/lib x.so (deleted)";
        let expected = (0x7f10, 0x7f20, "/a b/lib x.so".to_owned(), true);
        assert_eq!(parsed(line), Some(expected));
        for line in ["1-2 rwxp 0 00:00 0 ", "1-2 rwxp 0 00:00 0"] {
            assert_eq!(
                parsed(line),
                Some((1, 2, GENERATED.to_owned(), true)),
                "{line}"
            );
        }
        assert_eq!(parsed("7f10"), None);
        assert_eq!(parsed("x-y r-xp 0 0 0 /a"), None);
    }

    #[test]
    fn this_functions_address_is_in_this_program() {
        let exe = std::env::current_exe().unwrap();
        let ip = lines_of_maps_are_read as fn() as usize as u64;
        assert_eq!(Maps::default().path(ip), exe.to_str());
        assert_eq!(Maps::default().path(1), None);
    }
}

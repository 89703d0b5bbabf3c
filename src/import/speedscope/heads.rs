//! The first reading of a speedscope file: frames, and what each profile says of itself.

use std::collections::HashSet;

use super::LATEST_NS;
use crate::error::Result;
use crate::import::Lenient;
use crate::import::decimal::{scaled, unsigned};
use crate::import::json::{Cursor, Read, Window};
use crate::import::stacks::{Function, Functions, library, process};

/// Threads that have no number of their own get one from here on, if the one that is their place is taken.
const FIRST_TID: u64 = 1 << 48;

/// In the place of a function: a frame that py-spy makes of a process, whose profile is named after it as well.
pub const NO_FRAME: u32 = u32::MAX;

/// What a profile's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Seconds,
    Bytes,
    None,
}

impl Unit {
    /// The unit of a name; [`Option::None`]: there is none of this name.
    fn of(name: &str) -> Option<Unit> {
        Some(match name {
            "nanoseconds" => Unit::Nanoseconds,
            "microseconds" => Unit::Microseconds,
            "milliseconds" => Unit::Milliseconds,
            "seconds" => Unit::Seconds,
            "bytes" => Unit::Bytes,
            "none" => Unit::None,
            _ => return None,
        })
    }

    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::Microseconds => "µs",
            Unit::Milliseconds => "ms",
            Unit::Seconds => "s",
            Unit::Bytes => "bytes",
            Unit::None => "no unit",
        }
    }

    /// What 1 is, in ns; what is no time is drawn as if it were µs.
    pub fn ns(self) -> i64 {
        match self {
            Unit::Nanoseconds => 1,
            Unit::Microseconds | Unit::Bytes | Unit::None => 1_000,
            Unit::Milliseconds => 1_000_000,
            Unit::Seconds => 1_000_000_000,
        }
    }

    /// It does not measure time.
    pub fn is_no_time(self) -> bool {
        matches!(self, Unit::Bytes | Unit::None)
    }
}

/// What a profile says of itself.
#[derive(Clone, Debug)]
pub struct Head {
    pub unit: Unit,
    pub pid: u32,
    pub tid: u64,
    /// The thread's name; may be empty.
    pub name: String,
    pub start_ns: i64,
    pub end_ns: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Heads {
    /// Numbers of the functions of frames, by the frame's index: in events, and in samples, where the line a frame has is one
    /// that ran and says nothing of the function.
    pub evented: Vec<u32>,
    pub sampled: Vec<u32>,
    pub profiles: Vec<Head>,
    tids: HashSet<(u32, u64)>,
}

/// The values of a profile as they stand in the file; their unit may come behind them.
#[derive(Debug, Default)]
struct Words {
    name: String,
    unit: String,
    start: Vec<u8>,
    end: Vec<u8>,
}

impl Heads {
    /// Reads the whole file.
    ///
    /// # Errors
    /// What is wrong, with its byte; a file that is cut off, unless all frames came before that and it may be.
    pub fn read(
        window: &mut Window,
        functions: &mut Functions,
        lenient: &mut Lenient,
    ) -> Result<Heads> {
        let mut heads = Heads::default();
        match heads.outer(window, functions, lenient) {
            // The second reading meets it too, and counts it.
            Err(_) if lenient.on && !heads.evented.is_empty() && !heads.profiles.is_empty() => {}
            read => read?,
        }
        Ok(heads)
    }

    fn outer(
        &mut self,
        window: &mut Window,
        functions: &mut Functions,
        lenient: &mut Lenient,
    ) -> Result<()> {
        window.read(|c| c.expect(b'{', "a speedscope file should begin with {"))?;
        let mut first = true;
        while let Some(key) = key(window, first)? {
            first = false;
            match key.as_str() {
                "shared" => self.shared(window, functions)?,
                "profiles" => self.profiles(window, lenient)?,
                _ => skip(window)?,
            }
        }
        match window.read(|c| c.is_end())? {
            true => Ok(()),
            false => Err(window.wrong(0, "more behind the end of the profiles")),
        }
    }

    fn shared(&mut self, window: &mut Window, functions: &mut Functions) -> Result<()> {
        window.read(|c| c.expect(b'{', "what profiles share should begin here"))?;
        let mut first = true;
        while let Some(key) = key(window, first)? {
            first = false;
            if key != "frames" {
                skip(window)?;
                continue;
            }
            window.read(|c| c.expect(b'[', "a list of frames should begin here"))?;
            let mut first = true;
            while window.read(|c| c.element(first, false))? == Some(true) {
                first = false;
                let mut function = window.read(frame)?;
                if let Some(pid) = process(&function.name) {
                    self.sampled.push(NO_FRAME);
                    function.name = format!("process {pid}");
                    self.evented.push(functions.number(function));
                    continue;
                }
                self.evented.push(functions.number(function.clone()));
                function.line = 0;
                self.sampled.push(functions.number(function));
            }
        }
        Ok(())
    }

    fn profiles(&mut self, window: &mut Window, lenient: &mut Lenient) -> Result<()> {
        window.read(|c| c.expect(b'[', "a list of profiles should begin here"))?;
        let mut first = true;
        while window.read(|c| c.element(first, false))? == Some(true) {
            first = false;
            let place = window.position();
            window.read(|c| c.expect(b'{', "a profile should begin here"))?;
            let mut words = Words::default();
            // One that is cut off has a head too, if its values are there.
            let read = words.read(window);
            let unit = Unit::of(&words.unit);
            if unit.is_none() && read.is_ok() && !lenient.skip() {
                return Err(window.wrong_at(place, "a profile whose unit is none that there is"));
            }
            if unit.is_some() || read.is_ok() {
                self.head(&words, unit.unwrap_or(Unit::None));
            }
            read?;
        }
        Ok(())
    }

    fn head(&mut self, words: &Words, unit: Unit) {
        let time = |word: &[u8]| {
            scaled(word, unit.ns())
                .filter(|ns| ns.unsigned_abs() < LATEST_NS as u64)
                .unwrap_or(0)
        };
        let place = self.profiles.len() as u64;
        let (pid, tid, name) = thread(&words.name);
        let mut tid = tid.unwrap_or(place + 1);
        if !self.tids.insert((pid, tid)) {
            tid = FIRST_TID + place;
            self.tids.insert((pid, tid));
        }
        self.profiles.push(Head {
            unit,
            pid,
            tid,
            name: name.into(),
            start_ns: time(&words.start),
            end_ns: time(&words.end),
        });
    }
}

impl Words {
    /// Reads the keys of a profile after its `{`.
    fn read(&mut self, window: &mut Window) -> Result<()> {
        let mut first = true;
        while let Some(key) = key(window, first)? {
            first = false;
            match key.as_str() {
                "name" => self.name = window.read(text)?,
                "unit" => self.unit = window.read(text)?,
                "startValue" => self.start = window.read(|c| c.value().map(<[u8]>::to_vec))?,
                "endValue" => self.end = window.read(|c| c.value().map(<[u8]>::to_vec))?,
                _ => skip(window)?,
            }
        }
        Ok(())
    }
}

/// Whose profile it is, by its name: py-spy's `Process 1 Thread 2 "name"` and `Thread 0x7F "name"`. Others are names, of which
/// what looks like a program's options is left out: some writers put the command line there.
fn thread(name: &str) -> (u32, Option<u64>, &str) {
    let known = || {
        let (pid, rest) = match name.strip_prefix("Process ") {
            Some(rest) => {
                let (pid, rest) = rest.split_once(' ')?;
                (pid.parse().ok()?, rest)
            }
            None => (0, name),
        };
        let (tid, name) = rest.strip_prefix("Thread ")?.split_once(' ')?;
        let name = name.strip_prefix('"')?.strip_suffix('"')?;
        Some((pid, Some(unsigned(tid.as_bytes())?), name))
    };
    let plain = || name.split(" -").next().unwrap_or("");
    known().unwrap_or_else(|| (0, None, plain()))
}

/// The next key, decoded.
fn key(window: &mut Window, first: bool) -> Result<Option<String>> {
    window.read(|c| {
        let Some(key) = c.key(first)? else {
            return Ok(None);
        };
        let mut text = String::new();
        key.decode(&mut text);
        Ok(Some(text))
    })
}

/// Goes behind a value; of a list, element by element, since it may be longer than what may be in memory.
fn skip(window: &mut Window) -> Result<()> {
    let list = window.read(|c| match c.peek()? {
        b'[' => c.skip_byte(b'['),
        _ => c.value().map(|_| false),
    })?;
    let mut first = true;
    while list && window.read(|c| c.element(first, false))? == Some(true) {
        first = false;
        window.read(|c| c.value().map(|_| ()))?;
    }
    Ok(())
}

/// A string, decoded; empty for another value.
fn text(c: &mut Cursor<'_>) -> Read<String> {
    let mut text = String::new();
    match c.peek()? {
        b'"' => c.text()?.decode(&mut text),
        _ => drop(c.value()?),
    }
    Ok(text)
}

/// A frame.
fn frame(c: &mut Cursor<'_>) -> Read<Function> {
    let (mut name, mut file, mut line) = (String::new(), String::new(), 0);
    c.expect(b'{', "a frame should begin here")?;
    let mut first = true;
    while let Some(key) = c.key(first)? {
        first = false;
        match key.raw {
            b"name" => name = text(c)?,
            b"file" => file = text(c)?,
            b"line" => line = scaled(c.value()?, 1).unwrap_or(0),
            _ => drop(c.value()?),
        }
    }
    if file.contains(".so") {
        file = library(&file).into();
    }
    Ok(Function::new(name, file, u32::try_from(line).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_the_numbers_that_py_spy_gives_and_names_without_options() {
        assert_eq!(
            thread("Thread 12 \"MainThread\""),
            (0, Some(12), "MainThread")
        );
        assert_eq!(
            thread("Process 7 Thread 0x7F \"a b\""),
            (7, Some(127), "a b")
        );
        assert_eq!(thread("Process 7 Thread 12 \"\""), (7, Some(12), ""));
        assert_eq!(thread("worker 3"), (0, None, "worker 3"));
        assert_eq!(thread("app.py --token secret"), (0, None, "app.py"));
    }
}

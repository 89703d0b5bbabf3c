//! What files of stacks have in common: functions, the frames that are open on a thread, processes and threads.
//!
//! Stacks become what `isc-record --sample` writes: a frame that stands in samples one after the other, at the same depth
//! and below the same frames, is one span with `"sampled":true`. Such spans tell time and no calls.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::tracks::Owner;
use crate::clock::UNKNOWN;
use crate::trace::{Event, HashMap, Kind, Names};

/// Distinct functions of one file; further ones are `(one of too many)`.
const MOST_FUNCTIONS: usize = 1 << 20;

/// A function as a frame names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Function {
    pub kind: Kind,
    pub name: String,
    /// Empty if not known.
    pub file: String,
    /// Its first line; 0 if not known.
    pub line: u32,
}

impl Function {
    /// A function of this file: Python's if the file is, else native.
    pub fn new(name: String, file: String, line: u32) -> Function {
        let kind = match is_python(&file) {
            true => Kind::Python,
            false => Kind::Native,
        };
        Function {
            kind,
            name,
            file,
            line,
        }
    }
}

/// Whether code of this file is Python's: a source file, or what the interpreter calls a file, as `<string>`.
pub(super) fn is_python(file: &str) -> bool {
    [".py", ".pyx", ".pyi", ".pyw"]
        .iter()
        .any(|ending| file.ends_with(ending))
        || (file.starts_with('<') && file.ends_with('>'))
}

/// The pid of a frame that is a process of py-spy's, `process 12:"python app.py"`. A command line is nobody's business.
pub(super) fn process(frame: &str) -> Option<u32> {
    let (pid, _) = frame.strip_prefix("process ")?.split_once(":\"")?;
    pid.parse().ok()
}

/// A library as isc-record calls it: what follows `site-packages/` or the like, else the last part of the path.
pub(super) fn library(file: &str) -> &str {
    for folder in ["/site-packages/", "/dist-packages/", "/lib-dynload/"] {
        if let Some(at) = file.rfind(folder) {
            return &file[at + folder.len()..];
        }
    }
    match file.strip_prefix('/') {
        Some(path) => path.rsplit('/').next().unwrap_or(path),
        None => file,
    }
}

/// The functions of a file, each once.
#[derive(Debug, Default)]
pub(super) struct Functions {
    all: Vec<Function>,
    index: HashMap<Function, u32>,
}

impl Functions {
    /// The number of a function, a new one if it was not seen before.
    pub fn number(&mut self, function: Function) -> u32 {
        if let Some(&number) = self.index.get(&function) {
            return number;
        }
        let function = match self.all.len() < MOST_FUNCTIONS {
            true => function,
            false => Function::new("(one of too many)".into(), String::new(), 0),
        };
        let next = self.all.len() as u32;
        let number = *self.index.entry(function.clone()).or_insert(next);
        if number == next {
            self.all.push(function);
        }
        number
    }

    /// The function of a number that [`Functions::number`] gave.
    pub fn get(&self, number: u32) -> &Function {
        &self.all[number as usize]
    }
}

/// A frame that was on a thread's stack without a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub function: u32,
    pub start_ns: i64,
    pub end_ns: i64,
    /// Its length is right to within this, as far as the distance of samples goes.
    pub error_ns: i64,
}

impl Span {
    /// Its row. `args`: a JSON object, or empty.
    pub fn row(&self, of: &Functions, owner: Owner, args: &str, names: &mut Names) -> Event {
        let function = of.get(self.function);
        let Owner { process, pid, tid } = owner;
        let name = names.sym(&function.name);
        let mut row = Event::new(function.kind, name, self.start_ns, process, pid, tid);
        row.dur_ns = Some(self.end_ns - self.start_ns);
        row.file = (!function.file.is_empty()).then(|| names.sym(&function.file));
        row.line = (function.line != 0).then_some(function.line);
        row.args = (!args.is_empty()).then(|| names.sym(args));
        row
    }
}

/// What is on the stack of one thread.
#[derive(Debug, Default)]
pub(super) struct Stack {
    open: Vec<Span>,
    end_ns: i64,
    width_ns: i64,
}

impl Stack {
    /// When what was seen last ends.
    pub fn end_ns(&self) -> i64 {
        self.end_ns
    }

    /// Takes a sample, which stands for the time from `from_ns` to `to_ns`: frames by number, the outermost first. Spans that
    /// are over go to `out`, outer ones first. Samples come in order.
    pub fn sample(&mut self, frames: &[u32], from_ns: i64, to_ns: i64, out: &mut Vec<Span>) {
        let width_ns = to_ns - from_ns;
        // The edge between two samples is anywhere between them: each stands in the middle of its time.
        let (same, error_ns) = match from_ns == self.end_ns && !self.open.is_empty() {
            true => {
                let pairs = self.open.iter().zip(frames);
                let same = pairs.take_while(|(open, frame)| open.function == **frame);
                (same.count(), width_ns / 4 + self.width_ns / 4)
            }
            false => {
                self.close(0, self.width_ns / 2, out);
                (0, width_ns / 2)
            }
        };
        self.close(same, error_ns, out);
        self.open
            .extend(frames[same..].iter().map(|&function| Span {
                function,
                start_ns: from_ns,
                end_ns: from_ns,
                error_ns,
            }));
        (self.end_ns, self.width_ns) = (to_ns, width_ns);
    }

    /// Ends all that is open.
    pub fn end(&mut self, out: &mut Vec<Span>) {
        self.close(0, self.width_ns / 2, out);
    }

    /// Ends the frames from `depth` on, where what was seen last ends.
    fn close(&mut self, depth: usize, error_ns: i64, out: &mut Vec<Span>) {
        let end_ns = self.end_ns;
        out.extend(self.open.drain(depth..).map(|open| Span {
            end_ns,
            error_ns: open.error_ns + error_ns,
            ..open
        }));
    }
}

/// What a sampled span's row has in args; `error_ns` is rounded up to one digit, so that few texts differ.
pub(super) fn sampled_args(error_ns: i64) -> String {
    let error_ns = error_ns.clamp(0, i64::MAX / 10);
    let mut digit = 1;
    while error_ns / digit >= 10 {
        digit *= 10;
    }
    let rounded = (error_ns + digit - 1) / digit * digit;
    format!(r#"{{"sampled":true,"error_ns":{rounded}}}"#)
}

/// A process of the file.
#[derive(Debug)]
pub(super) struct Life {
    pub pid: u32,
    pub name: String,
    /// Names of threads, and number of those of the system where ours are other ones.
    pub threads: BTreeMap<u64, String>,
    range: Option<(i64, i64)>,
}

impl Life {
    /// Something of it was from `from_ns` to `to_ns`.
    pub fn saw(&mut self, from_ns: i64, to_ns: i64) {
        let (first, last) = self.range.unwrap_or((from_ns, to_ns));
        self.range = Some((first.min(from_ns), last.max(to_ns)));
    }
}

/// The processes of the file, by their numbers.
#[derive(Debug, Default)]
pub(super) struct Lives {
    pub all: Vec<Life>,
    index: HashMap<u32, u32>,
}

impl Lives {
    /// Number of the process with this pid.
    pub fn number(&mut self, pid: u32) -> u32 {
        let next = self.all.len() as u32;
        let number = *self.index.entry(pid).or_insert(next);
        if number == next {
            self.all.push(Life {
                pid,
                name: "process".into(),
                threads: BTreeMap::new(),
                range: None,
            });
        }
        number
    }

    /// Rows of processes and threads. `facts`: what the processes' rows have in args besides their clock.
    pub fn finish(&self, facts: &Map<String, Value>, names: &mut Names, rows: &mut Vec<Event>) {
        for (process, life) in (0u32..).zip(&self.all) {
            let (first, last) = life.range.unwrap_or((0, 0));
            let mut args = facts.clone();
            args.insert("clock".into(), UNKNOWN.into());
            let name = names.sym(&life.name);
            let mut row = Event::new(Kind::Process, name, first, process, life.pid, 0);
            row.dur_ns = Some(last - first);
            row.args = Some(names.sym(&Value::Object(args).to_string()));
            rows.push(row);
            for (&tid, name) in &life.threads {
                let name = names.sym(name);
                rows.push(Event::new(
                    Kind::Thread,
                    name,
                    first,
                    process,
                    life.pid,
                    tid,
                ));
            }
        }
    }
}

/// The fact `sampled_hz` of so many samples of so much time together, where there were any.
pub(super) fn rate(samples: u64, time_ns: i64) -> Option<(String, Value)> {
    let hz = samples as f64 * 1e9 / time_ns.max(1) as f64;
    let hz = (hz * 100.0).round() / 100.0; // 99.9999 comes of how the times were written
    (samples > 0 && hz > 0.0).then(|| ("sampled_hz".into(), json!(hz)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(samples: &[(&[u32], i64, i64)]) -> Vec<String> {
        let (mut stack, mut out) = (Stack::default(), Vec::new());
        for (frames, from, to) in samples {
            stack.sample(frames, *from, *to, &mut out);
        }
        stack.end(&mut out);
        let text = |s: &Span| format!("{} {}-{} ±{}", s.function, s.start_ns, s.end_ns, s.error_ns);
        out.iter().map(text).collect()
    }

    #[test]
    fn what_stays_on_the_stack_is_one_span() {
        assert_eq!(
            spans(&[(&[5, 6], 0, 100), (&[5, 7, 8], 100, 200), (&[5], 200, 300)]),
            [
                "6 0-100 ±100",
                "7 100-200 ±100",
                "8 100-200 ±100",
                "5 0-300 ±100"
            ]
        );
    }

    #[test]
    fn nothing_is_known_of_the_time_between_two_samples_that_do_not_meet() {
        assert_eq!(
            spans(&[(&[5], 0, 100), (&[5], 300, 400)]),
            ["5 0-100 ±100", "5 300-400 ±100"]
        );
    }

    #[test]
    fn errors_have_one_digit_and_are_not_too_small() {
        for (error, said) in [
            (0, 0),
            (7, 7),
            (10, 10),
            (101, 200),
            (9_900_001, 10_000_000),
        ] {
            let args = sampled_args(error);
            assert_eq!(args, format!(r#"{{"sampled":true,"error_ns":{said}}}"#));
        }
    }

    #[test]
    fn a_files_name_says_whose_code_it_has() {
        for (file, python) in [
            ("app.py", true),
            ("<frozen importlib._bootstrap>", true),
            ("libc.so.6", false),
            ("", false),
        ] {
            assert_eq!(is_python(file), python, "{file}");
        }
    }
}

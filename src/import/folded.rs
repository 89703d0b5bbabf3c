//! Folded stacks: `main;run;step 12`, a line for each stack, outermost frame first, and how often it was seen.
//!
//! py-spy's `--format raw`, and what stackcollapse-*.pl, inferno-collapse-*, bcc's and bpftrace's tools write. The format has
//! no times and no unit: stacks are laid end to end in the file's order, one count as 1 µs ([`COUNT_NS`]), so that shares are
//! right. What a line counts (samples, µs, bytes) only who wrote it knows.
//!
//! # Source
//! B. Gregg, FlameGraph: the input that flamegraph.pl describes; py-spy 0.4, src/flamegraph.rs and src/main.rs, for frames
//! of files, threads and processes.

use serde_json::json;

use super::Lenient;
use super::decimal::{scaled, unsigned};
use super::lines::{Line, Lines};
use super::stacks::{Function, Functions, Lives, Span, Stack, is_python, process};
use super::tracks::Owner;
use crate::error::Result;
use crate::trace::{Event, HashMap, Names};

/// What one count is drawn as, in ns.
const COUNT_NS: i64 = 1000;

/// Rows handed over at once.
const BATCH: usize = 1 << 14;

/// The longest line of several, in bytes.
const LONGEST: usize = 1 << 20;

/// No times beyond this, in ns: 146 years.
const LATEST_NS: i64 = 1 << 62;

/// See the module.
#[derive(Debug)]
pub struct Folded {
    lines: Lines,
    functions: Functions,
    stacks: HashMap<(u32, u64), Stack>,
    /// Their keys in the order in which they came, so that equal files give equal rows.
    order: Vec<(u32, u64)>,
    lives: Lives,
    lenient: Lenient,
}

/// One line, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Folds<'a> {
    pid: u32,
    tid: u64,
    thread: Option<&'a str>,
    stack: &'a str,
    ns: i64,
}

/// Whether these lines are of folded stacks: most end in a count, and one at least has two frames.
pub(super) fn is(head: &[u8]) -> bool {
    let (mut fit, mut other, mut deep) = (0, 0, false);
    for line in head.split(|&byte| byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        match folds(text.trim_end()) {
            _ if text.trim().is_empty() || text.starts_with('#') => {}
            Ok(folds) => {
                fit += 1;
                deep |= folds.stack.contains(';');
            }
            Err(_) => other += 1,
        }
    }
    // A head's last line may be a part of one.
    deep && fit >= other
}

/// What a line says. py-spy writes a count without a stack where a thread had no frames: of that time nothing is known.
fn folds(line: &str) -> std::result::Result<Folds<'_>, &'static str> {
    let (stack, count) = line
        .rsplit_once([' ', '\t'])
        .ok_or("a stack without a count")?;
    let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let ns = Some(count)
        .filter(|count| count.bytes().all(plain))
        .and_then(|count| scaled(count.as_bytes(), COUNT_NS))
        .ok_or("a stack whose count is no number")?;
    let mut folds = Folds {
        pid: 0,
        tid: 0,
        thread: None,
        stack: stack.trim(),
        ns,
    };
    // py-spy's processes: `process 12:"python app.py"`. A command line is nobody's business, and may hold any character.
    if let Some(pid) = process(folds.stack) {
        let last = folds.stack.rfind("\";process ").map_or(0, |at| at + 2);
        folds.pid = process(&folds.stack[last..]).unwrap_or(pid);
        let behind = folds.stack.rfind("\";").map(|at| at + 2);
        folds.stack = behind.map_or("", |at| &folds.stack[at..]);
    }
    // Its threads: `thread (12): name`.
    let first = folds.stack.split(';').next().unwrap_or("");
    if let Some((tid, name)) = first
        .strip_prefix("thread (")
        .and_then(|rest| rest.split_once(')'))
        && let Some(tid) = unsigned(tid.as_bytes())
    {
        folds.tid = tid;
        folds.thread = name.strip_prefix(": ").filter(|name| !name.is_empty());
        folds.stack = folds.stack[first.len()..].trim_start_matches(';');
    }
    Ok(folds)
}

/// A process's command line goes on in the next line.
fn is_open(line: &str) -> bool {
    let last = &line[line.rfind("\";process ").map_or(0, |at| at + 2)..];
    process(line).is_some() && !last.contains("\";") && !last.contains("\" ")
}

/// A frame; py-spy's says in parentheses where the code is. The line it has is the one that ran, and no part of the function.
fn function(frame: &str) -> Function {
    let inside = frame
        .strip_suffix(')')
        .and_then(|frame| frame.rsplit_once(" ("));
    if let Some((name, place)) = inside {
        let (file, line) = match place.rsplit_once(':') {
            Some((file, line)) if line.parse::<u32>().is_ok() => (file, true),
            _ => (place, false),
        };
        if !name.is_empty() && (line || is_python(file) || file.contains(".so")) {
            return Function::new(name.into(), file.into(), 0);
        }
    }
    Function::new(frame.into(), String::new(), 0)
}

impl Folded {
    pub fn new(lines: Lines, lenient: Lenient) -> Folded {
        Folded {
            lines,
            functions: Functions::default(),
            stacks: HashMap::default(),
            order: Vec::new(),
            lives: Lives::default(),
            lenient,
        }
    }

    /// Reads a line. Spans that ended with it, and whose they are; `None` at the end.
    fn line(&mut self, spans: &mut Vec<Span>) -> Result<Option<Owner>> {
        let mut whole = String::new();
        loop {
            let text = match self.lines.next_line()? {
                Line::End if whole.is_empty() => return Ok(None),
                Line::End | Line::Cut if self.lenient.skip() => return Ok(None),
                Line::End | Line::Cut => return Err(self.lines.cut()),
                Line::Whole(line) => String::from_utf8_lossy(line),
            };
            if whole.is_empty() && (text.trim().is_empty() || text.starts_with('#')) {
                continue;
            }
            whole.push_str(text.trim_end());
            // A command line may go over several lines.
            if is_open(&whole) && whole.len() < LONGEST {
                whole.push('\n');
                continue;
            }
            let what = match folds(&whole) {
                Ok(folds) if folds.ns == 0 => {
                    whole.clear();
                    continue;
                }
                Ok(folds) => match self.take(&folds, spans) {
                    Some(owner) => return Ok(Some(owner)),
                    None => "counts that are too large together",
                },
                Err(what) => what,
            };
            if !self.lenient.skip() {
                return Err(self.lines.wrong(self.lines.number(), what));
            }
            whole.clear();
        }
    }

    /// Lays a line's stack behind the others of its thread; `None` if that is beyond all time.
    fn take(&mut self, folds: &Folds<'_>, spans: &mut Vec<Span>) -> Option<Owner> {
        let process = self.lives.number(folds.pid);
        let life = &mut self.lives.all[process as usize];
        let key = (process, folds.tid);
        let stack = self.stacks.entry(key).or_insert_with(|| {
            self.order.push(key);
            Stack::default()
        });
        let from_ns = stack.end_ns();
        let to_ns = from_ns.checked_add(folds.ns).filter(|&ns| ns < LATEST_NS)?;
        let frames = folds.stack.split(';').filter(|frame| !frame.is_empty());
        let frames: Vec<u32> = frames
            .map(|frame| self.functions.number(function(frame)))
            .collect();
        stack.sample(&frames, from_ns, to_ns, spans);
        life.saw(from_ns, to_ns);
        if let Some(name) = folds.thread {
            life.threads.entry(folds.tid).or_insert_with(|| name.into());
        }
        Some(Owner {
            process,
            pid: folds.pid,
            tid: folds.tid,
        })
    }
}

impl super::Rows for Folded {
    fn next_batch(&mut self, names: &mut Names, rows: &mut Vec<Event>) -> Result<bool> {
        // How many samples a count is nobody says, so neither how wrong a length may be.
        const ARGS: &str = r#"{"sampled":true}"#;
        let enough = rows.len() + BATCH;
        let mut spans = Vec::new();
        while rows.len() < enough {
            if let Some(owner) = self.line(&mut spans)? {
                let ended = spans.drain(..);
                rows.extend(ended.map(|span| span.row(&self.functions, owner, ARGS, names)));
                continue;
            }
            for key in std::mem::take(&mut self.order) {
                if let Some(mut stack) = self.stacks.remove(&key) {
                    stack.end(&mut spans);
                }
                let owner = Owner {
                    process: key.0,
                    pid: self.lives.all[key.0 as usize].pid,
                    tid: key.1,
                };
                let ended = spans.drain(..);
                rows.extend(ended.map(|span| span.row(&self.functions, owner, ARGS, names)));
            }
            let note = "the file counts stacks and has no times: one count is drawn as 1 µs, in the order of the file";
            let facts = [
                ("sampled".into(), json!(true)),
                ("notes".into(), json!([note])),
            ];
            self.lives.finish(&facts.into_iter().collect(), names, rows);
            self.lenient.finish(0, names, rows);
            return Ok(false);
        }
        Ok(true)
    }

    fn hash(&mut self) -> Option<String> {
        self.lines.blocks().hash()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_whose_stack_it_is_and_keeps_command_lines_to_itself() {
        let of = |line: &'static str| {
            let folds = folds(line).unwrap();
            (folds.pid, folds.tid, folds.thread, folds.stack, folds.ns)
        };
        assert_eq!(of("a;b c;d 12"), (0, 0, None, "a;b c;d", 12_000));
        assert_eq!(of(" 3"), (0, 0, None, "", 3_000));
        assert_eq!(of("a;b 0.5"), (0, 0, None, "a;b", 500));
        assert_eq!(
            of(
                "process 7:\"sh -c 'x; y'\";process 9:\"python a.py --key \";b\"\";thread (12): main;f (a.py:3) 4"
            ),
            (9, 12, Some("main"), "f (a.py:3)", 4_000)
        );
        assert_eq!(of("thread (0x1F);f 1"), (0, 31, None, "f", 1_000));
        for wrong in [
            "a;b",
            "a;b x",
            "a;b -1",
            "a;b nan",
            "a;b 1e400",
            "a;b ",
            "a;b 99999999999999999999",
        ] {
            assert!(folds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn frames_have_a_file_where_it_is_one() {
        let of = |frame: &str| {
            let f = function(frame);
            format!("{} {} {}", f.kind.as_str(), f.name, f.file)
        };
        assert_eq!(of("run (app.py:12)"), "python run app.py");
        assert_eq!(of("<module> (<string>:1)"), "python <module> <string>");
        assert_eq!(of("mul (libblas.so.3)"), "native mul libblas.so.3");
        assert_eq!(of("operator() (int)"), "native operator() (int) ");
        assert_eq!(of("do_syscall_64_[k]"), "native do_syscall_64_[k] ");
    }

    #[test]
    fn prose_and_tables_are_no_stacks() {
        assert!(is(b"a;b 1\na;c 2\n# no\na;d"));
        for text in [
            &b"a 1\nb 2\n"[..],
            b"plain text",
            b"x;y\n",
            b"",
            b"a,b;c,1\n",
        ] {
            assert!(!is(text), "{}", String::from_utf8_lossy(text));
        }
    }
}

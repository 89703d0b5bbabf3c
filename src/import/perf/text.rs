//! One line of `perf script`: a sample's head, or a frame.
//!
//! # Source
//! Linux, tools/perf/builtin-script.c (perf_sample__fprintf_start, process_event) and util/evsel_fprintf.c
//! (sample__fprintf_callchain), 3.x to 6.x; perf's output of 6.1.

use crate::import::decimal::scaled;
use crate::import::stacks::{Function, library};
use crate::trace::Kind;

/// No times beyond this, in ns: 146 years.
const LATEST_NS: i64 = 1 << 62;

/// The first line of a sample: `comm pid/tid [cpu] time: period event:`, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub comm: &'a str,
    /// Only where it was asked for; the tid is always there.
    pub pid: Option<u32>,
    pub tid: u32,
    pub cpu: Option<u32>,
    pub time_ns: i64,
    pub period: Option<u64>,
    /// Empty if events were not asked for.
    pub event: &'a str,
    /// A frame, where there is no chain of calls; what a tracepoint tells.
    pub rest: &'a str,
}

/// A sample's head, if the line is one. The command's name may hold anything, so the time is looked for first.
pub fn head(line: &str) -> Option<Head<'_>> {
    let mut from = 0;
    while let Some(at) = line[from..].find(|c: char| !c.is_whitespace()) {
        let start = from + at;
        let length = line[start..].find(char::is_whitespace);
        let end = length.map_or(line.len(), |length| start + length);
        let word = &line[start..end];
        if let Some(time_ns) = word.strip_suffix(':').and_then(time)
            && let Some((comm, pid, tid, cpu)) = whose(&line[..start])
        {
            let (period, event, rest) = what(&line[end..]);
            return Some(Head {
                comm,
                pid,
                tid,
                cpu,
                time_ns,
                period,
                event,
                rest,
            });
        }
        from = end;
    }
    None
}

/// Seconds with decimals to ns; no other form is a time here.
fn time(word: &str) -> Option<i64> {
    let (seconds, decimals) = word.split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(decimals) || decimals.len() > 9 {
        return None;
    }
    scaled(word.as_bytes(), 1_000_000_000).filter(|&ns| ns < LATEST_NS)
}

/// Command, pid, tid and processor before the time.
fn whose(before: &str) -> Option<(&str, Option<u32>, u32, Option<u32>)> {
    let mut before = before.trim_end();
    let mut cpu = None;
    if let Some(inside) = before.strip_suffix(']') {
        let (rest, number) = inside.rsplit_once('[')?;
        cpu = Some(number.parse().ok()?);
        before = rest.trim_end();
    }
    let (comm, ids) = before.rsplit_once(char::is_whitespace)?;
    // -1: a thread that was gone already, or one that perf never heard of.
    let id = |text: &str| match text {
        "-1" => Some(u32::MAX),
        text => text.parse::<u32>().ok(),
    };
    let (pid, tid) = match ids.split_once('/') {
        Some((pid, tid)) => (Some(id(pid)?), id(tid)?),
        None => (None, id(ids)?),
    };
    Some((comm.trim(), pid, tid, cpu))
}

/// Period, event and the rest behind the time.
fn what(after: &str) -> (Option<u64>, &str, &str) {
    let after = after.trim_start();
    let (first, rest) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
    let (period, after) = match first.parse::<u64>() {
        Ok(period) => (Some(period), rest.trim_start()),
        Err(_) => (None, after),
    };
    let (event, rest) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
    match event.strip_suffix(':') {
        Some(event) => (period, event, rest.trim()),
        None => (period, "", after.trim()),
    }
}

/// A frame: `addr symbol+0x1f (file)`, of which symbol and file may be missing.
pub fn frame(line: &str) -> Option<Frame<'_>> {
    let line = line.trim();
    let (address, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    if address.is_empty() || !address.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let rest = rest.trim();
    let inside = rest.strip_suffix(')');
    let (symbol, file) = match inside.and_then(|rest| rest.rsplit_once('(')) {
        // `foo(int) (/lib/x.so)`, and not the parenthesis of foo's arguments.
        Some((symbol, file)) if symbol.is_empty() || symbol.ends_with(' ') => (symbol.trim(), file),
        _ => (rest, ""),
    };
    let plain = symbol.rsplit_once("+0x").filter(|(_, offset)| {
        !offset.is_empty() && offset.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    let symbol = plain.map_or(symbol, |(symbol, _)| symbol);
    Some(Frame {
        symbol: if symbol.is_empty() {
            "[unknown]"
        } else {
            symbol
        },
        file,
    })
}

/// See [`frame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub symbol: &'a str,
    pub file: &'a str,
}

impl Frame<'_> {
    /// A function that the compiler put into the one below, which says the file.
    pub fn is_inlined(&self) -> bool {
        self.file == "inlined"
    }

    /// Whose code it is. CPython 3.12 and later name Python's functions to perf as `py::name:file` (`-X perf`).
    pub fn function(&self, file: &str) -> Function {
        let python = self.symbol.strip_prefix("py::");
        if let Some((name, file)) = python.and_then(|rest| rest.rsplit_once(':')) {
            return Function {
                kind: Kind::Python,
                ..Function::new(name.into(), file.into(), 0)
            };
        }
        Function {
            kind: Kind::Native,
            ..Function::new(self.symbol.into(), short(file).into(), 0)
        }
    }
}

/// A file as isc-record calls it.
fn short(file: &str) -> &str {
    match file {
        "" | "[unknown]" | "inlined" => return "",
        "[kernel.kallsyms]" | "[guest.kernel.kallsyms]" => return "[kernel]",
        _ if file.starts_with("[JIT]") || file.starts_with("/tmp/perf-") || file == "//anon" => {
            return "(generated code)";
        }
        _ => {}
    }
    library(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_all_fields_and_of_few() {
        let of = |line: &'static str| {
            let h = head(line)?;
            let period = h.period.map_or("-".into(), |period| period.to_string());
            Some(format!(
                "{}|{:?} {} {:?}|{}|{period} {}|{}",
                h.comm, h.pid, h.tid, h.cpu, h.time_ns, h.event, h.rest
            ))
        };
        for (line, said) in [
            (
                "bash  9216   926.314587:    1003009 cpu-clock: ",
                "bash|None 9216 None|926314587000|1003009 cpu-clock|",
            ),
            (
                "my app 2.0:  9216/9217  [003] 926.314587403:    1003009 cycles:uH:   7f12 f+0x1 (/x.so)",
                "my app 2.0:|Some(9216) 9217 Some(3)|926314587403|1003009 cycles:uH|7f12 f+0x1 (/x.so)",
            ),
            (
                "swapper     0 [000] 158665.570607: cpu-clock:",
                "swapper|None 0 Some(0)|158665570607000|- cpu-clock|",
            ),
            (
                ":-1    -1 [001]  1.000001: sched:sched_switch: prev_comm=x",
                ":-1|None 4294967295 Some(1)|1000001000|- sched:sched_switch|prev_comm=x",
            ),
            ("a 1/2 0.000000001:", "a|Some(1) 2 None|1|- |"),
        ] {
            assert_eq!(of(line).as_deref(), Some(said), "{line}");
        }
        for line in [
            "",
            "a",
            "a 1",
            "a 1 2:",
            "a b 1.5:",
            "a 1 1.0000000001:",
            "a 1 99999999999.0:",
            "1 2.5:",
            "a 1 [x] 1.5:",
            "a 1 1.5",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }

    #[test]
    fn frames_are_symbols_of_files() {
        let of = |line: &'static str| {
            let frame = frame(line)?;
            let f = frame.function(frame.file);
            Some(format!("{} {}|{}", f.kind.as_str(), f.name, f.file))
        };
        for (line, said) in [
            (
                "\t           14b89 f.constprop.0+0x1e9 (/usr/lib/ld.so.2)",
                "native f.constprop.0|ld.so.2",
            ),
            (
                "  ffffffff82 do_sys+0x1 ([kernel.kallsyms])",
                "native do_sys|[kernel]",
            ),
            (
                " 1f A::g(int, B<C>) const+0xf (/v/site-packages/torch/lib/c10.so)",
                "native A::g(int, B<C>) const|torch/lib/c10.so",
            ),
            (" 1f g(int)", "native g(int)|"),
            (" 0 [unknown] ([unknown])", "native [unknown]|"),
            (" 1f (/bin/x)", "native [unknown]|x"),
            (
                " 1f py::run:/app/main.py+0xb (/tmp/perf-1.map)",
                "python run|/app/main.py",
            ),
            (
                " 1f lib-thing (/tmp/perf-1.map)",
                "native lib-thing|(generated code)",
            ),
            ("  1f", "native [unknown]|"),
        ] {
            assert_eq!(of(line).as_deref(), Some(said), "{line}");
        }
        assert_eq!(of("not a frame"), None);
        assert_eq!(of(""), None);
    }
}

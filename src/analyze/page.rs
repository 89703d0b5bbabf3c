//! The analysis as a page for a terminal: read in ten seconds, most important first.

use std::fmt::Write;
use std::io::IsTerminal;

use serde_json::Value;

use super::idle::Cause;
use super::{Analysis, Finding, Function, Line, Step};
use crate::report::units::{count, line, share, time};

/// Bars, steps, functions and caveats that are shown; the rest is in the JSON.
const MOST_BARS: usize = 8;
const MOST_STEPS: usize = 8;
const MOST_FUNCTIONS: usize = 8;
const MOST_LINES: usize = 8;
const MOST_FINDINGS: usize = 5;
const MOST_CAVEATS: usize = 5;
/// Shares below this have no bar of their own.
const LEAST_SHARE: f64 = 0.005;
/// Narrowest and widest page, in columns.
const WIDTHS: (usize, usize) = (60, 120);

/// How the page is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns of the terminal.
    pub width: usize,
    /// Bold, dim and colours by ANSI sequences.
    pub colour: bool,
}

impl Default for Style {
    fn default() -> Style {
        Style {
            width: 80,
            colour: false,
        }
    }
}

impl Style {
    /// What standard output can show: as wide as a terminal is, else plain.
    pub fn of_stdout() -> Style {
        let terminal = std::io::stdout().is_terminal();
        let plain = Style::default();
        Style {
            width: match terminal_size::terminal_size() {
                Some((terminal_size::Width(width), _)) if terminal => width.into(),
                _ => plain.width,
            },
            colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    /// No wider or narrower than a page is read well.
    pub(crate) fn clamped(self) -> Style {
        Style {
            width: self.width.clamp(WIDTHS.0, WIDTHS.1),
            ..self
        }
    }

    pub(crate) fn paint(self, code: &str, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }
}

/// Draws the page.
pub fn page(a: &Analysis, style: Style) -> String {
    let style = style.clamped();
    let mut out = String::new();
    let class = format!("{} ({:.2})", a.verdict.class, a.verdict.confidence);
    let first = out.len();
    wrap(
        &mut out,
        style,
        "",
        &format!("{class}: {}", line(&a.verdict.summary)),
    );
    if style.colour {
        let painted = style.bold(&class);
        out.replace_range(first..first + class.len(), &painted);
    }
    bars(&mut out, a, style);
    gaps(&mut out, a, style);
    findings(&mut out, &a.findings, style);
    answers(&mut out, a, style);
    steps(&mut out, &a.steps, style);
    functions(&mut out, &a.functions, style);
    lines(&mut out, &a.lines, style);
    recording(&mut out, a, style);
    out
}

pub(crate) fn title(out: &mut String, style: Style, text: &str) {
    let _ = writeln!(out, "\n{}", style.bold(text));
}

/// Writes `text` in lines of the page's width, indented; words longer than a line stay whole.
pub(crate) fn wrap(out: &mut String, style: Style, indent: &str, text: &str) {
    let mut at = 0;
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if at > 0 && at + 1 + len > style.width {
            out.push('\n');
            at = 0;
        }
        if at == 0 {
            out.push_str(indent);
            at = indent.chars().count();
        } else {
            out.push(' ');
            at += 1;
        }
        out.push_str(word);
        at += len;
    }
    out.push('\n');
}

/// As [`wrap`], its first line with the mark that ends `indent`.
pub(crate) fn item(out: &mut String, style: Style, mark: &str, text: &str) {
    let indent = " ".repeat(mark.chars().count());
    let from = out.len();
    wrap(out, style, &indent, text);
    out.replace_range(from..from + indent.len(), mark);
}

fn bars(out: &mut String, a: &Analysis, style: Style) {
    title(out, style, &format!("Where {} go", time(a.span_ns as f64)));
    let shown = a.breakdown.iter().filter(|s| s.share >= LEAST_SHARE);
    let shown: Vec<_> = shown.take(MOST_BARS).collect();
    let width = |s: &&super::Share| line(&s.category).chars().count();
    let label = shown.iter().map(width).max().unwrap_or(0).clamp(10, 32);
    let room = style.width.saturating_sub(label + 24).max(10);
    for s in &shown {
        let blocks = (s.share * room as f64).round() as usize;
        let bar = "█".repeat(blocks.clamp(1, room));
        let bar = format!("{bar:room$}");
        let name = cut(&line(&s.category), label);
        let (part, time) = (share(s.share), time(s.time_ns as f64));
        let _ = writeln!(
            out,
            "  {name:label$}  {} {part:>7} {time:>9}",
            style.paint("36", &bar)
        );
    }
    let rest: f64 = a.breakdown.iter().map(|s| s.share).sum::<f64>()
        - shown.iter().map(|s| s.share).sum::<f64>();
    if rest >= 0.001 {
        let (part, room) = (share(rest), room + 1);
        let _ = writeln!(out, "  {:label$} {:room$} {part:>7}", "other", "");
    }
}

/// Why devices had nothing to do.
fn gaps(out: &mut String, a: &Analysis, style: Style) {
    let all = || a.gaps.iter().filter(|gap| gap.device == "all");
    let idle: i64 = all().map(|gap| gap.time_ns).sum();
    if idle == 0 {
        return;
    }
    title(
        out,
        style,
        &format!("While the device waits, {}, the host is", time(idle as f64)),
    );
    for gap in all().filter(|gap| gap.time_ns as f64 >= LEAST_SHARE * idle as f64) {
        let cause = Cause::ALL.iter().find(|cause| cause.word() == gap.cause);
        let why = cause.map_or("", |cause| cause.words());
        let place = gap.place.as_deref().filter(|_| gap.cause != "queued");
        let place = place.map_or(String::new(), |place| format!(": {}", line(place)));
        let share = format!("{:.1} %", 100.0 * gap.time_ns as f64 / idle as f64);
        let ns = time(gap.time_ns as f64);
        let mark = format!("  {:<14}{share:>7}  {ns:>8}  ", gap.cause);
        item(out, style, &mark, &format!("{why}{place}"));
    }
}

fn answers(out: &mut String, a: &Analysis, style: Style) {
    if a.what_if.is_empty() {
        return;
    }
    title(out, style, "What if");
    for answer in &a.what_if {
        let (before, after) = (time(answer.before_ns as f64), time(answer.after_ns as f64));
        let of = match answer.of.as_str() {
            "whole" => "the whole".to_owned(),
            step => format!("a step ({})", line(step)),
        };
        let text = format!(
            "{}: {:.2}× faster, {of} takes {after} in place of {before}",
            line(&answer.change),
            answer.speedup
        );
        item(out, style, "  - ", &text);
    }
}

fn findings(out: &mut String, findings: &[Finding], style: Style) {
    if findings.is_empty() {
        title(out, style, "Findings");
        let _ = writeln!(out, "  none: no rule found something worth changing");
        return;
    }
    title(out, style, "Findings");
    for (at, f) in findings.iter().take(MOST_FINDINGS).enumerate() {
        let gain = f.gain.as_ref().map_or(String::new(), |g| {
            format!(", {:.1}× faster ({:.1} to {:.1})", g.speedup, g.low, g.high)
        });
        let facts = format!("{}, confidence {:.2}{gain}", f.severity, f.confidence);
        let colour = if f.severity == "critical" {
            "1;31"
        } else {
            "1"
        };
        let head = format!("{}. {}", at + 1, line(&f.title));
        if 4 + head.chars().count() + facts.chars().count() <= style.width {
            let head = style.paint(colour, &head);
            let _ = writeln!(out, "  {head}  {}", style.dim(&facts));
        } else {
            let mark = format!("  {}. ", at + 1);
            item(out, style, &mark, &line(&f.title));
            let _ = writeln!(out, "     {}", style.dim(&facts));
        }
        item(out, style, "     at ", &line(&f.place));
        for evidence in &f.evidence {
            item(out, style, "     - ", &line(&evidence.text));
        }
        item(out, style, "     → ", &line(&f.suggestion));
    }
    if findings.len() > MOST_FINDINGS {
        let _ = writeln!(out, "  and {} more: --json", findings.len() - MOST_FINDINGS);
    }
}

fn steps(out: &mut String, steps: &[Step], style: Style) {
    if steps.is_empty() {
        return;
    }
    let name = style.width.saturating_sub(2 + 9 + 5 * 10).max(12);
    let head = format!(
        "{:name$} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "Steps", "count", "p50", "p90", "p99", "total", "native"
    );
    title(out, style, &head);
    for s in steps.iter().take(MOST_STEPS) {
        let label = match s.kind.as_str() {
            "function" => line(&s.scope),
            kind => format!("{} ({kind})", line(&s.scope)),
        };
        let ns = |ns: i64| time(ns as f64);
        let _ = writeln!(
            out,
            "  {:width$} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9}",
            cut(&label, name - 2),
            count(s.count as f64),
            ns(s.dur_ns_p50),
            ns(s.dur_ns_p90),
            ns(s.dur_ns_p99),
            ns(s.total_ns),
            match s.native_ns {
                0 => "-".to_owned(),
                native_ns => share(native_ns as f64 / s.total_ns.max(1) as f64),
            },
            width = name - 2,
        );
    }
}

fn functions(out: &mut String, functions: &[Function], style: Style) {
    if functions.is_empty() {
        return;
    }
    let name = style.width.saturating_sub(2 + 10 + 3 * 10).max(12);
    // samples of stacks do not tell native code from Python, and have an error
    let sampled = functions.iter().all(|f| f.calls_error.is_none());
    let [title_text, first, second, third] = match sampled {
        true => [
            "Functions by own time, estimated",
            "own",
            "total",
            "± (95 %)",
        ],
        false => ["Functions by own time", "Python", "native", "total"],
    };
    let head = format!(
        "{title_text:name$} {:>9} {first:>9} {second:>9} {third:>9}",
        "calls"
    );
    title(out, style, &head);
    for f in functions.iter().take(MOST_FUNCTIONS) {
        let native_ns = if f.kind == "native" {
            f.self_ns
        } else {
            f.native_ns
        };
        let python_ns = (f.self_ns - native_ns).max(0);
        let place = match (&f.file, f.line) {
            (Some(file), Some(at)) => {
                let file = file.rsplit('/').next().unwrap_or(file);
                format!(" {}:{at}", line(file))
            }
            // Of samples the line of a function is not known.
            (Some(file), None) if f.kind == "python" => {
                format!(" {}", line(file.rsplit('/').next().unwrap_or(file)))
            }
            (Some(file), None) => {
                let library = file.split('/').next().unwrap_or(file);
                format!(" [{}]", line(library))
            }
            _ => String::new(),
        };
        let ns = |ns: i64| {
            if ns == 0 {
                "-".to_owned()
            } else {
                time(ns as f64)
            }
        };
        let about = match f.calls_error {
            None => "≥",
            Some(0) => "",
            Some(_) => "≈",
        };
        let calls = format!("{about}{}", count(f.calls as f64));
        let [first, second, third] = match sampled {
            true => [f.self_ns, f.total_ns, f.error_ns],
            false => [python_ns, native_ns, f.total_ns],
        };
        let _ = writeln!(
            out,
            "  {:width$} {:>9} {:>9} {:>9} {:>9}",
            cut(&format!("{}{place}", line(&f.name)), name - 2),
            calls,
            ns(first),
            ns(second),
            ns(third),
            width = name - 2,
        );
    }
}

fn lines(out: &mut String, lines: &[Line], style: Style) {
    if lines.is_empty() {
        return;
    }
    let name = style.width.saturating_sub(2 + 10 + 2 * 10).max(12);
    let head = format!(
        "{:name$} {:>9} {:>9} {:>9}",
        "Lines by time, calls from them included", "hits", "time", "share"
    );
    title(out, style, &head);
    for l in lines.iter().take(MOST_LINES) {
        let file = l.file.rsplit('/').next().unwrap_or(&l.file);
        let place = format!("{}:{} {}", line(file), l.line, line(&l.function));
        let (least, about) = match l.estimated {
            true => ("≥", "≈"),
            false => ("", ""),
        };
        let _ = writeln!(
            out,
            "  {:width$} {:>9} {:>9} {:>9}",
            cut(&place, name - 2),
            format!("{least}{}", count(l.hits as f64)),
            format!("{about}{}", time(l.time_ns as f64)),
            share(l.share),
            width = name - 2,
        );
    }
}

fn recording(out: &mut String, a: &Analysis, style: Style) {
    if !a.caveats.is_empty() {
        title(out, style, "Caveats");
        for caveat in a.caveats.iter().take(MOST_CAVEATS) {
            item(out, style, "  - ", &line(caveat));
        }
        if a.caveats.len() > MOST_CAVEATS {
            let _ = writeln!(out, "  and {} more: --json", a.caveats.len() - MOST_CAVEATS);
        }
    }
    let r = &a.recording;
    let cost = r.cpu_ns.map_or(String::new(), |ns| {
        let part = ns as f64 / a.span_ns.max(1) as f64;
        format!(
            ", isc-record itself {} of CPU ({})",
            time(ns as f64),
            share(part)
        )
    });
    let clocks = &a.facts.get("clock.error_ns").and_then(Value::as_f64);
    let clocks = clocks.map_or(String::new(), |ns| format!(", clocks to ±{}", time(ns)));
    let text = format!(
        "Recorded {} events, {} lost{clocks}{cost}",
        count(r.events as f64),
        count(r.lost as f64)
    );
    let _ = writeln!(out, "\n{}", style.dim(&text));
}

/// At most `width` characters, with a sign where something is missing.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_no_wider_than_the_page_and_marks_stand_once() {
        let mut out = String::new();
        let style = Style::default();
        item(&mut out, style, "   - ", &"word ".repeat(40));
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines.len() > 1 && lines.iter().all(|l| l.chars().count() <= 80));
        assert!(lines[0].starts_with("   - word") && lines[1].starts_with("     word"));
    }
}

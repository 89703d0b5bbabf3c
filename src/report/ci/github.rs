//! Workflow commands of GitHub Actions: a line each, shown at the source they are about.
//!
//! # Source
//! docs.github.com, "Workflow commands for GitHub Actions"; the escapes are those of actions/toolkit,
//! packages/core/src/command.ts.

use std::fmt::Write;

use super::{Found, line, lines};

/// Errors, warnings and notices, then the verdict.
pub(super) fn commands(found: Found) -> String {
    let mut out = String::new();
    for finding in &found.analysis.findings {
        let word = match finding.severity.as_str() {
            "critical" => "error",
            "warning" => "warning",
            _ => "notice",
        };
        let place = found.place(finding).map_or(String::new(), |(file, at)| {
            format!("file={},line={at},", property(&file))
        });
        let title = property(&format!("{}: {}", finding.id, line(&finding.title)));
        let message = data(&lines(finding).join("\n"));
        let _ = writeln!(out, "::{word} {place}title={title}::{message}");
    }
    for outcome in found.failed() {
        let word = data(&line(&outcome.word));
        let _ = writeln!(out, "::error title=--fail-on::{word} holds");
    }
    let verdict = &found.analysis.verdict;
    let summary = data(&line(&verdict.summary));
    let class = property(&line(&verdict.class));
    let confidence = verdict.confidence;
    let _ = writeln!(out, "::notice title={class} ({confidence:.2})::{summary}");
    out
}

/// Text after `::`.
fn data(text: &str) -> String {
    let text = text.replace('%', "%25");
    text.replace('\r', "%0D").replace('\n', "%0A")
}

/// A value between commas, before `::`.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_end_a_command_or_a_property_is_escaped() {
        assert_eq!(data("5 %\r\n::error::x"), "5 %25%0D%0A::error::x");
        assert_eq!(property("a,b: 5 %\n"), "a%2Cb%3A 5 %25%0A");
    }
}

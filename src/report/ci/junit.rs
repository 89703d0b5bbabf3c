//! JUnit XML: a test case for each rule that could be evaluated and each `--fail-on`, a failure for each finding.
//!
//! # Source
//! The format has no standard; this is the part that Jenkins, GitLab and GitHub's actions read alike.

use std::fmt::Write;

use super::{Found, line, lines};
use crate::analyze::Held;

/// The whole document.
pub(super) fn suites(found: Found) -> String {
    let mut cases = String::new();
    let (mut tests, mut failures, mut skipped) = (0, 0, 0);
    let facts = &found.analysis.facts;
    for rule in found.rules.about() {
        if !rule.evaluated(facts) {
            continue;
        }
        let findings = found.analysis.findings.iter();
        let of_rule: Vec<_> = findings.filter(|f| f.id == rule.id).collect();
        tests += 1;
        failures += usize::from(!of_rule.is_empty());
        let mut inside = String::new();
        for finding in of_rule {
            let (title, kind) = (escaped(&line(&finding.title)), escaped(&finding.severity));
            let text = escaped(&lines(finding).join("\n"));
            let _ = writeln!(
                inside,
                "      <failure message=\"{title}\" type=\"{kind}\">{text}</failure>"
            );
        }
        case(&mut cases, "rules", rule.id, &inside);
    }
    for outcome in found.outcomes {
        tests += 1;
        let inside = match &outcome.held {
            Held::No => String::new(),
            Held::Yes => {
                failures += 1;
                "      <failure message=\"the condition holds\" type=\"fail-on\"/>\n".to_owned()
            }
            Held::Absent(_) => {
                skipped += 1;
                let note = escaped(&outcome.note().unwrap_or_default());
                format!("      <skipped message=\"{note}\"/>\n")
            }
        };
        case(&mut cases, "fail-on", &outcome.word, &inside);
    }
    let numbers = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\"");
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites name=\"InferScope\" {numbers}>\n  \
         <testsuite name=\"isc-analyze\" {numbers} skipped=\"{skipped}\">\n\
         {cases}  </testsuite>\n\
         </testsuites>\n"
    )
}

fn case(out: &mut String, class: &str, name: &str, inside: &str) {
    let name = escaped(&line(name));
    let head = format!("    <testcase classname=\"isc-analyze.{class}\" name=\"{name}\"");
    let _ = match inside {
        "" => writeln!(out, "{head}/>"),
        _ => writeln!(out, "{head}>\n{inside}    </testcase>"),
    };
}

/// Text for elements and for attributes in double quotes. What XML 1.0 cannot hold, however written, is shown as `\u{0}`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push('\n'),
            '\u{fffe}' | '\u{ffff}' => out.extend(c.escape_unicode()),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_leaves_its_place() {
        assert_eq!(
            escaped("\"/><x a='1'>&\u{0}\u{ffff}\n]]>"),
            "&quot;/&gt;&lt;x a='1'&gt;&amp;\\u{0}\\u{ffff}\n]]&gt;"
        );
    }
}

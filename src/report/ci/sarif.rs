//! SARIF 2.1.0: rules, and results at the lines they are about, for code scanning.
//!
//! # Source
//! OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0", sections named below.

use serde_json::{Value, json};

use super::{Found, line, lines};

/// The whole log.
pub(super) fn log(found: Found) -> Value {
    let rules = found.rules.about();
    let described = rules.iter().map(|rule| {
        json!({
            "id": rule.id,
            "shortDescription": {"text": text(&rule.title)},
            "fullDescription": {"text": text(&format!("Holds where {}", rule.when))},
            "help": {"text": text(&rule.suggestion)},
            "defaultConfiguration": {"level": level(rule.severity)},
        })
    });
    let described: Vec<Value> = described.collect();
    let results = found.analysis.findings.iter().map(|finding| {
        let mut result = json!({
            "ruleId": finding.id,
            "level": level(&finding.severity),
            "message": {"text": text(&lines(finding).join("\n"))},
            "partialFingerprints": {"inferscope/v1": fingerprint(&finding.id, &finding.place)},
            "properties": {
                "severity": finding.severity,
                "confidence": finding.confidence,
                "gain": finding.gain,
                "where": line(&finding.place),
            },
        });
        if let Some(at) = rules.iter().position(|rule| rule.id == finding.id) {
            result["ruleIndex"] = json!(at);
        }
        if let Some((file, at)) = found.place(finding) {
            result["locations"] = json!([{
                "physicalLocation": {
                    "artifactLocation": {"uri": uri(&file)},
                    "region": {"startLine": at},
                },
            }]);
        }
        result
    });
    let results: Vec<Value> = results.collect();
    let failed = found.failed().map(|outcome| {
        let said = format!("--fail-on {} holds", line(&outcome.word));
        json!({"level": "error", "message": {"text": text(&said)}})
    });
    let failed: Vec<Value> = failed.collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {
                "driver": {
                    "name": "InferScope",
                    "semanticVersion": env!("CARGO_PKG_VERSION"),
                    "rules": described,
                },
            },
            "invocations": [{
                "executionSuccessful": true,
                "exitCode": i32::from(!failed.is_empty()),
                "toolExecutionNotifications": failed,
            }],
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

/// 3.27.10.
fn level(severity: &str) -> &'static str {
    match severity {
        "critical" => "error",
        "warning" => "warning",
        _ => "note",
    }
}

/// A message of plain text: braces are placeholders (3.11.5) and brackets links (3.11.6) unless they are escaped.
fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '{' | '}' => out.extend([c, c]),
            '[' | ']' | '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

/// A file as a URI reference of RFC 3986: from the root of the sources, or absolute (3.4.3).
fn uri(file: &str) -> String {
    let mut out = String::from(if file.starts_with('/') { "file://" } else { "" });
    for byte in file.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(byte.into());
            }
            // A colon too: it would make the first part a scheme.
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The same for the same finding in another run, whatever its numbers are (3.27.17).
fn fingerprint(id: &str, place: &str) -> String {
    let hash = blake3::hash(format!("{id}\0{place}").as_bytes());
    hash.to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_no_links_and_no_placeholders() {
        assert_eq!(text("[x](http://y) {0}"), "\\[x\\](http://y) {{0}}");
    }

    #[test]
    fn files_are_uris() {
        assert_eq!(uri("app/a b.py"), "app/a%20b.py");
        assert_eq!(uri("/srv/ä.py"), "file:///srv/%C3%A4.py");
        assert_eq!(uri("javascript:x"), "javascript%3Ax");
    }
}

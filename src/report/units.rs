//! Numbers and names as people read them.

use serde_json::Value;

/// A time in ns: `1.24 s`, `56.1 ms`, `7.20 µs`, `12 ns`.
pub fn time(ns: f64) -> String {
    let size = ns.abs();
    match size {
        _ if size >= 999.5e6 => format!("{} s", digits(ns / 1e9)),
        _ if size >= 999.5e3 => format!("{} ms", digits(ns / 1e6)),
        _ if size >= 999.5 => format!("{} µs", digits(ns / 1e3)),
        _ => format!("{ns:.0} ns"),
    }
}

/// A number of bytes: `3.50 MiB`.
pub fn bytes(bytes: f64) -> String {
    for (unit, size) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let unit_bytes = (1u64 << size) as f64;
        if bytes.abs() >= unit_bytes {
            return format!("{} {unit}", digits(bytes / unit_bytes));
        }
    }
    format!("{bytes:.0} B")
}

/// A share of one: `12.4 %`.
pub fn share(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A count, its thousands apart: `1 234 567`.
pub fn count(count: f64) -> String {
    if count.fract() != 0.0 {
        return digits(count);
    }
    let plain = format!("{:.0}", count.abs());
    let mut out = String::from(if count < 0.0 { "-" } else { "" });
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// Three significant digits.
fn digits(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// One line of text: control characters, which could drive a terminal or break a table, are shown as
/// `\u{1b}`, and what no screen holds is cut.
pub fn line(text: &str) -> String {
    const LONGEST: usize = 400;
    let mut out = String::with_capacity(text.len().min(LONGEST));
    for (at, c) in text.chars().enumerate() {
        if at == LONGEST {
            out.push('…');
            break;
        }
        // Marks that turn the direction of writing can make a name look like another.
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// A file as people know it: what follows `site-packages/`, the standard library's folder or the folder before
/// the last one, and a library without the tags of its build.
pub fn place(file: &str) -> String {
    let parts: Vec<&str> = file.split('/').collect();
    let library = |part: &str| {
        let version = part.strip_prefix("python");
        version.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let from = parts
        .iter()
        .enumerate()
        .rev()
        .find_map(|(at, part)| match *part {
            "site-packages" | "dist-packages" | "lib-dynload" => Some(at + 1),
            part if library(part) && at > 0 && parts[at - 1].starts_with("lib") => Some(at + 1),
            _ => None,
        });
    let shown = match from {
        Some(from) => parts[from..].join("/"),
        None if file.starts_with('/') && parts.len() > 3 => {
            format!("…/{}", parts[parts.len() - 2..].join("/"))
        }
        None => file.to_owned(),
    };
    let tag = [".cpython-", ".abi3"]
        .iter()
        .find_map(|tag| shown.find(tag));
    line(&match tag {
        Some(at) if shown.ends_with(".so") => format!("{}.so", &shown[..at]),
        _ => shown,
    })
}

/// Any value under its key: the key's ending says the unit.
pub fn value(key: &str, value: &Value) -> String {
    let number = match value {
        Value::Null => return String::new(),
        Value::Bool(true) => return "yes".into(),
        Value::Bool(false) => return "no".into(),
        Value::String(text) => return line(text),
        Value::Number(number) => number.as_f64().unwrap_or(0.0),
        other => return line(&other.to_string()),
    };
    let has = |unit: &str| key.ends_with(unit) || key.contains(&format!("{unit}_"));
    if has("_ns") {
        time(number)
    } else if has("_bytes") || key == "bytes" {
        bytes(number)
    } else if key.ends_with("share") {
        share(number)
    } else if ["pid", "ppid", "tid", "rank", "device", "line"].contains(&key) {
        format!("{number}")
    } else {
        count(number)
    }
}

/// A key as a column's head: `dur_ns_p99` is `dur p99`.
pub fn head(key: &str) -> String {
    let mut words: Vec<&str> = key.split(['_', '.']).collect();
    words.retain(|word| !matches!(*word, "ns" | "bytes"));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        assert_eq!(time(12.0), "12 ns");
        assert_eq!(time(7204.0), "7.20 µs");
        assert_eq!(time(56_130_000.0), "56.1 ms");
        assert_eq!(time(1.2396e9), "1.24 s");
        assert_eq!(time(123.4e9), "123 s");
        assert_eq!(bytes(3.5 * 1024.0 * 1024.0), "3.50 MiB");
        assert_eq!(bytes(12.0), "12 B");
        assert_eq!(count(1234567.0), "1\u{202f}234\u{202f}567");
        assert_eq!(count(-12.5), "-12.5");
        assert_eq!(share(0.1239), "12.4 %");
    }

    #[test]
    fn a_keys_ending_says_the_unit() {
        assert_eq!(value("dur_ns_p99", &json!(1500)), "1.50 µs");
        assert_eq!(value("rss_bytes", &json!(2048)), "2.00 KiB");
        assert_eq!(value("cpu_share", &json!(0.5)), "50.0 %");
        assert_eq!(value("pid", &json!(12345)), "12345");
        assert_eq!(value("covered", &json!(true)), "yes");
        assert_eq!(value("reason", &json!(null)), "");
        assert_eq!(head("dur_ns_p99"), "dur p99");
    }

    #[test]
    fn a_file_is_named_by_what_tells_it_apart() {
        for (file, shown) in [
            (
                "/v/lib/python3.11/site-packages/numpy/_core/_methods.py",
                "numpy/_core/_methods.py",
            ),
            ("/usr/lib/python3.12/threading.py", "threading.py"),
            (
                "numpy/_core/_multiarray_umath.cpython-311-x86_64-linux-gnu.so",
                "numpy/_core/_multiarray_umath.so",
            ),
            ("/home/me/python3/app/serve.py", "…/app/serve.py"),
            ("/app/serve.py", "/app/serve.py"),
            ("examples/llm_decode.py", "examples/llm_decode.py"),
            (
                "<frozen importlib._bootstrap>",
                "<frozen importlib._bootstrap>",
            ),
            ("python", "python"),
            ("", ""),
        ] {
            assert_eq!(place(file), shown);
        }
    }

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        assert_eq!(line("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(line(&"x".repeat(500)).chars().count(), 401);
    }
}

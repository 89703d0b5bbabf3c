//! Times as people write them.

use crate::import::decimal;

/// A time in ns, of what people write: `250ms`, `1.5s`, `2m`; a bare number is seconds. Digit by digit.
///
/// # Errors
/// What is wrong, for people.
pub fn time(text: &str) -> std::result::Result<i64, String> {
    let wrong = || format!("{text:?} is no time; write 250ms, 1.5s, 2m or a number of seconds");
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let scale = match unit.trim() {
        "" | "s" => 1_000_000_000,
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return Err(wrong()),
    };
    decimal::scaled(number.as_bytes(), scale).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact() {
        for (text, ns) in [
            ("1.5s", 1_500_000_000),
            ("2", 2_000_000_000),
            ("0.000000001", 1),
            ("123456789.123456789", 123_456_789_123_456_789),
            ("7ns", 7),
            ("250 ms", 250_000_000),
            ("2m", 120_000_000_000),
            ("0.1us", 100),
        ] {
            assert_eq!(time(text), Ok(ns), "{text}");
        }
        for text in ["", "s", "-1s", "1x", "1.2.3", "99999999999h"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}

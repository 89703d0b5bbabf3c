//! The double's truth, read back: flat JSON of numbers, one text and two triples.

use std::collections::HashMap;
use std::path::Path;

/// One line; the keys are the double's.
pub struct Line(String);

/// The lines of a truth file.
pub fn read(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).expect("the double's truth");
    text.lines().map(|line| Line(line.to_owned())).collect()
}

impl Line {
    /// What follows a key.
    fn after(&self, key: &str) -> Option<&str> {
        let key = format!("\"{key}\":");
        self.0.find(&key).map(|at| &self.0[at + key.len()..])
    }

    /// A number, or with `.0` to `.2` after the key one of a triple.
    pub fn number(&self, key: &str) -> i64 {
        let (key, at) = key.split_once('.').unwrap_or((key, "0"));
        let rest = self
            .after(key)
            .unwrap_or_else(|| panic!("{key} in {}", self.0));
        let rest = rest.trim_start_matches('[');
        let number = rest
            .split([',', '}', ']'])
            .nth(at.parse().unwrap())
            .unwrap();
        number
            .parse::<u64>()
            .map_or_else(|_| number.parse().unwrap(), |number| number as i64)
    }

    pub fn text(&self, key: &str) -> &str {
        self.after(key)
            .and_then(|rest| rest[1..].split('"').next())
            .unwrap_or_default()
    }

    /// Whether a mark is there.
    pub fn has(&self, mark: &str) -> bool {
        self.after(mark)
            .is_some_and(|rest| rest.starts_with("true"))
    }

    /// Whether its record is missing from what was handed over.
    pub fn is_marked(&self) -> bool {
        ["dropped", "disabled", "stolen", "pending"]
            .iter()
            .any(|mark| self.has(mark))
    }

    pub fn is_delivered(&self) -> bool {
        !self.is_marked()
    }

    pub fn is_device_work(&self) -> bool {
        matches!(self.text("kind"), "kernel" | "memcpy" | "peer" | "memset")
    }
}

/// Work starts a latency after its call has ended, and streams run in order without gaps that have no cause.
pub fn assert_causal(truth: &[Line], latency_ns: i64) {
    let driver = truth.iter().filter(|line| line.text("kind") == "driver");
    let launched: HashMap<i64, i64> = driver
        .map(|line| (line.number("correlation"), line.number("end_ns")))
        .collect();
    let mut work: Vec<&Line> = truth.iter().filter(|line| line.is_device_work()).collect();
    work.sort_by_key(|line| (line.number("start_ns"), line.number("end_ns")));
    let mut free: HashMap<(i64, i64), i64> = HashMap::new();
    for line in work {
        let ready_ns = launched[&line.number("correlation")] + latency_ns;
        let stream = (line.number("context"), line.number("stream"));
        let free_ns = free.insert(stream, line.number("end_ns")).unwrap_or(0);
        assert_eq!(line.number("start_ns"), ready_ns.max(free_ns), "{}", line.0);
        assert!(line.number("end_ns") > line.number("start_ns"));
    }
}

//! Time by line, of the functions that the user named.
//!
//! The probe counts; here the counts are added up. Where the budget switched a function's lines off for a while they are a
//! sample: times are scaled so that they add up to the function's total. Hits are not; how many there were depends on what
//! each cost, which is not known well enough.

use std::collections::BTreeMap;

use super::Line;
use super::measure::{Measures, json};
use crate::trace::{Event, Kind, Names};

/// Lines listed; the rest is below what a reader looks at.
const MOST: usize = 2000;

/// What was counted, by function, file and line.
#[derive(Debug, Default)]
pub struct Counted(BTreeMap<(String, String), Function>);

#[derive(Debug, Default)]
struct Function {
    shed: bool,
    /// Hits, and time in ns.
    lines: BTreeMap<u32, (u64, i64)>,
}

impl Counted {
    /// Takes one `line.time_ns` row.
    pub fn add(&mut self, event: &Event, names: &Names) {
        let args = json(event.args, names);
        let function = args["function"].as_str().unwrap_or("").to_owned();
        let file = event.file.map_or("", |file| names.text(file)).to_owned();
        let function = self.0.entry((function, file)).or_default();
        function.shed |= args["shed"].as_bool().unwrap_or(false);
        let line = function.lines.entry(event.line.unwrap_or(0)).or_default();
        line.0 += args["hits"].as_u64().unwrap_or(0);
        line.1 += event.value.unwrap_or(0.0) as i64;
    }
}

/// The lines, those with most time first.
pub fn table(m: &Measures) -> Vec<Line> {
    let mut all = Vec::new();
    for ((name, file), function) in &m.lines.0 {
        let seen_ns: i64 = function.lines.values().map(|(_, ns)| ns).sum();
        let whole_ns: i64 = (m.functions.iter())
            .filter(|(key, _)| key.kind == Kind::Python && m.names.text(key.name) == name)
            .filter(|(key, _)| key.file.map_or("", |file| m.names.text(file)) == file)
            .map(|(_, sums)| sums.total_ns)
            .sum();
        let scale = match function.shed && whole_ns > seen_ns && seen_ns > 0 {
            true => whole_ns as f64 / seen_ns as f64,
            false => 1.0,
        };
        all.extend(function.lines.iter().map(|(&line, &(hits, time_ns))| Line {
            file: file.clone(),
            line,
            function: name.clone(),
            hits,
            time_ns: (time_ns as f64 * scale).round() as i64,
            share: time_ns as f64 / seen_ns.max(1) as f64,
            estimated: function.shed,
        }));
    }
    // stable, so lines of equal time stay in the order of function, file and line
    all.sort_by_key(|line| std::cmp::Reverse(line.time_ns));
    all.truncate(MOST);
    all
}

#[cfg(test)]
mod tests {
    use crate::analyze::measure::measure;
    use crate::trace::provenance::Stage;
    use crate::trace::text::reader;

    #[test]
    fn counts_add_up_and_a_sample_is_scaled_to_the_functions_total() {
        let text = r#"
track    kind     start  end   name          file  value    line  args
py:main  python   0ms    90ms  f             a.py  -        1     -
py:main  python   1ms    9ms   g             a.py  -        9     -
py:main  counter  10ms   -     line.time_ns  a.py  1000000  2     {"function":"f","hits":3}
py:main  counter  20ms   -     line.time_ns  a.py  2000000  3     {"function":"f","hits":1,"shed":true}
py:main  counter  30ms   -     line.time_ns  a.py  6000000  2     {"function":"f","hits":5,"shed":true}
py:main  counter  30ms   -     line.time_ns  a.py  7000000  10    {"function":"g","hits":2}
"#;
        let m = measure(
            reader(text, Stage::Timeline).unwrap(),
            &Default::default(),
            &Default::default(),
        )
        .unwrap();
        let lines = super::table(&m);
        let got: Vec<_> = (lines.iter())
            .map(|l| {
                (
                    l.function.as_str(),
                    l.line,
                    l.hits,
                    l.time_ns / 1_000_000,
                    l.estimated,
                )
            })
            .collect();
        assert_eq!(
            got,
            [
                ("f", 2, 8, 70, true),
                ("f", 3, 1, 20, true),
                ("g", 10, 2, 7, false)
            ]
        );
    }
}

//! A trace as lines of text, both ways, so that tests and goldens can be read and reviewed.
//!
//! The first line names the columns, the others give one row each:
//!
//! ```text
//! track       kind    start  end   name        correlation  args
//! py:main     launch  0us    8us   cudaLaunch  1
//! cuda:0/7    kernel  9us    10us  gemm        1            {"grid":[1,1,1]}
//! py:42@1     mark    3us    -     "a name"
//! ```
//!
//! `py:THREAD` is a thread: `main`, a tid, or a word that gets a tid of its own; `cuda:DEVICE/STREAM` is a
//! stream. `@N` is the process, 0 without it. Times have a unit, or are ns. `-`, or nothing at the line's end, is
//! null. What holds spaces is quoted as JSON. Without a name column a row is named after its kind.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use super::io::{Reader, Writer};
use super::provenance::{Provenance, Stage, Step};
use super::schema::{Event, Kind, Names};
use crate::error::{Error, Result};

/// Pid of process 0; the others count up from it, unless a `pid` column says otherwise.
const FIRST_PID: u32 = 1000;

/// Tid of the first thread that is a word.
const FIRST_TID: u64 = 5000;

const COLUMNS: [&str; 17] = [
    "track",
    "kind",
    "start",
    "end",
    "name",
    "file",
    "line",
    "pid",
    "tid",
    "correlation",
    "flow",
    "parent",
    "cause",
    "bytes",
    "value",
    "args",
    "dur",
];

/// Reads rows.
///
/// # Errors
/// A line that is not as described above, by its number.
pub fn parse(text: &str) -> Result<(Vec<Event>, Names)> {
    let mut names = Names::default();
    let mut events = Vec::new();
    let mut header: Option<Vec<String>> = None;
    let mut threads = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: String| Error::invalid("", format!("line {}: {what}", number + 1));
        let cells = split(line).map_err(wrong)?;
        let Some(columns) = &header else {
            if let Some(cell) = cells.iter().find(|c| !COLUMNS.contains(&c.as_str())) {
                return Err(wrong(format!("no column is called {cell:?}")));
            }
            header = Some(cells);
            continue;
        };
        if cells.len() > columns.len() {
            return Err(wrong(format!("more cells than {} columns", columns.len())));
        }
        let row: HashMap<&str, &str> = columns
            .iter()
            .zip(&cells)
            .filter(|(_, cell)| *cell != "-")
            .map(|(column, cell)| (column.as_str(), cell.as_str()))
            .collect();
        events.push(event(&row, &mut names, &mut threads).map_err(wrong)?);
    }
    Ok((events, names))
}

/// A trace of these rows, as if it had been read from a file.
///
/// # Errors
/// As [`parse`]; a temporary file that cannot be written.
pub fn reader(text: &str, stage: Stage) -> Result<Reader> {
    let (events, names) = parse(text)?;
    let path = Path::new("text");
    let file = tempfile::tempfile().map_err(Error::io("create", path))?;
    let again = file.try_clone().map_err(Error::io("open", path))?;
    let mut provenance = Provenance::raw(Step::new("text", vec![], vec![]));
    provenance.stage = stage;
    let mut writer = Writer::to_file(file, path, &provenance)?;
    for event in &events {
        writer.push(event, &names)?;
    }
    writer.finish()?;
    Reader::from_file(again, path)
}

fn event(
    row: &HashMap<&str, &str>,
    names: &mut Names,
    threads: &mut HashMap<(u32, String), u64>,
) -> std::result::Result<Event, String> {
    let word = |column| row.get(column).copied();
    let kind = word("kind").ok_or("no kind")?;
    let kind: Kind = kind
        .parse()
        .map_err(|()| format!("unknown kind {kind:?}"))?;
    let start = time(word("start").ok_or("no start")?)?;
    let track = word("track").unwrap_or("py:main");
    let (place, process) = match track.rsplit_once('@') {
        Some((place, process)) => (place, number(process)?),
        None => (track, 0),
    };
    let name = names.sym(word("name").unwrap_or(kind.as_str()));
    let pid = match word("pid") {
        Some(pid) => number(pid)?,
        None => FIRST_PID.saturating_add(process),
    };
    let mut event = Event::new(kind, name, start, process, pid, 0);
    match place.split_once(':') {
        Some(("py", "main")) => event.tid = u64::from(pid),
        Some(("py", thread)) => {
            event.tid = thread.parse().unwrap_or_else(|_| {
                let next = FIRST_TID + threads.len() as u64;
                *threads.entry((process, thread.to_owned())).or_insert(next)
            });
        }
        Some(("cuda", place)) => {
            let (device, stream) = match place.split_once('/') {
                Some((device, stream)) => (device, Some(number(stream)?)),
                None => (place, None),
            };
            (event.device, event.stream) = (Some(number(device)?), stream);
        }
        _ => {
            return Err(format!(
                "{track:?} is neither py:THREAD nor cuda:DEVICE/STREAM"
            ));
        }
    }
    if let Some(tid) = word("tid") {
        event.tid = number(tid)?;
    }
    event.dur_ns = match (word("end"), word("dur")) {
        (Some(end), _) => Some(time(end)?.saturating_sub(start)),
        (None, Some(dur)) => Some(time(dur)?),
        (None, None) => None,
    };
    event.file = word("file").map(|file| names.sym(file));
    event.line = word("line").map(number).transpose()?;
    event.correlation = word("correlation").map(number).transpose()?;
    event.flow = word("flow").map(number).transpose()?;
    event.parent = word("parent").map(number).transpose()?;
    event.cause = word("cause").map(number).transpose()?;
    event.bytes = word("bytes").map(number).transpose()?;
    event.value = word("value").map(number).transpose()?;
    event.args = word("args").map(|args| names.sym(args));
    Ok(event)
}

/// The cells of a line: words, JSON strings, JSON objects.
fn split(line: &str) -> std::result::Result<Vec<String>, String> {
    let mut cells = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let size = if rest.starts_with('"') || rest.starts_with('{') {
            let mut values = serde_json::Deserializer::from_str(rest).into_iter();
            let value: serde_json::Value = values
                .next()
                .ok_or("an empty cell")?
                .map_err(|error| format!("{error}"))?;
            let size = values.byte_offset();
            cells.push(match value {
                serde_json::Value::String(text) => text,
                _ => rest[..size].to_owned(),
            });
            size
        } else {
            let size = rest.find(char::is_whitespace).unwrap_or(rest.len());
            cells.push(rest[..size].to_owned());
            size
        };
        rest = rest[size..].trim_start();
    }
    Ok(cells)
}

fn number<T: std::str::FromStr>(word: &str) -> std::result::Result<T, String> {
    word.parse()
        .map_err(|_| format!("{word:?} is no number of its column"))
}

/// A time in ns: `8us`, `1.5ms`, `-3`.
fn time(word: &str) -> std::result::Result<i64, String> {
    let unit = word
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(word.len());
    let (digits, unit) = word.split_at(unit);
    let wrong = || format!("{word:?} is no time");
    let scale = match unit {
        "" | "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = digits.parse::<i64>() {
        return whole.checked_mul(scale).ok_or_else(wrong);
    }
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    Ok((number * scale as f64).round() as i64)
}

/// Writes rows, with the columns that some row has a value in.
pub fn print(events: &[Event], names: &Names) -> String {
    let rows: Vec<[String; 16]> = events.iter().map(|event| cells(event, names)).collect();
    let used = |column: usize| column < 3 || rows.iter().any(|row| row[column] != "-");
    let columns: Vec<usize> = (0..16).filter(|&column| used(column)).collect();
    let header: [String; 16] = std::array::from_fn(|column| COLUMNS[column].to_owned());
    let lines = || std::iter::once(&header).chain(&rows);
    let width = |column: usize| lines().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = columns.iter().map(|&c| width(c).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in lines() {
        let mut line = String::new();
        for (&column, width) in columns.iter().zip(&widths) {
            let _ = write!(line, "{:width$}  ", row[column]);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn cells(event: &Event, names: &Names) -> [String; 16] {
    fn or_null<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(|| "-".into(), |value| value.to_string())
    }
    let usual_pid = FIRST_PID.saturating_add(event.process);
    let mut tid = None;
    let mut track = match event.device {
        Some(device) => {
            tid = (event.tid != 0).then_some(event.tid);
            match event.stream {
                Some(stream) => format!("cuda:{device}/{stream}"),
                None => format!("cuda:{device}"),
            }
        }
        None if event.tid == u64::from(event.pid) => "py:main".into(),
        None => format!("py:{}", event.tid),
    };
    if event.process > 0 {
        let _ = write!(track, "@{}", event.process);
    }
    [
        track,
        event.kind.to_string(),
        print_time(event.start_ns),
        or_null(event.dur_ns.map(|_| print_time(event.end_ns()))),
        quoted(names.text(event.name)),
        or_null(event.file.map(|file| quoted(names.text(file)))),
        or_null(event.line),
        or_null((event.pid != usual_pid).then_some(event.pid)),
        or_null(tid),
        or_null(event.correlation),
        or_null(event.flow),
        or_null(event.parent),
        or_null(event.cause),
        or_null(event.bytes),
        or_null(event.value),
        or_null(event.args.map(|args| names.text(args))),
    ]
}

/// As it is, or as a JSON string where it would not come back as it is.
fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text != "-"
        && !text.starts_with(['"', '{', '#'])
        && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    match plain {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    }
}

/// In the largest unit that needs no fraction.
fn print_time(ns: i64) -> String {
    match ns {
        0 => "0us".into(),
        _ if ns % 1_000_000 == 0 => format!("{}ms", ns / 1_000_000),
        _ if ns % 1_000 == 0 => format!("{}us", ns / 1_000),
        _ => format!("{ns}ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
track       kind    start   end   name       file  line  correlation  flow  value  args
py:main     launch  0us     8us   launch     -     -     1            -     -      -
cuda:0/7@1  kernel  9001ns  10us  gemm       -     -     1            -     -      -
py:42@1     mark    3us     -     \"a  name\"  a.py  7     -            9     0.5    {\"n\": \"x y\"}
";

    #[test]
    fn text_comes_back_as_it_was() {
        let (events, names) = parse(TEXT).unwrap();
        assert_eq!(print(&events, &names), TEXT);
        assert_eq!(events[0].dur_ns, Some(8000));
        assert_eq!((events[1].device, events[1].stream), (Some(0), Some(7)));
        assert_eq!((events[2].process, events[2].tid), (1, 42));
    }

    #[test]
    fn a_line_may_be_short_indented_and_without_a_name() {
        let (events, names) =
            parse("\n  track kind start end flow\n  py:w python 1.5us 2us\n").unwrap();
        assert_eq!((events[0].start_ns, events[0].dur_ns), (1500, Some(500)));
        assert_eq!(names.text(events[0].name), "python");
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number() {
        for (text, what) in [
            ("track kin", "line 1: no column is called \"kin\""),
            (
                "track kind start\npy:main fork 1",
                "line 2: unknown kind \"fork\"",
            ),
            (
                "track kind start\npy:main mark 1h",
                "line 2: \"1h\" is no time",
            ),
            ("kind start\nmark 1 2", "line 2: more cells than 2 columns"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), what);
        }
    }
}

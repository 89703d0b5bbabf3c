//! The flight recorder: the last rows of a run, in chunks on disk, of which the oldest go as new ones come.
//!
//! A window is whole chunks, so it is up to an eighth longer than was asked. Rows that begin before its edge are cut
//! there: a trace of the last minute of a day is a minute long.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::cli::{Sink, Source};
use crate::error::Result;
use crate::trace::provenance::{Provenance, Step};
use crate::trace::{Event, Kind, Names, Reader, Writer};

/// Chunks of one window.
const CHUNKS: i64 = 8;
/// A chunk's file is called after its number and its start.
const PREFIX: &str = "window-";
/// The shortest chunk: each is a file.
const LEAST_CHUNK_NS: i64 = 100_000_000;

/// The rows of the last `--last`, and what was true when they began.
#[derive(Debug)]
pub struct Window<Past> {
    folder: PathBuf,
    length_ns: i64,
    finished: VecDeque<Chunk<Past>>,
    open: Option<(Chunk<Past>, Writer)>,
    next: u64,
    /// The last clock row of each process: without one its rows have no place in time.
    clocks: BTreeMap<u32, (Event, String, String)>,
}

#[derive(Debug)]
struct Chunk<Past> {
    path: PathBuf,
    start_ns: i64,
    past: Past,
}

impl<Past: Clone> Window<Past> {
    /// An empty window of `length`, in `folder`, from `now_ns` on; `past` is what was so then.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn create(
        folder: &Path,
        length: Duration,
        now_ns: i64,
        past: Past,
    ) -> Result<Window<Past>> {
        let mut window = Window {
            folder: folder.to_owned(),
            length_ns: i64::try_from(length.as_nanos()).unwrap_or(i64::MAX),
            finished: VecDeque::new(),
            open: None,
            next: 0,
            clocks: BTreeMap::new(),
        };
        window.begin(now_ns, past)?;
        Ok(window)
    }

    /// Takes a row.
    ///
    /// # Errors
    /// A full disk.
    pub fn push(&mut self, event: &Event, names: &Names) -> Result<()> {
        if event.kind == Kind::Clock {
            let text = |sym| names.text(sym).to_owned();
            let kept = (
                *event,
                text(event.name),
                event.args.map_or_else(String::new, text),
            );
            self.clocks.insert(event.process, kept);
        }
        match &mut self.open {
            Some((_, writer)) => writer.push(event, names),
            None => Ok(()),
        }
    }

    /// Whether it is time for [`Window::turn`].
    pub fn is_due(&self, now_ns: i64) -> bool {
        let each_ns = (self.length_ns / CHUNKS).max(LEAST_CHUNK_NS);
        let since = |(chunk, _): &(Chunk<Past>, Writer)| now_ns - chunk.start_ns;
        self.open.as_ref().is_none_or(|open| since(open) >= each_ns)
    }

    /// Ends the chunk and begins the next; what is older than the window goes.
    ///
    /// # Errors
    /// A full disk.
    pub fn turn(&mut self, now_ns: i64, past: Past) -> Result<()> {
        if let Some((chunk, writer)) = self.open.take() {
            writer.finish()?;
            self.finished.push_back(chunk);
        }
        let edge_ns = now_ns.saturating_sub(self.length_ns);
        // a chunk ends where the next one begins
        while self
            .finished
            .get(1)
            .is_some_and(|next| next.start_ns <= edge_ns)
        {
            if let Some(chunk) = self.finished.pop_front() {
                let _ = fs::remove_file(&chunk.path); // the folder goes with the run
            }
        }
        self.begin(now_ns, past)
    }

    fn begin(&mut self, start_ns: i64, past: Past) -> Result<()> {
        let name = format!("{PREFIX}{}-{start_ns}.parquet", self.next);
        let path = self.folder.join(name);
        self.next += 1;
        let provenance = Provenance::raw(Step::new("isc-record", vec![], vec![]));
        let mut writer = Writer::create(&Sink::File(path.clone()), &provenance)?;
        let mut names = Names::default();
        for (event, name, args) in self.clocks.values() {
            let mut event = *event;
            event.name = names.sym(name);
            event.args = Some(names.sym(args));
            writer.push(&event, &names)?;
        }
        let chunk = Chunk {
            path,
            start_ns,
            past,
        };
        self.open = Some((chunk, writer));
        Ok(())
    }

    /// How many chunks were finished so far, with those that are gone.
    pub fn chunks(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// Where the window begins, in CLOCK_MONOTONIC ns, and what was so then. After [`Window::turn`].
    pub fn edge(&self) -> Option<(i64, &Past)> {
        let first = self.finished.front();
        first.map(|chunk| (chunk.start_ns, &chunk.past))
    }

    /// Writes all rows of finished chunks, cut at the window's edge and then changed. After [`Window::turn`].
    ///
    /// # Errors
    /// A chunk that cannot be read, a trace that cannot be written.
    pub fn copy(&self, to: &mut Writer, change: impl Fn(&mut Event, &Names)) -> Result<u64> {
        let Some((edge_ns, _)) = self.edge() else {
            return Ok(0);
        };
        let mut rows = 0;
        for chunk in &self.finished {
            rows += copy(&chunk.path, edge_ns, &change, to)?;
        }
        Ok(rows)
    }
}

/// Writes the first `chunks` chunks that a dead recorder left in `folder`, from the edge of the oldest on; where that
/// is. `None`: there are none.
///
/// # Errors
/// As [`Window::copy`].
pub fn recover(folder: &Path, chunks: u64, to: &mut Writer) -> Result<Option<(i64, u64)>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let words = name.to_str().and_then(|name| {
            let (number, start_ns) = name.strip_prefix(PREFIX)?.split_once('-')?;
            let start_ns = start_ns.strip_suffix(".parquet")?;
            Some((number.parse::<u64>().ok()?, start_ns.parse::<i64>().ok()?))
        });
        if let Some((number, start_ns)) = words
            && number < chunks
        {
            found.insert(number, (start_ns, entry.path()));
        }
    }
    let Some(&(edge_ns, _)) = found.values().next() else {
        return Ok(None);
    };
    let mut rows = 0;
    for (_, path) in found.values() {
        rows += copy(path, edge_ns, |_: &mut Event, _: &Names| {}, to)?;
    }
    Ok(Some((edge_ns, rows)))
}

fn copy(
    path: &Path,
    edge_ns: i64,
    change: impl Fn(&mut Event, &Names),
    to: &mut Writer,
) -> Result<u64> {
    let mut reader = Reader::open(&Source::from(path))?;
    let (mut names, mut events) = (Names::default(), Vec::new());
    let mut rows = 0;
    while reader.next_batch(&mut names, &mut events)? {
        for event in events.drain(..) {
            if let Some(mut event) = cut(event, edge_ns, &mut names) {
                change(&mut event, &names);
                to.push(&event, &names)?;
                rows += 1;
            }
        }
    }
    Ok(rows)
}

/// The part of a row from `edge_ns` on; `None` if there is none. A clock reading stays: it holds for later too.
pub fn cut(mut event: Event, edge_ns: i64, names: &mut Names) -> Option<Event> {
    if event.kind == Kind::Clock || event.start_ns >= edge_ns {
        return Some(event);
    }
    if event.kind == Kind::Process && event.dur_ns.is_none() {
        event.start_ns = edge_ns; // how long it was is not known, but that it was
        return Some(event);
    }
    let dur_ns = event.dur_ns?;
    let left_ns = event
        .start_ns
        .saturating_add(dur_ns)
        .saturating_sub(edge_ns);
    if left_ns <= 0 {
        return None;
    }
    let part = left_ns as f64 / dur_ns as f64;
    event.start_ns = edge_ns;
    event.dur_ns = Some(left_ns);
    let mut args = match event
        .args
        .map(|args| serde_json::from_str(names.text(args)))
    {
        Some(Ok(Value::Object(args))) => args,
        _ => serde_json::Map::new(),
    };
    match event.kind {
        Kind::Process | Kind::Thread => {}
        // sums over the row's time
        Kind::Wait | Kind::Throttled => {
            event.value = event.value.map(|value| (value * part).round());
            for (_, value) in args.iter_mut() {
                if let Some(number) = value.as_f64() {
                    *value = ((number * part).round() as i64).into();
                }
            }
        }
        _ => {
            args.insert("cut".into(), true.into());
        }
    }
    event.args = (!args.is_empty()).then(|| names.sym(&Value::Object(args).to_string()));
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;

    fn span(names: &mut Names, kind: Kind, name: &str, start_ns: i64, dur_ns: i64) -> Event {
        let mut event = Event::new(kind, names.sym(name), start_ns, 0, 1, 1);
        event.dur_ns = Some(dur_ns);
        event
    }

    #[test]
    fn rows_are_cut_at_the_edge() {
        let mut names = Names::default();
        let before = span(&mut names, Kind::Python, "f", 0, 5);
        assert_eq!(cut(before, 10, &mut names), None);
        let over = span(&mut names, Kind::Python, "f", 4, 16);
        let cut_over = cut(over, 10, &mut names).unwrap();
        assert_eq!((cut_over.start_ns, cut_over.dur_ns), (10, Some(10)));
        assert_eq!(names.text(cut_over.args.unwrap()), r#"{"cut":true}"#);
        let mut wait = span(&mut names, Kind::Wait, "blocked", 0, 20);
        wait.value = Some(8.0);
        assert_eq!(cut(wait, 10, &mut names).unwrap().value, Some(4.0));
        let instant = Event::new(Kind::Mark, wait.name, 9, 0, 1, 1);
        assert_eq!(cut(instant, 10, &mut names), None);
        let process = Event::new(Kind::Process, wait.name, 9, 0, 1, 1);
        assert_eq!(cut(process, 10, &mut names).unwrap().start_ns, 10);
        let clock = Event::new(Kind::Clock, wait.name, 9, 0, 1, 1);
        assert_eq!(cut(clock, 10, &mut names), Some(clock));
    }

    #[test]
    fn old_chunks_go_and_the_window_is_as_long_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let mut names = Names::default();
        let length = Duration::from_secs(8);
        let mut window = Window::create(folder.path(), length, 0, 0).unwrap();
        let mut clock = Event::new(Kind::Clock, names.sym("tsc"), 0, 0, 1, 1);
        clock.args = Some(names.sym(r#"{"monotonic_ns":0}"#));
        window.push(&clock, &names).unwrap();
        for second in 0..100 {
            let now_ns = (second + 1) * S;
            let name = format!("f{second}");
            let event = span(&mut names, Kind::Python, &name, second * S, S);
            window.push(&event, &names).unwrap();
            assert!(window.is_due(now_ns) && !window.is_due(now_ns - 1));
            window.turn(now_ns, second + 1).unwrap();
        }
        let files = fs::read_dir(&folder).unwrap().flatten();
        // and one that is being written has another name
        let finished = files.filter(|file| file.path().extension().is_some_and(|e| e == "parquet"));
        assert_eq!(finished.count(), 8);
        assert_eq!(window.edge(), Some((92 * S, &92)));
        let path = folder.path().join("out.parquet");
        let sink = Sink::from(path.as_path());
        let provenance = Provenance::raw(Step::new("test", vec![], vec![]));
        let mut writer = Writer::create(&sink, &provenance).unwrap();
        window.copy(&mut writer, |_, _| {}).unwrap();
        writer.finish().unwrap();
        let mut reader = Reader::open(&Source::from(path.as_path())).unwrap();
        let (mut names, mut events) = (Names::default(), Vec::new());
        while reader.next_batch(&mut names, &mut events).unwrap() {}
        let spans = events.iter().filter(|e| e.kind == Kind::Python);
        let got: Vec<_> = spans.map(|e| names.text(e.name)).collect();
        assert_eq!(
            got,
            ["f92", "f93", "f94", "f95", "f96", "f97", "f98", "f99"]
        );
        assert!(
            events.iter().any(|e| e.kind == Kind::Clock),
            "each chunk has one"
        );
    }
}

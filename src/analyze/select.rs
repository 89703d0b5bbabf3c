//! A part of a timeline: what lies in some windows of time, as if there were nothing between them.
//!
//! Time outside of the windows is taken out, so that every sum and every share is of the windows alone: a span that
//! reaches over several of them is as long as its parts within.

use std::io;

use clap::Args;

use super::ask::Asks;
use super::{facts, measure, steps};
use crate::cli::{Source, time};
use crate::error::{Error, Result, nearest};
use crate::trace::{Event, Kind, Names, Reader};

/// Shortest pieces of a name's list that an error shows.
const MOST_NAMES: usize = 8;

/// What is asked for.
#[derive(Args, Clone, Debug, Default)]
pub struct Selection {
    /// Only what happens while a scope, annotation, operator or function of this name is open
    #[arg(long, value_name = "NAME")]
    pub scope: Option<String>,
    /// Only from this time on, such as 1.5s, counted from the timeline's zero
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<i64>,
    /// Only up to this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub to: Option<i64>,
    /// Of device work only that of these devices
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub device: Vec<u32>,
    /// Only from the end of the first steps, which load, compile and fill caches, to the end of the last step
    #[arg(long)]
    pub steady_state: bool,
}

/// The windows, and what else is left out.
#[derive(Clone, Debug, Default)]
pub struct Windows {
    /// Sorted and apart: start, end, and the length of all before. `None`: all of the timeline.
    windows: Option<Vec<(i64, i64, i64)>>,
    devices: Vec<u32>,
    /// What this is, for people.
    pub told: Option<String>,
}

impl Selection {
    fn is_all(&self) -> bool {
        self.scope.is_none() && self.from.is_none() && self.to.is_none() && !self.steady_state
    }

    /// Opens a timeline, and finds the windows in it. A pipe is kept in a temporary file if it has to be read twice.
    ///
    /// # Errors
    /// Those of [`Reader::open`]; `from` not before `to`; no scope of that name; nothing that repeats for a steady state.
    pub fn open(&self, source: &Source) -> Result<(Reader, Windows)> {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            return Err(Error::invalid("--from", "not before --to"));
        }
        let mut windows = Windows {
            devices: self.device.clone(),
            told: (!self.device.is_empty())
                .then(|| format!("of devices only {}", list(&self.device))),
            windows: None,
        };
        if self.is_all() {
            return Ok((Reader::open(source)?, windows));
        }
        let input = source.open()?;
        let path = input.path.clone();
        let mut file = input.file;
        if !input.seekable {
            let mut kept =
                tempfile::tempfile().map_err(Error::io("create", &std::env::temp_dir()))?;
            io::copy(&mut file, &mut kept).map_err(Error::io("read", &path))?;
            file = kept;
        }
        let again = || {
            let file = file.try_clone().map_err(Error::io("read", &path))?;
            Reader::from_file(file, &path)
        };
        let mut told = Vec::new();
        let mut found = match &self.scope {
            None => vec![(i64::MIN, i64::MAX)],
            Some(name) => {
                told.push(format!("while {name} is open"));
                spans(again()?, name)?
            }
        };
        if self.steady_state {
            let (step, from, to) = steady(again()?)?;
            told.push(format!("in the steady state of {step}"));
            found = within(&found, from, to);
        }
        let (from, to) = (self.from.unwrap_or(i64::MIN), self.to.unwrap_or(i64::MAX));
        if self.from.is_some() || self.to.is_some() {
            told.push("in the time that was asked for".into());
            found = within(&found, from, to);
        }
        windows.told = Some([told.join(", "), windows.told.unwrap_or_default()].join(", "))
            .map(|told| told.trim_end_matches(", ").to_owned());
        windows.windows = Some(sorted(found));
        Ok((again()?, windows))
    }
}

fn list(devices: &[u32]) -> String {
    let words: Vec<String> = devices.iter().map(u32::to_string).collect();
    words.join(", ")
}

fn within(windows: &[(i64, i64)], from: i64, to: i64) -> Vec<(i64, i64)> {
    let cut = windows.iter().map(|&(a, b)| (a.max(from), b.min(to)));
    cut.filter(|(a, b)| a < b).collect()
}

/// Joins what overlaps, and adds up what is before each.
fn sorted(mut windows: Vec<(i64, i64)>) -> Vec<(i64, i64, i64)> {
    windows.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for (from, to) in windows {
        match joined.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => joined.push((from, to)),
        }
    }
    let mut before = 0;
    let counted = |(from, to): (i64, i64)| {
        let window = (from, to, before);
        before += to.saturating_sub(from);
        window
    };
    joined.into_iter().map(counted).collect()
}

/// All spans of a name; of those that differ in numbers, by the name with `*` for them.
fn spans(mut reader: Reader, name: &str) -> Result<Vec<(i64, i64)>> {
    let path = reader.path().to_owned();
    let mut found = Vec::new();
    let mut names = Names::default();
    let mut others: Vec<String> = Vec::new();
    let (mut events, mut more) = (Vec::new(), true);
    while more {
        events.clear();
        more = reader.next_batch(&mut names, &mut events)?;
        for event in &events {
            use Kind::*;
            let Some(dur_ns) = event
                .dur_ns
                .filter(|_| matches!(event.kind, Scope | Nvtx | Annotation | Op | Python))
            else {
                continue;
            };
            let of = names.text(event.name);
            if of == name || steps::names(of).any(|other| other == name) {
                found.push((event.start_ns, event.start_ns + dur_ns));
            } else if event.kind != Python && !others.iter().any(|other| other == of) {
                others.push(of.to_owned());
            }
        }
    }
    if found.is_empty() {
        let near = nearest(name, others.iter().map(String::as_str)).map(str::to_owned);
        others.truncate(MOST_NAMES);
        let hint = match near {
            Some(near) => Some(format!("--scope {near}")),
            None if others.is_empty() => None,
            None => Some(format!("--scope NAME, such as {}", others.join(", "))),
        };
        return Err(Error::Invalid {
            path,
            what: format!("no scope, annotation, operator or function is called {name}"),
            hint,
        });
    }
    Ok(found)
}

/// The step that a timeline's work is counted in, and from where to where it is steady.
fn steady(reader: Reader) -> Result<(String, i64, i64)> {
    let path = reader.path().to_owned();
    let measures = measure::measure(reader, &Windows::default(), &Asks::default())?;
    let (analysis, _) = facts::analysis(&measures);
    let nothing = || Error::Invalid {
        path,
        what: "nothing repeats often enough to have a steady state".into(),
        hint: Some("--from and --to".into()),
    };
    let step = steps::main(&analysis.steps).ok_or_else(nothing)?;
    // One step more than those that are longer: the first is never like the others.
    let first = steps::warmups(step).max(1).min(step.spans.len() - 1);
    let from = step.spans[first].0;
    let to = step.spans.iter().map(|(start, dur)| start + dur).max();
    Ok((step.scope.clone(), from, to.unwrap_or(from)))
}

impl Windows {
    /// Whether something is left out.
    pub fn is_part(&self) -> bool {
        self.windows.is_some()
    }

    /// Whether nothing is left out.
    pub fn is_all(&self) -> bool {
        self.windows.is_none() && self.devices.is_empty()
    }

    /// Time within the windows before `at_ns`.
    fn place(&self, windows: &[(i64, i64, i64)], at_ns: i64) -> i64 {
        let at = windows.partition_point(|(from, ..)| *from <= at_ns);
        match at.checked_sub(1).map(|at| windows[at]) {
            None => 0,
            Some((from, to, before)) => before + at_ns.min(to).saturating_sub(from),
        }
    }

    /// The event as it is within the windows; `None` if it is outside of them.
    pub fn cut(&self, event: &Event) -> Option<Event> {
        let other = |device: u32| !self.devices.is_empty() && !self.devices.contains(&device);
        if event.kind.on_device() && event.device.is_some_and(other) {
            return None;
        }
        let Some(windows) = &self.windows else {
            return Some(*event);
        };
        let (start, end) = (
            self.place(windows, event.start_ns),
            self.place(windows, event.end_ns()),
        );
        let inside = |at: i64| {
            let next = windows.partition_point(|(from, ..)| *from <= at);
            next > 0 && at < windows[next - 1].1
        };
        let mut cut = *event;
        cut.start_ns = start;
        match event.kind {
            // They say what processes, threads and streams are, whenever that was.
            Kind::Process | Kind::Thread | Kind::Stream => {}
            Kind::Clock => return None,
            Kind::Throttled if !(inside(event.start_ns) && inside(event.end_ns())) => return None,
            _ => match event.dur_ns {
                Some(dur_ns) if dur_ns > 0 && end > start => {
                    // What was waited, or sampled, is spread over it evenly.
                    let part = (end - start) as f64 / dur_ns as f64;
                    if event.kind == Kind::Wait {
                        cut.value = event.value.map(|value| value * part);
                    }
                }
                _ if inside(event.start_ns) => {}
                _ => return None,
            },
        }
        cut.dur_ns = event.dur_ns.map(|_| end - start);
        Some(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Sym;

    fn event(kind: Kind, start_ns: i64, dur_ns: Option<i64>) -> Event {
        let mut event = Event::new(kind, Sym(0), start_ns, 0, 7, 7);
        event.dur_ns = dur_ns;
        event
    }

    #[test]
    fn time_between_windows_is_taken_out() {
        let windows = Windows {
            windows: Some(sorted(vec![(50, 60), (10, 20), (15, 22), (80, 90)])),
            ..Windows::default()
        };
        let cut = |kind, start, dur| {
            let cut = windows.cut(&event(kind, start, dur))?;
            Some((cut.start_ns, cut.dur_ns))
        };
        use Kind::*;
        assert_eq!(cut(Python, 0, Some(100)), Some((0, Some(32))));
        assert_eq!(cut(Python, 12, Some(40)), Some((2, Some(12))));
        assert_eq!(cut(Python, 25, Some(20)), None);
        assert_eq!(cut(Mark, 21, None), Some((11, None)));
        assert_eq!(cut(Mark, 22, None), None);
        assert_eq!(cut(Kernel, 85, Some(50)), Some((27, Some(5))));
        assert_eq!(cut(Process, 0, Some(1000)), Some((0, Some(32))));
        let mut wait = event(Wait, 40, Some(20));
        wait.value = Some(8.0);
        assert_eq!(windows.cut(&wait).unwrap().value, Some(4.0));
    }

    #[test]
    fn devices_that_were_not_asked_for_are_left_out() {
        let windows = Windows {
            devices: vec![1],
            ..Windows::default()
        };
        let mut kernel = event(Kind::Kernel, 0, Some(1));
        kernel.device = Some(0);
        assert!(windows.cut(&kernel).is_none());
        kernel.device = Some(1);
        assert!(windows.cut(&kernel).is_some());
        assert!(windows.cut(&event(Kind::Python, 0, Some(1))).is_some());
    }
}

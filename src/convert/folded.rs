//! Folded stacks: a line a call path, `process;thread;outer;inner NS`, with the time at its end in ns.
//!
//! Sums of the innermost span's own time, as the page of isc-report has them. Work of devices stands under the device and its
//! stream. Lines are sorted.
//!
//! # Source
//! What stackcollapse scripts of github.com/brendangregg/FlameGraph print.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use super::json::Text;
use super::stacks::{Stacks, Track, has_place};
use super::{Left, Rows};
use crate::error::Result;
use crate::trace::{Event, Kind, Names, Sym};

/// See the module.
#[derive(Debug)]
pub(super) struct Folded {
    to: Text,
    frames: Names,
    /// Caller, frame and own time of each call path. Callers come before what they call.
    paths: Vec<Path>,
    index: HashMap<(Root, Sym), u32>,
    stacks: Stacks<u32>,
    process_names: BTreeMap<u32, String>,
    thread_names: BTreeMap<(u32, u64), String>,
    left: Left,
}

/// What a path is called from: another one, or a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Root {
    Path(u32),
    Thread(u32, u64),
    Stream(u32, Option<u32>),
}

#[derive(Debug)]
struct Path {
    from: Root,
    frame: Sym,
    self_ns: i64,
}

impl Folded {
    pub fn new(to: Text) -> Folded {
        Folded {
            to,
            frames: Names::default(),
            paths: Vec::new(),
            index: HashMap::new(),
            stacks: Stacks::default(),
            process_names: BTreeMap::new(),
            thread_names: BTreeMap::new(),
            left: Left::default(),
        }
    }

    fn close(&mut self, track: Track, at_ns: i64) -> Result<()> {
        let paths = &mut self.paths;
        self.stacks.close(track, at_ns, |span| {
            let path = &mut paths[span.what as usize];
            path.self_ns = path.self_ns.saturating_add(span.self_ns());
            Ok(())
        })
    }

    fn path(&mut self, from: Root, frame: Sym) -> u32 {
        let paths = &mut self.paths;
        *self.index.entry((from, frame)).or_insert_with(|| {
            paths.push(Path {
                from,
                frame,
                self_ns: 0,
            });
            paths.len() as u32 - 1
        })
    }

    fn root(&self, root: Root) -> String {
        match root {
            Root::Path(_) => String::new(),
            Root::Stream(device, Some(stream)) => format!("GPU {device};stream {stream}"),
            Root::Stream(device, None) => format!("GPU {device};no stream"),
            Root::Thread(process, tid) => {
                let thread = self.thread_names.get(&(process, tid));
                let process = match self.process_names.get(&process) {
                    Some(name) => name.clone(),
                    None => format!("process {process}"),
                };
                match thread {
                    Some(name) => format!("{process};{name} ({tid})"),
                    None => format!("{process};thread {tid}"),
                }
            }
        }
    }
}

impl Rows for Folded {
    fn row(&mut self, row: i64, event: &Event, names: &Names) -> Result<()> {
        match event.kind {
            Kind::Process => {
                let name = format!("{} (pid {})", frame(names.text(event.name)), event.pid);
                self.process_names.insert(event.process, name);
                return Ok(());
            }
            Kind::Thread => {
                let name = frame(names.text(event.name));
                self.thread_names.insert((event.process, event.tid), name);
                return Ok(());
            }
            Kind::Stream => return Ok(()),
            _ if !has_place(event) => {
                self.left.add(event.kind);
                return Ok(());
            }
            _ => {}
        }
        let text = label(event, names);
        let frame = self.frames.sym(&text);
        let track = Track::of(event);
        if let Track::Stream(device, stream) = track {
            // Work on one stream may overlap by a little, and none of it calls other work.
            let path = self.path(Root::Stream(device, stream), frame);
            let length = event.dur_ns.unwrap_or(0).max(0);
            let path = &mut self.paths[path as usize];
            path.self_ns = path.self_ns.saturating_add(length);
            return Ok(());
        }
        self.close(track, event.start_ns)?;
        let Some(around) = self.stacks.around(track, event, names) else {
            self.left.overlapping += 1;
            return Ok(());
        };
        let from = match around {
            Some(&path) => Root::Path(path),
            None => Root::Thread(event.process, event.tid),
        };
        let path = self.path(from, frame);
        self.stacks.open(track, row, event, path);
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Left> {
        for track in self.stacks.tracks() {
            self.close(track, i64::MAX)?;
        }
        let mut lines = BTreeMap::<String, i64>::new();
        for path in self.paths.iter().filter(|path| path.self_ns > 0) {
            let mut frames = vec![self.frames.text(path.frame)];
            let mut from = path.from;
            while let Root::Path(caller) = from {
                let caller = &self.paths[caller as usize];
                frames.push(self.frames.text(caller.frame));
                from = caller.from;
            }
            let mut line = self.root(from);
            for frame in frames.iter().rev() {
                line.push(';');
                line.push_str(frame);
            }
            *lines.entry(line).or_default() += path.self_ns;
        }
        for (line, self_ns) in lines {
            self.to.put(format!("{line} {self_ns}\n"))?;
        }
        self.to.finish()?;
        Ok(self.left)
    }
}

/// `name (file:line)`.
fn label(event: &Event, names: &Names) -> String {
    let mut text = frame(names.text(event.name));
    if let Some(file) = event.file.map(|file| names.text(file)) {
        let _ = match event.line {
            Some(line) => write!(text, " ({}:{line})", frame(file)),
            None => write!(text, " ({})", frame(file)),
        };
    }
    text
}

/// A name as a frame: on one line, without what parts frames.
fn frame(name: &str) -> String {
    let mut frame = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            ';' => frame.push(':'),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                frame.extend(c.escape_default())
            }
            c => frame.push(c),
        }
    }
    match frame.is_empty() {
        true => "?".into(),
        false => frame,
    }
}

//! The call tree of a timeline: time by call path, for each thread of each process.
//!
//! One pass over the rows. Memory grows with call paths and open spans, not with events.

use std::collections::{BTreeMap, HashMap};

use super::units;
use crate::analyze::measure;
use crate::cli::{Progress, Source};
use crate::correlate;
use crate::error::{Error, Result};
use crate::trace::{Event, Kind, Names, Reader, Stage, Sym};

/// Call paths kept; what would be one more is booked on its caller.
const MOST_PATHS: usize = 300_000;

/// Bytes of texts that a reader's table may hold before a new one takes its place.
const MOST_TEXT: usize = 64 << 20;

/// What a node of the tree is: its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sort {
    /// A process or a thread.
    Group,
    Python,
    Native,
    Scope,
    Gc,
    /// A native call that waits for something else than the processor.
    Wait,
    Other,
}

impl Sort {
    /// The sort of spans of this kind and name.
    pub fn of(kind: Kind, name: &str) -> Sort {
        match kind {
            Kind::Python => Sort::Python,
            Kind::Native if measure::waits(name) => Sort::Wait,
            Kind::Native => Sort::Native,
            Kind::Scope | Kind::Nvtx => Sort::Scope,
            Kind::Gc => Sort::Gc,
            _ => Sort::Other,
        }
    }

    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Sort::Group => "thread",
            Sort::Python => "python",
            Sort::Native => "native",
            Sort::Scope => "scope",
            Sort::Gc => "gc",
            Sort::Wait => "wait",
            Sort::Other => "other",
        }
    }
}

/// A function, scope or thread along one path of calls.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Its caller; the root's is itself.
    pub parent: u32,
    pub sort: Sort,
    pub name: Sym,
    /// `file:line`, empty if not known.
    pub place: Sym,
    /// Time in it and in nothing that it calls.
    pub self_ns: i64,
    pub calls: u64,
}

/// Call paths from one root. A caller stands before what it calls.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    texts: Names,
    index: HashMap<(u32, Sort, Sym, Sym), u32>,
}

impl Default for Tree {
    fn default() -> Tree {
        let mut texts = Names::default();
        let root = Node {
            parent: 0,
            sort: Sort::Group,
            name: texts.sym("all"),
            place: texts.sym(""),
            self_ns: 0,
            calls: 0,
        };
        Tree {
            nodes: vec![root],
            texts,
            index: HashMap::new(),
        }
    }
}

impl Tree {
    /// What `caller` (0 is the root) calls by this name, a new node if it has not yet; `None` if there are too many.
    pub fn called(&mut self, caller: u32, sort: Sort, name: &str, place: &str) -> Option<u32> {
        let name = self.texts.sym(&units::line(name));
        let place = self.texts.sym(&units::line(place));
        let key = (caller, sort, name, place);
        if let Some(&node) = self.index.get(&key) {
            return Some(node);
        }
        if self.nodes.len() >= MOST_PATHS {
            return None;
        }
        let node = self.nodes.len() as u32;
        self.nodes.push(Node {
            parent: caller,
            sort,
            name,
            place,
            self_ns: 0,
            calls: 0,
        });
        self.index.insert(key, node);
        Some(node)
    }

    /// More time at the end of this path.
    pub fn add(&mut self, node: u32, self_ns: i64, calls: u64) {
        if let Some(node) = self.nodes.get_mut(node as usize) {
            node.self_ns = node.self_ns.saturating_add(self_ns.max(0));
            node.calls += calls;
        }
    }

    /// All nodes, the root first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The text of a node's name or place.
    pub fn text(&self, sym: Sym) -> &str {
        self.texts.text(sym)
    }

    /// Time of each node with all it calls, in ns.
    pub fn totals(&self) -> Vec<i64> {
        let mut totals: Vec<i64> = self.nodes.iter().map(|node| node.self_ns).collect();
        for at in (1..self.nodes.len()).rev() {
            let caller = self.nodes[at].parent as usize;
            totals[caller] = totals[caller].saturating_add(totals[at]);
        }
        totals
    }

    fn rename(&mut self, node: u32, name: &str) {
        let name = self.texts.sym(&units::line(name));
        if let Some(node) = self.nodes.get_mut(node as usize) {
            node.name = name;
        }
    }
}

/// What a timeline says of calls.
#[derive(Debug, Default)]
pub struct Calls {
    pub tree: Tree,
    /// Spans in the tree.
    pub spans: u64,
    /// Rows of the timeline.
    pub events: u64,
    /// Its length, as isc-analyze measures it: without clock readings.
    pub span_ns: i64,
}

impl Calls {
    /// Reads a timeline.
    ///
    /// # Errors
    /// Those of the reader; a raw trace, which has no parents yet.
    pub fn read(source: &Source) -> Result<Calls> {
        let mut reader = Reader::open(source)?;
        if reader.provenance().stage != Stage::Timeline {
            return Err(Error::Invalid {
                path: reader.path().to_owned(),
                what: "a raw trace, which has no call tree yet".into(),
                hint: Some("isc-merge TRACE -o merged.parquet, and the analysis of that".into()),
            });
        }
        let mut progress = Progress::reading("reading calls", reader.rows(), reader.is_pipe());
        let mut pass = Pass::default();
        let (mut names, mut events) = (Names::default(), Vec::new());
        let mut more = true;
        while more {
            events.clear();
            if names.bytes() > MOST_TEXT {
                names = Names::default();
                pass.known.clear();
                pass.resumed.clear();
            }
            more = reader.next_batch(&mut names, &mut events)?;
            for event in &events {
                pass.event(event, &names);
            }
            progress.add(events.len() as u64);
        }
        Ok(pass.finish())
    }
}

#[derive(Debug)]
struct Open {
    row: i64,
    start_ns: i64,
    end_ns: i64,
    child_ns: i64,
    node: u32,
    /// The node is this span's own, and not its caller's.
    own: bool,
    resumed: bool,
}

#[derive(Debug, Default)]
struct Track {
    node: u32,
    open: Vec<Open>,
}

/// A caller and what makes two spans the same function.
type Callee = (u32, Kind, Sym, Option<Sym>, Option<u32>);

#[derive(Debug, Default)]
struct Pass {
    calls: Calls,
    start_ns: Option<i64>,
    end_ns: i64,
    tracks: BTreeMap<(u32, u64), Track>,
    processes: BTreeMap<u32, u32>,
    process_names: BTreeMap<u32, String>,
    thread_names: BTreeMap<(u32, u64), String>,
    /// Nodes found before, and args read before, by symbols of the reader's table.
    known: HashMap<Callee, Option<u32>>,
    resumed: HashMap<Sym, bool>,
}

impl Pass {
    fn event(&mut self, event: &Event, names: &Names) {
        let row = self.calls.events as i64;
        self.calls.events += 1;
        let start_ns = *self.start_ns.get_or_insert(event.start_ns);
        if row == 0 {
            self.end_ns = event.start_ns;
        }
        if event.kind != Kind::Clock {
            self.start_ns = Some(start_ns.min(event.start_ns));
            self.end_ns = self.end_ns.max(event.end_ns());
        }
        let name = || names.text(event.name).to_owned();
        match event.kind {
            Kind::Process => {
                let name = format!("{} (pid {})", name(), event.pid);
                self.process_names.insert(event.process, name);
            }
            Kind::Thread => {
                let track = (event.process, event.tid);
                self.thread_names.insert(track, name());
            }
            kind if kind.nests() => self.span(row, event, names),
            _ => {}
        }
    }

    fn span(&mut self, row: i64, event: &Event, names: &Names) {
        let Some(dur_ns) = event.dur_ns.filter(|dur_ns| *dur_ns >= 0) else {
            return;
        };
        if correlate::crosses(event, names) {
            return;
        }
        let (processes, tree) = (&mut self.processes, &mut self.calls.tree);
        let key = (event.process, event.tid);
        let track = self.tracks.entry(key).or_insert_with(|| {
            let process = *processes.entry(event.process).or_insert_with(|| {
                let name = format!("process {}", event.process);
                tree.called(0, Sort::Group, &name, "").unwrap_or(0)
            });
            let name = format!("thread {}", event.tid);
            let node = tree.called(process, Sort::Group, &name, "");
            Track {
                node: node.unwrap_or(process),
                open: Vec::new(),
            }
        });
        close(track, event.start_ns, tree);
        // of ranges of NVTX that cross others the innermost open one need not be it
        let around = event
            .parent
            .map(|parent| track.open.iter().rposition(|open| open.row == parent));
        let caller = match around {
            None if track.open.is_empty() => track.node,
            Some(Some(at)) => {
                let around = &mut track.open[at];
                around.child_ns = around.child_ns.saturating_add(dur_ns);
                around.node
            }
            _ => return, // it overlaps others without being inside: its time is theirs already
        };
        let function = (caller, event.kind, event.name, event.file, event.line);
        let node = *self.known.entry(function).or_insert_with(|| {
            let file = event.file.map_or("", |file| names.text(file));
            let place = match event.line {
                Some(line) if !file.is_empty() => format!("{file}:{line}"),
                _ => file.to_owned(),
            };
            let name = names.text(event.name);
            tree.called(caller, Sort::of(event.kind, name), name, &place)
        });
        let resumed = event.args.is_some_and(|args| {
            let said = || names.text(args).contains("\"resumed\":true");
            event.kind == Kind::Python && *self.resumed.entry(args).or_insert_with(said)
        });
        self.calls.spans += 1;
        let end_ns = event.end_ns();
        let at = track.open.iter().rposition(|open| open.end_ns >= end_ns);
        let open = Open {
            row,
            start_ns: event.start_ns,
            end_ns,
            child_ns: 0,
            node: node.unwrap_or(caller),
            own: node.is_some(),
            resumed,
        };
        track.open.insert(at.map_or(0, |at| at + 1), open);
    }

    fn finish(mut self) -> Calls {
        let tree = &mut self.calls.tree;
        for (key, track) in &mut self.tracks {
            close(track, i64::MAX, tree);
            if let Some(name) = self.thread_names.get(key) {
                tree.rename(track.node, &format!("{name} ({})", key.1));
            }
        }
        for (process, node) in &self.processes {
            if let Some(name) = self.process_names.get(process) {
                tree.rename(*node, name);
            }
        }
        let start_ns = self.start_ns.unwrap_or(0);
        self.calls.span_ns = self.end_ns.saturating_sub(start_ns);
        self.calls
    }
}

/// Ends the spans that are over at `at_ns` and books their own time.
fn close(track: &mut Track, at_ns: i64, tree: &mut Tree) {
    while let Some(span) = track.open.pop_if(|span| span.end_ns <= at_ns) {
        let self_ns = span.end_ns.saturating_sub(span.start_ns) - span.child_ns;
        tree.add(span.node, self_ns, u64::from(span.own && !span.resumed));
    }
}

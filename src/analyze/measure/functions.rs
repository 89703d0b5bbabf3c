//! Functions and call paths by their numbers, and what a function's name, kind and file say of all its spans.

use super::super::steps;
use super::super::trail::Doing;
use super::super::waited;
use super::host::{doing, is_sourced};
use super::{FunctionKey, FunctionSums, PathNode, waits};
use crate::trace::{HashMap, Kind, Names};

/// Call paths kept; what would be one more is booked on its caller.
const MOST_PATHS: usize = 50_000;

/// No number.
const NONE: u32 = u32::MAX;

/// What holds for every span of a function: found out once, not in each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    pub doing: Doing,
    /// It says more than those around it.
    pub sourced: bool,
    /// It imports a module.
    pub imports: bool,
    /// It is a native call that is known to wait.
    pub waits: bool,
    /// It waits for a device.
    pub syncs: bool,
    /// Of event loops: a turn, a callback in it, the poll in it.
    pub turn: bool,
    pub callback: bool,
    pub poll: bool,
    /// It may be a step: its spans are kept.
    pub repeats: bool,
}

impl Traits {
    fn of(key: &FunctionKey, names: &Names) -> Traits {
        let name = names.text(key.name);
        let file = key.file.map_or("", |file| names.text(file));
        Traits {
            doing: doing(key, names),
            sourced: key.kind == Kind::Python && is_sourced(file),
            imports: name == "_find_and_load",
            waits: key.kind == Kind::Native && waits(name),
            syncs: name.contains("Synchronize"),
            turn: waited::is_turn(name),
            callback: waited::is_callback(key.kind, name),
            poll: waited::is_poll(name),
            repeats: key.kind == Kind::Python && steps::is_own(file),
        }
    }
}

/// The numbers.
#[derive(Debug, Default)]
pub(super) struct Functions {
    index: HashMap<FunctionKey, usize>,
    /// By name: the function of that name that was asked for last, which most often is the only one.
    named: Vec<u32>,
    traits: Vec<Traits>,
    /// By caller's path and function.
    paths: HashMap<(u32, u32), u32>,
    nodes: Vec<Node>,
}

/// A call path, and what came next when it was gone along last: programs do over and over the same.
#[derive(Clone, Copy, Debug)]
struct Node {
    parent: u32,
    function: u32,
    /// The first that it called.
    first: u32,
    /// What its caller called after it.
    next: u32,
    /// Time at its end.
    self_ns: i64,
}

impl Functions {
    /// The number of a function, which it gets when it is new.
    pub fn number(
        &mut self,
        functions: &mut Vec<(FunctionKey, FunctionSums)>,
        key: FunctionKey,
        names: &Names,
    ) -> usize {
        let name = key.name.0 as usize;
        if name >= self.named.len() {
            self.named.resize(name + 1, NONE);
        }
        let last = self.named[name] as usize;
        if functions.get(last).is_some_and(|(known, _)| *known == key) {
            return last;
        }
        let at = *self.index.entry(key).or_insert_with(|| {
            functions.push((key, FunctionSums::default()));
            self.traits.push(Traits::of(&key, names));
            functions.len() - 1
        });
        self.named[name] = at as u32;
        at
    }

    pub fn traits(&self, function: usize) -> Traits {
        self.traits[function]
    }

    /// The path of a function that is called from another path, `before` being the last one that was called there.
    pub fn path(
        &mut self,
        caller: Option<u32>,
        before: Option<u32>,
        function: usize,
    ) -> Option<u32> {
        let (parent, called) = (caller.unwrap_or(NONE), function as u32);
        let next = match (before, caller) {
            (Some(before), _) => self.nodes[before as usize].next,
            (None, Some(caller)) => self.nodes[caller as usize].first,
            (None, None) => NONE,
        };
        let is = |node: &Node| (node.parent, node.function) == (parent, called);
        if self.nodes.get(next as usize).is_some_and(is) {
            return Some(next);
        }
        let Some(path) = self.found(parent, called) else {
            return caller;
        };
        match (before, caller) {
            (Some(before), _) => self.nodes[before as usize].next = path,
            (None, Some(caller)) => self.nodes[caller as usize].first = path,
            (None, None) => {}
        }
        Some(path)
    }

    /// Books time at the end of a path.
    pub fn spent(&mut self, path: u32, ns: i64) {
        self.nodes[path as usize].self_ns += ns;
    }

    /// All paths, and the time at their ends.
    pub fn into_paths(self) -> Vec<PathNode> {
        let paths = self.nodes.into_iter().map(|node| PathNode {
            parent: (node.parent != NONE).then_some(node.parent as usize),
            function: node.function as usize,
            self_ns: node.self_ns,
        });
        paths.collect()
    }

    /// The same path, looked up; `None` if there are too many for a new one.
    fn found(&mut self, parent: u32, function: u32) -> Option<u32> {
        let key = (parent, function);
        if let Some(&path) = self.paths.get(&key) {
            return Some(path);
        }
        if self.nodes.len() >= MOST_PATHS {
            return None;
        }
        let path = self.nodes.len() as u32;
        self.nodes.push(Node {
            parent,
            function,
            first: NONE,
            next: NONE,
            self_ns: 0,
        });
        self.paths.insert(key, path);
        Some(path)
    }
}

//! The call tree as the page draws it: boxes as wide as their time, callers above what they call.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;

use super::calls::{Sort, Tree};
use super::units;
use crate::trace::Sym;

/// Boxes drawn at most: the widest. What is left out shows as a gap below its caller.
const MOST_BOXES: usize = 20_000;
/// Boxes of less than this share of the whole are left out: thinner than a pixel even when zoomed in far.
const THINNEST: f64 = 1e-6;
/// Rows drawn; deeper calls are counted in their callers.
const DEEPEST: usize = 250;
/// Call paths in a table.
const MOST_PATHS: usize = 15;
/// Frames of a path in a table: the first ones and the last ones.
const FIRST: usize = 2;
const LAST: usize = 5;

/// What the page's script gets, as JSON.
#[derive(Debug, Serialize)]
pub struct Flame<'a> {
    /// Names and places, each once.
    texts: Vec<&'a str>,
    /// In the order of a walk from the root: depth, total ns, own ns, calls, sort, name, place.
    frames: Vec<(u32, i64, i64, u64, u8, u32, u32)>,
}

/// A call path in a table.
#[derive(Debug, PartialEq, Serialize)]
pub struct Path {
    /// Outermost first.
    pub frames: String,
    pub kind: &'static str,
    pub calls: String,
    pub own: String,
    pub share: String,
}

impl Flame<'_> {
    /// The boxes of this tree; none if no time is in it.
    pub fn of(tree: &Tree) -> Flame<'_> {
        let totals = tree.totals();
        let mut flame = Flame {
            texts: Vec::new(),
            frames: Vec::new(),
        };
        if totals[0] <= 0 {
            return flame;
        }
        let least = ((totals[0] as f64 * THINNEST) as i64).max(1);
        let nodes = tree.nodes();
        // A caller is at least as wide as what it calls and stands before it, so it is kept too.
        let mut widest: Vec<usize> = (0..nodes.len()).filter(|&at| totals[at] >= least).collect();
        widest.sort_by_key(|&at| (Reverse(totals[at]), at));
        widest.truncate(MOST_BOXES);
        let mut called: Vec<Vec<u32>> = vec![Vec::new(); nodes.len()];
        for &at in widest.iter().skip(1) {
            called[nodes[at].parent as usize].push(at as u32);
        }
        let order = |&at: &u32| {
            let node = &nodes[at as usize];
            let texts = (tree.text(node.name), tree.text(node.place));
            (Reverse(totals[at as usize]), node.sort, texts)
        };
        let mut known = HashMap::new();
        let mut walk = vec![(0u32, 0u32)];
        while let Some((at, depth)) = walk.pop() {
            let node = &nodes[at as usize];
            let mut text = |sym: Sym| {
                *known.entry(sym).or_insert_with(|| {
                    flame.texts.push(tree.text(sym));
                    flame.texts.len() as u32 - 1
                })
            };
            let (name, place) = (text(node.name), text(node.place));
            let (total, sort) = (totals[at as usize], node.sort as u8);
            let frame = (depth, total, node.self_ns, node.calls, sort, name, place);
            flame.frames.push(frame);
            if depth as usize >= DEEPEST {
                continue;
            }
            let mut inside = std::mem::take(&mut called[at as usize]);
            inside.sort_by(|a, b| order(a).cmp(&order(b)));
            walk.extend(inside.into_iter().rev().map(|inner| (inner, depth + 1)));
        }
        flame
    }

    /// No box at all.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// As JSON that can stand inside a page: no `<`, `>` or `&`.
    ///
    /// # Errors
    /// None that plain numbers and texts could cause.
    pub fn json(&self) -> serde_json::Result<String> {
        let json = serde_json::to_string(self)?;
        let mut safe = String::with_capacity(json.len());
        for c in json.chars() {
            match c {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    safe.push_str(&format!("\\u{:04x}", u32::from(c)));
                }
                c => safe.push(c),
            }
        }
        Ok(safe)
    }
}

/// The paths at whose end most time was spent.
pub fn heaviest(tree: &Tree) -> Vec<Path> {
    let nodes = tree.nodes();
    let whole: i64 = nodes.iter().map(|node| node.self_ns).sum();
    let mut heavy: Vec<usize> = (1..nodes.len())
        .filter(|&at| nodes[at].self_ns > 0 && nodes[at].sort != Sort::Group)
        .collect();
    // Equal ones in the order in which they were met.
    heavy.sort_by_key(|&at| Reverse(nodes[at].self_ns));
    heavy.truncate(MOST_PATHS);
    let path = |at: usize| {
        let mut names = Vec::new();
        let mut inner = at;
        while inner != 0 && nodes[inner].sort != Sort::Group {
            names.push(tree.text(nodes[inner].name));
            inner = nodes[inner].parent as usize;
        }
        names.reverse();
        if names.len() > FIRST + LAST + 1 {
            names.splice(FIRST..names.len() - LAST, ["…"]);
        }
        let node = &nodes[at];
        Path {
            frames: names.join(" › "),
            kind: node.sort.as_str(),
            calls: units::count(node.calls as f64),
            own: units::time(node.self_ns as f64),
            share: units::share(node.self_ns as f64 / whole.max(1) as f64),
        }
    };
    heavy.into_iter().map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[(&[&str], i64)]) -> Tree {
        let mut tree = Tree::default();
        for (frames, ns) in paths {
            let mut at = 0;
            for name in *frames {
                at = tree.called(at, Sort::Python, name, "a.py:1").unwrap();
            }
            tree.add(at, *ns, 1);
        }
        tree
    }

    #[test]
    fn a_box_holds_its_own_time_and_that_of_what_it_calls() {
        let tree = tree(&[
            (&["main", "load"], 20),
            (&["main", "decode"], 60),
            (&["main"], 20),
            (&["never"], 0),
        ]);
        let flame = Flame::of(&tree);
        let boxes: Vec<(u32, i64, i64, &str)> = (flame.frames.iter())
            .map(|f| (f.0, f.1, f.2, flame.texts[f.5 as usize]))
            .collect();
        assert_eq!(
            boxes,
            [
                (0, 100, 0, "all"),
                (1, 100, 20, "main"),
                (2, 60, 60, "decode"),
                (2, 20, 20, "load"),
            ]
        );
        assert_eq!(heaviest(&tree)[0].frames, "main › decode");
        assert_eq!(heaviest(&tree)[0].share, "60.0 %");
    }

    #[test]
    fn boxes_and_depth_have_an_end() {
        assert!(Flame::of(&Tree::default()).is_empty());
        let deep = tree(&[(&["f"; 5000], 1)]);
        assert_eq!(Flame::of(&deep).frames.len(), DEEPEST + 1);
        assert_eq!(heaviest(&deep)[0].frames, "f › f › … › f › f › f › f › f");
        let mut wide = Tree::default();
        for i in 0..50_000 {
            let at = wide.called(0, Sort::Native, &format!("f{i}"), "");
            wide.add(at.unwrap(), 1000 + i % 7, 1);
        }
        assert_eq!(Flame::of(&wide).frames.len(), MOST_BOXES);
    }

    #[test]
    fn no_name_ends_the_script_that_holds_it() {
        let tree = tree(&[(&["</script><img src=x>&\u{2028}"], 1)]);
        let json = Flame::of(&tree).json().unwrap();
        assert!(!json.contains(['<', '>', '&', '\u{2028}']), "{json}");
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(back["texts"][2].as_str().unwrap().starts_with("</script>"));
    }
}

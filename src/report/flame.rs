//! A flame graph: call paths as boxes, each as wide as its share of the time.

use std::collections::BTreeMap;

use serde::Serialize;

use super::units;

/// Boxes narrower than this share of the whole are left out: they would be thinner than a pixel.
const THINNEST: f64 = 0.0008;
/// Rows drawn; deeper calls are counted in their callers.
const DEEPEST: usize = 120;

/// One box. Places and widths are percent of the whole, rows count from the top.
#[derive(Debug, PartialEq, Serialize)]
pub struct Frame {
    pub name: String,
    pub x: String,
    pub width: String,
    pub row: usize,
    pub time: String,
    pub share: String,
    /// A colour of the palette, the same for the same name.
    pub hue: u32,
}

/// The boxes of a flame graph, callers before what they call.
#[derive(Debug, Default, Serialize)]
pub struct Flame {
    pub frames: Vec<Frame>,
    pub rows: usize,
}

#[derive(Default)]
struct Node {
    /// Time in ns, with what it calls.
    total: f64,
    calls: BTreeMap<String, Node>,
}

impl Flame {
    /// From call paths, outermost frame first, and the ns spent at each one's end.
    pub fn of<'a>(paths: impl IntoIterator<Item = (Vec<&'a str>, f64)>) -> Flame {
        let mut root = Node::default();
        for (path, ns) in paths {
            if !ns.is_finite() || ns <= 0.0 {
                continue;
            }
            root.total += ns;
            let mut at = &mut root;
            for name in path.into_iter().take(DEEPEST) {
                at = at.calls.entry(units::line(name)).or_default();
                at.total += ns;
            }
        }
        let mut flame = Flame::default();
        if root.total > 0.0 {
            flame.place("all", &root, 0.0, 0, root.total);
        }
        flame
    }

    fn place(&mut self, name: &str, node: &Node, x: f64, row: usize, whole: f64) {
        let width = node.total / whole;
        if width < THINNEST {
            return;
        }
        self.rows = self.rows.max(row + 1);
        self.frames.push(Frame {
            name: name.to_owned(),
            x: format!("{:.3}", x * 100.0),
            width: format!("{:.3}", width * 100.0),
            row,
            time: units::time(node.total),
            share: units::share(width),
            hue: hue(name),
        });
        let mut calls: Vec<(&String, &Node)> = node.calls.iter().collect();
        calls.sort_by(|a, b| b.1.total.total_cmp(&a.1.total).then(a.0.cmp(b.0)));
        let mut at = x;
        for (name, call) in calls {
            self.place(name, call, at, row + 1, whole);
            at += call.total / whole;
        }
    }
}

/// FNV-1a of the name, folded to one of eight colours.
fn hue(name: &str) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    for byte in name.bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    (hash ^ (hash >> 16)) % 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_as_wide_as_its_share_and_stands_below_its_caller() {
        let flame = Flame::of([
            (vec!["main", "decode"], 60.0),
            (vec!["main", "load"], 20.0),
            (vec!["main"], 20.0),
            (vec!["never"], 0.0),
        ]);
        let boxes: Vec<(&str, &str, &str, usize)> = (flame.frames.iter())
            .map(|f| (f.name.as_str(), f.x.as_str(), f.width.as_str(), f.row))
            .collect();
        assert_eq!(
            boxes,
            [
                ("all", "0.000", "100.000", 0),
                ("main", "0.000", "100.000", 1),
                ("decode", "0.000", "60.000", 2),
                ("load", "60.000", "20.000", 2),
            ]
        );
        assert_eq!(flame.rows, 3);
    }

    #[test]
    fn nothing_gives_no_boxes_and_depth_has_an_end() {
        assert!(Flame::of([]).frames.is_empty());
        let deep = Flame::of([(vec!["f"; 100_000], 1.0)]);
        assert_eq!(deep.rows, DEEPEST + 1);
    }
}

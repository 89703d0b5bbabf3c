//! Numbers of the rows that are kept, and whom their parent and cause are then.
//!
//! Two bits a row say where each one went; of spans that were dropped, those that are still open are known too, since
//! others may be inside of them.

use crate::trace::{Event, HashMap, Kind};

/// See the module. Rows come in their order.
#[derive(Debug, Default)]
pub(super) struct Renumber {
    /// Of 64 rows each: which were kept, and how many before them.
    kept: Vec<(u64, i64)>,
    rows: i64,
    count: i64,
    /// New number of the nearest kept span around each dropped one that is open.
    around: HashMap<i64, Option<i64>>,
    /// Ends and numbers of these, by thread.
    open: HashMap<(u32, u64), Vec<(i64, i64)>>,
}

impl Renumber {
    /// The next row. If it is kept, its parent becomes the nearest kept span around it and its cause, if that is kept,
    /// has its new number.
    pub fn next(&mut self, event: &mut Event, kept: bool) {
        let row = self.rows;
        self.rows += 1;
        if row % 64 == 0 {
            self.kept.push((0, self.count));
        }
        let parent = event.parent.and_then(|parent| self.nearest(parent));
        if !kept {
            if event.kind.nests() && event.dur_ns.is_some() {
                self.drop(row, parent, event);
            }
            return;
        }
        event.cause = event.cause.and_then(|cause| self.number(cause));
        event.parent = parent;
        if let Some(block) = self.kept.last_mut() {
            block.0 |= 1 << (row % 64);
        }
        self.count += 1;
    }

    /// The new number of a row that was kept.
    fn number(&self, row: i64) -> Option<i64> {
        let at = usize::try_from(row / 64).ok().filter(|_| row >= 0)?;
        let &(bits, before) = self.kept.get(at)?;
        let bit = 1u64 << (row % 64);
        let among = i64::from((bits & (bit - 1)).count_ones());
        (bits & bit != 0).then_some(before + among)
    }

    fn nearest(&self, row: i64) -> Option<i64> {
        let number = self.number(row);
        number.or_else(|| self.around.get(&row).copied().flatten())
    }

    fn drop(&mut self, row: i64, parent: Option<i64>, event: &Event) {
        let open = self.open.entry((event.process, event.tid)).or_default();
        while let Some((_, over)) = open.pop_if(|(end, _)| *end <= event.start_ns) {
            self.around.remove(&over);
        }
        open.push((event.end_ns(), row));
        self.around.insert(row, parent);
    }
}

/// Rows that describe others.
pub(super) fn describes(kind: Kind) -> bool {
    use Kind::*;
    matches!(
        kind,
        Process | Thread | Stream | Clock | Lost | Throttled | End
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::text::parse;

    #[test]
    fn the_parent_is_the_nearest_kept_and_a_dropped_cause_is_none() {
        let text = "
            track     kind    start  end   name  parent  cause
            py:main   scope   0us    90us  a     -       -
            py:main   python  1us    80us  b     0       -
            py:main   python  2us    70us  c     1       -
            py:main   launch  3us    4us   d     2       -
            py:main   launch  5us    6us   e     2       -
            cuda:0/7  kernel  7us    8us   k     -       3
            cuda:0/7  kernel  9us    10us  l     -       4
            py:main   python  11us   12us  f     9       -";
        let (mut events, names) = parse(text).unwrap();
        let mut renumber = Renumber::default();
        let mut kept = Vec::new();
        for event in &mut events {
            let keep = !["b", "c", "d"].contains(&names.text(event.name));
            renumber.next(event, keep);
            if keep {
                kept.push((names.text(event.name), event.parent, event.cause));
            }
        }
        assert_eq!(
            kept,
            [
                ("a", None, None),
                ("e", Some(0), None),
                ("k", None, None),
                ("l", None, Some(1)),
                ("f", None, None),
            ]
        );
    }

    #[test]
    fn numbers_are_right_over_many_rows_and_what_is_over_is_forgotten() {
        let (events, _) = parse("track kind start end\npy:main python 0 1").unwrap();
        let mut renumber = Renumber::default();
        for row in 0..1000 {
            let mut event = events[0];
            event.start_ns = row;
            renumber.next(&mut event, row % 3 == 0);
        }
        for row in 0..1000 {
            let number = (row % 3 == 0).then_some(row / 3);
            assert_eq!(renumber.number(row), number);
        }
        assert_eq!(renumber.number(-1), None);
        assert_eq!(renumber.number(i64::MAX), None);
        assert!(renumber.around.len() <= 2);
    }
}

//! Spans nested in the span around them, device work joined to the launch that started it.
//!
//! Works on rows as they go by in timeline order, and keeps only what is open. What does not nest stays
//! without a parent: rows of other kinds, scopes that crossed a suspension (`"async":true`), and a span that
//! begins inside another of its track and ends outside it. A `wait` row is a window of time that holds no other row: its
//! parent is the innermost span that holds all of it.

use std::collections::VecDeque;

use crate::trace::{Event, HashMap, Kind, Names};

/// Correlation ids that share a word of [`Started`]'s bits: they are counted up, so most of a block is used.
const BLOCK: u64 = 512;

/// Which calls of a driver or runtime started device work: those whose correlation a device row has. In other profilers'
/// files and in recordings a device row may come before its launch, so this is known only when all rows were seen.
#[derive(Debug, Default)]
pub struct Started(HashMap<(u32, u64), [u64; (BLOCK / 64) as usize]>);

impl Started {
    /// Looks at one row.
    pub fn see(&mut self, event: &Event) {
        if let Some(correlation) = event.correlation.filter(|_| event.kind.on_device()) {
            let block = self.0.entry((event.process, correlation / BLOCK));
            let bit = correlation % BLOCK;
            block.or_default()[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }

    /// Makes a launch of a call that started something.
    pub fn mark(&self, event: &mut Event) {
        if let Some(correlation) = event.correlation.filter(|_| event.kind == Kind::Api)
            && let Some(block) = self.0.get(&(event.process, correlation / BLOCK))
            && block[(correlation % BLOCK / 64) as usize] >> (correlation % 64) & 1 == 1
        {
            event.kind = Kind::Launch;
        }
    }
}

/// Launches that are remembered: a device's queues hold a few thousand.
const MOST_LAUNCHES: usize = 1 << 20;

/// Gives `parent` and `cause` to rows that come in timeline order.
#[derive(Debug, Default)]
pub struct Nest {
    /// Open spans of each thread, by end and row number; each inside the one before.
    open: HashMap<(u32, u64), Vec<(i64, i64)>>,
    /// Row number of each launch, and which of them came first.
    launches: HashMap<(u32, u64), i64>,
    oldest: VecDeque<(u32, u64)>,
}

impl Nest {
    /// The next row, whose number is `row`. What it held of parent and cause is replaced.
    pub fn place(&mut self, row: i64, event: &mut Event, names: &Names) {
        event.parent = self.parent(row, event, names);
        event.cause = None;
        let Some(correlation) = event.correlation else {
            return;
        };
        let key = (event.process, correlation);
        if event.kind == Kind::Launch {
            let around = self.launches.get(&key).copied();
            if around.is_some() && around == event.parent {
                return; // the driver's call inside the runtime's: the outer one is the launch
            }
            if self.launches.insert(key, row).is_none() {
                self.oldest.push_back(key);
            }
            if self.oldest.len() > MOST_LAUNCHES
                && let Some(oldest) = self.oldest.pop_front()
            {
                self.launches.remove(&oldest);
            }
        } else if event.kind.on_device() {
            event.cause = self.launches.get(&key).copied();
        }
    }

    fn parent(&mut self, row: i64, event: &Event, names: &Names) -> Option<i64> {
        if event.kind == Kind::Wait {
            let open = self.open.get(&(event.process, event.tid))?;
            let until = event.end_ns().max(event.start_ns + 1); // not one that ends where an instant is
            let around = open.iter().rfind(|(end, _)| *end >= until);
            return around.map(|&(_, row)| row);
        }
        let nests = event.kind.nests() && event.device.is_none(); // a device's own syncs are on no thread
        if !nests || event.dur_ns.is_none() || crosses(event, names) {
            return None;
        }
        let (start, end) = (event.start_ns, event.end_ns());
        let track = self.open.entry((event.process, event.tid)).or_default();
        while track.last().is_some_and(|&(until, _)| until <= start) {
            track.pop();
        }
        match track.last() {
            Some(&(until, _)) if end > until => None,
            around => {
                let parent = around.map(|&(_, row)| row);
                track.push((end, row));
                parent
            }
        }
    }
}

/// A scope that was open while its task was suspended: it shares its thread with others' spans.
pub(crate) fn crosses(event: &Event, names: &Names) -> bool {
    let Some(args) = event.args.filter(|_| event.kind == Kind::Scope) else {
        return false;
    };
    let args = names.text(args);
    // Few have it, so the text is looked at before it is parsed.
    args.contains("\"async\"")
        && serde_json::from_str::<serde_json::Value>(args)
            .is_ok_and(|args| args.get("async") == Some(&serde_json::Value::Bool(true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::text::parse;

    fn placed(text: &str) -> Vec<(Option<i64>, Option<i64>)> {
        let (mut events, names) = parse(text).unwrap();
        let mut nest = Nest::default();
        let rows = events.iter_mut().enumerate();
        rows.map(|(row, event)| {
            nest.place(row as i64, event, &names);
            (event.parent, event.cause)
        })
        .collect()
    }

    #[test]
    fn a_span_is_inside_the_shortest_one_that_holds_it() {
        let parents = placed(
            r#"track    kind    start  end   name  args
               py:main  python  0us    10us  f
               py:main  scope   1us    12us  late
               py:main  scope   1us    9us   task  {"async":true}
               py:main  python  2us    4us   g
               py:w     python  2us    3us   other
               py:main  native  3us    4us   dot
               py:main  wait    3us    4us   blocked
               py:main  python  4us    10us  h"#,
        );
        let parents: Vec<_> = parents.iter().map(|p| p.0).collect();
        let (f, g) = (Some(0), Some(3));
        let dot = Some(5);
        assert_eq!(parents, [None, None, None, f, None, g, dot, f]);
    }

    #[test]
    fn device_work_is_caused_by_the_launch_of_its_process_and_correlation() {
        let causes = placed(
            "track       kind    start  end   correlation
             py:main     launch  0us    8us   1
             py:main@1   launch  1us    8us   1
             cuda:0/7    kernel  9us    10us  1
             cuda:0/7@1  memcpy  9us    10us  1
             cuda:0/7    sync    9us    10us  1
             cuda:0/7    kernel  9us    10us  2",
        );
        let causes: Vec<_> = causes.iter().map(|c| c.1).collect();
        assert_eq!(causes, [None, None, Some(0), Some(1), None, None]);
    }
}

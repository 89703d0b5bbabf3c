//! Spans nested in the span around them, device work joined to the launch that started it.
//!
//! Works on rows as they go by in timeline order, and keeps only what is open. What does not nest stays
//! without a parent: rows of other kinds, scopes that crossed a suspension (`"async":true`), ranges of NVTX that may end
//! on another thread (they have a flow), and a span that begins inside another of its track and ends outside it; but
//! ranges of NVTX that a thread pushes and pops may cross others: then the shortest span that holds a row is its parent. A `wait` row is a window of time that holds no other row: its
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
    open: HashMap<(u32, u64), Track>,
    /// Row number of each launch, and which of them came first.
    launches: HashMap<(u32, u64), i64>,
    oldest: VecDeque<(u32, u64)>,
}

/// The open spans of a thread, by start.
#[derive(Debug, Default)]
struct Track {
    open: Vec<Open>,
    /// A range of NVTX crosses others: not each is inside the one before.
    crossed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    start: i64,
    end: i64,
    row: i64,
    nvtx: bool,
}

impl Track {
    /// Forgets what ended before `start`.
    fn close(&mut self, start: i64) {
        if self.crossed {
            self.open.retain(|open| open.end > start);
            self.crossed = !self
                .open
                .is_sorted_by(|around, open| open.end <= around.end);
        } else {
            while self.open.pop_if(|open| open.end <= start).is_some() {}
        }
    }

    /// Adds a span that begins now; its parent. One that crosses others is left out, unless NVTX has to do with each.
    fn nest(&mut self, new: Open) -> Option<i64> {
        self.close(new.start);
        if self.crossed || self.open.last().is_some_and(|top| top.end < new.end) {
            let crosses = |open: &&Open| open.end < new.end;
            if self
                .open
                .iter()
                .filter(crosses)
                .any(|open| !open.nvtx && !new.nvtx)
            {
                return None;
            }
            self.crossed = true; // `close` looks again
        }
        let around = match self.crossed {
            false => self.open.last(),
            true => self.shortest(new.end),
        };
        let parent = around.map(|open| open.row);
        self.open.push(new);
        parent
    }

    fn shortest(&self, until: i64) -> Option<&Open> {
        let around = self.open.iter().rev().filter(|open| open.end >= until);
        around.min_by_key(|open| open.end.saturating_sub(open.start))
    }
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
            return open.shortest(until).map(|open| open.row);
        }
        let nests = event.kind.nests() && event.device.is_none(); // a device's own syncs are on no thread
        if !nests || event.dur_ns.is_none() || crosses(event, names) {
            return None;
        }
        let track = self.open.entry((event.process, event.tid)).or_default();
        track.nest(Open {
            start: event.start_ns,
            end: event.end_ns(),
            row,
            nvtx: event.kind == Kind::Nvtx,
        })
    }
}

/// A scope that was open while its task was suspended, or a range of NVTX that may end on another thread: it shares its
/// thread with others' spans.
pub(crate) fn crosses(event: &Event, names: &Names) -> bool {
    if event.kind == Kind::Nvtx {
        return event.flow.is_some();
    }
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
    fn ranges_of_nvtx_that_cross_others_disturb_nobodys_nesting() {
        // f calls a function that pushes A, and one that pops it; R may end on another thread; B is of another domain.
        let parents = placed(
            "track    kind    start  end    name   flow
             py:main  nvtx    0us    55us   R      1
             py:main  python  1us    110us  f
             py:main  python  10us   20us   enter
             py:main  native  12us   18us   push
             py:main  nvtx    15us   100us  A
             py:main  native  16us   17us   within
             py:main  python  30us   40us   g
             py:main  nvtx    50us   103us  B
             py:main  python  60us   70us   h
             py:main  python  95us   105us  exit
             py:main  native  96us   102us  pop
             py:main  python  101us  102us  last
             py:main  python  106us  120us  crosses
             py:main  python  107us  108us  after",
        );
        let parents: Vec<_> = parents.iter().map(|p| p.0).collect();
        let [f, enter, push, a, b, exit, pop] = [1, 2, 3, 4, 7, 9, 10].map(Some);
        assert_eq!(parents[..6], [None, None, f, enter, f, push]);
        assert_eq!(parents[6..], [a, f, b, f, exit, pop, None, f]);
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

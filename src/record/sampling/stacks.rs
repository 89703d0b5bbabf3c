//! Sampled stacks to spans: what stays on a thread's stack from one sample to the next is one span.
//!
//! Two calls of one function between which no sample falls are one span, and a call between two samples is none: spans
//! tell time, not calls. An edge lies between a sample without the frame and one with it; the middle is taken, and the
//! error of a span is half of both gaps.

use std::collections::{HashMap, HashSet};

/// The frame on top of a thread that waits.
pub const WAITING: u32 = 0;

/// After so many periods without a sample nothing is known: spans end half a period behind the last one.
const MOST_GAP: i64 = 10;

/// What one sample says of a thread: frames by number, the outermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub tid: u64,
    pub frames: Vec<u32>,
}

/// A frame that was seen in one sample or in several in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub tid: u64,
    pub frame: u32,
    pub start_ns: i64,
    pub end_ns: i64,
    /// Its length is right to within this.
    pub error_ns: i64,
}

/// The stacks of one process.
#[derive(Debug)]
pub struct Stacks {
    period_ns: i64,
    threads: HashMap<u64, Thread>,
    last_ns: Option<i64>,
    /// Frames that were seen outermost, and those that were seen below one.
    roots: HashSet<u32>,
    inner: HashSet<u32>,
    /// Samples of one thread, in all and torn ones.
    pub samples: u64,
    pub torn: u64,
}

#[derive(Debug)]
struct Thread {
    last_ns: i64,
    open: Vec<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    frame: u32,
    start_ns: i64,
    error_ns: i64,
}

impl Stacks {
    /// Stacks that are sampled once in `period_ns`.
    pub fn new(period_ns: i64) -> Stacks {
        Stacks {
            period_ns,
            threads: HashMap::new(),
            last_ns: None,
            roots: HashSet::new(),
            inner: HashSet::new(),
            samples: 0,
            torn: 0,
        }
    }

    /// Takes one sample of all threads; spans that are over go to `out`, inner ones first.
    pub fn take(&mut self, at_ns: i64, seen: &[Seen], out: &mut Vec<Span>) {
        let gone: Vec<u64> = (self.threads.keys().copied())
            .filter(|tid| !seen.iter().any(|seen| seen.tid == *tid))
            .collect();
        for tid in gone {
            let Some(mut thread) = self.threads.remove(&tid) else {
                continue;
            };
            let (end_ns, error_ns, _) = edges(self.period_ns, thread.last_ns, at_ns);
            thread.close(tid, 0, end_ns, error_ns, out);
        }
        let before_ns = self.last_ns.unwrap_or(at_ns - self.period_ns);
        self.last_ns = Some(at_ns);
        for seen in seen {
            self.samples += 1;
            if self.is_torn(&seen.frames) {
                self.torn += 1;
                continue;
            }
            let thread = self.threads.entry(seen.tid).or_insert_with(|| Thread {
                last_ns: before_ns,
                open: Vec::new(),
            });
            thread.take(seen, self.period_ns, at_ns, out);
        }
    }

    /// Ends all that is open; the process was there no longer than `at_ns`.
    pub fn end(&mut self, at_ns: i64, out: &mut Vec<Span>) {
        let mut threads: Vec<_> = self.threads.drain().collect();
        threads.sort_unstable_by_key(|(tid, _)| *tid);
        for (tid, mut thread) in threads {
            let half_ns = self.period_ns / 2;
            let end_ns = (thread.last_ns + half_ns).min(at_ns.max(thread.last_ns));
            thread.close(tid, 0, end_ns, half_ns, out);
        }
    }

    /// What is open, as if it ended with the last sample; inner ones first.
    pub fn open(&self, out: &mut Vec<Span>) {
        for (&tid, thread) in &self.threads {
            out.extend(thread.open.iter().rev().map(|open| Span {
                tid,
                frame: open.frame,
                start_ns: open.start_ns,
                end_ns: thread.last_ns.max(open.start_ns),
                error_ns: open.error_ns + self.period_ns / 2,
            }));
        }
    }

    /// The program ran on while its stack was read. A chain of frames that broke off has for its outermost frame one
    /// that always stood within others.
    fn is_torn(&mut self, frames: &[u32]) -> bool {
        let Some((root, inner)) = frames.split_first() else {
            return false;
        };
        if !self.roots.contains(root) && self.inner.contains(root) {
            return true;
        }
        self.roots.insert(*root);
        self.inner.extend(inner);
        false
    }
}

impl Thread {
    fn take(&mut self, seen: &Seen, period_ns: i64, at_ns: i64, out: &mut Vec<Span>) {
        let (end_ns, error_ns, start_ns) = edges(period_ns, self.last_ns, at_ns);
        let same = match start_ns == end_ns {
            true => (self.open.iter().zip(&seen.frames))
                .take_while(|(open, frame)| open.frame == **frame)
                .count(),
            false => 0,
        };
        self.close(seen.tid, same, end_ns, error_ns, out);
        self.open
            .extend(seen.frames[same..].iter().map(|&frame| Open {
                frame,
                start_ns,
                error_ns,
            }));
        self.last_ns = at_ns;
    }

    /// Ends the frames from `depth` on.
    fn close(&mut self, tid: u64, depth: usize, end_ns: i64, error_ns: i64, out: &mut Vec<Span>) {
        out.extend(self.open.drain(depth..).rev().map(|open| Span {
            tid,
            frame: open.frame,
            start_ns: open.start_ns,
            end_ns: end_ns.max(open.start_ns),
            error_ns: open.error_ns + error_ns,
        }));
    }
}

/// Between two samples: where what ended did, by how much that may be wrong, and where what began did.
fn edges(period_ns: i64, last_ns: i64, at_ns: i64) -> (i64, i64, i64) {
    let gap_ns = at_ns - last_ns;
    let half_ns = period_ns / 2;
    match gap_ns > MOST_GAP * period_ns {
        true => (last_ns + half_ns, half_ns, at_ns - half_ns),
        false => (last_ns + gap_ns / 2, (gap_ns + 1) / 2, last_ns + gap_ns / 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of thread 1 at ms, as spans `frame start+length ±error`, in ms.
    fn spans(samples: &[(i64, &[u32])]) -> Vec<String> {
        let (mut stacks, mut out) = (Stacks::new(10_000_000), Vec::new());
        for (at, frames) in samples {
            let seen = match frames.is_empty() {
                true => vec![],
                false => vec![Seen {
                    tid: 1,
                    frames: frames.to_vec(),
                }],
            };
            stacks.take(at * 1_000_000, &seen, &mut out);
        }
        let last = samples.last().map_or(0, |(at, _)| *at);
        stacks.end((last + 2) * 1_000_000, &mut out);
        let ms = |ns: i64| ns as f64 / 1e6;
        out.iter()
            .map(|s| {
                let (start, length) = (ms(s.start_ns), ms(s.end_ns - s.start_ns));
                format!("{} {start}+{length} ±{}", s.frame, ms(s.error_ns))
            })
            .collect()
    }

    #[test]
    fn what_stays_on_the_stack_is_one_span_with_edges_between_samples() {
        let got = spans(&[
            (100, &[5, 6]),
            (110, &[5, 7]),
            (122, &[5, 7, 7]),
            (130, &[5]),
        ]);
        assert_eq!(
            got,
            ["6 95+10 ±10", "7 116+10 ±10", "7 105+21 ±9", "5 95+37 ±10"]
        );
    }

    #[test]
    fn a_thread_that_is_gone_and_a_long_silence_end_spans() {
        assert_eq!(
            spans(&[(100, &[5]), (110, &[5]), (120, &[])]),
            ["5 95+20 ±10"]
        );
        assert_eq!(
            spans(&[(100, &[5]), (300, &[5])]),
            ["5 95+10 ±10", "5 295+7 ±10"]
        );
    }

    #[test]
    fn a_chain_that_broke_off_is_left_out() {
        let (mut stacks, mut out) = (Stacks::new(10), Vec::new());
        for (at, frames) in [(10, vec![1, 2, 3]), (20, vec![2, 3]), (30, vec![1, 2, 3])] {
            stacks.take(at, &[Seen { tid: 1, frames }], &mut out);
        }
        stacks.end(40, &mut out);
        assert_eq!((stacks.samples, stacks.torn), (3, 1));
        assert_eq!(out.len(), 3, "{out:?}");
        assert!(out.iter().all(|s| (s.start_ns, s.end_ns) == (5, 35)));
    }
}

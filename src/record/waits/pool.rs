//! Looks that found a thread waiting, and time blocked that the kernel counted meanwhile: the one is shared out by the
//! other.
//!
//! A look stands for the time until the next one. As looks come at moments that do not depend on what the thread does,
//! the time that looks at a state stand for is on average the time it takes. To share out the time blocked after each
//! look by itself is tempting and wrong: how much that is depends on the state, for one state is followed by work
//! and another is not (18 % off in the test below).

use super::{Blocked, Row, What};

/// A row that goes on, or waits for its pool to be settled.
#[derive(Debug)]
pub(super) struct Open {
    pub blocked: Blocked,
    pub start_ns: i64,
    pub end_ns: i64,
    /// Time waited for certain.
    pub certain_ns: i64,
    /// Sum of the squares of what may be wrong of it.
    pub wrong2: f64,
    looks: Looks,
}

/// Looks after which the thread did not stay as it was.
#[derive(Clone, Copy, Debug, Default)]
struct Looks {
    count: f64,
    /// Time they stand for, and the sum of its squares.
    ns: f64,
    squares: f64,
}

impl Looks {
    fn add(&mut self, other: Looks) {
        self.count += other.count;
        self.ns += other.ns;
        self.squares += other.squares;
    }
}

impl Open {
    pub fn new(blocked: Blocked, start_ns: i64) -> Open {
        Open {
            blocked,
            start_ns,
            end_ns: start_ns,
            certain_ns: 0,
            wrong2: 0.0,
            looks: Looks::default(),
        }
    }

    /// A look at this wait stood for so long.
    pub fn stood_for(&mut self, ns: i64) {
        let ns = ns as f64;
        self.looks.add(Looks {
            count: 1.0,
            ns,
            squares: ns * ns,
        });
    }

    /// It waited so long, unless it was for something else.
    pub fn guess(&mut self, ns: i64) {
        self.certain_ns += ns;
        self.wrong2 += (ns as f64).powi(2);
    }

    fn row(&self, waited_ns: i64, error2: f64) -> Option<Row> {
        let dur_ns = self.end_ns - self.start_ns;
        let waited_ns = waited_ns.min(dur_ns);
        (waited_ns > 0).then(|| Row {
            what: What::Blocked(self.blocked),
            start_ns: self.start_ns,
            end_ns: self.end_ns,
            waited_ns,
            error_ns: (error2.sqrt().ceil() as i64).min(dur_ns),
        })
    }
}

/// Rows of some time, and the time blocked that they share.
#[derive(Debug)]
pub(super) struct Pool {
    pub start_ns: i64,
    closed: Vec<Open>,
    blocked_ns: i64,
}

impl Pool {
    pub fn new(start_ns: i64) -> Pool {
        Pool {
            start_ns,
            closed: Vec::new(),
            blocked_ns: 0,
        }
    }

    /// Time blocked, nobody knows in what.
    pub fn add(&mut self, blocked_ns: i64) {
        self.blocked_ns += blocked_ns;
    }

    /// Takes a row that ended.
    pub fn close(&mut self, open: Open) {
        self.closed.push(open);
    }

    /// Shares out what there is. What does not fit into the rows is left for the next pool, which begins at `now_ns`.
    pub fn settle(&mut self, now_ns: i64, rows: &mut Vec<Row>) {
        self.start_ns = now_ns;
        let mut all = Looks::default();
        self.closed.iter().for_each(|open| all.add(open.looks));
        let closed = std::mem::take(&mut self.closed);
        let scale = self.blocked_ns as f64 / all.ns.max(1.0);
        for open in &closed {
            let room_ns = (open.end_ns - open.start_ns - open.certain_ns).max(0);
            let share_ns = ((open.looks.ns * scale) as i64).min(room_ns);
            self.blocked_ns -= share_ns;
            let alike = closed
                .iter()
                .filter(|other| other.blocked.waiting == open.blocked.waiting);
            let alike: f64 = alike.map(|other| other.looks.count).sum();
            // The chance to be seen in this wait, by Laplace's rule: it may be less than always if no look saw another.
            let chance = (alike + 1.0) / (all.count + 2.0);
            let error2 = chance * (1.0 - chance) * all.squares * scale * scale;
            let mine = open.looks.count / alike.max(1.0);
            rows.extend(open.row(open.certain_ns + share_ns, open.wrong2 + error2 * mine));
        }
    }

    /// Time blocked that is in no row.
    pub fn rest(&mut self) -> i64 {
        std::mem::take(&mut self.blocked_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::syscall::{State, Waiting};
    use super::super::*;

    const MS: f64 = 1e6;

    /// A cycle that a thread goes through again and again: what it waits for (`None`: it works), and for how long.
    type Cycle = [(Option<State>, f64)];

    /// CPU time, and the number of turns, of a thread at a time; what it waits for.
    fn at(cycle: &Cycle, time_ns: f64) -> (Sums, Option<State>) {
        let whole: f64 = cycle.iter().map(|(_, ns)| ns).sum();
        let works: f64 = cycle
            .iter()
            .filter(|(s, _)| s.is_none())
            .map(|(_, ns)| ns)
            .sum();
        let turns = (time_ns / whole).floor();
        let mut left = time_ns - turns * whole;
        let (mut cpu_ns, mut slices) = (turns * works, turns as u64 * cycle.len() as u64);
        for &(state, ns) in cycle {
            let passed = left.min(ns);
            if state.is_none() {
                cpu_ns += passed;
            }
            left -= passed;
            if left <= 0.0 {
                let sums = Sums {
                    cpu_ns: cpu_ns as i64,
                    runnable_ns: 0,
                    slices,
                };
                return (sums, state);
            }
            slices += 1;
        }
        (Sums::default(), None)
    }

    /// The share of each state, the truth and what looks `pause_ns` apart say with their error.
    fn looked_at(cycle: &Cycle, pause_ns: f64, seed: u64) -> Vec<(f64, f64, f64)> {
        let (mut waits, mut rows) = (Waits::new(0), Vec::new());
        let (mut random, mut now_ns, end_ns) = (seed, 0.0, 20e9);
        while now_ns < end_ns {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            now_ns += pause_ns * (0.5 + (random >> 11) as f64 / (1u64 << 53) as f64);
            let (sums, state) = at(cycle, now_ns);
            let blocked = state.map(|state| Blocked {
                waiting: Waiting {
                    state,
                    ..Waiting::UNKNOWN
                },
                file: "",
                holder: None,
            });
            match blocked {
                Some(_) if waits.goes_on(sums) => waits.stays(now_ns as i64, &mut rows),
                Some(blocked) => waits.waits(now_ns as i64, sums, blocked, &mut rows),
                None => waits.runs(now_ns as i64, sums, &mut rows),
            }
        }
        waits.finish(&mut rows);
        let whole: f64 = cycle.iter().map(|(_, ns)| ns).sum();
        let states = cycle
            .iter()
            .filter_map(|&(state, ns)| Some((state?, ns / whole)));
        let of = |(state, truth): (State, f64)| {
            let mine = rows.iter().filter(
                |row| matches!(row.what, What::Blocked(blocked) if blocked.waiting.state == state),
            );
            let (mut seen, mut error2) = (0.0, 0.0);
            for row in mine {
                seen += row.waited_ns as f64;
                error2 += (row.error_ns as f64).powi(2);
            }
            (truth, seen / now_ns, error2.sqrt() / now_ns)
        };
        states.map(of).collect()
    }

    #[test]
    fn states_have_the_share_that_they_take_whatever_follows_them() {
        let works = None;
        let cycle = [
            (Some(State::Lock), 6.0 * MS),
            (works, 7.0 * MS),
            (Some(State::Io), 5.3 * MS),
            (works, 0.1 * MS),
        ];
        for pause_ms in [2.0, 5.0, 10.0, 20.0] {
            let (mut misses, mut sum) = (0, 0.0);
            for seed in 1..=20 {
                for (truth, seen, error) in looked_at(&cycle, pause_ms * MS, seed * 0x9E37_79B9) {
                    assert!(
                        (seen / truth - 1.0).abs() < 0.1,
                        "{pause_ms}: {seen} of {truth}"
                    );
                    misses += usize::from((seen - truth).abs() > 2.0 * error);
                    sum += seen / truth - 1.0;
                }
            }
            assert!(
                misses <= 4,
                "{pause_ms}: {misses} of 40 are further off than they say"
            );
            assert!((sum / 40.0).abs() < 0.01, "{pause_ms}: {}", sum / 40.0);
        }
    }
}

//! What one thread waited for, from looks at it: sums that are exact, split by what was seen.
//!
//! The kernel's sums (CPU time, time runnable) are exact while a thread does not run, so the time it was blocked
//! between two looks that find it blocked is known to the ns. What it waited for is known for certain if it did not run
//! in between; else it is shared out over what looks saw, see [`pool`], and the error is one of chance.

mod pool; // time blocked, over the waits that were seen meanwhile

use super::syscall::Waiting;
use pool::{Open, Pool};

/// Time that a row may cover when the thread ran in between. Short, so that the row's place is that of most of it.
const MOST_NS: i64 = 100_000_000;

/// Runnable time is written when it comes to this much, so that a thread that never lacks a processor has no rows.
const LEAST_RUNNABLE_NS: i64 = 1_000_000;

/// Time blocked at a thread's end of which nothing was seen is written from this much on.
const LEAST_NS: i64 = 1_000_000;

/// The CPU time of a thread that runs is as old as the last tick of the kernel, up to 10 ms (CONFIG_HZ of 100).
const TICK_NS: i64 = 10_000_000;

/// /proc/PID/task/TID/schedstat: CPU time, time runnable, and how often it got a processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub cpu_ns: i64,
    pub runnable_ns: i64,
    pub slices: u64,
}

impl Sums {
    /// What came to them since.
    pub fn since(self, before: Sums) -> Sums {
        Sums {
            cpu_ns: self.cpu_ns - before.cpu_ns,
            runnable_ns: self.runnable_ns - before.runnable_ns,
            slices: self.slices.saturating_sub(before.slices),
        }
    }

    pub fn parse(line: &str) -> Option<Sums> {
        let mut words = line.split_ascii_whitespace();
        Some(Sums {
            cpu_ns: words.next()?.parse().ok()?,
            runnable_ns: words.next()?.parse().ok()?,
            slices: words.next()?.parse().ok()?,
        })
    }
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Runnable,
    Blocked(Blocked),
}

/// A wait as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    pub waiting: Waiting,
    /// What kind of file it waits for.
    pub file: &'static str,
    /// The state, in the interpreter, of the thread that has the GIL.
    pub holder: Option<u64>,
}

impl Blocked {
    /// Nothing is known of what it waits for.
    const UNKNOWN: Blocked = Blocked {
        waiting: Waiting::UNKNOWN,
        file: "",
        holder: None,
    };
}

/// A wait of one thread, or several of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    pub what: What,
    pub start_ns: i64,
    pub end_ns: i64,
    /// Time waited between the two.
    pub waited_ns: i64,
    /// How far off that may be; errors of different rows are independent.
    pub error_ns: i64,
}

/// The account of one thread.
#[derive(Debug)]
pub struct Waits {
    first_ns: i64,
    /// Where a row begins that nothing came before.
    from_ns: i64,
    open: Option<Open>,
    /// When the last look found it waiting, until the next one.
    stands_ns: Option<i64>,
    pool: Pool,
    /// Time blocked up to the last look that found it so, and the sums of that look.
    blocked_ns: i64,
    sums: Option<Sums>,
    /// Of the last look.
    last: (i64, Sums),
    /// Where the runnable time that is not written begins.
    runnable_from: (i64, i64),
}

impl Waits {
    /// A thread that began at `first_ns`.
    pub fn new(first_ns: i64) -> Waits {
        Waits {
            first_ns,
            from_ns: first_ns,
            open: None,
            stands_ns: None,
            pool: Pool::new(first_ns),
            blocked_ns: 0,
            sums: None,
            last: (first_ns, Sums::default()),
            runnable_from: (first_ns, 0),
        }
    }

    /// Whether the thread is still in the wait that the last look saw.
    pub fn goes_on(&self, sums: Sums) -> bool {
        self.sums == Some(sums) && self.stands_ns.is_some()
    }

    /// Whether it has lacked a processor for so long that one may not take it for waiting still when it has not run
    /// since: it may have been woken.
    pub fn is_crowded(&self) -> bool {
        self.last.1.runnable_ns > self.blocked_ns / 50
    }

    /// How often it had got a processor when it was last seen to wait.
    pub fn slices(&self) -> u64 {
        self.sums.map_or(0, |sums| sums.slices)
    }

    /// The sums at the last look.
    pub fn last(&self) -> Sums {
        self.last.1
    }

    /// Whether a look that sees this begins a row of its own.
    pub fn is_new(&self, now_ns: i64, waiting: &Waiting) -> bool {
        self.open.as_ref().is_none_or(|open| {
            open.blocked.waiting != *waiting || now_ns - self.pool.start_ns >= MOST_NS
        })
    }

    /// A look found the thread running, or able to.
    pub fn runs(&mut self, now_ns: i64, sums: Sums, rows: &mut Vec<Row>) {
        self.looked(now_ns);
        self.last = (now_ns, sums);
        self.runnable(rows);
    }

    /// A look found the thread in the wait of the look before; see [`Waits::goes_on`].
    pub fn stays(&mut self, now_ns: i64, rows: &mut Vec<Row>) {
        let Some(sums) = self.sums else { return };
        self.last = (now_ns, sums);
        self.runnable(rows);
        let waited_ns = self.waited(self.total(now_ns, sums));
        self.stands_ns = Some(now_ns);
        if let Some(open) = &mut self.open {
            open.certain_ns += waited_ns;
        }
    }

    /// A look found the thread in another wait than the one before, or in one that may be another.
    pub fn waits(&mut self, now_ns: i64, sums: Sums, blocked: Blocked, rows: &mut Vec<Row>) {
        self.looked(now_ns);
        self.stands_ns = Some(now_ns);
        self.last = (now_ns, sums);
        self.runnable(rows);
        let is_new = self.is_new(now_ns, &blocked.waiting);
        let waited_ns = self.waited(self.total(now_ns, sums));
        match &mut self.open {
            // It had been woken when it seemed to stay.
            Some(open) if waited_ns < 0 => open.certain_ns += waited_ns,
            Some(_) => self.pool.add(waited_ns),
            // What it waited for before the first look was most likely the same.
            None => {
                let mut open = Open::new(blocked, self.from_ns);
                open.guess(waited_ns);
                self.open = Some(open);
            }
        }
        if is_new {
            self.close(now_ns);
            self.open = Some(Open::new(blocked, now_ns));
        }
        if now_ns - self.pool.start_ns >= MOST_NS {
            self.pool.settle(now_ns, rows);
        }
        self.sums = Some(sums);
    }

    /// Ends the rows at the last look; what comes after is in rows of its own.
    pub fn cut(&mut self, rows: &mut Vec<Row>) {
        let (now_ns, sums) = self.last;
        let goes_on = self.open.as_ref().filter(|_| self.sums == Some(sums));
        let blocked = goes_on.map(|open| open.blocked);
        self.close(now_ns);
        self.pool.settle(now_ns, rows);
        self.from_ns = now_ns;
        self.open = blocked.map(|blocked| Open::new(blocked, now_ns));
        if sums.runnable_ns > self.runnable_from.1 {
            self.write_runnable(rows);
        }
    }

    /// The thread is gone, or is not looked at any more.
    pub fn finish(&mut self, rows: &mut Vec<Row>) {
        let (now_ns, sums) = self.last;
        let rest_ns = self.total(now_ns, sums) - self.blocked_ns;
        if self.sums != Some(sums) && rest_ns > TICK_NS {
            self.pool.add(rest_ns);
        }
        self.close(now_ns);
        self.pool.settle(now_ns, rows);
        let rest_ns = self.pool.rest();
        if rest_ns >= LEAST_NS {
            let mut unknown = Open::new(Blocked::UNKNOWN, self.from_ns);
            unknown.guess(rest_ns);
            self.open = Some(unknown);
            self.close(now_ns);
            self.pool.settle(now_ns, rows);
        }
        if sums.runnable_ns > self.runnable_from.1 {
            self.write_runnable(rows);
        }
    }

    /// Time blocked from the thread's beginning on.
    fn total(&self, now_ns: i64, sums: Sums) -> i64 {
        now_ns - self.first_ns - sums.cpu_ns - sums.runnable_ns
    }

    /// What was added to the blocked time, which is now `total_ns`. Less than nothing if the thread, when it was last
    /// looked at, had been woken and had no processor yet: the kernel counts that when it gets one.
    fn waited(&mut self, total_ns: i64) -> i64 {
        total_ns - std::mem::replace(&mut self.blocked_ns, total_ns)
    }

    /// The look before, if it found the thread waiting, stood for the time until now.
    fn looked(&mut self, now_ns: i64) {
        if let (Some(since_ns), Some(open)) = (self.stands_ns.take(), &mut self.open) {
            open.stood_for(now_ns - since_ns);
        }
    }

    fn close(&mut self, now_ns: i64) {
        if let Some(mut open) = self.open.take() {
            open.end_ns = now_ns;
            self.pool.close(open);
        }
    }

    /// Writes the runnable time now and then; a window without any grows.
    fn runnable(&mut self, rows: &mut Vec<Row>) {
        let (now_ns, sums) = self.last;
        let (from_ns, before_ns) = self.runnable_from;
        if now_ns - from_ns >= MOST_NS && sums.runnable_ns - before_ns >= LEAST_RUNNABLE_NS {
            self.write_runnable(rows);
        }
    }

    fn write_runnable(&mut self, rows: &mut Vec<Row>) {
        let (now_ns, sums) = self.last;
        let (from_ns, before_ns) = self.runnable_from;
        let waited_ns = (sums.runnable_ns - before_ns).clamp(0, now_ns - from_ns);
        // The kernel counts such a time when it ends: it may have begun in the window before.
        self.runnable_from = (now_ns, before_ns + waited_ns);
        if waited_ns > 0 {
            rows.push(Row {
                what: What::Runnable,
                start_ns: from_ns,
                end_ns: now_ns,
                waited_ns,
                error_ns: 0,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::syscall::State;
    use super::*;

    const MS: i64 = 1_000_000;

    fn sums(cpu_ms: i64, runnable_ms: i64, slices: u64) -> Sums {
        Sums {
            cpu_ns: cpu_ms * MS,
            runnable_ns: runnable_ms * MS,
            slices,
        }
    }

    fn blocked(state: State) -> Blocked {
        Blocked {
            waiting: Waiting {
                state,
                ..Waiting::UNKNOWN
            },
            file: "",
            holder: None,
        }
    }

    /// Name, start, end, waited and error of each row, in ms.
    fn told(rows: &[Row]) -> Vec<(&'static str, i64, i64, i64, i64)> {
        let told = |row: &Row| {
            let name = match row.what {
                What::Runnable => "runnable",
                What::Blocked(blocked) => blocked.waiting.state.name(),
            };
            let ms = |ns: i64| ns / MS;
            (
                name,
                ms(row.start_ns),
                ms(row.end_ns),
                ms(row.waited_ns),
                ms(row.error_ns),
            )
        };
        rows.iter().map(told).collect()
    }

    #[test]
    fn a_wait_that_nothing_interrupts_is_exact_however_long_it_is() {
        let (mut waits, mut rows) = (Waits::new(0), Vec::new());
        waits.waits(10 * MS, sums(10, 0, 1), blocked(State::Sleep), &mut rows);
        assert!(waits.goes_on(sums(10, 0, 1)));
        for at in 1..50 {
            waits.stays((10 + 20 * at) * MS, &mut rows);
        }
        waits.finish(&mut rows);
        assert_eq!(told(&rows), [("sleep", 10, 990, 980, 0)]);
    }

    #[test]
    fn time_between_two_waits_is_that_of_the_earlier_one_and_its_error() {
        let (mut waits, mut rows) = (Waits::new(0), Vec::new());
        waits.waits(10 * MS, sums(10, 0, 1), blocked(State::Lock), &mut rows);
        waits.stays(20 * MS, &mut rows);
        waits.runs(22 * MS, sums(10, 0, 2), &mut rows);
        assert!(!waits.goes_on(sums(10, 0, 2)));
        // since 20 ms: blocked for 4 more, runnable for 3, at work for 3
        waits.waits(30 * MS, sums(13, 3, 3), blocked(State::Io), &mut rows);
        waits.stays(70 * MS, &mut rows);
        waits.finish(&mut rows);
        assert_eq!(
            told(&rows),
            [
                ("lock", 10, 30, 14, 1),
                ("io", 30, 70, 40, 0),
                ("runnable", 0, 70, 3, 0)
            ]
        );
    }

    #[test]
    fn a_thread_that_was_woken_and_had_no_processor_did_not_wait_meanwhile() {
        let (mut waits, mut rows) = (Waits::new(0), Vec::new());
        waits.waits(10 * MS, sums(10, 0, 1), blocked(State::Sleep), &mut rows);
        waits.stays(30 * MS, &mut rows); // woken at 20 ms
        waits.waits(35 * MS, sums(10, 14, 2), blocked(State::Lock), &mut rows); // ran at 34 ms
        waits.stays(50 * MS, &mut rows);
        waits.finish(&mut rows);
        assert_eq!(
            told(&rows),
            [
                ("sleep", 10, 35, 11, 0),
                ("lock", 35, 50, 15, 0),
                ("runnable", 0, 50, 14, 0)
            ]
        );
    }

    #[test]
    fn time_without_a_processor_is_counted_even_if_it_ends_in_another_window() {
        let (mut waits, mut rows) = (Waits::new(0), Vec::new());
        waits.runs(100 * MS, sums(40, 10, 2), &mut rows); // without one since 50 ms
        waits.runs(200 * MS, sums(60, 130, 3), &mut rows);
        waits.runs(310 * MS, sums(160, 140, 4), &mut rows);
        waits.finish(&mut rows);
        assert_eq!(
            told(&rows),
            [
                ("runnable", 0, 100, 10, 0),
                ("runnable", 100, 200, 100, 0),
                ("runnable", 200, 310, 30, 0)
            ]
        );
    }

    #[test]
    fn many_short_waits_of_one_kind_are_a_row_each_tenth_of_a_second() {
        let (mut waits, mut rows) = (Waits::new(0), Vec::new());
        for at in 1..=100 {
            waits.waits(
                10 * at * MS,
                sums(4 * at, 0, at as u64),
                blocked(State::Gil),
                &mut rows,
            );
        }
        waits.finish(&mut rows);
        let waited: i64 = rows.iter().map(|row| row.waited_ns).sum();
        assert_eq!(waited, 600 * MS);
        assert!((9..=12).contains(&rows.len()), "{rows:?}");
        assert!(rows.iter().all(|row| row.error_ns < 30 * MS));
    }

    #[test]
    fn a_thread_that_is_seen_to_be_woken_waits_no_more() {
        let (mut waits, mut rows) = (Waits::new(0), Vec::new());
        waits.waits(10 * MS, sums(10, 0, 1), blocked(State::Sleep), &mut rows);
        waits.stays(20 * MS, &mut rows);
        assert!(waits.goes_on(sums(10, 0, 1)) && !waits.is_crowded());
        waits.runs(30 * MS, sums(10, 0, 1), &mut rows); // woken at 24 ms
        assert!(!waits.goes_on(sums(10, 0, 1)));
        waits.waits(40 * MS, sums(12, 14, 2), blocked(State::Lock), &mut rows); // ran at 38 ms
        waits.stays(50 * MS, &mut rows);
        assert!(waits.is_crowded());
        waits.finish(&mut rows);
        assert_eq!(
            told(&rows),
            [
                ("sleep", 10, 40, 14, 1),
                ("lock", 40, 50, 10, 0),
                ("runnable", 0, 50, 14, 0)
            ]
        );
    }

    #[test]
    fn a_wait_that_is_cut_goes_on_in_a_row_of_its_own() {
        let (mut waits, mut rows) = (Waits::new(0), Vec::new());
        waits.waits(10 * MS, sums(7, 3, 1), blocked(State::Sleep), &mut rows);
        waits.stays(30 * MS, &mut rows);
        waits.cut(&mut rows);
        waits.stays(50 * MS, &mut rows);
        waits.runs(60 * MS, sums(12, 3, 2), &mut rows);
        waits.cut(&mut rows); // it runs
        waits.waits(80 * MS, sums(20, 3, 2), blocked(State::Io), &mut rows);
        waits.stays(90 * MS, &mut rows);
        waits.finish(&mut rows);
        assert_eq!(
            told(&rows),
            [
                ("sleep", 10, 30, 20, 0),
                ("runnable", 0, 30, 3, 0),
                ("sleep", 30, 60, 20, 0),
                ("io", 60, 80, 17, 17),
                ("io", 80, 90, 10, 0)
            ]
        );
    }

    #[test]
    fn a_thread_that_was_never_seen_waiting_has_waited_for_nobody_knows_what() {
        let (mut waits, mut rows) = (Waits::new(0), Vec::new());
        waits.runs(100 * MS, sums(60, 10, 9), &mut rows);
        waits.finish(&mut rows);
        assert_eq!(
            told(&rows),
            [("runnable", 0, 100, 10, 0), ("blocked", 0, 100, 30, 30)]
        );
        // up to a tick of its CPU time is not counted yet
        let (mut waits, mut rows) = (Waits::new(0), Vec::new());
        waits.runs(100 * MS, sums(91, 0, 9), &mut rows);
        waits.finish(&mut rows);
        assert!(rows.is_empty());
    }
}

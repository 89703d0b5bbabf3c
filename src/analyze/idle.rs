//! Why a device had nothing to do: each moment between its first and its last work gets one cause.
//!
//! A gap ends with the work that begins behind it, so what the thread that launched that work did meanwhile is the cause:
//! it had not come to the launch, and was in this or that; it was in the call; the call had returned.

use std::collections::{BTreeMap, VecDeque};

use super::device::Gpu;
use super::trail::{Doing, Label, Piece, sourced};
use super::waited::Waits;

/// A span that launches nothing and takes this long is work of its own, rather than a part of launching: the floor of
/// gpu_analysis' rule for long gaps. About ten launches would have fitted in.
pub const WORK_NS: i64 = 100_000;

/// The same of code in one span between two launches, where no span of its own tells what it does.
pub const INLINE_NS: i64 = 500_000;

/// A wait of this length may be for another thread, which is then looked at.
pub const FOLLOW_NS: i64 = 20_000;

/// Work that has been launched begins sooner, unless the device does something else.
pub const STALL_NS: i64 = 1_000_000;

/// A launch or another call of the driver that takes so long while the device is idle loads code, or sets a context up.
pub const LOADS_NS: i64 = 5_000_000;

/// Device work whose launch has not been seen after so long has none in this timeline. Clocks differ by less.
const LATE_NS: i64 = 1_000_000;

/// Why a moment passed; the words are the causes of gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cause {
    /// In a launch, or in framework code between two of them.
    Launch,
    Sync,
    Copy,
    /// In a function or operator that starts no device work.
    Preprocessing,
    Gil,
    Lock,
    Io,
    Sleep,
    Blocked,
    /// Without a processor.
    Runnable,
    Gc,
    /// Importing, compiling, loading.
    Import,
    Driver,
    Profiler,
    /// Nobody asked for anything.
    Idle,
    /// In code that nobody recorded.
    Host,
    /// Launched, and not begun.
    Queued,
    Unknown,
}

impl Cause {
    pub const ALL: [Cause; 18] = [
        Cause::Launch,
        Cause::Sync,
        Cause::Copy,
        Cause::Preprocessing,
        Cause::Gil,
        Cause::Lock,
        Cause::Io,
        Cause::Sleep,
        Cause::Blocked,
        Cause::Runnable,
        Cause::Gc,
        Cause::Import,
        Cause::Driver,
        Cause::Profiler,
        Cause::Idle,
        Cause::Host,
        Cause::Queued,
        Cause::Unknown,
    ];

    /// Its word in `gaps` and in facts.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Launch => "launch",
            Cause::Sync => "sync",
            Cause::Copy => "copy",
            Cause::Preprocessing => "preprocessing",
            Cause::Gil => "gil",
            Cause::Lock => "lock",
            Cause::Io => "io",
            Cause::Sleep => "sleep",
            Cause::Blocked => "blocked",
            Cause::Runnable => "runnable",
            Cause::Gc => "gc",
            Cause::Import => "import",
            Cause::Driver => "driver",
            Cause::Profiler => "profiler",
            Cause::Idle => "idle",
            Cause::Host => "host",
            Cause::Queued => "queued",
            Cause::Unknown => "unknown",
        }
    }

    /// For people: what the host did.
    pub fn words(self) -> &'static str {
        match self {
            Cause::Launch => "in launches, and in framework code between them",
            Cause::Sync => "in calls that wait for the device",
            Cause::Copy => "in calls that copy",
            Cause::Preprocessing => "in work that starts nothing on the device",
            Cause::Gil => "waiting for the GIL",
            Cause::Lock => "waiting for a lock, or another thread's answer",
            Cause::Io => "waiting for input or output",
            Cause::Sleep => "asleep",
            Cause::Blocked => "waiting for something unknown",
            Cause::Runnable => "without a processor",
            Cause::Gc => "collecting garbage",
            Cause::Import => "importing, compiling or loading code",
            Cause::Driver => "in other calls of the driver: memory, events",
            Cause::Profiler => "in the profiler's own work",
            Cause::Idle => "waiting for a request",
            Cause::Host => "in code that was not recorded",
            Cause::Queued => "done: launched, and not begun on the device",
            Cause::Unknown => "not known: the launch is not in the trace",
        }
    }

    pub fn of_wait(waits: Waits) -> Cause {
        match waits {
            Waits::Gil => Cause::Gil,
            Waits::Lock => Cause::Lock,
            Waits::Io => Cause::Io,
            Waits::Sleep => Cause::Sleep,
            Waits::Idle => Cause::Idle,
            Waits::Blocked => Cause::Blocked,
        }
    }
}

/// The cause of a piece of a host thread's time, if the thread's next launch begins at `launch_ns` and it ran for `ran_ns`
/// of the piece, and the span that is to blame.
pub fn cause(piece: &Piece, launch_ns: i64, ran_ns: i64) -> (Cause, Option<Label>) {
    let label = piece.place.as_ref().map(|place| place.label);
    let alone = match piece.doing {
        Doing::Launch | Doing::Driver if piece.to_ns - piece.from_ns >= LOADS_NS => Cause::Import,
        Doing::Launch => Cause::Launch,
        Doing::Copy => return (Cause::Copy, sourced(piece.place.as_ref())),
        Doing::Sync => return (Cause::Sync, sourced(piece.place.as_ref())),
        Doing::Driver => Cause::Driver,
        Doing::Gc => Cause::Gc,
        Doing::Import => Cause::Import,
        Doing::Wait(waits, _) => Cause::of_wait(waits),
        Doing::Profiler => Cause::Profiler,
        Doing::Op | Doing::Code => return work(piece, launch_ns, ran_ns),
        Doing::Outside if piece.to_ns - piece.from_ns < WORK_NS => Cause::Launch,
        Doing::Outside => Cause::Host,
    };
    (alone, label)
}

/// Of code: whether it is work of its own, and whose, or a part of launching.
fn work(piece: &Piece, launch_ns: i64, ran_ns: i64) -> (Cause, Option<Label>) {
    let (mut outermost, mut named) = (None, None);
    let mut next = piece.place.as_ref();
    while let Some(place) = next {
        if place.start_ns < piece.launched_ns {
            break;
        }
        if place.end_ns <= launch_ns {
            outermost = Some(place);
            named = if place.sourced { Some(place) } else { named };
        }
        next = place.around.as_ref();
    }
    if let Some(place) = outermost.filter(|place| place.end_ns - place.start_ns >= WORK_NS) {
        // A built-in's name says little: `next`, `exec`.
        let long = named.filter(|named| named.end_ns - named.start_ns >= WORK_NS);
        return (Cause::Preprocessing, Some(long.unwrap_or(place).label));
    }
    let label = sourced(piece.place.as_ref());
    let inline = ran_ns >= INLINE_NS;
    match piece.doing {
        Doing::Code if inline => (Cause::Preprocessing, label),
        _ => (Cause::Launch, label),
    }
}

/// A part of a stretch of a thread's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub cause: Cause,
    /// What is to blame.
    pub label: Option<Label>,
    pub ns: i64,
    /// The question that it is the subject of.
    pub asked: Option<u8>,
}

/// Device work that is to be set against the one before it.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub start_ns: i64,
    pub end_ns: i64,
    pub gpu: Gpu,
    /// Process and correlation of its launch.
    pub key: Option<(u32, u64)>,
    /// Its number, if it came before.
    pub launch: Option<u32>,
    pub row: i64,
}

/// The sum of one cause, of all devices or one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub time_ns: i64,
    /// Gaps that it has a part in.
    pub count: u64,
    /// The longest part, and the row of the work that ended its gap.
    pub longest: (i64, i64),
}

/// Idle time of the union of devices (`None`) and of each.
#[derive(Debug, Default)]
pub struct Gaps {
    pub sums: BTreeMap<(Option<Gpu>, Cause), Sum>,
    /// Of the union: by cause and what is to blame.
    pub labels: BTreeMap<(Cause, Label), i64>,
    /// Of the union: in which launched work did not begin for longer than [`STALL_NS`].
    pub stalled_ns: i64,
    reach_ns: BTreeMap<Option<Gpu>, i64>,
    /// The least of them.
    least_ns: Option<i64>,
    pending: VecDeque<Work>,
}

/// A gap to be explained: device (`None`: the union), from, to.
pub type Gap = (Option<Gpu>, i64, i64);

impl Gaps {
    /// Takes device work, in the order of its start.
    pub fn push(&mut self, work: Work) {
        self.pending.push_back(work);
    }

    /// The next work to set against the last, if its launch is known or does not come any more.
    pub fn due(&mut self, now_ns: i64, known: impl Fn((u32, u64)) -> bool) -> Option<Work> {
        let next = self.pending.front()?;
        let known = next.launch.is_some() || next.key.is_none_or(known);
        let ready = known || now_ns - next.start_ns > LATE_NS;
        ready.then(|| self.pending.pop_front()).flatten()
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The gaps that this work ends.
    pub fn next(&mut self, work: &Work) -> impl Iterator<Item = Gap> + use<> {
        let mut ended = |gpu: Option<Gpu>| {
            let reach = self.reach_ns.entry(gpu).or_insert(work.start_ns);
            let gap = (*reach < work.start_ns).then_some((gpu, *reach, work.start_ns));
            *reach = work.end_ns.max(*reach);
            gap
        };
        let gaps = [ended(None), ended(Some(work.gpu))];
        self.least_ns = self.reach_ns.values().min().copied();
        gaps.into_iter().flatten()
    }

    /// Until when devices are known to be busy: nobody asks for what lies before. `None` before the first work.
    pub fn reach_ns(&self) -> Option<i64> {
        let waiting = self.pending.front().map(|work| work.start_ns);
        self.least_ns.or(waiting)
    }

    /// Books the parts of a gap; they add up to its length.
    pub fn book(&mut self, gap: Gap, parts: &[Part], row: i64) {
        let mut by_cause = [0; Cause::ALL.len()];
        for &Part {
            cause, label, ns, ..
        } in parts.iter().filter(|part| part.ns > 0)
        {
            by_cause[cause as usize] += ns;
            if let Some(label) = label.filter(|_| gap.0.is_none()) {
                *self.labels.entry((cause, label)).or_default() += ns;
            }
        }
        for (cause, ns) in Cause::ALL.into_iter().zip(by_cause) {
            if ns == 0 {
                continue;
            }
            let sum = self.sums.entry((gap.0, cause)).or_default();
            sum.time_ns += ns;
            sum.count += 1;
            sum.longest = sum.longest.max((ns, row));
        }
    }

    /// The span with most of a cause.
    pub fn most(&self, cause: Cause) -> Option<(Label, i64)> {
        let of = self.labels.iter().filter(|((c, _), _)| *c == cause);
        // Ties go to the first.
        let most = of.rev().max_by_key(|(_, ns)| **ns);
        most.map(|((_, label), ns)| (*label, *ns))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::trail::Place;
    use super::*;

    fn place(start_ns: i64, end_ns: i64, around: Option<Rc<Place>>) -> Rc<Place> {
        Rc::new(Place {
            label: Label::Function(start_ns as u32),
            start_ns,
            end_ns,
            sourced: true,
            asked: None,
            around,
        })
    }

    fn piece(from_ns: i64, to_ns: i64, place: Rc<Place>) -> Piece {
        Piece {
            from_ns,
            to_ns,
            doing: Doing::Code,
            place: Some(place),
            launched_ns: 100,
        }
    }

    #[test]
    fn the_outermost_span_that_launches_nothing_is_to_blame() {
        let run = place(0, 10_000_000, None);
        let tokenize = place(1000, 900_000, Some(run.clone()));
        let lower = place(2000, 3000, Some(tokenize.clone()));
        let at = piece(2000, 3000, lower);
        let blamed = (Cause::Preprocessing, Some(Label::Function(1000)));
        assert_eq!(cause(&at, 1_000_000, 1000), blamed);
        // It launches before it ends: what is in it is a part of launching, if it is short.
        let (of, label) = cause(&at, 800_000, 1000);
        assert_eq!((of, label), (Cause::Launch, Some(Label::Function(2000))));
        // Code of the loop itself, long enough to be no part of launching.
        let at = piece(0, INLINE_NS, run);
        assert_eq!(
            cause(&at, 1_000_000, INLINE_NS),
            (Cause::Preprocessing, Some(Label::Function(0)))
        );
    }

    #[test]
    fn gaps_are_between_the_ends_of_all_and_the_next_start() {
        let mut gaps = Gaps::default();
        let work = |device, start_ns, end_ns| Work {
            start_ns,
            end_ns,
            gpu: Gpu { owner: 0, device },
            key: None,
            launch: None,
            row: 0,
        };
        let mut ends = |work: Work| -> Vec<_> {
            let all = gaps.next(&work);
            all.map(|(gpu, from, to)| (gpu.map(|gpu| gpu.device), from, to))
                .collect()
        };
        assert!(ends(work(0, 0, 10)).is_empty());
        assert!(ends(work(0, 5, 8)).is_empty());
        assert!(ends(work(1, 7, 30)).is_empty());
        assert_eq!(ends(work(0, 20, 25)), [(Some(0), 10, 20)]);
        assert_eq!(ends(work(1, 40, 50)), [(None, 30, 40), (Some(1), 30, 40)]);
    }

    #[test]
    fn parts_of_a_cause_are_one_gap_s() {
        let mut gaps = Gaps::default();
        let part = |cause, function: Option<u32>, ns| Part {
            cause,
            label: function.map(Label::Function),
            ns,
            asked: None,
        };
        let parts = [
            part(Cause::Launch, Some(1), 4),
            part(Cause::Queued, None, 3),
            part(Cause::Launch, Some(2), 5),
            part(Cause::Gc, None, 0),
        ];
        gaps.book((None, 0, 12), &parts, 7);
        let sums: Vec<_> = gaps.sums.iter().collect();
        let launch = Sum {
            time_ns: 9,
            count: 1,
            longest: (9, 7),
        };
        assert_eq!(sums.len(), 2);
        assert_eq!(sums[0], (&(None, Cause::Launch), &launch));
        assert_eq!(gaps.most(Cause::Launch), Some((Label::Function(2), 5)));
    }
}

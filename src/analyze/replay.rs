//! The timeline run again with a cause taken out of it: what a change would gain.
//!
//! The model: each thread comes from one call of the runtime to the next after as much code as it had, a launch gives
//! its work to a stream, work begins when it has been launched and the stream's last work is over, and a call that
//! waited for the device returns when that work has ended. A thread that waited for something else than the device, and
//! nobody knows for what, waited for what another thread that launches did last.

use super::device::percentile;
use super::idle::{Cause, LOADS_NS, Part};
use crate::trace::{HashMap, Sym};

/// Device work that begins later than this behind its launch and its stream's last work waited for another stream.
const UNEXPLAINED_NS: i64 = 20_000;
/// A launch that takes so long has no room in the device's queue, or loads code.
const QUEUE_NS: i64 = 1_000_000;
/// What is left of a call that waits if there is nothing to wait for: a driver's call and return.
const CALL_NS: i64 = 2_000;
/// Waits that may be for another thread, and how long they have to be.
const TIES: [Cause; 3] = [Cause::Blocked, Cause::Lock, Cause::Idle];
const TIED_NS: i64 = 100_000;
/// What is assumed to lie between two kernels of a full queue where none shows it: a usual value on current devices.
const BETWEEN_NS: i64 = 1_000;

/// A call, or the edge of a step, on a host thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Launch { copies: bool },
    Sync,
    Begin(Sym),
    End(Sym),
}

#[derive(Clone, Copy, Debug)]
struct Op {
    thread: u32,
    what: What,
    start_ns: i64,
    end_ns: i64,
    /// From when on `parts` tells of its thread.
    since_ns: i64,
    /// How much of the call it had no GIL.
    gil_ns: i64,
    /// Its place in `parts`: what the thread did since the call before.
    parts: (u32, u32),
}

/// A cause, the question that it is the subject of, and how long.
type Kept = (Cause, Option<u8>, i64);

/// What threads did, in the order of their calls.
#[derive(Debug, Default)]
pub struct Ops {
    ops: Vec<Op>,
    parts: Vec<Kept>,
    threads: HashMap<(u32, u64), u32>,
    /// The last launch: thread, and its end.
    last: Option<(u32, i64)>,
}

/// Device work of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Launched {
    /// Number of its launch among the ops.
    pub op: u32,
    pub start_ns: i64,
    pub end_ns: i64,
    /// A number for each stream of each device.
    pub stream: u32,
    pub copies: bool,
}

impl Ops {
    /// Adds a call; returns its number. `parts`: the thread's time up to it, since its call before.
    fn add(&mut self, track: (u32, u64), what: What, span: (i64, i64), parts: &[Part]) -> u32 {
        let told: i64 = parts.iter().map(|part| part.ns).sum();
        let next = self.threads.len() as u32;
        let thread = *self.threads.entry(track).or_insert(next);
        let from = self.parts.len();
        for part in parts.iter().filter(|part| part.ns > 0) {
            let same = |kept: &&mut Kept| (kept.0, kept.1) == (part.cause, part.asked);
            match self.parts[from..].iter_mut().find(same) {
                Some((.., sum)) => *sum += part.ns,
                None => self.parts.push((part.cause, part.asked, part.ns)),
            }
        }
        self.ops.push(Op {
            thread,
            what,
            start_ns: span.0,
            end_ns: span.1,
            since_ns: span.0 - told,
            gil_ns: 0,
            parts: (from as u32, self.parts.len() as u32),
        });
        self.ops.len() as u32 - 1
    }

    /// For so much of a call its thread waited for the GIL.
    pub fn held(&mut self, op: u32, gil_ns: i64) {
        let op = &mut self.ops[op as usize];
        op.gil_ns = gil_ns.min(op.end_ns - op.start_ns);
    }

    /// Whether another thread has launched something since.
    pub fn launched_elsewhere(&self, track: (u32, u64), since_ns: i64) -> bool {
        let thread = self.threads.get(&track);
        self.last
            .is_some_and(|(last, end_ns)| Some(&last) != thread && end_ns > since_ns)
    }

    pub fn launch(
        &mut self,
        track: (u32, u64),
        span: (i64, i64),
        copies: bool,
        parts: &[Part],
    ) -> u32 {
        let op = self.add(track, What::Launch { copies }, span, parts);
        self.last = Some((self.ops[op as usize].thread, span.1));
        op
    }

    pub fn sync(&mut self, track: (u32, u64), span: (i64, i64), parts: &[Part]) -> u32 {
        self.add(track, What::Sync, span, parts)
    }

    /// A scope of a thread that launches begins or ends.
    pub fn edge(
        &mut self,
        track: (u32, u64),
        scope: Sym,
        begins: bool,
        at_ns: i64,
        parts: &[Part],
    ) {
        let what = match begins {
            true => What::Begin(scope),
            false => What::End(scope),
        };
        self.add(track, what, (at_ns, at_ns), parts);
    }
}

/// What is left of each cause: 1 all of it, 0 nothing.
#[derive(Clone, Debug)]
pub struct Scenario {
    left: [f64; Cause::ALL.len()],
    /// Of copies' time on the device.
    copies: f64,
    kernels: f64,
    /// Of the subject of a question.
    asked: Option<(u8, f64)>,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            left: [1.0; Cause::ALL.len()],
            copies: 1.0,
            kernels: 1.0,
            asked: None,
        }
    }
}

impl Scenario {
    /// As it was, but for `left` of one cause. Of `Sync` and `Copy` less than half left means: nobody waits for the device.
    pub fn with(mut self, cause: Cause, left: f64) -> Scenario {
        self.left[cause as usize] = left;
        if cause == Cause::Copy {
            self.copies = left;
        }
        self
    }

    /// As it was, but for kernels that take so much of their time.
    pub fn with_kernels(mut self, left: f64) -> Scenario {
        self.kernels = left;
        self
    }

    /// As it was, but for so much of the subject of a question.
    pub fn with_asked(mut self, number: u8, left: f64) -> Scenario {
        self.asked = Some((number, left));
        self
    }

    fn asked(&self, asked: Option<u8>) -> f64 {
        match self.asked {
            Some((number, left)) if asked == Some(number) => left,
            _ => 1.0,
        }
    }

    fn of(&self, cause: Cause, ns: i64) -> f64 {
        self.left[cause as usize] * ns as f64
    }

    fn waits(&self, cause: Cause) -> bool {
        self.left[cause as usize] >= 0.5
    }
}

/// One piece of device work in the model.
#[derive(Clone, Copy, Debug)]
struct Work {
    start_ns: i64,
    end_ns: i64,
    stream: u32,
    copies: bool,
    /// From its launch's return, or in it, to its start, where nothing else held it up.
    delay_ns: i64,
    /// Behind the stream's last work.
    behind_ns: i64,
    /// Work of another stream that it waited for, and for how long after that.
    after: Option<(u32, i64)>,
    /// It is a graph's, and begins so long after the first of it.
    first: Option<(u32, i64)>,
}

/// The graph of calls and work.
#[derive(Debug, Default)]
pub struct Model {
    ops: Vec<Op>,
    parts: Vec<Kept>,
    threads: usize,
    streams: usize,
    /// By launch.
    works: Vec<Work>,
    of_op: Vec<(u32, u32)>,
    /// For each sync, and each launch that blocked: the work it waited for.
    waits: Vec<Option<u32>>,
    /// Median length of the calls that launch.
    call_ns: i64,
    /// Launches that are long since they load code: the device is idle.
    loads: Vec<bool>,
    /// For each op whose thread waited for another: that one's op before it.
    ties: Vec<Option<u32>>,
    /// The scope that is the step, if there is one.
    pub step: Option<Sym>,
}

/// How long it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// From the first call to the last one's return, or the last work's end.
    pub total_ns: f64,
    /// Median of the steps, each from its start, or the end of all the step before did, to the end of all it did; `None`
    /// without.
    pub step_ns: Option<f64>,
}

impl Run {
    /// What is compared: the step where there is one.
    pub fn ns(&self) -> f64 {
        self.step_ns.unwrap_or(self.total_ns)
    }
}

/// Fewest steps that tell more than the whole, if they are half of it.
const STEPS: usize = 3;

impl Model {
    /// `launched`: all device work whose launch is known, by start.
    pub fn new(ops: Ops, launched: &[Launched]) -> Model {
        let mut model = Model {
            threads: ops.threads.len(),
            ops: ops.ops,
            parts: ops.parts,
            streams: launched
                .iter()
                .map(|w| w.stream as usize + 1)
                .max()
                .unwrap_or(0),
            ..Model::default()
        };
        let mut order: Vec<u32> = (0..launched.len() as u32).collect();
        order.sort_by_key(|&at| (launched[at as usize].op, at));
        let mut place = vec![0u32; launched.len()];
        for (to, &at) in order.iter().enumerate() {
            place[at as usize] = to as u32;
        }
        model.works = model.works(launched, &place);
        model.of_op = vec![(0, 0); model.ops.len()];
        for (to, &at) in order.iter().enumerate() {
            let range = &mut model.of_op[launched[at as usize].op as usize];
            if range.1 == range.0 {
                *range = (to as u32, to as u32);
            }
            range.1 = to as u32 + 1;
        }
        model.loads = model.loads(launched);
        model.waits = model.waits(launched, &place);
        let launches = model
            .ops
            .iter()
            .filter(|op| matches!(op.what, What::Launch { .. }));
        let mut durs: Vec<i64> = launches.map(|op| op.end_ns - op.start_ns).collect();
        durs.sort_unstable();
        model.call_ns = percentile(&durs, 50);
        model.ties = model.ties();
        model.step = model.step();
        model
    }

    fn loads(&self, launched: &[Launched]) -> Vec<bool> {
        let mut ends: Vec<i64> = launched.iter().map(|work| work.end_ns).collect();
        let mut starts: Vec<i64> = launched.iter().map(|work| work.start_ns).collect();
        ends.sort_unstable();
        starts.sort_unstable();
        // Nothing runs in the midst of it: as many have ended as have begun.
        let idle = |at: i64| {
            ends.partition_point(|&end| end <= at) == starts.partition_point(|&start| start <= at)
        };
        let loads = |op: &Op| {
            let long = op.end_ns - op.start_ns >= LOADS_NS;
            long && matches!(op.what, What::Launch { .. }) && idle((op.start_ns + op.end_ns) / 2)
        };
        self.ops.iter().map(loads).collect()
    }

    /// A thread that waited for more than a moment, if another one launches: for that one's last call.
    fn ties(&self) -> Vec<Option<u32>> {
        let mut last: [Option<u32>; 2] = [None; 2]; // the last op, and the last of another thread than that
        let tie = |(at, op): (usize, &Op)| {
            let parts = &self.parts[op.parts.0 as usize..op.parts.1 as usize];
            let waited = parts.iter().filter(|(cause, ..)| TIES.contains(cause));
            let waited: i64 = waited.map(|(.., ns)| ns).sum();
            let other = last.into_iter().flatten();
            let mut other = other.filter(|&other| self.ops[other as usize].thread != op.thread);
            let tied = other.next().filter(|_| waited >= TIED_NS);
            match last[0] {
                Some(before) if self.ops[before as usize].thread == op.thread => {}
                before => last[1] = before,
            }
            last[0] = Some(at as u32);
            tied
        };
        self.ops.iter().enumerate().map(tie).collect()
    }

    fn works(&self, launched: &[Launched], place: &[u32]) -> Vec<Work> {
        let mut last_of_stream: Vec<Option<usize>> = vec![None; self.streams];
        let mut first_of_op: Vec<Option<usize>> = vec![None; self.ops.len()];
        let mut ended: Option<usize> = None; // latest end so far
        let (mut delays, mut behinds) = (Vec::new(), Vec::new());
        let mut works: Vec<(usize, Work, bool, bool)> = Vec::with_capacity(launched.len());
        for (at, w) in launched.iter().enumerate() {
            let op = self.ops[w.op as usize];
            let before = last_of_stream[w.stream as usize].map(|at| launched[at].end_ns);
            let first = *first_of_op[w.op as usize].get_or_insert(at);
            let queued = before.is_some_and(|before| before > op.end_ns);
            let behind = before.map_or(0, |before| w.start_ns - before);
            let delay = w.start_ns - op.end_ns.min(w.start_ns);
            let held = w.start_ns - op.end_ns.max(before.unwrap_or(i64::MIN)) > UNEXPLAINED_NS;
            let other = ended.filter(|&other| {
                let other = &launched[other];
                let gap = w.start_ns - other.end_ns;
                held && other.stream != w.stream && (0..=UNEXPLAINED_NS).contains(&gap)
            });
            if first == at && other.is_none() {
                match queued {
                    true => behinds.push(behind.max(0)),
                    false if !held => delays.push(delay),
                    false => {}
                }
            }
            let work = Work {
                start_ns: w.start_ns,
                end_ns: w.end_ns,
                stream: w.stream,
                copies: w.copies,
                delay_ns: delay,
                behind_ns: behind.max(0),
                after: other.map(|o| (place[o], w.start_ns - launched[o].end_ns)),
                first: (first != at).then(|| (place[first], w.start_ns - launched[first].start_ns)),
            };
            works.push((at, work, queued, other.is_some()));
            last_of_stream[w.stream as usize] = match last_of_stream[w.stream as usize] {
                Some(other) if launched[other].end_ns > w.end_ns => Some(other),
                _ => Some(at),
            };
            if ended.is_none_or(|other| launched[other].end_ns <= w.end_ns) {
                ended = Some(at);
            }
        }
        delays.sort_unstable();
        behinds.sort_unstable();
        // Where one of the two did not show since the other was longer, it is what it is elsewhere.
        let delay_ns = percentile(&delays, 50);
        let behind_ns = match behinds.is_empty() {
            true => BETWEEN_NS,
            false => percentile(&behinds, 50),
        };
        let mut placed = vec![None; launched.len()];
        for (at, mut work, queued, waited) in works {
            match queued {
                true => work.delay_ns = delay_ns.min(work.delay_ns),
                false => work.behind_ns = behind_ns.min(work.behind_ns),
            }
            if waited {
                work.delay_ns = delay_ns.min(work.delay_ns);
            }
            placed[place[at] as usize] = Some(work);
        }
        placed.into_iter().flatten().collect()
    }

    /// For each op the work whose end it waited for.
    fn waits(&self, launched: &[Launched], place: &[u32]) -> Vec<Option<u32>> {
        let mut by_end: Vec<(i64, u32, u32)> = (launched.iter().enumerate())
            .map(|(at, w)| (w.end_ns, w.op, place[at]))
            .collect();
        by_end.sort_unstable();
        let last = |from: i64, to: i64, op: u32| {
            let upto = by_end.partition_point(|&(end, ..)| end <= to);
            let within = by_end[..upto].iter().rev();
            let mut within = within.take_while(|&&(end, ..)| end > from);
            within.find(|(_, launch, _)| *launch <= op).map(|w| w.2)
        };
        let waited = |(at, op): (usize, &Op)| match op.what {
            What::Sync => last(op.start_ns, op.end_ns, at as u32),
            // A launch that takes long while the device works waits for room in its queue.
            What::Launch { copies: false }
                if !self.loads[at] && op.end_ns - op.start_ns >= QUEUE_NS =>
            {
                last(op.start_ns, op.end_ns, at as u32)
            }
            What::Launch { copies: true } => {
                let (from, to) = self.of_op[at];
                (from..to)
                    .rev()
                    .find(|&work| self.works[work as usize].end_ns <= op.end_ns)
            }
            _ => None,
        };
        self.ops.iter().enumerate().map(waited).collect()
    }

    /// The scope with most time of those that come often enough.
    fn step(&self) -> Option<Sym> {
        let mut open: HashMap<(u32, Sym), i64> = HashMap::default();
        let mut sums: HashMap<Sym, (i64, usize)> = HashMap::default();
        for op in &self.ops {
            match op.what {
                What::Begin(scope) => drop(open.insert((op.thread, scope), op.start_ns)),
                What::End(scope) => {
                    if let Some(start) = open.remove(&(op.thread, scope)) {
                        let (sum, count) = sums.entry(scope).or_default();
                        *sum += op.start_ns - start;
                        *count += 1;
                    }
                }
                _ => {}
            }
        }
        let half = self.measured_ns() / 2;
        let often = sums
            .iter()
            .filter(|(_, (sum, count))| *count >= STEPS && *sum >= half);
        let most = often.max_by_key(|(scope, (sum, _))| (*sum, std::cmp::Reverse(scope.0)));
        most.map(|(scope, _)| *scope)
    }

    /// Whether there is something to run.
    pub fn is_empty(&self) -> bool {
        self.works.is_empty()
    }

    /// Time that each cause has in it, of all threads; of waits for a device and of copies all calls, and the copies.
    pub fn times_ns(&self) -> [i64; Cause::ALL.len()] {
        let mut times = [0; Cause::ALL.len()];
        for (cause, _, ns) in &self.parts {
            times[*cause as usize] += ns;
        }
        for (op, loads) in self.ops.iter().zip(&self.loads) {
            let of = match op.what {
                What::Sync => Cause::Sync,
                What::Launch { .. } if *loads => Cause::Import,
                What::Launch { copies: true } => Cause::Copy,
                What::Launch { copies: false } => Cause::Launch,
                What::Begin(_) | What::End(_) => continue,
            };
            times[of as usize] += op.end_ns - op.start_ns;
            times[Cause::Gil as usize] += op.gil_ns;
        }
        let copies = self.works.iter().filter(|work| work.copies);
        times[Cause::Copy as usize] += copies.map(|work| work.end_ns - work.start_ns).sum::<i64>();
        times
    }

    /// From the first call to the last return or the last work's end, as it was.
    pub fn measured_ns(&self) -> i64 {
        let first = self.ops.iter().map(|op| op.since_ns).min().unwrap_or(0);
        let calls = self.ops.iter().map(|op| op.end_ns).max();
        let works = self.works.iter().map(|work| work.end_ns).max();
        calls.max(works).map_or(0, |last| last - first)
    }

    /// Runs it.
    pub fn run(&self, s: &Scenario) -> Run {
        let origin = self.ops.iter().map(|op| op.since_ns).min().unwrap_or(0);
        let mut clocks: Vec<Option<f64>> = vec![None; self.threads];
        let mut free = vec![f64::MIN; self.streams];
        let mut starts = vec![f64::NAN; self.works.len()];
        let mut ends = vec![f64::NAN; self.works.len()];
        let mut begun: HashMap<u32, f64> = HashMap::default();
        // When the last step of a thread was over, on the device too, and the end of what this one has launched.
        let mut over: HashMap<u32, f64> = HashMap::default();
        let mut launched = vec![f64::MIN; self.threads];
        let mut done = vec![0.0f64; self.ops.len()];
        let mut steps = Vec::new();
        let mut last = 0.0f64;
        for (at, op) in self.ops.iter().enumerate() {
            let parts = &self.parts[op.parts.0 as usize..op.parts.1 as usize];
            let tie = self.ties[at].filter(|_| TIES.iter().all(|&cause| s.waits(cause)));
            let own = parts
                .iter()
                .filter(|(cause, ..)| tie.is_none() || !TIES.contains(cause));
            let spent: f64 = own
                .map(|&(cause, asked, ns)| s.asked(asked) * s.of(cause, ns))
                .sum();
            let clock = clocks[op.thread as usize].map(|clock| clock + spent);
            let mut now = clock.unwrap_or((op.since_ns - origin) as f64 + spent);
            if let Some(other) = tie {
                let behind = (op.start_ns - self.ops[other as usize].end_ns).max(0) as f64;
                now = match clock {
                    Some(clock) => clock.max(done[other as usize] + behind),
                    None => done[other as usize] + behind,
                };
            }
            // Behind its end the call waited for the GIL.
            let freed = (1.0 - s.left[Cause::Gil as usize]) * op.gil_ns as f64;
            let dur_ns = op.end_ns - op.start_ns;
            // As far as it has been run: what was launched later by another thread is not known yet.
            let awaited = self.waits[at].filter(|&work| !ends[work as usize].is_nan());
            let until = |ends: &[f64], work: u32, least: f64| {
                let tail = op.end_ns - self.works[work as usize].end_ns;
                (ends[work as usize] + (tail as f64 - freed).max(0.0)).max(now + least)
            };
            let end = match op.what {
                What::Begin(scope) if self.step == Some(scope) => {
                    begun.insert(op.thread, now);
                    launched[op.thread as usize] = f64::MIN;
                    now
                }
                What::End(scope) if self.step == Some(scope) => {
                    let end = now.max(launched[op.thread as usize]);
                    let before = over.insert(op.thread, end).unwrap_or(f64::MIN);
                    steps.extend(begun.remove(&op.thread).map(|from| end - from.max(before)));
                    now
                }
                What::Begin(_) | What::End(_) => now,
                What::Sync if !s.waits(Cause::Sync) => now,
                What::Sync => match awaited {
                    Some(work) => until(&ends, work, CALL_NS.min(dur_ns) as f64),
                    None => now + (s.of(Cause::Sync, dur_ns) - freed).max(0.0),
                },
                What::Launch { copies } => {
                    let cause = match copies {
                        _ if self.loads[at] => Cause::Import,
                        true => Cause::Copy,
                        false => Cause::Launch,
                    };
                    // Without the wait for room in the queue it is like the others.
                    let blocked = self.waits[at].filter(|_| !copies);
                    let own_ns = match blocked {
                        Some(_) => self.call_ns.min(dur_ns),
                        None => dur_ns,
                    };
                    let call = s.of(cause, own_ns);
                    let (from, to) = self.of_op[at];
                    for work in from as usize..to as usize {
                        let w = &self.works[work];
                        let within = w.start_ns < op.end_ns;
                        let ready = match within {
                            true => now + s.of(cause, (w.start_ns - op.start_ns).min(own_ns)),
                            false => now + call + w.delay_ns as f64,
                        };
                        let mut start = ready.max(free[w.stream as usize] + w.behind_ns as f64);
                        if let Some((other, gap)) = w.after
                            && !ends[other as usize].is_nan()
                        {
                            start = start.max(ends[other as usize] + gap as f64);
                        }
                        if let Some((first, offset)) = w.first {
                            start = starts[first as usize] + s.kernels * offset as f64;
                        }
                        let left = if w.copies { s.copies } else { s.kernels };
                        let end = start + left * (w.end_ns - w.start_ns) as f64;
                        (starts[work], ends[work]) = (start, end);
                        free[w.stream as usize] = free[w.stream as usize].max(end);
                        let launched = &mut launched[op.thread as usize];
                        *launched = launched.max(end);
                        last = last.max(end);
                    }
                    let waits = self.waits[at].filter(|_| !copies || s.waits(Cause::Copy));
                    match waits.filter(|&work| copies || !ends[work as usize].is_nan()) {
                        Some(work) if !copies => until(&ends, work, call),
                        Some(work) => {
                            let tail = op.end_ns - self.works[work as usize].end_ns;
                            (ends[work as usize] + tail as f64)
                                .max(now + CALL_NS.min(dur_ns) as f64)
                        }
                        None if copies && self.waits[at].is_some() => {
                            now + CALL_NS.min(dur_ns) as f64
                        }
                        None => now + (call - freed).max(0.0),
                    }
                }
            };
            clocks[op.thread as usize] = Some(end);
            done[at] = end;
            last = last.max(end);
        }
        steps.sort_by(f64::total_cmp);
        Run {
            total_ns: last,
            step_ns: steps.get(steps.len() / 2).copied(),
        }
    }
}

//! What threads waited for: `wait` rows set against the spans in which they began.
//!
//! Native calls that are known to wait say themselves how long they took, and what for. Rows say the rest: waits within
//! Python code (`with lock:` makes no call, nor does the GIL), and within other native calls. Like samples they
//! are summed by thread and function first, and only then cut to the time there is.

use std::collections::BTreeMap;

use super::measure::{Measures, library};
use super::sampled::Bursts;
use crate::trace::{HashMap, Kind, Names};

type Track = (u32, u64);

/// What a thread waits for; the words are categories of the breakdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Waits {
    Gil,
    Lock,
    Io,
    Sleep,
    /// For work: an event loop's turn, a connection, a queue's next item.
    Idle,
    /// For something else.
    Blocked,
}

impl Waits {
    pub const ALL: [Waits; 6] = [
        Waits::Gil,
        Waits::Lock,
        Waits::Io,
        Waits::Sleep,
        Waits::Idle,
        Waits::Blocked,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Waits::Gil => "gil",
            Waits::Lock => "lock",
            Waits::Io => "io",
            Waits::Sleep => "sleep",
            Waits::Idle => "idle",
            Waits::Blocked => "blocked",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Waits::Gil => "the GIL",
            Waits::Lock => "a lock",
            Waits::Io => "input or output",
            Waits::Sleep => "a sleep to end",
            Waits::Idle => "work",
            Waits::Blocked => "something unknown",
        }
    }

    /// Of a `wait` row's name.
    pub fn of_row(name: &str) -> Waits {
        let named = |waits: &Waits| *waits != Waits::Idle && waits.word() == name;
        let found = Waits::ALL.into_iter().find(named);
        found.unwrap_or(Waits::Blocked)
    }

    /// Of a native function that waits; see [`super::measure::waits`].
    pub fn of_call(name: &str) -> Waits {
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        if name == crate::record::WAITING_NAME {
            Waits::Blocked // stacks were sampled, and tell no more
        } else if ends(&["sleep", "pause"]) {
            Waits::Sleep
        } else if ends(&["cquire", "__enter__", "join", "Queue.get", "tstate_lock"]) {
            Waits::Lock
        } else {
            Waits::Io
        }
    }
}

/// One frame of Python code, as far as it says what its thread is about.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub name: &'a str,
    pub file: &'a str,
}

impl Place<'_> {
    fn is_of(&self, files: &[&str]) -> bool {
        files.iter().any(|file| self.file.ends_with(file))
    }

    /// The program's own code: neither Python's nor an installed package's.
    fn is_own(&self) -> bool {
        !self.file.starts_with('<') && !self.file.contains("/lib/python")
    }
}

/// Files of servers and event loops: of the standard library, then of others.
const LOOPS: [&str; 12] = [
    "asyncio/base_events.py",
    "asyncio/runners.py",
    "socketserver.py",
    "trio/_core/_io_epoll.py",
    "twisted/internet/epollreactor.py",
    "twisted/internet/pollreactor.py",
    "eventlet/hubs/poll.py",
    "eventlet/hubs/epolls.py",
    "gunicorn/workers/gthread.py",
    "gunicorn/workers/sync.py",
    "waitress/wasyncore.py",
    "cheroot/connections.py",
];
/// Files that make locks into something else: who waits in them does not wait for another to leave a section.
const SYNCHRONIZE: [&str; 6] = [
    "threading.py",
    "queue.py",
    "concurrent/futures/_base.py",
    "concurrent/futures/thread.py",
    "multiprocessing/synchronize.py",
    "multiprocessing/queues.py",
];

/// Where the workers of pools wait for what is next: file, and the beginning of the function's name.
const WORKERS: [(&str, &str); 3] = [
    ("concurrent/futures/process.py", "_process_worker"),
    ("concurrent/futures/process.py", "_ExecutorManagerThread."),
    ("multiprocessing/pool.py", "worker"),
];

/// Frames above a read of a socket that are looked at: those of the socket's file, and who reads.
const KEPT: usize = 4;

/// Whether a thread that waits waits for work. `call` is the native or system call; `stack` the Python frames,
/// innermost first.
pub fn is_idle<'a>(
    waits: Waits,
    call: &str,
    native: &str,
    mut stack: impl Iterator<Item = Place<'a>>,
) -> bool {
    let accepts = call.ends_with("accept");
    let polls = ["poll", "select", "epoll_wait"]
        .iter()
        .any(|end| call.ends_with(end));
    // A connection that is kept open waits for its client's next request.
    let top: Vec<Place> = stack.by_ref().take(KEPT).collect();
    let mut above = top
        .iter()
        .skip_while(|place| place.is_of(&["/socket.py", "/ssl.py"]));
    let next = above.next();
    let next = next.filter(|place| place.is_of(&["http/server.py"]));
    if waits == Waits::Io && next.is_some_and(|place| place.name.ends_with("handle_one_request")) {
        return true;
    }
    let mut stack = top.iter().copied().chain(stack);
    match waits {
        Waits::Io if accepts => true,
        Waits::Io if polls && library(native) == "uvloop" => true,
        Waits::Io if polls => {
            let mut top = stack.next();
            let selects = top.is_some_and(|top| top.is_of(&["selectors.py"]));
            if selects {
                top = stack.next();
            }
            // What registers descriptors once, to poll them again and again, is an event loop; but not in a callback of
            // another one, which it holds up.
            let registered = selects || call.ends_with("epoll.poll") || call == "epoll_wait";
            let is_loop = |place: Place| place.is_of(&LOOPS);
            top.is_some_and(|top| is_loop(top) || registered && top.is_own() && !stack.any(is_loop))
        }
        Waits::Io | Waits::Lock if call.ends_with("Queue.get") => true,
        Waits::Io | Waits::Lock => {
            // a queue's get waits in a condition, or reads from a pipe
            let within = |place: &Place| {
                place.is_of(&["threading.py", "queue.py", "multiprocessing/connection.py"])
                    || place.is_of(&[
                        "multiprocessing/queues.py",
                        "multiprocessing/synchronize.py",
                    ])
            };
            // whose frame may not have been recorded
            let mut stack =
                stack.skip_while(|place| within(place) && !place.name.ends_with("Queue.get"));
            stack.next().is_some_and(|place| {
                let works = |(file, name): &(&str, &str)| {
                    place.file.ends_with(file) && place.name.starts_with(name)
                };
                within(&place) || waits == Waits::Io && WORKERS.iter().any(works)
            })
        }
        _ => false,
    }
}

/// Whether who waits for a lock here waits for another thread to leave a section.
pub fn is_contended(top: Option<Place>) -> bool {
    top.is_some_and(|top| !top.is_of(&SYNCHRONIZE))
}

/// Whether a thread that waits, and not for work, waits for what another thread or process of the program does: for the
/// result of a future, the end of a thread, a message of a child. `stack` as for [`is_idle`].
pub fn is_answer<'a>(waits: Waits, mut stack: impl Iterator<Item = Place<'a>>) -> bool {
    match waits {
        Waits::Lock => stack.next().is_some_and(|top| top.is_of(&SYNCHRONIZE)),
        Waits::Io => {
            let mut link =
                stack.take_while(|place| place.is_of(&["multiprocessing/connection.py"]));
            link.any(|place| !place.name.contains("send"))
        }
        _ => false,
    }
}

/// What a thread is in while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum In {
    /// This function's own Python code.
    Python(usize),
    /// This native function.
    Native(usize),
    /// A native function that is known to wait, for this.
    Waiting(Waits),
}

/// Sums of waits that rows tell of.
#[derive(Debug, Default)]
pub struct Waited(BTreeMap<Track, BTreeMap<In, BTreeMap<Waits, i64>>>);

impl Waited {
    pub fn add(&mut self, track: Track, place: In, waits: Waits, ns: i64) {
        let places = self.0.entry(track).or_default();
        *places.entry(place).or_default().entry(waits).or_default() += ns;
    }
}

/// Takes `ns`, or as much of it as there is, from `from`, and gives it out in proportion.
fn moved(from: &mut i64, shares: &BTreeMap<Waits, i64>, to: &mut BTreeMap<Waits, i64>) -> i64 {
    let wanted: i64 = shares.values().sum();
    let taken = wanted.min(*from).max(0);
    *from -= taken;
    for (&waits, &ns) in shares {
        let part = i128::from(ns) * i128::from(taken) / i128::from(wanted.max(1));
        *to.entry(waits).or_default() += part as i64;
    }
    taken
}

/// Moves waits out of the time of the interpreter and of libraries: of each thread, and of each function.
/// Gives functions in bursts their part of the waits that rows tell of in their callers.
fn move_down(bursts: &Bursts, places: &mut BTreeMap<In, BTreeMap<Waits, i64>>) {
    for (&function, &unseen) in &bursts.unseen {
        let Some(seen) = places.get(&In::Python(function)).cloned() else {
            continue;
        };
        for (root, share) in bursts.roots(function) {
            let Some(from) = places.get_mut(&In::Python(root)) else {
                continue;
            };
            let mut moved = Vec::new();
            for (&waits, &ns) in &seen {
                let Some(left) = from.get_mut(&waits) else {
                    continue;
                };
                let part = ((ns as f64 * unseen * share).round() as i64).min(*left);
                *left -= part;
                moved.push((waits, part));
            }
            let to = places.entry(In::Python(function)).or_default();
            for (waits, ns) in moved {
                *to.entry(waits).or_default() += ns;
            }
        }
    }
}

/// Calls in bursts that were not seen waited like those that were: in their callers, as far as rows could tell.
pub fn settle(m: &mut Measures, waited: Waited, bursts: &Bursts, names: &Names) {
    for (track, mut places) in waited.0 {
        move_down(bursts, &mut places);
        let mut python: BTreeMap<Waits, i64> = BTreeMap::new();
        for (place, shares) in places {
            let ns: i64 = shares.values().sum();
            match place {
                In::Python(function) => {
                    let idle = shares.get(&Waits::Idle).copied().unwrap_or(0);
                    m.book_wait(track, function, ns, idle);
                    for (waits, ns) in shares {
                        *python.entry(waits).or_default() += ns;
                    }
                }
                In::Native(function) => {
                    m.book_wait(track, function, ns, 0);
                    let file = m.functions[function].0.file;
                    let library = library(file.map_or("", |file| names.text(file)));
                    if let Some(thread) = m.threads.get_mut(&track)
                        && let Some(native) = thread.times.native_ns.get_mut(library)
                    {
                        moved(native, &shares, &mut thread.times.waits);
                    }
                }
                In::Waiting(waits) => {
                    if let Some(thread) = m.threads.get_mut(&track) {
                        let times = &mut thread.times.waits;
                        let mut from = times.remove(&waits).unwrap_or(0);
                        moved(&mut from, &shares, times);
                        *times.entry(waits).or_default() += from;
                    }
                }
            }
        }
        if let Some(thread) = m.threads.get_mut(&track) {
            let times = &mut thread.times;
            moved(&mut times.python_ns, &python, &mut times.waits);
        }
    }
}

/// Longer than this is too long for a turn of an event loop: asyncio's own `slow_callback_duration`.
const SLOW_TURN_NS: i64 = 100_000_000;
/// And this where hardly any other is so long: requests that take less wait for it.
const LONG_TURN_NS: i64 = 5_000_000;
/// One in so many is hardly any.
const FEW: u64 = 25;
/// Long callbacks keep others waiting if after one of so many of them another task was ready (by their time).
const HARM: i64 = 4;
/// A task that runs so soon after another was ready before: a peer's next request takes longer to come.
const SOON_NS: i64 = 1_000_000;
/// Waits of tasks that are kept for percentiles.
const MOST_READY: usize = 200_000;

/// A function, and the callback or task that it ran in.
type Slow = (usize, Option<usize>);

/// A long callback that has ended.
#[derive(Debug)]
struct Held {
    flow: Option<u64>,
    start_ns: i64,
    end_ns: i64,
}

/// What event loops did.
#[derive(Debug, Default)]
pub struct Loops {
    /// From the end of a turn's poll, when a task was ready at the latest, to its segment.
    pub ready_ns: Vec<i64>,
    /// Callbacks and segments of tasks that took too long for a turn, by the function with the longest time of its own in
    /// them and their own; and those that are long if most others are not.
    slow: BTreeMap<Slow, (u64, i64)>,
    long: BTreeMap<Slow, (u64, i64)>,
    /// Callbacks and segments of tasks.
    count: u64,
    /// Time of those that are long, and of those among them after which another task ran at once that had been suspended
    /// before they began: it had waited for them.
    long_ns: i64,
    kept_ns: i64,
    /// By thread: the task whose segment began last, and the long callback that ended last, until it is known who ran next.
    flow: HashMap<Track, u64>,
    held: HashMap<Track, Held>,
    /// Waits in the midst of a turn, by the Python function that waits.
    pub waiting: BTreeMap<usize, i64>,
    /// By thread: when its last poll ended, and the longest own time in this turn.
    polled: HashMap<Track, i64>,
    longest: HashMap<Track, (i64, usize)>,
}

impl Loops {
    /// A poll for work ended.
    pub fn polled(&mut self, track: Track, end_ns: i64) {
        self.polled.insert(track, end_ns);
    }

    /// A segment of a task began in a turn that had begun at `turn_ns`.
    pub fn ready(&mut self, track: Track, turn_ns: i64, start_ns: i64) {
        let polled = self.polled.get(&track).filter(|polled| **polled >= turn_ns);
        if let Some(polled_ns) = polled.filter(|_| self.ready_ns.len() < MOST_READY) {
            self.ready_ns.push((start_ns - polled_ns).max(0));
        }
    }

    /// A callback or a task's segment begins.
    pub fn begin(&mut self, track: Track) {
        self.longest.remove(&track);
        self.flow.remove(&track);
    }

    /// A segment of the task `flow` begins, which may be within a callback; the task was suspended at `since_ns`, if it is known.
    pub fn segment(&mut self, track: Track, flow: u64, start_ns: i64, since_ns: Option<i64>) {
        self.flow.insert(track, flow);
        let Some(held) = self.held.remove(&track) else {
            return;
        };
        let waited = since_ns.is_some_and(|since_ns| since_ns <= held.start_ns);
        if waited && held.flow != Some(flow) && start_ns - held.end_ns < SOON_NS {
            self.kept_ns += held.end_ns - held.start_ns;
        }
    }

    /// A span in it has ended.
    pub fn spent(&mut self, track: Track, function: usize, own_ns: i64) {
        let longest = self.longest.entry(track).or_insert((own_ns, function));
        if own_ns > longest.0 {
            *longest = (own_ns, function);
        }
    }

    /// It has ended.
    pub fn end(&mut self, track: Track, step: Option<usize>, start_ns: i64, end_ns: i64) {
        self.count += 1;
        let dur_ns = end_ns - start_ns;
        if dur_ns >= LONG_TURN_NS {
            self.long_ns += dur_ns;
            let flow = self.flow.get(&track).copied();
            let held = Held {
                flow,
                start_ns,
                end_ns,
            };
            self.held.insert(track, held);
        }
        let Some((_, function)) = self.longest.remove(&track) else {
            return;
        };
        for (least_ns, all) in [
            (SLOW_TURN_NS, &mut self.slow),
            (LONG_TURN_NS, &mut self.long),
        ] {
            if dur_ns >= least_ns {
                let (count, ns) = all.entry((function, step)).or_default();
                *count += 1;
                *ns += dur_ns;
            }
        }
    }

    /// Those that keep others waiting: that are too long for any loop, or for one whose turns are short, or that others
    /// were seen to wait for.
    pub fn slow(&self) -> &BTreeMap<Slow, (u64, i64)> {
        let long: u64 = self.long.values().map(|(count, _)| count).sum();
        match long * FEW < self.count || HARM * self.kept_ns > self.long_ns {
            true => &self.long,
            false => &self.slow,
        }
    }
}

/// Whether a function is one turn of asyncio's loop, or one callback of it.
pub fn is_turn(name: &str) -> bool {
    name == "BaseEventLoop._run_once"
}

/// Whether a function is the poll in such a turn.
pub fn is_poll(name: &str) -> bool {
    name.ends_with("Selector.select")
}

/// See [`is_turn`].
pub fn is_callback(kind: Kind, name: &str) -> bool {
    kind == Kind::Python && name == "Handle._run"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_callbacks_are_slow_where_tasks_that_were_there_before_run_at_once() {
        let slow = |gap_ns: i64, other: u64| {
            let (mut loops, track) = (Loops::default(), (0, 1));
            for at in 0..10 {
                let start_ns = at * 20_000_000;
                let since_ns = (at > 0).then(|| start_ns - 10_000_000);
                for (flow, from_ns, to_ns) in [
                    (1, start_ns, start_ns + 6_000_000),
                    (
                        other,
                        start_ns + 6_000_000 + gap_ns,
                        start_ns + 6_100_000 + gap_ns,
                    ),
                ] {
                    loops.begin(track);
                    loops.segment(track, flow, from_ns, since_ns);
                    loops.spent(track, 7, to_ns - from_ns);
                    loops.end(track, None, from_ns, to_ns);
                }
            }
            loops.slow().values().map(|(count, _)| count).sum::<u64>()
        };
        assert_eq!(slow(50_000, 2), 10, "the other was ready");
        assert_eq!(slow(2_000_000, 2), 0, "the other came later");
        assert_eq!(slow(50_000, 1), 0, "there is no other");
    }

    fn place<'a>(name: &'a str, file: &'a str) -> Place<'a> {
        Place { name, file }
    }

    #[test]
    fn loops_that_poll_and_queues_that_are_empty_wait_for_work() {
        let idle =
            |waits, call: &str, stack: &[Place]| is_idle(waits, call, "", stack.iter().copied());
        let select = place("EpollSelector.select", "/lib/selectors.py");
        let turn = place("BaseEventLoop._run_once", "/lib/asyncio/base_events.py");
        assert!(idle(Waits::Io, "epoll.poll", &[select, turn]));
        assert!(
            idle(Waits::Io, "epoll_wait", &[turn]),
            "the budget shed select"
        );
        assert!(!idle(
            Waits::Io,
            "epoll.poll",
            &[
                select,
                place("communicate", "/lib/python3.12/subprocess.py")
            ]
        ));
        let own = [select, place("serve", "app.py"), place("main", "app.py")];
        assert!(idle(Waits::Io, "epoll.poll", &own));
        assert!(idle(Waits::Io, "epoll.poll", &own[1..]));
        assert!(
            !idle(Waits::Io, "select.select", &own[1..]),
            "it may be for one answer"
        );
        assert!(
            !idle(Waits::Io, "epoll.poll", &[select, own[1], turn]),
            "it holds the loop up"
        );
        assert!(!idle(Waits::Io, "socket.recv", &[place("read", "app.py")]));
        assert!(idle(
            Waits::Io,
            "socket._accept",
            &[place("main", "app.py")]
        ));
        let request = [
            place("SocketIO.readinto", "/lib/python3.12/socket.py"),
            place(
                "BaseHTTPRequestHandler.handle_one_request",
                "/lib/python3.12/http/server.py",
            ),
        ];
        assert!(idle(Waits::Io, "socket.recv_into", &request));
        let body = [request[0], place("do_POST", "app.py"), request[1]];
        assert!(!idle(Waits::Io, "socket.recv_into", &body));
        let get = [
            place("Condition.wait", "/lib/threading.py"),
            place("Queue.get", "/lib/queue.py"),
            place("work", "app.py"),
        ];
        assert!(idle(Waits::Lock, "lock.acquire", &get));
        let pool = [
            place("Connection._recv", "/lib/multiprocessing/connection.py"),
            place("_process_worker", "/lib/concurrent/futures/process.py"),
        ];
        assert!(idle(Waits::Io, "read", &pool) && idle(Waits::Io, "read", &pool[1..]));
        assert!(!idle(Waits::Lock, "", &pool[1..]), "a lock of its task's");
        assert!(!idle(
            Waits::Lock,
            "lock.acquire",
            &[get[0], place("Event.wait", "/lib/threading.py")]
        ));
        assert!(idle(Waits::Lock, "SimpleQueue.get", &[]));
        assert!(!idle(Waits::Sleep, "time.sleep", &[turn]));
        assert!(is_contended(Some(get[2])) && !is_contended(Some(get[0])));
    }

    #[test]
    fn native_calls_say_what_they_wait_for() {
        for (name, waits) in [
            ("time.sleep", Waits::Sleep),
            ("_thread.lock.acquire", Waits::Lock),
            ("SemLock.__enter__", Waits::Lock),
            ("_thread._ThreadHandle.join", Waits::Lock),
            ("SimpleQueue.get", Waits::Lock),
            ("select.epoll.poll", Waits::Io),
            ("socket.recv_into", Waits::Io),
            ("posix.waitpid", Waits::Io),
        ] {
            assert!(super::super::measure::waits(name), "{name}");
            assert_eq!(Waits::of_call(name), waits, "{name}");
        }
        assert_eq!(Waits::of_row("idle"), Waits::Blocked);
        assert_eq!(Waits::of_row("gil"), Waits::Gil);
    }
}

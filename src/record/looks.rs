//! Looks at what threads wait for, from a thread of our own, at moments that are random and as dense as may be.
//!
//! Costs the program nothing. The recorder's own cost is bounded, see [`Cost`].

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use inferscope_spool::sys;

use super::drain::{Gil, ProcessKey};
use super::proc::{OUR_THREAD, Stat, TICK_NS, numbers};
use super::sockets::Sockets;
use super::syscall::{self, Seen, Waiting};
use super::waits::{Blocked, Row, Sums, Waits};

/// Time between two looks at least and at most, in ns, before chance makes it up to half shorter or longer.
const PAUSE_NS: (f64, f64) = (1e6, 50e6);
/// Files that are kept open; those of further threads are opened anew for each look.
const MOST_FILES: usize = 400;
/// A thread that is new may take its name a moment later: how long that is looked for, in ns.
const NAMED_NS: i64 = 1_000_000_000;

/// A row and the thread it is about.
pub type ThreadRow = (ProcessKey, u64, Row);

/// Looks at the threads of some processes until dropped.
#[derive(Debug)]
pub struct Looks {
    all: Arc<Mutex<All>>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct All {
    processes: BTreeMap<ProcessKey, Process>,
    rows: Vec<ThreadRow>,
    files: usize,
    /// Since the last look.
    used: Used,
    /// CPU time of all looks.
    cost_ns: i64,
    sockets: Sockets,
}

#[derive(Debug)]
struct Process {
    tasks: String,
    /// The same, open, and its links, one for each thread.
    folder: Option<File>,
    links: u64,
    threads: BTreeMap<u64, Thread>,
    gil: Option<Gil>,
    /// The system does not tell what its threads wait for.
    denied: bool,
}

#[derive(Debug)]
struct Thread {
    task: String,
    sums: Source,
    /// `syscall`; `stat`, which tells less, where that is denied.
    call: Source,
    denied: bool,
    waits: Waits,
    first_ns: i64,
}

/// A file of /proc, open if it may be.
#[derive(Debug)]
enum Source {
    Open(File),
    Path(String),
}

/// The longest line read: that of `stat` with a name of 15 bytes, 52 numbers of up to 20 digits.
type Line = [u8; 1200];

impl Source {
    fn new(path: String, files: &mut usize) -> Source {
        match File::open(&path) {
            Ok(file) if *files < MOST_FILES => {
                *files += 1;
                Source::Open(file)
            }
            _ => Source::Path(path),
        }
    }

    fn read<'a>(&self, line: &'a mut Line) -> io::Result<&'a str> {
        let got = match self {
            Source::Open(file) => file.read_at(line, 0)?,
            Source::Path(path) => File::open(path)?.read_at(line, 0)?,
        };
        std::str::from_utf8(&line[..got]).map_err(io::Error::other)
    }
}

impl Looks {
    /// Begins; nothing is looked at before [`Looks::follow`].
    pub fn start() -> Looks {
        let all = Arc::new(Mutex::new(All::default()));
        let (stop, stopped) = mpsc::channel();
        let shared = all.clone();
        let thread = std::thread::Builder::new()
            .name("looks".into())
            .spawn(move || look_on(&shared, &stopped))
            .ok();
        Looks {
            all,
            stop: Some(stop),
            thread,
        }
    }

    /// Looks at these processes from now on, and no others. Gives the rows that are finished.
    pub fn follow(&self, processes: &[(ProcessKey, Option<Gil>)]) -> Vec<ThreadRow> {
        let mut all = locked(&self.all);
        let gone: Vec<ProcessKey> = (all.processes.keys().copied())
            .filter(|key| !processes.iter().any(|(other, _)| other == key))
            .collect();
        for key in gone {
            all.end(key);
        }
        for (key, gil) in processes {
            let process = all.processes.entry(*key).or_insert_with(|| Process {
                tasks: format!("/proc/{}/task", key.pid),
                folder: File::open(format!("/proc/{}/task", key.pid)).ok(),
                links: 0,
                threads: BTreeMap::new(),
                gil: None,
                denied: false,
            });
            process.gil = *gil;
            process.links = 0; // one may have come for another that went
        }
        std::mem::take(&mut all.rows)
    }

    /// Whether the system hides what the threads of this process wait for.
    pub fn is_denied(&self, key: ProcessKey) -> bool {
        (locked(&self.all).processes.get(&key)).is_some_and(|process| process.denied)
    }

    /// CPU time that they have cost so far.
    pub fn cost_ns(&self) -> i64 {
        locked(&self.all).cost_ns
    }

    /// Gives all rows, those too that go on: their rest is in others.
    pub fn cut(&self) -> Vec<ThreadRow> {
        let all = &mut *locked(&self.all);
        for (&key, process) in &mut all.processes {
            for (&tid, thread) in &mut process.threads {
                let mut rows = Vec::new();
                thread.waits.cut(&mut rows);
                all.rows.extend(rows.into_iter().map(|row| (key, tid, row)));
            }
        }
        std::mem::take(&mut all.rows)
    }

    /// The rest.
    pub fn finish(&mut self) -> Vec<ThreadRow> {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there is on stderr already
        }
        self.follow(&[])
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.finish();
    }
}

fn locked(all: &Mutex<All>) -> MutexGuard<'_, All> {
    all.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Looks until there is nobody left who could say stop.
fn look_on(all: &Mutex<All>, stopped: &mpsc::Receiver<()>) {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64; // 2^64 over the golden ratio: any odd number would do
    let mut cost = Cost::default();
    let (mut before_ns, mut before_cpu_ns) = (sys::monotonic_ns(), sys::thread_cpu_ns());
    let mut pause_ns = PAUSE_NS.0;
    while let Err(mpsc::RecvTimeoutError::Timeout) =
        stopped.recv_timeout(Duration::from_nanos(pause_ns as u64))
    {
        let used = locked(all).look();
        let (now_ns, cpu_ns) = (sys::monotonic_ns(), sys::thread_cpu_ns());
        cost.add(now_ns - before_ns, cpu_ns - before_cpu_ns, used);
        locked(all).cost_ns = cpu_ns;
        (before_ns, before_cpu_ns) = (now_ns, cpu_ns);
        // xorshift64 of Marsaglia (2003)
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let chance = 0.5 + (random >> 11) as f64 / (1u64 << 53) as f64;
        pause_ns = cost.pause_ns().clamp(PAUSE_NS.0, PAUSE_NS.1) * chance;
    }
}

/// What the program did between two looks.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    cpu_ns: i64,
    /// How often one of its threads that wait got a processor.
    slices: u64,
}

/// What looks cost, and what they may: a share of the CPU time that the program uses; a little of the time that passes,
/// so that a program which waits is looked at too; and a little for each time that a thread which waits gets a processor,
/// so that one whose threads wait often and shortly is looked at more often. Means that forget.
#[derive(Clone, Copy, Debug)]
struct Cost {
    look_ns: f64,
    /// Processors that the program uses.
    cores: f64,
    /// Per second.
    slices: f64,
}

impl Default for Cost {
    fn default() -> Cost {
        Cost {
            look_ns: 30e3,
            cores: 1.0,
            slices: 100.0,
        }
    }
}

impl Cost {
    /// Of one processor: for each that the program uses, and of the time that passes.
    const SHARE: (f64, f64) = (0.003, 0.002);
    /// For each time that a thread gets a processor, in s; that is itself several µs of work.
    const SLICE_S: f64 = 15e-6;
    /// At most, of one processor, and for each that the program uses.
    const MOST: (f64, f64) = (0.01, 0.008);
    /// How much of these means is forgotten in a second.
    const FORGETS: f64 = 2.0;

    fn add(&mut self, passed_ns: i64, look_ns: i64, used: Used) {
        let passed_s = passed_ns.max(1) as f64 / 1e9;
        let new = 1.0 - (-Cost::FORGETS * passed_s).exp();
        self.look_ns += 0.05 * (look_ns as f64 - self.look_ns);
        self.cores += new * (used.cpu_ns as f64 / 1e9 / passed_s - self.cores);
        self.slices += new * (used.slices as f64 / passed_s - self.slices);
    }

    fn pause_ns(&self) -> f64 {
        let may = Cost::SHARE.0 * self.cores + Cost::SHARE.1 + Cost::SLICE_S * self.slices;
        self.look_ns / may.min(Cost::MOST.0.max(Cost::MOST.1 * self.cores))
    }
}

impl All {
    /// Looks once at every thread.
    fn look(&mut self) -> Used {
        let keys: Vec<ProcessKey> = self.processes.keys().copied().collect();
        for key in keys {
            self.look_at(key);
        }
        std::mem::take(&mut self.used)
    }

    fn look_at(&mut self, key: ProcessKey) {
        let Some(process) = self.processes.get_mut(&key) else {
            return;
        };
        let links = (process.folder.as_ref())
            .and_then(|folder| Some(folder.metadata().ok()?.nlink()))
            .unwrap_or(0);
        if links != process.links {
            process.links = links;
            process.find_threads(key, &mut self.files, &mut self.rows);
        }
        let mut rows = Vec::new();
        let mut gone = Vec::new();
        let mut look = Look {
            pid: key.pid,
            gil: process.gil,
            denied: &mut process.denied,
            holder: None,
            sockets: &mut self.sockets,
        };
        for (&tid, thread) in &mut process.threads {
            let before = (thread.waits.last(), thread.waits.slices());
            match thread.look(&mut look, &mut rows) {
                Some(()) => {
                    let now = (thread.waits.last(), thread.waits.slices());
                    self.used.cpu_ns += now.0.cpu_ns - before.0.cpu_ns;
                    self.used.slices += now.1.saturating_sub(before.1);
                }
                None => gone.push(tid),
            }
            self.rows.extend(rows.drain(..).map(|row| (key, tid, row)));
        }
        for tid in gone {
            process.end(key, tid, &mut self.files, &mut self.rows);
        }
    }

    fn end(&mut self, key: ProcessKey) {
        let Some(mut process) = self.processes.remove(&key) else {
            return;
        };
        let tids: Vec<u64> = process.threads.keys().copied().collect();
        for tid in tids {
            process.end(key, tid, &mut self.files, &mut self.rows);
        }
    }
}

impl Process {
    fn find_threads(&mut self, key: ProcessKey, files: &mut usize, rows: &mut Vec<ThreadRow>) {
        let now_ns = sys::monotonic_ns();
        for tid in numbers(self.tasks.as_ref()) {
            let known = self.threads.get(&tid);
            if known.is_some_and(|thread| now_ns - thread.first_ns > NAMED_NS) {
                continue;
            }
            let task = format!("{}/{tid}", self.tasks);
            let name = fs::read_to_string(format!("{task}/comm")).unwrap_or_default();
            if name.trim_end() == OUR_THREAD {
                if self.threads.contains_key(&tid) {
                    self.end(key, tid, files, &mut Vec::new());
                    rows.retain(|(other, of, _)| (*other, *of) != (key, tid));
                }
            } else if known.is_none()
                && let Some(thread) = Thread::new(task, files)
            {
                self.threads.insert(tid, thread);
            }
        }
    }

    fn end(&mut self, key: ProcessKey, tid: u64, files: &mut usize, rows: &mut Vec<ThreadRow>) {
        let Some(mut thread) = self.threads.remove(&tid) else {
            return;
        };
        let mut rest = Vec::new();
        thread.waits.finish(&mut rest);
        rows.extend(rest.into_iter().map(|row| (key, tid, row)));
        let open = [&thread.sums, &thread.call];
        *files -= (open.iter())
            .filter(|source| matches!(source, Source::Open(_)))
            .count();
    }
}

/// What one look at a process needs.
struct Look<'a> {
    pid: u32,
    gil: Option<Gil>,
    denied: &'a mut bool,
    /// Who has the GIL; read when the first thread is seen waiting for it.
    holder: Option<Option<u64>>,
    sockets: &'a mut Sockets,
}

impl Look<'_> {
    fn holder(&mut self) -> Option<u64> {
        let (pid, gil) = (self.pid, self.gil);
        *self.holder.get_or_insert_with(|| {
            let at = gil.map(|gil| gil.holder).filter(|at| *at != 0)?;
            sys::read_word(pid, at).filter(|state| *state != 0)
        })
    }
}

impl Thread {
    fn new(task: String, files: &mut usize) -> Option<Thread> {
        let mut line = [0; 1200];
        let sums = Source::new(format!("{task}/schedstat"), files);
        let known = sums.read(&mut line).ok().and_then(Sums::parse)?;
        let stat = Stat::read(&format!("{task}/stat"))?;
        let clocks = sys::clocks();
        // Its start is known to a tick only. At the latest, so that no wait is invented.
        let start_ns = (stat.start_ticks as i64 + 1) * TICK_NS;
        let age_ns = clocks.boottime_ns - start_ns;
        let first_ns = clocks.monotonic_ns - age_ns.max(known.cpu_ns + known.runnable_ns);
        Some(Thread {
            sums,
            call: Source::new(format!("{task}/syscall"), files),
            task,
            denied: false,
            waits: Waits::new(first_ns),
            first_ns,
        })
    }

    /// Looks once; `None` if the thread is gone.
    fn look(&mut self, look: &mut Look, rows: &mut Vec<Row>) -> Option<()> {
        let mut line = [0; 1200];
        let sums = self.sums.read(&mut line).ok().and_then(Sums::parse)?;
        let now_ns = sys::monotonic_ns();
        let goes_on = self.waits.goes_on(sums);
        if goes_on && !self.waits.is_crowded() {
            self.waits.stays(now_ns, rows);
            return Some(());
        }
        let seen = self.seen(look);
        if goes_on && seen != Seen::Running {
            self.waits.stays(now_ns, rows);
            return Some(());
        }
        let Seen::Waiting(waiting) = seen else {
            self.waits.runs(now_ns, sums, rows);
            return Some(());
        };
        // The sums of a thread that runs are old. Now that it waits they are not, unless it has run since.
        let before = sums;
        let sums = self.sums.read(&mut line).ok().and_then(Sums::parse)?;
        let now_ns = sys::monotonic_ns();
        if sums.slices != before.slices {
            self.waits.runs(now_ns, sums, rows);
            return Some(());
        }
        let mut blocked = Blocked {
            waiting,
            file: "",
            holder: None,
        };
        if self.waits.is_new(now_ns, &waiting) {
            blocked.file = waiting
                .fd
                .map_or("", |fd| file_kind(look.pid, fd, look.sockets));
            if waiting.state == syscall::State::Gil {
                blocked.holder = look.holder();
            }
        }
        self.waits.waits(now_ns, sums, blocked, rows);
        Some(())
    }

    fn seen(&mut self, look: &mut Look) -> Seen {
        let mut line = [0; 1200];
        if !self.denied {
            match self.call.read(&mut line) {
                Ok(text) => return syscall::parse(text, look.gil),
                // a thread that is gone is not found
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                    return Seen::Running;
                }
                Err(_) => {
                    *look.denied = true;
                    self.denied = true;
                    self.call = Source::Path(format!("{}/stat", self.task));
                }
            }
        }
        let text = self.call.read(&mut line).ok();
        match text.and_then(Stat::parse) {
            Some(stat) if stat.state != 'R' => Seen::Waiting(Waiting::UNKNOWN),
            _ => Seen::Running,
        }
    }
}

/// What kind of file a descriptor of a process is; never which one.
fn file_kind(pid: u32, fd: u32, sockets: &mut Sockets) -> &'static str {
    let target = fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default();
    let target = target.to_string_lossy();
    if let Some(inode) = target.strip_prefix("socket:[") {
        let inode = inode.trim_end_matches(']').parse().ok();
        return match inode.and_then(|inode| sockets.is_taken(pid, inode)) {
            Some(true) => "client",
            Some(false) => "socket",
            None => "",
        };
    }
    let starts = [
        ("pipe:", "pipe"),
        ("anon_inode:", "event"),
        ("/dev/pts/", "terminal"),
        ("/dev/tty", "terminal"),
        ("/dev/", "device"),
        ("/", "file"),
    ];
    let kind = starts.iter().find(|(start, _)| target.starts_with(start));
    kind.map_or("", |(_, kind)| kind)
}

//! Follow a program from its launch to its last drained record.

mod attach; // a program that runs already
mod check; // what can be recorded here
mod combine; // what cannot be had together
mod dense; // a map from ids that count up
pub mod drain; // records to rows: begins and ends paired, ids to names, ticks to ns
mod ended; // how each process ended
mod flight; // the last of a run, written when it is asked for
mod gpu; // what is recorded of devices, and why there is nothing
mod folder; // the directory of a run: made, filled, locked, found again
pub mod journal; // what was taken from the segments, until the trace is whole
mod launch; // which executable runs: the Python that the program would get
pub mod leftover; // runs that were cut short: listed, removed
mod looks; // when threads are looked at, and what a look reads
mod meters; // GPUs' utilisation, memory, clocks and power
mod proc; // what /proc says
mod pump; // segments to journal and trace
mod sampling; // Python stacks, looked at from outside
pub mod states; // CPU time, waits, memory and lives, as rows
mod sockets; // connections that were taken
mod syscall; // a system call to what it waits for
mod throttle; // what the budget left out, estimated
mod trigger; // what asks for it
mod waits; // looks at a thread to its time in each state
mod window; // the last of a run, in chunks

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use inferscope_spool::sys;
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::raw::WithRawSiginfo;

use crate::cli::{self, Sink};
use crate::error::{Error, Result};
use crate::trace::Writer;
use crate::trace::provenance::{Provenance, Step};
use ended::Status;
use folder::{Folder, Settings};
use launch::{Launch, Refusal, Surroundings};
use meters::Meters;
use pump::{Count, Goal, Pump};
use sampling::{Plan, Source};
use states::States;

pub use attach::attach;
pub use gpu::Gpu;
pub use sampling::WAITING_NAME;
pub use trigger::Trigger;

/// Exit status for our own faults.
pub const FAULT: u8 = 125;

/// Longest and shortest time between two turns.
const PACE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));
/// Time between two looks at the threads.
const LOOK: Duration = Duration::from_millis(100);
/// How long the program's children may go on after it and still be recorded.
const GRACE: Duration = Duration::from_secs(1);

/// What isc-record was asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the trace goes; `None`: standard output, or a file called after the program if that is a terminal.
    pub output: Option<Sink>,
    pub python: Option<PathBuf>,
    /// `program` is a module and its arguments.
    pub module: bool,
    pub program: Vec<OsString>,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    /// Share of the program's CPU time that recording may cost; 0: no limit, all is recorded.
    pub budget: f64,
    pub wrap: bool,
    /// Whether numpy's calls of its BLAS are recorded, with their sizes.
    pub blas: bool,
    /// Whether the probe samples native code.
    pub native_samples: bool,
    pub gpu: Gpu,
    /// The program runs already.
    pub attach: bool,
    /// Sample Python stacks at this rate from outside, and load no probe.
    pub sample_hz: Option<f64>,
    /// Modules, paths and functions whose lines are measured.
    pub lines: Vec<String>,
    pub start_on: Option<String>,
    pub delay: Duration,
    pub duration: Option<Duration>,
    /// Only the last of the run is kept.
    pub last: Option<Duration>,
    /// Rows that make a window be written while the program runs.
    pub triggers: Vec<Trigger>,
    /// Resident bytes of segments per process.
    pub ring_bytes: u64,
    pub spill_dir: Option<PathBuf>,
    /// Bytes of spill files per process, and of the journal.
    pub spill_limit_bytes: u64,
}

impl Options {
    fn settings(&self, name: &str) -> Settings {
        let ms = |time: Duration| time.as_millis() as u64;
        Settings {
            ring_bytes: self.ring_bytes,
            spill: PathBuf::new(),
            spill_limit_bytes: self.spill_limit_bytes,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            budget: self.budget,
            wrap: self.wrap,
            blas: self.blas,
            sample: self.native_samples,
            native: true,
            gpu: self.gpu.clone(),
            attached: self.attach,
            lines: self.lines.clone(),
            start_on: self.start_on.clone(),
            delay_ms: ms(self.delay),
            duration_ms: self.duration.map(ms),
            name: name.to_owned(),
        }
    }

    fn plan(&self, root: u32, rate_hz: f64, folder: &Folder) -> Plan {
        Plan {
            root,
            rate_hz,
            delay: self.delay,
            duration: self.duration,
            own: folder.dir.clone(),
            windowed: self.last.is_some(),
        }
    }

    /// # Errors
    /// An output that cannot be made.
    fn goal(&self, sink: &Sink) -> Result<Goal> {
        let provenance = self.provenance();
        Ok(match self.last {
            None => Goal::Trace(Box::new(Writer::create(sink, &provenance)?)),
            Some(last) => Goal::Window(flight::Plan {
                last,
                triggers: self.triggers.clone(),
                sink: sink.clone(),
                provenance,
            }),
        })
    }

    /// What of it belongs into the trace: nothing of the program's.
    fn provenance(&self) -> Provenance {
        let mut flags = Vec::new();
        let mut flag = |name: &str, value: Option<String>| {
            flags.extend(value.map(|value| format!("--{name}={value}")));
        };
        flag(
            "include",
            (!self.include.is_empty()).then(|| self.include.join(",")),
        );
        flag(
            "exclude",
            (!self.exclude.is_empty()).then(|| self.exclude.join(",")),
        );
        flag("attach", self.attach.then(|| "true".into()));
        flag("sample", self.sample_hz.map(|rate| format!("{rate}")));
        if self.sample_hz.is_none() {
            let budget = (self.budget > 0.0).then(|| format!("{}%", 100.0 * self.budget));
            flag("budget", Some(budget.unwrap_or_else(|| "none".into())));
            flag("no-wrap", (!self.wrap).then(|| "true".into()));
            flag("blas", self.blas.then(|| "true".into()));
            let without = (!self.native_samples).then(|| "true".into());
            flag("no-native-samples", without);
            flag(
                "lines",
                (!self.lines.is_empty()).then(|| self.lines.join(",")),
            );
        }
        flag("no-gpu", (!self.gpu.gpu).then(|| "true".into()));
        flag("gpu-only", (!self.gpu.python).then(|| "true".into()));
        flag("cuda-api", self.gpu.cuda_api_all.then(|| "all".into()));
        flag(
            "cuda-graph",
            self.gpu.cuda_graph_whole.then(|| "whole".into()),
        );
        flag("cuda-memory", self.gpu.cuda_memory.then(|| "true".into()));
        flag("start-on", self.start_on.clone());
        flag(
            "delay",
            (!self.delay.is_zero()).then(|| format!("{:?}", self.delay)),
        );
        flag("duration", self.duration.map(|time| format!("{time:?}")));
        flag("last", self.last.map(|time| format!("{time:?}")));
        for trigger in &self.triggers {
            flag("trigger", Some(trigger.to_string()));
        }
        let mut provenance = Provenance::raw(Step::new("isc-record", flags, vec![]));
        provenance.machine = machine();
        provenance.config =
            json!({"ring_bytes": self.ring_bytes, "spill_limit_bytes": self.spill_limit_bytes});
        provenance
    }
}

/// Facts that tell one machine's measurements from another's.
fn machine() -> serde_json::Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kib = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
    json!({
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cpus": std::thread::available_parallelism().map_or(1, usize::from),
        "memory_bytes": kib.map(|kib| kib << 10),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "arch": std::env::consts::ARCH,
        "no_gpu": gpu::none_here(),
        "fault_ns": fault_ns(),
    })
}

/// What a page fault that needs no disk costs here, in ns: the quickest of some rounds of touching fresh pages and giving
/// them back. A guest of a hypervisor pays several times what its host does. Some ms.
fn fault_ns() -> Option<u64> {
    const PAGES: usize = 512; // more than a processor's own cache holds
    const PAGE_BYTES: usize = 4096;
    let round = |_| {
        let begun = std::time::Instant::now();
        let mut map = memmap2::MmapMut::map_anon(PAGES * PAGE_BYTES).ok()?;
        // Else the first touch may bring in 2 MiB at once; where the kernel knows no such pages it has none to avoid.
        let _ = map.advise(memmap2::Advice::NoHugePage);
        map.iter_mut()
            .step_by(PAGE_BYTES)
            .for_each(|byte| *byte = 1);
        drop(map);
        Some(begun.elapsed().as_nanos() as u64 / PAGES as u64)
    };
    (0..3).filter_map(round).min()
}

/// Prints what can be recorded here, and why not the rest.
///
/// # Errors
/// No probe is to be found.
pub fn check(options: &Options) -> Result<()> {
    let spill = options.spill_dir.clone().unwrap_or_else(std::env::temp_dir);
    let around = Surroundings::here(options.python.clone());
    check::check(&around, &options.gpu, &spill)
}

/// Runs the program and records it. The value is the program's status.
///
/// # Errors
/// What keeps the program from being started, or the trace from being written when the program itself did well.
pub fn run(options: &Options) -> Result<ExitCode> {
    let around = Surroundings::here(options.python.clone());
    let launch = match options.module {
        true => around.module(&options.program),
        false => around.program(&options.program),
    };
    let launch = match launch {
        Ok(launch) => launch,
        Err(refusal) => return Ok(refused(refusal)),
    };
    for left in folder::stale().iter().take(3) {
        let dir = left.display();
        eprintln!(
            "isc-record: {dir} is left of a run that was cut short: isc-record --recover {dir}"
        );
    }
    let sink = match &options.output {
        Some(sink) => sink.clone(),
        None if io::stdout().is_terminal() => Sink::File(free_name(&launch.name)),
        None => Sink::Stdout,
    };
    options.check(&sink)?;
    if options.sample_hz.is_some() {
        options.check_sampled("stacks are sampled")?;
    }
    let spill = options.spill_dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut folder = Folder::create(options.settings(&launch.name), &spill)?;
    let goal = options.goal(&sink)?;
    let mut pump = Pump::new(&folder, goal, States::new(std::process::id()))?;

    let state = Arc::new(State {
        windowed: options.last.is_some(),
        ..State::default()
    });
    forward_signals(&state, &folder.dir)?;
    let mut child = match command(&launch, &folder, &sink, options)?.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(refused(not_started(&launch, &error))),
    };
    let pid = child.id();
    state.begin(pid);
    if let Some(rate_hz) = options.sample_hz {
        pump.sample(Source::start(options.plan(pid, rate_hz, &folder)));
    }
    if options.gpu.gpu {
        pump.meter(Meters::start(pid));
    }
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = sys::wait_child(pid); // it is our child, so it can be waited for
        let _ = ended.send(());
    });

    follow(&mut pump, &end, options.ring_bytes, &state).map_err(Error::io("read", &folder.dir))?;
    state.ended.store(true, Ordering::SeqCst);
    let status = child
        .wait()
        .map_err(Error::io("wait for", &launch.executable))?;
    linger(&mut pump).map_err(Error::io("read", &folder.dir))?;
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => Status::Exit(code),
        (None, signal) => Status::Signal(signal.unwrap_or(0)),
    };
    let living = pump.living().len();
    match pump.finish(&folder, Some((pid, end))) {
        Ok(count) => {
            say(&sink, options, &count, &folder, living);
            Ok(code(status))
        }
        Err(error) => {
            let reader_gone = kept(&mut folder, &error, &launch.name);
            Ok(match (reader_gone, status.success()) {
                (false, true) => ExitCode::from(FAULT),
                _ => code(status),
            })
        }
    }
}

/// Tells that the trace is not there, and where everything is; whether just its reader is gone.
fn kept(folder: &mut Folder, error: &Error, name: &str) -> bool {
    folder.keep(true);
    let dir = folder.dir.display();
    let reader_gone = matches!(error, Error::Closed);
    let why = match reader_gone {
        true => "the reader of the trace is gone",
        false => "the trace could not be written",
    };
    if !reader_gone {
        cli::complain("isc-record", error);
    }
    eprintln!(
        "isc-record: {why}; all that was recorded is kept: isc-record --recover {dir} -o {name}.parquet"
    );
    reader_gone
}

/// Makes a trace of what an interrupted run left in `dir`, and removes that, unless a program still adds to it.
///
/// # Errors
/// A directory that is no run's, or whose recorder is still at work; what cannot be written.
pub fn recover(dir: &Path, output: Option<&Sink>) -> Result<()> {
    let mut folder = Folder::open(dir)?;
    let sink = match output {
        Some(sink) => sink.clone(),
        None if io::stdout().is_terminal() => Sink::File(free_name(&folder.settings.name)),
        None => Sink::Stdout,
    };
    let step = Step::new("isc-record", vec!["--recover".into()], vec![]);
    let mut provenance = Provenance::raw(step);
    provenance.machine = machine();
    let (count, living) = pump::recover(&folder, Writer::create(&sink, &provenance)?)?;
    if let Sink::File(path) = &sink {
        eprintln!("isc-record: {}: {}", path.display(), summary(&count));
    }
    if living > 0 {
        let dir = dir.display();
        eprintln!(
            "isc-record: {living} processes run on, so {dir} is kept: recover it again when they have ended, for all of it"
        );
    }
    folder.keep(living > 0);
    Ok(())
}

/// Takes records until the program ends.
fn follow(
    pump: &mut Pump,
    end: &mpsc::Receiver<()>,
    ring_bytes: u64,
    state: &State,
) -> io::Result<()> {
    let mut pace = Duration::from_millis(5);
    let mut progress = Bar::new();
    let mut looked = Instant::now();
    pump.look();
    // the channel closes only after its message
    while let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(pace) {
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            pump.look();
            progress.show(&pump.count());
        }
        let bytes = pump.turn()?;
        let why = match state.asked.swap(false, Ordering::SeqCst) {
            true => Some("a signal".to_owned()),
            false => pump.fired(),
        };
        if let Some(why) = why {
            dump(pump, &why);
        }
        if let Some(sink) = &state.attached
            && (pump.is_refused() || *sink == Sink::Stdout && sys::has_no_reader(&io::stdout()))
        {
            break; // the program does not need us, and nobody else waits for its end
        }
        // a quarter of one process's ring in one turn is late, a sixteenth is early
        pace = match bytes {
            bytes if bytes > ring_bytes / 4 => pace / 2,
            bytes if bytes < ring_bytes / 16 => pace * 2,
            _ => pace,
        }
        .clamp(PACE.0, PACE.1);
    }
    pump.look(); // while the kernel still has its sums
    Ok(())
}

/// Writes the window while the program runs. A fault is told, and the recording goes on.
fn dump(pump: &mut Pump, why: &str) {
    match pump.dump(why) {
        Ok(Some(path)) => eprintln!("isc-record: {}: {why}", path.display()),
        Ok(None) => eprintln!("isc-record: {why}: no window is written into a pipe"),
        Err(error) => cli::complain("isc-record", &error),
    }
}

/// Takes the rest: of the program, and for a while of children that outlive it.
fn linger(pump: &mut Pump) -> io::Result<()> {
    let since = Instant::now();
    loop {
        pump.turn()?;
        let living = pump.living();
        let left = GRACE.saturating_sub(since.elapsed());
        if living.is_empty() || left.is_zero() {
            break;
        }
        sys::wait_any(&living, left.min(PACE.1));
        pump.look();
    }
    pump.last_turn()
}

fn command(launch: &Launch, folder: &Folder, sink: &Sink, options: &Options) -> Result<Command> {
    let mut command = Command::new(&launch.executable);
    command.args(&launch.args);
    match options.sample_hz {
        None => command.env("INFERSCOPE_SPOOL", &folder.dir),
        // no probe; `import inferscope` works as it does under one, and does nothing
        Some(_) => command.env_remove("INFERSCOPE_SPOOL"),
    };
    inject(&mut command, folder, options.sample_hz.is_none());
    let mut path = vec![folder.python()];
    if let Some(own) = std::env::var_os("PYTHONPATH") {
        path.extend(std::env::split_paths(&own));
    }
    let joined = std::env::join_paths(&path).map_err(|error| {
        Error::invalid(
            folder.python(),
            format!("cannot stand in PYTHONPATH: {error}"),
        )
    })?;
    command.env("PYTHONPATH", joined);
    if options.sample_hz.is_none() {
        options.gpu.open(&mut command, folder);
    }
    if *sink == Sink::Stdout {
        // the trace has standard output to itself
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        let stderr = stderr.map_err(Error::io("open", Path::new("standard error")))?;
        command.stdout(Stdio::from(stderr));
    }
    Ok(command)
}

/// The library that NVTX loads at its first call, in any program.
const NVTX: &str = "NVTX_INJECTION64_PATH";
const PROBE: &str = "libinferscope_probe.so";

/// Has NVTX load the probe, or no probe of an isc-record around this one.
fn inject(command: &mut Command, folder: &Folder, probe: bool) {
    let other = std::env::var_os(NVTX).map(PathBuf::from);
    let other = other.filter(|path| !path.as_os_str().is_empty());
    let ours = |path: &PathBuf| path.file_name().is_some_and(|name| name == PROBE);
    match (probe, &other) {
        (true, _) => drop(command.env(NVTX, folder.dir.join(PROBE))),
        (false, Some(path)) if ours(path) => drop(command.env_remove(NVTX)),
        (false, _) => {}
    }
    if let Some(path) = other.filter(|path| probe && !ours(path)) {
        eprintln!(
            "isc-record: {NVTX} is taken for this recording; it was {}",
            path.display()
        );
    }
}

/// What the thread that forwards signals knows.
#[derive(Debug, Default)]
struct State {
    /// 0: not started yet.
    pid: AtomicU32,
    /// The signal that came before the program did.
    early: AtomicU32,
    ended: AtomicBool,
    /// The program is not our child, and the trace goes here.
    attached: Option<Sink>,
    /// SIGUSR2 is for us: it asks for the window.
    windowed: bool,
    asked: AtomicBool,
}

impl State {
    fn begin(&self, pid: u32) {
        self.pid.store(pid, Ordering::SeqCst);
        let early = self.early.swap(0, Ordering::SeqCst);
        if early != 0 {
            let _ = sys::kill(pid, early as i32);
        }
    }
}

/// Passes signals on to the program. What a terminal sends (Ctrl-C), it has already sent to the program too.
/// After the program has ended, a signal ends us, and the run can be recovered.
fn forward_signals(state: &Arc<State>, dir: &Path) -> Result<()> {
    let all = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2];
    let mut signals = SignalsInfo::<WithRawSiginfo>::new(all)
        .map_err(Error::io("handle", Path::new("signals")))?;
    let (state, dir) = (state.clone(), dir.to_owned());
    std::thread::spawn(move || {
        for info in signals.forever() {
            let (signal, by_kernel) = (info.si_signo, info.si_code > 0);
            if state.ended.load(Ordering::SeqCst) {
                let dir = dir.display();
                eprintln!(
                    "isc-record: stopped; all that was recorded is kept: isc-record --recover {dir}"
                );
                std::process::exit(128 + signal);
            }
            if signal == SIGUSR2 && state.windowed {
                state.asked.store(true, Ordering::SeqCst);
                continue;
            }
            match (by_kernel, state.pid.load(Ordering::SeqCst)) {
                (true, _) => {}
                (false, 0) => state.early.store(signal as u32, Ordering::SeqCst),
                (false, pid) => {
                    let _ = sys::kill(pid, signal); // it may just have ended
                }
            }
        }
    });
    Ok(())
}

fn refused(refusal: Refusal) -> ExitCode {
    let error = Error::Invalid {
        path: refusal.path,
        what: refusal.what,
        hint: refusal.hint,
    };
    cli::complain("isc-record", &error);
    ExitCode::from(refusal.status)
}

fn not_started(launch: &Launch, error: &io::Error) -> Refusal {
    Refusal {
        status: match error.kind() {
            io::ErrorKind::NotFound => launch::NOT_FOUND,
            _ => launch::NOT_RUNNABLE,
        },
        path: launch.executable.clone(),
        what: match error.kind() {
            io::ErrorKind::NotFound => "the interpreter of its first line is not there".into(),
            _ => error.to_string(),
        },
        hint: None,
    }
}

fn code(status: ExitStatus) -> ExitCode {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitCode::from(code as u8),
        (None, signal) => ExitCode::from(128 + signal.unwrap_or(0) as u8),
    }
}

/// A file of the current folder that is not there yet: `app.parquet`, `app-2.parquet` …
fn free_name(program: &str) -> PathBuf {
    let plain = PathBuf::from(format!("{program}.parquet"));
    let numbered = (2..).map(|number| PathBuf::from(format!("{program}-{number}.parquet")));
    let mut names = std::iter::once(plain.clone()).chain(numbered);
    names.find(|path| !path.exists()).unwrap_or(plain)
}

fn summary(count: &Count) -> String {
    let mut text = format!("{} events", count.rows);
    if count.lost > 0 {
        text += &format!(", {} lost", count.lost);
    }
    text
}

/// What the user has to know at the end: the name of a file that we named, losses, what was not recorded.
fn say(sink: &Sink, options: &Options, count: &Count, folder: &Folder, living: usize) {
    if let (None, Sink::File(path)) = (&options.output, sink) {
        eprintln!("isc-record: {}: {}", path.display(), summary(count));
    } else if count.lost > 0 {
        eprintln!(
            "isc-record: {} records lost: raise --spill-limit",
            count.lost
        );
    }
    if let Some(why) = options.gpu.absence(&count.devices)
        && options.sample_hz.is_none()
    {
        eprintln!("isc-record: no GPU data: {why}");
    }
    if !options.lines.is_empty() && count.without_lines {
        let patterns = options.lines.join(", ");
        eprintln!("isc-record: no function that ran is called so: --lines {patterns}");
    }
    if count.damaged > 0 {
        eprintln!(
            "isc-record: {} segment files could not be read",
            count.damaged
        );
    }
    if living > 0 {
        eprintln!(
            "isc-record: {living} processes run on; what they do from now on is not recorded"
        );
    }
    if count.covered == 0 && folder.uncovered().is_empty() {
        eprintln!(
            "isc-record: no Python was recorded (-I, -E, a frozen program, or no Python at all); the trace has what the system knows"
        );
    }
}

/// A line about the recording, for people.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new() -> Bar {
        Bar(io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("recording {msg} {elapsed}") {
                bar.set_style(style);
            }
            bar
        }))
    }

    fn show(&mut self, count: &Count) {
        if let Some(bar) = &self.0 {
            let mb = count.bytes as f64 / 1e6;
            bar.set_message(format!(
                "{} events, {mb:.1} MB, {} lost",
                count.rows, count.lost
            ));
            bar.tick();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

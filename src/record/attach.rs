//! A Python that runs already: traced from now on if it can be asked to (3.14), else sampled.

use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use inferscope_spool::sys::{self, Watch};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

use super::folder::Folder;
use super::pump::Pump;
use super::sampling::{self, Source};
use super::states::States;
use super::{FAULT, Options, State, follow, free_name, kept, say};
use crate::cli::Sink;
use crate::error::{Error, Result};

/// Samples per second of a program that cannot be traced, if the user names no rate.
const RATE_HZ: f64 = 100.0;
/// How long a program may take until its main thread runs Python and starts the probe.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the probe may take to start once the program is at it.
const STARTS: Duration = Duration::from_secs(30);

/// How long one wait for the program's end lasts at most; poll(2) takes no more than 24 days.
const LONGEST: Duration = Duration::from_secs(86_400);

/// What the target's own executable runs to ask it; `-I -S`: nothing of the user's is loaded.
const ASK: &str = "import sys; sys.remote_exec(int(sys.argv[1]), sys.argv[2])";

/// Records the running program `pid` until it ends, `--duration` is over, or a signal comes. The value is 0: whatever
/// the program does, it is not our child.
///
/// # Errors
/// No such process, no Python, no right to look into it; a trace that cannot be written.
pub fn attach(options: &Options, pid: u32) -> Result<ExitCode> {
    let gone = || invalid(pid, "no such process".into(), None);
    let watch = Watch::open(pid).map_err(|_| gone())?;
    may_look(pid)?;
    if !sampling::may_be_python(pid) {
        let what = format!("process {pid} is no Python program");
        return Err(invalid(pid, what, None));
    }
    let program = sampling::program_name(pid).unwrap_or_else(|| "python".into());
    let name = Path::new(&program).file_stem().unwrap_or_default();
    let name = name.to_string_lossy().replace(['.', ' '], "-");
    let sink = match &options.output {
        Some(sink) => sink.clone(),
        None if io::stdout().is_terminal() => Sink::File(free_name(&name)),
        None => Sink::Stdout,
    };
    options.check(&sink)?;
    let spill = options.spill_dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut folder = Folder::create(options.settings(&name), &spill)?;
    let (end, ended) = mpsc::channel();
    let state = Arc::new(State {
        attached: Some(sink.clone()),
        windowed: options.last.is_some(),
        ..State::default()
    });
    end_on_signals(&state, &end, &folder.dir)?;

    let rate_hz = match options.sample_hz {
        Some(rate) => {
            options.check_sampled("stacks are sampled")?;
            Some(rate)
        }
        None => match trace(pid, &program, &folder) {
            Ok(()) => None,
            Err(why) => {
                options.check_sampled(&format!("{why}, so stacks are sampled"))?;
                eprintln!("isc-record: {why}: stacks are sampled, calls are not traced");
                Some(RATE_HZ)
            }
        },
    };
    if rate_hz.is_some() {
        sampling::Spy::open(pid).map_err(|why| match Watch::open(pid) {
            Ok(_) => invalid(pid, format!("its Python cannot be looked at: {why}"), None),
            Err(_) => gone(),
        })?;
    }
    let goal = options.goal(&sink)?;
    let mut pump = Pump::new(&folder, goal, States::attached(pid))?;
    let plan = rate_hz.map(|rate| options.plan(pid, rate, &folder));
    let until = options.duration.map(|most| options.delay + most);
    std::thread::spawn(move || {
        let since = Instant::now();
        let left = |until: Duration| until.saturating_sub(since.elapsed());
        loop {
            let begun = Instant::now();
            sys::wait_any(std::slice::from_ref(&watch), until.map_or(LONGEST, left));
            if until.is_some() || begun.elapsed() < LONGEST {
                break;
            }
        }
        let _ = end.send(());
    });
    if let Some(plan) = plan {
        pump.sample(Source::start(plan));
    }
    eprintln!("isc-record: {pid} ({program}) is recorded; Ctrl-C ends that, not the program");
    follow(&mut pump, &ended, options.ring_bytes, &state)
        .map_err(Error::io("read", &folder.dir))?;
    state.ended.store(true, Ordering::SeqCst);
    pump.last_turn().map_err(Error::io("read", &folder.dir))?;
    match pump.finish(&folder, None) {
        Ok(count) => {
            say(&sink, options, &count, &folder, 0);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Ok(match kept(&mut folder, &error, &name) {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(FAULT),
        }),
    }
}

fn invalid(pid: u32, what: String, hint: Option<String>) -> Error {
    Error::Invalid {
        path: PathBuf::from(format!("/proc/{pid}")),
        what,
        hint,
    }
}

/// Whether the system lets us read the process's memory (ptrace(2), "Ptrace access mode checking").
fn may_look(pid: u32) -> Result<()> {
    let Err(error) = fs::File::open(format!("/proc/{pid}/mem")) else {
        return Ok(());
    };
    if error.kind() == io::ErrorKind::NotFound {
        return Err(invalid(pid, "no such process".into(), None));
    }
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let (why, hint) = match (same_user(pid), scope.trim()) {
        (false, _) => ("it belongs to another user", "as that user, or with sudo"),
        (true, "1") => (
            "kernel.yama.ptrace_scope is 1",
            "with sudo, or once: sudo sysctl kernel.yama.ptrace_scope=0",
        ),
        (true, "2") => ("kernel.yama.ptrace_scope is 2", "with sudo"),
        (true, "3") => (
            "kernel.yama.ptrace_scope is 3, until the next boot",
            "start the program with isc-record",
        ),
        _ => (
            "the system forbids it",
            "with sudo, or in a container with CAP_SYS_PTRACE",
        ),
    };
    let what = format!("process {pid} may not be looked into: {why}");
    Err(invalid(pid, what, Some(hint.into())))
}

fn same_user(pid: u32) -> bool {
    let owner = |path: &str| fs::metadata(path).map(|facts| facts.uid()).ok();
    owner(&format!("/proc/{pid}")) == owner("/proc/self")
}

/// Has the target start the probe, by its interpreter's own remote interface (PEP 768).
///
/// # Errors
/// Why it cannot, in words; then it never will.
fn trace(pid: u32, program: &str, folder: &Folder) -> std::result::Result<(), String> {
    let place = |path: String| {
        fs::metadata(path)
            .map(|facts| (facts.dev(), facts.ino()))
            .ok()
    };
    if place(format!("/proc/{pid}/root/")) != place("/".into()) {
        return Err("it runs in a container or another root folder".into());
    }
    if !same_user(pid) {
        return Err("it belongs to another user".into());
    }
    let script = folder.dir.join("attach.py");
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let text = format!(
        "RUN = {}\nNAME = {}\n{}",
        quoted(&folder.dir.to_string_lossy()),
        quoted(program),
        include_str!("../../python/bootstrap/attach.py")
    );
    let wanted = folder.dir.join("attach.wanted");
    let failed = |error: io::Error| error.to_string();
    fs::write(&script, text).map_err(failed)?;
    fs::write(&wanted, "").map_err(failed)?;
    ask(pid, &script)?;
    let (since, done) = (Instant::now(), folder.dir.join("attach.done"));
    loop {
        if let Ok(said) = fs::read_to_string(&done) {
            return match said.is_empty() {
                true => Ok(()),
                false => Err(said),
            };
        }
        // renamed by whoever is first, the target or we
        if since.elapsed() > PATIENCE && fs::remove_file(&wanted).is_ok() {
            let _ = ask(pid, Path::new("/dev/null")); // instead of a script that will be gone
            return Err(format!(
                "its main thread has run no Python for {} s",
                PATIENCE.as_secs()
            ));
        }
        if since.elapsed() > STARTS || Watch::open(pid).is_err() {
            return Err("the probe did not start".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ask(pid: u32, script: &Path) -> std::result::Result<(), String> {
    let exe = format!("/proc/{pid}/exe");
    let name = fs::read_link(&exe).unwrap_or_default();
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    if !name.starts_with("python") {
        return Err(format!("its executable ({name}) is no Python"));
    }
    // by its own path it finds its library; one that has been replaced since then runs all the same
    let real = fs::read_link(&exe).ok().filter(|path| path.is_file());
    let asked = Command::new(real.unwrap_or_else(|| exe.into()))
        .args(["-I", "-S", "-c", ASK, &pid.to_string()])
        .arg(script)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("its executable does not run: {error}"))?;
    if asked.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    Err(match said.trim().lines().last() {
        Some(line) if line.contains("no attribute 'remote_exec'") => {
            "its Python is older than 3.14".into()
        }
        Some(line) if !line.is_empty() => format!("its Python refuses ({})", line.trim()),
        _ => "its executable is no Python".into(),
    })
}

/// The first signal ends the recording, a second one us; then the run can be recovered. SIGUSR2 asks for the window.
fn end_on_signals(state: &Arc<State>, end: &mpsc::Sender<()>, dir: &Path) -> Result<()> {
    let mut all = vec![SIGINT, SIGTERM, SIGHUP];
    all.extend(state.windowed.then_some(SIGUSR2));
    let mut signals = Signals::new(all).map_err(Error::io("handle", Path::new("signals")))?;
    let (state, end, dir) = (state.clone(), end.clone(), dir.to_owned());
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if signal == SIGUSR2 {
                state.asked.store(true, Ordering::SeqCst);
                continue;
            }
            if state.ended.swap(true, Ordering::SeqCst) {
                let dir = dir.display();
                eprintln!(
                    "isc-record: stopped; all that was recorded is kept: isc-record --recover {dir}"
                );
                std::process::exit(128 + signal);
            }
            let _ = end.send(());
        }
    });
    Ok(())
}

//! The commands one after the other, as `inferscope` runs them: each a process, files between them.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cli::{self, Sink, Source};
use crate::error::{Error, Result};
use crate::report::Format;
use crate::trace;
use crate::trace::provenance::Stage;

/// `inferscope run`.
#[derive(Args, Debug, Default)]
pub struct Run {
    /// Also write the page to this file: .html, .md or .json; may stand after the program as well
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Keep the merged trace in this file
    #[arg(short, long, value_name = "FILE.parquet")]
    output: Option<PathBuf>,
    /// Memory for records of one process that are not yet written [default: 8MiB]
    #[arg(long, value_name = "SIZE")]
    ring: Option<OsString>,
    /// Folder for records that do not fit into memory [default: TMPDIR]
    #[arg(long, value_name = "DIR")]
    spill_dir: Option<OsString>,
    /// The most that may lie there [default: 4GiB]
    #[arg(long, value_name = "SIZE")]
    spill_limit: Option<OsString>,
    /// Record only these modules or paths; may be given more than once
    #[arg(long, value_name = "PATTERN")]
    include: Vec<OsString>,
    /// Do not record these modules or paths; may be given more than once
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<OsString>,
    /// Start recording after this time, such as 5s
    #[arg(long, value_name = "TIME")]
    delay: Option<OsString>,
    /// Stop recording after this time; the program runs on
    #[arg(long, value_name = "TIME")]
    duration: Option<OsString>,
    /// Start recording when this scope is entered for the first time
    #[arg(long, value_name = "SCOPE")]
    start_on: Option<OsString>,
    /// The Python to run the program with
    #[arg(long, value_name = "PATH")]
    python: Option<OsString>,
    /// What recording may cost, in the program's own CPU time [default: 3%]
    #[arg(long, value_name = "SHARE")]
    budget: Option<OsString>,
    /// Record every call, whatever it costs
    #[arg(long)]
    exact: bool,
    /// Leave the functions of numpy and torch alone
    #[arg(long)]
    no_wrap: bool,
    /// Take no samples of native code while tracing
    #[arg(long, alias = "no-sample")]
    no_native_samples: bool,
    /// Do not trace: sample Python stacks HZ times a second, from outside
    #[arg(long, value_name = "HZ")]
    sample: Option<OsString>,
    /// Measure the lines of these functions; may be given more than once
    #[arg(long, value_name = "PATTERN")]
    lines: Vec<OsString>,
    /// Run a module, as python -m does
    #[arg(short, value_name = "MODULE")]
    module: Option<OsString>,
    /// The program and its arguments; everything after `--` is the program's, also --report
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "PROGRAM"
    )]
    program: Vec<OsString>,
}

/// `inferscope analyze`.
#[derive(Args, Debug)]
pub struct Analyze {
    /// Traces, as isc-record or isc-merge wrote them
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// Where to write the page: .html, .md or .json; the terminal if not given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Records, merges, analyses and shows. The value is the program's status.
///
/// # Errors
/// A report that has no known ending, before the program is started; a command that cannot be run.
pub fn run(asked: &Run) -> Result<ExitCode> {
    let split = std::env::args_os().any(|argument| argument == "--");
    let (program, trailing) = match split {
        true => (asked.program.clone(), None),
        false => without_report(&asked.program),
    };
    let report = asked.report.clone().or(trailing);
    if asked.module.is_none() && program.is_empty() {
        return Err(Error::Invalid {
            path: PathBuf::new(),
            what: "no program to run".into(),
            hint: Some("inferscope run app.py".into()),
        });
    }
    if let Some(path) = &report {
        Format::of(None, &Sink::File(path.clone()), None)?;
    }
    outlive_interrupts();
    let folder = temporary()?;
    let raw = folder.path().join("raw.parquet");

    let mut record = sibling("isc-record")?;
    asked.options(&mut record);
    record.arg("-o").arg(&raw);
    if let Some(module) = &asked.module {
        record.arg("-m").arg(module);
    } else {
        record.arg("--");
    }
    let status = wait(record.args(&program))?;
    let program = match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => 128 + signal.unwrap_or(0) as u8,
    };
    if !raw.exists() {
        return Ok(ExitCode::from(program)); // isc-record has said why
    }
    let merged = match &asked.output {
        Some(path) => path.clone(),
        None => folder.path().join("merged.parquet"),
    };
    let shown =
        merge(&[raw], &merged).and_then(|()| show(&merged, folder.path(), report.as_deref()));
    match shown {
        Ok(_) => Ok(ExitCode::from(program)),
        Err(error) if program == 0 => Err(error),
        Err(error) => {
            cli::complain("inferscope", &error);
            Ok(ExitCode::from(program))
        }
    }
}

/// Merges if need be, analyses and shows. The value is isc-analyze's status.
///
/// # Errors
/// What is no trace; a page with no known ending; a command that cannot be run or failed.
pub fn analyze(asked: &Analyze) -> Result<ExitCode> {
    if let Some(path) = &asked.output {
        Format::of(None, &Sink::File(path.clone()), None)?;
    }
    let mut raw = asked.traces.len() > 1;
    for path in &asked.traces {
        let reader = trace::io::Reader::open(&Source::File(path.clone()))?;
        raw |= reader.provenance().stage == Stage::Raw;
    }
    let folder = temporary()?;
    let merged = folder.path().join("merged.parquet");
    let timeline = match raw {
        true => {
            merge(&asked.traces, &merged)?;
            &merged
        }
        false => &asked.traces[0],
    };
    match &asked.output {
        None => Ok(code(wait(sibling("isc-analyze")?.arg(timeline))?)),
        Some(page) => pages(timeline, folder.path(), page),
    }
}

fn merge(traces: &[PathBuf], merged: &Path) -> Result<()> {
    let status = wait(sibling("isc-merge")?.args(traces).arg("-o").arg(merged))?;
    done("isc-merge", status)
}

/// The page on standard output, and in a file if one is asked for.
fn show(timeline: &Path, folder: &Path, report: Option<&Path>) -> Result<()> {
    let status = wait(sibling("isc-analyze")?.arg(timeline))?;
    done("isc-analyze", status)?;
    match report {
        Some(page) => pages(timeline, folder, page).map(|_| ()),
        None => Ok(()),
    }
}

/// The page in a file.
fn pages(timeline: &Path, folder: &Path, page: &Path) -> Result<ExitCode> {
    let analysis = folder.join("analysis.json");
    let analyzed = wait(
        sibling("isc-analyze")?
            .arg(timeline)
            .arg("-o")
            .arg(&analysis),
    )?;
    done("isc-analyze", analyzed)?;
    let mut report = sibling("isc-report")?;
    report.arg(&analysis).arg("--trace").arg(timeline);
    let status = wait(report.arg("-o").arg(page))?;
    done("isc-report", status)?;
    Ok(code(analyzed))
}

impl Run {
    /// The options that are isc-record's.
    fn options(&self, record: &mut Command) {
        let single = [
            ("--ring", &self.ring),
            ("--spill-dir", &self.spill_dir),
            ("--spill-limit", &self.spill_limit),
            ("--delay", &self.delay),
            ("--duration", &self.duration),
            ("--budget", &self.budget),
            ("--start-on", &self.start_on),
            ("--sample", &self.sample),
            ("--python", &self.python),
        ];
        for (flag, value) in single {
            if let Some(value) = value {
                record.arg(flag).arg(value);
            }
        }
        for (flag, values) in [
            ("--include", &self.include),
            ("--exclude", &self.exclude),
            ("--lines", &self.lines),
        ] {
            for value in values {
                record.arg(flag).arg(value);
            }
        }
        if self.exact {
            record.arg("--exact");
        }
        if self.no_wrap {
            record.arg("--no-wrap");
        }
        if self.no_native_samples {
            record.arg("--no-native-samples");
        }
    }
}

/// Takes a `--report FILE` out of the program's arguments: people write it last.
fn without_report(program: &[OsString]) -> (Vec<OsString>, Option<PathBuf>) {
    let ours = |name: &OsStr| {
        let sink = Sink::File(name.into());
        Format::of(None, &sink, None).is_ok()
    };
    let mut rest = program.to_vec();
    for at in 1..rest.len() {
        if rest[at] == "--report" && rest.get(at + 1).is_some_and(|name| ours(name)) {
            let report = PathBuf::from(rest.remove(at + 1));
            rest.remove(at);
            return (rest, Some(report));
        }
        let joined = rest[at]
            .to_str()
            .and_then(|word| word.strip_prefix("--report="));
        if let Some(name) = joined.filter(|name| ours(OsStr::new(name))) {
            let report = PathBuf::from(name);
            rest.remove(at);
            return (rest, Some(report));
        }
    }
    (rest, None)
}

/// A command that lies beside this one, also when this one was started through a link.
fn sibling(name: &str) -> Result<Command> {
    let here = std::env::current_exe().and_then(std::fs::canonicalize);
    let here = here.map_err(Error::io("find", Path::new("inferscope")))?;
    let path = here.with_file_name(name);
    if !path.is_file() {
        return Err(Error::Invalid {
            what: format!("not found beside {}", here.display()),
            path: name.into(),
            hint: Some("install all of InferScope's commands in one folder".into()),
        });
    }
    Ok(Command::new(path))
}

fn wait(command: &mut Command) -> Result<ExitStatus> {
    let path = PathBuf::from(command.get_program());
    command.status().map_err(Error::io("run", &path))
}

/// Whether a stage did its work: status 1 is a `--fail-on` condition, and work done.
fn done(name: &str, status: ExitStatus) -> Result<()> {
    match status.code() {
        Some(0 | 1) => Ok(()),
        _ => Err(Error::invalid(name, format!("did not finish: {status}"))),
    }
}

fn code(status: ExitStatus) -> ExitCode {
    ExitCode::from(status.code().map_or(cli::FAULT, |code| code as u8))
}

fn temporary() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("inferscope-")
        .tempdir()
        .map_err(Error::io("create a folder in", &std::env::temp_dir()))
}

/// Ctrl-C and the like are for the stage at work: it ends as it should, and then so do we.
fn outlive_interrupts() {
    let noticed = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Without the handler the signal ends us as it always did.
        let _ = signal_hook::flag::register(signal, noticed.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_report_after_the_program_is_ours() {
        for line in ["app.py -x --report r.html y", "app.py -x --report=r.html y"] {
            let (program, report) = without_report(&words(line));
            assert_eq!(program, words("app.py -x y"));
            assert_eq!(report, Some("r.html".into()));
        }
    }

    #[test]
    fn another_report_option_is_the_programs() {
        for line in ["app.py --report full", "app.py --report", "--report r.html"] {
            assert_eq!(without_report(&words(line)), (words(line), None));
        }
    }
}

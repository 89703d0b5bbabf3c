//! Run a program and record where its time goes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use inferscope::cli::{self, Sink};
use inferscope::config::{self, Config};
use inferscope::error::Error;
use inferscope::record::{self, Gpu, Options, Trigger, leftover};

const EXAMPLES: &str = "\
Examples:
  isc-record app.py | isc-merge | isc-analyze
  isc-record -o run.parquet app.py --its-own-option
  isc-record --duration 30s -m uvicorn serve:app
  isc-record -o run.parquet --last 60s --trigger 'scope:request > 500ms' serve.py
  isc-record --sample 100 app.py
  isc-record --attach 4711 --duration 10s -o live.parquet
  isc-record --lines app:decode_step app.py
  isc-record --check
  isc-record --recover /dev/shm/inferscope-1a2b3c4d -o run.parquet

Exit status: the program's, or 0 with --attach; 128 + n after signal n; 126 and 127 when it cannot be
run or is not there; 125 for isc-record's own faults.";

#[derive(Parser)]
#[command(name = "isc-record", version, about = "Run a program and record where its time goes", after_help = EXAMPLES)]
struct Args {
    /// Where to write the trace: a .parquet or .arrow file, or `-` for standard output [default: a pipe, else a file
    /// called after the program]
    #[arg(short, long, value_name = "FILE")]
    output: Option<Sink>,
    /// Record only these modules or paths; may be given more than once
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Do not record these modules or paths; may be given more than once
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Start recording after this time, such as 5s
    #[arg(long, value_name = "TIME", value_parser = config::time)]
    delay: Option<Duration>,
    /// Stop recording after this time; the program runs on
    #[arg(long, value_name = "TIME", value_parser = config::time)]
    duration: Option<Duration>,
    /// Keep only the last of the run, such as 60s, and write it when the program ends or isc-record gets SIGUSR2
    #[arg(long, value_name = "TIME", value_parser = config::time)]
    last: Option<Duration>,
    /// Write that window too when something takes long, such as 'scope:request > 500ms'; may be given more than once
    #[arg(long, value_name = "CONDITION", requires = "last")]
    trigger: Vec<Trigger>,
    /// Start recording when this scope is entered for the first time
    #[arg(long, value_name = "SCOPE")]
    start_on: Option<String>,
    /// The Python to run the program with [default: that of its first line, the virtual environment, python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// What recording may cost, in the program's own CPU time [default: 3%]
    #[arg(long, value_name = "SHARE", value_parser = config::share, conflicts_with = "exact")]
    budget: Option<f64>,
    /// Record every call, whatever it costs
    #[arg(long)]
    exact: bool,
    /// Leave the functions of numpy and torch alone
    #[arg(long)]
    no_wrap: bool,
    /// Record numpy's matrix products where they are computed, in its BLAS, with their sizes
    #[arg(long, conflicts_with = "no_wrap")]
    blas: bool,
    /// Take no samples of native code while tracing; nothing to do with --sample
    #[arg(long, alias = "no-sample")]
    no_native_samples: bool,
    /// Record no devices
    #[arg(long, conflicts_with = "gpu_only")]
    no_gpu: bool,
    /// Record devices, NVTX, scopes and marks, and no calls of Python
    #[arg(long, conflicts_with_all = ["include", "exclude", "lines", "sample", "blas"])]
    gpu_only: bool,
    /// Which calls of CUDA's driver and runtime: those that start, await or allocate something, or all [default: needed]
    #[arg(long, value_name = "CALLS", value_parser = ["needed", "all"])]
    cuda_api: Option<String>,
    /// A row for each node of a CUDA graph, or one for the whole graph, which costs the program less [default: nodes]
    #[arg(long, value_name = "DETAIL", value_parser = ["nodes", "whole"])]
    cuda_graph: Option<String>,
    /// Record memory that is taken and given back on devices
    #[arg(long)]
    cuda_memory: bool,
    /// Do not trace: sample Python stacks HZ times a second, from outside, at no cost for the program
    #[arg(long, value_name = "HZ", value_parser = config::rate,
        conflicts_with_all = ["include", "exclude", "start_on", "budget", "exact", "no_wrap", "blas", "no_native_samples", "lines"])]
    sample: Option<f64>,
    /// Record a Python that runs already, until Ctrl-C: traced from Python 3.14 on, else sampled (at 100 Hz, or --sample)
    #[arg(long, value_name = "PID", conflicts_with_all = ["program", "module", "python", "recover", "list", "clean"])]
    attach: Option<u32>,
    /// Measure the lines of these functions; a module, path, function or module:function, may be given more than once;
    /// Python 3.12 and later
    #[arg(long, value_name = "PATTERN")]
    lines: Vec<String>,
    /// Memory for records of one process that are not yet written [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = cli::bytes)]
    ring: Option<u64>,
    /// Folder for records that do not fit into memory [default: TMPDIR]
    #[arg(long, value_name = "DIR")]
    spill_dir: Option<PathBuf>,
    /// The most that may lie there [default: 4GiB]
    #[arg(long, value_name = "SIZE", value_parser = cli::bytes)]
    spill_limit: Option<u64>,
    /// Finish the trace of a run that was cut short, from what it left in this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["program", "module"])]
    recover: Option<PathBuf>,
    /// List the runs that were cut short and can be recovered
    #[arg(long, conflicts_with_all = ["program", "module", "recover"])]
    list: bool,
    /// Remove what they left, or just what this folder is, unless its recorder or its program still runs
    #[arg(
        long,
        value_name = "DIR",
        num_args = 0..=1,
        require_equals = true,
        conflicts_with_all = ["program", "module", "recover", "list"]
    )]
    clean: Option<Option<PathBuf>>,
    /// Say what can be recorded here, and why not the rest
    #[arg(long, conflicts_with_all = ["program", "module", "recover", "list", "clean", "attach"])]
    check: bool,
    /// Run a module, as python -m does; what follows are its arguments
    #[arg(short, value_name = "MODULE", num_args = 1.., allow_hyphen_values = true, conflicts_with = "program")]
    module: Vec<OsString>,
    /// A script, or any command, and its arguments
    #[arg(
        trailing_var_arg = true,
        value_name = "PROGRAM",
        required_unless_present_any = ["module", "recover", "list", "clean", "attach", "check"]
    )]
    program: Vec<OsString>,
}

fn main() -> ExitCode {
    cli::main_with_fault(record::FAULT, |args: Args| {
        if let Some(dir) = &args.recover {
            return record::recover(dir, args.output.as_ref()).map(|()| ExitCode::SUCCESS);
        }
        if args.list {
            leftover::list();
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(only) = &args.clean {
            return leftover::clean(only.as_deref()).map(|()| ExitCode::SUCCESS);
        }
        let config = Config::load()?;
        let module = !args.module.is_empty();
        let wrap = config.get(args.no_wrap.then_some(false), "wrap")?;
        let blas = config.get(args.blas.then_some(true), "blas")?;
        if blas && !wrap {
            let what = "wrap is off, and nothing of numpy is replaced then; set wrap: yes, or leave blas out";
            return Err(Error::invalid("blas", what));
        }
        let options = Options {
            output: args.output,
            python: config.resolve(args.python, "python"),
            module,
            program: if module { args.module } else { args.program },
            include: config.resolve(args.include, "include"),
            exclude: config.resolve(args.exclude, "exclude"),
            budget: config.get(args.budget.or(args.exact.then_some(0.0)), "budget")?,
            wrap,
            blas,
            native_samples: !args.gpu_only
                && config.get(args.no_native_samples.then_some(false), "native_samples")?,
            gpu: Gpu {
                gpu: config.get(args.no_gpu.then_some(false), "gpu")?,
                python: !args.gpu_only,
                cuda_api_all: config.get(args.cuda_api, "cuda_api")? == "all",
                cuda_graph_whole: config.get(args.cuda_graph, "cuda_graph")? == "whole",
                cuda_memory: config.get(args.cuda_memory.then_some(true), "cuda_memory")?,
            },
            attach: args.attach.is_some(),
            sample_hz: config.resolve(args.sample, "sample"),
            lines: config.resolve(args.lines, "lines"),
            start_on: config.resolve(args.start_on, "start_on"),
            delay: config.get(args.delay, "delay")?,
            duration: config.resolve(args.duration, "duration"),
            last: config.resolve(args.last, "last"),
            triggers: args.trigger,
            ring_bytes: config.get(args.ring, "ring")?,
            spill_dir: config.resolve(args.spill_dir, "spill_dir"),
            spill_limit_bytes: config.get(args.spill_limit, "spill_limit")?,
        };
        if args.check {
            return record::check(&options).map(|()| ExitCode::SUCCESS);
        }
        match args.attach {
            Some(pid) => record::attach(&options, pid),
            None => record::run(&options),
        }
    })
}

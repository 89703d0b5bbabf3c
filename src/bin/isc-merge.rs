//! Put every event of a recording on one timeline.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use inferscope::cli::{self, Sink, Source};
use inferscope::config::{self, Config};
use inferscope::import::Lenient;
use inferscope::merge;

const EXAMPLES: &str = "\
Examples:
  isc-record app.py | isc-merge | isc-analyze
  isc-merge run.parquet -o timeline.parquet
  isc-merge node0.parquet node1.parquet -o both.parquet
  isc-merge rank*.pt.trace.json.gz | isc-analyze
  isc-merge report.sqlite -o timeline.parquet
  isc-merge profile.speedscope.json | isc-analyze
  perf script -F +pid --ns | isc-merge | isc-analyze
  isc-merge 4711_*.csv -o timeline.parquet

Reads what isc-record wrote, and of other profilers: torch.profiler (Kineto), Chrome, Perfetto and VizTracer JSON,
Nsight Systems (nsys export --type sqlite), rocprofv3 (rocpd, JSON, CSV), XPlane, speedscope (py-spy), folded stacks,
perf script; plain or packed with gzip or zstd. The content says which it is.";

/// Put every event of a recording on one timeline: one clock, sorted, spans nested, kernels joined to launches
#[derive(Parser)]
#[command(name = "isc-merge", version, after_help = EXAMPLES)]
struct Args {
    /// Traces to merge; standard input if none is given, or where one is `-`
    #[arg(value_name = "TRACE")]
    inputs: Vec<Source>,
    /// Where to write the timeline: a .parquet or .arrow file, or `-` for standard output
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    output: Sink,
    /// Memory to use, about [default: 512MiB]; larger traces are sorted through files in TMPDIR
    #[arg(long, value_parser = cli::bytes, value_name = "SIZE")]
    memory: Option<u64>,
    /// The largest error that the place of a clock on the timeline may have, such as 5us: no timeline if one cannot be placed so
    /// closely
    #[arg(long, value_parser = config::time, value_name = "TIME")]
    sync_error_margin: Option<Duration>,
    /// Leave out events of other profilers that cannot be read, and count them as lost
    #[arg(long)]
    lenient: bool,
}

fn main() -> ExitCode {
    cli::main(|args: Args| {
        cli::interrupts(&args.inputs);
        let memory = Config::load()?.get(args.memory, "memory")?;
        let raw = merge::read(&args.inputs, memory, &Lenient::new(args.lenient))?;
        let margin = args.sync_error_margin;
        let margin_ns = margin.map(|m| i64::try_from(m.as_nanos()).unwrap_or(i64::MAX));
        raw.write(&args.output, margin_ns)
    })
}

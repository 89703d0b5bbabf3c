//! Write a trace as other tools read it, or the part of it that is asked for.

use std::process::ExitCode;

use clap::Parser;
use inferscope::cli::{self, Sink, Source};
use inferscope::convert::{self, Format, Select};

const EXAMPLES: &str = "\
Examples:
  isc-convert timeline.parquet -o timeline.pftrace            # ui.perfetto.dev
  isc-convert timeline.parquet -o timeline.json.gz            # chrome://tracing, torch.profiler's tools
  isc-convert timeline.parquet -o timeline.speedscope.json    # speedscope.app
  isc-convert timeline.parquet --format folded | inferno-flamegraph --countname ns > flame.svg
  isc-convert timeline.parquet --kind kernel --where 'dur_ns > 100000' -o long.csv
  isc-convert timeline.parquet --from 1.5s --to 2s | isc-analyze

The window keeps rows that overlap it, whole. Process, thread, stream, clock and lost rows stay with what is kept.
--where is a CEL expression over the row's columns (formats/trace-v1.md); a row in which it meets a null is left out.";

/// Write a trace as other tools read it, or the part of it that is asked for
#[derive(Parser)]
#[command(name = "isc-convert", version, after_help = EXAMPLES)]
struct Args {
    /// A trace or timeline, as isc-record or isc-merge wrote it; `-` for standard input
    #[arg(default_value = "-", value_name = "TRACE")]
    input: Source,
    /// Where to write; its ending says the format: .json, .pftrace, .speedscope.json, .folded, .csv (each also with
    /// .gz), .parquet, .arrow
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    output: Sink,
    /// chrome, perfetto, speedscope, folded (self time in ns), csv, parquet or arrow, whatever the output is called
    /// [default for standard output: arrow]
    #[arg(long, value_enum, hide_possible_values = true)]
    format: Option<Format>,
    #[command(flatten)]
    select: Select,
}

fn main() -> ExitCode {
    cli::main(|args: Args| {
        cli::interrupts(std::slice::from_ref(&args.input));
        let left = convert::run(&args.input, &args.output, args.format, &args.select)?;
        cli::note("isc-convert", &args.output, &left);
        Ok(())
    })
}

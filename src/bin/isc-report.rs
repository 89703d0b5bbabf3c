//! Show an analysis as a page: HTML, Markdown or JSON.

use std::process::ExitCode;

use clap::Parser;
use inferscope::cli::{self, Sink, Source};
use inferscope::config::Config;
use inferscope::report::{self, Format};

const EXAMPLES: &str = "\
Examples:
  isc-report analysis.json --trace merged.parquet -o report.html
  isc-report analysis.json -o report.md
  isc-record app.py | isc-merge | isc-analyze --json | isc-report > report.md";

/// Show an analysis as a page: HTML, Markdown or JSON
#[derive(Parser)]
#[command(name = "isc-report", version, after_help = EXAMPLES)]
struct Args {
    /// The analysis, written by isc-analyze; `-` for standard input
    #[arg(default_value = "-", value_name = "ANALYSIS")]
    input: Source,
    /// The timeline that was analysed, for a flame graph of all calls
    #[arg(long, value_name = "TIMELINE")]
    trace: Option<Source>,
    /// Where to write the page; its ending says the format: .html, .md or .json
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    output: Sink,
    /// html, markdown or json, whatever the output is called
    #[arg(long, value_enum, hide_possible_values = true)]
    format: Option<Format>,
}

fn main() -> ExitCode {
    cli::main(|args: Args| {
        let usual = Config::load()?.resolve(None::<String>, "format");
        let usual = usual.as_deref().and_then(Format::named);
        let format = Format::of(args.format, &args.output, usual)?;
        let analysis = report::read(&args.input)?;
        let calls = match args.trace.filter(|_| format != Format::Json) {
            Some(trace) => Some(report::calls(&trace, &analysis)?),
            None => None,
        };
        args.output
            .write_text(&report::render(&analysis, calls.as_ref(), format)?)
    })
}

//! Show an analysis as a page: HTML, Markdown or JSON.

use std::process::ExitCode;

use clap::Parser;
use inferscope::cli::{self, Sink, Source};
use inferscope::config::Config;
use inferscope::report::{self, Format};

const EXAMPLES: &str = "\
Examples:
  isc-report analysis.json -o report.html
  isc-record app.py | isc-merge | isc-analyze --json | isc-report > report.md";

#[derive(Parser)]
#[command(name = "isc-report", version, about = "Show an analysis as a page", after_help = EXAMPLES)]
struct Args {
    /// The analysis, written by isc-analyze; `-` for standard input
    #[arg(default_value = "-")]
    input: Source,
    /// Where to write the page; its ending says the format: .html, .md or .json
    #[arg(short, long, default_value = "-")]
    output: Sink,
    /// The format, whatever the output is called
    #[arg(long, value_enum)]
    format: Option<Format>,
}

fn main() -> ExitCode {
    cli::main(|args: Args| {
        let usual = Config::load()?.resolve(None::<String>, "format");
        let usual = usual.as_deref().and_then(Format::named);
        let format = Format::of(args.format, &args.output, usual)?;
        let analysis = report::read(&args.input)?;
        args.output.write_text(&report::render(&analysis, format)?)
    })
}

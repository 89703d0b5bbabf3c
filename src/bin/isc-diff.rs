//! Say what changed from one timeline to another.

use std::process::ExitCode;

use clap::Parser;
use inferscope::analyze::Selection;
use inferscope::analyze::page::Style;
use inferscope::cli::{self, Sink, Source};
use inferscope::diff::{self, condition::Conditions, page};
use inferscope::error::Error;

const EXAMPLES: &str = "\
Examples:
  isc-diff before.parquet after.parquet
  isc-diff before.parquet after.parquet --steady-state -o diff.json
  isc-diff main.parquet branch.parquet --fail-on 'step.ratio_low > 1.05'
  isc-record app.py | isc-merge | isc-diff before.parquet - --fail-on 'step.significant && step.ratio > 1.1'

An expression of --fail-on is CEL over step.ratio, step.ratio_low, functions[\"tokenize\"].change_ns, a.gc.share and what else
formats/diff-v1.md has. It does not hold where a timeline does not have a value; a line on standard error says so.
What differs from run to run is not in the interval of a step: docs/diff.md.

Exit status: 0; 1 when a --fail-on condition holds; 2 when the work could not be done.";

#[derive(Parser)]
#[command(name = "isc-diff", version, about = "Say what changed from one timeline to another", after_help = EXAMPLES)]
struct Args {
    /// The timeline before, as isc-merge wrote it; `-` for standard input
    #[arg(value_name = "A")]
    a: Source,
    /// The timeline after
    #[arg(value_name = "B")]
    b: Source,
    /// Write the diff as JSON to this file
    #[arg(short, long, value_name = "FILE.json")]
    output: Option<Sink>,
    /// Print the diff as JSON
    #[arg(long)]
    json: bool,
    /// Exit with 1 if this expression holds; may be given more than once
    #[arg(long, value_name = "EXPRESSION")]
    fail_on: Vec<String>,
    #[command(flatten)]
    selection: Selection,
}

fn main() -> ExitCode {
    cli::main(|args: Args| {
        cli::interrupts(&[args.a.clone(), args.b.clone()]);
        let conditions = Conditions::new(&args.fail_on)?;
        let (diff, runs) = diff::run(&args.a, &args.b, &args.selection)?;
        let (failed, notes) = conditions.hold(&diff, &runs)?;
        for note in notes {
            cli::say("isc-diff", &note);
        }
        let text = match args.json || args.output.is_some() {
            true => diff.json()?,
            false => page::page(&diff, Style::of_stdout()),
        };
        args.output.unwrap_or(Sink::Stdout).write_text(&text)?;
        Ok::<_, Error>(ExitCode::from(u8::from(failed)))
    })
}

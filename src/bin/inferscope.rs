//! All stages in one word: run a program, or look at a trace, and get its page.
//!
//! The stages are the commands beside this one, connected by files. Nothing is measured here.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use inferscope::cli;
use inferscope::config::Config;
use inferscope::stages::{self, Analyze, Run};

const EXAMPLES: &str = "\
Examples:
  inferscope run app.py --report report.html
  inferscope run --duration 30s -m server --port 8000
  inferscope analyze trace.parquet --output report.md";

const RUN: &str = "\
Examples:
  inferscope run app.py --model small --report report.html
  inferscope run --duration 30s -o trace.parquet -m server --port 8000";

const ANALYZE: &str = "\
Examples:
  inferscope analyze trace.parquet
  inferscope analyze node0.parquet node1.parquet --output report.html";

const SHOW: &str = "\
Example:
  INFERSCOPE_RING=16MiB inferscope config show";

#[derive(Parser)]
#[command(name = "inferscope", version, about = "Where does inference time go, and what should I change?", after_help = EXAMPLES)]
struct Args {
    #[command(subcommand)]
    command: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Record a program and show what limits it; ends with the program's own status
    #[command(after_help = RUN)]
    Run(Box<Run>),
    /// Show what limits a program that was recorded
    #[command(after_help = ANALYZE)]
    Analyze(Analyze),
    /// Settings: flags over INFERSCOPE_* over .inferscope.yaml over defaults
    #[command(subcommand)]
    Config(Settings),
}

#[derive(Subcommand)]
enum Settings {
    /// Print each setting's value, and where it came from
    #[command(after_help = SHOW)]
    Show,
}

fn main() -> ExitCode {
    cli::main(|args: Args| match args.command {
        Word::Run(run) => stages::run(&run),
        Word::Analyze(analyze) => stages::analyze(&analyze),
        Word::Config(Settings::Show) => {
            cli::Sink::Stdout.write_text(&Config::load()?.to_string())?;
            Ok(ExitCode::SUCCESS)
        }
    })
}

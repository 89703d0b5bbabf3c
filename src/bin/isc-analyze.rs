//! Say where the time of a timeline goes, and what to change.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use inferscope::analyze::condition::Outcome;
use inferscope::analyze::page::Style;
use inferscope::analyze::{self, Ask, Asks, Held, Rules, Selection};
use inferscope::cli::{self, Sink, Source};
use inferscope::config::Config;
use inferscope::error::Error;
use inferscope::report::ci::{self, Format, Found};

const EXAMPLES: &str = "\
Examples:
  isc-record app.py | isc-merge | isc-analyze
  isc-analyze timeline.parquet -o analysis.json
  isc-analyze timeline.parquet --rules ours.yaml --fail-on warning
  isc-analyze timeline.parquet --scope request --steady-state
  isc-analyze timeline.parquet --what-if tokenize=0.1x --what-if gaps:launch=0
  isc-analyze timeline.parquet --format github --fail-on 'gpu.busy.share < 0.5'
  isc-analyze timeline.parquet --format sarif -o isc.sarif \\
    --fail-on '\"gc-pressure\" in findings && findings[\"gc-pressure\"].confidence > 0.8'

An expression of --fail-on is CEL over the facts of formats/facts-v1.md, and over findings: a map from id to confidence,
severity and speedup. Numbers in it are doubles: 2.0, not 2. Where the timeline does not have a fact it does not hold, and
a line on standard error says so.

Exit status: 0; 1 when a --fail-on condition holds; 2 when the work could not be done.";

#[derive(Parser)]
#[command(name = "isc-analyze", version, about = "Say where the time goes, and what to change", after_help = EXAMPLES)]
struct Args {
    /// A timeline, as isc-merge wrote it; `-` for standard input
    #[arg(default_value = "-", value_name = "TIMELINE")]
    input: Source,
    /// Write it to this file, as JSON if --format does not say otherwise
    #[arg(short, long, value_name = "FILE")]
    output: Option<Sink>,
    /// text, json, github (annotations), junit (XML) or sarif [default: text, with -o json]
    #[arg(long, value_enum, hide_possible_values = true, conflicts_with = "json")]
    format: Option<Format>,
    /// Print the analysis as JSON
    #[arg(long)]
    json: bool,
    /// A file with rules of your own, which go before the built-in ones of the same id; may be given more than once
    #[arg(long, value_name = "FILE.yaml")]
    rules: Vec<PathBuf>,
    /// Exit with 1 if this finding is there, or one at least this severe (info, warning, critical), or if this expression
    /// holds; may be given more than once
    #[arg(long, value_name = "ID|SEVERITY|EXPRESSION")]
    fail_on: Vec<String>,
    /// Say which rules there are
    #[arg(long)]
    list_rules: bool,
    /// Say what a rule asks for and what it says: its condition, confidence and gain
    #[arg(long, value_name = "ID")]
    explain: Option<String>,
    #[command(flatten)]
    selection: Selection,
    /// Say what would be if a function, a scope or a cause of gaps took less: tokenize=0.1x, gaps:launch=0; may be given
    /// more than once
    #[arg(long, value_name = "CHANGE")]
    what_if: Vec<Ask>,
}

fn main() -> ExitCode {
    cli::main(|args: Args| {
        cli::interrupts(std::slice::from_ref(&args.input));
        let config = Config::load()?;
        let files: Vec<String> = args
            .rules
            .iter()
            .map(|p| p.to_string_lossy().into_owned())
            .collect();
        let mut rules = Rules::built_in()?;
        for file in config.resolve(files, "rules") {
            rules.read(file.as_ref())?;
        }
        if args.list_rules || args.explain.is_some() {
            let text = match &args.explain {
                Some(id) => rules.explain(id)?,
                None => rules.list(),
            };
            Sink::Stdout.write_text(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
        let usual = || config.resolve(None::<String>, "fail_on");
        let conditions = match args.fail_on.is_empty() {
            true => rules.conditions(usual())?,
            false => rules.conditions(args.fail_on)?,
        };
        let (reader, windows) = args.selection.open(&args.input)?;
        let analysis = analyze::run_within(reader, &windows, &Asks::new(args.what_if)?, &rules)?;
        let outcomes = Outcome::all(&conditions, &analysis)?;
        for note in outcomes.iter().filter_map(Outcome::note) {
            cli::say("isc-analyze", &note);
        }
        let found = Found {
            analysis: &analysis,
            rules: &rules,
            outcomes: &outcomes,
            root: &std::env::current_dir().unwrap_or_default(),
        };
        let (usual, style) = match args.json || args.output.is_some() {
            true => (Format::Json, Style::default()),
            false => (Format::Text, Style::of_stdout()),
        };
        let text = ci::render(found, args.format.unwrap_or(usual), style)?;
        args.output.unwrap_or(Sink::Stdout).write_text(&text)?;
        let failed = outcomes.iter().any(|outcome| outcome.held == Held::Yes);
        Ok::<_, Error>(ExitCode::from(u8::from(failed)))
    })
}

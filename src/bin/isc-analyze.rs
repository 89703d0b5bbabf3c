//! Say where the time of a timeline goes, and what to change.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use inferscope::analyze::{self, Ask, Asks, Rules, Selection, page};
use inferscope::cli::{self, Sink, Source};
use inferscope::config::Config;
use inferscope::error::Error;

const EXAMPLES: &str = "\
Examples:
  isc-record app.py | isc-merge | isc-analyze
  isc-analyze timeline.parquet -o analysis.json
  isc-analyze timeline.parquet --rules ours.yaml --fail-on warning
  isc-analyze timeline.parquet --scope request --steady-state
  isc-analyze timeline.parquet --what-if tokenize=0.1x --what-if gaps:launch=0

Exit status: 0; 1 when a --fail-on condition holds; 2 when the work could not be done.";

#[derive(Parser)]
#[command(name = "isc-analyze", version, about = "Say where the time goes, and what to change", after_help = EXAMPLES)]
struct Args {
    /// A timeline, as isc-merge wrote it; `-` for standard input
    #[arg(default_value = "-", value_name = "TIMELINE")]
    input: Source,
    /// Write the analysis as JSON to this file
    #[arg(short, long, value_name = "FILE.json")]
    output: Option<Sink>,
    /// Print the analysis as JSON
    #[arg(long)]
    json: bool,
    /// A file with rules of your own, which go before the built-in ones of the same id; may be given more than once
    #[arg(long, value_name = "FILE.yaml")]
    rules: Vec<PathBuf>,
    /// Exit with 1 if this finding is there, or one at least this severe (info, warning, critical)
    #[arg(long, value_name = "ID|SEVERITY")]
    fail_on: Option<String>,
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
        let fail_on = config.resolve(args.fail_on, "fail_on");
        let fail_on = fail_on.map(|word| rules.condition(&word)).transpose()?;
        let (reader, windows) = args.selection.open(&args.input)?;
        let analysis = analyze::run_within(reader, &windows, &Asks::new(args.what_if)?, &rules)?;
        if args.json || args.output.is_some() {
            let sink = args.output.unwrap_or(Sink::Stdout);
            let mut text = serde_json::to_string_pretty(&analysis)
                .map_err(|error| Error::invalid(sink.path(), error.to_string()))?;
            text.push('\n');
            sink.write_text(&text)?;
        } else {
            Sink::Stdout.write_text(&page::page(&analysis, style()))?;
        }
        let failed = fail_on.is_some_and(|condition| condition.holds(&analysis));
        Ok::<_, Error>(ExitCode::from(u8::from(failed)))
    })
}

fn style() -> page::Style {
    let terminal = std::io::stdout().is_terminal();
    let plain = page::Style::default();
    page::Style {
        width: match terminal_size::terminal_size() {
            Some((terminal_size::Width(width), _)) if terminal => width.into(),
            _ => plain.width,
        },
        colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}

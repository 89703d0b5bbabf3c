//! Formats, and which one an output is written in.

use crate::cli::Sink;
use crate::error::{Error, Result};
use crate::trace::Writer;
use crate::trace::io::Container;
use crate::trace::provenance::Provenance;

use super::json::Text;
use super::{Rows, Table, chrome, csv, folded, perfetto, speedscope};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Trace events in JSON, as chrome://tracing and Perfetto read and torch.profiler writes them
    Chrome,
    /// Perfetto's protocol buffers
    Perfetto,
    /// JSON for speedscope.app, a profile a thread
    Speedscope,
    /// A line a call path and its self time in ns, for flame graphs
    Folded,
    /// The table as text
    Csv,
    /// The table, in a file
    Parquet,
    /// The table, as a stream
    Arrow,
}

/// Endings of names, longer ones first.
const ENDINGS: [(&str, Format); 8] = [
    (".speedscope.json", Format::Speedscope),
    (".perfetto-trace", Format::Perfetto),
    (".pftrace", Format::Perfetto),
    (".json", Format::Chrome),
    (".folded", Format::Folded),
    (".csv", Format::Csv),
    (".parquet", Format::Parquet),
    (".arrow", Format::Arrow),
];

impl Format {
    /// Which commands made a trace stands in it, before its rows.
    pub(super) fn has_provenance(self) -> bool {
        matches!(self, Format::Chrome | Format::Parquet | Format::Arrow)
    }

    /// Why a raw trace will not do.
    pub(super) fn needs_nesting(self) -> Option<&'static str> {
        match self {
            Format::Perfetto => Some("Perfetto's tracks need both"),
            Format::Speedscope => Some("speedscope's stacks need both"),
            Format::Folded => Some("folded stacks need both"),
            _ => None,
        }
    }

    fn is_text(self) -> bool {
        !matches!(self, Format::Perfetto | Format::Parquet | Format::Arrow)
    }
}

/// A format, packed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub format: Format,
    gzip: bool,
}

impl Target {
    /// The format that is asked for, else that of the output's name. A name that ends in `.gz` is packed.
    ///
    /// # Errors
    /// A name that says no format; a table that would be packed.
    pub fn of(asked: Option<Format>, output: &Sink) -> Result<Target> {
        let invalid = |what: &str, hint: &str| Error::Invalid {
            path: output.path(),
            what: what.into(),
            hint: Some(hint.into()),
        };
        let Sink::File(path) = output else {
            let format = asked.unwrap_or(Format::Arrow);
            return Ok(Target {
                format,
                gzip: false,
            });
        };
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().to_lowercase();
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        let gzip = plain.len() < name.len();
        let named = ENDINGS.iter().find(|(ending, _)| plain.ends_with(ending));
        let format = asked.or(named.map(|&(_, format)| format)).ok_or_else(|| {
            invalid(
                "the name does not say which format to write",
                "a name ending in .json, .pftrace, .speedscope.json, .folded, .csv, .parquet or .arrow, or --format",
            )
        })?;
        if gzip && matches!(format, Format::Parquet | Format::Arrow) {
            let what = "a table is not packed with gzip: nothing would read it";
            return Err(invalid(
                what,
                "the name without .gz; .parquet is packed by itself",
            ));
        }
        Ok(Target { format, gzip })
    }

    /// Opens the output and writes what stands before the rows.
    ///
    /// # Errors
    /// A terminal, for what is no text; what the system refuses.
    pub fn create(self, output: &Sink, provenance: &Provenance) -> Result<Box<dyn Rows>> {
        let container = match self.format {
            Format::Parquet => Some(Container::Parquet),
            Format::Arrow => Some(Container::Arrow),
            _ => None,
        };
        if let Some(container) = container {
            let writer = Writer::create_as(container, output, provenance)?;
            return Ok(Box::new(Table(writer)));
        }
        let binary = self.gzip || !self.format.is_text();
        let opened = match binary {
            true => output.create_binary(),
            false => output.create(),
        };
        let to = Text::new(opened?, self.gzip);
        Ok(match self.format {
            Format::Chrome => Box::new(chrome::Chrome::new(to, provenance)?),
            Format::Perfetto => Box::new(perfetto::Perfetto::new(to)?),
            Format::Speedscope => Box::new(speedscope::Speedscope::new(to)?),
            Format::Csv => Box::new(csv::Csv::new(to)?),
            _ => Box::new(folded::Folded::new(to)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Option<(Format, bool)> {
        let sink: Sink = name.parse().unwrap();
        Target::of(None, &sink).ok().map(|t| (t.format, t.gzip))
    }

    #[test]
    fn the_ending_says_the_format() {
        for (name, wanted) in [
            ("a.json", Some((Format::Chrome, false))),
            ("a.JSON.gz", Some((Format::Chrome, true))),
            ("a.speedscope.json", Some((Format::Speedscope, false))),
            ("a.speedscope.json.gz", Some((Format::Speedscope, true))),
            ("a.perfetto-trace", Some((Format::Perfetto, false))),
            ("a.pftrace.gz", Some((Format::Perfetto, true))),
            ("a.folded", Some((Format::Folded, false))),
            ("a.csv", Some((Format::Csv, false))),
            ("a.parquet", Some((Format::Parquet, false))),
            ("-", Some((Format::Arrow, false))),
            ("a.arrow.gz", None),
            ("a.txt", None),
            ("json", None),
        ] {
            assert_eq!(of(name), wanted, "{name}");
        }
        let sink: Sink = "x".parse().unwrap();
        let asked = Target::of(Some(Format::Csv), &sink).unwrap();
        assert_eq!(asked.format, Format::Csv);
    }
}

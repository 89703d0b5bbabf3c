//! An analysis as continuous integration reads it: annotations of GitHub, JUnit XML, SARIF.
//!
//! What a trace says is untrusted here too: names and files are escaped as each format wants it, and control characters are
//! shown and not sent.

mod github;
mod junit;
mod sarif;

use std::path::Path;

use super::units::line;
use crate::analyze::condition::Outcome;
use crate::analyze::page::{self, Style};
use crate::analyze::{Analysis, Finding, Held, Rules};
use crate::error::{Error, Result};

/// How isc-analyze writes what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A page for people
    Text,
    /// The whole analysis: formats/analysis-v1.md
    Json,
    /// Annotations of GitHub Actions, by workflow commands
    Github,
    /// JUnit XML: a test case for each rule and each --fail-on
    Junit,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

/// All there is to write.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    pub analysis: &'a Analysis,
    pub rules: &'a Rules,
    /// What `--fail-on` asked.
    pub outcomes: &'a [Outcome],
    /// Files below this folder are named from it on, as these formats want it.
    pub root: &'a Path,
}

/// Writes it as text in this format; `style` is the page's.
///
/// # Errors
/// None that a test has not seen: JSON of what we made ourselves.
pub fn render(found: Found, format: Format, style: Style) -> Result<String> {
    match format {
        Format::Text => Ok(page::page(found.analysis, style)),
        Format::Json => json(found.analysis),
        Format::Github => Ok(github::commands(found)),
        Format::Junit => Ok(junit::suites(found)),
        Format::Sarif => json(&sarif::log(found)),
    }
}

/// Indented JSON, and the end of its line.
fn json(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Error::invalid("json", error.to_string()))?;
    Ok(text + "\n")
}

impl Found<'_> {
    /// File and line that a finding is about, where it is about a line of source.
    fn place(&self, finding: &Finding) -> Option<(String, u32)> {
        let place = &finding.place;
        let functions = self.analysis.functions.iter();
        let known = functions.filter(|f| place.starts_with(&f.name));
        let known = known.filter_map(|f| Some((f.file.as_deref()?, f.line?)));
        let mut known = known.filter(|(file, at)| place.ends_with(&format!("({file}:{at})")));
        // A file's name may have brackets as well, so what the functions say goes first.
        let (file, at) = known.next().or_else(|| {
            let (_, inside) = place.strip_suffix(')')?.rsplit_once(" (")?;
            let (file, at) = inside.rsplit_once(':')?;
            Some((file, at.parse().ok()?))
        })?;
        let below = Path::new(file).strip_prefix(self.root).ok();
        let file = below.and_then(Path::to_str).unwrap_or(file);
        (!file.is_empty() && !file.starts_with('<') && at > 0).then(|| (file.to_owned(), at))
    }

    /// Conditions that hold.
    fn failed(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|a| a.held == Held::Yes)
    }
}

/// What is said of a finding, line by line, its title first.
fn lines(finding: &Finding) -> Vec<String> {
    let gain = finding.gain.as_ref().map_or(String::new(), |g| {
        format!(
            ", {:.1} times faster ({:.1} to {:.1})",
            g.speedup, g.low, g.high
        )
    });
    let title = line(&finding.title);
    let mut lines = vec![format!(
        "{title} (confidence {:.2}{gain})",
        finding.confidence
    )];
    lines.push(format!("at {}", line(&finding.place)));
    let evidence = finding.evidence.iter();
    lines.extend(evidence.map(|evidence| format!("- {}", line(&evidence.text))));
    lines.push(line(&finding.suggestion));
    lines
}

//! An analysis as a page: HTML for people, Markdown for pull requests, JSON for machines.
//!
//! Reads the analysis as JSON (`formats/analysis-v1.md`); its timeline only for the call tree, and computes nothing
//! from it that the analysis says. Every text comes from a recorded program and is escaped by the template
//! engine. Equal inputs give equal bytes.

mod calls;
pub mod ci; // for machines that build and test
mod flame;
mod page;
pub(crate) mod units;

use std::io::{self, Read, Write};

use serde_json::Value;
use tera::{Context, Tera};

use crate::cli::{Sink, Source};
use crate::error::{Error, Result, nearest};
pub use calls::Calls;

/// The newest analysis format that is read.
const VERSION: u32 = 1;

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One file that needs no other
    Html,
    /// For pull requests and terminals
    #[value(alias = "md")]
    Markdown,
    /// The analysis itself, indented
    Json,
}

impl Format {
    /// The format that is asked for, else that of the file name's ending, else `otherwise`.
    ///
    /// # Errors
    /// An ending that no format has.
    pub fn of(asked: Option<Format>, sink: &Sink, otherwise: Option<Format>) -> Result<Format> {
        if let Some(format) = asked {
            return Ok(format);
        }
        match (sink, sink.extension().as_str()) {
            (_, "html" | "htm") => Ok(Format::Html),
            (_, "md" | "markdown") => Ok(Format::Markdown),
            (_, "json") => Ok(Format::Json),
            (Sink::Stdout, _) => Ok(otherwise.unwrap_or(Format::Markdown)),
            (Sink::File(path), ending) => Err(Error::Invalid {
                path: path.clone(),
                what: "the name does not say which format to write".into(),
                hint: Some(match nearest(ending, ["html", "md", "json"]) {
                    Some(near) => format!("a name ending in .{near}, or --format"),
                    None => "a name ending in .html, .md or .json, or --format".into(),
                }),
            }),
        }
    }

    /// The format with this name in `.inferscope.yaml`.
    pub fn named(word: &str) -> Option<Format> {
        <Format as clap::ValueEnum>::from_str(word, false).ok()
    }
}

/// Reads an analysis and checks that it is one.
///
/// # Errors
/// What is empty, a trace, no JSON, JSON of another kind, or a newer version.
pub fn read(source: &Source) -> Result<Value> {
    let mut input = source.open()?;
    let mut bytes = Vec::new();
    let read = input.file.read_to_end(&mut bytes);
    read.map_err(Error::io("read", &input.path))?;
    let invalid = |what: String, hint: &str| Error::Invalid {
        path: input.path.clone(),
        what,
        hint: Some(hint.to_owned()),
    };
    let remedy = "isc-analyze TRACE -o analysis.json, then isc-report analysis.json";
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(invalid("empty, not an analysis".into(), remedy));
    }
    if bytes.starts_with(b"PAR1") || bytes.starts_with(&[0xff; 4]) {
        return Err(invalid("a trace, not an analysis".into(), remedy));
    }
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| invalid(format!("not JSON, so not an analysis: {error}"), remedy))?;
    let format = value.get("format").and_then(Value::as_str);
    let version = format.and_then(|f| f.strip_prefix("isc-analysis/"));
    match version.and_then(|v| v.parse::<u32>().ok()) {
        Some(VERSION) => {}
        Some(newer) if newer > VERSION => {
            return Err(invalid(
                format!("analysis format {newer}, this build reads up to {VERSION}"),
                "a newer InferScope: pip install --upgrade inferscope",
            ));
        }
        _ => {
            let what = "JSON, but not an analysis: \"format\" is not \"isc-analysis/1\"";
            return Err(invalid(what.into(), remedy));
        }
    }
    for (key, wanted) in [
        ("verdict", "an object"),
        ("breakdown", "a list"),
        ("findings", "a list"),
    ] {
        let right = match value.get(key) {
            Some(Value::Object(_)) => wanted == "an object",
            Some(Value::Array(_)) => wanted == "a list",
            _ => false,
        };
        if !right {
            return Err(invalid(
                format!("analysis whose {key:?} is not {wanted}"),
                remedy,
            ));
        }
    }
    Ok(value)
}

/// Reads the calls of the timeline that `analysis` was made of.
///
/// # Errors
/// Those of reading a trace; a raw trace; the timeline of another analysis.
pub fn calls(trace: &Source, analysis: &Value) -> Result<Calls> {
    let calls = Calls::read(trace)?;
    let (events, span_ns) = (&analysis["recording"]["events"], &analysis["span_ns"]);
    let same = events.as_u64().is_none_or(|events| events == calls.events)
        && span_ns
            .as_i64()
            .is_none_or(|span_ns| span_ns == calls.span_ns);
    if same {
        return Ok(calls);
    }
    let extent = |events: f64, ns: f64| {
        let events = units::count(events);
        format!("{events} events in {}", units::time(ns))
    };
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    Err(Error::Invalid {
        path: trace.path(),
        what: format!(
            "not the timeline of this analysis: it has {}, the analysis is of {}",
            extent(calls.events as f64, calls.span_ns as f64),
            extent(number(events), number(span_ns))
        ),
        hint: Some(format!(
            "isc-analyze {trace} -o analysis.json, then isc-report again"
        )),
    })
}

/// Writes the page; with these calls, if the timeline was read.
///
/// # Errors
/// A template that does not fit its page, which is our own fault and tested.
pub fn render(analysis: &Value, calls: Option<&Calls>, format: Format) -> Result<String> {
    let (name, template) = match format {
        Format::Json => return Ok(format!("{analysis:#}\n")),
        Format::Html => ("page.html", include_str!("report/page.html")),
        Format::Markdown => ("page.md", include_str!("report/page.md")),
    };
    let mut tera = Tera::default();
    tera.autoescape_on([".html", ".md"]);
    if format == Format::Markdown {
        tera.set_escape_fn(escape_markdown);
    }
    let ours = |error: tera::Error| {
        let mut what = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            what.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Error::invalid(name, what)
    };
    tera.add_raw_template(name, template).map_err(ours)?;
    let context = Context::from_serialize(&page::Page::of(analysis, calls)).map_err(ours)?;
    tera.render(name, &context).map_err(ours)
}

/// Text as Markdown shows it letter by letter, on one line; also inside a table's cell.
fn escape_markdown(text: &str, out: &mut dyn Write) -> io::Result<()> {
    for (at, c) in text.char_indices() {
        match c {
            '&' => out.write_all(b"&amp;")?,
            '<' => out.write_all(b"&lt;")?,
            '>' => out.write_all(b"&gt;")?,
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' | '$' => {
                write!(out, "\\{c}")?
            }
            // A name or address that would become a mention or a link.
            '@' => out.write_all(b"&#64;")?,
            ':' if text[at..].starts_with("://") => out.write_all(b"&#58;")?,
            c => write!(out, "{c}")?,
        }
    }
    Ok(())
}

//! The table as text: a line a row, the columns of `formats/trace-v1.md`.
//!
//! A null is an empty field, an empty text is `""`. Fields that hold a comma, a quote or the end of a line are quoted. The end
//! mark is not written: a file appears when it is whole.
//!
//! # Source
//! RFC 4180, but for the line's end, which is a line feed.

use std::fmt::{Display, Write};

use super::json::Text;
use super::{Left, Rows};
use crate::error::Result;
use crate::trace::{Event, Names};

const HEADER: &str = "start_ns,dur_ns,kind,name,file,line,process,pid,tid,device,stream,correlation,flow,parent,cause,bytes,value,args\n";

/// See the module.
#[derive(Debug)]
pub(super) struct Csv {
    to: Text,
    line: String,
}

impl Csv {
    pub fn new(mut to: Text) -> Result<Csv> {
        to.put(HEADER)?;
        Ok(Csv {
            to,
            line: String::new(),
        })
    }
}

impl Rows for Csv {
    fn row(&mut self, _row: i64, event: &Event, names: &Names) -> Result<()> {
        let line = &mut self.line;
        line.clear();
        number(Some(event.start_ns), line);
        number(event.dur_ns, line);
        text(Some(event.kind.as_str()), line);
        text(Some(names.text(event.name)), line);
        text(event.file.map(|file| names.text(file)), line);
        number(event.line, line);
        number(Some(event.process), line);
        number(Some(event.pid), line);
        number(Some(event.tid), line);
        number(event.device, line);
        number(event.stream, line);
        number(event.correlation, line);
        number(event.flow, line);
        number(event.parent, line);
        number(event.cause, line);
        number(event.bytes, line);
        number(event.value, line);
        text(event.args.map(|args| names.text(args)), line);
        line.pop();
        line.push('\n');
        self.to.put(&self.line)
    }

    fn finish(self: Box<Self>) -> Result<Left> {
        self.to.finish()?;
        Ok(Left::default())
    }
}

fn number(value: Option<impl Display>, line: &mut String) {
    if let Some(value) = value {
        let _ = write!(line, "{value}");
    }
    line.push(',');
}

fn text(value: Option<&str>, line: &mut String) {
    match value {
        None => {}
        Some(plain) if !plain.is_empty() && !plain.contains([',', '"', '\n', '\r']) => {
            line.push_str(plain)
        }
        Some(other) => {
            line.push('"');
            line.push_str(&other.replace('"', "\"\""));
            line.push('"');
        }
    }
    line.push(',');
}

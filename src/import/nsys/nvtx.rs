//! NVTX ranges and marks of Nsight Systems.

use serde_json::Value;

use super::super::args::Args;
use super::super::sqlite::{Cells, Database, Mapped, To};
use super::{MOST, Nsys, positive};
use crate::trace::{Event, Kind};

pub const COLUMNS: [&str; 16] = [
    "eventType",
    "start",
    "end",
    "globalTid",
    "text",
    "textId",
    "domainId",
    "category",
    "rangeId",
    "endGlobalTid",
    "uint64Value",
    "int64Value",
    "doubleValue",
    "uint32Value",
    "int32Value",
    "floatValue",
];

/// The name of a domain or category.
pub fn name(s: &mut Nsys, db: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let kind = c.int("eventType")?;
    let process = c.int("globalTid")?.unwrap_or(0) >> 24;
    let name = s.name(db, c, &["text", "textId"], "", to)?;
    let name = to.names.text(name).to_owned();
    let domain = c.int("domainId")?.unwrap_or(0);
    if s.domains.len() + s.categories.len() < MOST && !name.is_empty() {
        match (kind, c.int("category")?) {
            (Some(75), _) => drop(s.domains.insert((process, domain), name)),
            (_, Some(category)) => drop(s.categories.insert((process, domain, category), name)),
            _ => {}
        }
    }
    Ok(())
}

/// What an NVTX row is: a range that may cross others, a range on its thread, or a mark.
enum Form {
    Range { crossing: bool, open: bool },
    Mark,
}

fn form(c: &Cells<'_, '_>) -> Mapped<Option<Form>> {
    let kind = c.int("eventType")?;
    let open = c.int("end")?.is_none();
    Ok(Some(match kind {
        Some(34 | 65) => Form::Mark,
        Some(59 | 70) => Form::Range {
            crossing: false,
            open,
        },
        Some(60 | 71) => Form::Range {
            crossing: true,
            open,
        },
        None if open => Form::Mark,
        None => Form::Range {
            crossing: false,
            open,
        },
        Some(_) => return Ok(None), // names, and halves of ranges that never were in an export
    }))
}

pub fn ended(s: &mut Nsys, db: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    let (kind, open) = match form(c)? {
        None => return Ok(()),
        Some(Form::Mark) => (Kind::Mark, false),
        Some(Form::Range { open, .. }) => (Kind::Nvtx, open),
    };
    let span = match kind == Kind::Nvtx && !open {
        true => c.span()?,
        false => (c.time("start")?, 0),
    };
    let mut event = row(s, db, c, to, kind, span)?;
    if kind == Kind::Mark {
        event.dur_ns = None;
    }
    // How long an open one lasts is known when all rows are.
    if !open {
        to.rows.push(event);
    }
    Ok(())
}

/// The ranges that did not end last to the file's last event.
pub fn open(s: &mut Nsys, db: &Database, c: &Cells<'_, '_>, to: &mut To<'_>) -> Mapped {
    if let Some(Form::Range { open: true, .. }) = form(c)? {
        let start = c.time("start")?;
        let dur = (s.lives.last_ns() - start).max(0);
        let event = row(s, db, c, to, Kind::Nvtx, (start, dur))?;
        to.rows.push(event);
    }
    Ok(())
}

fn row(
    s: &mut Nsys,
    db: &Database,
    c: &Cells<'_, '_>,
    to: &mut To<'_>,
    kind: Kind,
    span: (i64, i64),
) -> Mapped<Event> {
    let name = s.name(db, c, &["text", "textId"], "(no text)", to)?;
    let owner = s.owner(c, "globalTid")?;
    let process = c.int("globalTid")?.unwrap_or(0) >> 24;
    let domain = c.int("domainId")?.unwrap_or(0);
    let category = c.int("category")?.filter(|&category| category > 0);
    let crossing = matches!(form(c)?, Some(Form::Range { crossing: true, .. }));
    let open = kind == Kind::Nvtx && c.int("end")?.is_none();
    let mut event = s.lives.row(kind, name, span, owner)?;
    if crossing {
        event.flow = positive(c.int("rangeId")?);
    }
    for payload in &COLUMNS[10..] {
        event.value = event.value.or(c.number(payload)?);
    }
    let mut args = Args::default();
    let domain_name = s.domains.get(&(process, domain));
    // Of a session with --trace=python-gil: a domain whose ranges say who has the GIL and who waits.
    let waits = to.names.text(name).to_ascii_lowercase().contains("wait");
    if waits && event.kind == Kind::Nvtx && domain_name.is_some_and(|name| name.contains("GIL")) {
        event.kind = Kind::Wait;
        event.name = to.names.sym("gil");
        event.value = Some(span.1 as f64);
    } else if let Some(name) = domain_name {
        args.member("domain", &Value::from(name.as_str()).to_string());
    } else if domain != 0 {
        args.member("domain", &domain.to_string());
    }
    match category.map(|id| (id, s.categories.get(&(process, domain, id)))) {
        Some((_, Some(name))) => args.member("category", &Value::from(name.as_str()).to_string()),
        Some((id, None)) => args.member("category", &id.to_string()),
        None => {}
    }
    if open {
        args.member("open", "true");
    }
    event.args = args.sym(to.names);
    Ok(event)
}

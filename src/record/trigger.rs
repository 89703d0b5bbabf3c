//! What makes a flight recorder write its window: `scope:request > 500ms`.

use std::fmt;
use std::str::FromStr;

use crate::config;
use crate::trace::{Event, Kind, Names};

/// A row of this kind and name that lasts longer than this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    kind: Kind,
    name: String,
    longer_than_ns: i64,
    text: String,
}

impl Trigger {
    /// Whether it waits for Python functions, which samples see too.
    pub fn is_python(&self) -> bool {
        self.kind == Kind::Python
    }

    /// Whether this row is one.
    pub fn fires(&self, event: &Event, names: &Names) -> bool {
        event.kind == self.kind
            && event
                .dur_ns
                .is_some_and(|dur_ns| dur_ns > self.longer_than_ns)
            && names.text(event.name) == self.name
    }
}

impl FromStr for Trigger {
    type Err = String;

    fn from_str(text: &str) -> Result<Trigger, String> {
        let wrong = || format!("{text:?} is no trigger; write 'scope:request > 500ms'");
        let (what, limit) = text.split_once('>').ok_or_else(wrong)?;
        let (kind, name) = what.split_once(':').ok_or_else(wrong)?;
        let kind: Kind = kind.trim().parse().map_err(|()| {
            format!(
                "{:?} is no kind of row; write scope, python, native or gc",
                kind.trim()
            )
        })?;
        if !kind.nests() || name.trim().is_empty() {
            return Err(wrong());
        }
        let limit = config::time(limit)?;
        Ok(Trigger {
            kind,
            name: name.trim().to_owned(),
            longer_than_ns: i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX),
            text: text.trim().to_owned(),
        })
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_read_and_fire_beyond_their_limit() {
        let trigger: Trigger = "scope: request > 500ms".parse().unwrap();
        let mut names = Names::default();
        let mut event = Event::new(Kind::Scope, names.sym("request"), 0, 0, 1, 1);
        assert!(!trigger.fires(&event, &names), "an instant");
        event.dur_ns = Some(500_000_000);
        assert!(!trigger.fires(&event, &names));
        event.dur_ns = Some(500_000_001);
        assert!(trigger.fires(&event, &names));
        event.kind = Kind::Python;
        assert!(!trigger.fires(&event, &names));
        for wrong in [
            "request",
            "scope:request",
            "scope > 5s",
            "scop:a > 5s",
            "mark:a > 5s",
            "scope:a > x",
            "scope: > 1s",
        ] {
            assert!(wrong.parse::<Trigger>().is_err(), "{wrong}");
        }
    }
}

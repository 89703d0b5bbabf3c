//! What if something took less time: `--what-if tokenize=0.1x`, `--what-if gaps:launch=0`.

use serde::{Deserialize, Serialize};

use super::idle::Cause;
use super::measure::Measures;
use super::replay::Scenario;
use super::{Step, steps};
use crate::error::{Error, Result, nearest};

/// More would not be told apart in a byte, and nobody reads them.
const MOST: usize = 16;

/// What is to take less time.
#[derive(Clone, Debug, PartialEq)]
enum Of {
    Cause(Cause),
    /// A function or scope of this name, all that it calls included.
    Name(String),
}

/// One question: what is left of it, 0 for nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    of: Of,
    left: f64,
}

impl std::str::FromStr for Ask {
    type Err = String;

    /// `NAME=0.1x`, `NAME=0`, `gaps:CAUSE=0.5`.
    fn from_str(text: &str) -> std::result::Result<Ask, String> {
        let wrong = || format!("{text:?} is no change; write NAME=0.1x or gaps:CAUSE=0");
        let (name, left) = text.rsplit_once('=').ok_or_else(wrong)?;
        let left: f64 = left
            .trim()
            .trim_end_matches(['x', '×'])
            .parse()
            .map_err(|_| wrong())?;
        if !(0.0..=100.0).contains(&left) || name.trim().is_empty() {
            return Err(wrong());
        }
        let name = name.trim();
        let of = match name.strip_prefix("gaps:") {
            None => Of::Name(name.to_owned()),
            Some(word) => {
                let words = || Cause::ALL.iter().map(|cause| cause.word());
                let cause = Cause::ALL.into_iter().find(|cause| cause.word() == word);
                Of::Cause(cause.ok_or_else(|| match nearest(word, words()) {
                    Some(near) => format!("{word:?} is no cause; did you mean gaps:{near}?"),
                    None => format!(
                        "{word:?} is no cause; there are {}",
                        words().collect::<Vec<_>>().join(", ")
                    ),
                })?)
            }
        };
        Ok(Ask { of, left })
    }
}

/// All questions; a name's number is what [`super::trail::Place`] remembers.
#[derive(Clone, Debug, Default)]
pub struct Asks(Vec<Ask>);

/// The answer to one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// As it was asked.
    pub change: String,
    /// Time now, and with the change: of the median step, or of the whole where nothing repeats.
    pub before_ns: i64,
    pub after_ns: i64,
    pub speedup: f64,
    /// What is counted: a step's name, or `whole`.
    pub of: String,
}

impl Asks {
    /// # Errors
    /// More than 16.
    pub fn new(asks: Vec<Ask>) -> Result<Asks> {
        if asks.len() > MOST {
            return Err(Error::invalid(
                "--what-if",
                format!("more than {MOST} at once"),
            ));
        }
        Ok(Asks(asks))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of the question about a function or scope of this name.
    pub fn number(&self, name: &str) -> Option<u8> {
        let is = |ask: &Ask| matches!(&ask.of, Of::Name(of) if of == name);
        self.0.iter().position(is).map(|at| at as u8)
    }

    /// Answers all: by a replay where a device works, else by the time it takes within the steps.
    ///
    /// # Errors
    /// A function or scope that is not in the timeline; gaps where no device works.
    pub(super) fn answers(&self, m: &Measures, listed: &[Step]) -> Result<Vec<Answer>> {
        let answer = |(at, ask): (usize, &Ask)| {
            let change = match &ask.of {
                Of::Cause(cause) => format!("gaps:{}={}x", cause.word(), ask.left),
                Of::Name(name) => format!("{name}={}x", ask.left),
            };
            let time_ns = match &ask.of {
                Of::Cause(_) if m.model.is_empty() => {
                    return Err(Error::Invalid {
                        path: "--what-if".into(),
                        what: format!("{change} is about a device's gaps, and none works here"),
                        hint: Some("--what-if NAME=0.1x asks about a function or scope".into()),
                    });
                }
                Of::Cause(_) => 0,
                Of::Name(name) => time_of(m, name)?,
            };
            let (before, after, of) = if m.model.is_empty() {
                without_device(m, listed, time_ns as f64 * (1.0 - ask.left))
            } else {
                let scenario = match &ask.of {
                    Of::Cause(cause) => Scenario::default().with(*cause, ask.left),
                    Of::Name(_) => Scenario::default().with_asked(at as u8, ask.left),
                };
                let before = m.model.run(&Scenario::default());
                let step = m.model.step.map_or("whole", |step| m.names.text(step));
                (before.ns(), m.model.run(&scenario).ns(), step.to_owned())
            };
            Ok(Answer {
                change,
                before_ns: before as i64,
                after_ns: after as i64,
                speedup: (before / after.max(1.0) * 100.0).round() / 100.0,
                of,
            })
        };
        self.0.iter().enumerate().map(answer).collect()
    }
}

/// Time in functions and scopes of a name, what they call included.
fn time_of(m: &Measures, name: &str) -> Result<i64> {
    let functions = m
        .functions
        .iter()
        .filter(|(key, _)| m.names.text(key.name) == name);
    let scope = m
        .scopes
        .get(name)
        .map(|spans| spans.iter().map(|(_, ns)| ns).sum());
    let most = functions.map(|(_, sums)| sums.total_ns).chain(scope).max();
    most.ok_or_else(|| {
        let functions = m.functions.iter().map(|(key, _)| m.names.text(key.name));
        let near = nearest(name, functions.chain(m.scopes.keys().map(String::as_str)));
        Error::Invalid {
            path: "--what-if".into(),
            what: format!("no function or scope is called {name}"),
            hint: near.map(|near| format!("--what-if '{near}=0.1x'")),
        }
    })
}

/// Without a device one thread's work is the program's: what is saved comes off the steps, evenly.
fn without_device(m: &Measures, listed: &[Step], saved_ns: f64) -> (f64, f64, String) {
    let step = steps::main(listed).filter(|step| step.total_ns as f64 > saved_ns);
    let (total, of, one) = match step {
        Some(step) => (step.total_ns, step.scope.as_str(), step.dur_ns_p50),
        None => (m.span_ns(), "whole", m.span_ns()),
    };
    let left = 1.0 - saved_ns / (total as f64).max(1.0);
    (one as f64, (one as f64 * left).max(0.0), of.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_as_people_write_them() {
        let ask = |text: &str| text.parse::<Ask>();
        let name = |name: &str, left| {
            let of = Of::Name(name.to_owned());
            Ok(Ask { of, left })
        };
        assert_eq!(ask("tokenize=0.1x"), name("tokenize", 0.1));
        assert_eq!(ask("a=b=0"), name("a=b", 0.0));
        let of = Of::Cause(Cause::Launch);
        assert_eq!(ask("gaps:launch=0"), Ok(Ask { of, left: 0.0 }));
        assert!(ask("gaps:lunch=0").unwrap_err().contains("gaps:launch"));
        for wrong in ["tokenize", "=1", "a=", "a=-1", "a=nan"] {
            assert!(ask(wrong).is_err(), "{wrong}");
        }
    }
}

//! What isc-analyze's `--fail-on` asks: a finding, how severe it is, or an expression over facts and findings.

use std::collections::{BTreeMap, HashMap};

use cel::Value;

use super::expression::{Expression, Held, Table, Values, Words};
use super::rules::{FACTS, severity};
use super::{Analysis, Finding};
use crate::error::Result;

/// What isc-analyze's `--fail-on` asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A finding with this id.
    Id(String),
    /// A finding at least this severe: its place among info, warning, critical.
    Severity(usize),
    /// This, over facts and findings.
    Expression(Expression),
}

impl Condition {
    /// What an expression may name, with rules of these ids.
    pub(super) fn words(ids: Vec<String>) -> Words {
        let findings = Table {
            name: "findings",
            members: &["confidence", "severity", "speedup"],
            keys: Some(ids),
        };
        Words {
            names: FACTS.iter().map(|fact| (*fact).to_owned()).collect(),
            tables: vec![findings],
        }
    }

    /// Whether it holds for this analysis.
    ///
    /// # Errors
    /// An expression that cannot be evaluated.
    pub fn holds(&self, analysis: &Analysis) -> Result<Held> {
        let found = |wanted: &dyn Fn(&Finding) -> bool| match analysis.findings.iter().any(wanted) {
            true => Held::Yes,
            false => Held::No,
        };
        Ok(match self {
            Condition::Id(id) => found(&|finding| finding.id == *id),
            Condition::Severity(least) => {
                found(&|finding| severity(&finding.severity) >= Some(*least))
            }
            Condition::Expression(expression) => {
                expression.holds(&Condition::words(Vec::new()), &values(analysis))?
            }
        })
    }
}

/// Facts, and findings by id; a gain that is not known is a speedup of 1.
fn values(analysis: &Analysis) -> Values {
    let numbers = analysis.facts.iter().filter_map(|(name, value)| {
        let number = value.as_f64()?;
        Some((name.clone(), Value::Float(number)))
    });
    let findings = analysis.findings.iter().map(|finding| {
        let speedup = finding.gain.as_ref().map_or(1.0, |gain| gain.speedup);
        let members = [
            ("confidence", Value::Float(finding.confidence)),
            ("severity", finding.severity.as_str().into()),
            ("speedup", Value::Float(speedup)),
        ];
        let members = members.map(|(member, value)| (member.to_owned(), value));
        (finding.id.clone(), HashMap::from(members))
    });
    Values {
        named: numbers.collect(),
        tables: BTreeMap::from([("findings", findings.collect())]),
    }
}

/// A condition as it was given, and whether it holds.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub word: String,
    pub held: Held,
}

impl Outcome {
    /// Whether each of these holds.
    ///
    /// # Errors
    /// As [`Condition::holds`].
    pub fn all(conditions: &[(String, Condition)], analysis: &Analysis) -> Result<Vec<Outcome>> {
        let outcome = |(word, condition): &(String, Condition)| {
            Ok(Outcome {
                word: word.clone(),
                held: condition.holds(analysis)?,
            })
        };
        conditions.iter().map(outcome).collect()
    }

    /// What a person should know of a condition that could not be asked.
    pub fn note(&self) -> Option<String> {
        self.held.note(&self.word, "this timeline has no")
    }
}

//! Expressions of `--fail-on`: conditions in CEL over named values, whose names are checked before there is any value.
//!
//! A value that is not there makes its condition not hold, and the caller is told which it was. An entry of a table that is
//! not there does the same silently: that a finding is absent is what one hopes for.

mod names; // which there are in it, and whether they are known

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cel::{Context, Env, ExecutionError, Program, Value};

use crate::error::{Error, Result};
use crate::report::units;
use names::Names;

/// The flag that conditions come from, for messages.
const FLAG: &str = "--fail-on";

/// What an expression may name.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// Single values by dotted names: `gpu.busy.share`.
    pub names: Vec<String>,
    /// Tables, whose entries are had by key: `findings["startup"]`.
    pub tables: Vec<Table>,
}

/// A table that an expression may look into.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: &'static str,
    /// What each entry has.
    pub members: &'static [&'static str],
    /// Every key that there can be; `None` if that is not known before.
    pub keys: Option<Vec<String>>,
}

/// What an expression is evaluated over.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// By dotted name; those that are not there are left out.
    pub named: BTreeMap<String, Value>,
    /// By table, key, member.
    pub tables: BTreeMap<&'static str, HashMap<String, HashMap<String, Value>>>,
}

/// An expression that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    pub text: String,
    /// The dotted names that it needs.
    names: Vec<String>,
}

/// Whether a condition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    Yes,
    No,
    /// It does not, since these values are not there.
    Absent(Vec<String>),
}

impl Held {
    /// One line on a condition that does not hold because of what is not there; `lack` says who does not have it.
    pub fn note(&self, word: &str, lack: &str) -> Option<String> {
        let Held::Absent(names) = self else {
            return None;
        };
        let word = units::line(word);
        Some(format!(
            "{FLAG} '{word}' does not hold: {lack} {}",
            names.join(", ")
        ))
    }
}

impl Expression {
    /// Checks an expression.
    ///
    /// # Errors
    /// What is no CEL; names that are not among `words`, with the nearest one that is.
    pub fn new(text: &str, words: &Words) -> Result<Expression> {
        let program = program(text).map_err(|what| fault(text, &what, None))?;
        let names = Names::of(&program.expression().expr, words);
        Ok(Expression {
            text: text.to_owned(),
            names: names.map_err(|what| fault(text, &what, None))?,
        })
    }

    /// Evaluates it; `words` are those that it was checked with.
    ///
    /// # Errors
    /// What cannot be evaluated, or is neither true nor false.
    pub fn holds(&self, words: &Words, values: &Values) -> Result<Held> {
        let absent = |name: &&String| !values.named.contains_key(*name);
        let absent: Vec<String> = self.names.iter().filter(absent).cloned().collect();
        if !absent.is_empty() {
            return Ok(Held::Absent(absent));
        }
        let program = program(&self.text).map_err(|what| fault(&self.text, &what, None))?;
        let mut context = Context::with_env(Arc::new(Env::stdlib()));
        // has(gpu.span_ns) needs a gpu to look into, also where no fact has that name.
        let all = (words.names.iter()).map(|name| (&**name, values.named.get(name).cloned()));
        for (name, value) in nested(all) {
            context.add_variable_from_value(name, value);
        }
        for table in &words.tables {
            let entries = values.tables.get(table.name).into_iter().flatten();
            let entries: HashMap<String, Value> = entries
                .map(|(key, entry)| (key.clone(), entry.clone().into()))
                .collect();
            context.add_variable_from_value(table.name, Value::from(entries));
        }
        match program.execute(&context) {
            Ok(Value::Bool(true)) => Ok(Held::Yes),
            Ok(Value::Bool(false)) | Err(ExecutionError::NoSuchKey(_)) => Ok(Held::No),
            Ok(other) => Err(fault(
                &self.text,
                &format!("gives {other:?}, not true or false"),
                None,
            )),
            Err(error) => Err(fault(
                &self.text,
                &error.to_string(),
                Some("numbers are doubles: write 2.0, not 2"),
            )),
        }
    }
}

/// Compiles an expression.
///
/// # Errors
/// The parser's message, in one line.
pub(super) fn program(text: &str) -> std::result::Result<Program, String> {
    Env::stdlib().compile(text).map_err(|error| {
        let said = error.to_string();
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    })
}

/// Values as CEL sees them: `native.top.share` is a member of a member. Those that are not there leave what is around them.
pub(super) fn nested<'a>(
    values: impl Iterator<Item = (&'a str, Option<Value>)>,
) -> HashMap<String, Value> {
    let mut groups: BTreeMap<&str, Vec<(&str, Option<Value>)>> = BTreeMap::new();
    let mut out = HashMap::new();
    for (name, value) in values {
        match (name.split_once('.'), value) {
            (Some((head, rest)), value) => groups.entry(head).or_default().push((rest, value)),
            (None, Some(value)) => drop(out.insert(name.to_owned(), value)),
            (None, None) => {}
        }
    }
    for (head, group) in groups {
        out.insert(head.to_owned(), nested(group.into_iter()).into());
    }
    out
}

fn fault(text: &str, what: &str, hint: Option<&str>) -> Error {
    Error::Invalid {
        path: format!("{FLAG} '{}'", units::line(text)).into(),
        what: what.into(),
        hint: hint.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words {
            names: ["await.top.calls", "gc.share", "gpu.busy.share"]
                .map(str::to_owned)
                .into(),
            tables: vec![Table {
                name: "findings",
                members: &["confidence", "severity"],
                keys: Some(["gc-pressure", "startup"].map(str::to_owned).into()),
            }],
        }
    }

    fn said(text: &str) -> String {
        let wrong = Expression::new(text, &words()).unwrap_err().to_string();
        let start = format!("--fail-on '{text}': ");
        wrong.strip_prefix(&start).expect(&wrong).to_owned()
    }

    fn held(text: &str) -> Held {
        let mut values = Values::default();
        values.named.insert("gc.share".into(), 0.07.into());
        values.named.insert("gpu.busy.share".into(), 0.4.into());
        let finding = [
            ("confidence", Value::Float(0.9)),
            ("severity", "warning".into()),
        ];
        let finding = finding.map(|(member, value)| (member.to_owned(), value));
        let findings = HashMap::from([("gc-pressure".to_owned(), HashMap::from(finding))]);
        values.tables.insert("findings", findings);
        let expression = Expression::new(text, &words()).unwrap();
        expression.holds(&words(), &values).unwrap()
    }

    #[test]
    fn values_and_tables_are_looked_into() {
        for text in [
            "gc.share > 0.05",
            "gpu.busy.share < 0.5 && gc.share > 0.05",
            "gc.share * 2.0 > 0.1",
            "'gc-pressure' in findings && findings['gc-pressure'].confidence > 0.8",
            "findings.exists(id, id.startsWith('gc') && findings[id].severity == 'warning')",
            "size(findings) == 1",
            "!has(await.top.calls)",
            "[gc.share, gpu.busy.share].all(x, x < 0.5)",
        ] {
            assert_eq!(held(text), Held::Yes, "{text}");
        }
        for text in [
            "gc.share > 0.1",
            "findings['startup'].confidence > 0.1",
            "'startup' in findings",
        ] {
            assert_eq!(held(text), Held::No, "{text}");
        }
        let absent = Held::Absent(vec!["await.top.calls".into()]);
        assert_eq!(held("gc.share > 0.05 || await.top.calls > 1.0"), absent);
    }

    #[test]
    fn a_mistake_is_told_with_what_was_meant() {
        for (text, wanted) in [
            (
                "gc.shar > 0.1",
                "gc.shar is no fact; did you mean gc.share?",
            ),
            ("gc > 0.1", "gc is no fact"),
            (
                "has(gc.sahre)",
                "gc.sahre is no fact; did you mean gc.share?",
            ),
            (
                "finding['startup'].confidence > 0.1",
                "finding is no fact; did you mean findings?",
            ),
            (
                "'gc-presure' in findings",
                "gc-presure is never in findings; did you mean gc-pressure?",
            ),
            (
                "findings['startup'].confidnce > 0.1",
                "an entry of findings has no confidnce; did you mean confidence?",
            ),
            (
                "findings.exists(id, findings[id].sverity == '')",
                "an entry of findings has no sverity; did you mean severity?",
            ),
            ("findings.exists(id, other > 1.0)", "other is no fact"),
        ] {
            assert_eq!(said(text), wanted);
        }
        assert!(!said("gc.share >").is_empty());
    }
}

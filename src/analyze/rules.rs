//! Rules: a condition over facts, and what to say where it holds. `formats/rules-v1.md` describes the files.

mod known; // names that rules can use

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use cel::{Context, Env};
use serde::Deserialize;
use serde_json::Value;

use known::default;
pub use known::{FACTS, TEXTS};

use super::condition::Condition;
use super::expression::{Expression, nested, program};
use super::facts::Texts;
use super::{Evidence, Finding, Gain};
use crate::error::{Error, Result, nearest};
use crate::report::units;

/// The built-in rules: files of the same kind as the user's.
const BUILT_IN: [(&str, &str); 10] = [
    (
        "rules/cpu-bound-python.yaml",
        include_str!("../../rules/cpu-bound-python.yaml"),
    ),
    (
        "rules/native-hot-spot.yaml",
        include_str!("../../rules/native-hot-spot.yaml"),
    ),
    (
        "rules/startup.yaml",
        include_str!("../../rules/startup.yaml"),
    ),
    (
        "rules/gc-pressure.yaml",
        include_str!("../../rules/gc-pressure.yaml"),
    ),
    (
        "rules/waiting.yaml",
        include_str!("../../rules/waiting.yaml"),
    ),
    (
        "rules/contention.yaml",
        include_str!("../../rules/contention.yaml"),
    ),
    ("rules/device.yaml", include_str!("../../rules/device.yaml")),
    ("rules/copies.yaml", include_str!("../../rules/copies.yaml")),
    (
        "rules/preprocessing.yaml",
        include_str!("../../rules/preprocessing.yaml"),
    ),
    ("rules/steps.yaml", include_str!("../../rules/steps.yaml")),
];

/// From the least to the most severe.
const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];

/// A gain below this is within what two runs of one program differ by: no finding is made of it. A judgement.
const LEAST_SPEEDUP: f64 = 1.05;
/// Below this a finding is a guess, and stands behind those that are none.
const CLAIM: f64 = 0.5;
/// What is taken for the gain of a finding that does not say, to put it in order.
const UNKNOWN_SPEEDUP: f64 = 1.3;
/// A model that promises more divides by what is left of nothing.
const MOST_SPEEDUP: f64 = 100.0;

/// One rule as it stands in its file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    /// The finding's id, if it is not the rule's: several rules may tell of one bottleneck.
    #[serde(default)]
    finds: Option<String>,
    title: String,
    severity: String,
    when: String,
    #[serde(default = "certain")]
    confidence: Number,
    #[serde(rename = "where")]
    place: String,
    #[serde(default)]
    gain: Option<WrittenGain>,
    #[serde(default)]
    evidence: Vec<WrittenEvidence>,
    suggestion: String,
    /// Pages to read on.
    #[serde(default)]
    links: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenGain {
    speedup: Number,
    low: Number,
    high: Number,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEvidence {
    text: String,
    /// A label whose row shows it: `native.top`.
    #[serde(default)]
    row: Option<String>,
}

/// A number, or an expression that gives one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(f64),
    Expression(String),
}

fn certain() -> Number {
    Number::Plain(1.0)
}

#[derive(Debug)]
struct Rule {
    written: Written,
    /// For messages.
    file: String,
}

/// Rules in their order; of two with one id the later counts.
#[derive(Debug, Default)]
pub struct Rules(Vec<Rule>);

/// A rule, not a finding: what a catalogue of rules says of it.
#[derive(Clone, Debug)]
pub struct About<'a> {
    pub id: &'a str,
    pub severity: &'a str,
    /// With `…` where a finding has names and numbers.
    pub title: String,
    pub when: &'a str,
    /// As `title`.
    pub suggestion: String,
    /// The facts that it needs; of several rules with one finding, those of each.
    needs: Vec<Vec<String>>,
}

impl About<'_> {
    /// Whether these facts are enough to evaluate the rule.
    pub fn evaluated(&self, facts: &BTreeMap<String, Value>) -> bool {
        let there = |name: &String| facts.contains_key(name) || default(name).is_some();
        self.needs.iter().any(|names| names.iter().all(there))
    }
}

/// The place of a severity, from the least to the most severe.
pub(super) fn severity(word: &str) -> Option<usize> {
    SEVERITIES.iter().position(|known| *known == word)
}

impl Rules {
    /// The rules that come with InferScope.
    ///
    /// # Errors
    /// None that a test has not seen.
    pub fn built_in() -> Result<Rules> {
        let mut rules = Rules::default();
        for (file, text) in BUILT_IN {
            rules.add(file, text)?;
        }
        Ok(rules)
    }

    /// Adds the rules of a file.
    ///
    /// # Errors
    /// A file that cannot be read; what is wrong with a rule, and where.
    pub fn read(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        self.add(&path.display().to_string(), &text)
    }

    fn add(&mut self, file: &str, text: &str) -> Result<()> {
        let rules: Vec<Written> =
            serde_yaml_ng::from_str(text).map_err(|error| mistake(file, &error.to_string()))?;
        for written in rules {
            let rule = Rule {
                written,
                file: file.to_owned(),
            };
            rule.check()?;
            self.0.retain(|other| other.written.id != rule.written.id);
            self.0.push(rule);
        }
        Ok(())
    }

    /// What `--fail-on WORD` means: a severity, a rule's id, or an expression over facts and findings.
    ///
    /// # Errors
    /// None of them; names of facts and rules that are not known, with the nearest that is.
    pub fn condition(&self, word: &str) -> Result<Condition> {
        if let Some(least) = severity(word) {
            return Ok(Condition::Severity(least));
        }
        let ids = self.0.iter().map(|rule| rule.finds());
        if ids.clone().any(|id| id == word) {
            return Ok(Condition::Id(word.to_owned()));
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        if !word.chars().all(is_word) {
            let words = Condition::words(ids.map(str::to_owned).collect());
            return Ok(Condition::Expression(Expression::new(word, &words)?));
        }
        Err(Error::Invalid {
            path: "--fail-on".into(),
            what: format!("{word} is no severity, no rule's id and no expression over facts"),
            hint: nearest(word, ids.chain(SEVERITIES)).map(|near| format!("--fail-on {near}")),
        })
    }

    /// These conditions, each with its words.
    ///
    /// # Errors
    /// As [`Rules::condition`].
    pub fn conditions(
        &self,
        words: impl IntoIterator<Item = String>,
    ) -> Result<Vec<(String, Condition)>> {
        let condition = |word: String| Ok((word.clone(), self.condition(&word)?));
        words.into_iter().map(condition).collect()
    }

    /// The rules as others show them, in their order; those of one finding are one.
    pub fn about(&self) -> Vec<About<'_>> {
        let mut all: Vec<About> = Vec::new();
        for rule in &self.0 {
            let needs = names(&rule.written.when);
            match all.iter_mut().find(|about| about.id == rule.finds()) {
                Some(about) => about.needs.push(needs),
                None => all.push(About {
                    id: rule.finds(),
                    severity: &rule.written.severity,
                    title: without_names(&rule.written.title),
                    when: &rule.written.when,
                    suggestion: without_names(&rule.written.suggestion),
                    needs: vec![needs],
                }),
            }
        }
        all
    }

    /// One line for each rule: what it finds, how severe that is, and its title.
    pub fn list(&self) -> String {
        let width = self
            .0
            .iter()
            .map(|rule| rule.written.id.len())
            .max()
            .unwrap_or(0);
        let mut rules: Vec<&Rule> = self.0.iter().collect();
        rules.sort_by_key(|rule| &rule.written.id);
        let line = |rule: &&Rule| {
            let Written {
                id,
                severity,
                title,
                ..
            } = &rule.written;
            let (id, title) = (units::line(id), units::line(title));
            format!("{id:width$}  {severity:8}  {title}\n")
        };
        rules.iter().map(line).collect()
    }

    /// All that the rules with this id, or that find it, say.
    ///
    /// # Errors
    /// No such rule.
    pub fn explain(&self, id: &str) -> Result<String> {
        let is = |rule: &&Rule| rule.written.id == id || rule.finds() == id;
        let texts: Vec<String> = self.0.iter().filter(is).map(Rule::explained).collect();
        if !texts.is_empty() {
            return Ok(texts.join("\n"));
        }
        let ids = self
            .0
            .iter()
            .flat_map(|rule| [rule.written.id.as_str(), rule.finds()]);
        Err(Error::Invalid {
            path: "--explain".into(),
            what: format!("no rule is called {id}"),
            hint: Some(match nearest(id, ids) {
                Some(near) => format!("--explain {near}"),
                None => "--list-rules".into(),
            }),
        })
    }

    /// The findings, most severe first, then by gain.
    ///
    /// # Errors
    /// A rule whose expressions cannot be evaluated.
    pub fn findings(&self, facts: &BTreeMap<String, Value>, texts: &Texts) -> Result<Vec<Finding>> {
        let env = Arc::new(Env::stdlib());
        let mut context = Context::with_env(env);
        // It cannot fail: the standard library has no function of this name, as the built-in rules show.
        let _ = context.add_function("faster", faster);
        let facts = &with_defaults(facts);
        for (name, value) in doubles(facts) {
            context.add_variable_from_value(name, value);
        }
        let known = Known {
            facts,
            texts,
            context: &context,
        };
        let mut findings = Vec::new();
        for rule in &self.0 {
            findings.extend(rule.finding(&known)?);
        }
        // What can be expected of it.
        let gain = |f: &Finding| {
            f.confidence * f.gain.as_ref().map_or(UNKNOWN_SPEEDUP, |gain| gain.speedup)
                - f.confidence
        };
        findings.sort_by(|a, b| {
            let claims = |f: &Finding| f.confidence >= CLAIM;
            let severe = severity(&b.severity).cmp(&severity(&a.severity));
            claims(b)
                .cmp(&claims(a))
                .then(severe)
                .then(gain(b).total_cmp(&gain(a)))
                .then(a.id.cmp(&b.id))
        });
        let mut told = BTreeSet::new();
        findings.retain(|finding| told.insert(finding.id.clone()));
        Ok(findings)
    }
}

/// What rules see.
struct Known<'a> {
    facts: &'a BTreeMap<String, Value>,
    texts: &'a Texts,
    context: &'a Context<'a, 'a>,
}

impl Rule {
    fn fault(&self, field: &str, what: &str) -> Error {
        Error::Invalid {
            path: self.file.clone().into(),
            what: format!("rule {}, {field}: {what}", self.written.id),
            hint: None,
        }
    }

    /// For people.
    fn explained(&self) -> String {
        let w = &self.written;
        let number = |number: &Number| match number {
            Number::Plain(number) => number.to_string(),
            Number::Expression(text) => text.clone(),
        };
        let mut rows = vec![
            ("rule", w.id.clone()),
            ("finds", self.finds().to_owned()),
            ("file", self.file.clone()),
            ("severity", w.severity.clone()),
            ("title", w.title.clone()),
            ("when", w.when.clone()),
            ("confidence", number(&w.confidence)),
        ];
        if let Some(gain) = &w.gain {
            rows.push(("speedup", number(&gain.speedup)));
            rows.push(("low", number(&gain.low)));
            rows.push(("high", number(&gain.high)));
        }
        rows.extend(
            w.evidence
                .iter()
                .map(|evidence| ("evidence", evidence.text.clone())),
        );
        rows.push(("where", w.place.clone()));
        rows.push(("suggestion", w.suggestion.clone()));
        rows.extend(w.links.iter().map(|link| ("link", link.clone())));
        let row = |(what, text): (&str, String)| format!("{what:12}{}\n", units::line(text.trim()));
        rows.into_iter().map(row).collect()
    }

    fn finds(&self) -> &str {
        self.written.finds.as_deref().unwrap_or(&self.written.id)
    }

    fn expressions(&self) -> Vec<(&'static str, &str)> {
        let w = &self.written;
        let mut all = vec![("when", w.when.as_str())];
        let gain = w.gain.iter().flat_map(|g| {
            [
                ("gain.speedup", &g.speedup),
                ("gain.low", &g.low),
                ("gain.high", &g.high),
            ]
        });
        for (field, number) in gain.chain([("confidence", &w.confidence)]) {
            if let Number::Expression(text) = number {
                all.push((field, text));
            }
        }
        all
    }

    fn templates(&self) -> Vec<(&'static str, &str)> {
        let w = &self.written;
        let mut all = vec![
            ("where", w.place.as_str()),
            ("suggestion", &w.suggestion),
            ("title", &w.title),
        ];
        all.extend(
            w.evidence
                .iter()
                .map(|evidence| ("evidence", evidence.text.as_str())),
        );
        all
    }

    /// Everything that can be wrong with a rule before there are facts.
    fn check(&self) -> Result<()> {
        if severity(&self.written.severity).is_none() {
            let what = format!(
                "{} is none of {}",
                self.written.severity,
                SEVERITIES.join(", ")
            );
            return Err(self.fault("severity", &what));
        }
        for (field, text) in self.expressions() {
            program(text).map_err(|what| self.fault(field, &what))?;
            for name in names(text) {
                self.known(field, &name, FACTS)?;
            }
        }
        for (field, text) in self.templates() {
            for part in parts(text) {
                if let Part::Name(name) = part
                    && !TEXTS.contains(&name)
                {
                    self.known(field, name, FACTS)?;
                }
            }
        }
        Ok(())
    }

    fn known(&self, field: &str, name: &str, all: &[&'static str]) -> Result<()> {
        if all.contains(&name) {
            return Ok(());
        }
        let near = nearest(name, all.iter().chain(TEXTS).copied());
        let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
        Err(self.fault(field, &format!("{name} is no fact{near}")))
    }

    /// The finding, if the condition holds. A fact that this timeline does not have makes it not hold.
    fn finding(&self, known: &Known) -> Result<Option<Finding>> {
        let w = &self.written;
        let absent = |text: &str| {
            names(text)
                .iter()
                .any(|name| !known.facts.contains_key(name))
        };
        if absent(&w.when) {
            return Ok(None);
        }
        match self.evaluate("when", &w.when, known)? {
            cel::Value::Bool(true) => {}
            cel::Value::Bool(false) => return Ok(None),
            other => return Err(self.fault("when", &format!("gives {other:?}, not true or false"))),
        }
        let number = |field: &str, number: &Number| match number {
            Number::Plain(number) => Ok(*number),
            Number::Expression(text) => match self.evaluate(field, text, known)? {
                cel::Value::Float(number) => Ok(number),
                cel::Value::Int(number) => Ok(number as f64),
                other => Err(self.fault(field, &format!("gives {other:?}, not a number"))),
            },
        };
        let hundredths = |number: f64| (number * 100.0).round() / 100.0;
        let gain = match &w.gain {
            None => None,
            Some(gain) => {
                let speedup = number("gain.speedup", &gain.speedup)?;
                let low = number("gain.low", &gain.low)?;
                let high = number("gain.high", &gain.high)?;
                // A share of more than all, of something that is measured otherwise: nearly all of it.
                let all = |speedup: f64| if speedup < 0.0 { MOST_SPEEDUP } else { speedup };
                let (speedup, low, high) = (all(speedup), all(low), all(high));
                if speedup.is_nan() || speedup < LEAST_SPEEDUP {
                    return Ok(None);
                }
                let speedup = speedup.min(MOST_SPEEDUP);
                Some(Gain {
                    speedup: hundredths(speedup),
                    low: hundredths(low.min(speedup).max(1.0)),
                    high: hundredths(high.max(speedup).min(MOST_SPEEDUP)),
                })
            }
        };
        let evidence = w.evidence.iter().map(|evidence| Evidence {
            text: fill(&evidence.text, known),
            rows: evidence
                .row
                .iter()
                .filter_map(|label| known.texts.rows.get(label).copied())
                .collect(),
        });
        Ok(Some(Finding {
            id: self.finds().to_owned(),
            title: fill(&w.title, known),
            severity: w.severity.clone(),
            confidence: hundredths(number("confidence", &w.confidence)?.clamp(0.0, 1.0)),
            gain,
            place: fill(&w.place, known),
            evidence: evidence.collect(),
            suggestion: fill(&w.suggestion, known),
        }))
    }

    fn evaluate(&self, field: &str, text: &str, known: &Known) -> Result<cel::Value> {
        let program = program(text).map_err(|what| self.fault(field, &what))?;
        let value = program.execute(known.context);
        value.map_err(|error| {
            self.fault(
                field,
                &format!("{error}; facts are doubles: write 2.0, not 2"),
            )
        })
    }
}

/// What a rule calls `faster(part, whole, saved)`: by how much a whole gets faster if `saved` of a part of it is saved
/// (Amdahl). A part is never all of the whole: shares are measured, not exact.
fn faster(part: f64, whole: f64, saved: f64) -> f64 {
    const MOST: f64 = 0.95;
    1.0 / (1.0 - saved * (part / whole.max(f64::MIN_POSITIVE)).clamp(0.0, MOST))
}

/// Facts as rules see them: some have a value where there is none.
fn with_defaults(facts: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let defaults = FACTS
        .iter()
        .filter_map(|&name| Some((name.to_owned(), default(name)?.into())));
    let mut all: BTreeMap<String, Value> = defaults.collect();
    all.extend(
        facts
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    all
}

/// Facts as CEL sees them, every number a double.
fn doubles(facts: &BTreeMap<String, Value>) -> HashMap<String, cel::Value> {
    let numbers = facts.iter().filter_map(|(name, value)| {
        let number = value.as_f64()?;
        Some((name.as_str(), Some(cel::Value::Float(number))))
    });
    nested(numbers)
}

/// Dotted names in an expression, but not in its strings, nor the functions it calls.
fn names(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut quote = None;
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_alphanumeric() || c == '_' || c == '.' => word.push(c),
            None => {
                let is_name = word.starts_with(|c: char| c.is_alphabetic()) && word.contains('.');
                if is_name && c != '(' {
                    found.push(std::mem::take(&mut word));
                }
                word.clear();
            }
        }
    }
    found
}

enum Part<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// Splits `a {b.c} d` at its braces.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            break;
        };
        parts.push(Part::Text(before));
        parts.push(Part::Name(name.trim()));
        rest = after;
    }
    parts.push(Part::Text(rest));
    parts
}

/// A text of a rule, in one line, with `…` in place of names.
fn without_names(text: &str) -> String {
    let parts = parts(text).into_iter().map(|part| match part {
        Part::Text(text) => text,
        Part::Name(_) => "…",
    });
    one_line(&parts.collect::<String>())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn fill(text: &str, known: &Known) -> String {
    let value = |name: &str| match (
        known.texts.texts.get(name),
        known.facts.get(name).and_then(Value::as_f64),
    ) {
        (Some(text), _) => text.clone(),
        (None, Some(number)) if name.contains("_ns") || name.ends_with(".ns") => {
            units::time(number)
        }
        (None, Some(number)) if name.ends_with("share") => units::share(number),
        (None, Some(number)) if name.ends_with("bytes") => units::bytes(number),
        (None, Some(number)) => units::count(number),
        (None, None) => "(unknown)".to_owned(),
    };
    let parts = parts(text).into_iter().map(|part| match part {
        Part::Text(text) => text.to_owned(),
        Part::Name(name) => value(name),
    });
    one_line(&parts.collect::<String>())
}

/// serde's message, with the key that was meant.
fn mistake(file: &str, message: &str) -> Error {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let near = match message.contains("unknown field") {
        true => quoted.next().and_then(|wrong| nearest(wrong, quoted)),
        false => None,
    };
    Error::Invalid {
        path: file.into(),
        what: message.to_owned(),
        hint: near.map(|near| format!("{near}:")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_outside_of_strings_and_calls() {
        let text = r#"native.top.share > 0.5 && size("a.b") < 3 || math.max(gc.count, 1.0) > 2.0"#;
        assert_eq!(names(text), ["native.top.share", "gc.count"]);
    }
}

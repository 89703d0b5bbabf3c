//! `--where`: an expression over a row's columns, in CEL.
//!
//! Whole numbers are ints, value is a double, kind, name and file are texts, args is a map. A row in which the expression
//! meets a null, or looks for something that args does not have, is left out, as in SQL.

use std::collections::HashMap;
use std::sync::Arc;

use cel::{Context, Env, ExecutionError, Program, Value};

use crate::error::{Error, Result, nearest};
use crate::trace::io::COLUMNS;
use crate::trace::{Event, Names};

/// An expression that is true or false of a row.
pub(super) struct Condition {
    program: Program,
    /// The columns that it names.
    columns: Vec<&'static str>,
    context: Context<'static, 'static>,
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Condition")
            .field("columns", &self.columns)
            .finish()
    }
}

impl Condition {
    /// # Errors
    /// What is no expression, and names that are no columns.
    pub fn new(text: &str) -> Result<Condition> {
        let env = Arc::new(Env::stdlib());
        let program = env.compile(text).map_err(|error| {
            let what = error.to_string();
            let words: Vec<&str> = what.split_whitespace().collect();
            fault(
                &words.join(" "),
                Some("'kind == \"kernel\" && dur_ns > 1000'"),
            )
        })?;
        let references = program.references();
        // A macro has variables of its own: x in args.grid.exists(x, x > 1).
        let has_macro = references
            .functions()
            .iter()
            .any(|name| name.starts_with('@'))
            || text.contains(".exists")
            || text.contains(".all(")
            || text.contains(".map(")
            || text.contains(".filter(");
        if !has_macro {
            let mut unknown: Vec<&str> = references.variables();
            unknown.retain(|name| !COLUMNS.contains(name));
            unknown.sort_unstable();
            if let Some(name) = unknown.first() {
                let unit = || COLUMNS.into_iter().find(|column| column.starts_with(name));
                let near = nearest(name, COLUMNS).or_else(unit);
                let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                return Err(fault(&format!("{name} is no column{near}"), None));
            }
        }
        let columns = COLUMNS
            .into_iter()
            .filter(|name| references.has_variable(name))
            .collect();
        Ok(Condition {
            columns,
            context: Context::with_env(env),
            program,
        })
    }

    /// Whether it holds for this row.
    ///
    /// # Errors
    /// What cannot be evaluated although no null is in it, and what is neither true nor false.
    pub fn holds(&mut self, event: &Event, names: &Names) -> Result<bool> {
        let mut nulls = false;
        for column in &self.columns {
            let value = value(column, event, names);
            nulls |= matches!(value, Value::Null);
            self.context.add_variable_from_value(*column, value);
        }
        match self.program.execute(&self.context) {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) if nulls => Ok(false),
            Ok(other) => Err(fault(&format!("gives {other:?}, not true or false"), None)),
            Err(ExecutionError::NoSuchKey(_) | ExecutionError::IndexOutOfBounds(_)) => Ok(false),
            Err(_) if nulls => Ok(false),
            Err(error) => Err(fault(
                &error.to_string(),
                Some(
                    "numbers beside numbers and texts beside texts: value is a double, 2.0; the others are whole",
                ),
            )),
        }
    }
}

fn fault(what: &str, hint: Option<&str>) -> Error {
    Error::Invalid {
        path: "--where".into(),
        what: what.into(),
        hint: hint.map(str::to_owned),
    }
}

fn value(column: &str, event: &Event, names: &Names) -> Value {
    let text = |text: &str| Value::String(Arc::new(text.to_owned()));
    let whole = |number: u64| match i64::try_from(number) {
        Ok(number) => Value::Int(number),
        Err(_) => Value::UInt(number),
    };
    let value = match column {
        "start_ns" => Some(Value::Int(event.start_ns)),
        "dur_ns" => event.dur_ns.map(Value::Int),
        "kind" => Some(text(event.kind.as_str())),
        "name" => Some(text(names.text(event.name))),
        "file" => event.file.map(|file| text(names.text(file))),
        "line" => event.line.map(|line| whole(line.into())),
        "process" => Some(whole(event.process.into())),
        "pid" => Some(whole(event.pid.into())),
        "tid" => Some(whole(event.tid)),
        "device" => event.device.map(|device| whole(device.into())),
        "stream" => event.stream.map(|stream| whole(stream.into())),
        "correlation" => event.correlation.map(whole),
        "flow" => event.flow.map(whole),
        "parent" => event.parent.map(Value::Int),
        "cause" => event.cause.map(Value::Int),
        "bytes" => event.bytes.map(Value::Int),
        "value" => event.value.map(Value::Float),
        _ => event.args.and_then(|args| {
            let args = serde_json::from_str(names.text(args)).ok()?;
            Some(from_json(&args))
        }),
    };
    value.unwrap_or(Value::Null)
}

fn from_json(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Null,
        Json::Bool(yes) => Value::Bool(*yes),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            _ => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Array(list) => Value::List(Arc::new(list.iter().map(from_json).collect())),
        Json::Object(members) => {
            let members: HashMap<String, Value> = members
                .iter()
                .map(|(key, value)| (key.clone(), from_json(value)))
                .collect();
            members.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::text::parse;

    fn of(text: &str) -> Vec<bool> {
        let rows = r#"
            track     kind    start  end   name  bytes  value  args
            py:main   python  0us    8us   main  -      -      -
            cuda:0/7  kernel  9us    10us  gemm  -      -      {"grid":[8,1,1]}
            cuda:0/7  memcpy  9us    11us  copy  4096   2.5    {"copy":"host to device"}
            py:main   mark    12us   -     m     -      -      -"#;
        let (events, names) = parse(rows).unwrap();
        let mut condition = Condition::new(text).unwrap();
        (events.iter())
            .map(|event| condition.holds(event, &names).unwrap())
            .collect()
    }

    #[test]
    fn columns_are_compared_and_nulls_are_left_out() {
        let (no, yes) = (false, true);
        for (text, wanted) in [
            ("kind == \"kernel\" && dur_ns >= 1000", [no, yes, no, no]),
            ("dur_ns > 1500", [yes, no, yes, no]),
            ("device == 0", [no, yes, yes, no]),
            ("tid == 1000", [yes, no, no, yes]),
            (
                "name.startsWith('g') || kind in ['mark']",
                [no, yes, no, yes],
            ),
            ("value > 2.0", [no, no, yes, no]),
            ("bytes / 1024 == 4", [no, no, yes, no]),
            ("args.grid[0] == 8", [no, yes, no, no]),
            ("has(args.copy)", [no, no, yes, no]),
            ("args.grid.exists(x, x > 7)", [no, yes, no, no]),
            ("dur_ns == null", [no, no, no, yes]),
            ("true", [yes; 4]),
        ] {
            assert_eq!(of(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_mistake_is_told() {
        let said = |text: &str| Condition::new(text).unwrap_err().to_string();
        assert_eq!(
            said("dur > 3"),
            "--where: dur is no column; did you mean dur_ns?"
        );
        assert!(
            said("kind ==").starts_with("--where: "),
            "{}",
            said("kind ==")
        );
        let (events, names) = parse("track kind start\npy:main mark 0").unwrap();
        let wrong = |text: &str| {
            let mut condition = Condition::new(text).unwrap();
            condition.holds(&events[0], &names).unwrap_err().to_string()
        };
        assert!(wrong("start_ns").contains("not true or false"));
        assert!(wrong("start_ns > \"1\"").starts_with("--where: "));
    }
}

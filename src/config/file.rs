//! Reads `.inferscope.yaml`: sections named after the commands, keys in them.

use std::collections::BTreeSet;
use std::path::Path;

use serde_yaml_ng::Value as Yaml;

use super::keys::{KEYS, Key, Type, Value};
use crate::error::{Error, Result, nearest};

/// What the file sets: place in [`KEYS`], value, line.
pub(super) fn read(path: &Path) -> Result<Vec<(usize, Value, usize)>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let yaml: Yaml = serde_yaml_ng::from_str(&text).map_err(|error| {
        let line = error.location().map_or(1, |place| place.line());
        fault(path, line, &format!("not YAML: {error}"))
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut found = Vec::new();
    let sections: BTreeSet<&str> = KEYS.iter().map(|key| key.section).collect();
    for (section, keys) in entries(&yaml).ok_or_else(|| {
        fault(
            path,
            1,
            "sections wanted, such as record: and below it ring: 8MiB",
        )
    })? {
        let line = line_of(&text, &section, None);
        if !sections.contains(section.as_str()) {
            let hint = match KEYS.iter().find(|key| key.name == section) {
                Some(key) => format!("; it belongs below {}:", key.section),
                None => suggestion(&section, sections.iter().copied()),
            };
            return Err(fault(path, line, &format!("no section {section:?}{hint}")));
        }
        let what = format!("{section}: keys wanted below it");
        for (name, value) in entries(keys).ok_or_else(|| fault(path, line, &what))? {
            let line = line_of(&text, &name, Some(&section));
            let known = KEYS
                .iter()
                .position(|k| k.section == section && k.name == name);
            let Some(at) = known else {
                let hint = match KEYS.iter().find(|key| key.name == name) {
                    Some(key) => format!("; it belongs below {}:", key.section),
                    None => {
                        let ours = KEYS.iter().filter(|key| key.section == section);
                        suggestion(&name, ours.map(|key| key.name))
                    }
                };
                return Err(fault(path, line, &format!("no key {section}.{name}{hint}")));
            };
            match value_of(&KEYS[at], value, folder) {
                Ok(Some(value)) => found.push((at, value, line)),
                Ok(None) => {}
                Err(what) => return Err(fault(path, line, &what)),
            }
        }
    }
    Ok(found)
}

/// The entries of a mapping, or of nothing; `None` for anything else.
fn entries(yaml: &Yaml) -> Option<Vec<(String, &Yaml)>> {
    match yaml {
        Yaml::Null => Some(Vec::new()),
        Yaml::Mapping(map) => Some(
            map.iter()
                .map(|(key, value)| (scalar(key).unwrap_or_default(), value))
                .collect(),
        ),
        _ => None,
    }
}

fn scalar(yaml: &Yaml) -> Option<String> {
    match yaml {
        Yaml::String(text) => Some(text.clone()),
        Yaml::Number(number) => Some(number.to_string()),
        Yaml::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// A key's value; `None` if it is left empty, which leaves the default.
fn value_of(key: &Key, yaml: &Yaml, folder: &Path) -> std::result::Result<Option<Value>, String> {
    let listed = matches!(key.kind, Type::List | Type::Paths);
    match yaml {
        Yaml::Null => Ok(None),
        Yaml::Sequence(items) if listed => {
            let words: Option<Vec<String>> = items.iter().map(scalar).collect();
            match words {
                Some(words) => Ok(Some(key.list(words, folder))),
                None => Err(format!("{}: a list of words wanted", key.name)),
            }
        }
        other => match scalar(other) {
            Some(text) => key.parse(&text, folder).map(Some),
            None => Err(format!("{}: one value wanted", key.name)),
        },
    }
}

/// The line on which a key stands; the parser keeps none. Flow style falls back to the first mention.
fn line_of(text: &str, key: &str, section: Option<&str>) -> usize {
    let named = |line: &str, key: &str| {
        let line = line.trim_start().trim_start_matches(['"', '\'']);
        line.strip_prefix(key).is_some_and(|rest| {
            rest.trim_start_matches(['"', '\''])
                .trim_start()
                .starts_with(':')
        })
    };
    let mut current = None;
    for (at, line) in text.lines().enumerate() {
        let top = line.starts_with(|c: char| !c.is_whitespace() && c != '#');
        if top {
            if section.is_none() && named(line, key) {
                return at + 1;
            }
            current = section.filter(|section| named(line, section));
        } else if section.is_some() && current == section && named(line, key) {
            return at + 1;
        }
    }
    text.lines()
        .position(|line| line.contains(key))
        .map_or(1, |at| at + 1)
}

fn suggestion<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(word, known).map_or(String::new(), |near| format!("; did you mean {near}?"))
}

fn fault(path: &Path, line: usize, what: &str) -> Error {
    Error::invalid(format!("{}:{line}", path.display()), what.to_owned())
}

//! Settings: flags over `INFERSCOPE_*` over `.inferscope.yaml` over defaults.
//!
//! A command asks for what its flags left open: `args.ring.or(config.bytes("ring"))`. A wrong key or
//! value is an error that names file, line and the nearest right word, never a setting left out.

mod file;
mod keys;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
pub use keys::{KEYS, Key, Type, Value};

/// The file's name, looked for in the current folder and its parents.
pub const FILE: &str = ".inferscope.yaml";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// The variable's name.
    Environment(String),
    File {
        path: PathBuf,
        line: usize,
    },
}

/// One key's value; `None` where nobody set it and it has no default.
#[derive(Clone, Debug)]
pub struct Setting {
    pub key: &'static Key,
    pub value: Option<Value>,
    pub origin: Origin,
}

/// Every key's value.
#[derive(Clone, Debug)]
pub struct Config {
    settings: Vec<Setting>,
}

impl Config {
    /// The settings for a command started here.
    ///
    /// # Errors
    /// A file that cannot be read or is no YAML; unknown keys; values of another type or unit.
    pub fn load() -> Result<Config> {
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        Config::of(&here, |name| std::env::var_os(name))
    }

    /// The settings for a command started in `folder` with these environment variables.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn of(folder: &Path, environment: impl Fn(&str) -> Option<OsString>) -> Result<Config> {
        let mut settings: Vec<Setting> = KEYS.iter().map(Setting::default_of).collect();
        if let Some(path) = find(folder) {
            for (at, value, line) in file::read(&path)? {
                settings[at].value = Some(value);
                settings[at].origin = Origin::File {
                    path: path.clone(),
                    line,
                };
            }
        }
        for setting in &mut settings {
            let name = setting.key.variable();
            let Some(text) = environment(&name).filter(|text| !text.is_empty()) else {
                continue;
            };
            let text = text.to_string_lossy();
            let value = setting
                .key
                .parse(&text, folder)
                .map_err(|what| Error::Invalid {
                    path: PathBuf::from(&name),
                    what,
                    hint: None,
                })?;
            setting.value = Some(value);
            setting.origin = Origin::Environment(name);
        }
        Ok(Config { settings })
    }

    /// All settings, in the order of [`KEYS`].
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    fn value(&self, name: &str) -> Option<&Value> {
        let setting = self.settings.iter().find(|s| s.key.name == name)?;
        setting.value.as_ref()
    }

    /// A size in bytes: `ring`, `spill_limit`, `memory`.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        match self.value(name)? {
            Value::Bytes(bytes) => Some(*bytes),
            _ => None,
        }
    }

    /// A time: `delay`, `duration`.
    pub fn time(&self, name: &str) -> Option<Duration> {
        match self.value(name)? {
            Value::Time(time) => Some(*time),
            _ => None,
        }
    }

    /// A word: `start_on`, `fail_on`, `format`.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A file or folder: `spill_dir`, `python`.
    pub fn path(&self, name: &str) -> Option<&Path> {
        match self.value(name)? {
            Value::Path(path) => Some(path),
            _ => None,
        }
    }

    /// Several words: `include`, `exclude`, `rules`; empty if not set.
    pub fn list(&self, name: &str) -> &[String] {
        match self.value(name) {
            Some(Value::List(list)) => list,
            _ => &[],
        }
    }

    /// Yes or no: `wrap`.
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.value(name)? {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        }
    }
}

impl Setting {
    fn default_of(key: &'static Key) -> Setting {
        Setting {
            key,
            value: key
                .default
                .and_then(|text| key.parse(text, Path::new("")).ok()),
            origin: Origin::Default,
        }
    }
}

/// The nearest file with settings at or above `folder`.
fn find(folder: &Path) -> Option<PathBuf> {
    let mut folders = folder.ancestors().map(|folder| folder.join(FILE));
    folders.find(|path| path.is_file())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Environment(name) => f.write_str(name),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// One line a setting: `section.key  value  origin`, as `inferscope config show` prints it.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<[String; 3]> = (self.settings.iter())
            .map(|s| {
                let value = s.value.as_ref().map_or("-".to_owned(), Value::to_string);
                [s.key.path(), value, s.origin.to_string()]
            })
            .collect();
        let width = |column: usize| {
            let widths = shown.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or(0)
        };
        let (first, second) = (width(0), width(1));
        for [key, value, origin] in &shown {
            writeln!(f, "{key:first$}  {value:second$}  {origin}")?;
        }
        Ok(())
    }
}

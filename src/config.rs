//! Settings: flags over `INFERSCOPE_*` over `.inferscope.yaml` over defaults.
//!
//! A command resolves each option in one line; the flag may have been given or not:
//!
//! ```
//! # struct Args { ring: Option<u64>, duration: Option<std::time::Duration>, include: Vec<String>, no_wrap: bool }
//! # let args = Args { ring: None, duration: None, include: vec![], no_wrap: true };
//! # use inferscope::config::Config;
//! # let config = Config::of(std::path::Path::new("/"), |_| None)?;
//! // let config = Config::load()?;
//! let ring = config.get(args.ring, "ring")?; // has a default: u64
//! let duration = config.resolve(args.duration, "duration"); // may be left open: Option<Duration>
//! let include = config.resolve(args.include, "include"); // Vec<String>; the flag's words replace the file's
//! let wrap = config.get(args.no_wrap.then_some(false), "wrap")?; // a flag that switches off
//! # assert_eq!((ring, wrap), (8 << 20, false));
//! # Ok::<(), inferscope::error::Error>(())
//! ```
//!
//! Flags take the same spelling: `value_parser = cli::bytes` for sizes, `config::time` for times. A wrong key
//! or value is an error that names file, line and the nearest right word, never a setting left out.

mod file;
mod keys;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result, nearest};
pub use keys::{KEYS, Key, Type, Value, rate, share, time};

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
        known(std::env::vars_os().map(|(name, _)| name))?;
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

    /// The flag if it was given, else the value of key `name`, in the flag's own type: an `Option`, or a
    /// `Vec` that is empty when nobody said anything.
    pub fn resolve<T: Flag>(&self, flag: T, name: &str) -> T {
        match flag.is_given() {
            true => flag,
            false => self.value(name).and_then(T::of).unwrap_or(flag),
        }
    }

    /// [`Config::resolve`] of a key that has a default, so that there is a value.
    ///
    /// # Errors
    /// A key that is unknown or of another type: a fault of ours, not of the user's.
    pub fn get<T>(&self, flag: Option<T>, name: &str) -> Result<T>
    where
        Option<T>: Flag,
    {
        let fault = || Error::invalid(name, "a setting without a value of this type");
        self.resolve(flag, name).ok_or_else(fault)
    }
}

/// An option of a command line, given or not, and how a setting's value stands in for it.
pub trait Flag: Sized {
    /// Whether the command line had it.
    fn is_given(&self) -> bool;
    /// The same from a setting; `None` if that is of another type.
    fn of(value: &Value) -> Option<Self>;
}

macro_rules! flag {
    ($type:ty, $($variant:ident)|+) => {
        impl Flag for Option<$type> {
            fn is_given(&self) -> bool {
                self.is_some()
            }

            fn of(value: &Value) -> Option<Self> {
                match value {
                    $(Value::$variant(value))|+ => Some(Some(value.clone())),
                    _ => None,
                }
            }
        }
    };
}

flag!(u64, Bytes);
flag!(f64, Share | Rate);
flag!(Duration, Time);
flag!(String, Text);
flag!(PathBuf, Path);
flag!(bool, Flag);

/// For `Vec<String>` (`include`) and `Vec<PathBuf>` (`rules`).
impl<T: From<String>> Flag for Vec<T> {
    fn is_given(&self) -> bool {
        !self.is_empty()
    }

    fn of(value: &Value) -> Option<Vec<T>> {
        match value {
            Value::List(list) => Some(list.iter().cloned().map(T::from).collect()),
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

/// Variables that our commands set for each other, and so no settings.
const INTERNAL: [&str; 3] = ["SPOOL", "PROBE", "SHARED"];

/// Checks that no variable is a slip of a setting's; one that is far from all of them is somebody else's.
///
/// # Errors
/// The first such one, with the nearest right name.
pub fn known(variables: impl IntoIterator<Item = OsString>) -> Result<()> {
    for variable in variables {
        let Some(name) = variable
            .to_str()
            .and_then(|v| v.strip_prefix("INFERSCOPE_"))
        else {
            continue;
        };
        let name = name.to_lowercase();
        let is_ours = KEYS.iter().any(|key| key.name == name);
        if is_ours || INTERNAL.contains(&name.to_uppercase().as_str()) {
            continue;
        }
        if let Some(near) = nearest(&name, KEYS.iter().map(|key| key.name)) {
            let near = near.to_uppercase();
            return Err(Error::Invalid {
                path: variable.into(),
                what: format!("no such setting; did you mean INFERSCOPE_{near}?"),
                hint: Some("inferscope config show, which lists all settings".into()),
            });
        }
    }
    Ok(())
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

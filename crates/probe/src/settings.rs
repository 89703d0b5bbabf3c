//! What isc-record asks of the probe: `settings.json` of the run's directory.

use crate::json::Json;
use std::path::{Path, PathBuf};

/// The settings; a missing key has its default.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Resident bytes of segments per process.
    pub ring_bytes: u64,
    /// Where segments go when the ring is full.
    pub spill: PathBuf,
    /// Bytes of spill files per process; beyond them records are lost and counted.
    pub spill_limit_bytes: u64,
    /// Modules and paths to record; all if empty.
    pub include: Vec<String>,
    /// Modules and paths never to record; stronger than `include`.
    pub exclude: Vec<String>,
    /// The share of CPU time that recording may cost; 0: no limit, all is recorded.
    pub budget: f64,
    /// Whether numpy's functions may be wrapped.
    pub wrap: bool,
    /// Whether numpy's calls of its BLAS are recorded, with their sizes.
    pub blas: bool,
    /// Whether the instruction pointer is sampled.
    pub sample: bool,
    /// Whether calls of native functions are recorded.
    pub native: bool,
    /// The program ran already when it was asked to record: frames are open.
    pub attached: bool,
    /// Modules, paths and functions whose lines are measured.
    pub lines: Vec<String>,
    /// Name of the scope whose first entry starts the recording.
    pub start_on: Option<String>,
    pub delay_ms: u64,
    pub duration_ms: Option<u64>,
    pub verbose: bool,
    /// Whether Python is recorded.
    pub python: bool,
    /// Whether devices are recorded.
    pub gpu: bool,
    /// Every call of CUDA's driver and runtime, and not just those that matter.
    pub cuda_api_all: bool,
    /// A CUDA graph is one record, and not one for each of its nodes.
    pub cuda_graph_whole: bool,
    /// Memory that is taken and given back on devices.
    pub cuda_memory: bool,
}

impl Settings {
    /// The settings of the run in `dir`; the defaults where the file cannot be read.
    pub fn read(dir: &Path) -> Settings {
        let text = std::fs::read_to_string(dir.join("settings.json")).unwrap_or_default();
        Settings::parse(&text, dir)
    }

    fn parse(text: &str, dir: &Path) -> Settings {
        let json = Json::parse(text).unwrap_or(Json::Null);
        let whole = |key: &str| {
            let number = json.get(key)?.number()?;
            (number >= 0.0).then_some(number as u64)
        };
        let flag = |key: &str, default| json.get(key).and_then(Json::bool).unwrap_or(default);
        let list = |key: &str| json.get(key).map(Json::texts).unwrap_or_default();
        Settings {
            ring_bytes: whole("ring_bytes").unwrap_or(8 << 20),
            spill: json
                .get("spill")
                .and_then(Json::text)
                .map_or_else(|| dir.join("spill"), PathBuf::from),
            spill_limit_bytes: whole("spill_limit_bytes").unwrap_or(8 << 30),
            include: list("include"),
            exclude: list("exclude"),
            budget: json.get("budget").and_then(Json::number).unwrap_or(0.0),
            wrap: flag("wrap", true),
            blas: flag("blas", false),
            sample: flag("sample", true),
            native: flag("native", true),
            attached: flag("attached", false),
            lines: list("lines"),
            start_on: json.get("start_on").and_then(Json::text).map(str::to_owned),
            delay_ms: whole("delay_ms").unwrap_or(0),
            duration_ms: whole("duration_ms"),
            verbose: flag("verbose", false),
            python: flag("python", true),
            gpu: flag("gpu", true),
            cuda_api_all: flag("cuda_api_all", false),
            cuda_graph_whole: flag("cuda_graph_whole", false),
            cuda_memory: flag("cuda_memory", false),
        }
    }

    /// Whether code of `module` in `file` is recorded.
    pub fn wants(&self, module: &str, file: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|p| matches(p, module, file));
        !any(&self.exclude) && (self.include.is_empty() || any(&self.include))
    }
}

impl Settings {
    /// Whether the lines of the function `name` are measured: by a pattern for its module or file, by its qualified
    /// name or the end of it, or by both with a `:` between them.
    pub fn measures_lines(&self, module: &str, file: &str, name: &str) -> bool {
        self.lines
            .iter()
            .any(|pattern| match pattern.split_once(':') {
                Some((place, function)) => matches(place, module, file) && is_named(function, name),
                None => matches(pattern, module, file) || is_named(pattern, name),
            })
    }
}

/// Whether a function's qualified name is the pattern, ends with it, or is within what it names.
fn is_named(pattern: &str, name: &str) -> bool {
    let within = |name: &str| {
        glob(pattern.as_bytes(), name.as_bytes())
            || name
                .strip_prefix(pattern)
                .is_some_and(|rest| rest.starts_with('.'))
    };
    let ends = name.match_indices('.').map(|(at, _)| &name[at + 1..]);
    within(name)
        || ends
            .into_iter()
            .any(|end| glob(pattern.as_bytes(), end.as_bytes()))
}

/// A pattern with a `/` or a `*` is a path (`*` any characters, `?` one; a folder stands for all below it,
/// and it may begin anywhere in the path at a folder's border); any other is a module and its submodules. The script that
/// runs, app.py, is module app too.
fn matches(pattern: &str, module: &str, file: &str) -> bool {
    if !pattern.contains(['/', '*', '?']) && !pattern.ends_with(".py") {
        let is_script = module == "__main__" && {
            let name = file.rsplit('/').next().unwrap_or(file);
            name.strip_suffix(".py") == Some(pattern)
        };
        return is_script
            || module == pattern
            || module
                .strip_prefix(pattern)
                .is_some_and(|rest| rest.starts_with('.'));
    }
    let pattern = pattern.trim_end_matches('/');
    let starts = std::iter::once(0).chain(
        file.char_indices()
            .filter(|_| !pattern.starts_with('/'))
            .filter(|&(_, c)| c == '/')
            .map(|(at, _)| at + 1),
    );
    let below = format!("{pattern}/*");
    starts.into_iter().any(|at| {
        glob(pattern.as_bytes(), &file.as_bytes()[at..])
            || glob(below.as_bytes(), &file.as_bytes()[at..])
    }) || glob(pattern.as_bytes(), module.as_bytes())
}

/// Shell-like match of the whole text: `*` any run, `?` one byte. Linear back-tracking, to the last star only.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_defaults_and_are_read() {
        let none = Settings::parse("", Path::new("/run"));
        assert_eq!(
            (none.ring_bytes, none.spill.as_path()),
            (8 << 20, Path::new("/run/spill"))
        );
        assert!(
            none.wrap
                && none.sample
                && none.native
                && none.start_on.is_none()
                && none.wants("a", "a.py")
        );
        let some = Settings::parse(
            r#"{"ring_bytes": 4096, "spill": "/s", "include": ["app"], "wrap": false, "start_on": "main", "duration_ms": 5}"#,
            Path::new("/run"),
        );
        assert_eq!(
            (some.ring_bytes, some.duration_ms, some.wrap),
            (4096, Some(5), false)
        );
        assert_eq!(some.start_on.as_deref(), Some("main"));
        assert!(some.wants("app.model", "/x/app/model.py") && !some.wants("apple", "/x/apple.py"));
    }

    #[test]
    fn lines_are_those_of_a_place_a_function_or_both() {
        let wants = |pattern: &str, module: &str, file: &str, name: &str| {
            let settings = Settings {
                lines: vec![pattern.to_owned()],
                ..Settings::parse("", Path::new("/run"))
            };
            settings.measures_lines(module, file, name)
        };
        for (pattern, expected) in [
            ("decode", true),
            ("Model.decode", true),
            ("Model", true),
            ("app", true),
            ("app.py", true),
            ("app:decode", true),
            ("app.py:Model.*", true),
            ("other:decode", false),
            ("code", false),
            ("del.decode", false),
            ("app:code", false),
        ] {
            let found = wants(pattern, "app", "/x/app.py", "Model.decode");
            assert_eq!(found, expected, "{pattern}");
        }
    }

    #[test]
    fn patterns_are_modules_or_paths() {
        for (pattern, module, file, expected) in [
            ("numpy", "numpy.linalg", "/sp/numpy/linalg.py", true),
            ("numpy", "numpyx", "/sp/numpyx.py", false),
            ("app.py", "__main__", "/home/app.py", true),
            ("app.py", "__main__", "/home/myapp.py", false),
            ("app", "__main__", "/home/app.py", true),
            ("app", "__main__", "/home/myapp.py", false),
            ("/home/", "m", "/home/x/y.py", true),
            ("src/*", "m", "/home/src/y.py", true),
            ("test_*", "test_a", "/x/other.py", true),
            ("/home/x", "m", "/else/home/x", false),
        ] {
            assert_eq!(
                matches(pattern, module, file),
                expected,
                "{pattern} {module} {file}"
            );
        }
    }
}

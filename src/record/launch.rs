//! Which executable runs, with which arguments: the Python that the program would get.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What to start.
#[derive(Debug, PartialEq, Eq)]
pub struct Launch {
    pub executable: PathBuf,
    pub args: Vec<OsString>,
    /// The program's name without its ending, for a file that is called after it.
    pub name: String,
}

/// Why it cannot be started. The exit status is what a shell would give.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u8,
    pub path: PathBuf,
    pub what: String,
    pub hint: Option<String>,
}

/// Exit status for a program that is there and cannot be run.
pub const NOT_RUNNABLE: u8 = 126;
/// Exit status for a program that is not there.
pub const NOT_FOUND: u8 = 127;

fn refusal(status: u8, path: &Path, what: &str, hint: Option<&str>) -> Refusal {
    Refusal {
        status,
        path: path.to_owned(),
        what: what.to_owned(),
        hint: hint.map(str::to_owned),
    }
}

/// What surrounds us, as far as it decides which Python runs.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// `--python`.
    pub python: Option<PathBuf>,
    /// Root of the active virtual environment.
    pub venv: Option<PathBuf>,
    /// Folders that are searched for commands.
    pub path: Vec<PathBuf>,
}

impl Surroundings {
    /// Ours, with the Python that was asked for.
    pub fn here(python: Option<PathBuf>) -> Surroundings {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Surroundings {
            python,
            venv: std::env::var_os("VIRTUAL_ENV").map(PathBuf::from),
            path: std::env::split_paths(&path).collect(),
        }
    }

    /// `words`: a module and its arguments, as after `python -m`.
    ///
    /// # Errors
    /// No Python.
    pub fn module(&self, words: &[OsString]) -> Result<Launch, Refusal> {
        let mut args = vec![OsString::from("-m")];
        args.extend_from_slice(words);
        let name = words.first().map(|name| name.to_string_lossy());
        Ok(Launch {
            executable: self.python(None)?,
            args,
            name: name.map_or_else(|| "module".into(), |name| name.replace('.', "-")),
        })
    }

    /// `words`: a script or a command, and its arguments.
    ///
    /// # Errors
    /// What is not there or cannot be run.
    pub fn program(&self, words: &[OsString]) -> Result<Launch, Refusal> {
        let Some((first, rest)) = words.split_first() else {
            return Err(refusal(NOT_FOUND, Path::new(""), "no program", None));
        };
        let path = Path::new(first);
        let executable = if is_script(path) {
            script(path)?;
            None
        } else if first.as_encoded_bytes().contains(&b'/') {
            let facts = fs::metadata(path)
                .map_err(|_| refusal(NOT_FOUND, path, "no such file or directory", None))?;
            match facts.is_dir() {
                true => {
                    script(path)?;
                    None
                }
                false if is_executable(path) => Some(path.to_owned()),
                false if shebang(path).is_some() => None,
                false => {
                    let hint = format!("chmod +x {}", path.display());
                    return Err(refusal(NOT_RUNNABLE, path, "not executable", Some(&hint)));
                }
            }
        } else {
            match self.find(first) {
                Some(found) => Some(found),
                None if path.exists() => {
                    let hint = format!("./{}", path.display());
                    let what = "a file here, but no command on PATH";
                    return Err(refusal(NOT_FOUND, path, what, Some(&hint)));
                }
                None => return Err(refusal(NOT_FOUND, path, "no such command or file", None)),
            }
        };
        let name = path.file_stem().unwrap_or(first).to_string_lossy();
        let (executable, args) = match executable {
            Some(executable) => (executable, rest.to_vec()),
            None => (self.python(Some(path))?, words.to_vec()),
        };
        Ok(Launch {
            executable,
            args,
            name: name.into_owned(),
        })
    }

    /// The Python that a script without a first line of its own gets.
    ///
    /// # Errors
    /// There is none.
    pub fn any_python(&self) -> Result<PathBuf, Refusal> {
        self.python(None)
    }

    /// The Python for `script`: as asked for, else that of its first line, else of the environment.
    fn python(&self, script: Option<&Path>) -> Result<PathBuf, Refusal> {
        if let Some(asked) = &self.python {
            return self.command(asked);
        }
        // `#!/usr/bin/env python3` means the environment's, which is what follows anyway
        if let Some(own) = script.and_then(shebang).filter(|own| is_executable(own)) {
            return Ok(own);
        }
        let venv = self.venv.iter().map(|venv| venv.join("bin/python"));
        let known = ["python3", "python"]
            .iter()
            .filter_map(|name| self.find(OsStr::new(name)));
        venv.filter(|python| is_executable(python))
            .chain(known)
            .next()
            .ok_or_else(|| {
                let hint = "--python PATH";
                refusal(NOT_FOUND, Path::new("python3"), "not on PATH", Some(hint))
            })
    }

    fn command(&self, asked: &Path) -> Result<PathBuf, Refusal> {
        if asked.as_os_str().as_encoded_bytes().contains(&b'/') {
            return match (asked.exists(), is_executable(asked)) {
                (true, true) => Ok(asked.to_owned()),
                (true, false) => Err(refusal(NOT_RUNNABLE, asked, "not executable", None)),
                (false, _) => Err(refusal(NOT_FOUND, asked, "no such file", None)),
            };
        }
        let none = || refusal(NOT_FOUND, asked, "no such command on PATH", None);
        self.find(asked.as_os_str()).ok_or_else(none)
    }

    fn find(&self, name: &OsStr) -> Option<PathBuf> {
        self.path
            .iter()
            .map(|folder| folder.join(name))
            .find(|path| is_executable(path))
    }
}

fn is_script(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    matches!(ending, "py" | "pyw" | "pyc" | "pyz")
}

/// Whether Python could read it.
fn script(path: &Path) -> Result<(), Refusal> {
    let facts = fs::metadata(path).map_err(|_| refusal(NOT_FOUND, path, "no such script", None))?;
    if facts.is_dir() {
        return match path.join("__main__.py").is_file() {
            true => Ok(()),
            false => {
                let what = "a directory without a __main__.py";
                Err(refusal(NOT_RUNNABLE, path, what, None))
            }
        };
    }
    match fs::File::open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(refusal(NOT_RUNNABLE, path, &error.to_string(), None)),
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

/// The Python named by the first line of a script; not one that `env` looks up.
fn shebang(path: &Path) -> Option<PathBuf> {
    let mut first = [0; 256]; // the kernel reads no more of the line either
    let read = fs::File::open(path).ok()?.read(&mut first).ok()?;
    let line = first[..read].strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    let word = std::str::from_utf8(line).ok()?.split_whitespace().next()?;
    let path = PathBuf::from(word);
    let name = path.file_name()?.to_str()?;
    name.starts_with("python").then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Surroundings) {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        file("bin/python3", "", 0o755);
        file("bin/tool", "", 0o755);
        file("venv/bin/python", "", 0o755);
        file("own/python3.11", "", 0o755);
        file("app.py", "print()\n", 0o644);
        let own = dir.path().join("own/python3.11");
        file(
            "own.py",
            &format!("#!{} -u\nprint()\n", own.display()),
            0o644,
        );
        file("env.py", "#!/usr/bin/env python3\n", 0o755);
        file("data", "1 2 3\n", 0o644);
        file("pack/__main__.py", "", 0o644);
        file("empty/x", "", 0o644);
        let around = Surroundings {
            path: vec![dir.path().join("none"), dir.path().join("bin")],
            ..Surroundings::default()
        };
        (dir, around)
    }

    #[test]
    fn a_script_gets_the_python_it_would_get() {
        let (dir, mut around) = folder();
        let at = |name: &str| dir.path().join(name);
        let run = |around: &Surroundings, name: &str| {
            let words = [at(name).into_os_string(), "-x".into()];
            let launch = around.program(&words).unwrap();
            assert_eq!(launch.args, words);
            launch.executable
        };
        assert_eq!(run(&around, "app.py"), at("bin/python3"));
        assert_eq!(run(&around, "pack"), at("bin/python3"));
        assert_eq!(run(&around, "own.py"), at("own/python3.11"));
        around.venv = Some(at("venv"));
        assert_eq!(run(&around, "app.py"), at("venv/bin/python"));
        assert_eq!(run(&around, "env.py"), at("venv/bin/python"));
        assert_eq!(run(&around, "own.py"), at("own/python3.11"));
        around.python = Some("python3".into());
        assert_eq!(run(&around, "own.py"), at("bin/python3"));
        let module = around
            .module(&["http.server".into(), "--bind".into()])
            .unwrap();
        assert_eq!(module.args, ["-m", "http.server", "--bind"]);
        assert_eq!(module.name, "http-server");
    }

    #[test]
    fn a_command_is_run_as_it_is() {
        let (dir, around) = folder();
        let tool = dir.path().join("bin/tool");
        for name in [OsString::from("tool"), tool.clone().into()] {
            let launch = around.program(&[name, "app.py".into()]).unwrap();
            assert_eq!(
                (launch.executable, launch.args),
                (tool.clone(), vec!["app.py".into()])
            );
        }
    }

    #[test]
    fn what_cannot_run_is_told_apart_from_what_is_not_there() {
        let (dir, mut around) = folder();
        let status = |around: &Surroundings, name: &str| {
            let words = [match name.contains('.') || name.contains('/') {
                true => dir.path().join(name.trim_start_matches('/')).into(),
                false => OsString::from(name),
            }];
            around.program(&words).unwrap_err().status
        };
        assert_eq!(status(&around, "missing.py"), NOT_FOUND);
        assert_eq!(status(&around, "missing"), NOT_FOUND);
        assert_eq!(status(&around, "/missing"), NOT_FOUND);
        assert_eq!(status(&around, "/data"), NOT_RUNNABLE);
        assert_eq!(status(&around, "/empty"), NOT_RUNNABLE);
        around.python = Some("/no/python".into());
        assert_eq!(status(&around, "app.py"), NOT_FOUND);
        around.python = Some(dir.path().join("data"));
        assert_eq!(status(&around, "app.py"), NOT_RUNNABLE);
        around.python = Some("pythonx".into());
        assert_eq!(status(&around, "app.py"), NOT_FOUND);
        let nothing = Surroundings::default();
        assert_eq!(status(&nothing, "app.py"), NOT_FOUND);
        assert_eq!(nothing.program(&[]).unwrap_err().status, NOT_FOUND);
    }
}

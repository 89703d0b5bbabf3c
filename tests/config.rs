//! Which value wins, and what a wrong one says.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inferscope::config::{self, Config, FILE, KEYS, Origin};

fn config(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let deeper = folder.path().join("a/b");
    std::fs::create_dir_all(&deeper).unwrap();
    std::fs::write(folder.path().join(FILE), text).unwrap();
    of(&deeper, environment).map_err(|error| {
        let place = format!("{}/", folder.path().display());
        error.replace(&place, "")
    })
}

fn of(folder: &Path, environment: &[(&str, &str)]) -> Result<Config, String> {
    let environment: HashMap<&str, &str> = environment.iter().copied().collect();
    let found = Config::of(folder, |name| environment.get(name).map(OsString::from));
    found.map_err(|error| error.to_string())
}

fn bytes(config: &Config, name: &str) -> Option<u64> {
    config.resolve(None, name)
}

fn time(config: &Config, name: &str) -> Option<Duration> {
    config.resolve(None, name)
}

fn word(config: &Config, name: &str) -> Option<String> {
    config.resolve(None, name)
}

fn path(config: &Config, name: &str) -> PathBuf {
    config.get(None, name).unwrap()
}

fn list(config: &Config, name: &str) -> Vec<String> {
    config.resolve(vec![], name)
}

fn origin(config: &Config, name: &str) -> Origin {
    let found = config.settings().iter().find(|s| s.key.name == name);
    found.unwrap().origin.clone()
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_default() {
    let text = "record:\n  ring: 16MiB\n  delay: 250ms\nmerge:\n  memory: 1GiB\n";
    let found = config(text, &[("INFERSCOPE_MEMORY", "64MiB")]).unwrap();
    assert_eq!(bytes(&found, "ring"), Some(16 << 20));
    assert_eq!(time(&found, "delay"), Some(Duration::from_millis(250)));
    assert_eq!(bytes(&found, "memory"), Some(64 << 20));
    assert!(found.get(None::<bool>, "wrap").unwrap());
    assert_eq!(time(&found, "duration"), None);
    assert!(matches!(
        origin(&found, "ring"),
        Origin::File { line: 2, .. }
    ));
    assert_eq!(
        origin(&found, "memory"),
        Origin::Environment("INFERSCOPE_MEMORY".into())
    );
    assert_eq!(origin(&found, "wrap"), Origin::Default);
}

#[test]
fn every_kind_of_value_is_read() {
    let text = "
record:
  include: [app, 'lib/*']
  exclude: tests
  start_on: warm
  python: ./venv/bin/python
  wrap: no
  duration: 2m
  spill_dir: spill
analyze: {rules: [rules], fail_on: high}
report:
  format: html
  # a comment
merge:
";
    let found = config(text, &[]).unwrap();
    assert_eq!(list(&found, "include"), ["app", "lib/*"]);
    assert_eq!(list(&found, "exclude"), ["tests"]);
    assert_eq!(word(&found, "start_on").as_deref(), Some("warm"));
    assert!(path(&found, "python").is_absolute());
    assert!(path(&found, "spill_dir").ends_with("spill"));
    assert!(!found.get(None::<bool>, "wrap").unwrap());
    assert_eq!(time(&found, "duration"), Some(Duration::from_secs(120)));
    assert!(list(&found, "rules")[0].ends_with("/rules"));
    assert_eq!(word(&found, "fail_on").as_deref(), Some("high"));
    assert_eq!(word(&found, "format").as_deref(), Some("html"));
    let shown = found.to_string();
    assert_eq!(shown.lines().count(), KEYS.len());
    assert!(shown.contains("[app, lib/*]"), "{shown}");
    assert!(shown.contains(".inferscope.yaml:9"), "{shown}");
}

#[test]
fn a_wrong_key_or_value_names_file_line_and_the_nearest_right_one() {
    for (text, message) in [
        (
            "record:\n  wrap: true\n  rign: 8MiB\n",
            ".inferscope.yaml:3: no key record.rign; did you mean ring?",
        ),
        (
            "recrod:\n  ring: 8MiB\n",
            ".inferscope.yaml:1: no section \"recrod\"; did you mean record?",
        ),
        (
            "# mine\nring: 8MiB\n",
            ".inferscope.yaml:2: no section \"ring\"; it belongs below record:",
        ),
        (
            "merge:\n  ring: 8MiB\n",
            ".inferscope.yaml:2: no key merge.ring; it belongs below record:",
        ),
        (
            "record:\n  ring: lots\n",
            ".inferscope.yaml:2: ring: \"lots\" is no size; write 512MiB, 2GiB or a number of bytes",
        ),
        (
            "record:\n  delay: soon\n",
            ".inferscope.yaml:2: delay: \"soon\" is no time; write 250ms, 1.5s, 2m or a number of seconds",
        ),
        (
            "record:\n  wrap: maybe\n",
            ".inferscope.yaml:2: wrap: \"maybe\" is no yes or no; write true or false",
        ),
        (
            "report:\n  format: htlm\n",
            ".inferscope.yaml:2: format: \"htlm\" is no choice of markdown, html, json; did you mean html?",
        ),
        (
            "record:\n  ring: [1, 2]\n",
            ".inferscope.yaml:2: ring: one value wanted",
        ),
        (
            "record:\n  include: [[1]]\n",
            ".inferscope.yaml:2: include: a list of words wanted",
        ),
        (
            "record: 5\n",
            ".inferscope.yaml:1: record: keys wanted below it",
        ),
        (
            "- 5\n",
            ".inferscope.yaml:1: sections wanted, such as record: and below it ring: 8MiB",
        ),
    ] {
        assert_eq!(config(text, &[]).unwrap_err(), message);
    }
    let broken = config("record:\n  ring: [\n", &[]).unwrap_err();
    assert!(broken.starts_with(".inferscope.yaml:"), "{broken}");
    let wrong = config("", &[("INFERSCOPE_RING", "big")]).unwrap_err();
    assert!(
        wrong.starts_with("INFERSCOPE_RING: ring: \"big\" is no size"),
        "{wrong}"
    );
}

#[test]
fn an_empty_file_and_empty_variables_set_nothing() {
    let found = config("", &[("INFERSCOPE_RING", "")]).unwrap();
    assert!(found.settings().iter().all(|s| s.origin == Origin::Default));
}

#[test]
fn flags_win_over_everything() {
    let text = "record: {ring: 1MiB, include: [theirs], wrap: true, duration: 5s}\n";
    let found = config(text, &[("INFERSCOPE_RING", "2MiB")]).unwrap();
    assert_eq!(found.get(Some(3 << 20), "ring").unwrap(), 3 << 20);
    assert_eq!(found.get(None::<u64>, "ring").unwrap(), 2 << 20);
    let ours = vec!["ours".to_owned()];
    assert_eq!(found.resolve(ours.clone(), "include"), ours);
    assert_eq!(
        found.resolve(Vec::<PathBuf>::new(), "include"),
        [PathBuf::from("theirs")]
    );
    assert!(!found.get(Some(false), "wrap").unwrap());
    let second = Duration::from_secs(1);
    assert_eq!(found.resolve(Some(second), "duration"), Some(second));
    // No key of that name or type: our own fault, and no panic.
    assert!(found.get(None::<u64>, "wrap").is_err());
    assert!(found.get(None::<u64>, "no such key").is_err());
}

#[test]
fn times_are_read_as_people_write_them() {
    for (text, ms) in [
        ("250ms", 250),
        ("1.5s", 1500),
        (" 2 m", 120_000),
        ("3", 3000),
        ("1h", 3_600_000),
    ] {
        assert_eq!(config::time(text), Ok(Duration::from_millis(ms)), "{text}");
    }
    for text in ["", "soon", "-1s", "1 fortnight", "1e300h"] {
        assert!(config::time(text).is_err(), "{text}");
    }
}

#[test]
fn every_default_is_a_value_of_its_key() {
    let found = of(Path::new("/"), &[]).unwrap();
    for setting in found.settings() {
        let known = setting.value.is_some();
        assert_eq!(
            known,
            setting.key.default.is_some(),
            "{}",
            setting.key.path()
        );
    }
}

#[test]
fn a_slip_in_a_variables_name_is_told() {
    let check = |name: &str| config::known([name.into()]).map_err(|error| error.to_string());
    let said = "INFERSCOPE_RIGN: no such setting; did you mean INFERSCOPE_RING?";
    assert_eq!(check("INFERSCOPE_RIGN"), Err(said.to_owned()));
    for fine in [
        "INFERSCOPE_RING",
        "INFERSCOPE_SPOOL",
        "INFERSCOPE_DASHBOARD_URL",
        "RIGN",
    ] {
        assert_eq!(check(fine), Ok(()));
    }
}

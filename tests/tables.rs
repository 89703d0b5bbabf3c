//! What others make of our files: DuckDB and Polars of a trace, JSON Schema of an analysis, and the documents' examples.

mod common;

use common::{libraries, repository};
use inferscope::analyze::{Analysis, Rules};
use inferscope_spool::record::{Record, Text};
use std::fs;
use std::path::Path;
use std::process::Command;

const PROGRAM: &str = r#"
import asyncio, json, threading
from inferscope import scope

def leaf(n):
    return json.dumps(list(range(n)))

def recurse(n):
    leaf(n)
    return recurse(n - 1) if n else 0

async def request(n):
    with scope("request", n=n):
        await asyncio.sleep(0.001)
        leaf(50)

async def serve():
    await asyncio.gather(*(request(n) for n in range(8)))

threads = [threading.Thread(target=recurse, args=(9,)) for _ in range(3)]
[thread.start() for thread in threads]
asyncio.run(serve())
[thread.join() for thread in threads]
"#;

fn run(program: &str, folder: &Path, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(args)
        .env("INFERSCOPE_BUDGET", "none") // an estimate is in no row of the table
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    output.stdout
}

#[test]
fn duckdb_and_polars_open_a_trace_and_agree_with_the_analysis() {
    libraries();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("app.py"), PROGRAM).unwrap();
    run(
        env!("CARGO_BIN_EXE_isc-record"),
        at,
        &["-o", "trace.parquet", "app.py"],
    );
    run(
        env!("CARGO_BIN_EXE_isc-merge"),
        at,
        &["trace.parquet", "-o", "merged.parquet"],
    );
    run(
        env!("CARGO_BIN_EXE_isc-analyze"),
        at,
        &["merged.parquet", "-o", "analysis.json"],
    );
    run(
        env!("CARGO_BIN_EXE_isc-convert"),
        at,
        &["merged.parquet", "-o", "merged.arrow"],
    );

    let venv = repository("scripts/venv.sh");
    let packages = ["python3", "tables", "duckdb", "polars", "jsonschema"];
    let python = String::from_utf8(run(venv.to_str().unwrap(), at, &packages)).unwrap();
    let script = repository("tests/python/tables.py");
    let (sql, schema) = (
        repository("docs/sql.md"),
        repository("formats/analysis-v1.schema.json"),
    );
    let args = [&script, &sql, &schema].map(|path| path.to_str().unwrap().to_owned());
    let said = run(python.trim(), at, &args.each_ref().map(String::as_str));
    let said = String::from_utf8(said).unwrap();
    assert!(said.ends_with("all agree\n"), "{said}");
}

/// The first block of this language in a document.
fn block(document: &str, language: &str) -> String {
    let text = fs::read_to_string(repository(document)).unwrap();
    let start = format!("```{language}\n");
    let (_, after) = text.split_once(&start).unwrap();
    after.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_spool_s_example_is_what_the_code_reads() {
    let mut bytes = Vec::new();
    for line in block("formats/spool-v1.md", "hex").lines() {
        let words = line.split_whitespace().take(16);
        bytes.extend(words.map(|word| u8::from_str_radix(word, 16).unwrap()));
    }
    let mut records = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (record, len) = Record::decode(rest).unwrap();
        records.push(record);
        rest = &rest[len..];
    }
    let define = Text::Define {
        id: 1,
        line: 3,
        name: "f",
        file: "a.py",
    };
    let expected = [
        Record::Text(define),
        Record::Begin {
            time: 5,
            id: 1,
            flags: 0,
            flow: 0,
        },
        Record::End {
            time: 7,
            id: 1,
            flags: 0,
        },
    ];
    assert_eq!(records, expected);
    let words: Vec<u8> = define
        .encode()
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    assert_eq!(words, bytes[..32], "and what it writes");
}

#[test]
fn the_analysis_s_example_is_an_analysis_and_the_rule_s_is_a_rule() {
    let example = block("formats/analysis-v1.md", "json");
    let analysis: Analysis = serde_json::from_str(&example).unwrap();
    let again: serde_json::Value = serde_json::to_value(&analysis).unwrap();
    let plain: serde_json::Value = serde_json::from_str(&example).unwrap();
    assert_eq!(
        again, plain,
        "no key is missing in the document, and none is unknown to the code"
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours.yaml");
    fs::write(&path, block("formats/rules-v1.md", "yaml")).unwrap();
    let mut rules = Rules::built_in().unwrap();
    rules.read(&path).unwrap();
    assert!(rules.condition("slow-tokenizer").is_ok());
}

#[test]
fn facts_are_defined_where_they_are_listed() {
    let text = fs::read_to_string(repository("formats/facts-v1.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    let names = rows.filter_map(|row| Some(row.split_once(" | ")?.0));
    let defined: Vec<&str> = names.filter(|name| name.contains('.')).collect();
    assert_eq!(defined, inferscope::analyze::rules::FACTS);
    let schema = fs::read(repository("formats/analysis-v1.schema.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&schema).unwrap();
    let listed = &schema["properties"]["facts"]["propertyNames"]["enum"];
    let listed = listed.as_array().unwrap().iter();
    let listed: Vec<&str> = listed.map(|name| name.as_str().unwrap()).collect();
    assert_eq!(listed, inferscope::analyze::rules::FACTS);
}

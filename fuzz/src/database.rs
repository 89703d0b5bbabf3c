//! Databases of Nsight Systems and rocprofv3, with tables, columns and cells changed by a fuzzer.

use crate::import;
use crate::script::Script;
use rusqlite::Connection;
use rusqlite::types::Value;
use std::path::Path;

/// Whole databases, of which the changed ones are made.
const WHOLE: [&[u8]; 3] = [
    include_bytes!("../databases/nsys"),
    include_bytes!("../databases/rocpd"),
    include_bytes!("../databases/rocpd-two"),
];
/// Most changes of one run.
const CHANGES: usize = 16;

/// Reads `data` as a database, if it is one; else changes one as it says.
pub fn run(data: &[u8]) {
    if data.starts_with(b"SQLite format 3\0") {
        return import::run(data);
    }
    let mut script = Script(data);
    let folder = import::folder();
    let path = folder.path().join("input");
    let whole = WHOLE[usize::from(script.byte()) % WHOLE.len()];
    std::fs::write(&path, whole).expect("a temporary file can be written");
    change(&path, &mut script).expect("a whole database opens");
    import::take(&path);
}

/// Makes changes; those that the database refuses are none.
fn change(path: &Path, script: &mut Script<'_>) -> rusqlite::Result<()> {
    let db = Connection::open(path)?;
    db.execute_batch("PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF; BEGIN")?;
    for _ in 0..CHANGES {
        if script.is_over() {
            break;
        }
        let tables = names(
            &db,
            "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid",
        )?;
        let Some(table) = pick(&tables, script.byte()) else {
            break;
        };
        let columns = names(
            &db,
            &format!("SELECT name FROM pragma_table_info('{table}')"),
        )?;
        let Some(column) = pick(&columns, script.byte()) else {
            continue;
        };
        let what = script.byte();
        let row = script.byte() % 8;
        let place = format!("rowid = (SELECT rowid FROM \"{table}\" LIMIT 1 OFFSET {row})");
        let statement = match what % 16 {
            0 => format!("DROP TABLE \"{table}\""),
            1 => format!("ALTER TABLE \"{table}\" DROP COLUMN \"{column}\""),
            2 => format!("ALTER TABLE \"{table}\" RENAME COLUMN \"{column}\" TO c{row}"),
            3 => format!("DELETE FROM \"{table}\" WHERE {place}"),
            4 => format!("INSERT INTO \"{table}\" SELECT * FROM \"{table}\" WHERE {place}"),
            5 => format!("ALTER TABLE \"{table}\" RENAME TO t{row}"),
            _ => {
                let set =
                    format!("UPDATE OR IGNORE \"{table}\" SET \"{column}\" = ?1 WHERE {place}");
                let _ = db.execute(&set, [value(script)]);
                continue;
            }
        };
        let _ = db.execute(&statement, []);
    }
    db.execute_batch("COMMIT")
}

fn names(db: &Connection, query: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = db.prepare(query)?;
    statement.query_map([], |row| row.get(0))?.collect()
}

fn pick(names: &[String], by: u8) -> Option<&String> {
    names.get(usize::from(by) % names.len().max(1))
}

/// A cell of any type.
fn value(script: &mut Script<'_>) -> Value {
    match script.byte() % 6 {
        0 => Value::Null,
        1 => Value::Real(f64::from_bits(script.number())),
        2 => Value::Text(String::from_utf8_lossy(script.bytes(64)).into_owned()),
        3 => Value::Blob(script.bytes(64).to_vec()),
        _ => Value::Integer(script.number() as i64),
    }
}

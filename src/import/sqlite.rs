//! SQLite databases of other profilers, read table by table and cell by cell; nothing is ever written to one.
//!
//! Such a file is input: its tables may be another version's, a cell may hold any type, pages may be damaged. So only
//! plain tables are read (a view is a program), columns by name, and rows by rowid, which has to rise: a damaged page that
//! stands in a tree twice would make rows without end. Rows come in batches; no table is ever in memory.

mod lives; // whose rows they are, and the tables one after the other
mod rows; // one table's rows, in batches; one row's cells

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use super::blocks::{Packing, unpack};
use crate::error::{Error, Result};
use crate::trace::{Names, Sym};
pub(super) use lives::{Clock, Format, Lives, MapRow, Reader, Step};
pub(super) use rows::{Cells, Table, To};

/// Bytes that a cell or row may have. Names of C++ kernels reach some KiB.
const MOST_CELL: i32 = 64 << 20;

/// Bytes of memory that SQLite may use in this process, its cache included.
const HEAP: i64 = 256 << 20;

/// Bytes of pages that are kept; rocpd's fourth version has each time in a table apart.
const CACHE: i64 = 64 << 20;

/// Strings whose symbols are kept.
const MOST_STRINGS: usize = 1 << 20;

/// What is wrong with a row.
pub(super) type Mapped<T = ()> = std::result::Result<T, String>;

/// An open database.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    path: PathBuf,
    /// Columns of each plain table.
    tables: BTreeMap<String, Vec<String>>,
    hash: Hash,
}

#[derive(Debug)]
enum Hash {
    Known(String),
    Running(JoinHandle<io::Result<String>>),
    Lost,
}

impl Database {
    /// Opens the database in `file`, before which `head` was taken from it. What is packed, or comes out of a pipe, goes to a
    /// temporary file first: SQLite reads out of order.
    ///
    /// # Errors
    /// What the system refuses; a schema that cannot be read.
    pub fn open(head: Vec<u8>, mut file: File, seekable: bool, path: &Path) -> Result<Database> {
        let packing = Packing::of(&head);
        let (connection, hash) = if seekable && packing == Packing::None {
            let connection = connect(&file);
            file.rewind().map_err(Error::io("read", path))?;
            // Hashing takes about as long as reading rows does, so the two go side by side.
            let thread = std::thread::Builder::new().name("isc-hash".into());
            let thread = thread.spawn(move || {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(file)?;
                Ok(hasher.finalize().to_hex().to_string())
            });
            let thread = thread.map_err(Error::io("read", path))?;
            (connection, Hash::Running(thread))
        } else {
            let (plain, hash) = unpack(head, file, packing, path)?;
            // SQLite follows links to a name, so the file has one until it is open.
            (connect(plain.as_file()), Hash::Known(hash))
        };
        let wrong = |error: rusqlite::Error| Error::Corrupt {
            path: path.to_owned(),
            place: "in its schema".into(),
            what: words(&error),
        };
        let connection = connection.map_err(wrong)?;
        let tables = tables(&connection).map_err(wrong)?;
        Ok(Database {
            connection,
            path: path.to_owned(),
            tables,
            hash,
        })
    }

    /// Names of the plain tables.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// Whether there is such a table with this column.
    pub fn has(&self, table: &str, column: &str) -> bool {
        let columns = self.tables.get(table);
        columns.is_some_and(|columns| columns.iter().any(|c| c.eq_ignore_ascii_case(column)))
    }

    /// Whether there is such a table.
    pub fn has_table(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// blake3 of the file as it was given, in hexadecimal.
    pub fn hash(&mut self) -> Option<String> {
        self.hash = match std::mem::replace(&mut self.hash, Hash::Lost) {
            Hash::Running(thread) => match thread.join() {
                Ok(Ok(hash)) => Hash::Known(hash),
                _ => Hash::Lost,
            },
            hash => hash,
        };
        match &self.hash {
            Hash::Known(hash) => Some(hash.clone()),
            _ => None,
        }
    }

    /// The first row of a query about one id.
    pub(super) fn find<T>(
        &self,
        query: &str,
        id: i64,
        take: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Mapped<Option<T>> {
        let found = self.connection.prepare_cached(query);
        let found = found.and_then(|mut query| query.query_row([id], take).optional());
        found.map_err(|error| words(&error))
    }
}

/// Opens what a descriptor is of, for reading only, and with bounds.
fn connect(file: &File) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // immutable: no locks, and neither journal nor log is looked for beside the file
    let name = format!(
        "file:/proc/self/fd/{}?immutable=1&mode=ro",
        file.as_raw_fd()
    );
    let connection = Connection::open_with_flags(name, flags)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MOST_CELL)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.execute_batch(&format!(
        "PRAGMA cell_size_check = 1; PRAGMA hard_heap_limit = {HEAP}; PRAGMA cache_size = -{};",
        CACHE >> 10
    ))?;
    Ok(connection)
}

/// Tables with pages of their own, and their columns.
fn tables(connection: &Connection) -> rusqlite::Result<BTreeMap<String, Vec<String>>> {
    let list = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0";
    let mut list = connection.prepare(list)?;
    let names = list.query_map([], |row| row.get::<_, String>(0))?;
    let mut columns = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    let mut tables = BTreeMap::new();
    for name in names {
        let name = name?;
        let found = columns.query_map([&name], |row| row.get::<_, String>(0))?;
        let found = found.collect::<rusqlite::Result<_>>()?;
        tables.insert(name, found);
    }
    Ok(tables)
}

/// SQLite's words for an error, without its SQL.
fn words(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(code, _) => {
            rusqlite::ffi::code_to_str(code.extended_code).into()
        }
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

/// A name in SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Symbols of the strings of one table. Only those that rows refer to are ever read.
#[derive(Debug, Default)]
pub(super) struct Strings {
    /// Asks for the text of one id; empty if there is no table.
    query: String,
    known: HashMap<i64, Option<Sym>>,
    of: u64,
}

impl Strings {
    pub fn new(db: &Database, table: &str, column: &str) -> Strings {
        let query = match db.has(table, "id") && db.has(table, column) {
            true => format!("SELECT \"{column}\" FROM {} WHERE id = ?1", quoted(table)),
            false => String::new(),
        };
        Strings {
            query,
            ..Strings::default()
        }
    }

    /// The symbol of a string; none if there is no such string.
    pub fn sym(&mut self, db: &Database, id: i64, names: &mut Names) -> Mapped<Option<Sym>> {
        if self.query.is_empty() {
            return Ok(None);
        }
        if self.of != names.id() || self.known.len() >= MOST_STRINGS {
            self.known.clear();
            self.of = names.id();
        }
        if let Some(&sym) = self.known.get(&id) {
            return Ok(sym);
        }
        let text = db.find(&self.query, id, |row| {
            Ok(match row.get_ref(0)? {
                ValueRef::Text(bytes) => Some(names.sym(&String::from_utf8_lossy(bytes))),
                _ => None,
            })
        });
        let sym = text
            .map_err(|what| format!("string {id}: {what}"))?
            .flatten();
        self.known.insert(id, sym);
        Ok(sym)
    }
}

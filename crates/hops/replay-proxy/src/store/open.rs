//! Opens a store.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use super::{
    files::Files,
    journal::{self, JournalError},
    rows::{self, Digest, Row, SCHEMA},
};
use crate::redact::HashKey;

/// A store that is open. No other process can open it meanwhile.
#[derive(Debug)]
pub struct Store {
    /// The long bodies.
    pub files: Files,
    /// The key of the store's hashes.
    pub secret: HashKey,
    /// The number after the last row's.
    pub next_id: u64,
    /// The number that the next journal has.
    pub(crate) next_journal: u64,
    /// Files and rows that were half-written and are dropped.
    pub dropped: usize,
    /// Rows that can't be used, and why.
    pub refused: Vec<String>,
    pub(crate) database: Connection,
    /// Whether a commit waits for the disk.
    pub(crate) is_synced: bool,
    pub(crate) path: PathBuf,
    /// How many rows have each file.
    pub(crate) uses: HashMap<Digest, u32>,
    lock: File,
}

/// The events that the store must survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// A loss of power: everything is synced to the disk.
    Power,
    /// The end of the process, `kill -9` included.
    #[default]
    Process,
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database is damaged or something else.
    #[error("store '{path}': '{file}' is no database that can be read: {error}")]
    Damaged {
        /// The store.
        path: PathBuf,
        /// The file in it.
        file: &'static str,
        /// The reason, in SQLite's words.
        error: rusqlite::Error,
    },
    /// The directory can't be used.
    #[error("store '{path}': {error}")]
    Io {
        /// The store.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Rows that a killed process left can't be brought into the database.
    #[error("store '{path}': its journal could not be read: {error}")]
    Journal {
        /// The store.
        path: PathBuf,
        /// Why not.
        error: JournalError,
    },
    /// Another process has it.
    #[error("store '{0}' is in use by another process")]
    Locked(PathBuf),
    /// There is no store.
    #[error("there is no store at '{0}'")]
    Missing(PathBuf),
    /// Another version of this program has made it.
    #[error("store '{path}' has version {found}: expected {VERSION}")]
    Version {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
}

/// Version of the store's layout. Version 1 had no journal, and is otherwise the same.
const VERSION: i64 = 2;
const VERSION_WITHOUT_JOURNAL: i64 = 1;

/// Marks the database as one of this program: "rply".
const APPLICATION: i64 = 0x7270_6c79;

const DATABASE: &str = "answers.sqlite";

impl Store {
    /// Checks that there is a store.
    ///
    /// # Errors
    /// If there is none.
    pub fn must_be(path: &Path) -> Result<(), StoreError> {
        match path.join(DATABASE).exists() {
            true => Ok(()),
            false => Err(StoreError::Missing(path.to_owned())),
        }
    }

    /// Opens a store for writing, and makes one if there is none.
    ///
    /// # Errors
    /// If another process has it, or it has another version, or can't be read or written.
    pub fn open(path: &Path, durability: Durability) -> Result<Self, StoreError> {
        let io_error = |error| StoreError::Io {
            path: path.to_owned(),
            error,
        };
        // Nobody else shall read what may be secret.
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(path).map_err(io_error)?;
        let lock = File::create(path.join("lock")).map_err(io_error)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StoreError::Locked(path.to_owned()));
        }
        let is_synced = durability == Durability::Power;
        let files = Files::open(path, is_synced).map_err(io_error)?;
        let damaged = |error| StoreError::Damaged {
            path: path.to_owned(),
            file: DATABASE,
            error,
        };
        let database = Connection::open(path.join(DATABASE)).map_err(damaged)?;
        prepare(&database, is_synced).map_err(damaged)?;
        let found = version(&database).map_err(damaged)?;
        match found {
            Some(VERSION) => {}
            Some(VERSION_WITHOUT_JOURNAL) => database
                .pragma_update(None, "user_version", VERSION)
                .map_err(damaged)?,
            Some(found) => {
                return Err(StoreError::Version {
                    path: path.to_owned(),
                    found,
                });
            }
            None => {
                // A directory that was there before may be open to all.
                let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                fs::set_permissions(path, owner_only).map_err(io_error)?;
                create(&database).map_err(damaged)?;
            }
        }
        let mut store = Self {
            secret: secret(&database).map_err(damaged)?,
            dropped: files.drop_unfinished().map_err(io_error)?,
            files,
            next_id: 1,
            next_journal: 1,
            refused: Vec::new(),
            database,
            is_synced,
            path: path.to_owned(),
            uses: HashMap::new(),
            lock,
        };
        store.recover()?;
        store.look();
        store.drop_orphans().map_err(io_error)?;
        Ok(store)
    }

    /// Brings into the database what a process that was killed had in its journal.
    fn recover(&mut self) -> Result<(), StoreError> {
        let recovered = journal::recover(&self.path, &self.database);
        let recovered = recovered.map_err(|error| StoreError::Journal {
            path: self.path.clone(),
            error,
        })?;
        self.next_journal = recovered.next;
        self.dropped += recovered.dropped;
        self.refused = recovered.refused;
        Ok(())
    }

    /// Finds out which rows can be read, and which files they need.
    fn look(&mut self) {
        let (mut uses, mut next_id) = (HashMap::new(), 1);
        let refused = each_row(&self.database, None, |row| {
            next_id = next_id.max(row.id + 1);
            for digest in files_of(&row) {
                *uses.entry(digest).or_insert(0) += 1;
            }
        });
        // What can't be read keeps its number, so that it isn't overwritten.
        let last = "SELECT coalesce(max(id), 0) FROM answers";
        let last = self
            .database
            .query_row(last, [], |row| row.get::<_, i64>(0));
        let last = last
            .ok()
            .and_then(|last| u64::try_from(last).ok())
            .unwrap_or(0);
        self.next_id = next_id.max(last + 1);
        self.refused.extend(refused);
        self.uses = uses;
    }

    /// Deletes files that no row has: the process ended between the file and its row.
    fn drop_orphans(&mut self) -> io::Result<()> {
        if !self.refused.is_empty() {
            // A row that can't be read may need any of them.
            return Ok(());
        }
        let mut orphans = Vec::new();
        self.files.each(|digest| {
            if !self.uses.contains_key(&digest) {
                orphans.push(digest);
            }
        })?;
        self.dropped += orphans.len();
        orphans
            .iter()
            .try_for_each(|digest| self.files.remove(digest))
    }

    /// Returns the number of a session, which is made if there is none of this name.
    ///
    /// # Errors
    /// If the database can't be written.
    pub fn session(&self, name: &str) -> rusqlite::Result<i64> {
        let make = "INSERT OR IGNORE INTO sessions (name, created_ms) VALUES (?1, ?2)";
        self.database
            .execute(make, (name, crate::clock::now_ms()))?;
        let find = "SELECT id FROM sessions WHERE name = ?1";
        self.database.query_row(find, [name], |row| row.get(0))
    }

    /// Returns the names of all sessions, with their numbers and the numbers of their recordings.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn sessions(&self) -> rusqlite::Result<Vec<(String, i64, u64)>> {
        let query = "SELECT name, sessions.id, count(answers.id) FROM sessions \
            LEFT JOIN answers ON answers.session = sessions.id AND answers.kind = 0 \
            GROUP BY sessions.id ORDER BY name";
        let mut statement = self.database.prepare(query)?;
        let rows = statement.query_map([], |row| {
            let count: i64 = row.get(2)?;
            Ok((row.get(0)?, row.get(1)?, count.unsigned_abs()))
        })?;
        rows.collect()
    }

    /// Calls `each` for every row that can be read. Returns the others, and why.
    pub fn each(&self, session: Option<i64>, each: impl FnMut(Row)) -> Vec<String> {
        each_row(&self.database, session, each)
    }

    /// Opens a second connection, for reading.
    ///
    /// # Errors
    /// If the database can't be opened.
    pub fn second(&self) -> rusqlite::Result<Connection> {
        reading(&self.path)
    }

    /// Opens a store that must be there.
    ///
    /// # Errors
    /// If there is none, or as [`Self::open`] does.
    pub fn open_old(path: &Path, durability: Durability) -> Result<Self, StoreError> {
        match path.join(DATABASE).exists() {
            true => Self::open(path, durability),
            false => Err(StoreError::Missing(path.to_owned())),
        }
    }

    /// Gives the lock to whoever keeps the store open.
    pub(crate) fn into_parts(self) -> (Connection, HashMap<Digest, u32>, File) {
        (self.database, self.uses, self.lock)
    }
}

/// Returns the files that a row needs.
pub(crate) fn files_of(row: &Row) -> impl Iterator<Item = Digest> {
    let request = (row.request_body == rows::BodyPlace::File).then_some(row.request_digest);
    let answer = (row.body == rows::BodyPlace::File).then_some(row.digest);
    request.into_iter().chain(answer)
}

/// Calls `each` for every row that can be read. Returns the others, and why.
pub(crate) fn each_row(
    database: &Connection,
    session: Option<i64>,
    mut each: impl FnMut(Row),
) -> Vec<String> {
    let mut refused = Vec::new();
    let mut last = 0_i64;
    // A damaged page ends a query, so that the rows behind it are asked for from the other end.
    for order in ["ASC", "DESC"] {
        let above = last;
        let query = format!(
            "SELECT {} FROM answers WHERE id > ?1 AND (?2 IS NULL OR session = ?2) \
             ORDER BY id {order}",
            rows::COLUMNS
        );
        let mut scan = || -> rusqlite::Result<()> {
            let mut statement = database.prepare(&query)?;
            let mut found = statement.query((above, session))?;
            while let Some(row) = found.next()? {
                let id: i64 = row.get(0)?;
                last = last.max(id);
                match rows::read(row) {
                    Ok(row) => each(row),
                    Err(error) => refused.push(format!("row {id}: {error}")),
                }
            }
            Ok(())
        };
        match scan() {
            Ok(()) => break,
            Err(error) => refused.push(format!("rows after {last}: {error}")),
        }
    }
    refused
}

/// Opens a connection to a store's database, for reading.
///
/// # Errors
/// If the database can't be opened.
pub(crate) fn reading(store: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(store.join(DATABASE), flags)
}

fn prepare(database: &Connection, is_synced: bool) -> rusqlite::Result<()> {
    // A new database has these pages: a recording of two kilobytes would leave half of a smaller
    // one empty, and each page takes a call of the system, and others to leave the log.
    database.pragma_update(None, "page_size", 8_192)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    // What was written to the log is in the kernel's memory, which survives the process.
    let synchronous = if is_synced { "FULL" } else { "OFF" };
    database.pragma_update(None, "synchronous", synchronous)?;
    database.pragma_update(None, "wal_autocheckpoint", 2_000)?;
    database.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Returns the version; `None` if the database is new.
fn version(database: &Connection) -> rusqlite::Result<Option<i64>> {
    let tables = "SELECT count(*) FROM sqlite_master";
    let tables: i64 = database.query_row(tables, [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(None);
    }
    let application: i64 = database.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(Some(if application == APPLICATION {
        version
    } else {
        -1
    }))
}

fn create(database: &Connection) -> rusqlite::Result<()> {
    let mut secret = HashKey::default();
    // The operating system's generator; fastrand's would be guessable.
    let random = File::open("/dev/urandom")
        .and_then(|mut file| io::Read::read_exact(&mut file, &mut secret));
    random.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    database.execute_batch(&format!("BEGIN; {SCHEMA}"))?;
    database.execute(
        "INSERT INTO meta VALUES ('secret', ?1)",
        [secret.as_slice()],
    )?;
    database.pragma_update(None, "application_id", APPLICATION)?;
    database.pragma_update(None, "user_version", VERSION)?;
    database.execute_batch("COMMIT")
}

fn secret(database: &Connection) -> rusqlite::Result<HashKey> {
    let query = "SELECT value FROM meta WHERE name = 'secret'";
    database.query_row(query, [], |row| row.get(0))
}

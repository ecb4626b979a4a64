//! A thread that reads what isn't in memory.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::oneshot;

use super::{
    files::Files,
    rows::{self, BodyPlace, Row, RowError},
};
use crate::stored::Stored;

/// Reads answers on a thread of its own, which ends once the last of these is gone.
#[derive(Clone, Debug)]
pub struct Reader {
    work: Sender<Work>,
}

type Work = (u64, oneshot::Sender<Result<Loaded, LoadError>>);

/// An answer that was read.
#[derive(Debug)]
pub struct Loaded {
    /// The answer.
    pub stored: Stored,
    /// Whether its body is in a mapped file.
    pub is_mapped: bool,
}

/// Why an answer can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its body can't be read.
    #[error("its body can't be used: {0}")]
    Body(#[from] io::Error),
    /// The digest of its body is another.
    #[error("its body isn't what its digest says")]
    Digest,
    /// It was deleted.
    #[error("it is gone")]
    Gone,
    /// It can't be brought into the database.
    #[error("it could not be brought into the database: {0}")]
    Unwritten(Arc<str>),
    /// Its row can't be used.
    #[error(transparent)]
    Row(#[from] RowError),
}

impl Reader {
    /// Starts the reading thread.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(database: Connection, files: Files) -> io::Result<Self> {
        let (work, arriving) = mpsc::channel();
        let named = thread::Builder::new().name("store-reader".to_owned());
        named.spawn(move || run(&arriving, &database, &files))?;
        Ok(Self { work })
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// If it can't be read, or isn't what its digest says.
    pub async fn load(&self, id: u64) -> Result<Loaded, LoadError> {
        let (reply, loaded) = oneshot::channel();
        // The thread ends only with the process.
        self.work.send((id, reply)).ok();
        loaded.await.unwrap_or(Err(LoadError::Gone))
    }
}

fn run(arriving: &Receiver<Work>, database: &Connection, files: &Files) {
    while let Ok((id, reply)) = arriving.recv() {
        // Whoever asked may be gone.
        reply.send(load(database, files, id)).ok();
    }
}

fn load(database: &Connection, files: &Files, id: u64) -> Result<Loaded, LoadError> {
    let row = row(database, id)?.ok_or(LoadError::Gone)?;
    loaded(row, files)
}

/// Reads a row.
pub(crate) fn row(database: &Connection, id: u64) -> Result<Option<Row>, RowError> {
    let query = format!("SELECT {} FROM answers WHERE id = ?1", rows::COLUMNS);
    let mut statement = database.prepare_cached(&query)?;
    let id = i64::try_from(id).unwrap_or(i64::MAX);
    let row = statement
        .query_row([id], |row| Ok(rows::read(row)))
        .optional()?;
    row.transpose()
}

/// Makes an answer of a row, with its body.
///
/// # Errors
/// If the body can't be read, or isn't what its digest says.
pub(crate) fn loaded(row: Row, files: &Files) -> Result<Loaded, LoadError> {
    let is_mapped = row.body == BodyPlace::File;
    let body = body(&row.body, &row.digest, files)?;
    let mut stored = Stored::new(row.head, row.framing, body);
    stored.trailers = row.trailers;
    stored.timing = row.timing;
    Ok(Loaded { stored, is_mapped })
}

/// Reads a body and checks its digest.
///
/// # Errors
/// If it can't be read, or isn't what its digest says.
pub(crate) fn body(
    place: &BodyPlace,
    digest: &rows::Digest,
    files: &Files,
) -> Result<Bytes, LoadError> {
    match place {
        BodyPlace::File => Ok(files.read(digest)?),
        BodyPlace::Row(bytes) if blake3::hash(bytes).as_bytes() == digest => Ok(bytes.clone()),
        BodyPlace::Row(_) => Err(LoadError::Digest),
    }
}

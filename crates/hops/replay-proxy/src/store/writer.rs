//! Writes in groups. A thread does most of it: while it commits, the next group gathers. Where
//! nothing has to wait for a disk, those who record commit what has gathered themselves, which
//! saves waking two threads for each answer.

use std::{
    collections::HashMap,
    fs::File,
    io, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, ThreadId},
};

use bytes::Bytes;
use rusqlite::Connection;

use crate::head::Head;

use super::{
    files::{Files, Unfinished},
    open::{Store, files_of},
    rows::{self, Digest, Row},
};

/// Writes, or sends work to the writing thread.
#[derive(Clone, Debug)]
pub struct Writer {
    work: Sender<Work>,
    shared: Arc<Gathering>,
    is_synced: bool,
}

/// A store that the thread shares with those who commit themselves.
#[derive(Debug)]
struct Gathering {
    /// `None` once it is closed.
    store: tokio::sync::Mutex<Option<Open>>,
    /// By the thread that commits it: to wake others costs more than it saves.
    groups: Mutex<HashMap<ThreadId, Group>>,
}

/// Work that a thread has gathered.
#[derive(Debug, Default)]
struct Group {
    work: Vec<Work>,
    /// Whether a task is about to commit it.
    is_awaited: bool,
}

/// A long body that has yet to get its name.
#[derive(Debug)]
pub enum NewFile {
    /// Pieces in memory.
    Memory(Vec<Bytes>),
    /// A file that is complete.
    Written(Unfinished),
}

/// The number of a row, its new head, and when that was asked for and received.
pub type Freshened = (u64, Head, i64, i64);

/// Is called once the work is committed, or has failed.
pub type Done = Box<dyn FnOnce(Result<(), Arc<str>>) + Send>;

enum Work {
    Put(Box<Row>, Vec<(Digest, NewFile)>, Done),
    /// A new head of a row, and its times.
    Freshen(Freshened, Done),
    /// Rows with these numbers.
    Delete(Vec<u64>, Done),
    /// Everything before it, and then no more.
    Close(Done),
    /// Everything before it.
    Flush(Done),
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}

/// Most work in one commit. A larger group would save little, and delay those who wait.
const GROUP_MAX: usize = 256;

#[derive(Debug)]
struct Open {
    database: Connection,
    files: Files,
    uses: HashMap<Digest, u32>,
    /// The largest number of a row so far.
    last_id: u64,
    _lock: File,
}

impl Writer {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(store: Store) -> io::Result<Self> {
        let (work, arriving) = mpsc::channel();
        let (files, last_id) = (store.files.clone(), store.next_id.saturating_sub(1));
        let is_synced = store.is_synced;
        let (database, uses, lock) = store.into_parts();
        let open = Open {
            database,
            files,
            uses,
            last_id,
            _lock: lock,
        };
        let shared = Arc::new(Gathering {
            store: tokio::sync::Mutex::new(Some(open)),
            groups: Mutex::default(),
        });
        let gathering = Arc::clone(&shared);
        let named = thread::Builder::new().name("store-writer".to_owned());
        named.spawn(move || gathering.run(&arriving))?;
        Ok(Self {
            work,
            shared,
            is_synced,
        })
    }

    /// Returns whether a commit waits for the disk. Then it is for the writing thread.
    pub fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Stores a row and the long bodies that it needs, on this thread, soon: together with what
    /// else comes until the store is free. Needs a tokio runtime, which has a task for it.
    pub fn put_here(&self, row: Box<Row>, files: Vec<(Digest, NewFile)>, done: Done) {
        let thread = thread::current().id();
        let mut groups = locked(&self.shared.groups);
        let group = groups.entry(thread).or_default();
        group.work.push(Work::Put(row, files, done));
        if !mem::replace(&mut group.is_awaited, true) {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                // Answers that are just arriving join the group.
                tokio::task::yield_now().await;
                let mut store = shared.store.lock().await;
                let group = locked(&shared.groups).remove(&thread);
                commit(&mut store, &mut group.unwrap_or_default().work);
            });
        }
    }

    /// Stores a row and the long bodies that it needs.
    pub fn put(&self, row: Box<Row>, files: Vec<(Digest, NewFile)>, done: Done) {
        self.send(Work::Put(row, files, done));
    }

    /// Replaces the head of a row, which the upstream has confirmed.
    pub fn freshen(&self, row: Freshened) {
        self.send(Work::Freshen(row, Box::new(|_| {})));
    }

    /// Deletes rows, and the files that no other row has.
    pub fn delete(&self, ids: Vec<u64>, done: Done) {
        self.send(Work::Delete(ids, done));
    }

    /// Closes the store once everything so far is committed. Later work fails.
    pub fn close(&self, done: Done) {
        self.send(Work::Close(done));
    }

    /// Calls `done` once everything so far is committed.
    pub fn flush(&self, done: Done) {
        self.send(Work::Flush(done));
    }

    fn send(&self, work: Work) {
        if let Err(failed) = self.work.send(work) {
            // The thread panicked.
            failed.0.done()(Err(ENDED.into()));
        }
    }
}

impl Work {
    fn done(self) -> Done {
        match self {
            Self::Put(_, _, done)
            | Self::Close(done)
            | Self::Delete(_, done)
            | Self::Freshen(_, done)
            | Self::Flush(done) => done,
        }
    }
}

impl Gathering {
    fn run(&self, arriving: &Receiver<Work>) {
        let mut group = Vec::new();
        let mut closed = None;
        while closed.is_none()
            && let Ok(first) = arriving.recv()
        {
            group.push(first);
            group.extend(arriving.try_iter().take(GROUP_MAX - 1));
            if let Some(at) = group.iter().position(|work| matches!(work, Work::Close(_))) {
                closed = Some(group.swap_remove(at));
            }
            commit(&mut self.store.blocking_lock(), &mut group);
        }
        let mut store = self.store.blocking_lock();
        let gathered = mem::take(&mut *locked(&self.groups));
        for mut group in gathered.into_values() {
            commit(&mut store, &mut group.work);
        }
        if let Some(open) = store.take() {
            open.close();
        }
        drop(store);
        if let Some(work) = closed {
            work.done()(Ok(()));
        }
    }
}

fn commit(store: &mut Option<Open>, group: &mut Vec<Work>) {
    match store {
        Some(open) => open.commit(group),
        None => group.drain(..).for_each(|work| fail(work, ENDED)),
    }
}

/// Locks, whether or not another thread panicked.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const ENDED: &str = "the store's thread has ended";

impl Open {
    fn close(self) {
        // What is in the log belongs in the database, so that it is one file for whoever copies it.
        let empty = "PRAGMA wal_checkpoint(TRUNCATE)";
        if let Err(error) = self.database.query_row(empty, [], |_| Ok(())) {
            tracing::warn!("the store's log could not be emptied: {error}");
        }
    }

    fn commit(&mut self, group: &mut Vec<Work>) {
        let mut good = Vec::new();
        for mut work in group.drain(..) {
            // Files come before the rows that name them.
            match self.write_files(&mut work) {
                Ok(()) => good.push(work),
                Err(error) => fail(work, &error.to_string()),
            }
        }
        match self.transact(&good) {
            Ok(()) => good.into_iter().for_each(|work| work.done()(Ok(()))),
            // One may be to blame; the others shall not suffer.
            Err(_) if good.len() > 1 => {
                for work in good {
                    match self.transact(std::slice::from_ref(&work)) {
                        Ok(()) => work.done()(Ok(())),
                        Err(error) => fail(work, &error.to_string()),
                    }
                }
            }
            Err(error) => good
                .into_iter()
                .for_each(|work| fail(work, &error.to_string())),
        }
    }

    fn write_files(&self, work: &mut Work) -> io::Result<()> {
        let Work::Put(_, files, _) = work else {
            return Ok(());
        };
        for (digest, file) in files.drain(..) {
            if self.uses.contains_key(&digest) {
                continue;
            }
            let unfinished = match file {
                NewFile::Written(unfinished) => unfinished,
                NewFile::Memory(pieces) => {
                    let mut unfinished = self.files.begin()?;
                    for piece in &pieces {
                        unfinished.write(piece)?;
                    }
                    unfinished
                }
            };
            unfinished.finish(&digest)?;
        }
        Ok(())
    }

    /// Commits work. If that fails, nothing of it is done.
    fn transact(&mut self, group: &[Work]) -> rusqlite::Result<()> {
        let mut orphans = Vec::new();
        let mut uses = Vec::new();
        if !self.database.is_autocommit() {
            // A thread panicked in the middle.
            self.database.execute_batch("ROLLBACK")?;
        }
        // A statement that is prepared once costs less than rusqlite's transactions.
        self.database
            .prepare_cached("BEGIN IMMEDIATE")?
            .execute([])?;
        let done = self.write_rows(group, &mut uses, &mut orphans);
        let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = self.database.prepare_cached(end)?.execute([]);
        done?;
        if let Err(error) = ended {
            // A transaction that can't be committed is still open.
            self.database.execute_batch("ROLLBACK").ok();
            return Err(error);
        }
        for digest in uses {
            *self.uses.entry(digest).or_insert(0) += 1;
        }
        for digest in orphans {
            self.release(digest);
        }
        Ok(())
    }

    /// Writes work in a transaction. Notes the files that rows have now, and had before.
    fn write_rows(
        &mut self,
        group: &[Work],
        uses: &mut Vec<Digest>,
        orphans: &mut Vec<Digest>,
    ) -> rusqlite::Result<()> {
        let transaction = &self.database;
        for work in group {
            match work {
                Work::Put(row, _, _) => {
                    // Most rows are new. Numbers of several threads may come out of order.
                    if row.id <= self.last_id {
                        forget(transaction, row.id, orphans)?;
                    }
                    self.last_id = self.last_id.max(row.id);
                    rows::write(transaction, row)?;
                    uses.extend(files_of(row));
                }
                Work::Delete(ids, _) => {
                    for &id in ids {
                        forget(transaction, id, orphans)?;
                        let id = i64::try_from(id).unwrap_or(i64::MAX);
                        transaction
                            .prepare_cached("DELETE FROM answers WHERE id = ?1")?
                            .execute([id])?;
                    }
                }
                Work::Freshen((id, head, requested_ms, received_ms), _) => {
                    let query = "UPDATE answers SET head = ?2, requested_ms = ?3, \
                        received_ms = ?4 WHERE id = ?1";
                    let id = i64::try_from(*id).unwrap_or(i64::MAX);
                    let values = (id, &head.bytes()[..], requested_ms, received_ms);
                    transaction.prepare_cached(query)?.execute(values)?;
                }
                Work::Close(_) | Work::Flush(_) => {}
            }
        }
        Ok(())
    }

    /// Notes that a row no longer needs a file, and deletes the file if no other does.
    fn release(&mut self, digest: Digest) {
        let Some(uses) = self.uses.get_mut(&digest) else {
            return;
        };
        *uses -= 1;
        if *uses == 0 {
            self.uses.remove(&digest);
            if let Err(error) = self.files.remove(&digest) {
                tracing::warn!("a body could not be deleted: {error}");
            }
        }
    }
}

/// Notes the files of a row that is about to go.
fn forget(database: &Connection, id: u64, orphans: &mut Vec<Digest>) -> rusqlite::Result<()> {
    let query = "SELECT request_digest, request_body IS NULL AND request_bytes > 0, \
        digest, body IS NULL AND body_bytes > 0 FROM answers WHERE id = ?1";
    let mut statement = database.prepare_cached(query)?;
    let mut found = statement.query([i64::try_from(id).unwrap_or(i64::MAX)])?;
    while let Some(row) = found.next()? {
        for (digest, is_file) in [(0, 1), (2, 3)] {
            if row.get(is_file)?
                && let Some(digest) = row.get::<_, Option<Digest>>(digest)?
            {
                orphans.push(digest);
            }
        }
    }
    Ok(())
}

fn fail(work: Work, error: &str) {
    tracing::warn!("the store could not be written: {error}");
    work.done()(Err(error.into()));
}

//! Writes in groups. A thread does it: while it commits, the next group gathers. Where nothing has
//! to wait for a disk, those who record append to a journal, which is safe at once: what a thread
//! has at the same time with one call. The writing thread brings the journal's rows into the
//! database a little later, hundreds at a time.

use std::{
    fs::File,
    io, mem,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use rusqlite::Connection;
use tokio::sync::{Notify, oneshot};

use crate::head::Head;

use super::{
    gathering::{Gathering, Group, NewFile, Pending, locked},
    journal::{self, Journal, JournalError},
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
    /// The journal has rows.
    Look,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}

/// Most work in one commit. A larger group would save little, and delay those who wait.
const GROUP_MAX: usize = 256;

/// How long rows gather in the journal: at 20,000 answers per second, 200 of them, whose commit
/// takes a millisecond or two of the processor.
const GATHERING: Duration = Duration::from_millis(10);

/// How long to wait after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Open {
    database: Connection,
    shared: Arc<Gathering>,
    path: PathBuf,
    /// Entries on their way from the journal into the database.
    taken: Vec<Vec<u8>>,
    taken_bytes: usize,
    /// The place in the journal after these.
    taken_until: journal::Place,
    /// The first journal that wasn't deleted.
    oldest: u64,
    _lock: File,
}

impl Writer {
    /// Starts the writing thread.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(store: Store) -> io::Result<Self> {
        let (work, arriving) = mpsc::channel();
        let is_synced = store.is_synced;
        let first = store.next_journal;
        let (path, files) = (store.path.clone(), store.files.clone());
        let (database, uses, lock) = store.into_parts();
        let shared = Arc::new(Gathering {
            files,
            uses: Mutex::new(uses),
            groups: Mutex::default(),
            pending: Mutex::new(Pending {
                journal: Journal::new(&path, first),
                entries: Vec::new(),
                bytes: 0,
                is_awaited: false,
                failed: None,
                is_closed: false,
            }),
            room: Notify::new(),
        });
        let open = Open {
            database,
            shared: Arc::clone(&shared),
            path,
            taken: Vec::new(),
            taken_bytes: 0,
            taken_until: journal::Place::default(),
            oldest: first,
            _lock: lock,
        };
        let named = thread::Builder::new().name("store-writer".to_owned());
        named.spawn(move || open.run(&arriving))?;
        Ok(Self {
            work,
            shared,
            is_synced,
        })
    }

    /// Stores a row and the long bodies that it needs, calls `then`, and returns: a client may see
    /// the answer.
    ///
    /// # Errors
    /// If it can't be written. Then nothing of it is stored.
    pub async fn store(
        &self,
        row: Box<Row>,
        files: Vec<(Digest, NewFile)>,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<(), Arc<str>> {
        let (done_in, done) = oneshot::channel();
        let stored = |stored: Result<(), Arc<str>>| {
            if stored.is_ok() {
                then();
            }
            // Whoever waited may be gone.
            done_in.send(stored).ok();
        };
        if self.is_synced {
            self.put(row, files, Box::new(stored));
        } else {
            self.shared.has_room().await?;
            let noted = self.note(row, files, Box::new(stored));
            noted.map_err(|error| Arc::from(error.to_string()))?;
        }
        done.await.unwrap_or_else(|_| Err(ENDED.into()))
    }

    /// Has a row noted in the journal by this thread, soon. Needs a tokio runtime, which has a task
    /// for it.
    fn note(&self, row: Box<Row>, mut files: Vec<(Digest, NewFile)>, done: Done) -> io::Result<()> {
        // Files come before the rows that name them.
        self.shared.claim(&mut files)?;
        let thread = thread::current().id();
        let mut groups = locked(&self.shared.groups);
        let group = groups.entry(thread).or_default();
        if let Err(error) = journal::add_entry(&row.parts(), &mut group.entries) {
            drop(groups);
            self.shared.release(files_of(&row));
            return Err(error);
        }
        group.files.extend(files_of(&row));
        group.done.push(done);
        if group.done.len() == 1 {
            let writer = self.clone();
            tokio::spawn(async move {
                // Answers that are just arriving join the group.
                tokio::task::yield_now().await;
                let group = locked(&writer.shared.groups).remove(&thread);
                writer.note_group(group.unwrap_or_default());
            });
        }
        Ok(())
    }

    fn note_group(&self, group: Group) {
        let mut pending = locked(&self.shared.pending);
        let noted = match pending.is_closed {
            true => Err(io::Error::other(ENDED)),
            false => pending.journal.append(&group.entries),
        };
        let noted = noted.map_err(|error| Arc::<str>::from(error.to_string()));
        if noted.is_ok() {
            pending.bytes += group.entries.len();
            pending.entries.push(group.entries);
            if !mem::replace(&mut pending.is_awaited, true) {
                self.send(Work::Look);
            }
        }
        drop(pending);
        if noted.is_err() {
            self.shared.release(group.files);
        }
        for done in group.done {
            done(noted.clone());
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

    /// Returns once everything so far is in the database.
    ///
    /// # Errors
    /// If it can't be brought there now.
    pub async fn flush(&self) -> Result<(), Arc<str>> {
        let (done_in, done) = oneshot::channel();
        let told = |flushed| {
            // Whoever waited may be gone.
            done_in.send(flushed).ok();
        };
        self.send(Work::Flush(Box::new(told)));
        done.await.unwrap_or_else(|_| Err(ENDED.into()))
    }

    fn send(&self, work: Work) {
        if let Err(failed) = self.work.send(work)
            && let Some(done) = failed.0.done()
        {
            // The store is closed, or the thread panicked.
            done(Err(ENDED.into()));
        }
    }
}

impl Work {
    fn done(self) -> Option<Done> {
        match self {
            Self::Put(_, _, done)
            | Self::Close(done)
            | Self::Delete(_, done)
            | Self::Freshen(_, done)
            | Self::Flush(done) => Some(done),
            Self::Look => None,
        }
    }

    fn end(self, result: Result<(), Arc<str>>) {
        if let Some(done) = self.done() {
            done(result);
        }
    }
}

pub(super) const ENDED: &str = "the store's thread has ended";

impl Drop for Open {
    fn drop(&mut self) {
        // Also if this thread panics: nobody shall wait for it.
        self.shared.close();
    }
}

impl Open {
    fn run(mut self, arriving: &Receiver<Work>) {
        // `None` while the journal has nothing for the database.
        let mut pause = None;
        loop {
            let first = match pause {
                Some(pause) => arriving.recv_timeout(pause),
                None => arriving.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let mut group = match first {
                // Others join it.
                Ok(Work::Look) => {
                    pause = Some(GATHERING);
                    continue;
                }
                Ok(first) => vec![first],
                Err(RecvTimeoutError::Timeout) => {
                    pause = self.fill();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            group.extend(arriving.try_iter().take(GROUP_MAX - 1));
            let close = group.iter().position(|work| matches!(work, Work::Close(_)));
            let close = close.map(|at| group.swap_remove(at));
            if close.is_some() {
                self.shared.close();
            }
            pause = self.fill();
            self.commit(&mut group);
            if let Some(close) = close {
                self.end();
                drop(self);
                return close.end(Ok(()));
            }
        }
        self.fill();
        self.end();
    }

    /// Leaves one file to whoever copies the database, if all that came could be written.
    fn end(&self) {
        if self.taken.is_empty()
            && let Err(error) = self.end_journal()
        {
            // It is read at the next start.
            tracing::warn!("the store's journal could not be ended: {error}");
        }
        let empty = "PRAGMA wal_checkpoint(TRUNCATE)";
        if let Err(error) = self.database.query_row(empty, [], |_| Ok(())) {
            tracing::warn!("the store's log could not be emptied: {error}");
        }
    }

    /// Deletes the journal, all of which is in the database.
    fn end_journal(&self) -> Result<(), JournalError> {
        let end = locked(&self.shared.pending).journal.end();
        if end.bytes == 0 && self.oldest == end.number {
            return Ok(());
        }
        let next = end.number + 1;
        let place = journal::Place {
            number: next,
            bytes: 0,
        };
        self.transact(|database| journal::note_done(database, place))?;
        journal::delete_before(&self.path, next)?;
        Ok(())
    }

    /// Brings all that is in the journal into the database. Returns when to look again.
    fn fill(&mut self) -> Option<Duration> {
        // What failed before comes first, and alone.
        if !self.taken.is_empty() && !self.fill_taken() {
            return Some(AFTER_FAILURE);
        }
        {
            let mut pending = locked(&self.shared.pending);
            if pending.entries.is_empty() {
                pending.is_awaited = false;
                return None;
            }
            self.taken = mem::take(&mut pending.entries);
            self.taken_bytes = pending.bytes;
            self.taken_until = pending.journal.end();
        }
        Some(match self.fill_taken() {
            true => GATHERING,
            false => AFTER_FAILURE,
        })
    }

    /// Brings the entries that were taken into the database. Returns whether it could be written.
    fn fill_taken(&mut self) -> bool {
        let filled = self.transact(|database| {
            let entries = self.taken.iter().map(Vec::as_slice);
            for row in entries.flat_map(journal::rows) {
                rows::write(database, &row?)?;
            }
            journal::note_done(database, self.taken_until)?;
            Ok::<_, JournalError>(())
        });
        let mut pending = locked(&self.shared.pending);
        match &filled {
            Ok(()) => {
                pending.bytes -= self.taken_bytes;
                pending.failed = None;
            }
            Err(error) => {
                if pending.failed.is_none() {
                    tracing::warn!("the database could not be written, and will be later: {error}");
                }
                pending.failed = Some(error.to_string().into());
            }
        }
        drop(pending);
        self.shared.room.notify_waiters();
        if filled.is_ok() {
            self.taken.clear();
            self.delete_old_journals();
        }
        filled.is_ok()
    }

    fn delete_old_journals(&mut self) {
        if self.oldest < self.taken_until.number {
            self.oldest = self.taken_until.number;
            if let Err(error) = journal::delete_before(&self.path, self.oldest) {
                tracing::warn!("a journal could not be deleted: {error}");
            }
        }
    }

    fn commit(&self, group: &mut Vec<Work>) {
        if !self.taken.is_empty() {
            // What the journal has comes first: a deletion must not overtake what it deletes.
            let why = locked(&self.shared.pending).failed.clone();
            let why = why.unwrap_or_else(|| ENDED.into());
            return group.drain(..).for_each(|work| fail(work, &why));
        }
        let mut good = Vec::new();
        for mut work in group.drain(..) {
            // Files come before the rows that name them.
            let claimed = match &mut work {
                Work::Put(_, files, _) => self.shared.claim(files),
                _ => Ok(()),
            };
            match claimed {
                Ok(()) => good.push(work),
                Err(error) => fail(work, &error.to_string()),
            }
        }
        match self.commit_all(&good) {
            Ok(()) => good.into_iter().for_each(|work| work.end(Ok(()))),
            // One may be to blame; the others shall not suffer.
            Err(_) if good.len() > 1 => {
                for work in good {
                    match self.commit_all(std::slice::from_ref(&work)) {
                        Ok(()) => work.end(Ok(())),
                        Err(error) => self.give_up(work, &error),
                    }
                }
            }
            Err(error) => good.into_iter().for_each(|work| self.give_up(work, &error)),
        }
    }

    fn give_up(&self, work: Work, error: &rusqlite::Error) {
        if let Work::Put(row, ..) = &work {
            self.shared.release(files_of(row));
        }
        fail(work, &error.to_string());
    }

    /// Commits work. If that fails, nothing of it is done.
    fn commit_all(&self, group: &[Work]) -> rusqlite::Result<()> {
        let orphans = self.transact(|database| write_rows(database, group))?;
        self.shared.release(orphans);
        Ok(())
    }

    /// Writes in a transaction. If that fails, nothing of it is done.
    fn transact<T, E: From<rusqlite::Error>>(
        &self,
        write: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        // A statement that is prepared once costs less than rusqlite's transactions.
        self.database
            .prepare_cached("BEGIN IMMEDIATE")?
            .execute([])?;
        let written = write(&self.database);
        let end = if written.is_ok() {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        let ended = self.database.prepare_cached(end)?.execute([]);
        let written = written?;
        if let Err(error) = ended {
            // A transaction that can't be committed is still open.
            self.database.execute_batch("ROLLBACK").ok();
            return Err(error.into());
        }
        Ok(written)
    }
}

/// Writes work in a transaction. Returns the files that rows no longer need.
fn write_rows(database: &Connection, group: &[Work]) -> rusqlite::Result<Vec<Digest>> {
    let mut orphans = Vec::new();
    for work in group {
        match work {
            Work::Put(row, _, _) => rows::write(database, &row.parts())?,
            Work::Delete(ids, _) => {
                for &id in ids {
                    forget(database, id, &mut orphans)?;
                    let id = i64::try_from(id).unwrap_or(i64::MAX);
                    database
                        .prepare_cached("DELETE FROM answers WHERE id = ?1")?
                        .execute([id])?;
                }
            }
            Work::Freshen((id, head, requested_ms, received_ms), _) => {
                let query = "UPDATE answers SET head = ?2, requested_ms = ?3, \
                    received_ms = ?4 WHERE id = ?1";
                let id = i64::try_from(*id).unwrap_or(i64::MAX);
                let values = (id, &head.bytes()[..], requested_ms, received_ms);
                database.prepare_cached(query)?.execute(values)?;
            }
            Work::Close(_) | Work::Flush(_) | Work::Look => {}
        }
    }
    Ok(orphans)
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
    work.end(Err(error.into()));
}

#[cfg(test)]
mod tests;

//! Work that gathers for the writing thread: rows in the journal, and the files that rows need.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::ThreadId,
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    files::{Files, Unfinished},
    journal::Journal,
    rows::Digest,
    writer::{Done, ENDED},
};

/// State that the thread shares with those who record.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) files: Files,
    /// How many rows have each file.
    pub(super) uses: Mutex<HashMap<Digest, u32>>,
    /// By the thread that notes it: to wake others costs more than it saves.
    pub(super) groups: Mutex<HashMap<ThreadId, Group>>,
    pub(super) pending: Mutex<Pending>,
    /// Is told when rows have left `pending`, or can't leave it.
    pub(super) room: Notify,
}

/// Rows that a thread is about to note in the journal.
#[derive(Default)]
pub(super) struct Group {
    pub(super) entries: Vec<u8>,
    /// The files that these rows need.
    pub(super) files: Vec<Digest>,
    pub(super) done: Vec<Done>,
}

/// Rows that are safe in the journal, and not yet in the database.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) journal: Journal,
    /// Entries, as they are in the journal.
    pub(super) entries: Vec<Vec<u8>>,
    /// Bytes of these, and of those that are being brought into the database.
    pub(super) bytes: usize,
    /// Whether the thread comes to look without being told.
    pub(super) is_awaited: bool,
    /// Why rows could not be brought into the database the last time.
    pub(super) failed: Option<Arc<str>>,
    pub(super) is_closed: bool,
}

/// A long body that has yet to get its name.
#[derive(Debug)]
pub enum NewFile {
    /// Pieces in memory.
    Memory(Vec<Bytes>),
    /// A file that is complete.
    Written(Unfinished),
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

/// Most bytes of entries that aren't in the database yet. Whoever records more waits.
const PENDING_BYTES_MAX: usize = 8 << 20;

impl Gathering {
    /// Waits until there is room in memory for one more row.
    pub(super) async fn has_room(&self) -> Result<(), Arc<str>> {
        loop {
            let room = self.room.notified();
            {
                let pending = locked(&self.pending);
                if pending.bytes <= PENDING_BYTES_MAX {
                    return Ok(());
                }
                if pending.is_closed {
                    return Err(ENDED.into());
                }
                // It would wait until the database can be written again.
                pending.failed.clone().map_or(Ok(()), Err)?;
            }
            room.await;
        }
    }

    /// Writes the files of a row that aren't there, and notes that one more row needs them.
    pub(super) fn claim(&self, files: &mut Vec<(Digest, NewFile)>) -> io::Result<()> {
        let mut claimed = Vec::new();
        for (digest, file) in files.drain(..) {
            if let Err(error) = self.claim_one(digest, file) {
                self.release(claimed);
                return Err(error);
            }
            claimed.push(digest);
        }
        Ok(())
    }

    fn claim_one(&self, digest: Digest, file: NewFile) -> io::Result<()> {
        if let Some(uses) = locked(&self.uses).get_mut(&digest) {
            *uses += 1;
            return Ok(());
        }
        // To write takes a while, in which others go on.
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
        // Nobody shall delete the file between its naming and its note.
        let mut uses = locked(&self.uses);
        let uses = match uses.entry(digest) {
            Entry::Occupied(uses) => uses.into_mut(),
            Entry::Vacant(place) => {
                unfinished.finish(&digest)?;
                place.insert(0)
            }
        };
        *uses += 1;
        Ok(())
    }

    /// Notes that rows no longer need files, and deletes those that no other row needs.
    pub(super) fn release(&self, files: impl IntoIterator<Item = Digest>) {
        for digest in files {
            let mut uses = locked(&self.uses);
            let Some(count) = uses.get_mut(&digest) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                uses.remove(&digest);
                if let Err(error) = self.files.remove(&digest) {
                    tracing::warn!("a body could not be deleted: {error}");
                }
            }
        }
    }

    /// Refuses all that comes from now on.
    pub(super) fn close(&self) {
        let mut pending = locked(&self.pending);
        pending.is_closed = true;
        drop(pending);
        self.room.notify_waiters();
    }
}

/// Locks, whether or not another thread panicked.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

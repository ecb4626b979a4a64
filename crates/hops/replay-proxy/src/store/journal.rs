//! Rows that are safe, and on their way into the database. To append to a file costs a small part
//! of what a transaction of the database costs, and hundreds of rows then share one transaction.
//!
//! A journal is a file of entries: the length of a row's bytes and their CRC-32, both as four bytes
//! with the lowest first, and the bytes. The database says up to where which journal is done, in
//! the transaction that holds the rows.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bytes::{Buf as _, BufMut as _};
use rusqlite::{Connection, OptionalExtension as _};

use super::rows::{self, Digest, Kind, Parts, RowError};
use crate::stored::Framing;

/// A journal that is written.
#[derive(Debug)]
pub(crate) struct Journal {
    store: PathBuf,
    /// `None` before the first entry.
    file: Option<File>,
    place: Place,
    /// Why entries at the end could not be taken back, so that no more may follow.
    broken: Option<String>,
}

/// A place between two entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Number of the journal.
    pub(crate) number: u64,
    /// Bytes before it.
    pub(crate) bytes: u64,
}

/// The rows that a journal had for the database.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// The number that the next journal may have.
    pub(crate) next: u64,
    /// Entries that end in the middle: their process was killed before a client saw the answer.
    pub(crate) dropped: usize,
    /// Entries that can't be read, and why.
    pub(crate) refused: Vec<String>,
}

/// Why rows can't be brought from a journal into the database.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The journal can't be read or deleted.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// An entry can't be read.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The database can't be written.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
}

/// A journal with this many bytes is followed by another, so that the first can be deleted.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// Longest entry: two bodies as they are in rows, and heads with all that servers accept.
const ENTRY_BYTES_MAX: usize = 64 << 20;

const PREFIX_BYTES: usize = 8;

impl Journal {
    /// Makes a journal of a store. Its file is made for the first entry.
    pub(crate) fn new(store: &Path, number: u64) -> Self {
        Self {
            store: store.to_owned(),
            file: None,
            place: Place { number, bytes: 0 },
            broken: None,
        }
    }

    /// Returns the place after the last entry.
    pub(crate) fn end(&self) -> Place {
        self.place
    }

    /// Adds entries that [`add_entry`] has made. Then they are safe from the end of the process.
    pub(crate) fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        if let Some(broken) = &self.broken {
            return Err(io::Error::other(broken.clone()));
        }
        if self.place.bytes > 0 && self.place.bytes + entries.len() as u64 > JOURNAL_BYTES_MAX {
            *self = Self::new(&self.store, self.place.number + 1);
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let new = File::create_new(path(&self.store, self.place.number))?;
                self.file.insert(new)
            }
        };
        if let Err(error) = file.write_all_at(entries, self.place.bytes) {
            // Half an entry would hide those after it.
            if let Err(error) = file.set_len(self.place.bytes) {
                self.broken = Some(format!("the journal could not be shortened: {error}"));
            }
            return Err(error);
        }
        self.place.bytes += entries.len() as u64;
        Ok(())
    }
}

/// Returns the path of a journal.
fn path(store: &Path, number: u64) -> PathBuf {
    store.join(format!("journal-{number}"))
}

/// Returns the numbers of the journals that are there, the first one first.
fn numbers(store: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(store)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("journal-"))
            .and_then(|number| number.parse::<u64>().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Deletes the journals before this one.
pub(crate) fn delete_before(store: &Path, number: u64) -> io::Result<()> {
    let mut old = numbers(store)?.into_iter().filter(|&it| it < number);
    old.try_for_each(|old| fs::remove_file(path(store, old)))
}

/// Notes in a transaction that the database has all rows before this place.
pub(crate) fn note_done(database: &Connection, place: Place) -> rusqlite::Result<()> {
    let mut value = Vec::with_capacity(16);
    value.put_u64_le(place.number);
    value.put_u64_le(place.bytes);
    let query = "INSERT OR REPLACE INTO meta VALUES ('journal', ?1)";
    database.prepare_cached(query)?.execute([value])?;
    Ok(())
}

/// Returns the place before which the database has all rows.
fn done(database: &Connection) -> rusqlite::Result<Place> {
    let query = "SELECT value FROM meta WHERE name = 'journal'";
    let value: Option<Vec<u8>> = database.query_row(query, [], |row| row.get(0)).optional()?;
    let mut value = value.as_deref().unwrap_or_default();
    let mut next = || value.try_get_u64_le().unwrap_or(0);
    Ok(Place {
        number: next(),
        bytes: next(),
    })
}

/// Brings what journals have into the database, and deletes them.
pub(crate) fn recover(store: &Path, database: &Connection) -> Result<Recovered, JournalError> {
    let done = done(database)?;
    let mut recovered = Recovered::default();
    let numbers = numbers(store)?;
    recovered.next = numbers
        .last()
        .copied()
        .max(Some(done.number))
        .map_or(1, |last| last + 1);
    for &number in numbers.iter().filter(|&&number| number >= done.number) {
        let from = if number == done.number { done.bytes } else { 0 };
        database.execute_batch("BEGIN IMMEDIATE")?;
        let is_last = Some(&number) == numbers.last();
        let next = Place {
            number: number + 1,
            bytes: 0,
        };
        let read = recover_one(
            store,
            database,
            Place {
                number,
                bytes: from,
            },
            is_last,
        );
        let noted = read.and_then(|one| {
            note_done(database, next)?;
            database.execute_batch("COMMIT")?;
            Ok(one)
        });
        let one = noted.inspect_err(|_| {
            database.execute_batch("ROLLBACK").ok();
        })?;
        if !one.refused.is_empty() {
            let kept = store.join(format!("journal-{number}.damaged"));
            fs::rename(path(store, number), kept)?;
        }
        recovered.dropped += one.dropped;
        recovered.refused.extend(one.refused);
    }
    delete_before(store, recovered.next)?;
    Ok(recovered)
}

/// Writes the rows of a journal that come after a place.
fn recover_one(
    store: &Path,
    database: &Connection,
    from: Place,
    is_last: bool,
) -> Result<Recovered, JournalError> {
    let mut one = Recovered::default();
    let name = format!("journal-{}", from.number);
    let torn = read_entries(&path(store, from.number), from.bytes, |at, row| {
        match row {
            Ok(row) => rows::write(database, &row)?,
            Err(error) => one.refused.push(format!("{name}, byte {at}: {error}")),
        }
        Ok(())
    })?;
    match torn {
        None => {}
        Some(_) if is_last => one.dropped += 1,
        Some(at) => one
            .refused
            .push(format!("{name}, byte {at}: an entry without an end")),
    }
    Ok(one)
}

/// Calls `each` with every entry after `from`. Returns the place of an entry that has no end.
fn read_entries(
    path: &Path,
    from: u64,
    mut each: impl FnMut(u64, Result<Parts<'_>, RowError>) -> Result<(), JournalError>,
) -> Result<Option<u64>, JournalError> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut at = from;
    let mut reader = io::BufReader::with_capacity(1 << 20, file);
    io::Seek::seek(&mut reader, io::SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    while at < length {
        let mut prefix = [0; PREFIX_BYTES];
        if length - at < PREFIX_BYTES as u64 {
            return Ok(Some(at));
        }
        reader.read_exact(&mut prefix)?;
        let mut prefix = prefix.as_slice();
        let (entry_bytes, sum) = (prefix.get_u32_le() as usize, prefix.get_u32_le());
        let end = at + (PREFIX_BYTES + entry_bytes) as u64;
        if entry_bytes > ENTRY_BYTES_MAX || end > length {
            return Ok(Some(at));
        }
        bytes.resize(entry_bytes, 0);
        reader.read_exact(&mut bytes)?;
        let row = match crc32fast::hash(&bytes) == sum {
            true => decode(&bytes),
            false => Err(RowError::Value("checksum")),
        };
        each(at, row)?;
        at = end;
    }
    Ok(None)
}

/// Adds the entry of a row.
pub(crate) fn add_entry(row: &Parts<'_>, entries: &mut Vec<u8>) -> io::Result<()> {
    let begin = entries.len();
    let heads = row.request_fields.len() + row.head.len() + row.target.len() + row.key.len();
    let bodies = [row.request_body, row.body].into_iter().flatten();
    entries.reserve(heads + bodies.map(<[u8]>::len).sum::<usize>() + 256);
    entries.put_slice(&[0; PREFIX_BYTES]);
    entries.put_u64_le(row.id);
    entries.put_i64_le(row.session);
    entries.put_u8(row.kind.number());
    entries.put_u8(row.framing.number());
    entries.put_i64_le(row.requested_ms);
    entries.put_i64_le(row.received_ms);
    entries.put_slice(&row.request_digest);
    entries.put_u64_le(row.request_bytes);
    entries.put_slice(&row.digest);
    entries.put_u64_le(row.body_bytes);
    let texts = [row.key, row.method.as_bytes(), row.target.as_bytes()];
    for part in texts.into_iter().chain([row.request_fields, row.head]) {
        put(entries, Some(part));
    }
    for part in [
        row.request_body,
        row.body,
        row.trailers,
        row.timing.as_deref(),
    ] {
        put(entries, part);
    }
    let entry = &mut entries[begin..];
    let entry_bytes = entry.len() - PREFIX_BYTES;
    if entry_bytes > ENTRY_BYTES_MAX {
        entries.truncate(begin);
        return Err(io::Error::other("the exchange is too long for an entry"));
    }
    let sum = crc32fast::hash(&entry[PREFIX_BYTES..]);
    // It was compared with a limit that fits.
    let length = u32::try_from(entry_bytes).unwrap_or(u32::MAX);
    entry[..4].copy_from_slice(&length.to_le_bytes());
    entry[4..PREFIX_BYTES].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// Writes bytes after their length and one, or zero if there are none.
fn put(to: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            // No part is longer than an entry, which is checked.
            to.put_u32_le(u32::try_from(bytes.len() + 1).unwrap_or(u32::MAX));
            to.put_slice(bytes);
        }
        None => to.put_u32_le(0),
    }
}

/// Returns the rows of entries that [`add_entry`] has made.
pub(crate) fn rows(mut entries: &[u8]) -> impl Iterator<Item = Result<Parts<'_>, RowError>> {
    std::iter::from_fn(move || {
        let length = u32::from_le_bytes(*entries.first_chunk()?) as usize;
        let (entry, rest) = entries.split_at_checked(PREFIX_BYTES + length)?;
        entries = rest;
        Some(decode(&entry[PREFIX_BYTES..]))
    })
}

/// Reads the row of an entry.
fn decode(mut bytes: &[u8]) -> Result<Parts<'_>, RowError> {
    let from = &mut bytes;
    let (id, session) = (u64(from)?, i64(from)?);
    let kind = Kind::of(i64::from(u8(from)?)).ok_or(RowError::Value("kind"))?;
    let framing = Framing::of(u8(from)?).ok_or(RowError::Value("framing"))?;
    let (requested_ms, received_ms) = (i64(from)?, i64(from)?);
    let (request_digest, request_bytes) = (digest(from)?, u64(from)?);
    let (digest, body_bytes) = (digest(from)?, u64(from)?);
    let row = Parts {
        id,
        session,
        kind,
        key: needed(from, "key")?,
        method: text(from, "method")?,
        target: text(from, "target")?,
        request_fields: needed(from, "request_fields")?,
        head: needed(from, "head")?,
        request_body: part(from, "request_body")?,
        request_digest,
        request_bytes,
        framing,
        body: part(from, "body")?,
        digest,
        body_bytes,
        trailers: part(from, "trailers")?,
        timing: part(from, "timing")?.map(Into::into),
        requested_ms,
        received_ms,
    };
    match from.is_empty() {
        true => Ok(row),
        false => Err(RowError::Value("length")),
    }
}

fn digest(from: &mut &[u8]) -> Result<Digest, RowError> {
    let mut digest = Digest::default();
    from.try_copy_to_slice(&mut digest)
        .map_err(|_| RowError::Value("digest"))?;
    Ok(digest)
}

fn text<'a>(from: &mut &'a [u8], name: &'static str) -> Result<&'a str, RowError> {
    std::str::from_utf8(needed(from, name)?).map_err(|_| RowError::Value(name))
}

fn u8(from: &mut &[u8]) -> Result<u8, RowError> {
    from.try_get_u8().map_err(|_| RowError::Value("length"))
}

fn u64(from: &mut &[u8]) -> Result<u64, RowError> {
    from.try_get_u64_le().map_err(|_| RowError::Value("length"))
}

fn i64(from: &mut &[u8]) -> Result<i64, RowError> {
    from.try_get_i64_le().map_err(|_| RowError::Value("length"))
}

fn needed<'a>(from: &mut &'a [u8], name: &'static str) -> Result<&'a [u8], RowError> {
    part(from, name)?.ok_or(RowError::Value(name))
}

/// Reads what [`put`] has written.
fn part<'a>(from: &mut &'a [u8], name: &'static str) -> Result<Option<&'a [u8]>, RowError> {
    let length = from.try_get_u32_le().map_err(|_| RowError::Value(name))?;
    let Some(length) = (length as usize).checked_sub(1) else {
        return Ok(None);
    };
    let (part, rest) = from.split_at_checked(length).ok_or(RowError::Value(name))?;
    *from = rest;
    Ok(Some(part))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{Durability, Row, Store, rows::samples::row};

    fn entry(row: &Row) -> Vec<u8> {
        let mut entry = Vec::new();
        add_entry(&row.parts(), &mut entry).expect("an entry");
        entry
    }

    /// A store whose process was killed after these entries.
    fn killed(directory: &Path, entries: &[Vec<u8>]) -> u64 {
        let store = Store::open(directory, Durability::Process).expect("a store");
        let number = store.next_journal;
        let mut journal = Journal::new(directory, number);
        for entry in entries {
            journal.append(entry).expect("written");
        }
        number
    }

    fn stored(directory: &Path) -> (Store, Vec<u64>) {
        let store = Store::open(directory, Durability::Process).expect("a store");
        let mut ids = Vec::new();
        store.each(None, |row| ids.push(row.id));
        (store, ids)
    }

    fn entries(ids: &[u64]) -> Vec<Vec<u8>> {
        let entry = |&id| entry(&row(id, b"body"));
        ids.iter().map(entry).collect()
    }

    #[test]
    fn rows_of_a_killed_process_come_into_the_database_once() {
        let directory = tempfile::tempdir().expect("a directory");
        killed(directory.path(), &entries(&[1, 2, 3]));
        let (store, ids) = stored(directory.path());
        assert_eq!((ids, store.next_id), (vec![1, 2, 3], 4));
        assert_eq!(numbers(directory.path()).expect("read").len(), 0);
        // What was deleted since stays deleted, though its journal is there again.
        store
            .database
            .execute("DELETE FROM answers WHERE id = 2", [])
            .expect("deleted");
        drop(store);
        let mut old = Journal::new(directory.path(), 1);
        entries(&[1, 2, 3])
            .iter()
            .for_each(|entry| old.append(entry).expect("written"));
        assert_eq!(stored(directory.path()).1, [1, 3]);
    }

    #[test]
    fn rows_before_the_noted_place_are_not_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let entries = entries(&[1, 2, 3]);
        let number = killed(directory.path(), &entries);
        let bytes = (entries[0].len() + entries[1].len()) as u64;
        let database = Connection::open(directory.path().join("answers.sqlite")).expect("opened");
        note_done(&database, Place { number, bytes }).expect("noted");
        drop(database);
        assert_eq!(stored(directory.path()).1, [3]);
    }

    #[test]
    fn an_entry_without_an_end_is_dropped_and_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut all = entries(&[1, 2]);
        for cut in [1, PREFIX_BYTES - 1, PREFIX_BYTES, all[1].len() - 1] {
            let directory = directory.path().join(cut.to_string());
            all[1] = entries(&[2]).remove(0);
            all[1].truncate(cut);
            killed(&directory, &all);
            let (store, ids) = stored(&directory);
            assert_eq!(
                (ids, store.dropped, store.refused.len()),
                (vec![1], 1, 0),
                "{cut}"
            );
        }
    }

    #[test]
    fn a_damaged_entry_is_refused_and_the_others_are_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut all = entries(&[1, 2, 3]);
        all[1][40] ^= 1;
        let number = killed(directory.path(), &all);
        let (store, ids) = stored(directory.path());
        assert_eq!(ids, [1, 3]);
        let at = all[0].len();
        assert_eq!(
            store.refused,
            [format!(
                "journal-{number}, byte {at}: its 'checksum' is out of range"
            )]
        );
        let kept = directory.path().join(format!("journal-{number}.damaged"));
        assert!(kept.exists(), "the damaged journal is kept");
    }

    #[test]
    fn a_full_journal_is_followed_by_another() {
        let directory = tempfile::tempdir().expect("a directory");
        let body = vec![7; 30 << 20];
        let long = |id| entry(&row(id, &body));
        killed(directory.path(), &[long(1), long(2), long(3)]);
        assert_eq!(numbers(directory.path()).expect("read"), [1, 2]);
        assert_eq!(stored(directory.path()).1, [1, 2, 3]);
        assert!(killed(directory.path(), &[]) > 2, "a number of its own");
    }

    proptest! {
        #[test]
        fn rows_read_back_as_written(id: u64, body: Vec<u8>, at: proptest::sample::Index) {
            let row = row(id, &body);
            let entry = entry(&row);
            let both = [entry.clone(), entry.clone()].concat();
            let read = rows(&both).map(|row| row.expect("a row")).collect::<Vec<_>>();
            prop_assert_eq!(read, [row.parts(), row.parts()]);
            let bytes = &entry[PREFIX_BYTES..];
            // Whatever bytes say, they are used or refused.
            let at = at.index(bytes.len());
            prop_assert!(decode(&bytes[..at]).is_err());
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x81;
            decode(&damaged).ok();
        }
    }
}

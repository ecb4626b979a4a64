//! Goal: what the journal has comes into the database before all that was asked for later, and
//! nobody waits for ever if it can't. Method: a second connection that keeps the database locked.

use std::path::Path;

use bytes::Bytes;

use super::*;
use crate::store::{Durability, rows::samples::row};

fn start(directory: &Path) -> Writer {
    let store = Store::open(directory, Durability::Process).expect("a store");
    Writer::start(store).expect("a thread")
}

fn database(directory: &Path) -> Connection {
    Connection::open(directory.join("answers.sqlite")).expect("a database")
}

fn ids(directory: &Path) -> Vec<i64> {
    let database = database(directory);
    let mut query = database
        .prepare("SELECT id FROM answers ORDER BY id")
        .expect("valid");
    let ids = query.query_map([], |row| row.get(0)).expect("read");
    ids.map(|id| id.expect("a number")).collect()
}

async fn store(writer: &Writer, id: u64, body: &[u8]) -> Result<(), Arc<str>> {
    writer
        .store(Box::new(row(id, body)), Vec::new(), || {})
        .await
}

async fn delete(writer: &Writer, ids: Vec<u64>) -> Result<(), Arc<str>> {
    let (done_in, done) = oneshot::channel();
    writer.delete(ids, Box::new(|deleted| drop(done_in.send(deleted))));
    done.await.expect("told")
}

async fn close(writer: &Writer) {
    let (done_in, done) = oneshot::channel();
    writer.close(Box::new(|closed| drop(done_in.send(closed))));
    done.await.expect("told").expect("closed");
}

#[tokio::test]
async fn rows_come_into_the_database_and_nothing_is_left_of_the_journal() {
    let directory = tempfile::tempdir().expect("a directory");
    let writer = start(directory.path());
    for id in 1..=300 {
        store(&writer, id, b"body").await.expect("stored");
    }
    delete(&writer, vec![7]).await.expect("deleted");
    let expected: Vec<i64> = (1..=300).filter(|id| *id != 7).collect();
    assert_eq!(ids(directory.path()), expected);
    store(&writer, 301, b"body").await.expect("stored");
    close(&writer).await;
    assert_eq!(ids(directory.path()).len(), 300);
    let mut names = std::fs::read_dir(directory.path()).expect("listed");
    let is_journal = |name: &str| name.starts_with("journal");
    assert!(!names.any(|it| is_journal(&it.expect("listed").file_name().to_string_lossy())));
    let late = store(&writer, 302, b"body").await;
    assert_eq!(late.expect_err("closed").as_ref(), ENDED);
}

#[tokio::test]
async fn a_database_that_is_locked_delays_deletions_and_ends_waiting() {
    let directory = tempfile::tempdir().expect("a directory");
    let writer = start(directory.path());
    let locked = database(directory.path());
    locked.execute_batch("BEGIN IMMEDIATE").expect("locked");
    store(&writer, 1, b"body").await.expect("noted");
    // It would come back later.
    delete(&writer, vec![1]).await.expect_err("not yet");
    writer.flush().await.expect_err("not yet");
    let body = vec![7; 32 * 1024];
    let mut noted = 1;
    while store(&writer, noted + 1, &body).await.is_ok() {
        noted += 1;
        assert!(noted < 1_000, "memory is bounded");
    }
    locked.execute_batch("ROLLBACK").expect("unlocked");
    writer.flush().await.expect("it can be written again");
    assert_eq!(ids(directory.path()).len() as u64, noted);
    delete(&writer, vec![1]).await.expect("deleted");
    store(&writer, 1_001, &body)
        .await
        .expect("there is room again");
    close(&writer).await;
    assert_eq!(ids(directory.path()).len() as u64, noted);
}

#[tokio::test]
async fn a_file_is_there_as_long_as_a_row_needs_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let writer = start(directory.path());
    let body = vec![7; 100_000];
    let digest = *blake3::hash(&body).as_bytes();
    let long = |id| {
        let mut row = row(id, &body);
        row.body = crate::store::BodyPlace::File;
        let file = NewFile::Memory(vec![Bytes::from(body.clone())]);
        (Box::new(row), vec![(digest, file)])
    };
    for id in [1, 2] {
        let (row, files) = long(id);
        writer.store(row, files, || {}).await.expect("stored");
    }
    let files = writer.shared.files.clone();
    delete(&writer, vec![1]).await.expect("deleted");
    assert!(files.has(&digest, 100_000));
    delete(&writer, vec![2]).await.expect("deleted");
    assert!(!files.has(&digest, 100_000));
    close(&writer).await;
    let (row, files_of_late) = long(3);
    writer
        .store(row, files_of_late, || {})
        .await
        .expect_err("closed");
    assert!(
        !files.has(&digest, 100_000),
        "nothing is left of what failed"
    );
}

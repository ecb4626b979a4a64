//! Rows of the database: an answer and the request that it answers.

use std::borrow::Cow;

use bytes::Bytes;
use rusqlite::{Connection, Row as SqlRow, params};

use crate::{
    fields::Pairs,
    head::{Head, HeadError},
    stored::{Framing, Timing},
};

/// The table and its indexes.
pub(crate) const SCHEMA: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_ms INTEGER NOT NULL
);
CREATE TABLE answers (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    key BLOB NOT NULL,
    method TEXT NOT NULL,
    target TEXT NOT NULL,
    request_fields BLOB NOT NULL,
    request_body BLOB,
    request_digest BLOB,
    request_bytes INTEGER NOT NULL,
    head BLOB NOT NULL,
    framing INTEGER NOT NULL,
    body BLOB,
    digest BLOB NOT NULL,
    body_bytes INTEGER NOT NULL,
    trailers BLOB,
    timing BLOB,
    requested_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL
);
";

/// A digest of a body.
pub type Digest = [u8; 32];

/// The use of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Kept by the rules of HTTP caching.
    Cached,
    /// Recorded, until it is deleted.
    Recorded,
}

impl Kind {
    /// Returns the number by which it is stored.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Recorded => 0,
            Self::Cached => 1,
        }
    }

    /// Returns the use of a number.
    pub(crate) fn of(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Recorded),
            1 => Some(Self::Cached),
            _ => None,
        }
    }
}

/// Where a body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyPlace {
    /// In a file that is named by its digest.
    File,
    /// In the row.
    Row(Bytes),
}

/// An answer and its request.
#[derive(Clone, Debug)]
pub struct Row {
    /// Number of the row, unique in the store.
    pub id: u64,
    /// Number of the session.
    pub session: i64,
    /// Its use.
    pub kind: Kind,
    /// The key by which it is found.
    pub key: Vec<u8>,
    /// Method of the request.
    pub method: String,
    /// Target of the request, redacted.
    pub target: String,
    /// Fields of the request, as lines.
    pub request_fields: Vec<u8>,
    /// Where the request's body is.
    pub request_body: BodyPlace,
    /// Digest of the request's body.
    pub request_digest: Digest,
    /// Length of the request's body.
    pub request_bytes: u64,
    /// Head of the answer.
    pub head: Head,
    /// How the answer's body came.
    pub framing: Framing,
    /// Where the answer's body is.
    pub body: BodyPlace,
    /// Digest of the answer's body.
    pub digest: Digest,
    /// Length of the answer's body.
    pub body_bytes: u64,
    /// Trailers of the answer, as lines.
    pub trailers: Option<Bytes>,
    /// When the pieces of the answer's body came.
    pub timing: Option<Timing>,
    /// When the request was sent, in milliseconds since 1970.
    pub requested_ms: i64,
    /// When the head of the answer came.
    pub received_ms: i64,
}

/// Why a row can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// A head is no head.
    #[error("its head is damaged: {0}")]
    Head(#[from] HeadError),
    /// The database says so.
    #[error("{0}")]
    Sql(#[from] rusqlite::Error),
    /// A value is out of its range.
    #[error("its '{0}' is out of range")]
    Value(&'static str),
}

/// All columns, in the order in which [`read`] takes them.
pub(crate) const COLUMNS: &str = "id, session, kind, key, method, target, request_fields, \
    request_body, request_digest, request_bytes, head, framing, body, digest, body_bytes, \
    trailers, timing, requested_ms, received_ms";

/// Reads a row with all [`COLUMNS`]. Whatever it says, it is used or refused.
pub(crate) fn read(row: &SqlRow<'_>) -> Result<Row, RowError> {
    let digest = |index: usize, name| -> Result<Digest, RowError> {
        let bytes: Option<Vec<u8>> = row.get(index)?;
        let bytes = bytes.unwrap_or_else(|| blake3::hash(b"").as_bytes().to_vec());
        bytes.try_into().map_err(|_| RowError::Value(name))
    };
    let unsigned = |index: usize, name| -> Result<u64, RowError> {
        u64::try_from(row.get::<_, i64>(index)?).map_err(|_| RowError::Value(name))
    };
    let place = |bytes: Option<Vec<u8>>, length: u64| match bytes {
        Some(bytes) if bytes.len() as u64 == length => Ok(BodyPlace::Row(bytes.into())),
        Some(_) => Err(RowError::Value("body")),
        None if length == 0 => Ok(BodyPlace::Row(Bytes::new())),
        None => Ok(BodyPlace::File),
    };
    let (request_bytes, body_bytes) = (unsigned(9, "request_bytes")?, unsigned(14, "body_bytes")?);
    let timing: Option<Vec<u8>> = row.get(16)?;
    let timing = match timing {
        Some(bytes) => Some(Timing::decode(&bytes, body_bytes).ok_or(RowError::Value("timing"))?),
        None => None,
    };
    Ok(Row {
        id: unsigned(0, "id")?,
        session: row.get(1)?,
        kind: Kind::of(row.get(2)?).ok_or(RowError::Value("kind"))?,
        key: row.get(3)?,
        method: row.get(4)?,
        target: row.get(5)?,
        request_fields: row.get(6)?,
        request_body: place(row.get(7)?, request_bytes)?,
        request_digest: digest(8, "request_digest")?,
        request_bytes,
        head: Head::parse(row.get::<_, Vec<u8>>(10)?.into())?,
        framing: u8::try_from(row.get::<_, i64>(11)?)
            .ok()
            .and_then(Framing::of)
            .ok_or(RowError::Value("framing"))?,
        body: place(row.get(12)?, body_bytes)?,
        digest: digest(13, "digest")?,
        body_bytes,
        trailers: row.get::<_, Option<Vec<u8>>>(15)?.map(Bytes::from),
        timing,
        requested_ms: row.get(17)?,
        received_ms: row.get(18)?,
    })
}

/// A row as it is written, whose parts are somebody else's. A body is `None` if it is in a file, or
/// empty.
#[derive(Debug, PartialEq)]
pub(crate) struct Parts<'a> {
    pub(crate) id: u64,
    pub(crate) session: i64,
    pub(crate) kind: Kind,
    pub(crate) key: &'a [u8],
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) request_fields: &'a [u8],
    pub(crate) request_body: Option<&'a [u8]>,
    pub(crate) request_digest: Digest,
    pub(crate) request_bytes: u64,
    pub(crate) head: &'a [u8],
    pub(crate) framing: Framing,
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) digest: Digest,
    pub(crate) body_bytes: u64,
    pub(crate) trailers: Option<&'a [u8]>,
    pub(crate) timing: Option<Cow<'a, [u8]>>,
    pub(crate) requested_ms: i64,
    pub(crate) received_ms: i64,
}

impl Row {
    /// Returns the row as it is written.
    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts {
            id: self.id,
            session: self.session,
            kind: self.kind,
            key: &self.key,
            method: &self.method,
            target: &self.target,
            request_fields: &self.request_fields,
            request_body: self.request_body.in_row(),
            request_digest: self.request_digest,
            request_bytes: self.request_bytes,
            head: self.head.bytes(),
            framing: self.framing,
            body: self.body.in_row(),
            digest: self.digest,
            body_bytes: self.body_bytes,
            trailers: self.trailers.as_deref(),
            timing: self.timing.as_ref().map(|timing| timing.encode().into()),
            requested_ms: self.requested_ms,
            received_ms: self.received_ms,
        }
    }
}

impl BodyPlace {
    fn in_row(&self) -> Option<&[u8]> {
        match self {
            Self::Row(bytes) if !bytes.is_empty() => Some(bytes),
            Self::Row(_) | Self::File => None,
        }
    }
}

/// Writes a row. Its number is new.
pub(crate) fn write(database: &Connection, row: &Parts<'_>) -> rusqlite::Result<()> {
    let mut statement = database.prepare_cached(
        "INSERT INTO answers VALUES \
         (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19)",
    )?;
    let request_digest = (row.request_bytes > 0).then_some(row.request_digest.as_slice());
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    statement.execute(params![
        signed(row.id),
        row.session,
        row.kind.number(),
        row.key,
        row.method,
        row.target,
        row.request_fields,
        row.request_body,
        request_digest,
        signed(row.request_bytes),
        row.head,
        row.framing.number(),
        row.body,
        row.digest.as_slice(),
        signed(row.body_bytes),
        row.trailers,
        row.timing.as_deref(),
        row.requested_ms,
        row.received_ms,
    ])?;
    Ok(())
}

/// Writes fields as lines.
pub fn lines(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in fields {
        line(name, value, &mut lines);
    }
    lines
}

/// Writes a field as a line.
pub(crate) fn line(name: &[u8], value: &[u8], lines: &mut Vec<u8>) {
    for part in [name, b": ", value, b"\r\n"] {
        lines.extend_from_slice(part);
    }
}

/// Reads fields that were written as lines.
pub fn fields(lines: &[u8]) -> Pairs {
    let lines = lines.split(|&byte| byte == b'\n');
    let pair = |line: &[u8]| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let at = memchr::memchr(b':', line)?;
        Some((line[..at].to_vec(), line[at + 1..].trim_ascii().to_vec()))
    };
    lines.filter_map(pair).collect()
}

#[cfg(test)]
pub(crate) mod samples {
    //! Rows for tests.

    use super::*;

    /// Returns a recorded answer with everything that an answer can have.
    pub(crate) fn row(id: u64, body: &[u8]) -> Row {
        Row {
            id,
            session: 1,
            kind: Kind::Recorded,
            key: b"a key".to_vec(),
            method: "POST".to_owned(),
            target: format!("/{id}?a=b"),
            request_fields: b"a: b\r\n".to_vec(),
            request_body: BodyPlace::Row(Bytes::new()),
            request_digest: *blake3::hash(b"").as_bytes(),
            request_bytes: 0,
            head: Head::parse("HTTP/1.1 200 OK\r\nA: b\r\n".into()).expect("a head"),
            framing: Framing::Chunked,
            body: BodyPlace::Row(Bytes::copy_from_slice(body)),
            digest: *blake3::hash(body).as_bytes(),
            body_bytes: body.len() as u64,
            trailers: Some("t: u\r\n".into()),
            timing: Some(Timing::default()).filter(|_| body.is_empty()),
            requested_ms: -3,
            received_ms: i64::MAX,
        }
    }
}

//! Puts an exchange that is complete into the store, redacted, and into the index.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http_proxy::UploadTap;

use crate::{
    Mode,
    fields::{Asked, Pairs},
    head::Head,
    key::{BodyKey, BodyReader, Keys},
    received::Received,
    redact,
    rules::{QueryMatch, Rules},
    spool::{Spool, Spooled},
    state::Shared,
    store::{BodyPlace, Files, Kind, Row, rows},
    stored::Stored,
};

/// The parts of a store that are needed to make rows.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) keys: Keys,
    pub(crate) files: Files,
    pub(crate) session: i64,
    next_id: AtomicU64,
}

/// A request as it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Pairs,
}

/// The body of a request, while it comes.
#[derive(Debug)]
pub(crate) struct Upload {
    spool: Option<Spool>,
    reader: BodyReader,
    is_whole: bool,
}

/// The body of a request that has come.
#[derive(Debug)]
pub(crate) struct Uploaded {
    pub(crate) body: Spooled,
    pub(crate) key: Option<BodyKey>,
}

/// An exchange that is complete.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) question: Question,
    pub(crate) upload: Option<Uploaded>,
    pub(crate) received: Received,
    pub(crate) body: Spooled,
    pub(crate) trailers: Option<Bytes>,
}

/// Why an exchange isn't stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Store(Arc<str>),
    #[error(transparent)]
    Unreadable(#[from] redact::Unreadable),
}

impl Keeper {
    /// Makes rows of a session.
    pub(crate) fn new(keys: Keys, files: Files, session: i64, next_id: u64) -> Self {
        Self {
            keys,
            files,
            session,
            next_id: AtomicU64::new(next_id),
        }
    }
}

impl Question {
    /// Returns the request as it is looked up.
    pub(crate) fn asked(&self) -> Asked<'_, Pairs> {
        Asked {
            method: &self.method,
            target: &self.target,
            fields: &self.fields,
        }
    }
}

impl Upload {
    /// Begins to keep the body of a request, and returns what shows it.
    pub(crate) fn begin(shared: &Shared) -> (Rc<RefCell<Self>>, UploadTap) {
        let upload = Rc::new(RefCell::new(Self {
            spool: Some(Spool::new(&shared.keeper.files)),
            reader: shared.keeper.keys.read_body(),
            is_whole: false,
        }));
        let seen = Rc::clone(&upload);
        let limit = shared.body_bytes_max;
        let tap: UploadTap = Box::new(move |piece| {
            let mut upload = seen.borrow_mut();
            match piece {
                Some(piece) => upload.push(piece, limit),
                None => upload.is_whole = true,
            }
        });
        (upload, tap)
    }

    fn push(&mut self, piece: &Bytes, limit: u64) {
        self.reader.push(piece);
        if let Some(spool) = &mut self.spool {
            spool.push(piece);
            if spool.length() > limit {
                self.spool = None;
            }
        }
    }

    /// Ends the body; `None` if it isn't whole or is too long.
    pub(crate) fn finish(&mut self, keys: &Keys) -> Option<Uploaded> {
        let spool = self.spool.take().filter(|_| self.is_whole)?;
        let body = spool.finish().ok()?;
        Some(Uploaded {
            body,
            key: keys.body_read(&self.reader),
        })
    }
}

/// Stores a recording. Returns once it is committed.
pub(crate) async fn record(shared: &Arc<Shared>, exchange: Exchange) -> Result<(), KeepError> {
    let (key, pairs) = key(&shared.keeper.keys, &exchange);
    let (row, files) = row(&shared.keeper, exchange, Kind::Recorded, key)?;
    // Nothing is answered from memory while all is recorded.
    let answer = match shared.mode.get() {
        Mode::Record => None,
        Mode::PassthroughCache | Mode::Replay => in_memory(&row),
    };
    let (index, key, id) = (Arc::clone(shared), row.key.clone(), row.id);
    let add = move || index.recordings.add(&key, id, pairs, answer);
    let stored = shared.writer.store(row, files, add).await;
    stored.map_err(KeepError::Store)?;
    shared.counters.answers_stored.add(1);
    Ok(())
}

/// Returns the key of a recording, and the parameters that aren't in it.
pub(crate) fn key(keys: &Keys, exchange: &Exchange) -> (Vec<u8>, Box<[String]>) {
    let asked = exchange.question.asked();
    let body = exchange
        .upload
        .as_ref()
        .and_then(|upload| upload.key.as_ref());
    let mut key = Vec::with_capacity(128);
    keys.write(&asked, body, &mut key);
    Keys::set_apart(exchange.received.head.status, asked.fields, &mut key);
    (key, subset(keys, &asked.path_and_query().1))
}

/// Returns the parameters of a query that must be in a request's, if the rules say so.
pub(crate) fn subset(keys: &Keys, query: &Option<&str>) -> Box<[String]> {
    match query {
        Some(query) if keys.rules().matching.query == QueryMatch::Subset => {
            keys.pairs(query).into()
        }
        _ => Box::default(),
    }
}

/// Long bodies that a row needs, by their digests.
pub(crate) type NewFiles = Vec<(rows::Digest, crate::store::gathering::NewFile)>;

/// Makes the row of an exchange, redacted.
pub(crate) fn row(
    keeper: &Keeper,
    exchange: Exchange,
    kind: Kind,
    key: Vec<u8>,
) -> Result<(Box<Row>, NewFiles), KeepError> {
    let Exchange {
        question,
        upload,
        received,
        body,
        trailers,
    } = exchange;
    let rules = keeper.keys.rules();
    let mut head = received.head;
    let body = match redact::concerns(rules, &head) {
        true => {
            let original = body.bytes().ok_or(redact::Unreadable)?;
            let redacted = redact::body(&rules.redact, &head, &original)?;
            head = redacted_head(
                rules,
                head,
                (redacted != original).then_some(redacted.len()),
            );
            Spooled::whole(&keeper.files, redacted)?
        }
        false => {
            head = redacted_head(rules, head, None);
            body
        }
    };
    let upload = match upload {
        Some(upload) if redact::concerns(rules, &question.fields) => {
            let original = upload.body.bytes().ok_or(redact::Unreadable)?;
            let redacted = redact::body(&rules.redact, &question.fields, &original)?;
            Spooled::whole(&keeper.files, redacted)?
        }
        Some(upload) => upload.body,
        None => Spooled::whole(&keeper.files, Bytes::new())?,
    };
    let mut files = Vec::new();
    let (digest, body_bytes, timing) = (body.digest, body.length, body.timing.clone());
    let (request_digest, request_bytes) = (upload.digest, upload.length);
    let row = Row {
        id: keeper.next_id.fetch_add(1, Relaxed),
        session: keeper.session,
        kind,
        key,
        request_fields: redact::lines(&rules.redact, &question.fields),
        target: redact::target(&rules.redact, question.target),
        method: question.method,
        request_body: upload.placed(&mut files),
        request_digest,
        request_bytes,
        head,
        framing: received.framing,
        body: body.placed(&mut files),
        digest,
        body_bytes,
        trailers,
        timing,
        requested_ms: received.requested_ms,
        received_ms: received.received_ms,
    };
    Ok((Box::new(row), files))
}

fn redacted_head(rules: &Rules, head: Head, length: Option<usize>) -> Head {
    redact::head(&rules.redact, head, length)
}

/// Returns a row's answer and the memory that it takes, if its body is in the row.
pub(crate) fn in_memory(row: &Row) -> Option<(Stored, usize)> {
    let BodyPlace::Row(body) = &row.body else {
        return None;
    };
    let mut stored = Stored::new(row.head.clone(), row.framing, body.clone());
    stored.trailers = row.trailers.clone();
    stored.timing = row.timing.clone();
    let memory = stored.memory(false);
    Some((stored, memory))
}

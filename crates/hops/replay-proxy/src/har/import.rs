//! Reads HAR files, of this program and of others, which write them in many ways.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::wire::{Content, Entry, File, Header, Response};
use crate::{
    fields::Pairs,
    head::Head,
    keep::{Exchange, Keeper, Question, Uploaded},
    received::Received,
    spool::Spooled,
    stored::{Framing, Timing},
};

/// Why a file can't be imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HarError {
    /// An entry can't be used.
    #[error("log.entries[{index}]: '{field}': {what}")]
    Entry {
        /// Number of the entry, from 0 on.
        index: usize,
        /// Its field.
        field: &'static str,
        /// The fault.
        what: String,
    },
    /// A body can't be written.
    #[error("log.entries[{0}]: its body could not be written: {1}")]
    Io(usize, std::io::Error),
    /// It isn't JSON, or not of this form. The message has line and column.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// An exchange that was read, ready to be stored.
#[derive(Debug)]
pub(crate) struct Imported {
    pub(crate) exchanges: Vec<Exchange>,
    /// Entries without an answer: the browser gave up.
    pub(crate) unanswered: usize,
    /// Entries whose file doesn't have the body that they say to have.
    pub(crate) without_body: usize,
}

/// Fields that say how a message was sent, and pseudo-fields of HTTP/2.
const OF_TRANSPORT: [&str; 6] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Reads a file.
///
/// # Errors
/// If it isn't a HAR file, or says what can't be stored. Then nothing of it is.
pub(crate) fn import(text: &[u8], keeper: &Keeper) -> Result<Imported, HarError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let file: File = serde_json::from_slice(text)?;
    let mut imported = Imported {
        exchanges: Vec::new(),
        unanswered: 0,
        without_body: 0,
    };
    for (index, entry) in file.log.entries.into_iter().enumerate() {
        if entry.response.status <= 0 {
            imported.unanswered += 1;
            continue;
        }
        let content = &entry.response.content;
        if content.text.is_none() && content.size > 0 {
            imported.without_body += 1;
        }
        imported.exchanges.push(exchange(index, entry, keeper)?);
    }
    Ok(imported)
}

fn exchange(index: usize, entry: Entry, keeper: &Keeper) -> Result<Exchange, HarError> {
    let bad = |field, what: String| HarError::Entry { index, field, what };
    let io = |error| HarError::Io(index, error);
    let method = entry.request.method;
    if method.is_empty()
        || !method
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return Err(bad(
            "request.method",
            format!("'{method}': expected a method"),
        ));
    }
    let target = target(&entry.request.url).ok_or_else(|| {
        bad(
            "request.url",
            format!("'{}': expected a URL", entry.request.url),
        )
    })?;
    let fields = pairs(&entry.request.headers, &[])
        .map_err(|name| bad("request.headers", format!("'{name}': expected a field")))?;
    let sent = match &entry.request.post_data {
        Some(content) => body(content).map_err(|what| bad("request.postData.text", what))?,
        None => Bytes::new(),
    };
    let upload = uploaded(keeper, sent).map_err(io)?;
    let response = entry.response;
    let answer = body(&response.content).map_err(|what| bad("response.content.text", what))?;
    let (head, framing) =
        head(&response, answer.len()).map_err(|(field, what)| bad(field, what))?;
    let requested_ms = match entry.started_date_time.as_str() {
        "" => crate::clock::now_ms(),
        started => started
            .parse()
            .map(jiff::Timestamp::as_millisecond)
            .map_err(|_| bad("startedDateTime", format!("'{started}': expected a time")))?,
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "milliseconds, limited before"
    )]
    let time_ms = entry.time.clamp(0.0, 1e12) as i64;
    let mut spooled = Spooled::whole(&keeper.files, answer).map_err(io)?;
    spooled.timing = response
        .timing
        .as_ref()
        .and_then(|timing| Timing::decode(&STANDARD.decode(timing).ok()?, spooled.length));
    let trailers = response
        .trailers
        .as_ref()
        .and_then(|it| STANDARD.decode(it).ok());
    Ok(Exchange {
        question: Question {
            method,
            target,
            fields,
        },
        upload,
        received: Received {
            head,
            framing,
            requested_ms,
            received_ms: requested_ms.saturating_add(time_ms),
        },
        body: spooled,
        trailers: trailers.map(Bytes::from),
    })
}

fn uploaded(keeper: &Keeper, sent: Bytes) -> std::io::Result<Option<Uploaded>> {
    if sent.is_empty() {
        return Ok(None);
    }
    let mut reader = keeper.keys.read_body();
    reader.push(&sent);
    let key = keeper.keys.body_read(&reader);
    let body = Spooled::whole(&keeper.files, sent)?;
    Ok(Some(Uploaded { body, key }))
}

/// Returns the target of a URL, which may be a target itself.
fn target(url: &str) -> Option<String> {
    let url = url.split('#').next()?;
    let rest = match url.split_once("://") {
        Some((_, rest)) => match rest.find(['/', '?']) {
            Some(at) => &rest[at..],
            None => "/",
        },
        None => url,
    };
    let target = if rest.starts_with('?') {
        format!("/{rest}")
    } else {
        rest.to_owned()
    };
    let is_plain = target.bytes().all(|byte| byte.is_ascii_graphic());
    (target.starts_with('/') && is_plain).then_some(target)
}

/// Returns fields without those of the transport and `without`.
fn pairs(headers: &[Header], without: &[&str]) -> Result<Pairs, String> {
    let mut pairs = Vec::new();
    for Header { name, value } in headers {
        let lower = name.to_ascii_lowercase();
        let is_out = OF_TRANSPORT.contains(&lower.as_str()) || without.contains(&lower.as_str());
        if name.starts_with(':') || is_out {
            continue;
        }
        let is_name = hyper::header::HeaderName::from_bytes(name.as_bytes()).is_ok();
        // Some browsers join repeated fields by line feeds.
        for value in value.split('\n') {
            if !is_name || hyper::header::HeaderValue::from_str(value).is_err() {
                return Err(name.clone());
            }
            pairs.push((name.clone().into_bytes(), value.as_bytes().to_vec()));
        }
    }
    Ok(pairs)
}

fn body(content: &Content) -> Result<Bytes, String> {
    let Some(text) = &content.text else {
        return Ok(Bytes::new());
    };
    match content.encoding.as_deref() {
        Some(coding) if coding.eq_ignore_ascii_case("base64") => {
            let compact: String = text
                .chars()
                .filter(|it| !it.is_ascii_whitespace())
                .collect();
            STANDARD
                .decode(compact)
                .map(Bytes::from)
                .map_err(|error| format!("base64: {error}"))
        }
        Some(coding) if !coding.is_empty() => Err(format!("'{coding}': expected 'base64'")),
        _ => Ok(text.clone().into()),
    }
}

/// Makes the head of an answer.
fn head(response: &Response, length: usize) -> Result<(Head, Framing), (&'static str, String)> {
    let framing = response.framing.and_then(Framing::of).unwrap_or_default();
    if let Some(exact) = &response.head {
        let bytes = STANDARD
            .decode(exact)
            .map_err(|error| ("response._head", error.to_string()))?;
        let head =
            Head::parse(bytes.into()).map_err(|error| ("response._head", error.to_string()))?;
        return Ok((head, framing));
    }
    let status = u16::try_from(response.status)
        .ok()
        .filter(|it| (100..=999).contains(it));
    let status = status.ok_or_else(|| {
        (
            "response.status",
            format!("'{}': expected 100 to 999", response.status),
        )
    })?;
    let without: &[&str] = match response.content.as_sent {
        true => &[],
        // The text is the body decoded, so its coding and length are others.
        false => &["content-encoding", "content-length"],
    };
    let fields = pairs(&response.headers, without)
        .map_err(|name| ("response.headers", format!("'{name}': expected a field")))?;
    let reason: String = response
        .status_text
        .chars()
        .filter(|it| !it.is_control())
        .collect();
    let mut head = Head::build(status, reason.as_bytes());
    for (name, value) in &fields {
        head.push(name, value);
    }
    if !response.content.as_sent && !crate::stored::is_bodiless(status) {
        head.push(b"content-length", length.to_string().as_bytes());
    }
    Ok((head.finish(status), framing))
}

//! Answers from what is stored: whole, in part, without their body, or "not modified".

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_proxy::{BodyError, ProxyBody};
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body, Frame, SizeHint},
    ext::ReasonPhrase,
    header::{
        ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, HeaderValue, TRAILER,
    },
};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    date,
    fields::{Asked, Fields},
    head::Head,
    stored::{Framing, Piece, Stored, is_bodiless},
};

/// An answer as bytes: they can be written as they are.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The whole head.
    pub head: Bytes,
    /// The body; empty for HEAD.
    pub body: Bytes,
}

/// When the pieces of a recorded body are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ReplayTiming {
    /// At the times at which they came.
    AsRecorded,
    /// At once.
    #[default]
    None,
}

/// The part of a stored answer that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    NotModified,
    /// Bytes from the first to before the second.
    Range(usize, usize),
    Unsatisfiable,
    Whole,
}

/// Returns a stored answer as bytes, if the request asks for all of it. Works without hyper.
pub fn ready<F: Fields + ?Sized>(stored: &Stored, asked: &Asked<'_, F>) -> Option<Ready> {
    let is_head = asked.method == "HEAD";
    if !stored.is_plain() || part(stored, asked) != Part::Whole {
        return None;
    }
    let body = if is_head {
        Bytes::new()
    } else {
        stored.body.clone()
    };
    Some(Ready {
        head: stored.ready.clone(),
        body,
    })
}

/// Finds out which part a request asks for (RFC 9110, sections 13 and 14).
pub(crate) fn part<F: Fields + ?Sized>(stored: &Stored, asked: &Asked<'_, F>) -> Part {
    if stored.head.status != 200 || !matches!(asked.method, "GET" | "HEAD") {
        return Part::Whole;
    }
    let (mut is_conditional, mut is_range) = (false, false);
    for (name, _) in asked.fields.iter() {
        is_conditional |= name.eq_ignore_ascii_case(b"if-none-match")
            || name.eq_ignore_ascii_case(b"if-modified-since");
        is_range |= name.eq_ignore_ascii_case(b"range");
    }
    if is_conditional && is_not_modified(&stored.head, asked.fields) {
        return Part::NotModified;
    }
    if is_range && asked.method == "GET" && if_range_holds(&stored.head, asked.fields) {
        return range(asked.fields, stored.body.len());
    }
    Part::Whole
}

/// Returns whether the client has what is stored (RFC 9110, section 13.2.2).
pub(crate) fn is_not_modified<F: Fields + ?Sized>(head: &Head, asked: &F) -> bool {
    if asked.has("if-none-match") {
        let own = head.get("etag").map(opaque);
        let mut tags = asked.list("if-none-match");
        return tags.any(|tag| tag == b"*" || Some(opaque(tag)) == own);
    }
    // Without a date of its last change, the date of the answer says that it is no newer
    // (RFC 9111, section 4.3.2).
    let own = head.get("last-modified").or_else(|| head.get("date"));
    let (Some(since), Some(own)) = (asked.get("if-modified-since"), own) else {
        return false;
    };
    since == own
        || match (date::parse(since), date::parse(own)) {
            (Some(since), Some(own)) => own <= since,
            _ => false,
        }
}

/// Returns a tag without its mark of weakness.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn if_range_holds<F: Fields + ?Sized>(head: &Head, asked: &F) -> bool {
    let Some(condition) = asked.get("if-range") else {
        return true;
    };
    match condition.starts_with(b"\"") {
        true => head.get("etag") == Some(condition),
        // A weak tag never holds (RFC 9110, section 13.1.5).
        false => !condition.starts_with(b"W/") && head.get("last-modified") == Some(condition),
    }
}

/// Reads a range. What isn't understood, and several ranges, get the whole.
fn range<F: Fields + ?Sized>(asked: &F, length: usize) -> Part {
    let mut all = asked.all("range");
    let (Some(value), None) = (all.next(), all.next()) else {
        return Part::Whole;
    };
    let range = str::from_utf8(value)
        .ok()
        .and_then(|text| text.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.trim().split_once('-')) else {
        return Part::Whole;
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(first) || !is_number(last) || first.is_empty() && last.is_empty() {
        return Part::Whole;
    }
    let number = |text: &str| text.parse::<usize>().unwrap_or(usize::MAX);
    if first.is_empty() {
        return match number(last).min(length) {
            0 => Part::Unsatisfiable,
            suffix => Part::Range(length - suffix, length),
        };
    }
    let first = number(first);
    let last = if last.is_empty() {
        usize::MAX
    } else {
        number(last)
    };
    if last < first {
        return Part::Whole;
    }
    match first < length {
        true => Part::Range(first, last.saturating_add(1).min(length)),
        false => Part::Unsatisfiable,
    }
}

/// Makes an answer for hyper. `extra` replaces fields of the same name.
pub(crate) fn respond<F: Fields + ?Sized>(
    stored: &Arc<Stored>,
    asked: &Asked<'_, F>,
    extra: &[(HeaderName, HeaderValue)],
    timing: ReplayTiming,
) -> Response<ProxyBody> {
    let part = part(stored, asked);
    let mut fields = map(&stored.head);
    for (name, value) in extra {
        fields.insert(name, value.clone());
    }
    let is_head = asked.method == "HEAD";
    let mut status = StatusCode::from_u16(stored.head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let length = stored.body.len();
    let body = match part {
        Part::NotModified => {
            status = StatusCode::NOT_MODIFIED;
            fields.remove(CONTENT_LENGTH);
            ProxyBody::own("")
        }
        Part::Range(from, to) => {
            status = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {from}-{}/{length}", to - 1);
            fields.insert(CONTENT_RANGE, value(&range));
            fields.insert(CONTENT_LENGTH, HeaderValue::from(to - from));
            ProxyBody::own(stored.body.slice(from..to))
        }
        Part::Unsatisfiable => {
            status = StatusCode::RANGE_NOT_SATISFIABLE;
            let kept = [ETAG, ACCEPT_RANGES].map(|name| (fields.remove(&name), name));
            fields.clear();
            for (value, name) in kept {
                value.map(|value| fields.insert(name, value));
            }
            fields.insert(CONTENT_RANGE, value(&format!("bytes */{length}")));
            fields.insert(CONTENT_LENGTH, HeaderValue::from(0));
            ProxyBody::own("")
        }
        Part::Whole if is_head || is_bodiless(status.as_u16()) => {
            if is_head && !fields.contains_key(CONTENT_LENGTH) && stored.framing != Framing::Chunked
            {
                fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            ProxyBody::own("")
        }
        Part::Whole if stored.framing == Framing::Chunked => {
            announce(stored, &mut fields);
            ProxyBody::hop(Box::pin(Playing::new(stored, timing)))
        }
        Part::Whole => ProxyBody::own(stored.body.clone()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    if part == Part::Whole {
        set_reason(&stored.head, &mut response);
    }
    response
}
/// Makes an answer with a head alone.
pub(crate) fn empty(head: &Head) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::own(""));
    *response.headers_mut() = map(head);
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    set_reason(head, &mut response);
    response
}

/// Keeps a reason that isn't the usual one.
pub(crate) fn set_reason(head: &Head, response: &mut Response<ProxyBody>) {
    let usual = response.status().canonical_reason().map(str::as_bytes);
    if usual != Some(head.reason())
        && let Ok(reason) = ReasonPhrase::try_from(head.reason())
    {
        response.extensions_mut().insert(reason);
    }
}

/// Makes hyper's map of a head's fields. Their values share the head's memory.
fn map(head: &Head) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(16);
    for (name, value) in head.shared() {
        // Both were parsed as such.
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_maybe_shared(value),
        ) {
            fields.append(name, value);
        }
    }
    fields
}

/// Announces the trailers, as hyper sends no others.
fn announce(stored: &Stored, fields: &mut HeaderMap) {
    fields.remove(CONTENT_LENGTH);
    let Some(trailers) = &stored.trailers else {
        return;
    };
    if !fields.contains_key(TRAILER) {
        for (name, _) in crate::store::rows::fields(trailers) {
            if let Ok(name) = HeaderValue::from_bytes(&name) {
                fields.append(TRAILER, name);
            }
        }
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A body that is sent in the pieces in which it came.
struct Playing {
    stored: Arc<Stored>,
    /// Pieces that are left, the next one last.
    pieces: Vec<Piece>,
    at: usize,
    begin: Instant,
    /// Set if the times count.
    pause: Option<Pin<Box<Sleep>>>,
    has_trailers: bool,
}

impl Playing {
    fn new(stored: &Arc<Stored>, timing: ReplayTiming) -> Self {
        let whole = Piece {
            at_us: 0,
            bytes: stored.body.len() as u64,
        };
        let mut pieces = match &stored.timing {
            Some(timing) => timing.0.clone(),
            None => vec![whole],
        };
        pieces.reverse();
        let begin = Instant::now();
        Self {
            stored: Arc::clone(stored),
            pieces,
            at: 0,
            begin,
            pause: (timing == ReplayTiming::AsRecorded).then(|| Box::pin(sleep_until(begin))),
            has_trailers: stored.trailers.is_some(),
        }
    }
}

impl Body for Playing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while let Some(&piece) = self.pieces.last() {
            let due = self.begin + Duration::from_micros(piece.at_us);
            if let Some(pause) = &mut self.pause {
                pause.as_mut().reset(due);
                ready!(pause.as_mut().poll(context));
            }
            self.pieces.pop();
            let length = usize::try_from(piece.bytes).unwrap_or(usize::MAX);
            let end = self.at.saturating_add(length).min(self.stored.body.len());
            let data = self.stored.body.slice(self.at..end);
            self.at = end;
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        if std::mem::take(&mut self.has_trailers)
            && let Some(trailers) = &self.stored.trailers
        {
            return Poll::Ready(Some(Ok(Frame::trailers(trailer_map(trailers)))));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && !self.has_trailers
    }

    fn size_hint(&self) -> SizeHint {
        // Without a length, so that it is sent in chunks again.
        SizeHint::default()
    }
}

/// Makes hyper's map of trailers.
pub(crate) fn trailer_map(lines: &[u8]) -> HeaderMap {
    let fields = crate::store::rows::fields(lines).into_iter();
    let pairs = fields.filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(&name).ok()?;
        Some((name, HeaderValue::from_bytes(&value).ok()?))
    });
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name, value);
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part_of(fields: &[(&str, &str)]) -> Part {
        let head = "HTTP/1.1 200 OK\r\nETag: W/\"a\"\r\nLast-Modified: \
            Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        let head = Head::parse(head.into()).expect("a head");
        let stored = Stored::new(head, Framing::Length, "0123456789".into());
        let fields: Vec<(Vec<u8>, Vec<u8>)> = fields
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        part(
            &stored,
            &Asked {
                method: "GET",
                target: "/",
                fields: &fields,
            },
        )
    }

    #[test]
    fn a_request_gets_the_part_that_it_asks_for() {
        for (range, expected) in [
            ("bytes=0-0", Part::Range(0, 1)),
            ("bytes=2-", Part::Range(2, 10)),
            ("bytes=-3", Part::Range(7, 10)),
            ("bytes=-99", Part::Range(0, 10)),
            ("bytes=5-99999999999999999999999", Part::Range(5, 10)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=3-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("lines=0-1", Part::Whole),
        ] {
            assert_eq!(part_of(&[("Range", range)]), expected, "{range}");
        }
        let stale = ("If-Range", "\"b\"");
        assert_eq!(part_of(&[("Range", "bytes=0-0"), stale]), Part::Whole);
        assert_eq!(
            part_of(&[("If-Range", "W/\"a\""), ("Range", "bytes=0-0")]),
            Part::Whole
        );
    }

    #[test]
    fn only_a_client_that_has_it_is_told_that_nothing_changed() {
        for (fields, expected) in [
            (vec![("If-None-Match", "\"b\", \"a\"")], Part::NotModified),
            (vec![("if-none-match", "*")], Part::NotModified),
            (vec![("If-None-Match", "\"b\"")], Part::Whole),
            (
                vec![("If-Modified-Since", "Sun, 06 Nov 1994 08:49:38 GMT")],
                Part::NotModified,
            ),
            (
                vec![("If-Modified-Since", "Sun, 06 Nov 1994 08:49:36 GMT")],
                Part::Whole,
            ),
            (vec![("If-Modified-Since", "nonsense")], Part::Whole),
            (vec![], Part::Whole),
        ] {
            assert_eq!(part_of(&fields), expected, "{fields:?}");
        }
    }
}

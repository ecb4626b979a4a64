//! The one list of endpoints: how each is routed and what it must answer.

use std::sync::Arc;

use axum::routing::{MethodRouter, get, post};
use serde::Serialize;

use crate::{memory::Payloads, payload, routes};

/// Longest body of `/bytes/{n}`, in bytes.
pub(crate) const BYTES_MAX: u64 = 64 << 20;
/// Longest body of `/stream`, in bytes: chunks × bytes.
pub(crate) const STREAM_BYTES_MAX: u64 = 64 << 20;
/// Most chunks of `/stream`.
pub(crate) const STREAM_CHUNKS_MAX: u64 = 100_000;
/// Longest pause of `/stream` and of `/delay/{ms}`, in milliseconds.
pub(crate) const DELAY_MS_MAX: u64 = 60_000;

/// A kind of request that the origin answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/bytes/{n}`: n numbered bytes.
    Bytes,
    /// `/delay/{ms}`: "ok" after a pause.
    Delay,
    /// `/echo`: the request's body.
    Echo,
    /// `/health`: "ok", once the server is ready.
    Health,
    /// `/large`: a repeated sentence, built once.
    Large,
    /// `/large-fresh`: the same as `/large`, built per request.
    LargeFresh,
    /// `/small`: "ok".
    Small,
    /// `/stream`: chunks with pauses between them.
    Stream,
}

/// The answer that a request must get; anything else is a wrong answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expectation {
    /// Path and query, as requested.
    pub target: String,
    /// HTTP method.
    pub method: &'static str,
    /// HTTP status.
    pub status: u16,
    /// Length of the body in bytes; `None` if it is that of the request's body.
    pub length_bytes: Option<u64>,
    /// SHA-256 of the body in lower-case hexadecimal; `None` if it is that of the request's body.
    pub sha256: Option<String>,
    /// Description of the body in one line.
    pub about: &'static str,
}

/// Reason why there is no expectation for a target.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// A parameter is out of its bounds.
    #[error("'{target}': {expected}")]
    BadParameter {
        /// Path and query, as requested.
        target: String,
        /// Message that says what was expected.
        expected: String,
    },
    /// No endpoint has that path.
    #[error("unknown endpoint '{target}': expected one of {known}")]
    Unknown {
        /// Path and query, as requested.
        target: String,
        /// The routes of all endpoints.
        known: String,
    },
}

impl Endpoint {
    /// All endpoints, in the order in which they are listed.
    pub const ALL: [Self; 8] = [
        Self::Small,
        Self::Large,
        Self::LargeFresh,
        Self::Bytes,
        Self::Echo,
        Self::Stream,
        Self::Delay,
        Self::Health,
    ];

    /// Returns the route, in the router's syntax.
    pub fn route(self) -> &'static str {
        match self {
            Self::Bytes => "/bytes/{n}",
            Self::Delay => "/delay/{ms}",
            Self::Echo => "/echo",
            Self::Health => "/health",
            Self::Large => "/large",
            Self::LargeFresh => "/large-fresh",
            Self::Small => "/small",
            Self::Stream => "/stream",
        }
    }

    /// Returns the HTTP method.
    pub fn method(self) -> &'static str {
        match self {
            Self::Echo => "POST",
            _ => "GET",
        }
    }

    /// Returns a target that this endpoint answers, for listings and for smoke tests.
    pub fn example(self) -> &'static str {
        match self {
            Self::Bytes => "/bytes/65536",
            Self::Delay => "/delay/5",
            Self::Stream => "/stream?chunks=8&bytes=1024&interval_ms=1",
            _ => self.route(),
        }
    }

    /// Describes the body in one line.
    pub fn about(self) -> &'static str {
        match self {
            Self::Bytes => "n numbered bytes, up to 64 MiB, streamed above 1 MiB",
            Self::Delay => "\"ok\" after a pause of that many milliseconds",
            Self::Echo => "the request's body",
            Self::Health => "\"ok\"",
            Self::Large => "a 45-byte sentence repeated, built once",
            Self::LargeFresh => "the same as /large, built per request",
            Self::Small => "\"ok\"",
            Self::Stream => "chunked: that many chunks of that many bytes, with a pause between",
        }
    }

    pub(crate) fn handler(self) -> MethodRouter<Arc<Payloads>> {
        match self {
            Self::Bytes => get(routes::bytes),
            Self::Delay => get(routes::delay),
            Self::Echo => post(routes::echo),
            Self::Health | Self::Small => get(routes::ok),
            Self::Large => get(routes::large),
            Self::LargeFresh => get(routes::large_fresh),
            Self::Stream => get(routes::stream),
        }
    }

    /// Returns the body with which this endpoint answers `target`; `None` if it is the request's.
    fn body(self, target: &str) -> Result<Option<Body>, String> {
        Ok(match self {
            Self::Bytes => Some(Body::Sequence(routes::parse_bytes(last_segment(target))?)),
            Self::Delay => {
                routes::parse_delay(last_segment(target))?;
                Some(Body::Ok)
            }
            Self::Echo => None,
            Self::Health | Self::Small => Some(Body::Ok),
            Self::Large | Self::LargeFresh => Some(Body::Large),
            Self::Stream => {
                let query = target.split_once('?').map_or("", |(_, query)| query);
                Some(Body::Sequence(
                    routes::StreamQuery::parse(query)?.length_bytes(),
                ))
            }
        })
    }

    fn matches(self, target: &str) -> bool {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        match self.route().split_once('{') {
            Some((prefix, _)) => path
                .strip_prefix(prefix)
                .is_some_and(|rest| !rest.contains('/')),
            None => path == self.route(),
        }
    }

    fn expectation(self, target: &str) -> Result<Expectation, DescribeError> {
        let body = self
            .body(target)
            .map_err(|expected| DescribeError::BadParameter {
                target: target.to_owned(),
                expected,
            })?;
        Ok(Expectation {
            target: target.to_owned(),
            method: self.method(),
            status: 200,
            length_bytes: body.map(Body::length_bytes),
            sha256: body.map(Body::sha256),
            about: self.about(),
        })
    }
}

/// Returns the answer that `target` must get.
///
/// # Errors
/// [`DescribeError`] if no endpoint has that path, or a parameter is out of its bounds.
pub fn describe(target: &str) -> Result<Expectation, DescribeError> {
    match Endpoint::ALL
        .into_iter()
        .find(|endpoint| endpoint.matches(target))
    {
        Some(endpoint) => endpoint.expectation(target),
        None => Err(DescribeError::Unknown {
            target: target.to_owned(),
            known: Endpoint::ALL
                .map(|endpoint| format!("'{}'", endpoint.route()))
                .join(", "),
        }),
    }
}

/// Returns the answers that `targets` must get. If there are none, one example of every endpoint is
/// described.
///
/// # Errors
/// As [`describe`], for the first that fails.
pub fn describe_all(targets: &[String]) -> Result<Vec<Expectation>, DescribeError> {
    if targets.is_empty() {
        let examples = Endpoint::ALL.into_iter();
        return examples.map(|one| describe(one.example())).collect();
    }
    targets.iter().map(|target| describe(target)).collect()
}

/// A body that the origin makes by itself.
#[derive(Clone, Copy)]
enum Body {
    Large,
    Ok,
    Sequence(u64),
}

impl Body {
    fn length_bytes(self) -> u64 {
        match self {
            Self::Large => payload::LARGE_BYTES as u64,
            Self::Ok => routes::OK.len() as u64,
            Self::Sequence(length_bytes) => length_bytes,
        }
    }

    fn sha256(self) -> String {
        match self {
            Self::Large => payload::sha256_hex([payload::large()]),
            Self::Ok => payload::sha256_hex([routes::OK.into()]),
            Self::Sequence(length_bytes) => payload::sha256_hex(payload::pieces(length_bytes)),
        }
    }
}

fn last_segment(target: &str) -> &str {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    path.rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_described_by_its_own_endpoint() {
        for endpoint in Endpoint::ALL {
            let expectation = describe(endpoint.example()).expect("the example is valid");
            assert_eq!(expectation.about, endpoint.about(), "{endpoint:?}");
        }
    }

    #[test]
    fn an_unknown_target_lists_what_there_is() {
        let message = describe("/smal").unwrap_err().to_string();
        assert!(
            message.starts_with("unknown endpoint '/smal': expected one of "),
            "{message}"
        );
        assert!(message.contains("'/bytes/{n}'"), "{message}");
    }

    #[test]
    fn parameters_out_of_bounds_say_what_was_expected() {
        for target in [
            "/bytes/67108865",
            "/bytes/",
            "/bytes/-1",
            "/delay/60001",
            "/stream?chunk=1",
        ] {
            let message = describe(target).unwrap_err().to_string();
            assert!(message.contains("expected"), "{target}: {message}");
        }
    }
}

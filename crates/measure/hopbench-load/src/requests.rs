//! The requests of a load: kinds that take turns by their weights, each with its targets in turn.
//! Which request comes when depends on nothing but its number.

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Uri,
    header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT},
    http::uri::PathAndQuery,
};

use crate::{
    Options,
    client::front::Protocol,
    plan::{Expectation, LoadPlan, PlannedRequest},
    tally::Expected,
};

/// The requests of a load.
#[derive(Debug)]
pub(crate) struct Requests {
    kinds: Vec<Kind>,
    /// Kinds in the order of asking, over and over.
    cycle: Vec<Place>,
}

/// A place in the cycle: a kind, and how many of that kind come before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    kind: usize,
    before: u64,
}

#[derive(Debug)]
struct Kind {
    name: String,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
    targets: Vec<Uri>,
    weight: u64,
    expected: Vec<Expected>,
}

/// One of a load's requests.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Turn {
    pub(crate) kind: usize,
    /// Index of the target.
    pub(crate) target: usize,
}

impl Requests {
    /// Returns the one request of a command line, or those of a plan.
    pub(crate) fn of(
        options: &Options,
        plan: Option<&LoadPlan>,
        host: &str,
        target: Uri,
    ) -> anyhow::Result<Self> {
        let kinds = match plan {
            Some(plan) => {
                let kinds = plan.requests.iter();
                let kinds = kinds.map(|request| {
                    let kind = Kind::planned(request, options, host);
                    kind.with_context(|| format!("request '{}'", request.name))
                });
                kinds.collect::<anyhow::Result<_>>()?
            }
            None => vec![Kind {
                name: options.method.clone(),
                method: method(&options.method)?,
                headers: headers(host, options.no_keepalive)?,
                body: body(options.body.as_deref())?,
                targets: vec![target],
                weight: 1,
                expected: vec![options.expected()],
            }],
        };
        let kinds = match options.protocol {
            Protocol::Http1 => kinds,
            Protocol::H2 => {
                let kinds = kinds.into_iter().map(|kind| kind.in_h2(options));
                kinds.collect::<anyhow::Result<_>>()?
            }
        };
        let weights: Vec<u64> = kinds.iter().map(|kind: &Kind| kind.weight).collect();
        Ok(Self {
            kinds,
            cycle: cycle(&weights),
        })
    }

    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.kinds.iter().map(|kind| kind.name.as_str())
    }

    /// Returns the request with this number.
    pub(crate) fn turn(&self, number: u64) -> Turn {
        let length = self.cycle.len() as u64;
        let (round, place) = (number / length, number % length);
        let Place { kind, before } = self.cycle[usize::try_from(place).unwrap_or_default()];
        let Kind {
            weight, targets, ..
        } = &self.kinds[kind];
        let of_kind = round * weight + before;
        let target = of_kind % targets.len() as u64;
        Turn {
            kind,
            target: usize::try_from(target).unwrap_or_default(),
        }
    }

    pub(crate) fn request(&self, turn: Turn) -> Request<Full<Bytes>> {
        let kind = &self.kinds[turn.kind];
        let mut request = Request::new(Full::new(kind.body.clone()));
        *request.method_mut() = kind.method.clone();
        *request.uri_mut() = kind.targets[turn.target].clone();
        *request.headers_mut() = kind.headers.clone();
        request
    }

    pub(crate) fn expected(&self, turn: Turn) -> &Expected {
        match self.kinds[turn.kind].expected.as_slice() {
            [all] => all,
            each => &each[turn.target],
        }
    }
}

impl Kind {
    fn planned(request: &PlannedRequest, options: &Options, host: &str) -> anyhow::Result<Self> {
        let mut headers = headers(host, options.no_keepalive)?;
        let mut own = HeaderMap::new();
        for (name, value) in &request.headers {
            own.append(header_name(name)?, header_value(name, value)?);
        }
        headers.extend(own);
        let target = |target: &String| {
            let uri = target.parse::<Uri>();
            uri.with_context(|| format!("target '{target}': expected a path and query"))
        };
        let targets: anyhow::Result<Vec<Uri>> = request.targets.iter().map(target).collect();
        let expected = request.expect.iter().map(Expected::planned);
        Ok(Self {
            name: request.name.clone(),
            method: method(&request.method)?,
            headers,
            body: body(request.body.as_deref())?,
            targets: targets?,
            weight: request.weight.into(),
            expected: expected.collect::<anyhow::Result<_>>()?,
        })
    }

    /// Returns the same for HTTP/2: the host stands in the target, and a request says nothing about
    /// its connection (RFC 9113, section 8.2.2).
    fn in_h2(mut self, options: &Options) -> anyhow::Result<Self> {
        let scheme: Uri = options.url.parse()?;
        self.headers.remove(CONNECTION);
        let host = self
            .headers
            .remove(HOST)
            .context("a request without a host")?;
        for target in &mut self.targets {
            let absolute = Uri::builder()
                .scheme(scheme.scheme_str().unwrap_or("http"))
                .authority(host.as_bytes())
                .path_and_query(target.path_and_query().map_or("/", PathAndQuery::as_str));
            *target = absolute.build().with_context(|| {
                let host = String::from_utf8_lossy(host.as_bytes());
                format!("'{host}': expected HOST or HOST:PORT, since HTTP/2 has it in the target")
            })?;
        }
        Ok(self)
    }
}

impl Expected {
    fn planned(planned: &Expectation) -> anyhow::Result<Self> {
        let headers = planned.headers.iter().map(|(name, value)| {
            let value = value.as_ref().map(|value| header_value(name, value));
            Ok((header_name(name)?, value.transpose()?))
        });
        Ok(Self {
            status: planned.status,
            length: planned.length,
            sha256: planned.sha256.clone(),
            headers: headers.collect::<anyhow::Result<_>>()?,
        })
    }
}

/// Orders kinds so that each has its share of any part of the cycle, as nearly as possible: the
/// kind comes next that is furthest behind its share (smooth weighted round-robin, as in nginx).
fn cycle(weights: &[u64]) -> Vec<Place> {
    let sum: u64 = weights.iter().sum();
    let mut credits = vec![0_i64; weights.len()];
    let mut counts = vec![0_u64; weights.len()];
    let mut cycle = Vec::new();
    for _ in 0..sum {
        for (credit, weight) in credits.iter_mut().zip(weights) {
            *credit += i64::try_from(*weight).unwrap_or(i64::MAX);
        }
        // Of equals, the first.
        let ahead = (0..credits.len()).rev().max_by_key(|kind| credits[*kind]);
        let kind = ahead.unwrap_or_default();
        credits[kind] -= i64::try_from(sum).unwrap_or(i64::MAX);
        cycle.push(Place {
            kind,
            before: counts[kind],
        });
        counts[kind] += 1;
    }
    cycle
}

fn method(name: &str) -> anyhow::Result<Method> {
    Method::from_bytes(name.as_bytes())
        .with_context(|| format!("'{name}' is not an HTTP method; try 'GET'"))
}

fn body(file: Option<&std::path::Path>) -> anyhow::Result<Bytes> {
    let Some(file) = file else {
        return Ok(Bytes::new());
    };
    let bytes = std::fs::read(file);
    let bytes =
        bytes.with_context(|| format!("could not read the body from '{}'", file.display()))?;
    Ok(bytes.into())
}

fn header_name(name: &str) -> anyhow::Result<HeaderName> {
    let parsed = HeaderName::from_bytes(name.as_bytes());
    parsed.with_context(|| format!("'{name}' is not the name of a header field"))
}

fn header_value(name: &str, value: &str) -> anyhow::Result<HeaderValue> {
    let parsed = HeaderValue::from_bytes(value.as_bytes());
    parsed.with_context(|| format!("'{value}' is not a value of the header field '{name}'"))
}

/// Returns the headers that oha sends, except for its name: both clients send the same request, and
/// so does hopbench when it verifies an answer. A test of hopbench compares them.
fn headers(host: &str, no_keepalive: bool) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(
        ACCEPT_ENCODING,
        HeaderValue::from_static("gzip, compress, deflate, br"),
    );
    let program = concat!("hopbench-load/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(program));
    headers.insert(HOST, HeaderValue::from_str(host)?);
    if no_keepalive {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_take_turns_by_their_weights() {
        let kinds = |weights: &[u64]| {
            let cycle = cycle(weights);
            let kinds: Vec<usize> = cycle.iter().map(|place| place.kind).collect();
            kinds
        };
        assert_eq!(kinds(&[1]), [0]);
        assert_eq!(kinds(&[1, 1]), [0, 1]);
        assert_eq!(kinds(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(kinds(&[0, 2]), [1, 1]);
        let before: Vec<u64> = cycle(&[2, 1]).iter().map(|place| place.before).collect();
        assert_eq!(before, [0, 0, 1]);
    }
}

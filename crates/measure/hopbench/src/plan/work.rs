//! The requests of a load, with the answers that they must get.

use std::collections::BTreeMap;

use hyper::body::Bytes;
use serde::Deserialize;

use crate::{
    catalog::{Body, ExpectedAnswer, PathDefinition, RequestDefinition, Target},
    mistake::Mistake,
    observe::http::sha256_hex,
};

/// Requests of a load.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    /// Each name once.
    pub(crate) requests: Vec<PlannedRequest>,
    /// Whether it is an endpoint: one target of the reference, and no more.
    pub(crate) is_endpoint: bool,
}

/// A kind of request, ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct PlannedRequest {
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) targets: Vec<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Bytes>,
    pub(crate) weight: u32,
    /// One answer for all targets, or one for each.
    pub(crate) expect: Vec<ExpectedAnswer>,
}

/// An item of the list that a describing command prints.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Description {
    pub(crate) target: String,
    method: String,
    status: u16,
    /// `None`: the length of the request's body.
    length_bytes: Option<u64>,
    sha256: Option<String>,
}

/// Default length of a request body, in bytes, for an endpoint that takes one.
const BODY_BYTES: u64 = 1024;

impl Work {
    /// Returns the work of an endpoint, and its target with the length of the body.
    pub(crate) fn endpoint(
        description: &Description,
        mut target: Target,
    ) -> anyhow::Result<(Self, Target)> {
        if description.takes_body() {
            target.body_bytes = target.body_bytes.or(Some(BODY_BYTES));
        } else if target.body_bytes.is_some() {
            let message = format!("endpoint '{target}': '{}' takes no body", target.path);
            return Err(Mistake(message).into());
        }
        let body = target.body_bytes.map(generated);
        let request = PlannedRequest {
            name: target.to_string(),
            method: description.method.clone(),
            targets: vec![target.path.clone()],
            headers: Vec::new(),
            expect: vec![description.answer(body.as_ref())],
            body,
            weight: 1,
        };
        let work = Self {
            requests: vec![request],
            is_endpoint: true,
        };
        Ok((work, target))
    }

    /// Returns the work of several requests. `descriptions` has all targets of requests without an
    /// expected answer.
    pub(crate) fn mix(
        definitions: &[RequestDefinition],
        descriptions: &BTreeMap<String, Description>,
    ) -> anyhow::Result<Self> {
        let requests = definitions.iter().map(|definition| {
            let request = PlannedRequest::new(definition, descriptions);
            request.map_err(|message| {
                Mistake(format!("request '{}': {message}", definition.name)).into()
            })
        });
        Ok(Self {
            requests: requests.collect::<anyhow::Result<_>>()?,
            is_endpoint: false,
        })
    }

    /// Returns the same work with the answers that a path gives instead.
    pub(crate) fn on(&self, path: &PathDefinition) -> Self {
        let mut work = self.clone();
        for request in &mut work.requests {
            if let Some(answer) = path.expect.get(&request.name) {
                request.expect = vec![answer.clone()];
                // The load generator compares what its options can't say.
                work.is_endpoint &= answer.headers.is_empty() && answer.sha256.is_some();
            }
        }
        work
    }

    /// Returns the work of some of the requests only; all if `names` is empty.
    pub(crate) fn only(&self, names: &[String]) -> Self {
        let mut work = self.clone();
        if !names.is_empty() {
            work.requests
                .retain(|request| names.contains(&request.name));
        }
        work
    }

    /// Returns the mean length of a request's body, in bytes.
    pub(crate) fn body_bytes_mean(&self) -> f64 {
        let of = |request: &PlannedRequest| {
            let bytes = request.body.as_ref().map_or(0, Bytes::len) as f64;
            (f64::from(request.weight), bytes)
        };
        let weights: f64 = self.requests.iter().map(|it| of(it).0).sum();
        let bytes = self.requests.iter().map(of);
        bytes.map(|(weight, bytes)| weight * bytes).sum::<f64>() / weights.max(1.0)
    }
}

impl PlannedRequest {
    fn new(
        definition: &RequestDefinition,
        descriptions: &BTreeMap<String, Description>,
    ) -> Result<Self, String> {
        let mut body = definition.body.as_ref().map(|body| match body {
            Body::Generated { length_bytes } => generated(*length_bytes),
            Body::Given(bytes) => bytes.clone(),
        });
        let mut method = definition.method.clone();
        let expect = match &definition.expect {
            Some(answer) => vec![answer.clone()],
            None => {
                let mut answers = Vec::new();
                for target in &definition.targets {
                    let Some(description) = descriptions.get(target) else {
                        return Err(format!("'describe' printed nothing for '{target}'"));
                    };
                    description.accept(&mut method, &mut body, target)?;
                    answers.push(description.answer(body.as_ref()));
                }
                // One for all targets is as good, and shorter.
                if answers.iter().all(|answer| *answer == answers[0]) {
                    answers.truncate(1);
                }
                answers
            }
        };
        let default = if body.is_some() { "POST" } else { "GET" };
        Ok(Self {
            name: definition.name.clone(),
            method: method.unwrap_or_else(|| default.to_owned()),
            targets: definition.targets.clone(),
            headers: definition.headers.clone(),
            body,
            weight: definition.weight,
            expect,
        })
    }
}

impl Description {
    fn takes_body(&self) -> bool {
        self.length_bytes.is_none() || self.sha256.is_none()
    }

    /// Fills in what a request leaves open; fails if the endpoint doesn't take the rest.
    fn accept(
        &self,
        method: &mut Option<String>,
        body: &mut Option<Bytes>,
        target: &str,
    ) -> Result<(), String> {
        let method = method.get_or_insert_with(|| self.method.clone());
        if *method != self.method {
            return Err(format!(
                "'method': '{target}' takes '{}', not '{method}'; say in 'expect' what the \
                 answer is",
                self.method
            ));
        }
        match (self.takes_body(), &body) {
            (true, None) => *body = Some(generated(BODY_BYTES)),
            (false, Some(_)) => {
                return Err(format!(
                    "'{target}' takes no body; say in 'expect' what the answer is"
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn answer(&self, body: Option<&Bytes>) -> ExpectedAnswer {
        let sent = body.map_or(&[][..], |body| body);
        ExpectedAnswer {
            status: self.status,
            length_bytes: Some(self.length_bytes.unwrap_or(sent.len() as u64)),
            sha256: Some(self.sha256.clone().unwrap_or_else(|| sha256_hex(sent))),
            headers: Vec::new(),
        }
    }
}

/// Returns a request body of this length: numbers, so that a piece that is lost or repeated on the
/// way changes the digest.
fn generated(length_bytes: u64) -> Bytes {
    let length = usize::try_from(length_bytes).expect("bounded by the parser");
    let mut body = Vec::with_capacity(length + 8);
    let mut number = 0_u64;
    while body.len() < length {
        body.extend_from_slice(&number.to_be_bytes());
        number += 1;
    }
    body.truncate(length);
    body.into()
}

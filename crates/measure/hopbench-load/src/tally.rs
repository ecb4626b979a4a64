//! Tells correct answers from wrong ones, and counts them.

use std::collections::BTreeMap;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::latency::{Durations, no_durations};

/// A correct answer.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    pub(crate) length: Option<u64>,
    pub(crate) sha256: Option<String>,
    /// Fields that must be there, and their values if these matter.
    pub(crate) headers: Vec<(HeaderName, Option<HeaderValue>)>,
}

/// An answer as it was received.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) length: u64,
    /// Whether the body was the expected one; `None` if it was not compared.
    pub(crate) is_right: Option<bool>,
    /// The first expected field that is missing or has another value.
    pub(crate) wrong_header: Option<String>,
    /// Encoding of the body, if the answer names one.
    pub(crate) encoding: Option<String>,
}

impl Expected {
    /// Describes how an answer is wrong; `None` if it is correct.
    pub(crate) fn difference(&self, answer: &Answer) -> Option<String> {
        let Answer { status, length, .. } = answer;
        if *status != self.status {
            return Some(format!("status {status} instead of {}", self.status));
        }
        // An encoded body is another one, although a client that decodes it gets the same.
        let encoding = answer
            .encoding
            .as_ref()
            .map_or_else(String::new, |encoding| {
                format!(" (content-encoding: {encoding})")
            });
        match self.length {
            Some(expected) if *length != expected => {
                Some(format!("{length} bytes instead of {expected}{encoding}"))
            }
            _ if answer.is_right == Some(false) => Some(format!("{OTHER_BYTES}{encoding}")),
            _ => answer.wrong_header.clone(),
        }
    }

    /// Describes the first expected field that is missing or has another value.
    pub(crate) fn wrong_header(&self, headers: &HeaderMap) -> Option<String> {
        self.headers.iter().find_map(|(name, value)| {
            let mut found = headers.get_all(name).iter();
            match value {
                None if found.next().is_none() => Some(format!("no header '{name}'")),
                Some(value) if !found.any(|it| it == value) => Some(format!(
                    "header '{name}' is not '{}'",
                    String::from_utf8_lossy(value.as_bytes())
                )),
                _ => None,
            }
        })
    }
}

/// Text under which answers with wrong bytes but the expected length are counted.
const OTHER_BYTES: &str = "body differs from the expected one";

/// Totals of the answers.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) good: u64,
    /// Wrong answers: how they were wrong, and how often.
    pub(crate) wrong: BTreeMap<String, u64>,
    /// Wrong answers that don't belong to the load's own requests: those after the load, and
    /// answers without a request.
    pub(crate) wrong_beside: BTreeMap<String, u64>,
    /// Bytes of all bodies, right or wrong.
    pub(crate) body_bytes: u64,
    /// Correct answers in each twentieth of the load; empty if not counted so.
    pub(crate) good_by_twentieth: Vec<u64>,
    /// Answers whose body was compared with the expected one.
    pub(crate) digests_checked: u64,
    /// Latencies of the correct answers and of the [`censored`](Self::censored) requests.
    pub(crate) latencies: Durations,
    /// In a closed loop, latencies of correct answers to the first request on each connection. They
    /// include opening the connection.
    pub(crate) first: Durations,
    /// Requests without an answer. Their latency is at least the time that they waited.
    pub(crate) censored: u64,
}

impl Tally {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            good: 0,
            wrong: BTreeMap::new(),
            wrong_beside: BTreeMap::new(),
            body_bytes: 0,
            good_by_twentieth: Vec::new(),
            digests_checked: 0,
            latencies: no_durations()?,
            first: no_durations()?,
            censored: 0,
        })
    }

    /// Counts an answer that took `latency_ns`.
    pub(crate) fn answer(
        &mut self,
        expected: &Expected,
        answer: &Answer,
        latency_ns: u64,
    ) -> anyhow::Result<()> {
        self.body_bytes += answer.length;
        self.digests_checked += u64::from(answer.is_right.is_some());
        match expected.difference(answer) {
            Some(difference) => *self.wrong.entry(difference).or_insert(0) += 1,
            None => {
                self.good += 1;
                self.latencies.record(latency_ns)?;
            }
        }
        Ok(())
    }

    /// Moves the latencies so far to those of first requests.
    pub(crate) fn keep_first_apart(&mut self) -> anyhow::Result<()> {
        let first = std::mem::replace(&mut self.latencies, no_durations()?);
        self.first.add(first)?;
        Ok(())
    }

    /// Counts requests that got no answer within `waited_ns`. Without them, the percentiles of a
    /// path that answers only some requests would describe only the quick ones.
    pub(crate) fn unanswered(&mut self, waited_ns: u64, requests: u64) -> anyhow::Result<()> {
        self.censored += requests;
        self.latencies.record_n(waited_ns, requests)?;
        Ok(())
    }

    pub(crate) fn answered(&self) -> u64 {
        self.good + self.wrong.values().sum::<u64>()
    }

    /// Adds the tally of another thread.
    pub(crate) fn add(&mut self, other: Self) -> anyhow::Result<()> {
        self.good += other.good;
        add_counts(&mut self.wrong, other.wrong);
        add_counts(&mut self.wrong_beside, other.wrong_beside);
        self.body_bytes += other.body_bytes;
        self.digests_checked += other.digests_checked;
        self.latencies.add(other.latencies)?;
        self.first.add(other.first)?;
        self.censored += other.censored;
        Ok(())
    }
}

pub(crate) fn add_counts(counts: &mut BTreeMap<String, u64>, others: BTreeMap<String, u64>) {
    for (what, count) in others {
        *counts.entry(what).or_insert(0) += count;
    }
}

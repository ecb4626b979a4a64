//! Tells correct answers from wrong ones, and counts them.

use std::collections::BTreeMap;

use crate::latency::{Durations, no_durations};

/// Status and length of a correct answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    pub(crate) length: Option<u64>,
}

/// An answer as it was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) length: u64,
    /// Whether the body was the expected one; `None` if it was not compared.
    pub(crate) is_right: Option<bool>,
}

/// Text under which answers with wrong bytes but the expected length are counted.
const OTHER_BYTES: &str = "body differs from the expected one";

/// Totals of the answers.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) good: u64,
    /// Wrong answers: how they were wrong, and how often.
    pub(crate) wrong: BTreeMap<String, u64>,
    /// Wrong answers that don't belong to the load's own requests: answers to the sampler, and
    /// answers without a request.
    pub(crate) wrong_beside: BTreeMap<String, u64>,
    /// Bytes of all bodies, right or wrong.
    pub(crate) body_bytes: u64,
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
            digests_checked: 0,
            latencies: no_durations()?,
            first: no_durations()?,
            censored: 0,
        })
    }

    /// Counts an answer that took `latency_ns`.
    pub(crate) fn answer(
        &mut self,
        expected: Expected,
        answer: Answer,
        latency_ns: u64,
    ) -> anyhow::Result<()> {
        let Answer {
            status,
            length,
            is_right,
        } = answer;
        self.body_bytes += length;
        self.digests_checked += u64::from(is_right.is_some());
        if status != expected.status {
            *self.wrong.entry(format!("status {status}")).or_insert(0) += 1;
        } else if expected.length.is_some_and(|expected| length != expected) {
            *self.wrong.entry(format!("{length} bytes")).or_insert(0) += 1;
        } else if is_right == Some(false) {
            *self.wrong.entry(OTHER_BYTES.to_owned()).or_insert(0) += 1;
        } else {
            self.good += 1;
            self.latencies.record(latency_ns)?;
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

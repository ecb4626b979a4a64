//! Which answers are right, and how many were.

use std::collections::BTreeMap;

use crate::latency::{Durations, no_durations};

/// What a right answer has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    pub(crate) length: Option<u64>,
}

/// What an answer was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) length: u64,
    /// Whether its body was the expected one; `None` if it was not looked at.
    pub(crate) is_right: Option<bool>,
}

/// How an answer was wrong that has the expected length.
const OTHER_BYTES: &str = "other bytes than expected";

/// What the answers add up to.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) good: u64,
    /// How answers were wrong, and how often.
    pub(crate) wrong: BTreeMap<String, u64>,
    /// The same of answers that are no answers to the load's own requests: to those of the sampler,
    /// and to none at all.
    pub(crate) wrong_beside: BTreeMap<String, u64>,
    /// Bytes of all bodies, right or wrong.
    pub(crate) body_bytes: u64,
    /// Answers whose body was compared with the expected one.
    pub(crate) digests_checked: u64,
    /// Of the right answers, and of the requests that are [`censored`](Self::censored).
    pub(crate) latencies: Durations,
    /// Latencies of right answers to the first requests of connections, which have the opening of
    /// the connection in them, in a closed loop.
    pub(crate) first: Durations,
    /// Requests without an answer, whose latency is at least the time that they had waited.
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

    /// Takes the latencies so far for those of first requests.
    pub(crate) fn keep_first_apart(&mut self) -> anyhow::Result<()> {
        let first = std::mem::replace(&mut self.latencies, no_durations()?);
        self.first.add(first)?;
        Ok(())
    }

    /// Counts requests that got no answer within `waited_ns`. Without them, the percentiles of a
    /// path that answers only some requests would be those of the quick ones.
    pub(crate) fn unanswered(&mut self, waited_ns: u64, requests: u64) -> anyhow::Result<()> {
        self.censored += requests;
        self.latencies.record_n(waited_ns, requests)?;
        Ok(())
    }

    pub(crate) fn answered(&self) -> u64 {
        self.good + self.wrong.values().sum::<u64>()
    }

    /// Adds what another thread has counted.
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

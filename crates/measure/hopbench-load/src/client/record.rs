//! Measurements of one thread.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::{
    profile::Profile,
    schedule::{Dropped, Schedule},
};
use crate::{
    latency::{Durations, no_durations},
    requests::Requests,
    tally::{Answer, Expected, Tally, add_counts},
};

/// Everything that is measured by a thread, and then by all threads together.
#[derive(Debug)]
pub(crate) struct Record {
    /// By kind of request.
    pub(crate) kinds: Vec<Figures>,
    /// By the stage in which a request was due; empty for a load without stages.
    pub(crate) stages: Vec<Figures>,
    /// By the second in which a request ended; empty for a load without stages.
    pub(crate) seconds: Vec<Second>,
    /// Answers without a request.
    pub(crate) unasked: BTreeMap<String, u64>,
    pub(crate) dropped: u64,
    pub(crate) dropped_late: u64,
    /// Times from when requests were due until they started.
    pub(crate) late: Durations,
    /// End of the last request, from the start of the load.
    pub(crate) end_ns: u64,
    pub(crate) connect_ns_max: Option<u64>,
}

/// The result for some of the requests.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) tally: Tally,
    /// Requests that got no answer: why, and how often.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Requests that were never sent.
    pub(crate) dropped: u64,
}

/// The result in a second of the load.
#[derive(Debug)]
pub(crate) struct Second {
    /// Requests that were due and were sent, then or later.
    pub(crate) due: u64,
    /// Correct answers that arrived.
    pub(crate) good: u64,
    /// Wrong answers, and requests that failed: how, and how often.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Latencies of the correct answers, and times that failed requests had waited.
    pub(crate) latencies: Durations,
}

/// Significant digits of the latencies of a second. A percentile is off by at most 1 %, and an hour
/// of seconds takes tens of MiB.
const SECOND_DIGITS: u8 = 2;

/// Longest time after the load's end for which there are seconds: requests end by their timeout.
const SECONDS_MAX: usize = 2 * 3_600;

/// Returns the number of the second in which an instant lies.
pub(crate) fn second_of(at_ns: u64) -> usize {
    let second = usize::try_from(at_ns / 1_000_000_000).unwrap_or(SECONDS_MAX);
    second.min(SECONDS_MAX)
}

impl Record {
    pub(crate) fn new(requests: &Requests, stages: Option<&Profile>) -> anyhow::Result<Self> {
        let figures = |count| {
            let figures = std::iter::repeat_with(Figures::new).take(count);
            figures.collect::<anyhow::Result<Vec<Figures>>>()
        };
        Ok(Self {
            kinds: figures(requests.names().len())?,
            stages: figures(stages.map_or(0, Profile::len))?,
            seconds: Vec::new(),
            unasked: BTreeMap::new(),
            dropped: 0,
            dropped_late: 0,
            late: no_durations()?,
            end_ns: 0,
            connect_ns_max: None,
        })
    }

    /// Returns the record of a second.
    pub(crate) fn second(&mut self, index: usize) -> &mut Second {
        while self.seconds.len() <= index {
            self.seconds.push(Second::new());
        }
        &mut self.seconds[index]
    }

    /// Counts the requests that were not started.
    pub(crate) fn drop_rest(
        &mut self,
        schedule: &Schedule,
        requests: &Requests,
        stages: Option<&Profile>,
    ) -> anyhow::Result<()> {
        let Dropped { by_path, late } = schedule.dropped();
        self.dropped = by_path + late;
        self.dropped_late = late;
        for waiting in schedule.waiting() {
            let kind = requests.turn(waiting.number).kind;
            self.kinds[kind].drop(waiting.waited_ns, waiting.count)?;
            if let Some(stages) = stages {
                self.stages[stages.index(waiting.due_ns)].drop(waiting.waited_ns, waiting.count)?;
            }
        }
        Ok(())
    }

    /// Adds the record of another thread.
    pub(crate) fn add(&mut self, other: Self) -> anyhow::Result<()> {
        for (own, other) in self.kinds.iter_mut().zip(other.kinds) {
            own.add(other)?;
        }
        for (own, other) in self.stages.iter_mut().zip(other.stages) {
            own.add(other)?;
        }
        for (index, other) in other.seconds.into_iter().enumerate() {
            self.second(index).add(other)?;
        }
        add_counts(&mut self.unasked, other.unasked);
        self.dropped += other.dropped;
        self.dropped_late += other.dropped_late;
        self.late.add(other.late)?;
        self.end_ns = self.end_ns.max(other.end_ns);
        self.connect_ns_max = self.connect_ns_max.max(other.connect_ns_max);
        Ok(())
    }

    /// Returns the figures of all kinds together. If there are several, wrong answers begin with
    /// the name of their kind.
    pub(crate) fn together(&self, requests: &Requests) -> anyhow::Result<Figures> {
        let mut all = Figures::new()?;
        let is_mix = self.kinds.len() > 1;
        for (name, kind) in requests.names().zip(&self.kinds) {
            let mut kind = kind.clone();
            if is_mix {
                let wrong = std::mem::take(&mut kind.tally.wrong).into_iter();
                let named = wrong.map(|(what, count)| (format!("'{name}': {what}"), count));
                kind.tally.wrong = named.collect();
            }
            all.add(kind)?;
        }
        add_counts(&mut all.tally.wrong_beside, self.unasked.clone());
        Ok(all)
    }
}

impl Figures {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            tally: Tally::new()?,
            errors: BTreeMap::new(),
            dropped: 0,
        })
    }

    pub(crate) fn count(
        &mut self,
        expected: &Expected,
        outcome: &Result<Answer, String>,
        took_ns: u64,
    ) {
        let error = match outcome {
            Ok(answer) => {
                let counted = self.tally.answer(expected, answer, took_ns);
                counted.map_err(|error| error.to_string())
            }
            Err(error) => {
                // The histogram grows to hold any value.
                self.tally.unanswered(took_ns, 1).ok();
                Err(error.clone())
            }
        };
        if let Err(error) = error {
            *self.errors.entry(error).or_insert(0) += 1;
        }
    }

    /// Returns the number of requests that were sent.
    pub(crate) fn requests(&self) -> u64 {
        self.tally.answered() + self.errors.values().sum::<u64>()
    }

    fn drop(&mut self, waited_ns: u64, requests: u64) -> anyhow::Result<()> {
        self.dropped += requests;
        self.tally.unanswered(waited_ns, requests)
    }

    fn add(&mut self, other: Self) -> anyhow::Result<()> {
        self.tally.add(other.tally)?;
        add_counts(&mut self.errors, other.errors);
        self.dropped += other.dropped;
        Ok(())
    }
}

impl Second {
    fn new() -> Self {
        Self {
            due: 0,
            good: 0,
            errors: BTreeMap::new(),
            latencies: Histogram::new(SECOND_DIGITS).expect("a valid number of digits"),
        }
    }

    pub(crate) fn count(
        &mut self,
        expected: &Expected,
        outcome: &Result<Answer, String>,
        took_ns: u64,
    ) {
        let (error, has_latency) = match outcome {
            Ok(answer) => {
                let difference = expected.difference(answer);
                let is_right = difference.is_none();
                (difference, is_right)
            }
            Err(error) => (Some(error.clone()), true),
        };
        match error {
            None => self.good += 1,
            Some(error) => *self.errors.entry(error).or_insert(0) += 1,
        }
        if has_latency {
            // The histogram grows to hold any value.
            self.latencies.record(took_ns).ok();
        }
    }

    fn add(&mut self, other: Self) -> anyhow::Result<()> {
        self.due += other.due;
        self.good += other.good;
        add_counts(&mut self.errors, other.errors);
        self.latencies.add(other.latencies)?;
        Ok(())
    }
}

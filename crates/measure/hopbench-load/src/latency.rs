//! Latencies, as both loops report them.

use base64::{Engine, prelude::BASE64_STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Serializer, V2DeflateSerializer},
};
use serde::Serialize;

use crate::tally::Tally;

/// Latencies of correct answers and of censored requests, in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    mean_us: Option<f64>,
    min_us: Option<f64>,
    p50_us: Option<f64>,
    p90_us: Option<f64>,
    p95_us: Option<f64>,
    p99_us: Option<f64>,
    p999_us: Option<f64>,
    pub(crate) max_us: Option<f64>,
    /// Number of latencies that are lower bounds. A request that was never sent or never answered
    /// counts with the time that it waited.
    censored: u64,
    /// HdrHistogram of nanoseconds with three significant digits, V2 compressed, in base64.
    pub(crate) histogram: String,
}

/// Latencies of correct answers to the first request on each connection. They include the time to
/// open the connection, so no other latency includes them.
#[derive(Debug, Serialize)]
pub(crate) struct First {
    answers: u64,
    mean_us: f64,
    max_us: f64,
}

impl First {
    /// Returns `None` if there are no such answers.
    pub(crate) fn of(tally: &Tally) -> Option<Self> {
        let first = &tally.first;
        (!first.is_empty()).then(|| Self {
            answers: first.len(),
            mean_us: first.mean() / 1e3,
            max_us: first.max() as f64 / 1e3,
        })
    }
}

/// Histogram of durations in nanoseconds. With three significant digits, a percentile is off by at
/// most 0.1 %.
pub(crate) type Durations = Histogram<u64>;

const DIGITS: u8 = 3;

/// Returns an empty histogram.
pub(crate) fn no_durations() -> anyhow::Result<Durations> {
    Ok(Histogram::new(DIGITS)?)
}

/// Returns a quantile in microseconds; `None` if the histogram is empty.
pub(crate) fn quantile_us(durations: &Durations, quantile: f64) -> Option<f64> {
    let ns = durations.value_at_quantile(quantile);
    (!durations.is_empty()).then_some(ns as f64 / 1e3)
}

impl Latency {
    pub(crate) fn of(tally: &Tally) -> anyhow::Result<Self> {
        let latencies = &tally.latencies;
        let known = |ns: f64| (!latencies.is_empty()).then_some(ns / 1e3);
        let at = |quantile| quantile_us(latencies, quantile);
        Ok(Self {
            mean_us: known(latencies.mean()),
            min_us: known(latencies.min() as f64),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: known(latencies.max() as f64),
            censored: tally.censored,
            histogram: Self::written(latencies)?,
        })
    }

    /// Returns a histogram in its serial form.
    pub(crate) fn written(durations: &Durations) -> anyhow::Result<String> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(durations, &mut bytes)
            .map_err(|error| anyhow::anyhow!("could not write the histogram: {error:?}"))?;
        Ok(BASE64_STANDARD.encode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answers_have_no_latency() {
        let latency = Latency::of(&Tally::new().expect("valid")).expect("writable");
        assert_eq!((latency.p50_us, latency.mean_us), (None, None));
    }
}

//! Every request that oha has recorded, and what they add up to.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Serializer, V2DeflateSerializer},
};
use rusqlite::Connection;
use serde::Serialize;

/// oha's database, in the memory of this process: nothing is written to a disk while the servers
/// under test still run.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
}

/// What the records add up to.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) good: u64,
    pub(crate) wrong: BTreeMap<String, u64>,
    pub(crate) body_bytes: u64,
    pub(crate) latency: Latency,
}

/// Latencies of the right answers, in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    mean_us: Option<f64>,
    min_us: Option<f64>,
    p50_us: Option<f64>,
    p90_us: Option<f64>,
    p95_us: Option<f64>,
    p99_us: Option<f64>,
    p999_us: Option<f64>,
    max_us: Option<f64>,
    /// HdrHistogram of nanoseconds, three significant digits, V2 compressed, in base64.
    histogram: String,
}

/// Three digits: a percentile is off by at most a thousandth.
const DIGITS: u8 = 3;

impl Database {
    /// SQLite's `memdb` shares a database by name between the connections of a process.
    const URL: &str = "file:/records?vfs=memdb";

    /// Opens it, so that it lives as long as this.
    pub(crate) fn open() -> rusqlite::Result<Self> {
        Ok(Self {
            connection: Connection::open(Self::URL)?,
        })
    }

    pub(crate) fn url(&self) -> &'static str {
        Self::URL
    }

    /// Counts the records. A right answer has that status and, if one is given, that length.
    pub(crate) fn tally(&self, status: u16, length: Option<u64>) -> anyhow::Result<Tally> {
        let mut latencies = Histogram::<u64>::new(DIGITS)?;
        let (mut good, mut wrong, mut body_bytes) = (0, BTreeMap::new(), 0);
        let mut statement = self
            .connection
            .prepare("SELECT duration, status, len_bytes FROM oha")?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let seconds: f64 = row.get(0)?;
            let found_status: u16 = row.get(1)?;
            let found_length: u64 = row.get::<_, i64>(2)?.try_into()?;
            body_bytes += found_length;
            if found_status != status {
                *wrong.entry(format!("status {found_status}")).or_insert(0) += 1;
            } else if length.is_some_and(|length| found_length != length) {
                *wrong.entry(format!("{found_length} bytes")).or_insert(0) += 1;
            } else {
                good += 1;
                latencies.record(nanoseconds(seconds))?;
            }
        }
        Ok(Tally {
            good,
            wrong,
            body_bytes,
            latency: Latency::of(&latencies)?,
        })
    }
}

impl Latency {
    fn of(latencies: &Histogram<u64>) -> anyhow::Result<Self> {
        let known = |nanoseconds: f64| (!latencies.is_empty()).then_some(nanoseconds / 1e3);
        let at = |quantile| known(latencies.value_at_quantile(quantile) as f64);
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(latencies, &mut bytes)
            .map_err(|error| anyhow::anyhow!("could not write the histogram: {error:?}"))?;
        Ok(Self {
            mean_us: known(latencies.mean()),
            min_us: known(latencies.min() as f64),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: known(latencies.max() as f64),
            histogram: BASE64_STANDARD.encode(bytes),
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a duration is not negative, and shorter than 584 years"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9).round() as u64
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;

    use super::*;

    #[test]
    fn only_right_answers_are_good() {
        let database = Database::open().expect("memory");
        database
            .connection
            .execute_batch(
                "CREATE TABLE oha (duration REAL, status INTEGER, len_bytes INTEGER);
                 INSERT INTO oha VALUES
                     (0.001, 200, 2), (0.002, 200, 2), (0.5, 500, 2), (0.5, 200, 1);",
            )
            .expect("valid");
        let tally = database.tally(200, Some(2)).expect("readable");
        assert_eq!(tally.good, 2);
        assert_eq!(tally.body_bytes, 7);
        assert_eq!(
            tally.wrong,
            [("1 bytes".into(), 1), ("status 500".into(), 1)].into()
        );
        let max_us = tally.latency.max_us.expect("two latencies");
        assert!((max_us - 2_000.0).abs() < 2.0, "{max_us}");

        let bytes = BASE64_STANDARD
            .decode(tally.latency.histogram)
            .expect("base64");
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut &bytes[..])
            .expect("a histogram");
        assert_eq!(histogram.len(), 2);
    }

    #[test]
    fn no_answers_have_no_latency() {
        let latency = Latency::of(&Histogram::new(DIGITS).expect("valid")).expect("writable");
        assert_eq!((latency.p50_us, latency.mean_us), (None, None));
    }
}

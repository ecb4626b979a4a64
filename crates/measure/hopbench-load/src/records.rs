//! The requests that oha has recorded, and their totals.

use std::time::Duration;

use rusqlite::Connection;

use crate::tally::{Answer, Expected, Tally};

/// oha's database, in the memory of this process: nothing is written to disk while the servers
/// under test run.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
}

impl Database {
    /// SQLite's `memdb` shares a database by name between the connections of a process.
    const URL: &str = "file:/records?vfs=memdb";

    /// Opens the database, which lives as long as this connection.
    pub(crate) fn open() -> rusqlite::Result<Self> {
        Ok(Self {
            connection: Connection::open(Self::URL)?,
        })
    }

    pub(crate) fn url(&self) -> &'static str {
        Self::URL
    }

    /// Counts the records. The first requests, `first` of them, opened their connections, and oha
    /// includes that in their times. They are kept apart, unless they are more than half of all.
    pub(crate) fn tally(
        &self,
        expected: &Expected,
        first: u64,
        duration: Duration,
    ) -> anyhow::Result<Tally> {
        let mut tally = Tally::new()?;
        let count = self
            .connection
            .query_row("SELECT count(*) FROM oha", (), |row| row.get::<_, i64>(0))?;
        let is_apart = u64::try_from(count)? >= FIRST_FACTOR * first;
        let mut statement = self
            .connection
            .prepare("SELECT duration, status, len_bytes, start FROM oha ORDER BY start")?;
        let mut rows = statement.query(())?;
        let mut numbers = 0_u64..;
        let (mut begin_s, mut slices) = (None, Slices::of(duration));
        while let (Some(row), Some(number)) = (rows.next()?, numbers.next()) {
            if is_apart && number == first {
                tally.keep_first_apart()?;
            }
            let seconds: f64 = row.get(0)?;
            let length: u64 = row.get::<_, i64>(2)?.try_into()?;
            let answer = Answer {
                status: row.get(1)?,
                length,
                is_right: None,
                wrong_header: None,
                encoding: None,
            };
            let start_s: f64 = row.get(3)?;
            let begin_s = *begin_s.get_or_insert(start_s);
            let good = tally.good;
            tally.answer(expected, &answer, nanoseconds(seconds))?;
            slices.count(start_s - begin_s + seconds, tally.good - good);
        }
        tally.good_by_twentieth = slices.good;
        Ok(tally)
    }
}

/// Correct answers in each twentieth of the planned duration.
struct Slices {
    slice_s: f64,
    good: Vec<u64>,
}

impl Slices {
    /// Number of parts of a load.
    const COUNT: u32 = 20;

    fn of(duration: Duration) -> Self {
        Self {
            slice_s: (duration / Self::COUNT).as_secs_f64(),
            good: vec![0; Self::COUNT as usize],
        }
    }

    /// Counts answers that came so long after the load's begin.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and is not negative"
    )]
    fn count(&mut self, end_s: f64, good: u64) {
        let index = (end_s / self.slice_s) as usize;
        let last = self.good.len() - 1;
        self.good[index.min(last)] += good;
    }
}

/// With fewer requests per connection, the first ones are too many to leave out.
const FIRST_FACTOR: u64 = 2;

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
    use base64::{Engine, prelude::BASE64_STANDARD};
    use hdrhistogram::{Histogram, serialization::Deserializer};

    use super::*;
    use crate::latency::Latency;

    #[test]
    fn only_right_answers_are_good() {
        let database = Database::open().expect("memory");
        database
            .connection
            .execute_batch(
                "CREATE TABLE oha (start REAL, duration REAL, status INTEGER, len_bytes INTEGER);
                 INSERT INTO oha VALUES
                     (0.2, 0.001, 200, 2), (0.3, 0.002, 200, 2), (0.4, 0.5, 500, 2),
                     (0.5, 0.5, 200, 1), (0.1, 0.25, 200, 2), (0.6, 0.001, 200, 2);",
            )
            .expect("valid");
        let expected = Expected {
            status: 200,
            length: Some(2),
            sha256: None,
            headers: Vec::new(),
        };
        // With four connections, most requests are first ones.
        let short = database
            .tally(&expected, 4, Duration::from_secs(1))
            .expect("readable");
        assert_eq!((short.latencies.len(), short.first.len()), (4, 0));
        let tally = database
            .tally(&expected, 1, Duration::from_secs(1))
            .expect("readable");
        assert_eq!(tally.good, 4);
        assert_eq!(tally.body_bytes, 11);
        // They came after 0.25, 0.1, 0.2 and 0.5 s, counted from the first start.
        let slices: Vec<usize> = (0..20)
            .filter(|it| tally.good_by_twentieth[*it] > 0)
            .collect();
        assert_eq!(slices, [2, 4, 5, 10]);
        // The request that started first is kept apart.
        assert_eq!((tally.first.len(), tally.first.max() / 1_000_000), (1, 250));
        assert_eq!(
            tally.wrong,
            [
                ("1 bytes instead of 2".into(), 1),
                ("status 500 instead of 200".into(), 1)
            ]
            .into()
        );
        let latency = Latency::of(&tally).expect("writable");
        let max_us = latency.max_us.expect("three latencies");
        assert!((max_us - 2_000.0).abs() < 2.0, "{max_us}");

        let bytes = BASE64_STANDARD.decode(latency.histogram).expect("base64");
        let histogram: Histogram<u64> = Deserializer::new()
            .deserialize(&mut &bytes[..])
            .expect("a histogram");
        assert_eq!(histogram.len(), 3);
    }
}

//! Compares bodies after a closed loop of oha, which doesn't give out its own.
//!
//! Answers that are correct for a single request may be wrong under load. So, once the measured
//! load is over, our own client goes on with a load of the same kind, and compares every body.
//! During the measured load, further requests would disturb it.

use std::time::{Duration, Instant};

use crate::{
    Options, client,
    tally::{Tally, add_counts},
};

/// Number of bodies to compare. If one answer in a hundred is wrong, 1,000 answers are all correct
/// once in 20,000 times.
const BODIES: u64 = 1_000;

/// Time after which no further part is begun. Slow answers must not delay a trial by much more.
const TIME: Duration = Duration::from_secs(1);

/// Duration of a part of the load, in milliseconds.
const PART_MS: u64 = 100;

/// Runs parts of the load until enough bodies have been compared.
pub(crate) fn compare(options: &Options) -> anyhow::Result<Tally> {
    let part = Options {
        duration_ms: PART_MS,
        ..options.clone()
    };
    let mut tally = Tally::new()?;
    let began = Instant::now();
    loop {
        let (compared, errors) = client::compare(&part)?;
        tally.add(compared)?;
        // Bytes were lost, repeated or mixed up. Other errors are not counted: a path that has
        // stopped answering is found out when it is verified.
        let garbled = errors
            .into_iter()
            .filter(|(error, _)| error.starts_with("invalid HTTP"));
        add_counts(&mut tally.wrong, garbled.collect());
        if tally.digests_checked >= BODIES || began.elapsed() >= TIME {
            return Ok(tally);
        }
    }
}

//! Compares bodies beside a closed loop, which doesn't give out its own.
//!
//! Answers that are correct for a single request may be wrong under load. So this module sends
//! requests on its own connection during the load or, in order not to disturb the measurement,
//! during another load of the same kind after it.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, LocalOptions};

use crate::{
    Options,
    client::{
        address,
        connection::{Connection, Notes, Subject, TIMEOUT},
    },
    requests::Requests,
    tally::{Tally, add_counts},
};

/// When to stop sampling: number of answers, and time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) answers: u64,
    pub(crate) time: Duration,
}

/// If every tenth answer is wrong, 64 answers are all correct only once in 800 times. Slow answers
/// must not delay a trial by more than a second.
pub(crate) const AFTER: Limits = Limits {
    answers: 64,
    time: Duration::from_secs(1),
};

/// Failures after which sampling stops: the path may have room for the load only.
const FAILURES_MAX: u32 = 3;

/// Sends requests until a limit is reached or `stop` is set, but at least one.
pub(crate) fn sample(
    options: &Options,
    limits: Limits,
    stop: &AtomicBool,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::new()?;
    let (address, target) = address::resolve(&options.url)?;
    let requests = Arc::new(Requests::of(options, None, &address.host, target)?);
    let notes = Rc::new(Notes::default());
    let turn = requests.turn(0);
    let subject = Rc::new(Subject {
        address,
        requests: Arc::clone(&requests),
        keep_alive: !options.no_keepalive,
        notes: Rc::clone(&notes),
        bodies: RefCell::default(),
    });
    let mut connection = Connection::new(subject);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let began = Instant::now();
    let mut failures = 0;
    loop {
        let asked = runtime.block_on(async {
            let asked = tokio::time::timeout(options.timeout(), connection.ask(turn));
            asked.await.unwrap_or_else(|_| Err(TIMEOUT.to_owned()))
        });
        match asked {
            Ok(answer) => tally.answer(requests.expected(turn), &answer, 0)?,
            // Bytes were lost, repeated or mixed up.
            Err(error) if error.starts_with("invalid HTTP") => {
                *tally.wrong.entry(error).or_insert(0) += 1;
                failures += 1;
            }
            Err(_) => {
                connection.close();
                failures += 1;
            }
        }
        let is_enough = tally.answered() >= limits.answers || began.elapsed() >= limits.time;
        if is_enough || failures >= FAILURES_MAX || stop.load(Relaxed) {
            add_counts(
                &mut tally.wrong_beside,
                notes.unasked().into_iter().collect(),
            );
            return Ok(tally);
        }
    }
}

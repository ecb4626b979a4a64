//! The start of a path, timed: from nothing to a listener, to the first right answer, and from the
//! death of its hop to the next right answer.

use std::{
    net::TcpStream,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use hopbench_analysis::record::{Failure, FailureKind, Source};

use super::{Live, Stage, TrialError, difference::difference, harness_failure};
use crate::{
    observe::http::Endpoint,
    plan::work::Work,
    process::{Interrupted, wait_until},
};

/// A path that is to be started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ColdStart<'a> {
    pub(crate) path: &'a str,
    pub(crate) cycle: u32,
    /// Scenario and endpoint of the request that must be answered.
    pub(crate) asked: &'a (String, String),
    /// How late its last process starts, to test rules.
    pub(crate) delay_ms: Option<u64>,
}

/// The times of a start. What did not happen has none.
#[derive(Debug, Default)]
pub(crate) struct ColdStarted {
    listening: Option<Duration>,
    answered: Option<Duration>,
    recovered: Option<Duration>,
    pub(crate) failure: Option<Failure>,
}

/// Statuses with which a proxy says that its upstream doesn't answer (RFC 9110, section 15.6).
const UPSTREAM_IS_MISSING: [u16; 3] = [502, 503, 504];

/// Pause between two attempts, far below the shortest start.
const PAUSE: Duration = Duration::from_micros(100);

impl ColdStarted {
    /// Returns the times, by measure.
    pub(crate) fn times(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        let times = [
            ("listening_us", self.listening),
            ("first_answer_us", self.answered),
            ("recovered_us", self.recovered),
        ];
        times
            .into_iter()
            .filter_map(|(name, time)| Some((name, time?)))
    }
}

impl Live<'_> {
    /// Starts a path, kills its hop with SIGKILL, starts the hop again, and stops all.
    pub(crate) fn cold_start(&mut self, order: &ColdStart<'_>) -> Result<ColdStarted, Interrupted> {
        let mut started = ColdStarted::default();
        match self.attempt_cold_start(order, &mut started) {
            Ok(()) => Ok(started),
            Err(TrialError::Interrupted) => Err(Interrupted),
            Err(TrialError::Failed(failure)) => Ok(ColdStarted {
                failure: Some(failure),
                ..started
            }),
        }
    }

    fn attempt_cold_start(
        &self,
        order: &ColdStart<'_>,
        started: &mut ColdStarted,
    ) -> Result<(), TrialError> {
        let definition = &self.paths[order.path];
        let work = self.work[order.asked].on(definition);
        if definition.needs_certificates() {
            // Making them is no part of a start.
            self.certificates().map_err(harness_failure)?;
        }
        let begin = Instant::now();
        let label = format!("{:04}-{}", order.cycle, order.path);
        let begun = Stage::start_processes(self, definition, None, (&label, order.delay_ms));
        let mut stage = begun.map_err(harness_failure)?;
        let limit = definition.start_timeout;
        stage.until(self, "listen", limit, |stage| Ok(stage.listens(limit)))?;
        started.listening = Some(begin.elapsed());
        stage.until(self, "answer", limit, |stage| stage.answers(self, &work))?;
        started.answered = Some(begin.elapsed());
        let begin = Instant::now();
        stage.restart_hop()?;
        let answers = |stage: &mut Stage| stage.answers(self, &work);
        stage.until(self, "answer again", limit, answers)?;
        started.recovered = Some(begin.elapsed());
        stage.stop();
        Ok(())
    }
}

impl Stage {
    /// Returns whether the front accepts a connection.
    fn listens(&self, limit: Duration) -> bool {
        match self.front().server.endpoint() {
            Endpoint::Tcp(address) => TcpStream::connect_timeout(address, limit).is_ok(),
            Endpoint::Unix(path) => UnixStream::connect(path).is_ok(),
        }
    }

    /// Returns whether the path gives the right answer. An answer that is wrong is a failure: a
    /// server that can't answer yet must not answer.
    fn answers(&mut self, live: &Live<'_>, work: &Work) -> Result<bool, TrialError> {
        let request = &work.requests[0];
        match self.ask(live, request) {
            Err(_) => Ok(false),
            // Before its own upstream is there, a proxy says so.
            Ok(answer) if UPSTREAM_IS_MISSING.contains(&answer.status) => Ok(false),
            Ok(answer) => match difference(&answer, &request.expect[0]) {
                None => Ok(true),
                Some(cause) => Err(TrialError::Failed(Failure {
                    source: Source::Subject,
                    kind: FailureKind::WrongAnswer,
                    cause,
                    log: self.last_lines(),
                })),
            },
        }
    }

    /// Tries again and again, until something is so or the time is up.
    fn until(
        &mut self,
        live: &Live<'_>,
        what: &str,
        limit: Duration,
        mut is_so: impl FnMut(&mut Self) -> Result<bool, TrialError>,
    ) -> Result<(), TrialError> {
        let deadline = Instant::now() + limit;
        while !is_so(self)? {
            if let Some(trouble) = self.trouble(live.interrupt) {
                return Err(trouble);
            }
            if Instant::now() >= deadline {
                let within = limit.as_secs_f64();
                return Err(TrialError::Failed(Failure {
                    source: Source::Subject,
                    kind: FailureKind::Start,
                    cause: format!("it did not {what} within {within} s"),
                    log: self.last_lines(),
                }));
            }
            wait_until(Instant::now() + PAUSE);
        }
        Ok(())
    }
}

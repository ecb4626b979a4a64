//! The result of a load: the output of this program, the same for both loops.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    client::front::Protocol,
    cpu::Usage,
    latency::{First, Latency},
    tally::{Tally, add_counts},
};

/// The result of one load.
#[derive(Debug, Serialize)]
pub(crate) struct LoadResult {
    generator: &'static str,
    /// Whether the server was asked over TLS; absent if not.
    #[serde(skip_serializing_if = "is_false")]
    tls: bool,
    /// Protocol by which it was asked; absent for HTTP/1.1.
    #[serde(skip_serializing_if = "Protocol::is_http1")]
    protocol: Protocol,
    /// Time from the start of the first request to the end of the last one, in microseconds.
    elapsed_us: f64,
    /// Requests that were answered, correctly or wrongly, or failed.
    requests: u64,
    /// Requests that got a correct answer.
    good: u64,
    /// Wrong answers: how they were wrong, and how often. They include answers without a request,
    /// and wrong answers to requests that are not the load's own.
    wrong: BTreeMap<String, u64>,
    /// Requests that got no answer: why, and how often.
    errors: BTreeMap<String, u64>,
    /// Bytes of all bodies received.
    body_bytes: u64,
    /// Correct answers in each twentieth of the planned duration; absent if not counted so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    good_by_twentieth: Vec<u64>,
    /// Longest time to open a connection, in microseconds.
    connect_us_max: Option<f64>,
    /// Connections that were open halfway through the load; `null` if it ended before.
    connections: Option<usize>,
    /// Connections opened since the load began; `null` if other connections were opened too.
    connections_opened: Option<u64>,
    /// Answers whose body was compared with the expected one.
    digests_checked: u64,
    latency: Latency,
    /// Absent if no answers are kept apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<First>,
    /// CPU time of this process during the load, in microseconds.
    cpu_us: f64,
    /// Peak memory of this process, in KiB.
    peak_rss_kib: u64,
    context_switches: u64,
    threads: usize,
    /// Absent for a closed loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    open_loop: Option<OpenLoop>,
    #[serde(flatten)]
    parts: Parts,
}

/// The result in parts.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Parts {
    /// Absent if there is one kind of request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) by_request: Vec<OfRequest>,
    /// Absent without stages, as are `seconds`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) stages: Vec<OfStage>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) seconds: Vec<OfSecond>,
}

/// The result for the requests of one kind.
#[derive(Debug, Serialize)]
pub(crate) struct OfRequest {
    pub(crate) name: String,
    pub(crate) requests: u64,
    pub(crate) good: u64,
    pub(crate) wrong: BTreeMap<String, u64>,
    pub(crate) errors: BTreeMap<String, u64>,
    /// Requests that were due and never sent.
    pub(crate) dropped: u64,
    pub(crate) body_bytes: u64,
    pub(crate) latency: Latency,
}

/// The result for the requests that were due in a stage.
#[derive(Debug, Serialize)]
pub(crate) struct OfStage {
    pub(crate) requests: u64,
    pub(crate) good: u64,
    /// Requests that were due and never sent.
    pub(crate) dropped: u64,
    pub(crate) latency: Latency,
}

/// The result in a second of the load.
#[derive(Debug, Serialize)]
pub(crate) struct OfSecond {
    /// Requests that were due in this second, and were sent.
    pub(crate) due: u64,
    /// Correct answers that arrived in it.
    pub(crate) good: u64,
    /// Wrong answers and failed requests that ended in it: how, and how often.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Latencies of the requests that ended in it, except wrong answers, in microseconds.
    pub(crate) p50_us: Option<f64>,
    pub(crate) p95_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    /// HdrHistogram of nanoseconds with two significant digits.
    pub(crate) histogram: String,
}

/// How well an open loop kept to its schedule.
#[derive(Debug, Serialize)]
pub(crate) struct OpenLoop {
    /// Requests that were due within the load's duration.
    pub(crate) scheduled: u64,
    /// Scheduled requests that were never started.
    pub(crate) dropped: u64,
    /// Dropped requests that the path was ready for: this program was late.
    pub(crate) dropped_late: u64,
    /// Time from when a request was due until it started, in microseconds.
    pub(crate) late_us_p50: Option<f64>,
    pub(crate) late_us_p99: Option<f64>,
    pub(crate) late_us_max: Option<f64>,
}

/// Everything that a [`LoadResult`] is made from.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) generator: &'static str,
    pub(crate) tls: bool,
    pub(crate) protocol: Protocol,
    pub(crate) elapsed_us: f64,
    pub(crate) tally: Tally,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) connect_us_max: Option<f64>,
    pub(crate) connections_opened: Option<u64>,
    pub(crate) usage: Usage,
    pub(crate) threads: usize,
    pub(crate) open_loop: Option<OpenLoop>,
    pub(crate) parts: Parts,
}

impl LoadResult {
    pub(crate) fn of(outcome: Outcome) -> anyhow::Result<Self> {
        let Outcome {
            mut tally, usage, ..
        } = outcome;
        let requests = tally.answered() + outcome.errors.values().sum::<u64>();
        add_counts(&mut tally.wrong, std::mem::take(&mut tally.wrong_beside));
        Ok(Self {
            generator: outcome.generator,
            tls: outcome.tls,
            protocol: outcome.protocol,
            elapsed_us: outcome.elapsed_us,
            requests,
            good: tally.good,
            first: First::of(&tally),
            latency: Latency::of(&tally)?,
            wrong: tally.wrong,
            errors: outcome.errors,
            body_bytes: tally.body_bytes,
            good_by_twentieth: tally.good_by_twentieth,
            connect_us_max: outcome.connect_us_max,
            connections: usage.connections,
            connections_opened: outcome.connections_opened,
            digests_checked: tally.digests_checked,
            cpu_us: usage.cpu_us,
            peak_rss_kib: usage.peak_rss_kib,
            context_switches: usage.context_switches,
            threads: outcome.threads,
            open_loop: outcome.open_loop,
            parts: outcome.parts,
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(is: &bool) -> bool {
    !*is
}

//! The report of the load generator.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    front::{FrontProtocol, Protocol},
    is_false,
};

/// Report of the load generator. Its latencies are those of correct answers and of
/// [censored](Latency::censored) requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Load {
    /// Name and version of the load generator.
    pub generator: String,
    /// Whether it asked over TLS.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tls: bool,
    /// Protocol by which it asked; absent for HTTP/1.1.
    #[serde(default, skip_serializing_if = "Protocol::is_http1")]
    pub protocol: Protocol,
    /// Time from the first request's start to the last one's end, in microseconds.
    pub elapsed_us: f64,
    /// Number of requests that were sent.
    pub requests: u64,
    /// Number of correct answers: those of the expected status and length.
    pub good: u64,
    /// Numbers of wrong answers, by kind.
    pub wrong: BTreeMap<String, u64>,
    /// Numbers of requests without an answer, by error.
    pub errors: BTreeMap<String, u64>,
    /// Bytes of all bodies received.
    pub body_bytes: u64,
    /// Correct answers in each twentieth of the planned duration, by when they came. The last one
    /// has those that came later, too. Empty if they are not counted so, as in an open loop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub good_by_twentieth: Vec<u64>,
    /// Longest time to open a connection, in microseconds.
    pub connect_us_max: Option<f64>,
    /// Connections that were open in the middle of the load; `None` if it ended before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Connections that were opened during the load, not during the warm-up. A closed loop opens
    /// its own then; a load at a fixed rate has opened them before. `None` if not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_opened: Option<u64>,
    /// Answers whose body was compared with the expected one: those of the load if our own client
    /// sent it, otherwise those of a load of the same kind right afterwards.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub digests_checked: u64,
    /// Latencies of the answers.
    pub latency: Latency,
    /// First answers of connections; absent if they are not kept apart, as at a fixed rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<FirstAnswers>,
    /// CPU time of the load generator during the load, in microseconds.
    pub cpu_us: f64,
    /// Peak resident memory of the load generator, in KiB.
    pub peak_rss_kib: u64,
    /// Number of context switches of the load generator.
    pub context_switches: u64,
    /// Number of threads that send requests.
    pub threads: usize,
    /// Schedule of a load at a fixed rate; `None` for a closed loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_loop: Option<OpenLoop>,
    /// Figures of each kind of request; empty if there is only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_request: Vec<LoadOfRequest>,
    /// Figures of each stage; empty for a load that stays the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<LoadOfStage>,
    /// Figures of each second; empty for a load that stays the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seconds: Vec<LoadSecond>,
}

/// Result of a load for the requests of one kind.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct LoadOfRequest {
    /// Name of the request.
    pub name: String,
    /// Number of requests that were sent.
    pub requests: u64,
    /// Number of correct answers.
    pub good: u64,
    /// Numbers of wrong answers, by kind.
    pub wrong: BTreeMap<String, u64>,
    /// Numbers of requests without an answer, by error.
    pub errors: BTreeMap<String, u64>,
    /// Number of requests that were due and never sent.
    pub dropped: u64,
    /// Bytes of all bodies received.
    pub body_bytes: u64,
    /// Latencies of the answers.
    pub latency: Latency,
}

/// Result of a load for the requests that were due in a stage.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct LoadOfStage {
    /// Number of requests that were sent.
    pub requests: u64,
    /// Number of correct answers.
    pub good: u64,
    /// Number of requests that were due and never sent.
    pub dropped: u64,
    /// Latencies of the answers.
    pub latency: Latency,
}

/// Result of a load in one of its seconds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct LoadSecond {
    /// Number of requests that were due in this second and were sent, then or later.
    pub due: u64,
    /// Number of correct answers that arrived in it.
    pub good: u64,
    /// Numbers of wrong answers and of failed requests that ended in it, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Median latency of the requests that ended in it, in microseconds. Failed requests count with
    /// the time that they had waited; wrong answers don't count.
    pub p50_us: Option<f64>,
    /// 95th percentile of these latencies.
    pub p95_us: Option<f64>,
    /// 99th percentile of these latencies.
    pub p99_us: Option<f64>,
    /// HdrHistogram of nanoseconds with two significant digits, V2 compressed, in base64.
    pub histogram: String,
}

/// Correct answers to the first requests of a closed loop's connections. Their latencies include
/// the opening of the connection, so they are good, but in no other latency.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct FirstAnswers {
    /// Number of these answers.
    pub answers: u64,
    /// Mean latency, in microseconds.
    pub mean_us: f64,
    /// Longest latency, in microseconds.
    pub max_us: f64,
}

/// How a load at a fixed rate kept to its schedule. Its latencies begin at the scheduled instants.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct OpenLoop {
    /// Requests that were due within the load's duration.
    pub scheduled: u64,
    /// Due requests that were not started before the load's end.
    pub dropped: u64,
    /// Dropped requests for which the load generator was late: it was busy or not awake, although a
    /// connection was free. For all others, the path kept every connection waiting.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_late: u64,
    /// Median time from a request's scheduled instant to its start, in microseconds.
    pub late_us_p50: Option<f64>,
    /// 99th percentile of this time.
    pub late_us_p99: Option<f64>,
    /// Longest such time.
    pub late_us_max: Option<f64>,
}

/// Distribution of latencies, in microseconds. Values are `None` if there are no latencies.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Latency {
    /// Mean.
    pub mean_us: Option<f64>,
    /// Shortest.
    pub min_us: Option<f64>,
    /// Median.
    pub p50_us: Option<f64>,
    /// 90th percentile.
    pub p90_us: Option<f64>,
    /// 95th percentile.
    pub p95_us: Option<f64>,
    /// 99th percentile.
    pub p99_us: Option<f64>,
    /// 99.9th percentile.
    pub p999_us: Option<f64>,
    /// Longest.
    pub max_us: Option<f64>,
    /// Number of latencies that are lower bounds, at a fixed rate. Requests without an answer count
    /// with the time until they failed; requests that were never sent, with the time until a
    /// connection was free after the schedule's end.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub censored: u64,
    /// HdrHistogram of nanoseconds, V2 compressed, in base64.
    pub histogram: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Fewest correct answers in the first quarter of a load with which its last is compared. Of 30,
/// the standard deviation by chance alone is 18 %, so half as many are no chance.
const QUARTER_ANSWERS_MIN: u64 = 30;

impl Load {
    /// Returns how it asked.
    pub fn front(&self) -> FrontProtocol {
        FrontProtocol {
            tls: self.tls,
            protocol: self.protocol,
        }
    }

    /// Returns whether there is a correct answer to form metrics of.
    pub fn has_metrics(&self) -> bool {
        self.good > 0 && self.elapsed_us > 0.0
    }

    /// Returns the number of correct answers in the last quarter of the load, as a share of those
    /// in the first. `None` if they are not counted so, or if the first has too few.
    pub fn slowdown(&self) -> Option<f64> {
        let slices = &self.good_by_twentieth;
        let quarter = slices.len() / 4;
        let first: u64 = slices.get(..quarter)?.iter().sum();
        let last: u64 = slices.get(slices.len() - quarter..)?.iter().sum();
        (first >= QUARTER_ANSWERS_MIN).then(|| last as f64 / first as f64)
    }

    /// Returns the number of latencies: those of correct answers, except the first ones of
    /// connections, and those of requests without an answer.
    pub fn latencies(&self) -> u64 {
        let first = self.first.as_ref().map_or(0, |first| first.answers);
        let good = self.good.saturating_sub(first);
        good.saturating_add(self.latency.censored)
    }

    /// Returns the number of requests that were sent and got no correct answer.
    pub fn failed(&self) -> u64 {
        self.requests - self.good
    }

    /// Returns the number of requests that were never sent because every connection was waiting.
    pub fn dropped_by_path(&self) -> u64 {
        let open = self.open_loop.as_ref();
        open.map_or(0, |open| open.dropped.saturating_sub(open.dropped_late))
    }

    /// Returns the number of requests that got no correct answer, or that the path dropped.
    pub fn lost(&self) -> u64 {
        self.failed() + self.dropped_by_path()
    }

    /// Returns the number of requests that were sent or due.
    pub fn due(&self) -> u64 {
        let dropped = self.open_loop.as_ref().map_or(0, |open| open.dropped);
        self.requests + dropped
    }
}

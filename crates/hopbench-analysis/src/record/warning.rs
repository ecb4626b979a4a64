//! Rules of validity, as values: what was found, and what to do.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A rule of validity that a trial breaks. Its figures stand, with this beside them.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Warning {
    /// At a fixed rate, fewer requests per second were answered than were to be asked.
    Behind { offered_rps: f64, achieved_rps: f64 },
    /// Fewer connections than there should be were open in the middle of the load.
    Connections { open: u64, concurrency: u32 },
    /// At a fixed rate, a runnable task waited for a core for this share of the time.
    CpuPressure { share: f64 },
    /// At a fixed rate, these were never asked because the path had not answered earlier ones.
    Dropped { dropped: u64, scheduled: u64 },
    /// At a fixed rate, these were never asked because the load generator was late.
    DroppedLate { dropped: u64, scheduled: u64 },
    /// Requests failed or were answered wrongly.
    Errors { failed: u64, requests: u64 },
    /// The load generator used all the cores that it can use: it is the limit.
    GeneratorBound { cores_used: f64, cores_max: f64 },
    /// With many connections the machine did nothing for this share of its time.
    Idle { share: f64 },
    /// Concurrency and rate × latency disagree (Little 1961): the generator was not always asking.
    LittlesLaw { concurrency: u32, in_flight: f64 },
    /// A few answers took so long that the p99 says nothing of them.
    MeanAboveP99 { mean_us: f64, p99_us: f64 },
    /// Neither the path nor the load generator used this share of the machine's time.
    OtherLoad { share: f64 },
    /// The load ended long after it should have: some requests were answered very late.
    Overrun { asked_ms: u64, took_ms: f64 },
    /// The hypervisor took this share of the machine's time.
    Steal { share: f64 },
    /// A keep-alive load opened this many connections beyond those that it needs: the path closed
    /// some.
    Reconnects {
        opened: u64,
        concurrency: u32,
        requests: u64,
    },
    /// A process counted far more bytes than the client received or sent.
    Repeated {
        process: String,
        counted_bytes: u64,
        body_bytes: u64,
    },
    /// The first attempt failed for a reason outside of the path; this is the second.
    Retried { cause: String },
    /// A core's clock was at this share of its fastest.
    SlowClock { share: f64 },
    /// Too few answers for a p99: fewer than 20 lie above it.
    ShortTail { good: u64 },
    /// A process was found at the end that had left the group of the server that started it.
    Strayed { process: String },
    /// Cores were slowed down this often because they were too hot.
    Throttled { times: u64 },
    /// No body was compared with the expected one while the path was under load.
    Unchecked { good: u64 },
    /// A process had to be killed at the end.
    Unstoppable { process: String },
}

impl Warning {
    /// For a list of how many there are of each.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Behind { .. } => "behind the schedule",
            Self::Connections { .. } => "too few connections",
            Self::CpuPressure { .. } => "waiting for cores",
            Self::Dropped { .. } => "requests dropped",
            Self::DroppedLate { .. } => "dropped by the generator",
            Self::Errors { .. } => "errors",
            Self::GeneratorBound { .. } => "generator is the limit",
            Self::Idle { .. } => "machine idle",
            Self::LittlesLaw { .. } => "generator not always asking",
            Self::MeanAboveP99 { .. } => "mean above p99",
            Self::OtherLoad { .. } => "other load",
            Self::Overrun { .. } => "overrun",
            Self::Reconnects { .. } => "connections opened anew",
            Self::Repeated { .. } => "bytes carried twice",
            Self::Retried { .. } => "second attempt",
            Self::ShortTail { .. } => "too few answers for a p99",
            Self::SlowClock { .. } => "slow clock",
            Self::Steal { .. } => "stolen time",
            Self::Strayed { .. } => "left its group",
            Self::Throttled { .. } => "throttled",
            Self::Unchecked { .. } => "bodies not compared",
            Self::Unstoppable { .. } => "killed at the end",
        }
    }

    /// What was found.
    fn facts(&self) -> String {
        match self {
            Self::Behind {
                offered_rps,
                achieved_rps,
            } => format!("{achieved_rps:.0} of {offered_rps:.0} requests per second were answered"),
            Self::Connections { open, concurrency } => {
                format!("{open} of {concurrency} connections were open in the middle of the load")
            }
            Self::Dropped { dropped, scheduled } => {
                format!(
                    "{dropped} of {scheduled} requests were never asked: every connection waited \
                     for the path"
                )
            }
            Self::DroppedLate { dropped, scheduled } => {
                format!("the load generator was too late to ask {dropped} of {scheduled} requests")
            }
            Self::Errors { failed, requests } => {
                format!("{failed} of {requests} requests got no right answer")
            }
            Self::GeneratorBound {
                cores_used,
                cores_max,
            } => format!("the load generator used {cores_used:.2} of {cores_max:.0} cores"),
            Self::LittlesLaw {
                concurrency,
                in_flight,
            } => {
                format!("rate × latency says {in_flight:.1} requests in flight, not {concurrency}")
            }
            Self::MeanAboveP99 { mean_us, p99_us } => {
                let (mean_ms, p99_ms) = (mean_us / 1e3, p99_us / 1e3);
                format!("the mean ({mean_ms:.2} ms) is above the p99 ({p99_ms:.2} ms)")
            }
            Self::Overrun { asked_ms, took_ms } => {
                format!("the load took {took_ms:.0} ms instead of {asked_ms}")
            }
            Self::Reconnects {
                opened,
                concurrency,
                requests,
            } => format!(
                "{opened} connections were opened for {requests} requests on {concurrency} that \
                 should stay open"
            ),
            Self::ShortTail { good } => format!("{good} answers are too few for a p99"),
            Self::Unchecked { good } => {
                format!("of {good} answers no body was compared with the expected one")
            }
            Self::CpuPressure { .. }
            | Self::Idle { .. }
            | Self::OtherLoad { .. }
            | Self::Repeated { .. }
            | Self::Retried { .. }
            | Self::SlowClock { .. }
            | Self::Steal { .. }
            | Self::Strayed { .. }
            | Self::Throttled { .. }
            | Self::Unstoppable { .. } => self.facts_of_machine(),
        }
    }

    /// What was found of the machine, or of the path's processes.
    fn facts_of_machine(&self) -> String {
        let percent = |share: &f64| share * 100.0;
        match self {
            Self::CpuPressure { share } => {
                let percent = percent(share);
                format!("for {percent:.0} % of the time something waited for a core")
            }
            Self::Idle { share } => {
                format!(
                    "the machine was idle for {:.0} % of the time",
                    percent(share)
                )
            }
            Self::OtherLoad { share } => {
                format!("others used {:.0} % of the machine", percent(share))
            }
            Self::Repeated {
                process,
                counted_bytes,
                body_bytes,
            } => format!(
                "'{process}' counted {counted_bytes} bytes, and the bodies were {body_bytes}"
            ),
            Self::Retried { cause } => {
                format!("the first attempt failed, and not by the path: {cause}")
            }
            Self::SlowClock { share } => {
                format!("a core ran at {:.0} % of its fastest clock", percent(share))
            }
            Self::Steal { share } => {
                format!("the hypervisor took {:.1} % of the machine", percent(share))
            }
            Self::Strayed { process } => {
                format!("'{process}' left the group of its server: what it used is not counted")
            }
            Self::Throttled { times } => {
                format!("cores were slowed down {times} times because they were too hot")
            }
            Self::Unstoppable { process } => {
                format!("'{process}' did not stop when asked and was killed")
            }
            Self::Behind { .. }
            | Self::Connections { .. }
            | Self::Dropped { .. }
            | Self::DroppedLate { .. }
            | Self::Errors { .. }
            | Self::GeneratorBound { .. }
            | Self::LittlesLaw { .. }
            | Self::MeanAboveP99 { .. }
            | Self::Overrun { .. }
            | Self::Reconnects { .. }
            | Self::ShortTail { .. }
            | Self::Unchecked { .. } => String::new(),
        }
    }

    /// What it means, and what to do; nothing where the facts say it.
    fn advice(&self) -> &'static str {
        match self {
            Self::Behind { .. } => {
                ": the path does not hold this rate; its latencies say how long the load was"
            }
            Self::Connections { .. } => {
                ": it was less than it says; see what refuses or closes them"
            }
            Self::CpuPressure { .. } => {
                ": latencies have the scheduler's share in them; use a lower --rate, or more cores"
            }
            Self::Dropped { .. } => {
                ": the latencies have the time that they waited; use a lower --rate, or more \
                 connections (--concurrency)"
            }
            Self::DroppedLate { .. } => {
                ": the latencies have its lateness in them; use more --load-threads or a lower \
                 --rate, or repeat when the machine is quiet"
            }
            Self::GeneratorBound { .. } => {
                ": it is the limit, not the path; compare CPU per request, or use more \
                 --load-threads"
            }
            Self::Idle { .. } => ": what limits this path is not CPU time",
            Self::LittlesLaw { .. } => {
                ": the load generator was not always asking; use a longer --duration-ms or more \
                 --load-threads"
            }
            Self::MeanAboveP99 { .. } => ": a few answers took very long; look at the maximum",
            Self::OtherLoad { .. } | Self::Steal { .. } => "; repeat when it is quiet",
            Self::Overrun { .. } => {
                ": it waited for single requests, and its RPS is of a path that stood still; see \
                 the path's logs"
            }
            Self::Reconnects { .. } => {
                ": the figures have the cost of opening them; see what closes them, such as a \
                 limit of requests per connection, or answers that nobody asked for"
            }
            Self::Repeated { .. } => ": something was carried twice, or for somebody else",
            Self::Unchecked { .. } => {
                ": the path refused another connection, or answered too slowly"
            }
            Self::ShortTail { .. } => "; use a longer --duration-ms",
            Self::SlowClock { .. } => "; set the governor to 'performance'",
            Self::Strayed { .. } => "; start servers in the foreground",
            Self::Throttled { .. } => "; cool the machine",
            Self::Errors { .. } | Self::Retried { .. } | Self::Unstoppable { .. } => "",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.facts())?;
        f.write_str(self.advice())
    }
}

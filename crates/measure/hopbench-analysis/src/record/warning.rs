//! Validity warnings: the facts that were found, and what to do.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::statistics::samples_min;

/// A validity rule that a trial broke. The trial keeps its metrics, with the warning beside them.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Warning {
    /// At a fixed rate, fewer requests per second were answered than were due.
    Behind {
        /// Requests per second that were due.
        offered_rps: f64,
        /// Correct answers per second.
        achieved_rps: f64,
    },
    /// Fewer connections than there should be were open in the middle of the load.
    Connections {
        /// Number of open connections.
        open: u64,
        /// Number of connections that should have been open.
        concurrency: u32,
    },
    /// At a fixed rate, a runnable task often had to wait for a core.
    CpuPressure {
        /// Share of the load's duration, from 0 to 1.
        share: f64,
    },
    /// At a fixed rate, requests were never sent because the path had not answered earlier ones.
    Dropped {
        /// Number of these requests.
        dropped: u64,
        /// Number of requests that were due.
        scheduled: u64,
    },
    /// At a fixed rate, requests were never sent because the load generator was late.
    DroppedLate {
        /// Number of these requests.
        dropped: u64,
        /// Number of requests that were due.
        scheduled: u64,
    },
    /// Requests failed or got a wrong answer.
    Errors {
        /// Number of these requests.
        failed: u64,
        /// Number of requests that were sent.
        requests: u64,
    },
    /// The load generator used all the cores that it can use: it is the limit.
    GeneratorBound {
        /// Cores that it used, on average.
        cores_used: f64,
        /// Cores that it can use.
        cores_max: f64,
    },
    /// The machine was often idle, although there were many connections.
    Idle {
        /// Share of the machine's time, from 0 to 1.
        share: f64,
    },
    /// Rate × latency is far from the number of connections (Little 1961): the load generator did
    /// not always keep a request in flight on each.
    LittlesLaw {
        /// Number of connections.
        concurrency: u32,
        /// Requests in flight, by rate × latency.
        in_flight: f64,
    },
    /// A few answers took so long that the p99 says nothing about them.
    MeanAboveP99 {
        /// Mean latency, in microseconds.
        mean_us: f64,
        /// 99th percentile of the latencies, in microseconds.
        p99_us: f64,
    },
    /// Something other than the path, the load generator and hopbench used the machine.
    OtherLoad {
        /// Share of the machine's time, from 0 to 1, beyond what a quiet machine may show.
        share: f64,
    },
    /// The load ended long after it should have: some requests were answered very late.
    Overrun {
        /// Duration that the load should have, in milliseconds.
        asked_ms: u64,
        /// Duration that it had, in milliseconds.
        took_ms: f64,
    },
    /// The hypervisor gave much of the machine's time to others.
    Steal {
        /// Share of the machine's time, from 0 to 1.
        share: f64,
    },
    /// A keep-alive load opened more connections than it needs: the path closed some.
    Reconnects {
        /// Number of connections that were opened during the load.
        opened: u64,
        /// Number of connections that should stay open.
        concurrency: u32,
        /// Number of requests that were sent.
        requests: u64,
    },
    /// A process counted far more bytes than the client received or sent.
    Repeated {
        /// Name of the process.
        process: String,
        /// Bytes that the process counted.
        counted_bytes: u64,
        /// Bytes of all bodies that the client received or sent, whichever are more.
        body_bytes: u64,
    },
    /// The first attempt failed for a reason outside of the path; this is the second.
    Retried {
        /// Cause of the first failure.
        cause: String,
    },
    /// The slowest core ran far below its fastest clock.
    SlowClock {
        /// Share of its fastest clock, from 0 to 1.
        share: f64,
    },
    /// Too few latencies for a p99: fewer than 20 lie above it.
    ShortTail {
        /// Number of latencies.
        good: u64,
    },
    /// At the end there was a process that had left the process group of its server.
    Strayed {
        /// Name and id of the process.
        process: String,
    },
    /// The CPU quota of the control group stopped everything in it.
    QuotaStops {
        /// Number of periods in which it was reached.
        times: u64,
    },
    /// Cores were slowed down because they were too hot.
    Throttled {
        /// Number of times, over all cores.
        times: u64,
    },
    /// No body was compared with the expected one while the path was under load.
    Unchecked {
        /// Number of correct answers.
        good: u64,
    },
    /// A process had to be killed at the end.
    Unstoppable {
        /// Name of the process.
        process: String,
    },
}

fn few_answers(good: u64) -> String {
    let needed = samples_min(0.99);
    let answers = if good == 1 {
        "answer is"
    } else {
        "answers are"
    };
    format!("{good} {answers} too few for a p99, which needs {needed}")
}

impl Warning {
    /// Returns the share of the machine that something outside of the path has taken from it, as
    /// far as it is known. `None` if the warning is about something else.
    pub fn taken_share(&self) -> Option<f64> {
        match self {
            Self::Steal { share } | Self::OtherLoad { share } => Some(*share),
            Self::SlowClock { share } => Some(1.0 - share),
            Self::QuotaStops { .. } | Self::Throttled { .. } => Some(0.0),
            _ => None,
        }
    }

    /// Returns whether something outside of the path disturbed the trial that may be over when it
    /// is repeated. A CPU quota is not: it stops a path that needs more CPU time more often.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::OtherLoad { .. }
                | Self::SlowClock { .. }
                | Self::Steal { .. }
                | Self::Throttled { .. }
        )
    }

    /// Returns a short name, under which warnings are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Behind { .. } => "behind schedule",
            Self::Connections { .. } => "too few connections",
            Self::CpuPressure { .. } => "waiting for cores",
            Self::Dropped { .. } => "requests dropped",
            Self::DroppedLate { .. } => "dropped by the generator",
            Self::Errors { .. } => "errors",
            Self::GeneratorBound { .. } => "generator is the limit",
            Self::Idle { .. } => "machine idle",
            Self::LittlesLaw { .. } => "too few requests in flight",
            Self::MeanAboveP99 { .. } => "mean above p99",
            Self::OtherLoad { .. } => "other load",
            Self::Overrun { .. } => "overrun",
            Self::Reconnects { .. } => "connections reopened",
            Self::Repeated { .. } => "bytes carried twice",
            Self::Retried { .. } => "second attempt",
            Self::ShortTail { .. } => "too few answers for a p99",
            Self::SlowClock { .. } => "slow clock",
            Self::Steal { .. } => "stolen time",
            Self::Strayed { .. } => "left its process group",
            Self::QuotaStops { .. } => "stopped by a CPU quota",
            Self::Throttled { .. } => "throttled",
            Self::Unchecked { .. } => "bodies not compared",
            Self::Unstoppable { .. } => "killed at the end",
        }
    }

    /// Describes the facts that were found.
    fn facts(&self) -> String {
        match self {
            Self::Behind {
                offered_rps,
                achieved_rps,
            } => format!(
                "only {achieved_rps:.0} of {offered_rps:.0} offered requests per second were \
                 answered"
            ),
            Self::Connections { open, concurrency } => {
                format!(
                    "only {open} of {concurrency} connections were open in the middle of the load"
                )
            }
            Self::Dropped { dropped, scheduled } => {
                format!(
                    "{dropped} of {scheduled} requests were never sent, because the path kept \
                     every connection waiting"
                )
            }
            Self::DroppedLate { dropped, scheduled } => {
                format!("the load generator was too late to send {dropped} of {scheduled} requests")
            }
            Self::Errors { failed, requests } => {
                format!("{failed} of {requests} requests were not answered correctly")
            }
            Self::GeneratorBound {
                cores_used,
                cores_max,
            } => format!("the load generator used {cores_used:.2} of {cores_max:.0} cores"),
            Self::LittlesLaw {
                concurrency,
                in_flight,
            } => {
                format!("rate × latency gives {in_flight:.1} requests in flight, not {concurrency}")
            }
            Self::MeanAboveP99 { mean_us, p99_us } => {
                let (mean_ms, p99_ms) = (mean_us / 1e3, p99_us / 1e3);
                format!("the mean ({mean_ms:.2} ms) is above the p99 ({p99_ms:.2} ms)")
            }
            Self::Overrun { asked_ms, took_ms } => {
                format!("the load took {took_ms:.0} ms instead of {asked_ms} ms")
            }
            Self::Reconnects {
                opened,
                concurrency,
                requests,
            } => format!(
                "{opened} connections were opened for {requests} requests, although {concurrency} \
                 should have stayed open"
            ),
            Self::ShortTail { good } => few_answers(*good),
            Self::Unchecked { good } => {
                format!("none of the {good} answers had its body compared with the expected one")
            }
            Self::CpuPressure { .. }
            | Self::Idle { .. }
            | Self::OtherLoad { .. }
            | Self::Repeated { .. }
            | Self::Retried { .. }
            | Self::SlowClock { .. }
            | Self::Steal { .. }
            | Self::Strayed { .. }
            | Self::QuotaStops { .. }
            | Self::Throttled { .. }
            | Self::Unstoppable { .. } => self.facts_of_machine(),
        }
    }

    /// Describes the facts about the machine or about the path's processes.
    fn facts_of_machine(&self) -> String {
        let percent = |share: &f64| share * 100.0;
        match self {
            Self::CpuPressure { share } => {
                let percent = percent(share);
                format!("for {percent:.0} % of the time, something was waiting for a core")
            }
            Self::Idle { share } => {
                format!(
                    "the machine was idle for {:.0} % of the time",
                    percent(share)
                )
            }
            Self::OtherLoad { share } => {
                format!(
                    "other programs used {:.0} % of the machine's time",
                    percent(share)
                )
            }
            Self::Repeated {
                process,
                counted_bytes,
                body_bytes,
            } => format!(
                "'{process}' counted {counted_bytes} bytes, but the bodies had only {body_bytes}"
            ),
            Self::Retried { cause } => {
                format!("the first attempt failed through no fault of the path: {cause}")
            }
            Self::SlowClock { share } => {
                format!(
                    "a core ran at only {:.0} % of its maximum clock frequency",
                    percent(share)
                )
            }
            Self::Steal { share } => {
                format!(
                    "the hypervisor took {:.1} % of the machine's time",
                    percent(share)
                )
            }
            Self::Strayed { process } => {
                format!(
                    "'{process}' left its server's process group, so its CPU time and memory are \
                     not counted"
                )
            }
            Self::QuotaStops { times } => {
                format!("the CPU quota of the control group stopped everything {times} times")
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

    /// Explains the facts and what to do; empty if the facts speak for themselves.
    fn advice(&self) -> &'static str {
        match self {
            Self::Behind { .. } => {
                ": the path does not hold this rate, so its latencies grow with the length of the \
                 load"
            }
            Self::Connections { .. } => {
                ": the load was lighter than stated; find out what refuses or closes connections"
            }
            Self::CpuPressure { .. } => {
                ": latencies include scheduling delays; use a lower rate or more cores"
            }
            Self::Dropped { .. } => {
                ": the latencies include the time that they waited; use a lower rate or more \
                 connections (--concurrency)"
            }
            Self::DroppedLate { .. } => {
                ": the latencies include its delays; use more --load-threads or a lower rate, or \
                 repeat when the machine is quiet"
            }
            Self::GeneratorBound { .. } => {
                ": it is the limit, not the path; compare CPU time per request, or use more \
                 --load-threads"
            }
            Self::Idle { .. } => ": something other than CPU time limits this path",
            Self::LittlesLaw { .. } => {
                ": the load generator did not keep every connection busy; use a longer \
                 load or more --load-threads"
            }
            Self::MeanAboveP99 { .. } => ": a few answers took very long; look at the maximum",
            Self::OtherLoad { .. } | Self::Steal { .. } => "; repeat when the machine is quiet",
            Self::Overrun { .. } => {
                ": it waited for a few requests, so its RPS is that of a path that stood still; \
                 see the path's logs"
            }
            Self::Reconnects { .. } => {
                ": the metrics include the cost of opening them; find out what closes them, such \
                 as a limit on requests per connection, or answers that nobody asked for"
            }
            Self::Repeated { .. } => ": something was carried twice, or for another client",
            Self::Unchecked { .. } => {
                ": the path refused the extra connection, or answered too slowly"
            }
            Self::ShortTail { .. } => "; use a longer load ('--duration-ms')",
            Self::SlowClock { .. } => "; set the governor to 'performance'",
            Self::Strayed { .. } => "; start servers in the foreground",
            Self::QuotaStops { .. } => "; raise 'cpu.max' of the control group, or remove it",
            Self::Throttled { .. } => "; improve the machine's cooling",
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

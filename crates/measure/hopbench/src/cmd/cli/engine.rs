//! The arguments of the subcommands that are about other load engines.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::{
    catalog::{CONCURRENCY_MAX, DURATION_MS_MAX, RATE_RPS_MAX, Target},
    cmd::number::within,
    export::EngineTarget,
    plan::selection::Overrides,
};

#[derive(Debug, Args)]
pub(crate) struct Export {
    pub(crate) engine: Engine,
    /// Name or file of a scenario
    pub(crate) scenario: String,
    /// Address of the server that the engine asks, such as 'http://10.0.0.5:8080'
    #[arg(long, value_name = "URL")]
    pub(crate) target: EngineTarget,
    /// Directory to write [default: ./SCENARIO-locust or ./SCENARIO-k6]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Policy whose limits become thresholds, by name or file; only for k6 [default: the first
    /// that 'hopbench list' names]
    #[arg(long, value_name = "POLICY")]
    pub(crate) gate: Option<String>,
    /// Expect the answers of this path [default: those of the scenario's reference]
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// Request this endpoint instead
    #[arg(long, value_name = "TARGET")]
    pub(crate) endpoint: Option<Target>,
    /// Use this number of connections instead
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = within::<u32>(1, CONCURRENCY_MAX))]
    pub(crate) concurrency: Option<u32>,
    /// Request at this fixed rate instead, in requests per second
    #[arg(long, value_name = "RPS", allow_negative_numbers = true,
        value_parser = within::<u32>(1, RATE_RPS_MAX))]
    pub(crate) rate: Option<u32>,
    /// Make the load for this many milliseconds instead
    #[arg(long, value_name = "MS", allow_negative_numbers = true,
        value_parser = within::<u64>(1, DURATION_MS_MAX))]
    pub(crate) duration_ms: Option<u64>,
}

/// An engine that makes load on several machines.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Engine {
    /// Python, with a master and workers
    Locust,
    /// JavaScript, with k6-operator on several machines
    K6,
}

impl Export {
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            endpoints: self.endpoint.iter().cloned().collect(),
            concurrency: self.concurrency.into_iter().collect(),
            rates: self.rate.into_iter().collect(),
            duration_ms: self.duration_ms,
            ..Overrides::default()
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// 'hopbench-external.json' of an exported project, Locust's '*_stats.csv', or k6's summary as
    /// JSON
    pub(crate) file: PathBuf,
    /// Keep the figures in this run's directory; its report shows them apart
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<PathBuf>,
}

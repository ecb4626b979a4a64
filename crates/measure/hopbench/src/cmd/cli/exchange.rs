//! Formats of other tools in which a run's figures can be printed.

use clap::ValueEnum;

/// A format of another tool.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Exchange {
    /// Bencher's JSON (BMF): medians with the lowest and highest of the blocks
    Bmf,
    /// A log of HdrHistogram (V2), with an interval for each trial
    Hdr,
    /// Prometheus' text format: medians
    Prometheus,
    /// CSV with a line for each second of loads in stages
    Seconds,
}
